/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands on dirty bitmaps. */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/main-loop.h"
#include "qmp/dispatch.h"

enum { GRANULARITY_BYTES_MIN = 512 };

/* ---- finding ---------------------------------------------------------------------------- */

static BlockDriverState *node_of(const json_t *args, Error **errp)
{
    const char *name = qdict_get_try_str(args, "node");
    return bdrv_lookup_bs(name, name, errp);
}

static BdrvDirtyBitmap *find_bitmap(BlockDriverState *bs, const char *name, Error **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_find_dirty_bitmap(bs, name);

    if (!bitmap) {
        error_setg(errp, "Dirty bitmap '%s' not found", name);
    }
    return bitmap;
}

/* The bitmap that ARGS name, if it is none of what FLAGS ask about. */
static BdrvDirtyBitmap *usable_bitmap(const json_t *args, uint32_t flags, Error **errp)
{
    BlockDriverState *bs = node_of(args, errp);
    BdrvDirtyBitmap *bitmap = bs ? find_bitmap(bs, qdict_get_try_str(args, "name"), errp)
                                 : NULL;

    return bitmap && bdrv_dirty_bitmap_check(bitmap, flags, errp) == 0 ? bitmap : NULL;
}

/* ---- add and remove --------------------------------------------------------------------- */

static bool is_granularity(int64_t bytes)
{
    return bytes >= GRANULARITY_BYTES_MIN && !(bytes & (bytes - 1));
}

static bool can_store(BlockDriverState *bs, const char *name, uint32_t granularity,
                      Error **errp)
{
    if (!bdrv_supports_persistent_dirty_bitmap(bs)) {
        error_setg(errp, "Can't store persistent bitmaps to %s: Operation not supported",
                   bdrv_get_device_or_node_name(bs));
        return false;
    }
    if (!bdrv_can_store_new_dirty_bitmap(bs, name, granularity, errp)) {
        error_prepend(errp, "Can't store persistent bitmaps to %s: ",
                      bdrv_get_device_or_node_name(bs));
        return false;
    }
    return true;
}

/* BS is held, and so is its context's lock. */
static void add_bitmap(BlockDriverState *bs, const json_t *args, Error **errp)
{
    const char *name = qdict_get_try_str(args, "name");
    json_t *given = json_object_get(args, "granularity");
    int64_t granularity = given ? json_integer_value(given)
                                : bdrv_get_default_bitmap_granularity(bs);
    bool persistent = json_is_true(json_object_get(args, "persistent"));

    if (!*name) {
        error_setg(errp, "Bitmap name cannot be empty");
        return;
    }
    if (!is_granularity(granularity)) {
        error_setg(errp, "Granularity must be power of 2 and at least %d",
                   GRANULARITY_BYTES_MIN);
        return;
    }
    if (persistent && !can_store(bs, name, granularity, errp)) {
        return;
    }
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(bs, granularity, name, errp);
    if (!bitmap) {
        return;
    }
    if (json_is_true(json_object_get(args, "disabled"))) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, persistent);
}

static void remove_bitmap(BlockDriverState *bs, const json_t *args, Error **errp)
{
    const char *name = qdict_get_try_str(args, "name");
    BdrvDirtyBitmap *bitmap = usable_bitmap(args, BDRV_BITMAP_BUSY | BDRV_BITMAP_RO, errp);

    if (!bitmap || (bdrv_dirty_bitmap_get_persistence(bitmap) &&
                    bdrv_remove_persistent_dirty_bitmap(bs, name, errp) < 0)) {
        return;
    }
    /* that polled */
    bitmap = bdrv_find_dirty_bitmap(bs, name);
    if (bitmap) {
        bdrv_release_dirty_bitmap(bitmap);
    }
}

/* What asks the image may poll. */
static void with_node(const json_t *args, Error **errp,
                      void (*fn)(BlockDriverState *bs, const json_t *args, Error **errp))
{
    BlockDriverState *bs = node_of(args, errp);

    if (bs) {
        AioContext *ctx = bdrv_get_aio_context(bs);
        bdrv_ref(bs);
        aio_context_acquire(ctx);
        fn(bs, args, errp);
        aio_context_release(ctx);
        bdrv_unref(bs);
    }
}

