/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Check, second half: compare the counted references with the refcounts; repair. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"
#include "images/qcow2-check.h"
#include "images/qcow2-manage.h"
#include "images/qcow2-entry.h"

/* ---- refcount blocks --------------------------------------------------------------- */

/* Why entry I of the refcount table cannot be used; NULL when it can. */
static const char *block_problem(Qcow2Check *c, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_REFTABLE_MASK;

    if (entry & ~QCOW2_REFTABLE_MASK) {
        return "has reserved bits set";
    }
    if (offset & c->s->cluster_mask) {
        return "is not cluster aligned; refcount table entry corrupted";
    }
    if (offset >> c->s->cluster_bits >= c->file_clusters) {
        return "is outside image";
    }
    return NULL;
}

/* Count the refcount table. */
static int count_table(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    uint64_t first = s->reftable.offset >> s->cluster_bits, n = s->header.reftable_clusters;

    if (first >= c->file_clusters || n > c->file_clusters - first) {
        qcow2_check_error(c, "ERROR refcount table is outside image\n");
        c->rebuild = true;
        return 0;
    }
    c->table_counted = true;
    for (uint64_t i = 0; i < n; i++) {
        /* (comparing will tell that the cluster has two users) */
        c->rebuild |= qcow2_counts_get(&c->counts, first + i) != 0;
        if (!qcow2_counts_add(&c->counts, first + i, 1)) {
            return -ENOMEM;
        }
    }
    return 0;
}

/* Count the blocks themselves. */
static int check_blocks(Qcow2Check *c)
{
    Qcow2State *s = c->s;

    for (uint32_t i = 0; i < s->reftable.size; i++) {
        uint64_t entry = s->reftable.entries[i];
        uint64_t cluster = (entry & QCOW2_REFTABLE_MASK) >> s->cluster_bits;
        const char *problem = entry ? block_problem(c, entry) : NULL;
        char shared[32];
        uint32_t others = entry && !problem ? qcow2_counts_get(&c->counts, cluster) : 0;
        if (others) {
            /* Its cluster serves something else as well, perhaps another block. */
            g_snprintf(shared, sizeof(shared), "refcount=%" PRIu64, (uint64_t)others + 1);
            problem = shared;
        }
        if (problem) {
            qcow2_check_error(c, "ERROR refcount %s %" PRIu32 " %s\n",
                              entry & ~QCOW2_REFTABLE_MASK ? "table entry" : "block", i,
                              problem);
            c->rebuild = true;
        }
        if (entry && (!problem || others)) {
            if (!qcow2_counts_add(&c->counts, cluster, 1)) {
                return -ENOMEM;
            }
            g_array_append_val(c->blocks, cluster);
        }
    }
    return 0;
}

static bool block_usable(Qcow2Check *c, uint64_t block)
{
    Qcow2State *s = c->s;

    /* reserved bits are an error, but do not keep us from reading it */
    return block < s->reftable.size && s->reftable.entries[block] &&
           !block_problem(c, s->reftable.entries[block] & QCOW2_REFTABLE_MASK);
}

/* ---- refcounts --------------------------------------------------------------------- */

static int coroutine_fn compare_one(Qcow2Check *c, uint64_t cluster, uint64_t refcount)
{
    uint64_t reference = qcow2_counts_get(&c->counts, cluster);
    uint64_t end = (cluster + 1) << c->s->cluster_bits;

    if ((refcount || reference) && end > (uint64_t)c->res->image_end_offset) {
        c->res->image_end_offset = end;
    }
    if (refcount == reference) {
        return 0;
    }
    bool leak = refcount > reference;
    bool repair = c->fix & (leak ? BDRV_FIX_LEAKS : BDRV_FIX_ERRORS);
    uint64_t fitting = MIN(reference, c->s->refcount_max);
    bool mended = repair && fitting == reference;

    fprintf(stderr, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64 "\n",
            mended ? "Repairing" : leak ? "Leaked" : "ERROR", cluster, refcount, reference);
    if (repair && refcount != fitting) {
        /* One that does not fit keeps the cluster from being given away, at least. */
        int ret = qcow2_refcount_set(c->s, cluster, fitting);
        if (ret < 0) {
            return ret;
        }
    }
    if (mended) {
        *(leak ? &c->res->leaks_fixed : &c->res->corruptions_fixed) += 1;
    } else {
        *(leak ? &c->res->leaks : &c->res->corruptions) += 1;
    }
    if (leak && c->lost) {
        /* A lost table may have referred to it: whoever makes the refcounts anew keeps it. */
        return qcow2_counts_add(&c->counts, cluster, refcount - reference) ? 0 : -ENOMEM;
    }
    return 0;
}

