/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles of asynchronous requests. */
#include "aio/aio-internal.h"
#include "aio/sanitizer.h"
#include "miniblk/thread-pool.h"

/*
 * Handles that have come back are kept for the thread's next requests: a fast request would
 * spend a seventh of its instructions in malloc() and free().
 */
enum { CACHED_BYTES = 128, CACHED_MAX = 64 };

typedef struct AiocbCache {
    BlockAIOCB *first;          /* linked by OPAQUE */
    unsigned count;
    bool registered;            /* to be freed when the thread ends */
} AiocbCache;

static PORT_THREAD_LOCAL AiocbCache cache_storage;
static port_thread_key exit_key;
static port_once exit_key_once = PORT_ONCE_INIT;

static QEMU_NOINLINE AiocbCache *cache_here(void)
{
    return &cache_storage;
}

static void free_cache(void *p)
{
    AiocbCache *cache = p;
    while (cache->first) {
        BlockAIOCB *acb = cache->first;
        cache->first = acb->opaque;
        g_free(acb);
    }
    cache->count = 0;
}

static void make_exit_key(void)
{
    port_thread_key_init(&exit_key, free_cache);
}

static QEMU_NOINLINE void register_exit(AiocbCache *cache)
{
    port_once_run(&exit_key_once, make_exit_key);
    port_thread_key_set(exit_key, cache);
    cache->registered = true;
}

/* Sanitizers find a handle that is used too late only if it is really freed. */
static bool cacheable(const AIOCBInfo *info)
{
#if defined(USE_ASAN) || defined(USE_TSAN)
    return false;
#else
    return info->aiocb_size <= CACHED_BYTES;
#endif
}

static BlockAIOCB *aiocb_alloc(const AIOCBInfo *info)
{
    if (likely(cacheable(info))) {
        AiocbCache *cache = cache_here();
        BlockAIOCB *acb = cache->first;
        if (likely(acb)) {
            cache->first = acb->opaque;
            cache->count--;
            return acb;
        }
        return g_malloc(CACHED_BYTES);
    }
    return g_malloc(info->aiocb_size);
}

static void aiocb_free(BlockAIOCB *acb)
{
    if (likely(cacheable(acb->aiocb_info))) {
        AiocbCache *cache = cache_here();
        if (unlikely(!cache->registered)) {
            register_exit(cache);
        }
        if (likely(cache->count < CACHED_MAX)) {
            acb->opaque = cache->first;
            cache->first = acb;
            cache->count++;
            return;
        }
    }
    g_free(acb);
}

void *qemu_aio_get(const AIOCBInfo *aiocb_info, void *bs, BlockCompletionFunc *cb,
                   void *opaque)
{
    g_assert(aiocb_info->aiocb_size >= sizeof(BlockAIOCB));

    BlockAIOCB *acb = aiocb_alloc(aiocb_info);
    acb->aiocb_info = aiocb_info;
    acb->bs = bs;
    acb->cb = cb;
    acb->opaque = opaque;
    acb->refcnt = 1;
    return acb;
}

void qemu_aio_ref(void *p)
{
    BlockAIOCB *acb = p;
    qatomic_inc(&acb->refcnt);
}

void qemu_aio_unref(void *p)
{
    BlockAIOCB *acb = p;

    /* whoever has the only reference has it to himself */
    if (likely(qatomic_load_acquire(&acb->refcnt) == 1)) {
        aiocb_free(acb);
        return;
    }
    int old = qatomic_fetch_dec(&acb->refcnt);
    g_assert(old > 0);
    if (old == 1) {
        aiocb_free(acb);
    } else {
        aio_wait_kick_after_rmw();      /* bdrv_aio_cancel() may be waiting for this */
    }
}

void bdrv_aio_cancel_async(BlockAIOCB *acb)
{
    if (acb->aiocb_info->cancel_async) {
        acb->aiocb_info->cancel_async(acb);
    }
}

void bdrv_aio_cancel(BlockAIOCB *acb)
{
    g_assert(!qemu_in_coroutine());
    qemu_aio_ref(acb);
    bdrv_aio_cancel_async(acb);
    /* The request's own reference goes after its callback has returned. */
    AIO_WAIT_WHILE_UNLOCKED(qemu_get_current_aio_context(),
                            qatomic_load_acquire(&acb->refcnt) > 1);
    qemu_aio_unref(acb);
}
