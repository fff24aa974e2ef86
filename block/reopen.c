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
#include "block/block-internal.h"

/* A change of bs->file or bs->backing. */
typedef struct NewChild {
    bool wanted;
    BlockDriverState *bs;       /* to be; NULL: none; with a reference */
    BlockDriverState *old_bs;   /* with a reference */
    BdrvChild *edge;            /* for BS, unless there is an edge that can be re-pointed */
} NewChild;

typedef struct Entry {
    BDRVReopenState state;
    QDict *given;               /* what is asked for */
    bool keep_old;              /* on top of what is in force */
    struct Entry *parent;       /* whose flags this one follows; NULL: nobody's */
    BdrvChildRole role;         /* towards PARENT */
    BdrvCommonOptions common;   /* to be */
    QDict *new_options;         /* of the driver, to be */
    NewChild file, backing;
    bool driver_prepared;
} Entry;

struct BlockReopenQueue {
    GPtrArray *entries;         /* of Entry; parents first */
};

/* ---- the queue ----------------------------------------------------------------------------------- */

static Entry *find_entry(BlockReopenQueue *queue, BlockDriverState *bs)
{
    for (unsigned i = 0; i < queue->entries->len; i++) {
        Entry *e = g_ptr_array_index(queue->entries, i);
        if (e->state.bs == bs) {
            return e;
        }
    }
    return NULL;
}

static void new_child_clear(NewChild *c)
{
    if (c->edge) {
        bdrv__free_edge(c->edge);
    }
    bdrv_unref(c->bs);
    bdrv_unref(c->old_bs);
}

static void entry_free(gpointer opaque)
{
    Entry *e = opaque;

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
                Entry *parent, BdrvChildRole role)
{
    Entry *e = find_entry(queue, bs);
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
    e = g_new0(Entry, 1);
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

/* ---- prepare: options ---------------------------------------------------------------------------- */

/* Typed values and strings from a command line may say the same. */
static bool same_value(json_t *a, json_t *b)
{
    if (json_equal(a, b)) {
        return true;
    }
    if (!json_is_string(a) && !json_is_string(b)) {
        return false;
    }
    g_autofree char *x = json_is_string(a) ? g_strdup(json_string_value(a))
                                           : json_dumps(a, JSON_ENCODE_ANY);
    g_autofree char *y = json_is_string(b) ? g_strdup(json_string_value(b))
                                           : json_dumps(b, JSON_ENCODE_ANY);
    return !g_strcmp0(x, y);
}

/* An option that names the node or its driver may be given, as it is. */
static bool check_fixed(QDict *options, const char *key, const char *now, Error **errp)
{
    const char *value = qdict_get_try_str(options, key);

    if (qdict_haskey(options, key) && g_strcmp0(value, now)) {
        error_setg(errp, "Cannot change the option '%s'", key);
        return false;
    }
    qdict_del(options, key);
    return true;
}

static int inherited_flags(const Entry *e)
{
    static const int inheritable = BDRV_O_CACHE_MASK | BDRV_O_RDWR | BDRV_O_AUTO_RDONLY |
                                   BDRV_O_UNMAP;
    BlockDriverState *bs = e->state.bs;
    int own = e->keep_old ? bs->explicit_flags : 0;
    int follows = inheritable & ~own;
    int from_parent = bdrv__child_flags(e->parent->state.bs, e->parent->state.flags, e->role);

    return (bs->open_flags & ~follows) | (from_parent & follows);
}

/* Flags and other common options; E->given is left with those of the driver. */
static bool take_common(Entry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    BdrvCommonOptions *co = &e->common;
    static const int defaults = BDRV_O_RDWR;    /* those of blockdev-add */
    static const int resettable = BDRV_O_CACHE_MASK | BDRV_O_RDWR | BDRV_O_AUTO_RDONLY |
                                  BDRV_O_UNMAP;

    if (!check_fixed(e->given, "driver", bs->drv->format_name, errp) ||
        !check_fixed(e->given, "node-name", bs->node_name, errp)) {
        return false;
    }
    co->flags = e->parent ? inherited_flags(e)
                : e->keep_old ? bs->open_flags
                : (bs->open_flags & ~resettable) | defaults;
    if (e->keep_old) {
        co->explicit_flags = bs->explicit_flags;
        co->detect_zeroes = bs->detect_zeroes;
        co->force_share = bs->force_share;
    }
    if (!bdrv__take_common_options(e->given, co, errp)) {
        return false;
    }
    e->state.flags = co->flags;
    return true;
}

/* ---- prepare: children --------------------------------------------------------------------------- */

static bool want_child(NewChild *n, BdrvChild *now, BlockDriverState *bs)
{
    n->wanted = true;
    n->bs = bs;
    n->old_bs = now ? now->bs : NULL;
    if (n->old_bs) {
        bdrv_ref(n->old_bs);
    }
    return true;
}

static bool take_backing(Entry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs, *new_bs = NULL;
    BdrvChild *now = bs->backing;
    json_t *value = json_object_get(e->given, "backing");

    if (!value) {
        if (!e->keep_old && bs->drv->supports_backing &&
            (now ? now->bs->opened_by != bs->serial : bs->backing_file[0] != '\0')) {
            error_setg(errp, "backing is missing for '%s'", bs->node_name);
            return false;
        }
        return true;
    }
    if (json_is_string(value) && *json_string_value(value)) {
        new_bs = bdrv_lookup_bs(NULL, json_string_value(value), errp);
        if (!new_bs) {
            return false;
        }
    } else if (!json_is_string(value) && !json_is_null(value)) {
        error_setg(errp, "Cannot change the option 'backing'");
        return false;
    }
    qdict_del(e->given, "backing");
    if (new_bs == (now ? now->bs : NULL)) {
        return true;
    }
    if (new_bs) {
        bdrv_ref(new_bs);
        e->backing.edge = bdrv__new_backing_edge(bs);
    }
    return want_child(&e->backing, now, new_bs);
}

/* Only who shows its file as it is may be given another. */
static bool take_file(Entry *e, const char *name, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    BlockDriverState *new_bs = bdrv_lookup_bs(NULL, name, errp);

    if (!new_bs) {
        return false;
    }
    if (!(bs->file->role & BDRV_CHILD_FILTERED)) {
        error_setg(errp, "Cannot change the option 'file'");
        return false;
    }
    bdrv_ref(new_bs);
    return want_child(&e->file, bs->file, new_bs);
}

/* Children that are named in the options: the same as now, or one that can be replaced. */
static bool take_children(Entry *e, Error **errp)
{
    BdrvChild *c;

    if (!take_backing(e, errp)) {
        return false;
    }
    QLIST_FOREACH(c, &e->state.bs->children, next) {
        json_t *value = json_object_get(e->given, c->name);
        const char *name = json_string_value(value);
        if (!value) {
            continue;
        }
        if (name && strcmp(name, c->bs->node_name) && c == e->state.bs->file) {
            if (!take_file(e, name, errp)) {
                return false;
            }
        } else if (!name || strcmp(name, c->bs->node_name)) {
            error_setg(errp, "Cannot change the option '%s'", c->name);
            return false;
        }
        qdict_del(e->given, c->name);
    }
    return true;
}

/* ---- prepare: the driver ------------------------------------------------------------------------- */

static bool is_mutable(BlockDriver *drv, const char *key)
{
    return drv->mutable_opts && g_strv_contains(drv->mutable_opts, key);
}

static bool is_child(BlockDriverState *bs, const char *key)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        if (!strcmp(c->name, key)) {
            return true;
        }
    }
    return false;
}

