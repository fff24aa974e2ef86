/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copying for the mirror: what to copy next, and copies as coroutines of their own.
 *
 * All of it runs in the context of the job, which is that of source, filter and target; so
 * the list of operations needs no lock.
 */
#include "miniblk/osdep.h"
#include "block/job/mirror-internal.h"

enum {
    COPIES_MAX = 16,            /* in flight at the same time */
    COPY_BYTES_MAX = 1 << 20,   /* per copy, unless the granularity is larger */
};

/* ---- granules in use -------------------------------------------------------------------- */

static MirrorOp *find_overlap(MirrorJob *s, int64_t offset, int64_t bytes)
{
    MirrorOp *op;

    QLIST_FOREACH(op, &s->ops, list) {
        if (op->offset < offset + bytes && offset < op->offset + op->bytes) {
            return op;
        }
    }
    return NULL;
}

static void op_register(MirrorJob *s, MirrorOp *op, int64_t offset, int64_t bytes)
{
    *op = (MirrorOp) { .s = s, .offset = offset, .bytes = bytes };
    qemu_co_queue_init(&op->waiters);
    QLIST_INSERT_HEAD(&s->ops, op, list);
}

/*
 * Make the range one of whole granules; and of whole clusters of the target, where one must
 * not be written in part. So an operation has all of such a cluster or nothing.
 */
static void widen(const MirrorJob *s, int64_t *offset, int64_t *bytes)
{
    int64_t start = QEMU_ALIGN_DOWN(*offset, s->granularity);
    int64_t end = QEMU_ALIGN_UP(*offset + *bytes, s->granularity);

    if (s->whole && !hbitmap_get(s->whole, start)) {
        start = QEMU_ALIGN_DOWN(start, s->cluster_bytes);
    }
    if (s->whole && !hbitmap_get(s->whole, MIN(end, s->length) - 1)) {
        end = QEMU_ALIGN_UP(end, s->cluster_bytes);
    }
    *offset = start;
    *bytes = MIN(end, s->length) - start;
}

void coroutine_fn mirror__op_begin(MirrorJob *s, MirrorOp *op, int64_t offset, int64_t bytes)
{
    MirrorOp *other;

    do {
        int64_t start = offset, n = bytes;
        widen(s, &start, &n);
        other = find_overlap(s, start, n);
        if (other) {
            qemu_co_queue_wait(&other->waiters, NULL);
        } else {
            op_register(s, op, start, n);
        }
    } while (other);
}

void coroutine_fn mirror__op_end(MirrorOp *op)
{
    QLIST_REMOVE(op, list);
    /* these run when we yield or end; OP may be gone by then */
    qemu_co_queue_restart_all(&op->waiters);
    qemu_co_queue_restart_all(&op->s->op_ended);
}

/* ---- errors ----------------------------------------------------------------------------- */

BlockErrorAction mirror__error(MirrorJob *s, bool is_read, int ret)
{
    /* where nobody can resume the job any more, an error is one */
    bool over = s->common.job.deferred_to_main_loop;
    BlockdevOnError on_error = over ? BLOCKDEV_ON_ERROR_REPORT
                               : is_read ? s->on_source_error : s->on_target_error;
    BlockErrorAction action = block_job_error_action(&s->common, on_error, is_read, -ret);

    s->failed_lately = true;
    if (action == BLOCK_ERROR_ACTION_REPORT && s->ret >= 0) {
        s->ret = ret;
    }
    return action;
}

/* ---- one copy --------------------------------------------------------------------------- */

bool mirror__may_write(const MirrorJob *s, int64_t offset, int64_t bytes)
{
    return !s->whole || (hbitmap_get(s->whole, offset) &&
                         hbitmap_get(s->whole, offset + bytes - 1));
}

/* The range has been copied. */
static void note_whole(MirrorJob *s, int64_t offset, int64_t end)
{
    int64_t first = QEMU_ALIGN_UP(offset, s->cluster_bytes);
    int64_t last = end == s->length ? end : QEMU_ALIGN_DOWN(end, s->cluster_bytes);

    if (first < last) {
        hbitmap_set(s->whole, first, last - first);
    }
}

static int coroutine_fn copy_data(MirrorJob *s, int64_t offset, int64_t bytes, void *buf,
                                  bool *is_read)
{
    *is_read = true;
    int ret = bdrv_co_pread(s->filter->backing, offset, bytes, buf, 0);
    if (ret >= 0) {
        *is_read = false;
        ret = blk_co_pwrite(s->target_blk, offset, bytes, buf, 0);
    }
    return ret;
}

/* The first part of the range, as much as is alike. Bytes or -errno. */
static int64_t coroutine_fn copy_part(MirrorJob *s, int64_t offset, int64_t bytes, void **buf,
                                      bool *is_read)
{
    BlockDriverState *source = s->filter->backing->bs;
    int64_t n = 0;

    *is_read = true;
    int ret = bdrv_co_block_status(source, offset, bytes, &n, NULL, NULL);
    if (ret < 0 || n == 0) {
        return ret < 0 ? ret : -EIO;
    }
    if (ret & BDRV_BLOCK_ZERO) {
        *is_read = false;
        ret = blk_co_pwrite_zeroes(s->target_blk, offset, n,
                                   s->unmap ? BDRV_REQ_MAY_UNMAP : 0);
    } else {
        *buf = *buf ? *buf : qemu_try_blockalign(source, bytes);
        ret = *buf ? copy_data(s, offset, n, *buf, is_read) : -ENOMEM;
    }
    return ret < 0 ? ret : n;
}

