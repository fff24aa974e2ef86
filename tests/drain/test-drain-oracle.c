/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The oracle of drained sections: a request that nobody let in is named and ends the program.
 *
 *      main                                        IOThread
 *      drained_begin: nothing is in flight
 *                                                  a request that nobody held back
 *      (believes that nothing happens here)
 */
#include "drain-driver.h"
#include "tests/unit/trap.h"

static IOThread *io;
static AioContext *io_ctx;
static char buffer[512];

typedef struct Intruder {
    BlockDriverState *top, *base;
    BlockBackend *blk;
    bool done;                  /* atomic */
} Intruder;

static Intruder intruder_new(AioContext *ctx)
{
    Intruder in = { .top = test_node("top"), .base = test_node("base") };

    bdrv_set_backing_hd(in.top, in.base, &error_abort);
    in.blk = test_backend(in.top);
    test_move(in.top, ctx);
    return in;
}

static void intruder_free(Intruder *in)
{
    test_move(in->top, qemu_get_aio_context());
    blk_unref(in->blk);
    bdrv_unref(in->top);
    bdrv_unref(in->base);
}

/* ---- those who may not ---------------------------------------------------------------------- */

static void coroutine_fn by_backend(void *opaque)
{
    Intruder *in = opaque;
    blk_co_pread(in->blk, 512, 512, buffer, 0);
}

static void coroutine_fn by_edge(void *opaque)
{
    Intruder *in = opaque;
    bdrv_co_pread(in->top->backing, 1024, 512, buffer, 0);
}

static void coroutine_fn by_flush(void *opaque)
{
    Intruder *in = opaque;
    bdrv_co_flush(in->top);
}

static void coroutine_fn by_query(void *opaque)
{
    Intruder *in = opaque;
    int64_t n;
    bdrv_co_block_status(in->top, 0, 512, &n, NULL, NULL);
}

typedef struct Way {
    const char *name;
    void coroutine_fn (*entry)(void *opaque);
    const char *message;
} Way;

static const Way ways[] = {
    { "backend", by_backend, "*read: request to node 'top' at offset 512 in a drained section "
      "(quiesce counter 1), submitted by an unnamed block device*" },
    { "edge", by_edge, "*read: request to node 'base' at offset 1024 * by node 'top'*" },
    { "flush", by_flush, "*flush: request to node 'top'*" },
    { "query", by_query, "*block status: request to node 'top'*" },
};
static const Way *way;

static void intrude(void)
{
    Intruder in = intruder_new(io_ctx);

    blk_set_disable_request_queuing(in.blk, true);
    aio_context_acquire(io_ctx);
    bdrv_drained_begin(in.base);
    aio_context_release(io_ctx);
    aio_co_schedule(io_ctx, qemu_coroutine_create(way->entry, &in));
    AIO_WAIT_WHILE_UNLOCKED(NULL, true);
}

static void test_intruder_is_named(gconstpointer data)
{
    way = data;
#ifdef MINIBLK_RELEASE
    g_test_skip("release builds leave this check out");
#else
    trap(intrude, way->message);
#endif
}

/* ---- those who may -------------------------------------------------------------------------- */

static void test_the_main_thread_may(void)
{
    Intruder in = intruder_new(io_ctx);
    int64_t n;

    aio_context_acquire(io_ctx);
    bdrv_drained_begin(in.base);
    g_assert_cmpint(bdrv_pread(in.top->backing, 0, 512, buffer, 0), ==, 0);
    g_assert_cmpint(bdrv_flush(in.top), ==, 0);
    g_assert_cmpint(bdrv_block_status(in.top, 0, 512, &n, NULL, NULL), >=, 0);
    bdrv_drained_end(in.base);
    aio_context_release(io_ctx);
    intruder_free(&in);
}

static void coroutine_fn counted_entry(void *opaque)
{
    Intruder *in = opaque;

    by_edge(in);
    by_query(in);
    bdrv_dec_in_flight(in->top);
    qatomic_set_mb(&in->done, true);
    aio_wait_kick();
}

static void test_who_was_counted_before_may(void)
{
    Intruder in = intruder_new(io_ctx);

    aio_context_acquire(io_ctx);
    bdrv_drained_begin(in.base);
    aio_context_release(io_ctx);
    bdrv_inc_in_flight(in.top);
    aio_co_schedule(io_ctx, qemu_coroutine_create(counted_entry, &in));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&in.done));
    aio_context_acquire(io_ctx);
    bdrv_drained_end(in.base);
    aio_context_release(io_ctx);
    intruder_free(&in);
}

static void coroutine_fn owner_entry(void *opaque)
{
    Intruder *in = opaque;

    bdrv_drained_begin(in->base);
    by_edge(in);
    by_flush(in);
    bdrv_drained_end(in->base);
    bdrv_drain_all_begin();
    by_query(in);
    bdrv_drain_all_end();
    qatomic_set_mb(&in->done, true);
    aio_wait_kick();
}

static void test_a_coroutine_may_in_its_own_section(void)
{
    Intruder in = intruder_new(io_ctx);

    aio_co_schedule(io_ctx, qemu_coroutine_create(owner_entry, &in));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&in.done));
    intruder_free(&in);
}

/* After the section everything is as before, also after sections that nest and overlap. */
static void test_the_end_of_the_section_lets_all_in(void)
{
    Intruder in = intruder_new(qemu_get_aio_context());

    bdrv_drained_begin(in.base);
    bdrv_drain_all_begin();
    bdrv_drained_end(in.base);
    g_assert_true(in.base->at_rest && in.top->at_rest);
    bdrv_drain_all_end();
    g_assert_false(in.base->at_rest || in.top->at_rest);
    g_assert_cmpint(blk_pread(in.blk, 0, 512, buffer, 0), ==, 0);
    intruder_free(&in);
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(&io, &io_ctx, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *path = g_strdup_printf("/drain/oracle/%s", ways[i].name);
        g_test_add_data_func(path, &ways[i], test_intruder_is_named);
    }
    g_test_add_func("/drain/oracle/main-thread", test_the_main_thread_may);
    g_test_add_func("/drain/oracle/counted", test_who_was_counted_before_may);
    g_test_add_func("/drain/oracle/owner", test_a_coroutine_may_in_its_own_section);
    g_test_add_func("/drain/oracle/end", test_the_end_of_the_section_lets_all_in);
    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
