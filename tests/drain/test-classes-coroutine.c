/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regression tests of known bug classes (QB-nn): coroutines, their wake-ups, and locks. */
#include "drain-driver.h"
#include "miniblk/coroutine.h"
#include "miniblk/thread.h"
#include "tests/unit/trap.h"

static IOThread *io[2];
static AioContext *io_ctx[2];

static void run_main_loop_dry(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* until nothing is ready */
    }
}

/* ---- QB-06: a CoMutex is handed over between threads ------------------------------------ */

/*
 *      thread 1 (unlocks)              thread 2 (locks)
 *      anybody in the queue?           mark it contended, queue
 *      set it free                     sleep
 */
enum { LOCKERS = 3 };

typedef struct Contest {
    CoMutex mutex;
    int count, inside;          /* protected by MUTEX */
    int rounds, running;        /* RUNNING is atomic */
} Contest;

static void coroutine_fn locker(void *opaque)
{
    Contest *c = opaque;

    for (int i = 0; i < c->rounds; i++) {
        qemu_co_mutex_lock(&c->mutex);
        g_assert_cmpint(c->inside++, ==, 0);
        if (i % 3 == 0) {       /* now and then hold it over a yield, so that others queue */
            aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
            qemu_coroutine_yield();
        }
        c->count++;
        c->inside--;
        qemu_co_mutex_unlock(&c->mutex);
    }
    qatomic_dec(&c->running);
    aio_wait_kick();
}

static void test_qb06_mutex(void)
{
    Contest c = { .rounds = test_rounds(20000), .running = 2 * LOCKERS };

    qemu_co_mutex_init(&c.mutex);
    for (int i = 0; i < 2 * LOCKERS; i++) {
        aio_co_schedule(io_ctx[i & 1], qemu_coroutine_create(locker, &c));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&c.running) > 0);
    g_assert_cmpint(c.count, ==, 2 * LOCKERS * c.rounds);
}

/* ---- QB-12: what is woken on the way down does not run there ---------------------------- */

/*
 *      R1: submits; that completes R2
 *          R2: unlocks
 *              R3: has the mutex, submits; that completes R1, which has not yielded yet
 *
 * Entered on the spot, R1 would be re-entered. It must have yielded before R2 runs.
 */
typedef struct Submitters {
    CoMutex mutex;
    Coroutine *r1, *r2;
    bool r1_waits;
    GString *log;
} Submitters;

static void coroutine_fn r1_entry(void *opaque)
{
    Submitters *s = opaque;

    aio_co_wake(s->r2);         /* reaped while we submit */
    s->r1_waits = true;
    qemu_coroutine_yield();
    s->r1_waits = false;
    g_string_append(s->log, "r1 ");
}

static void coroutine_fn r2_entry(void *opaque)
{
    Submitters *s = opaque;

    qemu_co_mutex_lock(&s->mutex);
    qemu_coroutine_yield();
    g_assert_true(s->r1_waits);
    qemu_co_mutex_unlock(&s->mutex);
    g_string_append(s->log, "r2 ");
}

static void coroutine_fn r3_entry(void *opaque)
{
    Submitters *s = opaque;

    qemu_co_mutex_lock(&s->mutex);
    g_assert_true(s->r1_waits);
    aio_co_wake(s->r1);
    g_string_append(s->log, "r3 ");
    qemu_co_mutex_unlock(&s->mutex);
}

static void test_qb12(void)
{
    Submitters s = { .log = g_string_new(NULL) };

    qemu_co_mutex_init(&s.mutex);
    s.r1 = qemu_coroutine_create(r1_entry, &s);
    s.r2 = qemu_coroutine_create(r2_entry, &s);
    qemu_coroutine_enter(s.r2);
    qemu_coroutine_enter(qemu_coroutine_create(r3_entry, &s));
    qemu_coroutine_enter(s.r1);
    run_main_loop_dry();
    g_assert_cmpstr(s.log->str, ==, "r2 r3 r1 ");
    g_string_free(s.log, true);
}

/* ---- QB-13: a sleeper is woken before its timer ----------------------------------------- */

/*
 *      sleeper                 others
 *      sleep: arm the timer
 *                              wake (as cancel, resume or the end of a section would)
 *                              wake again
 *      awake: disarm, end
 *                              wake once more; the time is over
 */
typedef struct Sleeper {
    QemuCoSleep sleep;
    int64_t ns;
    int awake;
} Sleeper;

static void coroutine_fn sleeper_entry(void *opaque)
{
    Sleeper *s = opaque;

    qemu_co_sleep_ns_wakeable(&s->sleep, QEMU_CLOCK_REALTIME, s->ns);
    s->awake++;
}

static void wake_sleeper(void *opaque)
{
    Sleeper *s = opaque;
    qemu_co_sleep_wake(&s->sleep);
}

