/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that start block jobs; and the write threshold. */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "miniblk/blockjob.h"
#include "miniblk/write-threshold.h"
#include "qmp/dispatch.h"
#include "qmp/qmp.h"

/* ---- arguments -------------------------------------------------------------------------- */

static int flags_of(const json_t *args)
{
    int flags = JOB_DEFAULT;

    if (json_is_false(json_object_get(args, "auto-finalize"))) {
        flags |= JOB_MANUAL_FINALIZE;
    }
    if (json_is_false(json_object_get(args, "auto-dismiss"))) {
        flags |= JOB_MANUAL_DISMISS;
    }
    return flags;
}

/* The index of ARGS[KEY] in the NULL-terminated NAMES; 0 when it is absent. */
static int enum_of(const json_t *args, const char *key, const char *const *names)
{
    const char *value = qdict_get_try_str(args, key);
    int i = 0;

    while (value && names[i] && strcmp(names[i], value)) {
        i++;
    }
    return i;
}

#define ON_ERROR "{report|ignore|enospc|stop|auto}"
static const char *const on_error_names[] = { "report", "ignore", "enospc", "stop", "auto",
                                              NULL };

static int64_t int_of(const json_t *args, const char *key)
{
    return json_integer_value(json_object_get(args, key));
}

static bool has_parent_node(BlockDriverState *bs)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (c->klass->parent_is_bds) {
            return true;
        }
    }
    return false;
}

static BlockDriverState *find_root_node(const char *device, Error **errp)
{
    BlockDriverState *bs = bdrv_lookup_bs(device, device, errp);

    if (bs && has_parent_node(bs)) {
        error_setg(errp, "Need a root block node");
        return NULL;
    }
    return bs;
}

/* ---- blockdev-mirror -------------------------------------------------------------------- */

static bool granularity_ok(int64_t granularity, Error **errp)
{
    if (granularity && (granularity < 512 || granularity > 64 << 20)) {
        error_setg(errp, "Parameter 'granularity' expects a value in range [512B, 64MB]");
        return false;
    }
    if (granularity & (granularity - 1)) {
        error_setg(errp, "Parameter 'granularity' expects a power of 2");
        return false;
    }
    return true;
}

static bool sizes_match(BlockDriverState *bs, BlockDriverState *target, Error **errp)
{
    int64_t size = bdrv_getlength(bs), target_size = bdrv_getlength(target);

    if (size < 0 || target_size < 0) {
        error_setg_errno(errp, size < 0 ? -size : -target_size, "Could not get the length of "
                         "'%s'", bdrv_get_node_name(size < 0 ? bs : target));
        return false;
    }
    if (size != target_size) {
        error_setg(errp, "Source and target image have different sizes");
        return false;
    }
    return true;
}

static bool replaces_ok(const char *replaces, Error **errp)
{
    if (replaces && !bdrv_find_node(replaces)) {
        error_setg(errp, "Failed to find node with node-name='%s'", replaces);
        return false;
    }
    return true;
}

static json_t *cmd_blockdev_mirror(json_t *args, Error **errp)
{
    static const char *const syncs[] = { "top", "full", "none", "incremental", "bitmap",
                                         NULL };
    static const char *const copy_modes[] = { "background", "write-blocking", NULL };
    MirrorSyncMode sync = enum_of(args, "sync", syncs);
    const char *replaces = qdict_get_try_str(args, "replaces");
    const char *target_name = qdict_get_try_str(args, "target");
    BlockDriverState *bs = find_root_node(qdict_get_try_str(args, "device"), errp);
    BlockDriverState *target = bs ? bdrv_lookup_bs(target_name, target_name, errp) : NULL;

    if (!target || !granularity_ok(int_of(args, "granularity"), errp) ||
        !replaces_ok(replaces, errp) || !block_job_none_uses(bs, errp) ||
        !block_job_none_uses(target, errp)) {
        return NULL;
    }
    AioContext *ctx = bdrv_get_aio_context(bs);
    aio_context_acquire(ctx);
    if (sizes_match(bs, target, errp)) {
        if (sync == MIRROR_SYNC_MODE_TOP && !bdrv_backing_chain_next(bs)) {
            sync = MIRROR_SYNC_MODE_FULL;
        }
        mirror_start(qdict_get_try_str(args, "job-id"), bs, target, replaces, flags_of(args),
                     int_of(args, "speed"), int_of(args, "granularity"),
                     int_of(args, "buf-size"), sync, MIRROR_LEAVE_BACKING_CHAIN,
                     sync == MIRROR_SYNC_MODE_FULL,
                     enum_of(args, "on-source-error", on_error_names),
                     enum_of(args, "on-target-error", on_error_names), true,
                     qdict_get_try_str(args, "filter-node-name"),
                     enum_of(args, "copy-mode", copy_modes), errp);
    }
    aio_context_release(ctx);
    return NULL;
}

/* ---- block-commit ----------------------------------------------------------------------- */

static bool is_named(BlockDriverState *bs, const char *filename)
{
    return !strcmp(bs->filename, filename) || !strcmp(bs->exact_filename, filename);
}

/*
 * The image in the chain of BS that ARGS name by node or by file name; DEFAULT_BS when they
 * name none.
 */
