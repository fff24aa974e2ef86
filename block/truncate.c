/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing a node's length. Also the consistency check, the other rare operation. */
#include "block/block-internal.h"
#include "miniblk/dirty-bitmap.h"

/*
 * Growing over a longer backing file would uncover its data; the new area must read as
 * zeroes.
 */
static bool uncovers_backing(BlockDriverState *bs, int64_t old_size, int64_t new_size)
{
    BlockDriverState *backing = bdrv_cow_bs(bs);

    return backing && new_size > old_size &&
           backing->total_sectors * (int64_t)BDRV_SECTOR_SIZE > old_size;
}

static int coroutine_fn truncate_driver(BdrvChild *child, int64_t offset, bool exact,
                                        PreallocMode prealloc, BdrvRequestFlags flags,
                                        Error **errp)
{
    BlockDriverState *bs = child->bs;
    BdrvChild *filtered = bdrv_filter_child(bs);

    if (bs->drv->bdrv_co_truncate) {
        if (flags & ~bs->supported_truncate_flags) {
            error_setg(errp, "Block driver does not support requested flags");
            return -ENOTSUP;
        }
        return bs->drv->bdrv_co_truncate(bs, offset, exact, prealloc, flags, errp);
    }
    if (filtered) {
        return bdrv_co_truncate(filtered, offset, exact, prealloc, flags, errp);
    }
    error_setg(errp, "Image format driver does not support resize");
    return -ENOTSUP;
}

int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags,
                                  Error **errp)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;

    if (!bs->drv) {
        error_setg(errp, "No medium inserted");
        return -ENOMEDIUM;
    }
    if (offset < 0) {
        error_setg(errp, "Image size cannot be negative");
        return -EINVAL;
    }
    if (offset > BDRV_MAX_LENGTH) {
        error_setg(errp, "Required too big image size, it must be not greater than %" PRId64,
                   (int64_t)BDRV_MAX_LENGTH);
        return -EFBIG;
    }
    if (bdrv_is_read_only(bs)) {
        error_setg(errp, "Image is read-only");
        return -EACCES;
    }
    g_assert(qatomic_read(&child->perm) & BLK_PERM_RESIZE);

    int64_t old_size = bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE;
    int64_t from = MIN(old_size, offset);
    if (uncovers_backing(bs, old_size, offset)) {
        flags |= BDRV_REQ_ZERO_WRITE;
    }
    bdrv__submitting(bs, child, "truncate", offset);
    bdrv_inc_in_flight(bs);
    bdrv__tracked_begin(&req, bs, from, MAX(old_size, offset) - from, BDRV_TRACKED_TRUNCATE);
    bdrv__make_serialising(&req, bs->bl.request_alignment);
    int ret = truncate_driver(child, offset, exact, prealloc, flags, errp);
    if (ret >= 0) {
        int len_ret = bdrv__co_refresh_total_sectors(bs);
        if (len_ret < 0) {
            error_setg_errno(errp, -len_ret, "Could not refresh total sector count");
            ret = len_ret;
        } else if (!bs->drv->bdrv_co_getlength && !bdrv_filter_child(bs)) {
            bs->total_sectors = DIV_ROUND_UP(offset, (int64_t)BDRV_SECTOR_SIZE);
        }
    }
    qatomic_inc(&bs->write_gen);
    bdrv_dirty_bitmap_truncate(bs, bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE);
    bdrv__parents_resized(bs);
    bdrv__tracked_end(&req);
    bdrv_dec_in_flight(bs);
    return ret;
}

int coroutine_fn bdrv_co_check(BlockDriverState *bs, BdrvCheckResult *res, BdrvCheckMode fix)
{
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    if (!bs->drv->bdrv_co_check) {
        return -ENOTSUP;
    }
    bdrv__submitting(bs, NULL, "check", 0);
    bdrv_inc_in_flight(bs);
    memset(res, 0, sizeof(*res));
    int ret = bs->drv->bdrv_co_check(bs, res, fix);
    bdrv_dec_in_flight(bs);
    return ret;
}
