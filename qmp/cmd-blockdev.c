/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands that change nodes. Each finds its node, holds it by a reference, and works with
 * the lock of the node's context; what changes a node happens in a drained section.
 */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "qmp/dispatch.h"
#include "qmp/qmp.h"

static BlockDriverState *find_node(const json_t *args, Error **errp)
{
    const char *name = qdict_get_try_str(args, "node-name");
    BlockDriverState *bs = bdrv_find_node(name);

    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", name);
    }
    return bs;
}

/* ---- blockdev-add, blockdev-del --------------------------------------------------- */

bool qmp_blockdev_add(QDict *args, Error **errp)
{
    BlockDriverState *bs;

    if (!qdict_haskey(args, "node-name")) {
        error_setg(errp, "'node-name' must be specified for the root node");
        return false;
    }
    bs = bdrv_open(NULL, NULL, json_deep_copy(args), BDRV_O_RDWR, errp);
    if (!bs) {
        return false;
    }
    bs->monitor_owned = true;
    return true;
}

static json_t *cmd_blockdev_add(json_t *args, Error **errp)
{
    qmp_blockdev_add(args, errp);
    return NULL;
}

static bool may_delete(BlockDriverState *bs, Error **errp)
{
    if (bdrv_has_blk_parent(bs)) {
        error_setg(errp, "Node %s is in use", bdrv_get_node_name(bs));
        return false;
    }
    if (!bs->monitor_owned) {
        error_setg(errp, "Node %s is not owned by the monitor", bdrv_get_node_name(bs));
        return false;
    }
    if (bs->refcnt > 1) {
        error_setg(errp, "Block device %s is in use", bdrv_get_node_name(bs));
        return false;
    }
    return true;
}

static json_t *cmd_blockdev_del(json_t *args, Error **errp)
{
    BlockDriverState *bs = find_node(args, errp);
    AioContext *ctx;

    if (!bs || !may_delete(bs, errp)) {
        return NULL;
    }
    ctx = bdrv_get_aio_context(bs);
    aio_context_acquire(ctx);
    bs->monitor_owned = false;
    bdrv_unref(bs);
    aio_context_release(ctx);
    return NULL;
}

/* ---- blockdev-reopen -------------------------------------------------------------- */

/* All of NODES (arrays of BlockdevOptions), or none. */
static void reopen(const json_t *nodes, Error **errp)
{
    BlockReopenQueue *queue = NULL;
    size_t i;
    json_t *options;

    json_array_foreach(nodes, i, options) {
        if (!qdict_haskey(options, "node-name")) {
            error_setg(errp, "node-name not specified");
            bdrv_reopen_queue_free(queue);
            return;
        }
        BlockDriverState *bs = find_node(options, errp);
        if (!bs) {
            bdrv_reopen_queue_free(queue);
            return;
        }
        queue = bdrv_reopen_queue(queue, bs, json_deep_copy(options), false);
    }
    if (queue) {
        bdrv_reopen_multiple(queue, errp);
    }
}

static json_t *cmd_blockdev_reopen(json_t *args, Error **errp)
{
    reopen(json_object_get(args, "options"), errp);
    return NULL;
}

/* The command before it was stable: one node. */
static json_t *cmd_x_blockdev_reopen(json_t *args, Error **errp)
{
    g_autoptr(json_t) nodes = json_pack("[O]", args);
    reopen(nodes, errp);
    return NULL;
}

/* ---- moves and drains ------------------------------------------------------------- */

/* The loop that the arguments name: an IOThread's, or, by null, the main one. */
static AioContext *target_context(const json_t *args, Error **errp)
{
    const char *id = qdict_get_try_str(args, "iothread");
    IOThread *iothread;

    if (!id) {
        return qemu_get_aio_context();
    }
    iothread = iothread_by_id(id);
    if (!iothread) {
        error_setg(errp, "Cannot find iothread %s", id);
        return NULL;
    }
    return iothread_get_aio_context(iothread);
}

static void move_node(BlockDriverState *bs, AioContext *new_ctx, Error **errp)
{
    AioContext *old_ctx = bdrv_get_aio_context(bs);

    if (old_ctx == new_ctx) {
        return;
    }
    bdrv_ref(bs);
    aio_context_acquire(old_ctx);
    bdrv_drained_begin(bs);
    bdrv_try_change_aio_context(bs, new_ctx, NULL, errp);
    bdrv_drained_end(bs);
    /* The lock that was taken, wherever the node lives by now. */
    aio_context_release(old_ctx);
    bdrv_unref(bs);
}

/* The peer's command: "force" is needed for a node that has a BlockBackend. */
static json_t *cmd_x_blockdev_set_iothread(json_t *args, Error **errp)
{
    BlockDriverState *bs = find_node(args, errp);
    AioContext *ctx;

    if (!bs) {
        return NULL;
    }
    if (!json_is_true(json_object_get(args, "force")) && bdrv_has_blk_parent(bs)) {
        error_setg(errp, "Node %s is associated with a BlockBackend and could be in use "
                   "(use force=true to override this check)", bdrv_get_node_name(bs));
        return NULL;
    }
    ctx = target_context(args, errp);
    if (ctx) {
        move_node(bs, ctx, errp);
    }
    return NULL;
}

/*
 * Ours: exports follow their nodes, so they are no obstacle. A user that must stay where it
 * is (fixed-iothread) refuses the move itself, with or without "force".
 */
static json_t *cmd_blockdev_set_iothread(json_t *args, Error **errp)
{
    BlockDriverState *bs = find_node(args, errp);
    AioContext *ctx = bs ? target_context(args, errp) : NULL;

    if (ctx) {
        move_node(bs, ctx, errp);
    }
    return NULL;
}

static json_t *cmd_x_blockdev_drain(json_t *args, Error **errp)
{
    BlockDriverState *bs = find_node(args, errp);
    AioContext *ctx;

    if (!bs) {
        return NULL;
    }
    bdrv_ref(bs);
    ctx = bdrv_get_aio_context(bs);
    aio_context_acquire(ctx);
    bdrv_drained_begin(bs);
    bdrv_drained_end(bs);
    aio_context_release(ctx);
    bdrv_unref(bs);
    return NULL;
}

#define SET_IOTHREAD_ARGS "{node-name:str, iothread:StrOrNull, force?:bool}"

const QmpCommand qmp_commands_blockdev[] = {
    { "blockdev-add", "BlockdevOptions", cmd_blockdev_add },
    { "blockdev-del", "{node-name:str}", cmd_blockdev_del },
    { "blockdev-reopen", "{options:[BlockdevOptions]}", cmd_blockdev_reopen },
    { "x-blockdev-reopen", "BlockdevOptions", cmd_x_blockdev_reopen },
    { "blockdev-set-iothread", SET_IOTHREAD_ARGS, cmd_blockdev_set_iothread },
    { "x-blockdev-set-iothread", SET_IOTHREAD_ARGS, cmd_x_blockdev_set_iothread },
    { "x-blockdev-drain", "{node-name:str}", cmd_x_blockdev_drain },
    { NULL }
};
