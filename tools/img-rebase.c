/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * miniblk-img rebase: give an image another backing file. Unless told that the old and the new
 * one show the same (-u), everything that they show differently is first copied from the old
 * one into the image:
 *
 *     image    |  a  |     |     |  b  |     |     |        "=": not looked at, or alike
 *     old      |  o  |  p  |  q  |  r  |  0  |  0  |
 *     new      |  x  |  p  |  y  |  z  |  s  |  0  |
 *     image'   |  a  |  =  |  q  |  b  |  0  |  =  |
 */
#include "miniblk/osdep.h"
#include "tools/img.h"

/* What one coroutine works on; a multiple of every cluster size. */
#define CHUNK_BYTES ((int64_t)2 * 1024 * 1024)
#define BUFFER_ALIGN_BYTES 4096
#define COROUTINES 8

typedef struct RebaseRequest {
    ImgSource src;              /* force_share is meant for what is behind it */
    const char *cache, *source_cache;
    const char *backing_file;   /* NULL or "": none */
    const char *backing_format;
    bool unsafe, compress;
    bool quiet;
    ImgProgress progress;
} RebaseRequest;

/* One of the two backing files; without a BLK it is empty, and all zero. */
typedef struct Backing {
    BlockBackend *blk;
    int64_t bytes;
} Backing;

typedef struct Rebase {
    const RebaseRequest *req;
    BlockBackend *blk;
    const char *name;           /* of the image */
    int64_t bytes, cluster_bytes;
    int64_t unit_bytes;         /* what the image gets whole; divides cluster_bytes */
    Backing old, new;
    /* The new backing file is behind the old one, and both show the same up to SAME_BYTES
     * wherever the layers from OLD_TOP down to (not including) NEW_IN_CHAIN hold nothing. */
    BlockDriverState *old_top, *new_in_chain;
    int64_t same_bytes;

    int64_t cursor;             /* next chunk */
    int64_t done_bytes;
    int running;                /* coroutines */
    int ret;                    /* the first failure */
} Rebase;

static void fail(Rebase *r, int ret, const char *what, int64_t offset)
{
    if (r->ret == 0) {
        error_report("error while %s at byte %" PRId64 ": %s", what, offset, strerror(-ret));
        r->ret = ret;
    }
}

/* ---- one chunk -------------------------------------------------------------------- */

/*
 * Whether the image depends on the old backing file for *BYTES (shortened to what is alike)
 * from OFFSET on, and the new one may show something else there. < 0: failed.
 */
static int coroutine_fn needs_look(Rebase *r, int64_t offset, int64_t *bytes)
{
    int64_t alike = 0;
    int ret = bdrv_is_allocated(bdrv_skip_filters(blk_bs(r->blk)), offset, *bytes, &alike);

    if (ret < 0 || alike <= 0) {
        return ret < 0 ? ret : -EIO;
    }
    *bytes = MIN(*bytes, alike);
    if (ret > 0) {
        return false;
    }
    if (offset < r->same_bytes) {
        *bytes = MIN(*bytes, r->same_bytes - offset);
        ret = bdrv_is_allocated_above(r->old_top, r->new_in_chain, false, offset, *bytes,
                                      &alike);
        if (ret < 0 || alike <= 0) {
            return ret < 0 ? ret : -EIO;
        }
        *bytes = MIN(*bytes, alike);
        return ret > 0;
    }
    return true;
}

