/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Storing L1 tables; a longer active one; giving up parts of it. */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

/* Give up the clusters of an L1 table; a failure leaks them. */
static void coroutine_fn forget(Qcow2State *s, uint64_t offset, uint32_t size)
{
    uint64_t clusters = qcow2_clusters(s, (uint64_t)size * 8);

    if (clusters) {
        qcow2_refcount_change(s, offset >> s->cluster_bits, clusters, -1);
    }
}

int coroutine_fn qcow2_l1_store(Qcow2State *s, const uint64_t *entries, uint32_t size,
                                uint64_t *offset)
{
    uint64_t clusters = qcow2_clusters(s, (uint64_t)size * 8), got;
    size_t bytes = clusters << s->cluster_bits;
    bool fresh;

    *offset = 0;
    if (!size) {
        return 0;
    }
    uint64_t *buf = qemu_try_blockalign(s->bs->file->bs, bytes);
    if (!buf) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < bytes / 8; i++) {
        buf[i] = i < size ? GUINT64_TO_BE(entries[i]) : 0;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_L1_GROW_ALLOC_TABLE);
    int ret = qcow2_alloc_clusters(s, clusters, clusters, offset, &got, &fresh);
    if (ret >= 0) {
        qcow2_cache_drop(&s->l2_cache, *offset, bytes);
        qcow2_cache_drop(&s->refblock_cache, *offset, bytes);
        BLKDBG_EVENT(s->bs->file, BLKDBG_L1_GROW_WRITE_TABLE);
        ret = bdrv_co_pwrite(s->bs->file, *offset, bytes, buf, 0);
        if (ret < 0) {
            forget(s, *offset, size);
        }
    }
    qemu_vfree(buf);
    return ret;
}

/* The table's size and its offset lie in one sector. */
static int coroutine_fn switch_header(Qcow2State *s, uint64_t offset, uint32_t size)
{
    struct QEMU_PACKED { uint32_t size; uint64_t offset; } field = {
        GUINT32_TO_BE(size), GUINT64_TO_BE(offset),
    };

    int ret = bdrv_co_flush(s->bs->file->bs);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_L1_GROW_ACTIVATE_TABLE);
    ret = qcow2_header_switch(s, 36, &field, sizeof(field));
    if (ret < 0) {
        return ret;
    }
    s->header.l1_size = size;
    s->header.l1_offset = offset;
    return 0;
}

static void protect(Qcow2State *s, uint64_t offset, uint32_t size, bool on)
{
    uint64_t first = offset >> s->cluster_bits;
    uint64_t clusters = qcow2_clusters(s, (uint64_t)size * 8);

    for (uint64_t i = 0; i < clusters; i++) {
        (on ? qcow2_set_add : qcow2_set_remove)(&s->fixed_meta, first + i);
    }
}

/* Make ENTRIES (consumed) the active table, in one step on disk. */
static int coroutine_fn replace(Qcow2State *s, uint64_t *entries, uint32_t size)
{
    uint64_t offset;

    int ret = qcow2_l1_store(s, entries, size, &offset);
    if (ret < 0) {
        g_free(entries);
        return ret;
    }
    /* What the entries point to, and the new table's refcounts, must be there first. */
    ret = qcow2_writeback(s);
    ret = ret < 0 ? ret : switch_header(s, offset, size);
    if (ret < 0) {
        g_free(entries);
        if (!s->corrupt) {      /* else the header may point there */
            forget(s, offset, size);
        }
        return ret;
    }
    Qcow2Root old = s->l1;
    qcow2_root_init(&s->l1, entries, size, offset);
    protect(s, offset, size, true);
    protect(s, old.offset, old.size, false);
    /* The header's new pointer is durable, so the old table may go at once, or is leaked. */
    forget(s, old.offset, old.size);
    qcow2_root_free(&old);
    return 0;
}

int coroutine_fn qcow2_l1_grow(Qcow2State *s, uint64_t size)
{
    if (size <= s->l1.size) {
        return 0;
    }
    if (size > QCOW2_L1_BYTES_MAX / 8) {
        return -EFBIG;
    }
    uint64_t *entries = g_try_malloc0((size + 1) * 8);
    if (!entries) {
        return -ENOMEM;
    }
    memcpy(entries, s->l1.entries, (size_t)s->l1.size * 8);
    return replace(s, entries, size);
}

/* The entries from FIRST to END - 1 and what is known of their tables: those of OLD, or none. */
static void set_entries(Qcow2State *s, uint64_t first, uint64_t end, const uint64_t *old)
{
    for (uint64_t i = first; i < end; i++) {
        uint64_t now = s->l1.entries[i], entry = old ? old[i - first] : 0;
        if (entry != now) {
            (old ? qcow2_set_add : qcow2_set_remove)
                (&s->l2_meta, ((entry | now) & QCOW2_OFFSET_MASK) >> s->cluster_bits);
            qcow2_root_set(&s->l1, i, entry);
        }
    }
}

int coroutine_fn qcow2_l1_drop(Qcow2State *s, uint64_t first, uint64_t end)
{
    if (first >= end || buffer_is_zero(s->l1.entries + first, (end - first) * 8)) {
        return 0;
    }
    if (s->corrupt) {
        return -EIO;
    }
    g_autofree uint64_t *old = g_memdup2(s->l1.entries + first, (end - first) * 8);
    set_entries(s, first, end, NULL);
    int ret = qcow2_writeback(s);
    ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    if (ret < 0) {
        set_entries(s, first, end, old);
        return ret;
    }
    return qcow2_tree_drop(s, old, end - first);
}
