/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-img dd: copy blocks of an image to a new one. The blocks count only where the copy
 * begins and ends; it goes in large steps, and is fully allocated, as that of dd(1).
 */
#include "miniblk/osdep.h"
#include "tools/img-convert.h"

#define BLOCK_BYTES_DEFAULT 512

typedef struct DdRequest {
    ImgSource in;
    const char *out_name;
    const char *out_format;
    int64_t block_bytes;
    int64_t count;              /* blocks, those skipped included; -1: all there are */
    int64_t skip;               /* blocks */
} DdRequest;

/* "name=value"; false after a message. */
static bool parse_operand(DdRequest *req, const char *operand)
{
    size_t len = strcspn(operand, "=");
    const char *value = operand[len] ? operand + len + 1 : "";
    g_autofree char *name = g_strndup(operand, len);

    if (!strcmp(name, "if")) {
        req->in.name = value;
    } else if (!strcmp(name, "of")) {
        req->out_name = value;
    } else if (!strcmp(name, "bs")) {
        req->block_bytes = img_parse_size("bs", value, 1, INT_MAX);
        return req->block_bytes >= 0;
    } else if (!strcmp(name, "count")) {
        req->count = img_parse_size("count", value, 0, INT64_MAX);
        return req->count >= 0;
    } else if (!strcmp(name, "skip")) {
        req->skip = img_parse_size("skip", value, 0, INT64_MAX);
        return req->skip >= 0;
    } else {
        error_report("unrecognized operand %s", name);
        return false;
    }
    return true;
}

/* BLOCKS of the request in bytes, or LIMIT if that is less. */
static int64_t block_bytes(const DdRequest *req, int64_t blocks, int64_t limit)
{
    return blocks > limit / req->block_bytes ? limit : MIN(blocks * req->block_bytes, limit);
}

/* Which part of the image, IN_BYTES long, is copied. */
static void choose_part(const DdRequest *req, int64_t in_bytes, ConvertSource *src)
{
    int64_t end = req->count < 0 ? in_bytes : block_bytes(req, req->count, in_bytes);
    int64_t skip = block_bytes(req, req->skip, INT64_MAX);

    if (skip > end) {
        error_report("%s: cannot skip to specified offset", req->in.name);
    }
    src->origin = MIN(skip, end);
    src->bytes = end - src->origin;
}

static bool create_output(const DdRequest *req, BlockBackend *in, int64_t bytes)
{
    BlockDriver *drv = bdrv_find_format(req->out_format), *proto_drv;
    Error *err = NULL;

    if (!drv) {
        error_report("Unknown file format");
        return false;
    }
    if (!img_create_drivers(req->out_name, req->out_format, &drv, &proto_drv, &err)) {
        error_report_err(err);
        return false;
    }
    if (img_is_same_file(in, req->out_name)) {
        error_report("%s: cannot copy an image onto itself", req->out_name);
        return false;
    }
    QDict *opts = qdict_new();
    g_autofree char *size = g_strdup_printf("%" PRId64, bytes);
    qdict_put_str(opts, "size", size);
    if (bdrv_create(drv, req->out_name, opts, &err) < 0) {
        error_prepend(&err, "%s: error while creating output image: ", req->out_name);
        error_report_err(err);
    }
    qobject_unref(opts);
    return err == NULL;
}

static bool copy(const DdRequest *req, ConvertSource *src)
{
    ImgSource out = { .name = req->out_name, .format = req->out_format };
    BlockDriverInfo bdi = { 0 };
    ConvertPlan plan = {
        .sources = src,
        .source_count = 1,
        .total_bytes = src->bytes,
        .target_name = req->out_name,
        .coroutine_count = CONVERT_COROUTINES_DEFAULT,
        .in_order = true,
    };

    plan.target = img_open(&out, BDRV_O_RDWR);
    if (!plan.target) {
        return false;
    }
    bdrv_get_info(blk_bs(plan.target), &bdi);
    plan.target_cluster_bytes = MAX(bdi.cluster_size, 1);
    bool ok = convert_copy(&plan) == 0 && img_flush(plan.target, req->out_name);
    blk_unref(plan.target);
    return ok;
}

static bool run(const DdRequest *req)
{
    ConvertSource src = { .name = req->in.name };

    src.blk = img_open(&req->in, 0);
    if (!src.blk) {
        return false;
    }
    int64_t in_bytes = img_length(src.blk, src.name);
    bool ok = in_bytes >= 0;
    if (ok) {
        choose_part(req, in_bytes, &src);
        ok = create_output(req, src.blk, src.bytes) && copy(req, &src);
    }
    blk_unref(src.blk);
    return ok;
}

int img_dd(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { NULL },
    };
    DdRequest req = {
        .out_format = "raw", .block_bytes = BLOCK_BYTES_DEFAULT, .count = -1,
    };
    int c;

    while ((c = img_getopt(argc, argv, "f:O:U", longopts)) != -1) {
        switch (c) {
        case 'f': req.in.format = optarg; break;
        case 'O': req.out_format = optarg; break;
        case 'U': req.in.force_share = true; break;
        case IMG_OPT_IMAGE_OPTS: req.in.image_opts = true; break;
        }
    }
    for (int i = optind; i < argc; i++) {
        if (!parse_operand(&req, argv[i])) {
            return EXIT_FAILURE;
        }
    }
    if (!req.in.name || !req.out_name) {
        error_report("Must specify both input and output files");
        return EXIT_FAILURE;
    }
    if (img_source_conflict(&req.in)) {
        return EXIT_FAILURE;
    }
    return run(&req) ? EXIT_SUCCESS : EXIT_FAILURE;
}
