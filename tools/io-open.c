/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that open, close and reopen the image. */
#include "miniblk/osdep.h"
#include <getopt.h>
#include <unistd.h>
#include "tools/img.h"
#include "tools/io.h"

/* ---- how to open ------------------------------------------------------------------ */

static bool set_discard(IoOpen *how, const char *mode)
{
    static const struct {
        const char *name;
        int flag;
    } modes[] = { { "ignore", 0 }, { "off", 0 },
                  { "unmap", BDRV_O_UNMAP }, { "on", BDRV_O_UNMAP } };

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(mode, modes[i].name)) {
            how->flags = (how->flags & ~BDRV_O_UNMAP) | modes[i].flag;
            return true;
        }
    }
    error_report("Invalid discard option: %s", mode);
    return false;
}

static bool set_aio(IoOpen *how, const char *mode)
{
    static const struct {
        const char *name;
        int flag;
    } modes[] = { { "threads", 0 }, { "native", BDRV_O_NATIVE_AIO },
                  { "io_uring", BDRV_O_IO_URING } };

    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(mode, modes[i].name)) {
            how->flags = (how->flags & ~(BDRV_O_NATIVE_AIO | BDRV_O_IO_URING)) |
                         modes[i].flag;
            return true;
        }
    }
    error_report("Invalid aio option: %s", mode);
    return false;
}

static bool set_cache(IoOpen *how, const char *mode)
{
    if (!img_parse_cache(mode, &how->flags, &how->writethrough)) {
        error_report("Invalid cache option: %s", mode);
        return false;
    }
    return true;
}

bool io_open_option(IoOpen *how, int letter, const char *arg)
{
    switch (letter) {
    case 'r':
        how->flags &= ~BDRV_O_RDWR;
        return true;
    case 's':
        how->flags |= BDRV_O_SNAPSHOT;
        return true;
    case 'C':
        how->flags |= BDRV_O_COPY_ON_READ;
        return true;
    case 'U':
        how->force_share = true;
        return true;
    case 'n':
        return set_cache(how, "none");
    case 't':
        return set_cache(how, arg);
    case 'd':
        return set_discard(how, arg);
    case 'k':
        return set_aio(how, "native");
    case 'i':
        return set_aio(how, arg);
    }
    g_assert_not_reached();
}

/* ---- opening ---------------------------------------------------------------------- */

/* A new empty qcow2 file for LENGTH bytes that nobody else finds; newly allocated name. */
static char *make_overlay(int64_t length, Error **errp)
{
    const char *dir = g_getenv("TMPDIR");
    char *path = g_build_filename(dir ? dir : "/var/tmp", "miniblk-io.XXXXXX", NULL);
    g_autofree char *size = g_strdup_printf("%" PRId64, length);
    g_autoptr(json_t) options = qdict_new();
    int fd = g_mkstemp(path);

    if (fd < 0) {
        error_setg_errno(errp, errno, "Could not create temporary overlay '%s'", path);
        g_free(path);
        return NULL;
    }
    close(fd);
    qdict_put_str(options, "size", size);
    if (bdrv_create(bdrv_find_format("qcow2"), path, options, errp) < 0) {
        unlink(path);
        g_free(path);
        return NULL;
    }
    return path;
}

/* Open the image only to read, behind an overlay that takes the writes and is forgotten. */
static BlockBackend *open_behind_overlay(const char *name, QDict *options, int flags,
                                         Error **errp)
{
    BlockDriverState *image = bdrv_open(name, NULL, options, flags & ~BDRV_O_RDWR, errp);
    BlockBackend *blk = NULL;
    g_autofree char *path = NULL;

    if (!image) {
        return NULL;
    }
    int64_t length = bdrv_getlength(image);
    if (length < 0) {
        error_setg_errno(errp, (int)-length, "Could not get the size of the image");
    } else {
        path = make_overlay(length, errp);
    }
    if (path) {
        QDict *overlay = qdict_new();
        qdict_put_str(overlay, "driver", "qcow2");
        qdict_put_str(overlay, "backing", bdrv_get_node_name(image));
        blk = blk_new_open(path, NULL, overlay,
                           (flags & ~BDRV_O_CACHE_MASK) | BDRV_O_NO_FLUSH, errp);
        unlink(path);
    }
    bdrv_unref(image);
    return blk;
}

