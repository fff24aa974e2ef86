/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changing the width of refcounts: all refcount blocks and the table are written anew behind
 * everything else, then the header changes table and width in one sector.
 *
 *   0                        start        start + table      start + table + blocks
 *   | the image as it is     | new table  | new blocks       |
 *
 * The new refcounts count the old blocks and the old table, too, which are given up at last.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"
#include "images/qcow2-reftable.h"

/* What a table of the largest size has room for. */
#define BLOCKS_MAX (QCOW2_REFTABLE_BYTES_MAX / 8)

typedef struct Rebuild {
    Qcow2State *s;
    uint32_t order, block_bits; /* new ones; clusters per block: 2^this */
    uint64_t start, table, blocks;      /* in clusters, see above */
    uint8_t *used;              /* by number of new block: it is not all zeroes */
    uint64_t nb_used;           /* so many there may be */
    uint64_t *entries;          /* of the new table, host order */
    Qcow2Progress *progress;
    Error **errp;
} Rebuild;

/* ---- which blocks there will be -------------------------------------------------- */

static int coroutine_fn find_used_in(Rebuild *r, uint64_t old_block)
{
    Qcow2State *s = r->s;
    uint64_t c = old_block << s->refblock_bits, end = c + (1ULL << s->refblock_bits);
    int ret;

    for (; (ret = qcow2_refcount_next_used(s, &c, end)) > 0; c++) {
        r->used[c >> r->block_bits] = true;
        r->start = MAX(r->start, c + 1);
    }
    return ret;
}

/* Everything that counts lies before R->start. */
static int coroutine_fn find_used(Rebuild *r)
{
    int ret = 0;

    for (uint32_t i = 0; i < r->s->reftable.size && ret >= 0; i++) {
        if (r->s->reftable.entries[i]) {
            ret = find_used_in(r, i);
        }
    }
    return ret;
}

/* Find sizes of table and blocks that cover themselves. */
static int plan(Rebuild *r)
{
    Qcow2State *s = r->s;

    r->table = r->blocks = 1;
    for (;;) {
        uint64_t last = (r->start + r->table + r->blocks - 1) >> r->block_bits;
        uint64_t blocks = 0, table = qcow2_clusters(s, (last + 1) * 8);
        if (last >= r->nb_used || table << s->cluster_bits > QCOW2_REFTABLE_BYTES_MAX) {
            return -EFBIG;
        }
        for (uint64_t i = 0; i <= last; i++) {
            blocks += r->used[i] || i >= r->start >> r->block_bits;
        }
        if (blocks <= r->blocks && table <= r->table) {
            return 0;
        }
        r->blocks = MAX(blocks, r->blocks);
        r->table = MAX(table, r->table);
    }
}

/* ---- writing them ---------------------------------------------------------------- */

static int coroutine_fn fill_block(Rebuild *r, uint64_t block, uint8_t *buf)
{
    Qcow2State *s = r->s;
    uint64_t max = r->order == 6 ? INT64_MAX : (1ULL << (1u << r->order)) - 1;
    uint64_t first = block << r->block_bits, end = r->start + r->table + r->blocks;

    memset(buf, 0, s->cluster_bytes);
    for (uint64_t c = first; c < MIN(first + (1ULL << r->block_bits), end); c++) {
        uint64_t refcount = 1;
        int ret = c < r->start ? qcow2_refcount_get(s, c, &refcount) : 0;
        if (ret < 0) {
            return ret;
        }
        if (refcount > max) {
            error_setg(r->errp, "Cannot decrease refcount entry width to %u bits: Cluster at "
                       "offset %#" PRIx64 " has a refcount of %" PRIu64, 1u << r->order,
                       c << s->cluster_bits, refcount);
            return -EINVAL;
        }
        qcow2_refcount_store(buf, r->order, c - first, refcount);
    }
    return 0;
}

