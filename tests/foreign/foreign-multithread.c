/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines and locks over several threads, each of which runs a loop of its own making. The
 * program's I/O threads have a function with the name of one of the library's.
 */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#ifdef CONFIG_LINUX
#include "qemu/futex.h"
#endif

enum { LOOPS = 5 };

/* ---- loops --------------------------------------------------------------------------------- */

typedef struct Loop {
    AioContext *ctx;
    QemuThread thread;
    QemuMutex lock;
    QemuCond ready;
    bool stop;
} Loop;

static Loop loops[LOOPS];
static __thread int own_loop = -1;

AioContext *iothread_get_aio_context(Loop *loop);

/* Ours, and not the library's of this name, which is for its own kind of thread. */
AioContext *iothread_get_aio_context(Loop *loop)
{
    return loop->ctx;
}

static void *loop_run(void *opaque)
{
    Loop *loop = opaque;

    rcu_register_thread();
    own_loop = loop - loops;
    qemu_mutex_lock(&loop->lock);
    loop->ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(loop->ctx);
    /* as GLib would drive it, were this thread to run a GMainLoop */
    GMainContext *glib_ctx = g_main_context_new();
    GSource *source = aio_get_g_source(loop->ctx);
    g_source_attach(source, glib_ctx);
    g_source_unref(source);
    qemu_cond_signal(&loop->ready);
    qemu_mutex_unlock(&loop->lock);
    while (!qatomic_read(&loop->stop)) {
        aio_poll(loop->ctx, true);
    }
    while (aio_poll(loop->ctx, false) || g_main_context_iteration(glib_ctx, false)) {
        /* finish what is left */
    }
    g_main_context_unref(glib_ctx);
    rcu_unregister_thread();
    return loop;
}

static void loop_stop_bh(void *opaque)
{
    qatomic_set(&((Loop *)opaque)->stop, true);
}

static void start_loops(void)
{
    for (int i = 0; i < LOOPS; i++) {
        Loop *loop = &loops[i];
        memset(loop, 0, sizeof(*loop));
        qemu_mutex_init(&loop->lock);
        qemu_cond_init(&loop->ready);
        qemu_thread_create(&loop->thread, NULL, loop_run, loop, QEMU_THREAD_JOINABLE);
        qemu_mutex_lock(&loop->lock);
        while (!loop->ctx) {
            qemu_cond_wait(&loop->ready, &loop->lock);
        }
        qemu_mutex_unlock(&loop->lock);
    }
}

static void stop_loops(void)
{
    for (int i = 0; i < LOOPS; i++) {
        aio_bh_schedule_oneshot(loops[i].ctx, loop_stop_bh, &loops[i]);
        g_assert_true(qemu_thread_join(&loops[i].thread) == &loops[i]);
        aio_context_unref(loops[i].ctx);
        qemu_cond_destroy(&loops[i].ready);
        qemu_mutex_destroy(&loops[i].lock);
    }
}

typedef struct Call {
    QEMUBHFunc *cb;
    void *opaque;
    QemuEvent done;
} Call;

static void call_bh(void *opaque)
{
    Call *call = opaque;
    call->cb(call->opaque);
    qemu_event_set(&call->done);
}

/* Run CB in loop I, and wait for it. */
static void run_in(int i, QEMUBHFunc *cb, void *opaque)
{
    Call call = { cb, opaque };
    qemu_event_init(&call.done, false);
    aio_bh_schedule_oneshot(iothread_get_aio_context(&loops[i]), call_bh, &call);
    qemu_event_wait(&call.done);
    qemu_event_destroy(&call.done);
}

static void note_loop(void *opaque)
{
    *(int *)opaque = own_loop;
}

static void test_bottom_halves_run_where_they_belong(void)
{
    start_loops();
    for (int i = 0; i < LOOPS; i++) {
        int where = -1;
        run_in(i, note_loop, &where);
        g_assert_cmpint(where, ==, i);
    }
    stop_loops();
}

/* ---- coroutines that travel ------------------------------------------------------------------ */