/* Read BYTES at OFFSET of what B shows into BUF. 1: it is all zero; 0 or -errno. */
static int coroutine_fn read_backing(const Backing *b, int64_t offset, int64_t bytes,
                                     uint8_t *buf)
{
    int64_t inside = b->blk ? CLAMP(b->bytes - offset, 0, bytes) : 0, map;
    BlockDriverState *file;
    bool zero = true;

    memset(buf + inside, 0, bytes - inside);
    for (int64_t done = 0, alike = 0; done < inside; done += alike) {
        int ret = blk_co_block_status(b->blk, offset + done, inside - done, &alike, &map,
                                      &file);
        if (ret < 0 || alike <= 0) {
            return ret < 0 ? ret : -EIO;
        }
        if (ret & BDRV_BLOCK_ZERO) {
            memset(buf + done, 0, alike);
        } else {
            ret = blk_co_pread(b->blk, offset + done, alike, buf + done, 0);
            if (ret < 0) {
                return ret;
            }
            zero = false;
        }
    }
    return zero;
}

static int coroutine_fn write_run(Rebase *r, int64_t offset, int64_t bytes,
                                  const uint8_t *buf)
{
    bool whole = offset % r->cluster_bytes == 0 &&
                 (bytes % r->cluster_bytes == 0 || offset + bytes == r->bytes);

    if (buffer_is_zero(buf, bytes)) {
        return blk_co_pwrite_zeroes(r->blk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    }
    return blk_co_pwrite(r->blk, offset, bytes, buf,
                         r->req->compress && whole ? BDRV_REQ_WRITE_COMPRESSED : 0);
}

/*
 * Write the units in which OLD and NEW (BYTES of each, from OFFSET on) differ: the image would
 * get whole ones anyway.
 */
static int coroutine_fn write_differences(Rebase *r, int64_t offset, int64_t bytes,
                                          const uint8_t *old, const uint8_t *new)
{
    int64_t start = -1;         /* of a run that differs; -1: none */
    int ret = 0;

    for (int64_t pos = 0, len; pos <= bytes && ret >= 0; pos += len) {
        len = MIN(r->unit_bytes - (offset + pos) % r->unit_bytes, bytes - pos);
        bool differs = pos < bytes && memcmp(old + pos, new + pos, len) != 0;
        if (!differs && start >= 0) {
            ret = write_run(r, offset + start, pos - start, old + start);
        }
        start = !differs ? -1 : start < 0 ? pos : start;
        if (pos == bytes) {
            break;
        }
    }
    return ret;
}

static bool coroutine_fn rebase_range(Rebase *r, int64_t offset, int64_t bytes, uint8_t *old,
                                      uint8_t *new)
{
    int old_zero = read_backing(&r->old, offset, bytes, old);

    if (old_zero < 0) {
        fail(r, old_zero, "reading from old backing file", offset);
        return false;
    }
    int new_zero = read_backing(&r->new, offset, bytes, new);
    if (new_zero < 0) {
        fail(r, new_zero, "reading from new backing file", offset);
        return false;
    }
    if (old_zero && new_zero) {
        return true;
    }
    int ret = write_differences(r, offset, bytes, old, new);
    if (ret < 0) {
        fail(r, ret, "writing to COW image", offset);
    }
    return ret >= 0;
}

static void coroutine_fn rebase_worker(void *opaque)
{
    Rebase *r = opaque;
    uint8_t *old = qemu_memalign(BUFFER_ALIGN_BYTES, CHUNK_BYTES);
    uint8_t *new = qemu_memalign(BUFFER_ALIGN_BYTES, CHUNK_BYTES);

    while (r->ret == 0 && r->cursor < r->bytes) {
        int64_t offset = r->cursor;
        int64_t end = r->cursor = MIN(offset + CHUNK_BYTES, r->bytes);
        r->done_bytes += end - offset;
        for (int64_t bytes; offset < end && r->ret == 0; offset += bytes) {
            bytes = end - offset;
            int ret = needs_look(r, offset, &bytes);
            if (ret < 0) {
                fail(r, ret, "reading image metadata", offset);
            } else if (ret > 0) {
                rebase_range(r, offset, bytes, old, new);
            }
        }
        img_progress_set(100.0 * r->done_bytes / r->bytes);
    }
    qemu_vfree(old);
    qemu_vfree(new);
    r->running--;
}

/* ---- the two backing files -------------------------------------------------------- */

static bool open_new_backing(Rebase *r)
{
    const RebaseRequest *req = r->req;
    ImgSource src = { .format = req->backing_format, .force_share = req->src.force_share };
    Error *err = NULL;
    bool unused;
    int flags = 0;

    img_parse_cache(req->source_cache, &flags, &unused);
    g_autofree char *full = img_resolve_backing_name(blk_bs(r->blk), req->backing_file, &err);
    if (full) {
        src.name = full;
        r->new.blk = img_try_open(&src, flags, &err);
    }
    if (!r->new.blk) {
        error_reportf_err(err, "Could not open new backing file '%s': ", req->backing_file);
        return false;
    }
    r->new.bytes = img_length(r->new.blk, req->backing_file);
    return r->new.bytes >= 0;
}

/* Take the layer that the image has now. */
static bool use_old_backing(Rebase *r)
{
    BlockDriverState *bs = bdrv_backing_chain_next(bdrv_skip_filters(blk_bs(r->blk)));
    Error *err = NULL;

    if (!bs) {
        return true;
    }
    r->old.blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
    if (!r->old.blk) {
        error_reportf_err(err, "Could not read the old backing file: ");
        return false;
    }
    r->old.bytes = img_length(r->old.blk, bs->filename);
    r->old_top = bs;
    return r->old.bytes >= 0;
}

static const char *host_file(BlockDriverState *bs)
{
    const char *name = bs->file ? bs->file->bs->exact_filename : bs->exact_filename;

    return name ? name : "";
}

/* See whether the new backing file is one of those behind the old one. */
static bool find_new_in_chain(Rebase *r)
{
    BlockDriverState *new = r->new.blk ? blk_bs(r->new.blk) : NULL;
    int64_t same_bytes = INT64_MAX;
    struct stat st, wanted;

    if (!new || stat(host_file(new), &wanted) < 0) {
        return true;
    }
    for (BlockDriverState *bs = r->old_top; bs; bs = bdrv_backing_chain_next(bs)) {
        if (stat(host_file(bs), &st) == 0 && st.st_dev == wanted.st_dev &&
            st.st_ino == wanted.st_ino && bs->drv == new->drv) {
            r->new_in_chain = bs;
            /* Behind the end of a layer the next ones do not show, so nothing is known. */
            r->same_bytes = bs == r->old_top ? MIN(r->old.bytes, r->bytes) : same_bytes;
            return true;
        }
        int64_t bytes = bdrv_getlength(bs);
        if (bytes < 0) {
            error_report("Could not get size of '%s': %s", bs->filename,
                         strerror((int)-bytes));
            return false;
        }
        same_bytes = MIN(same_bytes, bytes);
    }
    return true;
}

/* ---- all of it -------------------------------------------------------------------- */

static bool copy_differences(Rebase *r)
{
    BlockDriverInfo bdi = { 0 };

    r->bytes = img_length(r->blk, r->name);
    if (r->bytes < 0 || !use_old_backing(r) || !find_new_in_chain(r)) {
        return false;
    }
    bdrv_get_info(blk_bs(r->blk), &bdi);
    r->cluster_bytes = MAX(bdi.cluster_size, (int)BDRV_SECTOR_SIZE);
    r->unit_bytes = !r->req->compress && bdi.subcluster_size > 0 ? bdi.subcluster_size
                                                                 : r->cluster_bytes;
    r->running = COROUTINES;
    for (int i = 0; i < COROUTINES; i++) {
        aio_co_enter(blk_get_aio_context(r->blk), qemu_coroutine_create(rebase_worker, r));
    }
    img_wait(&r->running);
    /* The data must be there before the old backing file is forgotten. */
    return r->ret == 0 && img_flush(r->blk, r->name);
}

static bool change_backing_file(Rebase *r)
{
    const char *name = r->req->backing_file;
    bool any = name && *name;
    int ret = bdrv_change_backing_file(bdrv_skip_filters(blk_bs(r->blk)), any ? name : NULL,
                                       any ? r->req->backing_format : NULL);

    if (ret < 0) {
        error_report("Could not change the backing file to '%s': %s", any ? name : "",
                     ret == -ENOSPC ? "No space left in the file header" : strerror(-ret));
    }
    return ret >= 0;
}

static bool rebase(Rebase *r)
{
    const RebaseRequest *req = r->req;
    bool to_file = req->backing_file && *req->backing_file;

    if (req->backing_format && !bdrv_find_format(req->backing_format)) {
        error_report("Invalid format name: '%s'", req->backing_format);
        return false;
    }
    if (!req->unsafe) {
        if (to_file && !open_new_backing(r)) {
            return false;
        }
    }
    if (to_file && !req->backing_format) {
        error_report("Could not change the backing file to '%s': backing format must be "
                     "specified", req->backing_file);
        return false;
    }
    if (!req->unsafe && !copy_differences(r)) {
        return false;
    }
    return change_backing_file(r) && img_flush(r->blk, r->name);
}

static bool run(const RebaseRequest *req)
{
    Rebase r = { .req = req, .name = req->src.name };
    ImgSource src = req->src;
    int flags = BDRV_O_RDWR | BDRV_O_UNMAP | (req->unsafe ? BDRV_O_NO_BACKING : 0);
    int source_flags = 0;
    bool unused;

    src.force_share = false;    /* what is written to is not shared */
    if (!img_parse_cache(req->cache, &flags, &unused)) {
        error_report("Invalid cache option: %s", req->cache);
        return false;
    }
    if (!img_parse_cache(req->source_cache, &source_flags, &unused)) {
        error_report("Invalid source cache option: %s", req->source_cache);
        return false;
    }
    img_progress_start(req->quiet ? IMG_PROGRESS_OFF : req->progress, 1.0);
    img_progress_set(0);
    r.blk = img_open(&src, flags);
    bool ok = r.blk && rebase(&r);
    if (ok) {
        img_progress_set(100);
    }
    img_progress_end();
    blk_unref(r.new.blk);
    blk_unref(r.old.blk);
    blk_unref(r.blk);
    return ok;
}

static bool parse_option(RebaseRequest *req, int c)
{
    switch (c) {
    case 'b': req->backing_file = optarg; break;
    case 'F': req->backing_format = optarg; break;
    case 'T': req->source_cache = optarg; break;
    case 'U': req->src.force_share = true; break;
    case 'c': req->compress = true; break;
    case 'f': req->src.format = optarg; break;
    case 'p': req->progress = IMG_PROGRESS_HUMAN; break;
    case IMG_OPT_PROGRESS: return img_parse_progress(optarg, &req->progress);
    case 'q': req->quiet = true; break;
    case 't': req->cache = optarg; break;
    case 'u': req->unsafe = true; break;
    case IMG_OPT_IMAGE_OPTS: req->src.image_opts = true; break;
    }
    return true;
}

int img_rebase(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { "compress", no_argument, NULL, 'c' },
        { "progress", optional_argument, NULL, IMG_OPT_PROGRESS },
        { NULL },
    };
    RebaseRequest req = { .cache = "writeback", .source_cache = "writeback" };
    int c;

    while ((c = img_getopt(argc, argv, "b:F:T:Ucf:pqt:u", longopts)) != -1) {
        if (!parse_option(&req, c)) {
            return EXIT_FAILURE;
        }
    }
    if (optind != argc - 1) {
        img_usage_error("Expecting one image file name");
    }
    req.src.name = argv[optind];
    if (!req.unsafe && !req.backing_file) {
        img_usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
    }
    if (img_source_conflict(&req.src)) {
        return EXIT_FAILURE;
    }
    return run(&req) ? EXIT_SUCCESS : EXIT_FAILURE;
}
