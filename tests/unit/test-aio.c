/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The event loop in one thread: bottom halves, descriptors, timers, nesting, GSource. */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/error.h"
#include "miniblk/main-loop.h"
#include "trap.h"

static AioContext *ctx;

typedef struct Bh {
    QEMUBH *bh;
    int runs;
    int again;                  /* schedule itself so many times */
    bool delete;
    GString *log;
    char tag;
} Bh;

static void bh_cb(void *opaque)
{
    Bh *b = opaque;
    b->runs++;
    if (b->log) {
        g_string_append_c(b->log, b->tag);
    }
    if (b->again-- > 0) {
        qemu_bh_schedule(b->bh);
    }
    if (b->delete) {
        qemu_bh_delete(b->bh);
    }
}

static void run_all(void)
{
    while (aio_poll(ctx, false)) {
        /* until idle */
    }
}

static void test_notify_is_no_progress(void)
{
    aio_notify(ctx);
    g_assert_false(aio_poll(ctx, false));
    g_assert_false(aio_poll(ctx, false));
}

static void test_bh_runs_once_per_schedule(void)
{
    Bh b = { 0 };
    b.bh = aio_bh_new(ctx, bh_cb, &b);
    g_assert_false(aio_poll(ctx, false));
    qemu_bh_schedule(b.bh);
    qemu_bh_schedule(b.bh);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(b.runs, ==, 1);
    g_assert_false(aio_poll(ctx, false));
    qemu_bh_schedule(b.bh);
    qemu_bh_cancel(b.bh);
    g_assert_false(aio_poll(ctx, false));       /* nothing was called: no progress */
    g_assert_cmpint(b.runs, ==, 1);
    qemu_bh_schedule(b.bh);     /* after a cancel it can be scheduled again */
    run_all();
    g_assert_cmpint(b.runs, ==, 2);
    qemu_bh_schedule(b.bh);
    qemu_bh_delete(b.bh);
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(b.runs, ==, 2);
}

static void test_bh_rescheduled_runs_in_next_iteration(void)
{
    Bh b = { .again = 3 };
    b.bh = aio_bh_new(ctx, bh_cb, &b);
    qemu_bh_schedule(b.bh);
    for (int i = 1; i <= 4; i++) {
        g_assert_true(aio_poll(ctx, true));
        g_assert_cmpint(b.runs, ==, i);
    }
    g_assert_false(aio_poll(ctx, false));
    b.delete = true;
    qemu_bh_schedule(b.bh);
    run_all();
    g_assert_cmpint(b.runs, ==, 5);
}

static void test_bhs_run_in_order(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Bh b[4];
    for (int i = 0; i < 4; i++) {
        b[i] = (Bh) { .log = log, .tag = 'a' + i };
        aio_bh_schedule_oneshot(ctx, bh_cb, &b[i]);
    }
    run_all();
    g_assert_cmpstr(log->str, ==, "abcd");
}

static void test_idle_bh_runs_when_the_loop_is_idle_or_hurried(void)
{
    Bh b = { 0 };
    b.bh = aio_bh_new(ctx, bh_cb, &b);
    qemu_bh_schedule_idle(b.bh);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(b.runs, ==, 1);
    /* Hurried, it must not wait (10 ms) for the loop to be idle: the quickest of many tells. */
    int64_t quickest = INT64_MAX;
    for (int i = 2; i < 100; i++) {
        qemu_bh_schedule_idle(b.bh);
        qemu_bh_schedule(b.bh);
        int64_t before = get_clock();
        g_assert_true(aio_poll(ctx, true));
        quickest = MIN(quickest, get_clock() - before);
        g_assert_cmpint(b.runs, ==, i);
    }
    g_assert_cmpint(quickest, <, 10 * SCALE_MS);
    b.runs = 0;
    qemu_bh_schedule(b.bh);
    qemu_bh_schedule_idle(b.bh);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(b.runs, ==, 1);
    qemu_bh_delete(b.bh);
    run_all();
}

/* ---- nesting ------------------------------------------------------------------------------- */

static void nested_poll_cb(void *opaque)
{
    GString *log = opaque;
    g_string_append_c(log, '<');
    while (aio_poll(ctx, false)) {
        /* what was ready in the outer iteration must run here */
    }
    g_string_append_c(log, '>');
}

