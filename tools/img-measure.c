/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img measure: how much room a new image will take. */
#include "miniblk/osdep.h"
#include "tools/img.h"

#define STEP_BYTES_MAX (1LL << 30)
/* Table entries of a qcow2 image; those of L2 tables with subclusters. */
#define TABLE_ENTRY_BYTES 8
#define EXTENDED_ENTRY_BYTES 16
/* An entry of the directory of bitmaps, without the name. */
#define BITMAP_ENTRY_BYTES 24
#define CLUSTER_BYTES_MIN 512
#define CLUSTER_BYTES_MAX (2 * 1024 * 1024)
#define SUBCLUSTERED_BYTES_MIN 16384
#define REFCOUNT_BITS_V2 16
#define REFCOUNT_BITS_MAX 64
#define L1_BYTES_MAX (32 * 1024 * 1024)

typedef struct Measure {
    uint64_t required_bytes, full_bytes;
    bool has_bitmaps;           /* source and target could have some */
    uint64_t bitmap_bytes;      /* what they take */
} Measure;

/* What the create options of a qcow2 image say about its metadata. */
typedef struct Shape {
    uint64_t cluster_bytes, l2_entry_bytes, refcount_bits;
    bool v2;
    bool whole;                 /* the file has room for everything from the beginning on */
} Shape;

/*
 * Clusters of a qcow2 image of CLUSTERS guest clusters that are all allocated: everything
 * but the data. Refcounts also count the clusters that hold refcounts, so that is a fixed
 * point; it is reached from below in a few steps.
 */
static uint64_t metadata_clusters(const Shape *shape, uint64_t clusters)
{
    uint64_t entries = shape->cluster_bytes / TABLE_ENTRY_BYTES;
    uint64_t refcounts = shape->cluster_bytes * 8 / shape->refcount_bits;
    uint64_t l2 = DIV_ROUND_UP(clusters, shape->cluster_bytes / shape->l2_entry_bytes);
    uint64_t l1 = DIV_ROUND_UP(l2, entries);
    uint64_t fixed = 1 + l1 + l2;       /* with the header */
    uint64_t blocks = 1, table = 1;

    for (;;) {
        uint64_t total = fixed + clusters + blocks + table;
        uint64_t need_blocks = DIV_ROUND_UP(total, refcounts);
        uint64_t need_table = DIV_ROUND_UP(need_blocks, entries);
        if (need_blocks <= blocks && need_table <= table) {
            return fixed + blocks + table;
        }
        blocks = MAX(blocks, need_blocks);
        table = MAX(table, need_table);
    }
}

/*
 * Bytes of guest clusters that the image behind BLK has data in. 0 or -errno.
 *
 *     extents    |dddddd|  zero   |ddd|     each is rounded outwards to clusters, and a
 *     clusters   |       |       |       |  cluster that two of them touch counts once
 */
static int count_data(BlockBackend *blk, int64_t length, int64_t cluster_bytes,
                      uint64_t *data_bytes)
{
    int64_t counted_to = 0;

    *data_bytes = 0;
    for (int64_t offset = 0, alike; offset < length; offset += alike) {
        BlockDriverState *file;
        int64_t map;
        int ret = bdrv_block_status(blk_bs(blk), offset, MIN(length - offset, STEP_BYTES_MAX),
                                    &alike, &map, &file);
        if (ret < 0 || alike <= 0) {
            return ret < 0 ? ret : -EIO;
        }
        if (!(ret & BDRV_BLOCK_ZERO)) {
            int64_t from = MAX(QEMU_ALIGN_DOWN(offset, cluster_bytes), counted_to);
            int64_t to = QEMU_ALIGN_UP(offset + alike, cluster_bytes);
            *data_bytes += to - from;
            counted_to = to;
        }
    }
    return 0;
}

/* Bytes of qcow2 clusters that the persistent bitmaps of BS take at most. */
static uint64_t measure_bitmaps(BlockDriverState *bs, uint64_t cluster_bytes)
{
    uint64_t clusters = 0, directory_bytes = 0;

    for (BdrvDirtyBitmap *bitmap = bdrv_dirty_bitmap_first(bs); bitmap;
         bitmap = bdrv_dirty_bitmap_next(bitmap)) {
        if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
            uint64_t bits = DIV_ROUND_UP(bdrv_dirty_bitmap_size(bitmap),
                                         (int64_t)bdrv_dirty_bitmap_granularity(bitmap));
            uint64_t data = DIV_ROUND_UP(bits, cluster_bytes * 8);
            clusters += data + DIV_ROUND_UP(data * TABLE_ENTRY_BYTES, cluster_bytes);
            directory_bytes += ROUND_UP(BITMAP_ENTRY_BYTES +
                                        strlen(bdrv_dirty_bitmap_name(bitmap)), 8);
        }
    }
    return (clusters + DIV_ROUND_UP(directory_bytes, cluster_bytes)) * cluster_bytes;
}

