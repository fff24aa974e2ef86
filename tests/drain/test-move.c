/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moves between AioContexts: who goes along, who may refuse, what is seen meanwhile. */
#include "drain-driver.h"

static IOThread *io[2];
static AioContext *io_ctx[2];

static void move_home(BlockDriverState *bs)
{
    test_move(bs, qemu_get_aio_context());
}

/* ---- notifiers -------------------------------------------------------------------------------- */

typedef struct Notified {
    BlockDriverState *bs;
    int attached, detached;
    AioContext *seen_before, *seen_after;
} Notified;

static void on_attached(AioContext *ctx, void *opaque)
{
    Notified *n = opaque;
    n->attached++;
    n->seen_after = bdrv_get_aio_context(n->bs);
    g_assert_true(ctx == n->seen_after);
    g_assert_cmpint(n->bs->quiesce_counter, >, 0);
    g_assert_cmpint(n->detached, ==, n->attached);
}

static void on_detach(void *opaque)
{
    Notified *n = opaque;
    n->detached++;
    n->seen_before = bdrv_get_aio_context(n->bs);
    g_assert_cmpint(n->bs->quiesce_counter, >, 0);
}

static void test_notifiers_see_old_then_new(void)
{
    BlockDriverState *bs = test_node("n");
    Notified n = { .bs = bs };
    bdrv_add_aio_context_notifier(bs, on_attached, on_detach, &n);
    test_move(bs, io_ctx[0]);
    g_assert_cmpint(n.attached, ==, 1);
    g_assert_true(n.seen_before == qemu_get_aio_context() && n.seen_after == io_ctx[0]);
    g_assert_cmpint(test_state(bs)->attached, ==, 1);
    test_move(bs, io_ctx[0]);        /* already there: nobody is bothered */
    g_assert_cmpint(n.attached, ==, 1);
    bdrv_remove_aio_context_notifier(bs, on_attached, on_detach, &n);
    move_home(bs);
    g_assert_cmpint(n.attached, ==, 1);
    g_assert_cmpint(test_state(bs)->detached, ==, 2);
    bdrv_unref(bs);
}

static void test_backend_notifiers_follow_the_backend(void)
{
    BlockDriverState *a = test_node("a"), *b = test_node("b");
    BlockBackend *blk = test_backend(a);
    Notified n = { .bs = a };
    blk_add_aio_context_notifier(blk, on_attached, on_detach, &n);
    test_move(a, io_ctx[0]);
    g_assert_cmpint(n.attached, ==, 1);
    g_assert_true(blk_get_aio_context(blk) == io_ctx[0]);
    blk_remove_bs(blk);
    g_assert_true(bdrv_get_aio_context(a) == qemu_get_aio_context());
    g_assert_true(blk_get_aio_context(blk) == io_ctx[0]);
    g_assert_cmpint(n.attached, ==, 1);
    blk_insert_bs(blk, b, &error_abort);        /* pulled into the backend's loop */
    g_assert_true(bdrv_get_aio_context(b) == io_ctx[0]);
    n.bs = b;
    test_move(b, io_ctx[1]);
    g_assert_cmpint(n.attached, ==, 2);
    blk_remove_aio_context_notifier(blk, on_attached, on_detach, &n);
    blk_unref(blk);
    bdrv_unref(a);
    bdrv_unref(b);
}

/* ---- the connected graph ------------------------------------------------------------------------ */

/*
 *        blk
 *         |
 *        top
 *       /   \
 *     left  right          moved at any node, all go
 *       \   /
 *       base
 */
static void test_diamond_moves_as_one(void)
{
    BlockDriverState *top = test_node("top"), *left = test_node("left"),
                     *right = test_node("right"), *base = test_node("base");
    BlockDriverState *all[] = { top, left, right, base };
    bdrv_ref(left);
    bdrv_ref(right);
    bdrv_attach_child(top, left, "left", &child_of_bds, BDRV_CHILD_DATA, &error_abort);
    bdrv_attach_child(top, right, "right", &child_of_bds, BDRV_CHILD_DATA, &error_abort);
    bdrv_set_backing_hd(left, base, &error_abort);
    bdrv_set_backing_hd(right, base, &error_abort);
    BlockBackend *blk = test_backend(top);
    for (unsigned i = 0; i < ARRAY_SIZE(all) * 4; i++) {
        AioContext *to = i % 2 ? io_ctx[0] : io_ctx[1];
        test_move(all[i % ARRAY_SIZE(all)], to);
        for (unsigned k = 0; k < ARRAY_SIZE(all); k++) {
            g_assert_true(bdrv_get_aio_context(all[k]) == to);
            g_assert_cmpint(test_state(all[k])->attached, ==, i + 1);
            g_assert_cmpint(all[k]->quiesce_counter, ==, 0);
        }
        g_assert_true(blk_get_aio_context(blk) == to);
    }
    blk_unref(blk);
    for (unsigned k = 0; k < ARRAY_SIZE(all); k++) {
        bdrv_unref(all[k]);
    }
}

