/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest cases of drained sections, moves and graph changes, one request or two each,
 * so that a controlled scheduler can try many of their interleavings. Natively each is one
 * roll of the dice. A drain that hangs shows as a case that does not end.
 */
#include "drain-driver.h"
#include "loop-parts.h"
#include "miniblk/coroutine.h"
#include "miniblk/graph-lock.h"
#include "miniblk/throttle-groups.h"

static IOThread *io[2];
static AioContext *io_ctx[2];

static void move(BlockBackend *blk, AioContext *ctx)
{
    AioContext *old = blk_get_aio_context(blk);

    aio_context_acquire(old);
    blk_set_aio_context(blk, ctx, &error_abort);
    aio_context_release(old);
}

/* A node in an IOThread, its backend, and how many of its requests have ended. */
typedef struct Disk {
    BlockDriverState *bs;
    BlockBackend *blk;
    QEMUIOVector qiov;
    char buffer[512];           /* its own: two disks may be in two threads */
    int done;                   /* atomic */
} Disk;

static void disk_init(Disk *d, AioContext *ctx, int hops)
{
    *d = (Disk) { .bs = test_node("d") };
    d->qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(d->qiov, d->buffer,
                                                  sizeof(d->buffer));
    d->blk = test_backend(d->bs);
    test_state(d->bs)->sleep_hops = hops;
    move(d->blk, ctx);
}

static void disk_free(Disk *d)
{
    move(d->blk, qemu_get_aio_context());
    blk_unref(d->blk);
    g_assert_cmpint(d->bs->quiesce_counter, ==, 0);
    g_assert_cmpint(d->bs->in_flight, ==, 0);
    bdrv_unref(d->bs);
}

static void read_done(void *opaque, int ret)
{
    Disk *d = opaque;

    g_assert_cmpint(ret, ==, 0);
    qatomic_inc(&d->done);
    aio_wait_kick();
}

static void submit(Disk *d)
{
    blk_aio_preadv(d->blk, 0, &d->qiov, 0, read_done, d);
}

static void wait_for(Disk *d, int done)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&d->done) < done);
}

/* Nothing runs between begin and end. */
static void section(Disk *d)
{
    TestNode *s = test_state(d->bs);

    bdrv_drained_begin(d->bs);
    int started = qatomic_read(&s->requests_started);
    g_assert_cmpint(qatomic_read(&s->requests_finished), ==, started);
    qatomic_set(&s->submit_forbidden, true);
    aio_wait_bh_oneshot(blk_get_aio_context(d->blk), test_nothing_bh, NULL);
    qatomic_set(&s->submit_forbidden, false);
    bdrv_drained_end(d->bs);
}

static void test_idle(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 0);
    section(&d);
    disk_free(&d);
}

static void test_one_request(gconstpointer hops)
{
    Disk d;

    disk_init(&d, io_ctx[0], GPOINTER_TO_INT(hops));
    submit(&d);
    section(&d);
    wait_for(&d, 1);
    disk_free(&d);
}

/* The section waits for the request and its callback, where requests are not held back. */
static void test_not_queued(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    blk_set_disable_request_queuing(d.blk, true);
    submit(&d);
    bdrv_drained_begin(d.bs);
    g_assert_cmpint(qatomic_read(&d.done), ==, 1);
    bdrv_drained_end(d.bs);
    disk_free(&d);
}

/*
 *      main                                IOThread
 *      begin
 *      submit                              parks
 *      end: the request is to go on
 *      begin: nothing in flight
 *                                          it runs: must park again
 */
static void test_parked_between(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 0);
    bdrv_drained_begin(d.bs);
    submit(&d);
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);
    bdrv_drained_end(d.bs);
    section(&d);
    wait_for(&d, 1);
    disk_free(&d);
}

static void test_deleted_in_global(void)
{
    BlockDriverState *top = test_node("top"), *base = test_node("base");

    bdrv_set_backing_hd(top, base, &error_abort);
    bdrv_drain_all_begin();
    bdrv_unref(top);
    bdrv_drain_all_end();
    g_assert_cmpint(base->quiesce_counter, ==, 0);
    g_assert_cmpint(test_state(base)->drained, ==, 0);
    bdrv_unref(base);
}

