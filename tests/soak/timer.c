/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Timers on all clocks: armed, armed again, cancelled. */
#include "tests/soak/soak.h"

enum { FUTURE_NS_MAX = 1000 * 1000, REARMS_MAX = 5 };

typedef struct SoakTimer {
    SoakId id;
    QEMUTimer timer;
    unsigned armed;             /* atomic; how often so far */
    unsigned seen;              /* home thread; up to which arming it has fired */
    unsigned runs;              /* home thread */
    bool no_more;               /* home thread; its producer has armed it for the last time */
    bool over;                  /* home thread; must not fire again */
    int64_t earliest_ns;        /* atomic; of all armings */
} SoakTimer;

static SoakTimer *soak_timer_new(SoakKind kind, Producer *p, Slot *slot, QEMUTimerCB *cb)
{
    /* not the wall clock: it may jump, and then nothing is known of the deadline */
    static const QEMUClockType clocks[] = {
        QEMU_CLOCK_REALTIME, QEMU_CLOCK_VIRTUAL, QEMU_CLOCK_VIRTUAL_RT,
    };
    SoakTimer *t = slot_new(slot, SoakTimer);

    t->id = ledger_open(kind, p, slot);
    t->earliest_ns = INT64_MAX;
    aio_timer_init(slot->ctx, &t->timer, clocks[g_rand_int_range(p->rand, 0, 3)], SCALE_NS, cb,
                   t);
    return t;
}

/* Arm T for a moment in the past or the near future. */
static void arm(SoakTimer *t, int64_t in_ns, bool anticipate)
{
    int64_t at_ns = qemu_clock_get_ns(t->timer.type) + in_ns;

    if (at_ns < qatomic_read(&t->earliest_ns)) {
        qatomic_set(&t->earliest_ns, at_ns);
    }
    qatomic_inc(&t->armed);
    if (anticipate) {
        timer_mod_anticipate_ns(&t->timer, at_ns);
    } else {
        timer_mod_ns(&t->timer, at_ns);
    }
}

static void fired(SoakTimer *t)
{
    unsigned armed = qatomic_load_acquire(&t->armed);

    t->runs++;
    if (t->over || t->runs > armed) {
        soak_fail(t->id, "fired %u times, armed %u times%s", t->runs, armed,
                  t->over ? "; after it was over" : "");
    }
    if (qemu_clock_get_ns(t->timer.type) < qatomic_read(&t->earliest_ns)) {
        soak_fail(t->id, "fired too early");
    }
    t->seen = armed;
}

static void finish(SoakTimer *t)
{
    t->over = true;
    timer_deinit(&t->timer);
    if (t->runs) {
        ledger_seen(t->id);
    } else {
        ledger_void(t->id);
    }
    slot_put(slot_here(), 1);
}

static void once_cb(void *opaque)
{
    fired(opaque);
    finish(opaque);
}

void soak_timer_once(Producer *p, Slot *slot)
{
    SoakTimer *t = soak_timer_new(TIMER_ONCE, p, slot, once_cb);
    arm(t, g_rand_int_range(p->rand, -1000, FUTURE_NS_MAX), g_rand_int_range(p->rand, 0, 2));
}

static void rearms_itself_cb(void *opaque)
{
    SoakTimer *t = opaque;

    fired(t);
    if (t->runs < REARMS_MAX) {
        arm(t, t->runs % 2 ? -1 : FUTURE_NS_MAX / 10, false);
    } else {
        finish(t);
    }
}

void soak_timer_rearms_itself(Producer *p, Slot *slot)
{
    SoakTimer *t = soak_timer_new(TIMER_REARMS_ITSELF, p, slot, rearms_itself_cb);
    arm(t, 0, false);
}

/*
 * Armed again while it may be pending, firing or over: it fires at least once after the last
 * arming, and no more often than it was armed. It is finished by whichever comes later, its
 * last firing or the referee.
 */
static void rearmed_cb(void *opaque)
{
    SoakTimer *t = opaque;

    fired(t);
    if (t->no_more && !timer_pending(&t->timer)) {
        finish(t);
    }
}

static void rearmed_referee(void *opaque)
{
    SoakTimer *t = opaque;

    t->no_more = true;
    if (!timer_pending(&t->timer)) {
        if (t->seen != qatomic_read(&t->armed)) {
            soak_fail(t->id, "arming %u of %u was lost", t->seen + 1, t->armed);
        }
        finish(t);
    }
}

static void rearm_later(Producer *p, void *opaque)
{
    SoakTimer *t = opaque;
    unsigned n = g_rand_int_range(p->rand, 1, REARMS_MAX);

    while (n--) {
        arm(t, g_rand_int_range(p->rand, -1000, FUTURE_NS_MAX / 10), false);
    }
    aio_bh_schedule_oneshot(t->timer.ctx, rearmed_referee, t);
}

void soak_timer_rearmed(Producer *p, Slot *slot)
{
    SoakTimer *t = soak_timer_new(TIMER_REARMED, p, slot, rearmed_cb);

    arm(t, g_rand_int_range(p->rand, -1000, FUTURE_NS_MAX / 10), false);
    soak_later(p, rearm_later, t);
}

/* Cancelled before or after it fired; the referee runs after both (see bh.c). */
static void cancelled_cb(void *opaque)
{
    fired(opaque);
}

static void cancelled_referee(void *opaque)
{
    finish(opaque);
}

static void cancel_later(Producer *p, void *opaque)
{
    SoakTimer *t = opaque;

    timer_del(&t->timer);
    aio_bh_schedule_oneshot(t->timer.ctx, cancelled_referee, t);
}

void soak_timer_cancelled(Producer *p, Slot *slot)
{
    SoakTimer *t = soak_timer_new(TIMER_CANCELLED, p, slot, cancelled_cb);

    arm(t, g_rand_int_range(p->rand, -1000, FUTURE_NS_MAX / 10), false);
    soak_later(p, cancel_later, t);
}
