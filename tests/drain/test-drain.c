/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Drained sections: what they stop, what they wait for, and how they nest. */
#include "drain-driver.h"

static IOThread *io;
static AioContext *io_ctx;

/* ---- levels ---------------------------------------------------------------------------------- */

/* top (backend) -> mid (backing) -> base */
typedef struct Chain {
    BlockDriverState *top, *base;
    BlockBackend *blk;
} Chain;

static Chain chain_new(void)
{
    Chain c = { test_node("top"), test_node("base"), NULL };
    bdrv_set_backing_hd(c.top, c.base, &error_abort);
    c.blk = test_backend(c.top);
    return c;
}

static void chain_free(Chain *c)
{
    blk_unref(c->blk);
    bdrv_unref(c->top);
    bdrv_unref(c->base);
}

static void test_one_node_does_not_descend(void)
{
    Chain c = chain_new();
    bdrv_drained_begin(c.top);
    g_assert_cmpint(c.top->quiesce_counter, ==, 1);
    g_assert_cmpint(c.base->quiesce_counter, ==, 0);
    g_assert_cmpint(test_state(c.top)->drained, ==, 1);
    g_assert_cmpint(test_state(c.base)->drained, ==, 0);
    bdrv_drained_end(c.top);
    bdrv_drained_begin(c.base);
    g_assert_cmpint(c.top->quiesce_counter, ==, 1);     /* through its child's edge */
    g_assert_cmpint(c.base->quiesce_counter, ==, 1);
    bdrv_drained_end(c.base);
    g_assert_cmpint(c.top->quiesce_counter, ==, 0);
    chain_free(&c);
}

static void test_drain_all_counts_each_edge_once(void)
{
    Chain c = chain_new();
    bdrv_drain_all_begin();
    g_assert_cmpint(c.top->quiesce_counter, ==, 2);
    g_assert_cmpint(c.base->quiesce_counter, ==, 1);
    g_assert_true(blk_in_drain(c.blk));
    bdrv_drain_all_end();
    g_assert_cmpint(c.top->quiesce_counter, ==, 0);
    g_assert_cmpint(c.base->quiesce_counter, ==, 0);
    g_assert_false(blk_in_drain(c.blk));
    chain_free(&c);
}

static void test_sections_nest_and_mix(void)
{
    Chain c = chain_new();
    bdrv_drained_begin(c.base);
    bdrv_drained_begin(c.base);
    bdrv_drain_all_begin();
    bdrv_drained_begin(c.top);
    g_assert_cmpint(c.base->quiesce_counter, ==, 3);
    g_assert_cmpint(c.top->quiesce_counter, ==, 3);
    g_assert_cmpint(test_state(c.base)->begins, ==, 1);
    bdrv_drained_end(c.base);
    bdrv_drain_all_end();
    g_assert_cmpint(c.top->quiesce_counter, ==, 2);
    bdrv_drained_end(c.base);
    g_assert_cmpint(c.top->quiesce_counter, ==, 1);
    bdrv_drained_end(c.top);
    g_assert_cmpint(test_state(c.top)->drained, ==, 0);
    chain_free(&c);
}

static void test_nodes_come_and_go_inside_drain_all(void)
{
    Chain c = chain_new();
    bdrv_drain_all_begin();
    BlockDriverState *late = test_node("late");
    g_assert_cmpint(late->quiesce_counter, ==, 1);
    g_assert_cmpint(test_state(late)->drained, ==, 1);
    bdrv_set_backing_hd(c.top, NULL, &error_abort);
    g_assert_cmpint(c.top->quiesce_counter, ==, 1);
    bdrv_unref(c.base);         /* the last reference */
    bdrv_set_backing_hd(c.top, late, &error_abort);
    g_assert_cmpint(c.top->quiesce_counter, ==, 2);
    bdrv_drain_all_end();
    g_assert_cmpint(c.top->quiesce_counter, ==, 0);
    g_assert_cmpint(late->quiesce_counter, ==, 0);
    g_assert_cmpint(test_state(late)->drained, ==, 0);
    c.base = late;
    chain_free(&c);
}

