/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps kept in qcow2 images: from opening, when they are loaded, to closing, when
 * they are stored, or as long as the image is read-only.
 */
#include "miniblk/osdep.h"
#include "miniblk/dirty-bitmap.h"
#include "block/block-internal.h"
#include "images/qcow2-manage.h"

/*
 * Memory for the bits of all bitmaps of one image. What is clean or dirty as a whole takes no
 * room in the file, so a small one could ask for any amount. Any single bitmap is let in, if
 * the format has it. More than that may be so many times what the file really occupies, which
 * whoever made it has had to pay for.
 */
#define MEMORY_BYTES_BASE QCOW2_BITMAP_BYTES_MAX
#define MEMORY_BYTES_PER_FILE_BYTE 8
#define MEMORY_BYTES_MAX (1ull << 30)

/* ---- bounds ---------------------------------------------------------------------- */

static uint64_t memory_bytes(const Qcow2State *s, uint32_t granularity_bits)
{
    return qcow2_guest_bytes(s) >> granularity_bits >> 3;
}

static uint64_t memory_bytes_max(Qcow2State *s)
{
    int64_t occupied = bdrv_get_allocated_file_size(s->bs->file->bs);
    uint64_t file = occupied >= 0 ? (uint64_t)occupied : s->virgin_offset;

    file = MIN(file, MEMORY_BYTES_MAX);         /* so that nothing overflows */
    return MIN(MEMORY_BYTES_BASE + file * MEMORY_BYTES_PER_FILE_BYTE, MEMORY_BYTES_MAX);
}

/* Whether bitmaps may have BYTES of memory. */
static bool check_memory(Qcow2State *s, uint64_t bytes, Error **errp)
{
    uint64_t max = memory_bytes_max(s);

    if (bytes > max) {
        error_setg(errp, "The bitmaps of the image would need more than %" PRIu64 " MiB of "
                   "memory", max >> 20);
    }
    return bytes <= max;
}

/* ---- loading --------------------------------------------------------------------- */

/* Fill BITMAP with what entry ENTRY of its table stands for, N bytes of disk from START on. */
static int load_part(Qcow2State *s, BdrvDirtyBitmap *bitmap, uint64_t entry, uint64_t start,
                     uint64_t n, uint8_t *buf)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;
    uint64_t bytes = bdrv_dirty_bitmap_serialization_size(bitmap, start, n);

    if (!offset) {
        if (entry) {
            bdrv_dirty_bitmap_deserialize_ones(bitmap, start, n, false);
        }
        return 0;               /* it is clean */
    }
    if (offset >= s->virgin_offset) {
        return -EIO;
    }
    int ret = qcow2_file_read(s, offset, bytes, buf);
    if (ret >= 0) {
        bdrv_dirty_bitmap_deserialize_part(bitmap, buf, start, n, false);
    }
    return ret;
}

static int load_bits(Qcow2State *s, const Qcow2Bitmap *b, BdrvDirtyBitmap *bitmap,
                     const uint64_t *table)
{
    uint64_t size = bdrv_dirty_bitmap_size(bitmap);
    uint64_t covered = (s->cluster_bytes * 8) << b->granularity_bits;
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);
    int ret = buf ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < b->table_entries && i * covered < size && ret >= 0; i++) {
        ret = load_part(s, bitmap, table[i], i * covered, MIN(covered, size - i * covered),
                        buf);
    }
    bdrv_dirty_bitmap_deserialize_finish(bitmap);
    qemu_vfree(buf);
    return ret;
}

/* Read the data of B, which was closed properly, into BITMAP. */
static int load_consistent(Qcow2State *s, const Qcow2Bitmap *b, BdrvDirtyBitmap *bitmap,
                           Error **errp)
{
    int ret;

    g_autofree uint64_t *table = qcow2_bitmap_read_table(s, b, &ret);
    if (!table) {
        error_setg_errno(errp, -ret, "Could not read bitmap_table table from image for bitmap "
                         "'%s'", b->name);
        return ret;
    }
    ret = b->table_entries == qcow2_bitmap_table_entries(s, qcow2_guest_bytes(s),
                                                         b->granularity_bits)
        ? load_bits(s, b, bitmap, table) : -EINVAL;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read bitmap '%s' from image", b->name);
    }
    return ret;
}

static int load_one(Qcow2State *s, const Qcow2Bitmap *b, Error **errp)
{
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(s->bs, 1u << b->granularity_bits,
                                                       b->name, errp);
    int ret = 0;

    if (!bitmap) {
        return -EINVAL;
    }
    bdrv_dirty_bitmap_set_persistence(bitmap, true);
    if (b->flags & QCOW2_BITMAP_IN_USE) {
        bdrv_dirty_bitmap_set_inconsistent(bitmap);
    } else {
        if (!(b->flags & QCOW2_BITMAP_AUTO)) {
            bdrv_disable_dirty_bitmap(bitmap);
        }
        ret = load_consistent(s, b, bitmap, errp);
        bdrv_dirty_bitmap_set_readonly(bitmap, true);
    }
    return ret;                 /* after an error all are released */
}

