/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many threads make work for event loops that are created and destroyed meanwhile; every
 * event is counted, none may be lost, none may come twice.
 *
 *   MINIBLK_SOAK_SECONDS=N      how long (5; at most 60)
 *   MINIBLK_SOAK_SEED=N         what the threads do (each run another)
 *   MINIBLK_SOAK_OP=NAME        only this
 *
 *      producers (14)       wakers (2)     loops (8 and main)   main thread
 *      choose a loop        aio_co_wake()  do the work          choose a loop
 *      enter in the ledger                 close the entry      wait until it is unused
 *      make the work                                            destroy it, create another
 *
 * Nobody sleeps to wait for somebody: whatever is lost stops the run, and a watchdog prints
 * what is missing.
 *
 * Under load a lost wake-up is made good by the next event. So every now and then it is quiet:
 * two producers have a loop each to themselves, make one event at a time, and wait for it
 * without sleeping; the next event comes while the loop is on its way to sleep.
 */
#include "tests/soak/soak.h"
#include "miniblk/main-loop.h"

enum { SECONDS_DEFAULT = 5, SECONDS_MAX = 60, STUCK_SECONDS = 60, WINDOW = 24 };

Producer producers[PRODUCERS];
bool soak_stopping;
static unsigned producers_running;      /* atomic */

enum { QUIET_PRODUCERS = 2, QUIET_EVENTS = 2000, LOUD_RENEWALS = 8 };
static int quiet_left;                  /* atomic; events until the end of a quiet phase */
static Slot *quiet_slots[QUIET_PRODUCERS];      /* atomic */
static QemuEvent loud;                  /* set while it is not quiet */

typedef struct OpInfo {
    const char *name;
    SoakOp *op;
    unsigned weight, weight_quiet;      /* when quiet, only what stays in one loop */
} OpInfo;
static const OpInfo ops[] = {
    { "bh-oneshot", soak_bh_oneshot, 8, 20 },
    { "bh-chained", soak_bh_chained, 3, 5 },
    { "bh-nested", soak_bh_nested, 2, 5 },
    { "bh-reused", soak_bh_reused, 8, 20 },
    { "bh-idle", soak_bh_idle, 1, 0 },
    { "bh-cancelled", soak_bh_cancelled, 3, 10 },
    { "bh-cancelled-at-home", soak_bh_cancelled_at_home, 1, 0 },
    { "bh-deleted", soak_bh_deleted, 3, 10 },
    { "bh-deletes-itself", soak_bh_deletes_itself, 3, 10 },
    { "timer-once", soak_timer_once, 4, 1 },
    { "timer-rearmed", soak_timer_rearmed, 3, 1 },
    { "timer-rearms-itself", soak_timer_rearms_itself, 2, 0 },
    { "timer-cancelled", soak_timer_cancelled, 3, 1 },
    { "co-once", soak_co_once, 4, 10 },
    { "co-journey", soak_co_journey, 4, 0 },
    { "fd-eventfd", soak_fd_eventfd, 3, 10 },
    { "fd-moved", soak_fd_moved, 2, 0 },
    { "fd-rivals", soak_fd_rivals, 2, 0 },
    { "fd-pipe", soak_fd_pipe, 1, 0 },
    { "lock", soak_lock, 2, 0 },
    { "glib-source", soak_glib_source, 3, 5 },
};

/* ---- producers ----------------------------------------------------------------------- */

static void wait_for_window(Producer *p, uint64_t open_max)
{
    while (p->opened - qatomic_read_sc(&p->closed) > open_max) {
        qemu_event_reset(&p->progress);
        if (p->opened - qatomic_read_sc(&p->closed) > open_max) {
            qemu_event_wait(&p->progress);
        }
    }
}

static void run_later(Producer *p, unsigned i)
{
    Later later = p->laters[i];

    if (later.fn) {
        p->laters[i].fn = NULL;
        later.fn(p, later.opaque);
    }
}

