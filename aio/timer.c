/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Clocks, and the timers of a context: one binary heap per clock. */
#include "aio/aio-internal.h"

int64_t qemu_clock_get_ns(QEMUClockType type)
{
    return port_clock_ns(type == QEMU_CLOCK_HOST);
}

void init_clocks(QEMUTimerListNotifyCB *notify_cb)
{
}

/* ---- heap: parent of i is (i - 1) / 2; heap_index of each timer is its place ---------- */

static QEMUTimer *at(const TimerHeap *heap, unsigned i)
{
    return g_ptr_array_index(heap->timers, i);
}

static void place(TimerHeap *heap, unsigned i, QEMUTimer *ts)
{
    g_ptr_array_index(heap->timers, i) = ts;
    ts->heap_index = i;
}

static void sift_up(TimerHeap *heap, unsigned i, QEMUTimer *ts)
{
    while (i && at(heap, (i - 1) / 2)->expire_time > ts->expire_time) {
        place(heap, i, at(heap, (i - 1) / 2));
        i = (i - 1) / 2;
    }
    place(heap, i, ts);
}

static void sift_down(TimerHeap *heap, unsigned i, QEMUTimer *ts)
{
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child + 1 < heap->timers->len &&
            at(heap, child + 1)->expire_time < at(heap, child)->expire_time) {
            child++;
        }
        if (child >= heap->timers->len || at(heap, child)->expire_time >= ts->expire_time) {
            break;
        }
        place(heap, i, at(heap, child));
        i = child;
    }
    place(heap, i, ts);
}

static void heap_insert(AioContext *ctx, QEMUTimer *ts)
{
    TimerHeap *heap = &ctx->timers[ts->type];
    g_ptr_array_add(heap->timers, ts);
    sift_up(heap, heap->timers->len - 1, ts);
    qatomic_set(&ctx->timers_armed, ctx->timers_armed + 1);
}

static void heap_remove(AioContext *ctx, QEMUTimer *ts)
{
    TimerHeap *heap = &ctx->timers[ts->type];
    unsigned i = ts->heap_index;
    QEMUTimer *last = g_ptr_array_steal_index(heap->timers, heap->timers->len - 1);

    ts->expire_time = -1;
    if (last != ts) {
        sift_down(heap, i, last);
        sift_up(heap, last->heap_index, last);
    }
    qatomic_set(&ctx->timers_armed, ctx->timers_armed - 1);
}

/* ---- timers ---------------------------------------------------------------------------- */

void aio_timer_init(AioContext *ctx, QEMUTimer *ts, QEMUClockType type, int scale,
                    QEMUTimerCB *cb, void *opaque)
{
    *ts = (QEMUTimer) { .ctx = ctx, .cb = cb, .opaque = opaque, .expire_time = -1,
                        .scale = scale, .type = type };
}

QEMUTimer *aio_timer_new(AioContext *ctx, QEMUClockType type, int scale, QEMUTimerCB *cb,
                         void *opaque)
{
    QEMUTimer *ts = g_new(QEMUTimer, 1);
    aio_timer_init(ctx, ts, type, scale, cb, opaque);
    return ts;
}

/* Arm TS; with ONLY_EARLIER leave it if it expires no later already. */
static void arm(QEMUTimer *ts, int64_t expire_time_ns, bool only_earlier)
{
    AioContext *ctx = ts->ctx;
    bool first = false;

    expire_time_ns = MAX(expire_time_ns, 0);
    WITH_QEMU_LOCK_GUARD(&ctx->timer_lock) {
        bool armed = ts->expire_time >= 0;
        if (!only_earlier || !armed || ts->expire_time > expire_time_ns) {
            if (armed) {
                heap_remove(ctx, ts);
            }
            ts->expire_time = expire_time_ns;
            heap_insert(ctx, ts);
            first = ts->heap_index == 0;
        }
    }
    if (first) {
        aio_notify(ctx);
    }
}

void timer_mod_ns(QEMUTimer *ts, int64_t expire_time_ns)
{
    arm(ts, expire_time_ns, false);
}

/* TIME, in the timer's units; what is too large means never. */
static int64_t scaled_ns(const QEMUTimer *ts, int64_t time)
{
    int64_t ns;
    if (__builtin_mul_overflow(time, (int64_t)ts->scale, &ns)) {
        ns = time < 0 ? INT64_MIN : INT64_MAX;
    }
    return ns;
}