int coroutine_fn mirror__copy(MirrorJob *s, int64_t offset, int64_t bytes, bool *is_read)
{
    int64_t done = 0, n = 0;
    void *buf = NULL;

    while (done < bytes && n >= 0) {
        n = copy_part(s, offset + done, bytes - done, &buf, is_read);
        done += n;
    }
    qemu_vfree(buf);
    if (n >= 0 && s->whole) {
        note_whole(s, offset, offset + bytes);
    }
    return n < 0 ? n : 0;
}

static void coroutine_fn copy_entry(void *opaque)
{
    MirrorOp *op = opaque;
    MirrorJob *s = op->s;
    int64_t offset = op->offset, bytes = op->bytes;
    bool is_read;               /* what failed */

    int ret = mirror__copy(s, offset, bytes, &is_read);
    if (ret < 0) {
        bdrv_set_dirty_bitmap(s->dirty, offset, bytes);
        mirror__error(s, is_read, ret);
    } else {
        s->copied_bytes += bytes;
        job_progress_update(&s->common.job, bytes);
    }
    s->copies--;
    s->copy_bytes -= bytes;
    mirror__op_end(op);
    g_free(op);
}

/* ---- choosing --------------------------------------------------------------------------- */

static int64_t chunk_max(MirrorJob *s)
{
    int64_t max = MIN(COPY_BYTES_MAX, s->buf_size / 4);     /* several in flight */
    int64_t speed = qatomic_read(&s->common.speed);

    if (speed) {
        max = MIN(max, speed / 10);     /* so that a slow job does a little often */
    }
    return MAX(QEMU_ALIGN_DOWN(max, s->granularity), s->granularity);
}

/* The next dirty granules that nobody works on, from FROM to END; their bits are cleared. */
static bool take_dirty(MirrorJob *s, int64_t from, int64_t end, int64_t *offset,
                       int64_t *bytes)
{
    bdrv_dirty_bitmap_lock(s->dirty);
    while (bdrv_dirty_bitmap_next_dirty_area(s->dirty, from, end, chunk_max(s), offset,
                                             bytes)) {
        widen(s, offset, bytes);
        MirrorOp *op = find_overlap(s, *offset, *bytes);
        for (; op && op->offset > *offset; op = find_overlap(s, *offset, *bytes)) {
            *bytes = op->offset - *offset;
        }
        if (!op) {
            bdrv_reset_dirty_bitmap_locked(s->dirty, *offset, *bytes);
            bdrv_dirty_bitmap_unlock(s->dirty);
            return true;
        }
        from = op->offset + op->bytes;
    }
    bdrv_dirty_bitmap_unlock(s->dirty);
    return false;
}

static bool take_next(MirrorJob *s, int64_t *offset, int64_t *bytes)
{
    if (!take_dirty(s, s->cursor, s->length, offset, bytes) &&
        !take_dirty(s, 0, s->cursor, offset, bytes)) {
        return false;
    }
    s->cursor = *offset + *bytes;
    return true;
}

int64_t mirror__dirty_bytes(MirrorJob *s)
{
    bdrv_dirty_bitmap_lock(s->dirty);
    int64_t bytes = bdrv_get_dirty_count(s->dirty);
    bdrv_dirty_bitmap_unlock(s->dirty);
    return bytes;
}

bool coroutine_fn mirror__start_copies(MirrorJob *s)
{
    bool any = false;
    int64_t offset, bytes;

    while (s->copies < COPIES_MAX && (!s->copies || s->copy_bytes < s->buf_size) &&
           take_next(s, &offset, &bytes)) {
        MirrorOp *op = g_new(MirrorOp, 1);
        op_register(s, op, offset, bytes);
        s->copies++;
        s->copy_bytes += bytes;
        block_job_ratelimit_processed_bytes(&s->common, bytes);
        any = true;
        qemu_coroutine_enter(qemu_coroutine_create(copy_entry, op));
        if (qatomic_read(&s->common.speed)) {
            break;
        }
    }
    return any;
}

/* ---- waiting ---------------------------------------------------------------------------- */

void coroutine_fn mirror__wait_for_an_op(MirrorJob *s)
{
    g_assert(!QLIST_EMPTY(&s->ops));
    qemu_co_queue_wait(&s->op_ended, NULL);
}

void coroutine_fn mirror__wait_for_all_copies(MirrorJob *s)
{
    while (s->copies > 0) {
        mirror__wait_for_an_op(s);
    }
}

int coroutine_fn mirror__copy_rest(MirrorJob *s, int64_t budget_bytes)
{
    job_progress_set_remaining(&s->common.job, mirror__dirty_bytes(s));
    while (s->ret >= 0 && budget_bytes > 0) {
        int64_t before = s->copy_bytes;
        if (mirror__start_copies(s)) {
            budget_bytes -= s->copy_bytes - before;
        } else if (!s->copies && mirror__dirty_bytes(s) == 0) {
            break;
        } else {
            mirror__wait_for_an_op(s);
            budget_bytes -= s->granularity;     /* guests may be faster than we, for ever */
        }
    }
    mirror__wait_for_all_copies(s);
    return s->ret;
}
