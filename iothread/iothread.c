/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* IOThread objects: a thread that runs one AioContext. */
#include "miniblk/osdep.h"
#include "miniblk/iothread.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/main-loop.h"
#include "miniblk/queue.h"
#include "miniblk/thread.h"
#include "miniblk/thread-pool.h"

struct IOThread {
    char *id;
    AioContext *ctx;
    QemuThread thread;
    QemuEvent started;          /* set once THREAD_ID is known and the loop has its home */
    int thread_id;
    bool stopping;              /* home thread only: set by a message, read by the loop */
    bool stopped;               /* main thread */
    IOThreadParams params;      /* main thread */
    QTAILQ_ENTRY(IOThread) next;
};

static QTAILQ_HEAD(, IOThread) iothreads = QTAILQ_HEAD_INITIALIZER(iothreads);

static void *iothread_run(void *opaque)
{
    IOThread *iothread = opaque;

    qemu_set_current_aio_context(iothread->ctx);
    iothread->thread_id = qemu_get_thread_id();
    qemu_event_set(&iothread->started);

    while (!iothread->stopping) {
        aio_poll(iothread->ctx, true);
    }
    /* What had been scheduled runs before we go, and what that schedules in turn. */
    while (aio_poll(iothread->ctx, false)) {
        /* until nothing is left */
    }
    qemu_set_current_aio_context(NULL);
    return NULL;
}

static void stop_bh(void *opaque)
{
    IOThread *iothread = opaque;
    iothread->stopping = true;
}

static bool id_wellformed(const char *id)
{
    if (!g_ascii_isalpha(id[0])) {
        return false;
    }
    for (const char *p = id; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("-._", *p)) {
            return false;
        }
    }
    return true;
}

static void iothread_free(IOThread *iothread)
{
    aio_context_unref(iothread->ctx);
    qemu_event_destroy(&iothread->started);
    g_free(iothread->id);
    g_free(iothread);
}

IOThread *iothread_create(const char *id, Error **errp)
{
    g_assert(qemu_in_main_thread());
    if (!id_wellformed(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        return NULL;
    }
    if (iothread_by_id(id)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object "
                   "(type 'container')", id);
        return NULL;
    }
    AioContext *ctx = aio_context_new(errp);
    if (!ctx) {
        return NULL;
    }
    IOThread *iothread = g_new0(IOThread, 1);
    iothread->id = g_strdup(id);
    iothread->ctx = ctx;
    iothread->params = (IOThreadParams) { .poll_max_ns = 32768, .thread_pool_max = 64 };
    qemu_event_init(&iothread->started, false);
    g_autofree char *name = g_strdup_printf("IO %s", id);
    int ret = qemu_thread_try_create(&iothread->thread, name, iothread_run, iothread,
                                     QEMU_THREAD_JOINABLE);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to start iothread '%s'", id);
        iothread_free(iothread);
        return NULL;
    }
    QTAILQ_INSERT_TAIL(&iothreads, iothread, next);
    qemu_event_wait(&iothread->started);
    return iothread;
}

void iothread_stop(IOThread *iothread)
{
    g_assert(qemu_in_main_thread());
    if (iothread->stopped) {
        return;
    }
    iothread->stopped = true;
    /*
     * A message, not a flag and a notification: aio_notify() only promises that events are
     * looked at again, and the loop might be between its look at a flag and its sleep.
     */
    aio_bh_schedule_oneshot(iothread->ctx, stop_bh, iothread);
    qemu_thread_join(&iothread->thread);
}

void iothread_destroy(IOThread *iothread)
{
    iothread_stop(iothread);
    QTAILQ_REMOVE(&iothreads, iothread, next);
    iothread_free(iothread);
}

IOThread *iothread_by_id(const char *id)
{
    IOThread *iothread;
    QTAILQ_FOREACH(iothread, &iothreads, next) {
        if (!strcmp(iothread->id, id)) {
            return iothread;
        }
    }
    return NULL;
}

IOThread *iothread_by_aio_context(AioContext *ctx)
{
    IOThread *iothread;
    QTAILQ_FOREACH(iothread, &iothreads, next) {
        if (iothread->ctx == ctx) {
            return iothread;
        }
    }
    return NULL;
}

IOThread *iothread_next(IOThread *iothread)
{
    return iothread ? QTAILQ_NEXT(iothread, next) : QTAILQ_FIRST(&iothreads);
}

char *iothread_get_id(IOThread *iothread)
{
    return g_strdup(iothread->id);
}

AioContext *iothread_get_aio_context(IOThread *iothread)
{
    return iothread->ctx;
}

int iothread_get_thread_id(IOThread *iothread)
{
    return iothread->thread_id;
}

const IOThreadParams *iothread_get_params(IOThread *iothread)
{
    return &iothread->params;
}

static bool in_range(const char *name, int64_t value, Error **errp)
{
    if (value < 0) {
        error_setg(errp, "%s value must be in range [0, %" PRId64 "]", name, INT64_MAX);
        return false;
    }
    return true;
}

bool iothread_set_params(IOThread *iothread, const IOThreadParams *params, Error **errp)
{
    g_assert(qemu_in_main_thread());
    if (!in_range("poll-max-ns", params->poll_max_ns, errp) ||
        !in_range("poll-grow", params->poll_grow, errp) ||
        !in_range("poll-shrink", params->poll_shrink, errp) ||
        !in_range("aio-max-batch", params->aio_max_batch, errp) ||
        !in_range("thread-pool-min", params->thread_pool_min, errp) ||
        !in_range("thread-pool-max", params->thread_pool_max, errp)) {
        return false;
    }
    if (params->thread_pool_max == 0 ||
        params->thread_pool_min > params->thread_pool_max ||
        params->thread_pool_max > INT_MAX) {
        error_setg(errp, "bad thread-pool-min/thread-pool-max values");
        return false;
    }
    iothread->params = *params;
    aio_context_set_poll_params(iothread->ctx, params->poll_max_ns, params->poll_grow,
                                params->poll_shrink, &error_abort);
    thread_pool_set_limits(aio_get_thread_pool(iothread->ctx), params->thread_pool_min,
                           params->thread_pool_max);
    return true;
}
