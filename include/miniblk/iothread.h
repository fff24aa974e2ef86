/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * IOThreads: a thread that runs one AioContext. All calls: main thread, big lock held,
 * unless said otherwise.
 */
#ifndef MINIBLK_IOTHREAD_H
#define MINIBLK_IOTHREAD_H

#include <sched.h>
#include "aio.h"

typedef struct IOThread IOThread;

/*
 * Start a thread, named "IO ID" (cut to 15 characters) for the system, with default
 * parameters. NULL with ERRP set when the ID is taken ("attempt to add duplicate property
 * ..."), not well-formed, or the system refuses.
 */
IOThread *iothread_create(const char *id, Error **errp);
/*
 * Stop the thread as below and free it. The caller makes sure that no node, timer or handler
 * lives in its context any more (object-del checks); what does, aborts when the context goes.
 */
void iothread_destroy(IOThread *iothread);
/*
 * End the loop and join the thread; the object stays. Idempotent. What was scheduled in the
 * context before this call runs before the thread ends: bottom halves, coroutines, work
 * given to its worker pool and the callbacks of that work; and what these schedule there
 * in turn, as long as that comes to an end (see iothread.c for the bound). Descriptors and
 * timers that do not expire meanwhile are not waited for. Waits without polling, so the
 * thread must not need the main loop to get there; aborts when the caller holds the lock of
 * the context by itself.
 */
void iothread_stop(IOThread *iothread);
/* NULL when there is none. */
IOThread *iothread_by_id(const char *id);
/* The IOThread that runs CTX; NULL when none does. */
IOThread *iothread_by_aio_context(AioContext *ctx);
/* Newly allocated; g_free() it. Any thread. */
char *iothread_get_id(IOThread *iothread);
/* Any thread; valid while the IOThread exists. */
AioContext *iothread_get_aio_context(IOThread *iothread);
/* The kernel's id of the thread. Any thread. */
int iothread_get_thread_id(IOThread *iothread);
/* In the order of creation; NULL gives the first, and is given after the last. */
IOThread *iothread_next(IOThread *iothread);

/* ---- parameters ------------------------------------------------------------------------ */

typedef struct IOThreadParams {
    int64_t poll_max_ns, poll_grow, poll_shrink;    /* see aio_context_set_poll_params() */
    int64_t aio_max_batch;          /* requests per system call; 0: the engine's choice */
    int64_t thread_pool_min, thread_pool_max;       /* see thread_pool_set_limits() */
    cpu_set_t cpus;                 /* where it may run; none: wherever the process may */
} IOThreadParams;

const IOThreadParams *iothread_get_params(IOThread *iothread);
/*
 * Check and apply, at once and also to what is running. False with ERRP set, which names the
 * property and the value; then nothing has changed. The workers of the pool are not bound to
 * CPUS: they wait in system calls, and should not wait for the loop's processor as well.
 */
bool iothread_set_params(IOThread *iothread, const IOThreadParams *params, Error **errp);

/* ---- stopping the world ----------------------------------------------------------------- */

/*
 * Tell the listeners of runstate.h, then take the lock of every IOThread's context, in the
 * order of their creation. Until iothread_resume_all() no coroutine runs in any IOThread and
 * no callback of one that takes its context's lock: what they protect with it can be looked
 * at and changed as a whole. What does not take it goes on: workers, the kernel's side of
 * requests, and callbacks that touch nothing shared.
 *
 * The world is stopped for the main thread, not for the program: the caller goes back to the
 * main loop only after resuming (it aborts otherwise). Calls that poll may be made and open
 * the world while they poll, as AIO_WAIT_WHILE() drops the locks that its condition waits
 * for. IOThreads may be created and destroyed: a new one is stopped like the others,
 * one that is destroyed first finishes what iothread_stop() promises.
 *
 * Nests; only the outermost pair tells the listeners. Not from a listener, which aborts.
 * Waits without polling for each IOThread to leave its critical section.
 */
void iothread_pause_all(void);
/* Release what iothread_pause_all() took, then tell the listeners. */
void iothread_resume_all(void);

#endif
