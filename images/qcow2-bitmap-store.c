/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing bitmaps into an image. Data, tables and a directory are written anew, then the
 * header is pointed to them in one step, and what was there before is given up. While the
 * image is written to, the flag "in use" says that what it holds is outdated.
 */
#include "miniblk/osdep.h"
#include "miniblk/dirty-bitmap.h"
#include "images/qcow2-manage.h"

/* Clusters, as (first, number) pairs, to be given up together. */
typedef struct ClusterRun { uint64_t cluster, n; } ClusterRun;

typedef struct Qcow2Store {
    Qcow2State *s;
    GPtrArray *list;            /* the directory to be */
    GHashTable *stored;         /* by name: what it was; NULL unless it is looked up */
    GArray *fresh;              /* ClusterRun: allocated for it */
    GArray *stale;              /* ClusterRun: of no use once it is in force */
} Qcow2Store;

static void note_run(GArray *runs, const Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    ClusterRun r = { offset >> s->cluster_bits, qcow2_clusters(s, bytes) };

    if (r.n) {
        g_array_append_val(runs, r);
    }
}

static int coroutine_fn give_up(Qcow2State *s, GArray *runs)
{
    int ret = 0;

    for (guint i = 0; i < runs->len; i++) {
        ClusterRun r = g_array_index(runs, ClusterRun, i);
        int one = qcow2_refcount_change(s, r.cluster, r.n, -1);
        ret = ret < 0 ? ret : one;      /* what fails is leaked */
    }
    return ret;
}

/* Write BYTES of BUF, which is padded to whole clusters, into new clusters. */
static int coroutine_fn write_new(Qcow2Store *w, const void *buf, uint64_t bytes,
                                  uint64_t *offset)
{
    Qcow2State *s = w->s;
    uint64_t n = qcow2_clusters(s, bytes), got, whole = n << s->cluster_bits;
    bool fresh;

    int ret = qcow2_alloc_clusters(s, n, n, offset, &got, &fresh);
    if (ret < 0) {
        return ret;
    }
    note_run(w->fresh, s, *offset, whole);
    qcow2_cache_drop(&s->l2_cache, *offset, whole);
    qcow2_cache_drop(&s->refblock_cache, *offset, whole);
    return bdrv_co_pwrite(s->bs->file, *offset, whole, buf, 0);
}

/* ---- one bitmap ------------------------------------------------------------------ */

