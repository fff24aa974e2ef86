/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several threads: wake-ups, bottom halves, coroutines and locks across event loops. */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/lab-test.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread.h"

enum { THREADS = 4 };

static IOThread *io[THREADS];
static AioContext *io_ctx[THREADS];

static void start(void)
{
    for (int i = 0; i < THREADS; i++) {
        g_autofree char *id = g_strdup_printf("io%d", i);
        io[i] = iothread_create(id, &error_abort);
        io_ctx[i] = iothread_get_aio_context(io[i]);
    }
}

static void stop(void)
{
    for (int i = 0; i < THREADS; i++) {
        iothread_destroy(io[i]);
    }
}

/* ---- objects --------------------------------------------------------------------------------- */

static void test_lookup_and_errors(void)
{
    Error *err = NULL;
    start();
    g_assert_true(iothread_by_id("io2") == io[2]);
    g_assert_null(iothread_by_id("nope"));
    g_assert_true(iothread_by_aio_context(io_ctx[1]) == io[1]);
    g_assert_null(iothread_create("io0", &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "attempt to add duplicate property 'io0' to object (type 'container')");
    error_free_or_abort(&err);
    g_assert_null(iothread_create("9bad", &err));
    error_free_or_abort(&err);
    g_autofree char *id = iothread_get_id(io[3]);
    g_assert_cmpstr(id, ==, "io3");
    g_assert_true(iothread_next(NULL) == io[0] && iothread_next(io[0]) == io[1]);
    IOThreadParams p = *iothread_get_params(io[0]);
    p.poll_max_ns = -1;
    g_assert_false(iothread_set_params(io[0], &p, &err));
    error_free_or_abort(&err);
    p.poll_max_ns = 0;
    g_assert_true(iothread_set_params(io[0], &p, &error_abort));
    g_assert_cmpint(iothread_get_params(io[0])->poll_max_ns, ==, 0);
    stop();
}

static void inc_cb(void *opaque)
{
    qatomic_inc((int *)opaque);
}

static void test_what_was_scheduled_runs_before_destroy_returns(void)
{
    for (int round = 0; round < LAB_ROUNDS(200, 10); round++) {
        int count = 0;
        IOThread *t = iothread_create("t", &error_abort);
        for (int i = 0; i < 20; i++) {
            aio_bh_schedule_oneshot(iothread_get_aio_context(t), inc_cb, &count);
        }
        iothread_destroy(t);
        g_assert_cmpint(count, ==, 20);
    }
}

/* ---- every message runs, once ------------------------------------------------------------------ */

/*
 * Each loop sends its bottom half to the next, so all but a few sleep all the time and every
 * hop needs a wake-up. A lost one stops the ring.
 */
typedef struct Ring {
    int hops_left;              /* passed on with the token; one thread has it at a time */
    QemuEvent done;
    QEMUBH *bh[THREADS];
    int at;
} Ring;

static void ring_cb(void *opaque)
{
    Ring *r = opaque;
    if (--r->hops_left == 0) {
        qemu_event_set(&r->done);
        return;
    }
    r->at = (r->at + 1) % THREADS;
    qemu_bh_schedule(r->bh[r->at]);
}

static void test_no_wake_up_is_lost_in_a_ring(void)
{
    enum { RINGS = 3 };
    Ring r[RINGS];
    start();
    for (int k = 0; k < RINGS; k++) {
        r[k] = (Ring) { .hops_left = LAB_ROUNDS(20000, 40), .at = k };
        qemu_event_init(&r[k].done, false);
        for (int i = 0; i < THREADS; i++) {
            r[k].bh[i] = aio_bh_new(io_ctx[i], ring_cb, &r[k]);
        }
    }
    for (int k = 0; k < RINGS; k++) {
        qemu_bh_schedule(r[k].bh[k]);
    }
    for (int k = 0; k < RINGS; k++) {
        qemu_event_wait(&r[k].done);
        for (int i = 0; i < THREADS; i++) {
            qemu_bh_delete(r[k].bh[i]);
        }
        qemu_event_destroy(&r[k].done);
    }
    stop();
}

typedef struct Flood {
    AioContext *ctx;
    int *count;
} Flood;

enum { FLOOD = LAB_ROUNDS(20000, 50) };

static void *flood_thread(void *opaque)
{
    Flood *f = opaque;
    for (int i = 0; i < FLOOD; i++) {
        aio_bh_schedule_oneshot(f->ctx, inc_cb, f->count);
    }
    return NULL;
}

static void test_every_message_of_many_threads_runs_once(void)
{
    QemuThread t[THREADS];
    Flood f[THREADS];
    int count = 0;
    IOThread *one = iothread_create("one", &error_abort);
    for (int i = 0; i < THREADS; i++) {
        f[i] = (Flood) { iothread_get_aio_context(one), &count };
        qemu_thread_create(&t[i], "flood", flood_thread, &f[i], QEMU_THREAD_JOINABLE);
    }
    for (int i = 0; i < THREADS; i++) {
        qemu_thread_join(&t[i]);
    }
    iothread_destroy(one);
    g_assert_cmpint(count, ==, THREADS * FLOOD);
}

/* ---- coroutines across threads ----------------------------------------------------------------- */

enum { CO_PER_THREAD = 4, ROUNDS = LAB_ROUNDS(2000, 20) };
static CoMutex co_mutex;
static int protected_count;     /* by co_mutex; not atomic on purpose */
static int finished;            /* atomic */

static void coroutine_fn lock_loop(void *opaque)
{
    for (int i = 0; i < ROUNDS; i++) {
        qemu_co_mutex_lock(&co_mutex);
        protected_count++;
        if (i % 64 == 0) {
            qemu_co_mutex_assert_locked(&co_mutex);
        }
        qemu_co_mutex_unlock(&co_mutex);
    }
    qatomic_inc(&finished);
    aio_wait_kick();
}

static void test_comutex_excludes_across_threads(void)
{
    start();
    qemu_co_mutex_init(&co_mutex);
    protected_count = finished = 0;
    for (int i = 0; i < THREADS * CO_PER_THREAD; i++) {
        aio_co_schedule(io_ctx[i % THREADS], qemu_coroutine_create(lock_loop, NULL));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&finished) < THREADS * CO_PER_THREAD);
    g_assert_cmpint(protected_count, ==, THREADS * CO_PER_THREAD * ROUNDS);
    stop();
}

