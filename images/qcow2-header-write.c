/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header and its extensions: change in place, build. */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

#define FEATURE_NAME_BYTES 46

/* Names that are written into new images, for programs that do not know a feature. */
static const struct Feature {
    uint8_t type, bit;          /* type: 0 incompatible, 1 compatible, 2 autoclear */
    char name[FEATURE_NAME_BYTES];
} features[] = {
    { 0, 0, "dirty bit" },
    { 0, 1, "corrupt bit" },
    { 0, 2, "external data file" },
    { 0, 3, "compression type" },
    { 0, 4, "extended L2 entries" },
    { 1, 0, "lazy refcounts" },
    { 2, 0, "bitmaps" },
    { 2, 1, "raw external data" },
};

/* ---- change ------------------------------------------------------------------------ */

int coroutine_mixed_fn qcow2_header_patch(Qcow2State *s, uint64_t offset, const void *buf,
                                          size_t n)
{
    return bdrv_pwrite(s->bs->file, offset, n, buf, 0);
}

static int coroutine_mixed_fn patch_durably(Qcow2State *s, uint64_t offset, const void *buf,
                                            size_t n)
{
    int ret = qcow2_header_patch(s, offset, buf, n);

    return ret < 0 ? ret : bdrv_flush(s->bs->file->bs);
}

int coroutine_fn qcow2_header_switch(Qcow2State *s, uint64_t offset, const void *buf, size_t n)
{
    g_autofree void *old = g_malloc(n);
    int ret = qcow2_file_read(s, offset, n, old);

    if (ret < 0) {
        return ret;
    }
    ret = patch_durably(s, offset, buf, n);
    if (ret < 0) {
        /* Reading it could not tell: a cache below may have what the disk has not. */
        s->corrupt = s->corrupt || patch_durably(s, offset, old, n) < 0;
    }
    return ret;
}

/* FIELD, at OFFSET of the header, becomes BITS. */
static int coroutine_mixed_fn set_features(Qcow2State *s, uint64_t offset, uint64_t *field,
                                           uint64_t bits)
{
    uint64_t be = GUINT64_TO_BE(bits);

    g_assert(s->header.version >= 3);
    int ret = patch_durably(s, offset, &be, sizeof(be));
    if (ret >= 0) {
        *field = bits;
    }
    return ret;
}

int coroutine_mixed_fn qcow2_header_set_incompat(Qcow2State *s, uint64_t bits)
{
    return set_features(s, 72, &s->header.incompat, bits);
}

int coroutine_mixed_fn qcow2_header_set_autoclear(Qcow2State *s, uint64_t bits)
{
    return set_features(s, 88, &s->header.autoclear, bits);
}

/* ---- build ------------------------------------------------------------------------- */

static void fill_fixed_part(uint8_t *b, const Qcow2Header *h)
{
    qcow2_store32(b, QCOW2_MAGIC);
    qcow2_store32(b + 4, h->version);
    qcow2_store64(b + 8, h->backing_offset);
    qcow2_store32(b + 16, h->backing_size);
    qcow2_store32(b + 20, h->cluster_bits);
    qcow2_store64(b + 24, h->size);
    qcow2_store32(b + 32, h->crypt_method);
    qcow2_store32(b + 36, h->l1_size);
    qcow2_store64(b + 40, h->l1_offset);
    qcow2_store64(b + 48, h->reftable_offset);
    qcow2_store32(b + 56, h->reftable_clusters);
    qcow2_store32(b + 60, h->nb_snapshots);
    qcow2_store64(b + 64, h->snapshots_offset);
    if (h->version >= 3) {
        qcow2_store64(b + 72, h->incompat);
        qcow2_store64(b + 80, h->compat);
        qcow2_store64(b + 88, h->autoclear);
        qcow2_store32(b + 96, h->refcount_order);
        qcow2_store32(b + 100, h->header_length);
        if (h->header_length > 104) {
            b[104] = h->compression_type;
        }
    }
}

static void append_extension(GByteArray *out, uint32_t type, const void *data, uint32_t n)
{
    static const uint8_t pad[8];
    uint8_t head[8];

    qcow2_store32(head, type);
    qcow2_store32(head + 4, n);
    g_byte_array_append(out, head, sizeof(head));
    g_byte_array_append(out, data, n);
    g_byte_array_append(out, pad, ROUND_UP(n, 8) - n);
}

void qcow2_header_feature_names(GByteArray *extensions)
{
    G_STATIC_ASSERT(sizeof(features[0]) == 48);
    append_extension(extensions, QCOW2_EXT_FEATURE_NAMES, features, sizeof(features));
}

static void append_string(GByteArray *out, uint32_t type, const char *string)
{
    if (string && *string) {
        append_extension(out, type, string, strlen(string));
    }
}

static void append_bitmaps(GByteArray *out, const Qcow2Header *h)
{
    uint8_t data[24] = { 0 };

    if (h->has_bitmaps) {
        qcow2_store32(data, h->nb_bitmaps);
        qcow2_store64(data + 8, h->bitmap_dir_bytes);
        qcow2_store64(data + 16, h->bitmap_dir_offset);
        append_extension(out, QCOW2_EXT_BITMAPS, data, sizeof(data));
    }
}

/* Those first that the image cannot do without; see qcow2-header-update.c. */
static void append_extensions(GByteArray *out, const Qcow2Header *h, GByteArray *others,
                              const Qcow2HeaderNames *names)
{
    append_string(out, QCOW2_EXT_BACKING_FORMAT, names->backing_fmt);
    append_bitmaps(out, h);
    append_string(out, QCOW2_EXT_DATA_FILE, names->data_file);
    if (others) {
        g_byte_array_append(out, others->data, others->len);
    } else if (h->version >= 3) {
        qcow2_header_feature_names(out);
    }
    append_extension(out, QCOW2_EXT_END, "", 0);
}

static void place_backing_name(GByteArray *out, Qcow2Header *h, const Qcow2HeaderNames *names)
{
    size_t bytes = names->backing_file ? strlen(names->backing_file) : 0;
    size_t from = MAX(out->len, names->backing_from);

    if (from + bytes > 1u << h->cluster_bits) {
        from = out->len;
    }
    h->backing_offset = bytes ? from : 0;
    h->backing_size = bytes;
    if (bytes) {
        size_t end = out->len;
        g_byte_array_set_size(out, from + bytes);
        memset(out->data + end, 0, from - end);
        memcpy(out->data + from, names->backing_file, bytes);
    }
}

uint8_t *qcow2_header_build(Qcow2Header *h, GByteArray *extensions,
                            const Qcow2HeaderNames *names, size_t *bytes, int *ret)
{
    GByteArray *out = g_byte_array_new();

    g_byte_array_set_size(out, h->header_length);
    memset(out->data, 0, out->len);
    append_extensions(out, h, extensions, names);
    place_backing_name(out, h, names);
    if (out->len > 1u << h->cluster_bits) {
        g_byte_array_free(out, true);
        *ret = -ENOSPC;
        return NULL;
    }
    fill_fixed_part(out->data, h);
    *ret = 0;
    *bytes = out->len;
    return g_byte_array_free(out, false);
}