static void test_nested_poll_finishes_the_outer_batch_once(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Bh a = { .log = log, .tag = 'a' }, b = { .log = log, .tag = 'b' };
    aio_bh_schedule_oneshot(ctx, nested_poll_cb, log);
    aio_bh_schedule_oneshot(ctx, bh_cb, &a);
    aio_bh_schedule_oneshot(ctx, bh_cb, &b);
    run_all();
    g_assert_cmpstr(log->str, ==, "<ab>");
}

/* ---- descriptors --------------------------------------------------------------------------- */

typedef struct Fd {
    EventNotifier e;
    int runs;
    struct Fd *remove;          /* unregister this one from the callback */
    bool nest;
} Fd;

static void fd_read(EventNotifier *e)
{
    Fd *f = container_of(e, Fd, e);
    g_assert_true(event_notifier_test_and_clear(e));
    f->runs++;
    if (f->remove) {
        aio_set_event_notifier(ctx, &f->remove->e, NULL, NULL, NULL);
    }
    if (f->nest) {
        run_all();
    }
}

static void fd_init(Fd *f, bool active)
{
    *f = (Fd) { .runs = 0 };
    g_assert_cmpint(event_notifier_init(&f->e, active), ==, 0);
    aio_set_event_notifier(ctx, &f->e, fd_read, NULL, NULL);
}

static void fd_done(Fd *f)
{
    aio_set_event_notifier(ctx, &f->e, NULL, NULL, NULL);
    event_notifier_cleanup(&f->e);
}

static void test_fd_handler_follows_readiness(void)
{
    Fd f;
    fd_init(&f, true);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(f.runs, ==, 1);
    g_assert_false(aio_poll(ctx, false));
    event_notifier_set(&f.e);
    event_notifier_set(&f.e);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(f.runs, ==, 2);
    aio_set_event_notifier(ctx, &f.e, NULL, NULL, NULL);
    event_notifier_set(&f.e);
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(f.runs, ==, 2);
    event_notifier_cleanup(&f.e);
}

static void test_fd_removed_while_ready_is_not_called(void)
{
    Fd a, b;
    fd_init(&a, true);
    fd_init(&b, true);
    a.remove = &b;
    b.remove = &a;
    run_all();
    g_assert_cmpint(a.runs + b.runs, ==, 1);
    fd_done(&a);
    fd_done(&b);
}

static void test_ready_fds_are_dispatched_in_nested_poll(void)
{
    Fd a, b;
    fd_init(&a, true);
    fd_init(&b, true);
    a.nest = b.nest = true;
    run_all();
    g_assert_cmpint(a.runs, ==, 1);
    g_assert_cmpint(b.runs, ==, 1);
    fd_done(&a);
    fd_done(&b);
}

static void count_cb(void *opaque)
{
    ++*(int *)opaque;
}

static void test_fd_write_and_hangup(void)
{
    int fds[2], writes = 0, reads = 0;
    g_assert_cmpint(pipe(fds), ==, 0);
    aio_set_fd_handler(ctx, fds[1], NULL, count_cb, NULL, NULL, &writes);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(writes, ==, 1);
    aio_set_fd_handler(ctx, fds[1], NULL, NULL, NULL, NULL, NULL);
    aio_set_fd_handler(ctx, fds[0], count_cb, NULL, NULL, NULL, &reads);
    g_assert_false(aio_poll(ctx, false));
    close(fds[1]);              /* hang-up counts as readable */
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(reads, ==, 1);
    aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL, NULL, NULL);
    close(fds[0]);
}

static void test_regular_file_is_always_ready(void)
{
    FILE *f = tmpfile();
    int reads = 0;
    aio_set_fd_handler(ctx, fileno(f), count_cb, NULL, NULL, NULL, &reads);
    g_assert_true(aio_poll(ctx, true));
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(reads, ==, 2);
    aio_set_fd_handler(ctx, fileno(f), NULL, NULL, NULL, NULL, NULL);
    g_assert_false(aio_poll(ctx, false));
    fclose(f);
}

/* ---- timers -------------------------------------------------------------------------------- */

