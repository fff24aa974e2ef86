/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header and its extensions: parse and validate. */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

#define FEATURE_NAME_BYTES 46

static uint32_t l2_entry_bits(const Qcow2Header *h)
{
    return h->incompat & QCOW2_INCOMPAT_EXTL2 ? 4 : 3;
}

uint64_t qcow2_l1_entries_for(const Qcow2Header *h, uint64_t size)
{
    uint32_t shift = 2 * h->cluster_bits - l2_entry_bits(h);
    return (size >> shift) + !!(size & ((1ULL << shift) - 1));
}

static int parse_fixed_part(Qcow2Header *h, const uint8_t *b, size_t len, Error **errp)
{
    if (len < 8 || qcow2_load32(b) != QCOW2_MAGIC) {
        error_setg(errp, "Image is not in qcow2 format");
        return -EINVAL;
    }
    h->version = qcow2_load32(b + 4);
    if (h->version != 2 && h->version != 3) {
        error_setg(errp, "Unsupported qcow2 version %" PRIu32, h->version);
        return -ENOTSUP;
    }
    if (len < QCOW2_V2_HEADER_BYTES) {
        error_setg(errp, "qcow2 header too short");
        return -EINVAL;
    }
    h->backing_offset = qcow2_load64(b + 8);
    h->backing_size = qcow2_load32(b + 16);
    h->cluster_bits = qcow2_load32(b + 20);
    h->size = qcow2_load64(b + 24);
    h->crypt_method = qcow2_load32(b + 32);
    h->l1_size = qcow2_load32(b + 36);
    h->l1_offset = qcow2_load64(b + 40);
    h->reftable_offset = qcow2_load64(b + 48);
    h->reftable_clusters = qcow2_load32(b + 56);
    h->nb_snapshots = qcow2_load32(b + 60);
    h->snapshots_offset = qcow2_load64(b + 64);
    if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX) {
        error_setg(errp, "Unsupported cluster size: 2^%" PRIu32, h->cluster_bits);
        return -EINVAL;
    }
    if (h->version == 2) {
        h->refcount_order = 4;
        h->header_length = QCOW2_V2_HEADER_BYTES;
        return 0;
    }
    h->header_length = len >= QCOW2_V3_HEADER_BYTES ? qcow2_load32(b + 100) : 0;
    if (h->header_length < QCOW2_V3_HEADER_BYTES) {
        error_setg(errp, "qcow2 header too short");
        return -EINVAL;
    }
    h->incompat = qcow2_load64(b + 72);
    h->compat = qcow2_load64(b + 80);
    h->autoclear = qcow2_load64(b + 88);
    h->refcount_order = qcow2_load32(b + 96);
    if (h->header_length > 1u << h->cluster_bits) {
        error_setg(errp, "qcow2 header exceeds cluster size");
        return -EINVAL;
    }
    if (h->header_length > QCOW2_V3_HEADER_BYTES && len > QCOW2_V3_HEADER_BYTES) {
        h->compression_type = b[104];
    }
    return 0;
}

/* Name the features in MASK with the help of the image's own table of names. */
static void report_features(uint64_t mask, const uint8_t *table, size_t bytes, Error **errp)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (size_t i = 0; table && i + 48 <= bytes; i += 48) {
        const uint8_t *entry = table + i;
        if (entry[0] == 0 && entry[1] < 64 && (mask & (1ULL << entry[1]))) {
            g_string_append_printf(names, "%s%.*s", names->len ? ", " : "",
                                   FEATURE_NAME_BYTES, (const char *)entry + 2);
            mask &= ~(1ULL << entry[1]);
        }
    }
    if (mask) {
        g_string_append_printf(names, "%sUnknown incompatible feature: %" PRIx64,
                               names->len ? ", " : "", mask);
    }
    error_setg(errp, "Unsupported qcow2 feature(s): %s", names->str);
}

