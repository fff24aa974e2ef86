/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Moves of nodes between AioContexts.
 *
 * A move takes the whole connected graph or nothing:
 *
 *   1. Walk the graph and ask every parent, collecting a transaction. A refusal aborts it.
 *   2. Quiesce every node found and wait, in one polling loop. Callbacks may have changed
 *      the graph meanwhile, so walk again; nodes that are new are quiesced in another round.
 *   3. The graph is as just walked and everything is at rest: all detach callbacks (old
 *      context), all switches, all attach callbacks (new context). Nothing polls from the
 *      walk on, so nobody sees a graph that is spread over two contexts.
 *   4. Resume.
 */
#include "block/block-internal.h"

struct BdrvAioNotifier {
    void (*attached)(AioContext *new_context, void *opaque);
    void (*detach)(void *opaque);
    void *opaque;
    QLIST_ENTRY(BdrvAioNotifier) list;
};

/* ---- notifiers ------------------------------------------------------------------------------- */

void bdrv_add_aio_context_notifier(BlockDriverState *bs,
        void (*attached_aio_context)(AioContext *new_context, void *opaque),
        void (*detach_aio_context)(void *opaque), void *opaque)
{
    GLOBAL_STATE_CODE();
    BdrvAioNotifier *n = g_new0(BdrvAioNotifier, 1);
    n->attached = attached_aio_context;
    n->detach = detach_aio_context;
    n->opaque = opaque;
    QLIST_INSERT_HEAD(&bs->aio_notifiers, n, list);
}

void bdrv_remove_aio_context_notifier(BlockDriverState *bs,
        void (*attached_aio_context)(AioContext *, void *),
        void (*detach_aio_context)(void *), void *opaque)
{
    BdrvAioNotifier *n;

    GLOBAL_STATE_CODE();
    QLIST_FOREACH(n, &bs->aio_notifiers, list) {
        if (n->attached == attached_aio_context && n->detach == detach_aio_context &&
            n->opaque == opaque) {
            QLIST_REMOVE(n, list);
            g_free(n);
            return;
        }
    }
    g_assert_not_reached();     /* it was never added */
}

/* Notifiers may remove themselves, so the next is looked up before the call. */
static void detach_node(BlockDriverState *bs)
{
    BdrvAioNotifier *n, *next;
    AioContext *old = bs->aio_context;

    aio_context_acquire(old);
    QLIST_FOREACH_SAFE(n, &bs->aio_notifiers, list, next) {
        n->detach(n->opaque);
    }
    if (bs->drv && bs->drv->bdrv_detach_aio_context) {
        bs->drv->bdrv_detach_aio_context(bs);
    }
    aio_context_release(old);
}

static void attach_node(BlockDriverState *bs, AioContext *ctx)
{
    BdrvAioNotifier *n, *next;

    aio_context_acquire(ctx);
    if (bs->drv && bs->drv->bdrv_attach_aio_context) {
        bs->drv->bdrv_attach_aio_context(bs, ctx);
    }
    QLIST_FOREACH_SAFE(n, &bs->aio_notifiers, list, next) {
        n->attached(ctx, n->opaque);
    }
    aio_context_release(ctx);
}

/* ---- the walk -------------------------------------------------------------------------------- */

/*
 * VISITED holds edges and nodes; a node's value is this mark. (Foreign edge classes are
 * handed VISITED and only pass it on.)
 */
static char node_mark;

static bool visit(GHashTable *visited, void *object, void *value)
{
    if (g_hash_table_contains(visited, object)) {
        return false;
    }
    g_hash_table_insert(visited, object, value);
    return true;
}

static bool parent_change_aio_context(BdrvChild *c, AioContext *ctx, GHashTable *visited,
                                      Transaction *tran, Error **errp)
{
    if (!visit(visited, c, NULL)) {
        return true;
    }
    if (!c->klass->change_aio_ctx) {
        g_autofree char *user = bdrv_child_user_desc(c);
        error_setg(errp, "Changing iothreads is not supported by %s", user);
        return false;
    }
    return c->klass->change_aio_ctx(c, ctx, visited, tran, errp);
}

bool bdrv_child_change_aio_context(BdrvChild *c, AioContext *ctx, GHashTable *visited,
                                   Transaction *tran, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (!visit(visited, c, NULL)) {
        return true;
    }
    return bdrv_change_aio_context(c->bs, ctx, visited, tran, errp);
}

