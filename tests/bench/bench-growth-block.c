/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How the cost of things in the block layer grows: with requests in flight (1 to 1024), nodes
 * (1 to 10,000), IOThreads (1 to 16), layers of a chain (1 to 200) and jobs (1 to 100).
 *
 *   bench-growth-block [EVENTS]         how many events per figure, at least (20000)
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/blockjob.h"
#include "miniblk/iothread.h"
#include "miniblk/iov.h"
#include "miniblk/main-loop.h"
#include "miniblk/qdict.h"
#include "bench.h"

enum { REQUEST_BYTES = 4096, NODE_BYTES = 1 << 30, RUNS = 3, IOTHREADS_MAX = 16 };

static unsigned events = 20000;
static uint8_t data[REQUEST_BYTES];

/* Repeat FN, which makes EVENTS_EACH events, often enough; the best of some: ns per event. */
typedef void GrowthFn(void *opaque);

static void measure(const char *kind, const char *series, unsigned n, GrowthFn *fn,
                    void *opaque, unsigned events_each)
{
    unsigned repeat = events / events_each + 1;
    double best = 0;

    for (int run = 0; run <= RUNS; run++) {
        int64_t begin_ns = bench_now_ns();
        for (unsigned i = 0; i < repeat; i++) {
            fn(opaque);
        }
        double ns = (double)(bench_now_ns() - begin_ns) / repeat / events_each;
        if (run > 0) {          /* the first one warms up */
            best = best == 0 || ns < best ? ns : best;
        }
    }
    bench_growth(kind, series, n, best);
}

static BlockBackend *new_null(uint64_t perm)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", NODE_BYTES);
    BlockDriverState *bs = bdrv_open(NULL, NULL, options, BDRV_O_RDWR, &error_fatal);
    BlockBackend *blk = blk_new_with_bs(bs, perm, BLK_PERM_ALL, &error_fatal);
    bdrv_unref(bs);
    return blk;
}

static void move(BlockBackend *blk, AioContext *ctx)
{
    AioContext *old = blk_get_aio_context(blk);

    aio_context_acquire(old);
    blk_set_aio_context(blk, ctx, &error_fatal);
    aio_context_release(old);
}

/* ---- requests ---------------------------------------------------------------------------- */

typedef struct Requests {
    BlockBackend *blk;
    QEMUIOVector qiov;
    unsigned depth, done;
} Requests;

static void request_done(void *opaque, int ret)
{
    ((Requests *)opaque)->done++;
}

