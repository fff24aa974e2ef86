/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads and the locks that block a thread. All of them go through the port seam.
 *
 * A QemuMutex or CoMutex that is all zero bytes is a valid unlocked one, so that it can be
 * static or embedded in zeroed memory.
 */
#ifndef MINIBLK_THREAD_H
#define MINIBLK_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"

typedef struct QemuMutex { pthread_mutex_t lock; } QemuMutex;
/* Recursive: the owner may take it again; it must release it as often. */
typedef struct QemuRecMutex {
    QemuMutex mutex;
    int owner;              /* thread id, 0 when free; written by the owner only */
    unsigned depth;         /* protected by MUTEX */
} QemuRecMutex;
typedef struct QemuCond { pthread_cond_t cond; } QemuCond;
/* Manual-reset event. VALUE: 0 set, 1 unset, 2 unset with sleepers. */
typedef struct QemuEvent { unsigned value; } QemuEvent;
typedef struct QemuThread { pthread_t thread; } QemuThread;

#define QEMU_THREAD_JOINABLE 0
#define QEMU_THREAD_DETACHED 1

void qemu_mutex_init(QemuMutex *mutex);
void qemu_mutex_destroy(QemuMutex *mutex);
void qemu_mutex_lock_func(QemuMutex *mutex);
/* 0 when taken, -EBUSY when somebody holds it. */
int qemu_mutex_trylock(QemuMutex *mutex);
void qemu_mutex_unlock_func(QemuMutex *mutex);
#define qemu_mutex_lock(m)   qemu_mutex_lock_func(m)
#define qemu_mutex_unlock(m) qemu_mutex_unlock_func(m)
/* How many QemuMutexes the calling thread holds. Not in release builds; for assertions. */
unsigned qemu_thread_mutexes_held(void);

void qemu_rec_mutex_init(QemuRecMutex *mutex);
void qemu_rec_mutex_destroy(QemuRecMutex *mutex);
void qemu_rec_mutex_lock(QemuRecMutex *mutex);
int qemu_rec_mutex_trylock(QemuRecMutex *mutex);
void qemu_rec_mutex_unlock(QemuRecMutex *mutex);

void qemu_cond_init(QemuCond *cond);
void qemu_cond_destroy(QemuCond *cond);
void qemu_cond_signal(QemuCond *cond);
void qemu_cond_broadcast(QemuCond *cond);
void qemu_cond_wait_func(QemuCond *cond, QemuMutex *mutex);
#define qemu_cond_wait(c, m) qemu_cond_wait_func(c, m)
/* Wait at most MS milliseconds (less than 0: as 0); false when the time ran out. */
bool qemu_cond_timedwait(QemuCond *cond, QemuMutex *mutex, int ms);

void qemu_event_init(QemuEvent *ev, bool init);
/* Wakes all waiters; EV may be destroyed by a waiter as soon as its wait returns. */
void qemu_event_set(QemuEvent *ev);
void qemu_event_reset(QemuEvent *ev);
void qemu_event_wait(QemuEvent *ev);
void qemu_event_destroy(QemuEvent *ev);

/* Start a thread running START_ROUTINE(ARG). NAME (may be NULL) is cut to 15 characters. */
void qemu_thread_create(QemuThread *thread, const char *name,
                        void *(*start_routine)(void *), void *arg, int mode);
/* The same, but a refusal of the system is returned (-EAGAIN) and not fatal. */
int qemu_thread_try_create(QemuThread *thread, const char *name,
                           void *(*start_routine)(void *), void *arg, int mode);
void *qemu_thread_join(QemuThread *thread);
void qemu_thread_get_self(QemuThread *thread);
bool qemu_thread_is_self(QemuThread *thread);
/* The kernel's id of the calling thread. */
int qemu_get_thread_id(void);

/* Scope-bound locking: the lock is dropped when the scope is left, however it is left. */
static inline void qemu_mutex_guard_cleanup_(QemuMutex **m)
{
    if (*m) {
        qemu_mutex_unlock_func(*m);
    }
}
#define QEMU_GUARD_PASTE_(a, b) a##b
#define QEMU_GUARD_NAME_(n) QEMU_GUARD_PASTE_(qemu_lock_guard_, n)
/* Hold MUTEX (a QemuMutex *) until the end of the enclosing block. */
#define QEMU_MUTEX_GUARD(mutex)                                                 \
        __attribute__((cleanup(qemu_mutex_guard_cleanup_), unused))             \
        QemuMutex *QEMU_GUARD_NAME_(__COUNTER__) = (qemu_mutex_lock(mutex), (mutex))

#endif
