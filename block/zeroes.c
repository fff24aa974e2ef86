/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing zeroes: by the driver where it can, by buffers where it cannot. */
#include "block/block-internal.h"

enum { ZERO_BUFFER_MAX = 1 << 20 };

/* The driver's own way, for a range that is aligned for it. */
static int coroutine_fn driver_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags)
{
    if (!bs->drv->bdrv_co_pwrite_zeroes) {
        return -ENOTSUP;
    }
    bool emulate_fua = (flags & BDRV_REQ_FUA) && !(bs->supported_zero_flags & BDRV_REQ_FUA);
    int ret = bs->drv->bdrv_co_pwrite_zeroes(bs, offset, bytes,
                                             flags & bs->supported_zero_flags);
    if (ret == 0 && emulate_fua) {
        qatomic_inc(&bs->write_gen);
        ret = bdrv_co_flush(bs);
    }
    return ret;
}

static int coroutine_fn buffer_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags)
{
    int64_t chunk = MIN(bytes, ZERO_BUFFER_MAX);
    if (bs->bl.max_transfer) {
        int64_t align = bs->bl.request_alignment;
        chunk = MIN(chunk, MAX(QEMU_ALIGN_DOWN(bs->bl.max_transfer, align), align));
    }
    void *buf = qemu_try_blockalign0(bs, chunk);
    int ret = buf ? 0 : -ENOMEM;

    while (ret == 0 && bytes > 0) {
        int64_t n = MIN(bytes, chunk);
        QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, n);
        ret = bdrv__driver_pwritev(bs, offset, n, &qiov, 0,
                                   flags & (BDRV_REQ_FUA | BDRV_REQ_WRITE_UNCHANGED));
        offset += n;
        bytes -= n;
    }
    qemu_vfree(buf);
    return ret;
}

/* How much of the range from OFFSET goes in one step: up to, or a run of, whole units. */
static int64_t next_step(BlockDriverState *bs, int64_t offset, int64_t bytes, bool *whole)
{
    int64_t unit = MAX(bs->bl.pwrite_zeroes_alignment, bs->bl.request_alignment);
    int64_t max = bs->bl.max_pwrite_zeroes ? bs->bl.max_pwrite_zeroes
                                           : BDRV_REQUEST_MAX_BYTES;
    int64_t head = offset % unit;

    *whole = false;
    if (head) {
        return MIN(bytes, unit - head);
    }
    if (bytes < unit) {
        return bytes;
    }
    *whole = true;
    return MIN(QEMU_ALIGN_DOWN(bytes, unit), MAX(QEMU_ALIGN_DOWN(max, unit), unit));
}

int coroutine_fn bdrv__do_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags)
{
    if (!(bs->open_flags & BDRV_O_UNMAP)) {
        flags &= ~BDRV_REQ_MAY_UNMAP;
    }
    while (bytes > 0) {
        bool whole;
        int64_t n = next_step(bs, offset, bytes, &whole);
        /* parts of a unit are offered too: the driver knows whether the rest is zero */
        int ret = driver_zeroes(bs, offset, n, flags);
        if (ret == -ENOTSUP && !(flags & BDRV_REQ_NO_FALLBACK)) {
            ret = buffer_zeroes(bs, offset, n, flags);
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}
