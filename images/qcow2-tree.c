/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that an L1 table refers to: its L2 tables, and clusters by way of them. Each of these
 * has one reference from each L1 table. For snapshots; all with the lock held, no request
 * running, and what is cached written back.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

typedef enum Qcow2WalkKind {
    WALK_ADD,                   /* a reference to each */
    WALK_UNDO,                  /* take back what a walk has added */
    WALK_DROP,                  /* a reference of each, later */
} Qcow2WalkKind;

typedef struct Walk {
    Qcow2State *s;
    Qcow2WalkKind kind;
    uint64_t cluster, n;        /* a run of neighbours not dealt with yet */
    uint64_t runs_done;
    uint64_t runs_max;          /* of an undo: all that had been added */
    Qcow2Set seen;              /* L2 tables */
} Walk;

/* ---- runs of clusters ------------------------------------------------------------ */

static int coroutine_fn end_run(Walk *w)
{
    Qcow2State *s = w->s;
    int ret = 0;

    if (!w->n || w->runs_done == w->runs_max) {
        return 0;
    }
    if (w->kind == WALK_DROP) {
        qcow2_free_later(s, w->cluster << s->cluster_bits, w->n << s->cluster_bits,
                         QCOW2_DISCARD_SNAPSHOT);
    } else {
        ret = qcow2_refcount_change(s, w->cluster, w->n, w->kind == WALK_ADD ? 1 : -1);
    }
    w->n = 0;
    w->runs_done += ret >= 0;
    return ret;
}

/* One reference to each cluster of BYTES at OFFSET. */
static int coroutine_fn refer_to(Walk *w, uint64_t offset, uint64_t bytes)
{
    Qcow2State *s = w->s;
    uint64_t first = offset >> s->cluster_bits, n = qcow2_clusters(s, offset + bytes) - first;
    int ret = 0;

    if (offset + bytes > s->virgin_offset) {
        return qcow2_signal_corruption(s, true, "Cluster offset %#" PRIx64 " beyond the end "
                                       "of the file", offset);
    }
    if (!w->n || first != w->cluster + w->n) {
        ret = end_run(w);
        w->cluster = first;
    }
    w->n += n;
    return ret;
}

/* ---- the walk -------------------------------------------------------------------- */

static int coroutine_fn walk_entry(Walk *w, uint64_t entry)
{
    Qcow2State *s = w->s;
    uint64_t offset = entry & QCOW2_OFFSET_MASK, bytes = s->cluster_bytes;

    if (entry & QCOW2_COMPRESSED) {
        qcow2_compressed_range(s, entry, &offset, &bytes);
    } else if (!offset) {
        return 0;
    } else if (offset & s->cluster_mask) {
        return qcow2_signal_corruption(s, true, "Cluster offset %#" PRIx64 " unaligned",
                                       offset);
    }
    return refer_to(w, offset, bytes);
}

/* Whether TABLE can be an L2 table, and one that this L1 table has not named before. */
static int coroutine_fn check_table(Qcow2State *s, Qcow2Set *seen, uint64_t table)
{
    if ((table & s->cluster_mask) || table >= s->virgin_offset) {
        return qcow2_signal_corruption(s, true, "L2 table offset %#" PRIx64 " unaligned or "
                                       "beyond the end of the file", table);
    }
    /* Without this, a small image could ask for any amount of work. */
    if (qcow2_set_has(seen, table >> s->cluster_bits)) {
        return qcow2_signal_corruption(s, true, "L2 table at offset %#" PRIx64 " has two "
                                       "places in one L1 table", table);
    }
    qcow2_set_add(seen, table >> s->cluster_bits);
    return 0;
}

static int coroutine_fn walk_table(Walk *w, uint64_t table, uint64_t *buf)
{
    Qcow2State *s = w->s;

    int ret = check_table(s, &w->seen, table);
    ret = ret < 0 ? ret : refer_to(w, table, s->cluster_bytes);
    ret = ret < 0 ? ret : qcow2_file_read(s, table, s->cluster_bytes, buf);
    for (uint64_t i = 0; i < s->cluster_bytes / 8 && ret >= 0; i += qcow2_l2_words(s)) {
        ret = walk_entry(w, GUINT64_FROM_BE(buf[i]));
    }
    return ret;
}