/* Undrained or drained old and new child: what the parent sees. */
static void test_replacing_a_child_keeps_the_parent_right(void)
{
    for (int old_drained = 0; old_drained < 2; old_drained++) {
        for (int new_drained = 0; new_drained < 2; new_drained++) {
            Chain c = chain_new();
            BlockDriverState *other = test_node("other");
            if (old_drained) {
                bdrv_drained_begin(c.base);
            }
            if (new_drained) {
                bdrv_drained_begin(other);
            }
            int begins = test_state(c.top)->begins;
            bdrv_replace_node(c.base, other, &error_abort);
            g_assert_true(c.top->backing->bs == other);
            g_assert_cmpint(c.top->quiesce_counter, ==, new_drained);
            g_assert_cmpint(test_state(c.top)->drained, ==, new_drained);
            g_assert_cmpint(test_state(c.top)->begins - begins, ==, !old_drained);
            if (old_drained) {
                bdrv_drained_end(c.base);
            }
            if (new_drained) {
                bdrv_drained_end(other);
            }
            g_assert_cmpint(c.top->quiesce_counter, ==, 0);
            bdrv_unref(c.base);
            c.base = other;
            chain_free(&c);
        }
    }
}

/* ---- waiting --------------------------------------------------------------------------------- */

static char buffer[4096];

static void done_cb(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    qatomic_inc((int *)opaque);
    aio_wait_kick();
}

typedef struct Reads {
    QEMUIOVector qiov;
    int done;                   /* atomic */
} Reads;

static void submit(BlockBackend *blk, Reads *r)
{
    if (!r->qiov.size) {
        r->qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(r->qiov, buffer, sizeof(buffer));
    }
    blk_aio_preadv(blk, 0, &r->qiov, 0, done_cb, &r->done);
}

static void test_drain_waits_for_requests(bool iothread, void (*drain)(Chain *c))
{
    Chain c = chain_new();
    Reads r = { .done = 0 };
    test_state(c.top)->sleep_hops = 20;
    if (iothread) {
        blk_set_aio_context(c.blk, io_ctx, &error_abort);
        /* a request that has not begun when the section does would be parked, and that's it */
        blk_set_disable_request_queuing(c.blk, true);
    }
    AioContext *ctx = blk_get_aio_context(c.blk);
    for (int i = 0; i < test_rounds(50); i++) {
        r.done = 0;
        for (int k = 0; k < 8; k++) {
            submit(c.blk, &r);
        }
        aio_context_acquire(ctx);
        drain(&c);
        g_assert_cmpint(r.done, ==, 8);
        g_assert_cmpint(test_state(c.top)->requests_started, ==,
                        test_state(c.top)->requests_finished);
        aio_context_release(ctx);
    }
    if (iothread) {
        aio_context_acquire(ctx);
        blk_set_aio_context(c.blk, qemu_get_aio_context(), &error_abort);
        aio_context_release(ctx);
    }
    chain_free(&c);
}

static void drain_node(Chain *c) { bdrv_drain(c->top); }
static void drain_below(Chain *c) { bdrv_drain(c->base); }
static void drain_everything(Chain *c) { bdrv_drain_all(); }
static void drain_backend(Chain *c) { blk_drain(c->blk); }

static void (*const drains[])(Chain *c) = {
    drain_node, drain_below, drain_everything, drain_backend,
};

static void test_drain_waits(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(drains); i++) {
        test_drain_waits_for_requests(false, drains[i]);
    }
}

static void test_drain_waits_for_an_iothread(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(drains); i++) {
        test_drain_waits_for_requests(true, drains[i]);
    }
}

static void enomedium_cb(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, -ENOMEDIUM);
    *(bool *)opaque = true;
}

static void test_flush_without_medium_completes_later(void)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_ALL, BLK_PERM_ALL);
    bool done = false;
    blk_aio_flush(blk, enomedium_cb, &done);
    g_assert_false(done);
    blk_drain(blk);
    g_assert_true(done);
    blk_unref(blk);
}

/* ---- parking --------------------------------------------------------------------------------- */

/*
 * A loader in an IOThread submits all the time; the main thread drains over and over. While
 * drained nothing may start, and afterwards everything must go on: a request that was woken
 * but has not run its first instruction must not slip into the next section.
 */
