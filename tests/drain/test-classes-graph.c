/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regression tests of known bug classes (QB-nn): changes of the graph, moves of it between
 * threads, and jobs in it.
 */
#include "drain-driver.h"
#include "miniblk/blockjob.h"
#include "miniblk/coroutine.h"
#include "miniblk/graph-lock.h"

static IOThread *io[2];
static AioContext *io_ctx[2];
static char buffer[512];

/* ---- QB-35: the node or backend that one waits for is gone after the wait --------------- */

/*
 *      main: blk_drain, blk_remove_bs or blk_unref: waits for CALLER's token
 *                  a callback changes the root of the backend and drops the old root's last
 *                  reference, or takes a reference to the backend and drops it
 *            must end the section of the node that it began it on
 */
typedef struct Rooted {
    BlockBackend *blk;
    BlockDriverState *old, *new;
} Rooted;

static void root_removed_bh(void *opaque)
{
    Rooted *r = opaque;

    blk_dec_in_flight(r->blk);
    blk_remove_bs(r->blk);
    bdrv_unref(r->old);
}

static void root_changed_bh(void *opaque)
{
    Rooted *r = opaque;

    root_removed_bh(r);
    blk_insert_bs(r->blk, r->new, &error_abort);
}

static void root_replaced_bh(void *opaque)
{
    Rooted *r = opaque;

    blk_dec_in_flight(r->blk);
    bdrv_replace_node(r->old, r->new, &error_abort);
    bdrv_unref(r->old);
}

static void backend_referenced_bh(void *opaque)
{
    Rooted *r = opaque;

    blk_dec_in_flight(r->blk);
    blk_ref(r->blk);
    blk_unref(r->blk);
    bdrv_unref(r->old);
}

static void do_drain(Rooted *r)
{
    blk_drain(r->blk);
    g_assert_false(blk_in_drain(r->blk));
    blk_unref(r->blk);
}

static void do_drain_all(Rooted *r)
{
    blk_drain_all();
    g_assert_false(blk_in_drain(r->blk));
    blk_unref(r->blk);
}

static void do_remove(Rooted *r)
{
    blk_remove_bs(r->blk);
    g_assert_null(blk_bs(r->blk));
    g_assert_false(blk_in_drain(r->blk));
    blk_unref(r->blk);
}

static void do_unref(Rooted *r)
{
    blk_unref(r->blk);
}

static void test_qb35(void)
{
    static QEMUBHFunc *const callbacks[] = {
        root_removed_bh, root_changed_bh, root_replaced_bh, backend_referenced_bh,
    };
    static void (*const calls[])(Rooted *r) = { do_drain, do_drain_all, do_remove, do_unref };

    for (unsigned cb = 0; cb < ARRAY_SIZE(callbacks); cb++) {
        for (unsigned call = 0; call < ARRAY_SIZE(calls); call++) {
            Rooted r = { .old = test_node("old"), .new = test_node("new") };
            r.blk = test_backend(r.old);
            blk_inc_in_flight(r.blk);
            aio_bh_schedule_oneshot(qemu_get_aio_context(), callbacks[cb], &r);
            calls[call](&r);
            test_expect_released(r.new);
            g_assert_null(bdrv_find_node("old"));
            g_assert_true(QLIST_EMPTY(&r.new->parents));
            bdrv_unref(r.new);
        }
    }
}

/* ---- QB-51: requests hold the edge that is changed -------------------------------------- */

/*
 *      IOThread                            main
 *      requests through the backend's root
 *                                          replace the root's node: waits for them
 *      none is in the old node any more
 *                                          free the old node
 */
static void coroutine_fn read_once(TestLoad *l)
{
    g_assert_cmpint(blk_co_pread(l->blk, 0, 512, buffer, 0), ==, 0);
    qatomic_inc(&l->requests);
}

static BlockDriverState *node_in(const char *name, AioContext *ctx)
{
    BlockDriverState *bs = test_node(name);

    test_state(bs)->sleep_hops = 2;
    test_move(bs, ctx);
    return bs;
}

static void test_qb51_replace(void)
{
    static const char *const names[] = { "even", "odd" };
    BlockDriverState *bs = node_in(names[0], io_ctx[0]);
    BlockBackend *blk = test_backend(bs);
    TestLoad l;

    test_load_start(&l, blk, 8, read_once);
    for (int i = 0; i < test_rounds(120); i++) {
        BlockDriverState *new = node_in(names[!(i & 1)], io_ctx[0]);
        aio_context_acquire(io_ctx[0]);
        bdrv_replace_node(bs, new, &error_abort);
        aio_context_release(io_ctx[0]);
        TestNode *s = test_state(bs);
        g_assert_cmpint(qatomic_read(&s->requests_started), ==,
                        qatomic_read(&s->requests_finished));
        g_assert_cmpint(qatomic_read(&bs->in_flight), ==, 0);
        bdrv_unref(bs);
        bs = new;
        if (i % 8 == 0) {
            test_load_wait_for_progress(&l);
        }
    }
    test_load_stop(&l);
    test_move(bs, qemu_get_aio_context());
    blk_unref(blk);
    bdrv_unref(bs);
}

