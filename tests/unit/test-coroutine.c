/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines and their locks in one thread, without an event loop. */
#include <sys/mman.h>
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "trap.h"

static GString *trace;

static void say(const char *s)
{
    g_string_append(trace, s);
}

static void start_trace(void)
{
    g_string_truncate(trace, 0);
}

/* ---- core ---------------------------------------------------------------------------------- */

static void coroutine_fn yield_three_times(void *opaque)
{
    int *count = opaque;
    g_assert_true(qemu_in_coroutine());
    for (int i = 0; i < 3; i++) {
        ++*count;
        qemu_coroutine_yield();
    }
    ++*count;
}

static void test_enter_and_yield(void)
{
    int count = 0;
    Coroutine *co = qemu_coroutine_create(yield_three_times, &count);
    g_assert_false(qemu_in_coroutine());
    for (int i = 1; i <= 4; i++) {
        qemu_coroutine_enter(co);
        g_assert_cmpint(count, ==, i);
        g_assert_false(qemu_in_coroutine());
    }
}

typedef struct Nest {
    int depth, max;
} Nest;

static void coroutine_fn nest(void *opaque)
{
    Nest *n = opaque;
    if (++n->depth < n->max) {
        Coroutine *co = qemu_coroutine_create(nest, n);
        g_assert_false(qemu_coroutine_entered(co));
        qemu_coroutine_enter(co);
    }
    g_assert_true(qemu_coroutine_entered(qemu_coroutine_self()));
    n->depth--;
}

static void test_nesting(void)
{
    Nest n = { .max = 1000 };
    qemu_coroutine_enter(qemu_coroutine_create(nest, &n));
    g_assert_cmpint(n.depth, ==, 0);
}

static void coroutine_fn self_entry(void *opaque)
{
    *(Coroutine **)opaque = qemu_coroutine_self();
}

static void test_self_and_pool_reuse(void)
{
    Coroutine *self;
    Coroutine *a = qemu_coroutine_create(self_entry, &self);
    qemu_coroutine_enter(a);
    g_assert_true(self == a);
    Coroutine *b = qemu_coroutine_create(self_entry, &self);
    g_assert_true(a == b);      /* the pool hands out the last one finished */
    qemu_coroutine_enter(b);
}

static void coroutine_fn floats(void *opaque)
{
    volatile double x = 1.5;
    for (int i = 0; i < 100; i++) {
        x = x * 1.0625 - 0.03;
        qemu_coroutine_yield();
    }
    *(double *)opaque = x;
}

static void test_registers_survive_switches(void)
{
    double a = 0, b = 0, want = 1.5;
    Coroutine *ca = qemu_coroutine_create(floats, &a), *cb = qemu_coroutine_create(floats, &b);
    for (int i = 0; i < 101; i++) {
        qemu_coroutine_enter(ca);
        qemu_coroutine_enter(cb);
    }
    for (int i = 0; i < 100; i++) {
        want = want * 1.0625 - 0.03;
    }
    g_assert_cmpfloat(a, ==, want);
    g_assert_cmpfloat(b, ==, want);
}

/* ---- waking each other ----------------------------------------------------------------------- */

enum { HOPS = 20000 };
static Coroutine *hopper[2];
static int hops, hoppers_done;

static void coroutine_fn hop(void *opaque)
{
    int me = GPOINTER_TO_INT(opaque);
    while (hops < HOPS) {
        hops++;
        aio_co_enter(NULL, hopper[!me]);
        qemu_coroutine_yield();
    }
    if (++hoppers_done == 1) {
        aio_co_enter(NULL, hopper[!me]);        /* so that the other one ends too */
    }
}

static void test_mutual_wakes_do_not_deepen_the_stack(void)
{
    hops = hoppers_done = 0;
    for (int i = 0; i < 2; i++) {
        hopper[i] = qemu_coroutine_create(hop, GINT_TO_POINTER(i));
    }
    qemu_coroutine_enter(hopper[0]);
    g_assert_cmpint(hops, ==, HOPS);
    g_assert_cmpint(hoppers_done, ==, 2);
}

