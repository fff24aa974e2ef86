/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an event costs in one thread, beside the system or library calls it stands for: the
 * thread's processor time, and for what needs a second thread the time it takes.
 */
#include "miniblk/osdep.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <glib-unix.h>
#include "miniblk/aio.h"
#include "miniblk/error.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread-pool.h"
#include "bench.h"

static AioContext *ctx;         /* of this thread; not the main loop's, which GLib drives */
static uint64_t seen;

static void count(void *opaque)
{
    seen++;
}

static double since_ns(int64_t begin_ns, uint64_t rounds)
{
    return (double)(bench_cpu_ns() - begin_ns) / rounds;
}

static void read_event(EventNotifier *e)
{
    seen += event_notifier_test_and_clear(e);
}

/* ---- an iteration without anything to do --------------------------------------------- */

static double idle_poll_ns(uint64_t rounds)
{
    EventNotifier e;
    int64_t begin_ns;

    event_notifier_init(&e, 0);
    aio_set_event_notifier(ctx, &e, read_event, NULL, NULL);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        aio_poll(ctx, false);
    }
    double ns = since_ns(begin_ns, rounds);
    aio_set_event_notifier(ctx, &e, NULL, NULL, NULL);
    event_notifier_cleanup(&e);
    return ns;
}

static double idle_epoll_ns(uint64_t rounds)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC), fd = eventfd(0, EFD_CLOEXEC);
    struct epoll_event ev = { .events = EPOLLIN };
    int64_t begin_ns;

    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        epoll_wait(epoll_fd, &ev, 1, 0);
    }
    double ns = since_ns(begin_ns, rounds);
    close(fd);
    close(epoll_fd);
    return ns;
}

/* ---- bottom halves ------------------------------------------------------------------- */

static double bh_oneshot_ns(uint64_t rounds)
{
    int64_t begin_ns = bench_cpu_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        aio_bh_schedule_oneshot(ctx, count, NULL);
        aio_poll(ctx, false);
    }
    return since_ns(begin_ns, rounds);
}

static double bh_reused_ns(uint64_t rounds)
{
    QEMUBH *bh = aio_bh_new(ctx, count, NULL);
    int64_t begin_ns = bench_cpu_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        qemu_bh_schedule(bh);
        aio_poll(ctx, false);
    }
    double ns = since_ns(begin_ns, rounds);
    qemu_bh_delete(bh);
    return ns;
}

static gboolean count_source(void *opaque)
{
    seen++;
    return G_SOURCE_REMOVE;
}

static double glib_idle_ns(uint64_t rounds)
{
    GMainContext *main = g_main_context_new();
    int64_t begin_ns = bench_cpu_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        GSource *source = g_idle_source_new();
        g_source_set_callback(source, count_source, NULL, NULL);
        g_source_attach(source, main);
        g_source_unref(source);
        g_main_context_iteration(main, false);
    }
    double ns = since_ns(begin_ns, rounds);
    g_main_context_unref(main);
    return ns;
}

/* ---- timers -------------------------------------------------------------------------- */

static double timer_fire_ns(uint64_t rounds)
{
    QEMUTimer timer;
    int64_t begin_ns;

    aio_timer_init(ctx, &timer, QEMU_CLOCK_REALTIME, SCALE_NS, count, NULL);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        timer_mod_ns(&timer, 1);
        aio_poll(ctx, false);
    }
    return since_ns(begin_ns, rounds);
}

static double timerfd_fire_ns(uint64_t rounds)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN };
    struct itimerspec at = { .it_value = { .tv_nsec = 1 } };
    uint64_t expirations;
    int64_t begin_ns;

    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        timerfd_settime(fd, TFD_TIMER_ABSTIME, &at, NULL);
        epoll_wait(epoll_fd, &ev, 1, -1);
        seen += read(fd, &expirations, sizeof(expirations)) > 0;
    }
    double ns = since_ns(begin_ns, rounds);
    close(fd);
    close(epoll_fd);
    return ns;
}

static double timer_rearm_ns(uint64_t rounds)
{
    QEMUTimer timer;
    int64_t far_ns = get_clock() + 3600 * NANOSECONDS_PER_SECOND, begin_ns;

    aio_timer_init(ctx, &timer, QEMU_CLOCK_REALTIME, SCALE_NS, count, NULL);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        timer_mod_ns(&timer, far_ns + i);
    }
    double ns = since_ns(begin_ns, rounds);
    timer_deinit(&timer);
    return ns;
}

static double timerfd_rearm_ns(uint64_t rounds)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec at = { .it_value = { .tv_sec = 3600 } };
    int64_t begin_ns = bench_cpu_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        at.it_value.tv_nsec = i % 1000000000;
        timerfd_settime(fd, 0, &at, NULL);
    }
    double ns = since_ns(begin_ns, rounds);
    close(fd);
    return ns;
}

/* ---- descriptors --------------------------------------------------------------------- */

static double fd_ready_ns(uint64_t rounds)
{
    EventNotifier e;
    int64_t begin_ns;

    event_notifier_init(&e, 0);
    aio_set_event_notifier(ctx, &e, read_event, NULL, NULL);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        event_notifier_set(&e);
        aio_poll(ctx, true);
    }
    double ns = since_ns(begin_ns, rounds);
    aio_set_event_notifier(ctx, &e, NULL, NULL, NULL);
    event_notifier_cleanup(&e);
    return ns;
}

