/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Edges: attaching, detaching, re-pointing; and the changes built from these. */
#include "block/block-internal.h"

/* ---- primitives -------------------------------------------------------------------------------- */

void bdrv__replace_child_noperm(BdrvChild *child, BlockDriverState *new_bs)
{
    BlockDriverState *old_bs = child->bs;
    bool drained = new_bs && new_bs->quiesce_counter > 0;

    GLOBAL_STATE_CODE();
    /* A parent must be at rest before it sees a child that is drained. */
    if (drained && !child->quiesced_parent) {
        bdrv__parent_drained_begin(child);
    }
    if (old_bs) {
        if (child->klass->detach) {
            child->klass->detach(child);
        }
        QLIST_REMOVE(child, next_parent);
    }
    child->bs = new_bs;
    if (new_bs) {
        QLIST_INSERT_HEAD(&new_bs->parents, child, next_parent);
        if (child->klass->attach) {
            child->klass->attach(child);
        }
    }
    if (!drained && child->quiesced_parent) {
        bdrv__parent_drained_end(child);
    }
}

static void free_child(BdrvChild *child)
{
    g_assert(!child->bs && !child->quiesced_parent);
    g_free(child->name);
    g_free(child);
}

static BdrvChild *new_child(const char *name, const BdrvChildClass *klass,
                            BdrvChildRole role, uint64_t perm, uint64_t shared, void *opaque)
{
    BdrvChild *child = g_new0(BdrvChild, 1);
    *child = (BdrvChild) { .name = g_strdup(name), .klass = klass, .role = role,
                           .perm = perm, .shared_perm = shared, .opaque = opaque };
    return child;
}

/* Bring CHILD_BS and the parent of CHILD into one context, whichever of them can move. */
static int same_context(BdrvChild *child, BlockDriverState *child_bs, Error **errp)
{
    if (!child->klass->get_parent_aio_context) {
        return 0;
    }
    AioContext *parent_ctx = child->klass->get_parent_aio_context(child);
    AioContext *child_ctx = child_bs->aio_context;
    Error *local_err = NULL;

    if (parent_ctx == child_ctx ||
        bdrv_try_change_aio_context(child_bs, parent_ctx, NULL, &local_err) == 0) {
        return 0;
    }
    if (child->klass->parent_is_bds &&
        bdrv_try_change_aio_context(child->opaque, child_ctx, NULL, NULL) == 0) {
        error_free(local_err);
        return 0;
    }
    error_propagate(errp, local_err);
    return -EPERM;
}

/* Undo what same_context() did to BS (may be NULL). */
static void move_back(BlockDriverState *bs, AioContext *ctx)
{
    if (bs && bs->aio_context != ctx) {
        AioContext *now = bs->aio_context;
        aio_context_acquire(now);
        bdrv_try_change_aio_context(bs, ctx, NULL, NULL);
        aio_context_release(now);
    }
}

/* Let the parent of a new edge to a drained CHILD_BS come to rest first. Polls. */
static void rest_before_attach(BdrvChild *child, BlockDriverState *child_bs)
{
    if (child_bs->quiesce_counter > 0 && child->klass->drained_begin) {
        bdrv__parent_drained_begin(child);
        AIO_WAIT_WHILE(child_bs->aio_context, bdrv__parent_drained_poll(child));
    }
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
    int ret = same_context(child, child_bs, errp);

    if (ret == 0) {
        rest_before_attach(child, child_bs);
        if (parent) {
            QLIST_INSERT_HEAD(&parent->children, child, next);
        }
        bdrv__replace_child_noperm(child, child_bs);

        Transaction *tran = tran_new();
        ret = bdrv__refresh_perms(parent ? parent : child_bs, tran, errp);
        tran_finalize(tran, ret);
        if (ret < 0) {
            bdrv__replace_child_noperm(child, NULL);
            if (parent) {
                QLIST_REMOVE(child, next);
            }
            /* what was given up for the edge is taken back; less is always possible */
            tran = tran_new();
            tran_finalize(tran, bdrv__refresh_perms(child_bs, tran, NULL));
        }
    }
    if (ret < 0) {
        free_child(child);
        move_back(child_bs, child_ctx);
        move_back(parent, parent_ctx);
        aio_context_acquire(child_ctx);
        bdrv_unref(child_bs);
        aio_context_release(child_ctx);
        return NULL;
    }
    return child;
}

