/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Changes of several edges at once: putting a node above, below or in place of others.
 *
 * Each polls first (drained sections, contexts, the graph lock) and then looks up and changes
 * as one transaction; see block/graph.c. The caller of these holds the lock of the nodes'
 * context once, or not at all.
 */
#include "block/block-internal.h"

/* ---- frozen links ------------------------------------------------------------------------------- */

static bool check_not_frozen(BdrvChild *c, Error **errp)
{
    if (c->frozen) {
        error_setg(errp, "Cannot change '%s' link to '%s'", c->name, c->bs->node_name);
        return false;
    }
    return true;
}

bool bdrv_is_backing_chain_frozen(BlockDriverState *bs, BlockDriverState *base, Error **errp)
{
    GLOBAL_STATE_CODE();
    while (bs != base) {
        BdrvChild *link = bdrv_filter_or_cow_child(bs);
        if (!link) {
            break;
        }
        if (link->frozen) {
            error_setg(errp, "Cannot change '%s' link from '%s' to '%s'", link->name,
                       bs->node_name, link->bs->node_name);
            return true;
        }
        bs = link->bs;
    }
    return false;
}

int bdrv_freeze_backing_chain(BlockDriverState *bs, BlockDriverState *base, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (bdrv_is_backing_chain_frozen(bs, base, errp)) {
        return -EPERM;
    }
    for (BdrvChild *link; bs != base && (link = bdrv_filter_or_cow_child(bs)); bs = link->bs) {
        link->frozen = true;
    }
    return 0;
}

void bdrv_unfreeze_backing_chain(BlockDriverState *bs, BlockDriverState *base)
{
    GLOBAL_STATE_CODE();
    for (BdrvChild *link; bs != base && (link = bdrv_filter_or_cow_child(bs)); bs = link->bs) {
        g_assert(link->frozen);
        link->frozen = false;
    }
}

/* ---- replacing ---------------------------------------------------------------------------------- */

/*
 * Re-point all edges to FROM that may follow. Edges on the way from TO to FROM stay: they would
 * close a circle. With SKIP false, any edge that cannot follow is an error.
 */
static int move_parents(BlockDriverState *from, BlockDriverState *to, bool skip,
                        Transaction *tran, Error **errp)
{
    BdrvChild *c, *next;

    QLIST_FOREACH_SAFE(c, &from->parents, next_parent, next) {
        if (c->klass->stay_at_node ||
            (c->klass->parent_is_bds && bdrv__would_cycle(c->opaque, to))) {
            if (skip) {
                continue;
            }
            error_setg(errp, "Should not change '%s' link to '%s'", c->name,
                       from->node_name);
            return -EINVAL;
        }
        if (!check_not_frozen(c, errp)) {
            return -EPERM;
        }
        bdrv__move_edge(c, to, tran);
    }
    return 0;
}

BdrvChild *bdrv__last_link(BlockDriverState *from, BlockDriverState *to)
{
    BdrvChild *link = bdrv_filter_or_cow_child(from);

    while (link && link->bs != to) {
        link = bdrv_filter_or_cow_child(link->bs);
    }
    return link;
}

/*
 * The link that FROM, and what is used only through FROM, has to the rest of its chain down to
 * TO; NULL if TO is not there.
 */
static BdrvChild *link_to_cut(BlockDriverState *from, BlockDriverState *to)
{
    BdrvChild *link = bdrv_filter_or_cow_child(from);

    if (!bdrv__last_link(from, to)) {
        return NULL;
    }
    while (link->bs != to && !QLIST_NEXT(QLIST_FIRST(&link->bs->parents), next_parent)) {
        link = bdrv_filter_or_cow_child(link->bs);
    }
    return link;
}

int bdrv__replace_drained(BlockDriverState *from, BlockDriverState *to, bool cut, bool skip,
                          Error **errp)
{
    Transaction *tran = tran_new();
    BdrvChild *link = cut ? link_to_cut(from, to) : NULL;
    int ret;

    if (cut && !link) {
        error_setg(errp, "Node '%s' is not below node '%s' any more", to->node_name,
                   from->node_name);
        ret = -EINVAL;
    } else if (link && !check_not_frozen(link, errp)) {
        ret = -EPERM;
    } else {
        BlockDriverState *above = link ? link->opaque : NULL;
        BlockDriverState *below = link ? link->bs : NULL;
        if (link) {
            bdrv__detach_edge(link, tran);
        }
        ret = move_parents(from, to, skip, tran, errp);
        ret = ret < 0 ? ret : bdrv__check_depth(to, errp);
        if (ret == 0) {
            g_autoptr(GPtrArray) nodes = g_ptr_array_new();
            g_ptr_array_add(nodes, to);
            g_ptr_array_add(nodes, from);
            g_ptr_array_add(nodes, above);
            g_ptr_array_add(nodes, below);
            ret = bdrv__refresh_perms_of_all(nodes, NULL, tran, errp);
        }
    }
    tran_finalize(tran, ret);
    return ret;
}

