/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The mapping from guest to host clusters: looking it up, and L2 tables for changing it. */
#include "miniblk/osdep.h"
#include "miniblk/host-utils.h"
#include "images/qcow2-entry.h"

void qcow2_compressed_range(const Qcow2State *s, uint64_t entry, uint64_t *offset,
                            uint64_t *bytes)
{
    /* 62 bits: offset, then the number of further 512-byte sectors. */
    uint32_t offset_bits = 62 - (s->cluster_bits - 8);
    uint64_t sectors = (entry & (QCOW2_COMPRESSED - 1)) >> offset_bits;

    *offset = entry & ((1ULL << offset_bits) - 1) & ((1ULL << 56) - 1);
    *bytes = (sectors + 1) * 512 - (*offset & 511);
}

/* ---- looking up -------------------------------------------------------------------- */

typedef struct Place {          /* of an L2 entry */
    uint32_t l1_index;
    uint64_t table, slice;      /* offsets in the file; table 0: there is none */
    uint32_t index;             /* within the slice */
    uint32_t index_in_table;
} Place;

static inline Place place_of(const Qcow2State *s, uint64_t offset)
{
    Place p = { .l1_index = offset >> qcow2_l1_shift(s) };
    uint32_t i = (offset >> s->cluster_bits) & ((1u << s->l2_bits) - 1);
    uint32_t per_slice = qcow2_slice_entries(s);

    p.table = p.l1_index < s->l1.size ? s->l1.entries[p.l1_index] & QCOW2_OFFSET_MASK : 0;
    p.index_in_table = i;
    p.index = i & (per_slice - 1);
    p.slice = p.table + ((uint64_t)(i - p.index) << s->l2_entry_bits);
    return p;
}

/* Whether entry E of guest cluster GUEST, of type TYPE, may be used. */
static inline bool entry_ok(const Qcow2State *s, Qcow2Entry e, Qcow2Type type, uint64_t guest)
{
    uint64_t host = e.desc & QCOW2_OFFSET_MASK;

    switch (type) {
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOC:
    case QCOW2_UNALLOCATED_ALLOC:
        return !(host & s->cluster_mask) && (!s->data_file || host == guest) &&
               (type == QCOW2_NORMAL || s->header.version >= 3);
    case QCOW2_ZERO_PLAIN:
        return s->header.version >= 3;
    case QCOW2_COMPRESSED_DATA:
        return !s->data_file;
    case QCOW2_UNALLOCATED:
        return true;
    default:
        return false;
    }
}

static int coroutine_fn report_entry(Qcow2State *s, const Place *p, Qcow2Entry e,
                                     Qcow2Type type)
{
    uint64_t host = e.desc & QCOW2_OFFSET_MASK;
    const char *what;

    if (type == QCOW2_INVALID) {
        what = "Invalid cluster entry found ";
    } else if (type == QCOW2_COMPRESSED_DATA) {
        what = "Compressed cluster entry found in image with external data file";
    } else if (s->header.version < 3 && type != QCOW2_NORMAL) {
        what = "Zero cluster entry found in pre-v3 image";
    } else if (host & s->cluster_mask) {
        return qcow2_signal_corruption(s, true, "%s offset %#" PRIx64 " unaligned (L2 offset: "
                                       "%#" PRIx64 ", L2 index: %#x)",
                                       type == QCOW2_NORMAL ? "Cluster allocation"
                                                            : "Preallocated zero cluster",
                                       host, p->table, p->index_in_table);
    } else {
        uint64_t guest = ((uint64_t)p->l1_index << qcow2_l1_shift(s)) +
                         ((uint64_t)p->index_in_table << s->cluster_bits);
        return qcow2_signal_corruption(s, true, "External data file host cluster offset %#"
                                       PRIx64 " does not match guest cluster offset: %#"
                                       PRIx64 ", L2 index: %#x)", host, guest,
                                       p->index_in_table);
    }
    return qcow2_signal_corruption(s, true, "%s (L2 offset: %#" PRIx64 ", L2 index: %#x)",
                                   what, p->table, p->index_in_table);
}

/* Whether host clusters that began with FIRST's go on, COUNT clusters later, with E's. */
static inline bool host_goes_on(uint64_t first, uint64_t e, uint64_t count,
                                const Qcow2State *s)
{
    /* All flags the same and the host clusters in a row; addition cannot carry. */
    return e == first + (count << s->cluster_bits);
}

