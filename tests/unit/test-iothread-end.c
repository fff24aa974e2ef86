/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an IOThread does before it ends: all that was scheduled before, and no more. */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread.h"
#include "miniblk/thread-pool.h"
#include "trap.h"

static IOThread *io;
static AioContext *ctx;

static void begin(void)
{
    io = iothread_create("io", &error_abort);
    ctx = iothread_get_aio_context(io);
}

static void inc(void *opaque)
{
    ++*(int *)opaque;
}

static void test_bottom_halves(void)
{
    for (int round = 0; round < 100; round++) {
        int runs = 0;
        begin();
        QEMUBH *bh = aio_bh_new(ctx, inc, &runs);
        for (int i = 0; i < 20; i++) {
            aio_bh_schedule_oneshot(ctx, inc, &runs);
        }
        qemu_bh_schedule(bh);
        iothread_stop(io);
        g_assert_cmpint(runs, ==, 21);
        qemu_bh_delete(bh);
        iothread_destroy(io);
    }
}

static void test_idle_bottom_half(void)
{
    for (int round = 0; round < 100; round++) {
        int runs = 0;
        begin();
        QEMUBH *bh = aio_bh_new(ctx, inc, &runs);
        qemu_bh_schedule_idle(bh);
        iothread_stop(io);
        g_assert_cmpint(runs, ==, 1);
        qemu_bh_delete(bh);
        iothread_destroy(io);
    }
}

static void schedule_idle(void *opaque)
{
    qemu_bh_schedule_idle(opaque);
}

static void test_idle_bottom_half_in_turn(void)
{
    int runs = 0;
    begin();
    QEMUBH *bh = aio_bh_new(ctx, inc, &runs);
    aio_bh_schedule_oneshot(ctx, schedule_idle, bh);
    iothread_stop(io);
    g_assert_cmpint(runs, ==, 1);
    qemu_bh_delete(bh);
    iothread_destroy(io);
}

/* One thing leads to another: each bottom half schedules the next. */
typedef struct Chain {
    int left;
} Chain;

static void chain_cb(void *opaque)
{
    Chain *chain = opaque;
    if (--chain->left) {
        aio_bh_schedule_oneshot(ctx, chain_cb, chain);
    }
}

static void test_what_they_schedule_in_turn(void)
{
    Chain chain = { .left = 100 };
    begin();
    aio_bh_schedule_oneshot(ctx, chain_cb, &chain);
    iothread_destroy(io);
    g_assert_cmpint(chain.left, ==, 0);
}

static void coroutine_fn co_entry(void *opaque)
{
    for (int i = 0; i < 10; i++) {
        aio_co_reschedule_self(qemu_get_aio_context());
        aio_co_reschedule_self(ctx);
        qatomic_inc((int *)opaque);
    }
}

static void coroutine_fn co_local(void *opaque)
{
    for (int i = 0; i < 10; i++) {
        aio_co_schedule(ctx, qemu_coroutine_self());
        qemu_coroutine_yield();
        ++*(int *)opaque;
    }
}

static void test_coroutines(void)
{
    int steps = 0;
    begin();
    for (int i = 0; i < 5; i++) {
        aio_co_schedule(ctx, qemu_coroutine_create(co_local, &steps));
    }
    iothread_destroy(io);
    g_assert_cmpint(steps, ==, 50);

    /* one that goes back and forth, and has come home for good before */
    steps = 0;
    begin();
    aio_co_schedule(ctx, qemu_coroutine_create(co_entry, &steps));
    while (qatomic_read(&steps) < 10) {
        aio_poll(qemu_get_aio_context(), false);
    }
    iothread_destroy(io);
}

/* ---- what must not keep it ------------------------------------------------------------- */

static void ignore(void *opaque)
{
    qatomic_inc((int *)opaque);
}

/* The handler does not read, so the descriptor stays readable for ever. */
static void test_a_descriptor_that_is_always_ready(void)
{
    int calls = 0;
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
    begin();
    aio_set_fd_handler(ctx, fds[0], ignore, NULL, NULL, NULL, &calls);
    while (!qatomic_read(&calls)) {
        /* until it runs */
    }
    iothread_stop(io);
    aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL, NULL, NULL);
    iothread_destroy(io);
    close(fds[0]);
    close(fds[1]);
}

static void again(void *opaque)
{
    qemu_bh_schedule(*(QEMUBH **)opaque);
}

static void test_a_bottom_half_that_never_stops(void)
{
    QEMUBH *bh;

    begin();
    bh = aio_bh_new(ctx, again, &bh);
    qemu_bh_schedule(bh);
    iothread_stop(io);
    qemu_bh_delete(bh);
    iothread_destroy(io);
}

static void test_a_timer_in_the_future(void)
{
    int runs = 0;
    begin();
    QEMUTimer *t = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_NS, inc, &runs);
    timer_mod(t, get_clock() + 3600 * (int64_t)NANOSECONDS_PER_SECOND);
    iothread_stop(io);
    g_assert_cmpint(runs, ==, 0);
    timer_free(t);
    iothread_destroy(io);
}

/* ---- workers --------------------------------------------------------------------------- */

enum { WORKS = 20 };

typedef struct Work {
    int done, home, again;
} Work;

static int work_fn(void *opaque)
{
    return 7;
}

static void work_cb(void *opaque, int ret)
{
    Work *w = opaque;

    g_assert_cmpint(ret, ==, 7);
    w->done++;
    w->home += qemu_get_current_aio_context() == ctx;
    if (w->again-- > 0) {
        thread_pool_submit_aio(work_fn, NULL, work_cb, w);
    }
}

static void submit_works(void *opaque)
{
    for (int i = 0; i < WORKS; i++) {
        thread_pool_submit_aio(work_fn, NULL, work_cb, opaque);
    }
}

