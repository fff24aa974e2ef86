/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening images for the subcommands, and what all of them ask an image. */
#include "miniblk/osdep.h"
#include "tools/img.h"

/* What SRC names, as options; NULL with ERRP set. */
static QDict *source_options(const ImgSource *src, Error **errp)
{
    QDict *options;

    if (src->image_opts) {
        /* A word without "=" refers to a node, as it does on the daemon's command line. */
        options = keyval_parse(src->name, "file", errp);
        if (!options) {
            return NULL;
        }
    } else {
        options = qdict_new();
        if (src->format) {
            qdict_put_str(options, "driver", src->format);
        }
    }
    if (src->force_share && !qdict_haskey(options, "force-share")) {
        qdict_put_bool(options, "force-share", true);
    }
    return options;
}

/* Whether SRC's option string forbids what -U demands; a message is printed then. */
static bool share_conflict(const ImgSource *src)
{
    g_autoptr(json_t) options = src->image_opts && src->force_share ?
                                keyval_parse(src->name, "file", NULL) : NULL;
    bool share = true;

    if (!options || (bdrv_opt_bool(options, "force-share", &share, NULL) && share)) {
        return false;
    }
    error_report("--force-share/-U conflicts with image options");
    return true;
}

bool img_source_conflict(const ImgSource *src)
{
    if (src->image_opts && src->format) {
        error_report("--image-opts and --format are mutually exclusive");
        return true;
    }
    return false;
}

void img_take_filename(ImgSource *src, int argc, char **argv)
{
    if (optind != argc - 1) {
        img_usage_error("Expecting one image file name");
    }
    src->name = argv[optind];
    if (img_source_conflict(src)) {
        exit(EXIT_FAILURE);
    }
}

static BlockBackend *open_source(const ImgSource *src, int flags, Error **errp)
{
    QDict *options = source_options(src, errp);

    return options ? blk_new_open(src->image_opts ? NULL : src->name, NULL, options, flags,
                                  errp) : NULL;
}

/* Open SRC without locks, unless its options want them; NULL when that fails. */
static BlockBackend *open_shared(const ImgSource *src, int flags)
{
    ImgSource shared = *src;

    shared.force_share = true;
    return open_source(&shared, flags & ~BDRV_O_NO_SHARE, NULL);
}

/*
 * SRC could not be opened to be read, as ERRP tells. When it can be without locks, they are
 * the reason: somebody writes to it. Then have it open, with a warning instead of the error;
 * or stay with that, and say in it how to.
 */
static BlockBackend *open_in_use(const ImgSource *src, int flags, Error **errp)
{
    BlockBackend *blk = open_shared(src, flags);

    if (blk && src->read_in_use) {
        error_prepend(errp, "'%s' is in use, and what is read may change meanwhile: ",
                      src->name);
        warn_report_err(*errp);
        *errp = NULL;
    } else if (blk) {
        error_append_hint(errp, "With -U it is read all the same, though what is read may "
                          "change meanwhile.\n");
        blk_unref(blk);
        blk = NULL;
    }
    return blk;
}

BlockBackend *img_try_open(const ImgSource *src, int flags, Error **errp)
{
    ERRP_GUARD();
    BlockBackend *blk = src->look ? open_shared(src, flags) : NULL;

    if (!blk) {
        blk = open_source(src, flags, errp);
    }
    if (!blk && !src->look && !src->force_share && !(flags & BDRV_O_RDWR)) {
        blk = open_in_use(src, flags, errp);
    }
    return blk;
}

BlockBackend *img_open(const ImgSource *src, int flags)
{
    Error *err = NULL;

    if (share_conflict(src)) {
        return NULL;
    }
    BlockBackend *blk = img_try_open(src, flags, &err);
    if (!blk) {
        error_prepend(&err, "Could not open '%s': ", src->name);
        error_report_err(err);
    }
    return blk;
}

/* Whether NAME starts with a protocol ("nbd:", "json:"), so that no directory applies. */
static bool has_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

char *img_combine_names(const char *base, const char *name)
{
    const char *slash = strrchr(base, '/');

    if (*name == '/' || has_protocol(name)) {
        return g_strdup(name);
    }
    return g_strdup_printf("%.*s%s", slash ? (int)(slash + 1 - base) : 0, base, name);
}

char *img_resolve_backing_name(BlockDriverState *bs, const char *backing, Error **errp)
{
    const char *base = bs->exact_filename;

    if ((!base || !*base) && bs->file) {
        base = bs->file->bs->exact_filename;
    }
    if ((!base || !*base) && *backing != '/' && !has_protocol(backing)) {
        error_setg(errp, "Cannot use relative paths with node '%s': it has no plain filename",
                   bs->node_name);
        return NULL;
    }
    return img_combine_names(base ? base : "", backing);
}

char *img_full_backing_name(BlockDriverState *bs, Error **errp)
{
    const char *backing = bs->backing_file;

    return backing && *backing ? img_resolve_backing_name(bs, backing, errp) : NULL;
}

int64_t img_length(BlockBackend *blk, const char *name)
{
    int64_t length = blk_getlength(blk);

    if (length < 0) {
        error_report("Could not get size of '%s': %s", name, strerror((int)-length));
        return length;
    }
    return ROUND_UP(length, (int64_t)BDRV_SECTOR_SIZE);
}

bool img_is_same_file(BlockBackend *blk, const char *filename)
{
    struct stat target, part;

    if (stat(filename, &target) < 0 || !S_ISREG(target.st_mode)) {
        return false;
    }
    for (BlockDriverState *bs = blk_bs(blk); bs; bs = bdrv_backing_chain_next(bs)) {
        const char *name = bs->file ? bs->file->bs->exact_filename : bs->exact_filename;
        if (name && *name && stat(name, &part) == 0 &&
            part.st_dev == target.st_dev && part.st_ino == target.st_ino) {
            return true;
        }
    }
    return false;
}

bool img_flush(BlockBackend *blk, const char *name)
{
    int ret = blk_flush(blk);

    if (ret < 0) {
        error_report("Could not flush '%s': %s", name, strerror(-ret));
    }
    return ret >= 0;
}

void img_wait(const int *pending)
{
    while (*pending > 0) {
        aio_poll(qemu_get_aio_context(), true);
    }
}