void soak_later(Producer *p, void (*fn)(Producer *p, void *opaque), void *opaque)
{
    unsigned i = g_rand_int_range(p->rand, 0, LATERS);

    run_later(p, i);
    p->laters[i] = (Later) { fn, opaque };
}

static void run_all_laters(Producer *p)
{
    for (int i = 0; i < LATERS; i++) {
        run_later(p, i);
    }
}

static unsigned weight(const OpInfo *info, bool quiet)
{
    const char *only = g_getenv("MINIBLK_SOAK_OP");

    if (only && !g_str_equal(only, info->name)) {
        return 0;
    }
    return quiet ? info->weight_quiet : info->weight;
}

static SoakOp *choose_op(GRand *rand, bool quiet)
{
    unsigned total = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(ops); i++) {
        total += weight(&ops[i], quiet);
    }
    if (!total) {
        if (!quiet) {
            soak_fail(0, "MINIBLK_SOAK_OP: there is no such operation");
        }
        return choose_op(rand, false);
    }
    int at = g_rand_int_range(rand, 0, total);
    for (size_t i = 0; ; i++) {
        at -= weight(&ops[i], quiet);
        if (at < 0) {
            return ops[i].op;
        }
    }
}

static void produce_loud(Producer *p)
{
    wait_for_window(p, WINDOW);
    choose_op(p->rand, false)(p, slot_pick(p->rand, NULL));
    run_later(p, g_rand_int_range(p->rand, 0, LATERS));
}

/* One event in a loop that has nothing else to do, and to its end. */
static void produce_quiet(Producer *p)
{
    Slot *slot = qatomic_read(&quiet_slots[p->index]);

    run_all_laters(p);
    wait_for_window(p, 0);
    if (slot_get(slot)) {
        choose_op(p->rand, true)(p, slot);
        run_all_laters(p);
        while (p->opened != qatomic_read_sc(&p->closed) ||
               (!slot_unused(slot) && qatomic_read(&quiet_left) > 0)) {
            sched_yield();
        }
    }
    if (qatomic_fetch_dec(&quiet_left) == 1) {
        qemu_event_set(&loud);
        aio_wait_kick();
    }
}

static void *producer_run(void *opaque)
{
    Producer *p = opaque;

    while (!qatomic_read(&soak_stopping)) {
        if (qatomic_load_acquire(&quiet_left) <= 0) {
            produce_loud(p);
        } else if (p->index < QUIET_PRODUCERS) {
            produce_quiet(p);
        } else {
            run_all_laters(p);
            qemu_event_wait(&loud);
        }
    }
    run_all_laters(p);
    wait_for_window(p, 0);
    qatomic_dec(&producers_running);
    aio_wait_kick();
    return NULL;
}

/* Main thread. The loops stay, because ending one would wake it. */
static void be_quiet(unsigned round)
{
    for (unsigned i = 0; i < QUIET_PRODUCERS; i++) {
        qatomic_set(&quiet_slots[i], &slots[(round * QUIET_PRODUCERS + i) % LOOPS]);
    }
    qemu_event_reset(&loud);
    qatomic_set_mb(&quiet_left, QUIET_EVENTS);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&quiet_left) > 0 &&
                                  !qatomic_read(&soak_stopping));
    qatomic_set_mb(&quiet_left, 0);
    qemu_event_set(&loud);
}

static void producers_start(uint32_t seed)
{
    producers_running = PRODUCERS;
    for (int i = 0; i < PRODUCERS; i++) {
        Producer *p = &producers[i];
        *p = (Producer) { .index = i, .rand = g_rand_new_with_seed(seed + i) };
        qemu_event_init(&p->progress, false);
        qemu_thread_create(&p->thread, "producer", producer_run, p, QEMU_THREAD_JOINABLE);
    }
}

static void producers_join(void)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&producers_running));
    for (int i = 0; i < PRODUCERS; i++) {
        qemu_thread_join(&producers[i].thread);
        qemu_event_destroy(&producers[i].progress);
        g_rand_free(producers[i].rand);
    }
}

