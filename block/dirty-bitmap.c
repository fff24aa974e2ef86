/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps of nodes: HBitmaps that the request path writes to. */
#include "block/block-internal.h"
#include "miniblk/dirty-bitmap.h"

struct BdrvDirtyBitmap {
    /* fixed */
    BlockDriverState *bs;
    char *name;                 /* NULL: anonymous; main thread */

    /* bs->dirty_bitmap_lock protects the rest */
    HBitmap *bits;
    int64_t size;               /* bytes */
    bool disabled;              /* writes are not recorded */
    bool busy;
    bool persistent;            /* this one and the next two: main thread */
    bool readonly;
    bool inconsistent;
    BdrvDirtyBitmap *successor; /* records writes instead of this one; not on the list's own */
    unsigned iterators;
    QLIST_ENTRY(BdrvDirtyBitmap) list;  /* newest first */
};

struct BdrvDirtyBitmapIter {
    HBitmapIter hbi;
    BdrvDirtyBitmap *bitmap;
};

void bdrv_dirty_bitmap_lock(BdrvDirtyBitmap *bitmap)
{
    qemu_mutex_lock(&bitmap->bs->dirty_bitmap_lock);
}

void bdrv_dirty_bitmap_unlock(BdrvDirtyBitmap *bitmap)
{
    qemu_mutex_unlock(&bitmap->bs->dirty_bitmap_lock);
}

#define LOCKED(bitmap) QEMU_MUTEX_GUARD(&(bitmap)->bs->dirty_bitmap_lock)

/* Of the bitmaps with a name: an image may have very many. Main thread. */
static GHashTable *names_of(BlockDriverState *bs)
{
    if (!bs->dirty_bitmap_names) {
        bs->dirty_bitmap_names = g_hash_table_new(g_str_hash, g_str_equal);
    }
    return bs->dirty_bitmap_names;
}

/* ---- life ------------------------------------------------------------------------------- */

BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs, uint32_t granularity,
                                          const char *name, Error **errp)
{
    GLOBAL_STATE_CODE();
    g_assert(granularity >= BDRV_SECTOR_SIZE && !(granularity & (granularity - 1)));
    if (name && bdrv_find_dirty_bitmap(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return NULL;
    }
    if (name && strlen(name) > BDRV_BITMAP_MAX_NAME_SIZE) {
        error_setg(errp, "Bitmap name too long");
        return NULL;
    }
    int64_t size = bdrv_getlength(bs);
    if (size < 0) {
        error_setg_errno(errp, -size, "could not get length of device");
        return NULL;
    }
    BdrvDirtyBitmap *bitmap = g_new0(BdrvDirtyBitmap, 1);
    bitmap->bs = bs;
    bitmap->name = g_strdup(name);
    bitmap->bits = hbitmap_alloc(size, __builtin_ctz(granularity));
    bitmap->size = size;
    if (name) {
        g_hash_table_insert(names_of(bs), bitmap->name, bitmap);
    }
    LOCKED(bitmap);
    QLIST_INSERT_HEAD(&bs->dirty_bitmaps, bitmap, list);
    qatomic_set(&bs->has_dirty_bitmaps, true);
    return bitmap;
}

void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    BlockDriverState *bs = bitmap->bs;

    GLOBAL_STATE_CODE();
    WITH_QEMU_LOCK_GUARD(&bs->dirty_bitmap_lock) {
        g_assert(!bitmap->iterators && !bitmap->successor && !bitmap->busy);
        QLIST_REMOVE(bitmap, list);
        qatomic_set(&bs->has_dirty_bitmaps, !QLIST_EMPTY(&bs->dirty_bitmaps));
    }
    if (bitmap->name) {
        g_hash_table_remove(names_of(bs), bitmap->name);
    }
    hbitmap_free(bitmap->bits);
    g_free(bitmap->name);
    g_free(bitmap);
}

