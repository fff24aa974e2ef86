/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter "blkdebug": requests that fail, or stop, when and where the rules say; and limits
 * that its child does not have.
 */
#include "block/filter/blkdebug.h"
#include "block/filter/filter.h"

/* Limits in the order in which they are checked. */
enum {
    LIMIT_ALIGN, LIMIT_MAX_TRANSFER, LIMIT_OPT_WRITE_ZERO, LIMIT_MAX_WRITE_ZERO,
    LIMIT_OPT_DISCARD, LIMIT_MAX_DISCARD, LIMITS
};
static const char *const limit_names[LIMITS] = {
    "align", "max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard",
};

typedef struct BlkdebugState {
    Blkdebug debug;
    uint64_t limits[LIMITS];    /* bytes; 0: none of our own */
    uint64_t take_perms, unshare_perms;
    char *config;               /* the rules' file; NULL: none */
} BlkdebugState;

/* ---- opening ---------------------------------------------------------------------- */

/* "blkdebug:[config]:image" */
static void blkdebug_parse_filename(const char *filename, QDict *options, Error **errp)
{
    bdrv__filter_parse_filename(filename, "blkdebug", "config",
                                "blkdebug requires both config file and image path", options,
                                errp);
}

/* Names of permissions in OPTIONS[KEY], an array, as bits. */
static bool take_perms(QDict *options, const char *key, uint64_t *perms, Error **errp)
{
    static const char *const names[] = {
        "consistent-read", "write", "write-unchanged", "resize", NULL
    };
    g_autoptr(json_t) list = json_incref(json_object_get(options, key));
    json_t *item;
    size_t i;

    json_object_del(options, key);
    if (list && !json_is_array(list)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: array", key);
        return false;
    }
    json_array_foreach(list, i, item) {
        g_autofree char *item_key = g_strdup_printf("%s[%zu]", key, i);
        g_autoptr(json_t) holder = qdict_new();
        int bit = 0;

        json_object_set(holder, item_key, item);
        if (!bdrv_opt_enum(holder, item_key, names, &bit, errp)) {
            return false;
        }
        *perms |= 1u << bit;
    }
    return true;
}

static bool take_limits(BlkdebugState *s, QDict *options, Error **errp)
{
    for (int i = 0; i < LIMITS; i++) {
        if (!bdrv_opt_size(options, limit_names[i], &s->limits[i], errp)) {
            return false;
        }
    }
    return true;
}

/* Each limit is a multiple of what the child and our own alignment demand. */
static bool check_limits(BlockDriverState *bs, Error **errp)
{
    BlkdebugState *s = bs->opaque;
    uint64_t unit = MAX(s->limits[LIMIT_ALIGN], bs->file->bs->bl.request_alignment);

    for (int i = 0; i < LIMITS; i++) {
        uint64_t value = s->limits[i];
        bool fits = i == LIMIT_ALIGN ? !(value & (value - 1)) : value % unit == 0;

        if (value && (!fits || value >= INT_MAX)) {
            error_setg(errp, "Cannot meet constraints with %s %" PRIu64, limit_names[i],
                       value);
            return false;
        }
    }
    return true;
}

static bool take_rules(BlkdebugState *s, QDict *options, Error **errp)
{
    if (s->config) {
        g_autoptr(json_t) from_file = blkdebug__read_config(s->config, errp);
        if (!from_file || !blkdebug__add_rules(&s->debug, from_file, errp)) {
            return false;
        }
    }
    return blkdebug__add_rules(&s->debug, options, errp);
}

/* The child, by option "image" or by a file's name. */
static bool open_image(BlockDriverState *bs, QDict *options, Error **errp)
{
    g_autofree char *filename = NULL;

    if (!bdrv_opt_str(options, "x-image", &filename, errp)) {
        return false;
    }
    if (filename && !bdrv__filter_name_file(options, "image", filename, errp)) {
        return false;
    }
    return bdrv_open_child(filename, options, "image", bs, &child_of_bds,
                           BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, false, errp) != NULL;
}

