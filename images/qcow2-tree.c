/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that an L1 table refers to: its L2 tables, and clusters by way of them. Each of these
 * has one reference from each L1 table. For snapshots, and for disks that lose all they have;
 * all with the lock held, no request using them, and what is cached of L2 tables written back.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

typedef struct Walk {
    Qcow2State *s;
    bool add;                   /* a reference to each; else take one away */
    uint64_t cluster, n;        /* a run of neighbours not dealt with yet */
    Qcow2Set seen;              /* L2 tables */
} Walk;

/* ---- runs of clusters ------------------------------------------------------------ */

static int coroutine_fn end_run(Walk *w)
{
    Qcow2State *s = w->s;
    uint64_t n = w->n, offset = w->cluster << s->cluster_bits, bytes = n << s->cluster_bits;

    w->n = 0;
    if (!n) {
        return 0;
    }
    if (w->add) {
        return qcow2_refcount_change(s, w->cluster, n, 1);
    }
    if (s->shadow) {
        return qcow2_shadow_drop(s, offset, bytes);
    }
    qcow2_free_later(s, offset, bytes, QCOW2_DISCARD_SNAPSHOT);
    return 0;
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

    if (s->data_file || !entry) {
        return 0;               /* the clusters of a data file are not counted */
    }
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

    for (uint32_t i = 0; i < size && ret >= 0; i++) {
        uint64_t table = l1[i] & QCOW2_OFFSET_MASK;
        if (!table) {
            continue;
        }
        ret = walk_table(w, table, buf);
        if (ret >= 0 && !w->add && !w->s->shadow) {
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
    Walk w = { .s = s, .add = true };

    return walk(&w, l1, size);
}

int coroutine_fn qcow2_tree_drop(Qcow2State *s, const uint64_t *l1, uint32_t size)
{
    Walk w = { .s = s };

    return walk(&w, l1, size);
}

/* ---- "copied" flags -------------------------------------------------------------- */

typedef struct Flags {
    Qcow2State *s;
    uint64_t more;              /* references that everything is about to get */
    uint64_t *buf;              /* an L2 table, as in the file */
    Qcow2Set seen;              /* L2 tables */
} Flags;

/* ENTRY, which refers to a whole cluster or none, with the flag that it should have. */
static int coroutine_fn correct_flag(Flags *f, uint64_t entry, uint64_t *corrected)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK, refcount = 0;
    int ret = 0;

    if (offset) {
        ret = qcow2_refcount_get(f->s, offset >> f->s->cluster_bits, &refcount);
    }
    bool alone = refcount && refcount + f->more == 1;
    *corrected = alone ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
    return ret;
}

/* Correct the table in F's buffer; *CHANGED: there was something to be corrected. */
static int coroutine_fn correct_entries(Flags *f, bool *changed)
{
    Qcow2State *s = f->s;
    int ret = 0;

    *changed = false;
    for (uint64_t i = 0; i < s->cluster_bytes / 8 && ret >= 0; i += qcow2_l2_words(s)) {
        uint64_t entry = GUINT64_FROM_BE(f->buf[i]), corrected;
        if (entry & QCOW2_COMPRESSED) {
            continue;
        }
        ret = correct_flag(f, entry, &corrected);
        if (ret >= 0 && corrected != entry) {
            f->buf[i] = GUINT64_TO_BE(corrected);
            *changed = true;
        }
    }
    return ret;
}

/* Store the table in F's buffer anew; *TABLE was its place and becomes the new one. */
static int coroutine_fn move_table(Flags *f, uint64_t *table)
{
    Qcow2State *s = f->s;
    uint64_t offset, n;
    bool fresh;

    int ret = qcow2_alloc_clusters(s, 1, 1, &offset, &n, &fresh);
    if (ret < 0) {
        return ret;
    }
    qcow2_cache_drop(&s->l2_cache, offset, s->cluster_bytes);
    qcow2_cache_drop(&s->refblock_cache, offset, s->cluster_bytes);
    ret = bdrv_co_pwrite(s->bs->file, offset, s->cluster_bytes, f->buf, 0);
    ret = ret < 0 ? ret : qcow2_shadow_drop(s, *table, s->cluster_bytes);
    *table = offset;
    return ret;
}

static int coroutine_fn correct_table(Flags *f, uint64_t *l1_entry)
{
    Qcow2State *s = f->s;
    uint64_t table = *l1_entry & QCOW2_OFFSET_MASK;
    bool changed;

    int ret = check_table(s, &f->seen, table);
    ret = ret < 0 ? ret : qcow2_file_read(s, table, s->cluster_bytes, f->buf);
    ret = ret < 0 ? ret : correct_entries(f, &changed);
    if (ret >= 0 && changed) {
        ret = move_table(f, &table);
    }
    return ret < 0 ? ret : correct_flag(f, table, l1_entry);
}

int coroutine_fn qcow2_tree_flags(Qcow2State *s, uint64_t *l1, uint32_t size, uint64_t more)
{
    Flags f = { .s = s, .more = more,
                .buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes) };
    int ret = f.buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < size && ret >= 0; i++) {
        if (l1[i] & QCOW2_OFFSET_MASK) {
            ret = correct_table(&f, &l1[i]);
        }
    }
    qcow2_set_clear(&f.seen);
    qemu_vfree(f.buf);
    return ret;
}