typedef struct Traveller {
    unsigned seed;
    int hops, left;
    unsigned *unfinished;
    QemuEvent *all_done;
} Traveller;

static void finished(unsigned *unfinished, QemuEvent *all_done)
{
    if (qatomic_fetch_dec(unfinished) == 1) {
        qemu_event_set(all_done);
    }
}

typedef struct Move { AioContext *to; Coroutine *co; } Move;

static void move_bh(void *opaque)
{
    Move *m = opaque;
    aio_co_schedule(m->to, m->co);
}

static void coroutine_fn traveller(void *opaque)
{
    Traveller *t = opaque;
    while (t->left-- > 0) {
        int to = rand_r(&t->seed) % LOOPS;
        /* from a bottom half here, so that we have yielded before we are scheduled there */
        Move m = { loops[to].ctx, qemu_coroutine_self() };
        aio_bh_schedule_oneshot(qemu_get_current_aio_context(), move_bh, &m);
        qemu_coroutine_yield();
        g_assert_cmpint(own_loop, ==, to);
        g_assert_true(qemu_get_current_aio_context() == loops[to].ctx);
        t->hops++;
    }
    finished(t->unfinished, t->all_done);
}

static void test_scheduled_coroutines_run_in_their_loop(void)
{
    enum { TRAVELLERS = 20 };
    int hops = g_test_quick() ? 500 : 20000;
    Traveller t[TRAVELLERS];
    unsigned unfinished = TRAVELLERS;
    QemuEvent all_done;

    start_loops();
    qemu_event_init(&all_done, false);
    for (int i = 0; i < TRAVELLERS; i++) {
        t[i] = (Traveller) { i, 0, hops, &unfinished, &all_done };
        aio_co_schedule(loops[i % LOOPS].ctx, qemu_coroutine_create(traveller, &t[i]));
    }
    qemu_event_wait(&all_done);
    stop_loops();
    for (int i = 0; i < TRAVELLERS; i++) {
        g_assert_cmpint(t[i].hops, ==, hops);
    }
    qemu_event_destroy(&all_done);
}

/* ---- waking from anywhere -------------------------------------------------------------------- */

typedef struct Woken {
    Coroutine *co;
    int loop;
    QemuEvent yielding, done;
    bool inline_run;            /* ran inside the waker's call */
} Woken;

static void coroutine_fn wait_to_be_woken(void *opaque)
{
    Woken *w = opaque;
    qemu_event_set(&w->yielding);
    qemu_coroutine_yield();
    g_assert_cmpint(own_loop, ==, w->loop);
    qemu_event_set(&w->done);
}

static void *waker_thread(void *opaque)
{
    Woken *w = opaque;
    g_assert_null(qemu_get_current_aio_context());
    aio_co_wake(w->co);         /* a thread without a loop */
    return NULL;
}

static void test_woken_by_a_thread_without_a_loop(void)
{
    start_loops();
    for (int i = 0; i < 200; i++) {
        Woken w = { .loop = i % LOOPS };
        QemuThread waker;
        qemu_event_init(&w.yielding, false);
        qemu_event_init(&w.done, false);
        w.co = qemu_coroutine_create(wait_to_be_woken, &w);
        aio_co_enter(loops[w.loop].ctx, w.co);
        qemu_event_wait(&w.yielding);
        qemu_thread_create(&waker, "waker", waker_thread, &w, QEMU_THREAD_JOINABLE);
        qemu_event_wait(&w.done);
        qemu_thread_join(&waker);
        qemu_event_destroy(&w.yielding);
        qemu_event_destroy(&w.done);
    }
    stop_loops();
}

static void coroutine_fn runs_later(void *opaque)
{
    Woken *w = opaque;
    g_assert_false(w->inline_run);
    g_assert_cmpint(own_loop, ==, w->loop);
    qemu_event_set(&w->done);
}

