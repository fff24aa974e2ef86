/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GLib's locks and queues. What they are made of is GLib's own read-modify-writes, which are no
 * points, and futexes, which are only when somebody must wait (interpose.c). So each call is a
 * point here, and what the caller has stored lands before GLib does anything. ThreadSanitizer does
 * not see them either.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/real.h"
#include "lab/tsan.h"

static void point(const void *object)
{
    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)object, true);
}

static inline void taken(const void **object)
{
    if (*object) {
        lab_acquire(*object);
    }
}

/* NAME(OBJECT, ...) with a point before it; it gives RELEASED to others and takes ACQUIRED. */
#define POINT_BEFORE(ret, name, object, released, acquired, parameters, ...)    \
    ret (name) parameters                                                       \
    {                                                                           \
        __attribute__((cleanup(taken))) const void *taken_ = acquired;          \
        point(object);                                                          \
        if (released) {                                                         \
            lab_release(released);                                              \
        }                                                                       \
        return REAL(name)(__VA_ARGS__);                                         \
    }
#define NO ((void *)0)

POINT_BEFORE(void, g_mutex_lock, m, NO, m, (GMutex *m), m)
POINT_BEFORE(gboolean, g_mutex_trylock, m, NO, m, (GMutex *m), m)
POINT_BEFORE(void, g_mutex_unlock, m, m, NO, (GMutex *m), m)
POINT_BEFORE(void, g_cond_wait, c, m, m, (GCond *c, GMutex *m), c, m)
POINT_BEFORE(gboolean, g_cond_wait_until, c, m, m, (GCond *c, GMutex *m, gint64 end_us), c, m,
             end_us)
POINT_BEFORE(void, g_cond_signal, c, NO, NO, (GCond *c), c)
POINT_BEFORE(void, g_cond_broadcast, c, NO, NO, (GCond *c), c)
POINT_BEFORE(void, g_async_queue_lock, q, NO, q, (GAsyncQueue *q), q)
POINT_BEFORE(void, g_async_queue_unlock, q, q, NO, (GAsyncQueue *q), q)
POINT_BEFORE(void, g_async_queue_push, q, q, NO, (GAsyncQueue *q, gpointer data), q, data)
POINT_BEFORE(void, g_async_queue_push_front, q, q, NO, (GAsyncQueue *q, gpointer data), q, data)
POINT_BEFORE(gpointer, g_async_queue_pop, q, NO, q, (GAsyncQueue *q), q)
POINT_BEFORE(gpointer, g_async_queue_try_pop, q, NO, q, (GAsyncQueue *q), q)
POINT_BEFORE(gpointer, g_async_queue_timeout_pop, q, NO, q, (GAsyncQueue *q, guint64 us), q, us)
POINT_BEFORE(gboolean, g_thread_pool_push, p, NO, NO,
             (GThreadPool *p, gpointer data, GError **error), p, data, error)
