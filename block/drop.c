/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Taking nodes out of the middle of a chain, with the names that parents have written down. */
#include "block/block-internal.h"

/* ---- resting, all the way down ------------------------------------------------------------------ */

/* A drained section of a node and all that is below it. */
typedef struct Subtree {
    GPtrArray *nodes;           /* with a reference and a level on each */
    GHashTable *set;
} Subtree;

static void subtree_add(Subtree *t, BlockDriverState *bs)
{
    if (g_hash_table_add(t->set, bs)) {
        bdrv_ref(bs);
        g_ptr_array_add(t->nodes, bs);
        bdrv__quiesce(bs);
    }
}

static void subtree_drained_begin(Subtree *t, BlockDriverState *bs)
{
    unsigned before;

    *t = (Subtree) { g_ptr_array_new(), g_hash_table_new(NULL, NULL) };
    subtree_add(t, bs);
    do {
        /* while we wait nodes may come in below others */
        before = t->nodes->len;
        for (unsigned i = 0; i < t->nodes->len; i++) {
            BlockDriverState *above = g_ptr_array_index(t->nodes, i);
            BdrvChild *c;
            QLIST_FOREACH(c, &above->children, next) {
                subtree_add(t, c->bs);
            }
        }
        AIO_WAIT_WHILE(bs->aio_context, bdrv__any_in_flight(t->nodes, t->set));
    } while (t->nodes->len > before);
}

static void subtree_drained_end(Subtree *t)
{
    for (unsigned i = 0; i < t->nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(t->nodes, i);
        bdrv__unquiesce(bs);
        bdrv_unref(bs);
    }
    g_ptr_array_free(t->nodes, true);
    g_hash_table_destroy(t->set);
}

/* ---- names -------------------------------------------------------------------------------------- */

/* A parent of the dropped nodes that has been told, and what it had written down before. */
typedef struct Told {
    BdrvChild *edge;
    char *backing_file;         /* NULL: the parent is no node */
} Told;

static void told_clear(gpointer opaque)
{
    g_free(((Told *)opaque)->backing_file);
}

static bool was_told(GArray *told, BdrvChild *edge)
{
    for (unsigned i = 0; i < told->len; i++) {
        if (g_array_index(told, Told, i).edge == edge) {
            return true;
        }
    }
    return false;
}

static BdrvChild *parent_to_tell(BlockDriverState *top, GArray *told)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &top->parents, next_parent) {
        if (c->klass->update_filename && !was_told(told, c)) {
            return c;
        }
    }
    return NULL;
}

/*
 * Have all parents of TOP write down that BASE, called FILENAME, is what is below them now.
 * They may poll, so we look at the list anew after each.
 */
static int tell_parents(BlockDriverState *top, BlockDriverState *base, const char *filename,
                        GArray *told, Error **errp)
{
    BdrvChild *c;

    while ((c = parent_to_tell(top, told))) {
        BlockDriverState *parent = c->klass->parent_is_bds ? c->opaque : NULL;
        Told t = { c, parent ? g_strdup(parent->backing_file) : NULL };
        int ret = c->klass->update_filename(c, base, filename, errp);
        if (ret < 0) {
            told_clear(&t);
            return ret;
        }
        g_array_append_val(told, t);
    }
    return 0;
}

/* TOP stays: let the parents write down again what they had. */
static void untell_parents(BlockDriverState *top, GArray *told)
{
    BdrvChild *c, *next;

    QLIST_FOREACH_SAFE(c, &top->parents, next_parent, next) {
        for (unsigned i = 0; i < told->len; i++) {
            Told *t = &g_array_index(told, Told, i);
            if (t->edge == c && t->backing_file) {
                c->klass->update_filename(c, top, t->backing_file, NULL);
            }
        }
    }
}

/* ---- the drop ----------------------------------------------------------------------------------- */

static int drop_drained(BlockDriverState *top, BlockDriverState *base, const char *filename,
                        Error **errp)
{
    if (!top->drv || !base->drv || !bdrv__last_link(top, base) ||
        bdrv_is_backing_chain_frozen(top, base, NULL)) {
        return -EIO;
    }
    bdrv_refresh_filename(base);
    /* a copy: parents may be reopened for it, and with them what they were opened with */
    g_autofree char *name = g_strdup(filename ? filename : base->filename);
    g_autoptr(GArray) told = g_array_new(false, false, sizeof(Told));
    g_array_set_clear_func(told, told_clear);
    int ret = tell_parents(top, base, name, told, errp);
    if (ret == 0) {
        bdrv_graph_wrlock();
        ret = bdrv__replace_drained(top, base, true, false, errp);
        bdrv_graph_wrunlock();
        bdrv__settle_parents(base);
    }
    if (ret < 0) {
        untell_parents(top, told);
    }
    return ret;
}

int bdrv_drop_intermediate(BlockDriverState *top, BlockDriverState *base,
                           const char *backing_file_str)
{
    Error *local_err = NULL;
    Subtree subtree;

    GLOBAL_STATE_CODE();
    bdrv_ref(top);
    bdrv_ref(base);
    subtree_drained_begin(&subtree, top);
    int ret = drop_drained(top, base, backing_file_str, &local_err);
    if (local_err) {
        error_report_err(local_err);
    }
    subtree_drained_end(&subtree);
    bdrv__go_home(top);
    bdrv_unref(base);
    bdrv_unref(top);
    return ret;
}
