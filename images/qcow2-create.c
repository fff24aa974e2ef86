/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making new images. */
#include "miniblk/osdep.h"
#include "miniblk/block-backend.h"
#include "miniblk/main-loop.h"
#include "images/qcow2.h"

#define CLUSTER_BYTES_DEFAULT 65536
#define REFCOUNT_BITS_DEFAULT 16

const char *const qcow2_create_option_names[] = {
    "backing_file", "backing_fmt", "cluster_size", "compat", "compression_type",
    "data_file", "data_file_raw", "encryption", "encrypt.format", "encrypt.key-secret",
    "extended_l2", "extent_size_hint", "lazy_refcounts", "nocow", "preallocation",
    "refcount_bits", "size", NULL
};

typedef struct Qcow2CreateOptions {
    uint64_t size, cluster_bytes, refcount_bits;
    uint32_t version;
    char *backing_file, *backing_fmt;
    char *data_file;            /* name, recorded as it is; NULL: none */
    bool data_file_raw, extended_l2;
    bool lazy_refcounts;
    int compression, prealloc;
    QDict *file;                /* options for making the file */
} Qcow2CreateOptions;

static const char *const prealloc_names[] = { "off", "metadata", "falloc", "full", NULL };
static const char *const compression_names[] = { "zlib", "zstd", NULL };
static const char *const compat_names[] = { "0.10", "1.1", "v2", "v3", NULL };

static void create_options_free(Qcow2CreateOptions *o)
{
    g_free(o->backing_file);
    g_free(o->backing_fmt);
    g_free(o->data_file);
    json_decref(o->file);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Qcow2CreateOptions, create_options_free)

/* ---- options ----------------------------------------------------------------------- */

static bool take_enum(QDict *opts, const char *key, const char *shown,
                      const char *const *names, int *value, Error **errp)
{
    g_autofree char *s = NULL;

    if (!bdrv_opt_str(opts, key, &s, errp)) {
        return false;
    }
    for (int i = 0; s && names[i]; i++) {
        if (strcmp(names[i], s) == 0) {
            *value = i;
            return true;
        }
    }
    if (s) {
        error_setg(errp, "Parameter '%s' does not accept value '%s'", shown, s);
        return false;
    }
    return true;
}

static bool take_number(QDict *opts, const char *key, uint64_t *value, Error **errp)
{
    json_t *v = json_object_get(opts, key);
    const char *text = json_string_value(v);
    guint64 n;

    if (json_is_integer(v) && json_integer_value(v) >= 0) {
        *value = json_integer_value(v);
    } else if (text && g_ascii_string_to_unsigned(text, 10, 0, UINT64_MAX, &n, NULL)) {
        *value = n;
    } else if (v) {
        error_setg(errp, "Parameter '%s' expects a number", key);
        return false;
    }
    qdict_del(opts, key);
    return true;
}

/* What we know but cannot do is refused by name. */
static bool refuse_unsupported(QDict *opts, Error **errp)
{
    bool encryption = false;

    if (!bdrv_opt_bool(opts, "encryption", &encryption, errp)) {
        return false;
    }
    if (encryption || qdict_haskey(opts, "encrypt.format") ||
               qdict_haskey(opts, "encrypt.key-secret")) {
        error_setg(errp, "Encrypted qcow2 images are not supported");
    } else {
        return true;
    }
    return false;
}

static void move_key(QDict *from, QDict *to, const char *key)
{
    json_t *v = json_object_get(from, key);

    if (v) {
        json_object_set(to, key, v);
        qdict_del(from, key);
    }
}

