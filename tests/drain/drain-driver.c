/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drain-driver.h"

TestNode *test_state(BlockDriverState *bs)
{
    return bs->opaque;
}

static void drain_begin(BlockDriverState *bs)
{
    test_state(bs)->drained++;
    test_state(bs)->begins++;
}

static void drain_end(BlockDriverState *bs)
{
    test_state(bs)->drained--;
}

static int coroutine_fn request(BlockDriverState *bs)
{
    TestNode *s = test_state(bs);

    g_assert_false(qatomic_read(&s->submit_forbidden));
    qatomic_inc(&s->requests_started);
    for (int i = 0; i < s->sleep_hops; i++) {
        /* off the stack and back through the loop of the node's present home */
        AioContext *ctx = bdrv_get_aio_context(bs);
        g_assert_true(ctx == qemu_get_current_aio_context());
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 1);
        g_assert_true(bdrv_get_aio_context(bs) == ctx);
    }
    qatomic_inc(&s->requests_finished);
    return 0;
}

static int coroutine_fn test_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    qemu_iovec_memset(qiov, 0, 0, bytes);
    return request(bs);
}

static int coroutine_fn test_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return request(bs);
}

static void test_detach(BlockDriverState *bs)
{
    test_state(bs)->detached++;
}

static void test_attach(BlockDriverState *bs, AioContext *ctx)
{
    g_assert_true(bdrv_get_aio_context(bs) == ctx);
    test_state(bs)->attached++;
}

BlockDriver bdrv_test = {
    .format_name = "test",
    .instance_size = sizeof(TestNode),
    .supports_backing = true,
    .bdrv_co_preadv = test_preadv,
    .bdrv_co_pwritev = test_pwritev,
    .bdrv_drain_begin = drain_begin,
    .bdrv_drain_end = drain_end,
    .bdrv_detach_aio_context = test_detach,
    .bdrv_attach_aio_context = test_attach,
    .bdrv_child_perm = bdrv_default_perms,
};

static int coroutine_fn filter_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    request(bs);
    return bdrv_co_preadv(bs->backing, offset, bytes, qiov, flags);
}

static int coroutine_fn filter_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    request(bs);
    return bdrv_co_pwritev(bs->backing, offset, bytes, qiov, flags);
}

BlockDriver bdrv_test_filter = {
    .format_name = "test-filter",
    .instance_size = sizeof(TestNode),
    .is_filter = true,
    .filtered_child_is_backing = true,
    .bdrv_co_preadv = filter_preadv,
    .bdrv_co_pwritev = filter_pwritev,
    .bdrv_drain_begin = drain_begin,
    .bdrv_drain_end = drain_end,
    .bdrv_detach_aio_context = test_detach,
    .bdrv_attach_aio_context = test_attach,
};

BlockDriverState *test_node(const char *name)
{
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_test, name, BDRV_O_RDWR, &error_abort);
    bs->total_sectors = 1 << 11;
    return bs;
}

BlockDriverState *test_filter(const char *name)
{
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_test_filter, name, BDRV_O_RDWR,
                                                &error_abort);
    bs->total_sectors = 1 << 11;
    return bs;
}

BlockBackend *test_backend(BlockDriverState *bs)
{
    BlockBackend *blk = blk_new(bdrv_get_aio_context(bs), BLK_PERM_ALL, BLK_PERM_ALL);
    blk_insert_bs(blk, bs, &error_abort);
    blk_set_allow_aio_context_change(blk, true);
    return blk;
}

/* ---- beginning and end ------------------------------------------------------------------- */

void test_init(int *argc, char ***argv)
{
    g_test_init(argc, argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
}

void test_threads_start(IOThread **io, AioContext **ctx, int count)
{
    for (int i = 0; i < count; i++) {
        g_autofree char *id = g_strdup_printf("io%d", i);
        io[i] = iothread_create(id, &error_abort);
        ctx[i] = iothread_get_aio_context(io[i]);
    }
}

void test_threads_stop(IOThread **io, int count)
{
    for (int i = 0; i < count; i++) {
        iothread_destroy(io[i]);
    }
}

int test_rounds(int quick)
{
#ifdef MINIBLK_LAB
    return MIN(quick, 2);       /* each of many schedules is a case of its own */
#endif
    return g_test_quick() ? quick : quick * 20;
}

bool test_skips_lab(const char *reason)
{
#ifdef MINIBLK_LAB
    g_test_skip(reason);
    return true;
#else
    return false;
#endif
}

void test_move(BlockDriverState *bs, AioContext *ctx)
{
    AioContext *old = bdrv_get_aio_context(bs);

    aio_context_acquire(old);
    bdrv_try_change_aio_context(bs, ctx, NULL, &error_abort);
    aio_context_release(old);
    g_assert_true(bdrv_get_aio_context(bs) == ctx);
}

void test_expect_released(BlockDriverState *bs)
{
    g_assert_cmpint(bs->quiesce_counter, ==, 0);
    g_assert_cmpint(bs->in_flight, ==, 0);
    g_assert_cmpint(test_state(bs)->drained, ==, 0);
}

TestDisk test_disk_new(const char *name, AioContext *ctx)
{
    TestDisk d = { test_node(name), NULL };

    d.blk = test_backend(d.bs);
    test_move(d.bs, ctx);
    return d;
}

void test_disk_free(TestDisk *d)
{
    test_move(d->bs, qemu_get_aio_context());
    blk_unref(d->blk);
    test_expect_released(d->bs);
    bdrv_unref(d->bs);
}

/* ---- load -------------------------------------------------------------------------------- */

static void coroutine_fn load_entry(void *opaque)
{
    TestLoad *l = opaque;
    while (!qatomic_read(&l->stop)) {
        l->request(l);
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    qatomic_dec(&l->running);
    aio_wait_kick();
}

void test_load_start(TestLoad *l, BlockBackend *blk, int coroutines,
                     void coroutine_fn (*request)(TestLoad *l))
{
    *l = (TestLoad) { .blk = blk, .request = request, .running = coroutines };
    for (int i = 0; i < coroutines; i++) {
        aio_co_enter(blk_get_aio_context(blk), qemu_coroutine_create(load_entry, l));
    }
}

void test_load_wait_for_progress(TestLoad *l)
{
    int64_t before = qatomic_read(&l->requests);
    while (qatomic_read(&l->requests) == before) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

void test_load_stop(TestLoad *l)
{
    qatomic_set(&l->stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&l->running) > 0);
}