static void test_a_refusal_changes_nothing(void)
{
    BlockDriverState *top = test_node("top"), *base = test_node("base");
    Error *err = NULL;
    bdrv_set_backing_hd(top, base, &error_abort);
    BlockBackend *willing = test_backend(top), *fixed = test_backend(base);
    blk_set_allow_aio_context_change(fixed, false);
    g_assert_cmpint(bdrv_try_change_aio_context(top, io_ctx[0], NULL, &err), ==, -EPERM);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Cannot change iothread of active block backend");
    error_free_or_abort(&err);
    g_assert_true(bdrv_get_aio_context(top) == qemu_get_aio_context());
    g_assert_true(bdrv_get_aio_context(base) == qemu_get_aio_context());
    g_assert_true(blk_get_aio_context(willing) == qemu_get_aio_context());
    g_assert_cmpint(test_state(top)->detached + test_state(base)->detached, ==, 0);
    g_assert_cmpint(top->quiesce_counter + base->quiesce_counter, ==, 0);
    blk_set_allow_aio_context_change(fixed, true);
    test_move(top, io_ctx[0]);
    g_assert_true(blk_get_aio_context(fixed) == io_ctx[0]);
    move_home(top);
    blk_unref(willing);
    blk_unref(fixed);
    bdrv_unref(top);
    bdrv_unref(base);
}

static void test_a_filter_lands_where_its_node_is_held(void)
{
    BlockDriverState *bs = test_node("bs"), *filter = test_filter("filter");
    BlockBackend *blk = test_backend(bs);
    test_move(bs, io_ctx[0]);
    blk_set_allow_aio_context_change(blk, false);
    aio_context_acquire(io_ctx[0]);
    bdrv_append(filter, bs, &error_abort);
    aio_context_release(io_ctx[0]);
    g_assert_true(bdrv_get_aio_context(filter) == io_ctx[0]);
    g_assert_true(blk_bs(blk) == filter);
    blk_set_allow_aio_context_change(blk, true);
    blk_unref(blk);
    bdrv_unref(filter);
    bdrv_unref(bs);
}

static void test_a_thousand_nodes_move_in_linear_time(void)
{
    enum { N = 1000 };
    if (test_skips_lab("its size is the point")) {
        return;
    }
    g_autofree BlockDriverState **bs = g_new(BlockDriverState *, N);
    for (int i = 0; i < N; i++) {
        bs[i] = test_node(NULL);
        if (i) {
            bdrv_set_backing_hd(bs[i], bs[i - 1], &error_abort);
        }
    }
    test_move(bs[N / 2], io_ctx[0]);
    for (int i = 0; i < N; i++) {
        g_assert_true(bdrv_get_aio_context(bs[i]) == io_ctx[0]);
    }
    move_home(bs[0]);
    for (int i = N; i-- > 0; ) {
        bdrv_unref(bs[i]);
    }
}

/* ---- under load ---------------------------------------------------------------------------------- */

static char buffer[512];

static void coroutine_fn read_where_it_is(TestLoad *l)
{
    /* where the node is now; it may have moved while we were parked or asleep */
    aio_co_reschedule_self(blk_get_aio_context(l->blk));
    blk_inc_in_flight(l->blk);
    if (!blk_in_drain(l->blk) &&
        blk_get_aio_context(l->blk) == qemu_get_current_aio_context()) {
        int ret = blk_co_pread(l->blk, 0, sizeof(buffer), buffer, 0);
        g_assert_cmpint(ret, ==, 0);
        qatomic_inc(&l->requests);
    }
    blk_dec_in_flight(l->blk);
}

static void test_busy_graph_moves_without_losing_requests(void)
{
    BlockDriverState *top = test_node("top"), *base = test_node("base");
    bdrv_set_backing_hd(top, base, &error_abort);
    BlockBackend *blk = test_backend(top);
    /* the load parks by itself, holding a token while it submits */
    blk_set_disable_request_queuing(blk, true);
    TestLoad l;
    test_state(top)->sleep_hops = 2;
    test_load_start(&l, blk, 8, read_where_it_is);
    AioContext *stops[] = { io_ctx[0], io_ctx[1], qemu_get_aio_context() };
    for (int i = 0; i < test_rounds(600); i++) {
        test_move(i % 2 ? top : base, stops[i % 3]);
        test_load_wait_for_progress(&l);        /* until one got through there */
    }
    test_load_stop(&l);
    g_assert_cmpint(test_state(top)->requests_started, ==, l.requests);
    g_assert_cmpint(test_state(top)->requests_finished, ==, l.requests);
    move_home(top);
    blk_unref(blk);
    bdrv_unref(top);
    bdrv_unref(base);
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(io, io_ctx, 2);
    g_test_add_func("/move/notifiers", test_notifiers_see_old_then_new);
    g_test_add_func("/move/backend-notifiers", test_backend_notifiers_follow_the_backend);
    g_test_add_func("/move/diamond", test_diamond_moves_as_one);
    g_test_add_func("/move/refusal", test_a_refusal_changes_nothing);
    g_test_add_func("/move/filter", test_a_filter_lands_where_its_node_is_held);
    g_test_add_func("/move/thousand", test_a_thousand_nodes_move_in_linear_time);
    g_test_add_func("/move/load", test_busy_graph_moves_without_losing_requests);
    int ret = g_test_run();
    test_threads_stop(io, 2);
    return ret;
}