static int blkdebug_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    BlkdebugState *s = bs->opaque;

    blkdebug__init(&s->debug);
    if (!bdrv_opt_str(options, "config", &s->config, errp) ||
        !take_rules(s, options, errp) ||
        !take_perms(options, "take-child-perms", &s->take_perms, errp) ||
        !take_perms(options, "unshare-child-perms", &s->unshare_perms, errp) ||
        !take_limits(s, options, errp) ||
        !open_image(bs, options, errp) ||
        !check_limits(bs, errp)) {
        blkdebug__destroy(&s->debug);
        g_free(s->config);
        return -EINVAL;
    }
    bdrv__filter_inherit_flags(bs);
    blkdebug__event(&s->debug, BLKDBG_NONE);
    return 0;
}

static void blkdebug_close(BlockDriverState *bs)
{
    BlkdebugState *s = bs->opaque;

    blkdebug__destroy(&s->debug);
    g_free(s->config);
}

/* Rules stay as they are: only flags can change. */
static int blkdebug_reopen_prepare(BDRVReopenState *reopen_state, BlockReopenQueue *queue,
                                   Error **errp)
{
    return 0;
}

static void blkdebug_refresh_limits(BlockDriverState *bs, Error **errp)
{
    const uint64_t *limits = ((BlkdebugState *)bs->opaque)->limits;

    if (limits[LIMIT_ALIGN]) {
        bs->bl.request_alignment = limits[LIMIT_ALIGN];
    }
    if (limits[LIMIT_MAX_TRANSFER]) {
        bs->bl.max_transfer = limits[LIMIT_MAX_TRANSFER];
    }
    if (limits[LIMIT_OPT_WRITE_ZERO]) {
        bs->bl.pwrite_zeroes_alignment = limits[LIMIT_OPT_WRITE_ZERO];
    }
    if (limits[LIMIT_MAX_WRITE_ZERO]) {
        bs->bl.max_pwrite_zeroes = limits[LIMIT_MAX_WRITE_ZERO];
    }
    if (limits[LIMIT_OPT_DISCARD]) {
        bs->bl.pdiscard_alignment = limits[LIMIT_OPT_DISCARD];
    }
    if (limits[LIMIT_MAX_DISCARD]) {
        bs->bl.max_pdiscard = limits[LIMIT_MAX_DISCARD];
    }
}

/* "blkdebug:config:image" opens the same again when there is nothing else to say. */
static void blkdebug_refresh_filename(BlockDriverState *bs)
{
    BlkdebugState *s = bs->opaque;
    const char *image = bs->file->bs->exact_filename, *key;
    bool plain = image[0] != '\0';
    json_t *value;

    json_object_foreach(bs->options, key, value) {
        plain &= !strcmp(key, "image") || !strcmp(key, "x-image") ||
                 !strcmp(key, "config") || !strcmp(key, "driver");
    }
    g_free(bs->exact_filename);
    bs->exact_filename = plain ? g_strdup_printf("blkdebug:%s:%s", s->config ?: "", image)
                               : g_strdup("");
}

static void blkdebug_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                                BlockReopenQueue *reopen_queue, uint64_t perm,
                                uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    BlkdebugState *s = bs->opaque;

    bdrv_default_perms(bs, c, role, reopen_queue, perm, shared, nperm, nshared);
    *nperm |= s->take_perms;
    *nshared &= ~s->unshare_perms;
}

/* ---- requests --------------------------------------------------------------------- */

static int coroutine_fn check(BlockDriverState *bs, int64_t offset, int64_t bytes,
                              BlkdebugIOType type)
{
    BlkdebugState *s = bs->opaque;
    return blkdebug__check(&s->debug, offset, bytes, type);
}

static int coroutine_fn blkdebug_co_preadv_part(BlockDriverState *bs, int64_t offset,
                                                int64_t bytes, QEMUIOVector *qiov,
                                                size_t qiov_offset, BdrvRequestFlags flags)
{
    int ret = check(bs, offset, bytes, BLKDEBUG_READ);
    return ret ? ret
               : bdrv__filter_co_preadv_part(bs, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn blkdebug_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                                 int64_t bytes, QEMUIOVector *qiov,
                                                 size_t qiov_offset, BdrvRequestFlags flags)
{
    int ret = check(bs, offset, bytes, BLKDEBUG_WRITE);
    return ret ? ret
               : bdrv__filter_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn blkdebug_co_pwritev_compressed(BlockDriverState *bs, int64_t offset,
                                                       int64_t bytes, QEMUIOVector *qiov,
                                                       size_t qiov_offset)
{
    int ret = check(bs, offset, bytes, BLKDEBUG_WRITE);
    return ret ? ret
               : bdrv__filter_co_pwritev_compressed(bs, offset, bytes, qiov, qiov_offset);
}

static int coroutine_fn blkdebug_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, BdrvRequestFlags flags)
{
    int ret = check(bs, offset, bytes, BLKDEBUG_WRITE_ZEROES);
    return ret ? ret : bdrv__filter_co_pwrite_zeroes(bs, offset, bytes, flags);
}

static int coroutine_fn blkdebug_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes)
{
    int ret = check(bs, offset, bytes, BLKDEBUG_DISCARD);
    return ret ? ret : bdrv__filter_co_pdiscard(bs, offset, bytes);
}

