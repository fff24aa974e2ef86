/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "latency.h"

static unsigned bucket_of(uint64_t value)
{
    unsigned shift, bucket;

    if (value < LATENCY_SUB_BUCKETS) {
        return value;
    }
    shift = 63 - __builtin_clzll(value) - __builtin_ctz(LATENCY_SUB_BUCKETS);
    bucket = (shift + 1) * LATENCY_SUB_BUCKETS + ((value >> shift) - LATENCY_SUB_BUCKETS);
    return MIN(bucket, LATENCY_BUCKETS - 1);
}

/* The largest value that falls into BUCKET. */
static uint64_t bucket_end(unsigned bucket)
{
    unsigned shift;

    if (bucket < LATENCY_SUB_BUCKETS) {
        return bucket;
    }
    shift = bucket / LATENCY_SUB_BUCKETS - 1;
    return ((uint64_t)(bucket % LATENCY_SUB_BUCKETS + LATENCY_SUB_BUCKETS + 1) << shift) - 1;
}

void histogram_add(Histogram *h, uint64_t value)
{
    h->count[bucket_of(value)]++;
    h->total++;
    h->max = MAX(h->max, value);
}

uint64_t histogram_quantile(const Histogram *h, double fraction)
{
    uint64_t below = 0;
    uint64_t want = (uint64_t)(fraction * h->total);

    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        below += h->count[i];
        if (h->count[i] && below >= MAX(want, 1)) {
            /* The last bucket also holds all that is too large to have one of its own. */
            return i == LATENCY_BUCKETS - 1 ? h->max : MIN(bucket_end(i), h->max);
        }
    }
    return h->max;
}

bool latency_log_open(LatencyLog *log, const char *filename)
{
    *log = (LatencyLog){ 0 };
    if (!filename) {
        return true;
    }
    log->file = fopen(filename, "ae");
    if (!log->file) {
        perror(filename);
    }
    return log->file != NULL;
}

static void write_slot(LatencyLog *log)
{
    if (log->open.requests && fwrite(&log->open, sizeof(log->open), 1, log->file) != 1) {
        perror("latency log");
        fclose(log->file);
        log->file = NULL;
    }
}

void latency_log_add(LatencyLog *log, uint64_t end_us, uint32_t latency_us)
{
    uint64_t slot_us = end_us - end_us % LATENCY_LOG_SLOT_US;

    if (!log->file) {
        return;
    }
    if (slot_us != log->open.end_us) {
        write_slot(log);
        log->open = (LatencyRecord){ .end_us = slot_us };
    }
    log->open.requests++;
    log->open.latency_us_max = MAX(log->open.latency_us_max, latency_us);
}

void latency_log_flush(LatencyLog *log)
{
    if (log->file) {
        fflush(log->file);
    }
}

void latency_log_close(LatencyLog *log)
{
    if (log->file) {
        write_slot(log);
    }
    if (log->file) {
        fclose(log->file);
    }
    *log = (LatencyLog){ 0 };
}