static bool take_options(QDict *opts, Qcow2CreateOptions *o, Error **errp)
{
    int compat = 1;

    o->cluster_bytes = CLUSTER_BYTES_DEFAULT;
    o->refcount_bits = REFCOUNT_BITS_DEFAULT;
    if (!refuse_unsupported(opts, errp) ||
        !bdrv_opt_size(opts, "size", &o->size, errp) ||
        !bdrv_opt_size(opts, "cluster_size", &o->cluster_bytes, errp) ||
        !take_number(opts, "refcount_bits", &o->refcount_bits, errp) ||
        !bdrv_opt_bool(opts, "lazy_refcounts", &o->lazy_refcounts, errp) ||
        !bdrv_opt_bool(opts, "extended_l2", &o->extended_l2, errp) ||
        !bdrv_opt_str(opts, "data_file", &o->data_file, errp) ||
        !bdrv_opt_bool(opts, "data_file_raw", &o->data_file_raw, errp) ||
        !bdrv_opt_str(opts, "backing_file", &o->backing_file, errp) ||
        !bdrv_opt_str(opts, "backing_fmt", &o->backing_fmt, errp) ||
        !take_enum(opts, "compat", "version", compat_names, &compat, errp) ||
        !take_enum(opts, "compression_type", "compression-type", compression_names,
                   &o->compression, errp) ||
        !take_enum(opts, "preallocation", "preallocation", prealloc_names, &o->prealloc,
                   errp)) {
        return false;
    }
    o->version = compat % 2 ? 3 : 2;
    o->file = qdict_new();
    move_key(opts, o->file, "nocow");
    move_key(opts, o->file, "extent_size_hint");
    return true;
}

static bool check_version_options(const Qcow2CreateOptions *o, Error **errp)
{
    if (o->version >= 3) {
        return true;
    }
    if (o->refcount_bits != 16) {
        error_setg(errp, "Different refcount widths than 16 bits require compatibility "
                   "level 1.1 or above (use version=v3 or greater)");
    } else if (o->lazy_refcounts) {
        error_setg(errp, "Lazy refcounts only supported with compatibility level 1.1 and "
                   "above (use version=v3 or greater)");
    } else if (o->data_file) {
        error_setg(errp, "External data files are only supported with compatibility level 1.1 "
                   "and above (use version=v3 or greater)");
    } else if (o->extended_l2) {
        error_setg(errp, "Extended L2 entries are only supported with compatibility level 1.1 "
                   "and above (use version=v3 or greater)");
    } else if (o->compression != QCOW2_ZLIB) {
        error_setg(errp, "Non-zlib compression type is only supported with compatibility "
                   "level 1.1 and above (use version=v3 or greater)");
    } else {
        return true;
    }
    return false;
}

static bool is_power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static bool check_data_file(const Qcow2CreateOptions *o, Error **errp)
{
    if (o->data_file_raw && !o->data_file) {
        error_setg(errp, "data-file-raw requires data-file");
    } else if (o->data_file_raw && o->backing_file) {
        error_setg(errp, "Backing file and data-file-raw cannot be used at the same time");
    } else if (o->data_file && strlen(o->data_file) > QCOW2_BACKING_NAME_BYTES_MAX) {
        error_setg(errp, "Data file name too long");
    } else {
        return true;
    }
    return false;
}

