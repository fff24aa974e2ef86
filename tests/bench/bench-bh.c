/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From one thread to another and back, beside the least that the kernel can do for it: an
 * eventfd written there and one written back. Asleep, each side sleeps in between; awake, both
 * poll without sleeping. A figure is the median round: on a busy machine some rounds wait for
 * a processor, and their share would say more of the machine than of the loop. The threads are
 * bound to a processor each, or the scheduler would now and then put both on one.
 */
#include "miniblk/osdep.h"
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "bench.h"

enum { POLL_NS = 32768 };

static AioContext *home, *away;

/* ---- processors ------------------------------------------------------------------------ */

static cpu_set_t processors;    /* that we may use */

/* Bind the calling thread to the N-th of them, if there are so many. */
static void bind_to(int n)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &processors) && n-- == 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
            return;
        }
    }
}

static void bind_away(void *opaque)
{
    bind_to(1);
}

/* ---- rounds ---------------------------------------------------------------------------- */

static int64_t *round_ns, round_begin_ns;
static uint64_t round_count;

static void rounds_begin(uint64_t rounds)
{
    round_ns = g_new(int64_t, rounds);
    round_count = 0;
    round_begin_ns = bench_now_ns();
}

static void round_done(void)
{
    int64_t now_ns = bench_now_ns();

    round_ns[round_count++] = now_ns - round_begin_ns;
    round_begin_ns = now_ns;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double rounds_end(void)
{
    qsort(round_ns, round_count, sizeof(round_ns[0]), compare);
    double median_ns = round_ns[round_count / 2];
    g_free(round_ns);
    return median_ns;
}

/* ---- ours ---------------------------------------------------------------------------- */

typedef struct PingPong {
    uint64_t left;
    bool done;
} PingPong;

static void ping(void *opaque);

static void pong(void *opaque)
{
    PingPong *p = opaque;

    round_done();
    if (--p->left) {
        aio_bh_schedule_oneshot(away, ping, p);
    } else {
        p->done = true;
    }
}

static void ping(void *opaque)
{
    aio_bh_schedule_oneshot(home, pong, opaque);
}

static double bh_ns(uint64_t rounds)
{
    PingPong p = { .left = rounds };

    rounds_begin(rounds);
    aio_bh_schedule_oneshot(away, ping, &p);
    while (!p.done) {
        aio_poll(home, true);
    }
    return rounds_end();
}

static void coroutine_fn travel(void *opaque)
{
    PingPong *p = opaque;

    while (p->left--) {
        aio_co_reschedule_self(away);
        aio_co_reschedule_self(home);
        round_done();
    }
    p->done = true;
}

static double coroutine_ns(uint64_t rounds)
{
    PingPong p = { .left = rounds };

    rounds_begin(rounds);
    qemu_coroutine_enter(qemu_coroutine_create(travel, &p));
    while (!p.done) {
        aio_poll(home, true);
    }
    return rounds_end();
}

/* ---- bare ---------------------------------------------------------------------------- */

typedef struct EventPair {
    int there, back;
    uint64_t rounds;
    bool spin;
} EventPair;

static void take(int fd, bool spin)
{
    uint64_t value;

    while (read(fd, &value, sizeof(value)) != sizeof(value)) {
        assert(spin && errno == EAGAIN);
    }
}

static void give(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof(one)) != sizeof(one)) {
        abort();
    }
}

static void *event_thread(void *opaque)
{
    EventPair *e = opaque;

    bind_to(1);
    for (uint64_t i = 0; i < e->rounds; i++) {
        take(e->there, e->spin);
        give(e->back);
    }
    return NULL;
}

static double eventfd_ns(bool spin, uint64_t rounds)
{
    int flags = EFD_CLOEXEC | (spin ? EFD_NONBLOCK : 0);
    EventPair e = { .there = eventfd(0, flags), .back = eventfd(0, flags), .rounds = rounds,
                    .spin = spin };
    pthread_t thread;

    assert(e.there >= 0 && e.back >= 0);
    if (pthread_create(&thread, NULL, event_thread, &e) != 0) {
        abort();
    }
    rounds_begin(rounds);
    for (uint64_t i = 0; i < rounds; i++) {
        give(e.there);
        take(e.back, spin);
        round_done();
    }
    pthread_join(thread, NULL);
    close(e.there);
    close(e.back);
    return rounds_end();
}

static double eventfd_asleep_ns(uint64_t rounds)
{
    return eventfd_ns(false, rounds);
}

static double eventfd_awake_ns(uint64_t rounds)
{
    return eventfd_ns(true, rounds);
}

static void set_polling(IOThread *io0, int64_t max_ns)
{
    IOThreadParams params = *iothread_get_params(io0);

    params.poll_max_ns = max_ns;
    iothread_set_params(io0, &params, &error_fatal);
    aio_context_set_poll_params(home, max_ns, 0, 0, &error_fatal);
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 10000;
    IOThread *io0;

    if (!rounds) {
        fprintf(stderr, "bench-bh: at least one round\n");
        return 2;
    }
    qemu_init_main_loop(&error_fatal);
    io0 = iothread_create("io0", &error_fatal);
    home = qemu_get_aio_context();
    away = iothread_get_aio_context(io0);
    sched_getaffinity(0, sizeof(processors), &processors);
    bind_to(0);
    aio_bh_schedule_oneshot(away, bind_away, NULL);
    set_polling(io0, 0);
    bench_pair("bottom half there and back, asleep", rounds, bh_ns, "eventfd",
               eventfd_asleep_ns);
    bench_pair("coroutine there and back, asleep", rounds, coroutine_ns, "eventfd",
               eventfd_asleep_ns);
    set_polling(io0, POLL_NS);
    bench_pair("bottom half there and back, awake", rounds, bh_ns, "eventfd",
               eventfd_awake_ns);
    bench_pair("coroutine there and back, awake", rounds, coroutine_ns, "eventfd",
               eventfd_awake_ns);
    iothread_destroy(io0);
    return 0;
}
