/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Clocks and timers without a main loop: the program makes its own context. */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "qapi/error.h"
#include "qemu/timer.h"

static AioContext *ctx;

typedef struct Tick {
    QEMUTimer timer;
    QEMUClockType clock;
    int scale;
    int runs, limit;
    int64_t due;                /* in the timer's units */
} Tick;

static int64_t now(const Tick *t)
{
    return qemu_clock_get_ns(t->clock) / t->scale;
}

static void tick(void *opaque)
{
    Tick *t = opaque;
    g_assert_cmpint(now(t), >=, t->due);
    if (++t->runs < t->limit) {
        t->due = now(t) + 1;
        timer_mod(&t->timer, t->due);
    }
}

static void test_clocks_and_scales(void)
{
    static const QEMUClockType clocks[] = { QEMU_CLOCK_REALTIME, QEMU_CLOCK_VIRTUAL,
                                            QEMU_CLOCK_HOST };
    static const int scales[] = { SCALE_NS, SCALE_US, SCALE_MS };
    for (size_t c = 0; c < ARRAY_SIZE(clocks); c++) {
        for (size_t s = 0; s < ARRAY_SIZE(scales); s++) {
            Tick t = { .clock = clocks[c], .scale = scales[s], .limit = 4 };
            aio_timer_init(ctx, &t.timer, t.clock, t.scale, tick, &t);
            g_assert_false(timer_pending(&t.timer));
            t.due = now(&t) + 2;
            timer_mod(&t.timer, t.due);
            while (t.runs < 4) {
                aio_poll(ctx, true);
            }
            g_assert_false(timer_pending(&t.timer));
        }
    }
    g_assert_cmpint(QEMU_CLOCK_REALTIME, ==, 0);
    g_assert_cmpint(QEMU_CLOCK_VIRTUAL, ==, 1);
    g_assert_cmpint(NANOSECONDS_PER_SECOND, ==, 1000 * 1000 * 1000LL);
}

static void test_deleted_and_postponed(void)
{
    Tick t = { .clock = QEMU_CLOCK_REALTIME, .scale = SCALE_MS };
    aio_timer_init(ctx, &t.timer, t.clock, t.scale, tick, &t);
    timer_mod(&t.timer, now(&t));
    timer_del(&t.timer);
    timer_del(&t.timer);
    g_assert_false(aio_poll(ctx, false));
    timer_mod(&t.timer, 0);
    timer_mod(&t.timer, now(&t) + 1000000);
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(t.runs, ==, 0);
    g_assert_true(timer_pending(&t.timer));
    timer_mod_anticipate(&t.timer, now(&t) + 2000000);
    g_assert_false(timer_expired(&t.timer, now(&t)));
    timer_mod_anticipate(&t.timer, 0);
    g_assert_true(timer_expired(&t.timer, now(&t)));
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(t.runs, ==, 1);
    g_assert_cmpuint(timer_expire_time_ns(&t.timer), ==, UINT64_MAX);
}

/* The loop sleeps without a limit; a timer armed by another thread must wake it. */
static void *arm(void *opaque)
{
    Tick *t = opaque;
    timer_mod(&t->timer, now(t) + 1);
    return NULL;
}

static void test_armed_from_another_thread(void)
{
    for (int i = 0; i < 50; i++) {
        Tick t = { .clock = QEMU_CLOCK_VIRTUAL, .scale = SCALE_NS, .limit = 1 };
        QemuThread thread;
        aio_timer_init(ctx, &t.timer, t.clock, t.scale, tick, &t);
        qemu_thread_create(&thread, "arm", arm, &t, QEMU_THREAD_JOINABLE);
        while (!t.runs) {
            aio_poll(ctx, true);
        }
        qemu_thread_join(&thread);
    }
}

static void test_allocated(void)
{
    Tick t = { .clock = QEMU_CLOCK_HOST, .scale = SCALE_MS, .limit = 1 };
    QEMUTimer *timer = aio_timer_new(ctx, t.clock, t.scale, tick, &t);
    timer_mod(timer, 0);
    while (!t.runs) {
        aio_poll(ctx, true);
    }
    timer_mod(timer, INT64_MAX);
    timer_free(timer);
    g_assert_false(aio_poll(ctx, false));
}

int main(int argc, char **argv)
{
    init_clocks(NULL);
    ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/foreign/timers/clocks", test_clocks_and_scales);
    g_test_add_func("/foreign/timers/del", test_deleted_and_postponed);
    g_test_add_func("/foreign/timers/thread", test_armed_from_another_thread);
    g_test_add_func("/foreign/timers/new", test_allocated);
    int ret = g_test_run();
    aio_context_unref(ctx);
    return ret;
}
