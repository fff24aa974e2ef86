/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Emptying images, so that they show nothing but what is behind them. */
#include "block/block-internal.h"
#include "miniblk/block-backend.h"

int no_coroutine_fn bdrv_make_empty(BdrvChild *c, Error **errp)
{
    BlockDriverState *bs = c->bs;

    GLOBAL_STATE_CODE();
    if (!bs->drv) {
        error_setg(errp, "Node '%s' has no medium", bs->node_name);
        return -ENOMEDIUM;
    }
    if (!bs->drv->bdrv_make_empty) {
        error_setg(errp, "Driver '%s' cannot empty images", bs->drv->format_name);
        return -ENOTSUP;
    }
    if (!(c->perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) || bdrv_is_read_only(bs)) {
        error_setg(errp, "Node '%s' is not writable here", bs->node_name);
        return -EPERM;
    }
    bdrv_drained_begin(bs);
    int ret = bs->drv->bdrv_make_empty(bs);
    bdrv_drained_end(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to empty '%s'", bs->filename);
    }
    return ret;
}

int no_coroutine_fn blk_make_empty(BlockBackend *blk, Error **errp)
{
    BdrvChild *root = blk_root(blk);

    GLOBAL_STATE_CODE();
    if (!root) {
        error_setg(errp, "Device '%s' has no medium", blk_name(blk));
        return -ENOMEDIUM;
    }
    return bdrv_make_empty(root, errp);
}