static void coroutine_fn travel(void *opaque)
{
    for (int i = 0; i < ROUNDS; i++) {
        AioContext *to = i % (THREADS + 1) == THREADS ? qemu_get_aio_context()
                                                      : io_ctx[i % (THREADS + 1)];
        aio_co_reschedule_self(to);
        g_assert_true(qemu_get_current_aio_context() == to);
        g_assert_true(qemu_coroutine_get_aio_context(qemu_coroutine_self()) == to);
    }
    qatomic_inc(&finished);
    aio_wait_kick();
}

static void test_coroutines_travel_between_loops(void)
{
    start();
    finished = 0;
    for (int i = 0; i < 8; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(travel, NULL));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&finished) < 8);
    stop();
}

static void coroutine_fn sleep_entry(void *opaque)
{
    int64_t due = get_clock() + 3 * SCALE_MS;
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 3 * SCALE_MS);
    g_assert_cmpint(get_clock(), >=, due);
    qatomic_inc(&finished);
    aio_wait_kick();
}

static void test_sleep_in_an_iothread(void)
{
    start();
    finished = 0;
    for (int i = 0; i < THREADS; i++) {
        aio_co_schedule(io_ctx[i], qemu_coroutine_create(sleep_entry, NULL));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&finished) < THREADS);
    stop();
}

/* ---- the context lock -------------------------------------------------------------------------- */

typedef struct Holder {
    QemuEvent trying;
    bool got_it;                /* atomic */
} Holder;

static void acquire_bh(void *opaque)
{
    Holder *h = opaque;
    qemu_event_set(&h->trying);
    aio_context_acquire(io_ctx[0]);
    qatomic_set_mb(&h->got_it, true);
    aio_context_release(io_ctx[0]);
    aio_wait_kick();
}