static void coroutine_fn read_once(TestLoad *l)
{
    int ret = blk_co_pread(l->blk, 0, 512, buffer, 0);
    g_assert_cmpint(ret, ==, 0);
    qatomic_inc(&l->requests);
}

static void test_nothing_starts_while_drained(void)
{
    Chain c = chain_new();
    TestLoad l;
    blk_set_aio_context(c.blk, io_ctx, &error_abort);
    test_state(c.top)->sleep_hops = 1;
    test_load_start(&l, c.blk, 8, read_once);
    for (int i = 0; i < test_rounds(1000); i++) {
        TestNode *s = test_state(c.top);
        aio_context_acquire(io_ctx);
        bdrv_drained_begin(c.top);
        qatomic_set(&s->submit_forbidden, true);
        g_assert_cmpint(qatomic_read(&s->requests_started), ==,
                        qatomic_read(&s->requests_finished));
        if (i % 4 == 0) {
            bdrv_drained_begin(c.base);
            bdrv_drained_end(c.base);
        }
        qatomic_set(&s->submit_forbidden, false);
        bdrv_drained_end(c.top);
        aio_context_release(io_ctx);
        if (i % 16 == 0) {
            test_load_wait_for_progress(&l);
        }
    }
    test_load_stop(&l);
    aio_context_acquire(io_ctx);
    blk_set_aio_context(c.blk, qemu_get_aio_context(), &error_abort);
    aio_context_release(io_ctx);
    chain_free(&c);
}

/* A device whose last request comes when it is told to stop. */
typedef struct LastRequest {
    BlockBackend *blk;
    Reads reads;
} LastRequest;

static void submit_last(void *opaque)
{
    LastRequest *l = opaque;
    submit(l->blk, &l->reads);
}

static void test_queuing_can_be_switched_off(void)
{
    static const BlockDevOps ops = { .drained_begin = submit_last };

    for (int off = 0; off < 2; off++) {
        Chain c = chain_new();
        LastRequest l = { .blk = c.blk };
        blk_set_disable_request_queuing(c.blk, off);
        blk_set_dev_ops(c.blk, &ops, &l);
        bdrv_drained_begin(c.top);
        g_assert_cmpint(l.reads.done, ==, off);     /* else it is parked */
        bdrv_drained_end(c.top);
        AIO_WAIT_WHILE_UNLOCKED(NULL, l.reads.done == 0);
        blk_set_dev_ops(c.blk, NULL, NULL);
        chain_free(&c);
    }
}

/* ---- in coroutines ---------------------------------------------------------------------------- */

typedef struct CoDrain {
    Chain *c;
    bool done;                  /* atomic */
} CoDrain;

static void coroutine_fn co_drain_entry(void *opaque)
{
    CoDrain *d = opaque;
    AioContext *ctx = qemu_get_current_aio_context();
    bdrv_drained_begin(d->c->top);
    g_assert_true(qemu_get_current_aio_context() == ctx);
    g_assert_cmpint(qatomic_read(&d->c->top->quiesce_counter), ==, 1);
    bdrv_drained_end(d->c->top);
    bdrv_drain_all_begin();
    bdrv_drain_all_end();
    qatomic_set_mb(&d->done, true);
    aio_wait_kick();
}

static void test_drain_in_a_coroutine(void)
{
    Chain c = chain_new();
    for (int iothread = 0; iothread < 2; iothread++) {
        AioContext *ctx = iothread ? io_ctx : qemu_get_aio_context();
        AioContext *old = blk_get_aio_context(c.blk);
        aio_context_acquire(old);
        blk_set_aio_context(c.blk, ctx, &error_abort);
        aio_context_release(old);
        CoDrain d = { .c = &c };
        Reads r = { .done = 0 };
        test_state(c.top)->sleep_hops = 5;
        submit(c.blk, &r);
        aio_co_enter(ctx, qemu_coroutine_create(co_drain_entry, &d));
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&d.done));
        g_assert_cmpint(qatomic_read(&r.done), ==, 1);
    }
    aio_context_acquire(io_ctx);
    blk_set_aio_context(c.blk, qemu_get_aio_context(), &error_abort);
    aio_context_release(io_ctx);
    chain_free(&c);
}