static void test_two_sections(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    submit(&d);
    section(&d);
    section(&d);
    wait_for(&d, 1);
    disk_free(&d);
}

static void test_nested(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    submit(&d);
    bdrv_drained_begin(d.bs);
    section(&d);
    g_assert_cmpint(d.bs->quiesce_counter, ==, 1);
    bdrv_drained_end(d.bs);
    wait_for(&d, 1);
    disk_free(&d);
}

static void test_synchronous(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 0);
    g_assert_cmpint(blk_pread(d.blk, 0, sizeof(d.buffer), d.buffer, 0), ==, 0);
    g_assert_cmpint(blk_pread(d.blk, -512, sizeof(d.buffer), d.buffer, 0), ==, -EIO);
    disk_free(&d);
}

static void test_drain_all(void)
{
    Disk d, e;

    disk_init(&d, io_ctx[0], 1);
    e = (Disk) { .bs = test_node("e") };
    e.qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(e.qiov, e.buffer, sizeof(e.buffer));
    e.blk = test_backend(e.bs);
    move(e.blk, io_ctx[1]);
    submit(&d);
    submit(&e);
    bdrv_drain_all_begin();
    g_assert_cmpint(test_state(d.bs)->requests_started, ==,
                    test_state(d.bs)->requests_finished);
    g_assert_cmpint(test_state(e.bs)->requests_started, ==,
                    test_state(e.bs)->requests_finished);
    bdrv_drain_all_end();
    wait_for(&d, 1);
    wait_for(&e, 1);
    disk_free(&e);
    disk_free(&d);
}

static void test_drain_all_backends(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    submit(&d);
    blk_drain_all();
    wait_for(&d, 1);
    disk_free(&d);
}

/* One request on an edge below a backend: the token is the node's own. */
static void coroutine_fn edge_read_entry(void *opaque)
{
    Disk *d = opaque;

    bdrv_co_pread(blk_root(d->blk), 0, sizeof(d->buffer), d->buffer, 0);
    bdrv_dec_in_flight(d->bs);
}

static void test_last_completion(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 0);
    bdrv_inc_in_flight(d.bs);
    aio_co_schedule(io_ctx[0], qemu_coroutine_create(edge_read_entry, &d));
    bdrv_drained_begin(d.bs);
    g_assert_cmpint(test_state(d.bs)->requests_finished, ==, 1);
    bdrv_drained_end(d.bs);
    disk_free(&d);
}

static void test_context_lock_held(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    submit(&d);
    aio_context_acquire(io_ctx[0]);
    aio_context_acquire(io_ctx[0]);
    bdrv_drained_begin(d.bs);
    bdrv_drained_end(d.bs);
    aio_context_release(io_ctx[0]);
    aio_context_release(io_ctx[0]);
    wait_for(&d, 1);
    disk_free(&d);
}

typedef struct Drainer {
    Disk d;
    bool drained;               /* atomic */
} Drainer;

static void coroutine_fn drainer_entry(void *opaque)
{
    Drainer *r = opaque;

    bdrv_drained_begin(r->d.bs);
    g_assert_cmpint(test_state(r->d.bs)->requests_started, ==,
                    test_state(r->d.bs)->requests_finished);
    bdrv_drained_end(r->d.bs);
    qatomic_set_mb(&r->drained, true);
    aio_wait_kick();
}

static void test_from_coroutine(void)
{
    Drainer r = { .drained = false };

    disk_init(&r.d, io_ctx[0], 1);
    submit(&r.d);
    qemu_coroutine_enter(qemu_coroutine_create(drainer_entry, &r));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&r.drained));
    wait_for(&r.d, 1);
    disk_free(&r.d);
}

static void test_move_busy(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    submit(&d);
    move(d.blk, io_ctx[1]);
    wait_for(&d, 1);
    submit(&d);
    move(d.blk, qemu_get_aio_context());
    wait_for(&d, 2);
    g_assert_cmpint(test_state(d.bs)->attached, ==, 3);
    disk_free(&d);
}

