/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The directory of bitmaps kept in an image, and their tables: reading and validating. It is
 * read whenever it is needed, which is rare.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

typedef struct QEMU_PACKED DiskBitmap {
    uint64_t table_offset;
    uint32_t table_entries, flags;
    uint8_t type, granularity_bits;
    uint16_t name_bytes;
    uint32_t extra_bytes;
} DiskBitmap;
G_STATIC_ASSERT(sizeof(DiskBitmap) == 24);

#define TYPE_DIRTY_TRACKING 1
#define FLAGS_KNOWN (QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO | QCOW2_BITMAP_EXTRA_COMPAT)
#define TABLE_RESERVED UINT64_C(0xff000000000001fe)
#define TABLE_ALL_ONES UINT64_C(1)

/* ---- the list -------------------------------------------------------------------- */

static void free_bitmap(void *opaque)
{
    Qcow2Bitmap *b = opaque;

    g_free(b->name);
    g_free(b->extra);
    g_free(b);
}

GPtrArray *qcow2_bitmaps_new(void)
{
    return g_ptr_array_new_with_free_func(free_bitmap);
}

Qcow2Bitmap *qcow2_bitmaps_find(GPtrArray *list, const char *name)
{
    for (guint i = 0; i < list->len; i++) {
        Qcow2Bitmap *b = g_ptr_array_index(list, i);
        if (strcmp(b->name, name) == 0) {
            return b;
        }
    }
    return NULL;
}

GHashTable *qcow2_bitmaps_by_name(GPtrArray *list)
{
    GHashTable *names = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < list->len; i++) {
        Qcow2Bitmap *b = g_ptr_array_index(list, i);
        g_hash_table_insert(names, b->name, b);
    }
    return names;
}

uint64_t qcow2_bitmap_table_entries(const Qcow2State *s, uint64_t size,
                                    uint32_t granularity_bits)
{
    uint64_t bits = (size >> granularity_bits) + !!(size & ((1ULL << granularity_bits) - 1));

    /* A bitmap of nothing has a table, too. */
    return MAX(qcow2_clusters(s, DIV_ROUND_UP(bits, 8)), 1);
}

/* ---- reading --------------------------------------------------------------------- */

static bool constraints_met(const Qcow2State *s, const DiskBitmap *d, const Qcow2Bitmap *b)
{
    uint64_t bytes = (uint64_t)b->table_entries << s->cluster_bits;

    return b->table_entries && b->table_entries <= QCOW2_BITMAP_TABLE_ENTRIES_MAX &&
           b->table_offset && !(b->table_offset & s->cluster_mask) &&
           b->table_offset <= INT64_MAX - (uint64_t)b->table_entries * 8 &&
           bytes <= QCOW2_BITMAP_BYTES_MAX + s->cluster_mask &&
           !(b->flags & ~FLAGS_KNOWN) && d->type == TYPE_DIRTY_TRACKING &&
           b->granularity_bits >= QCOW2_BITMAP_GRANULARITY_BITS_MIN &&
           b->granularity_bits <= QCOW2_BITMAP_GRANULARITY_BITS_MAX &&
           strlen(b->name) <= QCOW2_BITMAP_NAME_BYTES_MAX &&
           strlen(b->name) == GUINT16_FROM_BE(d->name_bytes);
}

/* The entry at *POS of DIR; NULL with ERRP set. */
static Qcow2Bitmap *parse_one(Qcow2State *s, const uint8_t *dir, uint64_t bytes, uint64_t *pos,
                              Error **errp)
{
    uint64_t left = bytes - *pos;
    DiskBitmap d;

    if (left < sizeof(d)) {
        error_setg(errp, "Broken bitmap directory");
        return NULL;
    }
    memcpy(&d, dir + *pos, sizeof(d));
    uint32_t extra = GUINT32_FROM_BE(d.extra_bytes), name = GUINT16_FROM_BE(d.name_bytes);
    uint64_t used = ROUND_UP((uint64_t)sizeof(d) + extra + name, 8);
    if (used > left || name == 0) {
        error_setg(errp, "Broken bitmap directory");
        return NULL;
    }
    const uint8_t *var = dir + *pos + sizeof(d);
    Qcow2Bitmap *b = g_new(Qcow2Bitmap, 1);
    *b = (Qcow2Bitmap){
        .table_offset = GUINT64_FROM_BE(d.table_offset),
        .table_entries = GUINT32_FROM_BE(d.table_entries),
        .flags = GUINT32_FROM_BE(d.flags), .granularity_bits = d.granularity_bits,
        .name = g_strndup((const char *)var + extra, name), .extra_bytes = extra,
        .extra = extra ? g_memdup2(var, extra) : NULL,
    };
    if (!constraints_met(s, &d, b)) {
        error_setg(errp, "Bitmap '%s' doesn't satisfy the constraints", b->name);
        free_bitmap(b);
        return NULL;
    }
    *pos += used;
    return b;
}

