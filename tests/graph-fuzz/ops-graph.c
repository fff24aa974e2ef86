/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on the shape of the graph. */
#include "graph-fuzz.h"
#include "miniblk/blockjob.h"

/* An empty overlay or a filter changes nothing of what is seen, wherever it comes. */
void op_append(void)
{
    Disk *d = any_disk();
    Error *err = NULL;

    if (length_of(d) >= CHAIN_MAX) {
        return;
    }
    BlockDriverState *bs = any_node(d);
    /* a job would not know of what is written to an overlay between its nodes */
    bool overlay = one_in(3) && block_job_none_uses(bs, NULL);
    BlockDriverState *bs_new = new_node(overlay ? &fuzz_overlay : &fuzz_filter);
    tell("append %s %s to %s", bs_new->drv->format_name, bs_new->node_name, bs->node_name);
    if (done(bdrv_append(bs_new, bs, &err), &err)) {
        g_hash_table_add(chained, bs_new);
    } else {
        drop(bs_new);
    }
    drop(bs);
}

void op_insert(void)
{
    Error *err = NULL;

    no_surprises();
    Disk *d = any_disk();
    if (length_of(d) >= CHAIN_MAX) {
        return;
    }
    BlockDriverState *bs = any_node(d);
    QDict *options = qdict_new();
    qdict_put_str(options, "driver", "fuzz-insert");
    qdict_put_str(options, "file", bs->node_name);
    tell("insert above %s", bs->node_name);
    BlockDriverState *bs_new = bdrv_insert_node(bs, options, BDRV_O_RDWR, &err);
    if (done(bs_new ? 0 : -1, &err)) {
        hold(bs_new);
        g_hash_table_add(chained, bs_new);
    }
    drop(bs);
}

/* Filters go away without trace, by any of the ways there are. */
void op_drop_filter(void)
{
    int how = below(3), ret;
    Error *err = NULL;

    if (how > 0) {
        no_surprises();
        how = jobs_active() ? 0 : how;
    }
    BlockDriverState *bs = any_node(any_disk());
    if (is_filter(bs)) {
        BlockDriverState *child = bdrv_filter_bs(bs);
        take(child);
        tell("drop filter %s over %s, way %d", bs->node_name, child->node_name, how);
        if (how == 0) {
            ret = bdrv_drop_filter(bs, &err);
        } else if (how == 1) {
            ret = bdrv_replace_node(bs, child, &err);
        } else {
            ret = bdrv_drop_intermediate(bs, child, NULL);
            if (ret < 0) {
                error_setg(&err, "drop intermediate: %s", strerror(-ret));
            }
        }
        done(ret, &err);
        drop(child);
    }
    drop(bs);
}

/* What an overlay has is written into what is below, and then it is taken out. */
void op_commit(void)
{
    no_surprises();
    BlockDriverState *bs = any_node(any_disk());
    /* the data move behind the back of a job */
    if (bs->drv == &fuzz_overlay && !jobs_active()) {
        bdrv_drained_begin(bs);
        BlockDriverState *base = bdrv_cow_bs(bs);
        while (base && is_filter(base)) {
            base = bdrv_filter_bs(base);
        }
        if (base) {
            FuzzNode *from = fuzz_node(bs), *to = fuzz_node(base);
            take(base);
            tell("commit %s into %s", bs->node_name, base->node_name);
            for (int i = 0; i < DISK_BLOCKS; i++) {
                if (from->allocated[i]) {
                    to->data[i] = from->data[i];
                    to->allocated[i] = true;
                }
            }
            int ret = bdrv_drop_intermediate(bs, base, "base");
            refusals += ret < 0;
            g_assert_true(ret < 0 || !in_a_chain(bs));
            drop(base);
        }
        bdrv_drained_end(bs);
    }
    drop(bs);
}

/* ---- nodes aside, and things that are not allowed --------------------------------------------- */

/* A node that uses several disks, and so binds them into one context. */
void op_link(void)
{
    int i = below(LINKS_MAX);
    Error *err = NULL;

    if (depth) {
        return;
    }
    if (link_node[i]) {
        BlockDriverState *bs = link_node[i];
        tell("unlink %s", bs->node_name);
        link_node[i] = NULL;
        if (one_in(2)) {
            bdrv_unref_child(bs, QLIST_FIRST(&bs->children));
        }
        drop(bs);
        return;
    }
    BlockDriverState *bs = new_node(&fuzz_overlay);
    for (int n = 1 + below(3); n > 0; n--) {
        BlockDriverState *child = any_node(any_disk());
        tell("link %s to %s", bs->node_name, child->node_name);
        bdrv_ref(child);
        bool ok = bdrv_attach_child(bs, child, "link", &child_of_bds, BDRV_CHILD_DATA, &err);
        done(ok ? 0 : -1, &err);
        drop(child);
    }
    link_node[i] = bs;
}

void op_scratch(void)
{
    BlockDriverState *a = new_node(&fuzz_overlay), *b = new_node(&fuzz_store);

    tell("scratch nodes %s, %s", a->node_name, b->node_name);
    g_assert_cmpint(bdrv_set_backing_hd(a, b, &error_abort), ==, 0);
    if (one_in(2)) {
        drop(b);
        b = NULL;
    }
    drop(a);
    if (b) {
        drop(b);
    }
}

void op_illegal(void)
{
    BlockDriverState *bs = any_node(any_disk()), *bs_new = new_node(&fuzz_overlay);
    BlockDriverState *lower = bdrv_filter_or_cow_bs(bs);
    Error *err = NULL;

    tell("illegal things with %s", bs->node_name);
    g_assert_null(bdrv_new_open_driver(&fuzz_filter, bs->node_name, 0, &err));
    error_free_or_abort(&err);
    g_assert_cmpint(bdrv_set_backing_hd(bs_new, bs_new, &err), ==, -EINVAL);
    error_free_or_abort(&err);
    if (lower) {
        bdrv_ref(bs);
        g_assert_null(bdrv_attach_child(lower, bs, "loop", &child_of_bds, BDRV_CHILD_DATA,
                                        &err));
        error_free_or_abort(&err);
    }
    if (bs->drv == &fuzz_store) {
        g_assert_cmpint(bdrv_set_backing_hd(bs, bs_new, &err), ==, -EINVAL);
        error_free_or_abort(&err);
    }
    drop(bs_new);
    drop(bs);
}
