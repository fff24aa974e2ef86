/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: the lock, the list, life, and what is written in few places. */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"
#include "miniblk/id.h"

static QemuMutex job_mutex;             /* all zero bytes: a valid mutex */
static QLIST_HEAD(, Job) jobs = QLIST_HEAD_INITIALIZER(jobs);

void job_lock(void)
{
    qemu_mutex_lock(&job_mutex);
}

void job_unlock(void)
{
    bool news = job__news_pending();

    qemu_mutex_unlock(&job_mutex);
    if (unlikely(news)) {
        job__news_flush();
    }
}

/* ---- making ----------------------------------------------------------------------------- */

static bool id_acceptable(const char *id, int flags, Error **errp)
{
    if (flags & JOB_INTERNAL) {
        if (id) {
            error_setg(errp, "Cannot specify job ID for internal job");
        }
        return !id;
    }
    if (!id) {
        error_setg(errp, "An explicit job ID is required");
        return false;
    }
    if (!id_wellformed(id)) {
        error_setg(errp, "Invalid job ID '%s'", id);
        return false;
    }
    if (job_get_locked(id)) {
        error_setg(errp, "Job ID '%s' already in use", id);
        return false;
    }
    return true;
}

static void sleep_timer_cb(void *opaque)
{
    job_enter(opaque);
}

void *job_create(const char *job_id, const JobDriver *driver, JobTxn *txn, AioContext *ctx,
                 int flags, BlockCompletionFunc *cb, void *opaque, Error **errp)
{
    GLOBAL_STATE_CODE();
    JOB_LOCK_GUARD();
    if (!id_acceptable(job_id, flags, errp)) {
        return NULL;
    }
    g_assert(driver->run && driver->instance_size >= sizeof(Job));

    Job *job = g_malloc0(driver->instance_size);
    job->id = g_strdup(job_id);
    job->driver = driver;
    job->auto_finalize = !(flags & JOB_MANUAL_FINALIZE);
    job->auto_dismiss = !(flags & JOB_MANUAL_DISMISS);
    job->cb = cb;
    job->opaque = opaque;
    job->aio_context = ctx;
    aio_context_ref(ctx);
    job->refcnt = 1;
    job->paused = true;
    job->pause_count = 1;
    aio_timer_init(qemu_get_aio_context(), &job->sleep_timer, QEMU_CLOCK_REALTIME, SCALE_NS,
                   sleep_timer_cb, job);
    QLIST_INSERT_HEAD(&jobs, job, job_list);
    job__set_status(job, JOB_STATUS_CREATED);

    if (txn) {
        job_txn_add_job_locked(txn, job);
    } else {
        txn = job_txn_new();
        job_txn_add_job_locked(txn, job);
        job_txn_unref_locked(txn);
    }
    return job;
}

void job_ref_locked(Job *job)
{
    job->refcnt++;
}

void job_unref_locked(Job *job)
{
    g_assert(job->refcnt > 0);
    if (--job->refcnt > 0) {
        return;
    }
    GLOBAL_STATE_CODE();
    g_assert(job->status == JOB_STATUS_NULL && !job->txn);
    timer_del(&job->sleep_timer);
    if (job->driver->free) {
        JOB_CALL_DRIVER(job, job->driver->free(job));
    }
    aio_context_unref(job->aio_context);
    error_free(job->err);
    g_free(job->id);
    g_free(job);
}

void job_early_fail(Job *job)
{
    GLOBAL_STATE_CODE();
    JOB_LOCK_GUARD();
    g_assert(job->status == JOB_STATUS_CREATED);
    job__dismiss(job);
}

/* ---- looking ---------------------------------------------------------------------------- */

Job *job_get_locked(const char *id)
{
    Job *job;

    QLIST_FOREACH(job, &jobs, job_list) {
        if (job->id && !strcmp(job->id, id)) {
            return job;
        }
    }
    return NULL;
}

Job *job_next_locked(Job *job)
{
    return job ? QLIST_NEXT(job, job_list) : QLIST_FIRST(&jobs);
}

Job *job_next(Job *job)
{
    JOB_LOCK_GUARD();
    return job_next_locked(job);
}

JobType job_type(const Job *job)
{
    return job->driver->job_type;
}

const char *job_type_str(const Job *job)
{
    return JobType_str(job_type(job));
}

bool job_is_internal(Job *job)
{
    return !job->id;
}

bool job_is_cancelled_locked(Job *job)
{
    return job->force_cancel;
}

bool job_is_cancelled(Job *job)
{
    JOB_LOCK_GUARD();
    return job_is_cancelled_locked(job);
}

bool job_cancel_requested_locked(Job *job)
{
    return job->cancelled;
}

bool job_cancel_requested(Job *job)
{
    JOB_LOCK_GUARD();
    return job_cancel_requested_locked(job);
}

/* ---- progress --------------------------------------------------------------------------- */

void job_progress_update(Job *job, uint64_t done)
{
    JOB_LOCK_GUARD();
    job->progress.current += done;
}

void job_progress_set_remaining(Job *job, uint64_t remaining)
{
    JOB_LOCK_GUARD();
    job->progress.total = job->progress.current + remaining;
}

void job_progress_increase_remaining(Job *job, uint64_t delta)
{
    JOB_LOCK_GUARD();
    job->progress.total += delta;
}

/* ---- context ---------------------------------------------------------------------------- */

void job_set_aio_context(Job *job, AioContext *ctx)
{
    AioContext *old;

    GLOBAL_STATE_CODE();
    aio_context_ref(ctx);
    WITH_JOB_LOCK_GUARD() {
        job__assert_at_rest(job);
        old = job->aio_context;
        job->aio_context = ctx;
    }
    aio_context_unref(old);
}
