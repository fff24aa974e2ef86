/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Permissions: what each parent needs of a node and what it lets others have.
 *
 * They are recomputed from a node downwards in topological order (every parent before its
 * children), so that each node is looked at once, when all its parents are final; where an
 * edge comes out as it was, there is nothing to do below it.
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
    if ((shared & BLK_PERM_WRITE) || (bs->open_flags & BDRV_O_INACTIVE)) {
        *nshared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
    }
}

static void image_perms(BlockDriverState *bs, BdrvChildRole role, uint64_t perm,
                        uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = perm & PERM_ALL_DATA;
    *nshared = shared;
    if (role & BDRV_CHILD_METADATA) {
        /* Metadata changes without a user's request, and nobody else may change it. */
        if (bdrv_is_writable(bs)) {
            *nperm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        if (!(bs->open_flags & BDRV_O_NO_IO)) {
            *nperm |= BLK_PERM_CONSISTENT_READ;
        }
        *nshared &= ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
    }
    if (role & BDRV_CHILD_DATA) {
        /* Writing allocates, and that is never without change; its length is ours to know. */
        if (*nperm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
            *nperm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        *nshared &= ~BLK_PERM_RESIZE;
    }
    if (bs->open_flags & BDRV_O_INACTIVE) {
        /* whoever the image has been handed to may do as they like */
        *nshared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
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
                      BdrvChildRole role, BlockReopenQueue *q, uint64_t parent_perm,
                      uint64_t parent_shared, uint64_t *nperm, uint64_t *nshared)
{
    if (bs->drv && bs->drv->bdrv_child_perm) {
        bs->drv->bdrv_child_perm(bs, c, role, q, parent_perm, parent_shared, nperm, nshared);
    } else {
        bdrv_default_perms(bs, c, role, q, parent_perm, parent_shared, nperm, nshared);
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

/* Name two parents that are in each other's way. */
static void report_conflict(BlockDriverState *bs, Error **errp)
{
    BdrvChild *a, *b;

    QLIST_FOREACH(a, &bs->parents, next_parent) {
        QLIST_FOREACH(b, &bs->parents, next_parent) {
            if (a != b && !compatible(a, b, errp)) {
                return;
            }
        }
    }
    g_assert_not_reached();
}

static bool parents_compatible(BlockDriverState *bs, Error **errp)
{
    uint64_t needed = 0, shared = BLK_PERM_ALL;
    BdrvChild *c;

    /* Each against all before it, both ways. A parent may deny to others what it needs. */
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if ((c->perm & ~shared) || (needed & ~c->shared_perm)) {
            report_conflict(bs, errp);
            return false;
        }
        needed |= c->perm;
        shared &= c->shared_perm;
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
    qatomic_set(&s->c->perm, s->old_perm);
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
    qatomic_set(&c->perm, perm);      /* requests in flight look at it */
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

static int set_node_perm(BlockDriverState *bs, BlockReopenQueue *q, Transaction *tran,
                         Error **errp)
{
    uint64_t perm = 0, shared = BLK_PERM_ALL;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        perm |= c->perm;
        shared &= c->shared_perm;
    }
    if ((perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) && !bdrv_is_writable(bs)) {
        if (q) {
            error_setg(errp, "Read-only block node '%s' cannot support read-write users",
                       bs->node_name);
        } else {
            error_setg(errp, "Block node is read-only");
        }
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

/* ---- downwards, in topological order ------------------------------------------------------------ */

/*
 * The nodes yet to be looked at, the highest first: what is taken out has no
 * parent that is still in it or could come into it, so its edges from above are final.
 */
typedef struct Refresh {
    GSequence *todo;
    GHashTable *seen;           /* all that have ever been in it */
    bool whole;                 /* also below edges that have not changed */
    BlockReopenQueue *q;
    Transaction *tran;
} Refresh;

static int compare_heights(gconstpointer a, gconstpointer b, gpointer opaque)
{
    const BlockDriverState *x = a, *y = b;
    return x->height > y->height ? -1 : x->height < y->height;
}

static void refresh_later(Refresh *r, BlockDriverState *bs)
{
    if (bs && g_hash_table_add(r->seen, bs)) {
        g_sequence_insert_sorted(r->todo, bs, compare_heights, NULL);
    }
}

static int refresh_node(Refresh *r, BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    if (!parents_compatible(bs, errp)) {
        return -EPERM;
    }
    int ret = set_node_perm(bs, r->q, r->tran, errp);
    if (ret < 0) {
        return ret;
    }
    QLIST_FOREACH(c, &bs->children, next) {
        uint64_t perm, shared;
        bdrv__child_perm(bs, c->bs, c, c->role, r->q, bs->cum_perm, bs->cum_shared, &perm,
                         &shared);
        if (c->perm != perm || c->shared_perm != shared) {
            bdrv__set_child_perm(c, perm, shared, r->tran);
            refresh_later(r, c->bs);
        } else if (r->whole) {
            refresh_later(r, c->bs);
        }
    }
    return 0;
}

static int refresh(Refresh *r, Error **errp)
{
    int ret = 0;

    while (ret == 0 && !g_sequence_is_empty(r->todo)) {
        GSequenceIter *first = g_sequence_get_begin_iter(r->todo);
        BlockDriverState *bs = g_sequence_get(first);
        g_sequence_remove(first);
        ret = refresh_node(r, bs, errp);
    }
    g_sequence_free(r->todo);
    g_hash_table_destroy(r->seen);
    return ret;
}

static Refresh refresh_new(bool whole, BlockReopenQueue *q, Transaction *tran)
{
    GLOBAL_STATE_CODE();
    return (Refresh) { g_sequence_new(NULL), g_hash_table_new(NULL, NULL), whole, q, tran };
}

int bdrv__refresh_perms(BlockDriverState *a, BlockDriverState *b, Transaction *tran,
                        Error **errp)
{
    Refresh r = refresh_new(false, NULL, tran);

    refresh_later(&r, a);
    refresh_later(&r, b);
    return refresh(&r, errp);
}

int bdrv__refresh_perms_of_all(GPtrArray *nodes, BlockReopenQueue *q, Transaction *tran,
                               Error **errp)
{
    Refresh r = refresh_new(false, q, tran);

    for (unsigned i = 0; i < nodes->len; i++) {
        refresh_later(&r, g_ptr_array_index(nodes, i));
    }
    return refresh(&r, errp);
}

static int try_set_perm(BdrvChild *c, uint64_t perm, uint64_t shared, bool whole,
                        Error **errp)
{
    Transaction *tran = tran_new();
    Refresh r = refresh_new(whole, NULL, tran);

    bdrv__set_child_perm(c, perm, shared, tran);
    refresh_later(&r, c->bs);
    int ret = refresh(&r, errp);
    tran_finalize(tran, ret);
    return ret;
}

int bdrv_child_try_set_perm(BdrvChild *c, uint64_t perm, uint64_t shared, Error **errp)
{
    GLOBAL_STATE_CODE();
    return try_set_perm(c, perm, shared, false, errp);
}

int bdrv_child_refresh_perms(BlockDriverState *bs, BdrvChild *c, Error **errp)
{
    uint64_t perm, shared;

    GLOBAL_STATE_CODE();
    bdrv__child_perm(bs, c->bs, c, c->role, NULL, bs->cum_perm, bs->cum_shared, &perm,
                     &shared);
    /* a driver calls this when its wishes have changed, here or further down */
    return try_set_perm(c, perm, shared, true, errp);
}
