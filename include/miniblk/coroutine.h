/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines, and the locks that block a coroutine instead of its thread.
 */
#ifndef MINIBLK_COROUTINE_H
#define MINIBLK_COROUTINE_H

#include <stdbool.h>
#include "compiler.h"
#include "lockable.h"
#include "queue.h"
#include "thread.h"
#include "timer.h"

typedef struct AioContext AioContext;
typedef struct Coroutine Coroutine;
typedef void CoroutineEntry(void *opaque);

/*
 * Misuse aborts with "miniblk: CALL: the rule that was broken". What "coroutine only" says is
 * asserted. See docs/coroutines.md for how it works and who may wake whom.
 */

/* ---- core ------------------------------------------------------------------------- */

/*
 * A suspended coroutine that will run ENTRY(OPAQUE), and goes into the pool when ENTRY
 * returns. Aborts when the system has no memory for another stack. Any thread. It belongs to
 * whoever enters it first.
 */
Coroutine *qemu_coroutine_create(CoroutineEntry *entry, void *opaque);
/*
 * Run CO until it yields or ends, then run those that it woke meanwhile. Aborts when CO is
 * running or has entered somebody, is scheduled or asleep, has finished, or last ran in the
 * loop of another thread. The thread of its context, or any thread when it has not run yet.
 */
void qemu_coroutine_enter(Coroutine *co);
/* The same, but CO belongs to CTX, the calling thread's, from now on wherever it ran. */
void qemu_aio_coroutine_enter(AioContext *ctx, Coroutine *co);
/* Enter CO unless it is running or has entered somebody. */
void qemu_coroutine_enter_if_inactive(Coroutine *co);
/*
 * Return to whoever entered us; first those that we woke run. Continues at the next enter,
 * maybe in another thread. Coroutine only.
 */
void coroutine_fn qemu_coroutine_yield(void);
/* The running coroutine; outside, an object that stands for the thread's own stack. */
Coroutine *qemu_coroutine_self(void);
bool qemu_in_coroutine(void);
/* Whether CO is running or has entered somebody who is. From CO's thread. */
bool qemu_coroutine_entered(Coroutine *co);
/*
 * The context CO last ran in; NULL when it has not run, finished, or runs in a thread without
 * a loop. Any thread, but CO may be on its way to another context.
 */
AioContext *qemu_coroutine_get_aio_context(Coroutine *co);
/*
 * Finished coroutines are never unmapped, but only so many keep all the memory that they have
 * touched: 1,024 in all and some 128 in each thread. Raise that number, for programs that
 * know that bursts will come again, and lower it by as much as it was raised. Any thread.
 */
void qemu_coroutine_inc_pool_size(unsigned additional);
void qemu_coroutine_dec_pool_size(unsigned removed);

/* ---- CoMutex ---------------------------------------------------------------------- */

typedef struct CoWaiter CoWaiter;
typedef QSIMPLEQ_HEAD(CoWaiterList, CoWaiter) CoWaiterList;
struct CoWaiter {
    Coroutine *co;
    QSIMPLEQ_ENTRY(CoWaiter) next;
};

/*
 * A mutex between coroutines of any contexts; of one thread also without an event loop. All
 * zero bytes are a valid unlocked one. Unlocking hands it to the longest waiter, which runs
 * when the unlocker yields or ends (or in its own thread). It cannot be taken twice, must be
 * unlocked by the coroutine that locked it, and before that ends.
 */
typedef struct CoMutex {
    unsigned state;         /* 0 free, 1 held, 2 held and GUARD must be taken to unlock */
    QemuMutex guard;        /* protects WAITERS; never held across a yield */
    CoWaiter *first, **last_next; /* FIFO; LAST_NEXT is NULL when it was never used */
    Coroutine *holder;      /* atomic; written by the holder, and when it is handed over */
    AioContext *holder_ctx; /* atomic; where HOLDER runs, or the last one did */
} CoMutex;

void qemu_co_mutex_init(CoMutex *mutex);
/* While the holder runs in another thread: spins some microseconds before it yields. */
void coroutine_fn qemu_co_mutex_lock(CoMutex *mutex);
void coroutine_fn qemu_co_mutex_unlock(CoMutex *mutex);
/* Abort unless the calling coroutine holds MUTEX. */
void qemu_co_mutex_assert_locked(CoMutex *mutex);

/* ---- CoQueue ---------------------------------------------------------------------- */

