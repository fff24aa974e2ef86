/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edges: the steps that change them.
 *
 * A change has two parts. First all that polls: bring nodes into one context, let parents come
 * to rest, wait for readers of the graph. Then, holding the graph lock, the change itself: look
 * up, edit, recompute permissions, as steps of one transaction, and commit or roll back. The
 * second part does not poll, so that nobody sees half of it. Parents that need not rest any
 * more are released when the outcome is certain.
 *
 * Here are the steps of the second part; attach.c does all of it for a single edge, replace.c
 * for several.
 */
#include "block/block-internal.h"

/* ---- primitives -------------------------------------------------------------------------------- */

/*
 * Put CHILD into a list, where LINK, a pointer in the list, points to it from now on. A step
 * that is undone finds the lists as it left them, so that LINK is where CHILD was before.
 */
#define INSERT_AT(link, child, field) do {                                      \
        (child)->field.le_next = *(link);                                       \
        (child)->field.le_prev = (link);                                        \
        if (*(link)) {                                                          \
            (*(link))->field.le_prev = &(child)->field.le_next;                 \
        }                                                                       \
        *(link) = (child); } while (0)

/*
 * Point CHILD at NEW_BS (may be NULL), at LINK of its parents (NULL: the head). A parent is at
 * rest before it gets a child that is drained; one that could go on is not released here, see
 * bdrv__settle_parents().
 */
static void repoint(BdrvChild *child, BlockDriverState *new_bs, BdrvChild **link)
{
    BlockDriverState *parent = bdrv__parent_node(child);

    assert_bdrv_graph_writable();
    if (new_bs && new_bs->quiesce_counter > 0 && !child->quiesced_parent) {
        bdrv__parent_drained_begin(child);
    }
    if (child->bs) {
        if (child->klass->detach) {
            child->klass->detach(child);
        }
        QLIST_REMOVE(child, next_parent);
    }
    child->bs = new_bs;
    if (new_bs) {
        link = link ? link : &new_bs->parents.lh_first;
        INSERT_AT(link, child, next_parent);
        if (child->klass->attach) {
            child->klass->attach(child);
        }
    }
    if (parent) {
        bdrv__update_height(parent);
    }
}

static BdrvChild *parent_to_release(BlockDriverState *bs)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (c->quiesced_parent) {
            return c;
        }
    }
    return NULL;
}

void bdrv__settle_parents(BlockDriverState *bs)
{
    BdrvChild *c;

    /* A released parent may change the graph at once: look again each time. */
    while (bs->quiesce_counter == 0 && (c = parent_to_release(bs))) {
        bdrv__parent_drained_end(c);
    }
}

BdrvChild *bdrv__new_edge(const char *name, const BdrvChildClass *klass, BdrvChildRole role,
                          uint64_t perm, uint64_t shared, void *opaque)
{
    BdrvChild *child = g_new0(BdrvChild, 1);
    *child = (BdrvChild) { .name = g_strdup(name), .klass = klass, .role = role,
                           .perm = perm, .shared_perm = shared, .opaque = opaque,
                           .refcnt = 1 };
    return child;
}

void bdrv__unref_edge(BdrvChild *child)
{
    if (--child->refcnt == 0) {
        g_free(child->name);
        g_free(child);
    }
}

void bdrv__free_edge(BdrvChild *child)
{
    g_assert(!child->bs);
    if (child->quiesced_parent) {
        bdrv__parent_drained_end(child);
    }
    bdrv__unref_edge(child);
}

/* The field of the parent that an edge of this role is kept in; NULL if in none. */
static BdrvChild **role_field(BdrvChild *c)
{
    BlockDriverState *parent = c->opaque;

    if (c->role & BDRV_CHILD_COW) {
        return &parent->backing;
    }
    if (c->role & BDRV_CHILD_FILTERED) {
        return parent->drv && parent->drv->filtered_child_is_backing ? &parent->backing
                                                                     : &parent->file;
    }
    return c->role & BDRV_CHILD_PRIMARY ? &parent->file : NULL;
}

/* At LINK of the parent's children; NULL: the head. */
static void enter_parent(BdrvChild *c, BdrvChild **link)
{
    BlockDriverState *parent = bdrv__parent_node(c);
    BdrvChild **field;

    if (!parent) {
        return;
    }
    link = link ? link : &parent->children.lh_first;
    INSERT_AT(link, c, next);
    field = role_field(c);
    if (field && !*field) {
        *field = c;
    }
}

static void leave_parent(BdrvChild *c)
{
    BlockDriverState *parent = bdrv__parent_node(c);

    if (!parent) {
        return;
    }
    QLIST_REMOVE(c, next);
    if (parent->file == c) {
        parent->file = NULL;
    }
    if (parent->backing == c) {
        parent->backing = NULL;
    }
}

/* ---- steps of a transaction -------------------------------------------------------------------- */

/* Give up a reference that is not the last: a step must not poll, and closing a node does. */
static void drop_reference(BlockDriverState *bs)
{
    g_assert(bs->refcnt > 1);
    bs->refcnt--;
}

static void attach_abort(void *opaque)
{
    BdrvChild *child = opaque;
    BlockDriverState *bs = child->bs;

    repoint(child, NULL, NULL);
    leave_parent(child);
    drop_reference(bs);
}

static const TransactionActionDrv attach_drv = { .abort = attach_abort };

void bdrv__attach_edge(BdrvChild *child, BlockDriverState *child_bs, Transaction *tran)
{
    bdrv_ref(child_bs);
    enter_parent(child, NULL);
    repoint(child, child_bs, NULL);
    tran_add(tran, &attach_drv, child);
}

typedef struct EdgeStep {
    BdrvChild *child;
    BlockDriverState *old_bs;
    BdrvChild **children_link;  /* where in the lists it has to go back to */
    BdrvChild **parents_link;
} EdgeStep;

static void detach_commit(void *opaque)
{
    EdgeStep *s = opaque;

    drop_reference(s->old_bs);
    bdrv__free_edge(s->child);
}

static void detach_abort(void *opaque)
{
    EdgeStep *s = opaque;

    enter_parent(s->child, s->children_link);
    repoint(s->child, s->old_bs, s->parents_link);
}

static const TransactionActionDrv detach_drv = {
    .commit = detach_commit,
    .abort = detach_abort,
    .clean = g_free,
};

void bdrv__detach_edge(BdrvChild *child, Transaction *tran)
{
    EdgeStep *s = g_new(EdgeStep, 1);

    *s = (EdgeStep) { child, child->bs, child->next.le_prev, child->next_parent.le_prev };
    tran_add(tran, &detach_drv, s);
    repoint(child, NULL, NULL);
    leave_parent(child);
}

static void move_commit(void *opaque)
{
    EdgeStep *s = opaque;
    drop_reference(s->old_bs);
}

static void move_abort(void *opaque)
{
    EdgeStep *s = opaque;
    BlockDriverState *new_bs = s->child->bs;

    repoint(s->child, s->old_bs, s->parents_link);
    drop_reference(new_bs);
}

static const TransactionActionDrv move_drv = {
    .commit = move_commit,
    .abort = move_abort,
    .clean = g_free,
};

void bdrv__move_edge(BdrvChild *child, BlockDriverState *new_bs, Transaction *tran)
{
    EdgeStep *s = g_new(EdgeStep, 1);

    *s = (EdgeStep) { child, child->bs, NULL, child->next_parent.le_prev };
    tran_add(tran, &move_drv, s);
    bdrv_ref(new_bs);
    repoint(child, new_bs, NULL);
}