static void test_qb13_once(void)
{
    /* the timer is due in the very iteration in which the others wake */
    for (int64_t ns = 0; ns < 2000; ns += 10) {
        Sleeper s = { .ns = ns };
        qemu_coroutine_enter(qemu_coroutine_create(sleeper_entry, &s));
        for (int i = 0; i < 3; i++) {
            aio_bh_schedule_oneshot(qemu_get_aio_context(), wake_sleeper, &s);
        }
        run_main_loop_dry();
        g_assert_cmpint(s.awake, ==, 1);
    }
}

static void enter_sleeper(void)
{
    Sleeper s = { .ns = 1000000000 };
    Coroutine *co = qemu_coroutine_create(sleeper_entry, &s);

    qemu_coroutine_enter(co);
    qemu_coroutine_enter(co);   /* a raw pointer is no right to enter */
}

static void test_qb13_raw(void)
{
    trap(enter_sleeper, "*Co-routine * was already scheduled in 'qemu_co_sleep_ns'*");
}

/* ---- QB-15: the waker ends while those it has woken are being run ----------------------- */

/*
 *      A: wakes B1, B2, B3; waits
 *          B1: wakes A
 *      A: ends; its coroutine is reused at once
 *          B2, B3: must still run
 */
enum { WOKEN = 3 };

typedef struct Wakers {
    CoQueue queue;
    Coroutine *a;
    int ran;
    bool a_ended, reused;
} Wakers;

static void coroutine_fn reuse_entry(void *opaque)
{
    ((Wakers *)opaque)->reused = true;
}

static void coroutine_fn woken_entry(void *opaque)
{
    Wakers *w = opaque;

    qemu_co_queue_wait(&w->queue, NULL);
    if (w->ran++ == 0) {
        aio_co_wake(w->a);
    }
    if (w->a_ended && !w->reused) {
        qemu_coroutine_enter(qemu_coroutine_create(reuse_entry, w));
    }
}

static void coroutine_fn waker_entry(void *opaque)
{
    Wakers *w = opaque;

    qemu_co_queue_restart_all(&w->queue);
    qemu_coroutine_yield();
    w->a_ended = true;
}

static void test_qb15(void)
{
    Wakers w = { .ran = 0 };

    qemu_co_queue_init(&w.queue);
    for (int i = 0; i < WOKEN; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(woken_entry, &w));
    }
    w.a = qemu_coroutine_create(waker_entry, &w);
    qemu_coroutine_enter(w.a);
    run_main_loop_dry();
    g_assert_true(w.a_ended && w.reused);
    g_assert_cmpint(w.ran, ==, WOKEN);
}

/* ---- QB-18: a drain in a coroutine does not starve whom it has woken -------------------- */

/*
 *      M: holds a mutex
 *                              R: a counted request that needs the mutex: queues
 *      M: unlocks: R is to run when M yields
 *      M: drains: must wait for R, so it must yield
 */
typedef struct Starving {
    BlockDriverState *bs;
    CoMutex mutex;
    Coroutine *m;
    bool request_done, drained;
} Starving;

static void coroutine_fn starving_request(void *opaque)
{
    Starving *s = opaque;

    bdrv_inc_in_flight(s->bs);
    qemu_co_mutex_lock(&s->mutex);
    s->request_done = true;
    qemu_co_mutex_unlock(&s->mutex);
    bdrv_dec_in_flight(s->bs);
}

static void coroutine_fn starving_mirror(void *opaque)
{
    Starving *s = opaque;

    qemu_co_mutex_lock(&s->mutex);
    qemu_coroutine_yield();
    qemu_co_mutex_unlock(&s->mutex);
    bdrv_drained_begin(s->bs);
    g_assert_true(s->request_done);
    s->drained = true;
    bdrv_drained_end(s->bs);
}

static void test_qb18(void)
{
    Starving s = { .bs = test_node("bs") };

    qemu_co_mutex_init(&s.mutex);
    s.m = qemu_coroutine_create(starving_mirror, &s);
    qemu_coroutine_enter(s.m);
    qemu_coroutine_enter(qemu_coroutine_create(starving_request, &s));
    g_assert_false(s.request_done);
    qemu_coroutine_enter(s.m);
    run_main_loop_dry();
    g_assert_true(s.drained);
    bdrv_unref(s.bs);
}

/* ---- QB-36, QB-47: locks held by whoever waits ------------------------------------------ */

static char buffer[512];

/* A read in the IOThread, whose coroutine needs the context lock each time it is entered. */
static void read_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    qatomic_inc((int *)opaque);
    aio_wait_kick();
}

static void lock_and_unlock(void *opaque)
{
    aio_context_acquire(io_ctx[0]);
    aio_context_release(io_ctx[0]);
}

typedef struct Locked {
    BlockDriverState *bs;
    BlockBackend *blk;
    QEMUIOVector qiov;
    int done;                   /* atomic */
    bool drained;
} Locked;

static void locked_init(Locked *l)
{
    *l = (Locked) { .bs = test_node("bs") };
    l->qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(l->qiov, buffer, sizeof(buffer));
    l->blk = test_backend(l->bs);
    blk_set_aio_context(l->blk, io_ctx[0], &error_abort);
    blk_set_disable_request_queuing(l->blk, true);
    test_state(l->bs)->sleep_hops = 3;
}