/* Clusters that a block covers, as far as the file goes. */
static int coroutine_fn compare_block(Qcow2Check *c, uint64_t block)
{
    Qcow2State *s = c->s;
    uint64_t first = block << s->refblock_bits;
    uint64_t end = MIN(first + (1ULL << s->refblock_bits), c->file_clusters);
    int ret = 0;

    for (uint64_t cluster = first; cluster < end && ret >= 0; ) {
        uint64_t refcount, zeroes;
        ret = qcow2_refcount_zeroes(s, cluster, &zeroes);
        if (ret >= 0 && zeroes && qcow2_counts_none(&c->counts, cluster, zeroes)) {
            /* Most of a sparse file is not worth a closer look. */
            cluster += zeroes;
            continue;
        }
        ret = ret < 0 ? ret : qcow2_refcount_get(s, cluster, &refcount);
        ret = ret < 0 ? ret : compare_one(c, cluster, refcount);
        cluster++;
    }
    return ret;
}

/* Referenced clusters that no block covers. */
static int coroutine_fn compare_uncovered(Qcow2Check *c, const bool *covered, uint64_t blocks)
{
    g_autoptr(GArray) groups = qcow2_counts_groups(&c->counts);
    int ret = 0;

    for (guint i = 0; i < groups->len && ret >= 0; i++) {
        uint64_t first = g_array_index(groups, uint64_t, i) * QCOW2_COUNT_GROUP;
        for (uint64_t k = first; k < first + QCOW2_COUNT_GROUP && ret >= 0; k++) {
            uint64_t block = k >> c->s->refblock_bits;
            if (qcow2_counts_get(&c->counts, k) && !(block < blocks && covered[block])) {
                c->rebuild = true;
                ret = compare_one(c, k, 0);
            }
        }
    }
    return ret;
}

static int coroutine_fn compare_all(Qcow2Check *c)
{
    const Qcow2Root *table = &c->s->reftable;
    uint64_t blocks = table->size;
    g_autofree bool *covered = g_new0(bool, blocks + 1);
    Qcow2Set seen = { NULL };
    int ret = 0;

    /* Repair makes blocks, so what was covered before is noted first. */
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t cluster = (table->entries[i] & QCOW2_REFTABLE_MASK) >> c->s->cluster_bits;
        /* One that several entries name would be compared as often as there are entries. */
        covered[i] = block_usable(c, i) && !qcow2_set_has(&seen, cluster);
        if (covered[i]) {
            qcow2_set_add(&seen, cluster);
        }
    }
    qcow2_set_clear(&seen);
    for (uint64_t i = 0; i < blocks && ret >= 0; i++) {
        if (covered[i]) {
            ret = compare_block(c, i);
        }
    }
    return ret < 0 ? ret : compare_uncovered(c, covered, blocks);
}

/* What is wrong is told first, all of it, and then what is repaired. */
static int coroutine_fn compare_refcounts(Qcow2Check *c)
{
    BdrvCheckResult *res = c->res;
    BdrvCheckMode fix = c->fix;
    int leaks = res->leaks, corruptions = res->corruptions;

    c->fix = 0;
    int ret = count_table(c);
    ret = ret < 0 ? ret : check_blocks(c);
    ret = ret < 0 ? ret : compare_all(c);
    if (c->lost && fix & BDRV_FIX_LEAKS && res->leaks != leaks) {
        fprintf(stderr, "Leaked clusters are kept: lost tables may have referred to them\n");
        fix &= ~BDRV_FIX_LEAKS;
        leaks = res->leaks;
    }
    c->fix = fix;
    if (ret < 0 || !fix || (res->leaks == leaks && res->corruptions == corruptions)) {
        return ret;
    }
    if (c->rebuild) {
        if (!(fix & BDRV_FIX_ERRORS)) {
            return 0;           /* who knows what would be written over */
        }
        ret = qcow2_check_rebuild(c);
        if (ret < 0) {
            return ret;
        }
        res->leaks_fixed += res->leaks - leaks;
        res->corruptions_fixed += res->corruptions - corruptions;
    }
    res->leaks = leaks;
    res->corruptions = corruptions;
    return compare_all(c);
}

/* ---- the "copied" flags ------------------------------------------------------------ */