/* Whether NODE is BELOW or somewhere under it. */
static bool reaches(BlockDriverState *from, BlockDriverState *node, GHashTable *seen)
{
    BdrvChild *c;

    if (from == node) {
        return true;
    }
    if (!g_hash_table_add(seen, from)) {
        return false;
    }
    QLIST_FOREACH(c, &from->children, next) {
        if (reaches(c->bs, node, seen)) {
            return true;
        }
    }
    return false;
}

static bool would_cycle(BlockDriverState *parent, BlockDriverState *child)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    return reaches(child, parent, seen);
}

BdrvChild *bdrv_attach_child(BlockDriverState *parent_bs, BlockDriverState *child_bs,
                             const char *child_name, const BdrvChildClass *child_class,
                             BdrvChildRole child_role, Error **errp)
{
    uint64_t perm, shared;

    GLOBAL_STATE_CODE();
    if (would_cycle(parent_bs, child_bs)) {
        error_setg(errp, "Making '%s' a %s child of '%s' would create a cycle",
                   child_bs->node_name, child_name, parent_bs->node_name);
        bdrv_unref(child_bs);
        return NULL;
    }
    bdrv__child_perm(parent_bs, child_bs, NULL, child_role, parent_bs->cum_perm,
                     parent_bs->cum_shared, &perm, &shared);
    BdrvChild *child = new_child(child_name, child_class, child_role, perm, shared,
                                 parent_bs);
    return attach(parent_bs, child_bs, child, errp);
}

BdrvChild *bdrv_root_attach_child(BlockDriverState *child_bs, const char *child_name,
                                  const BdrvChildClass *child_class,
                                  BdrvChildRole child_role, uint64_t perm,
                                  uint64_t shared_perm, void *opaque, Error **errp)
{
    GLOBAL_STATE_CODE();
    BdrvChild *child = new_child(child_name, child_class, child_role, perm, shared_perm,
                                 opaque);
    return attach(NULL, child_bs, child, errp);
}

void bdrv_root_unref_child(BdrvChild *child)
{
    BlockDriverState *child_bs = child->bs;

    GLOBAL_STATE_CODE();
    AioContext *ctx = child_bs->aio_context;
    aio_context_acquire(ctx);
    bdrv__replace_child_noperm(child, NULL);
    free_child(child);

    Transaction *tran = tran_new();
    tran_finalize(tran, bdrv__refresh_perms(child_bs, tran, NULL));
    if (child_bs->refcnt > 1 && QLIST_EMPTY(&child_bs->parents)) {
        /* nobody wants the node to be elsewhere any more */
        bdrv_try_change_aio_context(child_bs, qemu_get_aio_context(), NULL, NULL);
    }
    bdrv_unref(child_bs);
    aio_context_release(ctx);
}

void bdrv_unref_child(BlockDriverState *parent, BdrvChild *child)
{
    GLOBAL_STATE_CODE();
    if (child) {
        QLIST_REMOVE(child, next);
        bdrv_root_unref_child(child);
    }
}

/* ---- compound changes ---------------------------------------------------------------------------- */

static int attach_backing(BlockDriverState *bs, BlockDriverState *backing, Error **errp)
{
    BdrvChildRole role = bs->drv->is_filter ? BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY
                                            : BDRV_CHILD_COW;
    bdrv_ref(backing);
    return bdrv_attach_child(bs, backing, "backing", &child_of_bds, role, errp) ? 0 : -EPERM;
}

int bdrv_set_backing_hd(BlockDriverState *bs, BlockDriverState *backing_hd, Error **errp)
{
    BlockDriverState *old = bs->backing ? bs->backing->bs : NULL;
    int ret = 0;

    GLOBAL_STATE_CODE();
    if (old == backing_hd) {
        return 0;
    }
    if (backing_hd && !bs->drv->is_filter && !bs->drv->supports_backing) {
        error_setg(errp, "Driver '%s' of node '%s' does not support backing files",
                   bs->drv->format_name, bs->node_name);
        return -EINVAL;
    }
    bdrv_drained_begin(bs);
    if (old) {
        bdrv_ref(old);
        bdrv_unref_child(bs, bs->backing);
    }
    if (backing_hd) {
        ret = attach_backing(bs, backing_hd, errp);
    }
    if (ret < 0 && old) {
        attach_backing(bs, old, &error_abort);
    }
    if (old) {
        bdrv_unref(old);
    }
    bdrv_refresh_limits(bs, NULL, NULL);
    bdrv_drained_end(bs);
    return ret;
}

