/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The event loop as a program written for QEMU's headers sees it, driven in every way. */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/aio-wait.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "sysemu/iothread.h"

static AioContext *ctx;

/* The two ways to run a loop: by itself, and as a GSource of the default GMainContext. */
static bool poll_directly(bool blocking)
{
    return aio_poll(ctx, blocking);
}

static bool poll_through_glib(bool blocking)
{
    return g_main_context_iteration(NULL, blocking);
}

typedef bool Drive(bool blocking);

static void until_idle(Drive *drive)
{
    while (drive(false)) {
        /* again */
    }
}

typedef struct Counter {
    QEMUBH *bh;
    EventNotifier e;
    QEMUTimer timer;
    int runs;
    int limit;                  /* schedules itself again until so many */
} Counter;

static void count_bh(void *opaque)
{
    Counter *c = opaque;
    c->runs++;
    if (c->runs < c->limit) {
        qemu_bh_schedule(c->bh);
    }
}

static void count_event(EventNotifier *e)
{
    Counter *c = container_of(e, Counter, e);
    g_assert(event_notifier_test_and_clear(e));
    c->runs++;
}

static void test_own_wake_up_is_no_progress(void)
{
    g_assert_false(aio_poll(ctx, false));
    aio_notify(ctx);
    g_assert_false(aio_poll(ctx, true));        /* wakes, but nothing was done */
    g_assert_false(aio_poll(ctx, false));
}

static void test_bottom_halves(gconstpointer drive_fn)
{
    Drive *drive = (Drive *)drive_fn;
    Counter c = { .runs = 0 };
    c.bh = aio_bh_new(ctx, count_bh, &c);

    qemu_bh_schedule(c.bh);
    qemu_bh_schedule(c.bh);
    g_assert_cmpint(c.runs, ==, 0);
    g_assert_true(drive(true));
    g_assert_cmpint(c.runs, ==, 1);
    g_assert_false(drive(false));
    g_assert_cmpint(c.runs, ==, 1);

    qemu_bh_schedule(c.bh);
    qemu_bh_cancel(c.bh);
    until_idle(drive);
    g_assert_cmpint(c.runs, ==, 1);

    aio_bh_schedule_oneshot(ctx, count_bh, &c);
    until_idle(drive);
    g_assert_cmpint(c.runs, ==, 2);

    qemu_bh_schedule(c.bh);
    qemu_bh_delete(c.bh);
    until_idle(drive);
    g_assert_cmpint(c.runs, ==, 2);
}

static void test_rescheduled_runs_in_the_next_iteration(gconstpointer drive_fn)
{
    Drive *drive = (Drive *)drive_fn;
    Counter c = { .limit = 5 };
    c.bh = aio_bh_new(ctx, count_bh, &c);
    qemu_bh_schedule(c.bh);
    for (int i = 1; i <= 5; i++) {
        g_assert_true(drive(true));
        g_assert_cmpint(c.runs, ==, i);
    }
    g_assert_false(drive(false));
    qemu_bh_delete(c.bh);
    until_idle(drive);
}

static void delete_self(void *opaque)
{
    Counter *c = opaque;
    c->runs++;
    qemu_bh_schedule(c->bh);
    qemu_bh_delete(c->bh);
}

static void test_deleted_from_its_callback(gconstpointer drive_fn)
{
    Drive *drive = (Drive *)drive_fn;
    Counter c = { .runs = 0 };
    c.bh = aio_bh_new(ctx, delete_self, &c);
    qemu_bh_schedule(c.bh);
    until_idle(drive);
    g_assert_cmpint(c.runs, ==, 1);
}

