/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands about jobs that exist, and news about jobs as events. Each verb has two names:
 * job-* for all jobs, and block-job-* for block jobs only.
 */
#include "miniblk/osdep.h"
#include "miniblk/blockjob.h"
#include "qmp/dispatch.h"
#include "qmp/qmp.h"

/* ---- finding; job lock held ------------------------------------------------------------- */

static Job *find_job(const json_t *args, Error **errp)
{
    Job *job = job_get_locked(qdict_get_try_str(args, "id"));

    if (!job) {
        error_setg(errp, "Job not found");
    }
    return job;
}

/* By "device" or, for the younger commands, "id". */
static BlockJob *find_block_job(const json_t *args, Error **errp)
{
    const char *id = qdict_get_try_str(args, "device") ?: qdict_get_try_str(args, "id");
    BlockJob *job = block_job_get_locked(id);

    if (!job) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_ACTIVE, "Block job '%s' not found", id);
    }
    return job;
}

/* ---- verbs ------------------------------------------------------------------------------ */

typedef void JobVerbFunc(Job *job, Error **errp);

static json_t *apply_to_job(const json_t *args, JobVerbFunc *verb, Error **errp)
{
    JOB_LOCK_GUARD();
    Job *job = find_job(args, errp);

    if (job) {
        verb(job, errp);
    }
    return NULL;
}

static json_t *apply_to_block_job(const json_t *args, JobVerbFunc *verb, Error **errp)
{
    JOB_LOCK_GUARD();
    BlockJob *job = find_block_job(args, errp);

    if (job) {
        verb(&job->job, errp);
    }
    return NULL;
}

static void cancel_by_force(Job *job, Error **errp)
{
    job_user_cancel_locked(job, true, errp);
}

static void dismiss(Job *job, Error **errp)
{
    job_dismiss_locked(&job, errp);
}

#define DEFINE_JOB_COMMAND(name, function)                                      \
    static json_t *cmd_job_##name(json_t *args, Error **errp)                   \
    {                                                                           \
        return apply_to_job(args, function, errp);                              \
    }

#define DEFINE_BOTH_COMMANDS(name, function)                                    \
    DEFINE_JOB_COMMAND(name, function)                                          \
    static json_t *cmd_block_job_##name(json_t *args, Error **errp)             \
    {                                                                           \
        return apply_to_block_job(args, function, errp);                        \
    }

DEFINE_JOB_COMMAND(cancel, cancel_by_force)
DEFINE_BOTH_COMMANDS(pause, job_user_pause_locked)
DEFINE_BOTH_COMMANDS(resume, job_user_resume_locked)
DEFINE_BOTH_COMMANDS(complete, job_complete_locked)
DEFINE_BOTH_COMMANDS(finalize, job_finalize_locked)
DEFINE_BOTH_COMMANDS(dismiss, dismiss)

static json_t *cmd_block_job_cancel(json_t *args, Error **errp)
{
    bool force = json_is_true(json_object_get(args, "force"));

    JOB_LOCK_GUARD();
    BlockJob *job = find_block_job(args, errp);
    if (!job) {
        return NULL;
    }
    if (job_user_paused_locked(&job->job) && !force) {
        error_setg(errp, "The block job for device '%s' is currently paused", job->job.id);
        return NULL;
    }
    job_user_cancel_locked(&job->job, force, errp);
    return NULL;
}

static json_t *cmd_block_job_set_speed(json_t *args, Error **errp)
{
    int64_t speed = json_integer_value(json_object_get(args, "speed"));

    JOB_LOCK_GUARD();
    BlockJob *job = find_block_job(args, errp);
    if (job) {
        block_job_set_speed_locked(job, speed, errp);
    }
    return NULL;
}

static json_t *cmd_block_job_change(json_t *args, Error **errp)
{
    bool blocking = !strcmp(qdict_get_try_str(args, "copy-mode"), "write-blocking");
    BlockJobChangeOptions opts = {
        .id = qdict_get_try_str(args, "id"),
        .type = JOB_TYPE_MIRROR,
        .copy_mode = blocking ? MIRROR_COPY_MODE_WRITE_BLOCKING : MIRROR_COPY_MODE_BACKGROUND,
    };

    JOB_LOCK_GUARD();
    BlockJob *job = find_block_job(args, errp);
    if (job) {
        block_job_change_locked(job, &opts, errp);
    }
    return NULL;
}

/* ---- queries ---------------------------------------------------------------------------- */

static void put_error(json_t *info, Job *job)
{
    if (job->ret < 0 && job->err) {
        qdict_put_str(info, "error", error_get_pretty(job->err));
    }
}

static json_t *job_info(Job *job)
{
    json_t *info = json_object();

    qdict_put_str(info, "id", job->id);
    qdict_put_str(info, "type", job_type_str(job));
    qdict_put_str(info, "status", JobStatus_str(job->status));
    qdict_put_int(info, "current-progress", job->progress.current);
    qdict_put_int(info, "total-progress", job->progress.total);
    put_error(info, job);
    return info;
}