/* How many whole clusters behind P's belong to a run of TYPE that begins with E. */
static uint32_t count_whole_clusters(const Qcow2State *s, const Qcow2Slice *slice,
                                     const Place *p, Qcow2Entry e, Qcow2Type type,
                                     uint32_t max)
{
    uint32_t n = 0;

    if (type == QCOW2_COMPRESSED_DATA) {
        return 0;
    }
    for (; n < max; n++) {
        Qcow2Entry next = qcow2_entry_load(s, slice, p->index + 1 + n);
        if (qcow2_has_host(s, e.desc) ? !host_goes_on(e.desc, next.desc, n + 1, s)
                                      : next.desc & QCOW2_COMPRESSED ||
                                        qcow2_has_host(s, next.desc)) {
            break;
        }
        if (next.alloc != e.alloc || next.zero != e.zero) {
            break;
        }
    }
    return n;
}

/* How many subclusters of E from number I on are of the same type as that one. */
static uint32_t count_subclusters(const Qcow2State *s, Qcow2Entry e, uint32_t i)
{
    uint32_t like = e.zero >> i & 1 ? e.zero : e.alloc >> i & 1 ? e.alloc
                  : ~(e.alloc | e.zero);

    return MIN((uint32_t)cto32(like >> i), s->subclusters - i);
}

static inline bool is_uniform(const Qcow2State *s, Qcow2Entry e)
{
    uint32_t all = qcow2_all_subclusters(s);

    return (e.alloc == 0 || e.alloc == all) && (e.zero == 0 || e.zero == all);
}

/* Describe what begins at entry P->index of SLICE; -EIO when the entry is corrupt. */
static inline int run_in_slice(const Qcow2State *s, const Qcow2Slice *slice, const Place *p,
                               uint64_t offset, uint64_t bytes, Qcow2Run *run)
{
    uint64_t in_cluster = offset & s->cluster_mask;
    uint32_t sub = in_cluster >> s->subcluster_bits, n = 1;
    Qcow2Entry e = qcow2_entry_load(s, slice, p->index);

    run->type = qcow2_entry_type(s, e, sub);
    if (unlikely(!entry_ok(s, e, run->type, offset - in_cluster))) {
        return -EIO;
    }
    run->copied = e.desc & QCOW2_COPIED;
    run->host = run->type == QCOW2_COMPRESSED_DATA ? e.desc
              : (e.desc & QCOW2_OFFSET_MASK) + in_cluster;
    if (s->subclusters > 1 && run->type != QCOW2_COMPRESSED_DATA) {
        n = count_subclusters(s, e, sub);
    }
    uint64_t covered = ((uint64_t)(sub + n) << s->subcluster_bits) - in_cluster;
    if (run->type == QCOW2_COMPRESSED_DATA) {
        covered = s->cluster_bytes - in_cluster;
    } else if (covered < bytes && is_uniform(s, e)) {
        uint32_t room = qcow2_slice_entries(s) - 1 - p->index;
        uint64_t more = qcow2_clusters(s, bytes - covered);
        covered += (uint64_t)count_whole_clusters(s, slice, p, e, run->type, MIN(room, more))
                   << s->cluster_bits;
    }
    run->bytes = MIN(bytes, covered);
    return 0;
}

/* No L2 table: nothing is allocated up to where the next one would begin. */
static void run_without_table(const Qcow2State *s, uint64_t offset, uint64_t bytes,
                              Qcow2Run *run)
{
    uint64_t span = 1ULL << qcow2_l1_shift(s);

    *run = (Qcow2Run){ .type = QCOW2_UNALLOCATED,
                       .bytes = MIN(bytes, span - (offset & (span - 1))) };
}

bool qcow2_map_cached(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Run *run)
{
    Place p = place_of(s, offset);

    if (!p.table) {
        run_without_table(s, offset, bytes, run);
        return true;
    }
    Qcow2Slice *slice = qcow2_cache_peek(&s->l2_cache, p.slice);
    return slice && run_in_slice(s, slice, &p, offset, bytes, run) >= 0;
}

static int coroutine_fn check_table(Qcow2State *s, const Place *p)
{
    if (p->table & s->cluster_mask) {
        return qcow2_signal_corruption(s, true, "L2 table offset %#" PRIx64 " unaligned (L1 "
                                       "index: %#x)", p->table, p->l1_index);
    }
    if (p->table >= s->virgin_offset) {
        return qcow2_signal_corruption(s, true, "L2 table offset %#" PRIx64 " beyond the end "
                                       "of the file (L1 index: %#x)", p->table, p->l1_index);
    }
    return 0;
}

int coroutine_fn qcow2_map_locked(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                  Qcow2Run *run)
{
    Place p = place_of(s, offset);
    Qcow2Slice *slice;

    if (!p.table) {
        run_without_table(s, offset, bytes, run);
        return 0;
    }
    int ret = check_table(s, &p);
    if (ret >= 0) {
        ret = qcow2_cache_get(s, &s->l2_cache, p.slice, p.l1_index, &slice);
    }
    if (ret < 0) {
        return ret;
    }
    ret = run_in_slice(s, slice, &p, offset, bytes, run);
    Qcow2Entry entry = qcow2_entry_load(s, slice, p.index);
    qcow2_cache_put(slice);
    return ret < 0 ? report_entry(s, &p, entry, run->type) : 0;
}