/* The fields of the header that follow from options alone. */
static Qcow2Header header_for(const Qcow2CreateOptions *o)
{
    return (Qcow2Header){
        .version = o->version, .cluster_bits = g_bit_nth_lsf(o->cluster_bytes, -1),
        .refcount_order = g_bit_nth_lsf(o->refcount_bits, -1),
        .header_length = o->version >= 3 ? 112 : QCOW2_V2_HEADER_BYTES,
        .compat = o->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0,
        .incompat = (o->compression ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                    (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                    (o->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0),
        .autoclear = o->data_file_raw ? QCOW2_AUTOCLEAR_DATA_RAW : 0,
        .compression_type = o->compression,
    };
}

static int check_options(Qcow2CreateOptions *o, Error **errp)
{
    if (!is_power_of_two(o->cluster_bytes) ||
        o->cluster_bytes < 1u << QCOW2_CLUSTER_BITS_MIN ||
        o->cluster_bytes > 1u << QCOW2_CLUSTER_BITS_MAX) {
        error_setg(errp, "Cluster size must be a power of two between %u and %uk",
                   1u << QCOW2_CLUSTER_BITS_MIN, 1u << (QCOW2_CLUSTER_BITS_MAX - 10));
        return -EINVAL;
    }
    if (!is_power_of_two(o->refcount_bits) || o->refcount_bits > 64) {
        error_setg(errp, "Refcount width must be a power of two and may not exceed 64 bits");
        return -EINVAL;
    }
    if (o->extended_l2 && o->cluster_bytes < 1u << QCOW2_EXTL2_CLUSTER_BITS_MIN) {
        error_setg(errp, "Extended L2 entries are only supported with cluster sizes of at "
                   "least %u bytes", 1u << QCOW2_EXTL2_CLUSTER_BITS_MIN);
        return -EINVAL;
    }
    if (!check_version_options(o, errp)) {
        return -EINVAL;
    }
    if (!qcow2_compression_supported(o->compression)) {
        error_setg(errp, "This build has no support for compression type '%s'",
                   compression_names[o->compression]);
        return -ENOTSUP;
    }
    if (o->backing_file && !*o->backing_file) {
        g_clear_pointer(&o->backing_file, g_free);
    }
    if (!check_data_file(o, errp)) {
        return -EINVAL;
    }
    if (o->data_file_raw && o->prealloc == PREALLOC_MODE_OFF) {
        /* What the data file shows must be mapped, all of it. */
        o->prealloc = PREALLOC_MODE_METADATA;
    }
    if (o->backing_fmt && !o->backing_file) {
        error_setg(errp, "Backing format cannot be used without backing file");
        return -EINVAL;
    }
    if (o->backing_fmt && !bdrv_find_format(o->backing_fmt)) {
        error_setg(errp, "Parameter 'backing-fmt' does not accept value '%s'", o->backing_fmt);
        return -EINVAL;
    }
    if (o->backing_file && o->prealloc != PREALLOC_MODE_OFF && !o->extended_l2) {
        error_setg(errp, "Backing file and preallocation can only be used at the same time if "
                   "extended_l2 is on");
        return -EINVAL;
    }
    if ((o->backing_file && strlen(o->backing_file) > QCOW2_BACKING_NAME_BYTES_MAX) ||
        (o->backing_fmt && strlen(o->backing_fmt) > 15)) {
        error_setg(errp, "Backing file name or format name too long");
        return -EINVAL;
    }
    Qcow2Header h = header_for(o);
    if (o->size > BDRV_MAX_LENGTH - BDRV_SECTOR_SIZE ||
        qcow2_l1_entries_for(&h, o->size) > QCOW2_L1_BYTES_MAX / 8) {
        error_setg(errp, "The image size is too large for file format 'qcow2' (try using a "
                   "larger cluster size)");
        return -EFBIG;
    }
    o->size = ROUND_UP(o->size, BDRV_SECTOR_SIZE);
    return 0;
}

/* ---- what a new image consists of -------------------------------------------------- */

/* In clusters: header, refcount table, refcount blocks, L1 table. */
typedef struct Layout {
    uint64_t table, blocks, l1, end;
} Layout;

static Layout plan_layout(const Qcow2CreateOptions *o, uint64_t l1_entries)
{
    uint64_t per_block = o->cluster_bytes * 8 / o->refcount_bits;
    Layout y = { .table = 1, .blocks = 1 };

    y.l1 = DIV_ROUND_UP(l1_entries * 8, o->cluster_bytes);
    for (;;) {
        y.end = 1 + y.table + y.blocks + y.l1;
        uint64_t blocks = DIV_ROUND_UP(y.end, per_block);
        uint64_t table = DIV_ROUND_UP(blocks * 8, o->cluster_bytes);
        if (blocks <= y.blocks && table <= y.table) {
            return y;
        }
        y.blocks = MAX(blocks, y.blocks);
        y.table = MAX(table, y.table);
    }
}

static int write_refcounts(BlockBackend *blk, const Qcow2CreateOptions *o, const Layout *y)
{
    uint32_t order = g_bit_nth_lsf(o->refcount_bits, -1);
    size_t table_bytes = y->table * o->cluster_bytes;
    size_t block_bytes = y->blocks * o->cluster_bytes;
    uint8_t *buf = g_try_malloc0(table_bytes + block_bytes);

    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < y->blocks; i++) {
        ((uint64_t *)buf)[i] = GUINT64_TO_BE((1 + y->table + i) * o->cluster_bytes);
    }
    for (uint64_t c = 0; c < y->end; c++) {
        /* Blocks lie in a row, so one index runs through all of them. */
        qcow2_refcount_store(buf + table_bytes, order, c, 1);
    }
    int ret = blk_pwrite(blk, o->cluster_bytes, table_bytes + block_bytes, buf, 0);
    g_free(buf);
    return ret;
}

static int write_header(BlockBackend *blk, const Qcow2CreateOptions *o, const Layout *y,
                        uint64_t size, uint64_t l1_entries, Error **errp)
{
    Qcow2Header h = header_for(o);
    Qcow2HeaderNames names = { .backing_file = o->backing_file,
                               .backing_fmt = o->backing_fmt,
                               .data_file = o->data_file };
    size_t bytes;
    int ret;

    h.size = size;
    h.l1_size = l1_entries;
    h.l1_offset = (1 + y->table + y->blocks) * o->cluster_bytes;
    h.reftable_offset = o->cluster_bytes;
    h.reftable_clusters = y->table;

    uint8_t *b = qcow2_header_build(&h, NULL, &names, &bytes, &ret);
    if (!b) {
        /* 512-byte clusters have no room for the names of features. */
        g_autoptr(GByteArray) none = g_byte_array_new();
        b = qcow2_header_build(&h, none, &names, &bytes, &ret);
    }
    if (!b) {
        error_setg(errp, "Could not write qcow2 header: it does not fit into one cluster");
        return ret;
    }
    ret = blk_pwrite(blk, 0, bytes, b, 0);
    ret = ret < 0 ? ret : blk_flush(blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write qcow2 header");
    }
    g_free(b);
    return ret;
}

/* Make room, on the disk too, for the first BYTES of the image, all zeroes. */
static int make_room(BlockBackend *blk, uint64_t bytes, Error **errp)
{
    int ret = blk_truncate(blk, bytes, false, PREALLOC_MODE_OFF, 0, errp);

    if (ret >= 0) {
        ret = blk_pwrite_zeroes(blk, 0, bytes, 0);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not clear the image file");
        }
    }
    return ret;
}

