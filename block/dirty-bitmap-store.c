/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps that are kept in images: what only the node's driver can tell or do. */
#include "block/block-internal.h"
#include "miniblk/dirty-bitmap.h"

typedef struct StoreCall {
    BlockDriverState *bs;
    const char *name;
    uint32_t granularity;
    Error **errp;
    bool can;
    int ret;
} StoreCall;

bool bdrv_supports_persistent_dirty_bitmap(BlockDriverState *bs)
{
    return bs->drv && bs->drv->bdrv_supports_persistent_dirty_bitmap &&
           bs->drv->bdrv_supports_persistent_dirty_bitmap(bs);
}

/* ---- a new one ------------------------------------------------------------------- */

bool coroutine_fn bdrv_co_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                                     uint32_t granularity, Error **errp)
{
    if (!bs->drv) {
        error_setg(errp, "Node '%s' has no medium", bdrv_get_device_or_node_name(bs));
        return false;
    }
    if (!bs->drv->bdrv_co_can_store_new_dirty_bitmap) {
        error_setg_errno(errp, ENOTSUP, "Can't store persistent bitmaps to %s",
                         bdrv_get_device_or_node_name(bs));
        return false;
    }
    bdrv_inc_in_flight(bs);
    bool can = bs->drv->bdrv_co_can_store_new_dirty_bitmap(bs, name, granularity, errp);
    bdrv_dec_in_flight(bs);
    return can;
}

static void coroutine_fn can_store_entry(void *opaque)
{
    StoreCall *c = opaque;

    c->can = bdrv_co_can_store_new_dirty_bitmap(c->bs, c->name, c->granularity, c->errp);
}

bool coroutine_mixed_fn bdrv_can_store_new_dirty_bitmap(BlockDriverState *bs,
                                                        const char *name,
                                                        uint32_t granularity, Error **errp)
{
    StoreCall c = { .bs = bs, .name = name, .granularity = granularity, .errp = errp };

    bdrv__run_co_on(bs, can_store_entry, &c);
    return c.can;
}

/* ---- one less -------------------------------------------------------------------- */

int coroutine_fn bdrv_co_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                                        const char *name, Error **errp)
{
    if (!bs->drv || !bs->drv->bdrv_co_remove_persistent_dirty_bitmap) {
        return 0;               /* what was never stored needs not be removed */
    }
    bdrv_inc_in_flight(bs);
    int ret = bs->drv->bdrv_co_remove_persistent_dirty_bitmap(bs, name, errp);
    bdrv_dec_in_flight(bs);
    return ret;
}

static void coroutine_fn remove_entry(void *opaque)
{
    StoreCall *c = opaque;

    c->ret = bdrv_co_remove_persistent_dirty_bitmap(c->bs, c->name, c->errp);
}

int coroutine_mixed_fn bdrv_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                                           const char *name, Error **errp)
{
    StoreCall c = { .bs = bs, .name = name, .errp = errp };

    bdrv__run_co_on(bs, remove_entry, &c);
    return c.ret;
}
