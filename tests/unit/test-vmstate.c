/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The VM state area: found below filters and formats that have none, and refused else. */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

enum { AREA_BYTES = 4096 };

static uint8_t area[AREA_BYTES];

static int coroutine_fn area_save(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    if (pos + qiov->size > AREA_BYTES) {
        return -ENOSPC;
    }
    qemu_iovec_to_buf(qiov, 0, area + pos, qiov->size);
    return 0;
}

static int coroutine_fn area_load(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    if (pos + qiov->size > AREA_BYTES) {
        return -EINVAL;
    }
    qemu_iovec_from_buf(qiov, 0, area + pos, qiov->size);
    return 0;
}

static BlockDriver with_area = {
    .format_name = "test-with-area",
    .bdrv_co_save_vmstate = area_save,
    .bdrv_co_load_vmstate = area_load,
};
static BlockDriver without = { .format_name = "test-without" };
static BlockDriver filter = {
    .format_name = "test-vmstate-filter",
    .is_filter = true,
    .filtered_child_is_backing = true,
    .bdrv_child_perm = bdrv_default_perms,
};

static BlockDriverState *filter_over(BlockDriverState *bs)
{
    BlockDriverState *top = bdrv_new_open_driver(&filter, NULL, BDRV_O_RDWR, &error_abort);
    bdrv_append(top, bs, &error_abort);
    return top;
}

static void check_round_trip(BlockDriverState *bs)
{
    uint8_t in[300], out[300] = { 0 };

    memset(in, g_test_rand_int_range(1, 255), sizeof(in));
    g_assert_cmpint(bdrv_save_vmstate(bs, in, 77, sizeof(in)), ==, sizeof(in));
    g_assert_cmpint(bdrv_load_vmstate(bs, out, 77, sizeof(out)), ==, sizeof(out));
    g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
}

static void test_through_filters_and_threads(void)
{
    IOThread *io = iothread_create("io0", &error_abort);
    AioContext *ctx = iothread_get_aio_context(io);
    BlockDriverState *bs = bdrv_new_open_driver(&with_area, NULL, BDRV_O_RDWR, &error_abort);
    BlockDriverState *top;

    check_round_trip(bs);
    bdrv_ref(bs);
    top = filter_over(bs);
    check_round_trip(top);
    bdrv_try_change_aio_context(top, ctx, NULL, &error_abort);
    aio_context_acquire(ctx);
    check_round_trip(top);
    bdrv_try_change_aio_context(top, qemu_get_aio_context(), NULL, &error_abort);
    aio_context_release(ctx);
    bdrv_unref(top);
    bdrv_unref(bs);
    iothread_destroy(io);
}

static void test_refusals(void)
{
    BlockDriverState *bs = bdrv_new_open_driver(&with_area, NULL, BDRV_O_RDWR, &error_abort);
    BlockDriverState *none = bdrv_new_open_driver(&without, NULL, BDRV_O_RDWR, &error_abort);
    uint8_t buf[16] = { 0 };
    const struct {
        BlockDriverState *bs;
        int64_t pos;
        int size, save, load;
    } t[] = {
        { none, 0, 16, -ENOTSUP, -ENOTSUP },
        { bs, -1, 16, -EIO, -EIO },
        { bs, 0, -1, -EIO, -EIO },
        { bs, INT64_MAX, 16, -EIO, -EIO },
        { bs, AREA_BYTES - 8, 16, -ENOSPC, -EINVAL },   /* what the driver says */
        { bs, AREA_BYTES, 0, 0, 0 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
        g_assert_cmpint(bdrv_save_vmstate(t[i].bs, buf, t[i].pos, t[i].size), ==, t[i].save);
        g_assert_cmpint(bdrv_load_vmstate(t[i].bs, buf, t[i].pos, t[i].size), ==, t[i].load);
    }
    bdrv_unref(none);
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_add_func("/vmstate/through", test_through_filters_and_threads);
    g_test_add_func("/vmstate/refusals", test_refusals);
    return g_test_run();
}
