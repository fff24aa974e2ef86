/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Check, first half: walk everything and count what refers to each host cluster. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"
#include "images/qcow2-check.h"
#include "images/qcow2-entry.h"

/* L2 tables, twice as many as one L1 table can refer to. */
#define TABLES_MAX (2 * QCOW2_L1_BYTES_MAX / 8)
/* A gigabyte of counters, enough for 16 TiB of 64 KiB clusters. */
#define GROUPS_MAX (1u << 22)
/* Mended by one repair. */
#define BAD_PLACES_MAX (1u << 20)

/* ---- counters ---------------------------------------------------------------------- */

void qcow2_counts_init(Qcow2Counts *c)
{
    *c = (Qcow2Counts){
        .groups = g_hash_table_new_full(NULL, NULL, NULL, g_free),
    };
}

void qcow2_counts_free(Qcow2Counts *c)
{
    g_hash_table_destroy(c->groups);
}

static uint32_t *find_group(Qcow2Counts *c, uint64_t cluster, bool make)
{
    uint64_t key = cluster / QCOW2_COUNT_GROUP + 1;

    if (key != c->last_key) {
        uint32_t *group = g_hash_table_lookup(c->groups, (gpointer)(uintptr_t)key);
        if (!group) {
            if (!make || g_hash_table_size(c->groups) >= GROUPS_MAX) {
                return NULL;
            }
            group = g_new0(uint32_t, QCOW2_COUNT_GROUP);
            g_hash_table_insert(c->groups, (gpointer)(uintptr_t)key, group);
        }
        c->last_key = key;
        c->last = group;
    }
    return &c->last[cluster % QCOW2_COUNT_GROUP];
}

bool qcow2_counts_add(Qcow2Counts *c, uint64_t cluster, uint64_t n)
{
    uint32_t *count = find_group(c, cluster, true);

    if (count) {
        *count = n > UINT32_MAX - *count ? UINT32_MAX : *count + n;
    }
    return count;
}

void qcow2_counts_sub(Qcow2Counts *c, uint64_t cluster, uint64_t n)
{
    uint32_t *count = find_group(c, cluster, false);

    /* (one that has reached the end of the scale stays there) */
    if (count && *count != UINT32_MAX) {
        *count -= MIN(n, *count);
    }
}

uint32_t qcow2_counts_get(Qcow2Counts *c, uint64_t cluster)
{
    uint32_t *count = find_group(c, cluster, false);
    return count ? *count : 0;
}

bool qcow2_counts_none(Qcow2Counts *c, uint64_t cluster, uint64_t n)
{
    for (uint64_t i = cluster; i < cluster + n; i += QCOW2_COUNT_GROUP) {
        uint64_t key = i / QCOW2_COUNT_GROUP + 1;
        /* N is rounded up to whole groups, which errs on the safe side. */
        if (g_hash_table_contains(c->groups, (gpointer)(uintptr_t)key)) {
            return false;
        }
    }
    return true;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

GArray *qcow2_counts_groups(Qcow2Counts *c)
{
    GArray *keys = g_array_new(false, false, sizeof(uint64_t));
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, c->groups);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        uint64_t group = (uintptr_t)key - 1;
        g_array_append_val(keys, group);
    }
    g_array_sort(keys, compare_u64);
    return keys;
}

void qcow2_check_error(Qcow2Check *c, const char *fmt, ...)
{
    va_list ap;

    c->res->corruptions++;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
}

static int count_clusters(Qcow2Check *c, Qcow2Counts *counts, uint64_t offset, uint64_t bytes,
                          uint64_t count)
{
    uint64_t last = (offset + bytes - 1) >> c->s->cluster_bits;

    for (uint64_t i = offset >> c->s->cluster_bits; i <= last; i++) {
        if (!qcow2_counts_add(counts, i, count)) {
            return -ENOMEM;
        }
    }
    return 0;
}

