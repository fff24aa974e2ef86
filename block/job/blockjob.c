/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that work on nodes: their edges, speed and errors. */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"
#include "miniblk/block-driver.h"
#include "miniblk/blockjob.h"

static BlockJob *block_job(Job *job)
{
    return container_of(job, BlockJob, job);
}

const BlockJobDriver *block_job_driver(BlockJob *job)
{
    return container_of(job->job.driver, BlockJobDriver, job_driver);
}

/* ---- the edges -------------------------------------------------------------------------- */

static char *edge_parent_desc(BdrvChild *c)
{
    BlockJob *job = c->opaque;
    return g_strdup_printf("%s job '%s'", job_type_str(&job->job), job->job.id);
}

static void edge_drained_begin(BdrvChild *c)
{
    BlockJob *job = c->opaque;
    job_pause(&job->job);
}

static void edge_drained_end(BdrvChild *c)
{
    BlockJob *job = c->opaque;
    job_resume(&job->job);
}

/*
 * A job that is not busy stands at a pause point, or will come to one before it does anything
 * else. A busy one is waited for; its driver may know that it has nothing in flight.
 */
static bool edge_drained_poll(BdrvChild *c)
{
    BlockJob *job = c->opaque;
    const BlockJobDriver *drv = block_job_driver(job);

    WITH_JOB_LOCK_GUARD() {
        if (!job__is_active(&job->job)) {
            return false;
        }
        if (!drv->drained_poll) {
            job__note_waited_for(&job->job);
        }
    }
    return drv->drained_poll ? drv->drained_poll(job) : true;
}

typedef struct ChangeContext {
    BlockJob *job;
    AioContext *ctx;
} ChangeContext;

static void change_context_commit(void *opaque)
{
    ChangeContext *s = opaque;
    const BlockJobDriver *drv = block_job_driver(s->job);

    job_set_aio_context(&s->job->job, s->ctx);
    if (drv->attached_aio_context) {
        drv->attached_aio_context(s->job, s->ctx);
    }
}

static const TransactionActionDrv change_context_drv = {
    .commit = change_context_commit,
    .clean = g_free,
};

/* The job comes along, and so do all its nodes. */
static bool edge_change_aio_ctx(BdrvChild *c, AioContext *ctx, GHashTable *visited,
                                Transaction *tran, Error **errp)
{
    BlockJob *job = c->opaque;

    if (!g_hash_table_add(visited, job)) {
        return true;
    }
    for (GSList *l = job->nodes; l; l = l->next) {
        if (!bdrv_child_change_aio_context(l->data, ctx, visited, tran, errp)) {
            return false;
        }
    }
    ChangeContext *s = g_new(ChangeContext, 1);
    *s = (ChangeContext) { job, ctx };
    tran_add(tran, &change_context_drv, s);
    return true;
}

static AioContext *edge_parent_aio_context(BdrvChild *c)
{
    return block_job_get_aio_context(c->opaque);
}

static const BdrvChildClass child_job = {
    .stay_at_node = true,
    .get_parent_desc = edge_parent_desc,
    .drained_begin = edge_drained_begin,
    .drained_end = edge_drained_end,
    .drained_poll = edge_drained_poll,
    .change_aio_ctx = edge_change_aio_ctx,
    .get_parent_aio_context = edge_parent_aio_context,
};

int block_job_add_bdrv(BlockJob *job, const char *name, BlockDriverState *bs, uint64_t perm,
                       uint64_t shared_perm, Error **errp)
{
    GLOBAL_STATE_CODE();
    bdrv_ref(bs);
    BdrvChild *c = bdrv_root_attach_child(bs, name, &child_job, 0, perm, shared_perm, job,
                                          errp);
    if (!c) {
        return -EPERM;
    }
    job->nodes = g_slist_prepend(job->nodes, c);
    return 0;
}

