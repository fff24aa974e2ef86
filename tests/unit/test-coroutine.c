/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines: enter, yield, wake, sleep, and going from thread to thread. */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

static GString *trace;

static void start_trace(void)
{
    g_string_truncate(trace, 0);
}

/* ---- enter and yield ----------------------------------------------------------------- */

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
        g_assert_false(qemu_coroutine_entered(co));
        qemu_coroutine_enter_if_inactive(co);
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
    qemu_coroutine_enter_if_inactive(qemu_coroutine_self());
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
    Coroutine *leader = qemu_coroutine_self(), *self;
    Coroutine *a = qemu_coroutine_create(self_entry, &self);
    qemu_coroutine_enter(a);
    g_assert_true(self == a);
    g_assert_true(qemu_coroutine_self() == leader);
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

/* ---- waking each other --------------------------------------------------------------- */

enum { HOPS = 100000 };
static Coroutine *hopper[2];
static int hops, hoppers_done;
static uintptr_t lowest[2];

static void coroutine_fn hop(void *opaque)
{
    int me = GPOINTER_TO_INT(opaque);
    while (hops < HOPS) {
        hops++;
        aio_co_enter(NULL, hopper[!me]);
        uintptr_t here = (uintptr_t)__builtin_frame_address(0);
        lowest[me] = MIN(lowest[me], here);
        g_assert_cmpuint(lowest[me], ==, here);
        qemu_coroutine_yield();
    }
    if (++hoppers_done == 1) {
        aio_co_enter(NULL, hopper[!me]);        /* so that the other one ends too */
    }
}

static void test_mutual_wakes_do_not_deepen_the_stack(void)
{
    g_assert_null(qemu_get_current_aio_context());
    hops = hoppers_done = 0;
    for (int i = 0; i < 2; i++) {
        lowest[i] = UINTPTR_MAX;
        hopper[i] = qemu_coroutine_create(hop, GINT_TO_POINTER(i));
    }
    qemu_coroutine_enter(hopper[0]);
    g_assert_cmpint(hops, ==, HOPS);
    g_assert_cmpint(hoppers_done, ==, 2);
}

static Coroutine *waker[26];

static void coroutine_fn wake_others(void *opaque)
{
    for (const char *other = opaque; *other; other++) {
        aio_co_enter(NULL, waker[*other - 'a']);
    }
    for (int i = 0; i < 26; i++) {
        if (waker[i] == qemu_coroutine_self()) {
            g_string_append_c(trace, 'a' + i);
        }
    }
}

/* Each case: whom A, B, C ... wake before they end, and the order in which they end. */
static void test_the_woken_run_before_earlier_ones(void)
{
    static const struct {
        const char *wakes[6], *want;
    } cases[] = {
        { { "bc" }, "abc" },
        { { "bc", "de" }, "abdec" },
        { { "bf", "cd", "e" }, "abcedf" },
        { { "bcdef" }, "abcdef" },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        start_trace();
        for (int k = 0; k < 6; k++) {
            const char *wakes = cases[i].wakes[k];
            waker[k] = qemu_coroutine_create(wake_others, (void *)(wakes ? wakes : ""));
        }
        qemu_coroutine_enter(waker[0]);
        g_assert_cmpstr(trace->str, ==, cases[i].want);
        for (int k = 0; k < 6; k++) {
            if (!strchr(trace->str, 'a' + k)) {
                qemu_coroutine_enter(waker[k]);
            }
        }
    }
}

/*
 * A entered B, and B wakes C: C runs when B yields, before A goes on; but D, woken by A
 * before it entered B, runs only when A yields.
 */
static void coroutine_fn nested_b(void *opaque)
{
    g_string_append_c(trace, 'b');
    aio_co_enter(NULL, waker[2]);
    qemu_coroutine_yield();
    g_string_append_c(trace, 'B');
}

static void coroutine_fn nested_a(void *opaque)
{
    g_string_append_c(trace, 'a');
    aio_co_enter(NULL, waker[3]);
    qemu_coroutine_enter(waker[1]);
    g_string_append_c(trace, 'A');
}

static void coroutine_fn nested_other(void *opaque)
{
    g_string_append(trace, opaque);
}

static void test_whom_an_inner_coroutine_wakes(void)
{
    start_trace();
    waker[1] = qemu_coroutine_create(nested_b, NULL);
    waker[2] = qemu_coroutine_create(nested_other, "c");
    waker[3] = qemu_coroutine_create(nested_other, "d");
    qemu_coroutine_enter(qemu_coroutine_create(nested_a, NULL));
    g_assert_cmpstr(trace->str, ==, "abcAd");
    qemu_coroutine_enter(waker[1]);
    g_assert_cmpstr(trace->str, ==, "abcAdB");
}

/* ---- with event loops ---------------------------------------------------------------- */

enum { TRAVELLERS = 8, TRIPS = 500 };
static IOThread *iothread[2];

typedef struct Traveller {
    uint64_t key;
    unsigned *travelling;       /* atomic */
} Traveller;

static void coroutine_fn travel(void *opaque)
{
    Traveller *me = opaque;
    Coroutine *self = qemu_coroutine_self();
    uint64_t local[16];

    for (int i = 0; i < 16; i++) {
        local[i] = me->key + i;
    }
    for (int trip = 0; trip < TRIPS; trip++) {
        AioContext *to = iothread_get_aio_context(iothread[trip % 2]);
        aio_co_reschedule_self(to);
        g_assert_true(qemu_get_current_aio_context() == to);
        g_assert_true(qemu_coroutine_self() == self);
        g_assert_true(qemu_in_coroutine());
        g_assert_true(qemu_coroutine_get_aio_context(self) == to);
        for (int i = 0; i < 16; i++) {
            g_assert_cmpuint(local[i], ==, me->key + i);
        }
    }
    aio_co_reschedule_self(qemu_get_aio_context());
    qatomic_dec(me->travelling);
}

