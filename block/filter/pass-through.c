/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that a filter hands to its child as they are. */
#include "block/filter/filter.h"

void bdrv__filter_inherit_flags(BlockDriverState *bs)
{
    const BlockDriverState *child = bdrv_filter_bs(bs);

    bs->supported_read_flags = child->supported_read_flags;
    bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED |
                                (BDRV_REQ_FUA & child->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
                               ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) &
                                child->supported_zero_flags);
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE & child->supported_truncate_flags;
}

int bdrv__filter_open_file(BlockDriverState *bs, QDict *options, Error **errp)
{
    int ret = bdrv_open_file_child(NULL, options, "file", bs, errp);

    if (ret == 0) {
        bdrv__filter_inherit_flags(bs);
    }
    return ret;
}

void bdrv__filter_parse_filename(const char *filename, const char *driver,
                                 const char *first_key, const char *complaint,
                                 QDict *options, Error **errp)
{
    g_autofree char *prefix = g_strconcat(driver, ":", NULL);

    if (g_str_has_prefix(filename, prefix)) {
        filename += strlen(prefix);
        const char *colon = strchr(filename, ':');
        if (!colon) {
            error_setg(errp, "%s", complaint);
            return;
        }
        if (colon > filename) {
            g_autofree char *first = g_strndup(filename, colon - filename);
            qdict_put_str(options, first_key, first);
        }
        filename = colon + 1;
    }
    qdict_put_str(options, "x-image", filename);
}

bool bdrv__filter_name_file(QDict *options, const char *key, const char *filename,
                            Error **errp)
{
    if (qdict_haskey(options, key)) {
        return true;
    }
    BlockDriver *drv = bdrv_find_protocol(filename, true, errp);
    if (!drv) {
        return false;
    }
    g_autoptr(json_t) child = qdict_new();
    qdict_put_str(child, "driver", drv->format_name);
    json_object_set(options, key, child);
    return true;
}

int64_t coroutine_fn bdrv__filter_co_getlength(BlockDriverState *bs)
{
    return bdrv_getlength(bs->file->bs);
}

int coroutine_fn bdrv__filter_co_preadv_part(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes, QEMUIOVector *qiov,
                                             size_t qiov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

int coroutine_fn bdrv__filter_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                              int64_t bytes, QEMUIOVector *qiov,
                                              size_t qiov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

int coroutine_fn bdrv__filter_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                               int64_t bytes, BdrvRequestFlags flags)
{
    return bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

int coroutine_fn bdrv__filter_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes)
{
    return bdrv_co_pdiscard(bs->file, offset, bytes);
}

int coroutine_fn bdrv__filter_co_pwritev_compressed(BlockDriverState *bs, int64_t offset,
                                                    int64_t bytes, QEMUIOVector *qiov,
                                                    size_t qiov_offset)
{
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset,
                                BDRV_REQ_WRITE_COMPRESSED);
}
