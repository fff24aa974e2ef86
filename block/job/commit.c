/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commit of layers that nobody writes to: what TOP and the layers below it hold goes to BASE,
 * and then they are taken out of the chain.
 *
 *      before   guest -> active -> filter -> top -> mid -> base
 *      after    guest -> active -> base
 *
 * The filter needs nothing of the chain below it and allows all. So the job may write to the
 * base, while for those above the filter nothing changes: each range is in top or mid until
 * the end, or is the base's own.
 */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/blockjob.h"

#define CHUNK_BYTES (1 << 20)
#define RETRY_NS (NANOSECONDS_PER_SECOND / 10)

typedef struct CommitJob {
    BlockJob common;
    BlockDriverState *filter, *top, *base;      /* referenced; NULL when it is all over */
    BlockBackend *base_blk;
    char *backing_file_str;     /* NULL: the base's name */
    BlockdevOnError on_error;
    int64_t length;             /* of top */
    bool base_was_read_only;
} CommitJob;

static CommitJob *commit_job(Job *job)
{
    return container_of(job, CommitJob, common.job);
}

/* ---- the filter ------------------------------------------------------------------------- */

static int coroutine_fn filter_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->backing, offset, bytes, qiov, flags);
}

static void filter_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                              BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                              uint64_t *nperm, uint64_t *nshared)
{
    *nperm = 0;
    *nshared = BLK_PERM_ALL;
}

static BlockDriver commit_filter_driver = {
    .format_name = "commit_top",
    .is_filter = true,
    .filtered_child_is_backing = true,
    .bdrv_co_preadv = filter_preadv,
    .bdrv_child_perm = filter_child_perm,
};

/* ---- the work --------------------------------------------------------------------------- */

static int coroutine_fn grow_base(CommitJob *s, Error **errp)
{
    int64_t base_length = blk_getlength(s->base_blk);

    if (base_length < 0) {
        error_setg_errno(errp, -base_length, "Could not get the length of the base");
        return base_length;
    }
    return base_length >= s->length ? 0 : blk_truncate(s->base_blk, s->length, false,
                                                       PREALLOC_MODE_OFF, 0, errp);
}

