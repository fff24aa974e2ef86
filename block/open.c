/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening a node: options, driver, backing file. */
#include "block/block-internal.h"
#include "miniblk/block-backend.h"

enum { PROBE_BYTES = 2048 };

/* ---- options common to all drivers ------------------------------------------------------------- */

void bdrv__common_options_clear(BdrvCommonOptions *co)
{
    g_free(co->node_name);
    json_decref(co->backing);
}

static void set_flag(int *flags, int flag, bool on)
{
    *flags = on ? *flags | flag : *flags & ~flag;
}

static bool take_cache_options(QDict *options, BdrvCommonOptions *co, Error **errp)
{
    json_t *cache = json_object_get(options, "cache");
    bool direct = co->flags & BDRV_O_NOCACHE, no_flush = co->flags & BDRV_O_NO_FLUSH;

    if (cache) {
        if (!json_is_object(cache)) {
            error_setg(errp, "Invalid parameter type for 'cache', expected: object");
            return false;
        }
        set_flag(&co->explicit_flags, BDRV_O_NOCACHE, qdict_haskey(cache, "direct"));
        set_flag(&co->explicit_flags, BDRV_O_NO_FLUSH, qdict_haskey(cache, "no-flush"));
        if (!bdrv_opt_bool(cache, "direct", &direct, errp) ||
            !bdrv_opt_bool(cache, "no-flush", &no_flush, errp)) {
            return false;
        }
        const char *key = json_object_iter_key(json_object_iter(cache));
        if (key) {
            error_setg(errp, "Parameter 'cache.%s' is unexpected", key);
            return false;
        }
        json_object_del(options, "cache");
    }
    set_flag(&co->flags, BDRV_O_NOCACHE, direct);
    set_flag(&co->flags, BDRV_O_NO_FLUSH, no_flush);
    return true;
}

bool bdrv__take_common_options(QDict *options, BdrvCommonOptions *co, Error **errp)
{
    static const char *const discard_names[] = { "ignore", "unmap", NULL };
    static const char *const zeroes_names[] = { "off", "on", "unmap", NULL };
    bool read_only = !(co->flags & BDRV_O_RDWR);
    bool auto_read_only = co->flags & BDRV_O_AUTO_RDONLY;
    int discard = !!(co->flags & BDRV_O_UNMAP);

    set_flag(&co->explicit_flags, BDRV_O_RDWR, qdict_haskey(options, "read-only"));
    set_flag(&co->explicit_flags, BDRV_O_AUTO_RDONLY,
             qdict_haskey(options, "auto-read-only"));
    set_flag(&co->explicit_flags, BDRV_O_UNMAP, qdict_haskey(options, "discard"));
    if (!bdrv_opt_str(options, "node-name", &co->node_name, errp) ||
        !bdrv_opt_bool(options, "read-only", &read_only, errp) ||
        !bdrv_opt_bool(options, "auto-read-only", &auto_read_only, errp) ||
        !bdrv_opt_bool(options, "force-share", &co->force_share, errp) ||
        !bdrv_opt_enum(options, "discard", discard_names, &discard, errp) ||
        !bdrv_opt_enum(options, "detect-zeroes", zeroes_names, &co->detect_zeroes, errp) ||
        !take_cache_options(options, co, errp)) {
        return false;
    }
    set_flag(&co->flags, BDRV_O_RDWR, !read_only);
    set_flag(&co->flags, BDRV_O_AUTO_RDONLY, auto_read_only);
    set_flag(&co->flags, BDRV_O_UNMAP, discard == 1);
    if (co->force_share && (co->flags & BDRV_O_RDWR)) {
        error_setg(errp, "force-share=on can only be used with read-only images");
        return false;
    }
    if (co->detect_zeroes == 2 && discard != 1) {
        error_setg(errp, "setting detect-zeroes to unmap is not allowed without setting "
                   "discard operation to unmap");
        return false;
    }
    return true;
}

/* ---- the driver ----------------------------------------------------------------------------------- */

/* Undo an open that failed: children first, then what the driver left in OPAQUE. */
static void undo_open(BlockDriverState *bs)
{
    BdrvChild *child, *next;

    QLIST_FOREACH_SAFE(child, &bs->children, next, next) {
        bdrv_unref_child(bs, child);
    }
    g_free(bs->opaque);
    bs->opaque = NULL;
    bs->drv = NULL;
}

static int call_driver_open(BlockDriverState *bs, QDict *options, Error **errp)
{
    BlockDriver *drv = bs->drv;

    if (drv->bdrv_file_open) {
        return drv->bdrv_file_open(bs, options, bs->open_flags, errp);
    }
    return drv->bdrv_open ? drv->bdrv_open(bs, options, bs->open_flags, errp) : 0;
}