/* The main thread holds the lock twice; the wait must drop both levels, or it never ends. */
static void test_wait_drops_every_level_of_the_lock(void)
{
    Holder h = { .got_it = false };
    start();
    qemu_event_init(&h.trying, false);
    aio_context_acquire(io_ctx[0]);
    aio_context_acquire(io_ctx[0]);
    aio_bh_schedule_oneshot(io_ctx[0], acquire_bh, &h);
    qemu_event_wait(&h.trying);
    g_assert_false(qatomic_read(&h.got_it));
    AIO_WAIT_WHILE(io_ctx[0], !qatomic_read_sc(&h.got_it));
    aio_context_release(io_ctx[0]);
    aio_context_release(io_ctx[0]);
    stop();
}

static void wait_done_cb(void *opaque)
{
    *(bool *)opaque = true;
}

static void test_wait_for_a_bottom_half_elsewhere(void)
{
    start();
    for (int i = 0; i < LAB_ROUNDS(2000, 20); i++) {
        bool done = false;
        aio_wait_bh_oneshot(io_ctx[i % THREADS], wait_done_cb, &done);
        g_assert_true(done);
    }
    stop();
}

/* ---- timers armed from elsewhere ----------------------------------------------------------------- */

static void timer_cb(void *opaque)
{
    qatomic_inc(&finished);
    aio_wait_kick();
}

static void test_timer_armed_from_another_thread_wakes_the_loop(void)
{
    start();
    finished = 0;
    for (int i = 0; i < LAB_ROUNDS(500, 20); i++) {
        QEMUTimer *t = aio_timer_new(io_ctx[0], QEMU_CLOCK_REALTIME, SCALE_NS, timer_cb,
                                     NULL);
        timer_mod(t, get_clock());
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&finished) <= i);
        timer_free(t);
    }
    stop();
}

static void idle_cb(void *opaque)
{
    qatomic_inc(&finished);
    aio_wait_kick();
}

/* The loop sleeps without a limit until the idle bottom half tells it otherwise. */
static void test_idle_bottom_half_reaches_a_sleeping_loop(void)
{
    start();
    finished = 0;
    for (int i = 0; i < 20; i++) {
        QEMUBH *bh = aio_bh_new(io_ctx[0], idle_cb, NULL);
        qemu_bh_schedule_idle(bh);
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&finished) <= i);
        qemu_bh_delete(bh);
    }
    stop();
}

static void *event_waiter(void *opaque)
{
    QemuEvent *ev = opaque;
    qemu_event_wait(ev);
    /* the setter is done with the event as far as memory goes */
    qemu_event_destroy(ev);
    g_free(ev);
    return NULL;
}

static void test_event_may_be_freed_by_the_woken(void)
{
    for (int i = 0; i < 2000; i++) {
        QemuEvent *ev = g_new(QemuEvent, 1);
        QemuThread t;
        qemu_event_init(ev, false);
        qemu_thread_create(&t, "waiter", event_waiter, ev, QEMU_THREAD_JOINABLE);
        qemu_event_set(ev);
        qemu_thread_join(&t);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/iothread/lookup", test_lookup_and_errors);
    g_test_add_func("/iothread/destroy-runs-scheduled",
                    test_what_was_scheduled_runs_before_destroy_returns);
    g_test_add_func("/iothread/ring", test_no_wake_up_is_lost_in_a_ring);
    g_test_add_func("/iothread/flood", test_every_message_of_many_threads_runs_once);
    g_test_add_func("/iothread/comutex", test_comutex_excludes_across_threads);
    g_test_add_func("/iothread/travel", test_coroutines_travel_between_loops);
    g_test_add_func("/iothread/sleep", test_sleep_in_an_iothread);
    g_test_add_func("/iothread/lock/wait-drops-all", test_wait_drops_every_level_of_the_lock);
    g_test_add_func("/iothread/wait-bh", test_wait_for_a_bottom_half_elsewhere);
    g_test_add_func("/iothread/timer", test_timer_armed_from_another_thread_wakes_the_loop);
    g_test_add_func("/iothread/idle-bh", test_idle_bottom_half_reaches_a_sleeping_loop);
    g_test_add_func("/iothread/event-freed", test_event_may_be_freed_by_the_woken);
    return g_test_run();
}