typedef struct Timer {
    QEMUTimer timer;
    GString *log;
    char tag;
    int again;
} Timer;

static void timer_cb(void *opaque)
{
    Timer *t = opaque;
    g_assert_false(timer_pending(&t->timer));
    g_string_append_c(t->log, t->tag);
    if (t->again-- > 0) {
        timer_mod(&t->timer, 0);        /* in the past: next iteration, not a loop */
    }
}

static void test_timers_expire_in_order(void)
{
    static const int order[] = { 5, 1, 4, 2, 3, 0, 7, 6 };
    g_autoptr(GString) log = g_string_new(NULL);
    Timer t[8];
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    for (int i = 0; i < 8; i++) {
        t[i] = (Timer) { .log = log, .tag = '0' + order[i] };
        aio_timer_init(ctx, &t[i].timer, QEMU_CLOCK_VIRTUAL, SCALE_NS, timer_cb, &t[i]);
        timer_mod(&t[i].timer, now + 1000 * (order[i] + 1));
    }
    timer_del(&t[2].timer);     /* tag 4 */
    timer_mod(&t[0].timer, now);        /* tag 5 first */
    while (log->len < 7) {
        aio_poll(ctx, true);
    }
    g_assert_cmpstr(log->str, ==, "5012367");
    g_assert_false(aio_poll(ctx, false));
}

static void test_timer_rearmed_in_the_past_does_not_hold_the_loop(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Timer t = { .log = log, .tag = 'x', .again = 2 };
    aio_timer_init(ctx, &t.timer, QEMU_CLOCK_REALTIME, SCALE_MS, timer_cb, &t);
    timer_mod(&t.timer, 0);
    for (int i = 1; i <= 3; i++) {
        g_assert_true(aio_poll(ctx, true));
        g_assert_cmpint(log->len, ==, i);
    }
    g_assert_false(aio_poll(ctx, false));
}

static void test_blocking_poll_waits_for_the_timer(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Timer t = { .log = log, .tag = 'x' };
    aio_timer_init(ctx, &t.timer, QEMU_CLOCK_REALTIME, SCALE_NS, timer_cb, &t);
    int64_t due = get_clock() + 2 * SCALE_MS;
    timer_mod(&t.timer, due);
    while (!aio_poll(ctx, true)) {
        /* a wake-up without progress */
    }
    g_assert_cmpint(get_clock(), >=, due);
    g_assert_cmpstr(log->str, ==, "x");
}

static void test_many_timers_keep_heap_order(void)
{
    enum { N = 500 };
    g_autoptr(GString) log = g_string_new(NULL);
    g_autofree Timer *t = g_new0(Timer, N);
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_HOST);
    for (int i = 0; i < N; i++) {
        t[i] = (Timer) { .log = log, .tag = '.' };
        aio_timer_init(ctx, &t[i].timer, QEMU_CLOCK_HOST, SCALE_NS, timer_cb, &t[i]);
        timer_mod(&t[i].timer, now - g_random_int_range(0, 1000000));
    }
    int deleted = 0;
    for (int i = 0; i < N; i += 3, deleted++) {
        timer_del(&t[i].timer);
    }
    run_all();
    g_assert_cmpint(log->len, ==, N - deleted);
}

/* ---- GSource ------------------------------------------------------------------------------- */

static void test_gsource_drives_everything_and_goes_idle(void)
{
    g_autoptr(GString) log = g_string_new(NULL);
    Bh b = { .again = 1 };
    Fd f;
    Timer t = { .log = log, .tag = 'x' };

    while (g_main_context_iteration(NULL, false)) {
        /* until idle */
    }
    aio_notify(ctx);
    g_assert_false(g_main_context_iteration(NULL, false));

    b.bh = aio_bh_new(ctx, bh_cb, &b);
    qemu_bh_schedule(b.bh);
    fd_init(&f, true);
    aio_timer_init(ctx, &t.timer, QEMU_CLOCK_REALTIME, SCALE_NS, timer_cb, &t);
    timer_mod(&t.timer, get_clock() + SCALE_MS);
    while (b.runs < 2 || f.runs < 1 || log->len < 1) {
        g_main_context_iteration(NULL, true);
    }
    g_assert_false(g_main_context_iteration(NULL, false));
    qemu_bh_delete(b.bh);
    fd_done(&f);
    run_all();
}

