/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits on I/O: six leaky buckets, and timers that say when to look again. This is the
 * arithmetic of one set of limits; who waits for whom is throttle-groups.h.
 *
 * What has been done is water in a bucket, which leaks at the allowed rate; once the bucket
 * is full, whoever wants more waits until enough has leaked:
 *
 *      avg         the allowed rate, in units (bytes or operations) per second; 0: no limit
 *      max         0, or the rate allowed during a burst
 *      burst_length    how long such a burst may last, in seconds, >= 1
 *
 * The bucket holds max * burst_length units, or 100 ms of the rate when there is no MAX. A
 * second bucket, holding 100 ms of the burst rate, keeps bursts of more than one second to it.
 *
 * Not thread-safe: whoever shares a state brings a lock. Nothing here polls.
 */
#ifndef MINIBLK_THROTTLE_H
#define MINIBLK_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>
#include "aio.h"
#include "error.h"
#include "qdict.h"
#include "timer.h"

/* The largest value of any limit, and of max * burst_length. */
#define THROTTLE_VALUE_MAX 1000000000000000LL

typedef enum BucketType {
    THROTTLE_BPS_TOTAL = 0,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_OPS_TOTAL,
    THROTTLE_OPS_READ,
    THROTTLE_OPS_WRITE,
    BUCKETS_COUNT,
} BucketType;

typedef enum ThrottleDirection {
    THROTTLE_READ = 0,
    THROTTLE_WRITE,
    THROTTLE_MAX
} ThrottleDirection;

typedef struct LeakyBucket {
    uint64_t avg;               /* units per second */
    uint64_t max;               /* units per second */
    double level;               /* units */
    double burst_level;         /* units in the bucket that bounds the burst's rate */
    uint64_t burst_length;      /* seconds */
} LeakyBucket;

/* Limits. Without padding, so that two can be compared as bytes. */
typedef struct ThrottleConfig {
    LeakyBucket buckets[BUCKETS_COUNT];
    uint64_t op_size;           /* N times so many bytes are N operations; 0: always one */
} ThrottleConfig;

typedef struct ThrottleState {
    ThrottleConfig cfg;
    int64_t previous_leak;      /* when the levels were last right, ns of the user's clock */
} ThrottleState;

/* One timer per direction, in the user's context. */
typedef struct ThrottleTimers {
    QEMUTimer *timers[THROTTLE_MAX];    /* NULL: no such direction, or detached */
    QEMUClockType clock_type;
    QEMUTimerCB *timer_cb[THROTTLE_MAX];
    void *timer_opaque;
} ThrottleTimers;

/* ---- a bucket --------------------------------------------------------------------- */

/* Let DELTA ns pass: level and burst level fall, not below 0. */
void throttle_leak_bucket(LeakyBucket *bkt, int64_t delta);
/* ns until the bucket is no longer too full; 0 when it is not. */
int64_t throttle_compute_wait(LeakyBucket *bkt);

/* ---- limits ----------------------------------------------------------------------- */

/* No limits, bursts of one second. */
void throttle_config_init(ThrottleConfig *cfg);
/* Whether CFG limits anything. */
bool throttle_enabled(ThrottleConfig *cfg);
/* False with ERRP set when CFG makes no sense or a value is out of range. */
bool throttle_is_valid(ThrottleConfig *cfg, Error **errp);
/*
 * Change CFG by the members of OBJECT, named as in the type ThrottleLimits ("iops-total",
 * "bps-read-max-length", ...). PREFIX ("x-", or "") comes before the names in OBJECT. Other
 * members are not looked at. False with ERRP set, and CFG as it was, for a value that cannot
 * be stored or limits that are not valid.
 */
bool throttle_config_update(ThrottleConfig *cfg, const QDict *object, const char *prefix,
                            Error **errp);
/* Add all limits of CFG to OBJECT. */
void throttle_config_to_qdict(const ThrottleConfig *cfg, QDict *object, const char *prefix);

/* ---- a state ---------------------------------------------------------------------- */

/* All zero: no limits. */
void throttle_init(ThrottleState *ts);
/* Install CFG with empty buckets, which leak from now on (by CLOCK_TYPE). */
void throttle_config(ThrottleState *ts, QEMUClockType clock_type, ThrottleConfig *cfg);
void throttle_get_config(ThrottleState *ts, ThrottleConfig *cfg);
/* Charge a request of SIZE bytes to the buckets of DIRECTION, its own and the common ones. */
void throttle_account(ThrottleState *ts, ThrottleDirection direction, uint64_t size);
/* ns until a request of DIRECTION may go, by TT's clock; 0: now. */
int64_t throttle_wait_ns(ThrottleState *ts, ThrottleTimers *tt, ThrottleDirection direction);
/*
 * Whether a request of DIRECTION has to wait; then its timer in TT is armed for the moment
 * when it has not, unless it is armed already.
 */
bool throttle_schedule_timer(ThrottleState *ts, ThrottleTimers *tt,
                             ThrottleDirection direction);

/* ---- timers ----------------------------------------------------------------------- */

/* Remember clock and callbacks (either may be NULL: no such direction), then attach. */
void throttle_timers_init(ThrottleTimers *tt, AioContext *aio_context,
                          QEMUClockType clock_type, QEMUTimerCB *read_timer_cb,
                          QEMUTimerCB *write_timer_cb, void *timer_opaque);
/* Delete the timers; see timer_del() about callbacks that run just now. */
void throttle_timers_destroy(ThrottleTimers *tt);
/* The same, but keep the callbacks for the next attach. */
void throttle_timers_detach_aio_context(ThrottleTimers *tt);
/* Make the timers in NEW_CONTEXT. They are detached. */
void throttle_timers_attach_aio_context(ThrottleTimers *tt, AioContext *new_context);
bool throttle_timers_are_initialized(ThrottleTimers *tt);

#endif
