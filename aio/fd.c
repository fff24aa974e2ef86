/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File descriptor handlers.
 *
 * A handler is immutable once it is registered: changing it makes a new one. The old one is
 * marked deleted and becomes garbage, which the home thread frees when no dispatch, however
 * nested, can still hold a pointer to it. Ready handlers are queued in the context, one
 * entry each, so that a nested aio_poll() goes on where the outer one stood.
 */
#include "aio/fd-internal.h"

int aio__fds_init(AioContext *ctx)
{
    const FdMonitor *monitor = &fd_monitor_epoll;
    int ret = monitor->init(ctx);
    if (ret < 0) {
        return ret;
    }
    ctx->fd_monitor = monitor;
    ctx->handlers = g_hash_table_new(g_direct_hash, g_direct_equal);
    ctx->pollers = g_ptr_array_new();
    ctx->ready_fds_tail = &ctx->ready_fds;
    qemu_mutex_init(&ctx->fd_lock);
    return 0;
}

static void free_garbage(AioContext *ctx)
{
    AioHandler *keep = NULL, *h;
    while ((h = ctx->garbage)) {
        qatomic_set(&ctx->garbage, h->next_garbage);
        if (h->armed || h->pending) {
            h->next_garbage = keep;     /* the ring still knows its address */
            keep = h;
        } else {
            g_free(h);
        }
    }
    qatomic_set(&ctx->garbage, keep);
}

void aio__fds_destroy(AioContext *ctx)
{
    if (g_hash_table_size(ctx->handlers)) {
        fprintf(stderr, "miniblk: aio_context_unref: %u file descriptor handler(s) are still "
                "registered\n", g_hash_table_size(ctx->handlers));
        abort();
    }
    ctx->fd_monitor->destroy(ctx);
    free_garbage(ctx);
    g_ptr_array_free(ctx->pollers, true);
    g_hash_table_destroy(ctx->handlers);
    qemu_mutex_destroy(&ctx->fd_lock);
}

/* ---- which monitor ------------------------------------------------------------------------ */

static const FdMonitor *find_monitor(const char *name, Error **errp)
{
    static const FdMonitor *const monitors[] = {
        &fd_monitor_epoll,
#ifdef CONFIG_LINUX_IO_URING
        &fd_monitor_io_uring,
#endif
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(monitors); i++) {
        if (!strcmp(monitors[i]->name, name)) {
            return monitors[i];
        }
    }
    error_setg(errp, "There is no fd monitor '%s' in this build", name);
    return NULL;
}

bool aio_context_set_fd_monitor(AioContext *ctx, const char *name, Error **errp)
{
    const FdMonitor *monitor = find_monitor(name, errp);
    GHashTableIter iter;
    void *handler;

    if (!monitor) {
        return false;
    }
    QEMU_MUTEX_GUARD(&ctx->fd_lock);
    if (monitor == ctx->fd_monitor) {
        return true;
    }
    if (qatomic_read(&ctx->source)) {
        error_setg(errp, "An event loop that is a GSource keeps the fd monitor '%s'",
                   ctx->fd_monitor->name);
        return false;
    }
    int ret = monitor->init(ctx);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to set up the fd monitor '%s'", name);
        return false;
    }
    ctx->fd_monitor->destroy(ctx);
    ctx->fd_monitor = monitor;
    g_hash_table_iter_init(&iter, ctx->handlers);
    while (g_hash_table_iter_next(&iter, NULL, &handler)) {
        monitor->update(ctx, handler, NULL);
    }
    return true;
}

uint32_t fd__wanted_events(const AioHandler *h)
{
    return (h->io_read ? EPOLLIN | EPOLLRDHUP : 0) | (h->io_write ? EPOLLOUT : 0);
}

/* H goes in force in place of OLD; either may be NULL. Under fd_lock. */
static void replace(AioContext *ctx, int fd, AioHandler *h, AioHandler *old)
{
    /* pairs with the load in fdmon-epoll.c: who gets H's address there sees it initialised */
    qatomic_store_release(&ctx->fd_changes, ctx->fd_changes + 1);
    ctx->fd_monitor->update(ctx, h, old);
    if (h) {
        g_hash_table_insert(ctx->handlers, GINT_TO_POINTER(fd), h);
    } else {
        g_hash_table_remove(ctx->handlers, GINT_TO_POINTER(fd));
    }
    if (old) {
        qatomic_set(&old->deleted, true);
        old->next_garbage = ctx->garbage;
        qatomic_set(&ctx->garbage, old);
    }
    int unpollable = (h && !h->io_poll) - (old && !old->io_poll);
    qatomic_set(&ctx->unpollable, ctx->unpollable + unpollable);
    if ((h && h->io_poll) || (old && old->io_poll)) {
        qatomic_set(&ctx->pollers_stale, true);
    }
}

void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read, IOHandler *io_write,
                        AioPollFn *io_poll, IOHandler *io_poll_ready, void *opaque)
{
    AioHandler *h = NULL;

    if (io_read || io_write) {
        h = g_new0(AioHandler, 1);
        /* polling for what nobody would handle makes no sense */
        *h = (AioHandler) { .fd = fd, .io_read = io_read, .io_write = io_write,
                            .io_poll = io_poll_ready ? io_poll : NULL,
                            .io_poll_ready = io_poll_ready, .opaque = opaque };
    }
    QEMU_MUTEX_GUARD(&ctx->fd_lock);
    AioHandler *old = g_hash_table_lookup(ctx->handlers, GINT_TO_POINTER(fd));
    if (h || old) {
        replace(ctx, fd, h, old);
    }
}

