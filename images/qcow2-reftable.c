/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The upper level of the refcounts. A refcount block counts references to itself like to
 * any cluster, so a block is made in a cluster that it covers itself or one that already
 * has a block.
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"
#include "images/qcow2-reftable.h"

static uint64_t block_of(const Qcow2State *s, uint64_t cluster)
{
    return cluster >> s->refblock_bits;
}

static bool has_block(const Qcow2State *s, uint64_t block)
{
    return block < s->reftable.size && (s->reftable.entries[block] & QCOW2_REFTABLE_MASK);
}

/*
 * Prepare CLUSTER to hold a new, zeroed table; a fresh one, too, since what is written behind it
 * must not take its room on the disk.
 */
static int coroutine_fn zero_cluster(Qcow2State *s, uint64_t cluster)
{
    uint64_t offset = cluster << s->cluster_bits;

    qcow2_cache_drop(&s->refblock_cache, offset, s->cluster_bytes);
    qcow2_cache_drop(&s->l2_cache, offset, s->cluster_bytes);
    BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_ALLOC_WRITE);
    int ret = bdrv_co_pwrite_zeroes(s->bs->file, offset, s->cluster_bytes, 0);
    s->virgin_offset = MAX(s->virgin_offset, offset + s->cluster_bytes);
    return ret;
}

/* Make CLUSTER, which is free, the block number BLOCK. */
static int coroutine_fn place_block(Qcow2State *s, uint64_t block, uint64_t cluster)
{
    bool self = block_of(s, cluster) == block;
    uint32_t shift = s->refblock_cache.slice_bits + 3 - s->refcount_order;
    uint64_t in_block = self ? cluster & ((1ULL << s->refblock_bits) - 1) : 0;
    uint64_t offset = cluster << s->cluster_bits;
    Qcow2Slice *slice;

    BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_ALLOC);
    int ret = qcow2_overlap_check_new(s, cluster, 1);
    if (ret >= 0 && !self) {
        ret = qcow2_refcount_change(s, cluster, 1, 1);
    }
    if (ret < 0) {
        return ret;
    }
    ret = zero_cluster(s, cluster);
    if (ret >= 0) {
        ret = qcow2_cache_get_zeroed(s, &s->refblock_cache, offset +
                                     (in_block >> shift << s->refblock_cache.slice_bits),
                                     block, &slice);
    }
    if (ret < 0) {
        if (!self) {
            qcow2_refcount_change(s, cluster, 1, -1);
        }
        return ret;
    }
    if (self) {
        qcow2_refcount_store(slice->data, s->refcount_order,
                             in_block & ((1ULL << shift) - 1), 1);
    }
    qcow2_cache_put(slice);
    qcow2_root_set(&s->reftable, block, offset);
    qcow2_set_add(&s->fixed_meta, cluster);
    return 0;
}

/* ---- a larger table ---------------------------------------------------------------- */

/*
 * Layout of the new area, which no old block covers:
 *
 *   start                start + table          start + table + blocks
 *   | new refcount table | its own refcount blocks |
 */
typedef struct NewArea {
    uint64_t start, table, blocks;      /* in clusters */
    uint64_t entries;                   /* of the new table */
} NewArea;

static int plan_area(const Qcow2State *s, uint64_t block_needed, NewArea *a)
{
    uint64_t per_cluster = s->cluster_bytes / 8;

    a->start = (uint64_t)s->reftable.size << s->refblock_bits;
    a->table = 0;
    a->blocks = 0;
    for (;;) {
        uint64_t last = block_of(s, a->start + a->table + a->blocks);
        uint64_t blocks = last - block_of(s, a->start) + 1;
        uint64_t entries = MAX(MAX(last, block_needed) + 1,
                               (uint64_t)s->reftable.size + s->reftable.size / 2);
        uint64_t table = DIV_ROUND_UP(entries, per_cluster);
        if (table << s->cluster_bits > QCOW2_REFTABLE_BYTES_MAX) {
            table = QCOW2_REFTABLE_BYTES_MAX >> s->cluster_bits;
            if (table * per_cluster < MAX(last, block_needed) + 1) {
                return -EFBIG;
            }
        }
        a->entries = table * per_cluster;
        if (table <= a->table && blocks <= a->blocks) {
            return 0;
        }
        a->table = MAX(a->table, table);
        a->blocks = MAX(a->blocks, blocks);
    }
}

