/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Attaching and detaching one edge, with all that has to be waited for before. See graph.c for
 * the two parts of a change.
 */
#include "block/block-internal.h"

/* ---- what comes before: all that polls ---------------------------------------------------------- */

/*
 * Bring CHILD_BS and the parent of CHILD into one context: to the parent's or, if somebody
 * holds the child where it is, to the child's. A node that nobody uses yet goes to its child.
 */
static int same_context(BdrvChild *child, BlockDriverState *child_bs, Error **errp)
{
    BlockDriverState *parent = bdrv__parent_node(child);

    if (!child->klass->get_parent_aio_context) {
        return 0;
    }
    AioContext *parent_ctx = child->klass->get_parent_aio_context(child);
    AioContext *child_ctx = child_bs->aio_context;
    bool idle_parent = parent && QLIST_EMPTY(&parent->parents) &&
                       parent_ctx == qemu_get_aio_context();
    Error *local_err = NULL;

    if (parent_ctx == child_ctx ||
        (idle_parent && bdrv_try_change_aio_context(parent, child_ctx, NULL, NULL) == 0) ||
        bdrv_try_change_aio_context(child_bs, parent_ctx, NULL, &local_err) == 0) {
        return 0;
    }
    if (parent && bdrv_try_change_aio_context(parent, child_ctx, NULL, NULL) == 0) {
        error_free(local_err);
        return 0;
    }
    error_propagate(errp, local_err);
    return -EPERM;
}

/*
 * Whether the parent has to rest while it gets CHILD_BS: because that is drained, or because
 * the parent is in another thread and would use the edge before all is said about it. (A node
 * is drained by whoever changes its edges, see must_drain().)
 */
static bool must_rest(BdrvChild *edge, BlockDriverState *child_bs)
{
    return child_bs->quiesce_counter > 0 ||
           (!bdrv__parent_node(edge) && child_bs->aio_context != qemu_get_aio_context());
}

static bool is_ready(BdrvChild *edge, BlockDriverState *child_bs)
{
    if (edge->klass->get_parent_aio_context &&
        edge->klass->get_parent_aio_context(edge) != child_bs->aio_context) {
        return false;
    }
    return !must_rest(edge, child_bs) ||
           (edge->quiesced_parent && !bdrv__parent_drained_poll(edge));
}

int bdrv__lock_for_edge(BdrvChild *edge, BlockDriverState *child_bs, Error **errp)
{
    for (;;) {
        int ret = same_context(edge, child_bs, errp);
        if (ret < 0) {
            return ret;
        }
        if (must_rest(edge, child_bs) && !edge->quiesced_parent) {
            bdrv__parent_drained_begin(edge);
        }
        if (edge->quiesced_parent) {
            AIO_WAIT_WHILE(child_bs->aio_context, bdrv__parent_drained_poll(edge));
        }
        bdrv_graph_wrlock();
        /* Each of the waits may have undone what the one before was for. */
        if (is_ready(edge, child_bs)) {
            return 0;
        }
        bdrv_graph_wrunlock();
    }
}

void bdrv__move_back(BlockDriverState *bs, AioContext *ctx)
{
    if (bs && bs->aio_context != ctx) {
        AioContext *now = bs->aio_context;
        aio_context_acquire(now);
        bdrv_try_change_aio_context(bs, ctx, NULL, NULL);
        aio_context_release(now);
    }
}

/*
 * The edges of a node in another thread change only while it is drained, because its requests
 * look at them. In our own thread nobody looks while we change them.
 */
static bool must_drain(BlockDriverState *parent)
{
    return parent && parent->aio_context != qemu_get_aio_context();
}

/* ---- attaching and detaching -------------------------------------------------------------------- */

/*
 * Make the edge. PARENT is NULL for parents that are not nodes. On failure nothing is left
 * of it. The reference on CHILD_BS becomes the edge's, or is dropped.
 */
static BdrvChild *attach(BlockDriverState *parent, BlockDriverState *child_bs,
                         BdrvChild *child, Error **errp)
{
    AioContext *child_ctx = child_bs->aio_context;
    AioContext *parent_ctx = parent ? parent->aio_context : NULL;
    bool drain = must_drain(parent);

    if (drain) {
        bdrv_drained_begin(parent);
    }
    int ret = bdrv__lock_for_edge(child, child_bs, errp);
    if (ret == 0) {
        Transaction *tran = tran_new();
        bdrv__attach_edge(child, child_bs, tran);
        ret = parent ? bdrv__check_depth(parent, errp) : 0;
        ret = ret < 0 ? ret : bdrv__refresh_perms(parent, child_bs, tran, errp);
        tran_finalize(tran, ret);
        bdrv_graph_wrunlock();
    }
    if (ret < 0) {
        bdrv__free_edge(child);
        child = NULL;
        bdrv__move_back(child_bs, child_ctx);
        bdrv__move_back(parent, parent_ctx);
    } else {
        bdrv__settle_parents(child_bs);
    }
    if (drain) {
        bdrv_drained_end(parent);
    }
    bdrv_unref(child_bs);       /* the edge has its own */
    return child;
}

