/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Shadow paging: many refcounts, flags and tables change at once. "Copied" flags lie in L2
 * tables, the refcounts that they must agree with in refcount blocks, and no order of writing
 * them in place is without a moment when they disagree. So whatever changes is copied, the
 * refcounts wholly, and the copies are changed:
 *
 *        header ---------------+----------------------+---------------+
 *          |                   |                      |               |
 *     refcount table       active L1 table      snapshot table    (in force until now)
 *        |     |             |        |
 *     blocks  blocks     L2 table  L2 table
 *                                      ^
 *     blocks' blocks'    L2 table'     |
 *        |     |             |         |
 *     refcount table'    active L1 table'      snapshot table'    (the copies)
 *
 * All pointers of the upper row lie in the first sector of the header, between bytes 24 and
 * 72, and a sector is written whole or not at all. Before it is, the image is the old one
 * (and the clusters of the copies leak, if power fails then), and afterwards the new one (and
 * those of the originals leak).
 *
 * What loses its last reference must not be allocated before the old image is gone. So in the
 * copy such clusters keep a refcount of 1 until then; nothing refers to them, so no flag
 * depends on it.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

struct Qcow2Shadow {
    Qcow2Root old;              /* the refcount table in force */
    uint64_t table;             /* first cluster of the copy */
    uint64_t table_clusters;
    GArray *blocks;             /* uint64_t: clusters of the copies of its blocks */
    Qcow2Set gone;              /* clusters that have lost their last reference */
};

/* ---- begin ------------------------------------------------------------------------ */

static uint64_t count_blocks(const Qcow2Root *reftable)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < reftable->size; i++) {
        n += (reftable->entries[i] & QCOW2_REFTABLE_MASK) != 0;
    }
    return n;
}

/* Clusters for a copy of the refcount table that are not those that SH has. */
static int coroutine_fn take_table(Qcow2State *s, struct Qcow2Shadow *sh, uint64_t clusters)
{
    uint64_t offset, n;
    bool fresh;
    int ret = sh->table_clusters
            ? qcow2_refcount_change(s, sh->table, sh->table_clusters, -1) : 0;

    sh->table_clusters = 0;
    ret = ret < 0 ? ret : qcow2_alloc_clusters(s, clusters, clusters, &offset, &n, &fresh);
    if (ret >= 0) {
        sh->table = offset >> s->cluster_bits;
        sh->table_clusters = clusters;
    }
    return ret;
}

static int coroutine_fn take_blocks(Qcow2State *s, struct Qcow2Shadow *sh, uint64_t max)
{
    uint64_t offset, n;
    bool fresh;

    int ret = qcow2_alloc_clusters(s, 1, max, &offset, &n, &fresh);
    for (uint64_t i = 0; ret >= 0 && i < n; i++) {
        uint64_t cluster = (offset >> s->cluster_bits) + i;
        g_array_append_val(sh->blocks, cluster);
    }
    return ret;
}

/*
 * Room for the copies. It is counted in the refcounts in force, so that it is in the copy of
 * them, too. Counting may take more blocks, or a larger table.
 */
