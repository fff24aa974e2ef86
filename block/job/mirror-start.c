/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starting a mirror or an active commit. Main thread. */
#include "miniblk/osdep.h"
#include "miniblk/host-utils.h"
#include "block/job/mirror-internal.h"

#define BUF_SIZE_DEFAULT (16 << 20)

/* What both kinds are started with; see mirror_start(). */
typedef struct MirrorParams {
    const BlockJobDriver *driver;
    const char *job_id, *replaces, *filter_node_name;
    BlockDriverState *source, *target;
    int flags;
    int64_t speed, buf_size;
    uint32_t granularity;
    MirrorSyncMode sync;
    BlockMirrorBackingMode backing_mode;
    MirrorCopyMode copy_mode;
    bool zero_target, unmap, auto_complete, is_commit;
    BlockdevOnError on_source_error, on_target_error;
    BlockCompletionFunc *cb;
    void *opaque;
} MirrorParams;

static bool params_ok(MirrorParams *p, Error **errp)
{
    if (p->granularity == 0) {
        p->granularity = bdrv_get_default_bitmap_granularity(p->target);
    }
    g_assert(p->granularity >= BDRV_SECTOR_SIZE && !(p->granularity & (p->granularity - 1)));
    if (p->buf_size < 0) {
        error_setg(errp, "Invalid parameter 'buf-size'");
        return false;
    }
    if (p->buf_size == 0) {
        p->buf_size = BUF_SIZE_DEFAULT;
    }
    if (bdrv_skip_filters(p->source) == bdrv_skip_filters(p->target)) {
        error_setg(errp, "Can't mirror node into itself");
        return false;
    }
    /*
     * Another job's filter may go at any time, also while ours is inserted above it, and would
     * leave us a source without anything below.
     */
    return block_job_none_uses(p->source, errp) && block_job_none_uses(p->target, errp);
}

/* ---- the filter ------------------------------------------------------------------------- */

static BlockDriverState *insert_filter(const MirrorParams *p, Error **errp)
{
    BlockDriverState *filter = bdrv_new_open_driver(&mirror__filter_driver,
                                                    p->filter_node_name, BDRV_O_RDWR, errp);
    if (!filter) {
        return NULL;
    }
    filter->total_sectors = p->source->total_sectors;
    filter->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_FUA;
    filter->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_FUA |
                                   BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    if (p->is_commit) {
        mirror__filter_set_commit(filter);
    }
    if (bdrv_append(filter, p->source, errp) < 0) {
        bdrv_unref(filter);
        return NULL;
    }
    return filter;
}

/* ---- the job's edges -------------------------------------------------------------------- */

static int attach_target(MirrorJob *s, const MirrorParams *p, Error **errp)
{
    uint64_t perm = BLK_PERM_WRITE, shared = BLK_PERM_WRITE_UNCHANGED;

    if (p->is_commit) {
        /* it may have to grow; and it is read as part of the chain all the time */
        perm |= BLK_PERM_RESIZE;
        shared |= BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
    }
    s->target_blk = blk_new(s->common.job.aio_context, perm, shared);
    blk_set_allow_aio_context_change(s->target_blk, true);
    /* the job waits for its requests before it pauses, and is needed to end a section */
    blk_set_disable_request_queuing(s->target_blk, true);
    int ret = blk_insert_bs(s->target_blk, p->target, errp);
    return ret < 0 ? ret : block_job_add_bdrv(&s->common, "target", p->target, 0,
                                              BLK_PERM_ALL, errp);
}

/* Between source and base nobody may write, or read what makes no sense any more. */
static int attach_intermediates(MirrorJob *s, const MirrorParams *p, Error **errp)
{
    BlockDriverState *bs = bdrv_filter_or_cow_bs(p->source);

    for (; bs && bs != p->target; bs = bdrv_filter_or_cow_bs(bs)) {
        /* to deny writing would deny it for the base too, which we write to */
        if (block_job_add_bdrv(&s->common, "intermediate node", bs, 0,
                               BLK_PERM_WRITE_UNCHANGED | BLK_PERM_WRITE, errp) < 0) {
            return -EPERM;
        }
    }
    return 0;
}

static int attach_nodes(MirrorJob *s, const MirrorParams *p, BlockDriverState *filter,
                        Error **errp)
{
    if (attach_target(s, p, errp) < 0) {
        return -EPERM;
    }
    s->dirty = bdrv_create_dirty_bitmap(p->source, p->granularity, NULL, errp);
    if (!s->dirty) {
        return -EIO;
    }
    /* the source must not change its length */
    if (block_job_add_bdrv(&s->common, "source", p->source, 0, BLK_PERM_CONSISTENT_READ |
                           BLK_PERM_WRITE_UNCHANGED | BLK_PERM_WRITE, errp) < 0) {
        return -EPERM;
    }
    if (!p->is_commit) {
        return 0;
    }
    int ret = attach_intermediates(s, p, errp);
    return ret < 0 ? ret : bdrv_freeze_backing_chain(filter, p->target, errp);
}

/* ---- the job ---------------------------------------------------------------------------- */

static void fill_job(MirrorJob *s, const MirrorParams *p)
{
    s->is_commit = p->is_commit;
    s->auto_complete = p->auto_complete;
    s->sync = p->sync;
    s->backing_mode = p->backing_mode;
    s->zero_target = p->zero_target;
    s->unmap = p->unmap;
    s->on_source_error = p->on_source_error;
    s->on_target_error = p->on_target_error;
    s->granularity = p->granularity;
    s->buf_size = MAX(p->buf_size, (int64_t)p->granularity);
    s->length = bdrv_getlength(p->source);
    s->replaces = g_strdup(p->replaces);
    s->copy_mode = p->copy_mode;
    QLIST_INIT(&s->ops);
    qemu_co_queue_init(&s->op_ended);
}