static void *entering_worker(void *opaque)
{
    Woken *w = opaque;
    g_assert_null(qemu_get_current_aio_context());
    w->inline_run = true;
    /* the loop is held up until we are through, so that "later" is certain */
    aio_context_acquire(loops[w->loop].ctx);
    aio_co_enter(loops[w->loop].ctx, w->co);
    w->inline_run = false;
    aio_context_release(loops[w->loop].ctx);
    return NULL;
}

/* Scheduled, never entered inline. */
static void test_worker_does_not_enter_inline(void)
{
    start_loops();
    for (int i = 0; i < 100; i++) {
        Woken w = { .loop = i % LOOPS };
        QemuThread worker;
        qemu_event_init(&w.done, false);
        w.co = qemu_coroutine_create(runs_later, &w);
        qemu_thread_create(&worker, "worker", entering_worker, &w, QEMU_THREAD_JOINABLE);
        qemu_event_wait(&w.done);
        qemu_thread_join(&worker);
        qemu_event_destroy(&w.done);
    }
    stop_loops();
}

/* ---- mutual enters --------------------------------------------------------------------------- */

typedef struct PingPong {
    Coroutine *co[2];
    int count, limit;
    uintptr_t lowest, highest;  /* of a local variable's address */
    AioContext *ctx;
} PingPong;

static PingPong pp;

static void note_depth(void)
{
    char here;
    uintptr_t at = (uintptr_t)&here;
    pp.lowest = MIN(pp.lowest, at);
    pp.highest = MAX(pp.highest, at);
}

static void coroutine_fn ping(void *opaque)
{
    int me = *(int *)opaque;
    while (pp.count < pp.limit) {
        pp.count++;
        if (me == 0) {
            note_depth();
        }
        aio_co_enter(pp.ctx, pp.co[!me]);
        qemu_coroutine_yield();
    }
    if (pp.co[!me]) {
        pp.co[me] = NULL;
        aio_co_enter(pp.ctx, pp.co[!me]);
    }
}

static void test_mutual_enters_do_not_deepen_the_stack(void)
{
    static int names[2] = { 0, 1 };
    pp = (PingPong) { .limit = 100000, .lowest = UINTPTR_MAX, .ctx = qemu_get_aio_context() };
    pp.co[0] = qemu_coroutine_create(ping, &names[0]);
    pp.co[1] = qemu_coroutine_create(ping, &names[1]);
    aio_co_enter(pp.ctx, pp.co[0]);
    g_assert_cmpint(pp.count, ==, pp.limit);
    g_assert_cmpuint(pp.highest - pp.lowest, ==, 0);
}

/* ---- mutual exclusion ------------------------------------------------------------------------ */

typedef struct Counter {
    CoMutex co_mutex;
    QemuMutex mutex;
    QemuSpin spin;
    long value, rounds;
    unsigned unfinished;
    QemuEvent all_done;
} Counter;

static Counter counter;

static void coroutine_fn count_under_comutex(void *opaque)
{
    for (long i = 0; i < counter.rounds; i++) {
        qemu_co_mutex_lock(&counter.co_mutex);
        counter.value++;
        qemu_co_mutex_unlock(&counter.co_mutex);
    }
    finished(&counter.unfinished, &counter.all_done);
}

static void coroutine_fn count_under_mutex(void *opaque)
{
    for (long i = 0; i < counter.rounds; i++) {
        qemu_mutex_lock(&counter.mutex);
        counter.value++;
        qemu_mutex_unlock(&counter.mutex);
    }
    finished(&counter.unfinished, &counter.all_done);
}

static void coroutine_fn count_under_spin(void *opaque)
{
    for (long i = 0; i < counter.rounds; i++) {
        qemu_spin_lock(&counter.spin);
        counter.value++;
        qemu_spin_unlock(&counter.spin);
    }
    finished(&counter.unfinished, &counter.all_done);
}

#ifdef CONFIG_LINUX
/* A queue of waiters, each of whom sleeps on a word of its own. */
typedef struct QueueNode {
    struct QueueNode *next;
    unsigned granted;
} QueueNode;

static QueueNode *queue_tail;