bool bdrv_change_aio_context(BlockDriverState *bs, AioContext *ctx, GHashTable *visited,
                             Transaction *tran, Error **errp)
{
    BdrvChild *c;

    GLOBAL_STATE_CODE();
    if (bs->aio_context == ctx || !visit(visited, bs, &node_mark)) {
        return true;
    }
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (!parent_change_aio_context(c, ctx, visited, tran, errp)) {
            return false;
        }
    }
    QLIST_FOREACH(c, &bs->children, next) {
        if (!bdrv_child_change_aio_context(c, ctx, visited, tran, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- the move -------------------------------------------------------------------------------- */

typedef struct Move {
    BlockDriverState *bs;
    AioContext *ctx;
    BdrvChild *ignore_child;
    GPtrArray *quiesced;        /* nodes we hold a reference and a drain level on */
    GHashTable *is_quiesced;    /* the same as a set */
    GHashTable *visited;        /* of the last walk */
    GPtrArray *nodes;           /* its nodes, in the order in which they were made */
    Transaction *tran;          /* of the last walk */
} Move;

static int compare_serials(gconstpointer a, gconstpointer b)
{
    const BlockDriverState *x = *(BlockDriverState *const *)a;
    const BlockDriverState *y = *(BlockDriverState *const *)b;
    return x->serial < y->serial ? -1 : x->serial > y->serial;
}

/* Callbacks are called in the same order whenever the same thing is done. */
static void sort_nodes(Move *m)
{
    GHashTableIter iter;
    void *object, *value;

    m->nodes = g_ptr_array_new();
    g_hash_table_iter_init(&iter, m->visited);
    while (g_hash_table_iter_next(&iter, &object, &value)) {
        if (value == &node_mark) {
            g_ptr_array_add(m->nodes, object);
        }
    }
    g_ptr_array_sort(m->nodes, compare_serials);
}

static bool walk(Move *m, Error **errp)
{
    m->visited = g_hash_table_new(NULL, NULL);
    m->tran = tran_new();
    if (m->ignore_child) {
        g_hash_table_insert(m->visited, m->ignore_child, NULL);
    }
    bool ok = bdrv_change_aio_context(m->bs, m->ctx, m->visited, m->tran, errp);
    sort_nodes(m);
    return ok;
}

static void free_walk(Move *m)
{
    g_hash_table_destroy(m->visited);
    g_ptr_array_free(m->nodes, true);
}

static void forget_walk(Move *m)
{
    tran_abort(m->tran);
    free_walk(m);
}

/* Quiesce the nodes of the last walk that are not yet; false if there was none. */
static bool quiesce_found(Move *m)
{
    unsigned before = m->quiesced->len;

    for (unsigned i = 0; i < m->nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(m->nodes, i);
        if (g_hash_table_add(m->is_quiesced, bs)) {
            bdrv_ref(bs);
            g_ptr_array_add(m->quiesced, bs);
        }
    }
    for (unsigned i = before; i < m->quiesced->len; i++) {
        bdrv__quiesce(g_ptr_array_index(m->quiesced, i));
    }
    return m->quiesced->len > before;
}

static void resume_all(Move *m)
{
    for (unsigned i = 0; i < m->quiesced->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(m->quiesced, i);
        bdrv__unquiesce(bs);
        bdrv_unref(bs);
    }
    g_ptr_array_free(m->quiesced, true);
    g_hash_table_destroy(m->is_quiesced);
}

static void switch_all(Move *m)
{
    for (unsigned i = 0; i < m->nodes->len; i++) {
        detach_node(g_ptr_array_index(m->nodes, i));
    }
    for (unsigned i = 0; i < m->nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(m->nodes, i);
        qatomic_set(&bs->aio_context, m->ctx);
        port_note(PORT_NOTE_MOVE, bs, NULL);
    }
    tran_commit(m->tran);       /* the parents that are not nodes */
    for (unsigned i = 0; i < m->nodes->len; i++) {
        attach_node(g_ptr_array_index(m->nodes, i), m->ctx);
    }
    free_walk(m);
}

int bdrv_try_change_aio_context(BlockDriverState *bs, AioContext *ctx,
                                BdrvChild *ignore_child, Error **errp)
{
    AioContext *old = bs->aio_context;

    GLOBAL_STATE_CODE();
    if (old == ctx) {
        return 0;
    }
    Move m = { .bs = bs, .ctx = ctx, .ignore_child = ignore_child,
               .quiesced = g_ptr_array_new(), .is_quiesced = g_hash_table_new(NULL, NULL) };
    bool ok = walk(&m, errp);
    while (ok && quiesce_found(&m)) {
        forget_walk(&m);
        AIO_WAIT_WHILE(old, bdrv__any_in_flight(m.quiesced, m.is_quiesced));
        ok = walk(&m, errp);
    }
    if (ok) {
        switch_all(&m);
    } else {
        forget_walk(&m);
    }
    resume_all(&m);
    return ok ? 0 : -EPERM;
}

void bdrv_set_aio_context(BlockDriverState *bs, AioContext *ctx)
{
    bdrv_try_change_aio_context(bs, ctx, NULL, &error_abort);
}

void bdrv_coroutine_enter(BlockDriverState *bs, Coroutine *co)
{
    aio_co_enter(bdrv_get_aio_context(bs), co);
}
