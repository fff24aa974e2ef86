/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs: long-running work in a coroutine, which users start, watch, pause, cancel, complete,
 * finalize and dismiss.
 *
 *                 +---------------------------> null <--------+
 *                 |                                            |
 *      created -> running -> ready -> waiting -> pending -> concluded
 *                  |  ^      |  ^        |          |          ^
 *                 paused   standby       +-> aborting ---------+
 *
 * (Every state up to pending leads to aborting as well, when a job fails or is cancelled.)
 *
 * One lock, job_lock(), protects all jobs. Functions named *_locked are called with it held;
 * they may drop it for a moment to call a driver. It is a leaf: nothing else is locked, and
 * nothing polled, while it is held.
 *
 * Thread classes as in block.h. "job" = in the job's own coroutine.
 */
#ifndef MINIBLK_JOB_H
#define MINIBLK_JOB_H

#include "aio.h"
#include "aio-wait.h"
#include "coroutine.h"
#include "error.h"
#include "queue.h"

typedef struct Job Job;
typedef struct JobDriver JobDriver;
typedef struct JobTxn JobTxn;
typedef struct JobNews JobNews;

typedef enum JobStatus {
    JOB_STATUS_UNDEFINED = 0,
    JOB_STATUS_CREATED = 1,
    JOB_STATUS_RUNNING = 2,
    JOB_STATUS_PAUSED = 3,
    JOB_STATUS_READY = 4,       /* waits for job_complete(), still at work */
    JOB_STATUS_STANDBY = 5,     /* ready and paused */
    JOB_STATUS_WAITING = 6,     /* done; the rest of its transaction is not */
    JOB_STATUS_PENDING = 7,     /* the whole transaction is done; waits for job_finalize() */
    JOB_STATUS_ABORTING = 8,
    JOB_STATUS_CONCLUDED = 9,   /* over; waits for job_dismiss() */
    JOB_STATUS_NULL = 10,       /* gone from the list, kept by references only */
    JOB_STATUS__MAX,
} JobStatus;
const char *JobStatus_str(JobStatus status);

typedef enum JobVerb {
    JOB_VERB_CANCEL, JOB_VERB_PAUSE, JOB_VERB_RESUME, JOB_VERB_SET_SPEED,
    JOB_VERB_COMPLETE, JOB_VERB_DISMISS, JOB_VERB_FINALIZE, JOB_VERB_CHANGE,
    JOB_VERB__MAX,
} JobVerb;
const char *JobVerb_str(JobVerb verb);

typedef enum JobType {
    JOB_TYPE_COMMIT, JOB_TYPE_STREAM, JOB_TYPE_MIRROR, JOB_TYPE_BACKUP, JOB_TYPE_CREATE,
    JOB_TYPE_AMEND, JOB_TYPE_SNAPSHOT_LOAD, JOB_TYPE_SNAPSHOT_SAVE,
    JOB_TYPE_SNAPSHOT_DELETE, JOB_TYPE__MAX,
} JobType;
const char *JobType_str(JobType type);

typedef enum JobCreateFlags {
    JOB_DEFAULT         = 0x00,
    JOB_INTERNAL        = 0x01,     /* not the user's: no ID, in no list, no events */
    JOB_MANUAL_FINALIZE = 0x02,
    JOB_MANUAL_DISMISS  = 0x04,
} JobCreateFlags;

/* How far a job is, in units of its own (bytes, for block jobs). */
typedef struct ProgressMeter {
    uint64_t current, total;
} ProgressMeter;

/*
 * A kind of job. All calls are made with the job lock dropped. Those that are not the
 * coroutine's run in the main thread with the lock of the job's context held; unless said
 * otherwise they may poll. All Optional but RUN.
 */
struct JobDriver {
    size_t instance_size;       /* of the structure that begins with a Job */
    JobType job_type;
    /*
     * Required. The work; 0, or -errno with ERRP set (or not: strerror() is used then).
     * Runs in the job's context, and calls job_pause_point(), job_yield() or job_sleep_ns()
     * often: only there can it be paused and moved. A job for which job_is_cancelled() is
     * true has to return soon; what it returns then is replaced by -ECANCELED.
     */
    int coroutine_fn (*run)(Job *job, Error **errp);
    /* The job is about to pause: let requests of its own come to an end. Job. */
    void coroutine_fn (*pause)(Job *job);
    /* It has been resumed. Job. */
    void coroutine_fn (*resume)(Job *job);
    /* The user has resumed it, or a paused job is cancelled. Does not poll. */
    void (*user_resume)(Job *job);
    /* The job is ready and shall end; it is entered by the driver. Does not poll. */
    void (*complete)(Job *job, Error **errp);
    /*
     * The last thing that may fail, when all of the transaction has succeeded: 0 or -errno.
     */
    int (*prepare)(Job *job);
    /* Exactly one of these two is called, and then CLEAN, also for jobs never started. */
    void (*commit)(Job *job);
    void (*abort)(Job *job);
    void (*clean)(Job *job);
    /*
     * A cancel request. Whether it is a forced one in the end: false means that the job ends
     * by itself as if it had succeeded. Without it every cancel is forced. Does not poll.
     */
    bool (*cancel)(Job *job, bool force);
    /* The last reference is gone. */
    void (*free)(Job *job);
};