/* Whether CLUSTER's refcount can be asked for without running into a broken block. */
static bool refcount_known(Qcow2Check *c, uint64_t cluster)
{
    uint64_t block = cluster >> c->s->refblock_bits;

    return block >= c->s->reftable.size || !c->s->reftable.entries[block] ||
           block_usable(c, block);
}

/* Whether ENTRY's flag agrees with the refcount; *FIXED_ENTRY is what it should be. */
static int coroutine_fn check_flag(Qcow2Check *c, uint64_t entry, uint64_t *fixed_entry,
                                   uint64_t *refcount)
{
    uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> c->s->cluster_bits;

    *fixed_entry = entry;
    if (!refcount_known(c, cluster)) {
        return 0;
    }
    int ret = qcow2_refcount_get(c->s, cluster, refcount);
    if (ret >= 0) {
        *fixed_entry = *refcount == 1 ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
    }
    return ret;
}

static void report_flag(Qcow2Check *c, bool fix, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
static void report_flag(Qcow2Check *c, bool fix, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s OFLAG_COPIED ", fix ? "Repairing" : "ERROR");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    *(fix ? &c->res->corruptions_fixed : &c->res->corruptions) += 1;
}

/* A table that is something else, too, is not written to. */
static int coroutine_fn check_l2_flags(Qcow2Check *c, bool fix, Qcow2Slice *slice)
{
    Qcow2State *s = c->s;

    for (uint32_t i = 0; i < qcow2_slice_entries(s); i++) {
        uint64_t *place = qcow2_entry_place(s, slice, i), fixed, refcount;
        uint64_t entry = GUINT64_FROM_BE(*place);
        if (!qcow2_has_host(s, qcow2_entry_from(s, place).desc)) {
            continue;
        }
        int ret = 0;
        if (s->data_file) {
            fixed = entry | QCOW2_COPIED;       /* nobody shares clusters of a data file */
            refcount = 1;
        } else {
            ret = check_flag(c, entry, &fixed, &refcount);
        }
        if (ret < 0) {
            return ret;
        }
        if (fixed != entry) {
            report_flag(c, fix, "data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64 "\n",
                        entry, refcount);
            if (fix) {
                *place = GUINT64_TO_BE(fixed);
                qcow2_cache_mark_dirty(&s->l2_cache, slice);
            }
        }
    }
    return 0;
}

static int coroutine_fn check_l1_flag(Qcow2Check *c, uint32_t l1_index)
{
    uint64_t entry = c->s->l1.entries[l1_index], fixed = 0, refcount = 0;
    bool fix = c->fix_flags && c->owns_l1;

    int ret = entry & QCOW2_OFFSET_MASK ? check_flag(c, entry, &fixed, &refcount) : 0;
    if (ret >= 0 && (fixed ^ entry) & QCOW2_COPIED) {
        report_flag(c, fix, "L2 cluster: l1_index=%" PRIu32 " l1_entry=%" PRIx64 " refcount=%"
                    PRIu64 "\n", l1_index, entry, refcount);
        if (fix) {
            qcow2_root_set(&c->s->l1, l1_index, entry ^ QCOW2_COPIED);
        }
    }
    return ret;
}

static int coroutine_fn check_table_flags(Qcow2Check *c, uint32_t l1_index,
                                          const Qcow2TableRef *t)
{
    Qcow2State *s = c->s;
    uint64_t table = t->offset;
    bool fix = c->fix_flags && qcow2_check_owns_table(c, t);
    uint32_t slice_bytes = 1u << s->l2_cache.slice_bits;
    int ret = 0;

    for (uint64_t o = table; o < table + s->cluster_bytes && ret >= 0; o += slice_bytes) {
        Qcow2Slice *slice;
        ret = qcow2_cache_get(s, &s->l2_cache, o, l1_index, &slice);
        if (ret >= 0) {
            ret = check_l2_flags(c, fix, slice);
            qcow2_cache_put(slice);
        }
    }
    return ret;
}

static int coroutine_fn check_flags(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    int ret = 0;

    /* Mending leaks changes refcounts, and flags with them; of a sound image that is safe. */
    c->fix_flags = (c->fix & BDRV_FIX_ERRORS) ||
                   ((c->fix & BDRV_FIX_LEAKS) && !c->res->corruptions &&
                    !c->res->check_errors);
    c->owns_l1 = qcow2_check_owns_l1(c);
    for (uint32_t i = 0; i < s->l1.size && ret >= 0; i++) {
        uint64_t offset = s->l1.entries[i] & QCOW2_OFFSET_MASK;
        Qcow2TableRef *t = g_hash_table_lookup(c->tables, &offset);
        ret = check_l1_flag(c, i);
        /* A table that several entries name is looked at once. */
        if (ret >= 0 && t && !t->walked && !(offset & s->cluster_mask)) {
            t->walked = true;
            ret = check_table_flags(c, i, t);
        }
    }
    return ret;
}

/* ---- the check --------------------------------------------------------------------- */

static int coroutine_fn run_check(Qcow2Check *c)
{
    Qcow2State *s = c->s;

    int64_t len = bdrv_getlength(s->bs->file->bs);
    if (len < 0) {
        return len;
    }
    s->file_bytes = len;
    c->file_clusters = qcow2_clusters(s, len);
    c->res->bfi.total_clusters = qcow2_clusters(s, qcow2_guest_bytes(s));
    int ret = qcow2_check_snapshots(c);
    ret = ret < 0 ? ret : qcow2_check_count(c);
    if (ret < 0) {
        return ret;
    }
    s->virgin_offset = MAX(s->virgin_offset, c->file_clusters << s->cluster_bits);
    ret = qcow2_check_drop_places(c);
    ret = ret < 0 ? ret : qcow2_check_move_tables(c);
    ret = ret < 0 ? ret : compare_refcounts(c);
    if (c->fix) {
        s->free_hint = 0;
        qcow2_overlap_collect(s);
    }
    if (ret >= 0 && c->rewrite_snapshots) {
        ret = qcow2_snapshots_write(s);
        s->snapshots_unread = ret < 0 ? s->snapshots_unread : 0;
        qcow2_overlap_collect(s);
    }
    ret = ret < 0 ? ret : qcow2_check_mend_bitmaps(c);
    /* At last, since the old table of snapshots may have shared a cluster. */
    return ret < 0 ? ret : check_flags(c);
}

static int coroutine_fn mark_clean(Qcow2State *s)
{
    uint64_t bits = s->header.incompat & ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);

    s->corrupt = false;
    s->unrepaired = false;
    return bits == s->header.incompat ? 0 : qcow2_header_set_incompat(s, bits);
}

