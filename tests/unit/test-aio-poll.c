/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Busy polling: who is asked, who is called, and how the window adapts. */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/thread.h"
#include "aio/aio-internal.h"

enum { MAX_NS = 100 * 1000 * 1000 };

static AioContext *ctx;

typedef struct Source {
    EventNotifier e;
    bool ready;                 /* what io_poll answers */
    int asked, poll_ready, read;
    void (*on_poll_ready)(struct Source *s);
    struct Source *other;
} Source;

static bool ask(void *opaque)
{
    Source *s = container_of((EventNotifier *)opaque, Source, e);
    s->asked++;
    return s->ready;
}

static void poll_ready(EventNotifier *e)
{
    Source *s = container_of(e, Source, e);
    s->poll_ready++;
    if (s->on_poll_ready) {
        s->on_poll_ready(s);
    }
}

static void readable(EventNotifier *e)
{
    Source *s = container_of(e, Source, e);
    event_notifier_test_and_clear(e);
    s->read++;
}

static void source_init(Source *s, bool pollable)
{
    *s = (Source) { .ready = false };
    g_assert_cmpint(event_notifier_init(&s->e, 0), ==, 0);
    aio_set_event_notifier(ctx, &s->e, readable, pollable ? ask : NULL,
                           pollable ? poll_ready : NULL);
}

/* From the first event of its descriptor on a handler is polled. */
static void source_init_polled(Source *s)
{
    source_init(s, true);
    event_notifier_set(&s->e);
    while (!s->read) {
        aio_poll(ctx, true);
    }
    s->read = 0;
    g_assert_cmpint(s->asked, ==, 0);
}

static void source_done(Source *s)
{
    aio_set_event_notifier(ctx, &s->e, NULL, NULL, NULL);
    event_notifier_cleanup(&s->e);
}

static void set_up(void)
{
    ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);
}

static void tear_down(void)
{
    qemu_set_current_aio_context(NULL);
    aio_context_unref(ctx);
}

/* A window that is open from the first iteration on. */
static void open_window(void)
{
    aio_context_set_poll_params(ctx, MAX_NS, 0, 0, &error_abort);
    ctx->poll_window_ns = MAX_NS;
}

static void stop_being_ready(Source *s)
{
    s->ready = false;
}

static void test_poll_ready_is_called_in_place_of_read(void)
{
    Source s;
    set_up();
    open_window();
    source_init_polled(&s);
    s.ready = true;
    s.on_poll_ready = stop_being_ready;
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(s.poll_ready, ==, 1);
    g_assert_cmpint(s.read, ==, 0);
    /* a look that does not wait asks as well, and saves the system call */
    g_assert_false(aio_poll(ctx, false));
    s.ready = true;
    g_assert_true(aio_poll(ctx, false));
    g_assert_cmpint(s.poll_ready, ==, 2);
    source_done(&s);
    tear_down();
}

static void test_first_wait_is_for_the_descriptor(void)
{
    Source s;
    set_up();
    aio_context_set_poll_params(ctx, MAX_NS, 0, 0, &error_abort);
    source_init(&s, true);
    event_notifier_set(&s.e);
    g_assert_false(aio_poll(ctx, false));   /* no more than consume the notification */
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(s.asked, ==, 0);
    g_assert_cmpint(s.read, ==, 1);
    g_assert_cmpint(ctx->poll_window_ns, >, 0);     /* it came soon: polling is worth it */
    source_done(&s);
    tear_down();
}

static void poll_inside(Source *s)
{
    /* What makes S ready lasts until we return: it must not be asked nor called in here. */
    int asked = s->asked;
    event_notifier_set(&s->other->e);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(s->asked, ==, asked);
    g_assert_cmpint(s->other->read, ==, 1);
    s->ready = false;
}

static void test_nested_poll_does_not_enter_poll_ready_again(void)
{
    Source s, other;
    set_up();
    aio_context_set_poll_params(ctx, MAX_NS, 0, 0, &error_abort);
    ctx->poll_window_ns = 1000 * 1000;
    source_init_polled(&s);
    source_init_polled(&other);
    s.ready = true;
    s.on_poll_ready = poll_inside;
    s.other = &other;
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(s.poll_ready, ==, 1);
    g_assert_cmpint(other.asked, >, 0);
    source_done(&s);
    source_done(&other);
    tear_down();
}

static void remove_other(Source *s)
{
    source_done(s->other);
    s->ready = false;
}

static void test_removed_handler_is_not_called(void)
{
    Source a, b;
    set_up();
    open_window();
    source_init_polled(&a);
    source_init_polled(&b);
    a.ready = b.ready = true;
    a.on_poll_ready = b.on_poll_ready = remove_other;
    a.other = &b;
    b.other = &a;
    g_assert_true(aio_poll(ctx, true));     /* both were found ready, in whatever order */
    g_assert_cmpint(a.poll_ready + b.poll_ready, ==, 1);
    g_assert_false(aio_poll(ctx, false));
    source_done(a.poll_ready ? &a : &b);
    g_assert_false(aio_poll(ctx, false));
    tear_down();
}