/* The tests above this line need no event loop, and must not have one. */
static void need_main_loop(void)
{
    static bool made;
    if (!made) {
        qemu_init_main_loop(&error_abort);
        made = true;
    }
}

static void make_iothreads(void)
{
    need_main_loop();
    for (int i = 0; i < 2; i++) {
        g_autofree char *id = g_strdup_printf("thread%d", i);
        iothread[i] = iothread_create(id, &error_abort);
    }
}

static void end_iothreads(void)
{
    for (int i = 0; i < 2; i++) {
        iothread_destroy(iothread[i]);
    }
}

static void test_a_coroutine_continues_in_other_threads(void)
{
    Traveller traveller[TRAVELLERS];
    unsigned travelling = TRAVELLERS;

    make_iothreads();
    for (int i = 0; i < TRAVELLERS; i++) {
        traveller[i] = (Traveller) { 1000 * i, &travelling };
        Coroutine *co = qemu_coroutine_create(travel, &traveller[i]);
        g_assert_null(qemu_coroutine_get_aio_context(co));
        qemu_coroutine_enter(co);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&travelling));
    end_iothreads();
}

/* Created in the main thread, ended in an IOThread, and the other way round, many times. */
static unsigned lives_left;     /* atomic */

static void coroutine_fn live_here(void *opaque)
{
    g_assert_true(qemu_get_current_aio_context() == opaque);
    qatomic_dec(&lives_left);
    aio_wait_kick();
}

static void coroutine_fn live_and_answer(void *opaque)
{
    aio_co_enter(qemu_get_aio_context(),
                 qemu_coroutine_create(live_here, qemu_get_aio_context()));
    live_here(opaque);
}

static void test_created_here_and_ended_there(void)
{
    make_iothreads();
    for (int round = 0; round < 20; round++) {
        qatomic_set(&lives_left, 2 * 200);
        for (int i = 0; i < 200; i++) {
            AioContext *ctx = iothread_get_aio_context(iothread[i % 2]);
            aio_co_enter(ctx, qemu_coroutine_create(live_and_answer, ctx));
        }
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&lives_left));
    }
    end_iothreads();
}

/* ---- sleeping ------------------------------------------------------------------------ */

typedef struct Sleeper {
    QemuCoSleep handle;
    int64_t ns;
    bool awake;
} Sleeper;

static void coroutine_fn sleep_entry(void *opaque)
{
    Sleeper *s = opaque;
    qemu_co_sleep_ns_wakeable(&s->handle, QEMU_CLOCK_REALTIME, s->ns);
    s->awake = true;
}

static void test_sleep_ends_with_the_time(void)
{
    need_main_loop();
    Sleeper s = { .ns = 2 * SCALE_MS };
    int64_t before_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    qemu_coroutine_enter(qemu_coroutine_create(sleep_entry, &s));
    g_assert_false(s.awake);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !s.awake);
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - before_ns, >=, s.ns);
}

static void test_sleep_ends_with_a_wake(void)
{
    need_main_loop();
    Sleeper s = { .ns = INT64_MAX };

    qemu_co_sleep_wake(&s.handle);      /* nobody sleeps, and none is remembered */
    qemu_coroutine_enter(qemu_coroutine_create(sleep_entry, &s));
    g_assert_false(s.awake);
    qemu_co_sleep_wake(&s.handle);
    g_assert_true(s.awake);
    qemu_co_sleep_wake(&s.handle);
}

static void coroutine_fn read_entry(void *opaque)
{
    int *fd = opaque;
    char c;
    yield_until_fd_readable(*fd);
    g_assert_cmpint(read(*fd, &c, 1), ==, 1);
    *fd = -1;
}

static void test_yield_until_readable(void)
{
    int fds[2];
    need_main_loop();
    g_assert_cmpint(pipe(fds), ==, 0);
    int fd = fds[0];
    qemu_coroutine_enter(qemu_coroutine_create(read_entry, &fd));
    g_assert_cmpint(fd, ==, fds[0]);
    g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
    AIO_WAIT_WHILE_UNLOCKED(NULL, fd >= 0);
    close(fds[0]);
    close(fds[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    trace = g_string_new(NULL);
    g_test_add_func("/coroutine/alone/enter-and-yield", test_enter_and_yield);
    g_test_add_func("/coroutine/alone/nesting", test_nesting);
    g_test_add_func("/coroutine/alone/self-and-pool", test_self_and_pool_reuse);
    g_test_add_func("/coroutine/alone/registers", test_registers_survive_switches);
    g_test_add_func("/coroutine/alone/mutual-wakes",
                    test_mutual_wakes_do_not_deepen_the_stack);
    g_test_add_func("/coroutine/alone/wake-order", test_the_woken_run_before_earlier_ones);
    g_test_add_func("/coroutine/alone/wake-order-nested", test_whom_an_inner_coroutine_wakes);
    g_test_add_func("/coroutine/loop/continue-elsewhere",
                    test_a_coroutine_continues_in_other_threads);
    g_test_add_func("/coroutine/loop/end-elsewhere", test_created_here_and_ended_there);
    g_test_add_func("/coroutine/loop/sleep-time", test_sleep_ends_with_the_time);
    g_test_add_func("/coroutine/loop/sleep-wake", test_sleep_ends_with_a_wake);
    g_test_add_func("/coroutine/loop/fd", test_yield_until_readable);
    int ret = g_test_run();
    g_string_free(trace, true);
    return ret;
}
