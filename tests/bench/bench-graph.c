/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the cost of changing a graph grows with the depth of its chain (1 to 1,000), and with
 * the number of nodes beside it (10 to 10,000); and what the graph lock costs a reader.
 *
 *   bench-graph [DEPTH...]
 */
#include "miniblk/osdep.h"
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/graph-lock.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "bench.h"

static BlockDriver bdrv_layer = {
    .format_name = "layer",
    .supports_backing = true,
};

static BlockDriverState *new_layer(void)
{
    return bdrv_new_open_driver(&bdrv_layer, NULL, BDRV_O_RDWR, &error_abort);
}

static int64_t started_ns;

static void start(void)
{
    started_ns = bench_now_ns();
}

/* OPERATIONS have been done since start(). */
static void stop(const char *what, const char *growing, int n, int operations)
{
    g_autofree char *work = g_strdup_printf("graph: %s, %s %d", what, growing, n);
    bench_figure(work, (bench_now_ns() - started_ns) / 1000.0 / operations, "us");
}

static void measure(int depth, AioContext *ctx)
{
    g_autofree BlockDriverState **bs = g_new(BlockDriverState *, depth);
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ,
                                BLK_PERM_ALL);

    for (int i = 0; i < depth; i++) {
        bs[i] = new_layer();
    }

    /* upwards: each new node on top of all others, below the backend */
    blk_insert_bs(blk, bs[0], &error_abort);
    start();
    for (int i = 1; i < depth; i++) {
        bdrv_append(bs[i], bs[i - 1], &error_abort);
    }
    stop("append on top", "depth", depth, depth);

    BlockDriverState *top = bs[depth - 1], *base = bs[0];
    start();
    for (int i = 0; i < 20; i++) {
        blk_set_perm(blk, i % 2 ? BLK_PERM_CONSISTENT_READ : 0, BLK_PERM_ALL, &error_abort);
    }
    stop("permission change at the top", "depth", depth, 20);
    start();
    for (int i = 0; i < 20; i++) {
        bdrv_drain(top);
    }
    stop("drain of the top", "depth", depth, 20);
    start();
    for (int i = 0; i < 20; i++) {
        bdrv_drain(base);
    }
    stop("drain of the base", "depth", depth, 20);
    start();
    for (int i = 0; i < 4; i++) {
        bdrv_drain_all();
    }
    stop("drain all", "depth", depth, 4);
    start();
    for (int i = 0; i < 4; i++) {
        AioContext *to = i % 2 ? qemu_get_aio_context() : ctx;
        AioContext *from = bdrv_get_aio_context(base);
        aio_context_acquire(from);
        blk_set_aio_context(blk, to, &error_abort);
        aio_context_release(from);
    }
    stop("move", "depth", depth, 4);

    /* a node in the middle of the chain is put in, and out again */
    BlockDriverState *extra = new_layer();
    start();
    bdrv_append(extra, bs[depth / 2], &error_abort);
    bdrv_replace_node(extra, bs[depth / 2], &error_abort);
    stop("node into the middle and out", "depth", depth, 1);
    bdrv_unref(extra);

    for (int i = 0; i < depth - 1; i++) {
        bdrv_unref(bs[i]);
    }
    blk_unref(blk);
    start();
    bdrv_unref(top);                    /* closes them all */
    stop("close, per node", "depth", depth, depth);
}

static void attach_downwards(int depth)
{
    BlockDriverState *top = new_layer(), *lowest = top;
    start();
    for (int i = 1; i < depth; i++) {
        BlockDriverState *below = new_layer();
        bdrv_set_backing_hd(lowest, below, &error_abort);
        bdrv_unref(below);
        lowest = below;
    }
    stop("backing node below the base", "depth", depth, depth);
    bdrv_unref(top);
}

/* Nodes that have nothing to do with each other. */
static void measure_beside(int count)
{
    g_autofree BlockDriverState **bs = g_new(BlockDriverState *, count);

    start();
    for (int i = 0; i < count; i++) {
        bs[i] = new_layer();
    }
    stop("new node", "nodes", count, count);
    start();
    bdrv_drain_all();
    stop("drain all", "nodes", count, 1);
    start();
    for (int i = 0; i < 1000; i++) {
        bdrv_drain(bs[i % count]);
    }
    stop("drain of one", "nodes", count, 1000);
    start();
    for (int i = 0; i < count; i++) {
        bdrv_unref(bs[i]);
    }
    stop("close", "nodes", count, count);
}

static void coroutine_fn lock_entry(void *opaque)
{
    enum { N = 10000000 };

    start();
    for (int i = 0; i < N; i++) {
        bdrv_graph_co_rdlock();
        bdrv_graph_co_rdunlock();
    }
    bench_figure("graph lock, read lock and unlock", (bench_now_ns() - started_ns) * 1.0 / N,
                 "ns");
}

int main(int argc, char **argv)
{
    static const char *const defaults[] = { "", "1", "10", "100", "1000", NULL };
    const char *const *depths = argc > 1 ? (const char *const *)argv : defaults;

    qemu_init_main_loop(&error_abort);
    bdrv_init();
    IOThread *io = iothread_create("io", &error_abort);
    qemu_coroutine_enter(qemu_coroutine_create(lock_entry, NULL));
    for (int i = 1; depths[i]; i++) {
        measure(atoi(depths[i]), iothread_get_aio_context(io));
        attach_downwards(atoi(depths[i]));
    }
    for (int count = 10; count <= 10000; count *= 10) {
        measure_beside(count);
    }
    iothread_destroy(io);
    return 0;
}
