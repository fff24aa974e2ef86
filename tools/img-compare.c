/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img compare: whether two images show the same. */
#include "miniblk/osdep.h"
#include "tools/img.h"

#define CHUNK_BYTES (2 * 1024 * 1024)
#define BUFFER_ALIGN_BYTES 4096
/* No step is longer, so that progress moves and status queries stay small. */
#define STEP_BYTES_MAX (1LL << 30)

/* Exit statuses; scripts know them. */
enum { COMPARE_SAME = 0, COMPARE_DIFFER = 1, COMPARE_OPEN_FAILED = 2,
       COMPARE_STATUS_FAILED = 3, COMPARE_READ_FAILED = 4 };

/* Handled here because of its exit status. */
enum { OPT_OBJECT = IMG_OPT_LAST };

typedef struct Side {
    const char *name;
    BlockBackend *blk;
    int64_t bytes;
    uint8_t *buf;
    int status;                 /* BDRV_BLOCK_* from the present step up to ... */
    int64_t status_end;         /* ... here; asking again would cost a search for holes */
    int ret;                    /* of the present read */
} Side;

typedef struct Compare {
    Side side[2];
    bool strict, quiet;
    int64_t total_bytes;        /* of the longer one */
    int reading;                /* reads in flight */
} Compare;

static bool is_zero(const Side *side)
{
    return side->status & BDRV_BLOCK_ZERO;
}

static int print_mismatch(const Compare *cmp, int64_t offset)
{
    img_printf(cmp->quiet, "Content mismatch at offset %" PRId64 "!\n", offset);
    return COMPARE_DIFFER;
}

/* The status of SIDE from OFFSET on; *BYTES is shortened to what is alike. */
static int query_status(Side *side, int64_t offset, int64_t *bytes)
{
    if (offset >= side->status_end) {
        int64_t ask = MIN(side->bytes - offset, STEP_BYTES_MAX), alike = 0, map;
        BlockDriverState *file;
        side->status = bdrv_block_status(blk_bs(side->blk), offset, ask, &alike, &map, &file);
        if (side->status < 0 || alike <= 0) {
            error_report("Sector allocation test failed for %s", side->name);
            return COMPARE_STATUS_FAILED;
        }
        side->status_end = offset + alike;
    }
    *bytes = MIN(*bytes, side->status_end - offset);
    return COMPARE_SAME;
}

typedef struct ReadRequest {
    Compare *cmp;
    Side *side;
    int64_t offset, bytes;
} ReadRequest;

static void coroutine_fn read_side(void *opaque)
{
    ReadRequest *req = opaque;

    req->side->ret = blk_co_pread(req->side->blk, req->offset, req->bytes, req->side->buf, 0);
    req->cmp->reading--;
}

/* Read the sides that are not known to be zero, at the same time. */
static int read_sides(Compare *cmp, int64_t offset, int64_t bytes)
{
    ReadRequest req[2];

    for (int i = 0; i < 2; i++) {
        Side *side = &cmp->side[i];
        side->ret = 0;
        if (side->blk && offset < side->bytes && !is_zero(side)) {
            req[i] = (ReadRequest){ cmp, side, offset, bytes };
            cmp->reading++;
            aio_co_enter(blk_get_aio_context(side->blk),
                         qemu_coroutine_create(read_side, &req[i]));
        }
    }
    img_wait(&cmp->reading);
    for (int i = 0; i < 2; i++) {
        if (cmp->side[i].ret < 0) {
            error_report("Error while reading offset %" PRId64 " of %s: %s", offset,
                         cmp->side[i].name, strerror(-cmp->side[i].ret));
            return COMPARE_READ_FAILED;
        }
    }
    return COMPARE_SAME;
}

/* Start of the first sector of BYTES at A that differs from B (NULL: zeroes); -1 if none. */
static int64_t find_difference(const uint8_t *a, const uint8_t *b, int64_t bytes)
{
    const int64_t sector = BDRV_SECTOR_SIZE;

    if (b ? !memcmp(a, b, bytes) : buffer_is_zero(a, bytes)) {
        return -1;
    }
    for (int64_t pos = 0; pos < bytes; pos += sector) {
        int64_t len = MIN(sector, bytes - pos);
        if (b ? memcmp(a + pos, b + pos, len) : !buffer_is_zero(a + pos, len)) {
            return pos;
        }
    }
    g_assert_not_reached();
}

/* One step from OFFSET on, *BYTES long at most; it is set to how far that went. */
static int compare_step(Compare *cmp, int64_t offset, int64_t *bytes)
{
    const int layout = BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;
    Side *a = &cmp->side[0], *b = &cmp->side[1];
    int ret;

    if ((ret = query_status(a, offset, bytes)) || (ret = query_status(b, offset, bytes))) {
        return ret;
    }
    if (cmp->strict && (a->status & layout) != (b->status & layout)) {
        img_printf(cmp->quiet, "Strict mode: Offset %" PRId64 " block status mismatch!\n",
                   offset);
        return COMPARE_DIFFER;
    }
    if (is_zero(a) && is_zero(b)) {
        return COMPARE_SAME;
    }
    *bytes = MIN(*bytes, CHUNK_BYTES);
    ret = read_sides(cmp, offset, *bytes);
    if (ret) {
        return ret;
    }
    int64_t pos = is_zero(a) ? find_difference(b->buf, NULL, *bytes) :
                  find_difference(a->buf, is_zero(b) ? NULL : b->buf, *bytes);
    return pos < 0 ? COMPARE_SAME : print_mismatch(cmp, offset + pos);
}

