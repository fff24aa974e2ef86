/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the benchmarks have in common: a clock, figures as JSON lines, and pairs. */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline int64_t bench_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* Of the calling thread. For what one thread does alone: others cannot disturb it. */
static inline int64_t bench_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* One figure; scripts/bench reads these lines. */
static inline void bench_figure(const char *work, double value, const char *unit)
{
    printf("{\"work\": \"%s\", \"value\": %.2f, \"unit\": \"%s\"}\n", work, value, unit);
    fflush(stdout);
}

/* The cost of one event when there are N things; scripts/bench --plot draws these. */
static inline void bench_growth(const char *work, const char *series, unsigned n,
                                double value_ns)
{
    printf("{\"growth\": \"%s\", \"series\": \"%s\", \"n\": %u, \"value\": %.2f, "
           "\"unit\": \"ns\"}\n", work, series, n, value_ns);
    fflush(stdout);
}

/* ---- pairs ----------------------------------------------------------------------------- */

/* ns per round of something, measured over ROUNDS of it. */
typedef double BenchFn(uint64_t rounds);

/*
 * Run OURS and BARE (of the program PEER) in turn, $BENCH_PAIRS times (7), and print each
 * pair: what disturbs the machine disturbs both of a pair, so their ratio means more than
 * either figure.
 */
static inline void bench_pair(const char *work, uint64_t rounds, BenchFn *ours,
                              const char *peer, BenchFn *bare)
{
    const char *text = getenv("BENCH_PAIRS");
    int pairs = text ? atoi(text) : 7;

    ours(rounds / 10 + 1);
    bare(rounds / 10 + 1);
    for (int i = 0; i < pairs; i++) {
        double value = ours(rounds), peer_value = bare(rounds);
        printf("{\"work\": \"%s\", \"value\": %.2f, \"unit\": \"ns\", \"peer\": \"%s\", "
               "\"peer_value\": %.2f}\n", work, value, peer, peer_value);
        fflush(stdout);
    }
}

#endif