/* ---- CoMutex --------------------------------------------------------------------------------- */

static CoMutex mutex;
static CoQueue queue;
static CoRwlock rwlock;

static void coroutine_fn lock_twice_yielding(void *opaque)
{
    const char *name = opaque;
    qemu_co_mutex_lock(&mutex);
    say(name);
    qemu_coroutine_yield();
    say(name);
    qemu_co_mutex_unlock(&mutex);
    say(".");
}

static void test_mutex_hands_over_in_order(void)
{
    Coroutine *co[3];
    qemu_co_mutex_init(&mutex);
    start_trace();
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = { "a", "b", "c" };
        co[i] = qemu_coroutine_create(lock_twice_yielding, (void *)names[i]);
        qemu_coroutine_enter(co[i]);
    }
    g_assert_cmpstr(trace->str, ==, "a");
    qemu_coroutine_enter(co[0]);        /* unlocks; B runs when A ends */
    g_assert_cmpstr(trace->str, ==, "aa.b");
    qemu_coroutine_enter(co[1]);
    qemu_coroutine_enter(co[2]);
    g_assert_cmpstr(trace->str, ==, "aa.bb.cc.");
}

static void coroutine_fn wait_in_queue(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    say("w");
    qemu_co_queue_wait(&queue, &mutex);
    qemu_co_mutex_assert_locked(&mutex);
    say(opaque);
    qemu_co_mutex_unlock(&mutex);
}

static void coroutine_fn wake_all(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    qemu_co_queue_restart_all(&queue);
    say("!");
    qemu_co_mutex_unlock(&mutex);
}

static void test_queue_wakes_in_order(void)
{
    qemu_co_mutex_init(&mutex);
    qemu_co_queue_init(&queue);
    start_trace();
    qemu_coroutine_enter(qemu_coroutine_create(wait_in_queue, "1"));
    qemu_coroutine_enter(qemu_coroutine_create(wait_in_queue, "2"));
    g_assert_false(qemu_co_queue_empty(&queue));
    qemu_coroutine_enter(qemu_coroutine_create(wake_all, NULL));
    g_assert_cmpstr(trace->str, ==, "ww!12");
    g_assert_true(qemu_co_queue_empty(&queue));
    g_assert_false(qemu_co_enter_next(&queue, (QemuMutex *)NULL));
}

/* ---- CoRwlock -------------------------------------------------------------------------------- */

typedef struct Rw {
    const char *ops;    /* r w lock, u upgrade, d downgrade, y yield, x unlock */
    const char *name;
} Rw;

static void coroutine_fn rw_entry(void *opaque)
{
    Rw *rw = opaque;
    for (const char *op = rw->ops; *op; op++) {
        switch (*op) {
        case 'r': qemu_co_rwlock_rdlock(&rwlock); break;
        case 'w': qemu_co_rwlock_wrlock(&rwlock); break;
        case 'u': qemu_co_rwlock_upgrade(&rwlock); break;
        case 'd': qemu_co_rwlock_downgrade(&rwlock); break;
        case 'x': qemu_co_rwlock_unlock(&rwlock); break;
        case 'y': qemu_coroutine_yield(); continue;
        }
        g_string_append_printf(trace, "%s%c ", rw->name, *op);
    }
}

