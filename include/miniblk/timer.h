/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clocks and timers. Times are int64_t nanoseconds unless a timer's SCALE says otherwise.
 *
 * QEMU_CLOCK_REALTIME and QEMU_CLOCK_VIRTUAL are monotonic and never read 0;
 * QEMU_CLOCK_HOST is the wall clock and may jump.
 */
#ifndef MINIBLK_TIMER_H
#define MINIBLK_TIMER_H

#include <stdbool.h>
#include <stdint.h>

typedef enum QEMUClockType {
    QEMU_CLOCK_REALTIME = 0,
    QEMU_CLOCK_VIRTUAL = 1,
    QEMU_CLOCK_HOST = 2,
    QEMU_CLOCK_VIRTUAL_RT = 3,
    QEMU_CLOCK_MAX
} QEMUClockType;

#define NANOSECONDS_PER_SECOND 1000000000LL
#define SCALE_MS 1000000
#define SCALE_US 1000
#define SCALE_NS 1

struct AioContext;
typedef void QEMUTimerCB(void *opaque);
typedef void QEMUTimerListNotifyCB(void *opaque, QEMUClockType type);

/*
 * A timer of one AioContext. The callback runs once per arming, in the context's home
 * thread, outside all locks; it may re-arm, delete or free its own timer.
 */
typedef struct QEMUTimer {
    struct AioContext *ctx;
    QEMUTimerCB *cb;
    void *opaque;
    int64_t expire_time;        /* ns; -1 when not armed; protected by the context's timer lock */
    unsigned heap_index;        /* place in the heap while armed; same lock */
    int scale;                  /* ns per unit */
    QEMUClockType type;
} QEMUTimer;

int64_t qemu_clock_get_ns(QEMUClockType type);
static inline int64_t qemu_clock_get_us(QEMUClockType type)
{
    return qemu_clock_get_ns(type) / SCALE_US;
}
static inline int64_t qemu_clock_get_ms(QEMUClockType type)
{
    return qemu_clock_get_ns(type) / SCALE_MS;
}
static inline int64_t get_clock(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}
static inline int64_t get_clock_realtime(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_HOST);
}

/*
 * Prepare the clock set for programs that use timers without the main loop. NOTIFY_CB (may
 * be NULL) is accepted for source compatibility; timers wake their own context.
 */
void init_clocks(QEMUTimerListNotifyCB *notify_cb);

/* Arm for EXPIRE_TIMER, in the timer's scale units / in ns. Any thread. */
void timer_mod(QEMUTimer *ts, int64_t expire_timer);
void timer_mod_ns(QEMUTimer *ts, int64_t expire_time_ns);
/* Arm only if that is earlier than the present deadline. Any thread. */
void timer_mod_anticipate(QEMUTimer *ts, int64_t expire_timer);
void timer_mod_anticipate_ns(QEMUTimer *ts, int64_t expire_time_ns);
/* Disarm. Any thread; a callback that has already begun is not waited for. */
void timer_del(QEMUTimer *ts);
bool timer_pending(QEMUTimer *ts);
/* What it is armed for, in ns; UINT64_MAX: not armed. Any thread. */
uint64_t timer_expire_time_ns(QEMUTimer *ts);
/* Whether it is armed, for CURRENT_TIME (in its scale units) or before. Any thread. */
bool timer_expired(QEMUTimer *ts, int64_t current_time);
/* Disarm and release a timer from aio_timer_new()/timer_new_*(). NULL is fine. */
void timer_free(QEMUTimer *ts);
/* Disarm an embedded timer; it may be initialised again afterwards. */
void timer_deinit(QEMUTimer *ts);

/* Legacy: a timer of the main loop's context; SCALE in ns per unit. Main thread. */
QEMUTimer *timer_new(QEMUClockType type, int scale, QEMUTimerCB *cb, void *opaque);
QEMUTimer *timer_new_ns(QEMUClockType type, QEMUTimerCB *cb, void *opaque);
QEMUTimer *timer_new_us(QEMUClockType type, QEMUTimerCB *cb, void *opaque);
QEMUTimer *timer_new_ms(QEMUClockType type, QEMUTimerCB *cb, void *opaque);

#endif
