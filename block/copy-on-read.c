/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying what a read finds in a backing file into the node that is read, so that it is found
 * there from then on.
 */
#include "block/block-internal.h"

enum { COPY_BYTES_MAX = 1 << 20 };

/* The unit in which the node allocates. */
static int64_t copy_unit(BlockDriverState *bs)
{
    BlockDriverInfo bdi;
    int64_t align = bs->bl.request_alignment;

    return bdrv_get_info(bs, &bdi) == 0 ? MAX(align, bdi.cluster_size) : align;
}

/* Copy a piece that the node does not have yet. ZERO: it is known to read as zeroes. */
static int coroutine_fn copy_piece(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   void *buf, bool zero)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    BdrvRequestFlags flags = BDRV_REQ_WRITE_UNCHANGED;
    int ret = zero ? 0 : bdrv__aligned_preadv(bs, offset, bytes, &qiov, 0, 0);

    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_COR_WRITE);
    if (zero || qemu_iovec_is_zero(&qiov, 0, bytes)) {
        flags |= BDRV_REQ_ZERO_WRITE;
    }
    return bdrv__aligned_pwritev(bs, offset, bytes, &qiov, 0, flags);
}

/*
 * The length of the first piece of a range: whole units that are all zeroes or all not
 * known to be; *ZERO says which. -errno.
 */
static int64_t coroutine_fn next_piece(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       int64_t unit, bool *zero)
{
    int64_t n;
    int ret = bdrv_block_status(bs, offset, bytes, &n, NULL, NULL);

    if (ret < 0) {
        return ret;
    }
    *zero = ret & BDRV_BLOCK_ZERO;
    if (n < bytes && n >= unit) {
        n = QEMU_ALIGN_DOWN(n, unit);
    } else if (n < bytes) {
        *zero = false;          /* a bit of both */
        n = MIN(unit, bytes);
    }
    return MIN(n, MAX(unit, COPY_BYTES_MAX));
}

static int coroutine_fn copy_range(BlockDriverState *bs, int64_t offset, int64_t end,
                                   int64_t unit)
{
    void *buf = qemu_try_blockalign(bs, MIN(end - offset, MAX(unit, COPY_BYTES_MAX)));
    int64_t n = buf ? 0 : -ENOMEM;

    for (; n >= 0 && offset < end; offset += n) {
        bool zero;
        int ret = bdrv_is_allocated(bs, offset, end - offset, &n);

        if (ret < 0 || n == 0) {
            n = ret;
            break;
        }
        if (ret == 0) {
            n = next_piece(bs, offset, n, unit, &zero);
            ret = n < 0 ? n : copy_piece(bs, offset, n, buf, zero);
            n = ret < 0 ? ret : n;
        }
    }
    qemu_vfree(buf);
    return MIN(n, 0);
}

int coroutine_fn bdrv__copy_on_read(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t unit = copy_unit(bs);
    int64_t limit = QEMU_ALIGN_UP(bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE,
                                  (int64_t)bs->bl.request_alignment);
    int64_t start = QEMU_ALIGN_DOWN(offset, unit);
    int64_t end = MIN(QEMU_ALIGN_UP(offset + bytes, unit), limit);
    BdrvTrackedRequest req;

    if (start >= end) {
        return 0;               /* behind the end there is nothing to copy */
    }
    /* From the look at the allocation to the write nobody else may write there. */
    bdrv__tracked_begin(&req, bs, start, end - start, BDRV_TRACKED_WRITE);
    bdrv__make_serialising(&req, unit);
    int ret = copy_range(bs, start, end, unit);
    bdrv__tracked_end(&req);
    return ret;
}
