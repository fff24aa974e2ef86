/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of block/job/ share. All functions: job lock held unless said otherwise. */
#ifndef JOB_INTERNAL_H
#define JOB_INTERNAL_H

#include "aio/port-note.h"
#include "miniblk/atomic.h"
#include "miniblk/block.h"
#include "miniblk/job.h"
#include "miniblk/main-loop.h"

/* How far a transaction is on its way to its end; job-end.c. */
typedef enum JobTxnPhase {
    JOB_TXN_WORKING,            /* not all members have come to the end of their work */
    JOB_TXN_PREPARING,          /* drivers are asked for the last time */
    JOB_TXN_DECIDED,            /* the members' results stay as they are */
} JobTxnPhase;

/*
 * Jobs that end together. While it is not WORKING, one stack frame calls the drivers of its
 * members; what happens meanwhile only leaves its mark in the jobs.
 */
struct JobTxn {
    QLIST_HEAD(, Job) jobs;     /* those not finalized yet; each holds a reference */
    JobTxnPhase phase;
    bool aborting;              /* one has failed, so all fail */
    int refcnt;
};

/* ---- job-state.c ------------------------------------------------------------------------ */

/* Aborts if there is no such way from the present state. Wakes those who wait for it. */
void job__set_status(Job *job, JobStatus status);
/* The tables, for tests. Lock not needed. */
bool job__transition_allowed(JobStatus from, JobStatus to);
bool job__verb_allowed(JobStatus status, JobVerb verb);

/* ---- job-run.c -------------------------------------------------------------------------- */

/* Lock held. A condition that somebody waits for holds as long as the coroutine of JOB is where
 * it is. Natively nothing. */
static inline void job__note_waited_for(const Job *job)
{
    if (job->co && !job->deferred_to_main_loop) {
        port_note(PORT_NOTE_WAIT_FOR, job->co, NULL);
    }
}

/* Whether a drain has to wait for the job; the driver's word not included. */
bool job__is_active(Job *job);
/* The job's coroutine does not run (again), or not before it is resumed. */
void job__assert_at_rest(Job *job);

/* ---- job-end.c; main thread ------------------------------------------------------------- */

/* The work of JOB is over with result job->ret, or will never begin. May poll. */
void job__completed(Job *job);
/* To state null; drops the first reference. */
void job__dismiss(Job *job);

/* ---- job-cancel.c; main thread ---------------------------------------------------------- */

/* Cancel JOB, whose work is not over, without a regard for its transaction. */
void job__cancel_work(Job *job, bool force);

/* ---- job-news.c; any thread ------------------------------------------------------------- */

/* Queue news about JOB. */
void job__news(Job *job, JobNewsKind kind);
void job__news_error(Job *job, bool is_write, int action);
bool job__news_pending(void);
/* Deliver what is queued, or have it delivered. Job lock not held. */
void job__news_flush(void);

/* Call a driver in the main thread: lock dropped, the lock of the job's context held. */
#define JOB_CALL_DRIVER(job, statement) do {                                    \
        AioContext *call_ctx_ = (job)->aio_context;                             \
        job_unlock();                                                           \
        aio_context_acquire(call_ctx_);                                         \
        statement;                                                              \
        aio_context_release(call_ctx_);                                         \
        job_lock();                                                             \
    } while (0)

#endif
