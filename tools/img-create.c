/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img create: make an image, checked against its backing file. */
#include "miniblk/osdep.h"
#include "tools/img.h"

typedef struct CreateRequest {
    const char *filename;
    const char *format;
    const char *backing_file;   /* as given with -b; NULL: none */
    const char *backing_format; /* as given with -F */
    char *options;              /* the -o lists, joined; owned */
    int64_t size;               /* bytes; -1: not given as an argument */
    bool unchecked_backing;     /* -u: the backing file may be missing */
    bool quiet;
} CreateRequest;

/*
 * Look at the backing file in OPTS: it must open as it is recorded (unless that is waived),
 * its format must be recorded, and an image without a size of its own takes its length.
 */
static bool check_backing(const CreateRequest *req, QDict *opts, Error **errp)
{
    const char *backing = qdict_get_try_str(opts, "backing_file");
    const char *format = qdict_get_try_str(opts, "backing_fmt");

    if (!backing) {
        return true;
    }
    if (!*backing) {
        error_setg(errp, "Expected backing file name, got empty string");
        return false;
    }
    if (!strcmp(backing, req->filename)) {
        error_setg(errp, "Error: Trying to create an image with the same filename as the "
                   "backing file");
        return false;
    }
    if (req->unchecked_backing) {
        if (!format) {
            error_setg(errp, "Backing file specified without backing format");
        }
        return format != NULL;
    }

    /* A relative name is seen from where the new image will be. */
    g_autofree char *full = img_combine_names(req->filename, backing);
    QDict *options = qdict_new();
    if (format) {
        qdict_put_str(options, "driver", format);
    }
    /* Only its size and format matter; a running machine may be about to leave it behind. */
    qdict_put_bool(options, "force-share", true);
    BlockDriverState *bs = bdrv_open(full, NULL, options, BDRV_O_NO_IO, errp);
    if (!bs) {
        error_append_hint(errp, "Could not open backing image.\n");
        return false;
    }

    bool ok = false;
    if (!format) {
        error_setg(errp, "Backing file specified without backing format");
        error_append_hint(errp, "Detected format of %s.\n", bs->drv->format_name);
        goto out;
    }
    if (!qdict_haskey(opts, "size")) {
        int64_t length = bdrv_getlength(bs);
        if (length < 0) {
            error_setg_errno(errp, (int)-length, "Could not get size of '%s'", full);
            goto out;
        }
        g_autofree char *text = g_strdup_printf("%" PRId64, length);
        qdict_put_str(opts, "size", text);
    }
    ok = true;
out:
    bdrv_unref(bs);
    return ok;
}

/* All options of the new image as one object; NULL with ERRP set. */
static QDict *collect_options(const CreateRequest *req, BlockDriver *drv, Error **errp)
{
    QDict *opts = img_parse_create_options(drv, req->options, errp);

    if (!opts) {
        return NULL;
    }
    if (req->size >= 0) {
        g_autofree char *text = g_strdup_printf("%" PRId64, req->size);
        if (qdict_haskey(opts, "size")) {
            error_setg(errp, "The image size must be specified only once");
            goto fail;
        }
        qdict_put_str(opts, "size", text);
    }
    if (req->backing_file) {
        if (!img_knows_option(drv, "backing_file")) {
            error_setg(errp, "Backing file not supported for file format '%s'",
                       req->format);
            goto fail;
        }
        qdict_put_str(opts, "backing_file", req->backing_file);
    }
    if (req->backing_format) {
        if (!img_knows_option(drv, "backing_fmt")) {
            error_setg(errp, "Backing file format not supported for file format '%s'",
                       req->format);
            goto fail;
        }
        qdict_put_str(opts, "backing_fmt", req->backing_format);
    }
    if (!check_backing(req, opts, errp)) {
        goto fail;
    }
    if (!qdict_haskey(opts, "size")) {
        error_setg(errp, "Image creation needs a size parameter");
        goto fail;
    }
    return opts;

fail:
    qobject_unref(opts);
    return NULL;
}

static bool create_image(const CreateRequest *req, Error **errp)
{
    ERRP_GUARD();
    BlockDriver *drv, *proto_drv;

    if (!img_create_drivers(req->filename, req->format, &drv, &proto_drv, errp)) {
        return false;
    }
    QDict *opts = collect_options(req, drv, errp);
    if (!opts) {
        return false;
    }
    if (!req->quiet) {
        g_autofree char *text = img_describe_create_options(drv, opts);
        printf("Formatting '%s', fmt=%s%s\n", req->filename, req->format, text);
        fflush(stdout);
    }

    int ret = bdrv_create(drv, req->filename, opts, errp);
    if (ret == -EFBIG) {
        bool clusters = img_knows_option(drv, "cluster_size");
        error_free(*errp);
        *errp = NULL;
        error_setg(errp, "The image size is too large for file format '%s'%s", req->format,
                   clusters ? " (try using a larger cluster size)" : "");
    }
    qobject_unref(opts);
    return ret >= 0;
}

static void parse_arguments(int argc, char **argv, CreateRequest *req)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { NULL },
    };

    for (;;) {
        switch (img_getopt(argc, argv, "F:b:f:o:qu", longopts)) {
        case -1:
            return;
        case 'F':
            req->backing_format = optarg;
            break;
        case 'b':
            req->backing_file = optarg;
            break;
        case 'f':
            req->format = optarg;
            break;
        case 'o':
            if (!img_add_options(&req->options, optarg)) {
                exit(EXIT_FAILURE);
            }
            break;
        case 'q':
            req->quiet = true;
            break;
        case 'u':
            req->unchecked_backing = true;
            break;
        }
    }
}

int img_create(int argc, char **argv)
{
    CreateRequest req = { .format = "raw", .size = -1 };
    Error *err = NULL;

    parse_arguments(argc, argv, &req);
    g_autofree char *options = req.options;
    req.filename = optind < argc ? argv[optind++] : NULL;
    if (options && img_options_ask_help(options)) {
        return img_print_create_options(req.filename, req.format);
    }
    if (!req.filename) {
        img_usage_error("Expecting image file name");
    }
    if (optind < argc) {
        req.size = img_parse_size("image size", argv[optind++], 0, INT64_MAX);
        if (req.size < 0) {
            return EXIT_FAILURE;
        }
    }
    if (optind < argc) {
        img_usage_error("Unexpected argument: %s", argv[optind]);
    }
    if (!create_image(&req, &err)) {
        error_prepend(&err, "%s: ", req.filename);
        error_report_err(err);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
