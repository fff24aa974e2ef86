/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest cases of event loops, one wake-up each, so that a controlled scheduler can try
 * all their interleavings. Natively each is one roll of the dice. A lost wake-up shows as a
 * case that does not end.
 */
#include "drain-driver.h"
#include "loop-parts.h"
#include "miniblk/coroutine.h"
#include "miniblk/semaphore.h"
#include "miniblk/thread-pool.h"

static IOThread *io[2];
static AioContext *io_ctx[2];

/* Start FN(OPAQUE) in a thread; the caller joins it. */
static void start(QemuThread *thread, void *(*fn)(void *opaque), void *opaque)
{
    qemu_thread_create(thread, "other", fn, opaque, QEMU_THREAD_JOINABLE);
}

/*
 *      main                    IOThread
 *      schedule there; wait
 *                              looks; sleeps?
 *                              runs it, kicks
 */
static void test_there_and_back(void)
{
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);
}

/*
 *      main, other             IOThread
 *      work++; schedule B      B: seen = work
 *      until seen = 2
 */
typedef struct Work {
    QEMUBH *bh;
    int work, seen;             /* atomic */
} Work;

static void work_bh(void *opaque)
{
    Work *w = opaque;

    qatomic_set_mb(&w->seen, qatomic_read(&w->work));
    aio_wait_kick();
}

static void *work_thread(void *opaque)
{
    Work *w = opaque;

    qatomic_inc(&w->work);
    qemu_bh_schedule(w->bh);
    return NULL;
}

static void test_two_schedule(void)
{
    Work w = { .bh = aio_bh_new(io_ctx[0], work_bh, &w) };
    QemuThread thread;

    start(&thread, work_thread, &w);
    work_thread(&w);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&w.seen) != 2);
    qemu_thread_join(&thread);
    qemu_bh_delete(w.bh);
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);
}

/* The bottom half deletes itself as soon as it runs; who schedules it must be done with it. */
static void test_gone_once_scheduled(void)
{
    int left = 1;               /* atomic */

    aio_bh_schedule_oneshot(io_ctx[0], test_nothing_bh, NULL);  /* it is awake */
    test_schedule_suicide(io_ctx[0], &left);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&left) > 0);
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);      /* it is freed */
}

/* The same with the context: its thread ends, and drops it, on what it is sent. */
static void test_context_gone(void)
{
    TestShortLife s;

    test_short_life_start(&s, false);
    aio_bh_schedule_oneshot(s.ctx, test_short_life_end_bh, &s);
    test_short_life_join(&s);
}

/* The same with one that may run late. */
typedef struct LateEnd {
    TestShortLife life;
    QEMUBH *bh;
} LateEnd;

static void late_end_bh(void *opaque)
{
    LateEnd *l = opaque;

    qemu_bh_delete(l->bh);
    test_short_life_end_bh(&l->life);
}

static void test_context_gone_late(void)
{
    LateEnd l;

    test_short_life_start(&l.life, false);
    l.bh = aio_bh_new(l.life.ctx, late_end_bh, &l);
    qemu_bh_schedule_idle(l.bh);
    test_short_life_join(&l.life);
}

/*
 *      main                    other                   IOThread
 *      schedule A idle         schedule B idle
 *      schedule A                                      takes those that may run late
 */
static void idle_bh(void *opaque)
{
    qatomic_inc((int *)opaque);
    aio_wait_kick();
}

static void *schedule_idle(void *opaque)
{
    qemu_bh_schedule_idle(opaque);
    return NULL;
}

static void test_idle_hurried(void)
{
    int ran = 0;                /* atomic */
    QEMUBH *a = aio_bh_new(io_ctx[0], idle_bh, &ran);
    QEMUBH *b = aio_bh_new(io_ctx[0], idle_bh, &ran);
    QemuThread thread;

    start(&thread, schedule_idle, b);
    qemu_bh_schedule_idle(a);
    qemu_bh_schedule(a);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&ran) < 2);
    qemu_thread_join(&thread);
    qemu_bh_delete(a);
    qemu_bh_delete(b);
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);
}

/* It may run late, but it must run, whatever the loop is doing when it comes. */
static void test_idle_from_elsewhere(void)
{
    int ran = 0;                /* atomic */
    QEMUBH *a = aio_bh_new(io_ctx[0], idle_bh, &ran);

    qemu_bh_schedule_idle(a);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&ran) < 1);
    qemu_bh_delete(a);
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);
}

/* Another source of GLib's loop schedules one when ours has already looked. */
typedef struct LateSource {
    GSource source;
    QEMUBH *bh;                 /* NULL: scheduled */
} LateSource;

static gboolean late_prepare(GSource *source, int *timeout_ms)
{
    LateSource *l = container_of(source, LateSource, source);

    *timeout_ms = -1;
    if (l->bh) {
        qemu_bh_schedule(g_steal_pointer(&l->bh));
    }
    return false;
}

static gboolean late_check(GSource *source)
{
    return false;
}

