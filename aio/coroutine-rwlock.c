/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoRwlock: tickets in one FIFO. Whoever cannot be admitted queues a ticket and yields; each
 * release admits the first ticket, and an admitted reader admits the next if it is a reader.
 * So the lock is never free while a ticket waits.
 */
#include "aio/coroutine-internal.h"

struct CoRwTicket {
    bool read;
    Coroutine *co;              /* atomic; NULL once admitted */
    QSIMPLEQ_ENTRY(CoRwTicket) next;
};

void qemu_co_rwlock_init(CoRwlock *lock)
{
    qemu_co_mutex_init(&lock->mutex);
    lock->owners = 0;
    lock->writer = NULL;
    QSIMPLEQ_INIT(&lock->tickets);
}

/* ---- owners; with the mutex held ----------------------------------------------------- */

static void own(CoRwlock *lock, bool read, Coroutine *co)
{
    lock->owners = read ? lock->owners + 1 : -1;
    lock->writer = read ? NULL : co;
}

static void check_writes(CoRwlock *lock, const char *call, Coroutine *self)
{
    if (unlikely(lock->writer != self)) {
        coroutine__misuse(call, "Co-routine %p has not locked CoRwlock %p for writing",
                          (void *)self, (void *)lock);
    }
}

static void check_reads(CoRwlock *lock, const char *call)
{
    /* Which coroutines read is not known, only how many. */
    if (unlikely(lock->owners <= 0)) {
        coroutine__misuse(call, "nobody has locked CoRwlock %p for reading", (void *)lock);
    }
}

static void check_not_writing(CoRwlock *lock, const char *call, Coroutine *self)
{
    if (unlikely(lock->writer == self)) {
        coroutine__misuse(call, "Co-routine %p has locked CoRwlock %p for writing already",
                          (void *)self, (void *)lock);
    }
}

/* ---- the queue; all of these release the mutex --------------------------------------- */

/* Admit the first ticket if it can be. */
static void coroutine_fn admit_and_unlock(CoRwlock *lock)
{
    CoRwTicket *first = QSIMPLEQ_FIRST(&lock->tickets);
    Coroutine *co = NULL;

    if (first && (first->read ? lock->owners >= 0 : lock->owners == 0)) {
        QSIMPLEQ_REMOVE_HEAD(&lock->tickets, next);
        co = first->co;
        own(lock, first->read, co);
        qatomic_set(&first->co, NULL);
        /* others may come in before CO is awake: it does not wait for them */
        port_note_pair(PORT_NOTE_SCHEDULE, co, qatomic_read(&co->ctx));
    }
    qemu_co_mutex_unlock(&lock->mutex);
    if (co) {
        aio_co_wake(co);
    }
}

/* Queue, and return admitted. */
static void coroutine_fn wait_for_turn(CoRwlock *lock, const char *call, bool read)
{
    CoRwTicket ticket = { .read = read, .co = qemu_coroutine_self() };

    QSIMPLEQ_INSERT_TAIL(&lock->tickets, &ticket, next);
    /* An upgrade has just given up its share, so the first in the queue may go. */
    admit_and_unlock(lock);
    port_note(PORT_NOTE_CO_WAIT, lock, "CoRwlock");
    qemu_coroutine_yield();
    if (unlikely(qatomic_read(&ticket.co))) {
        coroutine__misuse(call, "Co-routine %p was entered while it waits for CoRwlock %p",
                          (void *)ticket.co, (void *)lock);
    }
}

/* ---- locking ------------------------------------------------------------------------- */

void coroutine_fn qemu_co_rwlock_rdlock(CoRwlock *lock)
{
    Coroutine *self = coroutine__self_for(__func__);

    qemu_co_mutex_lock(&lock->mutex);
    check_not_writing(lock, __func__, self);
    if (lock->owners >= 0 && QSIMPLEQ_EMPTY(&lock->tickets)) {
        own(lock, true, self);
        qemu_co_mutex_unlock(&lock->mutex);
    } else {
        wait_for_turn(lock, __func__, true);
        /* the next one may be a reader too */
        qemu_co_mutex_lock(&lock->mutex);
        admit_and_unlock(lock);
    }
    port_note(PORT_NOTE_CO_SHARE, lock, "CoRwlock");
    self->locks_held++;
}

void coroutine_fn qemu_co_rwlock_wrlock(CoRwlock *lock)
{
    Coroutine *self = coroutine__self_for(__func__);

    qemu_co_mutex_lock(&lock->mutex);
    check_not_writing(lock, __func__, self);
    if (lock->owners == 0) {
        own(lock, false, self);
        qemu_co_mutex_unlock(&lock->mutex);
    } else {
        wait_for_turn(lock, __func__, false);
    }
    port_note(PORT_NOTE_CO_HOLD, lock, "CoRwlock");
    self->locks_held++;
}

void coroutine_fn qemu_co_rwlock_upgrade(CoRwlock *lock)
{
    Coroutine *self = coroutine__self_for(__func__);

    qemu_co_mutex_lock(&lock->mutex);
    check_reads(lock, __func__);
    if (lock->owners == 1 && QSIMPLEQ_EMPTY(&lock->tickets)) {
        own(lock, false, self);
        qemu_co_mutex_unlock(&lock->mutex);
    } else {
        lock->owners--;
        port_note(PORT_NOTE_CO_RELEASE, lock, NULL);
        wait_for_turn(lock, __func__, false);
    }
    port_note(PORT_NOTE_CO_HOLD, lock, "CoRwlock");
}

void coroutine_fn qemu_co_rwlock_downgrade(CoRwlock *lock)
{
    Coroutine *self = coroutine__self_for(__func__);

    qemu_co_mutex_lock(&lock->mutex);
    check_writes(lock, __func__, self);
    port_note(PORT_NOTE_CO_RELEASE, lock, NULL);
    port_note(PORT_NOTE_CO_SHARE, lock, "CoRwlock");
    lock->owners = 0;
    own(lock, true, self);
    admit_and_unlock(lock);
}

void coroutine_fn qemu_co_rwlock_unlock(CoRwlock *lock)
{
    Coroutine *self = coroutine__self_for(__func__);

    port_note(PORT_NOTE_CO_RELEASE, lock, NULL);
    qemu_co_mutex_lock(&lock->mutex);
    if (lock->owners < 0) {
        check_writes(lock, __func__, self);
        lock->owners = 0;
        lock->writer = NULL;
    } else {
        check_reads(lock, __func__);
        lock->owners--;
    }
    self->locks_held--;
    admit_and_unlock(lock);
}
