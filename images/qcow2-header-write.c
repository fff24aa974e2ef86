/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header and its extensions: change in place, build. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

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

int coroutine_mixed_fn qcow2_header_set_incompat(Qcow2State *s, uint64_t bits)
{
    uint8_t b[8];

    g_assert(s->header.version >= 3);
    qcow2_store64(b, bits);
    int ret = qcow2_header_patch(s, 72, b, sizeof(b));
    if (ret < 0) {
        return ret;
    }
    s->header.incompat = bits;
    return bdrv_flush(s->bs->file->bs);
}

int coroutine_mixed_fn qcow2_header_clear_autoclear(Qcow2State *s)
{
    static const uint8_t zero[8];

    int ret = qcow2_header_patch(s, 88, zero, sizeof(zero));
    if (ret < 0) {
        return ret;
    }
    s->header.autoclear = 0;
    s->header.has_bitmaps = false;
    return bdrv_flush(s->bs->file->bs);
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

uint8_t *qcow2_header_build(const Qcow2Header *h, GByteArray *extensions,
                            const char *backing_file, const char *backing_fmt,
                            size_t *bytes, int *ret)
{
    Qcow2Header copy = *h;
    GByteArray *out = g_byte_array_new();
    bool has_backing = backing_file && *backing_file;

    g_byte_array_set_size(out, h->header_length);
    memset(out->data, 0, out->len);
    if (backing_fmt && *backing_fmt) {
        append_extension(out, QCOW2_EXT_BACKING_FORMAT, backing_fmt, strlen(backing_fmt));
    }
    if (extensions) {
        g_byte_array_append(out, extensions->data, extensions->len);
    } else if (h->version >= 3) {
        G_STATIC_ASSERT(sizeof(features[0]) == 48);
        append_extension(out, QCOW2_EXT_FEATURE_NAMES, features, sizeof(features));
    }
    append_extension(out, QCOW2_EXT_END, "", 0);
    copy.backing_offset = has_backing ? out->len : 0;
    copy.backing_size = has_backing ? strlen(backing_file) : 0;
    if (has_backing) {
        g_byte_array_append(out, (const uint8_t *)backing_file, copy.backing_size);
    }
    if (out->len > 1u << h->cluster_bits) {
        g_byte_array_free(out, true);
        *ret = -ENOSPC;
        return NULL;
    }
    fill_fixed_part(out->data, &copy);
    *ret = 0;
    *bytes = out->len;
    return g_byte_array_free(out, false);
}

int coroutine_mixed_fn qcow2_header_set_backing(Qcow2State *s, const char *backing_file,
                                                const char *backing_fmt)
{
    size_t bytes;
    int ret;

    if (backing_file && strlen(backing_file) > QCOW2_BACKING_NAME_BYTES_MAX) {
        return -EINVAL;
    }
    if (backing_fmt && strlen(backing_fmt) > 15) {
        return -EINVAL;
    }
    uint8_t *b = qcow2_header_build(&s->header, s->extensions, backing_file, backing_fmt,
                                    &bytes, &ret);
    if (!b) {
        return ret;
    }
    /* Keep fields of a longer header that we do not know. */
    if (s->header.header_length > 112) {
        ret = qcow2_file_read(s, 112, s->header.header_length - 112, b + 112);
    }
    if (ret >= 0) {
        ret = qcow2_header_patch(s, 0, b, bytes);
    }
    if (ret >= 0) {
        s->header.backing_offset = qcow2_load64(b + 8);
        s->header.backing_size = qcow2_load32(b + 16);
        ret = bdrv_flush(s->bs->file->bs);
    }
    g_free(b);
    return ret;
}
