/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The filter "compress": what is written through it is stored compressed. */
#include "block/filter/filter.h"

/* bs->opaque is the size of what the image below compresses at once, in bytes; 0: unknown. */

static bool can_compress(BlockDriverState *bs)
{
    /* a filter passes on what the image below it may not take */
    BlockDriver *drv = bdrv_skip_filters(bs)->drv;
    return drv && (drv->bdrv_co_pwritev_compressed || drv->bdrv_co_pwritev_compressed_part);
}

static int compress_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    uint32_t *cluster_bytes = bs->opaque;
    BlockDriverInfo bdi;
    int ret = bdrv__filter_open_file(bs, options, errp);

    if (ret < 0) {
        return ret;
    }
    BlockDriverState *below = bs->file->bs;
    if (!can_compress(below)) {
        error_setg(errp, "Compression is not supported for underlying format: %s",
                   below->drv ? below->drv->format_name : "(no format)");
        return -ENOTSUP;
    }
    if (bdrv_get_info(below, &bdi) == 0) {
        *cluster_bytes = bdi.cluster_size;
    }
    return 0;
}

static void compress_refresh_limits(BlockDriverState *bs, Error **errp)
{
    const uint32_t *cluster_bytes = bs->opaque;

    if (*cluster_bytes) {
        bs->bl.request_alignment = *cluster_bytes;
    }
}

static int coroutine_fn compress_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes, QEMUIOVector *qiov,
                                                 size_t qiov_offset, BdrvRequestFlags flags)
{
    int64_t len = bdrv_getlength(bs->file->bs);

    if (len < 0) {
        return len;
    }
    /* The block layer has filled up the last cluster; the disk may end within it. */
    return offset >= len ? 0
         : bdrv_co_pwritev_part(bs->file, offset, MIN(bytes, len - offset), qiov, qiov_offset,
                                flags | BDRV_REQ_WRITE_COMPRESSED);
}

static BlockDriver bdrv_compress = {
    .format_name = "compress",
    .instance_size = sizeof(uint32_t),
    .is_filter = true,
    .has_variable_length = true,
    .bdrv_open = compress_open,
    .bdrv_refresh_limits = compress_refresh_limits,
    .bdrv_co_getlength = bdrv__filter_co_getlength,
    .bdrv_co_preadv_part = bdrv__filter_co_preadv_part,
    .bdrv_co_pwritev_part = compress_co_pwritev_part,
    .bdrv_co_pwritev_compressed_part = bdrv__filter_co_pwritev_compressed,
    .bdrv_co_pwrite_zeroes = bdrv__filter_co_pwrite_zeroes,
    .bdrv_co_pdiscard = bdrv__filter_co_pdiscard,
};

static void compress_driver_init(void)
{
    bdrv_register(&bdrv_compress);
}
block_init(compress_driver_init)