void aio_set_event_notifier(AioContext *ctx, EventNotifier *notifier,
                            EventNotifierHandler *io_read, AioPollFn *io_poll,
                            EventNotifierHandler *io_poll_ready)
{
    aio_set_fd_handler(ctx, event_notifier_get_fd(notifier), (IOHandler *)io_read, NULL,
                       io_poll, (IOHandler *)io_poll_ready, notifier);
}

/* ---- finding out what is ready ------------------------------------------------------------ */

void fd__queue_ready(AioContext *ctx, AioHandler *h, uint32_t events)
{
    if (!h->ready_events) {
        h->next_ready = NULL;
        *ctx->ready_fds_tail = h;
        ctx->ready_fds_tail = &h->next_ready;
    }
    h->ready_events |= events;
}

bool aio__fds_ready(AioContext *ctx)
{
    return ctx->ready_fds;
}


/*
 * The home thread's own list of the handlers that have io_poll, so that it need not hold
 * fd_lock while it calls them. What it lists may be deleted but is not freed: garbage is
 * collected after dispatch, and by then the list is stale and made anew before its next use.
 */
static void refresh_pollers(AioContext *ctx)
{
    GHashTableIter iter;
    void *value;

    QEMU_MUTEX_GUARD(&ctx->fd_lock);
    qatomic_set(&ctx->pollers_stale, false);
    g_ptr_array_set_size(ctx->pollers, 0);
    g_hash_table_iter_init(&iter, ctx->handlers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((AioHandler *)value)->io_poll) {
            g_ptr_array_add(ctx->pollers, value);
        }
    }
}

/* Ask those that have been ready before; *NOVICES: whether there are others. */
static bool ask_pollers(AioContext *ctx, bool *novices)
{
    bool found = false;

    *novices = false;
    if (unlikely(qatomic_read(&ctx->pollers_stale))) {
        refresh_pollers(ctx);
    }
    for (unsigned i = 0; i < ctx->pollers->len; i++) {
        AioHandler *h = g_ptr_array_index(ctx->pollers, i);
        if (!h->was_ready) {
            *novices = true;
        } else if (!qatomic_read(&h->deleted) && !h->in_poll_ready && h->io_poll(h->opaque)) {
            /* (one that is being dispatched further up the stack is not entered again) */
            fd__queue_ready(ctx, h, FD_READY_POLLED);
            found = true;
        }
    }
    return found;
}

void aio__fds_wait(AioContext *ctx, int64_t timeout_ns)
{
    bool novices;

    ctx->fd_monitor->wait(ctx, timeout_ns);
    if (timeout_ns != 0 && !ctx->ready_fds) {
        /* Interrupted, maybe by io_uring's own work in this thread: its result is in memory. */
        ask_pollers(ctx, &novices);
    }
}

bool aio__fds_poll(AioContext *ctx, bool *complete)
{
    bool novices, found = ask_pollers(ctx, &novices);

    if (ctx->fd_monitor->poll) {
        found |= ctx->fd_monitor->poll(ctx);
        novices = false;
    }
    *complete = !novices;
    return found;
}

bool aio__fds_can_poll(AioContext *ctx)
{
    return !qatomic_read(&ctx->unpollable) || ctx->fd_monitor->poll;
}

void aio__fds_look(AioContext *ctx, bool lazy)
{
    bool novices = false;

    /*
     * When every handler can be asked directly, the system call has nothing to add. But a
     * monitor may have to be told of those that were removed: it keeps their files open.
     */
    if (!qatomic_read(&ctx->unpollable) && !qatomic_read(&ctx->garbage)) {
        ask_pollers(ctx, &novices);
        if (!novices || lazy) {
            return;
        }
    }
    aio__fds_wait(ctx, 0);
}

/* ---- dispatching ---------------------------------------------------------------------------- */

static bool call(AioHandler *h, IOHandler *fn)
{
    if (!fn || qatomic_read(&h->deleted)) {
        return false;
    }
    fn(h->opaque);
    return true;
}

static bool dispatch_one(AioHandler *h, uint32_t events)
{
    bool called = false;

    if (events & ~FD_READY_POLLED) {
        h->was_ready = true;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        /* also when io_poll has seen the same event */
        called |= call(h, h->io_read);
    } else if (events & FD_READY_POLLED) {
        h->in_poll_ready = true;
        called |= call(h, h->io_poll_ready);
        h->in_poll_ready = false;
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        called |= call(h, h->io_write);
    }
    return called;
}

bool aio__fds_dispatch(AioContext *ctx)
{
    bool progress = false;
    AioHandler *h;

    while ((h = ctx->ready_fds)) {
        uint32_t events = h->ready_events;
        ctx->ready_fds = h->next_ready;
        if (!ctx->ready_fds) {
            ctx->ready_fds_tail = &ctx->ready_fds;
        }
        h->ready_events = 0;
        progress |= dispatch_one(h, events);
    }
    return progress;
}

void aio__fds_collect_garbage(AioContext *ctx)
{
    /* A racing retire is seen the next time. */
    if (unlikely(qatomic_read(&ctx->garbage))) {
        QEMU_MUTEX_GUARD(&ctx->fd_lock);
        free_garbage(ctx);
    }
}
