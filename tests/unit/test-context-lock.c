/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The lock of an AioContext: recursion, exclusion, hand-over, and the order of locks. */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/lab-test.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread.h"
#include "aio/aio-internal.h"
#include "trap.h"

static AioContext *ctx;

/* ---- recursion and exclusion ----------------------------------------------------------- */

static void test_levels_nest(void)
{
    for (unsigned depth = 1; depth <= 3; depth++) {
        aio_context_acquire(ctx);
        g_assert_cmpuint(aio__context_lock_depth(ctx), ==, depth);
    }
    for (unsigned depth = 3; depth-- > 0; ) {
        aio_context_release(ctx);
        g_assert_cmpuint(aio__context_lock_depth(ctx), ==, depth);
    }
}

/* The big lock's holder may hold several, and need not release them in order. */
static void test_several_contexts_with_the_big_lock(void)
{
    AioContext *c[3];

    for (int i = 0; i < 3; i++) {
        c[i] = aio_context_new(&error_abort);
        aio_context_acquire(c[i]);
    }
    aio_context_release(c[1]);
    aio_context_acquire(c[1]);
    aio_context_release(c[0]);
    aio_context_release(c[2]);
    aio_context_release(c[1]);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpuint(aio__context_lock_depth(c[i]), ==, 0);
        aio_context_unref(c[i]);
    }
}

enum { EXCLUDERS = 4, ROUNDS = LAB_ROUNDS(20000, 50) };
static int protected_count;     /* not atomic on purpose */

static void *exclude_thread(void *opaque)
{
    for (int i = 0; i < ROUNDS; i++) {
        aio_context_acquire(ctx);
        protected_count++;
        if (i % 16 == 0) {
            aio_context_acquire(ctx);
            protected_count++;
            aio_context_release(ctx);
            protected_count--;
        }
        aio_context_release(ctx);
    }
    return NULL;
}

static void test_it_excludes(void)
{
    QemuThread t[EXCLUDERS];

    protected_count = 0;
    for (int i = 0; i < EXCLUDERS; i++) {
        qemu_thread_create(&t[i], "exclude", exclude_thread, NULL, QEMU_THREAD_JOINABLE);
    }
    for (int i = 0; i < EXCLUDERS; i++) {
        qemu_thread_join(&t[i]);
    }
    g_assert_cmpint(protected_count, ==, EXCLUDERS * ROUNDS);
    g_assert_cmpuint(ctx->lock_word, ==, 0);
}

/* ---- hand-over ------------------------------------------------------------------------- */

/*
 *      greedy thread                   main thread
 *      acquire
 *      HOLDING = true                  sees HOLDING
 *      waits until somebody sleeps     acquire: sleeps
 *      release
 *      acquire again                   has it first; TURN = main
 *      looks whose turn it was
 *
 * The greedy one is awake and the other is not: a lock without hand-over goes to the greedy
 * one practically always. (Not in all rounds does the other sleep already when it is woken.)
 */
enum { HAND_OVERS = LAB_ROUNDS(200, 60) };

typedef struct HandOver {
    bool holding;               /* atomic */
    bool main_had_it;           /* protected by the lock */
    int overtaken;
} HandOver;

static void *greedy_thread(void *opaque)
{
    HandOver *h = opaque;

    for (int i = 0; i < HAND_OVERS; i++) {
        aio_context_acquire(ctx);
        h->main_had_it = false;
        qatomic_set(&h->holding, true);
        while (!(qatomic_read(&ctx->lock_word) >> 31)) {
            /* until it is marked; then give the sleeper time for the system call */
        }
        int64_t until_ns = get_clock() + 50 * SCALE_US;
        while (get_clock() < until_ns) {
        }
        aio_context_release(ctx);

        aio_context_acquire(ctx);
        h->overtaken += !h->main_had_it;
        bool main_comes = !h->main_had_it;
        aio_context_release(ctx);
        while (main_comes) {
            aio_context_acquire(ctx);
            main_comes = !h->main_had_it;
            aio_context_release(ctx);
        }
    }
    return NULL;
}

