/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening: other flags, options or children for nodes that stay in use, for several nodes at
 * once or for none.
 *
 *   queue    nodes with what is wanted of each, parents before the children that follow their
 *            flags; each is drained from here on.
 *   prepare  every node, in that order: compute flags, check options, ask the driver. May
 *            poll; nothing has changed yet.
 *   change   with the graph locked, one transaction: flags, children, permissions of all.
 *   commit   or abort, every driver.
 */
#include "block/reopen-internal.h"

/* ---- the queue ----------------------------------------------------------------------------------- */

static ReopenEntry *find_entry(BlockReopenQueue *queue, BlockDriverState *bs)
{
    for (unsigned i = 0; i < queue->entries->len; i++) {
        ReopenEntry *e = g_ptr_array_index(queue->entries, i);
        if (e->state.bs == bs) {
            return e;
        }
    }
    return NULL;
}

static void new_child_clear(ReopenChild *c)
{
    if (c->edge) {
        bdrv__free_edge(c->edge);
    }
    bdrv_unref(c->bs);
    bdrv_unref(c->old_bs);
}

static void entry_free(gpointer opaque)
{
    ReopenEntry *e = opaque;

    new_child_clear(&e->file);
    new_child_clear(&e->backing);
    bdrv_drained_end(e->state.bs);
    bdrv_unref(e->state.bs);
    json_decref(e->state.options);
    json_decref(e->given);
    json_decref(e->new_options);
    bdrv__common_options_clear(&e->common);
    g_free(e);
}

/* The options for child NAME that are nested in its parent's, taken out. */
static QDict *take_nested(QDict *options, const char *name)
{
    json_t *value = json_object_get(options, name);

    if (!json_is_object(value)) {
        return NULL;
    }
    json_incref(value);
    json_object_del(options, name);
    return value;
}

static void add(BlockReopenQueue *queue, BlockDriverState *bs, QDict *options, bool keep_old,
                ReopenEntry *parent, BdrvChildRole role)
{
    ReopenEntry *e = find_entry(queue, bs);
    BdrvChild *c;

    if (!options) {
        options = qdict_new();
    }
    if (e) {
        /* asked for twice: what was said first, here or there, counts */
        json_object_update_missing(e->given, options);
        json_decref(options);
        e->keep_old = e->keep_old && keep_old;
        return;
    }
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    e = g_new0(ReopenEntry, 1);
    e->state.bs = bs;
    e->given = options;
    e->keep_old = keep_old;
    e->parent = parent;
    e->role = role;
    g_ptr_array_add(queue->entries, e);
    QLIST_FOREACH(c, &bs->children, next) {
        if (c->bs->opened_by == bs->serial) {
            add(queue, c->bs, take_nested(options, c->name), true, e, c->role);
        }
    }
}

BlockReopenQueue *bdrv_reopen_queue(BlockReopenQueue *queue, BlockDriverState *bs,
                                    QDict *options, bool keep_old_opts)
{
    GLOBAL_STATE_CODE();
    if (!queue) {
        queue = g_new(BlockReopenQueue, 1);
        queue->entries = g_ptr_array_new_with_free_func(entry_free);
    }
    add(queue, bs, options, keep_old_opts, NULL, 0);
    return queue;
}

void bdrv_reopen_queue_free(BlockReopenQueue *queue)
{
    GLOBAL_STATE_CODE();
    if (queue) {
        g_ptr_array_free(queue->entries, true);
        g_free(queue);
    }
}

/* ---- change -------------------------------------------------------------------------------------- */

typedef struct SetFlags {
    BlockDriverState *bs;
    int old_flags;
    bool old_force_share;
} SetFlags;

static void set_flags_abort(void *opaque)
{
    SetFlags *s = opaque;
    s->bs->open_flags = s->old_flags;
    s->bs->force_share = s->old_force_share;
}

static const TransactionActionDrv set_flags_drv = { .abort = set_flags_abort,
                                                    .clean = g_free };

static void set_flags(ReopenEntry *e, Transaction *tran)
{
    BlockDriverState *bs = e->state.bs;
    SetFlags *s = g_new(SetFlags, 1);

    *s = (SetFlags) { bs, bs->open_flags, bs->force_share };
    tran_add(tran, &set_flags_drv, s);
    bs->open_flags = e->state.flags;
    bs->force_share = e->common.force_share;
}