static int parse_bitmaps(Qcow2Header *h, const uint8_t *data, uint32_t len, Error **errp)
{
    if (len != 24) {
        error_setg(errp, "bitmaps_ext: Invalid extension length");
        return -EINVAL;
    }
    if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        warn_report("a program lacking bitmap support modified this file, so all bitmaps are "
                    "now considered inconsistent");
        fprintf(stderr, "Some clusters may be leaked, run 'miniblk-img check -r' on the image "
                "file to fix.\n");
        return 0;
    }
    if (qcow2_load32(data + 4)) {
        error_setg(errp, "bitmaps_ext: Reserved field is not zero");
        return -EINVAL;
    }
    h->has_bitmaps = true;
    h->nb_bitmaps = qcow2_load32(data);
    h->bitmap_dir_bytes = qcow2_load64(data + 8);
    h->bitmap_dir_offset = qcow2_load64(data + 16);
    if (h->nb_bitmaps == 0) {
        error_setg(errp, "found bitmaps extension with zero bitmaps");
        return -EINVAL;
    }
    if (h->nb_bitmaps > QCOW2_BITMAPS_MAX) {
        error_setg(errp, "bitmaps_ext: Image has %" PRIu32 " bitmaps, exceeding the "
                   "QEMU supported maximum of %u", h->nb_bitmaps, QCOW2_BITMAPS_MAX);
        return -EINVAL;
    }
    if (h->bitmap_dir_offset & ((1ULL << h->cluster_bits) - 1)) {
        error_setg(errp, "bitmaps_ext: invalid bitmap directory offset");
        return -EINVAL;
    }
    if (h->bitmap_dir_bytes > QCOW2_BITMAP_DIR_BYTES_MAX) {
        error_setg(errp, "bitmaps_ext: bitmap directory size (%" PRIu64 ") exceeds the "
                   "maximum supported size (%u)", h->bitmap_dir_bytes,
                   QCOW2_BITMAP_DIR_BYTES_MAX);
        return -EINVAL;
    }
    return 0;
}

static int parse_crypto(Qcow2Header *h, const uint8_t *data, uint32_t len, Error **errp)
{
    uint64_t cluster = 1ULL << h->cluster_bits;

    if (h->crypt_method != QCOW2_CRYPT_LUKS) {
        error_setg(errp, "CRYPTO header extension only expected with LUKS encryption method");
        return -EINVAL;
    }
    if (len != 16) {
        error_setg(errp, "CRYPTO header extension size %" PRIu32 ", but expected size 16", len);
        return -EINVAL;
    }
    h->crypto_offset = qcow2_load64(data);
    h->crypto_bytes = qcow2_load64(data + 8);
    if (h->crypto_offset & (cluster - 1)) {
        error_setg(errp, "Encryption header offset '%" PRIu64 "' is not a multiple of cluster "
                   "size '%" PRIu64 "'", h->crypto_offset, cluster);
        return -EINVAL;
    }
    return 0;
}

typedef struct Extensions {
    const uint8_t *names;       /* feature name table */
    uint32_t names_bytes;
} Extensions;

static int parse_one_extension(Qcow2State *s, uint32_t type, const uint8_t *data,
                               uint32_t len, Extensions *found, Error **errp)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        if (len >= 16) {
            error_setg(errp, "ERROR: ext_backing_format: len=%" PRIu32
                       " too large (>=16)", len);
            return -EINVAL;
        }
        g_free(s->bs->backing_format);
        s->bs->backing_format = g_strndup((const char *)data, len);
        return 0;
    case QCOW2_EXT_FEATURE_NAMES:
        found->names = data;
        found->names_bytes = len;
        return 0;
    case QCOW2_EXT_BITMAPS:
        return parse_bitmaps(&s->header, data, len, errp);
    case QCOW2_EXT_CRYPTO:
        return parse_crypto(&s->header, data, len, errp);
    case QCOW2_EXT_DATA_FILE:
        g_free(s->data_file_name);
        s->data_file_name = g_strndup((const char *)data, len);
        return 0;
    default:
        return 0;
    }
}

