/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A bottom half scheduled to another thread and one back, beside the least that the kernel
 * can do for it: an eventfd written there and one written back.
 */
#include "miniblk/osdep.h"
#include <pthread.h>
#include <sys/eventfd.h>
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "bench.h"

typedef struct PingPong {
    AioContext *home, *away;
    uint64_t left;
    bool done;
} PingPong;

static void ping(void *opaque);

static void pong(void *opaque)
{
    PingPong *p = opaque;

    if (--p->left) {
        aio_bh_schedule_oneshot(p->away, ping, p);
    } else {
        p->done = true;
    }
}

static void ping(void *opaque)
{
    PingPong *p = opaque;

    aio_bh_schedule_oneshot(p->home, pong, p);
}

static double bh_round_trip_ns(IOThread *io0, uint64_t rounds)
{
    PingPong p = { .home = qemu_get_aio_context(),
                   .away = iothread_get_aio_context(io0), .left = rounds };
    int64_t begin_ns = bench_now_ns();

    aio_bh_schedule_oneshot(p.away, ping, &p);
    while (!p.done) {
        aio_poll(p.home, true);
    }
    return (double)(bench_now_ns() - begin_ns) / rounds;
}

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

    for (uint64_t i = 0; i < e->rounds; i++) {
        take(e->there, e->spin);
        give(e->back);
    }
    return NULL;
}

static double eventfd_round_trip_ns(bool spin, uint64_t rounds)
{
    int flags = EFD_CLOEXEC | (spin ? EFD_NONBLOCK : 0);
    EventPair e = { .there = eventfd(0, flags), .back = eventfd(0, flags), .rounds = rounds,
                    .spin = spin };
    pthread_t thread;
    int64_t begin_ns;

    assert(e.there >= 0 && e.back >= 0);
    if (pthread_create(&thread, NULL, event_thread, &e) != 0) {
        abort();
    }
    begin_ns = bench_now_ns();
    for (uint64_t i = 0; i < rounds; i++) {
        give(e.there);
        take(e.back, spin);
    }
    begin_ns = bench_now_ns() - begin_ns;
    pthread_join(thread, NULL);
    close(e.there);
    close(e.back);
    return (double)begin_ns / rounds;
}

static void set_polling(IOThread *io0, int64_t max_ns)
{
    IOThreadParams params = *iothread_get_params(io0);

    params.poll_max_ns = max_ns;
    iothread_set_params(io0, &params, &error_fatal);
    aio_context_set_poll_params(qemu_get_aio_context(), max_ns, 0, 0, &error_fatal);
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 200000;
    IOThread *io0;

    if (!rounds) {
        fprintf(stderr, "bench-bh: at least one round\n");
        return 2;
    }
    qemu_init_main_loop(&error_fatal);
    io0 = iothread_create("io0", &error_fatal);
    set_polling(io0, 0);
    bh_round_trip_ns(io0, rounds / 10 + 1);
    bench_figure("bottom half there and back, asleep", bh_round_trip_ns(io0, rounds), "ns");
    bench_figure("eventfd there and back, asleep", eventfd_round_trip_ns(false, rounds), "ns");
    set_polling(io0, 1000000);
    bench_figure("bottom half there and back, awake", bh_round_trip_ns(io0, rounds), "ns");
    bench_figure("eventfd there and back, awake", eventfd_round_trip_ns(true, rounds), "ns");
    iothread_destroy(io0);
    return 0;
}
