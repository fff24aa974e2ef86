/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What happens to the graph while somebody who changes or walks it waits. */
#include "drain-driver.h"
#include "miniblk/coroutine.h"
#include "miniblk/graph-lock.h"
#include "miniblk/job.h"
#include "tests/unit/trap.h"

static IOThread *io;
static AioContext *io_ctx;

static BdrvChild *attach(BlockDriverState *parent, BlockDriverState *child, const char *name)
{
    bdrv_ref(child);
    return bdrv_attach_child(parent, child, name, &child_of_bds, BDRV_CHILD_DATA,
                             &error_abort);
}

/* ---- two take out the same edge --------------------------------------------------------- */

/*
 *      main: take out the edge
 *            drain the parent: waits for a token
 *                              callback: drops the token, takes out the edge
 *            finds it gone
 */
typedef struct Rival {
    BlockDriverState *parent;
    BdrvChild *edge;
} Rival;

static void take_out_bh(void *opaque)
{
    Rival *r = opaque;

    bdrv_dec_in_flight(r->parent);
    bdrv_unref_child(r->parent, r->edge);
}

static void test_an_edge_is_taken_out_twice(void)
{
    BlockDriverState *parent = test_node("parent"), *child = test_node("child");
    BlockBackend *blk = test_backend(parent);
    Rival r = { parent, attach(parent, child, "c") };

    test_move(parent, io_ctx);
    bdrv_inc_in_flight(parent);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), take_out_bh, &r);
    aio_context_acquire(io_ctx);
    bdrv_unref_child(parent, r.edge);
    aio_context_release(io_ctx);
    g_assert_true(QLIST_EMPTY(&parent->children) && QLIST_EMPTY(&child->parents));
    g_assert_cmpint(child->refcnt, ==, 1);
    g_assert_cmpint(parent->quiesce_counter, ==, 0);
    g_assert_true(bdrv_get_aio_context(child) == qemu_get_aio_context());
    test_move(parent, qemu_get_aio_context());
    blk_unref(blk);
    bdrv_unref(child);
    bdrv_unref(parent);
}

/* ---- children go away under a flush ------------------------------------------------------ */

/*
 *      flush: child 0 ... yields
 *                              main: takes out all children
 *             child 1, if it was to be flushed when the flush began
 */
enum { CHILDREN = 3 };
static int flushes;

static int coroutine_fn slow_flush(BlockDriverState *bs)
{
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
    flushes++;
    return 0;
}

static int coroutine_fn no_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return 0;
}

static BlockDriver bdrv_slow_flush = {
    .format_name = "test-slow-flush",
    .instance_size = sizeof(TestNode),
    .bdrv_co_pwritev = no_pwritev,
    .bdrv_co_flush_to_disk = slow_flush,
};

typedef struct Flush {
    BlockDriverState *bs;
    BlockBackend *blk;
    bool done;
} Flush;

static void coroutine_fn write_and_flush_entry(void *opaque)
{
    Flush *f = opaque;
    BdrvChild *c;
    char buf[512] = "";

    QLIST_FOREACH(c, &f->bs->children, next) {
        g_assert_cmpint(bdrv_co_pwrite(c, 0, sizeof(buf), buf, 0), ==, 0);
    }
    g_assert_cmpint(bdrv_co_flush(f->bs), ==, 0);
    f->done = true;
}

static void test_children_go_away_under_a_flush(void)
{
    BlockDriverState *bs = test_node("parent");
    Flush f = { bs, test_backend(bs), false };

    for (int i = 0; i < CHILDREN; i++) {
        g_autofree char *name = g_strdup_printf("c%d", i);
        BlockDriverState *child = bdrv_new_open_driver(&bdrv_slow_flush, name, BDRV_O_RDWR,
                                                       &error_abort);
        child->total_sectors = 1;
        bdrv_attach_child(bs, child, name, &child_of_bds, BDRV_CHILD_DATA, &error_abort);
    }
    flushes = 0;
    qemu_coroutine_enter(qemu_coroutine_create(write_and_flush_entry, &f));
    g_assert_false(f.done);
    while (!QLIST_EMPTY(&bs->children)) {
        bdrv_unref_child(bs, QLIST_FIRST(&bs->children));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, !f.done);
    g_assert_cmpint(flushes, ==, CHILDREN);
    blk_unref(f.blk);
    bdrv_unref(bs);
}

/* ---- nodes that nobody uses any more ----------------------------------------------------- */

static void replace(BlockDriverState *from, BlockDriverState *to)
{
    AioContext *ctx = bdrv_get_aio_context(from);

    aio_context_acquire(ctx);
    bdrv_replace_node(from, to, &error_abort);
    aio_context_release(ctx);
}

