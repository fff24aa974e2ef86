/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The coroutine of a job: starting, sleeping, pausing, waking.
 *
 *      job->busy   who may enter the coroutine
 *      false       it has yielded in do_yield(), or was not started. Whoever sets BUSY (under
 *                  the job lock) enters it, and nobody else does
 *      true        it runs, or is on its way to run, or waits for a request. Waking the job
 *                  is no business of anybody
 *
 * So a timer and a user who wake a sleeping job at the same moment cannot both enter it. A
 * wake-up that comes late or twice does no harm: the job looks whether it has to go on
 * sleeping (pause), or is allowed to return early (yield, sleep).
 */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"
#include "miniblk/graph-lock.h"

bool job_started_locked(Job *job)
{
    return job->co;
}

static bool should_pause(Job *job)
{
    return job->pause_count > 0;
}

bool job_is_paused(Job *job)
{
    JOB_LOCK_GUARD();
    return job->paused;
}

bool job_user_paused_locked(Job *job)
{
    return job->user_paused;
}

bool job__is_active(Job *job)
{
    return job->busy && !job_is_completed_locked(job);
}

void job__assert_at_rest(Job *job)
{
    g_assert(job->paused || job->deferred_to_main_loop);
}

/* ---- in the coroutine ------------------------------------------------------------------- */

/* Yield until somebody sets BUSY; with DEADLINE_NS >= 0 the timer does. */
static void coroutine_fn do_yield(Job *job, int64_t deadline_ns)
{
    g_assert(job->busy);
    if (deadline_ns >= 0) {
        timer_mod_ns(&job->sleep_timer, deadline_ns);
    }
    job->busy = false;
    job_unlock();
    /* From here on we may be woken; see qemu_co_mutex_lock() on being woken before a yield. */
    aio_wait_kick();
    qemu_coroutine_yield();
    job_lock();
    g_assert(job->busy);
    /* Whoever woke us may have looked up our context just before it changed. */
    while (qemu_get_current_aio_context() != job->aio_context) {
        AioContext *ctx = job->aio_context;
        job_unlock();
        aio_co_reschedule_self(ctx);
        job_lock();
    }
}

static void coroutine_fn stay_paused(Job *job)
{
    JobStatus status = job->status;

    job__set_status(job, status == JOB_STATUS_READY ? JOB_STATUS_STANDBY : JOB_STATUS_PAUSED);
    job->paused = true;
    while (should_pause(job) && !job_is_cancelled_locked(job)) {
        do_yield(job, -1);
    }
    job->paused = false;
    job__set_status(job, status);
}

static void coroutine_fn pause_point(Job *job)
{
    if (!should_pause(job) || job_is_cancelled_locked(job)) {
        return;
    }
    if (job->driver->pause) {
        job_unlock();
        job->driver->pause(job);
        job_lock();
    }
    if (should_pause(job) && !job_is_cancelled_locked(job)) {
        stay_paused(job);
    }
    if (job->driver->resume) {
        job_unlock();
        job->driver->resume(job);
        job_lock();
    }
}

static void assert_is_self(Job *job)
{
    g_assert(job->co && qemu_coroutine_self() == job->co);
}

void coroutine_fn job_pause_point(Job *job)
{
    assert_is_self(job);
    assert_bdrv_graph_unlocked();
    JOB_LOCK_GUARD();
    pause_point(job);
}

static void coroutine_fn sleep_until(Job *job, int64_t deadline_ns)
{
    assert_is_self(job);
    assert_bdrv_graph_unlocked();
    JOB_LOCK_GUARD();
    if (job_is_cancelled_locked(job)) {
        return;
    }
    if (!should_pause(job)) {
        do_yield(job, deadline_ns);
    }
    pause_point(job);
}

void coroutine_fn job_yield(Job *job)
{
    sleep_until(job, -1);
}

void coroutine_fn job_sleep_ns(Job *job, int64_t ns)
{
    int64_t deadline_ns;

    if (__builtin_add_overflow(qemu_clock_get_ns(QEMU_CLOCK_REALTIME), MAX(ns, 0),
                               &deadline_ns)) {
        deadline_ns = INT64_MAX;
    }
    sleep_until(job, deadline_ns);
}

