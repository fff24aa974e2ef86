/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoRwlock: tickets in one FIFO. Whoever cannot be admitted queues a ticket and yields; each
 * release admits the first ticket, and an admitted reader admits the next if it is a reader.
 */
#include "aio/coroutine-internal.h"

struct CoRwTicket {
    bool read;
    Coroutine *co;
    QSIMPLEQ_ENTRY(CoRwTicket) next;
};

void qemu_co_rwlock_init(CoRwlock *lock)
{
    qemu_co_mutex_init(&lock->mutex);
    lock->owners = 0;
    QSIMPLEQ_INIT(&lock->tickets);
}

/* Admit the first ticket if it can be; releases the mutex. */
static void coroutine_fn admit_and_unlock(CoRwlock *lock)
{
    CoRwTicket *first = QSIMPLEQ_FIRST(&lock->tickets);
    Coroutine *co = NULL;

    if (first && (first->read ? lock->owners >= 0 : lock->owners == 0)) {
        lock->owners = first->read ? lock->owners + 1 : -1;
        QSIMPLEQ_REMOVE_HEAD(&lock->tickets, next);
        co = first->co;
    }
    qemu_co_mutex_unlock(&lock->mutex);
    if (co) {
        aio_co_wake(co);
    }
}

/* With the mutex held: queue, and return admitted. */
static void coroutine_fn queue_and_wait(CoRwlock *lock, bool read)
{
    CoRwTicket ticket = { .read = read, .co = qemu_coroutine_self() };

    QSIMPLEQ_INSERT_TAIL(&lock->tickets, &ticket, next);
    qemu_co_mutex_unlock(&lock->mutex);
    qemu_coroutine_yield();
}

void coroutine_fn qemu_co_rwlock_rdlock(CoRwlock *lock)
{
    qemu_co_mutex_lock(&lock->mutex);
    if (lock->owners >= 0 && QSIMPLEQ_EMPTY(&lock->tickets)) {
        lock->owners++;
        qemu_co_mutex_unlock(&lock->mutex);
        return;
    }
    queue_and_wait(lock, true);
    g_assert(lock->owners > 0);
    /* the next one may be a reader too */
    qemu_co_mutex_lock(&lock->mutex);
    admit_and_unlock(lock);
}

void coroutine_fn qemu_co_rwlock_wrlock(CoRwlock *lock)
{
    qemu_co_mutex_lock(&lock->mutex);
    if (lock->owners == 0) {
        lock->owners = -1;
        qemu_co_mutex_unlock(&lock->mutex);
        return;
    }
    queue_and_wait(lock, false);
    g_assert(lock->owners == -1);
}

void coroutine_fn qemu_co_rwlock_upgrade(CoRwlock *lock)
{
    qemu_co_mutex_lock(&lock->mutex);
    g_assert(lock->owners > 0);
    if (lock->owners == 1 && QSIMPLEQ_EMPTY(&lock->tickets)) {
        lock->owners = -1;
        qemu_co_mutex_unlock(&lock->mutex);
        return;
    }
    CoRwTicket ticket = { .read = false, .co = qemu_coroutine_self() };
    lock->owners--;
    QSIMPLEQ_INSERT_TAIL(&lock->tickets, &ticket, next);
    admit_and_unlock(lock);
    qemu_coroutine_yield();
    g_assert(lock->owners == -1);
}

void coroutine_fn qemu_co_rwlock_downgrade(CoRwlock *lock)
{
    qemu_co_mutex_lock(&lock->mutex);
    g_assert(lock->owners == -1);
    lock->owners = 1;
    admit_and_unlock(lock);
}

void coroutine_fn qemu_co_rwlock_unlock(CoRwlock *lock)
{
    qemu_co_mutex_lock(&lock->mutex);
    if (lock->owners > 0) {
        lock->owners--;
    } else {
        g_assert(lock->owners == -1);
        lock->owners = 0;
    }
    admit_and_unlock(lock);
}
