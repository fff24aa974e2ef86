/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Worker pool: blocking calls made outside the event loops. Each AioContext has its own
 * (aio_get_thread_pool()); completions are delivered only from that context's loop.
 */
#ifndef MINIBLK_THREAD_POOL_H
#define MINIBLK_THREAD_POOL_H

#include "aio.h"

typedef int ThreadPoolFunc(void *opaque);
typedef struct ThreadPool ThreadPool;

ThreadPool *thread_pool_new(AioContext *ctx);
/* Wait for the running work, drop what has not begun (its callback sees -ECANCELED). */
void thread_pool_free(ThreadPool *pool);
/* At least MIN workers kept alive, at most MAX (both >= 0, MAX > 0, MIN <= MAX). */
void thread_pool_set_limits(ThreadPool *pool, int64_t min, int64_t max);

/*
 * Run FUNC(ARG) in a worker of the calling thread's context; CB(OPAQUE, its result) is
 * called from that context's loop. The returned handle is good until CB is called.
 */
BlockAIOCB *thread_pool_submit_aio(ThreadPoolFunc *func, void *arg,
                                   BlockCompletionFunc *cb, void *opaque);
/* Run FUNC(ARG) in a worker; yields until it has finished; its result. */
int coroutine_fn thread_pool_submit_co(ThreadPoolFunc *func, void *arg);
/* Run FUNC(ARG) in a worker and forget it. */
void thread_pool_submit(ThreadPoolFunc *func, void *arg);

/* ---- asynchronous request handles ------------------------------------------------- */

typedef struct AIOCBInfo {
    void (*cancel_async)(BlockAIOCB *acb);      /* Optional */
    size_t aiocb_size;
} AIOCBInfo;

/* First member of every handle; reference counted, one reference while in flight. */
struct BlockAIOCB {
    const AIOCBInfo *aiocb_info;
    void *bs;                   /* the node (a BlockDriverState *), or NULL */
    BlockCompletionFunc *cb;
    void *opaque;
    int refcnt;
};
/* A new handle; what follows the BlockAIOCB in it is for the caller to fill in. */
void *qemu_aio_get(const AIOCBInfo *aiocb_info, void *bs, BlockCompletionFunc *cb,
                   void *opaque);
void qemu_aio_ref(void *acb);
void qemu_aio_unref(void *acb);
/* Ask ACB's request to stop; its callback still fires exactly once. Its context. */
void bdrv_aio_cancel_async(BlockAIOCB *acb);
/* Ask, and poll until its callback has fired. Not from a coroutine. */
void bdrv_aio_cancel(BlockAIOCB *acb);

#endif