/* Write the blocks of area A and note them in ENTRIES (host order). */
static int coroutine_fn write_area_blocks(Qcow2State *s, const NewArea *a, uint64_t *entries)
{
    uint64_t end = a->start + a->table + a->blocks, first = block_of(s, a->start);
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < a->blocks && ret >= 0; i++) {
        uint64_t lo = (first + i) << s->refblock_bits;
        uint64_t hi = (first + i + 1) << s->refblock_bits;
        uint64_t cluster = a->start + a->table + i;
        memset(buf, 0, s->cluster_bytes);
        for (uint64_t c = MAX(lo, a->start); c < MIN(hi, end); c++) {
            qcow2_refcount_store(buf, s->refcount_order, c - lo, 1);
        }
        BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_ALLOC_WRITE_BLOCKS);
        ret = bdrv_co_pwrite(s->bs->file, cluster << s->cluster_bits, s->cluster_bytes, buf,
                             0);
        entries[first + i] = cluster << s->cluster_bits;
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn write_table(Qcow2State *s, uint64_t start, uint64_t clusters,
                                    const uint64_t *entries, uint64_t nb_entries)
{
    size_t bytes = clusters << s->cluster_bits;
    uint64_t *buf = qemu_try_blockalign(s->bs->file->bs, bytes);

    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < bytes / 8; i++) {
        buf[i] = i < nb_entries ? GUINT64_TO_BE(entries[i]) : 0;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_ALLOC_WRITE_TABLE);
    int ret = bdrv_co_pwrite(s->bs->file, start << s->cluster_bits, bytes, buf, 0);
    qemu_vfree(buf);
    return ret;
}

/* Point the header at the new table: 12 bytes of one sector. */
static int coroutine_fn switch_table(Qcow2State *s, uint64_t start, uint64_t clusters)
{
    struct QEMU_PACKED { uint64_t offset; uint32_t clusters; } field = {
        GUINT64_TO_BE(start << s->cluster_bits), GUINT32_TO_BE(clusters),
    };

    if (s->shadow) {
        return 0;               /* the header will point to it in the end */
    }
    int ret = bdrv_co_flush(s->bs->file->bs);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_ALLOC_SWITCH_TABLE);
    ret = qcow2_header_switch(s, 48, &field, sizeof(field));
    if (ret < 0) {
        return ret;
    }
    s->header.reftable_offset = start << s->cluster_bits;
    s->header.reftable_clusters = clusters;
    return 0;
}

int coroutine_fn qcow2_reftable_replace(Qcow2State *s, uint64_t start, uint64_t clusters,
                                        const uint64_t *entries, uint64_t nb_entries)
{
    int ret = write_table(s, start, clusters, entries, nb_entries);

    return ret < 0 ? ret : switch_table(s, start, clusters);
}

/* Make the table long enough for block number BLOCK. */
static int coroutine_fn grow_table(Qcow2State *s, uint64_t block)
{
    NewArea a;

    BLKDBG_EVENT(s->bs->file, BLKDBG_REFTABLE_GROW);
    int ret = plan_area(s, block, &a);
    if (ret < 0) {
        return ret;
    }
    uint64_t all = a.table + a.blocks;
    uint64_t bytes = all << s->cluster_bits, offset = a.start << s->cluster_bits;
    ret = qcow2_overlap_check_new(s, a.start, all);
    if (ret < 0) {
        return ret;
    }
    uint64_t *entries = g_try_malloc0(a.entries * 8);
    if (!entries) {
        return -ENOMEM;
    }
    memcpy(entries, s->reftable.entries, (size_t)s->reftable.size * 8);
    qcow2_cache_drop(&s->refblock_cache, offset, bytes);
    qcow2_cache_drop(&s->l2_cache, offset, bytes);
    s->virgin_offset = MAX(s->virgin_offset, offset + bytes);
    /* The new table also points to blocks that the old one on disk does not know yet. */
    ret = qcow2_cache_write(s, &s->refblock_cache, NULL);
    ret = ret < 0 ? ret : write_area_blocks(s, &a, entries);
    ret = ret < 0 ? ret : qcow2_reftable_replace(s, a.start, a.table, entries, a.entries);
    if (ret < 0) {
        g_free(entries);
        return ret;
    }
    Qcow2Root old = s->reftable;
    qcow2_root_init(&s->reftable, entries, a.entries, offset);
    for (uint64_t c = a.start; c < a.start + all; c++) {
        qcow2_set_add(&s->fixed_meta, c);
    }
    uint64_t old_clusters = qcow2_clusters(s, (uint64_t)old.size * 8);
    for (uint64_t i = 0; i < old_clusters; i++) {
        qcow2_set_remove(&s->fixed_meta, (old.offset >> s->cluster_bits) + i);
    }
    /* A failure leaks the old table, no more. */
    qcow2_refcount_change(s, old.offset >> s->cluster_bits, old_clusters, -1);
    qcow2_root_free(&old);
    return 0;
}

