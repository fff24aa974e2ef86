/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the length of the guest disk, and allocating clusters ahead of writes. */
#include "miniblk/osdep.h"
#include "images/qcow2-entry.h"
#include "images/qcow2-manage.h"
#include "images/qcow2-reftable.h"

/* The block layer's flush would find that the guest has written nothing. */
static int coroutine_fn flush_all(Qcow2State *s)
{
    int ret = qcow2_co_flush_to_os(s->bs);
    return ret < 0 ? ret : qcow2_flush_files(s);
}

/* ---- header ------------------------------------------------------------------------ */

static int coroutine_fn store_size(Qcow2State *s, uint64_t size)
{
    uint64_t be = GUINT64_TO_BE(size);

    /* Others rewrite the header as a whole. */
    QEMU_LOCK_GUARD(&s->lock);
    int ret = qcow2_header_switch(s, 24, &be, sizeof(be));
    if (ret >= 0) {
        s->header.size = size;
        s->bs->total_sectors = size >> BDRV_SECTOR_BITS;
    }
    return ret;
}

/* ---- preallocation ----------------------------------------------------------------- */

/* The entry of a cluster that was given HOST; FRESH: what is there reads as zeroes. */
static Qcow2Entry prealloc_entry(const Qcow2State *s, uint64_t host, bool fresh)
{
    Qcow2Entry e = { .desc = host | QCOW2_COPIED };

    if (s->subclusters == 1) {
        /* Recycled clusters and those over a backing file must read as zeroes too. */
        bool data = fresh && !s->bs->backing;
        e.alloc = data;
        e.zero = !data;
    }
    /* Subclusters can have a place and be unallocated. */
    return e;
}

/* Nothing may point behind the end of the file, and nothing is written to make it longer. */
static int coroutine_fn extend_file(Qcow2State *s, uint64_t end)
{
    if (end <= s->file_bytes) {
        return 0;
    }
    int64_t len = bdrv_getlength(s->bs->file->bs);
    int ret = len < 0 ? len : 0;
    if (ret >= 0 && (uint64_t)len < end) {
        /* Not less: who has a place behind may be writing there, and must not lose it. */
        end = MAX(end, s->virgin_offset);
        ret = bdrv_co_truncate(s->bs->file, end, false, PREALLOC_MODE_OFF, 0, NULL);
    }
    if (ret >= 0) {
        s->file_bytes = MAX((uint64_t)len, end);
    }
    return ret;
}

/* Room for N clusters in the file that read as zeroes, or (*FRESH false) as anything. */
static int coroutine_fn prealloc_host(Qcow2State *s, uint64_t n, uint64_t *host, uint64_t *got,
                                      bool *fresh)
{
    int ret = qcow2_alloc_clusters(s, 1, n, host, got, fresh);

    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_CLUSTER_ALLOC_SPACE);
    ret = extend_file(s, *host + (*got << s->cluster_bits));
    if (ret >= 0 && !*fresh && s->header.version < 3) {
        /* Without zero clusters the zeroes must be there. */
        *fresh = true;
        ret = bdrv_co_pwrite_zeroes(s->bs->file, *host, *got << s->cluster_bits, 0);
    }
    if (ret < 0) {
        qcow2_refcount_change(s, *host >> s->cluster_bits, *got, -1);
    }
    return ret;
}