int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (from == to) {
        return 0;
    }
    if (from->aio_context != to->aio_context) {
        error_setg(errp, "Node '%s' and node '%s' are in different iothreads",
                   from->node_name, to->node_name);
        return -EINVAL;
    }
    bdrv_ref(from);
    bdrv_ref(to);
    bdrv_drained_begin(from);
    bdrv_graph_wrlock();
    int ret = bdrv__replace_drained(from, to, false, true, errp);
    bdrv_graph_wrunlock();
    bdrv__settle_parents(to);
    bdrv_drained_end(from);
    bdrv__go_home(from);
    bdrv_unref(to);
    bdrv_unref(from);
    return ret;
}

int bdrv_drop_filter(BlockDriverState *bs, Error **errp)
{
    BlockDriverState *child_bs = NULL;
    int ret = -EINVAL;

    GLOBAL_STATE_CODE();
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    bdrv_graph_wrlock();
    /* only now: while we waited there may have come another below BS */
    BdrvChild *child = bdrv_filter_or_cow_child(bs);
    if (child) {
        child_bs = child->bs;
        bdrv_ref(child_bs);
        ret = bdrv__replace_drained(bs, child_bs, true, true, errp);
    } else {
        error_setg(errp, "Node '%s' has no child that could take its place", bs->node_name);
    }
    bdrv_graph_wrunlock();
    if (child_bs) {
        bdrv__settle_parents(child_bs);
        bdrv_unref(child_bs);
    }
    bdrv_drained_end(bs);
    bdrv__go_home(bs);
    bdrv_unref(bs);
    return ret;
}

/* ---- putting a node on top ---------------------------------------------------------------------- */

static BdrvChildRole backing_role(BlockDriverState *bs)
{
    return bs->drv->is_filter ? BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY : BDRV_CHILD_COW;
}

int bdrv_append(BlockDriverState *bs_new, BlockDriverState *bs_top, Error **errp)
{
    AioContext *top_ctx = bs_top->aio_context, *new_ctx = bs_new->aio_context;

    GLOBAL_STATE_CODE();
    g_assert(!bs_new->backing);
    if (bdrv__would_cycle(bs_new, bs_top)) {
        error_setg(errp, "Making '%s' a backing child of '%s' would create a cycle",
                   bs_top->node_name, bs_new->node_name);
        return -EINVAL;
    }
    bdrv_ref(bs_top);
    bdrv_ref(bs_new);
    bdrv_drained_begin(bs_top);
    bdrv_drained_begin(bs_new);

    /* The edge needs nothing until BS_NEW has its parents. */
    BdrvChild *edge = bdrv__new_edge("backing", &child_of_bds, backing_role(bs_new), 0,
                                     BLK_PERM_ALL, bs_new);
    int ret = bdrv__lock_for_edge(edge, bs_top, errp);
    if (ret == 0) {
        Transaction *tran = tran_new();
        ret = move_parents(bs_top, bs_new, true, tran, errp);
        if (ret == 0) {
            bdrv__attach_edge(edge, bs_top, tran);
            ret = bdrv__check_depth(bs_new, errp);
        }
        if (ret == 0) {
            ret = bdrv__refresh_perms(bs_new, bs_top, tran, errp);
        }
        tran_finalize(tran, ret);
        bdrv_graph_wrunlock();
    }
    if (ret == 0) {
        bdrv_refresh_limits(bs_new, NULL, NULL);
    } else {
        bdrv__free_edge(edge);
    }
    bdrv_drained_end(bs_new);
    bdrv_drained_end(bs_top);
    if (ret < 0) {
        bdrv__move_back(bs_top, top_ctx);
        bdrv__move_back(bs_new, new_ctx);
    }
    bdrv_unref(bs_new);
    bdrv_unref(bs_top);
    return ret;
}

BlockDriverState *bdrv_insert_node(BlockDriverState *bs, QDict *options, int flags,
                                   Error **errp)
{
    g_autofree char *driver = NULL, *node_name = NULL;

    GLOBAL_STATE_CODE();
    bool ok = bdrv_opt_str(options, "node-name", &node_name, errp) &&
              bdrv_opt_str(options, "driver", &driver, errp);
    BlockDriver *drv = driver ? bdrv_find_format(driver) : NULL;
    if (!ok || !drv) {
        if (ok && driver) {
            error_setg(errp, "Unknown driver: '%s'", driver);
        } else if (ok) {
            error_setg(errp, "driver is not specified");
        }
        qobject_unref(options);
        return NULL;
    }
    BlockDriverState *new_bs = bdrv_new_open_driver_opts(drv, node_name, options, flags,
                                                         errp);
    if (!new_bs) {
        error_prepend(errp, "Could not create node: ");
        return NULL;
    }
    /* the new node may have brought BS along to another context, or gone to that of BS */
    if (bdrv_replace_node(bs, new_bs, errp) < 0) {
        error_prepend(errp, "Could not replace node: ");
        bdrv_unref(new_bs);
        return NULL;
    }
    return new_bs;
}