void block_job_remove_all_bdrv(BlockJob *job)
{
    GLOBAL_STATE_CODE();
    while (job->nodes) {
        BdrvChild *c = job->nodes->data;
        /* off the list first: detaching polls, and somebody may move us meanwhile */
        job->nodes = g_slist_delete_link(job->nodes, job->nodes);
        bdrv_root_unref_child(c);
    }
}

bool block_job_has_bdrv(BlockJob *job, BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    for (GSList *l = job->nodes; l; l = l->next) {
        BdrvChild *c = l->data;
        if (c->bs == bs) {
            return true;
        }
    }
    return false;
}

bool block_job_none_uses(BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    GLOBAL_STATE_CODE();
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (c->klass == &child_job) {
            BlockJob *job = c->opaque;
            error_setg(errp, "Node '%s' is busy: block device is in use by block job: %s",
                       bdrv_get_device_or_node_name(bs), job_type_str(&job->job));
            return false;
        }
    }
    return true;
}

/* ---- life ------------------------------------------------------------------------------- */

static void fill_news(Job *job, JobNews *news)
{
    news->speed_bytes_per_s = block_job(job)->speed;
}

/* The name of the backend on BS; "" if there is none. */
static const char *backend_name(BlockDriverState *bs)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        const char *name = c->klass->get_name ? c->klass->get_name(c) : "";
        if (*name) {
            return name;
        }
    }
    return "";
}

void *block_job_create(const char *job_id, const BlockJobDriver *driver, JobTxn *txn,
                       BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                       int64_t speed, int flags, BlockCompletionFunc *cb, void *opaque,
                       Error **errp)
{
    GLOBAL_STATE_CODE();
    if (!job_id && !(flags & JOB_INTERNAL)) {
        job_id = backend_name(bs);
        if (!*job_id) {
            error_setg(errp, "An explicit job ID is required for this node");
            return NULL;
        }
    }
    g_assert(driver->job_driver.instance_size >= sizeof(BlockJob));
    g_assert(driver->job_driver.free && driver->job_driver.user_resume);

    BlockJob *job = job_create(job_id, &driver->job_driver, txn, bdrv_get_aio_context(bs),
                               flags, cb, opaque, errp);
    if (!job) {
        return NULL;
    }
    job->job.fill_news = fill_news;
    if (block_job_add_bdrv(job, "main node", bs, perm, shared_perm, errp) < 0 ||
        (speed && !block_job_set_speed(job, speed, errp))) {
        job_early_fail(&job->job);
        return NULL;
    }
    return job;
}

void block_job_free(Job *job)
{
    block_job_remove_all_bdrv(block_job(job));
}

/* ---- looking ---------------------------------------------------------------------------- */

BlockJob *block_job_next_locked(BlockJob *bjob)
{
    Job *job = bjob ? &bjob->job : NULL;

    do {
        job = job_next_locked(job);
    } while (job && !job->fill_news);
    return job ? block_job(job) : NULL;
}

BlockJob *block_job_get_locked(const char *id)
{
    Job *job = job_get_locked(id);
    return job && job->fill_news ? block_job(job) : NULL;
}

bool block_job_is_internal(BlockJob *job)
{
    return job_is_internal(&job->job);
}

AioContext *block_job_get_aio_context(BlockJob *job)
{
    JOB_LOCK_GUARD();
    return job->job.aio_context;
}

/* ---- speed ------------------------------------------------------------------------------ */

/* How far a job that was slow may run ahead of its speed. */
#define SLICE_NS (NANOSECONDS_PER_SECOND / 10)

void block_job_ratelimit_processed_bytes(BlockJob *job, uint64_t n)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    JOB_LOCK_GUARD();
    if (job->speed) {
        double cost_ns = (double)n * NANOSECONDS_PER_SECOND / job->speed;
        job->next_ns = MAX(job->next_ns, now_ns - SLICE_NS);
        job->next_ns += MIN(cost_ns, INT64_MAX / 4);
        job->next_ns = MIN(job->next_ns, INT64_MAX / 2);
    }
}

static int64_t delay_ns(BlockJob *job)
{
    JOB_LOCK_GUARD();
    return job->speed ? job->next_ns - qemu_clock_get_ns(QEMU_CLOCK_REALTIME) : 0;
}

