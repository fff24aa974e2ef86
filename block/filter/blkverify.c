/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter "blkverify": every request goes to two children, "raw" (bs->file) and "test".
 * What they read must be the same; where it is not, that is told and the read fails.
 */
#include "block/filter/filter.h"

/* Both answers are held in memory. */
enum { TRANSFER_BYTES_MAX = 1 << 20 };

typedef struct BlkVerify {
    BdrvChild *test;
} BlkVerify;

/* ---- opening ---------------------------------------------------------------------- */

/* "blkverify:raw:test" */
static void blkverify_parse_filename(const char *filename, QDict *options, Error **errp)
{
    bdrv__filter_parse_filename(filename, "blkverify", "x-raw",
                                "blkverify requires raw copy and original image path",
                                options, errp);
}

static int blkverify_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    BlkVerify *s = bs->opaque;
    g_autofree char *raw = NULL, *test = NULL;

    if (!bdrv_opt_str(options, "x-raw", &raw, errp) ||
        !bdrv_opt_str(options, "x-image", &test, errp) ||
        (raw && !bdrv__filter_name_file(options, "raw", raw, errp))) {
        return -EINVAL;
    }
    if (!bdrv_open_child(raw, options, "raw", bs, &child_of_bds,
                         BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, false, errp)) {
        return -EINVAL;
    }
    s->test = bdrv_open_child(test, options, "test", bs, &child_of_bds, BDRV_CHILD_DATA,
                              false, errp);
    return s->test ? 0 : -EINVAL;
}

static void blkverify_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.max_transfer = bs->bl.max_transfer ? MIN(bs->bl.max_transfer, TRANSFER_BYTES_MAX)
                                              : TRANSFER_BYTES_MAX;
}

/* ---- requests --------------------------------------------------------------------- */

static void complain(const char *what, int64_t offset, int64_t bytes, const char *fmt, ...)
    G_GNUC_PRINTF(4, 5);
static void complain(const char *what, int64_t offset, int64_t bytes, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    fprintf(stderr, "blkverify: %s offset=%" PRId64 " bytes=%" PRId64 " %s\n", what, offset,
            bytes, text);
}

/* The index of the first byte of QIOV from QIOV_OFFSET on that is not as in BUF; -1: none. */
static int64_t first_difference(QEMUIOVector *qiov, size_t qiov_offset, const uint8_t *buf,
                                int64_t bytes)
{
    uint8_t part[4096];

    for (int64_t done = 0; done < bytes; done += sizeof(part)) {
        size_t n = MIN(bytes - done, (int64_t)sizeof(part));

        qemu_iovec_to_buf(qiov, qiov_offset + done, part, n);
        for (size_t i = 0; i < n; i++) {
            if (part[i] != buf[done + i]) {
                return done + i;
            }
        }
    }
    return -1;
}

static int both(const char *what, int64_t offset, int64_t bytes, int raw_ret, int test_ret)
{
    if (raw_ret != test_ret) {
        complain(what, offset, bytes, "return value mismatch %d != %d", raw_ret, test_ret);
        return -EIO;
    }
    return raw_ret;
}

static int coroutine_fn blkverify_co_preadv_part(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes, QEMUIOVector *qiov,
                                                 size_t qiov_offset, BdrvRequestFlags flags)
{
    BlkVerify *s = bs->opaque;
    uint8_t *buf = qemu_try_blockalign(bs->file->bs, bytes);

    if (!buf) {
        return -ENOMEM;
    }
    int raw_ret = bdrv_co_pread(bs->file, offset, bytes, buf, flags);
    int test_ret = bdrv_co_preadv_part(s->test, offset, bytes, qiov, qiov_offset, flags);
    int ret = both("read", offset, bytes, raw_ret, test_ret);
    if (ret == 0) {
        int64_t at = first_difference(qiov, qiov_offset, buf, bytes);
        if (at >= 0) {
            complain("read", offset, bytes, "contents mismatch at offset %" PRId64,
                     offset + at);
            ret = -EIO;
        }
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn blkverify_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, QEMUIOVector *qiov,
                                                  size_t qiov_offset, BdrvRequestFlags flags)
{
    BlkVerify *s = bs->opaque;
    int raw_ret = bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
    int test_ret = bdrv_co_pwritev_part(s->test, offset, bytes, qiov, qiov_offset, flags);

    return both("write", offset, bytes, raw_ret, test_ret);
}

static int64_t coroutine_fn blkverify_co_getlength(BlockDriverState *bs)
{
    BlkVerify *s = bs->opaque;
    return bdrv_getlength(s->test->bs);
}

/* Where a range comes from is a question for neither. */
static int coroutine_fn blkverify_co_block_status(BlockDriverState *bs, bool want_zero,
                                                  int64_t offset, int64_t bytes,
                                                  int64_t *pnum, int64_t *map,
                                                  BlockDriverState **file)
{
    *pnum = bytes;
    return BDRV_BLOCK_DATA;
}

static BlockDriver bdrv_blkverify = {
    .format_name = "blkverify",
    .protocol_name = "blkverify",
    .instance_size = sizeof(BlkVerify),
    .is_filter = true,
    .has_variable_length = true,
    .bdrv_parse_filename = blkverify_parse_filename,
    .bdrv_file_open = blkverify_open,
    .bdrv_refresh_limits = blkverify_refresh_limits,
    .bdrv_co_getlength = blkverify_co_getlength,
    .bdrv_co_preadv_part = blkverify_co_preadv_part,
    .bdrv_co_pwritev_part = blkverify_co_pwritev_part,
    .bdrv_co_block_status = blkverify_co_block_status,
};

static void blkverify_driver_init(void)
{
    bdrv_register(&bdrv_blkverify);
}
block_init(blkverify_driver_init)
