/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The states of a job: which follow which, and what users may ask for in each. */
#include "miniblk/osdep.h"
#include "aio/port-note.h"
#include "block/job/job-internal.h"

#define CREATED   (1u << JOB_STATUS_CREATED)
#define RUNNING   (1u << JOB_STATUS_RUNNING)
#define PAUSED    (1u << JOB_STATUS_PAUSED)
#define READY     (1u << JOB_STATUS_READY)
#define STANDBY   (1u << JOB_STATUS_STANDBY)
#define WAITING   (1u << JOB_STATUS_WAITING)
#define PENDING   (1u << JOB_STATUS_PENDING)
#define ABORTING  (1u << JOB_STATUS_ABORTING)
#define CONCLUDED (1u << JOB_STATUS_CONCLUDED)
#define GONE      (1u << JOB_STATUS_NULL)

static const unsigned next_states[JOB_STATUS__MAX] = {
    [JOB_STATUS_UNDEFINED] = CREATED,
    [JOB_STATUS_CREATED]   = RUNNING | ABORTING | GONE,
    [JOB_STATUS_RUNNING]   = PAUSED | READY | WAITING | ABORTING,
    [JOB_STATUS_PAUSED]    = RUNNING,
    [JOB_STATUS_READY]     = STANDBY | WAITING | ABORTING,
    [JOB_STATUS_STANDBY]   = READY,
    [JOB_STATUS_WAITING]   = PENDING | ABORTING,
    [JOB_STATUS_PENDING]   = ABORTING | CONCLUDED,
    [JOB_STATUS_ABORTING]  = CONCLUDED,
    [JOB_STATUS_CONCLUDED] = GONE,
    [JOB_STATUS_NULL]      = 0,
};

/* Not over: a user can still influence the work. */
#define ALIVE (CREATED | RUNNING | PAUSED | READY | STANDBY)

static const unsigned verb_states[JOB_VERB__MAX] = {
    [JOB_VERB_CANCEL]    = ALIVE | WAITING | PENDING,
    [JOB_VERB_PAUSE]     = ALIVE,
    [JOB_VERB_RESUME]    = ALIVE,
    [JOB_VERB_SET_SPEED] = ALIVE,
    [JOB_VERB_COMPLETE]  = READY | STANDBY,
    [JOB_VERB_DISMISS]   = CONCLUDED,
    [JOB_VERB_FINALIZE]  = PENDING,
    [JOB_VERB_CHANGE]    = ALIVE,
};

/* ---- names ------------------------------------------------------------------------------ */

const char *JobStatus_str(JobStatus status)
{
    static const char *const names[JOB_STATUS__MAX] = {
        "undefined", "created", "running", "paused", "ready", "standby", "waiting",
        "pending", "aborting", "concluded", "null",
    };
    return names[status];
}

const char *JobVerb_str(JobVerb verb)
{
    static const char *const names[JOB_VERB__MAX] = {
        "cancel", "pause", "resume", "set-speed", "complete", "dismiss", "finalize", "change",
    };
    return names[verb];
}

const char *JobType_str(JobType type)
{
    static const char *const names[JOB_TYPE__MAX] = {
        "commit", "stream", "mirror", "backup", "create", "amend", "snapshot-load",
        "snapshot-save", "snapshot-delete",
    };
    return names[type];
}

/* ---- the tables at work ----------------------------------------------------------------- */

bool job__transition_allowed(JobStatus from, JobStatus to)
{
    return next_states[from] & (1u << to);
}

bool job__verb_allowed(JobStatus status, JobVerb verb)
{
    return verb_states[verb] & (1u << status);
}

void job__set_status(Job *job, JobStatus status)
{
    if (!job__transition_allowed(job->status, status)) {
        fprintf(stderr, "miniblk: job '%s': no way from state %s to %s\n",
                job->id ? job->id : "(internal)", JobStatus_str(job->status),
                JobStatus_str(status));
        abort();
    }
    job->status = status;
    port_note(PORT_NOTE_JOB, job, "'%s' %s", job->id ? job->id : "(internal)",
              JobStatus_str(status));
    job__news(job, JOB_NEWS_STATUS);
    aio_wait_kick();
}

int job_apply_verb_locked(Job *job, JobVerb verb, Error **errp)
{
    if (job__verb_allowed(job->status, verb)) {
        return 0;
    }
    error_setg(errp, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
               JobStatus_str(job->status), JobVerb_str(verb));
    return -EPERM;
}

bool job_is_completed_locked(Job *job)
{
    return job->status >= JOB_STATUS_WAITING;
}

bool job_is_ready_locked(Job *job)
{
    return job->status == JOB_STATUS_READY || job->status == JOB_STATUS_STANDBY;
}

bool job_is_completed(Job *job)
{
    JOB_LOCK_GUARD();
    return job_is_completed_locked(job);
}

bool job_is_ready(Job *job)
{
    JOB_LOCK_GUARD();
    return job_is_ready_locked(job);
}