void bdrv_release_named_dirty_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap, *next;

    GLOBAL_STATE_CODE();
    QLIST_FOREACH_SAFE(bitmap, &bs->dirty_bitmaps, list, next) {
        if (bitmap->name) {
            bdrv_release_dirty_bitmap(bitmap);
        }
    }
}

uint32_t bdrv_get_default_bitmap_granularity(BlockDriverState *bs)
{
    BlockDriverInfo bdi;

    if (bdrv_get_info(bs, &bdi) < 0 || bdi.cluster_size <= 0) {
        return 64 << 10;
    }
    return MAX(4 << 10, MIN(64 << 10, bdi.cluster_size));
}

void bdrv_dirty_bitmap_truncate(BlockDriverState *bs, int64_t bytes)
{
    BdrvDirtyBitmap *bitmap;

    QEMU_MUTEX_GUARD(&bs->dirty_bitmap_lock);
    QLIST_FOREACH(bitmap, &bs->dirty_bitmaps, list) {
        g_assert(!bitmap->iterators);
        hbitmap_truncate(bitmap->bits, bytes);
        bitmap->size = bytes;
    }
}

/* ---- looking ---------------------------------------------------------------------------- */

BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs, const char *name)
{
    GLOBAL_STATE_CODE();
    return bs->dirty_bitmap_names ? g_hash_table_lookup(bs->dirty_bitmap_names, name) : NULL;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_first(BlockDriverState *bs)
{
    return QLIST_FIRST(&bs->dirty_bitmaps);
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BdrvDirtyBitmap *bitmap)
{
    return QLIST_NEXT(bitmap, list);
}

const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->name;
}

int64_t bdrv_dirty_bitmap_size(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->size;
}

uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap)
{
    return 1u << hbitmap_granularity(bitmap->bits);
}

bool bdrv_dirty_bitmap_enabled(BdrvDirtyBitmap *bitmap)
{
    return !bitmap->disabled;
}

bool bdrv_dirty_bitmap_recording(BdrvDirtyBitmap *bitmap)
{
    LOCKED(bitmap);
    return !bitmap->disabled || (bitmap->successor && !bitmap->successor->disabled);
}

bool bdrv_dirty_bitmap_busy(BdrvDirtyBitmap *bitmap)
{
    return bitmap->busy;
}

bool bdrv_dirty_bitmap_has_successor(BdrvDirtyBitmap *bitmap)
{
    return bitmap->successor;
}

int bdrv_dirty_bitmap_check_busy(const BdrvDirtyBitmap *bitmap, Error **errp)
{
    if (bitmap->busy) {
        error_setg(errp, "Bitmap '%s' is currently in use by another operation and cannot "
                   "be used", bitmap->name ? bitmap->name : "");
        return -EBUSY;
    }
    return 0;
}

int bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, uint32_t flags, Error **errp)
{
    const char *name = bitmap->name ? bitmap->name : "";

    if ((flags & BDRV_BITMAP_BUSY) && bdrv_dirty_bitmap_check_busy(bitmap, errp) < 0) {
        return -1;
    }
    if ((flags & BDRV_BITMAP_RO) && bitmap->readonly) {
        error_setg(errp, "Bitmap '%s' is readonly and cannot be modified", name);
        return -1;
    }
    if ((flags & BDRV_BITMAP_INCONSISTENT) && bitmap->inconsistent) {
        error_setg(errp, "Bitmap '%s' is inconsistent and cannot be used", name);
        return -1;
    }
    return 0;
}

