/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The filter "throttle": its node's requests wait for the limits of a throttle group. */
#include "block/filter/filter.h"
#include "miniblk/throttle-groups.h"

/* bs->opaque is the member itself. */

/* Take the name of an existing group out of OPTIONS. Newly allocated; NULL with ERRP set. */
static char *take_group(QDict *options, Error **errp)
{
    g_autofree char *group = NULL;

    if (!bdrv_opt_str(options, "throttle-group", &group, errp)) {
        return NULL;
    }
    if (!group) {
        error_setg(errp, "Please specify a throttle group");
        return NULL;
    }
    if (!throttle_group_by_name(group)) {
        error_setg(errp, "Throttle group '%s' does not exist", group);
        return NULL;
    }
    return g_steal_pointer(&group);
}

static int throttle_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    int ret = bdrv__filter_open_file(bs, options, errp);

    if (ret < 0) {
        return ret;
    }
    g_autofree char *group = take_group(options, errp);
    if (!group) {
        return -EINVAL;
    }
    throttle_group_register_tgm(bs->opaque, group, bdrv_get_aio_context(bs));
    return 0;
}

static void throttle_close(BlockDriverState *bs)
{
    throttle_group_unregister_tgm(bs->opaque);
}

/* ---- reopening: into another group -------------------------------------------------- */

static int throttle_reopen_prepare(BDRVReopenState *reopen_state, BlockReopenQueue *queue,
                                   Error **errp)
{
    reopen_state->opaque = take_group(reopen_state->options, errp);
    return reopen_state->opaque ? 0 : -EINVAL;
}

static void throttle_reopen_commit(BDRVReopenState *reopen_state)
{
    BlockDriverState *bs = reopen_state->bs;

    throttle_group_unregister_tgm(bs->opaque);
    throttle_group_register_tgm(bs->opaque, reopen_state->opaque, bdrv_get_aio_context(bs));
    g_free(reopen_state->opaque);
}

static void throttle_reopen_abort(BDRVReopenState *reopen_state)
{
    g_free(reopen_state->opaque);
}

/* ---- requests --------------------------------------------------------------------- */

static int coroutine_fn throttle_co_preadv_part(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, QEMUIOVector *qiov,
                                                size_t qiov_offset, BdrvRequestFlags flags)
{
    throttle_group_co_io_limits_intercept(bs->opaque, bytes, THROTTLE_READ);
    return bdrv__filter_co_preadv_part(bs, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn throttle_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes, QEMUIOVector *qiov,
                                                 size_t qiov_offset, BdrvRequestFlags flags)
{
    throttle_group_co_io_limits_intercept(bs->opaque, bytes, THROTTLE_WRITE);
    return bdrv__filter_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn throttle_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, BdrvRequestFlags flags)
{
    throttle_group_co_io_limits_intercept(bs->opaque, bytes, THROTTLE_WRITE);
    return bdrv__filter_co_pwrite_zeroes(bs, offset, bytes, flags);
}

static int coroutine_fn throttle_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes)
{
    throttle_group_co_io_limits_intercept(bs->opaque, bytes, THROTTLE_WRITE);
    return bdrv__filter_co_pdiscard(bs, offset, bytes);
}

static int coroutine_fn throttle_co_pwritev_compressed(BlockDriverState *bs, int64_t offset,
                                                       int64_t bytes, QEMUIOVector *qiov,
                                                       size_t qiov_offset)
{
    throttle_group_co_io_limits_intercept(bs->opaque, bytes, THROTTLE_WRITE);
    return bdrv__filter_co_pwritev_compressed(bs, offset, bytes, qiov, qiov_offset);
}

/* ---- drain and moves -------------------------------------------------------------- */

static void throttle_drain_begin(BlockDriverState *bs)
{
    throttle_group_disable_limits(bs->opaque);
}

static void throttle_drain_end(BlockDriverState *bs)
{
    throttle_group_enable_limits(bs->opaque);
}

static void throttle_detach_aio_context(BlockDriverState *bs)
{
    throttle_group_detach_aio_context(bs->opaque);
}

static void throttle_attach_aio_context(BlockDriverState *bs, AioContext *new_context)
{
    throttle_group_attach_aio_context(bs->opaque, new_context);
}

static BlockDriver bdrv_throttle = {
    .format_name = "throttle",
    .instance_size = sizeof(ThrottleGroupMember),
    .is_filter = true,
    .has_variable_length = true,
    .supports_multiqueue = true,
    .bdrv_open = throttle_open,
    .bdrv_close = throttle_close,
    .bdrv_reopen_prepare = throttle_reopen_prepare,
    .bdrv_reopen_commit = throttle_reopen_commit,
    .bdrv_reopen_abort = throttle_reopen_abort,
    .bdrv_co_getlength = bdrv__filter_co_getlength,
    .bdrv_co_preadv_part = throttle_co_preadv_part,
    .bdrv_co_pwritev_part = throttle_co_pwritev_part,
    .bdrv_co_pwrite_zeroes = throttle_co_pwrite_zeroes,
    .bdrv_co_pdiscard = throttle_co_pdiscard,
    .bdrv_co_pwritev_compressed_part = throttle_co_pwritev_compressed,
    .bdrv_drain_begin = throttle_drain_begin,
    .bdrv_drain_end = throttle_drain_end,
    .bdrv_detach_aio_context = throttle_detach_aio_context,
    .bdrv_attach_aio_context = throttle_attach_aio_context,
};

static void throttle_driver_init(void)
{
    bdrv_register(&bdrv_throttle);
}
block_init(throttle_driver_init)
