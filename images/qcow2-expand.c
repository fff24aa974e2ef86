/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Doing without zero clusters, which version 2 does not have: without a backing file, what is
 * not there reads as zeroes; over one, zeroes are written.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

/* ---- the active disk ------------------------------------------------------------- */

int coroutine_fn qcow2_expand_zeroes(Qcow2State *s, Qcow2Progress *progress)
{
    uint64_t size = qcow2_guest_bytes(s), buf_bytes = MIN(s->cluster_bytes * 16, 2u << 20);
    uint8_t *buf = qemu_try_blockalign0(s->bs->file->bs, buf_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t o = 0; o < size && ret >= 0; ) {
        Qcow2Run run;
        ret = qcow2_map(s, o, size - o, &run);
        if (ret < 0) {
            break;
        }
        if (run.type == QCOW2_ZERO_PLAIN && !s->bs->backing) {
            ret = qcow2_unmap(s, o, ROUND_UP(run.bytes, s->cluster_bytes));
        } else if (run.type == QCOW2_ZERO_PLAIN || run.type == QCOW2_ZERO_ALLOC) {
            QEMUIOVector qiov;
            run.bytes = MIN(run.bytes, buf_bytes);
            qemu_iovec_init_buf(&qiov, buf, run.bytes);
            ret = qcow2_co_pwritev_part(s->bs, o, run.bytes, &qiov, 0, 0);
        }
        o += run.bytes;
        qcow2_progress(progress, o, size);
    }
    qemu_vfree(buf);
    return ret;
}

/* ---- snapshots ------------------------------------------------------------------- */

/*
 * An L2 table that only snapshots have: the active disk has no zero clusters any more, so a
 * table with one is not its. USERS of them share it, and each has a reference to its clusters.
 */
typedef struct Table {
    Qcow2State *s;
    uint64_t offset, users;
    uint64_t *entries;          /* as in the file */
} Table;

/* A new cluster of zeroes for all users; its L2 entry. */
static int coroutine_fn make_zeroes(Table *t, uint64_t *entry)
{
    Qcow2State *s = t->s;
    uint64_t n;
    bool fresh;

    int ret = qcow2_alloc_clusters(s, 1, 1, entry, &n, &fresh);
    if (ret < 0) {
        return ret;
    }
    qcow2_cache_drop(&s->l2_cache, *entry, s->cluster_bytes);
    qcow2_cache_drop(&s->refblock_cache, *entry, s->cluster_bytes);
    /* (written in any case, so that the file reaches into it) */
    ret = bdrv_co_pwrite_zeroes(s->bs->file, *entry, s->cluster_bytes, 0);
    return ret < 0 ? ret : qcow2_refcount_set(s, *entry >> s->cluster_bits, t->users);
}

/* Replace the zero clusters in T; those that they had go to FREED (offsets). */
static int coroutine_fn replace_entries(Table *t, GArray *freed)
{
    Qcow2State *s = t->s;
    int ret = 0;

    for (uint64_t i = 0; i < s->cluster_bytes / 8 && ret >= 0; i++) {
        uint64_t old = GUINT64_FROM_BE(t->entries[i]), new = 0;
        uint64_t host = old & QCOW2_OFFSET_MASK;
        if ((old & QCOW2_COMPRESSED) || !(old & QCOW2_ZERO)) {
            continue;
        }
        if (host & s->cluster_mask) {
            return qcow2_signal_corruption(s, true, "Preallocated zero cluster offset %#"
                                           PRIx64 " unaligned", host);
        }
        ret = s->bs->backing ? make_zeroes(t, &new) : 0;
        t->entries[i] = GUINT64_TO_BE(new);
        if (host) {
            g_array_append_val(freed, host);
        }
    }
    return ret;
}

static bool has_zeroes(const Table *t)
{
    for (uint64_t i = 0; i < t->s->cluster_bytes / 8; i++) {
        uint64_t e = GUINT64_FROM_BE(t->entries[i]);
        if (!(e & QCOW2_COMPRESSED) && (e & QCOW2_ZERO)) {
            return true;
        }
    }
    return false;
}

/* N of them at once: a table may have as many users as a refcount can count. */
static int coroutine_fn drop_references(Qcow2State *s, uint64_t cluster, uint64_t n)
{
    uint64_t refcount;
    int ret = qcow2_refcount_get(s, cluster, &refcount);

    if (ret >= 0 && refcount < n) {
        return -EINVAL;
    }
    return ret < 0 ? ret : qcow2_refcount_set(s, cluster, refcount - n);
}

/* What is pointed to is durable before the pointer, and freed when the old one is gone. */
static int coroutine_fn expand_table(Table *t)
{
    Qcow2State *s = t->s;
    g_autoptr(GArray) freed = g_array_new(false, false, sizeof(uint64_t));

    int ret = qcow2_file_read(s, t->offset, s->cluster_bytes, t->entries);
    if (ret < 0 || !has_zeroes(t)) {
        return ret;
    }
    ret = qcow2_refcount_get(s, t->offset >> s->cluster_bits, &t->users);
    if (ret >= 0 && !t->users) {
        ret = qcow2_signal_corruption(s, true, "L2 table at offset %#" PRIx64 " has no "
                                      "references", t->offset);
    }
    ret = ret < 0 ? ret : replace_entries(t, freed);
    ret = ret < 0 ? ret : qcow2_writeback_all(s);
    if (ret < 0) {
        return ret;
    }
    qcow2_cache_drop(&s->l2_cache, t->offset, s->cluster_bytes);
    ret = bdrv_co_pwrite(s->bs->file, t->offset, s->cluster_bytes, t->entries, 0);
    ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    for (guint i = 0; i < freed->len && ret >= 0; i++) {
        uint64_t cluster = g_array_index(freed, uint64_t, i) >> s->cluster_bits;
        ret = drop_references(s, cluster, t->users);
    }
    return ret;
}

int coroutine_fn qcow2_expand_snapshots(Qcow2State *s)
{
    Table t = { .s = s, .entries = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes) };
    Qcow2Set seen = { NULL };
    uint64_t total = 0;
    int ret = t.entries ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < s->header.nb_snapshots && ret >= 0; i++) {
        uint32_t size;
        total += (uint64_t)s->snapshots[i].l1_size * 8;
        if (total > QCOW2_SNAPSHOT_L1_BYTES_MAX) {
            ret = -EFBIG;
            break;
        }
        g_autofree uint64_t *l1 = qcow2_snapshot_read_l1(s, &s->snapshots[i], 0, &size, &ret);
        for (uint32_t k = 0; l1 && k < size && ret >= 0; k++) {
            t.offset = l1[k] & QCOW2_OFFSET_MASK;
            uint64_t cluster = t.offset >> s->cluster_bits;
            if (!t.offset || qcow2_set_has(&seen, cluster) ||
                qcow2_set_has(&s->l2_meta, cluster)) {
                continue;       /* none, done, or one of the active disk */
            }
            if ((t.offset & s->cluster_mask) || t.offset >= s->virgin_offset) {
                ret = qcow2_signal_corruption(s, true, "L2 table offset %#" PRIx64
                                              " unaligned or beyond the end of the file",
                                              t.offset);
                break;
            }
            qcow2_set_add(&seen, cluster);
            ret = qcow2_overlap_check_l2(s, t.offset);
            ret = ret < 0 ? ret : expand_table(&t);
        }
    }
    qcow2_set_clear(&seen);
    qemu_vfree(t.entries);
    return ret;
}
