/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Groups of users with common limits.
 *
 * A request that may not go queues in its member and yields. Whoever finds that there is
 * room again (a timer, new limits) serves the queues in turn: it charges the request for its
 * owner and schedules its coroutine, which runs in its own thread. Nothing is spawned for
 * that: a request that waits, or has been let go and not yet run, is counted by the token
 * it holds anyway.
 *
 *      armed[d]   the member whose timer says when direction d can be served next; not NULL
 *                 exactly while somebody waits in d
 *
 * Why a timer's callback cannot outlive its member. A timer is armed in a member that has a
 * request waiting. That request runs again, and drops its token, in the timer's own thread,
 * so not while the callback is at work or about to be called there. And a member goes, or
 * moves, only after all its tokens have been dropped. For this a request waits in its
 * member's context, wherever it came from.
 */
#include "block/block-internal.h"
#include "miniblk/throttle-groups.h"

struct ThrottleWaiter {
    Coroutine *co;
    int64_t bytes;
    QSIMPLEQ_ENTRY(ThrottleWaiter) next;
};

struct ThrottleGroup {
    char *name;
    bool is_object;             /* main thread */
    QTAILQ_ENTRY(ThrottleGroup) list;   /* main thread */

    /* A leaf but for the locks of timers and loops. Protects what follows. */
    QemuMutex lock;
    ThrottleState ts;
    QTAILQ_HEAD(, ThrottleGroupMember) members; /* the main thread may read it without */
    ThrottleGroupMember *turn[THROTTLE_MAX];    /* whose turn it is; NULL: the first's */
    ThrottleGroupMember *armed[THROTTLE_MAX];
    ThrottleDirection first;    /* the direction to serve first: not that of the last turn */
};

static QTAILQ_HEAD(, ThrottleGroup) groups = QTAILQ_HEAD_INITIALIZER(groups);

static const QEMUClockType group_clock = QEMU_CLOCK_VIRTUAL;

static ThrottleGroup *group_of(ThrottleGroupMember *tgm)
{
    return tgm->throttle_state ? container_of(tgm->throttle_state, ThrottleGroup, ts) : NULL;
}

/* ---- turns ------------------------------------------------------------------------ */

/* Round and round; NULL comes before the first. */
static ThrottleGroupMember *member_after(ThrottleGroup *tg, ThrottleGroupMember *m)
{
    m = m ? QTAILQ_NEXT(m, list) : NULL;
    return m ? m : QTAILQ_FIRST(&tg->members);
}

/* The first member with a request waiting, from the one on whose turn it is. */
static ThrottleGroupMember *next_waiting(ThrottleGroup *tg, ThrottleDirection d)
{
    ThrottleGroupMember *first = tg->turn[d] ? tg->turn[d] : QTAILQ_FIRST(&tg->members);
    ThrottleGroupMember *m = first;

    while (m && QSIMPLEQ_EMPTY(&m->waiting[d])) {
        m = member_after(tg, m);
        if (m == first) {
            return NULL;
        }
    }
    return m;
}

/* Charge the oldest waiting request of TGM and let it go. */
static void let_go(ThrottleGroup *tg, ThrottleGroupMember *tgm, ThrottleDirection d)
{
    ThrottleWaiter *w = QSIMPLEQ_FIRST(&tgm->waiting[d]);

    QSIMPLEQ_REMOVE_HEAD(&tgm->waiting[d], next);
    throttle_account(&tg->ts, d, w->bytes);
    aio_co_schedule(tgm->aio_context, w->co);   /* W is on its stack */
}

/* Serve one request of direction D, or see to it that somebody does when it is time. */
static bool serve_one(ThrottleGroup *tg, ThrottleDirection d)
{
    ThrottleGroupMember *m = next_waiting(tg, d);

    if (!m) {
        return false;
    }
    if (throttle_schedule_timer(&tg->ts, &m->throttle_timers, d)) {
        tg->armed[d] = m;
        port_note_pair(PORT_NOTE_SERVED, &tg->armed[d], m->aio_context);
        return false;
    }
    let_go(tg, m, d);
    tg->turn[d] = member_after(tg, m);
    /* Reads and writes alternate where one limit is for both. */
    tg->first = !d;
    return true;
}

static void serve(ThrottleGroup *tg)
{
    for (int d = 0; d < THROTTLE_MAX; d++) {
        if (tg->armed[d]) {
            timer_del(tg->armed[d]->throttle_timers.timers[d]);
            tg->armed[d] = NULL;
            port_note_pair(PORT_NOTE_SERVED, &tg->armed[d], NULL);
        }
    }
    while (serve_one(tg, tg->first) || serve_one(tg, !tg->first)) {
        /* until each direction is empty or has its timer armed */
    }
}

static void timer_cb(void *opaque)
{
    ThrottleGroup *tg = group_of(opaque);

    QEMU_MUTEX_GUARD(&tg->lock);
    serve(tg);
}

