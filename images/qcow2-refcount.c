/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reference counts of host clusters, and finding free ones. All with the lock held. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"
#include "images/qcow2-reftable.h"

/* ---- one entry of a block ---------------------------------------------------------- */

uint64_t qcow2_refcount_load(const uint8_t *block, uint32_t order, uint64_t i)
{
    switch (order) {
    case 0: case 1: case 2: {
        uint32_t width = 1u << order, per_byte = 8 / width;
        return block[i / per_byte] >> (i % per_byte * width) & ((1u << width) - 1);
    }
    case 3:
        return block[i];
    case 4:
        return GUINT16_FROM_BE(((const uint16_t *)block)[i]);
    case 5:
        return GUINT32_FROM_BE(((const uint32_t *)block)[i]);
    default:
        return GUINT64_FROM_BE(((const uint64_t *)block)[i]);
    }
}

void qcow2_refcount_store(uint8_t *block, uint32_t order, uint64_t i, uint64_t value)
{
    switch (order) {
    case 0: case 1: case 2: {
        uint32_t width = 1u << order, per_byte = 8 / width, shift = i % per_byte * width;
        uint32_t mask = ((1u << width) - 1) << shift;
        block[i / per_byte] = (block[i / per_byte] & ~mask) | value << shift;
        break;
    }
    case 3:
        block[i] = value;
        break;
    case 4:
        ((uint16_t *)block)[i] = GUINT16_TO_BE(value);
        break;
    case 5:
        ((uint32_t *)block)[i] = GUINT32_TO_BE(value);
        break;
    default:
        ((uint64_t *)block)[i] = GUINT64_TO_BE(value);
    }
}

/* ---- slices of blocks -------------------------------------------------------------- */

static uint32_t slice_shift(const Qcow2State *s)
{
    return s->refblock_cache.slice_bits + 3 - s->refcount_order;
}

/* The pinned slice with CLUSTER's refcount; NULL when it has no block. */
static int coroutine_fn get_slice(Qcow2State *s, uint64_t cluster, Qcow2Slice **slice,
                                  uint64_t *index)
{
    uint64_t block = cluster >> s->refblock_bits;
    uint32_t shift = slice_shift(s);

    *slice = NULL;
    if (block >= s->reftable.size) {
        return 0;
    }
    uint64_t offset = s->reftable.entries[block] & QCOW2_REFTABLE_MASK;
    if (!offset) {
        return 0;
    }
    if (offset & s->cluster_mask) {
        return qcow2_signal_corruption(s, true, "Refblock offset %#" PRIx64 " unaligned "
                                       "(reftable index: %#" PRIx64 ")", offset, block);
    }
    if (offset >= s->virgin_offset) {
        return qcow2_signal_corruption(s, true, "Refblock offset %#" PRIx64 " beyond the end "
                                       "of the file (reftable index: %#" PRIx64 ")", offset,
                                       block);
    }
    uint64_t in_block = cluster & ((1ULL << s->refblock_bits) - 1);
    *index = in_block & ((1ULL << shift) - 1);
    return qcow2_cache_get(s, &s->refblock_cache,
                           offset + (in_block >> shift << s->refblock_cache.slice_bits),
                           block, slice);
}