/* Give host clusters to unallocated clusters of one slice. Lock held. Bytes done; -errno. */
static int64_t coroutine_fn prealloc_slice(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    Qcow2Slice *slice;
    uint32_t i;
    uint64_t host = offset, got = 0, want = 0;
    bool fresh = s->data_file && qcow2_data_file_grows_zeroed(s);

    int ret = qcow2_l2_for_write(s, offset, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    uint64_t n = MIN(qcow2_clusters(s, bytes), qcow2_slice_entries(s) - i);
    while (want < n && qcow2_entry_equal(qcow2_entry_load(s, slice, i + want),
                                         (Qcow2Entry){ 0 })) {
        want++;
    }
    if (!want) {
        qcow2_cache_put(slice);
        return MIN(bytes, s->cluster_bytes);
    }
    if (s->data_file) {
        got = want;
    } else {
        ret = prealloc_host(s, want, &host, &got, &fresh);
    }
    for (uint64_t k = 0; k < got && ret >= 0; k++) {
        qcow2_entry_store(s, slice, i + k,
                          prealloc_entry(s, host + (k << s->cluster_bits), fresh));
    }
    qcow2_cache_mark_dirty(&s->l2_cache, slice);
    qcow2_cache_put(slice);
    return ret < 0 ? ret : (int64_t)MIN(bytes, got << s->cluster_bits);
}

/* Clusters that giving a place to N clusters of the disk takes at most, with all tables. */
static uint64_t clusters_for(const Qcow2State *s, uint64_t n)
{
    uint64_t tables = (n >> s->l2_bits) + 2;
    uint64_t blocks = ((n + tables) >> s->refblock_bits) + 2;

    return n + tables + blocks + (blocks >> s->refblock_bits);
}

/* Extend the file by what N clusters of the disk may take, the way MODE says. */
static int coroutine_fn reserve_file(Qcow2State *s, uint64_t n, PreallocMode mode,
                                     Error **errp)
{
    if (s->data_file || mode <= PREALLOC_MODE_METADATA) {
        return 0;
    }
    return bdrv_co_truncate(s->bs->file,
                            s->virgin_offset + (clusters_for(s, n) << s->cluster_bits), false,
                            mode, 0, errp);
}

/* Let the file end behind its last cluster in use. Lock held. */
static int coroutine_fn trim_file(Qcow2State *s, Error **errp)
{
    uint64_t end;

    int ret = qcow2_refcount_used_end(s, s->virgin_offset >> s->cluster_bits, &end);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to find the last cluster");
        return ret;
    }
    ret = bdrv_co_truncate(s->bs->file, end << s->cluster_bits, false, PREALLOC_MODE_OFF,
                               0, errp);
    if (ret >= 0) {
        s->file_bytes = 0;      /* asked for when needed */
        s->virgin_offset = end << s->cluster_bits;
    }
    return ret;
}

int coroutine_fn qcow2_trim(Qcow2State *s, Error **errp)
{
    int ret = qcow2_reftable_trim(s);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to discard unused refblocks");
        return ret;
    }
    return trim_file(s, errp);
}

static int coroutine_fn map_all(Qcow2State *s, uint64_t offset, uint64_t end)
{
    int64_t ret = 0;

    while (offset < end && ret >= 0) {
        qemu_co_mutex_lock(&s->lock);
        /* In the old last cluster a request may be in work that will map it. */
        ret = prealloc_slice(s, offset, qcow2_wait_allocs(s, offset, end - offset));
        qemu_co_mutex_unlock(&s->lock);
        offset += MAX(ret, 0);
    }
    return ret < 0 ? ret : 0;
}

static int coroutine_fn preallocate(Qcow2State *s, uint64_t offset, uint64_t end,
                                    PreallocMode mode, Error **errp)
{
    if (s->header.version < 3 && s->bs->backing) {
        error_setg(errp, "Preallocation needs an image of version 3 here");
        return -ENOTSUP;
    }
    offset &= ~s->cluster_mask;
    s->holes = QCOW2_HOLES_UNKNOWN;
    int ret = reserve_file(s, qcow2_clusters(s, end - offset), mode, errp);
    if (ret < 0) {
        return ret;
    }
    ret = map_all(s, offset, end);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not preallocate clusters");
        return ret;
    }
    qemu_co_mutex_lock(&s->lock);
    ret = s->data_file ? 0 : trim_file(s, errp);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/* ---- grow and shrink --------------------------------------------------------------- */

/*
 * Make the part that is about to appear read as zeroes: what the last cluster holds behind
 * the old end, and what a longer backing file would show. The disk already has its new
 * size in memory, but nobody was told yet.
 */
static int coroutine_fn zero_new_part(Qcow2State *s, uint64_t old, uint64_t size)
{
    uint64_t end = MIN(size, ROUND_UP(old, s->cluster_bytes));
    int64_t backing = s->bs->backing ? bdrv_getlength(s->bs->backing->bs) : 0;

    if (backing < 0) {
        return backing;
    }
    end = MAX(end, MIN(size, (uint64_t)backing));
    return old < end ? qcow2_zero_unaligned(s, old, end - old) : 0;
}