/*
 * A FIFO of sleeping coroutines: a condition variable. The queue is protected by the lock
 * that is given to qemu_co_queue_wait(), or, with none, by living in one thread.
 */
typedef struct CoQueue {
    QSIMPLEQ_HEAD(, CoWaiter) waiters;
} CoQueue;

typedef enum CoQueueWaitFlags { CO_QUEUE_WAIT_FRONT = 0x1 } CoQueueWaitFlags;

void qemu_co_queue_init(CoQueue *queue);
/*
 * Drop LOCK, sleep until woken by the calls below, take LOCK again. Nothing else may enter the
 * coroutine meanwhile. What was waited for has to be looked at again. LOCK is a pointer to a
 * lock of any kind (see lockable.h) that the caller holds, or NULL. Coroutine only.
 */
#define qemu_co_queue_wait(queue, lock)                                         \
        qemu_co_queue_wait_impl((queue), QEMU_MAKE_LOCKABLE(lock), 0)
#define qemu_co_queue_wait_flags(queue, lock, flags)                            \
        qemu_co_queue_wait_impl((queue), QEMU_MAKE_LOCKABLE(lock), (flags))
void coroutine_fn qemu_co_queue_wait_impl(CoQueue *queue, QemuLockable *lock,
                                          CoQueueWaitFlags flags);
/* Wake the first; false when there was none. The lock (if any) is held. Coroutine only. */
bool qemu_co_queue_next(CoQueue *queue);
void qemu_co_queue_restart_all(CoQueue *queue);
/* The same, for callers outside a coroutine who hold LOCK; it is dropped while entering. */
#define qemu_co_enter_next(queue, lock)                                         \
        qemu_co_enter_next_impl((queue), QEMU_MAKE_LOCKABLE(lock))
#define qemu_co_enter_all(queue, lock)                                          \
        qemu_co_enter_all_impl((queue), QEMU_MAKE_LOCKABLE(lock))
bool qemu_co_enter_next_impl(CoQueue *queue, QemuLockable *lock);
void qemu_co_enter_all_impl(CoQueue *queue, QemuLockable *lock);
bool qemu_co_queue_empty(CoQueue *queue);

/* ---- CoRwlock --------------------------------------------------------------------- */

typedef struct CoRwTicket CoRwTicket;
/*
 * FIFO-fair: readers that arrive behind a waiting writer wait for it. Between coroutines of
 * any contexts. A reader may lock it again for reading only while no writer waits, so better
 * not at all. Unlocked by the coroutine that locked it, and before that ends.
 */
typedef struct CoRwlock {
    /* protected by MUTEX: */
    int owners;             /* > 0 readers, 0 free, -1 a writer */
    Coroutine *writer;
    QSIMPLEQ_HEAD(, CoRwTicket) tickets;
    CoMutex mutex;          /* not first: the two locks have notes of their own */
} CoRwlock;

void qemu_co_rwlock_init(CoRwlock *lock);
void coroutine_fn qemu_co_rwlock_rdlock(CoRwlock *lock);
void coroutine_fn qemu_co_rwlock_wrlock(CoRwlock *lock);
/* Reader to writer; queues behind waiting writers, so the protected state may change. */
void coroutine_fn qemu_co_rwlock_upgrade(CoRwlock *lock);
/* Writer to reader; admits the readers that are queued next. */
void coroutine_fn qemu_co_rwlock_downgrade(CoRwlock *lock);
void coroutine_fn qemu_co_rwlock_unlock(CoRwlock *lock);

/* ---- sleeping --------------------------------------------------------------------- */

typedef struct QemuCoSleep { Coroutine *to_wake; } QemuCoSleep;
/*
 * Sleep until the time is over or qemu_co_sleep_wake(W) is called, from the sleeper's context;
 * a wake that comes before the sleep has no effect. One sleeper per handle. Coroutine only.
 */
void coroutine_fn qemu_co_sleep_ns_wakeable(QemuCoSleep *w, QEMUClockType type, int64_t ns);
void coroutine_fn qemu_co_sleep(QemuCoSleep *w);
void qemu_co_sleep_wake(QemuCoSleep *w);
static inline void coroutine_fn qemu_co_sleep_ns(QEMUClockType type, int64_t ns)
{
    QemuCoSleep w = { NULL };
    qemu_co_sleep_ns_wakeable(&w, type, ns);
}
/* Yield until FD is readable (its handler in the current context is taken meanwhile). */
void coroutine_fn yield_until_fd_readable(int fd);

#endif
