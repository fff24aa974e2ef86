/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img map: which layer and which bytes of which file hold each part of an image. */
#include "miniblk/osdep.h"
#include "tools/img.h"

/* No query is longer, so that any length can be asked about. */
#define STEP_BYTES_MAX (1LL << 30)

typedef struct MapEntry {
    int64_t start, length;
    int depth;                  /* 0: the image itself, 1: its backing file, ... */
    bool present, zero, data, compressed;
    bool has_offset;
    int64_t offset;             /* in FILE */
    const char *file;
} MapEntry;

typedef struct MapOutput {
    ImgOutput format;
    bool any;                   /* an entry was printed */
    bool failed;
} MapOutput;

typedef struct MapRequest {
    ImgSource src;
    int64_t start, max_bytes;   /* the part to show; max_bytes -1: to the end */
    MapOutput out;
} MapRequest;

static const char *json_bool(bool value)
{
    return value ? "true" : "false";
}

static void print_entry(MapOutput *out, const MapEntry *e)
{
    if (out->format == IMG_OUTPUT_JSON) {
        printf("%s{ \"start\": %" PRId64 ", \"length\": %" PRId64 ", \"depth\": %d, "
               "\"present\": %s, \"zero\": %s, \"data\": %s, \"compressed\": %s",
               out->any ? ",\n" : "", e->start, e->length, e->depth, json_bool(e->present),
               json_bool(e->zero), json_bool(e->data), json_bool(e->compressed));
        if (e->has_offset) {
            printf(", \"offset\": %" PRId64, e->offset);
        }
        printf("}");
        out->any = true;
        return;
    }
    /* People are shown where data is; the rest reads as zeroes. */
    if (e->data && !e->has_offset) {
        error_report("File contains external, encrypted or compressed clusters.");
        out->failed = true;
    } else if (e->data && !e->zero) {
        printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->length,
               e->offset, e->file ? e->file : "");
    }
}

/* Whether NEXT continues E, so that both are one line. */
static bool continues(const MapEntry *e, const MapEntry *next)
{
    return e->length > 0 && e->depth == next->depth && e->present == next->present &&
           e->zero == next->zero && e->data == next->data &&
           e->compressed == next->compressed && e->has_offset == next->has_offset &&
           !g_strcmp0(e->file, next->file) &&
           (!e->has_offset || e->offset + e->length == next->offset);
}

/*
 * Find the layer that defines the bytes at OFFSET: 0 for BS itself, 1 for the one behind it,
 * ... *BYTES is shortened to what it defines alike, *NOWHERE is set when it does so only by
 * reaching beyond the end of what is behind it. -errno.
 */
static int find_depth(BlockDriverState *bs, int64_t offset, int64_t *bytes, bool *nowhere)
{
    int depth = 0;

    for (bs = bdrv_skip_filters(bs);; depth++) {
        BlockDriverState *backing = bdrv_backing_chain_next(bs);
        int64_t alike = 0;
        if (!backing) {
            return depth;
        }
        int ret = bdrv_is_allocated(bs, offset, *bytes, &alike);
        if (ret < 0) {
            return ret;
        }
        *bytes = alike > 0 ? MIN(*bytes, alike) : *bytes;
        if (ret) {
            return depth;
        }
        int64_t backing_bytes = bdrv_getlength(backing);
        if (backing_bytes < 0) {
            return (int)backing_bytes;
        }
        if (offset >= backing_bytes) {
            *nowhere = true;
            return depth;
        }
        *bytes = MIN(*bytes, backing_bytes - offset);
        bs = backing;
    }
}

static int query(BlockDriverState *bs, int64_t offset, int64_t bytes, MapEntry *e)
{
    BlockDriverState *file = NULL;
    int64_t map = 0, alike = 0;
    bool nowhere = false;
    int depth = find_depth(bs, offset, &bytes, &nowhere);

    if (depth < 0) {
        return depth;
    }
    int ret = bdrv_block_status(bs, offset, bytes, &alike, &map, &file);
    if (ret < 0 || alike <= 0) {
        return ret < 0 ? ret : -EIO;
    }
    *e = (MapEntry){
        .start = offset,
        .length = MIN(bytes, alike),
        .depth = depth,
        .present = (ret & BDRV_BLOCK_ALLOCATED) && !nowhere,
        .zero = ret & BDRV_BLOCK_ZERO,
        .data = ret & BDRV_BLOCK_DATA,
        .compressed = ret & BDRV_BLOCK_COMPRESSED,
        .has_offset = ret & BDRV_BLOCK_OFFSET_VALID,
        .offset = map,
        .file = ret & BDRV_BLOCK_OFFSET_VALID && file ? file->filename : NULL,
    };
    return 0;
}

static bool print_map(MapRequest *req, BlockBackend *blk)
{
    int64_t length = img_length(blk, req->src.name);
    MapEntry entry = { .start = req->start }, next;
    MapOutput *out = &req->out;

    if (length < 0) {
        return false;
    }
    int64_t end = req->max_bytes < 0 || req->max_bytes > length - req->start
                  ? length : req->start + req->max_bytes;
    if (out->format == IMG_OUTPUT_HUMAN) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    } else {
        printf("[");
    }
    while (entry.start + entry.length < end && !out->failed) {
        int64_t offset = entry.start + entry.length;
        int ret = query(blk_bs(blk), offset, MIN(end - offset, STEP_BYTES_MAX), &next);
        if (ret < 0) {
            error_report("Failed to read image metadata: %s", strerror(-ret));
            return false;
        }
        if (continues(&entry, &next)) {
            entry.length += next.length;
            continue;
        }
        if (entry.length > 0) {
            print_entry(out, &entry);
        }
        entry = next;
    }
    if (!out->failed) {
        print_entry(out, &entry);
    }
    if (out->format == IMG_OUTPUT_JSON) {
        printf("]\n");
    }
    return !out->failed;
}

static bool take_option(MapRequest *req, int c)
{
    switch (c) {
    case 'f': req->src.format = optarg; break;
    case 'U': req->src.force_share = true; break;
    case IMG_OPT_OUTPUT: return img_parse_output(optarg, &req->out.format);
    case 's': case IMG_OPT_START_OFFSET:
        req->start = img_parse_size("start offset", optarg, 0, INT64_MAX);
        return req->start >= 0;
    case 'l': case IMG_OPT_MAX_LENGTH:
        req->max_bytes = img_parse_size("max length", optarg, 0, INT64_MAX);
        return req->max_bytes >= 0;
    case IMG_OPT_IMAGE_OPTS: req->src.image_opts = true; break;
    }
    return true;
}

int img_map(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "output", required_argument, NULL, IMG_OPT_OUTPUT },
        { "object", required_argument, NULL, IMG_OPT_OBJECT },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { "start-offset", required_argument, NULL, IMG_OPT_START_OFFSET },
        { "max-length", required_argument, NULL, IMG_OPT_MAX_LENGTH },
        { NULL },
    };
    /* Looking never disturbs a user of the image, and needs no permission to look. */
    MapRequest req = { .src.look = true, .max_bytes = -1 };
    int c;

    while ((c = img_getopt(argc, argv, "f:s:l:U", longopts)) != -1) {
        if (!take_option(&req, c)) {
            return EXIT_FAILURE;
        }
    }
    img_take_filename(&req.src, argc, argv);

    BlockBackend *blk = img_open(&req.src, 0);
    if (!blk) {
        return EXIT_FAILURE;
    }
    bool ok = print_map(&req, blk);
    blk_unref(blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