static void test_a_sleeper_is_not_overtaken(void)
{
    HandOver h = { 0 };
    QemuThread t;

    qemu_thread_create(&t, "greedy", greedy_thread, &h, QEMU_THREAD_JOINABLE);
    for (int i = 0; i < HAND_OVERS; i++) {
        while (!qatomic_read(&h.holding)) {
        }
        qatomic_set(&h.holding, false);
        aio_context_acquire(ctx);
        h.main_had_it = true;
        aio_context_release(ctx);
    }
    qemu_thread_join(&t);
    g_test_message("overtaken in %d of %d rounds", h.overtaken, HAND_OVERS);
    g_assert_cmpint(h.overtaken, <, HAND_OVERS / 2);
}

/* ---- the order of locks ---------------------------------------------------------------- */

static IOThread *io[2];
static AioContext *io_ctx[2];

/* As trap(), for what only builds that are not for release find out. */
static void trap_checked(void (*fn)(void), const char *pattern)
{
#ifdef MINIBLK_RELEASE
    g_test_skip("not checked in release builds");
#else
    trap(fn, pattern);
#endif
}

/* Run FN in the first of two IOThreads. */
static void in_iothread(QEMUBHFunc *fn)
{
    for (int i = 0; i < 2; i++) {
        g_autofree char *id = g_strdup_printf("io%d", i);
        io[i] = iothread_create(id, &error_abort);
        io_ctx[i] = iothread_get_aio_context(io[i]);
    }
    aio_bh_schedule_oneshot(io_ctx[0], fn, NULL);
    for (int i = 0; i < 2; i++) {
        iothread_destroy(io[i]);
    }
}

static void take_two(void *opaque)
{
    aio_context_acquire(io_ctx[0]);
    aio_context_acquire(io_ctx[1]);
}

static void do_take_two(void)
{
    in_iothread(take_two);
}

static void test_two_without_the_big_lock_abort(void)
{
    trap_checked(do_take_two, "*miniblk: aio_context_acquire: thread 'IO io0' (*) takes "
                 "context 'io1' while it holds context 'io0' (held by thread 'IO io0' (*)); "
                 "without the big lock only one may be held*");
}

static void *hold_io1(void *opaque)
{
    aio_context_acquire(io_ctx[1]);
    qemu_event_set(opaque);
    pause();
    return NULL;
}

static void take_two_contended(void *opaque)
{
    QemuEvent held;
    QemuThread t;

    qemu_event_init(&held, false);
    qemu_thread_create(&t, "other holder", hold_io1, &held, QEMU_THREAD_JOINABLE);
    qemu_event_wait(&held);
    take_two(NULL);
}

static void do_take_two_contended(void)
{
    in_iothread(take_two_contended);
}

static void test_both_holders_are_named(void)
{
    trap_checked(do_take_two_contended, "*thread 'IO io0' (*) takes context 'io1' (held by "
                 "thread 'other holder' (*)) while it holds context 'io0' (held by thread "
                 "'IO io0' (*))*");
}

static void release_foreign(void *opaque)
{
    aio_context_release(opaque);
}

static void do_release_foreign(void)
{
    IOThread *t = iothread_create("io0", &error_abort);
    aio_context_acquire(qemu_get_aio_context());
    aio_bh_schedule_oneshot(iothread_get_aio_context(t), release_foreign,
                            qemu_get_aio_context());
    iothread_destroy(t);
}

static void test_release_of_another_threads_lock_aborts(void)
{
    trap(do_release_foreign, "*aio_context_release: thread 'IO io0' (*) does not hold context "
         "'main loop' (held by thread *); only what was acquired may be released*");
}

static void free_held(void)
{
    AioContext *c = aio_context_new(&error_abort);
    aio_context_acquire(c);
    aio_context_unref(c);
}

static void test_freeing_a_held_context_aborts(void)
{
    trap(free_held, "*aio_context_unref: thread *frees context 0x* (held by thread *); "
         "its lock must be free*");
}

