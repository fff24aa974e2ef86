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

/* A pool whose work is submitted from, and called back in, CTX's home thread. Any thread. */
ThreadPool *thread_pool_new(AioContext *ctx);
/*
 * Wait for the running work and drop what has not begun. Every callback that is still owed
 * is called from here, with -ECANCELED where the work was dropped. The loop must not run any
 * more, or the caller be its home thread. (An IOThread that is told to end has
 * waited for all its work before.)
 */
void thread_pool_free(ThreadPool *pool);
/*
 * At least MIN workers kept alive, at most MAX (0 <= MIN <= MAX <= INT_MAX, MAX > 0; other
 * values abort). Takes effect at once: what waits already is taken up by more workers, those
 * above MAX leave when they have finished what they do. Any thread.
 */
void thread_pool_set_limits(ThreadPool *pool, int64_t min, int64_t max);
/* How long a worker above the minimum stays without work; 10 s unless set. Any thread. */
void thread_pool_set_idle_time(ThreadPool *pool, int ms);
/* Whether a callback is still owed for anything submitted. Home thread of the pool's loop. */
bool thread_pool_busy(ThreadPool *pool);

/*
 * Run FUNC(ARG) in a worker of the calling thread's context; CB(OPAQUE, its result) is
 * called from that context's loop. -ECANCELED in place of the result: it was cancelled before
 * it began; -EAGAIN: the system has no thread left and the pool none either. The returned
 * handle is good until CB is called. In a thread that has a loop.
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
