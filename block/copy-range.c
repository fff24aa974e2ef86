/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying within the host. A request goes down the source's side first, then down the
 * target's:
 *
 *     raw  (from) ---.                        .--- (to)  raw
 *                    v                        |           |
 *     file (from) ---+------------------------'           '---> file (to): copy_file_range
 *
 * At each node it counts as a read or a write like any other.
 */
#include "block/backend-internal.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/write-threshold.h"

/* What can be said before the driver is asked. */
static int check_side(BdrvChild *c, int64_t offset, int64_t bytes)
{
    int ret = bdrv__check_request(offset, bytes, NULL, 0);

    if (ret < 0) {
        return ret;
    }
    if (!c->bs || !c->bs->drv) {
        return -ENOMEDIUM;
    }
    int64_t align = c->bs->bl.request_alignment;
    /* Parts of units, and what would make the node longer, are written in the usual way. */
    return offset % align || bytes % align ||
           offset + bytes > c->bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE ? -ENOTSUP : 0;
}

int coroutine_fn bdrv_co_copy_range_from(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags read_flags,
                                         BdrvRequestFlags write_flags)
{
    BlockDriverState *bs = src->bs;
    int ret = check_side(src, src_offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!bs->drv->bdrv_co_copy_range_from || read_flags) {
        return -ENOTSUP;
    }
    bdrv_inc_in_flight(bs);
    ret = bs->drv->bdrv_co_copy_range_from(bs, src, src_offset, dst, dst_offset, bytes,
                                           read_flags, write_flags);
    bdrv_dec_in_flight(bs);
    return ret;
}

int coroutine_fn bdrv_co_copy_range_to(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes,
                                       BdrvRequestFlags read_flags,
                                       BdrvRequestFlags write_flags)
{
    BlockDriverState *bs = dst->bs;
    BdrvTrackedRequest req;
    int ret = check_side(dst, dst_offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (bdrv_is_read_only(bs)) {
        return -EPERM;
    }
    if (!bs->drv->bdrv_co_copy_range_to || write_flags) {
        return -ENOTSUP;
    }
    if (bdrv_write_threshold_get(bs)) {
        bdrv_write_threshold_check_write(bs, dst_offset, bytes);
    }
    bdrv_inc_in_flight(bs);
    bdrv__tracked_begin(&req, bs, dst_offset, bytes, BDRV_TRACKED_WRITE);
    bdrv__wait_serialising(&req);
    ret = bs->drv->bdrv_co_copy_range_to(bs, src, src_offset, dst, dst_offset, bytes,
                                         read_flags, write_flags);
    /* Even a failed one may have changed a part. */
    qatomic_inc(&bs->write_gen);
    if (qatomic_read(&bs->has_dirty_bitmaps)) {
        bdrv_set_dirty(bs, dst_offset, bytes);
    }
    bdrv__tracked_end(&req);
    bdrv_dec_in_flight(bs);
    return ret;
}

int coroutine_fn blk_co_copy_range(BlockBackend *blk_in, int64_t off_in,
                                   BlockBackend *blk_out, int64_t off_out, int64_t bytes,
                                   BdrvRequestFlags read_flags, BdrvRequestFlags write_flags)
{
    int ret = -ENOMEDIUM;

    blk_inc_in_flight(blk_in);
    blk__wait_while_drained(blk_in);
    blk_inc_in_flight(blk_out);
    if (blk_in_drain(blk_out)) {
        /* Parked here, it would hold up a section of BLK_IN: let the caller's write park. */
        ret = -ENOTSUP;
    } else if (blk_root(blk_in) && blk_root(blk_out)) {
        ret = bdrv_co_copy_range_from(blk_root(blk_in), off_in, blk_root(blk_out), off_out,
                                      bytes, read_flags, write_flags);
    }
    blk_dec_in_flight(blk_out);
    blk_dec_in_flight(blk_in);
    return ret;
}