bool qcow2_in_file(const Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    uint64_t end = c->file_clusters << c->s->cluster_bits;

    return !bytes || (offset < end && bytes <= end - offset);
}

int qcow2_count_range(Qcow2Check *c, uint64_t offset, uint64_t bytes, uint64_t count)
{
    uint64_t end = c->file_clusters << c->s->cluster_bits;
    uint64_t inside = offset < end ? MIN(bytes, end - offset) : 0;

    if (inside < bytes) {
        qcow2_check_error(c, "ERROR: counting reference for region exceeding the end of the "
                          "file by one cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64
                          "\n", offset, bytes);
    }
    int ret = inside ? count_clusters(c, &c->counts, offset, inside, count) : 0;
    if (ret >= 0 && inside < bytes) {
        ret = count_clusters(c, &c->beyond, offset + inside, bytes - inside, count);
    }
    return ret;
}

/* ---- L1 tables --------------------------------------------------------------------- */

static int note_l1_entry(Qcow2Check *c, uint64_t entry, bool active)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (entry & QCOW2_L1_RESERVED) {
        qcow2_check_error(c, "ERROR found L1 entry with reserved bits set: %" PRIx64 "\n",
                          entry);
    }
    if (!offset) {
        return 0;
    }
    if (offset & c->s->cluster_mask) {
        qcow2_check_error(c, "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 "
                          "entry corrupted\n", offset);
        /* What it seems to refer to is not to be taken for leaked. */
    }
    if (offset >= c->file_clusters << c->s->cluster_bits) {
        return qcow2_count_range(c, offset, c->s->cluster_bytes, 1);
    }
    Qcow2TableRef *t = g_hash_table_lookup(c->tables, &offset);
    if (!t && c->table_order->len == TABLES_MAX) {
        return -EFBIG;
    }
    if (!t) {
        t = g_new0(Qcow2TableRef, 1);
        t->offset = offset;
        g_hash_table_insert(c->tables, &t->offset, t);
        g_array_append_val(c->table_order, offset);
    }
    t->count++;
    t->active += active;
    return 0;
}

/* One that cannot be read: what it refers to is not to be taken for leaked. */
static int lose_snapshot_l1(Qcow2Check *c, const Qcow2Snapshot *sn)
{
    Qcow2State *s = c->s;

    c->lost = true;
    if (sn->l1_offset & s->cluster_mask) {
        qcow2_check_error(c, "ERROR snapshot %s (%s) l1_offset=%#" PRIx64 ": L1 table is not "
                          "cluster aligned; snapshot table entry corrupted\n", sn->id,
                          sn->name, sn->l1_offset);
        return 0;
    }
    if ((uint64_t)sn->l1_size * 8 > QCOW2_L1_BYTES_MAX) {
        qcow2_check_error(c, "ERROR snapshot %s (%s) l1_size=%#" PRIx32 ": L1 table is too "
                          "large; snapshot table entry corrupted\n", sn->id, sn->name,
                          sn->l1_size);
        return 0;
    }
    return qcow2_count_range(c, sn->l1_offset, (uint64_t)sn->l1_size * 8, 1);
}

static int coroutine_fn note_snapshot_l1(Qcow2Check *c, const Qcow2Snapshot *sn)
{
    Qcow2State *s = c->s;
    size_t bytes = (size_t)sn->l1_size * 8;

    if ((sn->l1_offset & s->cluster_mask) || bytes > QCOW2_L1_BYTES_MAX ||
        !qcow2_in_file(c, sn->l1_offset, bytes)) {
        return lose_snapshot_l1(c, sn);
    }
    int ret = qcow2_count_range(c, sn->l1_offset, bytes, 1);
    if (ret < 0) {
        return ret;
    }
    g_autofree uint64_t *l1 = g_try_malloc(bytes + 1);
    if (!l1) {
        return -ENOMEM;
    }
    ret = qcow2_file_read(s, sn->l1_offset, bytes, l1);
    for (uint32_t i = 0; i < sn->l1_size && ret >= 0; i++) {
        ret = note_l1_entry(c, GUINT64_FROM_BE(l1[i]), false);
    }
    return ret;
}