/* A job. Written under the job lock by the file named; foreign code may read the rest. */
struct Job {
    /* fixed */
    char *id;                   /* NULL: internal */
    const JobDriver *driver;
    bool auto_finalize, auto_dismiss;
    BlockCompletionFunc *cb;    /* told the result, after CLEAN; or NULL */
    void *opaque;
    /* What a block job adds to news about it; NULL for other jobs. Job lock held. */
    void (*fill_news)(Job *job, JobNews *news);

    AioContext *aio_context;    /* one reference; job.c, while paused */
    int refcnt;                 /* job.c */
    JobStatus status;           /* job-state.c */
    ProgressMeter progress;     /* job.c */

    /* job-run.c */
    Coroutine *co;              /* NULL: not started */
    /*
     * The coroutine is running, scheduled, or waits for something other than the job. Who
     * turns it from false to true is the one, and the only one, to enter the coroutine.
     */
    bool busy;
    bool paused;                /* stands in job_pause_point(), or is not started */
    int pause_count;            /* requests to pause; one of them until it is started */
    bool user_paused;           /* one of them is the user's */
    bool deferred_to_main_loop; /* RUN has returned; the rest is the main thread's */
    QEMUTimer sleep_timer;      /* in the main context */

    /* job-end.c, job-cancel.c */
    bool cancelled;             /* to end early */
    bool force_cancel;          /* and at once */
    int ret;                    /* what RUN or PREPARE returned */
    Error *err;
    JobTxn *txn;                /* until it is finalized */
    QLIST_ENTRY(Job) txn_list;

    QLIST_ENTRY(Job) job_list;  /* until it is dismissed; job.c, job-end.c */
};

/* ---- the lock --------------------------------------------------------------------------- */

/* Any thread. News for the listener is delivered when the lock is dropped. */
void job_lock(void);
void job_unlock(void);

static inline void job_guard_leave_(bool *held)
{
    if (*held) {
        job_unlock();
    }
}
/* Hold the job lock until the end of the enclosing block. */
#define JOB_LOCK_GUARD()                                                        \
        __attribute__((cleanup(job_guard_leave_), unused))                      \
        bool QEMU_GUARD_NAME_(__COUNTER__) = (job_lock(), true)
/* Hold the job lock during the statement or block that follows. */
#define WITH_JOB_LOCK_GUARD()                                                   \
        for (__attribute__((cleanup(job_guard_leave_))) bool job_guard_ =       \
             (job_lock(), true); job_guard_; job_unlock(), job_guard_ = false)

/* ---- life (GS) -------------------------------------------------------------------------- */

/* Jobs that end together; one reference. Any job in it that fails makes all others fail. */
JobTxn *job_txn_new(void);
void job_txn_unref(JobTxn *txn);
void job_txn_unref_locked(JobTxn *txn);
/* Put JOB, which is in no transaction, into TXN. */
void job_txn_add_job_locked(JobTxn *txn, Job *job);

/*
 * A job of driver->instance_size bytes in CTX, in state created; one reference, which
 * job_dismiss_locked() or the end of the job drops. TXN NULL: one of its own. FLAGS:
 * JobCreateFlags. CB(OPAQUE, 0 or -errno) is called once, in the main thread, when it is over.
 * NULL with ERRP set: "Invalid job ID 'x'", "Job ID 'x' already in use", "An explicit job ID
 * is required", "Cannot specify job ID for internal job".
 */
void *job_create(const char *job_id, const JobDriver *driver, JobTxn *txn, AioContext *ctx,
                 int flags, BlockCompletionFunc *cb, void *opaque, Error **errp);
void job_ref_locked(Job *job);
/* The last reference, when the job is in state null, frees it through driver->free. */
void job_unref_locked(Job *job);
/* Run the job, from a pause point on: it does not begin while it is drained. */
void job_start(Job *job);
/* Throw away a job that has not been started. */
void job_early_fail(Job *job);

/* ---- looking (any thread) --------------------------------------------------------------- */

