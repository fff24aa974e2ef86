/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img convert: command line, sources and target; the copying is img-convert-copy.c. */
#include "miniblk/osdep.h"
#include "tools/img-convert.h"

#define SPARSE_BYTES_DEFAULT 4096
#define SPARSE_BYTES_MAX (16 * 1024 * 1024)

typedef struct ConvertArgs {
    ImgSource source;           /* how every source is opened; the name is of the last one */
    const char *target_name;
    const char *target_format;
    bool target_image_opts;
    const char *source_cache, *target_cache;
    char *options;              /* the -o lists, joined; owned */
    const char *backing_file, *backing_format;
    const char *snapshot;
    bool skip_create, target_is_zero, sparse_given;
    bool bitmaps, skip_broken_bitmaps;
    ImgProgress progress;
    ConvertPlan plan;
} ConvertArgs;

/* ---- command line ----------------------------------------------------------------- */

static bool parse_sparse(ConvertArgs *args, const char *value)
{
    int64_t bytes = img_parse_size("buffer size for sparse output", value, 0, INT64_MAX);

    if (bytes < 0) {
        return false;
    }
    if (bytes % BDRV_SECTOR_SIZE || bytes > SPARSE_BYTES_MAX) {
        error_report("Invalid buffer size for sparse output specified. Valid sizes are "
                     "multiples of %llu up to %d. Select 0 to disable sparse detection "
                     "(fully allocates output).", BDRV_SECTOR_SIZE, SPARSE_BYTES_MAX);
        return false;
    }
    args->plan.sparse_bytes = bytes;
    args->sparse_given = true;
    return true;
}

static bool parse_coroutines(ConvertArgs *args, const char *value)
{
    char *end;
    long count = strtol(value, &end, 0);

    if (end == value || *end || count < 1 || count > CONVERT_COROUTINES_MAX) {
        error_report("Invalid number of coroutines. Allowed number of coroutines is between "
                     "1 and %d", CONVERT_COROUTINES_MAX);
        return false;
    }
    args->plan.coroutine_count = (int)count;
    return true;
}

/* False when an option's value is bad and a message was printed. */
static bool parse_option(ConvertArgs *args, int c)
{
    ConvertPlan *plan = &args->plan;

    switch (c) {
    case 'B': args->backing_file = optarg; break;
    case 'C': plan->copy_offload = true; break;
    case 'F': args->backing_format = optarg; break;
    case 'O': args->target_format = optarg; break;
    case 'S': return parse_sparse(args, optarg);
    case 'T': args->source_cache = optarg; break;
    case 'U': args->source.force_share = true; break;
    case 'W': plan->in_order = false; break;
    case 'c': plan->compressed = true; break;
    case 'f': args->source.format = optarg; break;
    case 'l': args->snapshot = optarg; break;
    case 'm': return parse_coroutines(args, optarg);
    case 'n': args->skip_create = true; break;
    case 'o': return img_add_options(&args->options, optarg);
    case 'p': args->progress = IMG_PROGRESS_HUMAN; break;
    case IMG_OPT_PROGRESS: return img_parse_progress(optarg, &args->progress);
    case 'q': plan->quiet = true; break;
    case 'r':
        plan->rate_bytes = img_parse_size("rate limit", optarg, 0, INT64_MAX);
        return plan->rate_bytes >= 0;
    case 't': args->target_cache = optarg; break;
    case IMG_OPT_IMAGE_OPTS: args->source.image_opts = true; break;
    case IMG_OPT_TARGET_IMAGE_OPTS: args->target_image_opts = true; break;
    case IMG_OPT_TARGET_IS_ZERO: args->target_is_zero = true; break;
    case IMG_OPT_SALVAGE: plan->salvage = true; break;
    case IMG_OPT_BITMAPS: args->bitmaps = true; break;
    case IMG_OPT_SKIP_BROKEN_BITMAPS: args->skip_broken_bitmaps = true; break;
    }
    return true;
}