static void test_notifiers(gconstpointer drive_fn)
{
    Drive *drive = (Drive *)drive_fn;
    Counter c = { .runs = 0 };
    g_assert_cmpint(event_notifier_init(&c.e, false), ==, 0);
    aio_set_event_notifier(ctx, &c.e, count_event, NULL, NULL);
    until_idle(drive);
    g_assert_cmpint(c.runs, ==, 0);

    event_notifier_set(&c.e);
    event_notifier_set(&c.e);
    g_assert_true(drive(true));
    g_assert_cmpint(c.runs, ==, 1);
    g_assert_false(drive(false));

    event_notifier_set(&c.e);
    aio_set_event_notifier(ctx, &c.e, NULL, NULL, NULL);
    g_assert_false(drive(false));       /* no handler, no call */
    g_assert_cmpint(c.runs, ==, 1);

    /* what was signalled before the registration counts */
    aio_set_event_notifier(ctx, &c.e, count_event, NULL, NULL);
    g_assert_true(drive(false));
    g_assert_cmpint(c.runs, ==, 2);
    aio_set_event_notifier(ctx, &c.e, NULL, NULL, NULL);
    until_idle(drive);
    event_notifier_cleanup(&c.e);
}

static void count_timer(void *opaque)
{
    Counter *c = opaque;
    c->runs++;
    if (c->runs < c->limit) {
        timer_mod(&c->timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + SCALE_MS);
    }
}

static void test_timers(gconstpointer drive_fn)
{
    Drive *drive = (Drive *)drive_fn;
    Counter c = { .limit = 3 };
    aio_timer_init(ctx, &c.timer, QEMU_CLOCK_VIRTUAL, SCALE_NS, count_timer, &c);
    int64_t begin = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    g_assert_cmpint(begin, !=, 0);
    timer_mod(&c.timer, begin + 20 * SCALE_MS);
    g_assert_false(drive(false));
    while (c.runs < 3) {
        drive(true);            /* must not sleep for ever */
    }
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) - begin, >=, 22 * SCALE_MS);
    timer_mod(&c.timer, 0);
    timer_del(&c.timer);
    until_idle(drive);
    g_assert_cmpint(c.runs, ==, 3);
}

/* All kinds at once through GLib, and then nothing more to do. */
static void test_gsource_dispatches_all_and_goes_idle(void)
{
    Counter bh = { .limit = 10 }, ev = { .runs = 0 }, tm = { .limit = 1 };
    bh.bh = aio_bh_new(ctx, count_bh, &bh);
    event_notifier_init(&ev.e, true);
    aio_set_event_notifier(ctx, &ev.e, count_event, NULL, NULL);
    aio_timer_init(ctx, &tm.timer, QEMU_CLOCK_REALTIME, SCALE_MS, count_timer, &tm);
    timer_mod(&tm.timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + 2);
    qemu_bh_schedule(bh.bh);
    while (bh.runs < 10 || ev.runs < 1 || tm.runs < 1) {
        g_main_context_iteration(NULL, true);
    }
    aio_set_event_notifier(ctx, &ev.e, NULL, NULL, NULL);
    qemu_bh_delete(bh.bh);
    until_idle(poll_through_glib);
    g_assert_false(g_main_context_iteration(NULL, false));
    event_notifier_cleanup(&ev.e);
}

/*
 * main                             thread
 * lock START, acquire CTX
 * unlock START                     lock START
 *                                  ring E, acquire CTX: blocks
 * aio_poll: E is handled
 * still not acquired
 * release CTX                      acquired
 */
typedef struct Acquirer {
    QemuMutex start;
    EventNotifier about_to;
    bool seen, acquired;
} Acquirer;

static void about_to_handler(EventNotifier *e)
{
    Acquirer *a = container_of(e, Acquirer, about_to);
    event_notifier_test_and_clear(e);
    a->seen = true;
}

static void *acquirer_thread(void *opaque)
{
    Acquirer *a = opaque;
    qemu_mutex_lock(&a->start);
    qemu_mutex_unlock(&a->start);
    event_notifier_set(&a->about_to);
    aio_context_acquire(ctx);
    qatomic_set(&a->acquired, true);
    aio_context_release(ctx);
    return a;
}

