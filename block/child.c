/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The edge class for parents that are nodes, and the roles of a node's children. */
#include "block/block-internal.h"

static BlockDriverState *parent_of(BdrvChild *c)
{
    return c->opaque;
}

static char *child_parent_desc(BdrvChild *c)
{
    return g_strdup_printf("node '%s'", bdrv_get_node_name(parent_of(c)));
}

static void child_drained_begin(BdrvChild *c)
{
    bdrv__quiesce(parent_of(c));
}

static void child_drained_end(BdrvChild *c)
{
    bdrv__unquiesce(parent_of(c));
}

static bool child_drained_poll(BdrvChild *c)
{
    return bdrv__drain_poll(parent_of(c));
}

static void replace_string(char **field, const char *value)
{
    char *copy = g_strdup(value ? value : "");
    g_free(*field);
    *field = copy;
}

int bdrv_change_backing_file(BlockDriverState *bs, const char *backing_file,
                             const char *backing_fmt)
{
    GLOBAL_STATE_CODE();
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    if (backing_fmt && !backing_file) {
        return -EINVAL;
    }
    if (!bs->drv->bdrv_change_backing_file) {
        return -ENOTSUP;
    }
    int ret = bs->drv->bdrv_change_backing_file(bs, backing_file, backing_fmt);
    if (ret == 0) {
        replace_string(&bs->backing_file, backing_file);
        replace_string(&bs->backing_format, backing_fmt);
    }
    return ret;
}

static int child_update_filename(BdrvChild *c, BlockDriverState *new_base,
                                 const char *filename, Error **errp)
{
    BlockDriverState *parent = parent_of(c);

    if (!(c->role & BDRV_CHILD_COW)) {
        return 0;               /* what a filter or a format is over is nowhere written down */
    }
    bool read_only = bdrv_is_read_only(parent);
    if (read_only) {
        int ret = bdrv_reopen_set_read_only(parent, false, errp);
        if (ret < 0) {
            return ret;
        }
    }
    int ret = bdrv_change_backing_file(parent, filename, new_base->drv->format_name);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not update backing file link of node '%s'",
                         parent->node_name);
    }
    if (read_only) {
        bdrv_reopen_set_read_only(parent, true, NULL);
    }
    return ret;
}

static bool child_change_aio_ctx(BdrvChild *c, AioContext *ctx, GHashTable *visited,
                                 Transaction *tran, Error **errp)
{
    return bdrv_change_aio_context(parent_of(c), ctx, visited, tran, errp);
}

static AioContext *child_parent_aio_context(BdrvChild *c)
{
    return bdrv_get_aio_context(parent_of(c));
}

static void child_resize(BdrvChild *c)
{
    BlockDriverState *parent = parent_of(c);

    /*
     * A filter is as long as what it shows, "raw" follows its file in a way it knows itself;
     * other formats have a length of their own.
     */
    if (parent->drv && parent->drv->is_filter && (c->role & BDRV_CHILD_FILTERED)) {
        parent->total_sectors = c->bs->total_sectors;
        bdrv__parents_resized(parent);
    } else if (parent->drv && parent->drv->has_variable_length &&
               (c->role & BDRV_CHILD_PRIMARY) && qemu_in_coroutine() &&
               bdrv__co_refresh_total_sectors(parent) == 0) {
        bdrv__parents_resized(parent);
    }
}

const BdrvChildClass child_of_bds = {
    .parent_is_bds = true,
    .get_parent_desc = child_parent_desc,
    .drained_begin = child_drained_begin,
    .drained_end = child_drained_end,
    .drained_poll = child_drained_poll,
    .update_filename = child_update_filename,
    .change_aio_ctx = child_change_aio_ctx,
    .get_parent_aio_context = child_parent_aio_context,
    .resize = child_resize,
};

static void tell_parents(BlockDriverState *bs)
{
    BdrvChild *c;
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (c->klass->resize) {
            c->klass->resize(c);
        }
    }
}

void bdrv__parents_resized(BlockDriverState *bs)
{
    /* our token keeps what is below BS in place, but not what is above */
    if (qemu_in_coroutine()) {
        GRAPH_RDLOCK_GUARD();
        tell_parents(bs);
    } else {
        tell_parents(bs);
    }
}

char *bdrv_child_user_desc(BdrvChild *c)
{
    return c->klass->get_parent_desc ? c->klass->get_parent_desc(c)
                                     : g_strdup("another user");
}

BdrvChild *bdrv_cow_child(BlockDriverState *bs)
{
    return bs && bs->drv && !bs->drv->is_filter ? bs->backing : NULL;
}

BdrvChild *bdrv_filter_child(BlockDriverState *bs)
{
    if (!bs || !bs->drv || !bs->drv->is_filter) {
        return NULL;
    }
    return bs->drv->filtered_child_is_backing ? bs->backing : bs->file;
}

BdrvChild *bdrv_filter_or_cow_child(BlockDriverState *bs)
{
    BdrvChild *c = bdrv_cow_child(bs);
    return c ? c : bdrv_filter_child(bs);
}

static BlockDriverState *child_bs(BdrvChild *c)
{
    return c ? c->bs : NULL;
}

BlockDriverState *bdrv_cow_bs(BlockDriverState *bs)
{
    return child_bs(bdrv_cow_child(bs));
}

BlockDriverState *bdrv_filter_bs(BlockDriverState *bs)
{
    return child_bs(bdrv_filter_child(bs));
}

BlockDriverState *bdrv_filter_or_cow_bs(BlockDriverState *bs)
{
    return child_bs(bdrv_filter_or_cow_child(bs));
}

BlockDriverState *bdrv_skip_filters(BlockDriverState *bs)
{
    BlockDriverState *below;
    while ((below = bdrv_filter_bs(bs))) {
        bs = below;
    }
    return bs;
}

BlockDriverState *bdrv_backing_chain_next(BlockDriverState *bs)
{
    BlockDriverState *below = bdrv_cow_bs(bdrv_skip_filters(bs));
    return below ? bdrv_skip_filters(below) : NULL;
}
