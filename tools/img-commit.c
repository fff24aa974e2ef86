/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img commit: write what an image holds into one behind it. */
#include "miniblk/osdep.h"
#include "miniblk/blockjob.h"
#include "tools/img.h"

typedef struct CommitRequest {
    ImgSource src;
    const char *cache;
    const char *base;           /* as given with -b; NULL: the next image */
    int64_t rate_bytes;         /* a second; 0: unlimited */
    bool keep;                  /* -d: the image is not emptied */
    bool quiet;
    ImgProgress progress;
} CommitRequest;

/* Whether files A and B are one. */
static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;

    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

/*
 * Whether NAME, as the user gave it, means LAYER, which is behind OVER: by the name that is
 * recorded there, or by one seen from OVER's place or from here.
 */
static bool is_named(BlockDriverState *over, BlockDriverState *layer, const char *name)
{
    BlockDriverState *protocol = layer->file ? layer->file->bs : layer;
    const char *file = protocol->exact_filename;

    if (!g_strcmp0(over->backing_file, name) || !g_strcmp0(layer->filename, name)) {
        return true;
    }
    if (!file || !*file) {
        return false;
    }
    const char *place = over->exact_filename ? over->exact_filename : "";
    g_autofree char *full = img_combine_names(place, name);
    return same_file(file, full) || same_file(file, name);
}

/* The image to write to; NULL after a message. */
static BlockDriverState *find_base(BlockDriverState *top, const CommitRequest *req)
{
    BlockDriverState *over = bdrv_skip_filters(top);
    BlockDriverState *layer = bdrv_backing_chain_next(over);

    if (!req->base) {
        if (!layer) {
            error_report("Image does not have a backing file");
        }
        return layer;
    }
    while (layer && !is_named(over, layer, req->base)) {
        over = layer;
        layer = bdrv_backing_chain_next(over);
    }
    if (!layer) {
        error_report("Did not find '%s' in the backing chain of '%s'", req->base,
                     req->src.name);
    }
    return layer;
}

/* ---- the job ---------------------------------------------------------------------- */

typedef struct Outcome {
    bool done;
    int ret;
} Outcome;

static void job_done(void *opaque, int ret)
{
    Outcome *outcome = opaque;

    outcome->ret = ret;
    outcome->done = true;
}

static void show_progress(const Job *job)
{
    ProgressMeter meter;

    WITH_JOB_LOCK_GUARD() {
        meter = job->progress;
    }
    if (meter.total > 0) {
        img_progress_set(100.0 * meter.current / meter.total);
    }
}

/* Run JOB, which calls job_done(OUTCOME), to its end. False with ERRP set. */
static bool run_job(Job *job, const Outcome *outcome, Error **errp)
{
    WITH_JOB_LOCK_GUARD() {
        job_ref_locked(job);
    }
    while (!outcome->done) {
        aio_poll(qemu_get_aio_context(), true);
        show_progress(job);
    }
    WITH_JOB_LOCK_GUARD() {
        if (outcome->ret < 0 && job->err) {
            error_propagate(errp, error_copy(job->err));
        } else if (outcome->ret < 0) {
            error_setg_errno(errp, -outcome->ret, "Could not commit");
        }
        job_unref_locked(job);
    }
    return outcome->ret >= 0;
}

/* BS shows nothing of its own any more. */
static bool empty_image(BlockDriverState *bs, Error **errp)
{
    BlockBackend *blk = blk_new_with_bs(bdrv_skip_filters(bs), BLK_PERM_WRITE, BLK_PERM_ALL,
                                        errp);
    bool ok = blk && blk_make_empty(blk, errp) >= 0;

    blk_unref(blk);
    return ok;
}

static bool commit(const CommitRequest *req, BlockBackend *blk, Error **errp)
{
    Outcome outcome = { 0 };
    BlockDriverState *top = blk_bs(blk);
    BlockDriverState *base = find_base(top, req);

    if (!base) {
        return false;
    }
    /* The job ends with its base in the place of TOP, which is still to be emptied. */
    bdrv_ref(top);
    BlockJob *job = commit_active_start("commit", top, base, JOB_DEFAULT, req->rate_bytes,
                                        BLOCKDEV_ON_ERROR_REPORT, NULL, job_done, &outcome,
                                        true, errp);
    bool ok = job && run_job(&job->job, &outcome, errp);
    if (ok && !req->keep) {
        ok = empty_image(top, errp);
    }
    bdrv_unref(top);
    return ok;
}

/* ---- command line ----------------------------------------------------------------- */

static bool parse_option(CommitRequest *req, int c)
{
    switch (c) {
    case 'f': req->src.format = optarg; break;
    case 't': req->cache = optarg; break;
    case 'b':
        req->base = optarg;
        req->keep = true;       /* what is between would show through the emptied image */
        break;
    case 'd': req->keep = true; break;
    case 'p': req->progress = IMG_PROGRESS_HUMAN; break;
    case IMG_OPT_PROGRESS: return img_parse_progress(optarg, &req->progress);
    case 'q': req->quiet = true; break;
    case 'r':
        req->rate_bytes = img_parse_size("rate limit", optarg, 0, INT64_MAX);
        return req->rate_bytes >= 0;
    case IMG_OPT_IMAGE_OPTS: req->src.image_opts = true; break;
    }
    return true;
}

static bool run(const CommitRequest *req)
{
    int flags = BDRV_O_RDWR | BDRV_O_UNMAP;
    Error *err = NULL;
    bool unused;

    if (!img_parse_cache(req->cache, &flags, &unused)) {
        error_report("Invalid cache option: %s", req->cache);
        return false;
    }
    BlockBackend *blk = img_open(&req->src, flags);
    if (!blk) {
        return false;
    }
    img_progress_start(req->quiet ? IMG_PROGRESS_OFF : req->progress, 1.0);
    img_progress_set(0);
    bool ok = commit(req, blk, &err) && img_flush(blk, req->src.name);
    if (ok) {
        img_progress_set(100);
    }
    img_progress_end();
    blk_unref(blk);
    if (err) {
        error_report_err(err);
    }
    if (ok) {
        img_printf(req->quiet, "Image committed.\n");
    }
    return ok;
}

int img_commit(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "progress", optional_argument, NULL, IMG_OPT_PROGRESS },
        { NULL },
    };
    CommitRequest req = { .cache = "writeback" };
    int c;

    while ((c = img_getopt(argc, argv, "f:t:b:dpqr:", longopts)) != -1) {
        if (!parse_option(&req, c)) {
            return EXIT_FAILURE;
        }
    }
    img_take_filename(&req.src, argc, argv);
    return run(&req) ? EXIT_SUCCESS : EXIT_FAILURE;
}
