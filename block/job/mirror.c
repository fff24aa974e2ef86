/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The mirror's coroutine: what is dirty to begin with, and following the guests. */
#include "miniblk/osdep.h"
#include "block/job/mirror-internal.h"

/* How long an idle or failing job waits before it looks again. */
#define SLICE_NS (NANOSECONDS_PER_SECOND / 10)
/* So little may be left to be copied while guests wait. */
#define LAST_BYTES_MAX (1 << 20)
/* Piece of a long operation, between two pause points. */
#define STEP_BYTES_MAX (1 << 30)

static MirrorJob *mirror_job(Job *job)
{
    return container_of(job, MirrorJob, common.job);
}

/* ---- the beginning ---------------------------------------------------------------------- */

/* An active layer that has grown commits into a base that must grow too. */
static int coroutine_fn fit_target(MirrorJob *s, Error **errp)
{
    int64_t target_length = blk_getlength(s->target_blk);

    if (target_length < 0) {
        error_setg_errno(errp, -target_length, "Could not get the length of the target");
        return target_length;
    }
    if (target_length >= s->length) {
        return 0;
    }
    if (!s->is_commit) {
        error_setg(errp, "Target is smaller than the source");
        return -EINVAL;
    }
    return blk_truncate(s->target_blk, s->length, false, PREALLOC_MODE_OFF, 0, errp);
}

static void coroutine_fn mark_all_dirty(MirrorJob *s)
{
    bdrv_set_dirty_bitmap(s->dirty, 0, s->length);
}

/* Make the target read as zeroes. 0, -errno, or -ENOTSUP when that would take a long time. */
static int coroutine_fn zero_target(MirrorJob *s)
{
    for (int64_t offset = 0; offset < s->length; ) {
        int64_t n = MIN(s->length - offset, STEP_BYTES_MAX);

        job_pause_point(&s->common.job);
        if (job_is_cancelled(&s->common.job)) {
            return 0;
        }
        int ret = blk_co_pwrite_zeroes(s->target_blk, offset, n,
                                       BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);
        if (ret < 0) {
            return ret;
        }
        offset += n;
    }
    return 0;
}

/* What the layers above BASE (NULL: all) hold is to be copied. */
static int coroutine_fn mark_allocated(MirrorJob *s, BlockDriverState *base)
{
    for (int64_t offset = 0; offset < s->length; ) {
        int64_t n = 0;

        job_pause_point(&s->common.job);
        if (job_is_cancelled(&s->common.job)) {
            return 0;
        }
        int ret = bdrv_is_allocated_above(s->source, base, false, offset,
                                          MIN(s->length - offset, STEP_BYTES_MAX), &n);
        if (ret < 0 || n == 0) {
            return ret < 0 ? ret : -EIO;
        }
        if (ret) {
            bdrv_set_dirty_bitmap(s->dirty, offset, n);
        }
        offset += n;
    }
    return 0;
}

static int coroutine_fn find_work(MirrorJob *s)
{
    switch (s->sync) {
    case MIRROR_SYNC_MODE_NONE:
        return 0;
    case MIRROR_SYNC_MODE_TOP:
        return mark_allocated(s, s->is_commit ? s->target
                                              : bdrv_backing_chain_next(s->source));
    default:
        if (s->zero_target) {
            int ret = zero_target(s);
            if (ret == -ENOTSUP) {
                mark_all_dirty(s);
            }
            if (ret < 0) {
                return ret == -ENOTSUP ? 0 : ret;
            }
        }
        return mark_allocated(s, NULL);
    }
}

/* ---- following the guests --------------------------------------------------------------- */

/* Source and target are as good as equal for the first time. */
static int coroutine_fn become_ready(MirrorJob *s)
{
    int ret = blk_co_flush(s->target_blk);

    if (ret < 0) {
        return mirror__error(s, false, ret) == BLOCK_ERROR_ACTION_REPORT ? ret : 0;
    }
    job_transition_to_ready(&s->common.job);
    if (s->auto_complete) {
        qatomic_set(&s->complete_wanted, true);
    }
    return 0;
}

/*
 * Equal, or, since guests may write faster than we copy little pieces for ever: all has been
 * copied once, and what is left can be copied while they wait.
 */
static bool caught_up(MirrorJob *s, int64_t left)
{
    return left == 0 || (s->copied_bytes >= s->first_pass_bytes && left <= LAST_BYTES_MAX);
}

static bool end_wanted(MirrorJob *s)
{
    return qatomic_read(&s->complete_wanted) || job_cancel_requested(&s->common.job);
}

static void coroutine_fn work_or_wait(MirrorJob *s, int64_t left)
{
    Job *job = &s->common.job;

    if (s->failed_lately) {
        s->failed_lately = false;
        job_sleep_ns(job, SLICE_NS);
    } else if (mirror__start_copies(s)) {
        block_job_ratelimit_sleep(&s->common);
    } else if (left > 0 && !QLIST_EMPTY(&s->ops)) {
        mirror__wait_for_an_op(s);      /* guests may be at work on all that is dirty */
    } else {
        job_sleep_ns(job, SLICE_NS);
    }
}

