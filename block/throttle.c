/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leaky buckets: how full they are, how long to wait, and the timers for that.
 *
 *            water added by requests
 *                     |
 *              |      v      |
 *              |             |  above the brim: wait
 *       brim - |~~~~~~~~~~~~~|  max * burst_length, or 100 ms of avg
 *              |             |
 *              |_____   _____|
 *                    | |  leaks at avg per second
 */
#include "miniblk/osdep.h"
#include "miniblk/throttle.h"

/* What always passes at once, 100 ms of the rate: one request at a time would be slow. */
enum { BRIMS_PER_SECOND = 10 };

/* The buckets that a request of each direction goes through. */
static const BucketType buckets_of[THROTTLE_MAX][4] = {
    [THROTTLE_READ] = { THROTTLE_BPS_TOTAL, THROTTLE_BPS_READ,
                        THROTTLE_OPS_TOTAL, THROTTLE_OPS_READ },
    [THROTTLE_WRITE] = { THROTTLE_BPS_TOTAL, THROTTLE_BPS_WRITE,
                         THROTTLE_OPS_TOTAL, THROTTLE_OPS_WRITE },
};

static bool counts_bytes(BucketType type)
{
    return type <= THROTTLE_BPS_WRITE;
}

/* ---- a bucket --------------------------------------------------------------------- */

static bool has_long_burst(const LeakyBucket *bkt)
{
    return bkt->burst_length > 1;
}

static double level_after(double level, uint64_t rate, int64_t ns)
{
    double leaked = (double)rate * ns / NANOSECONDS_PER_SECOND;
    return level > leaked ? level - leaked : 0;
}

void throttle_leak_bucket(LeakyBucket *bkt, int64_t delta)
{
    bkt->level = level_after(bkt->level, bkt->avg, delta);
    if (has_long_burst(bkt)) {
        bkt->burst_level = level_after(bkt->burst_level, bkt->max, delta);
    }
}

/* How long a leak of RATE needs to bring LEVEL down to BRIM. */
static int64_t ns_to_brim(double level, double brim, uint64_t rate)
{
    if (level <= brim) {
        return 0;
    }
    double ns = (level - brim) * NANOSECONDS_PER_SECOND / rate;
    return ns < (double)INT64_MAX ? (int64_t)ns : INT64_MAX;
}

int64_t throttle_compute_wait(LeakyBucket *bkt)
{
    if (!bkt->avg) {
        return 0;
    }
    if (!bkt->max) {
        return ns_to_brim(bkt->level, (double)bkt->avg / BRIMS_PER_SECOND,
                          bkt->avg);
    }
    int64_t ns = ns_to_brim(bkt->level, (double)bkt->max * bkt->burst_length, bkt->avg);
    if (ns == 0 && has_long_burst(bkt)) {
        ns = ns_to_brim(bkt->burst_level, (double)bkt->max / BRIMS_PER_SECOND,
                        bkt->max);
    }
    return ns;
}

/* ---- a state ---------------------------------------------------------------------- */

void throttle_init(ThrottleState *ts)
{
    memset(ts, 0, sizeof(*ts));
    throttle_config_init(&ts->cfg);
}

void throttle_config(ThrottleState *ts, QEMUClockType clock_type, ThrottleConfig *cfg)
{
    ts->cfg = *cfg;
    for (int i = 0; i < BUCKETS_COUNT; i++) {
        ts->cfg.buckets[i].level = 0;
        ts->cfg.buckets[i].burst_level = 0;
    }
    ts->previous_leak = qemu_clock_get_ns(clock_type);
}

void throttle_get_config(ThrottleState *ts, ThrottleConfig *cfg)
{
    *cfg = ts->cfg;
}

static void leak_until(ThrottleState *ts, int64_t now_ns)
{
    int64_t delta_ns = now_ns - ts->previous_leak;

    if (delta_ns <= 0) {
        return;                 /* another thread was a little ahead of us */
    }
    ts->previous_leak = now_ns;
    for (int i = 0; i < BUCKETS_COUNT; i++) {
        throttle_leak_bucket(&ts->cfg.buckets[i], delta_ns);
    }
}

int64_t throttle_wait_ns(ThrottleState *ts, ThrottleTimers *tt, ThrottleDirection direction)
{
    int64_t ns = 0;

    leak_until(ts, qemu_clock_get_ns(tt->clock_type));
    for (size_t i = 0; i < ARRAY_SIZE(buckets_of[direction]); i++) {
        int64_t bucket_ns = throttle_compute_wait(
            &ts->cfg.buckets[buckets_of[direction][i]]);
        ns = MAX(ns, bucket_ns);
    }
    return ns;
}

bool throttle_schedule_timer(ThrottleState *ts, ThrottleTimers *tt,
                             ThrottleDirection direction)
{
    QEMUTimer *timer = tt->timers[direction];
    int64_t ns = throttle_wait_ns(ts, tt, direction);

    g_assert(timer);
    if (ns == 0) {
        return false;
    }
    if (!timer_pending(timer)) {
        int64_t now_ns = ts->previous_leak;
        timer_mod(timer, ns < INT64_MAX - now_ns ? now_ns + ns : INT64_MAX);
    }
    return true;
}

static double operations(const ThrottleConfig *cfg, uint64_t size)
{
    return cfg->op_size && size > cfg->op_size ? (double)size / cfg->op_size : 1;
}

void throttle_account(ThrottleState *ts, ThrottleDirection direction, uint64_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(buckets_of[direction]); i++) {
        BucketType type = buckets_of[direction][i];
        LeakyBucket *bkt = &ts->cfg.buckets[type];
        double units = counts_bytes(type) ? (double)size : operations(&ts->cfg, size);

        bkt->level += units;
        if (has_long_burst(bkt)) {
            bkt->burst_level += units;
        }
    }
}

/* ---- timers ----------------------------------------------------------------------- */

void throttle_timers_init(ThrottleTimers *tt, AioContext *aio_context,
                          QEMUClockType clock_type, QEMUTimerCB *read_timer_cb,
                          QEMUTimerCB *write_timer_cb, void *timer_opaque)
{
    *tt = (ThrottleTimers) {
        .clock_type = clock_type,
        .timer_cb = { [THROTTLE_READ] = read_timer_cb, [THROTTLE_WRITE] = write_timer_cb },
        .timer_opaque = timer_opaque,
    };
    throttle_timers_attach_aio_context(tt, aio_context);
}

void throttle_timers_attach_aio_context(ThrottleTimers *tt, AioContext *new_context)
{
    for (int i = 0; i < THROTTLE_MAX; i++) {
        g_assert(!tt->timers[i]);
        if (tt->timer_cb[i]) {
            tt->timers[i] = aio_timer_new(new_context, tt->clock_type, SCALE_NS,
                                          tt->timer_cb[i], tt->timer_opaque);
        }
    }
}

void throttle_timers_detach_aio_context(ThrottleTimers *tt)
{
    for (int i = 0; i < THROTTLE_MAX; i++) {
        timer_free(tt->timers[i]);
        tt->timers[i] = NULL;
    }
}

void throttle_timers_destroy(ThrottleTimers *tt)
{
    throttle_timers_detach_aio_context(tt);
    memset(tt->timer_cb, 0, sizeof(tt->timer_cb));
}

bool throttle_timers_are_initialized(ThrottleTimers *tt)
{
    return tt->timers[THROTTLE_READ] || tt->timers[THROTTLE_WRITE];
}
