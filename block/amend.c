/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the options that an image was made with. */
#include "block/block-internal.h"

int no_coroutine_fn bdrv_amend_options(BlockDriverState *bs, QDict *opts,
                                       BlockDriverAmendStatusCB *status_cb, void *cb_opaque,
                                       bool force, Error **errp)
{
    ERRP_GUARD();
    const char *key;
    json_t *value;

    GLOBAL_STATE_CODE();
    if (!bs->drv) {
        error_setg(errp, "Node is ejected");
        return -ENOMEDIUM;
    }
    if (!bs->drv->bdrv_amend_options) {
        error_setg(errp, "Block driver '%s' does not support option amendment",
                   bs->drv->format_name);
        return -ENOTSUP;
    }
    json_object_foreach(opts, key, value) {
        if (!g_strv_contains(bs->drv->amend_opts, key)) {
            error_setg(errp, "Invalid parameter '%s'", key);
            return -EINVAL;
        }
    }
    bdrv_drained_begin(bs);
    int ret = bs->drv->bdrv_amend_options(bs, opts, status_cb, cb_opaque, force, errp);
    if (ret < 0 && !*errp) {
        error_setg_errno(errp, -ret, "Could not amend the image");
    }
    bdrv_drained_end(bs);
    return ret;
}
