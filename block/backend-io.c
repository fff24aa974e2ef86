/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests of a BlockBackend: coroutines, and the calls that poll. */
#include "block/backend-internal.h"

/* ---- coroutines -------------------------------------------------------------------------------------- */

/*
 * The root may change while a request is parked, so it is looked up afterwards. What a user
 * asks for must lie inside the medium.
 */
static int check_range(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    if (unlikely(!blk->root || !blk->root->bs->drv)) {
        return -ENOMEDIUM;
    }
    if (unlikely(offset < 0 || bytes < 0 || bytes > BDRV_REQUEST_MAX_BYTES)) {
        return -EIO;
    }
    int64_t len = blk->root->bs->drv->has_variable_length
                  ? bdrv_getlength(blk->root->bs)
                  : blk->root->bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE;
    if (unlikely(len < 0)) {
        return len;
    }
    return offset > len || len - offset < bytes ? -EIO : 0;
}

/* Wait until the limits of the backend's group, if it is in one, let the request go. */
static inline void coroutine_fn throttle(BlockBackend *blk, int64_t bytes,
                                         ThrottleDirection direction)
{
    ThrottleGroupMember *tgm = &blk->public.throttle_group_member;

    if (unlikely(qatomic_read(&tgm->throttle_state))) {
        throttle_group_co_io_limits_intercept(tgm, bytes, direction);
    }
}

int coroutine_fn blk__do_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags)
{
    blk__wait_while_drained(blk);
    int ret = check_range(blk, offset, bytes);
    if (unlikely(ret < 0)) {
        return ret;
    }
    throttle(blk, bytes, THROTTLE_READ);
    return bdrv_co_preadv_part(blk->root, offset, bytes, qiov, qiov_offset, flags);
}

int coroutine_fn blk__do_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    blk__wait_while_drained(blk);
    int ret = check_range(blk, offset, bytes);
    if (unlikely(ret < 0)) {
        return ret;
    }
    throttle(blk, bytes, THROTTLE_WRITE);
    return bdrv_co_pwritev_part(blk->root, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn do_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    blk__wait_while_drained(blk);
    int ret = check_range(blk, offset, bytes);
    return ret == 0 ? bdrv_co_pdiscard(blk->root, offset, bytes) : ret;
}

int coroutine_fn blk__do_flush(BlockBackend *blk)
{
    blk__wait_while_drained(blk);
    return blk->root ? bdrv_co_flush(blk->root->bs) : -ENOMEDIUM;
}

static int coroutine_fn do_truncate(BlockBackend *blk, int64_t offset, bool exact,
                                    PreallocMode prealloc, BdrvRequestFlags flags,
                                    Error **errp)
{
    blk__wait_while_drained(blk);
    if (!blk->root) {
        error_setg(errp, "No medium inserted");
        return -ENOMEDIUM;
    }
    return bdrv_co_truncate(blk->root, offset, exact, prealloc, flags, errp);
}

static int coroutine_fn do_block_status(BlockBackend *blk, int64_t offset, int64_t bytes,
                                        int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    blk__wait_while_drained(blk);
    int ret = check_range(blk, offset, bytes);
    return ret == 0 ? bdrv_co_block_status(blk->root->bs, offset, bytes, pnum, map, file)
                    : ret;
}

/* Around each of these: the token. */
#define COUNTED(blk, call) __extension__({                                      \
        blk_inc_in_flight(blk);                                                 \
        int counted_ret_ = (call);                                              \
        blk_dec_in_flight(blk);                                                 \
        counted_ret_; })

int coroutine_fn blk_co_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, size_t qiov_offset,
                                    BdrvRequestFlags flags)
{
    return COUNTED(blk, blk__do_preadv_part(blk, offset, bytes, qiov, qiov_offset, flags));
}

int coroutine_fn blk_co_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags)
{
    return COUNTED(blk, blk__do_pwritev_part(blk, offset, bytes, qiov, qiov_offset, flags));
}

int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    return COUNTED(blk, do_pdiscard(blk, offset, bytes));
}

int coroutine_fn blk_co_flush(BlockBackend *blk)
{
    return COUNTED(blk, blk__do_flush(blk));
}

int coroutine_fn blk_co_block_status(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    return COUNTED(blk, do_block_status(blk, offset, bytes, pnum, map, file));
}

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
                               QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return blk_co_preadv_part(blk, offset, bytes, qiov, 0, flags);
}

int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return blk_co_pwritev_part(blk, offset, bytes, qiov, 0, flags);
}

int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    return bytes < 0 ? -EIO : blk_co_preadv(blk, offset, bytes, &qiov, flags);
}