static bool no_options_left(BlockDriver *drv, QDict *options, Error **errp)
{
    const char *key = json_object_iter_key(json_object_iter(options));

    if (!key) {
        return true;
    }
    if (drv->bdrv_file_open || drv->protocol_name) {
        error_setg(errp, "Block protocol '%s' doesn't support the option '%s'",
                   drv->format_name, key);
    } else {
        error_setg(errp, "Block format '%s' does not support the option '%s'",
                   drv->format_name, key);
    }
    return false;
}

/* Open BS with DRV. OPTIONS holds the driver's own keys and is emptied. */
static int open_driver(BlockDriverState *bs, BlockDriver *drv, QDict *options, Error **errp)
{
    ERRP_GUARD();
    int ret;

    bs->drv = drv;
    bs->opaque = g_malloc0(drv->instance_size);
    bs->options = json_deep_copy(options);
    ret = call_driver_open(bs, options, errp);
    if (ret < 0) {
        if (!*errp) {
            error_setg_errno(errp, -ret, "Could not open '%s'",
                             bs->filename[0] ? bs->filename : bs->node_name);
        }
        undo_open(bs);
        return ret;
    }
    ret = bdrv__refresh_total_sectors(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not refresh total sector count");
    } else if (!no_options_left(drv, options, errp)) {
        ret = -EINVAL;
    } else {
        bdrv_refresh_limits(bs, NULL, errp);
        ret = *errp ? -EINVAL : 0;
    }
    if (ret < 0) {
        if (drv->bdrv_close) {
            drv->bdrv_close(bs);
        }
        undo_open(bs);
        return ret;
    }
    bdrv__driver_opened(bs);
    return 0;
}

BlockDriverState *bdrv_new_open_driver_opts(BlockDriver *drv, const char *node_name,
                                            QDict *options, int flags, Error **errp)
{
    BlockDriverState *bs = bdrv__new();
    g_autoptr(json_t) opts = options ? options : qdict_new();

    GLOBAL_STATE_CODE();
    bs->open_flags = flags;
    if (bdrv__set_node_name(bs, node_name, errp) < 0 ||
        open_driver(bs, drv, opts, errp) < 0) {
        bdrv_unref(bs);
        return NULL;
    }
    bdrv_refresh_filename(bs);
    return bs;
}

BlockDriverState *bdrv_new_open_driver(BlockDriver *drv, const char *node_name, int flags,
                                       Error **errp)
{
    return bdrv_new_open_driver_opts(drv, node_name, NULL, flags, errp);
}

/* ---- choosing the driver -------------------------------------------------------------------------- */

/* The best guess by content; "raw" matches everything, barely. */
static BlockDriver *probe_content(BlockDriverState *file, const char *filename, Error **errp)
{
    uint8_t buf[PROBE_BYTES] = { 0 };
    BlockDriver *drv, *best = NULL;
    int best_score = 0;

    BlockBackend *blk = blk_new_with_bs(file, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, errp);
    if (!blk) {
        return NULL;
    }
    int64_t len = MIN(blk_getlength(blk), PROBE_BYTES);
    int ret = len < 0 ? len : len == 0 ? 0 : blk_pread(blk, 0, len, buf, 0);
    blk_unref(blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read image for determining its format");
        return NULL;
    }
    for (drv = bdrv_next_driver(NULL); drv; drv = bdrv_next_driver(drv)) {
        int score = drv->bdrv_probe ? drv->bdrv_probe(buf, len, filename) : 0;
        if (score > best_score) {
            best_score = score;
            best = drv;
        }
    }
    if (!best) {
        error_setg(errp, "Could not determine image format: No compatible driver found");
    }
    return best;
}

/* Open the protocol layer under a format from OPTIONS["file"] and/or FILENAME. */
static BlockDriverState *open_protocol_layer(const char *filename, QDict *options, int flags,
                                             bool force_share, Error **errp)
{
    json_t *file = json_object_get(options, "file");
    g_autofree char *reference = NULL;
    QDict *file_options = NULL;

    if (json_is_string(file)) {
        reference = g_strdup(json_string_value(file));
    } else if (file) {
        file_options = json_incref(file);
    }
    json_object_del(options, "file");
    if (force_share && !reference) {
        file_options = file_options ? file_options : qdict_new();
        qdict_put_bool(file_options, "force-share", true);
    }
    return bdrv_open(filename, reference, file_options,
                     (flags & ~BDRV_O_NO_IO) | BDRV_O_PROTOCOL | BDRV_O_UNMAP, errp);
}