void coroutine_fn block_job_ratelimit_sleep(BlockJob *job)
{
    int64_t ns;

    while ((ns = delay_ns(job)) > 0 && !job_is_cancelled(&job->job)) {
        job_sleep_ns(&job->job, ns);
    }
}

static bool sleeps_for_a_time(Job *job)
{
    return timer_pending(&job->sleep_timer);
}

bool block_job_set_speed_locked(BlockJob *job, int64_t speed, Error **errp)
{
    const BlockJobDriver *drv = block_job_driver(job);

    GLOBAL_STATE_CODE();
    if (job_apply_verb_locked(&job->job, JOB_VERB_SET_SPEED, errp) < 0) {
        return false;
    }
    if (speed < 0) {
        error_setg(errp, "Parameter 'speed' expects a non-negative value");
        return false;
    }
    qatomic_set(&job->speed, speed);
    job->next_ns = 0;           /* the debt was counted at the old speed */
    job_ref_locked(&job->job);
    if (drv->set_speed) {
        job_unlock();
        drv->set_speed(job, speed);
        job_lock();
    }
    job_enter_cond_locked(&job->job, sleeps_for_a_time);
    job_unref_locked(&job->job);
    return true;
}

bool block_job_set_speed(BlockJob *job, int64_t speed, Error **errp)
{
    JOB_LOCK_GUARD();
    return block_job_set_speed_locked(job, speed, errp);
}

void block_job_change_locked(BlockJob *job, BlockJobChangeOptions *opts, Error **errp)
{
    const BlockJobDriver *drv = block_job_driver(job);

    GLOBAL_STATE_CODE();
    if (job_apply_verb_locked(&job->job, JOB_VERB_CHANGE, errp) < 0) {
        return;
    }
    if (!drv->change) {
        error_setg(errp, "Job type does not support change");
        return;
    }
    job_unlock();
    drv->change(job, opts, errp);
    job_lock();
}

/* ---- errors ----------------------------------------------------------------------------- */

static BlockErrorAction choose_action(BlockdevOnError on_err, int error)
{
    switch (on_err) {
    case BLOCKDEV_ON_ERROR_IGNORE:
        return BLOCK_ERROR_ACTION_IGNORE;
    case BLOCKDEV_ON_ERROR_STOP:
        return BLOCK_ERROR_ACTION_STOP;
    case BLOCKDEV_ON_ERROR_ENOSPC:
    case BLOCKDEV_ON_ERROR_AUTO:
        return error == ENOSPC ? BLOCK_ERROR_ACTION_STOP : BLOCK_ERROR_ACTION_REPORT;
    case BLOCKDEV_ON_ERROR_REPORT:
        return BLOCK_ERROR_ACTION_REPORT;
    }
    g_assert_not_reached();
}

BlockErrorAction block_job_error_action(BlockJob *job, BlockdevOnError on_err, int is_read,
                                        int error)
{
    BlockErrorAction action = choose_action(on_err, error);

    g_assert(error > 0);
    JOB_LOCK_GUARD();
    job__news_error(&job->job, !is_read, action);
    if (action == BLOCK_ERROR_ACTION_STOP) {
        if (job->iostatus == BLOCK_DEVICE_IO_STATUS_OK) {
            job->iostatus = error == ENOSPC ? BLOCK_DEVICE_IO_STATUS_NOSPACE
                                            : BLOCK_DEVICE_IO_STATUS_FAILED;
        }
        if (!job->job.user_paused) {
            /* a pause like the user's, so that it is the user who ends it */
            job->job.user_paused = true;
            job_pause_locked(&job->job);
        }
    }
    return action;
}

void block_job_iostatus_reset_locked(BlockJob *job)
{
    job->iostatus = BLOCK_DEVICE_IO_STATUS_OK;
}

void block_job_user_resume(Job *job)
{
    JOB_LOCK_GUARD();
    block_job_iostatus_reset_locked(block_job(job));
}