static void test_scheduled_while_others_prepare(void)
{
    static GSourceFuncs funcs = { .prepare = late_prepare, .check = late_check };
    GSource *source = g_source_new(&funcs, sizeof(LateSource));
    int ran = 0;
    QEMUBH *bh = aio_bh_new(qemu_get_aio_context(), idle_bh, &ran);

    while (g_main_context_iteration(NULL, false)) {
        /* nothing but what is scheduled there shall end the sleep */
    }
    container_of(source, LateSource, source)->bh = bh;
    g_source_set_priority(source, G_PRIORITY_LOW);
    g_source_attach(source, NULL);
    while (!ran) {
        main_loop_wait(false);
    }
    g_source_destroy(source);
    g_source_unref(source);
    qemu_bh_delete(bh);
}

/*
 *      main                    other
 *      open? no
 *                              open; anybody waiting?
 *      sleep                   kick
 */
static void test_kick(void)
{
    bool open = false;
    QemuThread thread;

    start(&thread, test_open_gate, &open);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&open));
    qemu_thread_join(&thread);
}

/*
 * Two threads wait, each in its own loop, join the list of those who do and leave it. Whoever
 * is lost from it sleeps for ever. The lab changes threads at no point of its insertion; so
 * this is one for real processors.
 */
typedef struct Waiting {
    int away, busy, left;       /* atomic; threads */
    bool open;                  /* atomic */
} Waiting;

static void wait_bh(void *opaque)
{
    Waiting *w = opaque;

    qatomic_dec(&w->away);
    aio_wait_kick();
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&w->away) > 0);
    for (int i = 0; i < test_rounds(1000000); i++) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, false);
    }
    qatomic_dec(&w->busy);
    aio_wait_kick();
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&w->open));
    qatomic_dec(&w->left);
    aio_wait_kick();
}

static void test_two_wait(void)
{
    Waiting w = { .away = 2, .busy = 2, .left = 2 };

    aio_bh_schedule_oneshot(io_ctx[0], wait_bh, &w);
    aio_bh_schedule_oneshot(io_ctx[1], wait_bh, &w);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&w.busy) > 0);
    test_open_gate(&w.open);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&w.left) > 0);
}

/* A thread is told to end just before it sleeps. */
static void test_stop(void)
{
    iothread_destroy(iothread_create("short", &error_abort));
}

/*
 *      main                    thread
 *                              end? no
 *      end; notify
 *                              sleep: not before it has looked again
 */
typedef struct Private {
    AioContext *ctx;
    bool end;                   /* atomic */
} Private;

static void *private_loop(void *opaque)
{
    Private *p = opaque;

    qemu_set_current_aio_context(p->ctx);
    while (!qatomic_read(&p->end)) {
        aio_poll(p->ctx, true);
    }
    qemu_set_current_aio_context(NULL);
    return NULL;
}

static void test_private_flag(void)
{
    Private p = { .ctx = aio_context_new(&error_abort) };
    QemuThread thread;

    start(&thread, private_loop, &p);
    qatomic_set(&p.end, true);
    aio_notify(p.ctx);
    qemu_thread_join(&thread);
    aio_context_unref(p.ctx);
}

/* A timer that is armed from elsewhere shortens a sleep that has begun. */
static void timer_cb(void *opaque)
{
    qatomic_set_mb((bool *)opaque, true);
    aio_wait_kick();
}

static void test_timer_from_elsewhere(void)
{
    bool done = false;
    QEMUTimer *t = aio_timer_new(io_ctx[0], QEMU_CLOCK_REALTIME, SCALE_NS, timer_cb, &done);

    timer_mod(t, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + 1000);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&done));
    timer_free(t);
}

static int no_work(void *opaque)
{
    return 7;
}

static void pool_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 7);
    *(bool *)opaque = true;
}

static void test_worker(void)
{
    bool done = false;

    thread_pool_submit_aio(no_work, NULL, pool_done, &done);
    while (!done) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

/*
 * Two pieces of work take turns for ever, each done before the other's callback has returned:
 *
 *      main                            the only worker
 *      callback of A: schedules BH,
 *      submits A again                 ends B, begins A
 *      callback of B: submits B        ends A, begins B
 *      callback of A, ...              ...
 *
 * The bottom half must have its turn.
 */
enum { TURNS_MAX = 8 };

typedef struct Turns {
    QemuSemaphore began;
    int callbacks, left;
    bool other_ran;
} Turns;

static int begin_work(void *opaque)
{
    Turns *t = opaque;
    qemu_sem_post(&t->began);
    return 0;
}

static void other_bh(void *opaque)
{
    *(bool *)opaque = true;
}

static void take_turn(Turns *t);

static void turn_done(void *opaque, int ret)
{
    Turns *t = opaque;

    if (t->callbacks++ == 0) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), other_bh, &t->other_ran);
    }
    g_assert_cmpint(t->callbacks, <=, TURNS_MAX);
    if (t->other_ran) {
        t->left--;
    } else {
        take_turn(t);
    }
}

/* When the worker has begun this, it has done what was submitted before. */
static void take_turn(Turns *t)
{
    thread_pool_submit_aio(begin_work, t, turn_done, t);
    qemu_sem_wait(&t->began);
}

