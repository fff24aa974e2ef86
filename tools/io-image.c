/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands about the image as a whole: its size, what it is, what is allocated in it. */
#include "miniblk/osdep.h"
#include <getopt.h>
#include "miniblk/block-driver.h"
#include "tools/img.h"
#include "tools/io.h"

/* ---- size ------------------------------------------------------------------------- */

static bool run_length(int argc, char **argv)
{
    int64_t length = blk_getlength(io.blk);

    if (length < 0) {
        printf("getlength: %s\n", strerror((int)-length));
        return false;
    }
    g_autofree char *text = io_size_text(length);
    printf("%s\n", text);
    return true;
}

static bool parse_prealloc(const char *name, PreallocMode *mode)
{
    static const char *const names[PREALLOC_MODE__MAX] = {
        [PREALLOC_MODE_OFF] = "off", [PREALLOC_MODE_METADATA] = "metadata",
        [PREALLOC_MODE_FALLOC] = "falloc", [PREALLOC_MODE_FULL] = "full",
    };

    for (int i = 0; i < PREALLOC_MODE__MAX; i++) {
        if (!strcmp(name, names[i])) {
            *mode = i;
            return true;
        }
    }
    error_report("Invalid preallocation mode '%s'", name);
    return false;
}

static bool run_truncate(int argc, char **argv)
{
    PreallocMode prealloc = PREALLOC_MODE_OFF;
    Error *err = NULL;
    IoOptions opts;
    int64_t length;

    if (!io_parse_options(argc, argv, "m:", &opts) ||
        (opts.on['m'] && !parse_prealloc(opts.arg['m'], &prealloc))) {
        return false;
    }
    if (optind != argc - 1) {
        return io_usage(argv);
    }
    if (!io_parse_size(argv[optind], &length)) {
        return false;
    }
    /* Exactly this size, or fail. */
    if (blk_truncate(io.blk, length, false, prealloc, 0, &err) < 0) {
        error_report_err(err);
        return false;
    }
    return true;
}

/* ---- what it is ------------------------------------------------------------------- */

static bool run_info(int argc, char **argv)
{
    BlockDriverState *bs = blk_bs(io.blk);
    BlockDriverInfo bdi = { 0 };

    printf("format name: %s\n", bs->drv->format_name);
    if (bs->drv->protocol_name) {
        printf("format name: %s\n", bs->drv->protocol_name);
    }
    if (bdrv_get_info(bs, &bdi) < 0) {
        return false;
    }
    g_autofree char *cluster = io_size_text(bdi.cluster_size);
    g_autofree char *state = io_size_text(bdi.vm_state_offset);
    printf("cluster size: %s\n", cluster);
    printf("vm state offset: %s\n", state);

    json_t *specific = bs->drv->bdrv_get_specific_info ?
                       bs->drv->bdrv_get_specific_info(bs) : NULL;
    const json_t *data = json_object_get(specific, "data");
    if (json_object_size(data) > 0) {
        printf("Format specific information:\n");
        img_print_nested(data, 4);
    }
    json_decref(specific);
    return true;
}

/* ---- what is allocated ------------------------------------------------------------ */

/*
 * Whether this layer defines the bytes at OFFSET, and how many of the LIMIT from there on it
 * does alike, in *BYTES: 0 at the end of the image. < 0 with a message.
 */
static int query(int64_t offset, int64_t limit, int64_t *bytes)
{
    int ret = 0, previous = -1;
    int64_t n = 0;

    *bytes = 0;
    while (*bytes < limit) {
        ret = bdrv_is_allocated(blk_bs(io.blk), offset + *bytes, limit - *bytes, &n);
        if (ret < 0) {
            printf("is_allocated failed: %s\n", strerror(-ret));
            return ret;
        }
        if (n == 0 || (previous >= 0 && ret != previous)) {
            break;
        }
        *bytes += n;
        previous = ret;
    }
    return MAX(previous, 0);
}

static bool run_alloc(int argc, char **argv)
{
    int64_t offset, count = BDRV_SECTOR_SIZE, length = blk_getlength(io.blk);
    int64_t allocated = 0, pos = 0, n;

    if (!io_parse_size(argv[1], &offset) || (argc > 2 && !io_parse_size(argv[2], &count))) {
        return false;
    }
    if (length < 0) {
        printf("getlength: %s\n", strerror((int)-length));
        return false;
    }
    count = MIN(count, MAX(length - offset, 0));
    for (; pos < count; pos += n) {
        int ret = query(offset + pos, count - pos, &n);
        if (ret < 0) {
            return false;
        }
        if (n == 0) {
            break;
        }
        allocated += ret ? n : 0;
    }
    g_autofree char *where = io_size_text(offset);
    printf("%" PRId64 "/%" PRId64 " bytes allocated at offset %s\n", allocated, pos, where);
    return true;
}

static bool run_map(int argc, char **argv)
{
    int64_t length = blk_getlength(io.blk);
    int64_t n;

    if (length < 0) {
        error_report("Failed to query image length: %s", strerror((int)-length));
        return false;
    }
    for (int64_t offset = 0; offset < length; offset += n) {
        int ret = query(offset, length - offset, &n);
        if (ret < 0) {
            return false;
        }
        if (n == 0) {
            error_report("Unexpected end of image");
            return false;
        }
        g_autofree char *size = io_size_text(n);
        g_autofree char *where = io_size_text(offset);
        printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n", size, n,
               ret ? "   " : "not", where, offset);
    }
    return true;
}

const IoCommand io_image_commands[] = {
    { "alloc", "a", run_alloc, 1, 2, .syntax = "offset [count]",
      .summary = "checks if offset is allocated in the file" },
    { "info", "i", run_info, .syntax = "",
      .summary = "prints information about the current file" },
    { "length", "l", run_length, .syntax = "",
      .summary = "gets the length of the current file" },
    { "map", NULL, run_map, .syntax = "", .summary = "prints the allocated areas of a file" },
    { "truncate", "t", run_truncate, 1, 3, .perm = BLK_PERM_WRITE | BLK_PERM_RESIZE,
      .syntax = "[-m prealloc_mode] off",
      .summary = "truncates the current file at the given offset" },
    { NULL },
};
