/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the benchmarks have in common: a clock, and figures as JSON lines. */
#ifndef TESTS_BENCH_H
#define TESTS_BENCH_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static inline int64_t bench_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* One figure; scripts/bench reads these lines. */
static inline void bench_figure(const char *work, double value, const char *unit)
{
    printf("{\"work\": \"%s\", \"value\": %.2f, \"unit\": \"%s\"}\n", work, value, unit);
    fflush(stdout);
}

#endif