static void bql_after_context(void *opaque)
{
    aio_context_acquire(io_ctx[0]);
    bql_lock();
}

static void do_bql_after_context(void)
{
    in_iothread(bql_after_context);
}

static void test_big_lock_after_a_context_aborts(void)
{
    trap(do_bql_after_context, "*bql_lock: thread 'IO io0' (*) takes the big lock while it "
         "holds context 'io0'*; the big lock comes before context locks*");
}

static void unlock_with_two(void)
{
    aio_context_acquire(qemu_get_aio_context());
    aio_context_acquire(ctx);
    bql_unlock();
}

static void test_releasing_the_big_lock_with_two_contexts_aborts(void)
{
    trap(unlock_with_two, "*bql_unlock: *keeps context*'main loop'*only one may be held*");
}

static QemuMutex mutex;

static void wait_with_mutex(void *opaque)
{
    qemu_mutex_lock(&mutex);
    aio_context_acquire(io_ctx[0]);
}

static void do_wait_with_mutex(void)
{
    IOThread *t = iothread_create("io0", &error_abort);
    io_ctx[0] = iothread_get_aio_context(t);
    aio_context_acquire(io_ctx[0]);
    aio_bh_schedule_oneshot(io_ctx[0], wait_with_mutex, NULL);
    for (;;) {
        pause();
    }
}

static void test_waiting_with_a_mutex_aborts(void)
{
    trap_checked(do_wait_with_mutex, "*aio_context_acquire: thread 'IO io0' (*) waits with a "
                 "mutex locked for context 'io0' (held by thread *); context locks come before "
                 "mutexes*");
}

/* Where nobody has to wait there is no deadlock to fear; old code does that. */
static void test_a_free_context_may_be_taken_under_a_mutex(void)
{
    QEMU_MUTEX_GUARD(&mutex);
    aio_context_acquire(ctx);
    aio_context_release(ctx);
}

static void test_timed_wait_with_no_time_left(void)
{
    QemuMutex mutex;
    QemuCond cond;

    qemu_mutex_init(&mutex);
    qemu_cond_init(&cond);
    qemu_mutex_lock(&mutex);
    for (int ms = 0; ms > -2000; ms--) {    /* whatever part of a second it is now */
        g_assert_false(qemu_cond_timedwait(&cond, &mutex, ms));
    }
    qemu_mutex_unlock(&mutex);
    qemu_cond_destroy(&cond);
    qemu_mutex_destroy(&mutex);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    ctx = aio_context_new(&error_abort);
    g_test_add_func("/thread/timed-wait", test_timed_wait_with_no_time_left);
    g_test_add_func("/context-lock/nests", test_levels_nest);
    g_test_add_func("/context-lock/several", test_several_contexts_with_the_big_lock);
    g_test_add_func("/context-lock/excludes", test_it_excludes);
    g_test_add_func("/context-lock/hand-over", test_a_sleeper_is_not_overtaken);
    g_test_add_func("/context-lock/free-under-mutex",
                    test_a_free_context_may_be_taken_under_a_mutex);
    g_test_add_func("/context-lock/misuse/two", test_two_without_the_big_lock_abort);
    g_test_add_func("/context-lock/misuse/two-named", test_both_holders_are_named);
    g_test_add_func("/context-lock/misuse/release",
                    test_release_of_another_threads_lock_aborts);
    g_test_add_func("/context-lock/misuse/free-held", test_freeing_a_held_context_aborts);
    g_test_add_func("/context-lock/misuse/big-lock-last",
                    test_big_lock_after_a_context_aborts);
    g_test_add_func("/context-lock/misuse/big-lock-gone",
                    test_releasing_the_big_lock_with_two_contexts_aborts);
    g_test_add_func("/context-lock/misuse/mutex", test_waiting_with_a_mutex_aborts);
    int ret = g_test_run();
    aio_context_unref(ctx);
    return ret;
}
