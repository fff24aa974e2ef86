/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fd monitor that works everywhere: epoll. Its descriptor is what a GSource watches. */
#include "aio/fd-internal.h"

enum { EVENTS_PER_WAIT = 64 };

static int monitor_init(AioContext *ctx)
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
    return 0;
}

static void monitor_destroy(AioContext *ctx)
{
    close(ctx->epoll_fd);
    qatomic_set(&ctx->always_ready, 0);
}

/* Tell epoll that H is in force for its fd now (OLD was before, or NULL). */
static void watch(AioContext *ctx, AioHandler *h, AioHandler *old)
{
    struct epoll_event ev = { .events = fd__wanted_events(h), .data.ptr = h };
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

static void monitor_update(AioContext *ctx, AioHandler *h, AioHandler *old)
{
    if (h) {
        watch(ctx, h, old);
    } else {
        /* fails when the fd was closed first: then epoll has forgotten it already */
        port_epoll_ctl(ctx->epoll_fd, EPOLL_CTL_DEL, old->fd, NULL);
    }
    if (old && old->always_ready) {
        qatomic_set(&ctx->always_ready, ctx->always_ready - 1);
    }
    if (h && h->always_ready) {
        aio_notify(ctx);        /* a sleeping epoll does not learn of this one by itself */
    }
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
            fd__queue_ready(ctx, h, fd__wanted_events(h) & (EPOLLIN | EPOLLOUT));
        }
    }
}

static void monitor_wait(AioContext *ctx, int64_t timeout_ns)
{
    struct epoll_event events[EVENTS_PER_WAIT];

    if (unlikely(qatomic_read(&ctx->always_ready))) {
        queue_always_ready(ctx);
        timeout_ns = 0;
    }
    int n = port_epoll_wait(ctx->epoll_fd, events, EVENTS_PER_WAIT, timeout_ns);
    /* pairs with the store in fd.c: handlers come to us through the kernel, not a lock */
    qatomic_load_acquire(&ctx->fd_changes);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr) {
            fd__queue_ready(ctx, events[i].data.ptr, events[i].events);
        } else {
            event_notifier_test_and_clear(&ctx->notifier);
        }
    }
}

const FdMonitor fd_monitor_epoll = {
    .name = "epoll",
    .init = monitor_init,
    .destroy = monitor_destroy,
    .update = monitor_update,
    .wait = monitor_wait,
};