/* Copy the range, which lies in one layer above the base. *IS_READ: what failed. */
static int coroutine_fn copy(CommitJob *s, int64_t offset, int64_t bytes, void *buf,
                             bool *is_read)
{
    int64_t n;
    int ret = bdrv_co_block_status(s->top, offset, bytes, &n, NULL, NULL);

    *is_read = false;
    if (ret >= 0 && (ret & BDRV_BLOCK_ZERO) && n >= bytes) {
        return blk_co_pwrite_zeroes(s->base_blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    }
    ret = bdrv_co_pread(s->filter->backing, offset, bytes, buf, 0);
    if (ret < 0) {
        *is_read = true;
        return ret;
    }
    return blk_co_pwrite(s->base_blk, offset, bytes, buf, 0);
}

/* One step from OFFSET on: bytes that are done with, 0 to try again, or -errno. */
static int64_t coroutine_fn step(CommitJob *s, int64_t offset, void *buf)
{
    bool is_read = true;
    int64_t n = 0;
    int ret = bdrv_is_allocated_above(s->top, s->base, false, offset,
                                      MIN(s->length - offset, CHUNK_BYTES), &n);

    if (ret > 0) {
        ret = copy(s, offset, n, buf, &is_read);
        if (ret >= 0) {
            block_job_ratelimit_processed_bytes(&s->common, n);
        }
    }
    if (ret >= 0) {
        return n > 0 ? n : -EIO;
    }
    if (block_job_error_action(&s->common, s->on_error, is_read, -ret) ==
        BLOCK_ERROR_ACTION_REPORT) {
        return ret;
    }
    job_sleep_ns(&s->common.job, RETRY_NS);
    return 0;
}

static int coroutine_fn commit_run(Job *job, Error **errp)
{
    CommitJob *s = commit_job(job);
    int64_t offset = 0;
    int ret = grow_base(s, errp);

    if (ret < 0) {
        return ret;
    }
    void *buf = qemu_try_blockalign(s->base, CHUNK_BYTES);
    if (!buf) {
        return -ENOMEM;
    }
    job_progress_set_remaining(job, s->length);
    while (offset < s->length && ret >= 0) {
        block_job_ratelimit_sleep(&s->common);
        job_pause_point(job);
        if (job_is_cancelled(job)) {
            break;
        }
        int64_t n = step(s, offset, buf);
        if (n < 0) {
            ret = n;
        } else {
            offset += n;
            job_progress_update(job, n);
        }
    }
    qemu_vfree(buf);
    if (ret >= 0 && !job_is_cancelled(job)) {
        ret = blk_co_flush(s->base_blk);
    }
    return ret;
}

/* ---- the end ---------------------------------------------------------------------------- */

static void drop_filter(BlockDriverState *filter)
{
    Error *local_err = NULL;

    if (bdrv_drop_filter(filter, &local_err) < 0) {
        /* a new user of what is below does not get on with those above: it keeps them apart */
        error_prepend(&local_err, "Filter '%s' stays: ", filter->node_name);
        error_report_err(local_err);
    }
    bdrv_unref(filter);
}

/* Let go of all that the job holds, except that with DROP the layers go and not the filter. */
static int take_down(CommitJob *s, bool drop)
{
    BlockDriverState *filter = g_steal_pointer(&s->filter);
    int ret = 0;

    bdrv_unfreeze_backing_chain(filter, s->base);
    /* the base is part of the chain: it stays where it is without our edges */
    blk_unref(g_steal_pointer(&s->base_blk));
    block_job_remove_all_bdrv(&s->common);
    if (drop) {
        /* drains all of the chain and looks what is in it then */
        ret = bdrv_drop_intermediate(filter, s->base, s->backing_file_str);
    }
    if (drop && ret == 0) {
        bdrv_unref(filter);
    } else {
        drop_filter(filter);
    }
    if (s->base_was_read_only) {
        bdrv_reopen_set_read_only(s->base, true, NULL);
    }
    bdrv_unref(g_steal_pointer(&s->top));
    bdrv_unref(g_steal_pointer(&s->base));
    return ret;
}

static int commit_prepare(Job *job)
{
    GLOBAL_STATE_CODE();
    return take_down(commit_job(job), true);
}

static void commit_abort(Job *job)
{
    CommitJob *s = commit_job(job);

    GLOBAL_STATE_CODE();
    if (s->filter) {
        take_down(s, false);
    }
}

static void commit_free(Job *job)
{
    CommitJob *s = commit_job(job);

    g_assert(!s->filter);
    block_job_free(job);
    g_free(s->backing_file_str);
}

static const BlockJobDriver commit_job_driver = {
    .job_driver = {
        .instance_size = sizeof(CommitJob),
        .job_type = JOB_TYPE_COMMIT,
        .free = commit_free,
        .user_resume = block_job_user_resume,
        .run = commit_run,
        .prepare = commit_prepare,
        .abort = commit_abort,
    },
};

/* ---- the beginning ---------------------------------------------------------------------- */

static BlockDriverState *insert_filter(BlockDriverState *top, const char *name, Error **errp)
{
    BlockDriverState *filter = bdrv_new_open_driver(&commit_filter_driver, name, 0, errp);

    if (filter) {
        filter->total_sectors = top->total_sectors;
        if (bdrv_append(filter, top, errp) < 0) {
            bdrv_unref(filter);
            return NULL;
        }
    }
    return filter;
}

/* Between the filter and the base nobody may read what makes no sense by itself, or write. */
static int attach_nodes(CommitJob *s, BlockDriverState *top, BlockDriverState *base,
                        Error **errp)
{
    for (BlockDriverState *bs = top; bs != base; bs = bdrv_filter_or_cow_bs(bs)) {
        /* to deny writing would deny it for the base too, which we write to */
        if (block_job_add_bdrv(&s->common, "intermediate node", bs, 0,
                               BLK_PERM_WRITE_UNCHANGED | BLK_PERM_WRITE, errp) < 0) {
            return -EPERM;
        }
    }
    if (block_job_add_bdrv(&s->common, "base", base, 0, BLK_PERM_ALL, errp) < 0) {
        return -EPERM;
    }
    s->base_blk = blk_new(s->common.job.aio_context, BLK_PERM_CONSISTENT_READ |
                          BLK_PERM_WRITE | BLK_PERM_RESIZE,
                          BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED);
    blk_set_allow_aio_context_change(s->base_blk, true);
    /* the job waits for its requests before it pauses */
    blk_set_disable_request_queuing(s->base_blk, true);
    return blk_insert_bs(s->base_blk, base, errp);
}

static CommitJob *make_job(const char *job_id, BlockDriverState *filter,
                           BlockDriverState *top, BlockDriverState *base, int flags,
                           int64_t speed, Error **errp)
{
    CommitJob *s = block_job_create(job_id, &commit_job_driver, NULL, filter, 0,
                                    BLK_PERM_ALL, speed, flags, NULL, NULL, errp);
    if (!s) {
        return NULL;
    }
    s->length = bdrv_getlength(top);
    if (s->length < 0 || attach_nodes(s, top, base, errp) < 0 ||
        bdrv_freeze_backing_chain(filter, base, errp) < 0) {
        if (s->length < 0) {
            error_setg_errno(errp, -s->length, "Could not get the length of '%s'",
                             top->node_name);
        }
        blk_unref(s->base_blk);
        job_early_fail(&s->common.job);
        return NULL;
    }
    return s;
}

void commit_start(const char *job_id, BlockDriverState *bs, BlockDriverState *base,
                  BlockDriverState *top, int creation_flags, int64_t speed,
                  BlockdevOnError on_error, const char *backing_file_str,
                  const char *filter_node_name, Error **errp)
{
    bool was_read_only = bdrv_is_read_only(base);

    GLOBAL_STATE_CODE();
    g_assert(bs != top);
    if (bdrv_skip_filters(top) == bdrv_skip_filters(base)) {
        error_setg(errp, "Invalid files for merge: top and base are the same");
        return;
    }
    if (was_read_only && bdrv_reopen_set_read_only(base, false, errp) < 0) {
        return;
    }
    BlockDriverState *filter = insert_filter(top, filter_node_name, errp);
    CommitJob *s = filter ? make_job(job_id, filter, top, base, creation_flags, speed, errp)
                          : NULL;
    if (!s) {
        if (filter) {
            drop_filter(filter);
        }
        if (was_read_only) {
            bdrv_reopen_set_read_only(base, true, NULL);
        }
        return;
    }
    s->filter = filter;
    s->top = top;
    s->base = base;
    bdrv_ref(top);
    bdrv_ref(base);
    s->backing_file_str = g_strdup(backing_file_str);
    s->on_error = on_error;
    s->base_was_read_only = was_read_only;
    job_start(&s->common.job);
}