static void one_batch(void *opaque)
{
    Requests *r = opaque;

    r->done = 0;
    for (unsigned i = 0; i < r->depth; i++) {
        blk_aio_preadv(r->blk, 0, &r->qiov, 0, request_done, r);
    }
    while (r->done < r->depth) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void measure_depth(void)
{
    Requests r = { .blk = new_null(BLK_PERM_CONSISTENT_READ),
                   .qiov = QEMU_IOVEC_INIT_BUF(r.qiov, data, sizeof(data)) };

    for (r.depth = 1; r.depth <= 1024; r.depth *= 4) {
        measure("requests in flight", "request, null-co", r.depth, one_batch, &r, r.depth);
    }
    blk_unref(r.blk);
}

/* ---- nodes ------------------------------------------------------------------------------- */

typedef struct Nodes {
    BlockBackend **blk;
    unsigned count, next;
} Nodes;

static BlockBackend *next_backend(Nodes *s)
{
    return s->blk[s->next++ % s->count];
}

static void drain_one(void *opaque)
{
    bdrv_drain(blk_bs(next_backend(opaque)));
}

static void drain_all(void *opaque)
{
    bdrv_drain_all();
}

static void open_and_close(void *opaque)
{
    blk_unref(new_null(0));
}

static void read_one(void *opaque)
{
    blk_pread(next_backend(opaque), 0, sizeof(data), data, 0);
}

static void measure_nodes(void)
{
    for (unsigned count = 1; count <= 10000; count *= 10) {
        Nodes s = { g_new(BlockBackend *, count), count, 0 };
        for (unsigned i = 0; i < count; i++) {
            s.blk[i] = new_null(BLK_PERM_CONSISTENT_READ);
        }
        measure("nodes", "read of one", count, read_one, &s, 1);
        measure("nodes", "drain of one", count, drain_one, &s, 1);
        measure("nodes", "drain of all, per node", count, drain_all, &s, count);
        measure("nodes", "open and close of one", count, open_and_close, &s, 1);
        for (unsigned i = 0; i < count; i++) {
            blk_unref(s.blk[i]);
        }
        g_free(s.blk);
    }
}

/* ---- IOThreads --------------------------------------------------------------------------- */

typedef struct Threads {
    IOThread *io[IOTHREADS_MAX];
    BlockBackend *blk[IOTHREADS_MAX];
    unsigned count, next;
    int running;                /* atomic */
    unsigned each;              /* requests of each thread */
} Threads;

static void coroutine_fn thread_entry(void *opaque)
{
    Threads *t = opaque;
    unsigned i = 0;

    while (iothread_get_aio_context(t->io[i]) != qemu_get_current_aio_context()) {
        i++;
    }
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, data, sizeof(data));
    for (unsigned k = 0; k < t->each; k++) {
        blk_co_preadv(t->blk[i], 0, sizeof(data), &qiov, 0);
    }
    qatomic_dec(&t->running);
    aio_wait_kick();
}

static void read_in_all(void *opaque)
{
    Threads *t = opaque;

    t->running = t->count;
    for (unsigned i = 0; i < t->count; i++) {
        aio_co_schedule(iothread_get_aio_context(t->io[i]),
                        qemu_coroutine_create(thread_entry, t));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&t->running) > 0);
}

static void move_one(void *opaque)
{
    Threads *t = opaque;
    unsigned i = t->next++ % t->count;

    move(t->blk[i], qemu_get_aio_context());
    move(t->blk[i], iothread_get_aio_context(t->io[i]));
}

static void measure_iothreads(void)
{
    for (unsigned count = 1; count <= IOTHREADS_MAX; count *= 2) {
        Threads t = { .count = count, .each = 2000 };
        for (unsigned i = 0; i < count; i++) {
            g_autofree char *id = g_strdup_printf("io%u", i);
            t.io[i] = iothread_create(id, &error_fatal);
            t.blk[i] = new_null(BLK_PERM_CONSISTENT_READ);
            move(t.blk[i], iothread_get_aio_context(t.io[i]));
        }
        measure("IOThreads", "request, all at once", count, read_in_all, &t,
                count * t.each);
        measure("IOThreads", "move of a node", count, move_one, &t, 2);
        for (unsigned i = 0; i < count; i++) {
            move(t.blk[i], qemu_get_aio_context());
            blk_unref(t.blk[i]);
            iothread_destroy(t.io[i]);
        }
    }
}

/* ---- layers ------------------------------------------------------------------------------ */

static int coroutine_fn layer_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bs->backing ? bdrv_co_preadv(bs->backing, offset, bytes, qiov, 0) : 0;
}

static BlockDriver bdrv_layer = {
    .format_name = "layer",
    .supports_backing = true,
    .bdrv_co_preadv = layer_preadv,
};

typedef struct Layers {
    BlockBackend *blk;
    BlockDriverState *base;
    AioContext *ctx[2];
    unsigned next;
} Layers;

static void read_through(void *opaque)
{
    Layers *l = opaque;
    blk_pread(l->blk, 0, sizeof(data), data, 0);
}

static void drain_base(void *opaque)
{
    bdrv_drain(((Layers *)opaque)->base);
}

static void move_chain(void *opaque)
{
    Layers *l = opaque;
    move(l->blk, l->ctx[++l->next % 2]);
}