static json_t *cmd_add(json_t *args, Error **errp)
{
    with_node(args, errp, add_bitmap);
    return NULL;
}

static json_t *cmd_remove(json_t *args, Error **errp)
{
    with_node(args, errp, remove_bitmap);
    return NULL;
}

/* ---- what is recorded ------------------------------------------------------------------- */

static json_t *cmd_clear(json_t *args, Error **errp)
{
    BdrvDirtyBitmap *bitmap = usable_bitmap(args, BDRV_BITMAP_DEFAULT, errp);

    if (bitmap) {
        bdrv_clear_dirty_bitmap(bitmap, NULL);
    }
    return NULL;
}

static json_t *cmd_enable(json_t *args, Error **errp)
{
    BdrvDirtyBitmap *bitmap = usable_bitmap(args, BDRV_BITMAP_ALLOW_RO, errp);

    if (bitmap) {
        bdrv_enable_dirty_bitmap(bitmap);
    }
    return NULL;
}

static json_t *cmd_disable(json_t *args, Error **errp)
{
    BdrvDirtyBitmap *bitmap = usable_bitmap(args, BDRV_BITMAP_ALLOW_RO, errp);

    if (bitmap) {
        bdrv_disable_dirty_bitmap(bitmap);
    }
    return NULL;
}

/* ---- merge ------------------------------------------------------------------------------ */

/* A source is a name in the target's node, or {"node", "name"}. */
static BdrvDirtyBitmap *merge_source(BlockDriverState *bs, const json_t *source,
                                     Error **errp)
{
    const char *name = json_string_value(source);

    if (!name) {
        const char *node = qdict_get_try_str(source, "node");
        name = qdict_get_try_str(source, "name");
        bs = bdrv_lookup_bs(node, node, NULL);
        if (!bs) {
            error_setg(errp, "Node '%s' not found", node);
            return NULL;
        }
    }
    return find_bitmap(bs, name, errp);
}

/* All of them, or none: they are put together first, in a bitmap that nobody else sees. */
static bool put_together(BdrvDirtyBitmap *sum, BlockDriverState *bs, const json_t *sources,
                         Error **errp)
{
    size_t i;
    json_t *source;

    json_array_foreach(sources, i, source) {
        BdrvDirtyBitmap *bitmap = merge_source(bs, source, errp);
        if (!bitmap || !bdrv_merge_dirty_bitmap(sum, bitmap, NULL, errp)) {
            return false;
        }
    }
    return true;
}

static json_t *cmd_merge(json_t *args, Error **errp)
{
    BlockDriverState *bs = node_of(args, errp);
    BdrvDirtyBitmap *target = bs ? find_bitmap(bs, qdict_get_try_str(args, "target"), errp)
                                 : NULL;

    if (!target || bdrv_dirty_bitmap_check(target, BDRV_BITMAP_DEFAULT, errp) < 0) {
        return NULL;
    }
    BdrvDirtyBitmap *sum = bdrv_create_dirty_bitmap(bs, bdrv_dirty_bitmap_granularity(target),
                                                    NULL, errp);
    if (sum) {
        bdrv_disable_dirty_bitmap(sum);
        if (put_together(sum, bs, json_object_get(args, "bitmaps"), errp)) {
            bdrv_merge_dirty_bitmap(target, sum, NULL, errp);
        }
        bdrv_release_dirty_bitmap(sum);
    }
    return NULL;
}

#define ONE_BITMAP "{node:str, name:str}"

const QmpCommand qmp_commands_bitmap[] = {
    { "block-dirty-bitmap-add",
      "{node:str, name:str, granularity?:uint32, persistent?:bool, disabled?:bool}", cmd_add },
    { "block-dirty-bitmap-remove", ONE_BITMAP, cmd_remove },
    { "block-dirty-bitmap-clear", ONE_BITMAP, cmd_clear },
    { "block-dirty-bitmap-enable", ONE_BITMAP, cmd_enable },
    { "block-dirty-bitmap-disable", ONE_BITMAP, cmd_disable },
    { "block-dirty-bitmap-merge",
      "{node:str, target:str, bitmaps:[(str / " ONE_BITMAP ")]}", cmd_merge },
    { NULL }
};
