/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regression tests of known bug classes (QB-nn): drained sections. */
#include "drain-driver.h"
#include "miniblk/coroutine.h"
#include "miniblk/thread.h"

static IOThread *io;
static AioContext *io_ctx;
static char buffer[512];

static void one_read(BlockBackend *blk)
{
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buffer), buffer, 0), ==, 0);
}

/* ---- QB-19, QB-24: the last completion and the waiter who is about to sleep ------------- */

/*
 *      main                                IOThread
 *      drain: in flight > 0
 *                                          the last request ends: in flight--
 *                                          kick
 *      sleep: must be woken
 */
static void coroutine_fn edge_read_entry(void *opaque)
{
    TestDisk *d = opaque;

    bdrv_co_pread(blk_root(d->blk), 0, sizeof(buffer), buffer, 0);
    bdrv_dec_in_flight(d->bs);
}

static void test_qb19(void)
{
    TestDisk d = test_disk_new("d", io_ctx);

    for (int i = 0; i < test_rounds(3000); i++) {
        test_state(d.bs)->sleep_hops = i % 3;
        bdrv_inc_in_flight(d.bs);
        aio_co_schedule(io_ctx, qemu_coroutine_create(edge_read_entry, &d));
        bdrv_drained_begin(d.bs);
        g_assert_cmpint(test_state(d.bs)->requests_finished, ==, i + 1);
        bdrv_drained_end(d.bs);
    }
    test_disk_free(&d);
}

static void read_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    qatomic_inc((int *)opaque);
}

static void test_qb24(void)
{
    TestDisk d = test_disk_new("d", io_ctx);
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buffer, sizeof(buffer));
    int done = 0;

    blk_set_disable_request_queuing(d.blk, true);
    for (int i = 0; i < test_rounds(3000); i++) {
        test_state(d.bs)->sleep_hops = i % 3;
        blk_aio_preadv(d.blk, 0, &qiov, 0, read_done, &done);
        if (i & 1) {
            bdrv_drain_all();
        } else {
            blk_drain(d.blk);
        }
        g_assert_cmpint(qatomic_read(&done), ==, i + 1);
    }
    test_disk_free(&d);
}

/* ---- QB-23: a synchronous call that ends early ------------------------------------------ */

/*
 *      main                                IOThread
 *      call; poll until it has a result
 *                                          fails or has nothing to do: counters drop, kick
 *                                          result; kick
 */
static void test_qb23(void)
{
    TestDisk d = test_disk_new("d", io_ctx);
    BlockBackend *empty = blk_new(io_ctx, BLK_PERM_ALL, BLK_PERM_ALL);

    for (int i = 0; i < test_rounds(1000); i++) {
        g_assert_cmpint(blk_pread(empty, 0, 512, buffer, 0), ==, -ENOMEDIUM);
        g_assert_cmpint(blk_flush(empty), ==, -ENOMEDIUM);
        g_assert_cmpint(blk_pwrite(d.blk, 0, 0, buffer, 0), ==, 0);
        g_assert_cmpint(blk_pread(d.blk, INT64_MAX - 512, 512, buffer, 0), ==, -EIO);
        g_assert_cmpint(blk_pdiscard(d.blk, 0, 512), ==, 0);
        g_assert_cmpint(bdrv_pread(blk_root(d.blk), -512, 512, buffer, 0), ==, -EIO);
        g_assert_cmpint(bdrv_flush(d.bs), ==, 0);
    }
    blk_unref(empty);
    test_disk_free(&d);
}

/* ---- QB-20: the graph changes under the wait -------------------------------------------- */

/*
 *      top1, top2 (each with requests)  ->  base
 *
 *      main: drain base; polls
 *                  a callback cuts top1 off and deletes it, and puts a third on base
 *            must neither follow stale edges nor forget a level
 */
typedef struct Shuffle {
    TestDisk top[3];
    BlockDriverState *base;
    int done;
} Shuffle;

static void shuffle_bh(void *opaque)
{
    Shuffle *s = opaque;

    blk_unref(s->top[0].blk);
    bdrv_set_backing_hd(s->top[0].bs, NULL, &error_abort);
    test_expect_released(s->top[0].bs);
    bdrv_unref(s->top[0].bs);
    bdrv_set_backing_hd(s->top[2].bs, s->base, &error_abort);
    g_assert_cmpint(s->top[2].bs->quiesce_counter, ==, 1);
}