static double epoll_ready_ns(uint64_t rounds)
{
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC), fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN };
    uint64_t one = 1, value;
    int64_t begin_ns;

    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        if (write(fd, &one, sizeof(one)) < 0) {
            abort();
        }
        epoll_wait(epoll_fd, &ev, 1, -1);
        seen += read(fd, &value, sizeof(value)) > 0;
    }
    double ns = since_ns(begin_ns, rounds);
    close(fd);
    close(epoll_fd);
    return ns;
}

/* ---- locks --------------------------------------------------------------------------- */

static double context_lock_ns(uint64_t rounds)
{
    int64_t begin_ns = bench_cpu_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        aio_context_acquire(ctx);
        aio_context_release(ctx);
    }
    return since_ns(begin_ns, rounds);
}

static double recursive_mutex_ns(uint64_t rounds)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t mutex;
    int64_t begin_ns;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mutex, &attr);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
    }
    double ns = since_ns(begin_ns, rounds);
    pthread_mutex_destroy(&mutex);
    pthread_mutexattr_destroy(&attr);
    return ns;
}

/* ---- workers ------------------------------------------------------------------------- */

static int nothing(void *opaque)
{
    return 0;
}

static void worker_done(void *opaque, int ret)
{
    *(bool *)opaque = true;
}

static double pool_ns(uint64_t rounds)
{
    int64_t begin_ns = bench_now_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        bool done = false;
        thread_pool_submit_aio(nothing, NULL, worker_done, &done);
        while (!done) {
            aio_poll(ctx, true);
        }
    }
    return (double)(bench_now_ns() - begin_ns) / rounds;
}

typedef struct Handoff {
    pthread_mutex_t lock;       /* protects the rest */
    pthread_cond_t there, back;
    uint64_t asked, answered, rounds;
} Handoff;

static void *handoff_worker(void *opaque)
{
    Handoff *h = opaque;

    pthread_mutex_lock(&h->lock);
    while (h->answered < h->rounds) {
        while (h->asked == h->answered) {
            pthread_cond_wait(&h->there, &h->lock);
        }
        h->answered++;
        pthread_cond_signal(&h->back);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static double condition_ns(uint64_t rounds)
{
    Handoff h = { .lock = PTHREAD_MUTEX_INITIALIZER, .there = PTHREAD_COND_INITIALIZER,
                  .back = PTHREAD_COND_INITIALIZER, .rounds = rounds };
    pthread_t worker;
    int64_t begin_ns;

    pthread_create(&worker, NULL, handoff_worker, &h);
    begin_ns = bench_now_ns();
    pthread_mutex_lock(&h.lock);
    for (uint64_t i = 0; i < rounds; i++) {
        h.asked++;
        pthread_cond_signal(&h.there);
        while (h.answered < h.asked) {
            pthread_cond_wait(&h.back, &h.lock);
        }
    }
    pthread_mutex_unlock(&h.lock);
    double ns = (double)(bench_now_ns() - begin_ns) / rounds;
    pthread_join(worker, NULL);
    return ns;
}

/* ---- GLib's loop --------------------------------------------------------------------- */

static GMainContext *glib_context;

static double glib_ours_ns(uint64_t rounds)
{
    int64_t begin_ns = bench_cpu_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        g_main_context_iteration(glib_context, false);
    }
    return since_ns(begin_ns, rounds);
}

static gboolean fd_source_cb(int fd, GIOCondition condition, void *opaque)
{
    return G_SOURCE_CONTINUE;
}

/* The same with a source that is one descriptor and no more. */
static double glib_bare_ns(uint64_t rounds)
{
    GMainContext *main = g_main_context_new();
    int fd = eventfd(0, EFD_CLOEXEC);
    GSource *source = g_unix_fd_source_new(fd, G_IO_IN);
    int64_t begin_ns;

    g_source_set_callback(source, G_SOURCE_FUNC(fd_source_cb), NULL, NULL);
    g_source_attach(source, main);
    begin_ns = bench_cpu_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        g_main_context_iteration(main, false);
    }
    double ns = since_ns(begin_ns, rounds);
    g_source_destroy(source);
    g_source_unref(source);
    g_main_context_unref(main);
    close(fd);
    return ns;
}

static void bench_glib(uint64_t rounds)
{
    GSource *source = aio_get_g_source(ctx);

    glib_context = g_main_context_new();
    g_source_attach(source, glib_context);
    bench_pair("iteration of GLib's loop, idle", rounds, glib_ours_ns, "glib", glib_bare_ns);
    g_source_destroy(source);
    g_source_unref(source);
    g_main_context_unref(glib_context);
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 200000;

    if (!rounds) {
        fprintf(stderr, "bench-loop: at least one round\n");
        return 2;
    }
    ctx = aio_context_new(&error_fatal);
    qemu_set_current_aio_context(ctx);
    bench_pair("aio_poll, idle", rounds, idle_poll_ns, "epoll", idle_epoll_ns);
    bench_pair("bottom half, one-shot", rounds, bh_oneshot_ns, "glib", glib_idle_ns);
    bench_pair("bottom half, scheduled again", rounds, bh_reused_ns, "glib", glib_idle_ns);
    bench_pair("timer armed and fired", rounds, timer_fire_ns, "timerfd", timerfd_fire_ns);
    bench_pair("timer armed again", rounds, timer_rearm_ns, "timerfd", timerfd_rearm_ns);
    bench_pair("descriptor ready and served", rounds, fd_ready_ns, "epoll", epoll_ready_ns);
    bench_pair("context lock", 10 * rounds, context_lock_ns, "pthread", recursive_mutex_ns);
    bench_pair("worker there and back", rounds / 10 + 1, pool_ns, "pthread", condition_ns);
    bench_glib(rounds);
    qemu_set_current_aio_context(NULL);
    aio_context_unref(ctx);
    return 0;
}