/* Whether all the bits of LIST may be in memory, outdated or not. */
static bool fits_memory(Qcow2State *s, GPtrArray *list, Error **errp)
{
    uint64_t bytes = 0;

    /* (no further, lest the sum begins anew at 0) */
    for (guint i = 0; i < list->len && bytes <= MEMORY_BYTES_MAX; i++) {
        const Qcow2Bitmap *b = g_ptr_array_index(list, i);
        bytes += memory_bytes(s, b->granularity_bits);
    }
    return check_memory(s, bytes, errp);
}

int qcow2_bitmaps_load(Qcow2State *s, Error **errp)
{
    g_autoptr(GPtrArray) list = qcow2_bitmaps_read(s, errp);

    if (!list || !fits_memory(s, list, errp)) {
        return -EINVAL;
    }
    for (guint i = 0; i < list->len; i++) {
        const Qcow2Bitmap *b = g_ptr_array_index(list, i);
        if (b->extra_bytes && !(b->flags & QCOW2_BITMAP_EXTRA_COMPAT)) {
            continue;           /* it must not be used */
        }
        int ret = load_one(s, b, errp);
        if (ret < 0) {
            qcow2_bitmaps_release(s);
            return ret;
        }
    }
    return 0;
}

/* ---- in memory ------------------------------------------------------------------- */

/* The node's bitmaps that are kept in the image; NULL after the last. */
static BdrvDirtyBitmap *next_kept(Qcow2State *s, BdrvDirtyBitmap *bitmap)
{
    do {
        bitmap = bitmap ? bdrv_dirty_bitmap_next(bitmap) : bdrv_dirty_bitmap_first(s->bs);
    } while (bitmap && !(bdrv_dirty_bitmap_get_persistence(bitmap) &&
                         bdrv_dirty_bitmap_name(bitmap)));
    return bitmap;
}

void qcow2_bitmaps_release(Qcow2State *s)
{
    BdrvDirtyBitmap *bitmap;

    while ((bitmap = next_kept(s, NULL))) {
        bdrv_release_dirty_bitmap(bitmap);
    }
}

void qcow2_bitmaps_set_readonly(Qcow2State *s, bool readonly)
{
    for (BdrvDirtyBitmap *b = next_kept(s, NULL); b; b = next_kept(s, b)) {
        if (!bdrv_dirty_bitmap_inconsistent(b)) {
            bdrv_dirty_bitmap_set_readonly(b, readonly);
        }
    }
}

/* ---- storing --------------------------------------------------------------------- */

typedef struct Save {
    Qcow2State *s;
    GPtrArray *bitmaps;
    Error **errp;
    int ret;
} Save;

static void coroutine_fn save_entry(void *opaque)
{
    Save *c = opaque;

    qemu_co_mutex_lock(&c->s->lock);
    c->ret = qcow2_bitmaps_store(c->s, c->bitmaps, c->errp);
    qemu_co_mutex_unlock(&c->s->lock);
}

int qcow2_bitmaps_save(Qcow2State *s, Error **errp)
{
    g_autoptr(GPtrArray) bitmaps = g_ptr_array_new();
    Save c = { .s = s, .bitmaps = bitmaps, .errp = errp };

    if (!s->writable || s->corrupt) {
        return 0;
    }
    for (BdrvDirtyBitmap *b = next_kept(s, NULL); b; b = next_kept(s, b)) {
        /* A read-only one is in the image as it is. */
        if (!bdrv_dirty_bitmap_inconsistent(b) && !bdrv_dirty_bitmap_readonly(b)) {
            g_ptr_array_add(bitmaps, b);
        }
    }
    if (bitmaps->len) {
        bdrv__run_co(bdrv_get_aio_context(s->bs), save_entry, &c);
    }
    return c.ret;
}

/* ---- for users ------------------------------------------------------------------- */

typedef struct ReadList {
    Qcow2State *s;
    GPtrArray *list;
} ReadList;

static void coroutine_fn read_list_entry(void *opaque)
{
    ReadList *c = opaque;

    qemu_co_mutex_lock(&c->s->lock);
    c->list = qcow2_bitmaps_read(c->s, NULL);
    qemu_co_mutex_unlock(&c->s->lock);
}