static int coroutine_fn walk(Walk *w, const uint64_t *l1, uint32_t size)
{
    uint64_t *buf = qemu_try_blockalign(w->s->bs->file->bs, w->s->cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < size && ret >= 0 && w->runs_done < w->runs_max; i++) {
        uint64_t table = l1[i] & QCOW2_OFFSET_MASK;
        if (!table) {
            continue;
        }
        ret = walk_table(w, table, buf);
        if (ret >= 0 && w->kind == WALK_DROP) {
            ret = end_run(w);
            ret = ret < 0 ? ret : qcow2_limit_frees(w->s);
        }
    }
    if (ret >= 0) {
        ret = end_run(w);
    }
    qcow2_set_clear(&w->seen);
    qemu_vfree(buf);
    return ret;
}

int coroutine_fn qcow2_tree_add(Qcow2State *s, const uint64_t *l1, uint32_t size)
{
    Walk w = { .s = s, .kind = WALK_ADD, .runs_max = UINT64_MAX };

    int ret = walk(&w, l1, size);
    if (ret < 0) {
        Walk undo = { .s = s, .kind = WALK_UNDO, .runs_max = w.runs_done };
        walk(&undo, l1, size);  /* a failure leaks clusters; the first error counts */
    }
    return ret;
}

int coroutine_fn qcow2_tree_drop(Qcow2State *s, const uint64_t *l1, uint32_t size)
{
    Walk w = { .s = s, .kind = WALK_DROP, .runs_max = UINT64_MAX };

    return walk(&w, l1, size);
}

/* ---- "copied" flags -------------------------------------------------------------- */

/* ENTRY, which refers to a whole cluster or none, with the flag that it should have. */
static int coroutine_fn correct_flag(Qcow2State *s, uint64_t entry, uint64_t *corrected)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK, refcount = 0;
    int ret = 0;

    if (offset) {
        ret = qcow2_refcount_get(s, offset >> s->cluster_bits, &refcount);
    }
    *corrected = refcount == 1 ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
    return ret;
}

static int coroutine_fn correct_slice(Qcow2State *s, Qcow2Slice *slice)
{
    uint64_t *words = (uint64_t *)slice->data;
    uint32_t nb_words = 1u << (s->l2_cache.slice_bits - 3);
    int ret = 0;

    for (uint32_t i = 0; i < nb_words && ret >= 0; i += qcow2_l2_words(s)) {
        uint64_t entry = GUINT64_FROM_BE(words[i]), corrected;
        if (entry & QCOW2_COMPRESSED) {
            continue;
        }
        ret = correct_flag(s, entry, &corrected);
        if (ret >= 0 && corrected != entry) {
            words[i] = GUINT64_TO_BE(corrected);
            qcow2_cache_mark_dirty(&s->l2_cache, slice);
        }
    }
    return ret;
}

static int coroutine_fn correct_table(Qcow2State *s, uint64_t table, uint32_t owner)
{
    uint32_t slice_bytes = 1u << s->l2_cache.slice_bits;
    int ret = 0;

    for (uint64_t o = table; o < table + s->cluster_bytes && ret >= 0; o += slice_bytes) {
        Qcow2Slice *slice;
        ret = qcow2_cache_get(s, &s->l2_cache, o, owner, &slice);
        if (ret >= 0) {
            ret = correct_slice(s, slice);
            qcow2_cache_put(slice);
        }
    }
    return ret;
}

int coroutine_fn qcow2_tree_flags(Qcow2State *s, uint64_t *l1, uint32_t size)
{
    Qcow2Set seen = { NULL };
    int ret = 0;

    for (uint32_t i = 0; i < size && ret >= 0; i++) {
        uint64_t table = l1[i] & QCOW2_OFFSET_MASK, corrected;
        if (!table) {
            continue;
        }
        ret = check_table(s, &seen, table);
        ret = ret < 0 ? ret : correct_table(s, table, i);
        ret = ret < 0 ? ret : correct_flag(s, l1[i], &corrected);
        if (ret >= 0 && corrected != l1[i]) {
            if (l1 == s->l1.entries) {
                qcow2_root_set(&s->l1, i, corrected);
            } else {
                l1[i] = corrected;
            }
        }
    }
    qcow2_set_clear(&seen);
    return ret;
}