/* Options that exclude or need each other; NULL when all is well. */
static const char *find_conflict(const ConvertArgs *args)
{
    const ConvertPlan *plan = &args->plan;

    if (args->skip_broken_bitmaps && !args->bitmaps) {
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    }
    if (plan->copy_offload && plan->compressed) {
        return "Cannot enable copy offloading when -c is used";
    }
    if (plan->copy_offload && args->sparse_given) {
        return "Cannot enable copy offloading when -S is used";
    }
    if (plan->copy_offload && plan->salvage) {
        return "Cannot use copy offloading in salvaging mode";
    }
    if (args->target_image_opts && !args->skip_create) {
        return "--target-image-opts requires use of -n flag";
    }
    if (args->skip_create && args->options) {
        return "-o has no effect when skipping image creation";
    }
    if (args->target_is_zero && !args->skip_create) {
        return "--target-is-zero requires use of -n flag";
    }
    if (args->target_is_zero && args->backing_file) {
        return "Cannot use --target-is-zero when the destination image has a backing file";
    }
    if ((args->source.image_opts && args->source.format) ||
        (args->target_image_opts && args->target_format)) {
        return "--image-opts and --format are mutually exclusive";
    }
    return NULL;
}

/* ---- sources ---------------------------------------------------------------------- */

static bool open_sources(ConvertArgs *args, char **names, int count)
{
    ConvertPlan *plan = &args->plan;
    bool unused;
    int flags = 0;

    if (!img_parse_cache(args->source_cache, &flags, &unused)) {
        error_report("Invalid source cache option: %s", args->source_cache);
        return false;
    }
    if (!args->source.force_share) {
        flags |= BDRV_O_NO_SHARE;       /* a copy of what changes meanwhile is no image */
    }
    plan->sources = g_new0(ConvertSource, count);
    for (int i = 0; i < count; i++) {
        ConvertSource *src = &plan->sources[plan->source_count];
        args->source.name = src->name = names[i];
        src->blk = img_open(&args->source, flags);
        if (!src->blk) {
            return false;
        }
        plan->source_count++;
        if (args->snapshot && count > 1) {
            error_report("No support for concatenating multiple snapshot");
            return false;
        }
        if (args->snapshot && !img_load_snapshot(blk_bs(src->blk), args->snapshot)) {
            return false;
        }
        src->start = plan->total_bytes;
        src->bytes = img_length(src->blk, src->name);
        if (src->bytes < 0) {
            return false;
        }
        if (src->bytes > BDRV_MAX_LENGTH - plan->total_bytes) {
            error_report("The sources are too large together");
            return false;
        }
        plan->total_bytes += src->bytes;
    }
    return true;
}

/* ---- target ----------------------------------------------------------------------- */

static bool can_compress(const BlockDriver *drv)
{
    return drv->bdrv_co_pwritev_compressed || drv->bdrv_co_pwritev_compressed_part;
}

static bool can_have_backing(const ConvertArgs *args)
{
    if (args->plan.target_has_backing && args->plan.source_count > 1) {
        error_report("Having a backing file for the target makes no sense when concatenating "
                     "multiple input images");
        return false;
    }
    return true;
}

static bool can_copy_bitmaps(const ConvertArgs *args)
{
    if (args->bitmaps && args->plan.source_count > 1) {
        error_report("Copying bitmaps only possible with single source");
        return false;
    }
    return !args->bitmaps || convert_can_copy_bitmaps(blk_bs(args->plan.sources[0].blk),
                                                      args->skip_broken_bitmaps);
}

/* The options for the new image; NULL after a message. */
static QDict *target_options(ConvertArgs *args, BlockDriver *drv)
{
    Error *err = NULL;
    QDict *opts = img_parse_create_options(drv, args->options, &err);

    if (!opts) {
        error_report_err(err);
        return NULL;
    }
    /* The size is that of the sources, whatever -o says. */
    g_autofree char *size = g_strdup_printf("%" PRId64, args->plan.total_bytes);
    qdict_put_str(opts, "size", size);
    if (args->backing_file) {
        if (!img_knows_option(drv, "backing_file")) {
            error_report("Backing file not supported for file format '%s'",
                         drv->format_name);
            goto fail;
        }
        qdict_put_str(opts, "backing_file", args->backing_file);
    }
    if (args->backing_format) {
        if (!img_knows_option(drv, "backing_fmt")) {
            error_report("Backing file format not supported for file format '%s'",
                         drv->format_name);
            goto fail;
        }
        qdict_put_str(opts, "backing_fmt", args->backing_format);
    }
    args->plan.target_has_backing = qdict_haskey(opts, "backing_file");
    if (!can_have_backing(args)) {
        goto fail;
    }
    if (args->plan.target_has_backing && !qdict_haskey(opts, "backing_fmt")) {
        error_report("Use of backing file requires explicit backing format");
        goto fail;
    }
    if (args->plan.compressed) {
        const char *prealloc = qdict_get_try_str(opts, "preallocation");
        if (!can_compress(drv)) {
            error_report("Compression not supported for this file format");
            goto fail;
        }
        if (prealloc && strcmp(prealloc, "off") != 0) {
            error_report("Compression and preallocation not supported at the same time");
            goto fail;
        }
    }
    return opts;

fail:
    qobject_unref(opts);
    return NULL;
}