/* B: the first LEN bytes of the first cluster, the extensions end before END. */
static int parse_extensions(Qcow2State *s, const uint8_t *b, size_t len, uint64_t end,
                            Extensions *found, Error **errp)
{
    uint64_t pos = s->header.header_length;
    uint64_t limit = MIN(end, len);

    while (pos + 8 <= limit) {
        uint32_t type = qcow2_load32(b + pos), n = qcow2_load32(b + pos + 4);
        if (type == QCOW2_EXT_END) {
            break;
        }
        if (n > end - pos - 8) {
            error_setg(errp, "Header extension too large");
            return -EINVAL;
        }
        if (n > limit - pos - 8) {
            error_setg(errp, "Could not read header extension: the image file is too short");
            return -EINVAL;
        }
        int ret = parse_one_extension(s, type, b + pos + 8, n, found, errp);
        if (ret < 0) {
            return ret;
        }
        uint64_t whole = 8 + ROUND_UP((uint64_t)n, 8);
        if (type != QCOW2_EXT_BACKING_FORMAT && type != QCOW2_EXT_BITMAPS &&
            type != QCOW2_EXT_DATA_FILE) {
            static const uint8_t pad[8];
            g_byte_array_append(s->extensions, b + pos, 8 + n);
            g_byte_array_append(s->extensions, pad, whole - 8 - n);
        }
        pos += whole;
    }
    return 0;
}

static int check_features(Qcow2Header *h, const Extensions *found, Error **errp)
{
    uint64_t unknown = h->incompat & ~QCOW2_INCOMPAT_KNOWN;

    if (unknown) {
        report_features(unknown, found->names, found->names_bytes, errp);
        return -ENOTSUP;
    }
    bool bit = h->incompat & QCOW2_INCOMPAT_COMPRESSION;
    if (h->compression_type != QCOW2_ZLIB && !bit) {
        error_setg(errp, "qcow2: Compression type incompatible feature bit must be set");
        return -EINVAL;
    }
    if (h->compression_type == QCOW2_ZLIB && bit) {
        error_setg(errp, "qcow2: Compression type incompatible feature bit must not be set");
        return -EINVAL;
    }
    if (!qcow2_compression_supported(h->compression_type)) {
        error_setg(errp, "qcow2: unknown compression type: %u", h->compression_type);
        return -ENOTSUP;
    }
    if ((h->incompat & QCOW2_INCOMPAT_EXTL2) &&
        h->cluster_bits < QCOW2_EXTL2_CLUSTER_BITS_MIN) {
        error_setg(errp, "Extended L2 entries are only supported with cluster sizes of at "
                   "least %u bytes", 1u << QCOW2_EXTL2_CLUSTER_BITS_MIN);
        return -EINVAL;
    }
    if (h->refcount_order > 6) {
        error_setg(errp, "Reference count entry width too large; may not exceed 64 bits");
        return -EINVAL;
    }
    if (h->crypt_method > QCOW2_CRYPT_LUKS) {
        error_setg(errp, "Unsupported encryption method %" PRIu32, h->crypt_method);
        return -EINVAL;
    }
    return 0;
}

/* Whether a table of BYTES at OFFSET is aligned and cannot overflow an offset. */
static bool table_offset_ok(const Qcow2Header *h, uint64_t offset, uint64_t bytes)
{
    return !(offset & ((1ULL << h->cluster_bits) - 1)) &&
           offset <= (uint64_t)INT64_MAX - bytes;
}

int qcow2_header_check_snapshots(const Qcow2Header *h, uint32_t n, Error **errp)
{
    if (n > QCOW2_SNAPSHOTS_MAX) {
        error_setg(errp, "Snapshot table too large");
        return -EFBIG;
    }
    /* (with no extra data, ids and names; how long they are the reader will see) */
    if (n && !table_offset_ok(h, h->snapshots_offset, n * QCOW2_SNAPSHOT_BYTES_MIN)) {
        error_setg(errp, "Snapshot table offset invalid");
        return -EINVAL;
    }
    return 0;
}