static uint64_t option_number(const QDict *opts, const char *name, uint64_t fallback)
{
    const char *text = qdict_get_try_str(opts, name);

    return text ? g_ascii_strtoull(text, NULL, 10) : fallback;
}

static bool has_value(const QDict *opts, const char *name, const char *value)
{
    return !g_strcmp0(qdict_get_try_str(opts, name), value);
}

/* Where creating such an image is refused, so is measuring it. */
static bool parse_shape(const QDict *opts, Shape *shape, Error **errp)
{
    static const char *const versions[] = { "0.10", "1.1", NULL };
    static const char *const preallocs[] = { "off", "metadata", "falloc", "full", NULL };
    const char *compat = qdict_get_try_str(opts, "compat");
    const char *prealloc = qdict_get_try_str(opts, "preallocation");
    const char *word = qdict_get_try_str(opts, "extended_l2");
    bool extended = false;

    if (word && !qapi_bool_parse("extended_l2", word, &extended, errp)) {
        return false;
    }
    shape->cluster_bytes = option_number(opts, "cluster_size", 65536);
    shape->refcount_bits = option_number(opts, "refcount_bits", REFCOUNT_BITS_V2);
    shape->l2_entry_bytes = extended ? EXTENDED_ENTRY_BYTES : TABLE_ENTRY_BYTES;
    shape->v2 = has_value(opts, "compat", "0.10");
    shape->whole = has_value(opts, "preallocation", "full") ||
                   has_value(opts, "preallocation", "falloc");
    if (shape->cluster_bytes < CLUSTER_BYTES_MIN || shape->cluster_bytes > CLUSTER_BYTES_MAX ||
        (shape->cluster_bytes & (shape->cluster_bytes - 1))) {
        error_setg(errp, "Cluster size must be a power of two between %d and %dk",
                   CLUSTER_BYTES_MIN, CLUSTER_BYTES_MAX / 1024);
    } else if (extended && shape->cluster_bytes < SUBCLUSTERED_BYTES_MIN) {
        error_setg(errp, "Extended L2 entries are only supported with cluster sizes of at "
                   "least %d bytes", SUBCLUSTERED_BYTES_MIN);
    } else if (compat && !g_strv_contains(versions, compat)) {
        error_setg(errp, "Invalid compatibility level: '%s'", compat);
    } else if (shape->refcount_bits < 1 || shape->refcount_bits > REFCOUNT_BITS_MAX ||
               (shape->refcount_bits & (shape->refcount_bits - 1))) {
        error_setg(errp, "Refcount width must be a power of two and may not exceed %d bits",
                   REFCOUNT_BITS_MAX);
    } else if (shape->v2 && shape->refcount_bits != REFCOUNT_BITS_V2) {
        error_setg(errp, "Different refcount widths than %d bits require compatibility level "
                   "1.1 or above (use compat=1.1 or greater)", REFCOUNT_BITS_V2);
    } else if (prealloc && !g_strv_contains(preallocs, prealloc)) {
        error_setg(errp, "invalid parameter value: %s", prealloc);
    } else if (has_value(opts, "encrypt.format", "luks")) {
        error_setg(errp, "Encrypted qcow2 images are not supported");
    } else {
        return true;
    }
    return false;
}

static bool measure_qcow2(BlockBackend *blk, int64_t length, const QDict *opts, Measure *out,
                          Error **errp)
{
    uint64_t data_bytes = 0;
    Shape shape;

    if (!parse_shape(opts, &shape, errp)) {
        return false;
    }
    uint64_t clusters = DIV_ROUND_UP((uint64_t)length, shape.cluster_bytes);
    uint64_t l1_entry_maps_bytes = shape.cluster_bytes / shape.l2_entry_bytes *
                                   shape.cluster_bytes;
    if (DIV_ROUND_UP((uint64_t)length, l1_entry_maps_bytes) * TABLE_ENTRY_BYTES >
        L1_BYTES_MAX) {
        error_setg(errp, "The image size is too large (try using a larger cluster size)");
        return false;
    }
    uint64_t metadata_bytes = metadata_clusters(&shape, clusters) * shape.cluster_bytes;
    out->full_bytes = metadata_bytes + clusters * shape.cluster_bytes;
    out->has_bitmaps = blk && bdrv_supports_persistent_dirty_bitmap(blk_bs(blk)) && !shape.v2;
    if (out->has_bitmaps) {
        out->bitmap_bytes = measure_bitmaps(blk_bs(blk), shape.cluster_bytes);
    }
    /* What a backing file will save of the image is not known. */
    if (shape.whole || (blk && qdict_haskey(opts, "backing_file"))) {
        out->required_bytes = out->full_bytes;
        return true;
    }
    if (blk) {
        int ret = count_data(blk, length, (int64_t)shape.cluster_bytes, &data_bytes);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Unable to get block status");
            return false;
        }
    }
    out->required_bytes = metadata_bytes + data_bytes;
    return true;
}