static void test_poll_does_not_release_the_callers_lock(void)
{
    Acquirer a = { .seen = false };
    QemuThread thread;
    qemu_mutex_init(&a.start);
    event_notifier_init(&a.about_to, 0);
    aio_set_event_notifier(ctx, &a.about_to, about_to_handler, NULL, NULL);
    qemu_mutex_lock(&a.start);
    qemu_thread_create(&thread, "acquirer", acquirer_thread, &a, QEMU_THREAD_JOINABLE);
    aio_context_acquire(ctx);
    qemu_mutex_unlock(&a.start);
    while (!a.seen) {
        aio_poll(ctx, true);
    }
    for (int i = 0; i < 1000; i++) {
        aio_poll(ctx, false);
        g_assert_false(qatomic_read(&a.acquired));
    }
    aio_context_release(ctx);
    g_assert_true(qemu_thread_join(&thread) == &a);
    g_assert_true(a.acquired);
    aio_set_event_notifier(ctx, &a.about_to, NULL, NULL, NULL);
    event_notifier_cleanup(&a.about_to);
    qemu_mutex_destroy(&a.start);
    until_idle(poll_directly);
}

/* ---- nested polling ------------------------------------------------------------------------ */

typedef struct Nest {
    AioContext *ctx;
    EventNotifier polled;       /* always ready by polling; its handler polls */
    EventNotifier other;
    bool inside;
    int entered, read, other_read;
} Nest;

static bool always_ready(void *opaque)
{
    return true;
}

static void polled_read(EventNotifier *e)
{
    Nest *n = container_of(e, Nest, polled);
    event_notifier_test_and_clear(e);
    n->read++;
}

static void ready_and_nest(EventNotifier *e)
{
    Nest *n = container_of(e, Nest, polled);
    g_assert_false(n->inside);  /* it would never end */
    n->entered++;
    n->inside = true;
    event_notifier_set(&n->other);
    g_assert_true(aio_poll(n->ctx, true));
    n->inside = false;
}

static bool not_ready(void *opaque)
{
    return false;
}

static void never_ready(EventNotifier *e)
{
    g_assert_not_reached();
}

static void other_read(EventNotifier *e)
{
    Nest *n = container_of(e, Nest, other);
    event_notifier_test_and_clear(e);
    g_assert_true(n->inside);
    n->other_read++;
}

static void *nest_thread(void *opaque)
{
    Nest n = { .ctx = aio_context_new(&error_abort) };
    qemu_set_current_aio_context(n.ctx);
    aio_context_set_poll_params(n.ctx, 1000000, 2, 2, &error_abort);
    event_notifier_init(&n.polled, 1);
    event_notifier_init(&n.other, 0);
    aio_set_event_notifier(n.ctx, &n.polled, polled_read, always_ready, ready_and_nest);
    aio_set_event_notifier(n.ctx, &n.other, other_read, not_ready, never_ready);
    g_assert_false(aio_poll(n.ctx, false));     /* consumes the notification of all this */
    g_assert_true(aio_poll(n.ctx, true));       /* the first event is waited for */
    g_assert_cmpint(n.read, ==, 1);
    for (int i = 1; i <= 5; i++) {
        g_assert_true(aio_poll(n.ctx, true));
        g_assert_cmpint(n.entered, ==, i);
        g_assert_cmpint(n.other_read, ==, i);
    }
    aio_set_event_notifier(n.ctx, &n.polled, NULL, NULL, NULL);
    aio_set_event_notifier(n.ctx, &n.other, NULL, NULL, NULL);
    while (aio_poll(n.ctx, false)) {
        /* nothing left */
    }
    event_notifier_cleanup(&n.polled);
    event_notifier_cleanup(&n.other);
    aio_context_unref(n.ctx);
    return NULL;
}

static void test_poll_ready_is_not_entered_inside_itself(void)
{
    QemuThread thread;
    qemu_thread_create(&thread, "nest", nest_thread, NULL, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
}

/* ---- waiting ------------------------------------------------------------------------------- */

static void set_flag_bh(void *opaque)
{
    qatomic_set(&*(bool *)opaque, true);
}

static void test_wait_while(void)
{
    bool done = false;
    aio_bh_schedule_oneshot(ctx, set_flag_bh, &done);
    g_assert_true(AIO_WAIT_WHILE_UNLOCKED(NULL, !done));
    g_assert_false(AIO_WAIT_WHILE_UNLOCKED(NULL, !done));
    done = false;
    aio_bh_schedule_oneshot(ctx, set_flag_bh, &done);
    g_assert_true(AIO_WAIT_WHILE_UNLOCKED(ctx, !done));
    aio_wait_kick();
    until_idle(poll_directly);
}

static void *kick_thread(void *opaque)
{
    qatomic_set_mb((bool *)opaque, true);
    aio_wait_kick();
    return NULL;
}

static void test_wait_is_kicked_from_a_thread(void)
{
    for (int i = 0; i < 100; i++) {
        QemuThread thread;
        bool done = false;
        qemu_thread_create(&thread, NULL, kick_thread, &done, QEMU_THREAD_JOINABLE);
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read(&done));
        qemu_thread_join(&thread);
    }
    until_idle(poll_directly);
}