int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                               const void *buf, BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    return bytes < 0 ? -EIO : blk_co_pwritev(blk, offset, bytes, &qiov, flags);
}

int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags)
{
    return blk_co_pwritev_part(blk, offset, bytes, NULL, 0, flags | BDRV_REQ_ZERO_WRITE);
}

/* ---- calls that poll ------------------------------------------------------------------------------------ */

typedef struct BlkSync {
    BlockBackend *blk;
    int64_t offset, bytes;
    QEMUIOVector *qiov;
    size_t qiov_offset;
    BdrvRequestFlags flags;
    bool exact;
    PreallocMode prealloc;
    Error **errp;
    int ret;
} BlkSync;

/*
 * The token is dropped by the coroutine, not by the waiter: what runs in the waiter's poll
 * may drain, and must not wait for a frame further up its own stack.
 */
#define TWIN(name, call)                                                        \
    static void coroutine_fn name(void *opaque)                                 \
    {                                                                           \
        BlkSync *s = opaque;                                                    \
        BlockBackend *blk = s->blk;                                             \
        s->ret = call;                                                          \
        blk_dec_in_flight(blk);                                                 \
    }

TWIN(read_entry, blk__do_preadv_part(s->blk, s->offset, s->bytes, s->qiov,
                                     s->qiov_offset, s->flags))
TWIN(write_entry, blk__do_pwritev_part(s->blk, s->offset, s->bytes, s->qiov,
                                       s->qiov_offset, s->flags))
TWIN(discard_entry, do_pdiscard(s->blk, s->offset, s->bytes))
TWIN(flush_entry, blk__do_flush(s->blk))
TWIN(truncate_entry, do_truncate(s->blk, s->offset, s->exact, s->prealloc, s->flags,
                                 s->errp))

static int run(void (*entry)(void *), BlkSync *s)
{
    /* counted once, from before it is spawned: it may run in another thread */
    blk_inc_in_flight(s->blk);
    bdrv__run_co(blk_get_aio_context(s->blk), entry, s);
    return s->ret;
}

int coroutine_mixed_fn blk_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags)
{
    BlkSync s = { .blk = blk, .offset = offset, .bytes = bytes, .qiov = qiov,
                  .qiov_offset = qiov_offset, .flags = flags };
    return run(read_entry, &s);
}

int coroutine_mixed_fn blk_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    BlkSync s = { .blk = blk, .offset = offset, .bytes = bytes, .qiov = qiov,
                  .qiov_offset = qiov_offset, .flags = flags };
    return run(write_entry, &s);
}

int coroutine_mixed_fn blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
                                  QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return blk_preadv_part(blk, offset, bytes, qiov, 0, flags);
}

int coroutine_mixed_fn blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                                   QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return blk_pwritev_part(blk, offset, bytes, qiov, 0, flags);
}

int coroutine_mixed_fn blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                                 BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    return bytes < 0 ? -EIO : blk_preadv(blk, offset, bytes, &qiov, flags);
}

int coroutine_mixed_fn blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                                  const void *buf, BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    return bytes < 0 ? -EIO : blk_pwritev(blk, offset, bytes, &qiov, flags);
}

int coroutine_mixed_fn blk_pwrite_compressed(BlockBackend *blk, int64_t offset,
                                             int64_t bytes, const void *buf)
{
    return blk_pwrite(blk, offset, bytes, buf, BDRV_REQ_WRITE_COMPRESSED);
}

int coroutine_mixed_fn blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                         BdrvRequestFlags flags)
{
    return blk_pwritev_part(blk, offset, bytes, NULL, 0, flags | BDRV_REQ_ZERO_WRITE);
}

int coroutine_mixed_fn blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    BlkSync s = { .blk = blk, .offset = offset, .bytes = bytes };
    return run(discard_entry, &s);
}

int coroutine_mixed_fn blk_flush(BlockBackend *blk)
{
    BlkSync s = { .blk = blk };
    return run(flush_entry, &s);
}

int coroutine_mixed_fn blk_truncate(BlockBackend *blk, int64_t offset, bool exact,
                                    PreallocMode prealloc, BdrvRequestFlags flags,
                                    Error **errp)
{
    BlkSync s = { .blk = blk, .offset = offset, .exact = exact, .prealloc = prealloc,
                  .flags = flags, .errp = errp };
    return run(truncate_entry, &s);
}

int64_t coroutine_mixed_fn blk_getlength(BlockBackend *blk)
{
    return blk->root ? bdrv_getlength(blk->root->bs) : -ENOMEDIUM;
}
