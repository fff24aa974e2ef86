/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making images. */
#include "block/block-internal.h"

typedef struct Create {
    BlockDriver *drv;
    const char *filename;
    QDict *opts;
    Error **errp;
    int ret;
} Create;

static void coroutine_fn create_entry(void *opaque)
{
    Create *c = opaque;
    c->ret = c->drv->bdrv_co_create_opts(c->drv, c->filename, c->opts, c->errp);
}

int coroutine_mixed_fn bdrv_create(BlockDriver *drv, const char *filename, QDict *opts,
                                   Error **errp)
{
    ERRP_GUARD();
    Create c = { drv, filename, opts, errp, 0 };
    const char *key;
    json_t *value;

    if (!drv->bdrv_co_create_opts) {
        error_setg(errp, "Driver '%s' does not support image creation", drv->format_name);
        return -ENOTSUP;
    }
    json_object_foreach(opts, key, value) {
        if (!drv->create_opts || !g_strv_contains(drv->create_opts, key)) {
            error_setg(errp, "Invalid parameter '%s'", key);
            return -EINVAL;
        }
    }
    bdrv__run_co(qemu_get_aio_context(), create_entry, &c);
    if (c.ret < 0 && !*errp) {
        error_setg_errno(errp, -c.ret, "Could not create image");
    }
    return c.ret;
}

/* ---- deleting --------------------------------------------------------------------------- */

typedef struct DeleteFile {
    BlockDriverState *bs;
    Error **errp;
    int ret;
} DeleteFile;

static void coroutine_fn delete_file_entry(void *opaque)
{
    DeleteFile *d = opaque;

    d->ret = d->bs->drv->bdrv_co_delete_file(d->bs, d->errp);
}

int coroutine_mixed_fn bdrv_co_delete_file(BlockDriverState *bs, Error **errp)
{
    DeleteFile d = { bs, errp };

    if (!bs->drv || !bs->drv->bdrv_co_delete_file) {
        error_setg(errp, "Node '%s' has nothing that could be deleted", bs->node_name);
        return -ENOTSUP;
    }
    bdrv__run_co_on(bs, delete_file_entry, &d);
    return d.ret;
}
