/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of jobs: transactions, from the last piece of work to dismissal. Main thread.
 *
 * Nothing here waits for another job. Each member that comes to the end of its work calls
 * advance(), and the last one takes the transaction the next step:
 *
 *      all succeeded             pending; when nobody is to finalize it by hand: prepare all,
 *                                then commit all
 *      one failed, is cancelled  the others are cancelled, and come here; then abort all
 *
 * Drivers are called with the job lock dropped, and may poll, so anything can happen to the
 * members meanwhile; txn->phase keeps a second caller out.
 */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"

/* ---- transactions ----------------------------------------------------------------------- */

JobTxn *job_txn_new(void)
{
    JobTxn *txn = g_new0(JobTxn, 1);
    QLIST_INIT(&txn->jobs);
    txn->refcnt = 1;
    return txn;
}

void job_txn_unref_locked(JobTxn *txn)
{
    if (txn && --txn->refcnt == 0) {
        g_assert(QLIST_EMPTY(&txn->jobs));
        g_free(txn);
    }
}

void job_txn_unref(JobTxn *txn)
{
    JOB_LOCK_GUARD();
    job_txn_unref_locked(txn);
}

void job_txn_add_job_locked(JobTxn *txn, Job *job)
{
    g_assert(!job->txn && txn->phase == JOB_TXN_WORKING);
    job->txn = txn;
    txn->refcnt++;
    QLIST_INSERT_HEAD(&txn->jobs, job, txn_list);
}

static void leave_txn(Job *job)
{
    JobTxn *txn = job->txn;

    QLIST_REMOVE(job, txn_list);
    job->txn = NULL;
    job_txn_unref_locked(txn);
}

/* ---- one job ---------------------------------------------------------------------------- */

void job__dismiss(Job *job)
{
    g_assert(!job->busy);
    if (job->txn) {
        leave_txn(job);
    }
    job->paused = false;
    job->deferred_to_main_loop = true;
    QLIST_REMOVE(job, job_list);
    job__set_status(job, JOB_STATUS_NULL);
    job_unref_locked(job);
}

static bool work_is_over(Job *job)
{
    return job->status == JOB_STATUS_WAITING || job->status == JOB_STATUS_PENDING ||
           job->status == JOB_STATUS_ABORTING;
}

/* Settle the result of JOB, whose work is over: whether it failed. */
static bool settle(Job *job)
{
    if (job->ret >= 0) {
        job->ret = job_is_cancelled_locked(job) ? -ECANCELED : 0;
    }
    if (job->ret == 0) {
        return false;
    }
    if (!job->err) {
        error_setg(&job->err, "%s", strerror(-job->ret));
    }
    if (job->status != JOB_STATUS_ABORTING) {
        job__set_status(job, JOB_STATUS_ABORTING);
    }
    return true;
}

static void finalize_one(Job *job)
{
    const JobDriver *drv = job->driver;

    job_ref_locked(job);
    if (job->ret == 0 && drv->commit) {
        JOB_CALL_DRIVER(job, drv->commit(job));
    }
    if (job->ret < 0 && drv->abort) {
        JOB_CALL_DRIVER(job, drv->abort(job));
    }
    if (drv->clean) {
        JOB_CALL_DRIVER(job, drv->clean(job));
    }
    if (job->cb) {
        int ret = job->ret;
        job_unlock();
        job->cb(job->opaque, ret);
        job_lock();
    }
    leave_txn(job);
    if (job_started_locked(job)) {
        job__news(job, job_is_cancelled_locked(job) ? JOB_NEWS_CANCELLED
                                                    : JOB_NEWS_COMPLETED);
    }
    job__set_status(job, JOB_STATUS_CONCLUDED);
    if (job->auto_dismiss || !job_started_locked(job)) {
        job__dismiss(job);
    }
    job_unref_locked(job);
}

/* ---- all of them ------------------------------------------------------------------------ */

/* One member has failed: let the others come to an end. */
static void cancel_others(JobTxn *txn, Job *failed)
{
    Job *job;
    bool again;

    if (txn->aborting) {
        return;
    }
    txn->aborting = true;
    do {
        again = false;
        QLIST_FOREACH(job, &txn->jobs, txn_list) {
            if (job != failed && !job->force_cancel) {
                /* drops the lock: the list may be another one afterwards */
                job_ref_locked(job);
                job__cancel_work(job, true);
                g_assert(job->force_cancel);
                job_unref_locked(job);
                again = true;
                break;
            }
        }
    } while (again);
}