/*
 * Whether a new image reads as zeroes: a new file does, whatever is in it. On anything else
 * (a disk) only a format does that maps what has been written, and nothing has been.
 */
static bool new_image_is_zero(const BlockDriver *drv, const BlockDriver *proto_drv,
                              const QDict *opts)
{
    const char *prealloc = qdict_get_try_str(opts, "preallocation");

    return !strcmp(proto_drv->format_name, "file") ||
           (drv->supports_backing && (!prealloc || !strcmp(prealloc, "off")));
}

/* Refuse to write to a file that is being read: creating it would empty it first. */
static bool target_is_a_source(const ConvertArgs *args)
{
    for (int i = 0; i < args->plan.source_count; i++) {
        if (img_is_same_file(args->plan.sources[i].blk, args->target_name)) {
            return true;
        }
    }
    return false;
}

static bool create_target(ConvertArgs *args)
{
    ConvertPlan *plan = &args->plan;
    BlockDriver *drv, *proto_drv;
    Error *err = NULL;

    if (!img_create_drivers(args->target_name, args->target_format, &drv, &proto_drv, &err)) {
        error_report_err(err);
        return false;
    }
    QDict *opts = target_options(args, drv);
    if (!opts) {
        return false;
    }
    if (!can_copy_bitmaps(args)) {
        qobject_unref(opts);
        return false;
    }
    plan->target_is_zero = new_image_is_zero(drv, proto_drv, opts);
    if (target_is_a_source(args)) {
        error_setg(&err, "Failed to get \"write\" lock");
        error_append_hint(&err, "Is another process using the image [%s]?\n",
                          args->target_name);
    } else {
        bdrv_create(drv, args->target_name, opts, &err);
    }
    qobject_unref(opts);
    if (err) {
        error_prepend(&err, "%s: error while converting %s: ", args->target_name,
                      args->target_format);
        error_report_err(err);
        return false;
    }
    return true;
}

/* Whether the target, which is open, can take what is to be written; note what it is like. */
static bool examine_target(ConvertArgs *args)
{
    ConvertPlan *plan = &args->plan;
    BlockDriverInfo bdi = { 0 };
    BlockDriverState *bs = blk_bs(plan->target);

    if (args->bitmaps && !bdrv_supports_persistent_dirty_bitmap(bs)) {
        error_report("Format driver '%s' does not support bitmaps", bs->drv->format_name);
        return false;
    }
    BlockDriverState *backing = bdrv_backing_chain_next(bs);
    int64_t bytes = img_length(plan->target, args->target_name);
    if (bytes < 0) {
        return false;
    }
    if (bytes < plan->total_bytes) {
        error_report("output file is smaller than input file");
        return false;
    }
    if (args->skip_create) {
        plan->target_is_zero = args->target_is_zero;
        if (plan->target_is_zero && backing) {
            error_report("Cannot use --target-is-zero when the destination image has a "
                         "backing file");
            return false;
        }
    }
    if (backing) {
        plan->target_backing_bytes = bdrv_getlength(backing);
        if (plan->target_backing_bytes < 0) {
            error_report("Could not get size of '%s': %s", backing->filename,
                         strerror((int)-plan->target_backing_bytes));
            return false;
        }
    }
    bdrv_get_info(bs, &bdi);
    plan->target_cluster_bytes = MAX(bdi.cluster_size, 1);
    if (plan->compressed && (bdi.cluster_size <= 0 || !can_compress(bs->drv))) {
        error_report("Compression not supported for this file format");
        return false;
    }
    return true;
}

