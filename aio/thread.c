/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The public thread API, on the port seam. */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/thread.h"
#include "aio/port.h"

void qemu_mutex_init(QemuMutex *mutex) { port_mutex_init(&mutex->lock); }
void qemu_mutex_destroy(QemuMutex *mutex) { port_mutex_destroy(&mutex->lock); }

/* How many mutexes the calling thread holds, for the check of the lock order. */
#ifndef MINIBLK_RELEASE
static PORT_THREAD_LOCAL unsigned mutexes_held;
#define COUNT_MUTEX(change) (mutexes_held += (change))
#else
#define COUNT_MUTEX(change) ((void)0)
#endif

QEMU_NOINLINE void qemu_mutex_lock_func(QemuMutex *mutex)
{
    port_mutex_lock(&mutex->lock);
    COUNT_MUTEX(1);
}

QEMU_NOINLINE int qemu_mutex_trylock(QemuMutex *mutex)
{
    int ret = port_mutex_trylock(&mutex->lock);
    if (ret == 0) {
        COUNT_MUTEX(1);
    }
    return ret;
}

QEMU_NOINLINE void qemu_mutex_unlock_func(QemuMutex *mutex)
{
    COUNT_MUTEX(-1);
    port_mutex_unlock(&mutex->lock);
}

#ifndef MINIBLK_RELEASE
QEMU_NOINLINE unsigned qemu_thread_mutexes_held(void)
{
    return mutexes_held;
}
#endif

void qemu_rec_mutex_init(QemuRecMutex *mutex)
{
    qemu_mutex_init(&mutex->mutex);
    mutex->owner = 0;
    mutex->depth = 0;
}

void qemu_rec_mutex_destroy(QemuRecMutex *mutex)
{
    qemu_mutex_destroy(&mutex->mutex);
}

int qemu_rec_mutex_trylock(QemuRecMutex *mutex)
{
    int self = qemu_get_thread_id();
    /* Only we can have written our own id, so the unlocked read cannot mislead. */
    if (qatomic_read(&mutex->owner) != self) {
        if (qemu_mutex_trylock(&mutex->mutex)) {
            return -EBUSY;
        }
        qatomic_set(&mutex->owner, self);
    }
    mutex->depth++;
    return 0;
}

void qemu_rec_mutex_lock(QemuRecMutex *mutex)
{
    int self = qemu_get_thread_id();
    if (qatomic_read(&mutex->owner) != self) {
        qemu_mutex_lock(&mutex->mutex);
        qatomic_set(&mutex->owner, self);
    }
    mutex->depth++;
}

void qemu_rec_mutex_unlock(QemuRecMutex *mutex)
{
    g_assert(qatomic_read(&mutex->owner) == qemu_get_thread_id());
    if (--mutex->depth == 0) {
        qatomic_set(&mutex->owner, 0);
        qemu_mutex_unlock(&mutex->mutex);
    }
}

void qemu_cond_init(QemuCond *cond) { port_cond_init(&cond->cond); }
void qemu_cond_destroy(QemuCond *cond) { port_cond_destroy(&cond->cond); }
void qemu_cond_signal(QemuCond *cond) { port_cond_signal(&cond->cond); }
void qemu_cond_broadcast(QemuCond *cond) { port_cond_broadcast(&cond->cond); }

void qemu_cond_wait_func(QemuCond *cond, QemuMutex *mutex)
{
    port_cond_wait(&cond->cond, &mutex->lock);
}

bool qemu_cond_timedwait(QemuCond *cond, QemuMutex *mutex, int ms)
{
    return port_cond_timedwait(&cond->cond, &mutex->lock, ms * 1000000LL);
}

/*
 * QemuEvent: a futex word. A waiter announces itself by UNSET -> SLEEPERS before it sleeps;
 * the setter's exchange tells it whether anybody must be woken. After the exchange the
 * setter touches the event only by its address, which the kernel may find gone or reused:
 * at worst somebody is woken without reason, and futex waits are always re-checked.
 */
enum { EVENT_SET, EVENT_UNSET, EVENT_SLEEPERS };

void qemu_event_init(QemuEvent *ev, bool init)
{
    qatomic_set(&ev->value, init ? EVENT_SET : EVENT_UNSET);
}

void qemu_event_destroy(QemuEvent *ev)
{
    qatomic_set(&ev->value, EVENT_UNSET);
}

void qemu_event_set(QemuEvent *ev)
{
    if (qatomic_xchg(&ev->value, EVENT_SET) == EVENT_SLEEPERS) {
        port_futex_wake(ev, INT_MAX);
    }
}

void qemu_event_reset(QemuEvent *ev)
{
    /* With sleepers it is unset already, and they must not be forgotten. */
    (void)qatomic_cmpxchg(&ev->value, EVENT_SET, EVENT_UNSET);
}

void qemu_event_wait(QemuEvent *ev)
{
    while (qatomic_load_acquire(&ev->value) != EVENT_SET) {
        if (qatomic_cmpxchg(&ev->value, EVENT_UNSET, EVENT_SLEEPERS) != EVENT_SET) {
            port_futex_wait(ev, EVENT_SLEEPERS);
        }
    }
}

int qemu_thread_try_create(QemuThread *thread, const char *name,
                           void *(*start_routine)(void *), void *arg, int mode)
{
    int ret = port_thread_create(&thread->thread, start_routine, arg,
                                 mode == QEMU_THREAD_DETACHED);
    if (ret == 0 && name && mode != QEMU_THREAD_DETACHED) {
        port_thread_set_name(thread->thread, name);
    }
    return ret;
}

void qemu_thread_create(QemuThread *thread, const char *name,
                        void *(*start_routine)(void *), void *arg, int mode)
{
    int ret = qemu_thread_try_create(thread, name, start_routine, arg, mode);
    port_check(-ret, "qemu_thread_create");
}

void *qemu_thread_join(QemuThread *thread) { return port_thread_join(thread->thread); }
void qemu_thread_get_self(QemuThread *thread) { thread->thread = port_thread_self(); }

bool qemu_thread_is_self(QemuThread *thread)
{
    return port_thread_equal(thread->thread, port_thread_self());
}

static PORT_THREAD_LOCAL int thread_id;

QEMU_NOINLINE int qemu_get_thread_id(void)
{
    if (!thread_id) {
        thread_id = port_thread_id();
    }
    return thread_id;
}