static int coroutine_fn note_l1_tables(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    uint64_t total = 0;
    int ret = 0;

    for (uint32_t i = 0; i < s->l1.size && ret >= 0; i++) {
        ret = note_l1_entry(c, s->l1.entries[i], true);
    }
    for (uint32_t i = 0; i < s->header.nb_snapshots && ret >= 0; i++) {
        uint64_t bytes = (uint64_t)s->snapshots[i].l1_size * 8;
        total += bytes > QCOW2_L1_BYTES_MAX ? 0 : bytes;
        ret = total > QCOW2_SNAPSHOT_L1_BYTES_MAX ? -EFBIG
                                            : note_snapshot_l1(c, &s->snapshots[i]);
    }
    return ret;
}

/* ---- L2 tables --------------------------------------------------------------------- */

static void note_fragments(Qcow2Check *c, const Qcow2TableRef *t, uint64_t entry)
{
    BlockFragInfo *bfi = &c->res->bfi;
    uint64_t host = entry & QCOW2_OFFSET_MASK;

    if (!t->active) {
        return;
    }
    bfi->allocated_clusters++;
    if (entry & QCOW2_COMPRESSED) {
        /* Compressed data is packed: neighbours of the guest are none in the file. */
        bfi->compressed_clusters++;
        bfi->fragmented_clusters++;
        return;
    }
    if (c->next_host && host != c->next_host) {
        bfi->fragmented_clusters++;
    }
    c->next_host = host + c->s->cluster_bytes;
}

static int count_compressed(Qcow2Check *c, const Qcow2TableRef *t, uint64_t entry)
{
    uint64_t offset, bytes;

    if (entry & QCOW2_COPIED) {
        qcow2_check_error(c, "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set for "
                          "compressed clusters\n", entry & QCOW2_OFFSET_MASK);
    }
    qcow2_compressed_range(c->s, entry, &offset, &bytes);
    note_fragments(c, t, entry);
    /* From the first byte's sector to the end of the last sector. */
    return qcow2_count_range(c, offset & ~511ULL, bytes + (offset & 511), t->count);
}

/*
 * Entry number I of table T has no data, but a place for it that cannot be used. It loses the
 * place when it is known that the table is nothing else as well.
 */
static void note_bad_place(Qcow2Check *c, const Qcow2TableRef *t, uint32_t i, uint64_t host)
{
    Qcow2BadPlace place = { t->offset, host, i };

    if (c->fix & BDRV_FIX_ERRORS && c->bad_places->len < BAD_PLACES_MAX) {
        g_array_append_val(c->bad_places, place);
    } else {
        qcow2_check_error(c, QCOW2_BAD_PLACE, "ERROR", host);
    }
}

