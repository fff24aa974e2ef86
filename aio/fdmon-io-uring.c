/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fd monitor on io_uring: a one-shot poll request per handler, armed again after each
 * event, which makes readiness level-triggered. Arming costs no system call of its own: it
 * goes out with the next wait. Completions appear in memory, so that busy polling sees any
 * descriptor become ready, whether or not its handler has io_poll. A completion tells what
 * was ready once, so a handler may be called for what has been taken away meanwhile.
 *
 * A handler's address is in the ring while it is ARMED, and it is not freed before the
 * request has completed. An armed request also keeps the file open: it is cancelled by the
 * home thread before that next waits.
 */
#include "aio/fd-internal.h"
#include "aio/port-io-uring.h"

enum { RING_ENTRIES = 128 };

struct FdRing {
    struct io_uring ring;
    bool bell_armed;            /* home thread */
    AioHandler *pending, **pending_tail;    /* to be armed or cancelled; fd_lock */
    bool have_pending;          /* atomic; PENDING is not empty */
};

static int monitor_init(AioContext *ctx)
{
    FdRing *r = g_new0(FdRing, 1);
    /* Do not interrupt the home thread to post completions: a flag tells it to come in. */
    int ret = port_ring_init(&r->ring, RING_ENTRIES,
                             IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);
    if (ret == -EINVAL) {
        ret = port_ring_init(&r->ring, RING_ENTRIES, 0);    /* before Linux 5.19 */
    }
    if (ret < 0) {
        g_free(r);
        return ret;
    }
    r->pending_tail = &r->pending;
    ctx->fd_ring = r;
    return 0;
}

static void monitor_destroy(AioContext *ctx)
{
    GHashTableIter iter;
    void *handler;

    port_ring_exit(&ctx->fd_ring->ring);
    g_clear_pointer(&ctx->fd_ring, g_free);
    /* the ring has forgotten them all */
    for (AioHandler *h = ctx->garbage; h; h = h->next_garbage) {
        h->armed = h->pending = false;
    }
    g_hash_table_iter_init(&iter, ctx->handlers);
    while (g_hash_table_iter_next(&iter, NULL, &handler)) {
        ((AioHandler *)handler)->armed = ((AioHandler *)handler)->pending = false;
    }
}

/* Have the ring told about H before the next wait. Under fd_lock. */
static void make_pending(FdRing *r, AioHandler *h)
{
    if (!h->pending) {
        h->pending = true;
        h->next_pending = NULL;
        *r->pending_tail = h;
        r->pending_tail = &h->next_pending;
        qatomic_set(&r->have_pending, true);
    }
}

static void monitor_update(AioContext *ctx, AioHandler *h, AioHandler *old)
{
    if (old) {
        make_pending(ctx->fd_ring, old);
    }
    if (h) {
        make_pending(ctx->fd_ring, h);
    }
    if (!in_aio_context_home_thread(ctx)) {
        aio_notify(ctx);        /* only the home thread talks to the ring */
    }
}

static struct io_uring_sqe *get_sqe(FdRing *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
    while (unlikely(!sqe)) {
        port_ring_submit(&r->ring);
        sqe = io_uring_get_sqe(&r->ring);
    }
    return sqe;
}

static void arm(FdRing *r, int fd, uint32_t events, void *data)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_poll_add(sqe, fd, events);
    io_uring_sqe_set_data(sqe, data);
}

static void cancel(FdRing *r, AioHandler *h)
{
    struct io_uring_sqe *sqe = get_sqe(r);
    io_uring_prep_poll_remove(sqe, (uintptr_t)h);
    io_uring_sqe_set_data(sqe, NULL);
}

static void prepare_pending(AioContext *ctx)
{
    FdRing *r = ctx->fd_ring;
    AioHandler *h;

    if (unlikely(!r->bell_armed)) {
        arm(r, event_notifier_get_fd(&ctx->notifier), EPOLLIN, ctx);
        r->bell_armed = true;
    }
    if (!qatomic_read(&r->have_pending)) {
        return;         /* a racing update notifies */
    }
    QEMU_MUTEX_GUARD(&ctx->fd_lock);
    qatomic_set(&r->have_pending, false);
    while ((h = r->pending)) {
        r->pending = h->next_pending;
        h->pending = false;
        if (h->deleted && h->armed) {
            cancel(r, h);
        } else if (!h->deleted && !h->armed) {
            arm(r, h->fd, fd__wanted_events(h), h);
            h->armed = true;
        }
    }
    r->pending_tail = &r->pending;
}

static void handler_completed(AioContext *ctx, AioHandler *h, int res)
{
    h->armed = false;
    if (qatomic_read(&h->deleted)) {
        return;                 /* garbage that can go now */
    }
    if (res < 0 && res != -ECANCELED) {
        fprintf(stderr, "miniblk: aio_set_fd_handler: fd %d: %s\n", h->fd, strerror(-res));
        abort();
    }
    /* -ECANCELED: the thread that had armed it has ended */
    if (res > 0) {
        fd__queue_ready(ctx, h, res);
    }
    QEMU_MUTEX_GUARD(&ctx->fd_lock);
    make_pending(ctx->fd_ring, h);
}

/* Whether any handler is ready now. */
static bool reap(AioContext *ctx)
{
    FdRing *r = ctx->fd_ring;
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    io_uring_for_each_cqe(&r->ring, head, cqe) {
        void *data = io_uring_cqe_get_data(cqe);
        if (data == ctx) {
            event_notifier_test_and_clear(&ctx->notifier);
            r->bell_armed = false;
        } else if (data) {
            handler_completed(ctx, data, cqe->res);
        }
        n++;
    }
    io_uring_cq_advance(&r->ring, n);
    return ctx->ready_fds;
}

static void monitor_wait(AioContext *ctx, int64_t timeout_ns)
{
    prepare_pending(ctx);
    port_ring_submit_and_wait(&ctx->fd_ring->ring, timeout_ns);
    reap(ctx);
}

static bool monitor_poll(AioContext *ctx)
{
    struct io_uring *ring = &ctx->fd_ring->ring;

    if (unlikely(qatomic_read(&ctx->fd_ring->have_pending)) ||
        (qatomic_read(ring->sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
        prepare_pending(ctx);
        port_ring_submit_and_wait(ring, 0);
    }
    return io_uring_cq_ready(ring) && reap(ctx);
}

const FdMonitor fd_monitor_io_uring = {
    .name = "io_uring",
    .init = monitor_init,
    .destroy = monitor_destroy,
    .update = monitor_update,
    .wait = monitor_wait,
    .poll = monitor_poll,
};
