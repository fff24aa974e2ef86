/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Latencies of a load program: a histogram, and a log of the longest one per 100 us. */
#ifndef TESTS_LOAD_LATENCY_H
#define TESTS_LOAD_LATENCY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define LATENCY_SUB_BUCKETS 32          /* per power of two: about 3 % wide */
#define LATENCY_BUCKETS (40 * LATENCY_SUB_BUCKETS)

typedef struct Histogram {
    uint64_t count[LATENCY_BUCKETS];
    uint64_t total;
    uint64_t max;
} Histogram;

void histogram_add(Histogram *h, uint64_t value);
/* The value below or at which FRACTION (0 to 1) of the entries lie; 0 when it is empty. */
uint64_t histogram_quantile(const Histogram *h, double fraction);

/*
 * One record of the log: of the requests that ended within a slot of 100 us, how many and
 * the longest latency. Times are CLOCK_MONOTONIC, the same for all processes.
 */
#define LATENCY_LOG_SLOT_US 100
typedef struct LatencyRecord {
    uint64_t end_us;                    /* when the slot began */
    uint32_t latency_us_max;
    uint32_t requests;
} LatencyRecord;

typedef struct LatencyLog {
    FILE *file;                         /* NULL: nothing is logged */
    LatencyRecord open;                 /* the slot that is being filled */
} LatencyLog;

/* Append to FILENAME (NULL: no log). */
bool latency_log_open(LatencyLog *log, const char *filename);
void latency_log_add(LatencyLog *log, uint64_t end_us, uint32_t latency_us);
/* Hand over to the system all but the slot that is being filled. */
void latency_log_flush(LatencyLog *log);
void latency_log_close(LatencyLog *log);

#endif
