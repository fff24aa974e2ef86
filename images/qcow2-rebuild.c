/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair of refcounts that cannot be mended where they are: their table or a block is missing,
 * lies outside of the file, or in clusters that something else uses. All of them are made anew
 * from what the check has counted, in clusters that nothing refers to; one write of the header
 * puts them in force. Until then nothing changes that anybody reads.
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"
#include "images/qcow2-check.h"
#include "images/qcow2-reftable.h"

/* What a table of the largest size has room for. */
#define BLOCKS_MAX (QCOW2_REFTABLE_BYTES_MAX / 8)
/* A block that has no place yet. No offset has the lowest bits. */
#define NEEDED UINT64_MAX

typedef struct Rebuild {
    Qcow2Check *c;
    uint64_t floor;             /* clusters before are not taken */
    uint64_t next;              /* nor those before, any more */
    uint64_t table, table_clusters;
    uint64_t *entries;          /* of the new table, host order; BLOCKS_MAX of them */
    uint64_t nb_blocks;         /* the last one that is needed, plus 1 */
    uint64_t unplaced;          /* so many are NEEDED */
} Rebuild;

/* ---- the plan ------------------------------------------------------------------------ */

static bool is_free(Rebuild *r, uint64_t cluster)
{
    Qcow2Check *c = r->c;

    /* The old refcounts stay as they are until the new ones are in force. */
    return !qcow2_counts_get(&c->counts, cluster) && !qcow2_counts_get(&c->beyond, cluster) &&
           !qcow2_set_has(&c->s->fixed_meta, cluster);
}

static int find_free(Rebuild *r, uint64_t n, uint64_t *start)
{
    uint64_t run = 0;

    for (; run < n; r->next++) {
        if (r->next >> r->c->s->refblock_bits >= BLOCKS_MAX) {
            return -EFBIG;
        }
        run = is_free(r, r->next) ? run + 1 : 0;
    }
    *start = r->next - n;
    return 0;
}

static int need_block_of(Rebuild *r, uint64_t cluster)
{
    uint64_t block = cluster >> r->c->s->refblock_bits;

    if (block >= BLOCKS_MAX) {
        return -EFBIG;
    }
    if (!r->entries[block]) {
        r->entries[block] = NEEDED;
        r->nb_blocks = MAX(r->nb_blocks, block + 1);
        r->unplaced++;
    }
    return 0;
}

/* Blocks for all that is referred to. */
static int need_counted(Rebuild *r)
{
    g_autoptr(GArray) groups = qcow2_counts_groups(&r->c->counts);
    int ret = 0;

    memset(r->entries, 0, QCOW2_REFTABLE_BYTES_MAX);
    r->nb_blocks = r->unplaced = 0;
    for (guint i = 0; i < groups->len && ret >= 0; i++) {
        uint64_t first = g_array_index(groups, uint64_t, i) * QCOW2_COUNT_GROUP;
        for (uint64_t k = first; k < first + QCOW2_COUNT_GROUP && ret >= 0; k++) {
            ret = qcow2_counts_get(&r->c->counts, k) ? need_block_of(r, k) : 0;
        }
    }
    return ret;
}

/* Find places for all blocks that are needed, and for those that these need. */
static int place_blocks(Rebuild *r)
{
    int ret = 0;

    while (r->unplaced && ret >= 0) {
        for (uint64_t i = 0; i < r->nb_blocks && ret >= 0; i++) {
            uint64_t cluster;
            if (r->entries[i] != NEEDED) {
                continue;
            }
            ret = find_free(r, 1, &cluster);
            if (ret >= 0) {
                r->entries[i] = cluster << r->c->s->cluster_bits;
                r->unplaced--;
                ret = need_block_of(r, cluster);
            }
        }
    }
    return ret;
}

static int plan(Rebuild *r)
{
    Qcow2State *s = r->c->s;
    uint64_t clusters = 1;

    do {
        r->table_clusters = clusters;
        r->next = r->floor;
        int ret = need_counted(r);
        ret = ret < 0 ? ret : find_free(r, r->table_clusters, &r->table);
        for (uint64_t i = 0; i < r->table_clusters && ret >= 0; i++) {
            ret = need_block_of(r, r->table + i);
        }
        ret = ret < 0 ? ret : place_blocks(r);
        if (ret < 0) {
            return ret;
        }
        clusters = qcow2_clusters(s, r->nb_blocks * 8);
    } while (clusters > r->table_clusters);
    return clusters << s->cluster_bits > QCOW2_REFTABLE_BYTES_MAX ? -EFBIG : 0;
}

/* ---- counting what is new ------------------------------------------------------------ */

static bool count_beyond(Rebuild *r)
{
    Qcow2Check *c = r->c;
    g_autoptr(GArray) groups = qcow2_counts_groups(&c->beyond);
    bool done = true;

    /* The file grows: what was referred to behind its end, and read as zeroes, is inside. */
    for (guint i = 0; i < groups->len && done; i++) {
        uint64_t first = g_array_index(groups, uint64_t, i) * QCOW2_COUNT_GROUP;
        for (uint64_t k = first; k < MIN(first + QCOW2_COUNT_GROUP, r->next) && done; k++) {
            uint32_t n = qcow2_counts_get(&c->beyond, k);
            done = !n || qcow2_counts_add(&c->counts, k, n);
        }
    }
    return done;
}

