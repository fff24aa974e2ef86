/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes in several threads.
 *
 *   bench-iothreads [SECONDS]   of each run (1)
 *
 *   drained section     of a node that nobody uses at the moment
 *   two nodes           on one IOThread, and on one each
 *   busy monitor        NODES nodes under load, while the main loop carries out commands one
 *                       after the other: all in the main loop, and in one and two IOThreads.
 *                       The rate, and how long requests take
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/iothread.h"
#include "miniblk/iov.h"
#include "miniblk/main-loop.h"
#include "miniblk/qdict.h"
#include "tests/load/latency.h"
#include "bench.h"

enum {
    NODES = 4, DEPTH = 8, IOTHREADS = 2, REQUEST_BYTES = 4096, SECTIONS = 20000,
    NODES_PER_COMMAND = 100,
    BURST = 16,                 /* requests without a turn of the loop */
};

static IOThread *io[IOTHREADS];
static double seconds = 1;
static bool stop;               /* atomic */
static int running;             /* atomic */

static AioContext *context_of(int iothread)
{
    return iothread < 0 ? qemu_get_aio_context() : iothread_get_aio_context(io[iothread]);
}

static BlockBackend *new_node(AioContext *ctx)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", 1 << 30);
    BlockBackend *blk = blk_new_open(NULL, NULL, options, 0, &error_fatal);
    blk_set_aio_context(blk, ctx, &error_fatal);
    return blk;
}

static void free_node(BlockBackend *blk)
{
    AioContext *ctx = blk_get_aio_context(blk);

    aio_context_acquire(ctx);
    blk_set_aio_context(blk, qemu_get_aio_context(), &error_fatal);
    aio_context_release(ctx);
    blk_unref(blk);
}

/* ---- drained sections ------------------------------------------------------------------- */

static void measure_sections(const char *what, AioContext *ctx)
{
    BlockBackend *blk = new_node(ctx);
    BlockDriverState *bs = blk_bs(blk);

    aio_context_acquire(ctx);
    for (int run = 0; run < 2; run++) {         /* the first one warms up */
        int64_t begin_ns = bench_now_ns();
        for (int i = 0; i < SECTIONS; i++) {
            bdrv_drained_begin(bs);
            bdrv_drained_end(bs);
        }
        if (run) {
            bench_figure(what, (bench_now_ns() - begin_ns) / 1000.0 / SECTIONS, "us");
        }
    }
    aio_context_release(ctx);
    free_node(blk);
}

/* ---- load ------------------------------------------------------------------------------- */

/* One node's; touched by its thread alone while it runs. */
typedef struct Load {
    BlockBackend *blk;
    bool turns;                 /* each request goes through the loop, as one to a disk does,
                                   and is timed */
    uint64_t requests;
    Histogram latencies_ns;
    uint8_t *data;
} Load;

static void coroutine_fn lane_entry(void *opaque)
{
    Load *l = opaque;
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, l->data, REQUEST_BYTES);

    while (!qatomic_read(&stop)) {
        int64_t begin_ns = l->turns ? bench_now_ns() : 0;
        blk_co_preadv(l->blk, 0, REQUEST_BYTES, &qiov, 0);
        l->requests++;
        if (l->turns || l->requests % BURST == 0) {
            aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
            qemu_coroutine_yield();
        }
        if (l->turns) {
            histogram_add(&l->latencies_ns, bench_now_ns() - begin_ns);
        }
    }
    qatomic_dec(&running);
    aio_wait_kick();
}

static Load *load_start(AioContext *ctx, bool turns)
{
    Load *l = g_new0(Load, 1);

    l->blk = new_node(ctx);
    l->turns = turns;
    l->data = g_malloc0(REQUEST_BYTES);
    for (int i = 0; i < DEPTH; i++) {
        qatomic_inc(&running);
        aio_co_schedule(ctx, qemu_coroutine_create(lane_entry, l));
    }
    return l;
}

static void load_free(Load *l)
{
    free_node(l->blk);
    g_free(l->data);
    g_free(l);
}

static bool is_over(int64_t end_ns)
{
    return bench_now_ns() >= end_ns;
}