/* What is not given, although it was, goes back to its default: if the driver can do that. */
static bool check_left_out(Entry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    const char *key;
    json_t *value;

    json_object_foreach(bs->options, key, value) {
        if (!qdict_haskey(e->given, key) && !is_child(bs, key) &&
            !is_mutable(bs->drv, key)) {
            error_setg(errp, "Option '%s' cannot be reset to its default value", key);
            return false;
        }
    }
    return true;
}

/* What the driver has left alone must be as it was. */
static bool check_left_over(Entry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    const char *key;
    json_t *value;

    json_object_foreach(e->state.options, key, value) {
        json_t *old = json_object_get(bs->options, key);
        if (!old || !same_value(old, value)) {
            error_setg(errp, "Cannot change the option '%s'", key);
            return false;
        }
    }
    return true;
}

static int ask_driver(Entry *e, BlockReopenQueue *queue, Error **errp)
{
    ERRP_GUARD();
    BlockDriverState *bs = e->state.bs;

    if (!bs->drv->bdrv_reopen_prepare) {
        error_setg(errp, "Block format '%s' used by node '%s' does not support reopening files",
                   bs->drv->format_name, bs->node_name);
        return -ENOTSUP;
    }
    if (!(e->state.flags & BDRV_O_RDWR) && !bdrv_is_read_only(bs)) {
        int ret = bdrv_flush(bs);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Error flushing drive");
            return ret;
        }
    }
    int ret = bs->drv->bdrv_reopen_prepare(&e->state, queue, errp);
    if (ret < 0) {
        if (!*errp) {
            error_setg_errno(errp, -ret, "failed while preparing to reopen image '%s'",
                             bs->filename);
        }
        return ret;
    }
    e->driver_prepared = true;
    return check_left_over(e, errp) ? 0 : -EINVAL;
}

static int prepare(Entry *e, BlockReopenQueue *queue, Error **errp)
{
    if (!e->state.bs->drv) {
        error_setg(errp, "Node '%s' is not open", e->state.bs->node_name);
        return -ENOMEDIUM;
    }
    if (!bdrv_options_nest(e->given, errp) || !take_common(e, errp) ||
        !take_children(e, errp)) {
        return -EINVAL;
    }
    if (e->keep_old) {
        json_object_update_missing(e->given, e->state.bs->options);
    } else if (!check_left_out(e, errp)) {
        return -EINVAL;
    }
    e->new_options = json_deep_copy(e->given);
    e->state.options = json_deep_copy(e->given);
    return ask_driver(e, queue, errp);
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

static void set_flags(Entry *e, Transaction *tran)
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
        Entry *e = g_ptr_array_index(queue->entries, i);
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

static bool is_together(const NewChild *n, const Entry *e)
{
    return !n->bs || n->bs->aio_context == e->state.bs->aio_context;
}

static int change_children(Entry *e, Transaction *tran, Error **errp)
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
        Entry *e = g_ptr_array_index(queue->entries, i);
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

static void commit(Entry *e)
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

static void settle(const NewChild *n)
{
    if (n->bs) {
        bdrv__settle_parents(n->bs);
    }
    if (n->old_bs) {
        bdrv__go_home(n->old_bs);
    }
}

static void finish(Entry *e)
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
        ret = prepare(g_ptr_array_index(queue->entries, i), queue, errp);
    }
    return ret < 0 ? ret : bring_together(queue, errp);
}

static void abort_all(BlockReopenQueue *queue)
{
    for (unsigned i = queue->entries->len; i-- > 0; ) {
        Entry *e = g_ptr_array_index(queue->entries, i);
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