static int coroutine_fn blkdebug_co_flush(BlockDriverState *bs)
{
    int ret = check(bs, 0, 0, BLKDEBUG_FLUSH);
    return ret ? ret : bdrv_co_flush(bs->file->bs);
}

static int coroutine_fn blkdebug_co_block_status(BlockDriverState *bs, bool want_zero,
                                                 int64_t offset, int64_t bytes,
                                                 int64_t *pnum, int64_t *map,
                                                 BlockDriverState **file)
{
    int ret = check(bs, offset, bytes, BLKDEBUG_BLOCK_STATUS);

    if (ret) {
        return ret;
    }
    *pnum = bytes;
    *map = offset;
    *file = bs->file->bs;
    return BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
}

/* ---- debugging -------------------------------------------------------------------- */

static void coroutine_fn blkdebug_co_debug_event(BlockDriverState *bs, BlkdebugEvent event)
{
    BlkdebugState *s = bs->opaque;
    blkdebug__event(&s->debug, event);
}

static int blkdebug_debug_breakpoint(BlockDriverState *bs, const char *event,
                                     const char *tag)
{
    BlkdebugState *s = bs->opaque;
    return blkdebug__breakpoint(&s->debug, event, tag);
}

static int blkdebug_debug_remove_breakpoint(BlockDriverState *bs, const char *tag)
{
    BlkdebugState *s = bs->opaque;
    return blkdebug__remove_breakpoint(&s->debug, tag);
}

static int blkdebug_debug_resume(BlockDriverState *bs, const char *tag)
{
    BlkdebugState *s = bs->opaque;
    return blkdebug__resume(&s->debug, tag);
}

static bool blkdebug_debug_is_suspended(BlockDriverState *bs, const char *tag)
{
    BlkdebugState *s = bs->opaque;
    return blkdebug__is_suspended(&s->debug, tag);
}

static BlockDriver bdrv_blkdebug = {
    .format_name = "blkdebug",
    .protocol_name = "blkdebug",
    .instance_size = sizeof(BlkdebugState),
    .is_filter = true,
    .has_variable_length = true,
    .bdrv_parse_filename = blkdebug_parse_filename,
    .bdrv_file_open = blkdebug_open,
    .bdrv_close = blkdebug_close,
    .bdrv_reopen_prepare = blkdebug_reopen_prepare,
    .bdrv_refresh_limits = blkdebug_refresh_limits,
    .bdrv_refresh_filename = blkdebug_refresh_filename,
    .bdrv_child_perm = blkdebug_child_perm,
    .bdrv_co_getlength = bdrv__filter_co_getlength,
    .bdrv_co_preadv_part = blkdebug_co_preadv_part,
    .bdrv_co_pwritev_part = blkdebug_co_pwritev_part,
    .bdrv_co_pwritev_compressed_part = blkdebug_co_pwritev_compressed,
    .bdrv_co_pwrite_zeroes = blkdebug_co_pwrite_zeroes,
    .bdrv_co_pdiscard = blkdebug_co_pdiscard,
    .bdrv_co_flush = blkdebug_co_flush,
    .bdrv_co_block_status = blkdebug_co_block_status,
    .bdrv_co_debug_event = blkdebug_co_debug_event,
    .bdrv_debug_breakpoint = blkdebug_debug_breakpoint,
    .bdrv_debug_remove_breakpoint = blkdebug_debug_remove_breakpoint,
    .bdrv_debug_resume = blkdebug_debug_resume,
    .bdrv_debug_is_suspended = blkdebug_debug_is_suspended,
};

static void blkdebug_driver_init(void)
{
    bdrv_register(&bdrv_blkdebug);
}
block_init(blkdebug_driver_init)