static int coroutine_fn write_blocks(Rebuild *r)
{
    Qcow2State *s = r->s;
    uint64_t next = r->start + r->table;
    uint64_t last = (r->start + r->table + r->blocks - 1) >> r->block_bits;
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint64_t i = 0; i <= last && ret >= 0; i++) {
        if (!r->used[i] && i < r->start >> r->block_bits) {
            continue;
        }
        ret = fill_block(r, i, buf);
        if (ret >= 0) {
            r->entries[i] = next << s->cluster_bits;
            BLKDBG_EVENT(s->bs->file, BLKDBG_REFBLOCK_UPDATE);
            ret = bdrv_co_pwrite(s->bs->file, next << s->cluster_bits, s->cluster_bytes, buf,
                                 0);
            next++;
        }
        qcow2_progress(r->progress, i + 1, last + 1);
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn write_table(Rebuild *r)
{
    Qcow2State *s = r->s;
    size_t bytes = r->table << s->cluster_bits;
    uint64_t *buf = qemu_try_blockalign(s->bs->file->bs, bytes);

    if (!buf) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < bytes / 8; i++) {
        buf[i] = GUINT64_TO_BE(r->entries[i]);
    }
    int ret = bdrv_co_pwrite(s->bs->file, r->start << s->cluster_bits, bytes, buf, 0);
    qemu_vfree(buf);
    return ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
}

/* ---- changing over --------------------------------------------------------------- */

/* Give up what made up the old refcounts: OLD and the blocks it points to. */
static int coroutine_fn drop_old(Qcow2State *s, const Qcow2Root *old)
{
    int ret = qcow2_refcount_change(s, old->offset >> s->cluster_bits,
                                    qcow2_clusters(s, (uint64_t)old->size * 8), -1);

    for (uint32_t i = 0; i < old->size && ret >= 0; i++) {
        uint64_t offset = old->entries[i] & QCOW2_REFTABLE_MASK;
        if (offset) {
            ret = qcow2_refcount_change(s, offset >> s->cluster_bits, 1, -1);
        }
    }
    return ret;
}

static int coroutine_fn change_over(Rebuild *r)
{
    Qcow2State *s = r->s;
    Qcow2HeaderNames names = qcow2_header_names(s);
    Qcow2Header h = s->header;

    h.reftable_offset = r->start << s->cluster_bits;
    h.reftable_clusters = r->table;
    h.refcount_order = r->order;
    int ret = qcow2_header_update(s, &h, &names);
    if (ret < 0) {
        return ret;
    }
    Qcow2Root old = s->reftable;
    qcow2_root_init(&s->reftable, g_steal_pointer(&r->entries),
                    (r->table << s->cluster_bits) / 8, h.reftable_offset);
    /* all of it is clean, and of no meaning now */
    qcow2_cache_reset(&s->refblock_cache);
    qcow2_header_set_geometry(s);
    s->free_hint = 0;
    ret = drop_old(s, &old);
    qcow2_root_free(&old);
    qcow2_overlap_collect(s);
    return ret < 0 ? ret : qcow2_writeback_all(s);
}

int coroutine_fn qcow2_change_refcount_width(Qcow2State *s, uint32_t order,
                                             Qcow2Progress *progress, Error **errp)
{
    Rebuild r = { .s = s, .order = order, .block_bits = s->cluster_bits + 3 - order,
                  .progress = progress, .errp = errp };

    qemu_co_mutex_assert_locked(&s->lock);
    /* (blocks that overlap could make it last for ever) */
    int ret = s->meta_overlaps ? -EIO : qcow2_writeback_all(s);
    if (ret < 0) {
        return ret;
    }
    r.start = MAX(s->virgin_offset >> s->cluster_bits, qcow2_clusters(s, s->file_bytes));
    uint64_t covered = MAX(r.start, (uint64_t)s->reftable.size << s->refblock_bits);
    r.nb_used = (covered >> r.block_bits) + BLOCKS_MAX;
    if (r.nb_used > 64 * BLOCKS_MAX) {
        return -EFBIG;
    }
    r.used = g_try_malloc0(r.nb_used);
    ret = r.used ? find_used(&r) : -ENOMEM;
    ret = ret < 0 ? ret : plan(&r);
    if (ret >= 0) {
        /* After a failure, too, what was written there is no zeroes. */
        s->virgin_offset = MAX(s->virgin_offset,
                               (r.start + r.table + r.blocks) << s->cluster_bits);
        r.entries = g_try_malloc0((r.table << s->cluster_bits) + 8);
        ret = r.entries ? write_blocks(&r) : -ENOMEM;
    }
    ret = ret < 0 ? ret : write_table(&r);
    ret = ret < 0 ? ret : change_over(&r);
    g_free(r.entries);
    g_free(r.used);
    return ret;
}