/* What a client may ask of a monitor: nodes are made, looked at and deleted. */
static void carry_out_a_command(void)
{
    BlockBackend *blk[NODES_PER_COMMAND];

    for (int i = 0; i < NODES_PER_COMMAND; i++) {
        blk[i] = new_node(qemu_get_aio_context());
    }
    for (int i = 0; i < NODES_PER_COMMAND; i++) {
        free_node(blk[i]);
    }
}

static void run_main_loop(int64_t end_ns, bool busy, uint64_t *commands)
{
    while (!is_over(end_ns)) {
        if (busy) {
            carry_out_a_command();
            ++*commands;
        }
        aio_poll(qemu_get_aio_context(), false);
        if (!busy) {
            g_usleep(1000);
        }
    }
    qatomic_set(&stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&running) > 0);
    qatomic_set(&stop, false);
}

/* ---- two nodes -------------------------------------------------------------------------- */

enum { PAIRS = 7 };

static double rate_of_two(int first, int second)
{
    int64_t begin_ns = bench_now_ns();
    Load *l[2] = { load_start(context_of(first), false),
                   load_start(context_of(second), false) };
    uint64_t requests = 0;

    run_main_loop(begin_ns + seconds * 1e9 / PAIRS, false, NULL);
    double took_s = (bench_now_ns() - begin_ns) / 1e9;
    for (int i = 0; i < 2; i++) {
        requests += l[i]->requests;
        load_free(l[i]);
    }
    return requests / took_s / 1000;
}

/* In turn, and the best of each: what disturbs them makes them slower only. */
static void measure_two(void)
{
    double one = 0, two = 0;

    for (int i = 0; i < PAIRS; i++) {
        one = MAX(one, rate_of_two(0, 0));
        two = MAX(two, rate_of_two(0, 1));
    }
    bench_figure("two nodes, one IOThread", one, "k requests/s");
    bench_figure("two nodes, two IOThreads", two, "k requests/s");
    bench_figure("two nodes, two IOThreads against one", two / one, "times");
}

/* ---- the case for IOThreads ------------------------------------------------------------- */

static void merge(Histogram *to, const Histogram *from)
{
    for (int i = 0; i < LATENCY_BUCKETS; i++) {
        to->count[i] += from->count[i];
    }
    to->total += from->total;
    to->max = MAX(to->max, from->max);
}

static void measure_busy(int iothreads)
{
    int64_t begin_ns = bench_now_ns();
    Histogram *all = g_new0(Histogram, 1);
    uint64_t commands = 0;
    Load *l[NODES];

    for (int i = 0; i < NODES; i++) {
        l[i] = load_start(context_of(iothreads ? i % iothreads : -1), true);
    }
    run_main_loop(begin_ns + seconds * 1e9, true, &commands);
    double took_s = (bench_now_ns() - begin_ns) / 1e9;
    for (int i = 0; i < NODES; i++) {
        merge(all, &l[i]->latencies_ns);
        load_free(l[i]);
    }
    static const char *const where[] = { "main loop", "1 IOThread", "2 IOThreads" };
    const struct { const char *what; double value; const char *unit; } figures[] = {
        { "rate", all->total / took_s / 1000, "k requests/s" },
        { "p50", histogram_quantile(all, 0.5) / 1000.0, "us" },
        { "p99", histogram_quantile(all, 0.99) / 1000.0, "us" },
        { "jitter (p99.9 - p50)", (histogram_quantile(all, 0.999) -
                                   histogram_quantile(all, 0.5)) / 1000.0, "us" },
        { "commands", commands / took_s, "commands/s" },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(figures); i++) {
        g_autofree char *work = g_strdup_printf("busy monitor, %s: %s", where[iothreads],
                                                figures[i].what);
        bench_figure(work, figures[i].value, figures[i].unit);
    }
    g_free(all);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seconds = g_ascii_strtod(argv[1], NULL);
    }
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    for (int i = 0; i < IOTHREADS; i++) {
        g_autofree char *id = g_strdup_printf("io%d", i);
        io[i] = iothread_create(id, &error_fatal);
    }
    measure_sections("drained section, idle node, same thread", context_of(-1));
    measure_sections("drained section, idle node, other thread", context_of(0));
    measure_two();
    for (int iothreads = 0; iothreads <= IOTHREADS; iothreads++) {
        measure_busy(iothreads);
    }
    for (int i = 0; i < IOTHREADS; i++) {
        iothread_destroy(io[i]);
    }
    return 0;
}