/* -C needs an image that can be written. */
static bool check_copy_on_read(const IoOpen *how, BlockDriverState *bs, Error **errp)
{
    if ((how->flags & BDRV_O_COPY_ON_READ) && bdrv_is_read_only(bs)) {
        error_setg(errp, "Can't use copy-on-read on read-only device");
        return false;
    }
    return true;
}

static BlockBackend *open_backend(const char *name, QDict *options, const IoOpen *how,
                                  Error **errp)
{
    int flags = how->flags & ~(BDRV_O_SNAPSHOT | BDRV_O_COPY_ON_READ);
    BlockBackend *blk;

    if (how->flags & BDRV_O_SNAPSHOT) {
        blk = open_behind_overlay(name, options, flags, errp);
    } else {
        blk = blk_new_open(name, NULL, options, flags, errp);
    }
    if (blk && !check_copy_on_read(how, blk_bs(blk), errp)) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

bool io_open_image(const char *name, QDict *options, const IoOpen *how)
{
    Error *err = NULL;

    if (io.blk) {
        error_report("file open already, try 'help close'");
        qobject_unref(options);
        return false;
    }
    options = options ? options : qdict_new();
    if (how->force_share) {
        qdict_put_bool(options, "force-share", true);
    }
    io.blk = open_backend(name, options, how, &err);
    if (!io.blk) {
        if (name) {
            error_reportf_err(err, "can't open device %s: ", name);
        } else {
            error_reportf_err(err, "can't open: ");
        }
        return false;
    }
    io.writethrough = how->writethrough;
    io.copy_on_read = how->flags & BDRV_O_COPY_ON_READ;
    return true;
}

void io_close_image(void)
{
    blk_unref(io.blk);
    io.blk = NULL;
}

/* ---- commands --------------------------------------------------------------------- */

/* Add the options that TEXT lists to *OPTIONS; false with a message. */
static bool add_options(QDict **options, const char *text, const char *implied_key)
{
    Error *err = NULL;
    QDict *more = keyval_parse(text, implied_key, &err);

    if (!more) {
        error_report_err(err);
        return false;
    }
    *options = *options ? *options : qdict_new();
    json_object_update(*options, more);
    qobject_unref(more);
    return true;
}

static bool run_open(int argc, char **argv)
{
    IoOpen how = IO_OPEN_DEFAULT;
    QDict *options = NULL;

    optind = 0;
    for (int c; (c = getopt(argc, argv, "rsCnko:Ui:t:d:")) != -1;) {
        bool ok = c == '?' ? io_usage(argv)
                  : c == 'o' ? add_options(&options, optarg, NULL)
                             : io_open_option(&how, c, optarg);
        if (!ok) {
            qobject_unref(options);
            return false;
        }
    }
    const char *name = optind < argc ? argv[optind] : NULL;
    if (optind < argc - 1 || (!name && !options)) {
        qobject_unref(options);
        return io_usage(argv);
    }
    if (name && io.image_opts) {
        if (!add_options(&options, name, "file")) {
            qobject_unref(options);
            return false;
        }
        name = NULL;
    }
    return io_open_image(name, options, &how);
}

static bool run_close(int argc, char **argv)
{
    io_close_image();
    return true;
}

/* The cache mode MODE as options; false with a message. */
static bool add_cache_options(QDict *options, const char *mode, bool *writethrough)
{
    IoOpen cache = { 0 };

    if (!set_cache(&cache, mode)) {
        return false;
    }
    if (qdict_haskey(options, "cache.direct") || qdict_haskey(options, "cache.no-flush") ||
        qdict_haskey(options, "cache")) {
        error_report("Cannot set both -c and the cache options");
        return false;
    }
    qdict_put_bool(options, "cache.direct", cache.flags & BDRV_O_NOCACHE);
    qdict_put_bool(options, "cache.no-flush", cache.flags & BDRV_O_NO_FLUSH);
    *writethrough = cache.writethrough;
    return true;
}

/* Add ACCESS ('r', 'w' or 0: as before) and CACHE (may be NULL) to OPTIONS, and reopen. */
static bool reopen_with(QDict *options, int access, const char *cache)
{
    bool writethrough = io.writethrough;
    uint64_t perm, shared;
    Error *err = NULL;

    if (access && qdict_haskey(options, "read-only")) {
        error_report("Cannot set both -r/-w and 'read-only'");
        return false;
    }
    if (access) {
        qdict_put_bool(options, "read-only", access == 'r');
    }
    if (cache && !add_cache_options(options, cache, &writethrough)) {
        return false;
    }
    /* The node cannot become read-only while we may write; commands ask for it anew. */
    blk_get_perm(io.blk, &perm, &shared);
    if (access == 'r') {
        blk_set_perm(io.blk, perm & ~(BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED |
                                      BLK_PERM_RESIZE), shared, &error_abort);
    }
    if (bdrv_reopen(blk_bs(io.blk), qobject_ref(options), true, &err) < 0) {
        error_report_err(err);
        return false;
    }
    io.writethrough = writethrough;
    return true;
}

static bool run_reopen(int argc, char **argv)
{
    QDict *options = NULL;
    const char *cache = NULL;
    int access = 0;
    bool ok = true;

    optind = 0;
    for (int c; ok && (c = getopt(argc, argv, "c:o:rw")) != -1;) {
        switch (c) {
        case 'c':
            cache = optarg;
            break;
        case 'o':
            ok = add_options(&options, optarg, NULL);
            break;
        case 'r':
        case 'w':
            if (access && access != c) {
                error_report("Only one -r/-w option may be given");
                ok = false;
            }
            access = c;
            break;
        default:
            ok = io_usage(argv);
        }
    }
    if (ok && optind != argc) {
        ok = io_usage(argv);
    }
    options = options ? options : qdict_new();
    ok = ok && reopen_with(options, access, cache);
    qobject_unref(options);
    return ok;
}

const IoCommand io_open_commands[] = {
    { "close", "c", run_close, .syntax = "", .summary = "close the current open file" },
    { "open", "o", run_open, 1, -1, .without_image = true,
      .syntax = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
      .summary = "open the file specified by path",
      .help = "'open -n -o driver=raw /tmp/data' opens a raw image to read and write,\n"
              "without the host's cache. All other commands work on the open image.\n"
              " -C    copy what is read from the backing file into the image\n"
              " -d    whether discards reach the file: ignore, off, unmap, on\n"
              " -i    how requests are made: threads, native, io_uring\n"
              " -k    -i native\n"
              " -n    -t none\n"
              " -o    options of the block driver, name=value,...\n"
              " -r    read only\n"
              " -s    writes go to a temporary file, the image does not change\n"
              " -t    cache mode: none, off, writeback, writethrough, directsync, unsafe\n"
              " -U    others may use the image, too (needs -r)\n" },
    { "reopen", NULL, run_reopen, 0, -1, .syntax = "[(-r|-w)] [-c cache] [-o options]",
      .summary = "reopens an image with new options",
      .help = "'reopen -o lazy-refcounts=on' lets a qcow2 image write counts back late.\n"
              " -c    change the cache mode\n"
              " -o    change options of the block driver, see 'help open'\n"
              " -r    make the image read-only\n"
              " -w    make the image writable\n" },
    { NULL },
};