static BlockDriverState *find_in_chain(const json_t *args, BlockDriverState *bs,
                                       const char *node_key, const char *file_key,
                                       BlockDriverState *default_bs, Error **errp)
{
    const char *node_name = qdict_get_try_str(args, node_key);
    const char *filename = qdict_get_try_str(args, file_key);

    if (node_name && filename) {
        error_setg(errp, "'%s' and '%s' are mutually exclusive", node_key, file_key);
        return NULL;
    }
    if (!node_name && !filename) {
        return default_bs;
    }
    if (node_name && !bdrv_lookup_bs(NULL, node_name, errp)) {
        return NULL;
    }
    for (BlockDriverState *i = bs; i; i = bdrv_filter_or_cow_bs(i)) {
        if (node_name ? !strcmp(i->node_name, node_name) : is_named(i, filename)) {
            return i;
        }
    }
    if (node_name) {
        error_setg(errp, "Node '%s' is not in the backing chain of '%s'", node_name,
                   bdrv_get_node_name(bs));
    } else {
        error_setg(errp, "Image '%s' not found in the backing chain of '%s'", filename,
                   bdrv_get_node_name(bs));
    }
    return NULL;
}

static BlockDriverState *bottom_of(BlockDriverState *bs)
{
    BlockDriverState *below;

    while ((below = bdrv_filter_or_cow_bs(bs))) {
        bs = below;
    }
    return bs;
}

/* Whether BASE lies below TOP, and no job has anything of what is between. */
static bool chain_ok(BlockDriverState *top, BlockDriverState *base, Error **errp)
{
    BlockDriverState *bs = top;

    if (bdrv_skip_filters(top) == bdrv_skip_filters(base)) {
        error_setg(errp, "cannot commit an image into itself");
        return false;
    }
    while (bs) {
        if (!block_job_none_uses(bs, errp)) {
            return false;
        }
        if (bs == base) {
            return true;
        }
        bs = bdrv_filter_or_cow_bs(bs);
    }
    error_setg(errp, "Node '%s' is not in the backing chain of '%s'",
               bdrv_get_node_name(base), bdrv_get_node_name(top));
    return false;
}

static void start_commit(const json_t *args, BlockDriverState *bs, BlockDriverState *top,
                         BlockDriverState *base, Error **errp)
{
    const char *job_id = qdict_get_try_str(args, "job-id");
    const char *backing_file = qdict_get_try_str(args, "backing-file");
    const char *filter_name = qdict_get_try_str(args, "filter-node-name");
    int64_t speed = int_of(args, "speed");
    BlockdevOnError on_error = enum_of(args, "on-error", on_error_names);

    if (bdrv_skip_filters(top) != bdrv_skip_filters(bs)) {
        commit_start(job_id, bs, base, top, flags_of(args), speed, on_error, backing_file,
                     filter_name, errp);
    } else if (backing_file) {
        error_setg(errp, "'backing-file' specified, but 'top' is the active layer");
    } else {
        commit_active_start(job_id, bs, base, flags_of(args), speed, on_error, filter_name,
                            NULL, NULL, false, errp);
    }
}

static json_t *cmd_block_commit(json_t *args, Error **errp)
{
    const char *device = qdict_get_try_str(args, "device");
    BlockDriverState *bs = bdrv_lookup_bs(device, device, NULL);

    if (!bs) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", device);
        return NULL;
    }
    bs = find_root_node(device, errp);
    if (!bs || !block_job_none_uses(bs, errp)) {
        return NULL;
    }
    AioContext *ctx = bdrv_get_aio_context(bs);
    aio_context_acquire(ctx);
    BlockDriverState *top = find_in_chain(args, bs, "top-node", "top", bs, errp);
    BlockDriverState *base = top ? find_in_chain(args, bs, "base-node", "base",
                                                 bottom_of(top), errp) : NULL;
    if (base && chain_ok(top, base, errp)) {
        start_commit(args, bs, top, base, errp);
    }
    aio_context_release(ctx);
    return NULL;
}

/* ---- write threshold -------------------------------------------------------------------- */

static json_t *cmd_block_set_write_threshold(json_t *args, Error **errp)
{
    const char *name = qdict_get_try_str(args, "node-name");
    BlockDriverState *bs = bdrv_find_node(name);

    if (!bs) {
        error_setg(errp, "Device '%s' not found", name);
        return NULL;
    }
    bdrv_write_threshold_set(bs, int_of(args, "write-threshold"));
    return NULL;
}

static void tell_exceeded(const char *node_name, uint64_t amount_exceeded_bytes,
                          uint64_t threshold_bytes)
{
    qmp_send_event("BLOCK_WRITE_THRESHOLD",
                   json_pack("{s:s, s:I, s:I}", "node-name", node_name,
                             "amount-exceeded", (json_int_t)amount_exceeded_bytes,
                             "write-threshold", (json_int_t)threshold_bytes));
}

void qmp_listen_to_write_thresholds(bool listen)
{
    bdrv_write_threshold_set_listener(listen ? tell_exceeded : NULL);
}

#define JOB_ARGS "job-id?:str, speed?:int, filter-node-name?:str, auto-finalize?:bool, "   \
                 "auto-dismiss?:bool"

const QmpCommand qmp_commands_block_job[] = {
    { "blockdev-mirror", "{" JOB_ARGS ", device:str, target:str, replaces?:str,"
      " sync:{top|full|none|incremental|bitmap}, granularity?:uint32, buf-size?:int,"
      " on-source-error?:" ON_ERROR ", on-target-error?:" ON_ERROR ","
      " copy-mode?:{background|write-blocking}}", cmd_blockdev_mirror },
    { "block-commit", "{" JOB_ARGS ", device:str, base-node?:str, base?:str, top-node?:str,"
      " top?:str, backing-file?:str, on-error?:" ON_ERROR "}", cmd_block_commit },
    { "block-set-write-threshold", "{node-name:str, write-threshold:uint}",
      cmd_block_set_write_threshold },
    { NULL }
};