static int coroutine_fn grow(Qcow2State *s, uint64_t old, uint64_t size,
                             PreallocMode prealloc, Error **errp)
{
    int ret;

    qemu_co_mutex_lock(&s->lock);
    /* A VM state that lies behind the disk must not become part of it. */
    ret = qcow2_vmstate_drop(s);
    ret = ret < 0 ? ret : qcow2_l1_grow(s, qcow2_l1_entries_for(&s->header, size));
    qemu_co_mutex_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to grow the L1 table");
        return ret;
    }
    if (s->data_file) {
        ret = qcow2_data_file_resize(s, old, size, prealloc == PREALLOC_MODE_METADATA
                                                   ? PREALLOC_MODE_OFF : prealloc, errp);
        if (ret < 0) {
            return ret;
        }
    }
    if (qcow2_data_raw(s) && prealloc == PREALLOC_MODE_OFF) {
        /* All that the data file has must be there for the guest, too. */
        prealloc = PREALLOC_MODE_METADATA;
    }
    s->bs->total_sectors = size >> BDRV_SECTOR_BITS;
    ret = zero_new_part(s, old, size);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to zero out the new area");
    } else if (prealloc != PREALLOC_MODE_OFF) {
        ret = preallocate(s, old, size, prealloc, errp);
    }
    if (ret >= 0) {
        /* Nothing must be visible before it is zero. */
        ret = flush_all(s);
        ret = ret < 0 ? ret : store_size(s, size);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to update the image size");
        }
    }
    if (ret < 0) {
        s->bs->total_sectors = old >> BDRV_SECTOR_BITS;
    }
    return ret;
}

/* Give up the L2 tables behind the new end; their clusters were freed before. Lock held. */
static void coroutine_fn drop_l2_tables(Qcow2State *s, uint64_t first)
{
    for (uint64_t i = first; i < s->l1.size; i++) {
        uint64_t offset = s->l1.entries[i] & QCOW2_OFFSET_MASK;
        if (offset && !(offset & s->cluster_mask)) {
            qcow2_cache_drop(&s->l2_cache, offset, s->cluster_bytes);
            qcow2_set_remove(&s->l2_meta, offset >> s->cluster_bits);
            qcow2_free_later(s, offset, s->cluster_bytes, QCOW2_DISCARD_OTHER);
            qcow2_root_set(&s->l1, i, 0);
        }
    }
}

static int coroutine_fn shrink_tables(Qcow2State *s, uint64_t old, uint64_t size)
{
    uint64_t from = ROUND_UP(size, s->cluster_bytes);

    /* A VM state has no place any more: it is looked for right behind the disk. */
    qemu_co_mutex_lock(&s->lock);
    int ret = qcow2_vmstate_drop(s);
    qemu_co_mutex_unlock(&s->lock);
    if (ret >= 0 && from < old) {
        ret = qcow2_unmap(s, from, old - from);
    }
    /* Else, after a power failure, a disk that grows again would show what was there. */
    ret = ret < 0 ? ret : flush_all(s);
    ret = ret < 0 ? ret : store_size(s, size);
    if (ret >= 0) {
        qemu_co_mutex_lock(&s->lock);
        drop_l2_tables(s, qcow2_l1_entries_for(&s->header, size));
        BLKDBG_EVENT(s->bs->file, BLKDBG_L1_SHRINK_WRITE_TABLE);
        ret = qcow2_writeback(s);
        qemu_co_mutex_unlock(&s->lock);
        BLKDBG_EVENT(s->bs->file, BLKDBG_L1_SHRINK_FREE_L2_CLUSTERS);
        ret = ret < 0 ? ret : flush_all(s);
    }
    return ret;
}

static int coroutine_fn shrink(Qcow2State *s, uint64_t old, uint64_t size, Error **errp)
{
    int ret = shrink_tables(s, old, size);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to shrink the image");
        return ret;
    }
    if (s->data_file) {
        return qcow2_data_file_resize(s, old, size, PREALLOC_MODE_OFF, errp);
    }
    qemu_co_mutex_lock(&s->lock);
    ret = qcow2_trim(s, errp);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags,
                                   Error **errp)
{
    Qcow2State *s = bs->opaque;
    uint64_t old = qcow2_guest_bytes(s);

    if (offset & (BDRV_SECTOR_SIZE - 1)) {
        error_setg(errp, "The new size must be a multiple of %u", (unsigned)BDRV_SECTOR_SIZE);
        return -EINVAL;
    }
    if (s->header.nb_snapshots && s->header.version < 3) {
        error_setg(errp, "Can't resize a v2 image which has snapshots");
        return -ENOTSUP;
    }
    if (s->corrupt) {
        error_setg(errp, s->corruption_signaled ? "Image is corrupt"
                         : "Image is not written to any more after an error: its header may "
                           "be the old or the new one until it is opened again");
        return -EIO;
    }
    if ((uint64_t)offset >= old) {
        return grow(s, old, offset, prealloc, errp);
    }
    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation can't be used for shrinking an image");
        return -EINVAL;
    }
    return shrink(s, old, offset, errp);
}
