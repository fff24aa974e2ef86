/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CoMutex and CoQueue. */
#include "aio/coroutine-internal.h"

/* ---- CoMutex ------------------------------------------------------------------------------ */

/*
 * FREE and HELD change by one compare-and-swap. Whoever finds it held takes GUARD, marks it
 * CONTENDED, queues and yields. Once CONTENDED, unlocking takes GUARD too and hands the
 * mutex to the first waiter without setting it free in between, so nobody can overtake.
 *
 * The waiter queues before it yields, so it may be woken before it has. That is safe: waking
 * from another thread sends a message to the waiter's own thread, and from the same thread
 * the waker does not run before the waiter has yielded.
 */
enum { CO_MUTEX_FREE, CO_MUTEX_HELD, CO_MUTEX_CONTENDED };

void qemu_co_mutex_init(CoMutex *mutex)
{
    memset(mutex, 0, sizeof(*mutex));
}

static void waiters_append(CoMutex *mutex, CoWaiter *w)
{
    w->next.stqe_next = NULL;
    if (!mutex->first) {
        mutex->last_next = &mutex->first;
    }
    *mutex->last_next = w;
    mutex->last_next = &w->next.stqe_next;
}

static void coroutine_fn lock_slow(CoMutex *mutex, Coroutine *self)
{
    CoWaiter w = { .co = self };
    bool queued = false;

    WITH_QEMU_LOCK_GUARD(&mutex->guard) {
        if (qatomic_xchg(&mutex->state, CO_MUTEX_CONTENDED) != CO_MUTEX_FREE) {
            waiters_append(mutex, &w);
            queued = true;
        }
        /* else it became free meanwhile and is ours; unlocking will find no waiter */
    }
    if (queued) {
        qemu_coroutine_yield();
        g_assert(qatomic_read(&mutex->holder) == self);
    }
}

void coroutine_fn qemu_co_mutex_lock(CoMutex *mutex)
{
    Coroutine *self = qemu_coroutine_self();

    if (qatomic_cmpxchg(&mutex->state, CO_MUTEX_FREE, CO_MUTEX_HELD) != CO_MUTEX_FREE) {
        g_assert(qatomic_read(&mutex->holder) != self);
        lock_slow(mutex, self);
    }
    qatomic_set(&mutex->holder, self);
    self->locks_held++;
}

/* Pass the mutex on to the first waiter, or set it free; whom to wake. */
static Coroutine *hand_over(CoMutex *mutex)
{
    QEMU_MUTEX_GUARD(&mutex->guard);
    CoWaiter *w = mutex->first;
    if (!w) {
        qatomic_set_mb(&mutex->state, CO_MUTEX_FREE);
        return NULL;
    }
    mutex->first = w->next.stqe_next;
    /* W is on the waiter's stack, and gone as soon as it runs. */
    Coroutine *co = w->co;
    qatomic_set(&mutex->holder, co);
    return co;
}

void coroutine_fn qemu_co_mutex_unlock(CoMutex *mutex)
{
    Coroutine *self = qemu_coroutine_self();

    g_assert(qemu_in_coroutine());
    g_assert(qatomic_read(&mutex->holder) == self);
    qatomic_set(&mutex->holder, NULL);
    self->locks_held--;
    if (qatomic_cmpxchg(&mutex->state, CO_MUTEX_HELD, CO_MUTEX_FREE) != CO_MUTEX_HELD) {
        Coroutine *next = hand_over(mutex);
        if (next) {
            aio_co_wake(next);
        }
    }
}

void qemu_co_mutex_assert_locked(CoMutex *mutex)
{
    g_assert(qatomic_read(&mutex->holder) == qemu_coroutine_self());
}

/* ---- lockables ---------------------------------------------------------------------------- */

void qemu_lockable_co_mutex_lock_(void *m) { qemu_co_mutex_lock(m); }
void qemu_lockable_co_mutex_unlock_(void *m) { qemu_co_mutex_unlock(m); }
void qemu_lockable_mutex_lock_(void *m) { qemu_mutex_lock((QemuMutex *)m); }
void qemu_lockable_mutex_unlock_(void *m) { qemu_mutex_unlock((QemuMutex *)m); }
void qemu_lockable_rec_mutex_lock_(void *m) { qemu_rec_mutex_lock(m); }
void qemu_lockable_rec_mutex_unlock_(void *m) { qemu_rec_mutex_unlock(m); }

/* ---- CoQueue ------------------------------------------------------------------------------ */

void qemu_co_queue_init(CoQueue *queue)
{
    QSIMPLEQ_INIT(&queue->waiters);
}

void coroutine_fn qemu_co_queue_wait_impl(CoQueue *queue, QemuLockable *lock,
                                          CoQueueWaitFlags flags)
{
    CoWaiter w = { .co = qemu_coroutine_self() };

    if (flags & CO_QUEUE_WAIT_FRONT) {
        QSIMPLEQ_INSERT_HEAD(&queue->waiters, &w, next);
    } else {
        QSIMPLEQ_INSERT_TAIL(&queue->waiters, &w, next);
    }
    if (lock) {
        qemu_lockable_unlock(lock);
    }
    qemu_coroutine_yield();
    if (lock) {
        qemu_lockable_lock(lock);
    }
}

static Coroutine *pop_waiter(CoQueue *queue)
{
    CoWaiter *w = QSIMPLEQ_FIRST(&queue->waiters);
    if (!w) {
        return NULL;
    }
    QSIMPLEQ_REMOVE_HEAD(&queue->waiters, next);
    return w->co;
}

bool qemu_co_enter_next_impl(CoQueue *queue, QemuLockable *lock)
{
    Coroutine *co = pop_waiter(queue);
    if (!co) {
        return false;
    }
    if (lock) {
        qemu_lockable_unlock(lock);
    }
    aio_co_wake(co);
    if (lock) {
        qemu_lockable_lock(lock);
    }
    return true;
}

bool qemu_co_queue_next(CoQueue *queue)
{
    /* In a coroutine waking only queues or schedules, so a lock may stay held. */
    return qemu_co_enter_next_impl(queue, NULL);
}

void qemu_co_enter_all_impl(CoQueue *queue, QemuLockable *lock)
{
    while (qemu_co_enter_next_impl(queue, lock)) {
        /* until there is none */
    }
}

void qemu_co_queue_restart_all(CoQueue *queue)
{
    qemu_co_enter_all_impl(queue, NULL);
}

bool qemu_co_queue_empty(CoQueue *queue)
{
    return QSIMPLEQ_EMPTY(&queue->waiters);
}
