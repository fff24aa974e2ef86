/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One handle for locks of every kind, and holding one for the length of a scope. */
#ifndef MINIBLK_LOCKABLE_H
#define MINIBLK_LOCKABLE_H

#include <stddef.h>
#include "compiler.h"
#include "spin.h"
#include "thread.h"

typedef struct CoMutex CoMutex;

/* A lock and how to take it. Made by QEMU_MAKE_LOCKABLE() for the time of a block. */
typedef struct QemuLockable {
    void *object;
    void (*lock)(void *object);
    void (*unlock)(void *object);
} QemuLockable;

/* The blocking kinds: any thread. A CoMutex: in a coroutine, which may yield. */
static inline void qemu_lockable_lock(QemuLockable *x) { x->lock(x->object); }
static inline void qemu_lockable_unlock(QemuLockable *x) { x->unlock(x->object); }

void qemu_lockable_mutex_lock_(void *m);
void qemu_lockable_mutex_unlock_(void *m);
void qemu_lockable_rec_mutex_lock_(void *m);
void qemu_lockable_rec_mutex_unlock_(void *m);
void qemu_lockable_co_mutex_lock_(void *m);
void qemu_lockable_co_mutex_unlock_(void *m);
void qemu_lockable_spin_lock_(void *s);
void qemu_lockable_spin_unlock_(void *s);

static inline QemuLockable *qemu_lockable_nonnull_(void *object, QemuLockable *lockable)
{
    return object ? lockable : NULL;
}
#define QEMU_LOCKABLE_(x, lockf, unlockf)                                       \
        qemu_lockable_nonnull_((void *)(x), &(QemuLockable){                    \
            .object = (void *)(x), .lock = (lockf), .unlock = (unlockf) })
/*
 * Wrap a pointer to a QemuMutex, QemuRecMutex, CoMutex or QemuSpin, so that one function can
 * take any kind. NULL, of these types or untyped, stays NULL. Lives as long as the enclosing
 * block. A QemuLockable * is passed through.
 */
#define QEMU_MAKE_LOCKABLE(x) _Generic((x),                                     \
        QemuLockable *: (void *)(x),                                            \
        void *: NULL,                                                           \
        QemuMutex *: QEMU_LOCKABLE_(x, qemu_lockable_mutex_lock_,               \
                                    qemu_lockable_mutex_unlock_),               \
        QemuRecMutex *: QEMU_LOCKABLE_(x, qemu_lockable_rec_mutex_lock_,        \
                                       qemu_lockable_rec_mutex_unlock_),        \
        CoMutex *: QEMU_LOCKABLE_(x, qemu_lockable_co_mutex_lock_,              \
                                  qemu_lockable_co_mutex_unlock_),              \
        QemuSpin *: QEMU_LOCKABLE_(x, qemu_lockable_spin_lock_,                 \
                                   qemu_lockable_spin_unlock_))
/* The same for what is known not to be NULL. */
#define QEMU_MAKE_LOCKABLE_NONNULL(x) QEMU_MAKE_LOCKABLE(x)

static inline QemuLockable *qemu_lock_guard_enter_(QemuLockable *x)
{
    qemu_lockable_lock(x);
    return x;
}
static inline void qemu_lock_guard_leave_(QemuLockable **x)
{
    if (*x) {
        qemu_lockable_unlock(*x);
    }
}
/* Hold a lock of any kind until the end of the enclosing block. */
#define QEMU_LOCK_GUARD(x)                                                      \
        __attribute__((cleanup(qemu_lock_guard_leave_), unused))                \
        QemuLockable *QEMU_GUARD_NAME_(__COUNTER__) =                           \
            qemu_lock_guard_enter_(QEMU_MAKE_LOCKABLE(x))
/* Hold a lock of any kind during the statement or block that follows. */
#define WITH_QEMU_LOCK_GUARD(x)                                                 \
        for (__attribute__((cleanup(qemu_lock_guard_leave_))) QemuLockable      \
             *with_guard_ = qemu_lock_guard_enter_(QEMU_MAKE_LOCKABLE(x));      \
             with_guard_;                                                       \
             qemu_lockable_unlock(with_guard_), with_guard_ = NULL)

#endif