/* ---- watchdog ------------------------------------------------------------------------ */

static QemuMutex watch_lock;    /* protects the next one */
static bool watch_over;
static QemuCond watch_cond;

static void *watchdog_run(void *opaque)
{
    int64_t end_ns = get_clock() + *(int *)opaque * NANOSECONDS_PER_SECOND;

    QEMU_MUTEX_GUARD(&watch_lock);
    while (!watch_over) {
        int64_t left_ms = (end_ns - get_clock()) / SCALE_MS;
        if (left_ms <= 0) {
            soak_fail(0, "no end in sight: something was lost");
        }
        qemu_cond_timedwait(&watch_cond, &watch_lock, left_ms);
    }
    return NULL;
}

static void watchdog_stop(QemuThread *watchdog)
{
    WITH_QEMU_LOCK_GUARD(&watch_lock) {
        watch_over = true;
        qemu_cond_signal(&watch_cond);
    }
    qemu_thread_join(watchdog);
}

/* ---- the run ------------------------------------------------------------------------- */

static void time_is_up(void *opaque)
{
    qatomic_set_mb(&soak_stopping, true);
}

static uint64_t number_from_environment(const char *name, uint64_t otherwise, uint64_t max)
{
    const char *text = g_getenv(name);
    guint64 value = otherwise;
    g_autoptr(GError) err = NULL;

    if (text && !g_ascii_string_to_unsigned(text, 10, 0, max, &value, &err)) {
        g_error("%s: %s", name, err->message);
    }
    return value;
}

static void test_soak(void)
{
    int seconds = number_from_environment("MINIBLK_SOAK_SECONDS", SECONDS_DEFAULT,
                                          SECONDS_MAX);
    uint32_t seed = number_from_environment("MINIBLK_SOAK_SEED",
                                            (uint32_t)g_test_rand_int(), UINT32_MAX);
    int stuck_seconds = seconds + STUCK_SECONDS;
    unsigned rounds = 0;
    QemuThread watchdog, wakers[WAKERS];
    QEMUTimer *end = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, SCALE_NS,
                                   time_is_up, NULL);

    qemu_cond_init(&watch_cond);
    qemu_event_init(&loud, true);
    ledger_init(seed);
    soak_co_init();
    slots_open_all();
    qemu_thread_create(&watchdog, "watchdog", watchdog_run, &stuck_seconds,
                       QEMU_THREAD_JOINABLE);
    for (int i = 0; i < WAKERS; i++) {
        qemu_thread_create(&wakers[i], "waker", soak_waker, NULL, QEMU_THREAD_JOINABLE);
    }
    producers_start(seed);

    timer_mod_ns(end, get_clock() + seconds * NANOSECONDS_PER_SECOND);
    while (!qatomic_read(&soak_stopping)) {
        be_quiet(rounds++);
        for (int i = 0; i < LOUD_RENEWALS && !qatomic_read(&soak_stopping); i++) {
            slot_renew(&slots[i % LOOPS]);
        }
    }
    timer_free(end);
    producers_join();
    soak_wakers_stop();
    for (int i = 0; i < WAKERS; i++) {
        qemu_thread_join(&wakers[i]);
    }
    slots_close_all();
    ledger_check();
    ledger_print(stdout);
    g_test_message("%u quiet phases of %d events", rounds, QUIET_EVENTS);
    ledger_free();
    watchdog_stop(&watchdog);
}

static void test_skipped(gconstpointer why)
{
    g_test_skip(why);
}

int main(int argc, char **argv)
{
    g_autofree char *why = NULL;
    Error *err = NULL;

    g_test_init(&argc, &argv, NULL);
    if (qemu_init_main_loop(&err) < 0) {
        /* most likely the fd monitor that is asked for */
        why = g_strdup(error_get_pretty(err));
        error_free(err);
        g_test_add_data_func("/soak/every-event-once", why, test_skipped);
    } else {
        g_test_add_func("/soak/every-event-once", test_soak);
    }
    return g_test_run();
}