/* More work than workers: most of it has not begun when the thread is told to end. */
static void test_work_and_its_callbacks(void)
{
    for (int round = 0; round < 50; round++) {
        Work w = { .again = 3 };
        begin();
        thread_pool_set_limits(aio_get_thread_pool(ctx), 0, 1 + round % 3);
        aio_bh_schedule_oneshot(ctx, submit_works, &w);
        iothread_destroy(io);
        g_assert_cmpint(w.done, ==, WORKS + 3);
        g_assert_cmpint(w.home, ==, WORKS + 3);
    }
}

static void coroutine_fn co_work(void *opaque)
{
    for (int i = 0; i < 5; i++) {
        g_assert_cmpint(thread_pool_submit_co(work_fn, NULL), ==, 7);
        ++*(int *)opaque;
    }
}

static void test_coroutines_that_wait_for_workers(void)
{
    for (int round = 0; round < 50; round++) {
        int steps = 0;
        begin();
        aio_co_schedule(ctx, qemu_coroutine_create(co_work, &steps));
        iothread_destroy(io);
        g_assert_cmpint(steps, ==, 5);
    }
}

/* ---- the object ------------------------------------------------------------------------ */

static void test_stop_is_idempotent(void)
{
    int runs = 0;
    begin();
    aio_bh_schedule_oneshot(ctx, inc, &runs);
    iothread_stop(io);
    g_assert_cmpint(runs, ==, 1);
    iothread_stop(io);
    g_assert_true(iothread_by_id("io") == io);
    iothread_destroy(io);
    g_assert_null(iothread_by_id("io"));
}

/* The context outlives the thread for whoever has a reference. */
static void test_references_outlive_it(void)
{
    begin();
    AioContext *kept = ctx;
    aio_context_ref(kept);
    iothread_destroy(io);
    aio_context_acquire(kept);
    aio_context_release(kept);
    aio_context_unref(kept);
}

static void destroy_while_holding(void)
{
    begin();
    aio_context_acquire(ctx);
    iothread_destroy(io);
}

static void test_destroying_while_holding_aborts(void)
{
    trap(destroy_while_holding, "*iothread_stop: the caller holds the context of 'io'*");
}

static void destroy_with_handler(void)
{
    static int calls;

    begin();
    aio_set_fd_handler(ctx, 0, ignore, NULL, NULL, NULL, &calls);
    iothread_destroy(io);
}

static void test_destroying_with_a_live_handler_aborts(void)
{
    trap(destroy_with_handler, "*aio_context_unref: 1 file descriptor handler*registered*");
}

static void destroy_with_bh(void)
{
    begin();
    aio_bh_new(ctx, inc, NULL);
    iothread_destroy(io);
}

static void test_destroying_with_a_live_bottom_half_aborts(void)
{
    trap(destroy_with_bh, "*aio_context_unref: 1 bottom half/halves were not deleted*");
}

/* Threads come and go while others send them messages; each that was accepted runs. */
static void test_come_and_go(void)
{
    enum { N = 6, TURNS = 300 };
    IOThread *t[N] = { NULL };
    int runs[N] = { 0 }, sent[N] = { 0 };
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);

    for (int turn = 0; turn < TURNS; turn++) {
        int i = g_rand_int_range(rand, 0, N);
        g_autofree char *id = g_strdup_printf("io%d", i);
        if (!t[i]) {
            t[i] = iothread_create(id, &error_abort);
            runs[i] = sent[i] = 0;
        } else if (g_rand_int_range(rand, 0, 4) == 0) {
            iothread_destroy(t[i]);
            t[i] = NULL;
            g_assert_cmpint(runs[i], ==, sent[i]);
        } else {
            for (int k = g_rand_int_range(rand, 1, 10); k; k--) {
                aio_bh_schedule_oneshot(iothread_get_aio_context(t[i]), inc, &runs[i]);
                sent[i]++;
            }
        }
    }
    for (int i = 0; i < N; i++) {
        if (t[i]) {
            iothread_destroy(t[i]);
            g_assert_cmpint(runs[i], ==, sent[i]);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/iothread-end/runs/bottom-halves", test_bottom_halves);
    g_test_add_func("/iothread-end/runs/idle-bottom-half", test_idle_bottom_half);
    g_test_add_func("/iothread-end/runs/in-turn", test_what_they_schedule_in_turn);
    g_test_add_func("/iothread-end/runs/idle-in-turn", test_idle_bottom_half_in_turn);
    g_test_add_func("/iothread-end/runs/coroutines", test_coroutines);
    g_test_add_func("/iothread-end/runs/work", test_work_and_its_callbacks);
    g_test_add_func("/iothread-end/runs/coroutines-with-work",
                    test_coroutines_that_wait_for_workers);
    g_test_add_func("/iothread-end/not-kept-by/ready-descriptor",
                    test_a_descriptor_that_is_always_ready);
    g_test_add_func("/iothread-end/not-kept-by/endless-bottom-half",
                    test_a_bottom_half_that_never_stops);
    g_test_add_func("/iothread-end/not-kept-by/timer", test_a_timer_in_the_future);
    g_test_add_func("/iothread-end/stop-twice", test_stop_is_idempotent);
    g_test_add_func("/iothread-end/references", test_references_outlive_it);
    g_test_add_func("/iothread-end/come-and-go", test_come_and_go);
    g_test_add_func("/iothread-end/misuse/context-held", test_destroying_while_holding_aborts);
    g_test_add_func("/iothread-end/misuse/live-handler",
                    test_destroying_with_a_live_handler_aborts);
    g_test_add_func("/iothread-end/misuse/live-bottom-half",
                    test_destroying_with_a_live_bottom_half_aborts);
    return g_test_run();
}
