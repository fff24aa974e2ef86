/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CoMutex and CoQueue. */
#include "aio/coroutine-internal.h"

/* ---- CoMutex ------------------------------------------------------------------------- */

/*
 * FREE and HELD change by one compare-and-swap. Whoever finds it held, and does not get it by
 * spinning, takes GUARD, marks it CONTENDED, queues and yields. While CONTENDED, unlocking
 * takes GUARD too and hands the mutex to the first waiter without setting it free in between,
 * so nobody can overtake.
 *
 * The waiter queues before it yields, so it may be woken before it has. That is safe: waking
 * from another thread sends a message to the waiter's own thread, and from the same thread
 * the waker does not run before the waiter has yielded.
 */
enum { CO_MUTEX_FREE, CO_MUTEX_HELD, CO_MUTEX_CONTENDED };

/*
 * How long to spin, in turns of some 25 ns: longer than it takes to have a sleeping thread
 * woken. So whoever arrives while the mutex is on its way to a waiter gets it after him
 * without going to sleep too, or else every lock from then on would be handed over asleep.
 */
enum { SPIN_TURNS = 1000 };

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

static bool try_lock(CoMutex *mutex)
{
    return qatomic_cmpxchg(&mutex->state, CO_MUTEX_FREE, CO_MUTEX_HELD) == CO_MUTEX_FREE;
}

/*
 * While the holder runs in another thread it may be done before we could even be asleep. Not
 * if it is of our own context, for then it needs this thread; and not if somebody queues,
 * for then it is his turn.
 */
static bool lock_spinning(CoMutex *mutex, AioContext *here)
{
    for (int i = 0; i < PORT_SPIN_TURNS(SPIN_TURNS); i++) {
        unsigned state = qatomic_read(&mutex->state);
        if (state == CO_MUTEX_FREE && try_lock(mutex)) {
            return true;
        }
        if (state == CO_MUTEX_CONTENDED || qatomic_read(&mutex->holder_ctx) == here) {
            return false;
        }
        port_cpu_relax();
    }
    return false;
}

static void coroutine_fn lock_queueing(CoMutex *mutex, Coroutine *self)
{
    CoWaiter w = { .co = self };

    WITH_QEMU_LOCK_GUARD(&mutex->guard) {
        if (qatomic_xchg(&mutex->state, CO_MUTEX_CONTENDED) == CO_MUTEX_FREE) {
            /* it became free meanwhile and is ours; unlocking will find no waiter */
            w.co = NULL;
        } else {
            waiters_append(mutex, &w);
        }
    }
    if (w.co) {
        port_note(PORT_NOTE_CO_WAIT, mutex, "CoMutex");
        qemu_coroutine_yield();
        if (unlikely(qatomic_read(&mutex->holder) != self)) {
            coroutine__misuse("qemu_co_mutex_lock", "Co-routine %p was entered while it waits "
                              "for CoMutex %p", (void *)self, (void *)mutex);
        }
    }
}

void coroutine_fn qemu_co_mutex_lock(CoMutex *mutex)
{
    Coroutine *self = coroutine__self_for(__func__);

    if (!try_lock(mutex)) {
        if (unlikely(qatomic_read(&mutex->holder) == self)) {
            coroutine__misuse(__func__, "Co-routine %p holds CoMutex %p already",
                              (void *)self, (void *)mutex);
        }
        if (!lock_spinning(mutex, qatomic_read(&self->ctx))) {
            lock_queueing(mutex, self);
        }
    }
    qatomic_set(&mutex->holder, self);
    qatomic_set(&mutex->holder_ctx, qatomic_read(&self->ctx));      /* we may have moved */
    port_note(PORT_NOTE_CO_HOLD, mutex, "CoMutex");
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
    qatomic_set(&mutex->holder_ctx, qatomic_read(&co->ctx));
    if (!mutex->first) {
        /* Who comes next may spin again, or one contention would be the first of many. */
        qatomic_set(&mutex->state, CO_MUTEX_HELD);
    }
    return co;
}

void coroutine_fn qemu_co_mutex_unlock(CoMutex *mutex)
{
    Coroutine *self = coroutine__self_for(__func__);

    if (unlikely(qatomic_read(&mutex->holder) != self)) {
        coroutine__misuse(__func__, "Co-routine %p does not hold CoMutex %p", (void *)self,
                          (void *)mutex);
    }
    port_note(PORT_NOTE_CO_RELEASE, mutex, NULL);
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
    Coroutine *self = qemu_coroutine_self();
    if (unlikely(qatomic_read(&mutex->holder) != self)) {
        coroutine__misuse(__func__, "Co-routine %p does not hold CoMutex %p", (void *)self,
                          (void *)mutex);
    }
}

/* ---- CoQueue ------------------------------------------------------------------------- */

void qemu_co_queue_init(CoQueue *queue)
{
    QSIMPLEQ_INIT(&queue->waiters);
}

void coroutine_fn qemu_co_queue_wait_impl(CoQueue *queue, QemuLockable *lock,
                                          CoQueueWaitFlags flags)
{
    CoWaiter w = { .co = coroutine__self_for("qemu_co_queue_wait") };

    if (flags & CO_QUEUE_WAIT_FRONT) {
        QSIMPLEQ_INSERT_HEAD(&queue->waiters, &w, next);
    } else {
        QSIMPLEQ_INSERT_TAIL(&queue->waiters, &w, next);
    }
    if (lock) {
        qemu_lockable_unlock(lock);
    }
    port_note(PORT_NOTE_CO_QUEUE, queue, NULL);
    qemu_coroutine_yield();
    if (unlikely(qatomic_read(&w.co))) {
        coroutine__misuse("qemu_co_queue_wait", "Co-routine %p was entered while it waits in "
                          "CoQueue %p", (void *)w.co, (void *)queue);
    }
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
    Coroutine *co = w->co;
    qatomic_set(&w->co, NULL);      /* tells W that its wake-up is ours */
    return co;
}

bool qemu_co_enter_next_impl(CoQueue *queue, QemuLockable *lock)
{
    port_note(PORT_NOTE_CO_WAKE, queue, NULL);
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

/*
 * In a coroutine waking only queues or schedules, so a lock may stay held. Outside of one the
 * waiter would run at once, and might wait for that lock for ever.
 */
static void check_in_coroutine(const char *call)
{
    if (unlikely(!qemu_in_coroutine())) {
        coroutine__misuse(call, "called outside a coroutine; use qemu_co_enter_next() or "
                          "qemu_co_enter_all() there");
    }
}

bool qemu_co_queue_next(CoQueue *queue)
{
    check_in_coroutine(__func__);
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
    check_in_coroutine(__func__);
    qemu_co_enter_all_impl(queue, NULL);
}

bool qemu_co_queue_empty(CoQueue *queue)
{
    return QSIMPLEQ_EMPTY(&queue->waiters);
}