BdrvChild *bdrv_attach_child(BlockDriverState *parent_bs, BlockDriverState *child_bs,
                             const char *child_name, const BdrvChildClass *child_class,
                             BdrvChildRole child_role, Error **errp)
{
    uint64_t perm, shared;

    GLOBAL_STATE_CODE();
    if (bdrv__would_cycle(parent_bs, child_bs)) {
        error_setg(errp, "Making '%s' a %s child of '%s' would create a cycle",
                   child_bs->node_name, child_name, parent_bs->node_name);
        bdrv_unref(child_bs);
        return NULL;
    }
    bdrv__child_perm(parent_bs, child_bs, NULL, child_role, NULL, parent_bs->cum_perm,
                     parent_bs->cum_shared, &perm, &shared);
    BdrvChild *child = bdrv__new_edge(child_name, child_class, child_role, perm, shared,
                                      parent_bs);
    return attach(parent_bs, child_bs, child, errp);
}

BdrvChild *bdrv_root_attach_child(BlockDriverState *child_bs, const char *child_name,
                                  const BdrvChildClass *child_class,
                                  BdrvChildRole child_role, uint64_t perm,
                                  uint64_t shared_perm, void *opaque, Error **errp)
{
    GLOBAL_STATE_CODE();
    BdrvChild *child = bdrv__new_edge(child_name, child_class, child_role, perm, shared_perm,
                                      opaque);
    return attach(NULL, child_bs, child, errp);
}

/* Whether anybody who is no node uses BS or a node connected to it. */
static bool has_users(BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BdrvChild *c;

    g_hash_table_add(seen, bs);
    g_ptr_array_add(nodes, bs);
    for (unsigned i = 0; i < nodes->len; i++) {
        bs = g_ptr_array_index(nodes, i);
        QLIST_FOREACH(c, &bs->parents, next_parent) {
            if (!bdrv__parent_node(c)) {
                return true;
            }
            if (g_hash_table_add(seen, c->opaque)) {
                g_ptr_array_add(nodes, c->opaque);
            }
        }
        QLIST_FOREACH(c, &bs->children, next) {
            if (g_hash_table_add(seen, c->bs)) {
                g_ptr_array_add(nodes, c->bs);
            }
        }
    }
    return false;
}

void bdrv__go_home(BlockDriverState *bs)
{
    AioContext *home = qemu_get_aio_context();

    /* not worth it for a node that is closed next */
    if (bs->aio_context != home && bs->refcnt > 1 && QLIST_EMPTY(&bs->parents) &&
        !has_users(bs)) {
        AioContext *ctx = bs->aio_context;
        aio_context_acquire(ctx);
        bdrv_try_change_aio_context(bs, home, NULL, NULL);
        aio_context_release(ctx);
    }
}

/* With the graph lock held. The node below, with a reference. */
static BlockDriverState *cut_edge(BdrvChild *child)
{
    BlockDriverState *child_bs = child->bs;

    bdrv_ref(child_bs);
    Transaction *tran = tran_new();
    bdrv__detach_edge(child, tran);
    tran_commit(tran);
    /* Less than before is always possible; a driver that fails keeps what it has. */
    tran = tran_new();
    tran_finalize(tran, bdrv__refresh_perms(child_bs, NULL, tran, NULL));
    return child_bs;
}

BlockDriverState *bdrv__detach_child(BlockDriverState *parent, BdrvChild *child)
{
    bool drain = must_drain(parent);
    BlockDriverState *child_bs = NULL;

    GLOBAL_STATE_CODE();
    g_assert(!child->frozen);
    child->refcnt++;            /* what runs while we wait may take out the edge */
    if (drain) {
        bdrv_ref(parent);
        bdrv_drained_begin(parent);
    }
    bdrv_graph_wrlock();
    if (child->bs) {
        child_bs = cut_edge(child);
    }
    bdrv_graph_wrunlock();
    bdrv__unref_edge(child);
    if (drain) {
        bdrv_drained_end(parent);
        bdrv_unref(parent);
    }
    if (child_bs) {
        bdrv__go_home(child_bs);
    }
    return child_bs;
}

void bdrv_root_unref_child(BdrvChild *child)
{
    bdrv_unref(bdrv__detach_child(NULL, child));
}

void bdrv_unref_child(BlockDriverState *parent, BdrvChild *child)
{
    GLOBAL_STATE_CODE();
    if (child) {
        bdrv_unref(bdrv__detach_child(parent, child));
    }
}
