/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img resize: grow or, when told so, shrink an image. */
#include "miniblk/osdep.h"
#include "tools/img.h"

static const char *const prealloc_names[] = { "off", "metadata", "falloc", "full", NULL };

typedef struct ResizeRequest {
    ImgSource src;
    int64_t bytes;              /* new length, or what to add to or take from the old one */
    int direction;              /* 1 add, -1 take, 0 absolute */
    bool shrink;
    PreallocMode prealloc;
    bool quiet;
} ResizeRequest;

/* "[+|-]SIZE" */
static bool parse_change(const char *text, ResizeRequest *req)
{
    Error *err = NULL;
    uint64_t bytes;

    req->direction = *text == '+' ? 1 : *text == '-' ? -1 : 0;
    if (!parse_option_size("size", text + (req->direction != 0), &bytes, &err)) {
        error_report_err(err);
        return false;
    }
    if (bytes > INT64_MAX) {
        error_report("New image size must be positive");
        return false;
    }
    req->bytes = (int64_t)bytes;
    return true;
}

/* The length that REQ asks for; -1 after a message. */
static int64_t new_length(const ResizeRequest *req, int64_t old_bytes)
{
    int64_t base = req->direction ? old_bytes : 0;
    int64_t change = req->direction < 0 ? -req->bytes : req->bytes;

    if (change > INT64_MAX - base || base + change <= 0) {
        error_report("New image size must be positive");
        return -1;
    }
    return base + change;
}

static bool resize(const ResizeRequest *req, BlockBackend *blk)
{
    Error *err = NULL;
    int64_t old_bytes = img_length(blk, req->src.name);

    if (old_bytes < 0) {
        return false;
    }
    int64_t bytes = new_length(req, old_bytes);
    if (bytes < 0) {
        return false;
    }
    if (bytes <= old_bytes && req->prealloc != PREALLOC_MODE_OFF) {
        error_report("Preallocation can only be used for growing images");
        return false;
    }
    if (bytes < old_bytes && !req->shrink) {
        error_report("Use the --shrink option to perform a shrink operation.");
        warn_report("Shrinking an image will delete all data beyond the shrunken image's "
                    "end. Before performing such an operation, make sure there is no "
                    "important data there.");
        return false;
    }
    if (blk_truncate(blk, bytes, false, req->prealloc, 0, &err) < 0) {
        error_report_err(err);
        return false;
    }
    img_printf(req->quiet, "Image resized.\n");
    return true;
}

static bool parse_prealloc(const char *name, PreallocMode *mode)
{
    for (int i = 0; prealloc_names[i]; i++) {
        if (!strcmp(name, prealloc_names[i])) {
            *mode = i;
            return true;
        }
    }
    error_report("Invalid preallocation mode '%s'", name);
    return false;
}

int img_resize(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "preallocation", required_argument, NULL, IMG_OPT_PREALLOCATION },
        { "shrink", no_argument, NULL, IMG_OPT_SHRINK },
        { NULL },
    };
    ResizeRequest req = { .prealloc = PREALLOC_MODE_OFF };
    const char *change = NULL;
    int c;

    /* "-1M" is a size, not an option: take the last word away before options are read. */
    if (strcmp(argv[argc - 1], "-h") != 0 && strcmp(argv[argc - 1], "--help") != 0) {
        if (argc < 3) {
            img_usage_error("Not enough arguments");
        }
        change = argv[--argc];
        argv[argc] = NULL;
    }
    while ((c = img_getopt(argc, argv, "f:q", longopts)) != -1) {
        switch (c) {
        case 'f':
            req.src.format = optarg;
            break;
        case 'q':
            req.quiet = true;
            break;
        case IMG_OPT_IMAGE_OPTS:
            req.src.image_opts = true;
            break;
        case IMG_OPT_SHRINK:
            req.shrink = true;
            break;
        case IMG_OPT_PREALLOCATION:
            if (!parse_prealloc(optarg, &req.prealloc)) {
                return EXIT_FAILURE;
            }
            break;
        }
    }
    if (optind != argc - 1) {
        img_usage_error("Expecting image file name and size");
    }
    req.src.name = argv[optind];
    if (!parse_change(change, &req) || img_source_conflict(&req.src)) {
        return EXIT_FAILURE;
    }
    BlockBackend *blk = img_open(&req.src, BDRV_O_RDWR | BDRV_O_RESIZE);
    if (!blk) {
        return EXIT_FAILURE;
    }
    bool ok = resize(&req, blk);
    blk_unref(blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