static int coroutine_fn follow(MirrorJob *s)
{
    Job *job = &s->common.job;

    s->first_pass_bytes = mirror__dirty_bytes(s);
    for (;;) {
        job_pause_point(job);
        if (job_is_cancelled(job) || s->ret < 0) {
            return s->ret;
        }
        int64_t left = mirror__dirty_bytes(s) + s->copy_bytes;
        job_progress_set_remaining(job, left);
        bool ready = job_is_ready(job);
        if (ready && end_wanted(s) && left <= LAST_BYTES_MAX) {
            return 0;
        }
        if (!ready && caught_up(s, left) && !s->failed_lately) {
            int ret = become_ready(s);
            if (ret < 0) {
                return ret;
            }
        } else {
            work_or_wait(s, left);
        }
    }
}

static int coroutine_fn mirror_run(Job *job, Error **errp)
{
    MirrorJob *s = mirror_job(job);
    int ret = fit_target(s, errp);

    if (ret >= 0) {
        ret = find_work(s);
    }
    if (ret >= 0 && !job_is_cancelled(job)) {
        s->tracking = true;
        ret = follow(s);
    }
    mirror__wait_for_all_copies(s);
    return ret;
}

/* ---- the driver's other calls ----------------------------------------------------------- */

static void coroutine_fn mirror_pause(Job *job)
{
    mirror__wait_for_all_copies(mirror_job(job));
}

/* Whether users of the source see the same data in BS. */
static bool shows_source(MirrorJob *s, BlockDriverState *bs)
{
    for (BlockDriverState *below = s->source; below; below = bdrv_filter_bs(below)) {
        if (below == bs) {
            return true;
        }
    }
    return false;
}

static void mirror_complete(Job *job, Error **errp)
{
    MirrorJob *s = mirror_job(job);

    GLOBAL_STATE_CODE();
    if (s->replaces && !s->to_replace) {
        BlockDriverState *bs = bdrv_find_node(s->replaces);
        if (!bs) {
            error_setg(errp, "Node name '%s' not found", s->replaces);
            return;
        }
        if (!shows_source(s, bs)) {
            error_setg(errp, "Cannot replace '%s' by a node mirrored from '%s', because it "
                       "cannot be guaranteed that doing so would not lead to an abrupt change "
                       "of visible data", s->replaces, s->source->node_name);
            return;
        }
        bdrv_ref(bs);
        s->to_replace = bs;
    }
    qatomic_set(&s->complete_wanted, true);
    job_enter(job);
}

static bool mirror_cancel(Job *job, bool force)
{
    /* a job that is not ready has nothing to keep */
    return force || !job_is_ready(job);
}

static void mirror_free(Job *job)
{
    MirrorJob *s = mirror_job(job);

    g_assert(!s->filter);
    bdrv_unref(s->to_replace);
    block_job_free(job);
    hbitmap_free(s->whole);
    g_free(s->replaces);
}

static void mirror_change(BlockJob *bjob, BlockJobChangeOptions *opts, Error **errp)
{
    MirrorJob *s = container_of(bjob, MirrorJob, common);
    MirrorCopyMode old = qatomic_read(&s->copy_mode);

    GLOBAL_STATE_CODE();
    if (opts->copy_mode == old || !s->filter) {
        return;
    }
    if (opts->copy_mode != MIRROR_COPY_MODE_WRITE_BLOCKING) {
        error_setg(errp, "Change to copy mode 'background' is not implemented");
        return;
    }
    qatomic_set(&s->copy_mode, opts->copy_mode);
    if (bdrv_child_refresh_perms(s->filter, s->filter->backing, errp) < 0) {
        qatomic_set(&s->copy_mode, old);
    }
}

bool mirror_is_actively_synced(BlockJob *bjob)
{
    MirrorJob *s = container_of(bjob, MirrorJob, common);

    g_assert(bjob->job.driver == &mirror__job_driver.job_driver);
    return job_is_ready_locked(&bjob->job) &&
           qatomic_read(&s->copy_mode) == MIRROR_COPY_MODE_WRITE_BLOCKING;
}

#define MIRROR_JOB_DRIVER(type) {                                               \
        .instance_size = sizeof(MirrorJob),                                     \
        .job_type = (type),                                                     \
        .free = mirror_free,                                                    \
        .user_resume = block_job_user_resume,                                   \
        .run = mirror_run,                                                      \
        .prepare = mirror__prepare,                                             \
        .abort = mirror__abort,                                                 \
        .pause = mirror_pause,                                                  \
        .complete = mirror_complete,                                            \
        .cancel = mirror_cancel,                                                \
    }

const BlockJobDriver mirror__job_driver = {
    .job_driver = MIRROR_JOB_DRIVER(JOB_TYPE_MIRROR),
    .change = mirror_change,
};

const BlockJobDriver mirror__commit_job_driver = {
    .job_driver = MIRROR_JOB_DRIVER(JOB_TYPE_COMMIT),
};