typedef struct LastWish { AioContext *ctx; int runs; bool in_thread; } LastWish;

static void last_wish_bh(void *opaque)
{
    LastWish *w = opaque;
    w->in_thread = qemu_get_current_aio_context() == w->ctx;
    w->runs++;
}

static void coroutine_fn last_wish_co(void *opaque)
{
    last_wish_bh(opaque);
}

static void test_scheduled_before_destroy_runs(void)
{
    for (int i = 0; i < 100; i++) {
        IOThread *iothread = iothread_create("last", &error_abort);
        LastWish w = { .ctx = iothread_get_aio_context(iothread) };
        for (int k = 0; k < 10; k++) {
            aio_bh_schedule_oneshot(w.ctx, last_wish_bh, &w);
        }
        aio_co_schedule(w.ctx, qemu_coroutine_create(last_wish_co, &w));
        iothread_destroy(iothread);
        g_assert_cmpint(w.runs, ==, 11);
        g_assert_true(w.in_thread);
    }
}

static void test_references_from_threads(void)
{
    for (int i = 0; i < 100; i++) {
        AioContext *other = aio_context_new(&error_abort);
        aio_context_ref(other);
        GSource *source = aio_get_g_source(other);
        aio_context_unref(other);
        aio_notify(other);
        g_source_unref(source);
        aio_context_unref(other);
    }
}

static void test_legacy_calls(void)
{
    Counter c = { .runs = 0 };
    g_assert_true(qemu_get_current_aio_context() == qemu_get_aio_context());
    c.bh = qemu_bh_new(count_bh, &c);
    qemu_bh_schedule(c.bh);
    g_assert_true(qemu_aio_wait());
    qemu_bh_delete(c.bh);
    event_notifier_init(&c.e, true);
    qemu_aio_set_event_notifier(&c.e, count_event);
    while (c.runs < 2) {
        qemu_aio_wait();
    }
    qemu_aio_set_event_notifier(&c.e, NULL);
    event_notifier_cleanup(&c.e);
    until_idle(poll_directly);
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_fatal);
    ctx = qemu_get_aio_context();
    until_idle(poll_through_glib);
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/foreign/loop/no-progress", test_own_wake_up_is_no_progress);
    struct { const char *name; Drive *drive; } ways[] = {
        { "poll", poll_directly }, { "glib", poll_through_glib },
    };
    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        struct { const char *name; GTestDataFunc fn; } tests[] = {
            { "bh", test_bottom_halves },
            { "bh-again", test_rescheduled_runs_in_the_next_iteration },
            { "bh-delete", test_deleted_from_its_callback },
            { "notifier", test_notifiers },
            { "timer", test_timers },
        };
        for (size_t k = 0; k < ARRAY_SIZE(tests); k++) {
            g_autofree char *path = g_strdup_printf("/foreign/loop/%s/%s", ways[i].name,
                                                    tests[k].name);
            g_test_add_data_func(path, ways[i].drive, tests[k].fn);
        }
    }
    g_test_add_func("/foreign/loop/glib/all", test_gsource_dispatches_all_and_goes_idle);
    g_test_add_func("/foreign/loop/lock", test_poll_does_not_release_the_callers_lock);
    g_test_add_func("/foreign/loop/nested", test_poll_ready_is_not_entered_inside_itself);
    g_test_add_func("/foreign/loop/wait", test_wait_while);
    g_test_add_func("/foreign/loop/wait/kick", test_wait_is_kicked_from_a_thread);
    g_test_add_func("/foreign/loop/last-wish", test_scheduled_before_destroy_runs);
    g_test_add_func("/foreign/loop/references", test_references_from_threads);
    g_test_add_func("/foreign/loop/legacy", test_legacy_calls);
    return g_test_run();
}