static int coroutine_fn take_room(Qcow2State *s, struct Qcow2Shadow *sh)
{
    for (int ret = 0; ret >= 0; ) {
        uint64_t table = qcow2_clusters(s, (uint64_t)s->reftable.size * 8);
        uint64_t blocks = count_blocks(&s->reftable);
        if (sh->table_clusters != table) {
            ret = take_table(s, sh, table);
        } else if (sh->blocks->len < blocks) {
            ret = take_blocks(s, sh, blocks - sh->blocks->len);
        } else {
            return 0;
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int coroutine_fn copy_block(Qcow2State *s, uint32_t i, uint64_t to, uint8_t *buf)
{
    uint64_t from = s->reftable.entries[i] & QCOW2_REFTABLE_MASK;

    if ((from & s->cluster_mask) || from >= s->virgin_offset) {
        return qcow2_signal_corruption(s, true, "Refblock offset %#" PRIx64 " unaligned or "
                                       "beyond the end of the file (reftable index: %#x)",
                                       from, i);
    }
    qcow2_cache_drop(&s->l2_cache, to, s->cluster_bytes);
    int ret = qcow2_file_read(s, from, s->cluster_bytes, buf);
    BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_UPDATE);
    return ret < 0 ? ret : bdrv_co_pwrite(s->bs->file, to, s->cluster_bytes, buf, 0);
}

/* Copy the blocks; ENTRIES is to be the table of the copies. */
static int coroutine_fn copy_blocks(Qcow2State *s, struct Qcow2Shadow *sh, uint64_t *entries)
{
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;
    guint next = 0;

    for (uint32_t i = 0; i < s->reftable.size && ret >= 0; i++) {
        if (s->reftable.entries[i] & QCOW2_REFTABLE_MASK) {
            entries[i] = g_array_index(sh->blocks, uint64_t, next++) << s->cluster_bits;
            ret = copy_block(s, i, entries[i], buf);
        }
    }
    qemu_vfree(buf);
    return ret;
}

/* Refcounts change in the copy from now on, whose table is ENTRIES (consumed). */
static void use_copy(Qcow2State *s, struct Qcow2Shadow *sh, uint64_t *entries)
{
    sh->old = s->reftable;
    qcow2_root_init(&s->reftable, entries, sh->old.size, sh->table << s->cluster_bits);
    for (uint32_t i = 0; i < s->reftable.size; i++) {
        qcow2_root_set(&s->reftable, i, entries[i]);    /* so that it will be written */
    }
    qcow2_cache_reset(&s->refblock_cache);
    s->shadow = sh;
}

/* What makes up the old refcounts is not needed when the new ones are in force. */
static int coroutine_fn drop_old(Qcow2State *s, const Qcow2Root *old)
{
    int ret = qcow2_shadow_drop(s, old->offset, (uint64_t)old->size * 8);

    for (uint32_t i = 0; i < old->size && ret >= 0; i++) {
        uint64_t block = old->entries[i] & QCOW2_REFTABLE_MASK;
        ret = block ? qcow2_shadow_drop(s, block, s->cluster_bytes) : 0;
    }
    return ret;
}

static void coroutine_fn give_up(Qcow2State *s, struct Qcow2Shadow *sh)
{
    /* (what fails is leaked) */
    if (sh->table_clusters) {
        qcow2_refcount_change(s, sh->table, sh->table_clusters, -1);
    }
    for (guint i = 0; i < sh->blocks->len; i++) {
        qcow2_refcount_change(s, g_array_index(sh->blocks, uint64_t, i), 1, -1);
    }
    g_array_free(sh->blocks, true);
    qcow2_set_clear(&sh->gone);
    g_free(sh);
}

int coroutine_fn qcow2_shadow_begin(Qcow2State *s)
{
    int ret = s->corrupt ? -EIO : qcow2_writeback_all(s);

    if (ret < 0) {
        return ret;
    }
    struct Qcow2Shadow *sh = g_new0(struct Qcow2Shadow, 1);
    sh->blocks = g_array_new(false, false, sizeof(uint64_t));
    ret = take_room(s, sh);
    ret = ret < 0 ? ret : qcow2_writeback_all(s);
    uint64_t *entries = g_try_malloc0(((size_t)s->reftable.size + 1) * 8);
    if (ret >= 0) {
        ret = entries ? copy_blocks(s, sh, entries) : -ENOMEM;
    }
    if (ret < 0) {
        g_free(entries);
        give_up(s, sh);
        return ret;
    }
    use_copy(s, sh, entries);
    ret = drop_old(s, &sh->old);
    if (ret < 0) {
        qcow2_shadow_abort(s);
    }
    return ret;
}

/* ---- change ----------------------------------------------------------------------- */

static int coroutine_fn drop_one(Qcow2State *s, uint64_t cluster)
{
    uint64_t refcount;

    int ret = qcow2_refcount_get(s, cluster, &refcount);
    if (ret < 0) {
        return ret;
    }
    if (refcount > 1) {
        return qcow2_refcount_change(s, cluster, 1, -1);
    }
    if (!refcount || qcow2_set_has(&s->shadow->gone, cluster)) {
        return qcow2_signal_corruption(s, true, "Freed cluster at offset %#" PRIx64 " has no "
                                       "references", cluster << s->cluster_bits);
    }
    qcow2_set_add(&s->shadow->gone, cluster);
    return 0;
}

int coroutine_fn qcow2_shadow_drop(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> s->cluster_bits, end = qcow2_clusters(s, offset + bytes);
    int ret = 0;

    for (uint64_t c = first; c < end && ret >= 0; c++) {
        ret = drop_one(s, c);
    }
    return ret;
}

/* ---- end -------------------------------------------------------------------------- */

void coroutine_fn qcow2_shadow_abort(Qcow2State *s)
{
    struct Qcow2Shadow *sh = s->shadow;

    s->shadow = NULL;
    qcow2_root_free(&s->reftable);
    s->reftable = sh->old;
    qcow2_cache_reset(&s->refblock_cache);
    s->free_hint = 0;
    give_up(s, sh);
}

/* Have the header point to what H says, in one step. */
static int coroutine_fn switch_header(Qcow2State *s, const Qcow2Header *h)
{
    struct QEMU_PACKED {
        uint64_t size;
        uint32_t crypt_method, l1_size;
        uint64_t l1_offset, reftable_offset;
        uint32_t reftable_clusters, nb_snapshots;
        uint64_t snapshots_offset;
    } fields = {
        GUINT64_TO_BE(h->size), GUINT32_TO_BE(h->crypt_method), GUINT32_TO_BE(h->l1_size),
        GUINT64_TO_BE(h->l1_offset), GUINT64_TO_BE(h->reftable_offset),
        GUINT32_TO_BE(h->reftable_clusters), GUINT32_TO_BE(h->nb_snapshots),
        GUINT64_TO_BE(h->snapshots_offset),
    };
    G_STATIC_ASSERT(sizeof(fields) == 72 - 24);

    return qcow2_header_switch(s, 24, &fields, sizeof(fields));
}

/* Nobody refers to what is in GONE, on disk neither. Failures leak clusters, no more. */
static void coroutine_fn free_gone(Qcow2State *s, Qcow2Set *gone)
{
    int ret = 0;

    qcow2_set_sort(gone);
    for (size_t i = 0; i < gone->used && ret >= 0; i++) {
        uint64_t first = (gone->slots[i].key - 1) * 64;
        for (uint64_t k = 0; k < 64; k++) {
            if (gone->slots[i].mask >> k & 1) {
                qcow2_free_later(s, (first + k) << s->cluster_bits, s->cluster_bytes,
                                 QCOW2_DISCARD_SNAPSHOT);
            }
        }
        ret = qcow2_limit_frees(s);
    }
    if (ret >= 0) {
        qcow2_writeback_all(s);
    }
}

int coroutine_fn qcow2_shadow_commit(Qcow2State *s, Qcow2Header *h, uint64_t *l1)
{
    struct Qcow2Shadow *sh = s->shadow;

    /* (nothing of it is in force, so the order does not matter; lazy refcounts do neither) */
    int ret = qcow2_cache_write(s, &s->refblock_cache, NULL);
    ret = ret < 0 ? ret : qcow2_root_write(s, &s->reftable);
    ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    h->reftable_offset = s->reftable.offset;
    h->reftable_clusters = qcow2_clusters(s, (uint64_t)s->reftable.size * 8);
    ret = ret < 0 ? ret : switch_header(s, h);
    if (ret < 0) {
        return ret;
    }
    /* (the bits of features may have been changed meanwhile) */
    h->incompat = s->header.incompat;
    s->header = *h;
    s->shadow = NULL;
    qcow2_root_free(&s->l1);
    qcow2_root_init(&s->l1, l1, h->l1_size, h->l1_offset);
    free_gone(s, &sh->gone);
    qcow2_root_free(&sh->old);
    g_array_free(sh->blocks, true);
    qcow2_set_clear(&sh->gone);
    g_free(sh);
    return 0;
}