/* Whether the image is made empty and grows to its size: with what it takes in other files. */
static bool grows_later(const Qcow2CreateOptions *o)
{
    return o->prealloc != PREALLOC_MODE_OFF || o->data_file;
}

/* Write an empty image to the empty file BLK. */
static int format_file(BlockBackend *blk, const Qcow2CreateOptions *o, Error **errp)
{
    Qcow2Header h = header_for(o);
    /* One entry at least: an L1 table without entries would own no cluster. */
    uint64_t l1_entries = MAX(qcow2_l1_entries_for(&h, o->size), 1);
    uint64_t size = grows_later(o) ? 0 : o->size;
    Layout y = plan_layout(o, l1_entries);

    int ret = make_room(blk, y.end * o->cluster_bytes, errp);
    if (ret < 0) {
        return ret;
    }
    /* The header comes last: until then this is no qcow2 image. */
    ret = write_refcounts(blk, o, &y);
    ret = ret < 0 ? ret : blk_flush(blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write the tables of the qcow2 image");
        return ret;
    }
    return write_header(blk, o, &y, size, l1_entries, errp);
}

/* ---- creating ---------------------------------------------------------------------- */

typedef struct Create {
    const char *filename;
    Qcow2CreateOptions *o;
    Error **errp;
    Coroutine *co;
    int ret;
} Create;

