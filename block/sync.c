/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls from outside a coroutine: run the coroutine twin in the node's context and poll
 * until it has returned.
 */
#include "block/block-internal.h"

typedef struct RunCo {
    void (*fn)(void *opaque);
    void *opaque;
    BlockDriverState *bs;       /* counted from before the coroutine exists; or NULL */
    bool done;                  /* atomic */
} RunCo;

static void coroutine_fn run_co_entry(void *opaque)
{
    RunCo *r = opaque;

    r->fn(r->opaque);
    if (r->bs) {
        bdrv_dec_in_flight(r->bs);
    }
    /* The result is in OPAQUE before the flag, the flag before the kick; then R is gone. */
    qatomic_set_mb(&r->done, true);
    aio_wait_kick_after_rmw();
}

static bool still_runs(RunCo *r, Coroutine *co)
{
    if (qatomic_load_acquire(&r->done)) {
        return false;
    }
    port_note(PORT_NOTE_WAIT_FOR, co, NULL);
    return true;
}

static void run_co(BlockDriverState *bs, AioContext *ctx, void (*fn)(void *opaque),
                   void *opaque)
{
    RunCo r = { .fn = fn, .opaque = opaque, .bs = bs };
    bool main_thread = qemu_in_main_thread();

    if (main_thread) {
        bdrv__sync_call_begin();
    }
    Coroutine *co = qemu_coroutine_create(run_co_entry, &r);
    aio_co_enter(ctx, co);
    AIO_WAIT_WHILE(ctx, still_runs(&r, co));
    if (main_thread) {
        bdrv__sync_call_end();
    }
}

void bdrv__run_co(AioContext *ctx, void (*fn)(void *opaque), void *opaque)
{
    if (qemu_in_coroutine()) {
        fn(opaque);
    } else {
        run_co(NULL, ctx, fn, opaque);
    }
}

void bdrv__run_co_on(BlockDriverState *bs, void (*fn)(void *opaque), void *opaque)
{
    if (qemu_in_coroutine()) {
        fn(opaque);
    } else {
        bdrv_inc_in_flight(bs);     /* so that BS stays where the coroutine will start */
        run_co(bs, bdrv_get_aio_context(bs), fn, opaque);
    }
}

/* The arguments of any request on an edge or node, and its result. */
typedef struct SyncRequest {
    BdrvChild *child;
    BlockDriverState *bs;
    int64_t offset, bytes;
    QEMUIOVector *qiov;
    BdrvRequestFlags flags;
    bool exact;
    PreallocMode prealloc;
    BdrvCheckResult *check;
    BdrvCheckMode fix;
    Error **errp;
    int64_t ret;
} SyncRequest;

#define TWIN(name, call)                                                        \
    static void coroutine_fn name(void *opaque)                                 \
    {                                                                           \
        SyncRequest *r = opaque;                                                \
        r->ret = call;                                                          \
    }

TWIN(preadv_entry, bdrv_co_preadv(r->child, r->offset, r->bytes, r->qiov, r->flags))
TWIN(pwritev_entry, bdrv_co_pwritev(r->child, r->offset, r->bytes, r->qiov, r->flags))
TWIN(zeroes_entry, bdrv_co_pwrite_zeroes(r->child, r->offset, r->bytes, r->flags))
TWIN(pdiscard_entry, bdrv_co_pdiscard(r->child, r->offset, r->bytes))
TWIN(flush_entry, bdrv_co_flush(r->bs))
TWIN(check_entry, bdrv_co_check(r->bs, r->check, r->fix))
TWIN(truncate_entry, bdrv_co_truncate(r->child, r->offset, r->exact, r->prealloc, r->flags,
                                      r->errp))
TWIN(length_entry, r->bs->drv->bdrv_co_getlength(r->bs))
TWIN(refresh_entry, bdrv__co_refresh_total_sectors(r->bs))

static int64_t run_on(BlockDriverState *bs, void (*entry)(void *), SyncRequest *r)
{
    bdrv__run_co_on(bs, entry, r);
    return r->ret;
}

int coroutine_mixed_fn bdrv_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                                  BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    if (bytes < 0) {
        return -EIO;
    }
    SyncRequest r = { .child = child, .offset = offset, .bytes = bytes, .qiov = &qiov,
                      .flags = flags };
    return run_on(child->bs, preadv_entry, &r);
}

int coroutine_mixed_fn bdrv_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                                   const void *buf, BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    if (bytes < 0) {
        return -EIO;
    }
    SyncRequest r = { .child = child, .offset = offset, .bytes = bytes, .qiov = &qiov,
                      .flags = flags };
    return run_on(child->bs, pwritev_entry, &r);
}