/* ---- graph changes during the poll ---------------------------------------------------------------- */

typedef struct DetachOnDone {
    Chain *c;
    bool done;
} DetachOnDone;

static void detach_cb(void *opaque, int ret)
{
    DetachOnDone *d = opaque;
    /*
     * Inside the drain's poll: the child goes, with its last reference. (The request's own
     * token is held until its callback returns, so this must not drain the backend itself.)
     */
    bdrv_unref_child(d->c->top, d->c->top->backing);
    bdrv_unref(d->c->base);
    d->c->base = NULL;
    d->done = true;
}

static void test_completion_may_delete_a_child(void)
{
    Chain c = chain_new();
    DetachOnDone d = { .c = &c };
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buffer, 512);
    test_state(c.top)->sleep_hops = 3;
    blk_aio_preadv(c.blk, 0, &qiov, 0, detach_cb, &d);
    bdrv_drained_begin(c.top);
    g_assert_true(d.done);
    g_assert_null(c.top->backing);
    bdrv_drained_end(c.top);
    g_assert_cmpint(c.top->quiesce_counter, ==, 0);
    chain_free(&c);
}

static void test_completion_may_delete_inside_drain_all(void)
{
    Chain c = chain_new();
    DetachOnDone d = { .c = &c };
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buffer, 512);
    test_state(c.top)->sleep_hops = 3;
    blk_aio_preadv(c.blk, 0, &qiov, 0, detach_cb, &d);
    bdrv_drain_all_begin();
    g_assert_true(d.done);
    g_assert_cmpint(c.top->quiesce_counter, ==, 1);
    bdrv_drain_all_end();
    g_assert_cmpint(c.top->quiesce_counter, ==, 0);
    chain_free(&c);
}

/* ---- nested in a synchronous call's poll ------------------------------------------------------- */

typedef struct NestedDrain {
    Chain *c;
    int stage;                  /* 1: begun, 2: ended */
} NestedDrain;

static void nested_drain_bh(void *opaque)
{
    NestedDrain *n = opaque;
    n->stage = 1;
    bdrv_drain(n->c->top);
    blk_drain(n->c->blk);
    bdrv_drain_all();
    n->stage = 2;
}

/* The drain runs on top of the frame that waits for the request; it must still end. */
static void test_drain_nested_in_a_synchronous_read(void)
{
    for (int iothread = 0; iothread < 2; iothread++) {
        Chain c = chain_new();
        if (iothread) {
            blk_set_aio_context(c.blk, io_ctx, &error_abort);
        }
        AioContext *ctx = blk_get_aio_context(c.blk);
        test_state(c.top)->sleep_hops = 20;
        for (int i = 0; i < test_rounds(20); i++) {
            NestedDrain n = { .c = &c };
            aio_bh_schedule_oneshot(qemu_get_aio_context(), nested_drain_bh, &n);
            aio_context_acquire(ctx);
            g_assert_cmpint(blk_pread(c.blk, 0, 512, buffer, 0), ==, 0);
            aio_context_release(ctx);
            AIO_WAIT_WHILE_UNLOCKED(NULL, n.stage < 2);
        }
        aio_context_acquire(ctx);
        blk_set_aio_context(c.blk, qemu_get_aio_context(), &error_abort);
        aio_context_release(ctx);
        chain_free(&c);
    }
}

/* A read of an edge from the main thread is counted before its coroutine exists. */
static void test_drain_waits_for_a_spawned_node_request(void)
{
    Chain c = chain_new();
    blk_set_aio_context(c.blk, io_ctx, &error_abort);
    test_state(c.base)->sleep_hops = 2;
    for (int i = 0; i < test_rounds(200); i++) {
        NestedDrain n = { .c = &c };
        aio_bh_schedule_oneshot(qemu_get_aio_context(), nested_drain_bh, &n);
        aio_context_acquire(io_ctx);
        g_assert_cmpint(bdrv_pread(c.top->backing, 0, 512, buffer, 0), ==, 0);
        aio_context_release(io_ctx);
        AIO_WAIT_WHILE_UNLOCKED(NULL, n.stage < 2);
    }
    aio_context_acquire(io_ctx);
    blk_set_aio_context(c.blk, qemu_get_aio_context(), &error_abort);
    aio_context_release(io_ctx);
    chain_free(&c);
}

