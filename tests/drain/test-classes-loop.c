/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regression tests of known bug classes (QB-nn): the event loop and its wake-ups. A lost
 * wake-up shows as a test that does not end.
 */
#include "drain-driver.h"
#include "loop-parts.h"
#include "tests/unit/trap.h"

static IOThread *io;
static AioContext *io_ctx;

static void spin(int turns)
{
    while (turns-- > 0) {
        barrier();
    }
}

/* Run FN(OPAQUE) in a thread of its own, here and now: this is what makes races certain. */
static void meanwhile(void *(*fn)(void *opaque), void *opaque)
{
    QemuThread thread;

    qemu_thread_create(&thread, "other", fn, opaque, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
}

static void *schedule(void *opaque)
{
    qemu_bh_schedule(opaque);
    return NULL;
}

/* ---- QB-02: a notification goes to a poll that has looked already ----------------------- */

/*
 *      worker                  home thread
 *                              outer poll: callback A
 *      schedule B
 *                                  nested poll: callback B
 *      schedule C
 *                                  nested poll returns
 *                              outer poll returns
 *                              poll again: must find C
 */
typedef struct Nest {
    QEMUBH *a, *b, *c;
    bool done;
} Nest;

static void nest_a(void *opaque)
{
    Nest *n = opaque;

    meanwhile(schedule, n->b);
    aio_poll(qemu_get_current_aio_context(), false);
}

static void nest_b(void *opaque)
{
    meanwhile(schedule, ((Nest *)opaque)->c);
}

static void nest_c(void *opaque)
{
    ((Nest *)opaque)->done = true;
}

static void iterate_main_loop(void)
{
    main_loop_wait(false);
}

static void iterate_poll(void)
{
    aio_poll(qemu_get_aio_context(), true);
}

static void test_qb02(void)
{
    AioContext *ctx = qemu_get_aio_context();
    Nest n = { NULL };

    n.a = aio_bh_new(ctx, nest_a, &n);
    n.b = aio_bh_new(ctx, nest_b, &n);
    n.c = aio_bh_new(ctx, nest_c, &n);
    for (int i = 0; i < test_rounds(100); i++) {
        n.done = false;
        qemu_bh_schedule(n.a);
        while (!n.done) {
            (i & 1 ? iterate_poll : iterate_main_loop)();
        }
    }
    qemu_bh_delete(n.a);
    qemu_bh_delete(n.b);
    qemu_bh_delete(n.c);
}

/* ---- QB-03, QB-19: one thread polls a context ------------------------------------------- */

/*
 *      IOThread                main
 *      about to sleep
 *                              schedule a bottom half there: rings
 *                              aio_poll(io_ctx): would silence the bell
 */
static void poll_foreign(void)
{
    aio_poll(io_ctx, false);
}

static void test_qb03(void)
{
    trap(poll_foreign, "*aio_poll: context * is polled outside its home thread*");
}

/* ---- QB-04: scheduled while it runs ----------------------------------------------------- */

/*
 *      worker                  home thread
 *                              callback: looks for work, finds none
 *      work; schedule
 *                              callback returns
 *                              must be called again
 */
typedef struct Rerun {
    QEMUBH *bh;
    int work, found;
} Rerun;

static void *rerun_work(void *opaque)
{
    Rerun *r = opaque;

    r->work++;
    qemu_bh_schedule(r->bh);
    return NULL;
}

static void rerun_bh(void *opaque)
{
    Rerun *r = opaque;

    if (r->found == r->work) {
        meanwhile(rerun_work, r);
    } else {
        r->found = r->work;
    }
}

static void test_qb04_inside(void)
{
    Rerun r = { .work = 0 };

    r.bh = aio_bh_new(qemu_get_aio_context(), rerun_bh, &r);
    for (int i = 0; i < test_rounds(100); i++) {
        qemu_bh_schedule(r.bh);
        while (r.found == i) {
            aio_poll(qemu_get_aio_context(), true);
        }
    }
    qemu_bh_delete(r.bh);
}

/*
 *      workers                 home thread
 *      data = n
 *      schedule                callback (nested polls in it): seen = data
 *      until seen = n
 */
enum { WORKERS = 2 };

typedef struct Stream {
    QEMUBH *bh;
    int data;                   /* plain: the scheduling is what publishes it */
    int seen;                   /* atomic */
    QemuThread thread;
} Stream;

static int workers_running;     /* atomic */
static int nesting;             /* home thread */

static void stream_bh(void *opaque)
{
    Stream *s = opaque;
    int data = s->data;

    if (nesting < 3) {
        nesting++;
        aio_poll(qemu_get_current_aio_context(), false);
        nesting--;
    }
    qatomic_store_release(&s->seen, data);
}

static void *stream_worker(void *opaque)
{
    Stream *s = opaque;

    for (int i = 1; i <= test_rounds(1500); i++) {
        spin(i % 256);          /* meet the home thread at another point each time */
        s->data = i;
        qemu_bh_schedule(s->bh);
        for (int n = 0; qatomic_load_acquire(&s->seen) < i; n++) {
            if (n > 1000) {
                sched_yield();
            }
        }
    }
    qatomic_dec(&workers_running);
    qemu_bh_schedule(s->bh);
    return NULL;
}

static void test_qb04_race(gconstpointer opaque)
{
    void (*iterate)(void) = opaque ? iterate_poll : iterate_main_loop;
    Stream s[WORKERS];

    qatomic_set(&workers_running, WORKERS);
    for (int i = 0; i < WORKERS; i++) {
        s[i] = (Stream) { .bh = aio_bh_new(qemu_get_aio_context(), stream_bh, &s[i]) };
        qemu_thread_create(&s[i].thread, "worker", stream_worker, &s[i],
                           QEMU_THREAD_JOINABLE);
    }
    while (qatomic_read(&workers_running) > 0) {
        iterate();
    }
    for (int i = 0; i < WORKERS; i++) {
        qemu_thread_join(&s[i].thread);
        qemu_bh_delete(s[i].bh);
    }
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* the last schedules */
    }
}