static json_t *cmd_query_jobs(json_t *args, Error **errp)
{
    json_t *list = json_array();

    JOB_LOCK_GUARD();
    for (Job *job = job_next_locked(NULL); job; job = job_next_locked(job)) {
        if (!job_is_internal(job)) {
            json_array_append_new(list, job_info(job));
        }
    }
    return list;
}

static json_t *block_job_info(BlockJob *bjob)
{
    static const char *const io_status[] = { "ok", "failed", "nospace" };
    json_t *info = json_object();
    Job *job = &bjob->job;

    qdict_put_str(info, "type", job_type_str(job));
    qdict_put_str(info, "device", job->id);
    qdict_put_int(info, "len", job->progress.total);
    qdict_put_int(info, "offset", job->progress.current);
    qdict_put_bool(info, "busy", job->busy);
    qdict_put_bool(info, "paused", job->pause_count > 0);
    qdict_put_int(info, "speed", bjob->speed);
    qdict_put_str(info, "io-status", io_status[bjob->iostatus]);
    qdict_put_bool(info, "ready", job_is_ready_locked(job));
    qdict_put_str(info, "status", JobStatus_str(job->status));
    qdict_put_bool(info, "auto-finalize", job->auto_finalize);
    qdict_put_bool(info, "auto-dismiss", job->auto_dismiss);
    put_error(info, job);
    if (job_type(job) == JOB_TYPE_MIRROR) {
        qdict_put_bool(info, "actively-synced", mirror_is_actively_synced(bjob));
    }
    return info;
}

static json_t *cmd_query_block_jobs(json_t *args, Error **errp)
{
    json_t *list = json_array();

    JOB_LOCK_GUARD();
    for (BlockJob *job = block_job_next_locked(NULL); job; job = block_job_next_locked(job)) {
        if (!block_job_is_internal(job)) {
            json_array_append_new(list, block_job_info(job));
        }
    }
    return list;
}

/* ---- events ----------------------------------------------------------------------------- */

static void tell_block_job(const char *event, const JobNews *news, const char *error)
{
    json_t *data = json_object();

    qdict_put_str(data, "type", JobType_str(news->type));
    qdict_put_str(data, "device", news->id);
    qdict_put_int(data, "len", news->progress.total);
    qdict_put_int(data, "offset", news->progress.current);
    qdict_put_int(data, "speed", news->speed_bytes_per_s);
    if (error) {
        qdict_put_str(data, "error", error);
    }
    qmp_send_event(event, data);
}

static void tell(const JobNews *news)
{
    static const char *const actions[] = { "ignore", "report", "stop" };

    if (news->kind == JOB_NEWS_STATUS) {
        qmp_send_event("JOB_STATUS_CHANGE",
                       json_pack("{s:s, s:s}", "id", news->id, "status",
                                 JobStatus_str(news->status)));
        return;
    }
    if (!news->is_block_job) {
        return;                 /* the events below are of block jobs */
    }
    switch (news->kind) {
    case JOB_NEWS_READY:
        tell_block_job("BLOCK_JOB_READY", news, NULL);
        break;
    case JOB_NEWS_COMPLETED:
        tell_block_job("BLOCK_JOB_COMPLETED", news, news->error);
        break;
    case JOB_NEWS_CANCELLED:
        tell_block_job("BLOCK_JOB_CANCELLED", news, NULL);
        break;
    case JOB_NEWS_PENDING:
        qmp_send_event("BLOCK_JOB_PENDING",
                       json_pack("{s:s, s:s}", "type", JobType_str(news->type), "id",
                                 news->id));
        break;
    case JOB_NEWS_ERROR:
        qmp_send_event("BLOCK_JOB_ERROR",
                       json_pack("{s:s, s:s, s:s}", "device", news->id, "operation",
                                 news->operation_write ? "write" : "read", "action",
                                 actions[news->action]));
        break;
    default:
        g_assert_not_reached();
    }
}

void qmp_listen_to_jobs(bool listen)
{
    job_set_listener(listen ? tell : NULL);
}

const QmpCommand qmp_commands_job[] = {
    { "query-jobs", "{}", cmd_query_jobs },
    { "job-pause", "{id:str}", cmd_job_pause },
    { "job-resume", "{id:str}", cmd_job_resume },
    { "job-cancel", "{id:str}", cmd_job_cancel },
    { "job-complete", "{id:str}", cmd_job_complete },
    { "job-finalize", "{id:str}", cmd_job_finalize },
    { "job-dismiss", "{id:str}", cmd_job_dismiss },
    { "query-block-jobs", "{}", cmd_query_block_jobs },
    { "block-job-pause", "{device:str}", cmd_block_job_pause },
    { "block-job-resume", "{device:str}", cmd_block_job_resume },
    { "block-job-cancel", "{device:str, force?:bool}", cmd_block_job_cancel },
    { "block-job-complete", "{device:str}", cmd_block_job_complete },
    { "block-job-finalize", "{id:str}", cmd_block_job_finalize },
    { "block-job-dismiss", "{id:str}", cmd_block_job_dismiss },
    { "block-job-set-speed", "{device:str, speed:int}", cmd_block_job_set_speed },
    { "block-job-change",
      "{id:str, type:{mirror}, copy-mode:{background|write-blocking}}", cmd_block_job_change },
    { NULL }
};