static int check_tables(Qcow2Header *h, int flags, Error **errp)
{
    uint64_t l1_needed = qcow2_l1_entries_for(h, h->size);

    if (h->reftable_clusters == 0 && !(flags & BDRV_O_CHECK)) {
        error_setg(errp, "Image does not contain a reference count table");
        return -EINVAL;
    }
    if (h->reftable_clusters > QCOW2_REFTABLE_BYTES_MAX >> h->cluster_bits) {
        error_setg(errp, "Reference count table too large");
        return -EFBIG;
    }
    if (!table_offset_ok(h, h->reftable_offset,
                         (uint64_t)h->reftable_clusters << h->cluster_bits)) {
        error_setg(errp, "Reference count table offset invalid");
        return -EINVAL;
    }
    int ret = flags & BDRV_O_CHECK ? 0
                                   : qcow2_header_check_snapshots(h, h->nb_snapshots, errp);
    if (ret < 0) {
        return ret;
    }
    if (h->l1_size > QCOW2_L1_BYTES_MAX / 8) {
        error_setg(errp, "Active L1 table too large");
        return -EFBIG;
    }
    if (h->size > BDRV_MAX_LENGTH || l1_needed > INT_MAX) {
        error_setg(errp, "Image is too big");
        return -EFBIG;
    }
    if (h->l1_size < l1_needed) {
        error_setg(errp, "L1 table is too small");
        return -EINVAL;
    }
    if (!table_offset_ok(h, h->l1_offset, (uint64_t)h->l1_size * 8)) {
        error_setg(errp, "Active L1 table offset invalid");
        return -EINVAL;
    }
    return 0;
}

void qcow2_header_set_geometry(Qcow2State *s)
{
    const Qcow2Header *h = &s->header;

    s->cluster_bits = h->cluster_bits;
    s->cluster_bytes = 1ULL << h->cluster_bits;
    s->cluster_mask = s->cluster_bytes - 1;
    s->l2_entry_bits = l2_entry_bits(h);
    s->l2_bits = h->cluster_bits - s->l2_entry_bits;
    s->subclusters = h->incompat & QCOW2_INCOMPAT_EXTL2 ? QCOW2_SUBCLUSTERS : 1;
    s->subcluster_bits = h->cluster_bits - (s->subclusters > 1 ? 5 : 0);
    s->subcluster_bytes = 1ULL << s->subcluster_bits;
    s->subcluster_mask = s->subcluster_bytes - 1;
    s->refcount_order = h->refcount_order;
    s->refblock_bits = h->cluster_bits + 3 - h->refcount_order;
    s->refcount_max = h->refcount_order == 6 ? INT64_MAX
                                             : (1ULL << (1u << h->refcount_order)) - 1;
}

static int read_backing_name(Qcow2State *s, const uint8_t *b, size_t len, Error **errp)
{
    const Qcow2Header *h = &s->header;
    uint64_t cluster = 1ULL << h->cluster_bits;

    if (!h->backing_offset) {
        return 0;
    }
    if (h->backing_size > QCOW2_BACKING_NAME_BYTES_MAX ||
        h->backing_size > cluster - h->backing_offset) {
        error_setg(errp, "Backing file name too long");
        return -EINVAL;
    }
    if (h->backing_offset + h->backing_size > len) {
        error_setg(errp, "Could not read backing file name");
        return -EINVAL;
    }
    g_free(s->bs->backing_file);
    s->bs->backing_file = g_strndup((const char *)b + h->backing_offset, h->backing_size);
    return 0;
}

int qcow2_header_read(BlockDriverState *bs, int flags, Error **errp)
{
    Qcow2State *s = bs->opaque;
    Extensions found = { NULL };
    uint8_t probe[112];
    int ret;

    ret = qcow2_file_read(s, 0, sizeof(probe), probe);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read qcow2 header");
        return ret;
    }
    ret = parse_fixed_part(&s->header, probe, MIN(sizeof(probe), s->file_bytes), errp);
    if (ret < 0) {
        return ret;
    }
    uint64_t cluster = 1ULL << s->header.cluster_bits;
    size_t len = MIN(cluster, s->file_bytes);
    if (s->header.backing_offset > cluster) {
        error_setg(errp, "Invalid backing file offset");
        return -EINVAL;
    }
    g_autofree uint8_t *b = g_malloc0(len);
    ret = qcow2_file_read(s, 0, len, b);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read qcow2 header");
        return ret;
    }
    /* The backing file's name lies behind the extensions; without one the cluster is free. */
    ret = parse_extensions(s, b, len, s->header.backing_offset ?: cluster, &found, errp);
    ret = ret ?: check_features(&s->header, &found, errp);
    ret = ret ?: check_tables(&s->header, flags, errp);
    ret = ret ?: read_backing_name(s, b, len, errp);
    if (ret < 0) {
        return ret;
    }
    qcow2_header_set_geometry(s);
    return 0;
}