/*
 * A member of a throttle group leaves it while a request passes, or waits until the end of
 * time.
 *
 *      main                    IOThread
 *                              request: passes, or waits for its turn
 *      section: all pass
 *                              request ends
 *      the member leaves
 *                              nobody looks at the group for its sake
 */
static void test_member_leaves(gconstpointer ops)
{
    ThrottleConfig cfg;
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    blk_io_limits_enable(d.blk, "group");
    throttle_config_init(&cfg);
    cfg.buckets[THROTTLE_OPS_TOTAL] = (LeakyBucket) { .avg = 1, .max = GPOINTER_TO_INT(ops),
                                                      .burst_length = 1 };
    blk_set_io_limits(d.blk, &cfg);
    submit(&d);
    submit(&d);
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);   /* they have begun */
    blk_io_limits_disable(d.blk);
    g_assert_cmpint(qatomic_read(&d.done), ==, 2);
    g_assert_false(throttle_group_exists("group"));
    aio_wait_bh_oneshot(io_ctx[0], test_nothing_bh, NULL);   /* what was left has run */
    disk_free(&d);
}

/* What runs in the waits of a move sees both nodes in one context. */
typedef struct Chain {
    BlockDriverState *top, *base;
    bool moved;
    int looks;
} Chain;

static void look_bh(void *opaque)
{
    Chain *c = opaque;

    g_assert_true(bdrv_get_aio_context(c->top) == bdrv_get_aio_context(c->base));
    g_assert_cmpint(test_state(c->top)->attached, ==, test_state(c->base)->attached);
    c->looks++;
    if (!c->moved) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), look_bh, c);
    }
}

static void test_nobody_sees_half(void)
{
    Chain c = { test_node("top"), test_node("base") };

    bdrv_set_backing_hd(c.top, c.base, &error_abort);
    bdrv_inc_in_flight(c.base);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), look_bh, &c);
    aio_bh_schedule_oneshot(io_ctx[1], (QEMUBHFunc *)bdrv_dec_in_flight, c.base);
    bdrv_try_change_aio_context(c.base, io_ctx[0], NULL, &error_abort);
    c.moved = true;
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* the last look */
    }
    g_assert_cmpint(c.looks, >, 0);
    aio_context_acquire(io_ctx[0]);
    bdrv_try_change_aio_context(c.base, qemu_get_aio_context(), NULL, &error_abort);
    aio_context_release(io_ctx[0]);
    bdrv_unref(c.top);
    bdrv_unref(c.base);
}

/*
 * A node whose other references all go while its graph moves.
 *
 *      main: move of base      IOThread
 *      quiesces top, base      ends the request that the move waits for
 *      the wait: top goes
 *      moves base alone, and is done with top
 */
static void unref_bh(void *opaque)
{
    bdrv_unref(opaque);
}

static void test_node_goes(void)
{
    BlockDriverState *top = test_node("top"), *base = test_node("base");

    bdrv_set_backing_hd(top, base, &error_abort);
    bdrv_inc_in_flight(base);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), unref_bh, top);
    aio_bh_schedule_oneshot(io_ctx[1], (QEMUBHFunc *)bdrv_dec_in_flight, base);
    bdrv_try_change_aio_context(base, io_ctx[0], NULL, &error_abort);
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* it may go after the move, too */
    }
    g_assert_null(bdrv_find_node("top"));
    g_assert_true(QLIST_EMPTY(&base->parents));
    g_assert_cmpint(base->quiesce_counter, ==, 0);
    aio_context_acquire(io_ctx[0]);
    bdrv_try_change_aio_context(base, qemu_get_aio_context(), NULL, &error_abort);
    aio_context_release(io_ctx[0]);
    bdrv_unref(base);
}

/* A bottom half that will submit holds a token. */
static void restart_bh(void *opaque)
{
    Disk *d = opaque;

    g_assert_true(blk_get_aio_context(d->blk) == qemu_get_current_aio_context());
    submit(d);
    blk_dec_in_flight(d->blk);
}

