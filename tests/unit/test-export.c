/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Adding and removing block exports: messages, permissions, threads. */
#include "miniblk/osdep.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"

static IOThread *iothread;
static BlockDriverState *node;

static void setup(void)
{
    fx_server_start(0, 0);
    iothread = iothread_create("io0", &error_abort);
    node = fx_node("disk", 1024 * 1024);
}

static void teardown(void)
{
    AioContext *ctx = bdrv_get_aio_context(node);

    nbd_server_stop(&error_abort);
    aio_context_acquire(ctx);
    bdrv_set_aio_context(node, qemu_get_aio_context());
    aio_context_release(ctx);
    bdrv_unref(node);
    iothread_destroy(iothread);
}

static void expect_error(const char *options, const char *message)
{
    Error *err = NULL;

    g_assert_null(blk_exp_add(fx_json("%s", options), &err));
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static const struct { const char *options, *message; } add_errors[] = {
    { "{}", "Parameter 'type' is missing" },
    { "{'type': 'bogus', 'id': 'e', 'node-name': 'disk'}",
      "Parameter 'type' does not accept value 'bogus'" },
    { "{'type': 'nbd', 'node-name': 'disk'}", "Parameter 'id' is missing" },
    { "{'type': 'nbd', 'id': 'e'}", "Parameter 'node-name' is missing" },
    { "{'type': 'nbd', 'id': '9 lives', 'node-name': 'disk'}", "Invalid block export id" },
    { "{'type': 'nbd', 'id': '', 'node-name': 'disk'}", "Invalid block export id" },
    { "{'type': 'nbd', 'id': 'taken', 'node-name': 'disk'}",
      "Block export id 'taken' is already in use" },
    { "{'type': 'nbd', 'id': 'e', 'node-name': 'zz'}",
      "Cannot find device='' nor node-name='zz'" },
    { "{'type': 'nbd', 'id': 'e', 'node-name': 'disk', 'iothread': 'nope'}",
      "iothread \"nope\" not found" },
    { "{'type': 'nbd', 'id': 'e', 'node-name': 'disk'}",
      "NBD server already has export named 'disk'" },
    { "{'type': 'nbd', 'id': 'e', 'node-name': 'disk', 'name': 'x', 'colour': 'red'}",
      "Parameter 'colour' is unexpected" },
    { "{'type': 'nbd', 'id': 'e', 'node-name': 'ro', 'writable': true}",
      "Block node is read-only" },
};

static void test_add_errors(void)
{
    BlockDriverState *ro;

    setup();
    ro = bdrv_open(NULL, NULL, fx_json("{'driver': 'test-mem', 'node-name': 'ro', "
                                       "'size': 512, 'read-only': true}"), 0, &error_abort);
    fx_export("taken", "disk", "");
    for (size_t i = 0; i < ARRAY_SIZE(add_errors); i++) {
        expect_error(add_errors[i].options, add_errors[i].message);
        g_assert_true(bdrv_get_aio_context(node) == qemu_get_aio_context());
    }
    /* What failed has left nothing behind. */
    g_assert_true(blk_exp_next(NULL) == blk_exp_find("taken"));
    g_assert_null(blk_exp_next(blk_exp_find("taken")));
    fx_export("e", "disk", "'name': 'x'");
    bdrv_unref(ro);
    teardown();
}

static void test_server_not_running(void)
{
    BlockDriverState *bs = fx_node("disk", 512);

    expect_error("{'type': 'nbd', 'id': 'e', 'node-name': 'disk'}",
                 "NBD server not running");
    bdrv_unref(bs);
}

static void test_name_too_long(void)
{
    g_autofree char *name = g_strnfill(4097, 'x');
    g_autofree char *options = NULL, *message = NULL;

    setup();
    options = g_strdup_printf("{'type': 'nbd', 'id': 'e', 'node-name': 'disk', "
                              "'name': '%s'}", name);
    message = g_strdup_printf("export name '%s' too long", name);
    expect_error(options, message);
    g_free(options);
    g_free(message);
    options = g_strdup_printf("{'type': 'nbd', 'id': 'e', 'node-name': 'disk', "
                              "'description': '%s'}", name);
    message = g_strdup_printf("description '%s' too long", name);
    expect_error(options, message);
    teardown();
}

/* A failure after the node has moved brings it back. */
static void test_failure_undoes_move(void)
{
    setup();
    fx_export("first", "disk", "");
    expect_error("{'type': 'nbd', 'id': 'e', 'node-name': 'disk', 'iothread': 'io0'}",
                 "NBD server already has export named 'disk'");
    g_assert_true(bdrv_get_aio_context(node) == qemu_get_aio_context());
    g_assert_true(blk_exp_find("first")->ctx == qemu_get_aio_context());
    teardown();
}

static void test_iothread(void)
{
    AioContext *ctx;
    BlockExport *exp;

    setup();
    ctx = iothread_get_aio_context(iothread);
    exp = fx_export("e", "disk", "'iothread': 'io0'");
    g_assert_true(exp->ctx == ctx);
    g_assert_true(bdrv_get_aio_context(node) == ctx);
    teardown();
}

/* Without fixed-iothread a conflict is none; with it, it is. */
static void test_iothread_conflict(void)
{
    IOThread *other;

    setup();
    other = iothread_create("io1", &error_abort);
    fx_export("pinned", "disk", "'iothread': 'io0', 'fixed-iothread': true");
    fx_export("loose", "disk", "'name': 'n1', 'iothread': 'io1'");
    g_assert_true(blk_exp_find("loose")->ctx == iothread_get_aio_context(iothread));
    expect_error("{'type': 'nbd', 'id': 'e', 'node-name': 'disk', 'name': 'n2', "
                 "'iothread': 'io1', 'fixed-iothread': true}",
                 "Cannot change iothread of active block backend");
    teardown();
    iothread_destroy(other);
}

/* The export names itself to whoever it is in the way of, and keeps the size fixed. */
static void test_permissions(void)
{
    Error *err = NULL;
    BlockBackend *blk;

    setup();
    fx_export("e", "disk", "'writable': true");
    blk = blk_new(qemu_get_aio_context(), BLK_PERM_RESIZE, BLK_PERM_ALL);
    g_assert_cmpint(blk_insert_bs(blk, node, &err), <, 0);
    g_assert_nonnull(strstr(error_get_pretty(err), "export 'e'"));
    error_free(err);
    blk_unref(blk);

    /* others may read and write at the same time */
    blk = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                  BLK_PERM_ALL);
    g_assert_cmpint(blk_insert_bs(blk, node, &error_abort), ==, 0);
    blk_unref(blk);
    teardown();
}

