/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Putting another L1 table in the place of the active one. */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

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
            qcow2_l1_forget(s, *offset, size);
        }
    }
    qemu_vfree(buf);
    return ret;
}

int coroutine_fn qcow2_l1_forget(Qcow2State *s, uint64_t offset, uint32_t size)
{
    uint64_t clusters = qcow2_clusters(s, (uint64_t)size * 8);

    return clusters ? qcow2_refcount_change(s, offset >> s->cluster_bits, clusters, -1) : 0;
}

/* The disk's size, the L1 table's size and its offset lie in one sector. */
static int coroutine_fn switch_header(Qcow2State *s, uint64_t offset, uint32_t size,
                                      uint64_t guest_bytes)
{
    struct QEMU_PACKED {
        uint64_t guest_bytes;
        uint32_t crypt_method, size;
        uint64_t offset;
    } field = {
        GUINT64_TO_BE(guest_bytes), GUINT32_TO_BE(s->header.crypt_method),
        GUINT32_TO_BE(size), GUINT64_TO_BE(offset),
    };
    G_STATIC_ASSERT(sizeof(field) == 24);

    int ret = bdrv_co_flush(s->bs->file->bs);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_L1_GROW_ACTIVATE_TABLE);
    ret = qcow2_header_patch(s, 24, &field, sizeof(field));
    ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    if (ret < 0) {
        s->corrupt = true;      /* nobody knows which of the tables the file has */
        return ret;
    }
    s->header.size = guest_bytes;
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

int coroutine_fn qcow2_l1_replace(Qcow2State *s, uint64_t *entries, uint32_t size,
                                  uint64_t guest_bytes)
{
    uint64_t offset;

    int ret = qcow2_l1_store(s, entries, size, &offset);
    if (ret < 0) {
        g_free(entries);
        return ret;
    }
    /* What the entries point to, and the new table's refcounts, must be there first. */
    ret = qcow2_writeback(s);
    ret = ret < 0 ? ret : switch_header(s, offset, size, guest_bytes);
    if (ret < 0) {
        g_free(entries);        /* its clusters leak: the header may point to them */
        return ret;
    }
    Qcow2Root old = s->l1;
    qcow2_root_init(&s->l1, entries, size, offset);
    protect(s, offset, size, true);
    protect(s, old.offset, old.size, false);
    /* The header's new pointer is durable, so the old table may go at once, or is leaked. */
    qcow2_l1_forget(s, old.offset, old.size);
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
    return qcow2_l1_replace(s, entries, size, s->header.size);
}
