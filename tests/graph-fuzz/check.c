/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The oracles: what the graph says about itself against what it is. */
#include "graph-fuzz.h"

static int count_of(GHashTable *table, BlockDriverState *bs)
{
    return GPOINTER_TO_INT(g_hash_table_lookup(table, bs));
}

/* Every edge is in the two lists it belongs to, and the nodes' fields point to one of them. */
static void check_lists(BlockDriverState *bs)
{
    bool file = !bs->file, backing = !bs->backing;
    unsigned height = 0;
    BdrvChild *c, *p;

    QLIST_FOREACH(c, &bs->children, next) {
        bool found = false;
        g_assert_true(c->opaque == bs && c->bs);
        QLIST_FOREACH(p, &c->bs->parents, next_parent) {
            found |= p == c;
        }
        g_assert_true(found);
        file |= c == bs->file;
        backing |= c == bs->backing;
        height = MAX(height, c->bs->height + 1);
    }
    g_assert_true(file && backing);
    g_assert_cmpuint(bs->height, ==, height);
    QLIST_FOREACH(p, &bs->parents, next_parent) {
        g_assert_true(p->bs == bs);
    }
}

static void check_perms(BlockDriverState *bs)
{
    uint64_t perm = 0, shared = BLK_PERM_ALL, nperm, nshared;
    BdrvChild *c, *other;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        perm |= c->perm;
        shared &= c->shared_perm;
        QLIST_FOREACH(other, &bs->parents, next_parent) {
            g_assert_true(c == other || !(c->perm & ~other->shared_perm));
        }
    }
    g_assert_cmphex(bs->cum_perm, ==, perm);
    g_assert_cmphex(bs->cum_shared, ==, shared);
    g_assert_true(bdrv_is_writable(bs) ||
                  !(perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)));
    QLIST_FOREACH(c, &bs->children, next) {
        bdrv__child_perm(bs, c->bs, c, c->role, NULL, perm, shared, &nperm, &nshared);
        g_assert_cmphex(c->perm, ==, nperm);
        g_assert_cmphex(c->shared_perm, ==, nshared);
    }
}

static void check_context(BlockDriverState *bs)
{
    AioContext *ctx = bdrv_get_aio_context(bs);
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        g_assert_true(bdrv_get_aio_context(c->bs) == ctx);
    }
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        g_assert_true(c->klass->get_parent_aio_context(c) == ctx);
    }
}

static void check_levels(BlockDriverState *bs, int own_sections)
{
    int levels = own_sections;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        levels += c->quiesced_parent;
    }
    g_assert_cmpint(bs->quiesce_counter, ==, levels);
    g_assert_true(!is_ours(bs) || fuzz_node(bs)->drained == (levels > 0));
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        g_assert_cmpint(c->quiesced_parent, ==, levels > 0);
    }
    if (levels) {
        g_assert_cmpint(qatomic_read(&bs->in_flight), ==, 0);
        g_assert_true(!is_ours(bs) || qatomic_read(&fuzz_node(bs)->requests) == 0);
    }
}

static void check_references(BlockDriverState *bs, int held)
{
    int references = held;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        references++;
    }
    /* jobs have references of their own */
    g_assert_true(bs->refcnt == references || (bs->refcnt > references && jobs_active()));
}

void check_graph(GHashTable *sections, int drain_all_sections, GHashTable *held)
{
    for (BlockDriverState *bs = bdrv__next_any(NULL); bs; bs = bdrv__next_any(bs)) {
        check_lists(bs);
        check_perms(bs);
        check_context(bs);
        if (sections) {
            check_levels(bs, count_of(sections, bs) + drain_all_sections);
            check_references(bs, count_of(held, bs));
        }
    }
}
