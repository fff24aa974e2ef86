/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes that keep their data in memory and watch who comes when, and from where. */
#include "graph-fuzz.h"

static void drain_begin(BlockDriverState *bs)
{
    g_assert_cmpint(fuzz_node(bs)->drained++, ==, 0);
}

static void drain_end(BlockDriverState *bs)
{
    qatomic_set(&fuzz_node(bs)->forbidden, false);
    g_assert_cmpint(--fuzz_node(bs)->drained, ==, 0);
}

/* Away from the stack and back through the loop, sometimes. */
static void coroutine_fn maybe_hop(int64_t offset)
{
    if (offset / BLOCK_BYTES % 3 == 0) {
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
}

static void enter(BlockDriverState *bs)
{
    g_assert_false(qatomic_read(&fuzz_node(bs)->forbidden));
    g_assert_true(bdrv_get_aio_context(bs) == qemu_get_current_aio_context());
    qatomic_inc(&fuzz_node(bs)->requests);
}

static int leave(BlockDriverState *bs, int ret)
{
    g_assert_false(qatomic_read(&fuzz_node(bs)->forbidden));
    g_assert_true(bdrv_get_aio_context(bs) == qemu_get_current_aio_context());
    qatomic_dec(&fuzz_node(bs)->requests);
    return ret;
}

/* ---- with data ------------------------------------------------------------------------------- */

static int coroutine_fn data_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    FuzzNode *s = fuzz_node(bs);
    int64_t block = offset / BLOCK_BYTES;
    int ret = 0;

    enter(bs);
    maybe_hop(offset);
    g_assert_cmpint(bytes, ==, BLOCK_BYTES);
    if (s->is_store || s->allocated[block]) {
        qemu_iovec_memset(qiov, 0, s->data[block], bytes);
    } else if (bs->backing) {
        ret = bdrv_co_preadv(bs->backing, offset, bytes, qiov, 0);
    } else {
        qemu_iovec_memset(qiov, 0, 0, bytes);
    }
    return leave(bs, ret);
}

static int coroutine_fn data_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    FuzzNode *s = fuzz_node(bs);
    int64_t block = offset / BLOCK_BYTES;

    enter(bs);
    maybe_hop(offset);
    g_assert_cmpint(bytes, ==, BLOCK_BYTES);
    qemu_iovec_to_buf(qiov, 0, &s->data[block], 1);
    s->allocated[block] = true;
    return leave(bs, 0);
}

static int coroutine_fn overlay_block_status(BlockDriverState *bs, bool want_zero,
                                             int64_t offset, int64_t bytes, int64_t *pnum,
                                             int64_t *map, BlockDriverState **file)
{
    bool allocated = fuzz_node(bs)->allocated[offset / BLOCK_BYTES];

    enter(bs);
    maybe_hop(offset);
    *pnum = BLOCK_BYTES;
    return leave(bs, allocated ? BDRV_BLOCK_DATA : 0);
}

static int data_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    bs->total_sectors = DISK_BLOCKS;
    fuzz_node(bs)->is_store = bs->drv == &fuzz_store;
    return 0;
}

static void refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = BLOCK_BYTES;
    bs->bl.max_transfer = BLOCK_BYTES;
}

static int change_backing_file(BlockDriverState *bs, const char *file, const char *format)
{
    return 0;
}

static int reopen_prepare(BDRVReopenState *state, BlockReopenQueue *q, Error **errp)
{
    FuzzNode *s = fuzz_node(state->bs);

    g_assert_cmpint(s->drained, ==, 1);
    if (s->refuse_reopen) {
        s->refuse_reopen = false;
        error_setg(errp, "no");
        return -EIO;
    }
    state->opaque = g_strdup("prepared");
    return 0;
}

static void reopen_end(BDRVReopenState *state)
{
    g_assert_cmpstr(state->opaque, ==, "prepared");
    g_free(state->opaque);
}

#define FUZZ_COMMON                                                             \
    .instance_size = sizeof(FuzzNode),                                          \
    .bdrv_refresh_limits = refresh_limits,                                      \
    .bdrv_drain_begin = drain_begin,                                            \
    .bdrv_drain_end = drain_end,                                                \
    .bdrv_reopen_prepare = reopen_prepare,                                      \
    .bdrv_reopen_commit = reopen_end,                                           \
    .bdrv_reopen_abort = reopen_end

BlockDriver fuzz_store = {
    .format_name = "fuzz-store",
    .bdrv_open = data_open,
    .bdrv_co_preadv = data_preadv,
    .bdrv_co_pwritev = data_pwritev,
    FUZZ_COMMON,
};

BlockDriver fuzz_overlay = {
    .format_name = "fuzz-overlay",
    .supports_backing = true,
    .bdrv_open = data_open,
    .bdrv_change_backing_file = change_backing_file,
    .bdrv_co_block_status = overlay_block_status,
    .bdrv_co_preadv = data_preadv,
    .bdrv_co_pwritev = data_pwritev,
    FUZZ_COMMON,
};

/* ---- without --------------------------------------------------------------------------------- */

static int coroutine_fn filter_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    enter(bs);
    maybe_hop(offset + BLOCK_BYTES);
    return leave(bs, bdrv_co_preadv(bdrv_filter_child(bs), offset, bytes, qiov, flags));
}

static int coroutine_fn filter_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    enter(bs);
    maybe_hop(offset + BLOCK_BYTES);
    return leave(bs, bdrv_co_pwritev(bdrv_filter_child(bs), offset, bytes, qiov, flags));
}

static int filter_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    bs->total_sectors = DISK_BLOCKS;
    return 0;
}

static int insert_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    bs->total_sectors = DISK_BLOCKS;
    return bdrv_open_file_child(NULL, options, "file", bs, errp);
}

BlockDriver fuzz_filter = {
    .format_name = "fuzz-filter",
    .is_filter = true,
    .filtered_child_is_backing = true,
    .bdrv_open = filter_open,
    .bdrv_co_preadv = filter_preadv,
    .bdrv_co_pwritev = filter_pwritev,
    FUZZ_COMMON,
};

BlockDriver fuzz_insert = {
    .format_name = "fuzz-insert",
    .is_filter = true,
    .bdrv_open = insert_open,
    .bdrv_co_preadv = filter_preadv,
    .bdrv_co_pwritev = filter_pwritev,
    FUZZ_COMMON,
};

void fuzz_drivers_register(void)
{
    bdrv_register(&fuzz_insert);
}