/* Settle all results for good; with one failure all fail. */
static void decide(JobTxn *txn)
{
    Job *job;

    QLIST_FOREACH(job, &txn->jobs, txn_list) {
        if (settle(job)) {
            cancel_others(txn, job);
        }
    }
    /* The lock has not been dropped since the last look, or else all are marked by now. */
    txn->phase = JOB_TXN_DECIDED;
    QLIST_FOREACH(job, &txn->jobs, txn_list) {
        settle(job);
        g_assert((job->ret < 0) == txn->aborting);
    }
}

static void prepare_all(JobTxn *txn)
{
    Job *job;

    /* The members stay on the list while the phase is what it is now. */
    QLIST_FOREACH(job, &txn->jobs, txn_list) {
        if (!txn->aborting && job->driver->prepare) {
            int ret;
            JOB_CALL_DRIVER(job, ret = job->driver->prepare(job));
            job->ret = ret;
        }
        if (settle(job)) {
            cancel_others(txn, job);
        }
    }
}

/* The work of all members is over: bring the transaction to its end. */
static void finish(JobTxn *txn)
{
    Job *job;

    g_assert(txn->phase == JOB_TXN_WORKING);
    txn->refcnt++;
    txn->phase = JOB_TXN_PREPARING;
    prepare_all(txn);
    decide(txn);
    while ((job = QLIST_FIRST(&txn->jobs))) {
        finalize_one(job);
    }
    job_txn_unref_locked(txn);
}

/* Take the step that the members have reached. TXN may be gone afterwards. */
static void advance(JobTxn *txn)
{
    bool by_hand = false;
    Job *job;

    if (txn->phase != JOB_TXN_WORKING) {
        return;
    }
    QLIST_FOREACH(job, &txn->jobs, txn_list) {
        if (!work_is_over(job)) {
            return;
        }
        by_hand |= !job->auto_finalize;
    }
    if (!txn->aborting) {
        QLIST_FOREACH(job, &txn->jobs, txn_list) {
            if (job->status == JOB_STATUS_WAITING) {
                job__set_status(job, JOB_STATUS_PENDING);
                if (!job->auto_finalize) {
                    job__news(job, JOB_NEWS_PENDING);
                }
            }
        }
    }
    if (txn->aborting || !by_hand) {
        finish(txn);
    }
}

void job__completed(Job *job)
{
    JobTxn *txn = job->txn;

    g_assert(qemu_in_main_thread() && txn);
    txn->refcnt++;
    if (settle(job)) {
        cancel_others(txn, job);
    } else if (job->status != JOB_STATUS_PENDING && job->status != JOB_STATUS_WAITING) {
        job__set_status(job, JOB_STATUS_WAITING);
    }
    advance(txn);
    job_txn_unref_locked(txn);
}

/* ---- verbs ------------------------------------------------------------------------------ */

void job_finalize_locked(Job *job, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (job_apply_verb_locked(job, JOB_VERB_FINALIZE, errp) < 0) {
        return;
    }
    if (job->txn->phase != JOB_TXN_WORKING) {
        error_setg(errp, "Job '%s' is being finalized already", job->id);
        return;
    }
    finish(job->txn);
}

void job_dismiss_locked(Job **jobptr, Error **errp)
{
    Job *job = *jobptr;

    GLOBAL_STATE_CODE();
    if (job_apply_verb_locked(job, JOB_VERB_DISMISS, errp) < 0) {
        return;
    }
    job__dismiss(job);
    *jobptr = NULL;
}

void job_complete_locked(Job *job, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (job_apply_verb_locked(job, JOB_VERB_COMPLETE, errp) < 0) {
        return;
    }
    if (job->pause_count || job_cancel_requested_locked(job) || !job->driver->complete) {
        error_setg(errp, "The active block job '%s' cannot be completed", job->id);
        return;
    }
    JOB_CALL_DRIVER(job, job->driver->complete(job, errp));
}
