/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* AioContext: life, the loop as a list of phases, and the loop as a GSource. */
#include "aio/aio-internal.h"
#include "miniblk/raw-aio.h"
#include "miniblk/thread-pool.h"

static PORT_THREAD_LOCAL AioContext *current_context;

QEMU_NOINLINE AioContext *qemu_get_current_aio_context(void)
{
    return current_context;
}

QEMU_NOINLINE void qemu_set_current_aio_context(AioContext *ctx)
{
    if (ctx && current_context && current_context != ctx) {
        fprintf(stderr, "miniblk: qemu_set_current_aio_context: the thread has a loop already\n");
        abort();
    }
    current_context = ctx;
    port_note(PORT_NOTE_HOME, ctx, NULL);
}

bool in_aio_context_home_thread(AioContext *ctx)
{
    return ctx == qemu_get_current_aio_context();
}

/* ---- life ------------------------------------------------------------------------------ */

static void nothing(void *opaque)
{
}

AioContext *aio_context_new(Error **errp)
{
    AioContext *ctx = g_new0(AioContext, 1);
    int ret = aio__wake_init(ctx);

    if (ret >= 0) {
        ret = aio__fds_init(ctx);
        if (ret < 0) {
            aio__wake_destroy(ctx);
        }
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to create an event loop");
        g_free(ctx);
        return NULL;
    }
    ctx->refcount = 1;
    ctx->ready_tail = &ctx->ready;
    qemu_mutex_init(&ctx->engine_lock);
    aio__timers_init(ctx);
    ctx->kick_bh = aio_bh_new(ctx, nothing, NULL);
    const char *monitor = getenv("MINIBLK_FD_MONITOR");
    if (monitor && !aio_context_set_fd_monitor(ctx, monitor, errp)) {
        aio_context_unref(ctx);
        return NULL;
    }
    return ctx;
}

static void context_free(AioContext *ctx)
{
    aio__context_lock_destroy(ctx);
    if (ctx->thread_pool) {
        thread_pool_free(ctx->thread_pool);
    }
    if (ctx->linux_aio) {
        laio_detach_aio_context(ctx->linux_aio, ctx);
        laio_cleanup(ctx->linux_aio);
    }
    if (ctx->linux_io_uring) {
        luring_detach_aio_context(ctx->linux_io_uring, ctx);
        luring_cleanup(ctx->linux_io_uring);
    }
    qemu_bh_delete(ctx->kick_bh);
    aio__messages_destroy(ctx);
    aio__timers_destroy(ctx);
    aio__fds_destroy(ctx);
    aio__wake_destroy(ctx);
    qemu_mutex_destroy(&ctx->engine_lock);
    g_free(ctx);
}

void aio_context_ref(AioContext *ctx)
{
    qatomic_inc(&ctx->refcount);
}

void aio_context_unref(AioContext *ctx)
{
    unsigned old = qatomic_fetch_dec(&ctx->refcount);
    g_assert(old > 0);
    if (old == 1) {
        /*
         * Teardown deletes bottom halves and handlers, and pushing a message takes a
         * reference: keep the count away from zero so that it is not torn down twice.
         */
        qatomic_set(&ctx->refcount, UINT_MAX / 2);
        context_free(ctx);
    }
}

/* ---- the loop -------------------------------------------------------------------------- */

enum { IDLE_BH_LATENCY_NS = 10 * 1000 * 1000 };

/* How long the loop may sleep: 0 not at all, -1 until notified. */
static int64_t sleep_time_ns(AioContext *ctx)
{
    if (aio__messages_pending(ctx) || aio__fds_ready(ctx)) {
        return 0;
    }
    int64_t ns = aio__timers_deadline_ns(ctx);
    if (unlikely(aio__messages_idle_pending(ctx))) {
        ns = ns < 0 ? IDLE_BH_LATENCY_NS : MIN(ns, IDLE_BH_LATENCY_NS);
    }
    return ns;
}

static bool run_ready(AioContext *ctx)
{
    bool progress = aio__messages_run(ctx);
    progress |= aio__fds_dispatch(ctx);
    progress |= aio__timers_run(ctx);
    return progress;
}

static void sleep_until_event(AioContext *ctx, int64_t timeout_ns)
{
    bool sleeping = timeout_ns != 0 && aio__sleep_begin(ctx);
    aio__fds_wait(ctx, sleeping ? timeout_ns : 0);
    if (sleeping) {
        aio__sleep_end(ctx);
    }
}

static void poll_then_sleep(AioContext *ctx, int64_t timeout_ns)
{
    int64_t start_ns = get_clock();

    if (!aio__busy_poll(ctx, start_ns, timeout_ns)) {
        /* time has passed: the first timer is nearer now */
        sleep_until_event(ctx, sleep_time_ns(ctx));
    }
    aio__busy_poll_adapt(ctx, get_clock() - start_ns);
}

bool aio_poll(AioContext *ctx, bool blocking)
{
    if (unlikely(!in_aio_context_home_thread(ctx))) {
        fprintf(stderr, "miniblk: aio_poll: context %p is polled outside its home thread\n",
                (void *)ctx);
        abort();
    }
    ctx->poll_depth++;
    aio__batch_flush(ctx);

    /*
     * First forget old notifications, then look for work: see notify.c. Whoever notified
     * wants us to return, even if there is no work and it came before we were called.
     */
    bool notified = aio__notify_accept(ctx);
    int64_t timeout_ns = blocking && !notified ? sleep_time_ns(ctx) : 0;
    if (timeout_ns == 0) {
        /*
         * A look that does not wait may do no more than consume the notification. Not if it
         * was for something to run: that may notify again, and so on, and the descriptors
         * would never have their turn.
         */
        aio__fds_look(ctx, notified && !blocking && sleep_time_ns(ctx) != 0);
    } else if (qatomic_read(&ctx->poll_max_ns)) {
        poll_then_sleep(ctx, timeout_ns);
    } else {
        sleep_until_event(ctx, timeout_ns);
    }

    bool progress = run_ready(ctx);
    if (--ctx->poll_depth == 0) {
        aio__fds_collect_garbage(ctx);
    }
    return progress;
}

