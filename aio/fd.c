/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File descriptor handlers, watched with epoll.
 *
 * A handler is immutable once it is registered: changing it makes a new one. The old one is
 * marked deleted and becomes garbage, which the home thread frees when no dispatch, however
 * nested, can still hold a pointer to it. Ready handlers are queued in the context, one
 * entry each, so that a nested aio_poll() goes on where the outer one stood.
 */
#include "aio/aio-internal.h"

struct AioHandler {
    int fd;
    IOHandler *io_read;
    IOHandler *io_write;
    AioPollFn *io_poll;
    IOHandler *io_poll_ready;
    void *opaque;
    bool deleted;               /* atomic; set under fd_lock */
    bool always_ready;          /* epoll cannot watch it (a regular file) */
    uint32_t ready_events;      /* home thread; not 0 while queued in ready_fds */
    AioHandler *next_ready;
    AioHandler *next_garbage;
};

enum { EVENTS_PER_WAIT = 64 };

int aio__fds_init(AioContext *ctx)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    int fd = port_epoll_create();
    if (fd < 0) {
        return fd;
    }
    int ret = port_epoll_ctl(fd, EPOLL_CTL_ADD, event_notifier_get_fd(&ctx->notifier), &ev);
    if (ret < 0) {
        close(fd);
        return ret;
    }
    ctx->epoll_fd = fd;
    ctx->handlers = g_hash_table_new(g_direct_hash, g_direct_equal);
    ctx->ready_fds_tail = &ctx->ready_fds;
    qemu_mutex_init(&ctx->fd_lock);
    return 0;
}

static void free_garbage(AioContext *ctx)
{
    AioHandler *h;
    while ((h = ctx->garbage)) {
        qatomic_set(&ctx->garbage, h->next_garbage);
        g_free(h);
    }
}

void aio__fds_destroy(AioContext *ctx)
{
    if (g_hash_table_size(ctx->handlers)) {
        fprintf(stderr, "miniblk: aio_context_unref: %u file descriptor handler(s) are still "
                "registered\n", g_hash_table_size(ctx->handlers));
        abort();
    }
    free_garbage(ctx);
    g_hash_table_destroy(ctx->handlers);
    qemu_mutex_destroy(&ctx->fd_lock);
    close(ctx->epoll_fd);
}

static uint32_t wanted_events(const AioHandler *h)
{
    return (h->io_read ? EPOLLIN | EPOLLRDHUP : 0) | (h->io_write ? EPOLLOUT : 0);
}

/* Tell epoll that H is in force for its fd now (OLD was before, or NULL). */
static void watch(AioContext *ctx, AioHandler *h, AioHandler *old)
{
    struct epoll_event ev = { .events = wanted_events(h), .data.ptr = h };
    int ret = -ENOENT;

    if (old && !old->always_ready) {
        ret = port_epoll_ctl(ctx->epoll_fd, EPOLL_CTL_MOD, h->fd, &ev);
    }
    if (ret == -ENOENT) {
        /* also when the fd was closed and opened again behind our back */
        ret = port_epoll_ctl(ctx->epoll_fd, EPOLL_CTL_ADD, h->fd, &ev);
    }
    if (ret == -EPERM) {
        h->always_ready = true;
        qatomic_set(&ctx->always_ready, ctx->always_ready + 1);
    } else if (ret < 0) {
        fprintf(stderr, "miniblk: aio_set_fd_handler: fd %d: %s\n", h->fd, strerror(-ret));
        abort();
    }
}

static void retire(AioContext *ctx, AioHandler *h)
{
    if (h->always_ready) {
        qatomic_set(&ctx->always_ready, ctx->always_ready - 1);
    }
    qatomic_set(&h->deleted, true);
    h->next_garbage = ctx->garbage;
    qatomic_set(&ctx->garbage, h);
}

void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read, IOHandler *io_write,
                        AioPollFn *io_poll, IOHandler *io_poll_ready, void *opaque)
{
    bool notify = false;

    WITH_QEMU_LOCK_GUARD(&ctx->fd_lock) {
        AioHandler *old = g_hash_table_lookup(ctx->handlers, GINT_TO_POINTER(fd));

        if (io_read || io_write) {
            AioHandler *h = g_new0(AioHandler, 1);
            *h = (AioHandler) { .fd = fd, .io_read = io_read, .io_write = io_write,
                                .io_poll = io_poll, .io_poll_ready = io_poll_ready,
                                .opaque = opaque };
            watch(ctx, h, old);
            notify = h->always_ready;
            g_hash_table_insert(ctx->handlers, GINT_TO_POINTER(fd), h);
        } else if (old) {
            /* fails when the fd was closed first: then epoll has forgotten it already */
            port_epoll_ctl(ctx->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
            g_hash_table_remove(ctx->handlers, GINT_TO_POINTER(fd));
        }
        if (old) {
            retire(ctx, old);
        }
    }
    if (notify) {
        aio_notify(ctx);        /* a sleeping epoll does not learn of this one by itself */
    }
}

void aio_set_event_notifier(AioContext *ctx, EventNotifier *notifier,
                            EventNotifierHandler *io_read, AioPollFn *io_poll,
                            EventNotifierHandler *io_poll_ready)
{
    aio_set_fd_handler(ctx, event_notifier_get_fd(notifier), (IOHandler *)io_read, NULL,
                       io_poll, (IOHandler *)io_poll_ready, notifier);
}

static void queue_ready(AioContext *ctx, AioHandler *h, uint32_t events)
{
    if (!h->ready_events) {
        h->next_ready = NULL;
        *ctx->ready_fds_tail = h;
        ctx->ready_fds_tail = &h->next_ready;
    }
    h->ready_events |= events;
}

static void queue_always_ready(AioContext *ctx)
{
    GHashTableIter iter;
    void *value;

    QEMU_MUTEX_GUARD(&ctx->fd_lock);
    g_hash_table_iter_init(&iter, ctx->handlers);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        AioHandler *h = value;
        if (h->always_ready) {
            queue_ready(ctx, h, wanted_events(h) & (EPOLLIN | EPOLLOUT));
        }
    }
}

void aio__fds_wait(AioContext *ctx, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS_PER_WAIT];

    if (unlikely(qatomic_read(&ctx->always_ready))) {
        queue_always_ready(ctx);
        timeout_ns = 0;
    }
    int n = port_epoll_wait(ctx->epoll_fd, events, EVENTS_PER_WAIT, timeout_ns);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr) {
            queue_ready(ctx, events[i].data.ptr, events[i].events);
        } else {
            event_notifier_test_and_clear(&ctx->notifier);
        }
    }
}

bool aio__fds_ready(AioContext *ctx)
{
    return ctx->ready_fds;
}

static bool dispatch_one(AioHandler *h, uint32_t events)
{
    bool called = false;

    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        if (h->io_read && !qatomic_read(&h->deleted)) {
            h->io_read(h->opaque);
            called = true;
        }
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        if (h->io_write && !qatomic_read(&h->deleted)) {
            h->io_write(h->opaque);
            called = true;
        }
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