/* ---- requests --------------------------------------------------------------------- */

/* With the lock held. */
static bool try_to_pass(ThrottleGroup *tg, ThrottleGroupMember *tgm, int64_t bytes,
                        ThrottleDirection d)
{
    if (!tgm->io_limits_disabled &&
        (tg->armed[d] || throttle_wait_ns(&tg->ts, &tgm->throttle_timers, d) > 0)) {
        return false;
    }
    throttle_account(&tg->ts, d, bytes);
    return true;
}

/* Queue and yield. With the lock held, which is dropped. */
static void coroutine_fn wait_for_turn(ThrottleGroup *tg, ThrottleGroupMember *tgm,
                                       int64_t bytes, ThrottleDirection d)
{
    ThrottleWaiter w = { .co = qemu_coroutine_self(), .bytes = bytes };

    QSIMPLEQ_INSERT_TAIL(&tgm->waiting[d], &w, next);
    if (!tg->armed[d]) {
        serve(tg);              /* it may be our turn at once; we are scheduled then */
    }
    qemu_mutex_unlock(&tg->lock);
    port_note(PORT_NOTE_CO_WAIT, &tg->armed[d], "its turn among");
    qemu_coroutine_yield();
}

void coroutine_fn throttle_group_co_io_limits_intercept(ThrottleGroupMember *tgm,
                                                        int64_t bytes,
                                                        ThrottleDirection direction)
{
    ThrottleGroup *tg = group_of(tgm);
    AioContext *here = qemu_get_current_aio_context();

    g_assert(qemu_in_coroutine() && bytes >= 0);
    qemu_mutex_lock(&tg->lock);
    if (likely(try_to_pass(tg, tgm, bytes, direction))) {
        qemu_mutex_unlock(&tg->lock);
        return;
    }
    if (here == tgm->aio_context) {
        wait_for_turn(tg, tgm, bytes, direction);
        return;
    }
    /* The comment at the top says why it must wait at home. */
    qemu_mutex_unlock(&tg->lock);
    aio_co_reschedule_self(tgm->aio_context);
    qemu_mutex_lock(&tg->lock);
    if (try_to_pass(tg, tgm, bytes, direction)) {
        qemu_mutex_unlock(&tg->lock);
    } else {
        wait_for_turn(tg, tgm, bytes, direction);
    }
    aio_co_reschedule_self(here);
}

void throttle_group_disable_limits(ThrottleGroupMember *tgm)
{
    ThrottleGroup *tg = group_of(tgm);

    GLOBAL_STATE_CODE();
    if (!tg) {
        tgm->io_limits_disabled++;
        return;
    }
    QEMU_MUTEX_GUARD(&tg->lock);
    if (tgm->io_limits_disabled++ > 0) {
        return;
    }
    for (int d = 0; d < THROTTLE_MAX; d++) {
        while (!QSIMPLEQ_EMPTY(&tgm->waiting[d])) {
            let_go(tg, tgm, d);
        }
    }
    serve(tg);                  /* the timer may have been ours */
}

void throttle_group_enable_limits(ThrottleGroupMember *tgm)
{
    ThrottleGroup *tg = group_of(tgm);

    GLOBAL_STATE_CODE();
    g_assert(tgm->io_limits_disabled > 0);
    if (!tg) {
        tgm->io_limits_disabled--;
        return;
    }
    QEMU_MUTEX_GUARD(&tg->lock);
    tgm->io_limits_disabled--;
}

/* ---- limits ----------------------------------------------------------------------- */

void throttle_group_set_limits(ThrottleGroup *tg, ThrottleConfig *cfg)
{
    QEMU_MUTEX_GUARD(&tg->lock);
    throttle_config(&tg->ts, group_clock, cfg);
    serve(tg);
}

void throttle_group_get_limits(ThrottleGroup *tg, ThrottleConfig *cfg)
{
    QEMU_MUTEX_GUARD(&tg->lock);
    throttle_get_config(&tg->ts, cfg);
}

void throttle_group_config(ThrottleGroupMember *tgm, ThrottleConfig *cfg)
{
    throttle_group_set_limits(group_of(tgm), cfg);
}

void throttle_group_get_config(ThrottleGroupMember *tgm, ThrottleConfig *cfg)
{
    throttle_group_get_limits(group_of(tgm), cfg);
}

const char *throttle_group_get_name(ThrottleGroupMember *tgm)
{
    return group_of(tgm)->name;
}

/* ---- life of groups --------------------------------------------------------------- */

/* Object or not. */
static ThrottleGroup *find(const char *name)
{
    ThrottleGroup *tg;

    GLOBAL_STATE_CODE();
    QTAILQ_FOREACH(tg, &groups, list) {
        if (!strcmp(tg->name, name)) {
            return tg;
        }
    }
    return NULL;
}