static void test_workers_and_others(void)
{
    ThreadPool *pool = aio_get_thread_pool(qemu_get_aio_context());
    Turns t = { .left = 2 };

    qemu_sem_init(&t.began, 0);
    thread_pool_set_limits(pool, 0, 1);
    take_turn(&t);
    take_turn(&t);
    while (t.left > 0) {
        aio_poll(qemu_get_aio_context(), true);
    }
    thread_pool_set_limits(pool, 0, 64);
    qemu_sem_destroy(&t.began);
}

/* Two coroutines of two threads want one mutex. */
typedef struct Contest {
    CoMutex mutex;
    int inside;                 /* protected by MUTEX */
    int left;                   /* atomic */
} Contest;

static void coroutine_fn locker(void *opaque)
{
    Contest *c = opaque;

    qemu_co_mutex_lock(&c->mutex);
    g_assert_cmpint(c->inside++, ==, 0);
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
    c->inside--;
    qemu_co_mutex_unlock(&c->mutex);
    qatomic_dec(&c->left);
    aio_wait_kick();
}

static void test_comutex(void)
{
    Contest c = { .left = 2 };

    qemu_co_mutex_init(&c.mutex);
    for (int i = 0; i < 2; i++) {
        aio_co_schedule(io_ctx[i], qemu_coroutine_create(locker, &c));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&c.left) > 0);
}

/* A context lock that two threads want, taken twice over by one. */
static void *lock_twice(void *opaque)
{
    for (int i = 0; i < 2; i++) {
        aio_context_acquire(opaque);
        aio_context_acquire(opaque);
        aio_context_release(opaque);
        aio_context_release(opaque);
    }
    return NULL;
}

static void test_context_lock(void)
{
    QemuThread thread;

    start(&thread, lock_twice, io_ctx[0]);
    lock_twice(io_ctx[0]);
    qemu_thread_join(&thread);
}

/*
 *      main                    IOThread
 *      has the big lock        takes its context's lock, lets it go
 *      wants the context's     takes the big lock
 *      lets both go
 */
static void both_locks_bh(void *opaque)
{
    aio_context_acquire(io_ctx[0]);
    aio_context_release(io_ctx[0]);
    bql_lock();
    bql_unlock();
    qemu_event_set(opaque);
}

static void test_lock_order(void)
{
    QemuEvent done;

    qemu_event_init(&done, false);
    aio_bh_schedule_oneshot(io_ctx[0], both_locks_bh, &done);
    aio_context_acquire(io_ctx[0]);
    aio_context_release(io_ctx[0]);
    bql_unlock();
    qemu_event_wait(&done);
    bql_lock();
    qemu_event_destroy(&done);
}

/*
 *      other                   IOThread
 *                              handler taken away, put back
 *      request; ring
 *                              must find the request
 */
static void test_ring(gconstpointer poll_max_ns)
{
    TestRing ring;

    test_ring_init(&ring, io_ctx[0], GPOINTER_TO_INT(poll_max_ns));
    aio_wait_bh_oneshot(io_ctx[0], test_ring_detach_bh, &ring);
    aio_bh_schedule_oneshot(io_ctx[0], test_ring_attach_bh, &ring);
    test_ring_request(&ring);
    test_ring_wait(&ring);
    test_ring_free(&ring);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    test_threads_start(io, io_ctx, 2);
    for (int i = 0; i < 2; i++) {
        aio_context_set_poll_params(io_ctx[i], 0, 0, 0, &error_abort);
    }
    g_test_add_func("/small/loop/there-and-back", test_there_and_back);
    g_test_add_func("/small/loop/two-schedule-one", test_two_schedule);
    g_test_add_func("/small/loop/gone-once-scheduled", test_gone_once_scheduled);
    g_test_add_func("/small/loop/context-gone-once-scheduled", test_context_gone);
    g_test_add_func("/small/loop/context-gone-once-scheduled-late", test_context_gone_late);
    g_test_add_func("/small/loop/idle-hurried", test_idle_hurried);
    g_test_add_func("/small/loop/idle-from-elsewhere", test_idle_from_elsewhere);
    g_test_add_func("/small/loop/others-prepare", test_scheduled_while_others_prepare);
    g_test_add_func("/small/loop/kick", test_kick);
    g_test_add_func("/small/loop/two-wait", test_two_wait);
    g_test_add_func("/small/loop/stop", test_stop);
    g_test_add_func("/small/loop/private-flag", test_private_flag);
    g_test_add_func("/small/loop/timer-from-elsewhere", test_timer_from_elsewhere);
    g_test_add_func("/small/loop/worker", test_worker);
    g_test_add_func("/small/loop/workers-and-others", test_workers_and_others);
    g_test_add_func("/small/loop/co-mutex", test_comutex);
    g_test_add_func("/small/loop/context-lock", test_context_lock);
    g_test_add_func("/small/loop/lock-order", test_lock_order);
    g_test_add_data_func("/small/loop/doorbell", GINT_TO_POINTER(0), test_ring);
    g_test_add_data_func("/small/loop/doorbell-polled", GINT_TO_POINTER(5000), test_ring);
    int ret = g_test_run();
    test_threads_stop(io, 2);
    return ret;
}