/* Have the new children where the nodes are, and the nodes fit to have them. Polls. */
static int bring_together(BlockReopenQueue *queue, Error **errp)
{
    for (unsigned i = 0; i < queue->entries->len; i++) {
        ReopenEntry *e = g_ptr_array_index(queue->entries, i);
        if (e->backing.edge) {
            int ret = bdrv__lock_for_edge(e->backing.edge, e->backing.bs, errp);
            if (ret < 0) {
                return ret;
            }
            bdrv_graph_wrunlock();
        }
        if (e->file.bs) {
            int ret = bdrv_try_change_aio_context(e->file.bs, e->state.bs->aio_context, NULL,
                                                  errp);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

static bool is_together(const ReopenChild *n, const ReopenEntry *e)
{
    return !n->bs || n->bs->aio_context == e->state.bs->aio_context;
}

static int change_children(ReopenEntry *e, Transaction *tran, Error **errp)
{
    BlockDriverState *bs = e->state.bs;

    if (!is_together(&e->backing, e) || !is_together(&e->file, e)) {
        error_setg(errp, "Node '%s' and a new child of it are in different iothreads",
                   bs->node_name);
        return -EAGAIN;
    }
    if (e->backing.wanted) {
        int ret = bdrv__change_backing(bs, e->backing.edge, e->backing.bs, tran, errp);
        if (ret < 0) {
            return ret;
        }
    }
    if (e->file.wanted) {
        if (!bs->file || bs->file->frozen) {
            error_setg(errp, "Cannot change frozen 'file' link of '%s'", bs->node_name);
            return -EPERM;
        }
        if (bdrv__would_cycle(bs, e->file.bs)) {
            error_setg(errp, "Making '%s' a file child of '%s' would create a cycle",
                       e->file.bs->node_name, bs->node_name);
            return -EINVAL;
        }
        bdrv__move_edge(bs->file, e->file.bs, tran);
        return bdrv__check_depth(bs, errp);
    }
    return 0;
}

static int change(BlockReopenQueue *queue, Transaction *tran, Error **errp)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    int ret = 0;

    for (unsigned i = 0; i < queue->entries->len && ret == 0; i++) {
        ReopenEntry *e = g_ptr_array_index(queue->entries, i);
        set_flags(e, tran);
        ret = change_children(e, tran, errp);
        g_ptr_array_add(nodes, e->state.bs);
        g_ptr_array_add(nodes, e->backing.bs);
        g_ptr_array_add(nodes, e->backing.old_bs);
        g_ptr_array_add(nodes, e->file.bs);
        g_ptr_array_add(nodes, e->file.old_bs);
    }
    return ret < 0 ? ret : bdrv__refresh_perms_of_all(nodes, queue, tran, errp);
}

static void commit(ReopenEntry *e)
{
    BlockDriverState *bs = e->state.bs;

    if (bs->drv->bdrv_reopen_commit) {
        bs->drv->bdrv_reopen_commit(&e->state);
    }
    e->driver_prepared = false;
    bs->explicit_flags = e->common.explicit_flags;
    bs->detect_zeroes = e->common.detect_zeroes;
    json_decref(bs->options);
    bs->options = json_incref(e->new_options);
    e->backing.edge = NULL;     /* the node's by now */
}

static void settle(const ReopenChild *n)
{
    if (n->bs) {
        bdrv__settle_parents(n->bs);
    }
    if (n->old_bs) {
        bdrv__go_home(n->old_bs);
    }
}

static void finish(ReopenEntry *e)
{
    BlockDriverState *bs = e->state.bs;

    settle(&e->backing);
    settle(&e->file);
    bdrv_refresh_limits(bs, NULL, NULL);
    bdrv_refresh_filename(bs);
    if (bs->drv->bdrv_reopen_commit_post) {
        bs->drv->bdrv_reopen_commit_post(&e->state);
    }
}

static int prepare_all(BlockReopenQueue *queue, Error **errp)
{
    int ret = 0;

    for (unsigned i = 0; i < queue->entries->len && ret == 0; i++) {
        ret = bdrv__reopen_prepare(g_ptr_array_index(queue->entries, i), queue, errp);
    }
    return ret < 0 ? ret : bring_together(queue, errp);
}

static void abort_all(BlockReopenQueue *queue)
{
    for (unsigned i = queue->entries->len; i-- > 0; ) {
        ReopenEntry *e = g_ptr_array_index(queue->entries, i);
        if (e->driver_prepared && e->state.bs->drv->bdrv_reopen_abort) {
            e->state.bs->drv->bdrv_reopen_abort(&e->state);
        }
    }
}

int bdrv_reopen_multiple(BlockReopenQueue *queue, Error **errp)
{
    GLOBAL_STATE_CODE();
    g_assert(queue);
    int ret = prepare_all(queue, errp);
    if (ret == 0) {
        bdrv_graph_wrlock();
        Transaction *tran = tran_new();
        ret = change(queue, tran, errp);
        tran_finalize(tran, ret);
        if (ret == 0) {
            for (unsigned i = 0; i < queue->entries->len; i++) {
                commit(g_ptr_array_index(queue->entries, i));
            }
        }
        bdrv_graph_wrunlock();
    }
    if (ret == 0) {
        /* children first: what is done to a node may write to its children */
        for (unsigned i = queue->entries->len; i-- > 0; ) {
            finish(g_ptr_array_index(queue->entries, i));
        }
    } else {
        abort_all(queue);
    }
    bdrv_reopen_queue_free(queue);
    return ret;
}

int bdrv_reopen(BlockDriverState *bs, QDict *options, bool keep_old_opts, Error **errp)
{
    return bdrv_reopen_multiple(bdrv_reopen_queue(NULL, bs, options, keep_old_opts), errp);
}

int bdrv_reopen_set_read_only(BlockDriverState *bs, bool read_only, Error **errp)
{
    QDict *options = qdict_new();

    qdict_put_bool(options, "read-only", read_only);
    return bdrv_reopen(bs, options, true, errp);
}
