/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Permissions: what each parent needs of a node and what it lets others have.
 *
 * They are recomputed from a node downwards in topological order (every parent before its
 * children), so that each node is looked at once, when all its parents are final.
 */
#include "block/block-internal.h"

enum {
    PERM_ALL_DATA = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED |
                    BLK_PERM_RESIZE,
};

/* ---- the rules by role ----------------------------------------------------------------------- */

static void cow_perms(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                      uint64_t *nperm, uint64_t *nshared)
{
    /* A backing file is only ever read, and must make sense if we must. */
    *nperm = perm & BLK_PERM_CONSISTENT_READ;
    *nshared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
    if (shared & BLK_PERM_WRITE) {
        *nshared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
}

static void image_perms(BlockDriverState *bs, BdrvChildRole role, uint64_t perm,
                        uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = perm;
    *nshared = shared;
    if (role & BDRV_CHILD_METADATA) {
        /* Metadata changes without a user's request, and nobody else may change it. */
        if (bdrv_is_writable(bs)) {
            *nperm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        *nshared &= ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
    if ((role & BDRV_CHILD_DATA) && (perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED))) {
        *nperm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;     /* writing allocates */
    }
    if (!(bs->open_flags & BDRV_O_NO_IO)) {
        *nperm |= BLK_PERM_CONSISTENT_READ;
    }
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                        BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                        uint64_t *nperm, uint64_t *nshared)
{
    if (role & BDRV_CHILD_FILTERED) {
        *nperm = perm & PERM_ALL_DATA;
        *nshared = shared;
    } else if (role & BDRV_CHILD_COW) {
        cow_perms(bs, perm, shared, nperm, nshared);
    } else {
        image_perms(bs, role, perm, shared, nperm, nshared);
    }
}

void bdrv__child_perm(BlockDriverState *bs, BlockDriverState *child_bs, BdrvChild *c,
                      BdrvChildRole role, uint64_t parent_perm, uint64_t parent_shared,
                      uint64_t *nperm, uint64_t *nshared)
{
    if (bs->drv && bs->drv->bdrv_child_perm) {
        bs->drv->bdrv_child_perm(bs, c, role, NULL, parent_perm, parent_shared, nperm,
                                 nshared);
    } else {
        bdrv_default_perms(bs, c, role, NULL, parent_perm, parent_shared, nperm, nshared);
    }
    if (child_bs && child_bs->force_share) {
        *nshared = BLK_PERM_ALL;
    }
}

/* ---- conflicts ------------------------------------------------------------------------------- */

static char *perm_names(uint64_t perm)
{
    static const char *const names[] = { "consistent read", "write", "write unchanged",
                                         "resize" };
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        if (perm & (1ULL << i)) {
            g_string_append_printf(s, "%s%s", s->len ? ", " : "", names[i]);
        }
    }
    return g_string_free(s, false);
}

/* False if A needs what B does not share. */
static bool compatible(BdrvChild *a, BdrvChild *b, Error **errp)
{
    uint64_t denied = a->perm & ~b->shared_perm;
    if (!denied) {
        return true;
    }
    const char *node = bdrv_get_node_name(a->bs);
    g_autofree char *a_user = bdrv_child_user_desc(a);
    g_autofree char *b_user = bdrv_child_user_desc(b);
    g_autofree char *names = perm_names(denied);
    error_setg(errp, "Permission conflict on node '%s': permissions '%s' are both required by "
               "%s (uses node '%s' as '%s' child) and unshared by %s (uses node '%s' as '%s' "
               "child).", node, names, a_user, node, a->name, b_user, node, b->name);
    return false;
}

static bool parents_compatible(BlockDriverState *bs, Error **errp)
{
    BdrvChild *a, *b;

    QLIST_FOREACH(a, &bs->parents, next_parent) {
        QLIST_FOREACH(b, &bs->parents, next_parent) {
            if (a != b && !compatible(a, b, errp)) {
                return false;
            }
        }
    }
    return true;
}

/* ---- steps of a transaction -------------------------------------------------------------------- */

typedef struct SetChildPerm {
    BdrvChild *c;
    uint64_t old_perm, old_shared;
} SetChildPerm;

static void set_child_perm_abort(void *opaque)
{
    SetChildPerm *s = opaque;
    s->c->perm = s->old_perm;
    s->c->shared_perm = s->old_shared;
}

static const TransactionActionDrv set_child_perm_drv = {
    .abort = set_child_perm_abort,
    .clean = g_free,
};

void bdrv__set_child_perm(BdrvChild *c, uint64_t perm, uint64_t shared, Transaction *tran)
{
    SetChildPerm *s = g_new(SetChildPerm, 1);
    *s = (SetChildPerm) { c, c->perm, c->shared_perm };
    tran_add(tran, &set_child_perm_drv, s);
    c->perm = perm;
    c->shared_perm = shared;
}

typedef struct SetNodePerm {
    BlockDriverState *bs;
    uint64_t old_perm, old_shared;
    bool driver_agreed;
} SetNodePerm;

static void set_node_perm_commit(void *opaque)
{
    SetNodePerm *s = opaque;
    if (s->bs->drv && s->bs->drv->bdrv_set_perm) {
        s->bs->drv->bdrv_set_perm(s->bs, s->bs->cum_perm, s->bs->cum_shared);
    }
}

static void set_node_perm_abort(void *opaque)
{
    SetNodePerm *s = opaque;
    s->bs->cum_perm = s->old_perm;
    s->bs->cum_shared = s->old_shared;
    if (s->driver_agreed && s->bs->drv->bdrv_abort_perm_update) {
        s->bs->drv->bdrv_abort_perm_update(s->bs);
    }
}

static const TransactionActionDrv set_node_perm_drv = {
    .commit = set_node_perm_commit,
    .abort = set_node_perm_abort,
    .clean = g_free,
};

static int set_node_perm(BlockDriverState *bs, Transaction *tran, Error **errp)
{
    uint64_t perm = 0, shared = BLK_PERM_ALL;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        perm |= c->perm;
        shared &= c->shared_perm;
    }
    if ((perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) && !bdrv_is_writable(bs)) {
        error_setg(errp, "Block node is read-only");
        return -EPERM;
    }
    SetNodePerm *s = g_new0(SetNodePerm, 1);
    s->bs = bs;
    s->old_perm = bs->cum_perm;
    s->old_shared = bs->cum_shared;
    tran_add(tran, &set_node_perm_drv, s);
    bs->cum_perm = perm;
    bs->cum_shared = shared;
    if (bs->drv && bs->drv->bdrv_check_perm) {
        int ret = bs->drv->bdrv_check_perm(bs, perm, shared, errp);
        if (ret < 0) {
            return ret;
        }
        s->driver_agreed = true;
    }
    return 0;
}