/* NULL when there is none. */
Job *job_get_locked(const char *id);
/* Iterate over the users' jobs, newest first; NULL gives the first. */
Job *job_next(Job *job);
Job *job_next_locked(Job *job);
JobType job_type(const Job *job);
const char *job_type_str(const Job *job);
bool job_is_internal(Job *job);
bool job_started_locked(Job *job);
/* Whether the job is to end at once, without completing its work. */
bool job_is_cancelled(Job *job);
bool job_is_cancelled_locked(Job *job);
/* Whether it is to end early in any way. */
bool job_cancel_requested(Job *job);
bool job_cancel_requested_locked(Job *job);
/* State ready or standby. */
bool job_is_ready(Job *job);
bool job_is_ready_locked(Job *job);
/* The work is over: state waiting or later. */
bool job_is_completed(Job *job);
bool job_is_completed_locked(Job *job);
bool job_is_paused(Job *job);
bool job_user_paused_locked(Job *job);
/* 0, or -EPERM with ERRP set: "Job 'x' in state 's' cannot accept command verb 'v'". */
int job_apply_verb_locked(Job *job, JobVerb verb, Error **errp);

/* ---- what the job does ------------------------------------------------------------------ */

/* Job: pause if asked to. All of the job's requests have ended or are driver->pause's. */
void coroutine_fn job_pause_point(Job *job);
/* Job: sleep until job_enter(), then pause if asked to. May return early. */
void coroutine_fn job_yield(Job *job);
/* Job: the same for NS nanoseconds at most. */
void coroutine_fn job_sleep_ns(Job *job, int64_t ns);
/* From running to ready. Job. */
void job_transition_to_ready(Job *job);
/* Any thread: DONE more units are done / so many are left / so many more are left. */
void job_progress_update(Job *job, uint64_t done);
void job_progress_set_remaining(Job *job, uint64_t remaining);
void job_progress_increase_remaining(Job *job, uint64_t delta);

/* ---- what others do to it --------------------------------------------------------------- */

/* Any thread: run the job's coroutine if it sleeps. */
void job_enter(Job *job);
/* The same if FN (may be NULL) says so. */
void job_enter_cond_locked(Job *job, bool (*fn)(Job *job));
/* One more (any thread) / one less (GS) request to pause. Does not wait for it. */
void job_pause_locked(Job *job);
void job_pause(Job *job);
void job_resume_locked(Job *job);
void job_resume(Job *job);
/* GS: the context of a job that is paused or over changes to CTX. */
void job_set_aio_context(Job *job, AioContext *ctx);

/* The verbs, GS. On error nothing changes and ERRP says why. */
void job_user_pause_locked(Job *job, Error **errp);
void job_user_resume_locked(Job *job, Error **errp);
/* End a ready job successfully. */
void job_complete_locked(Job *job, Error **errp);
/*
 * End the job. With FORCE (or for drivers that know no other way) at once, with -ECANCELED;
 * else a ready job may end well at its present state. A concluded job is dismissed.
 */
void job_cancel_locked(Job *job, bool force);
/* The same for users: checks whether the state accepts it. */
void job_user_cancel_locked(Job *job, bool force, Error **errp);
/* Finish a pending job, and with it its whole transaction. Polls. */
void job_finalize_locked(Job *job, Error **errp);
/* Drop a concluded job and the pointer to it. */
void job_dismiss_locked(Job **job, Error **errp);

/*
 * GS, poll: call FINISH (may be NULL) and wait until the job's work is over: it is concluded,
 * or waits for its transaction or for job_finalize_locked(). Its result, -ECANCELED when it
 * was cancelled, -EBUSY with ERRP set when FINISH failed. Not from a callback of the job.
 */
int job_finish_sync_locked(Job *job, void (*finish)(Job *, Error **errp), Error **errp);
int job_cancel_sync(Job *job, bool force);
int job_cancel_sync_locked(Job *job, bool force);
int job_complete_sync_locked(Job *job, Error **errp);
/* Force-cancel all jobs, internal ones too, and dismiss them. */
void job_cancel_sync_all(void);

/* ---- news ------------------------------------------------------------------------------- */

typedef enum JobNewsKind {
    JOB_NEWS_STATUS,            /* it is in STATUS now */
    JOB_NEWS_READY,
    JOB_NEWS_PENDING,           /* waits for job_finalize() */
    JOB_NEWS_COMPLETED,         /* ERROR: what went wrong, or NULL */
    JOB_NEWS_CANCELLED,
    JOB_NEWS_ERROR,             /* a request failed: OPERATION_WRITE, ACTION */
} JobNewsKind;

/* What has happened to a user's job, as it was then. */
struct JobNews {
    JobNewsKind kind;
    char *id;
    JobType type;
    JobStatus status;
    bool is_block_job;
    ProgressMeter progress;
    int64_t speed_bytes_per_s;
    char *error;
    bool operation_write;
    int action;                 /* BlockErrorAction */
};

/*
 * Have LISTENER told all news, in order, in the main thread, soon after it has happened and
 * before the call that caused it there returns. NULL: nobody. GS. It may not poll.
 */
void job_set_listener(void (*listener)(const JobNews *news));

#endif
