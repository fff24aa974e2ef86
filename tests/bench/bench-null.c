/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests that cost nothing below the request path: 4 KiB reads from null-co.
 *
 *   bench-null --depth N --requests N [--coroutine]
 *
 * Keeps N requests in flight through blk_aio_preadv(), as a device model does (and as the
 * peer's "bench" does); with --coroutine each of N coroutines awaits one after the other.
 */
#include "miniblk/osdep.h"
#include "miniblk/block-backend.h"
#include "miniblk/coroutine.h"
#include "miniblk/iov.h"
#include "miniblk/main-loop.h"
#include "miniblk/qdict.h"
#include "bench.h"

#define REQUEST_BYTES 4096
#define IMAGE_BYTES (1ull << 30)

typedef struct Bench {
    BlockBackend *blk;
    gint depth;
    gint64 requests;
    gboolean coroutine;
    int64_t to_start, in_flight, failed;
    int64_t offset_bytes;
} Bench;

typedef struct Lane {
    Bench *bench;
    QEMUIOVector qiov;
    struct iovec iov;
    uint8_t *data;
} Lane;

static int64_t next_offset(Bench *b)
{
    int64_t offset = b->offset_bytes;

    b->offset_bytes = (offset + REQUEST_BYTES) % IMAGE_BYTES;
    return offset;
}

static void aio_start(Lane *lane);

static void aio_done(void *opaque, int ret)
{
    Lane *lane = opaque;

    lane->bench->in_flight--;
    lane->bench->failed += ret < 0;
    aio_start(lane);
}

static void aio_start(Lane *lane)
{
    Bench *b = lane->bench;

    if (b->to_start > 0) {
        b->to_start--;
        b->in_flight++;
        blk_aio_preadv(b->blk, next_offset(b), &lane->qiov, 0, aio_done, lane);
    }
}

static void coroutine_fn lane_entry(void *opaque)
{
    Lane *lane = opaque;
    Bench *b = lane->bench;

    while (b->to_start > 0) {
        b->to_start--;
        b->failed += blk_co_preadv(b->blk, next_offset(b), REQUEST_BYTES, &lane->qiov, 0) < 0;
    }
    b->in_flight--;
}

static int64_t run(Bench *b)
{
    Lane *lanes = g_new0(Lane, b->depth);
    int64_t begin_ns = bench_now_ns();

    b->to_start = b->requests;
    for (int i = 0; i < b->depth; i++) {
        lanes[i] = (Lane){ .bench = b, .data = qemu_memalign(4096, REQUEST_BYTES) };
        qemu_iovec_init_buf(&lanes[i].qiov, lanes[i].data, REQUEST_BYTES);
        if (b->coroutine) {
            b->in_flight++;
            qemu_coroutine_enter(qemu_coroutine_create(lane_entry, &lanes[i]));
        } else {
            aio_start(&lanes[i]);
        }
    }
    while (b->in_flight) {
        aio_poll(qemu_get_aio_context(), true);
    }
    begin_ns = bench_now_ns() - begin_ns;
    for (int i = 0; i < b->depth; i++) {
        qemu_vfree(lanes[i].data);
    }
    g_free(lanes);
    return begin_ns;
}

int main(int argc, char **argv)
{
    Bench b = { .depth = 64, .requests = 1000000 };
    const GOptionEntry entries[] = {
        { "depth", 'd', 0, G_OPTION_ARG_INT, &b.depth, "requests in flight (64)", "N" },
        { "requests", 'c', 0, G_OPTION_ARG_INT64, &b.requests, "requests (1000000)", "N" },
        { "coroutine", 0, 0, G_OPTION_ARG_NONE, &b.coroutine, "await in coroutines", NULL },
        { 0 } };
    g_autoptr(GOptionContext) context = g_option_context_new("- requests to null-co");
    g_autoptr(GError) err = NULL;
    QDict *options;
    int64_t ns;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err) || b.depth < 1) {
        fprintf(stderr, "bench-null: %s\n", err ? err->message : "the depth must be positive");
        return 2;
    }
    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    options = qdict_new();
    qdict_put_str(options, "driver", "null-co");
    qdict_put_int(options, "size", IMAGE_BYTES);
    b.blk = blk_new_open(NULL, NULL, options, 0, &error_fatal);
    ns = run(&b);
    blk_unref(b.blk);
    if (b.failed) {
        fprintf(stderr, "bench-null: %" PRId64 " requests failed\n", b.failed);
        return 1;
    }
    bench_figure("null-co request", b.requests ? (double)ns / b.requests : 0, "ns");
    return 0;
}