typedef struct ReplaceChild {
    BdrvChild *child;
    BlockDriverState *old_bs;
} ReplaceChild;

static void replace_child_abort(void *opaque)
{
    ReplaceChild *s = opaque;
    bdrv__replace_child_noperm(s->child, s->old_bs);
}

static const TransactionActionDrv replace_child_drv = {
    .abort = replace_child_abort,
    .clean = g_free,
};

/* Re-point all edges to FROM that may and can be; how many. Both nodes are drained. */
static unsigned replace_parents(BlockDriverState *from, BlockDriverState *to,
                                Transaction *tran)
{
    BdrvChild *c, *next;
    unsigned moved = 0;

    QLIST_FOREACH_SAFE(c, &from->parents, next_parent, next) {
        if (c->klass->stay_at_node ||
            (c->klass->parent_is_bds && would_cycle(c->opaque, to))) {
            continue;
        }
        ReplaceChild *s = g_new(ReplaceChild, 1);
        *s = (ReplaceChild) { c, from };
        tran_add(tran, &replace_child_drv, s);
        bdrv__replace_child_noperm(c, to);
        moved++;
    }
    return moved;
}

/* Move the references that the edges own. */
static void move_references(BlockDriverState *from, BlockDriverState *to, unsigned edges)
{
    to->refcnt += edges;
    while (edges--) {
        bdrv_unref(from);
    }
}

int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, Error **errp)
{
    GLOBAL_STATE_CODE();
    g_assert(from->aio_context == to->aio_context);

    /*
     * Both are drained, so that no parent is released before the outcome is certain: a
     * request that it starts must not go to a node that it is then taken away from.
     */
    bdrv_ref(from);
    bdrv_ref(to);
    bdrv_drained_begin(from);
    bdrv_drained_begin(to);
    Transaction *tran = tran_new();
    unsigned moved = replace_parents(from, to, tran);
    int ret = bdrv__refresh_perms_of_two(to, from, tran, errp);
    tran_finalize(tran, ret);
    if (ret == 0) {
        move_references(from, to, moved);
    }
    bdrv_drained_end(to);
    bdrv_drained_end(from);
    bdrv_unref(to);
    bdrv_unref(from);
    return ret;
}

int bdrv_append(BlockDriverState *bs_new, BlockDriverState *bs_top, Error **errp)
{
    GLOBAL_STATE_CODE();
    g_assert(!bs_new->backing);

    BdrvChildRole role = bs_new->drv->is_filter ? BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY
                                                : BDRV_CHILD_COW;
    bdrv_ref(bs_top);
    bdrv_drained_begin(bs_top);
    bdrv_drained_begin(bs_new);

    /* The new edge needs nothing until BS_NEW has its parents. */
    BdrvChild *edge = new_child("backing", &child_of_bds, role, 0, BLK_PERM_ALL, bs_new);
    AioContext *top_ctx = bs_top->aio_context, *new_ctx = bs_new->aio_context;
    int ret = same_context(edge, bs_top, errp);
    if (ret == 0) {
        Transaction *tran = tran_new();
        unsigned moved = replace_parents(bs_top, bs_new, tran);

        bdrv_ref(bs_top);               /* the edge's */
        QLIST_INSERT_HEAD(&bs_new->children, edge, next);
        bdrv__replace_child_noperm(edge, bs_top);
        ret = bdrv__refresh_perms(bs_new, tran, errp);
        if (ret < 0) {
            QLIST_REMOVE(edge, next);
            bdrv__replace_child_noperm(edge, NULL);
            bdrv_unref(bs_top);
            tran_abort(tran);
        } else {
            tran_commit(tran);
            move_references(bs_top, bs_new, moved);
            bdrv_refresh_limits(bs_new, NULL, NULL);
        }
    }
    if (ret < 0) {
        free_child(edge);
    }
    bdrv_drained_end(bs_new);
    bdrv_drained_end(bs_top);
    if (ret < 0) {
        move_back(bs_top, top_ctx);
        move_back(bs_new, new_ctx);
    }
    bdrv_unref(bs_top);
    return ret;
}