json_t *qcow2_bitmaps_info(Qcow2State *s)
{
    ReadList c = { .s = s };
    json_t *info = NULL;

    /* in the node's context: requests may be running there */
    bdrv__run_co_on(s->bs, read_list_entry, &c);
    g_autoptr(GPtrArray) list = c.list;
    for (guint i = 0; list && i < list->len; i++) {
        const Qcow2Bitmap *b = g_ptr_array_index(list, i);
        json_t *flags = json_array();
        if (b->flags & QCOW2_BITMAP_IN_USE) {
            json_array_append_new(flags, json_string("in-use"));
        }
        if (b->flags & QCOW2_BITMAP_AUTO) {
            json_array_append_new(flags, json_string("auto"));
        }
        info = info ? info : json_array();
        /* (bytes of any kind) */
        json_array_append_new(info, json_pack("{s:o, s:o, s:I}", "flags", flags, "name",
                                              json_string_nocheck(b->name), "granularity",
                                              (json_int_t)1 << b->granularity_bits));
    }
    return info;
}

bool qcow2_supports_persistent_dirty_bitmap(BlockDriverState *bs)
{
    Qcow2State *s = bs->opaque;

    return s->header.version >= 3;
}

/* How many bitmaps the directory will have, those included that are not stored yet. */
static void count_bitmaps(Qcow2State *s, GPtrArray *list, uint64_t *n, uint64_t *dir_bytes)
{
    g_autoptr(GByteArray) dir = qcow2_bitmaps_build(list);
    g_autoptr(GHashTable) stored = qcow2_bitmaps_by_name(list);

    *n = list->len;
    *dir_bytes = dir->len;
    QEMU_MUTEX_GUARD(&s->bs->dirty_bitmap_lock);
    for (BdrvDirtyBitmap *b = next_kept(s, NULL); b; b = next_kept(s, b)) {
        const char *name = bdrv_dirty_bitmap_name(b);
        if (!g_hash_table_contains(stored, name)) {
            ++*n;
            *dir_bytes += ROUND_UP(24 + strlen(name), 8);
        }
    }
}

static bool check_new(Qcow2State *s, const char *name, uint32_t granularity, Error **errp)
{
    uint32_t bits = __builtin_ctz(granularity);
    uint64_t n, dir_bytes;

    if (s->header.version < 3) {
        error_setg(errp, "Cannot store dirty bitmaps in qcow2 v2 files");
        return false;
    }
    if (strlen(name) > QCOW2_BITMAP_NAME_BYTES_MAX) {
        error_setg(errp, "Name length exceeds maximum (%u characters)",
                   QCOW2_BITMAP_NAME_BYTES_MAX);
        return false;
    }
    if (bits < QCOW2_BITMAP_GRANULARITY_BITS_MIN) {
        error_setg(errp, "Granularity is under minimum (%llu bytes)",
                   1ull << QCOW2_BITMAP_GRANULARITY_BITS_MIN);
        return false;
    }
    if (qcow2_bitmap_table_entries(s, qcow2_guest_bytes(s), bits) >
        QCOW2_BITMAP_BYTES_MAX >> s->cluster_bits) {
        error_setg(errp, "Too much space will be occupied by the bitmap. Use larger "
                   "granularity");
        return false;
    }
    g_autoptr(GPtrArray) list = qcow2_bitmaps_read(s, errp);
    if (!list) {
        return false;
    }
    if (qcow2_bitmaps_find(list, name)) {
        error_setg(errp, "Bitmap with the same name is already stored");
        return false;
    }
    count_bitmaps(s, list, &n, &dir_bytes);
    if (n >= QCOW2_BITMAPS_MAX) {
        error_setg(errp, "Maximum number of persistent bitmaps is already reached");
        return false;
    }
    if (dir_bytes + ROUND_UP(24 + strlen(name), 8) > QCOW2_BITMAP_DIR_BYTES_MAX) {
        error_setg(errp, "Not enough space in the bitmap directory");
        return false;
    }
    /* Else nobody could open the image. */
    uint64_t bytes = memory_bytes(s, bits);
    for (BdrvDirtyBitmap *b = next_kept(s, NULL); b; b = next_kept(s, b)) {
        bytes += memory_bytes(s, __builtin_ctz(bdrv_dirty_bitmap_granularity(b)));
    }
    return check_memory(s, bytes, errp);
}

bool coroutine_fn qcow2_co_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                                      uint32_t granularity, Error **errp)
{
    ERRP_GUARD();

    if (check_new(bs->opaque, name, granularity, errp)) {
        return true;
    }
    error_prepend(errp, "Can't make bitmap '%s' persistent in '%s': ", name,
                  bdrv_get_device_or_node_name(bs));
    return false;
}

int coroutine_fn qcow2_co_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                                         const char *name, Error **errp)
{
    Qcow2State *s = bs->opaque;

    if (!s->header.has_bitmaps) {
        return 0;               /* it was not stored yet */
    }
    if (!s->writable || s->corrupt) {
        error_setg(errp, "Cannot remove bitmap '%s' from an image that is not writable", name);
        return -EACCES;
    }
    qemu_co_mutex_lock(&s->lock);
    int ret = qcow2_bitmaps_remove(s, name, errp);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}
