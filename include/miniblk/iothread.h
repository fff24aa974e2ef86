/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * IOThreads: a thread that runs one AioContext. All calls: main thread, big lock held,
 * unless said otherwise.
 */
#ifndef MINIBLK_IOTHREAD_H
#define MINIBLK_IOTHREAD_H

#include "aio.h"

typedef struct IOThread IOThread;

/*
 * Start a thread named after ID (unique among IOThreads). NULL with ERRP set when the ID is
 * taken ("attempt to add duplicate property ..."), not well-formed, or the system refuses.
 */
IOThread *iothread_create(const char *id, Error **errp);
/*
 * Stop the thread and free it. What was scheduled in its context before runs before the
 * thread ends. The caller makes sure that no node lives there any more (object-del checks).
 */
void iothread_destroy(IOThread *iothread);
/* Stop the loop and join the thread; the object stays. Idempotent. */
void iothread_stop(IOThread *iothread);
/* NULL when there is none. */
IOThread *iothread_by_id(const char *id);
/* The IOThread that runs CTX; NULL when none does. */
IOThread *iothread_by_aio_context(AioContext *ctx);
/* Newly allocated; g_free() it. Any thread. */
char *iothread_get_id(IOThread *iothread);
/* Any thread; valid while the IOThread exists. */
AioContext *iothread_get_aio_context(IOThread *iothread);
int iothread_get_thread_id(IOThread *iothread);
/* Iterate: NULL gives the first; in order of creation. */
IOThread *iothread_next(IOThread *iothread);

/* Loop parameters, see aio_context_set_poll_params(). */
typedef struct IOThreadParams {
    int64_t poll_max_ns, poll_grow, poll_shrink;
    int64_t aio_max_batch;          /* requests per io_submit(); 0: the engine's choice */
    int64_t thread_pool_min, thread_pool_max;
} IOThreadParams;
const IOThreadParams *iothread_get_params(IOThread *iothread);
/* Check and apply; on error nothing changes. */
bool iothread_set_params(IOThread *iothread, const IOThreadParams *params, Error **errp);

#endif
