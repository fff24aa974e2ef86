/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inactive nodes: those of an image that somebody else may change at present, another process
 * that it was handed over to. They need no permissions that would change the image, share all
 * of them, and forget on activation what they knew of its contents.
 */
#include "block/block-internal.h"

static bool is_inactive(BlockDriverState *bs)
{
    return bs->open_flags & BDRV_O_INACTIVE;
}

/* Set or clear the flag, with the permissions that go with it. */
static int set_inactive(BlockDriverState *bs, bool inactive, Error **errp)
{
    Transaction *tran = tran_new();
    int old_flags = bs->open_flags;

    bs->open_flags = inactive ? old_flags | BDRV_O_INACTIVE : old_flags & ~BDRV_O_INACTIVE;
    int ret = bdrv__refresh_perms(bs, NULL, tran, errp);
    if (ret < 0) {
        bs->open_flags = old_flags;
    }
    tran_finalize(tran, ret);
    return ret;
}

static int activate(BlockDriverState *bs, Error **errp)
{
    int ret = set_inactive(bs, false, errp);

    if (ret == 0 && bs->drv->bdrv_invalidate_cache) {
        ret = bs->drv->bdrv_invalidate_cache(bs, errp);
    }
    ret = ret < 0 ? ret : bdrv__refresh_total_sectors(bs);
    if (ret < 0) {
        set_inactive(bs, true, NULL);
    }
    return ret;
}

int no_coroutine_fn bdrv_activate(BlockDriverState *bs, Error **errp)
{
    ERRP_GUARD();
    BdrvChild *c, *next;
    int ret = 0;

    GLOBAL_STATE_CODE();
    if (!bs->drv) {
        error_setg(errp, "Node '%s' has no medium", bs->node_name);
        return -ENOMEDIUM;
    }
    if (!is_inactive(bs)) {
        return 0;
    }
    g_autoptr(GPtrArray) activated = g_ptr_array_new();
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    QLIST_FOREACH_SAFE(c, &bs->children, next, next) {
        if (ret == 0 && is_inactive(c->bs)) {
            g_ptr_array_add(activated, c->bs);
            ret = bdrv_activate(c->bs, errp);
        }
    }
    ret = ret < 0 ? ret : activate(bs, errp);
    if (ret < 0) {
        if (!*errp) {
            error_setg_errno(errp, -ret, "Could not activate node '%s'", bs->node_name);
        }
        /* or else they would not look anew next time */
        for (unsigned i = 0; i < activated->len; i++) {
            bdrv_inactivate(g_ptr_array_index(activated, i), NULL);
        }
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    return ret;
}

int no_coroutine_fn bdrv_inactivate(BlockDriverState *bs, Error **errp)
{
    BdrvChild *c, *next;
    int ret = 0;

    GLOBAL_STATE_CODE();
    if (!bs->drv || is_inactive(bs)) {
        return 0;
    }
    if (bs->cum_perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
        error_setg(errp, "Node '%s' is still written to", bs->node_name);
        return -EPERM;
    }
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    if (bs->drv->bdrv_inactivate) {
        ret = bs->drv->bdrv_inactivate(bs);
    }
    ret = ret < 0 ? ret : bdrv_flush(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not inactivate node '%s'", bs->node_name);
    } else {
        ret = set_inactive(bs, true, errp);
    }
    /* a child that has another user which is active stays so */
    QLIST_FOREACH_SAFE(c, &bs->children, next, next) {
        if (ret == 0 && !QLIST_NEXT(QLIST_FIRST(&c->bs->parents), next_parent)) {
            ret = bdrv_inactivate(c->bs, errp);
        }
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    return ret;
}