/* The target gets its backing file later, and then what has not been written shows that. */
static void want_whole_clusters(MirrorJob *s)
{
    BlockDriverState *target = bdrv_skip_filters(blk_bs(s->target_blk));
    BlockDriverInfo info;

    if (s->is_commit || s->sync == MIRROR_SYNC_MODE_FULL || bdrv_cow_bs(target) ||
        bdrv_get_info(target, &info) < 0 || info.cluster_size <= s->granularity) {
        return;
    }
    s->cluster_bytes = pow2ceil(info.cluster_size);
    s->whole = hbitmap_alloc(s->length, ctz64(s->cluster_bytes));
}

static void discard_job(MirrorJob *s)
{
    if (s->dirty) {
        bdrv_release_dirty_bitmap(s->dirty);
    }
    blk_unref(s->target_blk);
    job_early_fail(&s->common.job);
}

static MirrorJob *make_job(const MirrorParams *p, BlockDriverState *filter, Error **errp)
{
    MirrorJob *s = block_job_create(p->job_id, p->driver, NULL, filter,
                                    BLK_PERM_CONSISTENT_READ,
                                    BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED |
                                    BLK_PERM_WRITE, p->speed, p->flags, p->cb, p->opaque,
                                    errp);
    if (!s) {
        return NULL;
    }
    fill_job(s, p);
    if (attach_nodes(s, p, filter, errp) < 0) {
        discard_job(s);
        return NULL;
    }
    want_whole_clusters(s);
    return s;
}

static MirrorJob *start(MirrorParams *p, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (!params_ok(p, errp)) {
        return NULL;
    }
    BlockDriverState *filter = insert_filter(p, errp);
    if (!filter) {
        return NULL;
    }
    MirrorJob *s = make_job(p, filter, errp);
    if (!s) {
        mirror__drop_filter(filter);
        return NULL;
    }
    s->filter = filter;
    s->source = p->source;
    s->target = p->target;
    bdrv_ref(s->source);
    bdrv_ref(s->target);
    mirror__filter_set_job(filter, s);
    if (p->copy_mode == MIRROR_COPY_MODE_WRITE_BLOCKING &&
        bdrv_child_refresh_perms(filter, filter->backing, errp) < 0) {
        mirror__abort(&s->common.job);
        job_early_fail(&s->common.job);
        return NULL;
    }
    return s;
}

void mirror_start(const char *job_id, BlockDriverState *bs, BlockDriverState *target,
                  const char *replaces, int creation_flags, int64_t speed,
                  uint32_t granularity, int64_t buf_size, MirrorSyncMode mode,
                  BlockMirrorBackingMode backing_mode, bool zero_target,
                  BlockdevOnError on_source_error, BlockdevOnError on_target_error,
                  bool unmap, const char *filter_node_name, MirrorCopyMode copy_mode,
                  Error **errp)
{
    MirrorParams p = {
        .driver = &mirror__job_driver, .job_id = job_id, .source = bs, .target = target,
        .replaces = replaces, .flags = creation_flags, .speed = speed,
        .granularity = granularity, .buf_size = buf_size, .sync = mode,
        .backing_mode = backing_mode, .zero_target = zero_target,
        .on_source_error = on_source_error, .on_target_error = on_target_error,
        .unmap = unmap, .filter_node_name = filter_node_name, .copy_mode = copy_mode,
    };

    if (mode == MIRROR_SYNC_MODE_INCREMENTAL || mode == MIRROR_SYNC_MODE_BITMAP) {
        error_setg(errp, "Sync mode '%s' not supported",
                   mode == MIRROR_SYNC_MODE_BITMAP ? "bitmap" : "incremental");
        return;
    }
    MirrorJob *s = start(&p, errp);
    if (s) {
        job_start(&s->common.job);
    }
}

BlockJob *commit_active_start(const char *job_id, BlockDriverState *bs,
                              BlockDriverState *base, int creation_flags, int64_t speed,
                              BlockdevOnError on_error, const char *filter_node_name,
                              BlockCompletionFunc *cb, void *opaque, bool auto_complete,
                              Error **errp)
{
    bool was_read_only = bdrv_is_read_only(base);
    MirrorParams p = {
        .driver = &mirror__commit_job_driver, .job_id = job_id, .source = bs, .target = base,
        .flags = creation_flags, .speed = speed, .sync = MIRROR_SYNC_MODE_TOP,
        .backing_mode = MIRROR_LEAVE_BACKING_CHAIN, .on_source_error = on_error,
        .on_target_error = on_error, .unmap = true, .filter_node_name = filter_node_name,
        .copy_mode = MIRROR_COPY_MODE_BACKGROUND, .cb = cb, .opaque = opaque,
        .auto_complete = auto_complete, .is_commit = true,
    };

    if (was_read_only && bdrv_reopen_set_read_only(base, false, errp) < 0) {
        return NULL;
    }
    MirrorJob *s = start(&p, errp);
    if (!s) {
        if (was_read_only) {
            bdrv_reopen_set_read_only(base, true, NULL);
        }
        return NULL;
    }
    s->target_was_read_only = was_read_only;
    job_start(&s->common.job);
    return &s->common;
}