int coroutine_fn qcow2_refcount_get(Qcow2State *s, uint64_t cluster, uint64_t *refcount)
{
    Qcow2Slice *slice;
    uint64_t i;

    int ret = get_slice(s, cluster, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    *refcount = 0;
    if (slice) {
        *refcount = qcow2_refcount_load(slice->data, s->refcount_order, i);
        qcow2_cache_put(slice);
    }
    return 0;
}

int coroutine_fn qcow2_refcount_zeroes(Qcow2State *s, uint64_t cluster, uint64_t *n)
{
    uint64_t per_slice = 1ULL << slice_shift(s);
    Qcow2Slice *slice;
    uint64_t i;

    *n = 0;
    if (cluster & (per_slice - 1)) {
        return 0;
    }
    int ret = get_slice(s, cluster, &slice, &i);
    if (ret >= 0 && slice) {
        if (buffer_is_zero(slice->data, 1u << s->refblock_cache.slice_bits)) {
            *n = per_slice;
        }
        qcow2_cache_put(slice);
    } else if (ret >= 0) {
        uint64_t block = cluster >> s->refblock_bits;
        uint64_t end = block < s->reftable.size ? (block + 1) << s->refblock_bits : UINT64_MAX;
        *n = end - cluster;
    }
    return ret;
}

int coroutine_fn qcow2_refcount_next_used(Qcow2State *s, uint64_t *cluster, uint64_t end)
{
    while (*cluster < end) {
        uint64_t free, refcount;
        int ret = qcow2_refcount_zeroes(s, *cluster, &free);
        if (ret >= 0 && !free) {
            free = 1;
            ret = qcow2_refcount_get(s, *cluster, &refcount);
            if (ret >= 0 && refcount) {
                return 1;
            }
        }
        if (ret < 0) {
            return ret;
        }
        *cluster += free;
    }
    return 0;
}

int coroutine_fn qcow2_refcount_used_end(Qcow2State *s, uint64_t end, uint64_t *used_end)
{
    int ret = 0;

    *used_end = 0;
    /* By block, from the last one on: of a sparse file, not each cluster can be looked at. */
    for (uint32_t block = s->reftable.size; block-- > 0 && !*used_end && ret >= 0; ) {
        uint64_t cluster = (uint64_t)block << s->refblock_bits;
        uint64_t block_end = MIN(end, cluster + (1ULL << s->refblock_bits));
        while ((ret = qcow2_refcount_next_used(s, &cluster, block_end)) > 0) {
            *used_end = ++cluster;
        }
    }
    return ret;
}

/* The largest part of CLUSTERS from CLUSTER on whose refcounts are in one slice. */
static uint64_t part_in_slice(const Qcow2State *s, uint64_t cluster, uint64_t clusters)
{
    uint64_t per_slice = 1ULL << slice_shift(s);
    return MIN(clusters, per_slice - (cluster & (per_slice - 1)));
}

static int coroutine_fn change_in_slice(Qcow2State *s, uint64_t cluster, uint64_t n,
                                        int delta)
{
    Qcow2Slice *slice;
    uint64_t i;

    int ret = get_slice(s, cluster, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    if (!slice) {
        return delta < 0 ? -EINVAL : -EIO;
    }
    for (uint64_t k = 0; k < n; k++) {
        uint64_t old = qcow2_refcount_load(slice->data, s->refcount_order, i + k);
        if (delta < 0 ? old == 0 : old >= s->refcount_max) {
            qcow2_cache_put(slice);
            return -EINVAL;     /* nothing changed yet */
        }
    }
    for (uint64_t k = 0; k < n; k++) {
        uint64_t old = qcow2_refcount_load(slice->data, s->refcount_order, i + k);
        qcow2_refcount_store(slice->data, s->refcount_order, i + k, old + delta);
        if (old + delta == 0) {
            s->free_hint = MIN(s->free_hint, cluster + k);
            qcow2_packed_forget(s, cluster + k);
        }
    }
    qcow2_cache_mark_dirty(&s->refblock_cache, slice);
    qcow2_cache_put(slice);
    return 0;
}

int coroutine_fn qcow2_refcount_change(Qcow2State *s, uint64_t cluster, uint64_t n,
                                       int delta)
{
    uint64_t done = 0;

    if (s->meta_overlaps) {
        return qcow2_signal_corruption(s, true, "Metadata structures of the image overlap");
    }
    int ret = qcow2_mark_dirty(s);
    while (ret >= 0 && done < n) {
        uint64_t part = part_in_slice(s, cluster + done, n - done);
        ret = change_in_slice(s, cluster + done, part, delta);
        if (ret >= 0) {
            done += part;
        }
    }
    if (ret >= 0) {
        return 0;
    }
    for (uint64_t undo = 0; undo < done; ) {
        uint64_t part = part_in_slice(s, cluster + undo, done - undo);
        /* A failure here leaks clusters; the first error is the one to report. */
        change_in_slice(s, cluster + undo, part, -delta);
        undo += part;
    }
    return ret;
}

int coroutine_fn qcow2_refcount_set(Qcow2State *s, uint64_t cluster, uint64_t refcount)
{
    Qcow2Slice *slice;
    uint64_t i;

    int ret = qcow2_mark_dirty(s);
    if (ret >= 0) {
        ret = qcow2_reftable_cover(s, cluster, 1, NULL);
    }
    if (ret >= 0) {
        ret = get_slice(s, cluster, &slice, &i);
    }
    if (ret < 0) {
        return ret;
    }
    if (!slice) {
        return -EIO;
    }
    qcow2_refcount_store(slice->data, s->refcount_order, i, refcount);
    if (!refcount) {
        s->free_hint = MIN(s->free_hint, cluster);
    }
    qcow2_packed_forget(s, cluster);
    qcow2_cache_mark_dirty(&s->refblock_cache, slice);
    qcow2_cache_put(slice);
    return 0;
}

/* ---- finding free clusters --------------------------------------------------------- */

typedef struct FreeRun { uint64_t start, n; } FreeRun;

/* Extend RUN over the free clusters of one slice; false once it has been ended. */
static bool scan_slice(Qcow2State *s, const uint8_t *data, uint64_t i, uint64_t cluster,
                       uint64_t n, uint64_t min, uint64_t max, FreeRun *run)
{
    for (uint64_t k = 0; k < n; k++) {
        if (qcow2_refcount_load(data, s->refcount_order, i + k) == 0) {
            if (!run->n) {
                run->start = cluster + k;
            }
            if (++run->n == max) {
                return false;
            }
        } else if (run->n >= min) {
            return false;
        } else {
            run->n = 0;
        }
    }
    return true;
}

int coroutine_fn qcow2_find_free(Qcow2State *s, uint64_t from, uint64_t min, uint64_t max,
                                 uint64_t *start, uint64_t *n)
{
    FreeRun run = { from, 0 };
    uint64_t cluster = from;

    for (bool more = true; more; ) {
        Qcow2Slice *slice;
        uint64_t i;
        int ret = get_slice(s, cluster, &slice, &i);
        if (ret < 0) {
            return ret;
        }
        if (slice) {
            uint64_t part = part_in_slice(s, cluster, UINT64_MAX);
            more = scan_slice(s, slice->data, i, cluster, part, min, max, &run);
            qcow2_cache_put(slice);
            cluster += part;
        } else {
            /* Without a block, all that it would cover is free. */
            uint64_t block_end = ((cluster >> s->refblock_bits) + 1) << s->refblock_bits;
            if (!run.n) {
                run.start = cluster;
            }
            run.n = MIN(max, run.n + (block_end - cluster));
            more = run.n < max && (cluster >> s->refblock_bits) < s->reftable.size;
            if (!more && run.n < max) {
                run.n = max;    /* beyond the refcount table everything is free */
            }
            cluster = block_end;
        }
    }
    if (run.start + run.n > QCOW2_OFFSET_MASK >> s->cluster_bits) {
        return -EFBIG;
    }
    *start = run.start;
    *n = run.n;
    return 0;
}

int coroutine_fn qcow2_alloc_clusters(Qcow2State *s, uint64_t min, uint64_t max,
                                      uint64_t *offset, uint64_t *n, bool *fresh)
{
    uint64_t start;
    int ret;

    qemu_co_mutex_assert_locked(&s->lock);
    if (s->corrupt) {
        return -EIO;
    }
    if (s->meta_overlaps) {
        return qcow2_signal_corruption(s, true, "Metadata structures of the image overlap");
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_CLUSTER_ALLOC);
    ret = qcow2_mark_dirty(s);
    for (bool again = true; ret >= 0 && again; ) {
        ret = qcow2_find_free(s, s->free_hint, min, max, &start, n);
        if (ret >= 0) {
            again = false;
            /* Making a block may take the very clusters that were found. */
            ret = qcow2_reftable_cover(s, start, *n, &again);
        }
    }
    ret = ret < 0 ? ret : qcow2_overlap_check_new(s, start, *n);
    ret = ret < 0 ? ret : qcow2_refcount_change(s, start, *n, 1);
    if (ret < 0) {
        return ret;
    }
    if (min == 1) {
        s->free_hint = start + *n;
    }
    *offset = start << s->cluster_bits;
    *fresh = s->virgin_is_zero && *offset >= s->virgin_offset;
    s->virgin_offset = MAX(s->virgin_offset, (start + *n) << s->cluster_bits);
    return 0;
}