void job_transition_to_ready(Job *job)
{
    JOB_LOCK_GUARD();
    job__set_status(job, JOB_STATUS_READY);
    job__news(job, JOB_NEWS_READY);
}

/* ---- beginning and end ------------------------------------------------------------------ */

/*
 * RUN has returned. A drain has waited for us so far. It cannot wait any longer: what follows
 * drains nodes itself. By now the drain's caller has not been told yet that all is at rest
 * (it polls, or we would not run), so it will look at the graph that we leave behind.
 */
static void run_ended_bh(void *opaque)
{
    Job *job = opaque;

    JOB_LOCK_GUARD();
    job_ref_locked(job);
    job->busy = false;
    aio_wait_kick();
    job__completed(job);
    job_unref_locked(job);
}

static void coroutine_fn job_entry(void *opaque)
{
    Job *job = opaque;
    Error *err = NULL;

    job_pause_point(job);
    int ret = job->driver->run(job, &err);

    WITH_JOB_LOCK_GUARD() {
        job->ret = ret;
        job->err = err;
        /* BUSY stays: a drain waits for the bottom half, which will change the graph. */
        job->deferred_to_main_loop = true;
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), run_ended_bh, job);
}

void job_start(Job *job)
{
    AioContext *ctx;

    GLOBAL_STATE_CODE();
    WITH_JOB_LOCK_GUARD() {
        if (job->status != JOB_STATUS_CREATED) {
            fprintf(stderr, "miniblk: job_start: job '%s' is in state %s already\n",
                    job->id ? job->id : "(internal)", JobStatus_str(job->status));
            abort();
        }
        job->co = qemu_coroutine_create(job_entry, job);
        job->pause_count--;
        job->paused = false;
        job->busy = true;
        ctx = job->aio_context;
        job__set_status(job, JOB_STATUS_RUNNING);
    }
    aio_co_enter(ctx, job->co);
}

/* ---- waking ----------------------------------------------------------------------------- */

void job_enter_cond_locked(Job *job, bool (*fn)(Job *job))
{
    if (!job_started_locked(job) || job->busy || job->deferred_to_main_loop ||
        (fn && !fn(job))) {
        return;
    }
    timer_del(&job->sleep_timer);
    job->busy = true;
    AioContext *ctx = job->aio_context;
    Coroutine *co = job->co;
    job_unlock();
    /* JOB may end and be gone before this returns, unless the caller has a reference. */
    aio_co_enter(ctx, co);
    job_lock();
}

void job_enter(Job *job)
{
    JOB_LOCK_GUARD();
    job_enter_cond_locked(job, NULL);
}

/* ---- pausing ---------------------------------------------------------------------------- */

void job_pause_locked(Job *job)
{
    job->pause_count++;
    if (!job->paused) {
        /* if it sleeps, let it come to its pause point */
        job_enter_cond_locked(job, NULL);
    }
}

static bool is_paused(Job *job)
{
    return job->paused;
}

void job_resume_locked(Job *job)
{
    GLOBAL_STATE_CODE();
    g_assert(job->pause_count > 0);
    if (--job->pause_count == 0) {
        job_enter_cond_locked(job, is_paused);
    }
}

void job_pause(Job *job)
{
    JOB_LOCK_GUARD();
    job_pause_locked(job);
}

void job_resume(Job *job)
{
    JOB_LOCK_GUARD();
    job_resume_locked(job);
}

void job_user_pause_locked(Job *job, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (job_apply_verb_locked(job, JOB_VERB_PAUSE, errp) < 0) {
        return;
    }
    if (job->user_paused) {
        error_setg(errp, "Job is already paused");
        return;
    }
    job->user_paused = true;
    job_pause_locked(job);
}

void job_user_resume_locked(Job *job, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (!job->user_paused) {
        error_setg(errp, "Can't resume a job that was not paused");
        return;
    }
    if (job_apply_verb_locked(job, JOB_VERB_RESUME, errp) < 0) {
        return;
    }
    if (job->driver->user_resume) {
        JOB_CALL_DRIVER(job, job->driver->user_resume(job));
    }
    job->user_paused = false;
    job_resume_locked(job);
}
