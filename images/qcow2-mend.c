/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of L2 tables, after everything but refcounts was counted. A table that lies in a
 * cluster which serves something else, too, must not be written to; it is copied behind the
 * end of the file, and the L1 table will be pointed there when the refcounts are in order. So
 * is an active L1 table, and at last the header.
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"
#include "images/qcow2-check.h"
#include "images/qcow2-entry.h"

bool qcow2_check_owns_table(Qcow2Check *c, const Qcow2TableRef *t)
{
    return !(t->offset & c->s->cluster_mask) &&
           qcow2_counts_get(&c->counts, t->offset >> c->s->cluster_bits) == t->count;
}

/* ---- places that cannot be used ------------------------------------------------------ */

static int coroutine_fn drop_place(Qcow2Check *c, const Qcow2BadPlace *p)
{
    Qcow2State *s = c->s;
    Qcow2TableRef *t = g_hash_table_lookup(c->tables, &p->table);
    uint64_t last = (p->host + s->cluster_mask) >> s->cluster_bits;

    if (!qcow2_check_owns_table(c, t)) {
        qcow2_check_error(c, QCOW2_BAD_PLACE, "ERROR", p->host);
        return 0;
    }
    fprintf(stderr, QCOW2_BAD_PLACE, "Repairing", p->host);
    /* (of an extended entry the other half says what is zero) */
    uint64_t entry = GUINT64_TO_BE(qcow2_l2_words(s) == 1 ? QCOW2_ZERO : 0);
    uint64_t place = t->offset + (uint64_t)p->index * qcow2_l2_words(s) * 8;
    qcow2_cache_drop(&s->l2_cache, t->offset, s->cluster_bytes);
    int ret = bdrv_co_pwrite(s->bs->file, place, sizeof(entry), &entry, 0);
    if (ret < 0) {
        return ret;
    }
    c->res->corruptions_fixed++;
    for (uint64_t i = p->host >> s->cluster_bits; i <= last && !s->data_file; i++) {
        qcow2_counts_sub(i < c->file_clusters ? &c->counts : &c->beyond, i, t->count);
    }
    return 0;
}

int coroutine_fn qcow2_check_drop_places(Qcow2Check *c)
{
    int ret = 0;

    for (guint i = 0; i < c->bad_places->len && ret >= 0; i++) {
        ret = drop_place(c, &g_array_index(c->bad_places, Qcow2BadPlace, i));
    }
    return ret;
}

/* ---- tables that are something else, too ---------------------------------------------- */

bool qcow2_check_owns_l1(Qcow2Check *c)
{
    const Qcow2State *s = c->s;
    uint64_t first = s->l1.offset >> s->cluster_bits;
    uint64_t n = qcow2_clusters(s, (uint64_t)s->l1.size * 8);

    for (uint64_t i = 0; i < n; i++) {
        if (qcow2_counts_get(&c->counts, first + i) != 1) {
            return false;
        }
    }
    return true;
}

/* N clusters behind the end of the file that nothing refers to get COUNT references each. */
static int take_behind_end(Qcow2Check *c, uint64_t n, uint64_t count, uint64_t *start)
{
    uint64_t run = 0, next = c->file_clusters;
    bool done = true;

    for (; run < n; next++) {
        run = qcow2_counts_get(&c->beyond, next) ? 0 : run + 1;
    }
    *start = next - n;
    /* What was referred to behind the end of the file, and reads as zeroes, is inside now. */
    for (uint64_t k = c->file_clusters; k < next && done; k++) {
        done = qcow2_counts_add(&c->counts, k,
                                k < *start ? qcow2_counts_get(&c->beyond, k) : count);
    }
    c->file_clusters = next;
    c->s->virgin_offset = MAX(c->s->virgin_offset, next << c->s->cluster_bits);
    qcow2_cache_drop(&c->s->l2_cache, *start << c->s->cluster_bits, n << c->s->cluster_bits);
    return done ? 0 : -ENOMEM;
}

/* Write a copy of T to OFFSET. */
static int coroutine_fn copy_table(Qcow2State *s, const Qcow2TableRef *t, uint64_t offset)
{
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);

    int ret = buf ? qcow2_file_read(s, t->offset, s->cluster_bytes, buf) : -ENOMEM;
    ret = ret < 0 ? ret : bdrv_co_pwrite(s->bs->file, offset, s->cluster_bytes, buf, 0);
    qemu_vfree(buf);
    return ret;
}

