/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * GLib's locks and queues. What they are made of is GLib's own read-modify-writes, which are no
 * points, and futexes, which are only when somebody must wait (interpose.c). So each call is a
 * point here, and what the caller has stored lands before GLib does anything.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/real.h"

static void point(const void *object)
{
    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)object, true);
}

/* NAME(OBJECT, ...) with a point before it. */
#define POINT_BEFORE(ret, name, object, parameters, ...)                        \
    ret (name) parameters                                                       \
    {                                                                           \
        point(object);                                                          \
        return REAL(name)(__VA_ARGS__);                                         \
    }

POINT_BEFORE(void, g_mutex_lock, m, (GMutex *m), m)
POINT_BEFORE(gboolean, g_mutex_trylock, m, (GMutex *m), m)
POINT_BEFORE(void, g_mutex_unlock, m, (GMutex *m), m)
POINT_BEFORE(void, g_cond_wait, c, (GCond *c, GMutex *m), c, m)
POINT_BEFORE(gboolean, g_cond_wait_until, c, (GCond *c, GMutex *m, gint64 end_us), c, m, end_us)
POINT_BEFORE(void, g_cond_signal, c, (GCond *c), c)
POINT_BEFORE(void, g_cond_broadcast, c, (GCond *c), c)
POINT_BEFORE(void, g_async_queue_lock, q, (GAsyncQueue *q), q)
POINT_BEFORE(void, g_async_queue_unlock, q, (GAsyncQueue *q), q)
POINT_BEFORE(void, g_async_queue_push, q, (GAsyncQueue *q, gpointer data), q, data)
POINT_BEFORE(void, g_async_queue_push_front, q, (GAsyncQueue *q, gpointer data), q, data)
POINT_BEFORE(gpointer, g_async_queue_pop, q, (GAsyncQueue *q), q)
POINT_BEFORE(gpointer, g_async_queue_try_pop, q, (GAsyncQueue *q), q)
POINT_BEFORE(gpointer, g_async_queue_timeout_pop, q, (GAsyncQueue *q, guint64 us), q, us)
POINT_BEFORE(gboolean, g_thread_pool_push, p, (GThreadPool *p, gpointer data, GError **error), p,
             data, error)