/* Turn FILENAME into DRV's own options. */
static bool filename_to_options(BlockDriver *drv, const char *filename, QDict *options,
                                Error **errp)
{
    ERRP_GUARD();

    if (qdict_haskey(options, "filename")) {
        error_setg(errp, "Can't specify 'file' and 'filename' options at the same time");
        return false;
    }
    if (drv->bdrv_parse_filename) {
        drv->bdrv_parse_filename(filename, options, errp);
        return !*errp;
    }
    qdict_put_str(options, "filename", filename);
    return true;
}

/* Find the driver to open BS with, and complete OPTIONS for it. */
static BlockDriver *choose_driver(BlockDriverState *bs, const char *filename, QDict *options,
                                  const BdrvCommonOptions *co, Error **errp)
{
    g_autofree char *name = NULL;
    BlockDriver *drv = NULL;

    if (!bdrv_opt_str(options, "driver", &name, errp)) {
        return NULL;
    }
    if (name) {
        drv = bdrv_find_format(name);
        if (!drv) {
            error_setg(errp, "Unknown driver '%s'", name);
            return NULL;
        }
    } else if (co->flags & BDRV_O_PROTOCOL) {
        const char *path = filename ? filename : qdict_get_try_str(options, "filename");
        if (!path) {
            error_setg(errp, "Must specify either driver or file");
            return NULL;
        }
        drv = bdrv_find_protocol(path, filename, errp);
        if (!drv) {
            return NULL;
        }
    }
    if (drv && (drv->bdrv_file_open || drv->protocol_name)) {
        return !filename || filename_to_options(drv, filename, options, errp) ? drv : NULL;
    }
    if (!drv && !filename && !qdict_haskey(options, "file")) {
        error_setg(errp, "Must specify either driver or file");
        return NULL;
    }
    if (drv && !filename) {
        return drv;             /* a format or filter with its children in the options */
    }
    bool referenced = json_is_string(json_object_get(options, "file"));
    BlockDriverState *file = open_protocol_layer(filename, options, co->flags,
                                                 co->force_share, errp);
    if (!file) {
        return NULL;
    }
    if (!referenced) {
        file->opened_by = bs->serial;
    }
    if (!drv) {
        drv = probe_content(file, filename, errp);
        bs->probed = true;
    }
    if (drv) {
        qdict_put_str(options, "file", bdrv_get_node_name(file));
        /* keep it until the driver has attached it: by then it has a reference of its own */
        bs->implicit_file = file;
    } else {
        bdrv_unref(file);
    }
    return drv;
}

/* ---- backing files --------------------------------------------------------------------------------- */

/* NAME as seen from the image BASE. Newly allocated. */
static char *resolve_relative(const char *base, const char *name)
{
    size_t prefix = strcspn(name, ":/");

    if (name[0] == '/' || name[prefix] == ':') {
        return g_strdup(name);
    }
    g_autofree char *dir = g_path_get_dirname(base);
    return !strcmp(dir, ".") && !g_str_has_prefix(base, "./")
           ? g_strdup(name) : g_build_filename(dir, name, NULL);
}

static int attach_backing(BlockDriverState *bs, BlockDriverState *backing, Error **errp)
{
    int ret = bdrv_set_backing_hd(bs, backing, errp);
    bdrv_unref(backing);
    return ret;
}

/*
 * An image says itself what its backing file is, and may name itself, or one that leads back
 * to it: each round would open new nodes. Main thread.
 */
enum { BACKING_DEPTH_MAX = 256 };
static unsigned backing_depth;
static bool backing_too_deep;

static BlockDriverState *open_one_deeper(const char *filename, QDict *options, int flags,
                                         Error **errp)
{
    if (backing_depth == 0) {
        backing_too_deep = false;
    }
    if (backing_depth == BACKING_DEPTH_MAX) {
        error_setg(errp, "Could not open backing file: the chain has more than %d images; "
                   "does one of them lead back to itself?", BACKING_DEPTH_MAX);
        backing_too_deep = true;
        json_decref(options);
        return NULL;
    }
    backing_depth++;
    BlockDriverState *backing = bdrv_open(filename, NULL, options, flags, errp);
    backing_depth--;
    if (!backing && !backing_too_deep) {
        error_prepend(errp, "Could not open backing file: ");
    }
    return backing;
}

