/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter over the source of a mirror. In write-blocking mode what guests write goes to the
 * source and then to the target.
 *
 * Such a write takes the granules that it touches, so nobody copies or writes to them at the
 * same time. The source's bitmap marks them dirty. When the target has been written, those
 * that were clean before, or that the write covers, are equal on both sides and clean again.
 * That is true as long as everybody who writes to the source does so in this way: the filter's
 * permissions keep others away, and writes from before the mode was switched on are counted.
 */
#include "miniblk/osdep.h"
#include "block/job/mirror-internal.h"

typedef struct MirrorFilter {
    MirrorJob *job;             /* changed while the filter is drained */
    bool is_commit;
    bool passive;               /* about to go: needs nothing */
    unsigned untracked;         /* writes in flight that have not taken their granules */
} MirrorFilter;

static MirrorFilter *filter_of(BlockDriverState *bs)
{
    return bs->opaque;
}

void mirror__filter_set_commit(BlockDriverState *filter)
{
    filter_of(filter)->is_commit = true;
}

void mirror__filter_set_job(BlockDriverState *filter, MirrorJob *s)
{
    GLOBAL_STATE_CODE();
    bdrv_drained_begin(filter);
    filter_of(filter)->job = s;
    bdrv_drained_end(filter);
}

int mirror__filter_end_commit(BlockDriverState *filter, Error **errp)
{
    MirrorFilter *f = filter_of(filter);
    bool was_commit = f->is_commit;

    GLOBAL_STATE_CODE();
    f->is_commit = false;
    int ret = bdrv_child_refresh_perms(filter, filter->backing, errp);
    if (ret < 0) {
        f->is_commit = was_commit;
    }
    return ret;
}

void mirror__filter_drop_perms(BlockDriverState *filter)
{
    GLOBAL_STATE_CODE();
    filter_of(filter)->passive = true;
    bdrv_child_refresh_perms(filter, filter->backing, &error_abort);
}

/* ---- writes ----------------------------------------------------------------------------- */

typedef enum WriteKind { WRITE_DATA, WRITE_ZEROES, WRITE_DISCARD } WriteKind;

typedef struct Write {
    WriteKind kind;
    int64_t offset, bytes;
    QEMUIOVector *qiov;
    BdrvRequestFlags flags;
} Write;

static int coroutine_fn write_source(BlockDriverState *bs, const Write *w)
{
    switch (w->kind) {
    case WRITE_DATA:
        return bdrv_co_pwritev(bs->backing, w->offset, w->bytes, w->qiov, w->flags);
    case WRITE_ZEROES:
        return bdrv_co_pwrite_zeroes(bs->backing, w->offset, w->bytes, w->flags);
    case WRITE_DISCARD:
        return bdrv_co_pdiscard(bs->backing, w->offset, w->bytes);
    }
    g_assert_not_reached();
}

static int coroutine_fn write_target(MirrorJob *s, const Write *w)
{
    /* FUA is the guest's wish for the source; the target is flushed before it is used */
    return w->kind == WRITE_DATA
           ? blk_co_pwritev(s->target_blk, w->offset, w->bytes, w->qiov, 0)
           : blk_co_pwrite_zeroes(s->target_blk, w->offset, w->bytes,
                                  s->unmap ? w->flags & BDRV_REQ_MAY_UNMAP : 0);
}

/* The part of OP's granules that is equal on both sides after a write to the range. */
static void clean_range(const MirrorOp *op, bool head_was_clean, bool tail_was_clean,
                        int64_t offset, int64_t bytes, int64_t *start, int64_t *end)
{
    MirrorJob *s = op->s;

    *start = op->offset;
    *end = op->offset + op->bytes;
    if (offset > op->offset && !head_was_clean) {
        *start += s->granularity;
    }
    if (offset + bytes < op->offset + op->bytes && !tail_was_clean) {
        *end = QEMU_ALIGN_DOWN(*end - 1, s->granularity);
    }
}