static void test_a_replaced_node_returns_to_the_main_context(void)
{
    BlockDriverState *from = test_node("from"), *to = test_node("to");
    BlockBackend *blk = test_backend(from);

    test_move(from, io_ctx);
    test_move(to, io_ctx);
    replace(from, to);
    g_assert_true(blk_bs(blk) == to && bdrv_get_aio_context(to) == io_ctx);
    g_assert_true(bdrv_get_aio_context(from) == qemu_get_aio_context());
    test_move(to, qemu_get_aio_context());
    blk_unref(blk);
    bdrv_unref(from);
    bdrv_unref(to);
}

/*
 *      blk        blk           blk
 *       |          |             |
 *      from       to    from    to       FROM stays where those are that it is connected with
 *        \         \   /        |
 *        base       base        ...
 */
static void test_a_node_connected_with_users_stays(void)
{
    BlockDriverState *from = test_node("from"), *to = test_node("to"),
                     *base = test_node("base");
    BlockBackend *blk = test_backend(from);

    bdrv_set_backing_hd(from, base, &error_abort);
    bdrv_set_backing_hd(to, base, &error_abort);
    test_move(from, io_ctx);
    replace(from, to);
    g_assert_true(bdrv_get_aio_context(to) == io_ctx && blk_get_aio_context(blk) == io_ctx);
    g_assert_true(bdrv_get_aio_context(from) == io_ctx);
    aio_context_acquire(io_ctx);
    bdrv_set_backing_hd(to, NULL, &error_abort);
    aio_context_release(io_ctx);
    g_assert_true(bdrv_get_aio_context(to) == io_ctx);
    test_move(to, qemu_get_aio_context());
    test_move(from, qemu_get_aio_context());
    blk_unref(blk);
    bdrv_unref(from);
    bdrv_unref(to);
    bdrv_unref(base);
}

static void test_a_dropped_filter_returns_to_the_main_context(void)
{
    BlockDriverState *filter = test_filter("filter"), *base = test_node("base");
    BlockBackend *blk = test_backend(base);

    bdrv_append(filter, base, &error_abort);
    test_move(base, io_ctx);
    aio_context_acquire(io_ctx);
    bdrv_drop_filter(filter, &error_abort);
    aio_context_release(io_ctx);
    g_assert_true(bdrv_get_aio_context(base) == io_ctx);
    g_assert_true(bdrv_get_aio_context(filter) == qemu_get_aio_context());
    test_move(base, qemu_get_aio_context());
    blk_unref(blk);
    bdrv_unref(filter);
    bdrv_unref(base);
}

/* ---- waiting while one reads ------------------------------------------------------------- */

static void coroutine_fn (*wait_for_somebody)(Job *job);

static int coroutine_fn reader_run(Job *job, Error **errp)
{
    GRAPH_RDLOCK_GUARD();
    wait_for_somebody(job);
    return 0;
}

static const JobDriver reader_driver = {
    .instance_size = sizeof(Job),
    .run = reader_run,
};

static void coroutine_fn pause_point(Job *job) { job_pause_point(job); }
static void coroutine_fn yield(Job *job) { job_yield(job); }
static void coroutine_fn sleep_a_while(Job *job) { job_sleep_ns(job, 1); }

static void start_reader(void)
{
    Job *job = job_create("job0", &reader_driver, NULL, qemu_get_aio_context(), JOB_DEFAULT,
                          NULL, NULL, &error_abort);
    job_start(job);
}

static void test_a_job_does_not_wait_while_it_reads(gconstpointer fn)
{
    wait_for_somebody = fn;
    trap(start_reader, "*graph lock: a coroutine that reads the graph (1 levels)*");
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(&io, &io_ctx, 1);
    g_test_add_func("/graph/wait/edge-twice", test_an_edge_is_taken_out_twice);
    g_test_add_func("/graph/wait/flush", test_children_go_away_under_a_flush);
    g_test_add_func("/graph/home/replaced", test_a_replaced_node_returns_to_the_main_context);
    g_test_add_func("/graph/home/connected", test_a_node_connected_with_users_stays);
    g_test_add_func("/graph/home/filter", test_a_dropped_filter_returns_to_the_main_context);
    g_test_add_data_func("/graph/read/pause-point", pause_point,
                         test_a_job_does_not_wait_while_it_reads);
    g_test_add_data_func("/graph/read/yield", yield,
                         test_a_job_does_not_wait_while_it_reads);
    g_test_add_data_func("/graph/read/sleep", sleep_a_while,
                         test_a_job_does_not_wait_while_it_reads);
    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
