/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the cost of one event grows with the number of descriptors, timers, bottom halves and
 * coroutines there are.
 *
 *   bench-growth [EVENTS]       how many events per figure, at least (50000)
 */
#include "miniblk/osdep.h"
#include <sys/resource.h>
#include "miniblk/aio.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "bench.h"

static AioContext *ctx;
static uint64_t seen, events;

/* Repeat DO(N), which makes N_EVENTS events, often enough; the best of some: ns per event. */
typedef void GrowthFn(void *opaque, unsigned n);

static double cost_ns(GrowthFn *fn, void *opaque, unsigned n, unsigned events_each)
{
    uint64_t repeat = events / events_each + 1;
    double best = 0;

    fn(opaque, n);
    for (int run = 0; run < 5; run++) {
        int64_t begin_ns = bench_cpu_ns();
        for (uint64_t i = 0; i < repeat; i++) {
            fn(opaque, n);
        }
        double ns = (double)(bench_cpu_ns() - begin_ns) / repeat / events_each;
        best = best == 0 || ns < best ? ns : best;
    }
    return best;
}

/* Poll until N more callbacks have run. */
static void serve(unsigned n)
{
    uint64_t until = seen + n;

    while (seen < until) {
        aio_poll(ctx, true);
    }
}

static void count(void *opaque)
{
    seen++;
}

static unsigned next_random(void)
{
    static uint64_t state = 1;

    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return state >> 33;
}

/* ---- descriptors --------------------------------------------------------------------- */

static void read_event(EventNotifier *e)
{
    seen += event_notifier_test_and_clear(e);
}

static void one_fd(void *opaque, unsigned n)
{
    EventNotifier *e = opaque;

    event_notifier_set(&e[next_random() % n]);
    serve(1);
}

static void all_fds(void *opaque, unsigned n)
{
    EventNotifier *e = opaque;

    for (unsigned i = 0; i < n; i++) {
        event_notifier_set(&e[i]);
    }
    serve(n);
}

static void set_fds(void *opaque, unsigned n)
{
    EventNotifier *e = opaque;

    e = &e[next_random() % n];
    aio_set_event_notifier(ctx, e, NULL, NULL, NULL);
    aio_set_event_notifier(ctx, e, read_event, NULL, NULL);
    aio_poll(ctx, false);
}

static void grow_fds(unsigned n, const char *monitor)
{
    EventNotifier *e = g_new(EventNotifier, n);
    g_autofree char *one = g_strdup_printf("one ready, %s", monitor);
    g_autofree char *all = g_strdup_printf("all ready, %s", monitor);
    g_autofree char *set = g_strdup_printf("handler removed and set, %s", monitor);
    Error *err = NULL;

    if (!aio_context_set_fd_monitor(ctx, monitor, &err)) {
        error_free(err);
        g_free(e);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (event_notifier_init(&e[i], 0) < 0) {
            fprintf(stderr, "bench-growth: no more than %u descriptors here\n", i);
            exit(1);
        }
        aio_set_event_notifier(ctx, &e[i], read_event, NULL, NULL);
    }
    bench_growth("descriptors", one, n, cost_ns(one_fd, e, n, 1));
    bench_growth("descriptors", all, n, cost_ns(all_fds, e, n, n));
    bench_growth("descriptors", set, n, cost_ns(set_fds, e, n, 1));
    for (unsigned i = 0; i < n; i++) {
        aio_set_event_notifier(ctx, &e[i], NULL, NULL, NULL);
        event_notifier_cleanup(&e[i]);
    }
    aio_poll(ctx, false);
    g_free(e);
}

/* ---- timers -------------------------------------------------------------------------- */

static int64_t far_ns(void)
{
    return get_clock() + 3600 * NANOSECONDS_PER_SECOND + next_random();
}

static void rearm_timer(void *opaque, unsigned n)
{
    QEMUTimer *timers = opaque;
    timer_mod_ns(&timers[next_random() % n], far_ns());
}

/* One of many fires; the others stay armed. */
static void fire_timer(void *opaque, unsigned n)
{
    QEMUTimer *timer = &((QEMUTimer *)opaque)[next_random() % n];

    timer_mod_ns(timer, 1);
    serve(1);
    timer_mod_ns(timer, far_ns());
}

static void fire_timers(void *opaque, unsigned n)
{
    QEMUTimer *timers = opaque;

    for (unsigned i = 0; i < n; i++) {
        timer_mod_ns(&timers[i], 1 + next_random() % 1000);
    }
    serve(n);
}

