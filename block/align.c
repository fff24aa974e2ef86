/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that do not begin and end at block boundaries (bs->bl.request_alignment).
 *
 *        block          block          block
 *      |--------------|--------------|--------------|
 *      |hhhhhh rrrrrrr|rrrrrrrrrrrrrr|rrrr tttttttttt|
 *       head  ^offset                    ^end  tail
 *
 * Head and tail go to a buffer of our own; the padded request is [head][caller's][tail].
 */
#include "block/block-internal.h"

typedef struct Padding {
    int64_t offset, bytes;      /* of the padded request */
    size_t head, tail;
    uint8_t *buf;               /* first block, and the last one if it is another */
    size_t align;
    bool two_blocks;
    QEMUIOVector qiov;
} Padding;

static bool padding_init(Padding *p, BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    size_t align = bs->bl.request_alignment;

    *p = (Padding) { .align = align };
    p->head = offset & (align - 1);
    p->tail = -(offset + bytes) & (align - 1);
    p->offset = offset - p->head;
    p->bytes = p->head + bytes + p->tail;
    p->two_blocks = p->bytes > align && p->tail;
    p->buf = qemu_try_blockalign(bs, 2 * align);
    return p->buf;
}

static uint8_t *tail_block(Padding *p)
{
    return p->two_blocks ? p->buf + p->align : p->buf;
}

/* The padded vector: the caller's bytes between our head and tail. */
static void padding_build(Padding *p, QEMUIOVector *qiov, size_t qiov_offset, int64_t bytes)
{
    qemu_iovec_init(&p->qiov, (qiov ? qiov->niov : 0) + 2);
    if (p->head) {
        qemu_iovec_add(&p->qiov, p->buf, p->head);
    }
    qemu_iovec_concat(&p->qiov, qiov, qiov_offset, bytes);
    if (p->tail) {
        qemu_iovec_add(&p->qiov, tail_block(p) + p->align - p->tail, p->tail);
    }
}

static void padding_destroy(Padding *p)
{
    if (p->qiov.iov) {
        qemu_iovec_destroy(&p->qiov);
    }
    qemu_vfree(p->buf);
}

int coroutine_fn bdrv__unaligned_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags)
{
    Padding p;

    if (!padding_init(&p, bs, offset, bytes)) {
        return -ENOMEM;
    }
    padding_build(&p, qiov, qiov_offset, bytes);
    int ret = bdrv__aligned_preadv(bs, p.offset, p.bytes, &p.qiov, 0, flags);
    padding_destroy(&p);
    return ret;
}

static int coroutine_fn read_block(BlockDriverState *bs, int64_t offset, uint8_t *buf,
                                   size_t align)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, align);
    return bdrv__aligned_preadv(bs, offset, align, &qiov, 0, 0);
}

/* Whether the first block is one of which we write only a part. */
static bool first_is_partial(const Padding *p)
{
    return p->head || (p->tail && !p->two_blocks);
}

/* Fetch the blocks of which we write only a part. */
static int coroutine_fn read_edges(BlockDriverState *bs, Padding *p)
{
    int ret = 0;

    if (first_is_partial(p)) {
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_HEAD);
        ret = read_block(bs, p->offset, p->buf, p->align);
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_AFTER_HEAD);
    }
    if (ret == 0 && p->two_blocks) {
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_TAIL);
        ret = read_block(bs, p->offset + p->bytes - p->align, tail_block(p), p->align);
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_AFTER_TAIL);
    }
    return ret;
}

static int coroutine_fn write_block(BlockDriverState *bs, int64_t offset, uint8_t *buf,
                                    size_t align, BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, align);
    return bdrv__aligned_pwritev(bs, offset, align, &qiov, 0,
                                 flags & ~(BDRV_REQ_ZERO_WRITE | BDRV_REQ_MAY_UNMAP));
}

/* Zeroes: the edge blocks are written out, whole blocks between them go the zero way. */
static int coroutine_fn write_zeroes_padded(BlockDriverState *bs, Padding *p,
                                            BdrvRequestFlags flags)
{
    int64_t start = p->offset, end = p->offset + p->bytes;
    int ret = 0;

    if (first_is_partial(p)) {
        size_t tail = p->two_blocks ? 0 : p->tail;
        memset(p->buf + p->head, 0, p->align - p->head - tail);
        ret = write_block(bs, start, p->buf, p->align, flags);
        start += p->align;
    }
    if (ret == 0 && p->two_blocks) {
        end -= p->align;
        memset(tail_block(p), 0, p->align - p->tail);
        ret = write_block(bs, end, tail_block(p), p->align, flags);
    }
    if (ret == 0 && start < end) {
        ret = bdrv__aligned_pwritev(bs, start, end - start, NULL, 0, flags);
    }
    return ret;
}

int coroutine_fn bdrv__unaligned_pwritev(BdrvTrackedRequest *req, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         size_t qiov_offset, BdrvRequestFlags flags)
{
    BlockDriverState *bs = req->bs;
    Padding p;

    if (!padding_init(&p, bs, offset, bytes)) {
        return -ENOMEM;
    }
    /* From the read to the write nobody else may change these blocks. */
    bdrv__make_serialising(req, p.align);
    int ret = read_edges(bs, &p);
    if (ret == 0 && (flags & BDRV_REQ_ZERO_WRITE)) {
        ret = write_zeroes_padded(bs, &p, flags);
    } else if (ret == 0) {
        padding_build(&p, qiov, qiov_offset, bytes);
        ret = bdrv__aligned_pwritev(bs, p.offset, p.bytes, &p.qiov, 0, flags);
    }
    padding_destroy(&p);
    return ret;
}