/* ---- a new block ------------------------------------------------------------------- */

static int coroutine_fn make_block(Qcow2State *s, uint64_t block)
{
    for (;;) {
        uint64_t cluster, n;
        int ret = qcow2_find_free(s, s->free_hint, 1, 1, &cluster, &n);
        if (ret < 0) {
            return ret;
        }
        uint64_t home = block_of(s, cluster);
        if (home >= s->reftable.size) {
            ret = grow_table(s, home);
        } else if (home != block && !has_block(s, home)) {
            ret = place_block(s, home, cluster);
        } else {
            return place_block(s, block, cluster);
        }
        if (ret < 0) {
            return ret;
        }
    }
}

int coroutine_fn qcow2_reftable_cover(Qcow2State *s, uint64_t cluster, uint64_t n,
                                      bool *made)
{
    uint64_t last = block_of(s, cluster + n - 1);

    for (uint64_t block = block_of(s, cluster); block <= last; block++) {
        int ret = 0;
        if (has_block(s, block)) {
            continue;
        }
        if (made) {
            *made = true;
        }
        if (block >= s->reftable.size) {
            ret = grow_table(s, block);
        }
        /* Growing may have made the block by the way. */
        if (ret >= 0 && !has_block(s, block)) {
            ret = make_block(s, block);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* ---- giving up blocks -------------------------------------------------------------- */

typedef struct IdleBlock {
    uint32_t index;             /* in the table */
    uint64_t entry;
} IdleBlock;

/* 1 if block number BLOCK counts nothing, or itself only; 0; -errno. */
static int coroutine_fn is_idle(Qcow2State *s, uint64_t block)
{
    uint64_t own = (s->reftable.entries[block] & QCOW2_REFTABLE_MASK) >> s->cluster_bits;
    uint64_t c = block << s->refblock_bits, end = (block + 1) << s->refblock_bits;
    uint64_t refcount;
    int ret;

    for (; (ret = qcow2_refcount_next_used(s, &c, end)) > 0; c++) {
        ret = c == own ? qcow2_refcount_get(s, c, &refcount) : 0;
        if (ret < 0 || c != own || refcount > 1) {
            return ret;
        }
    }
    return ret < 0 ? ret : 1;
}

/* Take the idle blocks out of the table; their entries are put into GONE. */
static int coroutine_fn take_out_idle(Qcow2State *s, GArray *gone)
{
    for (uint32_t i = 0; i < s->reftable.size; i++) {
        int ret = has_block(s, i) ? is_idle(s, i) : 0;
        if (ret < 0) {
            return ret;
        }
        if (ret) {
            IdleBlock b = { i, s->reftable.entries[i] };
            g_array_append_val(gone, b);
            qcow2_root_set(&s->reftable, i, 0);
        }
    }
    return 0;
}

/* B was taken out of the table, on disk too (DONE), or is to be put back. */
static void coroutine_fn give_up_block(Qcow2State *s, const IdleBlock *b, bool done)
{
    uint64_t offset = b->entry & QCOW2_REFTABLE_MASK, cluster = offset >> s->cluster_bits;

    if (!done) {
        qcow2_root_set(&s->reftable, b->index, b->entry);
        return;
    }
    qcow2_cache_drop(&s->refblock_cache, offset, s->cluster_bytes);
    qcow2_set_remove(&s->fixed_meta, cluster);
    if (block_of(s, cluster) != b->index) {
        qcow2_refcount_change(s, cluster, 1, -1);       /* a failure leaks it */
    }
    s->free_hint = MIN(s->free_hint, (uint64_t)b->index << s->refblock_bits);
}

int coroutine_fn qcow2_reftable_trim(Qcow2State *s)
{
    g_autoptr(GArray) gone = NULL;
    int ret = 0;

    /* A block that is given up may have been the last thing that another one counted. */
    do {
        g_clear_pointer(&gone, g_array_unref);
        gone = g_array_new(false, false, sizeof(IdleBlock));
        ret = take_out_idle(s, gone);
        if (ret >= 0 && gone->len) {
            BLKDBG_EVENT(s->bs->file, BLKDBG_REFTABLE_UPDATE);
        }
        /* Their clusters may be used again when the table on disk does not name them. */
        ret = ret < 0 ? ret : qcow2_writeback(s);
        for (guint i = 0; i < gone->len; i++) {
            give_up_block(s, &g_array_index(gone, IdleBlock, i), ret >= 0);
        }
    } while (ret >= 0 && gone->len);
    return ret;
}
