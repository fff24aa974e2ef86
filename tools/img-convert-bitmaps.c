/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying the bitmaps that an image keeps, after the data. */
#include "miniblk/osdep.h"
#include "tools/img-convert.h"

bool convert_can_copy_bitmaps(BlockDriverState *bs, bool skip_broken)
{
    if (!bdrv_supports_persistent_dirty_bitmap(bs)) {
        error_report("Source lacks bitmap support");
        return false;
    }
    for (BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_first(bs); bitmap && !skip_broken;
         bitmap = bdrv_dirty_bitmap_next(bitmap)) {
        if (bdrv_dirty_bitmap_get_persistence(bitmap) &&
            bdrv_dirty_bitmap_inconsistent(bitmap)) {
            error_report("Cannot copy inconsistent bitmap '%s'",
                         bdrv_dirty_bitmap_name(bitmap));
            error_printf("Try --skip-broken-bitmaps, or use '%s bitmap --remove'\n",
                         error_get_progname());
            return false;
        }
    }
    return true;
}

static bool copy_bitmap(BdrvDirtyBitmap *bitmap, BlockDriverState *target_bs)
{
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    Error *err = NULL;
    BdrvDirtyBitmap *copy = img_add_bitmap(target_bs, name,
                                           bdrv_dirty_bitmap_granularity(bitmap), &err);

    if (!copy) {
        error_reportf_err(err, "Failed to create bitmap %s: ", name);
        return false;
    }
    if (!bdrv_merge_dirty_bitmap(copy, bitmap, NULL, &err)) {
        error_reportf_err(err, "Failed to populate bitmap %s: ", name);
        bdrv_release_dirty_bitmap(copy);
        return false;
    }
    if (!bdrv_dirty_bitmap_enabled(bitmap)) {
        bdrv_disable_dirty_bitmap(copy);
    }
    return true;
}

bool convert_copy_bitmaps(BlockDriverState *bs, BlockBackend *target)
{
    Error *err = NULL;

    for (BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_first(bs); bitmap;
         bitmap = bdrv_dirty_bitmap_next(bitmap)) {
        if (!bdrv_dirty_bitmap_get_persistence(bitmap)) {
            continue;
        }
        if (bdrv_dirty_bitmap_inconsistent(bitmap)) {
            warn_report("Skipping inconsistent bitmap '%s'", bdrv_dirty_bitmap_name(bitmap));
        } else if (!copy_bitmap(bitmap, blk_bs(target))) {
            return false;
        }
    }
    if (!img_store_bitmaps(target, &err)) {
        error_reportf_err(err, "Failed to store bitmaps: ");
        return false;
    }
    return true;
}
