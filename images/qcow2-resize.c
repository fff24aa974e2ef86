/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the length of the guest disk, and allocating clusters ahead of writes. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

/* The block layer's flush would find that the guest has written nothing. */
static int coroutine_fn flush_all(Qcow2State *s)
{
    int ret = qcow2_co_flush_to_os(s->bs);
    return ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
}

/* ---- header and L1 table ----------------------------------------------------------- */

static int coroutine_fn store_size(Qcow2State *s, uint64_t size)
{
    uint64_t be = GUINT64_TO_BE(size);

    int ret = qcow2_header_patch(s, 24, &be, sizeof(be));
    if (ret >= 0) {
        s->header.size = size;
        s->bs->total_sectors = size >> BDRV_SECTOR_BITS;
    }
    return ret;
}

/* Write ENTRIES as a new L1 table at OFFSET. */
static int coroutine_fn write_new_l1(Qcow2State *s, uint64_t offset, const uint64_t *entries,
                                     uint32_t size, uint64_t clusters)
{
    size_t bytes = clusters << s->cluster_bits;
    uint64_t *buf = qemu_try_blockalign(s->bs->file->bs, bytes);

    if (!buf) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < bytes / 8; i++) {
        buf[i] = i < size ? GUINT64_TO_BE(entries[i]) : 0;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_L1_GROW_WRITE_TABLE);
    int ret = bdrv_co_pwrite(s->bs->file, offset, bytes, buf, 0);
    qemu_vfree(buf);
    return ret;
}

/* Size and offset of the L1 table lie side by side in one sector. */
static int coroutine_fn switch_l1(Qcow2State *s, uint64_t offset, uint32_t size)
{
    struct QEMU_PACKED { uint32_t size; uint64_t offset; } field = {
        GUINT32_TO_BE(size), GUINT64_TO_BE(offset),
    };

    int ret = bdrv_co_flush(s->bs->file->bs);
    BLKDBG_EVENT(s->bs->file, BLKDBG_L1_GROW_ACTIVATE_TABLE);
    ret = ret < 0 ? ret : qcow2_header_patch(s, 36, &field, sizeof(field));
    ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    if (ret >= 0) {
        s->header.l1_size = size;
        s->header.l1_offset = offset;
    }
    return ret;
}

/* Make the L1 table longer. Lock held. */
static int coroutine_fn grow_l1(Qcow2State *s, uint64_t size)
{
    uint64_t offset, got, clusters;
    bool fresh;

    if (size <= s->l1.size) {
        return 0;
    }
    if (size > QCOW2_L1_BYTES_MAX / 8) {
        return -EFBIG;
    }
    uint64_t *entries = g_try_malloc0((size + 1) * 8);
    if (!entries) {
        return -ENOMEM;
    }
    memcpy(entries, s->l1.entries, (size_t)s->l1.size * 8);
    clusters = qcow2_clusters(s, size * 8);
    BLKDBG_EVENT(s->bs->file, BLKDBG_L1_GROW_ALLOC_TABLE);
    int ret = qcow2_alloc_clusters(s, clusters, clusters, &offset, &got, &fresh);
    if (ret < 0) {
        g_free(entries);
        return ret;
    }
    qcow2_cache_drop(&s->l2_cache, offset, clusters << s->cluster_bits);
    qcow2_cache_drop(&s->refblock_cache, offset, clusters << s->cluster_bits);
    /* What the entries point to, and the new table's refcounts, must be there first. */
    ret = qcow2_writeback(s);
    ret = ret < 0 ? ret : write_new_l1(s, offset, entries, size, clusters);
    ret = ret < 0 ? ret : switch_l1(s, offset, size);
    if (ret < 0) {
        qcow2_refcount_change(s, offset >> s->cluster_bits, clusters, -1);
        g_free(entries);
        return ret;
    }
    Qcow2Root old = s->l1;
    uint64_t old_clusters = qcow2_clusters(s, (uint64_t)old.size * 8);
    qcow2_root_init(&s->l1, entries, size, offset);
    for (uint64_t i = 0; i < clusters; i++) {
        qcow2_set_add(&s->fixed_meta, (offset >> s->cluster_bits) + i);
    }
    for (uint64_t i = 0; i < old_clusters; i++) {
        qcow2_set_remove(&s->fixed_meta, (old.offset >> s->cluster_bits) + i);
    }
    /* The header's new pointer is durable, so the old table may go at once. */
    if (old_clusters) {
        qcow2_refcount_change(s, old.offset >> s->cluster_bits, old_clusters, -1);
    }
    qcow2_root_free(&old);
    return 0;
}