/* Entry number I of table T, at PLACE. */
static int coroutine_fn count_l2_entry(Qcow2Check *c, const Qcow2TableRef *t, uint32_t i,
                          const uint64_t *place)
{
    Qcow2State *s = c->s;
    Qcow2Entry e = qcow2_entry_from(s, place);
    uint64_t entry = GUINT64_FROM_BE(place[0]), host = entry & QCOW2_OFFSET_MASK;

    if (entry & QCOW2_COMPRESSED) {
        if (s->data_file) {
            qcow2_check_error(c, "ERROR compressed cluster %" PRIu32 " with data file, "
                              "entry=0x%" PRIx64 "\n", i, entry);
            return 0;
        }
        return count_compressed(c, t, entry);
    }
    if (entry & QCOW2_L2_RESERVED) {
        qcow2_check_error(c, "ERROR found l2 entry with reserved bits set: %" PRIx64 "\n",
                          entry);
    }
    if (!qcow2_has_host(s, e.desc)) {
        if (e.alloc) {
            qcow2_check_error(c, "ERROR: Unallocated cluster has non-zero subcluster "
                              "allocation map\n");
        }
        return 0;
    }
    if (e.alloc & e.zero) {
        qcow2_check_error(c, "ERROR offset=%" PRIx64 ": Allocated cluster has corrupted "
                          "subcluster allocation bitmap\n", host);
    }
    if ((host & c->s->cluster_mask) && !e.alloc) {
        note_bad_place(c, t, i, host);
    } else if (host & c->s->cluster_mask) {
        qcow2_check_error(c, "ERROR offset=%" PRIx64 ": Data cluster is not properly aligned; "
                          "L2 entry corrupted.\n", host);
    }
    note_fragments(c, t, entry);
    /* The clusters of a data file are not counted. */
    return s->data_file ? 0 : qcow2_count_range(c, host, s->cluster_bytes, t->count);
}

static int coroutine_fn walk_table(Qcow2Check *c, Qcow2TableRef *t, uint64_t *buf)
{
    Qcow2State *s = c->s;

    int ret = qcow2_count_range(c, t->offset, s->cluster_bytes, t->count);
    if (ret >= 0) {
        ret = qcow2_file_read(s, t->offset, s->cluster_bytes, buf);
        if (ret < 0) {
            /* All that it refers to would be taken for leaked. */
            fprintf(stderr, "ERROR: I/O error in check_refcounts_l2\n");
            return ret;
        }
    }
    c->next_host = 0;           /* each table begins in a place of its own */
    for (uint32_t i = 0; i < 1u << s->l2_bits && ret >= 0; i++) {
        ret = count_l2_entry(c, t, i, buf + i * qcow2_l2_words(s));
    }
    return ret;
}

static int coroutine_fn count_l2_tables(Qcow2Check *c)
{
    uint64_t *buf = qemu_try_blockalign(c->s->bs->file->bs, c->s->cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (guint i = 0; i < c->table_order->len && ret >= 0; i++) {
        uint64_t offset = g_array_index(c->table_order, uint64_t, i);
        ret = walk_table(c, g_hash_table_lookup(c->tables, &offset), buf);
    }
    qemu_vfree(buf);
    return ret;
}

/* ---- all --------------------------------------------------------------------------- */

static int count_pending_frees(Qcow2Check *c, GArray *list)
{
    int ret = 0;

    for (guint i = 0; i < list->len && ret >= 0; i++) {
        Qcow2Free *f = &g_array_index(list, Qcow2Free, i);
        ret = qcow2_count_range(c, f->cluster << c->s->cluster_bits,
                                f->n << c->s->cluster_bits, 1);
    }
    return ret;
}

int coroutine_fn qcow2_check_count(Qcow2Check *c)
{
    Qcow2State *s = c->s;

    int ret = qcow2_count_range(c, 0, s->cluster_bytes, 1);
    ret = ret < 0 ? ret : qcow2_count_range(c, s->l1.offset, (uint64_t)s->l1.size * 8, 1);
    c->lost |= !qcow2_in_file(c, s->l1.offset, (uint64_t)s->l1.size * 8);
    ret = ret < 0 ? ret : qcow2_count_range(c, s->header.snapshots_offset,
                                            s->snapshots_bytes, 1);
    ret = ret < 0 ? ret : qcow2_count_range(c, s->header.crypto_offset,
                                            s->header.crypto_bytes, 1);
    ret = ret < 0 ? ret : note_l1_tables(c);
    ret = ret < 0 ? ret : count_l2_tables(c);
    ret = ret < 0 ? ret : qcow2_check_count_bitmaps(c);
    ret = ret < 0 ? ret : count_pending_frees(c, s->freed);
    return ret < 0 ? ret : count_pending_frees(c, s->resting);
}
