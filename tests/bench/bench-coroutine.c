/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a coroutine: create + enter + end, yield + enter, and deep nesting. */
#include "miniblk/osdep.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/main-loop.h"
#include "bench.h"

#define NESTED 1000

static void coroutine_fn empty_entry(void *opaque)
{
    ++*(uint64_t *)opaque;
}

static void run_lives(uint64_t rounds)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < rounds; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(empty_entry, &count));
    }
    assert(count == rounds);
}

static void bench_life(uint64_t rounds)
{
    int64_t begin_ns;

    run_lives(rounds / 10);             /* fills the pool */
    begin_ns = bench_now_ns();
    run_lives(rounds);
    begin_ns = bench_now_ns() - begin_ns;
    bench_figure("coroutine create + enter + end", (double)begin_ns / rounds, "ns");
}

static void coroutine_fn yield_entry(void *opaque)
{
    uint64_t *left = opaque;

    while (--*left) {
        qemu_coroutine_yield();
    }
}

static void bench_yield(uint64_t rounds)
{
    uint64_t left = rounds;
    Coroutine *co = qemu_coroutine_create(yield_entry, &left);
    int64_t begin_ns = bench_now_ns();

    while (left) {
        qemu_coroutine_enter(co);
    }
    begin_ns = bench_now_ns() - begin_ns;
    bench_figure("coroutine yield + enter", (double)begin_ns / rounds, "ns");
}

static void coroutine_fn nested_entry(void *opaque)
{
    unsigned *depth = opaque;

    if (--*depth) {
        qemu_coroutine_enter(qemu_coroutine_create(nested_entry, depth));
    }
}

static void bench_nesting(uint64_t rounds)
{
    int64_t begin_ns = bench_now_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        unsigned depth = NESTED;

        qemu_coroutine_enter(qemu_coroutine_create(nested_entry, &depth));
    }
    begin_ns = bench_now_ns() - begin_ns;
    bench_figure("coroutine, 1000 nested", (double)begin_ns / rounds / NESTED, "ns");
}

int main(int argc, char **argv)
{
    uint64_t rounds = argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 5000000;

    if (rounds < NESTED) {
        fprintf(stderr, "bench-coroutine: at least %d rounds\n", NESTED);
        return 2;
    }
    qemu_init_main_loop(&error_fatal);
    bench_life(rounds);
    bench_yield(rounds);
    bench_nesting(rounds / NESTED);
    return 0;
}
