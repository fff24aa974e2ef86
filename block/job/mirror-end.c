/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The end of a mirror, in the main thread.
 *
 * The last copy, the decision and the switch are in one drained section of the source, and so
 * no guest's write can be lost between them. What has to be copied there is little: the job's
 * coroutine ends when little is dirty; when the job has been pending since then, a copy
 * outside the section comes first.
 */
#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "block/job/mirror-internal.h"

#define LAST_BYTES_MAX (1 << 20)

static MirrorJob *mirror_job(Job *job)
{
    return container_of(job, MirrorJob, common.job);
}

typedef struct LastCopy {
    MirrorJob *s;
    int64_t budget_bytes;
    int ret;
} LastCopy;

static void coroutine_fn last_copy_entry(void *opaque)
{
    LastCopy *c = opaque;

    c->ret = mirror__copy_rest(c->s, c->budget_bytes);
    if (c->ret == 0) {
        c->ret = blk_co_flush(c->s->target_blk);
    }
}

static int copy_rest(MirrorJob *s, int64_t budget_bytes)
{
    LastCopy c = { .s = s, .budget_bytes = budget_bytes };

    bdrv__run_co_on(s->source, last_copy_entry, &c);
    return c.ret;
}

void mirror__drop_filter(BlockDriverState *filter)
{
    Error *local_err = NULL;

    /* a filter that needs nothing may not write either, so guests rest until it is gone */
    bdrv_drained_begin(filter);
    mirror__filter_drop_perms(filter);
    if (bdrv_drop_filter(filter, &local_err) < 0) {
        /* a new user of what is below does not get on with those above: it keeps them apart */
        error_prepend(&local_err, "Filter '%s' stays: ", filter->node_name);
        error_report_err(local_err);
    }
    bdrv_drained_end(filter);
    bdrv_unref(filter);
}

/* The node that shall be the target's backing file when it has taken the source's place. */
static BlockDriverState *source_backing(MirrorJob *s)
{
    switch (s->sync) {
    case MIRROR_SYNC_MODE_NONE:
        return bdrv_skip_filters(s->source);
    case MIRROR_SYNC_MODE_TOP:
        return bdrv_cow_bs(bdrv_skip_filters(s->source));
    default:
        return NULL;
    }
}

static int set_backing(MirrorJob *s, Error **errp)
{
    BlockDriverState *target = bdrv_skip_filters(s->target);

    if (s->is_commit || s->backing_mode == MIRROR_LEAVE_BACKING_CHAIN) {
        return 0;
    }
    return s->backing_mode == MIRROR_OPEN_BACKING_CHAIN
           ? bdrv__open_backing_file(target, errp)
           : bdrv_set_backing_hd(target, source_backing(s), errp);
}

/* Source and target are drained, and equal: users of the one shall use the other. */
static int pivot(MirrorJob *s, Error **errp)
{
    BlockDriverState *replaced = s->to_replace ? s->to_replace : s->source;
    /* the filter asks for all that its parents need, so it is decided here who gets on */
    int ret = mirror__filter_end_commit(s->filter, errp);

    if (ret == 0) {
        ret = set_backing(s, errp);
    }
    return ret < 0 ? ret : bdrv_replace_node(replaced, s->target, errp);
}

static int pivot_or_fail(MirrorJob *s)
{
    Error *local_err = NULL;
    int ret = pivot(s, &local_err);

    if (ret < 0) {
        JOB_LOCK_GUARD();
        error_free(s->common.job.err);
        s->common.job.err = local_err;
    }
    return ret;
}

/* Take down all that the job has put up. Returns what pivot() does if it is wanted, or 0. */
static int take_down(MirrorJob *s, bool want_pivot)
{
    BlockDriverState *source = s->source, *target = s->target;
    int ret = 0;

    bdrv_drained_begin(source);
    bdrv_drained_begin(target);
    mirror__filter_set_job(s->filter, NULL);
    bdrv_release_dirty_bitmap(g_steal_pointer(&s->dirty));
    if (s->is_commit) {
        bdrv_unfreeze_backing_chain(s->filter, target);
    }
    /* it needs nothing any more, but keeps the target in its context until the end */
    blk_set_perm(s->target_blk, 0, BLK_PERM_ALL, &error_abort);
    block_job_remove_all_bdrv(&s->common);
    if (want_pivot) {
        ret = pivot_or_fail(s);
    }
    mirror__drop_filter(g_steal_pointer(&s->filter));
    blk_unref(g_steal_pointer(&s->target_blk));
    if (s->target_was_read_only && (!want_pivot || ret < 0)) {
        bdrv_reopen_set_read_only(target, true, NULL);
    }
    s->source = s->target = NULL;
    bdrv_drained_end(target);
    bdrv_drained_end(source);
    bdrv_unref(target);
    bdrv_unref(source);
    return ret;
}

int mirror__prepare(Job *job)
{
    MirrorJob *s = mirror_job(job);
    BlockDriverState *source = s->source;
    int64_t dirty_bytes = mirror__dirty_bytes(s);

    GLOBAL_STATE_CODE();
    if (dirty_bytes > LAST_BYTES_MAX) {
        copy_rest(s, dirty_bytes);
    }
    bdrv_ref(source);
    bdrv_drained_begin(source);
    int ret = copy_rest(s, INT64_MAX);
    if (ret == 0) {
        /* a soft cancel leaves the target as a copy of this moment */
        ret = take_down(s, !job_cancel_requested(job));
    }
    bdrv_drained_end(source);
    bdrv_unref(source);
    return ret;
}

void mirror__abort(Job *job)
{
    MirrorJob *s = mirror_job(job);

    GLOBAL_STATE_CODE();
    if (s->filter) {
        take_down(s, false);
    }
}