/* ---- misuse -------------------------------------------------------------------------------- */

static void release_unheld(void)
{
    aio_context_release(ctx);
}

static void test_release_without_acquire_aborts(void)
{
    trap(release_unheld, "*aio_context_release*does not hold*");
}

static void poll_elsewhere(void)
{
    aio_poll(aio_context_new(&error_abort), false);
}

static void test_poll_outside_home_thread_aborts(void)
{
    trap(poll_elsewhere, "*aio_poll*outside its home thread*");
}

static void free_with_bh(void)
{
    AioContext *other = aio_context_new(&error_abort);
    aio_bh_new(other, bh_cb, NULL);
    aio_context_unref(other);
}

static void test_context_freed_with_live_bh_aborts(void)
{
    trap(free_with_bh, "*were not deleted*");
}

static void delete_twice(void)
{
    QEMUBH *bh = aio_bh_new(ctx, bh_cb, NULL);
    qemu_bh_delete(bh);
    qemu_bh_delete(bh);
}

static void test_bh_deleted_twice_aborts(void)
{
    trap(delete_twice, "*is deleted twice*");
}

static void test_gsource_keeps_its_context(void)
{
    AioContext *other = aio_context_new(&error_abort);
    GMainContext *main_context = g_main_context_new();
    GSource *source = aio_get_g_source(other);
    int runs = 0;

    qemu_set_current_aio_context(NULL);
    qemu_set_current_aio_context(other);
    aio_context_unref(other);
    g_source_attach(source, main_context);
    aio_bh_schedule_oneshot(other, count_cb, &runs);
    while (g_main_context_iteration(main_context, false)) {
        /* until idle */
    }
    g_assert_cmpint(runs, ==, 1);
    qemu_set_current_aio_context(NULL);
    g_source_destroy(source);
    g_source_unref(source);             /* frees the context too: the leak checker would tell */
    g_main_context_unref(main_context);
    qemu_set_current_aio_context(ctx);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    ctx = qemu_get_aio_context();

    g_test_add_func("/aio/notify-is-no-progress", test_notify_is_no_progress);
    g_test_add_func("/aio/bh/once", test_bh_runs_once_per_schedule);
    g_test_add_func("/aio/bh/rescheduled", test_bh_rescheduled_runs_in_next_iteration);
    g_test_add_func("/aio/bh/order", test_bhs_run_in_order);
    g_test_add_func("/aio/bh/idle", test_idle_bh_runs_when_the_loop_is_idle_or_hurried);
    g_test_add_func("/aio/nested/bh", test_nested_poll_finishes_the_outer_batch_once);
    g_test_add_func("/aio/fd/readiness", test_fd_handler_follows_readiness);
    g_test_add_func("/aio/fd/removed-while-ready", test_fd_removed_while_ready_is_not_called);
    g_test_add_func("/aio/fd/nested", test_ready_fds_are_dispatched_in_nested_poll);
    g_test_add_func("/aio/fd/write-and-hangup", test_fd_write_and_hangup);
    g_test_add_func("/aio/fd/regular-file", test_regular_file_is_always_ready);
    g_test_add_func("/aio/timer/order", test_timers_expire_in_order);
    g_test_add_func("/aio/timer/past", test_timer_rearmed_in_the_past_does_not_hold_the_loop);
    g_test_add_func("/aio/timer/blocking", test_blocking_poll_waits_for_the_timer);
    g_test_add_func("/aio/timer/many", test_many_timers_keep_heap_order);
    g_test_add_func("/aio/gsource/reference", test_gsource_keeps_its_context);
    g_test_add_func("/aio/gsource", test_gsource_drives_everything_and_goes_idle);
    g_test_add_func("/aio/misuse/release", test_release_without_acquire_aborts);
    g_test_add_func("/aio/misuse/poll", test_poll_outside_home_thread_aborts);
    g_test_add_func("/aio/misuse/live-bh", test_context_freed_with_live_bh_aborts);
    g_test_add_func("/aio/misuse/delete-twice", test_bh_deleted_twice_aborts);
    return g_test_run();
}