static bool measure(BlockBackend *blk, int64_t length, const char *format,
                    const char *options, Measure *out)
{
    Error *err = NULL;
    BlockDriver *drv = bdrv_find_format(format);
    bool ok = true;

    if (!drv) {
        error_report("Unknown file format '%s'", format);
        return false;
    }
    if (!drv->create_opts) {
        error_report("Format driver '%s' does not support image creation", format);
        return false;
    }
    QDict *opts = img_parse_create_options(drv, options, &err);
    if (!opts) {
        error_report_err(err);
        error_report("Invalid options for file format '%s'", format);
        return false;
    }
    if (!strcmp(format, "qcow2")) {
        ok = measure_qcow2(blk, length, opts, out, &err);
    } else if (!strcmp(format, "raw")) {
        out->required_bytes = out->full_bytes = ROUND_UP(length, BDRV_SECTOR_SIZE);
    } else {
        error_setg(&err, "Block driver '%s' does not support size measurement", format);
        ok = false;
    }
    qobject_unref(opts);
    if (!ok) {
        error_report_err(err);
    }
    return ok;
}

static void print_measure(const Measure *m, ImgOutput output)
{
    if (output == IMG_OUTPUT_HUMAN) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
               m->required_bytes, m->full_bytes);
        if (m->has_bitmaps) {
            printf("bitmaps size: %" PRIu64 "\n", m->bitmap_bytes);
        }
        return;
    }
    json_t *value = json_object();
    if (m->has_bitmaps) {
        json_object_set_new(value, "bitmaps", json_integer((json_int_t)m->bitmap_bytes));
    }
    json_object_set_new(value, "required", json_integer((json_int_t)m->required_bytes));
    json_object_set_new(value, "fully-allocated", json_integer((json_int_t)m->full_bytes));
    img_print_json(value);
    json_decref(value);
}

/* Whether it is said once what to measure: an image, or a LENGTH (-1: not given). */
static bool check_source(const ImgSource *src, const char *snapshot, int64_t length)
{
    if (!src->name && (src->image_opts || src->format || snapshot)) {
        error_report("--image-opts, -f, and -l require a filename argument.");
        return false;
    }
    if (!src->name && length < 0) {
        error_report("Either --size N or one filename must be specified.");
        return false;
    }
    if (src->name && length >= 0) {
        error_report("--size N cannot be used together with a filename.");
        return false;
    }
    return true;
}

typedef struct MeasureArgs {
    ImgSource src;
    ImgOutput output;
    const char *format, *snapshot;
    char *options;              /* the -o lists, joined; owned */
    int64_t length;             /* bytes; -1: not given */
} MeasureArgs;

static bool take_option(MeasureArgs *args, int c)
{
    switch (c) {
    case 'f': args->src.format = optarg; break;
    case 'l': args->snapshot = optarg; break;
    case 'O': args->format = optarg; break;
    case 'U': break;
    case 'o':
        return img_add_options(&args->options, optarg);
    case IMG_OPT_OUTPUT:
        return img_parse_output(optarg, &args->output);
    case IMG_OPT_IMAGE_OPTS:
        args->src.image_opts = true;
        break;
    case IMG_OPT_SIZE:
        args->length = img_parse_size("image size", optarg, 0, INT64_MAX);
        return args->length >= 0;
    }
    return true;
}

static bool run(MeasureArgs *args)
{
    BlockBackend *blk = NULL;
    Measure result = { 0 };
    bool ok = true;

    if (args->src.name) {
        blk = img_open(&args->src, 0);
        ok = blk && (!args->snapshot || img_load_snapshot(blk_bs(blk), args->snapshot));
        args->length = ok ? img_length(blk, args->src.name) : -1;
    }
    ok = args->length >= 0 &&
         measure(blk, args->length, args->format, args->options, &result);
    if (ok) {
        print_measure(&result, args->output);
    }
    blk_unref(blk);
    return ok;
}

int img_measure(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { "output", required_argument, NULL, IMG_OPT_OUTPUT },
        { "size", required_argument, NULL, IMG_OPT_SIZE },
        { NULL },
    };
    /* As for info: an estimate disturbs nobody. */
    MeasureArgs args = { .src.look = true, .format = "raw", .length = -1 };
    bool ok = true;
    int c;

    while (ok && (c = img_getopt(argc, argv, "f:l:O:o:U", longopts)) != -1) {
        ok = take_option(&args, c);
    }
    args.src.name = optind < argc ? argv[optind] : NULL;
    if (ok && argc - optind > 1) {
        error_report("At most one filename argument is allowed.");
        ok = false;
    }
    ok = ok && check_source(&args.src, args.snapshot, args.length) &&
         !img_source_conflict(&args.src) && run(&args);
    g_free(args.options);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