/* ---- QB-06: a waiter and the kick ------------------------------------------------------- */

/*
 *      waiter                  kicker
 *      open? no
 *                              open = true
 *                              anybody waiting?
 *      sleep                   yes: kick
 */
static bool is_closed(bool *open)
{
    bool closed = !qatomic_read_sc(open);

    if (closed) {
        meanwhile(test_open_gate, open);
    }
    return closed;
}

static void test_qb06(void)
{
    for (int i = 0; i < test_rounds(100); i++) {
        bool open = false;
        AIO_WAIT_WHILE_UNLOCKED(NULL, is_closed(&open));
    }
}

/* ---- QB-07: the loop is asked to stop just before it sleeps ----------------------------- */

/*
 *      main                    IOThread
 *      create                  starts: nothing to do, about to sleep
 *      destroy: stop
 *      join                    must have seen it
 */
static void test_qb07(void)
{
    for (int i = 0; i < test_rounds(150); i++) {
        IOThread *t = iothread_create("short", &error_abort);
        spin(i * 37 % 4096);
        iothread_destroy(t);
    }
}

/* ---- QB-09: what was scheduled is gone before the scheduler has returned ---------------- */

/*
 *      main                            IOThread
 *      schedule: it is on the queue
 *                                      run: the callback deletes the bottom half
 *      (still inside schedule)
 */
/* The thread is awake all the time, so that it runs what is scheduled at once. */
enum { AWAKE, END, ENDED };
static int awake;               /* atomic */

static void awake_bh(void *opaque)
{
    if (qatomic_cmpxchg(&awake, END, ENDED) == AWAKE) {
        aio_bh_schedule_oneshot(io_ctx, awake_bh, NULL);
    } else {
        aio_wait_kick();
    }
}

static void test_qb09_bh(void)
{
    int count = test_rounds(5000), left = count;

    qatomic_set(&awake, AWAKE);
    aio_bh_schedule_oneshot(io_ctx, awake_bh, NULL);
    for (int i = 0; i < count; i++) {
        test_schedule_suicide(io_ctx, &left);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&left) > 0);
    qatomic_set(&awake, END);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&awake) != ENDED);
}

/*
 *      main                            thread
 *      schedule: it is on the queue
 *                                      run: told to end
 *                                      drop the last reference to the context
 *      ring its bell: the context must still be there
 */
static void test_qb09_context(void)
{
    for (int i = 0; i < test_rounds(250); i++) {
        TestShortLife s;

        test_short_life_start(&s, true);        /* it runs what is scheduled at once */
        aio_bh_schedule_oneshot(s.ctx, test_short_life_end_bh, &s);
        test_short_life_join(&s);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    test_threads_start(&io, &io_ctx, 1);

    g_test_add_func("/classes/QB-02-notification-goes-to-who-has-looked", test_qb02);
    g_test_add_func("/classes/QB-03-QB-19-foreign-thread-polls", test_qb03);
    g_test_add_func("/classes/QB-04-scheduled-while-it-runs/inside", test_qb04_inside);
    g_test_add_data_func("/classes/QB-04-scheduled-while-it-runs/main-loop", NULL,
                         test_qb04_race);
    g_test_add_data_func("/classes/QB-04-scheduled-while-it-runs/poll", "poll",
                         test_qb04_race);
    g_test_add_func("/classes/QB-06-wait-and-kick", test_qb06);
    g_test_add_func("/classes/QB-07-stop-before-sleep", test_qb07);
    g_test_add_func("/classes/QB-09-gone-once-published/bh", test_qb09_bh);
    g_test_add_func("/classes/QB-09-gone-once-published/context", test_qb09_context);
    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