static void test_qb20(void)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buffer, sizeof(buffer));

    for (int hops = 1; hops < 20; hops++) {
        Shuffle s = { .base = test_node("base") };
        for (int i = 0; i < 3; i++) {
            s.top[i] = test_disk_new(i ? i > 1 ? "t2" : "t1" : "t0", qemu_get_aio_context());
            test_state(s.top[i].bs)->sleep_hops = hops;
            if (i < 2) {
                bdrv_set_backing_hd(s.top[i].bs, s.base, &error_abort);
                blk_aio_preadv(s.top[i].blk, 0, &qiov, 0, read_done, &s.done);
            }
        }
        aio_bh_schedule_oneshot(qemu_get_aio_context(), shuffle_bh, &s);
        bdrv_drained_begin(s.base);
        g_assert_cmpint(s.done, ==, 2);
        g_assert_cmpint(s.top[1].bs->quiesce_counter, ==, 1);
        g_assert_cmpint(s.top[2].bs->quiesce_counter, ==, 1);
        bdrv_drained_end(s.base);
        test_disk_free(&s.top[1]);
        test_disk_free(&s.top[2]);
        test_expect_released(s.base);
        bdrv_unref(s.base);
    }
}

/* ---- QB-32: a node is deleted inside a global section ----------------------------------- */

/*
 *      main: drain_all_begin
 *                  one node goes (in the wait or after it), another comes
 *            drain_all_end: whoever shares a context with it must go on
 */
typedef struct Drop {
    BlockDriverState *goes, *stays;
} Drop;

static void drop_bh(void *opaque)
{
    Drop *drop = opaque;

    bdrv_unref(drop->goes);
    bdrv_dec_in_flight(drop->stays);    /* what the section waits for */
    drop->goes = NULL;
}

static void test_qb32(void)
{
    for (int in_the_wait = 0; in_the_wait < 2; in_the_wait++) {
        TestDisk d = test_disk_new("stays", io_ctx);
        Drop drop = { test_node("goes"), d.bs };

        bdrv_try_change_aio_context(drop.goes, io_ctx, NULL, &error_abort);
        if (in_the_wait) {
            bdrv_inc_in_flight(d.bs);
            aio_bh_schedule_oneshot(qemu_get_aio_context(), drop_bh, &drop);
        }
        bdrv_drain_all_begin();
        if (!in_the_wait) {
            bdrv_unref(drop.goes);
        }
        BlockDriverState *comes = test_node("comes");
        bdrv_drain_all_end();
        test_expect_released(d.bs);
        test_expect_released(comes);
        bdrv_unref(comes);
        one_read(d.blk);
        test_disk_free(&d);
    }
}

/* ---- QB-33: the end of a section changes the graph -------------------------------------- */

/*
 *      backend A  ->  bs  <-  node B
 *
 *      main: drained_end(bs)
 *                  A is released: it detaches B, or begins a section of its own
 *            B must have got back what it was given, once
 */
typedef struct Ender {
    BlockDriverState *bs, *b;
    BlockBackend *a;
    bool drain_again;
    int ends;
} Ender;

static void ender_drained_end(void *opaque)
{
    Ender *e = opaque;

    if (e->ends++) {
        return;
    }
    if (e->drain_again) {
        bdrv_drained_begin(e->bs);
        g_assert_cmpint(e->b->quiesce_counter, ==, 1 + e->b->drain_all_levels);
    }
    bdrv_set_backing_hd(e->b, NULL, &error_abort);
    /* nothing but what a global section may owe it still */
    g_assert_cmpint(e->b->quiesce_counter, ==, e->b->drain_all_levels);
    if (e->drain_again) {
        bdrv_drained_end(e->bs);
    }
}

static const BlockDevOps ender_ops = { .drained_end = ender_drained_end };

static void test_qb33(void)
{
    for (int variant = 0; variant < 8; variant++) {
        Ender e = { .bs = test_node("bs"), .b = test_node("b"),
                    .drain_again = variant & 1 };
        if (variant & 2) {      /* A's edge before or after B's */
            e.a = test_backend(e.bs);
        }
        bdrv_set_backing_hd(e.b, e.bs, &error_abort);
        if (!e.a) {
            e.a = test_backend(e.bs);
        }
        blk_set_dev_ops(e.a, &ender_ops, &e);
        if (variant & 4) {
            bdrv_drain_all_begin();
            bdrv_drain_all_end();
        } else {
            bdrv_drained_begin(e.bs);
            bdrv_drained_end(e.bs);
        }
        g_assert_cmpint(e.ends, >=, 1);
        test_expect_released(e.bs);
        test_expect_released(e.b);
        g_assert_false(blk_in_drain(e.a));
        blk_set_dev_ops(e.a, NULL, NULL);
        blk_unref(e.a);
        bdrv_unref(e.b);
        bdrv_unref(e.bs);
    }
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(&io, &io_ctx, 1);

    g_test_add_func("/classes/QB-19-asleep-at-the-last-completion", test_qb19);
    g_test_add_func("/classes/QB-20-graph-changes-under-the-wait", test_qb20);
    g_test_add_func("/classes/QB-23-call-ends-early", test_qb23);
    g_test_add_func("/classes/QB-24-count-after-kick", test_qb24);
    g_test_add_func("/classes/QB-32-deleted-in-a-global-section", test_qb32);
    g_test_add_func("/classes/QB-33-end-of-section-changes-the-graph", test_qb33);
    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
