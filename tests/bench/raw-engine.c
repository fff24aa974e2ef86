/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * 4 KiB reads of a raw file without the page cache, by a chosen engine.
 *
 *   raw-engine --file F [--aio native|io_uring|threads] [--depth N] [--requests N]
 *              [--step BYTES] [--iothread] [--poll-max-ns N] [--aio-max-batch N]
 *
 * Reads go to random places; with --step to places that far apart, as "qemu-img bench -S".
 * Prints the rate and the processor time (user and system) per request.
 */
#include "miniblk/osdep.h"
#include <sys/resource.h>
#include "miniblk/block-backend.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "miniblk/qdict.h"
#include "miniblk/thread.h"
#include "bench.h"

enum { REQUEST_BYTES = 4096 };

typedef struct Bench {
    char *file, *aio;
    gint depth;
    gint64 requests, step_bytes, poll_max_ns, max_batch;
    gboolean iothread;
    BlockBackend *blk;
    /* home thread of BLK, or the main thread while that has nothing to do */
    int64_t length_bytes, offset_bytes, to_start, failed;
    uint64_t seed;
    int in_flight;              /* lanes at work */
    QemuEvent finished;
} Bench;

typedef struct Lane {
    Bench *bench;
    QEMUIOVector qiov;
} Lane;

static int64_t next_offset(Bench *b)
{
    if (b->step_bytes) {
        int64_t offset = b->offset_bytes;
        b->offset_bytes = (offset + b->step_bytes) % b->length_bytes;
        return offset;
    }
    b->seed = b->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (int64_t)((b->seed >> 33) % (b->length_bytes / REQUEST_BYTES)) * REQUEST_BYTES;
}

static void start(Lane *lane);

static void done(void *opaque, int ret)
{
    Lane *lane = opaque;

    lane->bench->failed += ret < 0;
    start(lane);
}

static void start(Lane *lane)
{
    Bench *b = lane->bench;

    if (b->to_start > 0) {
        b->to_start--;
        blk_aio_preadv(b->blk, next_offset(b), &lane->qiov, 0, done, lane);
    } else {
        if (--b->in_flight == 0) {
            qemu_event_set(&b->finished);
        }
    }
}

static void start_bh(void *opaque)
{
    start(opaque);
}

static double cpu_ns(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

static void run(Bench *b, int64_t requests)
{
    g_autofree Lane *lanes = g_new0(Lane, b->depth);
    AioContext *ctx = blk_get_aio_context(b->blk);

    b->to_start = requests;
    b->in_flight = b->depth;
    qemu_event_reset(&b->finished);
    for (int i = 0; i < b->depth; i++) {
        lanes[i].bench = b;
        qemu_iovec_init_buf(&lanes[i].qiov, qemu_memalign(4096, REQUEST_BYTES),
                            REQUEST_BYTES);
        aio_bh_schedule_oneshot(ctx, start_bh, &lanes[i]);
    }
    if (b->iothread) {
        /* in no loop, which every completion would have to wake */
        qemu_event_wait(&b->finished);
    } else {
        while (b->in_flight) {
            aio_poll(ctx, true);
        }
    }
    for (int i = 0; i < b->depth; i++) {
        qemu_vfree(lanes[i].qiov.iov[0].iov_base);
    }
}

static void open_file(Bench *b)
{
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", "file");
    qdict_put_str(options, "filename", b->file);
    qdict_put_str(options, "aio", b->aio ? b->aio : "native");
    qdict_put_str(options, "cache.direct", "on");
    qdict_put_int(options, "aio-max-batch", b->max_batch);
    b->blk = blk_new_open(NULL, NULL, options, 0, &error_fatal);
    b->length_bytes = QEMU_ALIGN_DOWN(blk_getlength(b->blk), REQUEST_BYTES);
}

int main(int argc, char **argv)
{
    Bench b = { .depth = 32, .requests = 200000, .seed = 1 };
    const GOptionEntry entries[] = {
        { "file", 'f', 0, G_OPTION_ARG_FILENAME, &b.file, "what to read", "FILE" },
        { "aio", 0, 0, G_OPTION_ARG_STRING, &b.aio, "engine (native)", "ENGINE" },
        { "depth", 'd', 0, G_OPTION_ARG_INT, &b.depth, "requests in flight (32)", "N" },
        { "requests", 'c', 0, G_OPTION_ARG_INT64, &b.requests, "requests (200000)", "N" },
        { "step", 'S', 0, G_OPTION_ARG_INT64, &b.step_bytes, "distance (random)", "BYTES" },
        { "iothread", 0, 0, G_OPTION_ARG_NONE, &b.iothread, "in an IOThread", NULL },
        { "poll-max-ns", 0, 0, G_OPTION_ARG_INT64, &b.poll_max_ns, "busy polling", "N" },
        { "aio-max-batch", 0, 0, G_OPTION_ARG_INT64, &b.max_batch, "per call", "N" },
        { 0 } };
    g_autoptr(GOptionContext) context = g_option_context_new("- reads of a raw file");
    g_autoptr(GError) err = NULL;
    IOThread *iothread = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err) || !b.file || b.depth < 1 ||
        b.requests < 1 || b.step_bytes % REQUEST_BYTES) {
        fprintf(stderr, "raw-engine: %s\n", err ? err->message : "bad or missing option");
        return 2;
    }
    qemu_event_init(&b.finished, false);
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    open_file(&b);
    if (b.length_bytes == 0) {
        fprintf(stderr, "raw-engine: %s is too small\n", b.file);
        return 2;
    }
    if (b.iothread) {
        iothread = iothread_create("io0", &error_fatal);
        blk_set_aio_context(b.blk, iothread_get_aio_context(iothread), &error_fatal);
    }
    aio_context_set_poll_params(blk_get_aio_context(b.blk), b.poll_max_ns, 0, 0,
                                &error_fatal);
    run(&b, 1000);              /* engines, workers and pools exist afterwards */

    int64_t begin_ns = bench_now_ns();
    double begin_cpu_ns = cpu_ns();
    run(&b, b.requests);
    double cpu = cpu_ns() - begin_cpu_ns, ns = bench_now_ns() - begin_ns;
    bench_figure("raw reads", b.requests * 1e6 / ns, "k requests/s");
    bench_figure("raw reads, CPU", cpu / b.requests / 1e3, "us/request");

    if (iothread) {
        AioContext *ctx = blk_get_aio_context(b.blk);
        aio_context_acquire(ctx);
        blk_set_aio_context(b.blk, qemu_get_aio_context(), &error_fatal);
        aio_context_release(ctx);
    }
    blk_unref(b.blk);
    if (iothread) {
        iothread_destroy(iothread);
    }
    g_free(b.file);
    g_free(b.aio);
    if (b.failed) {
        fprintf(stderr, "raw-engine: %" PRId64 " requests failed\n", b.failed);
    }
    return b.failed != 0;
}
