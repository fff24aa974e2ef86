/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on what is in the graph: sections, contexts, permissions, options, users. */
#include "graph-fuzz.h"

static void forbid_requests(BlockDriverState *bs)
{
    if (is_ours(bs)) {
        qatomic_set(&fuzz_node(bs)->forbidden, true);
    }
}

/* ---- sections -------------------------------------------------------------------------------- */

void op_section_begin(void)
{
    BlockDriverState *bs = any_node(any_disk());

    if (sections->len < SECTIONS_MAX && !depth) {
        tell("begin section on %s", bs->node_name);
        bdrv_drained_begin(bs);
        forbid_requests(bs);
        take(bs);
        g_ptr_array_add(sections, bs);
    }
    drop(bs);
}

void end_section(unsigned i)
{
    BlockDriverState *bs = g_ptr_array_steal_index_fast(sections, i);

    tell("end section on %s", bs->node_name);
    bdrv_drained_end(bs);
    drop(bs);
}

void op_section_end(void)
{
    if (sections->len && !depth) {
        end_section(below(sections->len));
    }
}

void op_drain(void)
{
    BlockDriverState *bs = any_node(any_disk());

    tell("drain %s", bs->node_name);
    bdrv_drained_begin(bs);
    forbid_requests(bs);
    g_assert_cmpint(qatomic_read(&bs->in_flight), ==, 0);
    bdrv_drained_end(bs);
    drop(bs);
}

void op_drain_all(void)
{
    if (depth || drain_all_sections > 2) {
        return;
    }
    tell("begin drain all");
    bdrv_drain_all_begin();
    drain_all_sections++;
    for (BlockDriverState *bs = bdrv__next_any(NULL); bs; bs = bdrv__next_any(bs)) {
        g_assert_cmpint(qatomic_read(&bs->in_flight), ==, 0);
        forbid_requests(bs);
    }
}

void op_drain_all_end(void)
{
    if (!depth && drain_all_sections) {
        tell("end drain all");
        drain_all_sections--;
        bdrv_drain_all_end();
    }
}

static bool anything_drained(void)
{
    return sections->len || drain_all_sections;
}

/* ---- contexts -------------------------------------------------------------------------------- */

void op_move(void)
{
    BlockDriverState *bs = any_node(any_disk());
    AioContext *from = bdrv_get_aio_context(bs), *to = context[below(CONTEXTS)];
    Error *err = NULL;

    if (!depth) {
        tell("move %s", bs->node_name);
        aio_context_acquire(from);
        int ret = bdrv_try_change_aio_context(bs, to, NULL, &err);
        aio_context_release(from);
        bool moved = done(ret, &err);
        /* a job that has ended meanwhile may have taken it out: it has gone home then */
        g_assert_true(bdrv_get_aio_context(bs) == (moved ? to : from) || !in_a_chain(bs));
    }
    drop(bs);
}

/* ---- permissions and frozen links ------------------------------------------------------------ */

void op_set_perm(void)
{
    Disk *d = any_disk();
    Load *l = d->load[below(LOADS_PER_DISK)];
    uint64_t perm, shared, new_perm, new_shared;
    Error *err = NULL;

    if (!l || depth) {
        return;
    }
    BlockBackend *blk = load_backend(l);
    blk_get_perm(blk, &perm, &shared);
    new_perm = (perm & BLK_PERM_WRITE) | (one_in(4) ? 0 : BLK_PERM_CONSISTENT_READ);
    new_shared = one_in(2) ? BLK_PERM_ALL
                 : one_in(2) ? BLK_PERM_ALL & ~BLK_PERM_RESIZE : BLK_PERM_CONSISTENT_READ;
    tell("backend of %s: needs %x, shares %x", blk_bs(blk) ? blk_bs(blk)->node_name : "-",
         (unsigned)new_perm, (unsigned)new_shared);
    if (!done(blk_set_perm(blk, new_perm, new_shared, &err), &err)) {
        blk_get_perm(blk, &new_perm, &new_shared);
        g_assert_cmphex(new_perm, ==, perm);
        g_assert_cmphex(new_shared, ==, shared);
    }
}