static void queue_lock(QueueNode *node)
{
    qatomic_set(&node->next, NULL);
    qatomic_set(&node->granted, 0);
    QueueNode *before = qatomic_xchg(&queue_tail, node);
    if (before) {
        qatomic_set_mb(&before->next, node);
        while (!qatomic_load_acquire(&node->granted)) {
            qemu_futex_wait(&node->granted, 0);
        }
    }
}

static void queue_unlock(QueueNode *node)
{
    if (!qatomic_read(&node->next)) {
        if (qatomic_cmpxchg(&queue_tail, node, NULL) == node) {
            return;
        }
        while (!qatomic_read(&node->next)) {
            /* our successor is about to tell */
        }
    }
    QueueNode *next = qatomic_load_acquire(&node->next);
    qatomic_set_mb(&next->granted, 1);
    qemu_futex_wake(&next->granted, 1);
}

static void coroutine_fn count_under_queue_lock(void *opaque)
{
    QueueNode node;
    for (long i = 0; i < counter.rounds; i++) {
        queue_lock(&node);
        counter.value++;
        queue_unlock(&node);
    }
    finished(&counter.unfinished, &counter.all_done);
}
#endif

static void test_counting(gconstpointer entry)
{
    enum { PER_LOOP = 4 };
    bool in_coroutines_only = (CoroutineEntry *)entry == count_under_comutex;
    int per_loop = in_coroutines_only ? PER_LOOP : 1;

    start_loops();
    counter = (Counter) { .rounds = g_test_quick() ? 5000 : 200000,
                          .unfinished = LOOPS * per_loop };
    qemu_co_mutex_init(&counter.co_mutex);
    qemu_mutex_init(&counter.mutex);
    qemu_spin_init(&counter.spin);
    qemu_event_init(&counter.all_done, false);
    for (int i = 0; i < LOOPS * per_loop; i++) {
        aio_co_schedule(loops[i % LOOPS].ctx,
                        qemu_coroutine_create((CoroutineEntry *)entry, NULL));
    }
    qemu_event_wait(&counter.all_done);
    stop_loops();
    g_assert_cmpint(counter.value, ==, counter.rounds * LOOPS * per_loop);
    qemu_event_destroy(&counter.all_done);
    qemu_spin_destroy(&counter.spin);
    qemu_mutex_destroy(&counter.mutex);
}

/* ---- sleeping -------------------------------------------------------------------------------- */

static void coroutine_fn sleeper(void *opaque)
{
    int64_t begin = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 3 * SCALE_MS);
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - begin, >=, 3 * SCALE_MS);
    qemu_event_set(opaque);
}

static void test_sleep(void)
{
    start_loops();
    for (int i = 0; i < LOOPS; i++) {
        QemuEvent done;
        qemu_event_init(&done, false);
        aio_co_schedule(loops[i].ctx, qemu_coroutine_create(sleeper, &done));
        qemu_event_wait(&done);
        qemu_event_destroy(&done);
    }
    stop_loops();
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_fatal);
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/foreign/threads/bh", test_bottom_halves_run_where_they_belong);
    g_test_add_func("/foreign/threads/travel", test_scheduled_coroutines_run_in_their_loop);
    g_test_add_func("/foreign/threads/wake", test_woken_by_a_thread_without_a_loop);
    g_test_add_func("/foreign/threads/worker", test_worker_does_not_enter_inline);
    g_test_add_func("/foreign/threads/mutual", test_mutual_enters_do_not_deepen_the_stack);
    g_test_add_data_func("/foreign/threads/count/comutex", count_under_comutex, test_counting);
    g_test_add_data_func("/foreign/threads/count/mutex", count_under_mutex, test_counting);
    g_test_add_data_func("/foreign/threads/count/spin", count_under_spin, test_counting);
#ifdef CONFIG_LINUX
    g_test_add_data_func("/foreign/threads/count/futex", count_under_queue_lock,
                         test_counting);
#endif
    g_test_add_func("/foreign/threads/sleep", test_sleep);
    return g_test_run();
}