/* A file with name NAME and create options OPTIONS, of which some are only hints. */
static int make_file(const char *name, QDict *options, Error **errp)
{
    BlockDriver *protocol = bdrv_find_protocol(name, true, errp);

    if (!protocol) {
        return -EINVAL;
    }
    /* Only hints that this protocol knows. */
    for (void *iter = json_object_iter(options); iter; ) {
        const char *key = json_object_iter_key(iter);
        iter = json_object_iter_next(options, iter);
        if (!protocol->create_opts || !g_strv_contains(protocol->create_opts, key)) {
            qdict_del(options, key);
        }
    }
    return bdrv_create(protocol, name, options, errp);
}

/* The data file is created empty and grows with the disk. */
static int make_data_file(Create *c, Error **errp)
{
    g_autoptr(json_t) options = json_deep_copy(c->o->file);

    return c->o->data_file ? make_file(c->o->data_file, options, errp) : 0;
}

static int grow_image(Create *c, Error **errp)
{
    QDict *options = qdict_new();
    BlockBackend *blk;

    qdict_put_str(options, "driver", "qcow2");
    blk = blk_new_open(c->filename, NULL, options,
                       BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_NO_BACKING, errp);
    if (!blk) {
        return -EIO;
    }
    int ret = blk_truncate(blk, c->o->size, false, c->o->prealloc, 0, errp);
    if (ret >= 0) {
        ret = blk_flush(blk);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not flush the image");
        }
    }
    blk_unref(blk);
    return ret;
}

/* Half an image is of no use, and may fill the file system. */
static void forget_file(const char *name)
{
    BlockBackend *blk = blk_new_open(name, NULL, NULL, BDRV_O_RDWR | BDRV_O_PROTOCOL, NULL);

    if (blk) {
        bdrv_co_delete_file(blk_bs(blk), NULL);
        blk_unref(blk);
    }
}

static bool file_exists(const char *name)
{
    QDict *options = qdict_new();

    qdict_put_bool(options, "force-share", true);
    BlockDriverState *bs = bdrv_open(name, NULL, options, BDRV_O_PROTOCOL | BDRV_O_NO_IO,
                                     NULL);
    if (bs) {
        bdrv_unref(bs);
    }
    return bs;
}

static int make_image(Create *c, Error **errp)
{
    int ret = make_file(c->filename, c->o->file, errp);

    if (ret < 0) {
        return ret;
    }
    BlockBackend *blk = blk_new_open(c->filename, NULL, NULL,
                                     BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_PROTOCOL, errp);
    if (!blk) {
        return -EIO;
    }
    ret = format_file(blk, c->o, errp);
    blk_unref(blk);
    if (ret >= 0 && grows_later(c->o)) {
        ret = grow_image(c, errp);
    }
    if (ret < 0) {
        forget_file(c->filename);
    }
    return ret;
}

static int create_image(Create *c, Error **errp)
{
    const char *data_file = c->o->data_file;
    bool new_data_file = data_file && !file_exists(data_file);
    int ret = make_data_file(c, errp);

    if (ret < 0) {
        return ret;
    }
    ret = make_image(c, errp);
    if (ret < 0 && new_data_file) {
        forget_file(data_file);
    }
    return ret;
}

static void create_bh(void *opaque)
{
    Create *c = opaque;

    c->ret = create_image(c, c->errp);
    aio_co_wake(c->co);
}

int coroutine_fn qcow2_co_create_opts(BlockDriver *drv, const char *filename, QDict *opts,
                                      Error **errp)
{
    g_auto(Qcow2CreateOptions) o = { 0 };
    Create c = { filename, &o, errp, qemu_coroutine_self() };

    if (!take_options(opts, &o, errp)) {
        return -EINVAL;
    }
    int ret = check_options(&o, errp);
    if (ret < 0) {
        return ret;
    }
    /* Opening nodes is work for the main loop, outside of coroutines. */
    aio_bh_schedule_oneshot(qemu_get_aio_context(), create_bh, &c);
    qemu_coroutine_yield();
    return c.ret;
}