static ThrottleGroup *make(const char *name)
{
    ThrottleGroup *tg = g_new0(ThrottleGroup, 1);

    tg->name = g_strdup(name);
    qemu_mutex_init(&tg->lock);
    throttle_init(&tg->ts);
    QTAILQ_INIT(&tg->members);
    QTAILQ_INSERT_TAIL(&groups, tg, list);
    port_note(PORT_NOTE_NAME, &tg->armed[THROTTLE_READ], "reads of throttle group '%s'", name);
    port_note(PORT_NOTE_NAME, &tg->armed[THROTTLE_WRITE], "writes of throttle group '%s'",
              name);
    return tg;
}

static void free_if_unused(ThrottleGroup *tg)
{
    if (tg->is_object || !QTAILQ_EMPTY(&tg->members)) {
        return;
    }
    QTAILQ_REMOVE(&groups, tg, list);
    qemu_mutex_destroy(&tg->lock);
    g_free(tg->name);
    g_free(tg);
}

ThrottleGroup *throttle_group_new(const char *name, ThrottleConfig *cfg, Error **errp)
{
    if (find(name)) {
        error_setg(errp, "A group with this name already exists");
        return NULL;
    }
    ThrottleGroup *tg = make(name);
    tg->is_object = true;
    throttle_group_set_limits(tg, cfg);
    return tg;
}

bool throttle_group_delete(ThrottleGroup *tg, Error **errp)
{
    GLOBAL_STATE_CODE();
    g_assert(tg->is_object);
    if (!QTAILQ_EMPTY(&tg->members)) {
        error_setg(errp, "object '%s' is in use, can not be deleted", tg->name);
        return false;
    }
    tg->is_object = false;
    free_if_unused(tg);
    return true;
}

bool throttle_group_exists(const char *groupname)
{
    return find(groupname) != NULL;
}

ThrottleGroup *throttle_group_by_name(const char *name)
{
    ThrottleGroup *tg = find(name);
    return tg && tg->is_object ? tg : NULL;
}

ThrottleGroup *throttle_group_next(ThrottleGroup *tg)
{
    GLOBAL_STATE_CODE();
    do {
        tg = tg ? QTAILQ_NEXT(tg, list) : QTAILQ_FIRST(&groups);
    } while (tg && !tg->is_object);
    return tg;
}

const char *throttle_group_name(const ThrottleGroup *tg)
{
    return tg->name;
}

/* ---- members ---------------------------------------------------------------------- */

static void assert_nobody_waits(ThrottleGroupMember *tgm)
{
    for (int d = 0; d < THROTTLE_MAX; d++) {
        g_assert(QSIMPLEQ_EMPTY(&tgm->waiting[d]));
    }
}

void throttle_group_register_tgm(ThrottleGroupMember *tgm, const char *groupname,
                                 AioContext *ctx)
{
    ThrottleGroup *tg = find(groupname);

    GLOBAL_STATE_CODE();
    g_assert(!tgm->throttle_state);
    if (!tg) {
        tg = make(groupname);
    }
    tgm->aio_context = ctx;
    for (int d = 0; d < THROTTLE_MAX; d++) {
        QSIMPLEQ_INIT(&tgm->waiting[d]);
    }
    throttle_timers_init(&tgm->throttle_timers, ctx, group_clock, timer_cb, timer_cb, tgm);
    WITH_QEMU_LOCK_GUARD(&tg->lock) {
        QTAILQ_INSERT_TAIL(&tg->members, tgm, list);
    }
    qatomic_set(&tgm->throttle_state, &tg->ts);
}

void throttle_group_unregister_tgm(ThrottleGroupMember *tgm)
{
    ThrottleGroup *tg = group_of(tgm);

    GLOBAL_STATE_CODE();
    if (!tg) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&tg->lock) {
        assert_nobody_waits(tgm);
        for (int d = 0; d < THROTTLE_MAX; d++) {
            g_assert(tg->armed[d] != tgm);
            if (tg->turn[d] == tgm) {
                tg->turn[d] = QTAILQ_NEXT(tgm, list);
            }
        }
        QTAILQ_REMOVE(&tg->members, tgm, list);
    }
    throttle_timers_destroy(&tgm->throttle_timers);
    qatomic_set(&tgm->throttle_state, NULL);
    free_if_unused(tg);
}

void throttle_group_attach_aio_context(ThrottleGroupMember *tgm, AioContext *new_context)
{
    GLOBAL_STATE_CODE();
    if (tgm->throttle_state) {
        tgm->aio_context = new_context;
        throttle_timers_attach_aio_context(&tgm->throttle_timers, new_context);
    }
}

void throttle_group_detach_aio_context(ThrottleGroupMember *tgm)
{
    ThrottleGroup *tg = group_of(tgm);

    GLOBAL_STATE_CODE();
    if (!tg) {
        return;
    }
    WITH_QEMU_LOCK_GUARD(&tg->lock) {
        assert_nobody_waits(tgm);
    }
    throttle_timers_detach_aio_context(&tgm->throttle_timers);
}