static void test_counted_work(void)
{
    Disk d;

    disk_init(&d, io_ctx[0], 0);
    blk_inc_in_flight(d.blk);
    aio_bh_schedule_oneshot(io_ctx[0], restart_bh, &d);
    section(&d);
    move(d.blk, io_ctx[1]);
    wait_for(&d, 1);
    disk_free(&d);
}

/* A reader in an IOThread and a writer. */
typedef struct Reader {
    bool done;                  /* atomic */
    int inside;                 /* atomic */
} Reader;

static void coroutine_fn reader_entry(void *opaque)
{
    Reader *r = opaque;

    WITH_GRAPH_RDLOCK_GUARD() {
        qatomic_inc(&r->inside);
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
        qatomic_dec(&r->inside);
    }
    qatomic_set_mb(&r->done, true);
    aio_wait_kick();
}

static void test_graph_lock(void)
{
    Reader r = { .done = false };

    aio_co_schedule(io_ctx[0], qemu_coroutine_create(reader_entry, &r));
    bdrv_graph_wrlock();
    g_assert_cmpint(qatomic_read(&r.inside), ==, 0);
    bdrv_graph_wrunlock();
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&r.done));
}

/* Whoever has replaced a node may free it: no request is inside. */
static void test_replaced(void)
{
    BlockDriverState *new = test_node("new");
    Disk d;

    disk_init(&d, io_ctx[0], 1);
    bdrv_try_change_aio_context(new, io_ctx[0], NULL, &error_abort);
    submit(&d);
    aio_context_acquire(io_ctx[0]);
    bdrv_replace_node(d.bs, new, &error_abort);
    aio_context_release(io_ctx[0]);
    g_assert_cmpint(qatomic_read(&test_state(d.bs)->requests_started), ==,
                    qatomic_read(&test_state(d.bs)->requests_finished));
    bdrv_unref(d.bs);
    d.bs = new;
    wait_for(&d, 1);
    disk_free(&d);
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(io, io_ctx, 2);
    for (int i = 0; i < 2; i++) {
        aio_context_set_poll_params(io_ctx[i], 0, 0, 0, &error_abort);
    }
    g_test_add_func("/small/drain/idle", test_idle);
    g_test_add_data_func("/small/drain/one-request", GINT_TO_POINTER(0), test_one_request);
    g_test_add_data_func("/small/drain/one-slow-request", GINT_TO_POINTER(2),
                         test_one_request);
    g_test_add_func("/small/drain/not-queued", test_not_queued);
    g_test_add_func("/small/drain/two-sections", test_two_sections);
    g_test_add_func("/small/drain/parked-between-two", test_parked_between);
    g_test_add_func("/small/drain/nested", test_nested);
    g_test_add_func("/small/drain/synchronous", test_synchronous);
    g_test_add_func("/small/drain/all", test_drain_all);
    g_test_add_func("/small/drain/all-backends", test_drain_all_backends);
    g_test_add_func("/small/drain/deleted-in-a-global-section", test_deleted_in_global);
    g_test_add_func("/small/drain/last-completion", test_last_completion);
    g_test_add_func("/small/drain/context-lock-held", test_context_lock_held);
    g_test_add_func("/small/drain/from-a-coroutine", test_from_coroutine);
    g_test_add_func("/small/drain/counted-work", test_counted_work);
    g_test_add_data_func("/small/drain/throttled-passes-and-leaves", GINT_TO_POINTER(10),
                         test_member_leaves);
    g_test_add_data_func("/small/drain/throttled-waits-and-leaves", GINT_TO_POINTER(0),
                         test_member_leaves);
    g_test_add_func("/small/move/busy", test_move_busy);
    g_test_add_func("/small/move/nobody-sees-half-of-it", test_nobody_sees_half);
    g_test_add_func("/small/move/a-node-goes-meanwhile", test_node_goes);
    g_test_add_func("/small/graph/reader-and-writer", test_graph_lock);
    g_test_add_func("/small/graph/replaced-under-a-request", test_replaced);
    int ret = g_test_run();
    test_threads_stop(io, 2);
    return ret;
}