/* Write the bits of BITMAP that are not all clean; TABLE gets their places. */
static int coroutine_fn write_bits(Qcow2Store *w, BdrvDirtyBitmap *bitmap, uint64_t *table)
{
    Qcow2State *s = w->s;
    uint64_t size = bdrv_dirty_bitmap_size(bitmap);
    uint64_t covered = bdrv_dirty_bitmap_granularity(bitmap) * (s->cluster_bytes * 8);
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);
    int64_t at = size ? bdrv_dirty_bitmap_next_dirty(bitmap, 0, size) : -1;
    int ret = buf ? 0 : -ENOMEM;

    while (at >= 0 && ret >= 0) {
        uint64_t i = at / covered, start = i * covered, n = MIN(covered, size - start);
        uint64_t bytes = bdrv_dirty_bitmap_serialization_size(bitmap, start, n), offset;
        g_assert(bytes <= s->cluster_bytes);
        memset(buf + bytes, 0, s->cluster_bytes - bytes);
        bdrv_dirty_bitmap_serialize_part(bitmap, buf, start, n);
        ret = write_new(w, buf, s->cluster_bytes, &offset);
        table[i] = offset;
        start += n;
        at = start < size ? bdrv_dirty_bitmap_next_dirty(bitmap, start, size - start) : -1;
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn write_table(Qcow2Store *w, Qcow2Bitmap *b, uint64_t *table)
{
    for (uint32_t i = 0; i < b->table_entries; i++) {
        table[i] = GUINT64_TO_BE(table[i]);
    }
    return write_new(w, table, (uint64_t)b->table_entries * 8, &b->table_offset);
}

/* The clusters that B had until now. */
static int coroutine_fn note_stale(Qcow2Store *w, const Qcow2Bitmap *b)
{
    Qcow2State *s = w->s;
    int ret;

    g_autofree uint64_t *table = qcow2_bitmap_read_table(s, b, &ret);
    if (!table) {
        return ret;
    }
    for (uint32_t i = 0; i < b->table_entries; i++) {
        if (table[i] & QCOW2_OFFSET_MASK) {
            note_run(w->stale, s, table[i] & QCOW2_OFFSET_MASK, s->cluster_bytes);
        }
    }
    note_run(w->stale, s, b->table_offset, (uint64_t)b->table_entries * 8);
    return 0;
}

static int coroutine_fn store_one(Qcow2Store *w, BdrvDirtyBitmap *bitmap)
{
    Qcow2State *s = w->s;
    const char *name = bdrv_dirty_bitmap_name(bitmap);
    Qcow2Bitmap *b = g_hash_table_lookup(w->stored, name);
    uint32_t granularity_bits = __builtin_ctz(bdrv_dirty_bitmap_granularity(bitmap));
    int ret = 0;

    if (b) {
        ret = note_stale(w, b);
    } else {
        b = g_new0(Qcow2Bitmap, 1);
        b->name = g_strdup(name);
        g_ptr_array_add(w->list, b);
    }
    b->granularity_bits = granularity_bits;
    b->flags = (b->flags & QCOW2_BITMAP_EXTRA_COMPAT) |
               (bdrv_dirty_bitmap_enabled(bitmap) ? QCOW2_BITMAP_AUTO : 0);
    uint64_t entries = qcow2_bitmap_table_entries(s, bdrv_dirty_bitmap_size(bitmap),
                                                  granularity_bits);
    if (entries > QCOW2_BITMAP_TABLE_ENTRIES_MAX ||
        entries << s->cluster_bits > QCOW2_BITMAP_BYTES_MAX + s->cluster_mask) {
        return -EFBIG;
    }
    b->table_entries = entries;
    /* whole clusters, as they are written */
    uint64_t bytes = qcow2_clusters(s, entries * 8) << s->cluster_bits;
    uint64_t *table = qemu_try_blockalign0(s->bs->file->bs, bytes);
    if (!table) {
        return -ENOMEM;
    }
    ret = ret < 0 ? ret : write_bits(w, bitmap, table);
    ret = ret < 0 ? ret : write_table(w, b, table);
    qemu_vfree(table);
    return ret;
}

/* ---- the directory --------------------------------------------------------------- */

/* The clusters that the directory in force lies in become metadata, or are that no more. */
static void protect_directory(Qcow2State *s, bool on)
{
    const Qcow2Header *h = &s->header;
    uint64_t n = h->has_bitmaps ? qcow2_clusters(s, h->bitmap_dir_bytes) : 0;

    for (uint64_t i = 0; i < n; i++) {
        (on ? qcow2_set_add : qcow2_set_remove)(&s->fixed_meta,
                                                (h->bitmap_dir_offset >> s->cluster_bits) + i);
    }
}

/* Put the list in force. */
static int coroutine_fn switch_directory(Qcow2Store *w)
{
    Qcow2State *s = w->s;
    g_autoptr(GByteArray) dir = qcow2_bitmaps_build(w->list);
    Qcow2HeaderNames names = qcow2_header_names(s);
    uint32_t bytes = dir->len;
    uint64_t offset = 0;
    int ret = 0;

    if (bytes > QCOW2_BITMAP_DIR_BYTES_MAX || w->list->len > QCOW2_BITMAPS_MAX) {
        return -EFBIG;
    }
    if (bytes) {
        g_byte_array_set_size(dir, qcow2_clusters(s, bytes) << s->cluster_bits);
        memset(dir->data + bytes, 0, dir->len - bytes);
        ret = write_new(w, dir->data, bytes, &offset);
    }
    ret = ret < 0 ? ret : qcow2_writeback(s);
    ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    if (ret < 0) {
        return ret;
    }
    if (s->header.has_bitmaps) {
        note_run(w->stale, s, s->header.bitmap_dir_offset, s->header.bitmap_dir_bytes);
    }
    /* (not before: allocating may have set the dirty bit) */
    Qcow2Header h = s->header;
    h.has_bitmaps = bytes;
    h.nb_bitmaps = w->list->len;
    h.bitmap_dir_bytes = bytes;
    h.bitmap_dir_offset = offset;
    h.autoclear = bytes ? h.autoclear | QCOW2_AUTOCLEAR_BITMAPS
                        : h.autoclear & ~QCOW2_AUTOCLEAR_BITMAPS;
    protect_directory(s, false);
    ret = qcow2_header_update(s, &h, &names);
    protect_directory(s, true);
    return ret;
}

static int coroutine_fn begin_store(Qcow2Store *w, Qcow2State *s, Error **errp)
{
    *w = (Qcow2Store){ .s = s, .list = qcow2_bitmaps_read(s, errp),
                       .fresh = g_array_new(false, false, sizeof(ClusterRun)),
                       .stale = g_array_new(false, false, sizeof(ClusterRun)) };
    return w->list ? 0 : -EINVAL;
}

static void free_store(Qcow2Store *w)
{
    g_clear_pointer(&w->stored, g_hash_table_unref);
    g_clear_pointer(&w->list, g_ptr_array_unref);
    g_array_unref(w->fresh);
    g_array_unref(w->stale);
}

/* RET: of all that was done so far. */
static int coroutine_fn end_store(Qcow2Store *w, int ret)
{
    if (ret >= 0) {
        ret = switch_directory(w);
        if (ret >= 0) {
            give_up(w->s, w->stale);
        }
    }
    if (ret < 0 && !w->s->corrupt) {
        give_up(w->s, w->fresh);
    }
    free_store(w);
    return ret;
}

int coroutine_fn qcow2_bitmaps_store(Qcow2State *s, GPtrArray *bitmaps, Error **errp)
{
    ERRP_GUARD();
    Qcow2Store w;

    if (!bitmaps->len) {
        return 0;
    }
    int ret = begin_store(&w, s, errp);
    w.stored = ret < 0 ? NULL : qcow2_bitmaps_by_name(w.list);
    for (guint i = 0; i < bitmaps->len && ret >= 0; i++) {
        BdrvDirtyBitmap *bitmap = g_ptr_array_index(bitmaps, i);
        ret = store_one(&w, bitmap);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to store bitmap '%s'",
                             bdrv_dirty_bitmap_name(bitmap));
        }
    }
    ret = end_store(&w, ret);
    if (ret < 0 && !*errp) {
        error_setg_errno(errp, -ret, "Failed to update the bitmap directory");
    }
    return ret;
}

