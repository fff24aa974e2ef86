/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines: scheduled, moved between loops, woken by other loops and by plain threads. */
#include "tests/soak/soak.h"

enum { STOPS_MAX = 4, STEPS_MAX = 8 };

/* ---- wakers: threads without a loop -------------------------------------------------- */

typedef struct Wake {
    Coroutine *co;
    bool woken;                 /* atomic */
    QSIMPLEQ_ENTRY(Wake) next;
} Wake;

static QemuMutex wake_lock;     /* protects the next two */
static QSIMPLEQ_HEAD(, Wake) wake_queue = QSIMPLEQ_HEAD_INITIALIZER(wake_queue);
static bool wakers_end;
static QemuCond wake_cond;

static CoMutex journey_lock;    /* protects the next one */
static uint64_t journey_steps;  /* not atomic on purpose */

void soak_co_init(void)
{
    qemu_cond_init(&wake_cond);
    qemu_co_mutex_init(&journey_lock);
}

void *soak_waker(void *opaque)
{
    QEMU_MUTEX_GUARD(&wake_lock);
    for (;;) {
        Wake *wake = QSIMPLEQ_FIRST(&wake_queue);
        if (wake) {
            Coroutine *co = wake->co;
            QSIMPLEQ_REMOVE_HEAD(&wake_queue, next);
            qemu_mutex_unlock(&wake_lock);
            qatomic_set(&wake->woken, true);    /* WAKE is gone as soon as CO runs */
            aio_co_wake(co);
            qemu_mutex_lock(&wake_lock);
        } else if (wakers_end) {
            return NULL;
        } else {
            qemu_cond_wait(&wake_cond, &wake_lock);
        }
    }
}

void soak_wakers_stop(void)
{
    QEMU_MUTEX_GUARD(&wake_lock);
    wakers_end = true;
    qemu_cond_broadcast(&wake_cond);
}

/* ---- one stop ------------------------------------------------------------------------ */

typedef struct Once {
    SoakId id;
} Once;

static void coroutine_fn once_entry(void *opaque)
{
    const Once *o = opaque;

    ledger_seen(o->id);
    slot_put(slot_here(), 1);
}

void soak_co_once(Producer *p, Slot *slot)
{
    Once *o = slot_new(slot, Once);
    Coroutine *co = qemu_coroutine_create(once_entry, o);

    o->id = ledger_open(CO_ONCE, p, slot);
    if (g_rand_int_range(p->rand, 0, 2)) {
        aio_co_schedule(slot->ctx, co);
    } else {
        aio_co_enter(slot->ctx, co);
    }
}

/* ---- journeys ------------------------------------------------------------------------ */

typedef enum Step { HOP, WAKE_BY_LOOP, WAKE_BY_THREAD, SLEEP, LOCKED, STEPS } Step;

typedef struct Journey {
    SoakId id;
    Slot *stops[STOPS_MAX];     /* all in use until the end; the first is the home */
    unsigned stop_count, step_count;
    struct {
        Step step;
        unsigned stop;
        int64_t ns;
    } steps[STEPS_MAX];
} Journey;

static void expect_here(SoakId id, const Slot *slot)
{
    if (slot_here() != slot || qemu_get_current_aio_context() != slot->ctx) {
        soak_fail(id, "it goes on in slot %u, not in slot %u", slot_here()->index,
                  slot->index);
    }
    if (qemu_coroutine_get_aio_context(qemu_coroutine_self()) != slot->ctx) {
        soak_fail(id, "the coroutine does not know that it runs in slot %u", slot->index);
    }
}

static void coroutine_fn hop(Journey *j, Slot *to)
{
    ledger_expect(CO_HOP, 1);
    aio_co_reschedule_self(to->ctx);
    ledger_saw(CO_HOP, 1);
    expect_here(j->id, to);
}

static void wake_cb(void *opaque)
{
    Wake *wake = opaque;

    qatomic_set(&wake->woken, true);
    aio_co_wake(wake->co);
}

static void check_woken(const Journey *j, const Wake *wake)
{
    if (!qatomic_read(&wake->woken)) {
        soak_fail(j->id, "it was woken by nobody");
    }
}

static void coroutine_fn wait_for_loop(Journey *j, Slot *waker)
{
    Wake wake = { .co = qemu_coroutine_self() };

    ledger_expect(CO_WAKE_LOOP, 1);
    aio_bh_schedule_oneshot(waker->ctx, wake_cb, &wake);
    qemu_coroutine_yield();
    check_woken(j, &wake);
    ledger_saw(CO_WAKE_LOOP, 1);
}

static void coroutine_fn wait_for_thread(Journey *j)
{
    Wake wake = { .co = qemu_coroutine_self() };

    ledger_expect(CO_WAKE_THREAD, 1);
    qemu_mutex_lock(&wake_lock);
    QSIMPLEQ_INSERT_TAIL(&wake_queue, &wake, next);
    qemu_cond_signal(&wake_cond);
    qemu_mutex_unlock(&wake_lock);
    qemu_coroutine_yield();
    check_woken(j, &wake);
    ledger_saw(CO_WAKE_THREAD, 1);
}

static void coroutine_fn sleep_awhile(Journey *j, int64_t ns)
{
    int64_t until_ns = get_clock() + ns;

    ledger_expect(CO_SLEEP, 1);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, ns);
    if (get_clock() < until_ns) {
        soak_fail(j->id, "it slept too short");
    }
    ledger_saw(CO_SLEEP, 1);
}

static void coroutine_fn locked_step(void)
{
    qemu_co_mutex_lock(&journey_lock);
    journey_steps++;
    qemu_co_mutex_unlock(&journey_lock);
}

static void coroutine_fn journey_entry(void *opaque)
{
    Journey *j = opaque;
    Slot *home = j->stops[0], *at = home, *stops[STOPS_MAX];
    unsigned stop_count = j->stop_count;

    expect_here(j->id, home);
    for (unsigned i = 0; i < j->step_count; i++) {
        Slot *stop = j->stops[j->steps[i].stop];

        switch (j->steps[i].step) {
        case HOP:
            hop(j, stop);
            at = stop;
            break;
        case WAKE_BY_LOOP:
            wait_for_loop(j, stop);
            break;
        case WAKE_BY_THREAD:
            wait_for_thread(j);
            break;
        case SLEEP:
            sleep_awhile(j, j->steps[i].ns);
            break;
        default:
            locked_step();
        }
        expect_here(j->id, at);
    }
    hop(j, home);
    ledger_seen(j->id);
    /* J goes with its home */
    memcpy(stops, j->stops, sizeof(stops));
    for (unsigned i = stop_count; i-- > 0; ) {
        slot_put(stops[i], 1);
    }
}

void soak_co_journey(Producer *p, Slot *slot)
{
    Journey *j = slot_new(slot, Journey);

    j->id = ledger_open(CO_JOURNEY, p, slot);
    j->stops[0] = slot;
    j->stop_count = g_rand_int_range(p->rand, 1, STOPS_MAX + 1);
    for (unsigned i = 1; i < j->stop_count; i++) {
        j->stops[i] = slot_pick(p->rand, NULL);
    }
    j->step_count = g_rand_int_range(p->rand, 1, STEPS_MAX + 1);
    for (unsigned i = 0; i < j->step_count; i++) {
        j->steps[i].step = g_rand_int_range(p->rand, 0, STEPS);
        j->steps[i].stop = g_rand_int_range(p->rand, 0, j->stop_count);
        j->steps[i].ns = g_rand_int_range(p->rand, 0, 200000);
    }
    aio_co_schedule(slot->ctx, qemu_coroutine_create(journey_entry, j));
}