/* The same with the root taken away and given back: flushes are suspended in it. */
static void coroutine_fn read_or_nothing(TestLoad *l)
{
    int ret = blk_co_pread(l->blk, 0, 512, buffer, 0);
    g_assert_true(ret == 0 || ret == -ENOMEDIUM);
    ret = blk_co_flush(l->blk);
    g_assert_true(ret == 0 || ret == -ENOMEDIUM);
    qatomic_inc(&l->requests);
}

static void test_qb51_eject(void)
{
    BlockDriverState *bs = test_node("bs");
    BlockBackend *blk = test_backend(bs);
    TestLoad l;

    test_state(bs)->sleep_hops = 2;
    aio_context_acquire(io_ctx[0]);
    blk_set_aio_context(blk, io_ctx[0], &error_abort);
    aio_context_release(io_ctx[0]);
    test_load_start(&l, blk, 8, read_or_nothing);
    for (int i = 0; i < test_rounds(80); i++) {
        aio_context_acquire(io_ctx[0]);
        blk_remove_bs(blk);
        aio_context_release(io_ctx[0]);
        TestNode *s = test_state(bs);
        g_assert_cmpint(qatomic_read(&s->requests_started), ==,
                        qatomic_read(&s->requests_finished));
        blk_drain_all();
        test_move(bs, io_ctx[0]);
        aio_context_acquire(io_ctx[0]);
        blk_insert_bs(blk, bs, &error_abort);
        aio_context_release(io_ctx[0]);
        if (i % 8 == 0) {
            test_load_wait_for_progress(&l);
        }
    }
    test_load_stop(&l);
    test_move(bs, qemu_get_aio_context());
    blk_unref(blk);
    bdrv_unref(bs);
}

/* ---- QB-52: two changes of one chain ---------------------------------------------------- */

/*
 *      top -> mid -> base -> deep
 *
 *      first: drop mid, top -> base; waits
 *                  second: base goes, mid -> deep
 *             must not put base back
 */
typedef struct Overlap {
    BlockDriverState *top, *mid, *base, *deep;
    BlockBackend *blk;
    int second_ret;
    void (*second)(struct Overlap *o);
} Overlap;

static void overlap_bh(void *opaque)
{
    Overlap *o = opaque;

    blk_dec_in_flight(o->blk);
    o->second(o);
    bdrv_unref(o->base);
}

static int change_backing_file(BlockDriverState *bs, const char *file, const char *format)
{
    return 0;
}

static void second_drops_base(Overlap *o)
{
    g_assert_cmpint(bdrv_drop_intermediate(o->base, o->deep, NULL), ==, 0);
}

static void second_replaces_base(Overlap *o)
{
    bdrv_replace_node(o->base, o->deep, &error_abort);
}

static void test_qb52(void)
{
    static void (*const seconds[])(Overlap *o) = { second_drops_base, second_replaces_base };

    bdrv_test.bdrv_change_backing_file = change_backing_file;
    for (unsigned i = 0; i < ARRAY_SIZE(seconds); i++) {
        Overlap o = { .top = test_node("top"), .mid = test_node("mid"),
                      .base = test_node("base"), .deep = test_node("deep"),
                      .second = seconds[i] };
        bdrv_set_backing_hd(o.base, o.deep, &error_abort);
        bdrv_set_backing_hd(o.mid, o.base, &error_abort);
        bdrv_set_backing_hd(o.top, o.mid, &error_abort);
        o.blk = test_backend(o.top);
        blk_inc_in_flight(o.blk);
        aio_bh_schedule_oneshot(qemu_get_aio_context(), overlap_bh, &o);
        g_assert_cmpint(bdrv_drop_intermediate(o.mid, o.base, NULL), <, 0);
        g_assert_null(bdrv_find_node("base"));
        g_assert_true(o.top->backing->bs == o.mid);
        g_assert_true(o.mid->backing->bs == o.deep);
        test_expect_released(o.top);
        test_expect_released(o.mid);
        test_expect_released(o.deep);
        blk_unref(o.blk);
        bdrv_unref(o.top);
        bdrv_unref(o.mid);
        bdrv_unref(o.deep);
    }
    bdrv_test.bdrv_change_backing_file = NULL;
}

/* ---- QB-44: nobody sees a graph in two threads ------------------------------------------ */

/*
 *      main: moves  a, b -> base
 *                  whatever runs in its waits, and each request in an IOThread, finds all
 *                  three nodes in one context
 */
typedef struct Triangle {
    BlockDriverState *a, *b, *base;
    bool stop, watching;
    int looks;
} Triangle;

static void expect_one_context(Triangle *t)
{
    AioContext *ctx = bdrv_get_aio_context(t->base);

    g_assert_true(bdrv_get_aio_context(t->a) == ctx && bdrv_get_aio_context(t->b) == ctx);
    t->looks++;
}