/* One step in what only the longer image has: it must be zero there. */
static int rest_step(Compare *cmp, Side *longer, int64_t offset, int64_t *bytes)
{
    int ret = query_status(longer, offset, bytes);

    if (ret || is_zero(longer)) {
        return ret;
    }
    *bytes = MIN(*bytes, CHUNK_BYTES);
    ret = read_sides(cmp, offset, *bytes);
    if (ret) {
        return ret;
    }
    int64_t pos = find_difference(longer->buf, NULL, *bytes);
    return pos < 0 ? COMPARE_SAME : print_mismatch(cmp, offset + pos);
}

static int compare(Compare *cmp)
{
    Side *a = &cmp->side[0], *b = &cmp->side[1];
    Side *longer = a->bytes > b->bytes ? a : b;
    int64_t common_bytes = MIN(a->bytes, b->bytes);
    bool warned = false;

    cmp->total_bytes = longer->bytes;
    if (cmp->strict && a->bytes != b->bytes) {
        img_printf(cmp->quiet, "Strict mode: Image size mismatch!\n");
        return COMPARE_DIFFER;
    }
    for (int64_t offset = 0, bytes; offset < cmp->total_bytes; offset += bytes) {
        int ret;
        if (offset < common_bytes) {
            bytes = MIN(common_bytes - offset, STEP_BYTES_MAX);
            ret = compare_step(cmp, offset, &bytes);
        } else {
            if (!warned) {
                img_printf(cmp->quiet, "Warning: Image size mismatch!\n");
                warned = true;
            }
            bytes = MIN(cmp->total_bytes - offset, STEP_BYTES_MAX);
            ret = rest_step(cmp, longer, offset, &bytes);
        }
        if (ret) {
            return ret;
        }
        img_progress_set(100.0 * (offset + bytes) / cmp->total_bytes);
    }
    img_printf(cmp->quiet, "Images are identical.\n");
    return COMPARE_SAME;
}

static bool open_sides(Compare *cmp, ImgSource sources[2], const char *cache)
{
    bool unused;
    int flags = 0;

    if (!img_parse_cache(cache, &flags, &unused)) {
        error_report("Invalid source cache option: %s", cache);
        return false;
    }
    for (int i = 0; i < 2; i++) {
        Side *side = &cmp->side[i];
        if (img_source_conflict(&sources[i])) {
            return false;
        }
        side->name = sources[i].name;
        side->blk = img_open(&sources[i], flags);
        if (!side->blk) {
            return false;
        }
        side->bytes = img_length(side->blk, side->name);
        if (side->bytes < 0) {
            return false;
        }
        side->buf = qemu_memalign(BUFFER_ALIGN_BYTES, CHUNK_BYTES);
    }
    return true;
}

int img_compare(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "object", required_argument, NULL, OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { "progress", optional_argument, NULL, IMG_OPT_PROGRESS },
        { NULL },
    };
    Compare cmp = { 0 };
    ImgSource sources[2] = { { .read_in_use = true }, { .read_in_use = true } };
    const char *cache = "writeback";
    ImgProgress progress = IMG_PROGRESS_OFF;
    int c;

    while ((c = img_getopt(argc, argv, "f:F:T:pqsU", longopts)) != -1) {
        switch (c) {
        case 'f': sources[0].format = optarg; break;
        case 'F': sources[1].format = optarg; break;
        case 'T': cache = optarg; break;
        case 'p': progress = IMG_PROGRESS_HUMAN; break;
        case 'q': cmp.quiet = true; break;
        case 's': cmp.strict = true; break;
        case IMG_OPT_PROGRESS:
            if (!img_parse_progress(optarg, &progress)) {
                return COMPARE_OPEN_FAILED;
            }
            break;
        case OPT_OBJECT:
            if (!img_add_object(optarg)) {
                return COMPARE_OPEN_FAILED;
            }
            break;
        case 'U':
            sources[0].force_share = sources[1].force_share = true;
            break;
        case IMG_OPT_IMAGE_OPTS:
            sources[0].image_opts = sources[1].image_opts = true;
            break;
        }
    }
    if (optind != argc - 2) {
        img_usage_error("Expecting two image file names");
    }
    sources[0].name = argv[optind];
    sources[1].name = argv[optind + 1];

    int status = COMPARE_OPEN_FAILED;
    img_progress_start(cmp.quiet ? IMG_PROGRESS_OFF : progress, 2.0);
    if (open_sides(&cmp, sources, cache)) {
        img_progress_set(0);
        status = compare(&cmp);
    }
    img_progress_end();
    for (int i = 0; i < 2; i++) {
        if (cmp.side[i].blk) {
            blk_unref(cmp.side[i].blk);
        }
        qemu_vfree(cmp.side[i].buf);
    }
    return status;
}