static int count_new(Rebuild *r)
{
    Qcow2Check *c = r->c;
    bool done = true;

    for (uint64_t i = 0; i < r->table_clusters && done; i++) {
        done = qcow2_counts_add(&c->counts, r->table + i, 1);
    }
    for (uint64_t i = 0; i < r->nb_blocks && done; i++) {
        done = !r->entries[i] ||
               qcow2_counts_add(&c->counts, r->entries[i] >> c->s->cluster_bits, 1);
    }
    return done && count_beyond(r) ? 0 : -ENOMEM;
}

/* Undo count_new(), but for what is behind the end of the file. */
static void uncount_new(Rebuild *r)
{
    for (uint64_t i = 0; i < r->table_clusters; i++) {
        qcow2_counts_sub(&r->c->counts, r->table + i, 1);
    }
    for (uint64_t i = 0; i < r->nb_blocks; i++) {
        if (r->entries[i]) {
            qcow2_counts_sub(&r->c->counts, r->entries[i] >> r->c->s->cluster_bits, 1);
        }
    }
}

/* ---- writing ------------------------------------------------------------------------- */

static void fill_block(Rebuild *r, uint64_t block, uint8_t *buf)
{
    Qcow2State *s = r->c->s;
    uint64_t first = block << s->refblock_bits, end = (block + 1) << s->refblock_bits;

    memset(buf, 0, s->cluster_bytes);
    for (uint64_t k = first; k < end; k += QCOW2_COUNT_GROUP) {
        if (qcow2_counts_none(&r->c->counts, k, QCOW2_COUNT_GROUP)) {
            continue;
        }
        for (uint64_t i = k; i < k + QCOW2_COUNT_GROUP; i++) {
            uint64_t n = qcow2_counts_get(&r->c->counts, i);
            qcow2_refcount_store(buf, s->refcount_order, i - first, MIN(n, s->refcount_max));
        }
    }
}

static int coroutine_fn write_blocks(Rebuild *r)
{
    Qcow2State *s = r->c->s;
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < r->nb_blocks && ret >= 0; i++) {
        if (r->entries[i]) {
            fill_block(r, i, buf);
            qcow2_cache_drop(&s->l2_cache, r->entries[i], s->cluster_bytes);
            BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_UPDATE);
            ret = bdrv_co_pwrite(s->bs->file, r->entries[i], s->cluster_bytes, buf, 0);
        }
    }
    qemu_vfree(buf);
    return ret;
}

/* Make them, in clusters from FLOOR on, and put them in force. */
static int coroutine_fn rebuild_from(Rebuild *r, uint64_t floor)
{
    Qcow2State *s = r->c->s;

    r->floor = floor;
    int ret = plan(r);
    if (ret < 0) {
        return ret;
    }
    uint64_t offset = r->table << s->cluster_bits;
    uint64_t bytes = r->table_clusters << s->cluster_bits;
    ret = count_new(r);
    /* After a failure, too, what was written there is no zeroes. */
    s->virgin_offset = MAX(s->virgin_offset, r->next << s->cluster_bits);
    ret = ret < 0 ? ret : write_blocks(r);
    qcow2_cache_drop(&s->l2_cache, offset, bytes);
    ret = ret < 0 ? ret : qcow2_reftable_replace(s, r->table, r->table_clusters, r->entries,
                                                 r->nb_blocks);
    if (ret < 0) {
        uncount_new(r);
        return ret;
    }
    qcow2_root_free(&s->reftable);
    qcow2_root_init(&s->reftable, g_realloc(g_steal_pointer(&r->entries), bytes), bytes / 8,
                    offset);
    qcow2_cache_reset(&s->refblock_cache);
    r->c->file_clusters = MAX(r->c->file_clusters, r->next);
    s->free_hint = 0;
    qcow2_overlap_collect(s);
    return 0;
}

/* What made up the old refcounts is of no use any more. */
static void forget_old(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    uint64_t first = s->reftable.offset >> s->cluster_bits;

    for (uint64_t i = 0; c->table_counted && i < s->header.reftable_clusters; i++) {
        qcow2_counts_sub(&c->counts, first + i, 1);
    }
    for (guint i = 0; i < c->blocks->len; i++) {
        qcow2_counts_sub(&c->counts, g_array_index(c->blocks, uint64_t, i), 1);
    }
}

int coroutine_fn qcow2_check_rebuild(Qcow2Check *c)
{
    Rebuild r = { .c = c, .entries = g_try_malloc0(QCOW2_REFTABLE_BYTES_MAX) };

    if (!r.entries) {
        return -ENOMEM;
    }
    fprintf(stderr, "Rebuilding refcount structure\n");
    forget_old(c);
    /* Behind the end of the file nobody can have an interest, unless it cannot grow. */
    int ret = rebuild_from(&r, c->file_clusters);
    if (ret < 0 && !c->s->corrupt) {
        ret = rebuild_from(&r, 1);
    }
    g_free(r.entries);
    return ret;
}