int coroutine_mixed_fn bdrv_pwrite_sync(BdrvChild *child, int64_t offset, int64_t bytes,
                                        const void *buf, BdrvRequestFlags flags)
{
    int ret = bdrv_pwrite(child, offset, bytes, buf, flags);
    return ret < 0 ? ret : bdrv_flush(child->bs);
}

int coroutine_mixed_fn bdrv_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags)
{
    SyncRequest r = { .child = child, .offset = offset, .bytes = bytes, .flags = flags };
    return run_on(child->bs, zeroes_entry, &r);
}

int coroutine_mixed_fn bdrv_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes)
{
    SyncRequest r = { .child = child, .offset = offset, .bytes = bytes };
    return run_on(child->bs, pdiscard_entry, &r);
}

int coroutine_mixed_fn bdrv_flush(BlockDriverState *bs)
{
    SyncRequest r = { .bs = bs };
    return run_on(bs, flush_entry, &r);
}

int coroutine_mixed_fn bdrv_truncate(BdrvChild *child, int64_t offset, bool exact,
                                     PreallocMode prealloc, BdrvRequestFlags flags,
                                     Error **errp)
{
    SyncRequest r = { .child = child, .offset = offset, .exact = exact,
                      .prealloc = prealloc, .flags = flags, .errp = errp };
    return run_on(child->bs, truncate_entry, &r);
}

int coroutine_mixed_fn bdrv_check(BlockDriverState *bs, BdrvCheckResult *res,
                                  BdrvCheckMode fix)
{
    SyncRequest r = { .bs = bs, .check = res, .fix = fix };
    return run_on(bs, check_entry, &r);
}

int bdrv__refresh_total_sectors(BlockDriverState *bs)
{
    SyncRequest r = { .bs = bs };
    return run_on(bs, refresh_entry, &r);
}

int64_t coroutine_mixed_fn bdrv_getlength(BlockDriverState *bs)
{
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    if (bs->drv->has_variable_length && bs->drv->bdrv_co_getlength) {
        SyncRequest r = { .bs = bs };
        return run_on(bs, length_entry, &r);
    }
    return bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE;
}

int64_t coroutine_mixed_fn bdrv_nb_sectors(BlockDriverState *bs)
{
    int64_t len = bdrv_getlength(bs);
    return len < 0 ? len : DIV_ROUND_UP(len, (int64_t)BDRV_SECTOR_SIZE);
}

/* ---- allocated size and info ------------------------------------------------------------------- */

static void coroutine_fn allocated_entry(void *opaque)
{
    SyncRequest *r = opaque;
    BlockDriverState *bs = r->bs;
    BdrvChild *c;

    if (bs->drv->bdrv_co_get_allocated_file_size) {
        r->ret = bs->drv->bdrv_co_get_allocated_file_size(bs);
        return;
    }
    /* A node that stores nothing itself occupies what its children occupy, backing aside. */
    r->ret = QLIST_EMPTY(&bs->children) ? -ENOTSUP : 0;
    QLIST_FOREACH(c, &bs->children, next) {
        if (c->role & (BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_FILTERED)) {
            SyncRequest below = { .bs = c->bs };
            allocated_entry(&below);
            if (below.ret < 0) {
                r->ret = below.ret;
                return;
            }
            r->ret += below.ret;
        }
    }
}

int64_t coroutine_mixed_fn bdrv_get_allocated_file_size(BlockDriverState *bs)
{
    SyncRequest r = { .bs = bs };
    return bs->drv ? run_on(bs, allocated_entry, &r) : -ENOMEDIUM;
}

typedef struct GetInfo {
    BlockDriverState *bs;
    BlockDriverInfo *bdi;
    int ret;
} GetInfo;

static void coroutine_fn get_info_entry(void *opaque)
{
    GetInfo *g = opaque;
    BlockDriverState *bs = g->bs;

    while (!bs->drv->bdrv_co_get_info && bdrv_filter_bs(bs)) {
        bs = bdrv_filter_bs(bs);
    }
    g->ret = bs->drv->bdrv_co_get_info ? bs->drv->bdrv_co_get_info(bs, g->bdi) : -ENOTSUP;
}

int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    GetInfo g = { .bs = bs, .bdi = bdi };

    memset(bdi, 0, sizeof(*bdi));
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    bdrv__run_co_on(bs, get_info_entry, &g);
    return g.ret;
}