void op_freeze(void)
{
    Disk *d = any_disk();
    BlockDriverState *bs = top_of(d);
    Error *err = NULL;

    if (!depth && !jobs_active() && bdrv_freeze_backing_chain(bs, store_of(d), &err) == 0) {
        BlockDriverState *bs_new = new_node(&fuzz_filter);
        tell("freeze the chain of %s", bs->node_name);
        if (bs != store_of(d)) {
            g_assert_cmpint(bdrv_append(bs_new, store_of(d), &err), <, 0);
            error_free_or_abort(&err);
            g_assert_cmpint(bdrv_drop_intermediate(bs, store_of(d), NULL), ==, -EIO);
        }
        bdrv_unfreeze_backing_chain(bs, store_of(d));
        drop(bs_new);
    }
    error_free(err);
}

/* ---- reopening ------------------------------------------------------------------------------- */

static bool has_writer(Disk *d)
{
    for (int i = 0; i < LOADS_PER_DISK; i++) {
        if (d->load[i] && load_writes(d->load[i])) {
            return true;
        }
    }
    return false;
}

void op_reopen(void)
{
    BlockReopenQueue *q = NULL;
    BlockDriverState *bs[3];
    int flags[3], n = 1 + below(3);
    Error *err = NULL;

    if (depth) {
        return;
    }
    for (int i = 0; i < n; i++) {
        QDict *options = qdict_new();
        bs[i] = any_node(any_disk());
        qdict_put_bool(options, "read-only", one_in(2));
        if (is_ours(bs[i])) {
            fuzz_node(bs[i])->refuse_reopen = one_in(6);
        }
        tell("reopen %s", bs[i]->node_name);
        q = bdrv_reopen_queue(q, bs[i], options, true);
    }
    for (int i = 0; i < n; i++) {
        flags[i] = bs[i]->open_flags;
    }
    bool ok = done(bdrv_reopen_multiple(q, &err), &err);
    for (int i = 0; i < n; i++) {
        g_assert_true(ok || bs[i]->open_flags == flags[i]);
        if (is_ours(bs[i])) {
            fuzz_node(bs[i])->refuse_reopen = false;
        }
        drop(bs[i]);
    }
}

void op_make_writable(void)
{
    Disk *d = any_disk();
    Error *err = NULL;

    if (depth || jobs_active()) {
        return;
    }
    no_surprises();
    for (BlockDriverState *bs = top_of(d); bs; bs = bdrv_filter_or_cow_bs(bs)) {
        done(bdrv_reopen_set_read_only(bs, false, &err), &err);
    }
}

/* ---- backends -------------------------------------------------------------------------------- */

void op_backend(void)
{
    int which = below(LOADS_PER_DISK);
    Disk *d = any_disk();
    Load *l = d->load[which];
    Error *err = NULL;

    no_surprises();
    if (depth || anything_drained()) {
        return;                 /* the workers could not go on */
    }
    if (l) {
        tell("stop a backend");
        d->load[which] = NULL;
        load_stop(l);
        return;
    }
    if (jobs_active()) {
        return;                 /* the top may be another one before we are there */
    }
    bool writes = one_in(2) || !has_writer(d);
    BlockBackend *blk = blk_new(context[below(CONTEXTS)],
                                BLK_PERM_CONSISTENT_READ | (writes ? BLK_PERM_WRITE : 0),
                                one_in(4) ? BLK_PERM_CONSISTENT_READ : BLK_PERM_ALL);
    BlockDriverState *bs = top_of(d);
    tell("new backend on %s", bs->node_name);
    if (done(blk_insert_bs(blk, bs, &err), &err)) {
        d->load[which] = load_start(blk, &d->shadow, which * WORKERS * BLOCKS_PER_WORKER,
                                    writes, one_in(2));
    } else {
        blk_unref(blk);
    }
}

/* The medium of a backend in use goes, and comes again. */
void op_eject(void)
{
    Disk *d = any_disk();
    Load *l = d->load[below(LOADS_PER_DISK)];
    Error *err = NULL;

    no_surprises();
    if (!l || depth) {
        return;
    }
    BlockBackend *blk = load_backend(l);
    tell("%s a medium", blk_bs(blk) ? "eject" : "insert");
    if (blk_bs(blk)) {
        blk_remove_bs(blk);
    } else if (!jobs_active()) {
        done(blk_insert_bs(blk, top_of(d), &err), &err);
    }
}
