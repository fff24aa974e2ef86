/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img amend: change the options that an image was made with. */
#include "miniblk/osdep.h"
#include "tools/img.h"

enum { OPT_FORCE = IMG_OPT_LAST };

typedef struct AmendRequest {
    ImgSource src;
    const char *cache;
    char *options;              /* the -o lists, joined; owned */
    bool force, quiet;
    ImgProgress progress;
} AmendRequest;

static void show_progress(BlockDriverState *bs, int64_t offset, int64_t total_work_size,
                          void *opaque)
{
    if (total_work_size > 0) {
        img_progress_set(100.0 * offset / total_work_size);
    }
}

/* Whether DRV can amend; a message says so if not. */
static bool can_amend(const BlockDriver *drv)
{
    if (!drv->amend_opts) {
        error_report("Format driver '%s' does not support option amendment",
                     drv->format_name);
    }
    return drv->amend_opts != NULL;
}

static int print_help(const BlockDriver *drv)
{
    if (!can_amend(drv)) {
        return EXIT_FAILURE;
    }
    printf("Amend options for '%s':\n", drv->format_name);
    img_print_option_list(drv, drv->amend_opts, false);
    return EXIT_SUCCESS;
}

/* The options as the driver wants them; NULL with ERRP set. */
static QDict *parse_options(const AmendRequest *req, const BlockDriver *drv, Error **errp)
{
    QDict *opts = img_parse_create_options(drv, req->options, errp);
    const char *name;
    json_t *value;

    if (!opts) {
        return NULL;
    }
    json_object_foreach(opts, name, value) {
        if (!g_strv_contains(drv->amend_opts, name)) {
            error_setg(errp, "Invalid parameter '%s'", name);
            error_append_hint(errp, "This option is only supported for image creation\n");
            qobject_unref(opts);
            return NULL;
        }
    }
    return opts;
}

static bool amend(const AmendRequest *req, BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    Error *err = NULL;

    if (!can_amend(bs->drv)) {
        return false;
    }
    QDict *opts = parse_options(req, bs->drv, &err);
    if (opts) {
        img_progress_set(0);
        bdrv_amend_options(bs, opts, show_progress, NULL, req->force, &err);
        qobject_unref(opts);
    }
    if (err) {
        img_progress_end();
        error_report_err(err);
        return false;
    }
    bool ok = img_flush(blk, req->src.name);
    if (ok) {
        img_progress_set(100);
    }
    img_progress_end();
    return ok;
}

static int run(const AmendRequest *req)
{
    int flags = BDRV_O_RDWR | BDRV_O_RESIZE;
    bool unused;

    if (!img_parse_cache(req->cache, &flags, &unused)) {
        error_report("Invalid cache option: %s", req->cache);
        return EXIT_FAILURE;
    }
    BlockBackend *blk = img_open(&req->src, flags);
    if (!blk) {
        return EXIT_FAILURE;
    }
    int status;
    if (img_options_ask_help(req->options)) {
        status = print_help(blk_bs(blk)->drv);
    } else {
        img_progress_start(req->quiet ? IMG_PROGRESS_OFF : req->progress, 1.0);
        status = amend(req, blk) ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    blk_unref(blk);
    return status;
}

/* False when an option's value is bad and a message was printed. */
static bool parse_option(AmendRequest *req, int c)
{
    switch (c) {
    case 'f': req->src.format = optarg; break;
    case 'o': return img_add_options(&req->options, optarg);
    case 'p': req->progress = IMG_PROGRESS_HUMAN; break;
    case IMG_OPT_PROGRESS: return img_parse_progress(optarg, &req->progress);
    case 'q': req->quiet = true; break;
    case 't': req->cache = optarg; break;
    case IMG_OPT_IMAGE_OPTS: req->src.image_opts = true; break;
    case OPT_FORCE: req->force = true; break;
    }
    return true;
}

int img_amend(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force", no_argument, NULL, OPT_FORCE },
        { "progress", optional_argument, NULL, IMG_OPT_PROGRESS },
        { NULL },
    };
    AmendRequest req = { .cache = "writeback" };
    int c;

    while ((c = img_getopt(argc, argv, "f:o:pqt:", longopts)) != -1) {
        if (!parse_option(&req, c)) {
            g_free(req.options);
            return EXIT_FAILURE;
        }
    }
    if (!req.options) {
        img_usage_error("Must specify options (-o)");
    }
    g_autofree char *options = req.options;
    req.src.name = optind == argc - 1 ? argv[optind] : NULL;
    if (req.src.format && img_options_ask_help(options)) {
        BlockDriver *drv = bdrv_find_format(req.src.format);
        if (!drv) {
            error_report("Unknown file format '%s'", req.src.format);
            return EXIT_FAILURE;
        }
        return print_help(drv);
    }
    if (!req.src.name) {
        error_report("Expecting one image file name");
        return EXIT_FAILURE;
    }
    if (img_source_conflict(&req.src)) {
        return EXIT_FAILURE;
    }
    return run(&req);
}
