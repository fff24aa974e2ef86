/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img check: is the image's metadata consistent, and can it be repaired. */
#include "miniblk/osdep.h"
#include "tools/img.h"

/* Exit statuses; scripts know them. */
enum { CHECK_CLEAN = 0, CHECK_FAILED = 1, CHECK_CORRUPT = 2, CHECK_LEAKS = 3,
       CHECK_UNSUPPORTED = 63 };

typedef struct CheckRequest {
    ImgSource src;
    BdrvCheckMode fix;
    const char *cache;          /* as given with -T */
    ImgOutput output;
    bool quiet;
} CheckRequest;

static void put_count(json_t *out, const char *key, int64_t count)
{
    if (count) {
        json_object_set_new(out, key, json_integer(count));
    }
}

static void print_json(const char *name, BlockDriverState *bs, const BdrvCheckResult *res)
{
    json_t *out = json_object();

    put_count(out, "image-end-offset", res->image_end_offset);
    put_count(out, "compressed-clusters", res->bfi.compressed_clusters);
    put_count(out, "total-clusters", res->bfi.total_clusters);
    put_count(out, "corruptions", res->corruptions);
    put_count(out, "corruptions-fixed", res->corruptions_fixed);
    json_object_set_new(out, "check-errors", json_integer(res->check_errors));
    put_count(out, "leaks", res->leaks);
    put_count(out, "leaks-fixed", res->leaks_fixed);
    put_count(out, "allocated-clusters", res->bfi.allocated_clusters);
    json_object_set_new(out, "filename", img_json_string(name));
    json_object_set_new(out, "format", json_string(bs->drv->format_name));
    put_count(out, "fragmented-clusters", res->bfi.fragmented_clusters);

    img_print_json(out);
    json_decref(out);
}

static double percent(uint64_t part, uint64_t whole)
{
    return 100.0 * part / whole;
}

static void print_human(const BdrvCheckResult *res)
{
    const BlockFragInfo *bfi = &res->bfi;

    if (!res->corruptions && !res->leaks && !res->check_errors) {
        printf("No errors were found on the image.\n");
    }
    if (res->corruptions) {
        printf("\n%d errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               res->corruptions);
    }
    if (res->leaks) {
        printf("\n%d leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n", res->leaks);
    }
    if (res->check_errors) {
        printf("\n%d internal errors have occurred during the check.\n", res->check_errors);
    }
    if (bfi->total_clusters && bfi->allocated_clusters) {
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
               "%0.2f%% compressed clusters\n", bfi->allocated_clusters, bfi->total_clusters,
               percent(bfi->allocated_clusters, bfi->total_clusters),
               percent(bfi->fragmented_clusters, bfi->allocated_clusters),
               percent(bfi->compressed_clusters, bfi->allocated_clusters));
    }
    if (res->image_end_offset > 0) {
        printf("Image end offset: %" PRId64 "\n", res->image_end_offset);
    }
}

/* Check, repair as asked for, and check what was repaired. An exit status. */
static int check(const CheckRequest *req, BlockDriverState *bs)
{
    BdrvCheckResult res = { 0 };
    bool talk = !req->quiet && req->output == IMG_OUTPUT_HUMAN;
    int ret = bdrv_check(bs, &res, req->fix);

    if (ret == -ENOTSUP) {
        error_report("This image format does not support checks");
        return CHECK_UNSUPPORTED;
    }
    if (ret >= 0 && (res.corruptions_fixed || res.leaks_fixed)) {
        BdrvCheckResult again = { 0 };
        if (talk) {
            printf("The following inconsistencies were found and repaired:\n\n"
                   "    %d leaked clusters\n    %d corruptions\n\n"
                   "Double checking the fixed image now...\n",
                   res.leaks_fixed, res.corruptions_fixed);
            fflush(stdout);
        }
        ret = bdrv_check(bs, &again, 0);
        again.leaks_fixed = res.leaks_fixed;
        again.corruptions_fixed = res.corruptions_fixed;
        res = again;
    }
    if (ret < 0) {
        error_report("Check failed: %s", strerror(-ret));
        return CHECK_FAILED;
    }
    if (!req->quiet && req->output == IMG_OUTPUT_JSON) {
        print_json(req->src.name, bs, &res);
    } else if (talk) {
        print_human(&res);
    }
    return res.check_errors ? CHECK_FAILED : res.corruptions ? CHECK_CORRUPT :
           res.leaks ? CHECK_LEAKS : CHECK_CLEAN;
}

/* The value of -r; exits if there is no such. */
static BdrvCheckMode parse_repair(const char *value)
{
    if (!strcmp(value, "leaks")) {
        return BDRV_FIX_LEAKS;
    }
    if (!strcmp(value, "all")) {
        return BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
    }
    img_usage_error("Unknown option value for -r (expecting 'leaks' or 'all'): %s", value);
}

static bool take_option(CheckRequest *req, int c)
{
    switch (c) {
    case 'f': req->src.format = optarg; break;
    case 'r': req->fix = parse_repair(optarg); break;
    case 'T': req->cache = optarg; break;
    case 'q': req->quiet = true; break;
    case 'U': req->src.force_share = true; break;
    case IMG_OPT_OUTPUT: return img_parse_output(optarg, &req->output);
    case IMG_OPT_IMAGE_OPTS: req->src.image_opts = true; break;
    }
    return true;
}

int img_check(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "repair", required_argument, NULL, 'r' },
        { "output", required_argument, NULL, IMG_OPT_OUTPUT },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { NULL },
    };
    CheckRequest req = { .src.read_in_use = true, .cache = "writeback" };
    bool unused;
    int c;

    while ((c = img_getopt(argc, argv, "f:r:T:qU", longopts)) != -1) {
        if (!take_option(&req, c)) {
            return CHECK_FAILED;
        }
    }
    img_take_filename(&req.src, argc, argv);

    int flags = BDRV_O_CHECK | (req.fix ? BDRV_O_RDWR : 0);
    if (!img_parse_cache(req.cache, &flags, &unused)) {
        error_report("Invalid source cache option: %s", req.cache);
        return CHECK_FAILED;
    }
    BlockBackend *blk = img_open(&req.src, flags);
    if (!blk) {
        return CHECK_FAILED;
    }
    int status = check(&req, blk_bs(blk));
    blk_unref(blk);
    return status;
}