void timer_mod(QEMUTimer *ts, int64_t expire_timer)
{
    timer_mod_ns(ts, scaled_ns(ts, expire_timer));
}

void timer_mod_anticipate_ns(QEMUTimer *ts, int64_t expire_time_ns)
{
    arm(ts, expire_time_ns, true);
}

void timer_mod_anticipate(QEMUTimer *ts, int64_t expire_timer)
{
    timer_mod_anticipate_ns(ts, scaled_ns(ts, expire_timer));
}

void timer_del(QEMUTimer *ts)
{
    QEMU_MUTEX_GUARD(&ts->ctx->timer_lock);
    if (ts->expire_time >= 0) {
        heap_remove(ts->ctx, ts);
    }
}

uint64_t timer_expire_time_ns(QEMUTimer *ts)
{
    QEMU_MUTEX_GUARD(&ts->ctx->timer_lock);
    return ts->expire_time >= 0 ? (uint64_t)ts->expire_time : UINT64_MAX;
}

bool timer_pending(QEMUTimer *ts)
{
    return timer_expire_time_ns(ts) != UINT64_MAX;
}

bool timer_expired(QEMUTimer *ts, int64_t current_time)
{
    uint64_t expire_ns = timer_expire_time_ns(ts);
    return expire_ns <= INT64_MAX && (int64_t)expire_ns <= scaled_ns(ts, current_time);
}

void timer_free(QEMUTimer *ts)
{
    if (ts) {
        timer_del(ts);
        g_free(ts);
    }
}

void timer_deinit(QEMUTimer *ts)
{
    timer_del(ts);
}

/* ---- the loop's side ------------------------------------------------------------------- */

void aio__timers_init(AioContext *ctx)
{
    qemu_mutex_init(&ctx->timer_lock);
    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        ctx->timers[type].timers = g_ptr_array_new();
    }
}

void aio__timers_destroy(AioContext *ctx)
{
    if (ctx->timers_armed) {
        fprintf(stderr, "miniblk: aio_context_unref: %u timer(s) are still armed\n",
                ctx->timers_armed);
        abort();
    }
    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        g_ptr_array_free(ctx->timers[type].timers, true);
    }
    qemu_mutex_destroy(&ctx->timer_lock);
}

int64_t aio__timers_deadline_ns(AioContext *ctx)
{
    int64_t deadline_ns = -1;

    /* A racing timer_mod() notifies, and the loop looks again. */
    if (!qatomic_read(&ctx->timers_armed)) {
        return -1;
    }
    QEMU_MUTEX_GUARD(&ctx->timer_lock);
    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        const TimerHeap *heap = &ctx->timers[type];
        if (heap->timers->len) {
            int64_t ns = at(heap, 0)->expire_time - qemu_clock_get_ns(type);
            ns = MAX(ns, 0);
            deadline_ns = deadline_ns < 0 ? ns : MIN(deadline_ns, ns);
        }
    }
    return deadline_ns;
}

/* Disarm and return the first timer that expires at NOW or before. */
static QEMUTimer *pop_expired(AioContext *ctx, QEMUClockType type, int64_t now)
{
    TimerHeap *heap = &ctx->timers[type];
    QEMU_MUTEX_GUARD(&ctx->timer_lock);
    if (!heap->timers->len || at(heap, 0)->expire_time > now) {
        return NULL;
    }
    QEMUTimer *ts = at(heap, 0);
    heap_remove(ctx, ts);
    return ts;
}

static bool run_clock(AioContext *ctx, QEMUClockType type)
{
    unsigned budget;
    bool progress = false;

    WITH_QEMU_LOCK_GUARD(&ctx->timer_lock) {
        budget = ctx->timers[type].timers->len;
    }
    if (!budget) {
        return false;
    }
    int64_t now = qemu_clock_get_ns(type);
    /* The budget keeps a callback that re-arms in the past from holding up the loop. */
    while (budget--) {
        QEMUTimer *ts = pop_expired(ctx, type, now);
        if (!ts) {
            break;
        }
        QEMUTimerCB *cb = ts->cb;
        cb(ts->opaque);         /* may free TS */
        progress = true;
    }
    return progress;
}

bool aio__timers_run(AioContext *ctx)
{
    bool progress = false;

    if (!qatomic_read(&ctx->timers_armed)) {
        return false;
    }
    for (int type = 0; type < QEMU_CLOCK_MAX; type++) {
        progress |= run_clock(ctx, type);
    }
    return progress;
}
