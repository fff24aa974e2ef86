/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zero clusters, discard and block status. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

/* What becomes of the L2 entries of a range of whole clusters. */
typedef struct Change {
    uint64_t (*new_entry)(const Qcow2State *s, uint64_t old, const void *opaque);
    const void *opaque;
    bool discard;               /* what is freed may be discarded in the file */
} Change;

/* Whether NEW still refers to the host clusters of OLD. */
static bool keeps_host(uint64_t old, uint64_t new)
{
    return !(old & QCOW2_COMPRESSED) && !(new & QCOW2_COMPRESSED) &&
           (old & QCOW2_OFFSET_MASK) == (new & QCOW2_OFFSET_MASK);
}

/*
 * Change the entries of one slice from OFFSET on. Lock held. Bytes done; -errno. The slice
 * is fetched for writing only when something changes.
 */
static int64_t coroutine_fn change_slice(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                         const Change *change)
{
    Qcow2Slice *slice;
    Qcow2Run run;
    uint32_t i;
    int ret;

    bytes = qcow2_wait_allocs(s, offset, bytes);
    ret = qcow2_map_locked(s, offset, bytes, &run);
    if (ret < 0) {
        return ret;
    }
    if (run.type == QCOW2_UNALLOCATED &&
        change->new_entry(s, 0, change->opaque) == 0) {
        return run.bytes;
    }
    ret = qcow2_l2_for_write(s, offset, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    uint64_t n = MIN(qcow2_clusters(s, bytes), qcow2_slice_entries(s) - i);
    for (uint64_t k = 0; k < n; k++) {
        uint64_t *e = (uint64_t *)slice->data + i + k, old = GUINT64_FROM_BE(*e);
        uint64_t new = change->new_entry(s, old, change->opaque);
        if (new != old) {
            *e = GUINT64_TO_BE(new);
            qcow2_cache_mark_dirty(&s->l2_cache, slice);
            if (!keeps_host(old, new)) {
                qcow2_free_entry(s, old, change->discard);
            }
        }
    }
    qcow2_cache_put(slice);
    ret = qcow2_limit_frees(s);
    return ret < 0 ? ret : (int64_t)MIN(bytes, n << s->cluster_bits);
}

static int coroutine_fn change_range(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                     const Change *change)
{
    unsigned epoch = qcow2_request_begin(s);
    int64_t ret = 0;

    while (bytes > 0 && ret >= 0) {
        qemu_co_mutex_lock(&s->lock);
        ret = s->corrupt ? -EIO : change_slice(s, offset, bytes, change);
        qemu_co_mutex_unlock(&s->lock);
        if (ret > 0) {
            offset += ret;
            bytes -= ret;
        }
    }
    qcow2_request_end(s, epoch);
    return ret < 0 ? ret : 0;
}

/* ---- write zeroes ------------------------------------------------------------------ */

static uint64_t zero_entry(const Qcow2State *s, uint64_t old, const void *opaque)
{
    const bool *unmap = opaque;

    switch (qcow2_entry_type(old)) {
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOC:
        return *unmap ? QCOW2_ZERO : old | QCOW2_ZERO;
    default:
        return QCOW2_ZERO;
    }
}

/* Without zero clusters (version 2): what is not there reads as zeroes. */
static uint64_t no_entry(const Qcow2State *s, uint64_t old, const void *opaque)
{
    return 0;
}

/* Whether all of a range reads as zeroes whatever the data on the disk. */
static bool coroutine_fn all_zero(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        Qcow2Run run;
        if (qcow2_map(s, offset, bytes, &run) < 0 ||
            run.type == QCOW2_NORMAL || run.type == QCOW2_COMPRESSED_DATA ||
            (run.type == QCOW2_UNALLOCATED && s->bs->backing)) {
            return false;
        }
        offset += run.bytes;
        bytes -= run.bytes;
    }
    return true;
}

/* Whether [offset, offset + bytes) is made of whole clusters, the disk's last one cut. */
static bool whole_clusters(const Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;

    return !(offset & s->cluster_mask) &&
           (!(end & s->cluster_mask) || end == qcow2_guest_bytes(s));
}