/* ---- preallocation ----------------------------------------------------------------- */

/* Give host clusters to unallocated clusters of one slice. Lock held. Bytes done; -errno. */
static int64_t coroutine_fn prealloc_slice(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                           uint64_t *file_end)
{
    Qcow2Slice *slice;
    uint32_t i;
    uint64_t host, got, want = 0;
    bool fresh;

    int ret = qcow2_l2_for_write(s, offset, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    uint64_t n = MIN(qcow2_clusters(s, bytes), qcow2_slice_entries(s) - i);
    uint64_t *e = (uint64_t *)slice->data + i;
    while (want < n && e[want] == 0) {
        want++;
    }
    if (!want) {
        qcow2_cache_put(slice);
        return MIN(bytes, s->cluster_bytes);
    }
    ret = qcow2_alloc_clusters(s, 1, want, &host, &got, &fresh);
    if (ret < 0) {
        qcow2_cache_put(slice);
        return ret;
    }
    for (uint64_t k = 0; k < got; k++) {
        /* Recycled clusters and those over a backing file must read as zeroes too. */
        uint64_t zero = fresh && !s->bs->backing ? 0 : QCOW2_ZERO;
        e[k] = GUINT64_TO_BE((host + (k << s->cluster_bits)) | QCOW2_COPIED | zero);
    }
    qcow2_cache_mark_dirty(&s->l2_cache, slice);
    qcow2_cache_put(slice);
    *file_end = MAX(*file_end, host + (got << s->cluster_bits));
    return MIN(bytes, got << s->cluster_bits);
}

static int coroutine_fn preallocate(Qcow2State *s, uint64_t offset, uint64_t end,
                                    PreallocMode mode, Error **errp)
{
    uint64_t file_end = 0;
    int64_t ret = 0;

    if (s->header.version < 3 && (s->bs->backing || !s->virgin_is_zero)) {
        error_setg(errp, "Preallocation needs an image of version 3 here");
        return -ENOTSUP;
    }
    offset &= ~s->cluster_mask;
    while (offset < end && ret >= 0) {
        qemu_co_mutex_lock(&s->lock);
        ret = prealloc_slice(s, offset, end - offset, &file_end);
        qemu_co_mutex_unlock(&s->lock);
        offset += MAX(ret, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not preallocate clusters");
        return ret;
    }
    int64_t len = bdrv_getlength(s->bs->file->bs);
    if (len < 0) {
        error_setg_errno(errp, -len, "Could not inquire the length of the image file");
        return len;
    }
    if (file_end > (uint64_t)len) {
        PreallocMode host = mode == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF : mode;
        ret = bdrv_co_truncate(s->bs->file, file_end, false, host, 0, errp);
    }
    return ret < 0 ? ret : 0;
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
    ret = grow_l1(s, qcow2_l1_entries_for(s->cluster_bits, size));
    qemu_co_mutex_unlock(&s->lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to grow the L1 table");
        return ret;
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
            qcow2_free_later(s, offset, s->cluster_bytes, false);
            qcow2_root_set(&s->l1, i, 0);
        }
    }
}

static int coroutine_fn shrink(Qcow2State *s, uint64_t old, uint64_t size, Error **errp)
{
    uint64_t from = ROUND_UP(size, s->cluster_bytes);
    int ret = 0;

    if (from < old) {
        ret = qcow2_unmap(s, from, old - from);
    }
    if (ret >= 0) {
        ret = store_size(s, size);
    }
    if (ret >= 0) {
        qemu_co_mutex_lock(&s->lock);
        drop_l2_tables(s, qcow2_l1_entries_for(s->cluster_bits, size));
        qemu_co_mutex_unlock(&s->lock);
        ret = flush_all(s);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to shrink the image");
    }
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
        error_setg(errp, "Image is corrupt");
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