static void locked_free(Locked *l)
{
    blk_set_aio_context(l->blk, qemu_get_aio_context(), &error_abort);
    blk_unref(l->blk);
    bdrv_unref(l->bs);
}

/*
 *      coroutine in the main loop          IOThread
 *      takes the node's lock
 *      drains: hop to a bottom half, yield
 *                                          a handler that takes the lock
 *                                          the requests that the drain waits for
 */
static void coroutine_fn locked_drain_entry(void *opaque)
{
    Locked *l = opaque;

    aio_context_acquire(io_ctx[0]);
    bdrv_drained_begin(l->bs);
    g_assert_cmpint(qatomic_read(&l->done), ==, 1);
    bdrv_drained_end(l->bs);
    aio_context_release(io_ctx[0]);
    l->drained = true;
    aio_wait_kick();
}

static void test_qb36(void)
{
    Locked l;

    locked_init(&l);
    for (int i = 0; i < test_rounds(200); i++) {
        l.done = 0;
        l.drained = false;
        aio_bh_schedule_oneshot(io_ctx[0], lock_and_unlock, NULL);
        blk_aio_preadv(l.blk, 0, &l.qiov, 0, read_done, &l.done);
        aio_bh_schedule_oneshot(io_ctx[0], lock_and_unlock, NULL);
        qemu_coroutine_enter(qemu_coroutine_create(locked_drain_entry, &l));
        AIO_WAIT_WHILE_UNLOCKED(NULL, !l.drained);
    }
    locked_free(&l);
}

/*
 *      main                                IOThread
 *      takes the node's lock, and again
 *      waits: must drop both levels
 *                                          the request takes the lock, ends
 */
static void test_qb47(void)
{
    Locked l;

    locked_init(&l);
    for (int levels = 1; levels <= 4; levels++) {
        for (int i = 0; i < test_rounds(50); i++) {
            l.done = 0;
            blk_aio_preadv(l.blk, 0, &l.qiov, 0, read_done, &l.done);
            for (int n = 0; n < levels; n++) {
                aio_context_acquire(io_ctx[0]);
            }
            if (i & 1) {
                bdrv_drain(l.bs);
                g_assert_cmpint(qatomic_read(&l.done), ==, 1);
            } else {
                AIO_WAIT_WHILE(io_ctx[0], qatomic_read_sc(&l.done) == 0);
            }
            for (int n = 0; n < levels; n++) {
                aio_context_release(io_ctx[0]);     /* all levels are ours again */
            }
        }
    }
    locked_free(&l);
}

/* The mirror image: the node has moved while its old context's lock was held. */
static void test_qb47_moved(void)
{
    Locked l;

    locked_init(&l);
    for (int i = 0; i < test_rounds(50); i++) {
        AioContext *old = io_ctx[i & 1], *new = io_ctx[!(i & 1)];
        aio_context_acquire(old);
        aio_context_acquire(old);
        blk_set_aio_context(l.blk, new, &error_abort);
        aio_context_release(old);
        aio_context_release(old);
        aio_context_acquire(new);
        g_assert_cmpint(blk_pread(l.blk, 0, sizeof(buffer), buffer, 0), ==, 0);
        aio_context_release(new);
    }
    locked_free(&l);
}

/* ---- QB-48: big lock and context lock --------------------------------------------------- */

/*
 *      main                                IOThread
 *      has the big lock                    has its context's lock
 *      waits for the context's lock        waits for the big lock: refused at once
 */
static void big_lock_under_a_context_lock(void *opaque)
{
    aio_context_acquire(io_ctx[0]);
    bql_lock();
}

static void raise_interrupt(void)
{
    aio_wait_bh_oneshot(io_ctx[0], big_lock_under_a_context_lock, NULL);
}

static void test_qb48(void)
{
    trap(raise_interrupt, "*bql_lock: thread * takes the big lock while it holds context *; "
                          "the big lock comes before context locks*");
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(io, io_ctx, 2);
    g_test_add_func("/classes/QB-06-mutex-hand-over", test_qb06_mutex);
    g_test_add_func("/classes/QB-12-completed-while-it-submits", test_qb12);
    g_test_add_func("/classes/QB-13-woken-before-its-timer/once", test_qb13_once);
    g_test_add_func("/classes/QB-13-woken-before-its-timer/raw-entry", test_qb13_raw);
    g_test_add_func("/classes/QB-15-waker-ends-first", test_qb15);
    g_test_add_func("/classes/QB-18-drain-starves-the-woken", test_qb18);
    g_test_add_func("/classes/QB-36-drain-in-a-coroutine-with-a-lock", test_qb36);
    g_test_add_func("/classes/QB-47-lock-taken-twice/wait", test_qb47);
    g_test_add_func("/classes/QB-47-lock-taken-twice/move", test_qb47_moved);
    g_test_add_func("/classes/QB-48-big-lock-after-context-lock", test_qb48);
    int ret = g_test_run();
    test_threads_stop(io, 2);
    return ret;
}