/* Each case: scripts of coroutines, and the order in which they are entered. */
static void test_rwlock_is_fair(void)
{
    static const struct {
        const char *what, *ops[4], *enter, *want;
    } cases[] = {
        { "readers share", { "ryx", "ryx" }, "abab", "ar br ax bx " },
        { "a reader behind a waiting writer waits", { "ryx", "wx", "rx" }, "abca",
          "ar ax bw bx cr cx " },
        { "upgrade queues behind a writer", { "ryux", "wyx" }, "abab",
          "ar bw bx au ax " },
        { "lone upgrade is immediate", { "ruyx" }, "aa", "ar au ax " },
        { "downgrade admits the readers queued next", { "wydyx", "ryx", "wx" }, "abcaab",
          "aw ad br ax bx cw cx " },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rw rw[4];
        Coroutine *co[4];
        qemu_co_rwlock_init(&rwlock);
        start_trace();
        for (int k = 0; k < 4 && cases[i].ops[k]; k++) {
            static const char *const names[] = { "a", "b", "c", "d" };
            rw[k] = (Rw) { cases[i].ops[k], names[k] };
            co[k] = qemu_coroutine_create(rw_entry, &rw[k]);
        }
        for (const char *e = cases[i].enter; *e; e++) {
            qemu_coroutine_enter(co[*e - 'a']);
        }
        g_test_message("%s", cases[i].what);
        g_assert_cmpstr(trace->str, ==, cases[i].want);
    }
}

/* ---- misuse ---------------------------------------------------------------------------------- */

static void coroutine_fn enter_self(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_self());
}

static void do_enter_self(void)
{
    qemu_coroutine_enter(qemu_coroutine_create(enter_self, NULL));
}

static void test_recursive_enter_aborts(void)
{
    trap(do_enter_self, "*re-entered recursively*");
}

static void coroutine_fn keep_lock(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
}

static void do_keep_lock(void)
{
    qemu_co_mutex_init(&mutex);
    qemu_coroutine_enter(qemu_coroutine_create(keep_lock, NULL));
}

static void test_ending_with_a_lock_aborts(void)
{
    trap(do_keep_lock, "*ended while it held a CoMutex*");
}

static void coroutine_fn nop(void *opaque)
{
}

static void schedule_twice(void)
{
    AioContext *other = aio_context_new(&error_abort);
    Coroutine *co = qemu_coroutine_create(nop, NULL);
    aio_co_schedule(other, co);
    aio_co_schedule(other, co);
}

static void test_scheduling_twice_aborts(void)
{
    trap(schedule_twice, "*Co-routine was already scheduled in 'aio_co_schedule'*");
}

static int overflow(int n)
{
    volatile char frame[4096];
    frame[0] = n;
    return n < 0 ? 0 : overflow(n + 1) + frame[0];
}

static void coroutine_fn overflow_entry(void *opaque)
{
    overflow(0);
}

static void do_overflow(void)
{
    qemu_coroutine_enter(qemu_coroutine_create(overflow_entry, NULL));
}

static void test_stack_overflow_hits_the_guard_page(void)
{
    if (g_test_subprocess()) {
        do_overflow();
        exit(0);
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    trace = g_string_new(NULL);
    g_test_add_func("/coroutine/enter-and-yield", test_enter_and_yield);
    g_test_add_func("/coroutine/nesting", test_nesting);
    g_test_add_func("/coroutine/self-and-pool", test_self_and_pool_reuse);
    g_test_add_func("/coroutine/registers", test_registers_survive_switches);
    g_test_add_func("/coroutine/mutual-wakes", test_mutual_wakes_do_not_deepen_the_stack);
    g_test_add_func("/coroutine/mutex/order", test_mutex_hands_over_in_order);
    g_test_add_func("/coroutine/queue/order", test_queue_wakes_in_order);
    g_test_add_func("/coroutine/rwlock/fair", test_rwlock_is_fair);
    g_test_add_func("/coroutine/misuse/recursive", test_recursive_enter_aborts);
    g_test_add_func("/coroutine/misuse/lock-held", test_ending_with_a_lock_aborts);
    g_test_add_func("/coroutine/misuse/scheduled-twice", test_scheduling_twice_aborts);
    g_test_add_func("/coroutine/misuse/overflow", test_stack_overflow_hits_the_guard_page);
    int ret = g_test_run();
    g_string_free(trace, true);
    return ret;
}