json_t *bdrv_query_dirty_bitmaps(BlockDriverState *bs)
{
    json_t *list = NULL;
    BdrvDirtyBitmap *bitmap;

    GLOBAL_STATE_CODE();
    QEMU_MUTEX_GUARD(&bs->dirty_bitmap_lock);
    QLIST_FOREACH(bitmap, &bs->dirty_bitmaps, list) {
        const BdrvDirtyBitmap *next = bitmap->successor;
        json_t *info = json_pack("{s:b, s:b, s:b, s:I, s:I}", "recording",
                                 !bitmap->disabled || (next && !next->disabled),
                                 "busy", bitmap->busy, "persistent", bitmap->persistent,
                                 "granularity",
                                 (json_int_t)bdrv_dirty_bitmap_granularity(bitmap),
                                 "count", (json_int_t)hbitmap_count(bitmap->bits));
        if (bitmap->name) {
            json_object_set_new(info, "name", json_string_nocheck(bitmap->name));
        }
        if (bitmap->inconsistent) {
            json_object_set_new(info, "inconsistent", json_true());
        }
        list = list ? list : json_array();
        json_array_append_new(list, info);
    }
    return list;
}

int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *bitmap)
{
    return hbitmap_count(bitmap->bits);
}

bool bdrv_dirty_bitmap_get_locked(BdrvDirtyBitmap *bitmap, int64_t offset)
{
    return hbitmap_get(bitmap->bits, offset);
}

bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset)
{
    LOCKED(bitmap);
    return bdrv_dirty_bitmap_get_locked(bitmap, offset);
}

int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    return hbitmap_next_dirty(bitmap->bits, offset, bytes);
}

int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    return hbitmap_next_zero(bitmap->bits, offset, bytes);
}

bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t start, int64_t end,
                                       int64_t max_dirty_count, int64_t *dirty_start,
                                       int64_t *dirty_count)
{
    return hbitmap_next_dirty_area(bitmap->bits, start, end, max_dirty_count, dirty_start,
                                   dirty_count);
}

/* ---- iterators -------------------------------------------------------------------------- */

BdrvDirtyBitmapIter *bdrv_dirty_iter_new(BdrvDirtyBitmap *bitmap)
{
    BdrvDirtyBitmapIter *iter = g_new(BdrvDirtyBitmapIter, 1);

    hbitmap_iter_init(&iter->hbi, bitmap->bits, 0);
    iter->bitmap = bitmap;
    bitmap->iterators++;
    return iter;
}

void bdrv_dirty_iter_free(BdrvDirtyBitmapIter *iter)
{
    if (iter) {
        g_assert(iter->bitmap->iterators > 0);
        iter->bitmap->iterators--;
        g_free(iter);
    }
}

int64_t bdrv_dirty_iter_next(BdrvDirtyBitmapIter *iter)
{
    return hbitmap_iter_next(&iter->hbi);
}

void bdrv_set_dirty_iter(BdrvDirtyBitmapIter *iter, int64_t offset)
{
    hbitmap_iter_init(&iter->hbi, iter->bitmap->bits, offset);
}

/* ---- changing --------------------------------------------------------------------------- */

void bdrv_enable_dirty_bitmap_locked(BdrvDirtyBitmap *bitmap)
{
    bitmap->disabled = false;
}

void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    LOCKED(bitmap);
    bdrv_enable_dirty_bitmap_locked(bitmap);
}

void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap)
{
    LOCKED(bitmap);
    bitmap->disabled = true;
}

void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy)
{
    LOCKED(bitmap);
    bitmap->busy = busy;
}

void bdrv_set_dirty_bitmap_locked(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    hbitmap_set(bitmap->bits, offset, bytes);
}

void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    LOCKED(bitmap);
    bdrv_set_dirty_bitmap_locked(bitmap, offset, bytes);
}

void bdrv_reset_dirty_bitmap_locked(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    hbitmap_reset(bitmap->bits, offset, bytes);
}

void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes)
{
    LOCKED(bitmap);
    bdrv_reset_dirty_bitmap_locked(bitmap, offset, bytes);
}

void bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *bitmap, HBitmap **out)
{
    LOCKED(bitmap);
    g_assert(!bitmap->iterators && !bitmap->readonly);
    if (out) {
        *out = bitmap->bits;
        bitmap->bits = hbitmap_alloc(bitmap->size, hbitmap_granularity(*out));
    } else {
        hbitmap_reset_all(bitmap->bits);
    }
}