static void measure_layers(void)
{
    static const unsigned depths[] = { 1, 2, 5, 10, 20, 50, 100, 200 };
    IOThread *io = iothread_create("io", &error_fatal);

    for (unsigned d = 0; d < ARRAY_SIZE(depths); d++) {
        Layers l = { .ctx = { qemu_get_aio_context(), iothread_get_aio_context(io) } };
        BlockDriverState *top = NULL;
        for (unsigned i = 0; i < depths[d]; i++) {
            BlockDriverState *bs = bdrv_new_open_driver(&bdrv_layer, NULL, BDRV_O_RDWR,
                                                        &error_fatal);
            bs->total_sectors = NODE_BYTES / BDRV_SECTOR_SIZE;
            if (top) {
                bdrv_append(bs, top, &error_fatal);
                bdrv_unref(top);
            } else {
                l.base = bs;
            }
            top = bs;
        }
        l.blk = blk_new_with_bs(top, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_fatal);
        bdrv_unref(top);
        measure("layers", "read through, per layer", depths[d], read_through, &l, depths[d]);
        measure("layers", "drain of the base, per layer", depths[d], drain_base, &l,
                depths[d]);
        measure("layers", "move, per layer", depths[d], move_chain, &l, depths[d]);
        move(l.blk, qemu_get_aio_context());
        blk_unref(l.blk);
    }
    iothread_destroy(io);
}

/* ---- jobs -------------------------------------------------------------------------------- */

typedef struct Jobs {
    BlockBackend **source, **target;
    unsigned count;
} Jobs;

/* They become ready at once (their sources are empty), and wait then. */
static void start_job(Jobs *j, unsigned i)
{
    g_autofree char *id = g_strdup_printf("job%u", i);

    mirror_start(id, blk_bs(j->source[i]), blk_bs(j->target[i]), NULL, JOB_DEFAULT, 1, 1 << 26,
                 0, MIRROR_SYNC_MODE_NONE, MIRROR_LEAVE_BACKING_CHAIN, false,
                 BLOCKDEV_ON_ERROR_REPORT, BLOCKDEV_ON_ERROR_REPORT, false, NULL,
                 MIRROR_COPY_MODE_BACKGROUND, &error_fatal);
}

static void start_and_cancel_one(void *opaque)
{
    Jobs *j = opaque;

    start_job(j, j->count);
    WITH_JOB_LOCK_GUARD() {
        g_autofree char *id = g_strdup_printf("job%u", j->count);
        job_cancel_sync_locked(job_get_locked(id), true);
    }
}

static void drain_with_job(void *opaque)
{
    bdrv_drain(blk_bs(((Jobs *)opaque)->source[0]));
}

static void measure_jobs(void)
{
    static const unsigned counts[] = { 1, 3, 10, 30, 100 };

    for (unsigned c = 0; c < ARRAY_SIZE(counts); c++) {
        unsigned n = counts[c];
        Jobs j = { g_new(BlockBackend *, n + 1), g_new(BlockBackend *, n + 1), n };
        for (unsigned i = 0; i <= n; i++) {
            j.source[i] = new_null(0);
            j.target[i] = new_null(0);
        }
        for (unsigned i = 0; i < n; i++) {
            start_job(&j, i);
        }
        measure("jobs", "one more started and cancelled", n, start_and_cancel_one, &j, 1);
        measure("jobs", "drain of a node with a job", n, drain_with_job, &j, 1);
        measure("jobs", "drain of all, per job", n, drain_all, &j, n);
        job_cancel_sync_all();
        for (unsigned i = 0; i <= n; i++) {
            blk_unref(j.source[i]);
            blk_unref(j.target[i]);
        }
        g_free(j.source);
        g_free(j.target);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        events = MAX(atoi(argv[1]), 1);
    }
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    measure_depth();
    measure_nodes();
    measure_iothreads();
    measure_layers();
    measure_jobs();
    return 0;
}