static int coroutine_fn zero_clusters(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                      bool unmap)
{
    if (s->header.version < 3) {
        if (s->bs->backing || !(unmap || all_zero(s, offset, bytes))) {
            return -ENOTSUP;
        }
        return change_range(s, offset, bytes,
                            &(Change){ .new_entry = no_entry, .discard = true });
    }
    return change_range(s, offset, bytes, &(Change){ .new_entry = zero_entry,
                                                     .opaque = &unmap, .discard = true });
}

int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags)
{
    Qcow2State *s = bs->opaque;

    if (!whole_clusters(s, offset, bytes)) {
        /* Part of a cluster that is zero anyway needs nothing; else data must be written. */
        return all_zero(s, offset, bytes) ? 0 : -ENOTSUP;
    }
    return zero_clusters(s, offset, bytes, flags & BDRV_REQ_MAY_UNMAP);
}

static int coroutine_fn write_zeroes_as_data(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, bytes);
    QEMUIOVector qiov;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    int ret = qcow2_co_pwritev_part(s->bs, offset, bytes, &qiov, 0, 0);
    qemu_vfree(buf);
    return ret;
}

/* In steps, so that neither memory nor the time without a yield grows with the range. */
static int coroutine_fn zero_or_write(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t room = s->cluster_bytes - (offset & s->cluster_mask);
        uint64_t n = room < s->cluster_bytes ? MIN(bytes, room)
                   : bytes >= s->cluster_bytes ? MIN(bytes & ~s->cluster_mask, 1ULL << 30)
                   : bytes;
        int ret = qcow2_co_pwrite_zeroes(s->bs, offset, n, 0);
        if (ret == -ENOTSUP) {
            n = MIN(n, s->cluster_bytes);
            ret = write_zeroes_as_data(s, offset, n);
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
    }
    return 0;
}

int coroutine_fn qcow2_zero_unaligned(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    return zero_or_write(s, offset, bytes);
}

/* ---- discard ----------------------------------------------------------------------- */

static uint64_t discarded_entry(const Qcow2State *s, uint64_t old, const void *opaque)
{
    const bool *backing = opaque;

    /* Discarded data must not come back from the backing file. */
    switch (qcow2_entry_type(old)) {
    case QCOW2_UNALLOCATED:
        return *backing && s->header.version >= 3 ? QCOW2_ZERO : 0;
    case QCOW2_ZERO_PLAIN:
        return old;
    default:
        return s->header.version >= 3 ? QCOW2_ZERO : 0;
    }
}

int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    Qcow2State *s = bs->opaque;
    bool backing = bs->backing;

    if (s->header.version < 3 && backing) {
        return -ENOTSUP;
    }
    if (!whole_clusters(s, offset, bytes)) {
        /* Whole clusters only: the rest of a request may still be discarded. */
        uint64_t end = offset + bytes, start = ROUND_UP((uint64_t)offset, s->cluster_bytes);
        if (end != qcow2_guest_bytes(s)) {
            end &= ~s->cluster_mask;
        }
        if (start >= end) {
            return -ENOTSUP;
        }
        offset = start;
        bytes = end - start;
    }
    return change_range(s, offset, bytes, &(Change){ .new_entry = discarded_entry,
                                                     .opaque = &backing, .discard = true });
}

int coroutine_fn qcow2_unmap(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    return change_range(s, offset, bytes,
                        &(Change){ .new_entry = no_entry, .discard = true });
}

/* ---- block status ------------------------------------------------------------------ */

int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                       int64_t bytes, int64_t *pnum, int64_t *map,
                                       BlockDriverState **file)
{
    Qcow2State *s = bs->opaque;
    Qcow2Run run;

    int ret = qcow2_map(s, offset, bytes, &run);
    if (ret < 0) {
        return ret;
    }
    *pnum = run.bytes;
    switch (run.type) {
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOC:
        *map = run.host;
        *file = bs->file->bs;
        return BDRV_BLOCK_OFFSET_VALID |
               (run.type == QCOW2_NORMAL ? BDRV_BLOCK_DATA | BDRV_BLOCK_RECURSE
                                         : BDRV_BLOCK_ZERO);
    case QCOW2_COMPRESSED_DATA:
        return BDRV_BLOCK_DATA | BDRV_BLOCK_COMPRESSED;
    case QCOW2_ZERO_PLAIN:
        return BDRV_BLOCK_ZERO;
    default:
        return 0;
    }
}
