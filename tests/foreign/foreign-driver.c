/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The example of docs/compat.md: a block driver and its test, as one writes them for QEMU. */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "sysemu/block-backend.h"
#include "sysemu/iothread.h"

/* A disk whose every byte is the number of its sector, cut to eight bits. */
typedef struct BDRVCountState {
    AioContext *last_ctx;       /* where the last request ran */
} BDRVCountState;

static int coroutine_fn GRAPH_RDLOCK
count_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                BdrvRequestFlags flags)
{
    BDRVCountState *s = bs->opaque;

    s->last_ctx = qemu_get_current_aio_context();
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 100 * SCALE_US);
    for (int64_t done = 0; done < bytes; done += BDRV_SECTOR_SIZE) {
        qemu_iovec_memset(qiov, done, (offset + done) >> BDRV_SECTOR_BITS,
                          MIN(bytes - done, (int64_t)BDRV_SECTOR_SIZE));
    }
    return 0;
}

static BlockDriver bdrv_count = {
    .format_name = "count",
    .instance_size = sizeof(BDRVCountState),
    .bdrv_co_preadv = count_co_preadv,
};

static void bdrv_count_init(void)
{
    bdrv_register(&bdrv_count);
}

block_init(bdrv_count_init);

static void check_sectors(BlockBackend *blk, AioContext *expected_ctx)
{
    BDRVCountState *s = blk_bs(blk)->opaque;
    uint8_t buf[3 * BDRV_SECTOR_SIZE];

    g_assert_cmpint(blk_pread(blk, 300 * BDRV_SECTOR_SIZE, sizeof(buf), buf, 0), ==, 0);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(buf[i * BDRV_SECTOR_SIZE], ==, (300 + i) & 0xff);
    }
    g_assert_true(s->last_ctx == expected_ctx);
    g_assert_cmpint(blk_pread(blk, 1 << 20, 1, buf, 0), ==, -EIO);      /* past the end */
}

static void test_count(void)
{
    AioContext *main_ctx = qemu_get_aio_context();
    BlockBackend *blk = blk_new(main_ctx, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_count, "count0", 0, &error_abort);
    IOThread *iothread = iothread_create("io0", &error_abort);
    AioContext *ctx = iothread_get_aio_context(iothread);

    bs->total_sectors = 1024;
    blk_insert_bs(blk, bs, &error_abort);
    bdrv_unref(bs);                     /* the backend has its own reference */
    check_sectors(blk, main_ctx);

    blk_set_aio_context(blk, ctx, &error_abort);
    aio_context_acquire(ctx);
    check_sectors(blk, ctx);
    blk_set_aio_context(blk, main_ctx, &error_abort);
    aio_context_release(ctx);

    blk_unref(blk);
    iothread_destroy(iothread);
}

int main(int argc, char **argv)
{
    bdrv_init();
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/count/sectors", test_count);
    return g_test_run();
}