/* ---- changing what is below --------------------------------------------------------------------- */

static bool may_have_backing(BlockDriverState *bs, BlockDriverState *backing_hd, Error **errp)
{
    if (!backing_hd) {
        return true;
    }
    if (!bs->drv->is_filter && !bs->drv->supports_backing) {
        error_setg(errp, "Driver '%s' of node '%s' does not support backing files",
                   bs->drv->format_name, bs->node_name);
        return false;
    }
    if (bdrv__would_cycle(bs, backing_hd)) {
        error_setg(errp, "Making '%s' a backing child of '%s' would create a cycle",
                   backing_hd->node_name, bs->node_name);
        return false;
    }
    return true;
}

int bdrv__change_backing(BlockDriverState *bs, BdrvChild *edge, BlockDriverState *backing_hd,
                         Transaction *tran, Error **errp)
{
    BdrvChild *old = bs->backing;

    if (old && old->frozen) {
        error_setg(errp, "Cannot change frozen '%s' link from '%s' to '%s'", old->name,
                   bs->node_name, old->bs->node_name);
        return -EPERM;
    }
    if (!may_have_backing(bs, backing_hd, errp)) {
        return -EINVAL;
    }
    if (old) {
        bdrv__detach_edge(old, tran);
    }
    if (backing_hd) {
        bdrv__attach_edge(edge, backing_hd, tran);
    }
    return bdrv__check_depth(bs, errp);
}

BdrvChild *bdrv__new_backing_edge(BlockDriverState *bs)
{
    /* refreshing the permissions of BS gives it what it needs */
    return bdrv__new_edge("backing", &child_of_bds, backing_role(bs), 0, BLK_PERM_ALL, bs);
}

/* BS is drained; BACKING_HD may be NULL; both are held. */
static int set_backing_drained(BlockDriverState *bs, BlockDriverState *backing_hd,
                               Error **errp)
{
    BdrvChild *edge = backing_hd ? bdrv__new_backing_edge(bs) : NULL;
    BlockDriverState *old = NULL;
    int ret = 0;

    if (edge) {
        ret = bdrv__lock_for_edge(edge, backing_hd, errp);
    } else {
        bdrv_graph_wrlock();
    }
    if (ret == 0) {
        Transaction *tran = tran_new();
        old = bs->backing ? bs->backing->bs : NULL;
        if (old) {
            bdrv_ref(old);
        }
        ret = bdrv__change_backing(bs, edge, backing_hd, tran, errp);
        if (ret == 0) {
            g_autoptr(GPtrArray) nodes = g_ptr_array_new();
            g_ptr_array_add(nodes, bs);
            g_ptr_array_add(nodes, backing_hd);
            g_ptr_array_add(nodes, old);
            ret = bdrv__refresh_perms_of_all(nodes, NULL, tran, errp);
        }
        tran_finalize(tran, ret);
        bdrv_graph_wrunlock();
    }
    if (ret < 0 && edge) {
        bdrv__free_edge(edge);
    } else if (edge) {
        bdrv__settle_parents(backing_hd);
    }
    if (old) {
        bdrv__go_home(old);
        bdrv_unref(old);
    }
    return ret;
}

int bdrv_set_backing_hd(BlockDriverState *bs, BlockDriverState *backing_hd, Error **errp)
{
    AioContext *ctx = bs->aio_context;
    AioContext *backing_ctx = backing_hd ? backing_hd->aio_context : NULL;

    GLOBAL_STATE_CODE();
    if ((bs->backing ? bs->backing->bs : NULL) == backing_hd) {
        return 0;
    }
    if (!may_have_backing(bs, backing_hd, errp)) {
        return -EINVAL;
    }
    if (backing_hd) {
        bdrv_ref(backing_hd);
    }
    bdrv_drained_begin(bs);
    int ret = set_backing_drained(bs, backing_hd, errp);
    bdrv_refresh_limits(bs, NULL, NULL);
    bdrv_drained_end(bs);
    if (ret < 0) {
        bdrv__move_back(backing_hd, backing_ctx);
        bdrv__move_back(bs, ctx);
    }
    bdrv_unref(backing_hd);
    return ret;
}