int coroutine_fn qcow2_map(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Run *run)
{
    if (likely(qcow2_map_cached(s, offset, bytes, run))) {
        return 0;
    }
    qemu_co_mutex_lock(&s->lock);
    int ret = qcow2_map_locked(s, offset, bytes, run);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/* ---- L2 tables for changing -------------------------------------------------------- */

/* Copy the table at FROM, which others share, to TO. */
static int coroutine_fn copy_table(Qcow2State *s, uint64_t from, uint64_t to)
{
    void *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);

    if (!buf) {
        return -ENOMEM;
    }
    /* Shared tables are never changed in the cache, so the file has their content. */
    BLKDBG_EVENT(s->bs->file, BLKDBG_L2_ALLOC_COW_READ);
    int ret = qcow2_file_read(s, from, s->cluster_bytes, buf);
    if (ret >= 0) {
        BLKDBG_EVENT(s->bs->file, BLKDBG_L2_ALLOC_WRITE);
        ret = bdrv_co_pwrite(s->bs->file, to, s->cluster_bytes, buf, 0);
    }
    qemu_vfree(buf);
    return ret;
}

/* Make the table of P one that only the active L1 table points to. */
static int coroutine_fn make_own_table(Qcow2State *s, Place *p)
{
    uint64_t offset, n;
    bool fresh;
    int ret;

    if (p->table) {
        ret = check_table(s, p);
        if (ret < 0) {
            return ret;
        }
    }
    ret = qcow2_alloc_clusters(s, 1, 1, &offset, &n, &fresh);
    if (ret < 0) {
        return ret;
    }
    qcow2_cache_drop(&s->l2_cache, offset, s->cluster_bytes);
    qcow2_cache_drop(&s->refblock_cache, offset, s->cluster_bytes);
    if (p->table) {
        ret = copy_table(s, p->table, offset);
    } else {
        /* A fresh one, too: what is written behind it must not take its room on the disk. */
        BLKDBG_EVENT(s->bs->file, BLKDBG_L2_ALLOC_WRITE);
        ret = bdrv_co_pwrite_zeroes(s->bs->file, offset, s->cluster_bytes, 0);
    }
    uint64_t slice_offset = offset + (p->slice - p->table);
    if (ret >= 0 && !p->table) {
        Qcow2Slice *slice;
        ret = qcow2_cache_get_zeroed(s, &s->l2_cache, slice_offset, p->l1_index, &slice);
        if (ret >= 0) {
            qcow2_cache_put(slice);
        }
    }
    if (ret < 0) {
        qcow2_refcount_change(s, offset >> s->cluster_bits, 1, -1);
        return ret;
    }
    if (p->table) {
        qcow2_set_remove(&s->l2_meta, p->table >> s->cluster_bits);
        qcow2_free_later(s, p->table, s->cluster_bytes, QCOW2_DISCARD_OTHER);
    }
    qcow2_root_set(&s->l1, p->l1_index, offset | QCOW2_COPIED);
    qcow2_set_add(&s->l2_meta, offset >> s->cluster_bits);
    p->table = offset;
    p->slice = slice_offset;
    return 0;
}

int coroutine_fn qcow2_l2_for_write(Qcow2State *s, uint64_t offset, Qcow2Slice **slice,
                                    uint32_t *index)
{
    Place p = place_of(s, offset);
    int ret;

    qemu_co_mutex_assert_locked(&s->lock);
    if (s->corrupt || p.l1_index >= s->l1.size) {
        return -EIO;
    }
    if (!p.table || !(s->l1.entries[p.l1_index] & QCOW2_COPIED)) {
        ret = make_own_table(s, &p);
    } else {
        ret = check_table(s, &p);
        ret = ret < 0 ? ret : qcow2_overlap_check_l2(s, p.table);
    }
    if (ret < 0) {
        return ret;
    }
    *index = p.index;
    return qcow2_cache_get(s, &s->l2_cache, p.slice, p.l1_index, slice);
}

void qcow2_free_entry(Qcow2State *s, uint64_t desc, Qcow2Discard cause)
{
    uint64_t offset, bytes;

    if (desc & QCOW2_COMPRESSED) {
        qcow2_compressed_range(s, desc, &offset, &bytes);
        qcow2_free_later(s, offset, bytes, cause);
    } else if (!s->data_file && qcow2_has_host(s, desc)) {
        qcow2_free_later(s, desc & QCOW2_OFFSET_MASK, s->cluster_bytes, cause);
    }
}
