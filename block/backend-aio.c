/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asynchronous requests with a callback, built on coroutines. The callback always comes
 * from the loop, never from inside the submitting call.
 */
#include "block/backend-internal.h"
#include "miniblk/thread-pool.h"

typedef struct BlkAio {
    BlockAIOCB common;
    BlockBackend *blk;
    int64_t offset;
    int64_t bytes;
    QEMUIOVector *qiov;
    BdrvRequestFlags flags;
    void (*fn)(struct BlkAio *acb);
    AioMessage complete;
    int ret;
} BlkAio;

static const AIOCBInfo blk_aio_info = { .aiocb_size = sizeof(BlkAio) };

static bool complete_run(AioContext *ctx, AioMessage *msg)
{
    BlkAio *acb = container_of(msg, BlkAio, complete);
    BlockBackend *blk = acb->blk;

    acb->common.cb(acb->common.opaque, acb->ret);
    qemu_aio_unref(acb);
    /* the one token of the request covers its callback too */
    blk_dec_in_flight(blk);
    return true;
}

static void coroutine_fn aio_entry(void *opaque)
{
    BlkAio *acb = opaque;
    acb->fn(acb);
    aio_message_post(qemu_get_current_aio_context(), &acb->complete);
}

static void coroutine_fn do_read(BlkAio *acb)
{
    acb->ret = blk__do_preadv_part(acb->blk, acb->offset, acb->bytes, acb->qiov, 0,
                                   acb->flags);
}

static void coroutine_fn do_write(BlkAio *acb)
{
    acb->ret = blk__do_pwritev_part(acb->blk, acb->offset, acb->bytes, acb->qiov, 0,
                                    acb->flags);
}

static void coroutine_fn do_flush(BlkAio *acb)
{
    acb->ret = blk__do_flush(acb->blk);
}

static BlockAIOCB *submit(BlockBackend *blk, void (*fn)(BlkAio *), int64_t offset,
                          int64_t bytes, QEMUIOVector *qiov, BdrvRequestFlags flags,
                          BlockCompletionFunc *cb, void *opaque)
{
    BlkAio *acb = qemu_aio_get(&blk_aio_info, blk_bs(blk), cb, opaque);
    acb->blk = blk;
    acb->offset = offset;
    acb->bytes = bytes;
    acb->qiov = qiov;
    acb->flags = flags;
    acb->fn = fn;
    acb->complete.run = complete_run;
    acb->ret = 0;

    blk_inc_in_flight(blk);     /* dropped after the callback */
    aio_co_enter(blk_get_aio_context(blk), qemu_coroutine_create(aio_entry, acb));
    return &acb->common;
}

BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, QEMUIOVector *qiov,
                           BdrvRequestFlags flags, BlockCompletionFunc *cb, void *opaque)
{
    return submit(blk, do_read, offset, qiov->size, qiov, flags, cb, opaque);
}

BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, QEMUIOVector *qiov,
                            BdrvRequestFlags flags, BlockCompletionFunc *cb, void *opaque)
{
    return submit(blk, do_write, offset, qiov->size, qiov, flags, cb, opaque);
}

BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                  BdrvRequestFlags flags, BlockCompletionFunc *cb,
                                  void *opaque)
{
    return submit(blk, do_write, offset, bytes, NULL, flags | BDRV_REQ_ZERO_WRITE, cb,
                  opaque);
}

BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque)
{
    return submit(blk, do_flush, 0, 0, NULL, 0, cb, opaque);
}
