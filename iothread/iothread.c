/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* IOThread objects: a thread that runs one AioContext; and the stopping of all of them. */
#include "miniblk/osdep.h"
#include "miniblk/iothread.h"
#include "miniblk/error.h"
#include "miniblk/id.h"
#include "miniblk/main-loop.h"
#include "miniblk/queue.h"
#include "miniblk/runstate.h"
#include "miniblk/thread.h"
#include "miniblk/thread-pool.h"
#include "aio/aio-internal.h"

enum {
    POLL_MAX_NS_DEFAULT = 32768,
    THREAD_POOL_MAX_DEFAULT = 64,
    /* Iterations that a thread which is told to end makes for what is scheduled meanwhile. */
    LAST_ITERATIONS_MAX = 1000,
};

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

/* All of this: main thread. */
static QTAILQ_HEAD(, IOThread) iothreads = QTAILQ_HEAD_INITIALIZER(iothreads);
static unsigned pause_levels;   /* of every IOThread's context lock, held by the main thread */

/* ---- the thread ------------------------------------------------------------------------ */

/*
 * The stop message is behind all that was scheduled before it, so this has run or is about
 * to in the same iteration. Now for what it has led to. Descriptors do not count, one that is
 * always ready would keep us; nor does a bottom half that schedules itself for ever, hence
 * the bound; but work that was given to the pool is waited for however long it takes.
 */
static void run_what_is_left(AioContext *ctx)
{
    ThreadPool *pool = aio_get_thread_pool(ctx);
    unsigned iterations = 0;

    while (thread_pool_busy(pool) ||
           ((aio__messages_pending(ctx) || aio__messages_idle_pending(ctx)) &&
            iterations++ < LAST_ITERATIONS_MAX)) {
        aio_poll(ctx, thread_pool_busy(pool));
    }
}

static void *iothread_run(void *opaque)
{
    IOThread *iothread = opaque;

    qemu_set_current_aio_context(iothread->ctx);
    iothread->thread_id = qemu_get_thread_id();
    qemu_event_set(&iothread->started);

    while (!iothread->stopping) {
        aio_poll(iothread->ctx, true);
    }
    run_what_is_left(iothread->ctx);
    qemu_set_current_aio_context(NULL);
    return NULL;
}

static void stop_bh(void *opaque)
{
    IOThread *iothread = opaque;
    iothread->stopping = true;
}

/* ---- stopping the world ----------------------------------------------------------------- */

static void take_levels(IOThread *iothread, unsigned levels)
{
    while (levels--) {
        aio_context_acquire(iothread->ctx);
    }
}

static void release_levels(IOThread *iothread, unsigned levels)
{
    while (levels--) {
        aio_context_release(iothread->ctx);
    }
}

void iothread_pause_all(void)
{
    IOThread *iothread;

    ASSERT_MAIN_THREAD();
    if (pause_levels == 0) {
        vm_state_notify(false, RUN_STATE_PAUSED);
    }
    QTAILQ_FOREACH(iothread, &iothreads, next) {
        take_levels(iothread, 1);
    }
    pause_levels++;
}

void iothread_resume_all(void)
{
    IOThread *iothread;

    ASSERT_MAIN_THREAD();
    if (unlikely(pause_levels == 0)) {
        fprintf(stderr, "miniblk: iothread_resume_all: the world is not stopped\n");
        abort();
    }
    pause_levels--;
    QTAILQ_FOREACH(iothread, &iothreads, next) {
        release_levels(iothread, 1);
    }
    if (pause_levels == 0) {
        vm_state_notify(true, RUN_STATE_RUNNING);
    }
}

/* ---- life ------------------------------------------------------------------------------ */

static void iothread_free(IOThread *iothread)
{
    aio_context_unref(iothread->ctx);
    qemu_event_destroy(&iothread->started);
    g_free(iothread->id);
    g_free(iothread);
}