int coroutine_fn qcow2_check_locked(Qcow2State *s, BdrvCheckResult *result, BdrvCheckMode fix)
{
    Qcow2Check c = { .s = s, .res = result, .fix = s->writable ? fix : 0 };
    int ret;

    memset(result, 0, sizeof(*result));
    if (s->writable) {
        ret = qcow2_writeback_all(s);
        if (ret < 0) {
            return ret;
        }
    }
    qcow2_counts_init(&c.counts);
    qcow2_counts_init(&c.beyond);
    c.blocks = g_array_new(false, false, sizeof(uint64_t));
    c.bad_bitmaps = g_ptr_array_new_with_free_func(g_free);
    c.bad_places = g_array_new(false, false, sizeof(Qcow2BadPlace));
    c.tables = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
    c.table_order = g_array_new(false, false, sizeof(uint64_t));
    ret = run_check(&c);
    if (ret >= 0 && c.fix) {
        ret = qcow2_writeback_all(s);
        ret = ret < 0 ? ret : qcow2_check_switch_l1(s);
        if (ret >= 0 && !result->corruptions && !result->check_errors) {
            ret = mark_clean(s);
        }
    }
    if (ret < 0) {
        /* Nothing may be written that refers to the new places: they have no refcounts. */
        s->corrupt |= c.moved;
        result->check_errors++;
    }
    g_array_free(c.table_order, true);
    g_hash_table_destroy(c.tables);
    g_array_free(c.bad_places, true);
    g_ptr_array_unref(c.bad_bitmaps);
    g_array_free(c.blocks, true);
    qcow2_counts_free(&c.beyond);
    qcow2_counts_free(&c.counts);
    return ret;
}

int coroutine_fn qcow2_co_check(BlockDriverState *bs, BdrvCheckResult *result,
                                BdrvCheckMode fix)
{
    Qcow2State *s = bs->opaque;

    qemu_co_mutex_lock(&s->lock);
    while (!QTAILQ_EMPTY(&s->allocs)) {
        /* Clusters on their way into the mapping would look like leaks. */
        Qcow2Alloc *a = QTAILQ_FIRST(&s->allocs);
        qcow2_wait_allocs(s, a->guest, s->cluster_bytes);
    }
    int ret = qcow2_check_locked(s, result, fix);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}