void bdrv_restore_dirty_bitmap(BdrvDirtyBitmap *bitmap, HBitmap *backup)
{
    LOCKED(bitmap);
    g_assert(!bitmap->iterators);
    hbitmap_free(bitmap->bits);
    bitmap->bits = backup;
}

static HBitmap *copy_of(const HBitmap *bits, int64_t size)
{
    HBitmap *copy = hbitmap_alloc(size, hbitmap_granularity(bits));
    hbitmap_merge(bits, copy, copy);
    return copy;
}

bool bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest, const BdrvDirtyBitmap *src,
                             HBitmap **backup, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (bdrv_dirty_bitmap_check(dest, BDRV_BITMAP_DEFAULT, errp) ||
        bdrv_dirty_bitmap_check(src, BDRV_BITMAP_ALLOW_RO, errp)) {
        return false;
    }
    if (dest->size != src->size) {
        error_setg(errp, "Bitmaps are of different sizes (destination size is %" PRId64
                   ", source size is %" PRId64 ") and can't be merged",
                   dest->size, src->size);
        return false;
    }
    /* one lock at a time: they may be of two nodes */
    HBitmap *from;
    WITH_QEMU_LOCK_GUARD(&src->bs->dirty_bitmap_lock) {
        from = copy_of(src->bits, src->size);
    }
    WITH_QEMU_LOCK_GUARD(&dest->bs->dirty_bitmap_lock) {
        if (backup) {
            *backup = copy_of(dest->bits, dest->size);
        }
        hbitmap_merge(dest->bits, from, dest->bits);
    }
    hbitmap_free(from);
    return true;
}

/* ---- successors ------------------------------------------------------------------------- */

int bdrv_dirty_bitmap_create_successor(BdrvDirtyBitmap *bitmap, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (bdrv_dirty_bitmap_check(bitmap, BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT, errp)) {
        return -EBUSY;
    }
    BdrvDirtyBitmap *successor =
        bdrv_create_dirty_bitmap(bitmap->bs, bdrv_dirty_bitmap_granularity(bitmap), NULL,
                                 errp);
    if (!successor) {
        return -EIO;
    }
    /* In one step, so that each write is recorded in one of the two. */
    LOCKED(bitmap);
    hbitmap_reset_all(successor->bits);
    successor->disabled = bitmap->disabled;
    bitmap->disabled = true;
    bitmap->busy = true;
    bitmap->successor = successor;
    return 0;
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_abdicate(BdrvDirtyBitmap *bitmap, Error **errp)
{
    BdrvDirtyBitmap *successor = bitmap->successor;

    GLOBAL_STATE_CODE();
    if (!successor) {
        error_setg(errp, "Cannot relinquish control if there's no successor present");
        return NULL;
    }
    WITH_QEMU_LOCK_GUARD(&bitmap->bs->dirty_bitmap_lock) {
        successor->name = g_steal_pointer(&bitmap->name);
        if (successor->name) {
            g_hash_table_replace(names_of(bitmap->bs), successor->name, successor);
        }
        successor->persistent = bitmap->persistent;
        bitmap->persistent = false;
        bitmap->successor = NULL;
        bitmap->busy = false;
    }
    bdrv_release_dirty_bitmap(bitmap);
    return successor;
}

BdrvDirtyBitmap *bdrv_reclaim_dirty_bitmap(BdrvDirtyBitmap *bitmap, Error **errp)
{
    BdrvDirtyBitmap *successor = bitmap->successor;

    GLOBAL_STATE_CODE();
    if (!successor) {
        error_setg(errp, "Cannot reclaim a successor when none is present");
        return NULL;
    }
    WITH_QEMU_LOCK_GUARD(&bitmap->bs->dirty_bitmap_lock) {
        hbitmap_merge(bitmap->bits, successor->bits, bitmap->bits);
        bitmap->disabled = successor->disabled;
        bitmap->successor = NULL;
        bitmap->busy = false;
    }
    bdrv_release_dirty_bitmap(successor);
    return bitmap;
}

/* ---- bitmaps kept in images ------------------------------------------------------------- */

bool bdrv_dirty_bitmap_get_persistence(BdrvDirtyBitmap *bitmap)
{
    return bitmap->persistent;
}

void bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap, bool persistent)
{
    GLOBAL_STATE_CODE();
    bitmap->persistent = persistent;
}