/* The source has been written; the same for the target. */
static void coroutine_fn follow_to_target(MirrorOp *op, const Write *w, bool head_was_clean,
                                          bool tail_was_clean)
{
    MirrorJob *s = op->s;
    int64_t start = op->offset, end = op->offset + op->bytes;
    bool is_read = false;
    int ret;

    blk_inc_in_flight(s->target_blk);
    if (blk_in_drain(s->target_blk)) {
        /*
         * The source need not be drained as well. The target must not be touched, and waiting
         * could be for ever, for whoever drains both. The token came before the look.
         */
        ret = -EAGAIN;
    } else if (mirror__may_write(s, w->offset, w->bytes)) {
        ret = write_target(s, w);
        clean_range(op, head_was_clean, tail_was_clean, w->offset, w->bytes, &start, &end);
    } else {
        ret = mirror__copy(s, start, op->bytes, &is_read);
    }
    blk_dec_in_flight(s->target_blk);
    if (ret >= 0 && start < end) {
        bdrv_reset_dirty_bitmap(s->dirty, start, end - start);
    }
    /* else the granules stay dirty for the job; the guest's write has succeeded */
    if (ret < 0 && ret != -EAGAIN) {
        mirror__error(s, is_read, ret);
    }
}

static int coroutine_fn write_both(BlockDriverState *bs, MirrorJob *s, const Write *w)
{
    MirrorOp op;

    mirror__op_begin(s, &op, w->offset, w->bytes);
    bool alone = !filter_of(bs)->untracked;
    bool head_was_clean = !bdrv_dirty_bitmap_get(s->dirty, op.offset);
    bool tail_was_clean = !bdrv_dirty_bitmap_get(s->dirty, op.offset + op.bytes - 1);
    int ret = write_source(bs, w);
    /* What reads back after a discard is for the job to find out: it stays dirty. */
    if (ret >= 0 && alone && w->kind != WRITE_DISCARD) {
        follow_to_target(&op, w, head_was_clean, tail_was_clean);
    }
    mirror__op_end(&op);
    return ret;
}

static int coroutine_fn guest_write(BlockDriverState *bs, const Write *w)
{
    MirrorFilter *f = filter_of(bs);
    MirrorJob *s = f->job;

    if (s && s->tracking && w->bytes > 0 &&
        qatomic_read(&s->copy_mode) == MIRROR_COPY_MODE_WRITE_BLOCKING) {
        return write_both(bs, s, w);
    }
    f->untracked++;
    int ret = write_source(bs, w);
    f->untracked--;
    return ret;
}

static int coroutine_fn filter_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    Write w = { WRITE_DATA, offset, bytes, qiov, flags };
    return guest_write(bs, &w);
}

static int coroutine_fn filter_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes, BdrvRequestFlags flags)
{
    Write w = { WRITE_ZEROES, offset, bytes, NULL, flags };
    return guest_write(bs, &w);
}

static int coroutine_fn filter_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    Write w = { WRITE_DISCARD, offset, bytes, NULL, 0 };
    return guest_write(bs, &w);
}

/* ---- the rest --------------------------------------------------------------------------- */

static int coroutine_fn filter_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->backing, offset, bytes, qiov, flags);
}

static void filter_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                              BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                              uint64_t *nperm, uint64_t *nshared)
{
    MirrorFilter *f = filter_of(bs);

    if (f->passive) {
        /* it must not be in the way of those who take its place */
        *nperm = 0;
        *nshared = BLK_PERM_ALL;
        return;
    }
    bdrv_default_perms(bs, c, role, reopen_queue, perm, shared, nperm, nshared);
    if (f->is_commit) {
        /*
         * The base is written to, and so makes no sense by itself; nor does, seen from a
         * parent of theirs, what is between. The whole chain must allow that.
         */
        *nperm &= ~BLK_PERM_CONSISTENT_READ;
        *nshared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
    if (f->job && qatomic_read(&f->job->copy_mode) == MIRROR_COPY_MODE_WRITE_BLOCKING &&
        !f->is_commit) {
        *nshared &= ~BLK_PERM_WRITE;
    }
}

BlockDriver mirror__filter_driver = {
    .format_name = "mirror_top",
    .instance_size = sizeof(MirrorFilter),
    .is_filter = true,
    .filtered_child_is_backing = true,
    .bdrv_co_preadv = filter_preadv,
    .bdrv_co_pwritev = filter_pwritev,
    .bdrv_co_pwrite_zeroes = filter_pwrite_zeroes,
    .bdrv_co_pdiscard = filter_pdiscard,
    .bdrv_child_perm = filter_child_perm,
};