static bool parse_all(Qcow2State *s, const uint8_t *dir, GPtrArray *list, Error **errp)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    const Qcow2Header *h = &s->header;
    uint64_t pos = 0;

    while (pos < h->bitmap_dir_bytes) {
        if (list->len == h->nb_bitmaps) {
            error_setg(errp, "More bitmaps found than specified in header extension");
            return false;
        }
        Qcow2Bitmap *b = parse_one(s, dir, h->bitmap_dir_bytes, &pos, errp);
        if (!b) {
            return false;
        }
        g_ptr_array_add(list, b);
        if (!g_hash_table_add(names, b->name)) {
            error_setg(errp, "Bitmap '%s' is in the bitmap directory twice", b->name);
            return false;
        }
    }
    if (list->len < h->nb_bitmaps) {
        error_setg(errp, "Less bitmaps found than specified in header extension");
        return false;
    }
    return true;
}

uint8_t *coroutine_mixed_fn qcow2_bitmaps_read_directory(Qcow2State *s, int *ret)
{
    const Qcow2Header *h = &s->header;
    g_autofree uint8_t *dir = g_try_malloc(h->bitmap_dir_bytes + 1);

    *ret = dir ? qcow2_file_read(s, h->bitmap_dir_offset, h->bitmap_dir_bytes, dir) : -ENOMEM;
    return *ret < 0 ? NULL : g_steal_pointer(&dir);
}

GPtrArray *qcow2_bitmaps_parse(Qcow2State *s, const uint8_t *dir, Error **errp)
{
    g_autoptr(GPtrArray) list = qcow2_bitmaps_new();

    return parse_all(s, dir, list, errp) ? g_steal_pointer(&list) : NULL;
}

GPtrArray *coroutine_mixed_fn qcow2_bitmaps_read(Qcow2State *s, Error **errp)
{
    int ret;

    if (!s->header.has_bitmaps) {
        return qcow2_bitmaps_new();
    }
    g_autofree uint8_t *dir = qcow2_bitmaps_read_directory(s, &ret);
    if (!dir) {
        error_setg_errno(errp, -ret, "Failed to read bitmap directory");
        return NULL;
    }
    return qcow2_bitmaps_parse(s, dir, errp);
}

uint64_t *coroutine_mixed_fn qcow2_bitmap_read_table(Qcow2State *s, const Qcow2Bitmap *b,
                                                     int *ret)
{
    uint64_t bytes = (uint64_t)b->table_entries * 8;

    /* Behind the end of the file there would be zeroes: a clean bitmap. */
    if (bytes > s->file_bytes || b->table_offset > s->file_bytes - bytes) {
        *ret = -EIO;
        return NULL;
    }
    g_autofree uint64_t *table = g_try_malloc(bytes);
    *ret = table ? qcow2_file_read(s, b->table_offset, bytes, table) : -ENOMEM;
    for (uint32_t i = 0; i < b->table_entries && *ret >= 0; i++) {
        uint64_t e = table[i] = GUINT64_FROM_BE(table[i]), offset = e & QCOW2_OFFSET_MASK;
        if ((e & TABLE_RESERVED) || (offset & s->cluster_mask) ||
            (offset && (e & TABLE_ALL_ONES))) {
            *ret = -EINVAL;
        }
    }
    return *ret < 0 ? NULL : g_steal_pointer(&table);
}

/* ---- writing --------------------------------------------------------------------- */

GByteArray *qcow2_bitmaps_build(GPtrArray *list)
{
    static const uint8_t pad[8];
    GByteArray *dir = g_byte_array_new();

    for (guint i = 0; i < list->len; i++) {
        const Qcow2Bitmap *b = g_ptr_array_index(list, i);
        DiskBitmap d = {
            .table_offset = GUINT64_TO_BE(b->table_offset),
            .table_entries = GUINT32_TO_BE(b->table_entries),
            .flags = GUINT32_TO_BE(b->flags),
            .type = TYPE_DIRTY_TRACKING, .granularity_bits = b->granularity_bits,
            .name_bytes = GUINT16_TO_BE(strlen(b->name)),
            .extra_bytes = GUINT32_TO_BE(b->extra_bytes),
        };
        g_byte_array_append(dir, (uint8_t *)&d, sizeof(d));
        if (b->extra_bytes) {
            g_byte_array_append(dir, b->extra, b->extra_bytes);
        }
        g_byte_array_append(dir, (uint8_t *)b->name, strlen(b->name));
        g_byte_array_append(dir, pad, -dir->len & 7);
    }
    return dir;
}