static void test_no_polling_beside_an_unpollable_descriptor(void)
{
    Source s, plain;
    set_up();
    aio_context_set_fd_monitor(ctx, "epoll", &error_abort);
    open_window();
    source_init_polled(&s);
    source_init(&plain, false);
    event_notifier_set(&plain.e);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(s.asked, ==, 0);
    g_assert_cmpint(plain.read, ==, 1);
    source_done(&plain);
    s.ready = true;
    s.on_poll_ready = stop_being_ready;
    ctx->poll_window_ns = MAX_NS;
    g_assert_true(aio_poll(ctx, true));     /* now it can be asked */
    g_assert_cmpint(s.poll_ready, ==, 1);
    source_done(&s);
    tear_down();
}

static void test_io_uring_polls_any_descriptor(void)
{
    Source s, plain;
    Error *err = NULL;

    set_up();
    if (!aio_context_set_fd_monitor(ctx, "io_uring", &err)) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        tear_down();
        return;
    }
    open_window();
    source_init_polled(&s);
    source_init(&plain, false);
    event_notifier_set(&plain.e);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(s.asked, >, 0);
    g_assert_cmpint(plain.read, ==, 1);
    source_done(&plain);
    source_done(&s);
    tear_down();
}

static void never(void *opaque)
{
    g_assert_not_reached();
}

/* The ring keeps the file of a removed handler open until it is told. */
static void test_io_uring_lets_go_of_a_closed_descriptor(void)
{
    int fds[2];
    Error *err = NULL;

    set_up();
    if (!aio_context_set_fd_monitor(ctx, "io_uring", &err)) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        tear_down();
        return;
    }
    signal(SIGPIPE, SIG_IGN);
    g_assert_cmpint(pipe(fds), ==, 0);
    aio_set_fd_handler(ctx, fds[0], never, NULL, NULL, NULL, NULL);
    aio_poll(ctx, false);
    aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL, NULL, NULL);
    close(fds[0]);
    /* a loop that has always something to do never waits */
    aio_poll(ctx, false);
    g_assert_cmpint(write(fds[1], "x", 1), ==, -1);
    g_assert_cmpint(errno, ==, EPIPE);
    close(fds[1]);
    tear_down();
}

static void test_poll_without_ready_callback_is_ignored(void)
{
    Source s;
    set_up();
    open_window();
    source_init(&s, true);
    s.ready = true;
    aio_set_event_notifier(ctx, &s.e, readable, ask, NULL);
    event_notifier_set(&s.e);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(s.asked, ==, 0);
    g_assert_cmpint(s.read, ==, 1);
    source_done(&s);
    tear_down();
}

static void count_cb(void *opaque)
{
    ++*(int *)opaque;
}

static void test_timer_ends_polling(void)
{
    QEMUTimer t;
    int runs = 0;
    set_up();
    open_window();
    aio_timer_init(ctx, &t, QEMU_CLOCK_REALTIME, SCALE_US, count_cb, &runs);
    timer_mod(&t, get_clock() / 1000 + 200);
    while (!runs) {
        g_assert_true(aio_poll(ctx, true) || !runs);
    }
    g_assert_cmpint(runs, ==, 1);
    timer_deinit(&t);
    tear_down();
}

/* ---- another thread ------------------------------------------------------------------------ */

enum { PINGS = 20000 };

typedef struct Ping {
    AioContext *ctx[2];
    int count;                  /* of whoever has the ball */
    bool done;
} Ping;

static void ping_bh(void *opaque);

static void pass(Ping *p)
{
    AioContext *here = qemu_get_current_aio_context();
    aio_bh_schedule_oneshot(here == p->ctx[0] ? p->ctx[1] : p->ctx[0], ping_bh, p);
}

static void ping_bh(void *opaque)
{
    Ping *p = opaque;
    if (p->count++ >= PINGS) {
        qatomic_set_mb(&p->done, true);
        aio_notify(p->ctx[0]);
        aio_notify(p->ctx[1]);
    } else {
        pass(p);
    }
}

static void *ping_thread(void *opaque)
{
    Ping *p = opaque;
    qemu_set_current_aio_context(p->ctx[1]);
    while (!qatomic_read_sc(&p->done)) {
        aio_poll(p->ctx[1], true);
    }
    qemu_set_current_aio_context(NULL);
    return NULL;
}

/*
 * Each side alternates between polling, being about to sleep and sleeping, with windows so
 * short that all of these meet the other's notification. A lost one would hang the test.
 */
static void test_ping_pong_between_polling_loops(void)
{
    QemuThread thread;
    Ping p = { .count = 0 };
    set_up();
    p.ctx[0] = ctx;
    p.ctx[1] = aio_context_new(&error_abort);
    for (int i = 0; i < 2; i++) {
        aio_context_set_poll_params(p.ctx[i], 3000 + 2000 * i, 2, 2, &error_abort);
    }
    qemu_thread_create(&thread, "ping", ping_thread, &p, QEMU_THREAD_JOINABLE);
    pass(&p);
    while (!qatomic_read_sc(&p.done)) {
        aio_poll(ctx, true);
    }
    qemu_thread_join(&thread);
    g_assert_cmpint(p.count, ==, PINGS + 1);
    aio_context_unref(p.ctx[1]);
    tear_down();
}