/* ---- callbacks that change the set of nodes ------------------------------------------------------ */

static BlockDriverState *made[2];

static void make_on_begin(void *opaque)
{
    made[0] = test_node("made-in-begin");
}

static void make_on_end(void *opaque)
{
    made[1] = test_node("made-in-end");
}

static void test_nodes_made_by_callbacks_are_balanced(void)
{
    static const BlockDevOps ops = { .drained_begin = make_on_begin,
                                     .drained_end = make_on_end };
    Chain c = chain_new();
    blk_set_dev_ops(c.blk, &ops, NULL);
    bdrv_drain_all_begin();
    g_assert_cmpint(made[0]->quiesce_counter, ==, 1);
    bdrv_drain_all_end();
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(made[i]->quiesce_counter, ==, 0);
        g_assert_cmpint(test_state(made[i])->drained, ==, 0);
    }
    blk_set_dev_ops(c.blk, NULL, NULL);
    bdrv_unref(made[0]);
    bdrv_unref(made[1]);
    chain_free(&c);
}

static void test_device_callbacks_are_optional(void)
{
    static const BlockDevOps none = { 0 };
    Chain c = chain_new();
    blk_set_dev_ops(c.blk, &none, NULL);
    bdrv_drain(c.top);
    blk_set_dev_ops(c.blk, NULL, NULL);
    chain_free(&c);
}

static void test_attaching_to_a_drained_node_tells_the_driver_once(void)
{
    BlockDriverState *bs = test_node("bs"), *filter = test_filter("filter");
    bdrv_drained_begin(bs);
    bdrv_append(filter, bs, &error_abort);
    g_assert_cmpint(filter->quiesce_counter, ==, 1);
    g_assert_cmpint(test_state(filter)->drained, ==, 1);
    bdrv_drained_end(bs);
    g_assert_cmpint(test_state(filter)->drained, ==, 0);
    g_assert_cmpint(filter->quiesce_counter, ==, 0);
    bdrv_unref(filter);
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    io = iothread_create("io", &error_abort);
    io_ctx = iothread_get_aio_context(io);

    g_test_add_func("/drain/level/no-descent", test_one_node_does_not_descend);
    g_test_add_func("/drain/level/all", test_drain_all_counts_each_edge_once);
    g_test_add_func("/drain/level/mix", test_sections_nest_and_mix);
    g_test_add_func("/drain/level/come-and-go", test_nodes_come_and_go_inside_drain_all);
    g_test_add_func("/drain/level/replace", test_replacing_a_child_keeps_the_parent_right);
    g_test_add_func("/drain/wait/main", test_drain_waits);
    g_test_add_func("/drain/wait/iothread", test_drain_waits_for_an_iothread);
    g_test_add_func("/drain/wait/no-medium", test_flush_without_medium_completes_later);
    g_test_add_func("/drain/park/iothread", test_nothing_starts_while_drained);
    g_test_add_func("/drain/park/off", test_queuing_can_be_switched_off);
    g_test_add_func("/drain/coroutine", test_drain_in_a_coroutine);
    g_test_add_func("/drain/change/delete-child", test_completion_may_delete_a_child);
    g_test_add_func("/drain/change/delete-all", test_completion_may_delete_inside_drain_all);
    g_test_add_func("/drain/nested/blk", test_drain_nested_in_a_synchronous_read);
    g_test_add_func("/drain/nested/node", test_drain_waits_for_a_spawned_node_request);
    g_test_add_func("/drain/callbacks/make-nodes", test_nodes_made_by_callbacks_are_balanced);
    g_test_add_func("/drain/callbacks/optional", test_device_callbacks_are_optional);
    g_test_add_func("/drain/callbacks/attach",
                    test_attaching_to_a_drained_node_tells_the_driver_once);
    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
