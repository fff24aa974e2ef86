/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The order of the nodes.
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
void bdrv__update_height(BlockDriverState *bs)
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
            BlockDriverState *above = bdrv__parent_node(c);
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
            BlockDriverState *above = bdrv__parent_node(c);
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