int coroutine_fn qcow2_bitmaps_remove(Qcow2State *s, const char *name, Error **errp)
{
    ERRP_GUARD();
    Qcow2Store w;

    int ret = begin_store(&w, s, errp);
    Qcow2Bitmap *b = ret < 0 ? NULL : qcow2_bitmaps_find(w.list, name);
    if (b) {
        /* An inconsistent bitmap may have a table of no sense, which is leaked then. */
        ret = note_stale(&w, b);
        ret = ret == -EINVAL || ret == -EIO ? 0 : ret;
        g_ptr_array_remove(w.list, b);
        ret = end_store(&w, ret);
    } else {
        free_store(&w);
    }
    if (ret < 0 && !*errp) {
        error_setg_errno(errp, -ret, "Failed to update the bitmap directory");
    }
    return ret;
}

int coroutine_mixed_fn qcow2_bitmaps_mark_in_use(Qcow2State *s, Error **errp)
{
    g_autoptr(GPtrArray) list = qcow2_bitmaps_read(s, errp);

    if (!list) {
        return -EINVAL;
    }
    if (!list->len) {
        return 0;
    }
    for (guint i = 0; i < list->len; i++) {
        Qcow2Bitmap *b = g_ptr_array_index(list, i);
        b->flags |= QCOW2_BITMAP_IN_USE;
    }
    /* In place: nothing but the flags changes, each by itself. */
    g_autoptr(GByteArray) dir = qcow2_bitmaps_build(list);
    g_assert(dir->len == s->header.bitmap_dir_bytes);
    int ret = bdrv_pwrite_sync(s->bs->file, s->header.bitmap_dir_offset, dir->len, dir->data,
                               0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not mark bitmaps as in use");
    }
    return ret;
}