static bool open_target(ConvertArgs *args)
{
    ConvertPlan *plan = &args->plan;
    ImgSource target = {
        .name = args->target_name,
        .image_opts = args->target_image_opts,
        .format = args->target_format,
    };
    int flags = BDRV_O_RDWR | (plan->sparse_bytes > 0 ? BDRV_O_UNMAP : 0);

    if (!img_parse_cache(args->target_cache, &flags, &plan->write_through)) {
        error_report("Invalid cache option: %s", args->target_cache);
        return false;
    }
    plan->target_has_backing = args->backing_file != NULL;
    if (args->skip_create ? !(can_have_backing(args) && can_copy_bitmaps(args))
                          : !create_target(args)) {
        return false;
    }
    plan->target_name = args->target_name;
    plan->target = img_open(&target, flags);
    return plan->target && examine_target(args);
}

/* ---- all of it -------------------------------------------------------------------- */

static bool check_arguments(ConvertArgs *args, int source_count)
{
    const char *conflict = find_conflict(args);

    if (!conflict && source_count < 1) {
        conflict = "Must specify image file name";
    }
    if (conflict) {
        error_report("%s", conflict);
    }
    return conflict == NULL;
}

static bool copy_bitmaps(ConvertArgs *args)
{
    return convert_copy_bitmaps(blk_bs(args->plan.sources[0].blk), args->plan.target);
}

static bool convert(ConvertArgs *args, char **names, int source_count)
{
    args->target_name = names[source_count];
    if (!args->target_format && !args->target_image_opts) {
        args->target_format = "raw";
    }
    if (!open_sources(args, names, source_count)) {
        return false;
    }
    if (!open_target(args)) {
        return false;
    }
    return convert_copy(&args->plan) == 0 &&
           (!args->bitmaps || copy_bitmaps(args)) &&
           img_flush(args->plan.target, args->target_name);
}

int img_convert(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "source-image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { "target-image-opts", no_argument, NULL, IMG_OPT_TARGET_IMAGE_OPTS },
        { "target-is-zero", no_argument, NULL, IMG_OPT_TARGET_IS_ZERO },
        { "salvage", no_argument, NULL, IMG_OPT_SALVAGE },
        { "bitmaps", no_argument, NULL, IMG_OPT_BITMAPS },
        { "skip-broken-bitmaps", no_argument, NULL, IMG_OPT_SKIP_BROKEN_BITMAPS },
        { "progress", optional_argument, NULL, IMG_OPT_PROGRESS },
        { NULL },
    };
    ConvertArgs args = {
        .source_cache = "writeback",
        .target_cache = "unsafe",
        .plan = {
            .sparse_bytes = SPARSE_BYTES_DEFAULT,
            .coroutine_count = CONVERT_COROUTINES_DEFAULT,
            .in_order = true,
        },
    };
    bool ok = true;
    int c;

    while (ok &&
           (c = img_getopt(argc, argv, "B:CF:O:S:T:UWcf:l:m:no:pqr:t:", longopts)) != -1) {
        ok = parse_option(&args, c);
    }
    if (ok && args.options && img_options_ask_help(args.options)) {
        const char *format = args.target_format ? args.target_format : "raw";
        const char *target = argc - optind > 1 ? argv[argc - 1] : NULL;
        int status = img_print_create_options(target, format);
        g_free(args.options);
        return status;
    }
    ok = ok && check_arguments(&args, argc - optind - 1);
    if (ok) {
        if (args.plan.quiet) {
            args.progress = IMG_PROGRESS_OFF;
        }
        args.plan.show_progress = args.progress != IMG_PROGRESS_OFF;
        img_progress_start(args.progress, 1.0);
        img_progress_set(0);
        ok = convert(&args, argv + optind, argc - optind - 1);
        if (ok) {
            img_progress_set(100);
        }
        img_progress_end();
    }

    if (args.plan.target) {
        blk_unref(args.plan.target);
    }
    for (int i = 0; i < args.plan.source_count; i++) {
        blk_unref(args.plan.sources[i].blk);
    }
    g_free(args.plan.sources);
    g_free(args.options);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
