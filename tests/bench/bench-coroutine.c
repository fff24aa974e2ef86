/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The life of a coroutine: create + enter + end, yield + enter, and deep nesting, beside an
 * empty loop; and two threads that want the same CoMutex.
 */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "bench.h"

#define NESTED 1000

/* ---- one thread ------------------------------------------------------------------------- */

/* What counting costs without a coroutine. */
static double empty_loop(uint64_t rounds)
{
    volatile uint64_t left = rounds;
    int64_t begin_ns = bench_cpu_ns();

    while (--left) {
        /* only counts */
    }
    return (double)(bench_cpu_ns() - begin_ns) / rounds;
}

static void coroutine_fn count_entry(void *opaque)
{
    ++*(uint64_t *)opaque;
}

static double lives(uint64_t rounds)
{
    uint64_t count = 0;
    int64_t begin_ns = bench_cpu_ns();

    while (count < rounds) {
        qemu_coroutine_enter(qemu_coroutine_create(count_entry, &count));
    }
    return (double)(bench_cpu_ns() - begin_ns) / rounds;
}

static void coroutine_fn yield_entry(void *opaque)
{
    uint64_t *left = opaque;

    while (--*left) {
        qemu_coroutine_yield();
    }
}

static double yields(uint64_t rounds)
{
    uint64_t left = rounds;
    Coroutine *co = qemu_coroutine_create(yield_entry, &left);
    int64_t begin_ns = bench_cpu_ns();

    while (left) {
        qemu_coroutine_enter(co);
    }
    return (double)(bench_cpu_ns() - begin_ns) / rounds;
}

static void coroutine_fn nested_entry(void *opaque)
{
    unsigned *depth = opaque;

    if (--*depth) {
        qemu_coroutine_enter(qemu_coroutine_create(nested_entry, depth));
    }
}

static double nested(uint64_t rounds)
{
    int64_t begin_ns = bench_cpu_ns();

    for (uint64_t left = rounds; left >= NESTED; left -= NESTED) {
        unsigned depth = NESTED;

        qemu_coroutine_enter(qemu_coroutine_create(nested_entry, &depth));
    }
    return (double)(bench_cpu_ns() - begin_ns) / (rounds / NESTED * NESTED);
}

/* ---- one CoMutex, two threads -------------------------------------------------------- */

typedef struct Shared {
    CoMutex mutex;
    uint64_t count;             /* protected by MUTEX */
    bool stop;                  /* atomic */
    unsigned running;           /* atomic */
} Shared;

static void coroutine_fn contend_entry(void *opaque)
{
    Shared *shared = opaque;

    while (!qatomic_read(&shared->stop)) {
        qemu_co_mutex_lock(&shared->mutex);
        shared->count++;
        qemu_co_mutex_unlock(&shared->mutex);
    }
    qatomic_dec(&shared->running);
    aio_wait_kick();
}

static void bench_contention(unsigned n_threads, const char *what)
{
    Shared shared = { .running = n_threads };
    IOThread *threads[2];
    int64_t begin_ns = bench_now_ns();

    qemu_co_mutex_init(&shared.mutex);
    for (unsigned i = 0; i < n_threads; i++) {
        g_autofree char *name = g_strdup_printf("bench%u", i);
        threads[i] = iothread_create(name, &error_fatal);
        aio_co_schedule(iothread_get_aio_context(threads[i]),
                        qemu_coroutine_create(contend_entry, &shared));
    }
    g_usleep(300000);
    qatomic_set(&shared.stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&shared.running));
    begin_ns = bench_now_ns() - begin_ns;
    for (unsigned i = 0; i < n_threads; i++) {
        iothread_destroy(threads[i]);
    }
    bench_figure(what, (double)begin_ns / shared.count, "ns");
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 5000000;

    if (rounds < 10 * NESTED) {
        fprintf(stderr, "bench-coroutine: at least %d rounds\n", 10 * NESTED);
        return 2;
    }
    qemu_init_main_loop(&error_fatal);
    bench_pair("coroutine create + enter + end", rounds, lives, "empty loop", empty_loop);
    bench_pair("coroutine yield + enter", rounds, yields, "empty loop", empty_loop);
    bench_pair("coroutine, 1000 nested", rounds, nested, "empty loop", empty_loop);
    bench_contention(1, "CoMutex lock + unlock, one thread");
    bench_contention(2, "CoMutex lock + unlock, two threads contending");
    return 0;
}