static void grow_timers(unsigned n)
{
    QEMUTimer *timers = g_new(QEMUTimer, n);

    for (unsigned i = 0; i < n; i++) {
        aio_timer_init(ctx, &timers[i], QEMU_CLOCK_REALTIME, SCALE_NS, count, NULL);
        timer_mod_ns(&timers[i], far_ns());
    }
    bench_growth("timers", "armed again", n, cost_ns(rearm_timer, timers, n, 1));
    bench_growth("timers", "one fires", n, cost_ns(fire_timer, timers, n, 1));
    bench_growth("timers", "all fire", n, cost_ns(fire_timers, timers, n, n));
    for (unsigned i = 0; i < n; i++) {
        timer_deinit(&timers[i]);
    }
    g_free(timers);
}

/* ---- bottom halves ------------------------------------------------------------------- */

static void all_bhs(void *opaque, unsigned n)
{
    QEMUBH **bhs = opaque;

    for (unsigned i = 0; i < n; i++) {
        qemu_bh_schedule(bhs[i]);
    }
    serve(n);
}

static void one_bh(void *opaque, unsigned n)
{
    QEMUBH **bhs = opaque;

    qemu_bh_schedule(bhs[next_random() % n]);
    serve(1);
}

static void oneshot_bhs(void *opaque, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        aio_bh_schedule_oneshot(ctx, count, NULL);
    }
    serve(n);
}

static void grow_bhs(unsigned n)
{
    QEMUBH **bhs = g_new(QEMUBH *, n);

    for (unsigned i = 0; i < n; i++) {
        bhs[i] = aio_bh_new(ctx, count, NULL);
    }
    bench_growth("bottom halves", "one scheduled", n, cost_ns(one_bh, bhs, n, 1));
    bench_growth("bottom halves", "all scheduled", n, cost_ns(all_bhs, bhs, n, n));
    bench_growth("bottom halves", "one-shot, all", n, cost_ns(oneshot_bhs, NULL, n, n));
    for (unsigned i = 0; i < n; i++) {
        qemu_bh_delete(bhs[i]);
    }
    while (aio_poll(ctx, false)) {
        /* frees them */
    }
    g_free(bhs);
}

/* ---- coroutines ---------------------------------------------------------------------- */

static bool co_stop;

static void coroutine_fn yield_entry(void *opaque)
{
    while (!co_stop) {
        seen++;
        qemu_coroutine_yield();
    }
}

static void enter_all(void *opaque, unsigned n)
{
    Coroutine **cos = opaque;

    for (unsigned i = 0; i < n; i++) {
        qemu_coroutine_enter(cos[i]);
    }
}

static void schedule_all(void *opaque, unsigned n)
{
    Coroutine **cos = opaque;

    for (unsigned i = 0; i < n; i++) {
        aio_co_schedule(ctx, cos[i]);
    }
    serve(n);
}

static void coroutine_fn end_entry(void *opaque)
{
    qemu_coroutine_yield();
}

/* All alive at the same time: more than a pool may keep. */
static void live_all(void *opaque, unsigned n)
{
    Coroutine **cos = opaque;

    for (unsigned i = 0; i < n; i++) {
        cos[i] = qemu_coroutine_create(end_entry, NULL);
        qemu_coroutine_enter(cos[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        qemu_coroutine_enter(cos[i]);
    }
}

static void grow_coroutines(unsigned n)
{
    Coroutine **cos = g_new(Coroutine *, n);

    co_stop = false;
    for (unsigned i = 0; i < n; i++) {
        cos[i] = qemu_coroutine_create(yield_entry, NULL);
    }
    bench_growth("coroutines", "entered in turn", n, cost_ns(enter_all, cos, n, n));
    bench_growth("coroutines", "scheduled", n, cost_ns(schedule_all, cos, n, n));
    co_stop = true;
    enter_all(cos, n);
    bench_growth("coroutines", "created, yield once, end", n, cost_ns(live_all, cos, n, n));
    g_free(cos);
}

static void raise_fd_limit(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    events = argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 50000;
    raise_fd_limit();
    ctx = aio_context_new(&error_fatal);
    qemu_set_current_aio_context(ctx);
    for (unsigned n = 1; n <= 10000; n *= 10) {
        grow_fds(n, "epoll");
        grow_fds(n, "io_uring");
        grow_timers(n);
        grow_bhs(n);
        grow_coroutines(n);
    }
    aio_context_set_fd_monitor(ctx, "epoll", &error_fatal);
    qemu_set_current_aio_context(NULL);
    aio_context_unref(ctx);
    return 0;
}
