/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Check of the bitmaps. An image with one that cannot be loaded cannot be opened, so a repair
 * removes it; all of them when their directory makes no sense.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"
#include "images/qcow2-check.h"

/* Entries of all bitmaps' tables together. */
#define BITMAP_ENTRIES_MAX (1ULL << 27)

/* Such ones are let alone. */
static bool unknown_kind(const Qcow2Bitmap *b)
{
    return b->extra_bytes && !(b->flags & QCOW2_BITMAP_EXTRA_COMPAT);
}

/* Whether the length of B's table is no obstacle to loading it. */
static bool loadable(const Qcow2State *s, const Qcow2Bitmap *b)
{
    return (b->flags & QCOW2_BITMAP_IN_USE) || unknown_kind(b) ||
           b->table_entries == qcow2_bitmap_table_entries(s, qcow2_guest_bytes(s),
                                                          b->granularity_bits);
}

/* 1; 0 after reporting why the table of B cannot be used; -errno. */
static int coroutine_fn count_table(Qcow2Check *c, const Qcow2Bitmap *b)
{
    Qcow2State *s = c->s;
    uint64_t bytes = (uint64_t)b->table_entries * 8;
    int ret = qcow2_count_range(c, b->table_offset, bytes, 1);

    if (ret < 0 || !qcow2_in_file(c, b->table_offset, bytes)) {
        return ret;
    }
    bool cut = b->table_offset + bytes > s->file_bytes;
    g_autofree uint64_t *table = cut ? NULL : qcow2_bitmap_read_table(s, b, &ret);
    bool usable = table && loadable(s, b);
    if (cut || ret == -EINVAL || !loadable(s, b)) {
        qcow2_check_error(c, "ERROR bitmap table at offset 0x%" PRIx64 " is invalid\n",
                          b->table_offset);
    }
    for (uint32_t i = 0; table && i < b->table_entries && ret >= 0; i++) {
        uint64_t host = table[i] & QCOW2_OFFSET_MASK;
        usable &= !host || qcow2_in_file(c, host, s->cluster_bytes);
        ret = host ? qcow2_count_range(c, host, s->cluster_bytes, 1) : 0;
    }
    return ret < 0 && ret != -EINVAL ? ret : usable;
}

static int coroutine_fn count_bitmap(Qcow2Check *c, const Qcow2Bitmap *b)
{
    int before = c->res->corruptions;

    c->bitmap_entries += b->table_entries;
    if (c->bitmap_entries > BITMAP_ENTRIES_MAX) {
        /* Many bitmaps with one large table would keep us busy for ever. */
        return -EFBIG;
    }
    int ret = count_table(c, b);
    if (ret == 0 && c->fix & BDRV_FIX_ERRORS && !unknown_kind(b)) {
        fprintf(stderr, "Repairing bitmap '%s': it cannot be loaded, and is removed\n",
                b->name);
        c->res->corruptions_fixed += c->res->corruptions - before;
        c->res->corruptions = before;
        g_ptr_array_add(c->bad_bitmaps, g_strdup(b->name));
    } else if (ret == 0) {
        c->lost = true;
    }
    return MIN(ret, 0);
}

int coroutine_fn qcow2_check_count_bitmaps(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    Error *err = NULL;
    int ret;

    if (!s->header.has_bitmaps) {
        return 0;
    }
    g_autofree uint8_t *dir = qcow2_bitmaps_read_directory(s, &ret);
    if (!dir) {
        return ret;
    }
    g_autoptr(GPtrArray) list = qcow2_bitmaps_parse(s, dir, &err);
    if (!list) {
        c->drop_bitmaps = c->fix & BDRV_FIX_ERRORS;
        c->lost = true;
        fprintf(stderr, "%s bitmap directory: %s%s\n",
                c->drop_bitmaps ? "Repairing" : "ERROR", error_get_pretty(err),
                c->drop_bitmaps ? "; all bitmaps are given up" : "");
        *(c->drop_bitmaps ? &c->res->corruptions_fixed : &c->res->corruptions) += 1;
        error_free(err);
        if (c->drop_bitmaps) {
            return 0;           /* the directory will pass for leaked */
        }
    }
    ret = qcow2_count_range(c, s->header.bitmap_dir_offset, s->header.bitmap_dir_bytes,
                                  1);
    for (guint i = 0; list && i < list->len && ret >= 0; i++) {
        ret = count_bitmap(c, g_ptr_array_index(list, i));
    }
    return ret;
}

int coroutine_fn qcow2_check_mend_bitmaps(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    int ret = 0;

    if (c->drop_bitmaps) {
        /* Without this bit nobody looks at the directory. */
        ret = qcow2_header_set_autoclear(s, s->header.autoclear & ~QCOW2_AUTOCLEAR_BITMAPS);
        s->header.has_bitmaps = ret < 0;
    }
    for (guint i = 0; i < c->bad_bitmaps->len && ret >= 0; i++) {
        ret = qcow2_bitmaps_remove(s, g_ptr_array_index(c->bad_bitmaps, i), NULL);
    }
    return ret;
}