/* ---- the loop as a GSource ------------------------------------------------------------- */

/* The same phases, cut where GLib polls: prepare, (GLib sleeps), check, dispatch. */
typedef struct AioSource {
    GSource source;
    AioContext *ctx;
    gpointer epoll_tag;         /* GLib's handle of the fd monitor's descriptor */
} AioSource;

static gboolean source_prepare(GSource *source, int *timeout_ms)
{
    AioContext *ctx = ((AioSource *)source)->ctx;

    aio__batch_flush(ctx);
    bool notified = aio__notify_accept(ctx);
    int64_t ns = qatomic_read(&ctx->always_ready) ? 0 : sleep_time_ns(ctx);
    if (ns == 0 || notified || !aio__sleep_begin(ctx)) {
        *timeout_ms = 0;
        return ns == 0;
    }
    *timeout_ms = ns < 0 ? -1 : MIN((ns + 999999) / 1000000, INT_MAX);
    return FALSE;
}

static gboolean source_check(GSource *source)
{
    AioContext *ctx = ((AioSource *)source)->ctx;

    aio__sleep_end(ctx);
    if (g_source_query_unix_fd(source, ((AioSource *)source)->epoll_tag) ||
        qatomic_read(&ctx->always_ready)) {
        aio__fds_wait(ctx, 0);
    }
    ctx->source_checked = true;
    return aio__messages_pending(ctx) || aio__fds_ready(ctx) ||
           aio__messages_idle_pending(ctx) || aio__timers_deadline_ns(ctx) == 0;
}

static gboolean source_dispatch(GSource *source, GSourceFunc callback, void *user_data)
{
    AioContext *ctx = ((AioSource *)source)->ctx;

    ctx->poll_depth++;
    if (!ctx->source_checked) {
        aio__fds_wait(ctx, 0);  /* GLib skips check when prepare has said ready */
    }
    ctx->source_checked = false;
    run_ready(ctx);
    if (--ctx->poll_depth == 0) {
        aio__fds_collect_garbage(ctx);
    }
    return G_SOURCE_CONTINUE;
}

static void source_finalize(GSource *source)
{
    AioContext *ctx = ((AioSource *)source)->ctx;

    WITH_QEMU_LOCK_GUARD(&ctx->engine_lock) {
        qatomic_set(&ctx->source, NULL);
    }
    aio_context_unref(ctx);
}

static GSourceFuncs source_funcs = { source_prepare, source_check, source_dispatch,
                                     source_finalize, NULL, NULL };

GSource *aio_get_g_source(AioContext *ctx)
{
    QEMU_MUTEX_GUARD(&ctx->engine_lock);
    if (ctx->source) {
        return g_source_ref(ctx->source);
    }
    aio_context_set_fd_monitor(ctx, "epoll", &error_abort);
    GSource *source = g_source_new(&source_funcs, sizeof(AioSource));
    ((AioSource *)source)->ctx = ctx;
    aio_context_ref(ctx);       /* dropped in source_finalize() */
    g_source_set_can_recurse(source, TRUE);
    ((AioSource *)source)->epoll_tag =
        g_source_add_unix_fd(source, ctx->epoll_fd, G_IO_IN);
    qatomic_set(&ctx->source, source);      /* from here on the monitor stays */
    return source;
}

/* ---- engines --------------------------------------------------------------------------- */

ThreadPool *aio_get_thread_pool(AioContext *ctx)
{
    QEMU_MUTEX_GUARD(&ctx->engine_lock);
    if (!ctx->thread_pool) {
        ctx->thread_pool = thread_pool_new(ctx);
    }
    return ctx->thread_pool;
}

LinuxAioState *aio_setup_linux_aio(AioContext *ctx, Error **errp)
{
    LinuxAioState *engine = qatomic_load_acquire(&ctx->linux_aio);
    if (likely(engine)) {
        return engine;
    }
    QEMU_MUTEX_GUARD(&ctx->engine_lock);
    if (!ctx->linux_aio) {
        engine = laio_init(errp);
        if (engine) {
            laio_attach_aio_context(engine, ctx);
            qatomic_store_release(&ctx->linux_aio, engine);
        }
    }
    return ctx->linux_aio;
}

LinuxAioState *aio_get_linux_aio(AioContext *ctx)
{
    g_assert(ctx->linux_aio);
    return ctx->linux_aio;
}

LuringState *aio_setup_linux_io_uring(AioContext *ctx, Error **errp)
{
    LuringState *engine = qatomic_load_acquire(&ctx->linux_io_uring);
    if (likely(engine)) {
        return engine;
    }
    QEMU_MUTEX_GUARD(&ctx->engine_lock);
    if (!ctx->linux_io_uring) {
        engine = luring_init(errp);
        if (engine) {
            luring_attach_aio_context(engine, ctx);
            qatomic_store_release(&ctx->linux_io_uring, engine);
        }
    }
    return ctx->linux_io_uring;
}

LuringState *aio_get_linux_io_uring(AioContext *ctx)
{
    g_assert(ctx->linux_io_uring);
    return ctx->linux_io_uring;
}

void aio_context_set_aio_params(AioContext *ctx, int64_t max_batch)
{
    g_assert(max_batch >= 0);
    qatomic_set(&ctx->aio_max_batch, max_batch);
}