/* ---- the window ------------------------------------------------------------------------------ */

static void test_window_adapts(void)
{
    static const struct {
        int64_t max, grow, shrink, window, waited, expected;
    } t[] = {
        { 32000, 0, 0,     0,   500,  4000 },   /* opens at 4 us */
        { 32000, 0, 0,  4000,  4000,  4000 },   /* caught by the window: right */
        { 32000, 0, 0,  4000,  4001,  8000 },   /* doubles by default */
        { 32000, 3, 0,  4000,  9000, 12000 },
        { 32000, 0, 0, 20000, 30000, 32000 },   /* never above the maximum */
        { 32000, 0, 0, 20000, 32000, 32000 },
        { 32000, 0, 0, 20000, 32001,     0 },   /* shrink 0: back to zero */
        { 32000, 0, 2, 20000, 99999, 10000 },
        { 32000, 0, 4,     0, 99999,     0 },
        {  2000, 0, 0,     0,   500,  2000 },   /* a maximum below the first window */
        {  2000, 0, 0, 32000,  1000,  32000 },  /* lowered meanwhile: capped when used */
        { INT64_MAX, INT64_MAX, 0, 4000, 5000, INT64_MAX },     /* no overflow */
    };
    set_up();
    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
        aio_context_set_poll_params(ctx, t[i].max, t[i].grow, t[i].shrink, &error_abort);
        ctx->poll_window_ns = t[i].window;
        aio__busy_poll_adapt(ctx, t[i].waited);
        if (ctx->poll_window_ns != t[i].expected) {
            g_error("row %u: window %" PRId64 ", expected %" PRId64, i, ctx->poll_window_ns,
                    t[i].expected);
        }
    }
    tear_down();
}

static void test_parameters_are_checked(void)
{
    Error *err = NULL;
    static const int64_t bad[][3] = { { -1, 0, 0 }, { 0, -1, 0 }, { 0, 0, -1 } };
    set_up();
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        aio_context_set_poll_params(ctx, bad[i][0], bad[i][1], bad[i][2], &err);
        error_free_or_abort(&err);
    }
    tear_down();
}

static void test_event_seen_twice_is_handled_once(void)
{
    Source s, novice;

    set_up();
    source_init_polled(&s);
    source_init(&novice, true);     /* because of which the descriptors are looked at, too */
    aio_poll(ctx, false);
    s.on_poll_ready = stop_being_ready;
    s.ready = true;
    event_notifier_set(&s.e);
    g_assert_true(aio_poll(ctx, false));
    g_assert_cmpint(s.read + s.poll_ready, ==, 1);
    source_done(&novice);
    source_done(&s);
    tear_down();
}

static void reschedule(void *opaque)
{
    qemu_bh_schedule(*(QEMUBH **)opaque);
}

static void test_busy_bh_does_not_starve_a_new_pollable_descriptor(void)
{
    Source s;
    QEMUBH *bh;

    set_up();
    bh = aio_bh_new(ctx, reschedule, &bh);
    source_init(&s, true);
    qemu_bh_schedule(bh);
    event_notifier_set(&s.e);
    for (int i = 0; i < 10; i++) {
        aio_poll(ctx, false);
    }
    g_assert_cmpint(s.read, ==, 1);
    qemu_bh_delete(bh);
    source_done(&s);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/aio/poll/ready", test_poll_ready_is_called_in_place_of_read);
    g_test_add_func("/aio/poll/first-wait", test_first_wait_is_for_the_descriptor);
    g_test_add_func("/aio/poll/nested", test_nested_poll_does_not_enter_poll_ready_again);
    g_test_add_func("/aio/poll/seen-twice", test_event_seen_twice_is_handled_once);
    g_test_add_func("/aio/poll/busy-bh",
                    test_busy_bh_does_not_starve_a_new_pollable_descriptor);
    g_test_add_func("/aio/poll/removed", test_removed_handler_is_not_called);
    g_test_add_func("/aio/poll/unpollable", test_no_polling_beside_an_unpollable_descriptor);
    g_test_add_func("/aio/poll/io-uring", test_io_uring_polls_any_descriptor);
    g_test_add_func("/aio/poll/io-uring-closed", test_io_uring_lets_go_of_a_closed_descriptor);
    g_test_add_func("/aio/poll/no-ready-callback", test_poll_without_ready_callback_is_ignored);
    g_test_add_func("/aio/poll/timer", test_timer_ends_polling);
    g_test_add_func("/aio/poll/ping-pong", test_ping_pong_between_polling_loops);
    g_test_add_func("/aio/poll/window", test_window_adapts);
    g_test_add_func("/aio/poll/parameters", test_parameters_are_checked);
    return g_test_run();
}