static bool id_is_free(const char *id, Error **errp)
{
    if (!id_wellformed(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier");
        return false;
    }
    if (iothread_by_id(id)) {
        error_setg(errp, "attempt to add duplicate property '%s' to object "
                   "(type 'container')", id);
        return false;
    }
    return true;
}

static IOThread *iothread_new(const char *id, Error **errp)
{
    AioContext *ctx = aio_context_new(errp);
    IOThread *iothread;

    if (!ctx) {
        return NULL;
    }
    aio__context_set_name(ctx, id);
    iothread = g_new0(IOThread, 1);
    iothread->id = g_strdup(id);
    iothread->ctx = ctx;
    qemu_event_init(&iothread->started, false);
    return iothread;
}

IOThread *iothread_create(const char *id, Error **errp)
{
    static const IOThreadParams defaults = {
        .poll_max_ns = POLL_MAX_NS_DEFAULT, .thread_pool_max = THREAD_POOL_MAX_DEFAULT,
    };
    g_autofree char *name = g_strdup_printf("IO %s", id);

    ASSERT_MAIN_THREAD();
    IOThread *iothread = id_is_free(id, errp) ? iothread_new(id, errp) : NULL;
    if (!iothread) {
        return NULL;
    }
    int ret = qemu_thread_try_create(&iothread->thread, name, iothread_run, iothread,
                                     QEMU_THREAD_JOINABLE);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to start iothread '%s'", id);
        iothread_free(iothread);
        return NULL;
    }
    QTAILQ_INSERT_TAIL(&iothreads, iothread, next);
    qemu_event_wait(&iothread->started);
    iothread_set_params(iothread, &defaults, &error_abort);
    take_levels(iothread, pause_levels);
    return iothread;
}

void iothread_stop(IOThread *iothread)
{
    ASSERT_MAIN_THREAD();
    if (iothread->stopped) {
        return;
    }
    /* The thread may need the lock for what it has to finish. */
    release_levels(iothread, pause_levels);
    if (unlikely(aio__context_lock_depth(iothread->ctx))) {
        fprintf(stderr, "miniblk: iothread_stop: the caller holds the context of '%s', which "
                "its thread may need to end\n", iothread->id);
        abort();
    }
    iothread->stopped = true;
    /*
     * A message, not a flag and a notification: aio_notify() only promises that events are
     * looked at again, and the loop might be between its look at a flag and its sleep.
     */
    aio_bh_schedule_oneshot(iothread->ctx, stop_bh, iothread);
    qemu_thread_join(&iothread->thread);
    take_levels(iothread, pause_levels);
}

void iothread_destroy(IOThread *iothread)
{
    iothread_stop(iothread);
    release_levels(iothread, pause_levels);
    QTAILQ_REMOVE(&iothreads, iothread, next);
    iothread_free(iothread);
}

/* ---- looking up ------------------------------------------------------------------------ */

IOThread *iothread_by_id(const char *id)
{
    IOThread *iothread;

    ASSERT_MAIN_THREAD();
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

    ASSERT_MAIN_THREAD();
    QTAILQ_FOREACH(iothread, &iothreads, next) {
        if (iothread->ctx == ctx) {
            return iothread;
        }
    }
    return NULL;
}

IOThread *iothread_next(IOThread *iothread)
{
    ASSERT_MAIN_THREAD();
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

/* ---- parameters ------------------------------------------------------------------------ */

static bool in_range(const char *name, int64_t value, Error **errp)
{
    if (value < 0) {
        error_setg(errp, "%s value must be in range [0, %" PRId64 "]", name, INT64_MAX);
        return false;
    }
    return true;
}

static bool check_numbers(const IOThreadParams *params, Error **errp)
{
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
    return true;
}

/* Bind IOTHREAD to CPUS, all of which must be ones that the process may use. */
static bool set_cpus(IOThread *iothread, const cpu_set_t *cpus, Error **errp)
{
    cpu_set_t allowed;
    int ret = port_process_affinity(&allowed);

    for (int i = 0; ret == 0 && i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, cpus) && !CPU_ISSET(i, &allowed)) {
            error_setg(errp, "CPU %d in 'cpu-affinity' is not available to this process", i);
            return false;
        }
    }
    if (ret == 0) {
        ret = port_thread_set_affinity(iothread->thread.thread,
                                       CPU_COUNT(cpus) ? cpus : &allowed);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to set 'cpu-affinity' of iothread '%s'",
                         iothread->id);
        return false;
    }
    return true;
}

const IOThreadParams *iothread_get_params(IOThread *iothread)
{
    ASSERT_MAIN_THREAD();
    return &iothread->params;
}

bool iothread_set_params(IOThread *iothread, const IOThreadParams *params, Error **errp)
{
    ASSERT_MAIN_THREAD();
    if (!check_numbers(params, errp)) {
        return false;
    }
    /* A thread that has ended cannot be bound, and need not be. */
    if (!iothread->stopped && !CPU_EQUAL(&params->cpus, &iothread->params.cpus) &&
        !set_cpus(iothread, &params->cpus, errp)) {
        return false;
    }
    iothread->params = *params;
    aio_context_set_poll_params(iothread->ctx, params->poll_max_ns, params->poll_grow,
                                params->poll_shrink, &error_abort);
    aio_context_set_aio_params(iothread->ctx, params->aio_max_batch);
    thread_pool_set_limits(aio_get_thread_pool(iothread->ctx), params->thread_pool_min,
                           params->thread_pool_max);
    return true;
}