/* The L1 table does not know yet; see point_to_moved(). */
static int coroutine_fn move_table(Qcow2Check *c, Qcow2TableRef *t)
{
    Qcow2State *s = c->s;
    uint64_t to;

    int ret = take_behind_end(c, 1, t->count, &to);
    ret = ret < 0 ? ret : copy_table(s, t, to << s->cluster_bits);
    if (ret < 0) {
        return ret;
    }
    fprintf(stderr, "Repairing L2 table at offset %#" PRIx64 ": something else is there, too; "
            "it moves to %#" PRIx64 "\n", t->offset, to << s->cluster_bits);
    c->res->corruptions_fixed++;
    c->moved = true;
    Qcow2TableRef *moved = g_memdup2(t, sizeof(*t));
    moved->offset = t->moved_to = to << s->cluster_bits;
    qcow2_counts_sub(&c->counts, t->offset >> s->cluster_bits, t->count);
    g_hash_table_insert(c->tables, &moved->offset, moved);
    return 0;
}

/* All entries at once, since each table may have any number of them. */
static void point_to_moved(Qcow2Check *c)
{
    Qcow2Root *l1 = &c->s->l1;

    for (uint32_t i = 0; i < l1->size; i++) {
        uint64_t entry = l1->entries[i], offset = entry & QCOW2_OFFSET_MASK;
        const Qcow2TableRef *t = g_hash_table_lookup(c->tables, &offset);
        if (t && t->moved_to) {
            qcow2_root_set(l1, i, (entry & ~QCOW2_OFFSET_MASK) | t->moved_to);
        }
    }
}

/* The active L1 table; in memory, until qcow2_check_switch_l1(). */
static int move_l1(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    uint64_t n = qcow2_clusters(s, (uint64_t)s->l1.size * 8), to;

    for (uint64_t i = 0; i < n; i++) {
        if (!qcow2_counts_get(&c->counts, (s->l1.offset >> s->cluster_bits) + i)) {
            return 0;           /* it is not in the file */
        }
    }
    int ret = take_behind_end(c, n, 1, &to);
    if (ret < 0) {
        return ret;
    }
    fprintf(stderr, "Repairing L1 table at offset %#" PRIx64 ": something else is there, too; "
            "it moves to %#" PRIx64 "\n", s->l1.offset, to << s->cluster_bits);
    c->res->corruptions_fixed++;
    for (uint64_t i = 0; i < n; i++) {
        qcow2_counts_sub(&c->counts, (s->l1.offset >> s->cluster_bits) + i, 1);
    }
    c->moved = true;
    s->l1.offset = to << s->cluster_bits;
    for (uint32_t i = 0; i < s->l1.size; i++) {
        qcow2_root_set(&s->l1, i, s->l1.entries[i]);
    }
    return 0;
}

int coroutine_fn qcow2_check_move_tables(Qcow2Check *c)
{
    int ret = 0;

    if (!(c->fix & BDRV_FIX_ERRORS)) {
        return 0;
    }
    if (!qcow2_check_owns_l1(c)) {
        ret = move_l1(c);
    }
    bool owns_l1 = qcow2_check_owns_l1(c), any = false;
    for (guint i = 0; i < c->table_order->len && owns_l1 && ret >= 0; i++) {
        uint64_t offset = g_array_index(c->table_order, uint64_t, i);
        Qcow2TableRef *t = g_hash_table_lookup(c->tables, &offset);
        /* (snapshots' L1 tables are not written to) */
        if (t->active && t->active == t->count && !(offset & c->s->cluster_mask) &&
            !qcow2_check_owns_table(c, t)) {
            ret = move_table(c, t);
            any = true;
        }
    }
    if (any && ret >= 0) {
        point_to_moved(c);
    }
    return ret;
}

int coroutine_fn qcow2_check_switch_l1(Qcow2State *s)
{
    uint64_t field = GUINT64_TO_BE(s->l1.offset);

    if (s->l1.offset == s->header.l1_offset) {
        return 0;
    }
    int ret = qcow2_header_switch(s, 40, &field, sizeof(field));
    if (ret >= 0) {
        s->header.l1_offset = s->l1.offset;
    }
    return ret;
}