bool bdrv_dirty_bitmap_readonly(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->readonly;
}

void bdrv_dirty_bitmap_set_readonly(BdrvDirtyBitmap *bitmap, bool readonly)
{
    LOCKED(bitmap);
    bitmap->readonly = readonly;
}

bool bdrv_dirty_bitmap_inconsistent(const BdrvDirtyBitmap *bitmap)
{
    return bitmap->inconsistent;
}

void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap)
{
    LOCKED(bitmap);
    g_assert(bitmap->persistent && !bitmap->busy);
    bitmap->inconsistent = true;
    bitmap->disabled = true;
}

bool bdrv_has_readonly_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;

    QEMU_MUTEX_GUARD(&bs->dirty_bitmap_lock);
    QLIST_FOREACH(bitmap, &bs->dirty_bitmaps, list) {
        if (bitmap->readonly) {
            return true;
        }
    }
    return false;
}

bool bdrv_has_named_bitmaps(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;

    QEMU_MUTEX_GUARD(&bs->dirty_bitmap_lock);
    QLIST_FOREACH(bitmap, &bs->dirty_bitmaps, list) {
        if (bitmap->name) {
            return true;
        }
    }
    return false;
}

uint64_t bdrv_dirty_bitmap_serialization_size(const BdrvDirtyBitmap *bitmap, uint64_t offset,
                                              uint64_t bytes)
{
    return hbitmap_serialization_size(bitmap->bits, offset, bytes);
}

uint64_t bdrv_dirty_bitmap_serialization_align(const BdrvDirtyBitmap *bitmap)
{
    return hbitmap_serialization_align(bitmap->bits);
}

void bdrv_dirty_bitmap_serialize_part(const BdrvDirtyBitmap *bitmap, uint8_t *buf,
                                      uint64_t offset, uint64_t bytes)
{
    hbitmap_serialize_part(bitmap->bits, buf, offset, bytes);
}

void bdrv_dirty_bitmap_deserialize_part(BdrvDirtyBitmap *bitmap, uint8_t *buf,
                                        uint64_t offset, uint64_t bytes, bool finish)
{
    hbitmap_deserialize_part(bitmap->bits, buf, offset, bytes, finish);
}

void bdrv_dirty_bitmap_deserialize_zeroes(BdrvDirtyBitmap *bitmap, uint64_t offset,
                                          uint64_t bytes, bool finish)
{
    hbitmap_deserialize_zeroes(bitmap->bits, offset, bytes, finish);
}

void bdrv_dirty_bitmap_deserialize_ones(BdrvDirtyBitmap *bitmap, uint64_t offset,
                                        uint64_t bytes, bool finish)
{
    hbitmap_deserialize_ones(bitmap->bits, offset, bytes, finish);
}

void bdrv_dirty_bitmap_deserialize_finish(BdrvDirtyBitmap *bitmap)
{
    hbitmap_deserialize_finish(bitmap->bits);
}

/* ---- the request path ------------------------------------------------------------------- */

void bdrv_set_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    BdrvDirtyBitmap *bitmap;

    QEMU_MUTEX_GUARD(&bs->dirty_bitmap_lock);
    QLIST_FOREACH(bitmap, &bs->dirty_bitmaps, list) {
        /* an aligned write may reach behind the end of an unaligned node */
        int64_t inside = MIN(bytes, bitmap->size - offset);
        if (!bitmap->disabled && inside > 0) {
            g_assert(!bitmap->readonly);
            hbitmap_set(bitmap->bits, offset, inside);
        }
    }
}
