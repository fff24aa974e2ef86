/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When changed metadata reaches the file, and in which order.
 *
 * Changes are made in memory and written back by flushes, when a cache is full, and at
 * close. "F" is a flush of the file:
 *
 *   1. refcount blocks; slices of L2 tables that the L1 table on disk does not point to
 *      (guest data was written before its mapping was changed in memory)
 *   F. now all that is about to be pointed to is durable
 *   2. refcount table entries of new blocks, F
 *   3. the other L2 slices; L1 entries
 *
 * Clusters that lose a reference are kept until the pointer to them is durably gone (3, F)
 * and all requests that may have looked the old pointer up have ended (the epochs); then
 * their refcounts drop, which may reach the disk at any time.
 *
 * With lazy refcounts step 1 leaves the refcount blocks out: the dirty bit in the header
 * tells that they must be recomputed.
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

/* Deferred frees kept at most before somebody has to wait for them. */
#define FREED_MAX 4096

int coroutine_fn qcow2_mark_dirty(Qcow2State *s)
{
    if (!s->lazy_refcounts || (s->header.incompat & QCOW2_INCOMPAT_DIRTY)) {
        return 0;
    }
    return qcow2_header_set_incompat(s, s->header.incompat | QCOW2_INCOMPAT_DIRTY);
}

static int coroutine_fn write_refcounts(Qcow2State *s)
{
    if (s->lazy_refcounts && !s->reftable.changed_list->len) {
        return 0;
    }
    return qcow2_cache_write(s, &s->refblock_cache, NULL);
}

static int coroutine_fn write_l1(Qcow2State *s)
{
    if (!s->l1.changed_list->len) {
        return 0;
    }
    return qcow2_root_write(s, &s->l1);
}

int coroutine_fn qcow2_flush_files(Qcow2State *s)
{
    int ret = s->data_file ? bdrv_co_flush(s->data_file->bs) : 0;

    return ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
}

int coroutine_fn qcow2_writeback(Qcow2State *s)
{
    bool new_blocks = s->reftable.changed_list->len;
    int ret;

    qemu_co_mutex_assert_locked(&s->lock);
    if (s->corrupt) {
        return -EIO;
    }
    ret = write_refcounts(s);
    ret = ret < 0 ? ret : qcow2_cache_write(s, &s->l2_cache, &s->l1);
    if (ret < 0) {
        return ret;
    }
    if (new_blocks || !qcow2_cache_is_clean(&s->l2_cache) || s->l1.changed_list->len) {
        ret = qcow2_flush_files(s);
    }
    if (ret >= 0 && new_blocks) {
        ret = qcow2_root_write(s, &s->reftable);
        ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    }
    ret = ret < 0 ? ret : qcow2_cache_write(s, &s->l2_cache, NULL);
    return ret < 0 ? ret : write_l1(s);
}

/* ---- deferred frees ---------------------------------------------------------------- */

void qcow2_free_later(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Discard cause)
{
    uint64_t first = offset >> s->cluster_bits;
    uint64_t end = qcow2_clusters(s, offset + bytes);
    Qcow2Free f = { first, end - first, s->pass_discard[cause] };

    qemu_co_mutex_assert_locked(&s->lock);
    if (s->freed->len) {
        Qcow2Free *last = &g_array_index(s->freed, Qcow2Free, s->freed->len - 1);
        if (last->cluster + last->n == f.cluster && last->discard == f.discard) {
            last->n += f.n;
            return;
        }
    }
    g_array_append_val(s->freed, f);
}

/* Tell the file which of F's clusters are free now. */
static void coroutine_fn discard_unused(Qcow2State *s, const Qcow2Free *f)
{
    int64_t len = bdrv_getlength(s->bs->file->bs);
    uint64_t run = 0;

    for (uint64_t i = 0; i <= f->n; i++) {
        uint64_t refcount = 1;
        if (i < f->n && qcow2_refcount_get(s, f->cluster + i, &refcount) >= 0 &&
            refcount == 0) {
            run++;
        } else if (run) {
            uint64_t offset = (f->cluster + i - run) << s->cluster_bits;
            if ((int64_t)offset < len) {
                /* Only a hint: failure is no failure of the guest's request. */
                bdrv_co_pdiscard(s->bs->file, offset, run << s->cluster_bits);
            }
            run = 0;
        }
    }
}

/* Drop the references of RESTING once no request is left that could use them. */
static int coroutine_fn drop_resting(Qcow2State *s)
{
    int ret = 0;

    if (s->running[!s->epoch]) {
        return 0;
    }
    for (guint i = 0; i < s->resting->len; i++) {
        Qcow2Free *f = &g_array_index(s->resting, Qcow2Free, i);
        BLKDBG_EVENT(s->bs->file, BLKDBG_CLUSTER_FREE);
        int r = qcow2_refcount_change(s, f->cluster, f->n, -1);
        if (r == -EINVAL) {
            r = qcow2_signal_corruption(s, true, "Freed clusters at offset %#" PRIx64
                                        " have no references",
                                        f->cluster << s->cluster_bits);
        } else if (r >= 0 && f->discard) {
            discard_unused(s, f);
        }
        ret = ret < 0 ? ret : r;        /* go on: what fails is leaked */
    }
    g_array_set_size(s->resting, 0);
    return ret;
}

/* After a writeback: make it durable and let go of what can be let go. */
static int coroutine_fn settle_frees(Qcow2State *s)
{
    int ret = drop_resting(s);

    if (ret < 0 || !s->freed->len || s->resting->len) {
        return ret;
    }
    ret = bdrv_co_flush(s->bs->file->bs);
    if (ret < 0) {
        return ret;
    }
    GArray *empty = s->resting;
    s->resting = s->freed;
    s->freed = empty;
    /* Requests that start from now on see the new mapping. */
    s->epoch = !s->epoch;
    return drop_resting(s);
}

int coroutine_fn qcow2_limit_frees(Qcow2State *s)
{
    if (s->freed->len < FREED_MAX) {
        return 0;
    }
    int ret = qcow2_writeback(s);
    return ret < 0 ? ret : settle_frees(s);
}

/* The block layer flushes the file next. */
int coroutine_fn qcow2_co_flush_to_os(BlockDriverState *bs)
{
    Qcow2State *s = bs->opaque;

    if (!s->writable) {
        return 0;
    }
    qemu_co_mutex_lock(&s->lock);
    int ret = qcow2_writeback(s);
    ret = ret < 0 ? ret : settle_frees(s);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

int coroutine_fn qcow2_writeback_all(Qcow2State *s)
{
    int ret = qcow2_writeback(s);

    ret = ret < 0 ? ret : settle_frees(s);
    ret = ret < 0 ? ret : settle_frees(s);
    ret = ret < 0 ? ret : qcow2_cache_write(s, &s->refblock_cache, NULL);
    ret = ret < 0 ? ret : qcow2_writeback(s);
    return ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
}
