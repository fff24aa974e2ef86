/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edges: the steps that change them, and attaching and detaching one.
 *
 * A change has two parts. First all that polls: bring nodes into one context, let parents come
 * to rest, wait for readers of the graph. Then, holding the graph lock, the change itself: look
 * up, edit, recompute permissions, as steps of one transaction, and commit or roll back. The
 * second part does not poll, so that nobody sees half of it. Parents that need not rest any
 * more are released when the outcome is certain.
 *
 * Each node knows its HEIGHT, the length of the longest way down. It orders the nodes, that of
 * a parent being above those of its children, and so neither looking for a cycle nor
 * recomputing permissions (perm.c) has to walk through the whole of a deep graph. It is also
 * what keeps graphs from becoming too deep for a request, which goes down on one stack.
 */
#include "block/block-internal.h"

/*
 * How many nodes a way down may have. A level takes some hundred bytes of a coroutine's stack.
 */
enum { DEPTH_MAX = 2000 };

/* ---- order ------------------------------------------------------------------------------------- */

static BlockDriverState *parent_node(BdrvChild *c)
{
    return c->klass->parent_is_bds ? c->opaque : NULL;
}

static unsigned height_of(BlockDriverState *bs)
{
    unsigned height = 0;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        /* an edge that is being changed may point nowhere for a moment */
        if (c->bs) {
            height = MAX(height, c->bs->height + 1);
        }
    }
    return height;
}

/* The children of BS have changed: so may its height, and those of the nodes above. */
static void update_height(BlockDriverState *bs)
{
    BdrvChild *c;

    if (height_of(bs) == bs->height) {
        return;
    }
    g_autoptr(GHashTable) waiting = g_hash_table_new(NULL, NULL);
    GQueue todo = G_QUEUE_INIT;
    g_queue_push_tail(&todo, bs);
    while ((bs = g_queue_pop_head(&todo))) {
        unsigned height = height_of(bs);
        g_hash_table_remove(waiting, bs);
        if (height == bs->height) {
            continue;
        }
        bs->height = height;
        QLIST_FOREACH(c, &bs->parents, next_parent) {
            BlockDriverState *above = parent_node(c);
            if (above && g_hash_table_add(waiting, above)) {
                g_queue_push_tail(&todo, above);
            }
        }
    }
}

/*
 * Walk up from BS. True if WANTED is there, or, without WANTED, a node that is too high. Nodes
 * that are not below LIMIT are not looked beyond.
 */
static bool find_above(BlockDriverState *bs, BlockDriverState *wanted, unsigned limit)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) todo = g_ptr_array_new();
    BdrvChild *c;

    g_ptr_array_add(todo, bs);
    while (todo->len) {
        bs = g_ptr_array_steal_index_fast(todo, todo->len - 1);
        if (wanted ? bs == wanted : bs->height >= limit) {
            return true;
        }
        QLIST_FOREACH(c, &bs->parents, next_parent) {
            BlockDriverState *above = parent_node(c);
            if (above && above->height <= limit && g_hash_table_add(seen, above)) {
                g_ptr_array_add(todo, above);
            }
        }
    }
    return false;
}

bool bdrv__would_cycle(BlockDriverState *parent, BlockDriverState *child)
{
    return parent == child ||
           (parent->height < child->height && find_above(parent, child, child->height));
}

int bdrv__check_depth(BlockDriverState *bs, Error **errp)
{
    if (find_above(bs, NULL, DEPTH_MAX)) {
        error_setg(errp, "The graph would be more than %d nodes deep at node '%s'", DEPTH_MAX,
                   bs->node_name);
        return -ELOOP;
    }
    return 0;
}

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
    BlockDriverState *parent = parent_node(child);

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
        update_height(parent);
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

static void unref_edge(BdrvChild *child)
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
    unref_edge(child);
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
    BlockDriverState *parent = parent_node(c);
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
    BlockDriverState *parent = parent_node(c);

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

/* ---- what comes before: all that polls ---------------------------------------------------------- */

/*
 * Bring CHILD_BS and the parent of CHILD into one context: to the parent's or, if somebody
 * holds the child where it is, to the child's. A node that nobody uses yet goes to its child.
 */
static int same_context(BdrvChild *child, BlockDriverState *child_bs, Error **errp)
{
    BlockDriverState *parent = parent_node(child);

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
           (!parent_node(edge) && child_bs->aio_context != qemu_get_aio_context());
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
            if (!parent_node(c)) {
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
    unref_edge(child);
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