static char *deleted_id;
static void note_deleted(const char *id)
{
    g_assert_null(deleted_id);
    deleted_id = g_strdup(id);
}

/* Without clients an export is gone when the call returns, and its id is free. */
static void test_delete_idle(void)
{
    setup();
    blk_exp_set_deleted_callback(note_deleted);
    for (int i = 0; i < 3; i++) {
        fx_export("e", "disk", i ? "'iothread': 'io0'" : "");
        blk_exp_request_shutdown(blk_exp_find("e"));
        g_assert_null(blk_exp_find("e"));
        g_assert_cmpstr(deleted_id, ==, "e");
        g_clear_pointer(&deleted_id, g_free);
    }
    blk_exp_set_deleted_callback(NULL);
    teardown();
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    fx_init();
    g_test_add_func("/export/add-errors", test_add_errors);
    g_test_add_func("/export/server-not-running", test_server_not_running);
    g_test_add_func("/export/name-too-long", test_name_too_long);
    g_test_add_func("/export/failure-undoes-move", test_failure_undoes_move);
    g_test_add_func("/export/iothread", test_iothread);
    g_test_add_func("/export/iothread-conflict", test_iothread_conflict);
    g_test_add_func("/export/permissions", test_permissions);
    g_test_add_func("/export/delete-idle", test_delete_idle);
    ret = g_test_run();
    fx_cleanup();
    return ret;
}