static int refresh_node(BlockDriverState *bs, Transaction *tran, Error **errp)
{
    BdrvChild *c;

    if (!parents_compatible(bs, errp)) {
        return -EPERM;
    }
    int ret = set_node_perm(bs, tran, errp);
    if (ret < 0) {
        return ret;
    }
    QLIST_FOREACH(c, &bs->children, next) {
        uint64_t perm, shared;
        bdrv__child_perm(bs, c->bs, c, c->role, bs->cum_perm, bs->cum_shared, &perm, &shared);
        bdrv__set_child_perm(c, perm, shared, tran);
    }
    return 0;
}

/* ---- topological order ------------------------------------------------------------------------- */

/* Append BS to ORDER after everything below it; the list is then read backwards. */
static void postorder(BlockDriverState *bs, GHashTable *seen, GPtrArray *order)
{
    BdrvChild *c;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    QLIST_FOREACH(c, &bs->children, next) {
        postorder(c->bs, seen, order);
    }
    g_ptr_array_add(order, bs);
}

int bdrv__refresh_perms_of_two(BlockDriverState *a, BlockDriverState *b, Transaction *tran,
                               Error **errp)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    int ret = 0;

    GLOBAL_STATE_CODE();
    postorder(a, seen, order);
    if (b) {
        postorder(b, seen, order);
    }
    for (unsigned i = order->len; i-- > 0 && ret == 0; ) {
        ret = refresh_node(g_ptr_array_index(order, i), tran, errp);
    }
    return ret;
}

int bdrv__refresh_perms(BlockDriverState *bs, Transaction *tran, Error **errp)
{
    return bdrv__refresh_perms_of_two(bs, NULL, tran, errp);
}

int bdrv_child_try_set_perm(BdrvChild *c, uint64_t perm, uint64_t shared, Error **errp)
{
    Transaction *tran = tran_new();

    GLOBAL_STATE_CODE();
    bdrv__set_child_perm(c, perm, shared, tran);
    int ret = bdrv__refresh_perms(c->bs, tran, errp);
    tran_finalize(tran, ret);
    return ret;
}

int bdrv_child_refresh_perms(BlockDriverState *bs, BdrvChild *c, Error **errp)
{
    uint64_t perm, shared;

    bdrv__child_perm(bs, c->bs, c, c->role, bs->cum_perm, bs->cum_shared, &perm, &shared);
    return bdrv_child_try_set_perm(c, perm, shared, errp);
}