/* A user who follows: under a token nothing moves, so one more look tells. */
static void coroutine_fn follow_and_read(TestLoad *l)
{
    aio_co_reschedule_self(blk_get_aio_context(l->blk));
    blk_inc_in_flight(l->blk);
    if (!blk_in_drain(l->blk) &&
        blk_get_aio_context(l->blk) == qemu_get_current_aio_context()) {
        read_once(l);
    }
    blk_dec_in_flight(l->blk);
}

static void watch_bh(void *opaque)
{
    Triangle *t = opaque;

    expect_one_context(t);
    t->watching = !t->stop;
    if (t->watching) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), watch_bh, t);
    }
}

static void test_qb44(void)
{
    AioContext *ctx[] = { io_ctx[0], io_ctx[1], qemu_get_aio_context() };
    Triangle t = { test_node("a"), test_node("b"), test_node("base"), .watching = true };
    TestLoad load[2];

    bdrv_set_backing_hd(t.a, t.base, &error_abort);
    bdrv_set_backing_hd(t.b, t.base, &error_abort);
    BlockBackend *blk[2] = { test_backend(t.a), test_backend(t.b) };
    test_state(t.a)->sleep_hops = 3;        /* in which the driver checks its context */
    test_state(t.b)->sleep_hops = 1;
    for (int i = 0; i < 2; i++) {
        blk_set_disable_request_queuing(blk[i], true);
        test_load_start(&load[i], blk[i], 4, follow_and_read);
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), watch_bh, &t);
    for (int i = 0; i < test_rounds(15); i++) {
        test_move(i & 1 ? t.a : t.base, ctx[i % 3]);
        expect_one_context(&t);
        test_load_wait_for_progress(&load[i & 1]);
    }
    test_move(t.base, qemu_get_aio_context());
    test_load_stop(&load[0]);
    test_load_stop(&load[1]);
    t.stop = true;
    while (t.watching) {
        aio_poll(qemu_get_aio_context(), false);
    }
    g_assert_cmpint(t.looks, >, 15);
    blk_unref(blk[0]);
    blk_unref(blk[1]);
    test_expect_released(t.base);
    bdrv_unref(t.a);
    bdrv_unref(t.b);
    bdrv_unref(t.base);
}

/* ---- QB-50: a job is paused, and somebody wants to write to the graph ------------------- */

/*
 *      job                                 main
 *      reader lock
 *      works
 *      reader unlock
 *                                          drain_all_begin: pause
 *      pause point: not inside the lock
 *                                          writer lock: nobody reads
 */
typedef struct ReaderJob {
    BlockJob common;
    bool finish;                /* atomic */
    int turns;                  /* atomic */
} ReaderJob;

static int coroutine_fn reader_run(Job *job, Error **errp)
{
    ReaderJob *r = container_of(job, ReaderJob, common.job);

    while (!qatomic_read(&r->finish)) {
        WITH_GRAPH_RDLOCK_GUARD() {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 1000);
            qatomic_inc(&r->turns);
        }
        job_pause_point(job);
    }
    return 0;
}

static const BlockJobDriver reader_job = {
    .job_driver = {
        .instance_size = sizeof(ReaderJob),
        .free = block_job_free,
        .user_resume = block_job_user_resume,
        .run = reader_run,
    },
};

static void test_qb50(gconstpointer opaque)
{
    BlockDriverState *bs = test_node("bs");

    if (opaque) {
        test_move(bs, io_ctx[0]);
    }
    ReaderJob *r = block_job_create("job0", &reader_job, NULL, bs, 0, BLK_PERM_ALL, 0,
                                    JOB_DEFAULT, NULL, NULL, &error_abort);
    job_start(&r->common.job);
    for (int i = 0; i < test_rounds(80); i++) {
        if (i & 1) {
            bdrv_drain_all_begin();
            bdrv_graph_wrlock();
            bdrv_graph_wrunlock();
            bdrv_drain_all_end();
        } else {
            bdrv_graph_wrlock();
            bdrv_graph_wrunlock();
        }
        int turns = qatomic_read(&r->turns);
        while (qatomic_read(&r->turns) == turns) {
            aio_poll(qemu_get_aio_context(), false);
        }
    }
    qatomic_set(&r->finish, true);
    WITH_JOB_LOCK_GUARD() {
        g_assert_cmpint(job_finish_sync_locked(&r->common.job, NULL, &error_abort), ==, 0);
    }
    test_move(bs, qemu_get_aio_context());
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(io, io_ctx, 2);
    g_test_add_func("/classes/QB-35-gone-after-the-wait", test_qb35);
    g_test_add_func("/classes/QB-44-half-moved-graph", test_qb44);
    g_test_add_data_func("/classes/QB-50-paused-reader-and-writer/main-loop", NULL, test_qb50);
    g_test_add_data_func("/classes/QB-50-paused-reader-and-writer/iothread", "io", test_qb50);
    g_test_add_func("/classes/QB-51-edge-changed-under-requests/replace", test_qb51_replace);
    g_test_add_func("/classes/QB-51-edge-changed-under-requests/eject", test_qb51_eject);
    g_test_add_func("/classes/QB-52-two-changes-of-one-chain", test_qb52);
    int ret = g_test_run();
    test_threads_stop(io, 2);
    return ret;
}
