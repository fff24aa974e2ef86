/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cancelling jobs, and waiting for their end. Main thread. */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"

/* Mark JOB as cancelled, unless it is too late for that, and take the user's pause away. */
static void mark(Job *job, bool force)
{
    const JobDriver *drv = job->driver;

    if (drv->cancel) {
        bool forced;
        JOB_CALL_DRIVER(job, forced = drv->cancel(job, force));
        force = force || forced;
    } else {
        force = true;
    }
    if (job->user_paused) {
        if (drv->user_resume) {
            JOB_CALL_DRIVER(job, drv->user_resume(job));
        }
        job->user_paused = false;
        g_assert(job->pause_count > 0);
        job->pause_count--;
    }
    if (!force && job->deferred_to_main_loop) {
        return;                 /* it has ended well already */
    }
    if (job->txn && job->txn->phase != JOB_TXN_DECIDED) {
        job->cancelled = true;
        job->force_cancel |= force;
    }
}

void job__cancel_work(Job *job, bool force)
{
    mark(job, force);
    if (!job_started_locked(job) && job->status == JOB_STATUS_CREATED) {
        job__completed(job);
    } else {
        job_enter_cond_locked(job, NULL);
    }
}

void job_cancel_locked(Job *job, bool force)
{
    GLOBAL_STATE_CODE();
    if (job->status == JOB_STATUS_CONCLUDED) {
        job__dismiss(job);
        return;
    }
    if (job->status == JOB_STATUS_ABORTING || job->status == JOB_STATUS_NULL) {
        return;
    }
    job_ref_locked(job);
    job__cancel_work(job, force);
    if (job_is_cancelled_locked(job) && job->txn && job->txn->phase == JOB_TXN_WORKING &&
        (job->status == JOB_STATUS_WAITING || job->status == JOB_STATUS_PENDING)) {
        /* its work was over; now it fails after all */
        job__completed(job);
    }
    job_unref_locked(job);
}

void job_user_cancel_locked(Job *job, bool force, Error **errp)
{
    if (job_apply_verb_locked(job, JOB_VERB_CANCEL, errp) == 0) {
        job_cancel_locked(job, force);
    }
}

/* ---- waiting ---------------------------------------------------------------------------- */

static bool at_work(Job *job)
{
    JOB_LOCK_GUARD();
    /* a failed job is not over before it is concluded */
    if (job_is_completed_locked(job) && job->status != JOB_STATUS_ABORTING) {
        return false;
    }
    job__note_waited_for(job);
    return true;
}

int job_finish_sync_locked(Job *job, void (*finish)(Job *, Error **errp), Error **errp)
{
    Error *local_err = NULL;

    GLOBAL_STATE_CODE();
    job_ref_locked(job);
    if (finish) {
        finish(job, &local_err);
    }
    if (local_err) {
        error_propagate(errp, local_err);
        job_unref_locked(job);
        return -EBUSY;
    }
    /* one that sleeps shall see now what is wanted of it */
    job_enter_cond_locked(job, NULL);
    job_unlock();
    /* whatever context locks the caller holds, the job may need them */
    AIO_WAIT_WHILE(NULL, at_work(job));
    job_lock();
    int ret = job->ret == 0 && job_is_cancelled_locked(job) ? -ECANCELED : job->ret;
    job_unref_locked(job);
    return ret;
}

static void cancel_softly(Job *job, Error **errp)
{
    job_cancel_locked(job, false);
}

static void cancel_by_force(Job *job, Error **errp)
{
    job_cancel_locked(job, true);
}

int job_cancel_sync_locked(Job *job, bool force)
{
    return job_finish_sync_locked(job, force ? cancel_by_force : cancel_softly, NULL);
}

int job_cancel_sync(Job *job, bool force)
{
    JOB_LOCK_GUARD();
    return job_cancel_sync_locked(job, force);
}

int job_complete_sync_locked(Job *job, Error **errp)
{
    return job_finish_sync_locked(job, job_complete_locked, errp);
}

void job_cancel_sync_all(void)
{
    Job *job;

    GLOBAL_STATE_CODE();
    JOB_LOCK_GUARD();
    while ((job = job_next_locked(NULL))) {
        /* the first time it ends, and if it is concluded then, the second time it goes */
        job_cancel_sync_locked(job, true);
    }
}