static int open_backing(BlockDriverState *bs, json_t *option, int flags, Error **errp)
{
    g_autofree char *filename = NULL;
    QDict *options = NULL;
    BlockDriverState *backing;
    int child_flags = (flags & (BDRV_O_CACHE_MASK | BDRV_O_NO_IO)) | BDRV_O_UNMAP;

    if (json_is_null(option) || (json_is_string(option) && !*json_string_value(option)) ||
        (!option && (flags & BDRV_O_NO_BACKING))) {
        return 0;
    }
    if (json_is_string(option)) {
        backing = bdrv_open(NULL, json_string_value(option), NULL, 0, errp);
        return backing ? attach_backing(bs, backing, errp) : -EINVAL;
    }
    options = option ? json_deep_copy(option) : qdict_new();
    if (!qdict_haskey(options, "driver") && !qdict_haskey(options, "file") &&
        !qdict_haskey(options, "filename")) {
        if (!bs->backing_file[0]) {
            json_decref(options);
            return 0;
        }
        filename = resolve_relative(bs->exact_filename, bs->backing_file);
        if (bs->backing_format[0]) {
            qdict_put_str(options, "driver", bs->backing_format);
        }
    }
    if (bs->force_share) {
        qdict_put_bool(options, "force-share", true);
    }
    backing = open_one_deeper(filename, options, child_flags, errp);
    if (!backing) {
        return -EINVAL;
    }
    backing->opened_by = bs->serial;
    return attach_backing(bs, backing, errp);
}

int bdrv__open_backing_file(BlockDriverState *bs, Error **errp)
{
    GLOBAL_STATE_CODE();
    return bdrv_cow_child(bs) || !bs->drv->supports_backing
           ? 0 : open_backing(bs, NULL, bs->open_flags & ~BDRV_O_NO_BACKING, errp);
}

/* ---- putting it together ----------------------------------------------------------------------------- */

static BlockDriverState *open_reference(const char *filename, const char *reference,
                                        QDict *options, Error **errp)
{
    if (filename || (options && json_object_size(options))) {
        error_setg(errp, "Cannot reference an existing block device with additional options "
                   "or a new filename");
        return NULL;
    }
    BlockDriverState *bs = bdrv_lookup_bs(reference, reference, errp);
    if (bs) {
        bdrv_ref(bs);
    }
    return bs;
}

/* Merge a "json:{...}" filename into OPTIONS, which win. */
static bool merge_json_filename(const char *filename, QDict *options, Error **errp)
{
    json_error_t err;
    g_autoptr(json_t) from_name = json_loads(filename + strlen("json:"),
                                             JSON_REJECT_DUPLICATES, &err);

    if (!from_name || !json_is_object(from_name)) {
        error_setg(errp, "Could not parse the JSON options: %s",
                   from_name ? "must be an object" : err.text);
        return false;
    }
    if (!bdrv_options_nest(from_name, errp)) {
        return false;
    }
    json_object_update_missing(options, from_name);
    return true;
}

static int open_node(BlockDriverState *bs, const char *filename, QDict *options, int flags,
                     Error **errp)
{
    ERRP_GUARD();
    g_auto(BdrvCommonOptions) co = { .flags = flags };

    if (!bdrv__take_common_options(options, &co, errp)) {
        return -EINVAL;
    }
    bs->open_flags = co.flags & ~BDRV_O_PROTOCOL;
    bs->explicit_flags = co.explicit_flags;
    bs->force_share = co.force_share;
    bs->detect_zeroes = co.detect_zeroes;
    if (bdrv__set_node_name(bs, co.node_name, errp) < 0) {
        return -EINVAL;
    }
    if (filename) {
        g_free(bs->filename);
        bs->filename = g_strdup(filename);
    }
    BlockDriver *drv = choose_driver(bs, filename, options, &co, errp);
    if (!drv) {
        return -EINVAL;
    }
    if (drv->supports_backing) {
        co.backing = json_incref(json_object_get(options, "backing"));
        json_object_del(options, "backing");
    }
    int ret = open_driver(bs, drv, options, errp);
    if (bs->implicit_file) {
        bdrv_unref(bs->implicit_file);
        bs->implicit_file = NULL;
    }
    if (ret < 0) {
        return ret;
    }
    json_object_del(bs->options, "file");
    bdrv_refresh_filename(bs);
    return drv->supports_backing ? open_backing(bs, co.backing, co.flags, errp) : 0;
}

BlockDriverState *no_coroutine_fn bdrv_open(const char *filename, const char *reference,
                                            QDict *options, int flags, Error **errp)
{
    g_autoptr(json_t) opts = options ? options : qdict_new();

    GLOBAL_STATE_CODE();
    if (reference) {
        return open_reference(filename, reference, opts, errp);
    }
    if (!bdrv_options_nest(opts, errp)) {
        return NULL;
    }
    if (filename && g_str_has_prefix(filename, "json:")) {
        if (!merge_json_filename(filename, opts, errp)) {
            return NULL;
        }
        filename = NULL;
    }
    BlockDriverState *bs = bdrv__new();
    if (open_node(bs, filename, opts, flags, errp) < 0) {
        bdrv_unref(bs);
        return NULL;
    }
    return bs;
}
