/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes, edges and permissions. */
#include "drain-driver.h"

static void expect(Error **err, const char *text)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, text);
    error_free_or_abort(err);
}

static void test_names(void)
{
    Error *err = NULL;
    BlockDriverState *bs = test_node("n0"), *anon = test_node(NULL);
    g_assert_true(bdrv_find_node("n0") == bs);
    g_assert_true(g_str_has_prefix(bdrv_get_node_name(anon), "#block"));
    g_assert_null(bdrv_new_open_driver(&bdrv_test, "n0", BDRV_O_RDWR, &err));
    expect(&err, "Duplicate nodes with node-name='n0'");
    g_assert_null(bdrv_new_open_driver(&bdrv_test, "9bad!", BDRV_O_RDWR, &err));
    expect(&err, "Invalid node-name: '9bad!'");
    g_assert_null(bdrv_lookup_bs(NULL, "zz", &err));
    expect(&err, "Cannot find device='' nor node-name='zz'");
    bdrv_unref(bs);
    g_assert_null(bdrv_find_node("n0"));
    bdrv_unref(anon);
}

static void test_edges_hold_references_and_come_newest_first(void)
{
    BlockDriverState *top = test_node("top"), *a = test_node("a"), *b = test_node("b");
    bdrv_ref(a);
    BdrvChild *ca = bdrv_attach_child(top, a, "a", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    bdrv_ref(b);
    BdrvChild *cb = bdrv_attach_child(top, b, "b", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    g_assert_true(QLIST_FIRST(&top->children) == cb && QLIST_NEXT(cb, next) == ca);
    g_assert_cmpint(a->refcnt, ==, 2);
    bdrv_unref_child(top, ca);
    g_assert_cmpint(a->refcnt, ==, 1);
    bdrv_unref(top);
    g_assert_cmpint(b->refcnt, ==, 1);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void test_cycles_are_refused(void)
{
    Error *err = NULL;
    BlockDriverState *a = test_node("a"), *b = test_node("b");
    bdrv_set_backing_hd(a, b, &error_abort);
    bdrv_ref(a);
    g_assert_null(bdrv_attach_child(b, a, "loop", &child_of_bds, BDRV_CHILD_DATA, &err));
    expect(&err, "Making 'a' a loop child of 'b' would create a cycle");
    g_assert_cmpint(a->refcnt, ==, 1);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void test_append_and_replace(void)
{
    BlockDriverState *bs = test_node("bs"), *filter = test_filter("filter"),
                     *overlay = test_node("overlay");
    BlockBackend *blk = test_backend(bs);
    bdrv_append(filter, bs, &error_abort);
    g_assert_true(blk_bs(blk) == filter && filter->backing->bs == bs);
    g_assert_true(bdrv_filter_bs(filter) == bs && !bdrv_cow_bs(filter));
    bdrv_append(overlay, filter, &error_abort);
    g_assert_true(blk_bs(blk) == overlay && bdrv_cow_bs(overlay) == filter);
    g_assert_true(bdrv_backing_chain_next(overlay) == bs);
    bdrv_replace_node(filter, bs, &error_abort);
    g_assert_true(overlay->backing->bs == bs && filter->backing->bs == bs);
    blk_unref(blk);
    bdrv_unref(overlay);
    bdrv_unref(filter);
    g_assert_cmpint(bs->refcnt, ==, 1);
    bdrv_unref(bs);
}

static void test_permission_conflicts_are_named_and_rolled_back(void)
{
    Error *err = NULL;
    BlockDriverState *bs = test_node("bs");
    BlockBackend *one = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ,
                                BLK_PERM_ALL & ~BLK_PERM_WRITE);
    BlockBackend *two = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    blk_set_user_desc(one, "the first user");
    blk_set_user_desc(two, "the second user");
    blk_insert_bs(one, bs, &error_abort);
    g_assert_cmpint(blk_insert_bs(two, bs, &err), <, 0);
    expect(&err, "Permission conflict on node 'bs': permissions 'write' are both required by "
           "the second user (uses node 'bs' as 'root' child) and unshared by the first user "
           "(uses node 'bs' as 'root' child).");
    g_assert_cmpint(bs->refcnt, ==, 2);
    g_assert_null(blk_bs(two));
    g_assert_cmpint(blk_set_perm(two, 0, BLK_PERM_ALL, NULL), ==, 0);
    blk_insert_bs(two, bs, &error_abort);
    g_assert_cmpint(blk_set_perm(two, BLK_PERM_WRITE, BLK_PERM_ALL, &err), <, 0);
    error_free_or_abort(&err);
    uint64_t perm, shared;
    blk_get_perm(two, &perm, &shared);
    g_assert_cmpuint(perm, ==, 0);
    g_assert_cmpuint(bs->cum_perm, ==, BLK_PERM_CONSISTENT_READ);
    blk_unref(one);
    g_assert_cmpint(blk_set_perm(two, BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort), ==, 0);
    blk_unref(two);
    bdrv_unref(bs);
}

/* A writer that shares writing with nobody, on a filter that goes away again. */
static void test_filter_above_a_lone_writer_can_be_dropped(void)
{
    BlockDriverState *bs = test_node("bs"), *filter = test_filter("filter");
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE,
                                BLK_PERM_CONSISTENT_READ);
    blk_insert_bs(blk, bs, &error_abort);
    bdrv_append(filter, bs, &error_abort);
    g_assert_cmpuint(filter->backing->perm, ==, BLK_PERM_WRITE);
    bdrv_replace_node(filter, bs, &error_abort);
    g_assert_true(blk_bs(blk) == bs);
    g_assert_cmpuint(filter->backing->perm & BLK_PERM_WRITE, ==, 0);
    blk_unref(blk);
    bdrv_unref(filter);
    bdrv_unref(bs);
}

static void test_a_refused_replacement_changes_nothing(void)
{
    Error *err = NULL;
    BlockDriverState *a = test_node("a"), *ro = bdrv_new_open_driver(&bdrv_test, "ro", 0,
                                                                     &error_abort);
    BlockBackend *writer = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    BlockBackend *reader = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ,
                                   BLK_PERM_ALL);
    blk_insert_bs(writer, a, &error_abort);
    blk_insert_bs(reader, a, &error_abort);
    g_assert_cmpint(bdrv_replace_node(a, ro, &err), <, 0);
    expect(&err, "Block node is read-only");
    g_assert_true(blk_bs(writer) == a && blk_bs(reader) == a);
    g_assert_cmpint(a->refcnt, ==, 3);
    g_assert_cmpint(ro->refcnt, ==, 1);
    g_assert_cmpint(a->quiesce_counter + ro->quiesce_counter, ==, 0);
    g_assert_cmpuint(a->cum_perm, ==, BLK_PERM_WRITE | BLK_PERM_CONSISTENT_READ);
    blk_unref(writer);
    blk_unref(reader);
    bdrv_unref(a);
    bdrv_unref(ro);
}

static void test_a_refused_backing_file_leaves_the_old_one(void)
{
    Error *err = NULL;
    BlockDriverState *top = test_node("top"), *old = test_node("old"), *new = test_node("new");
    bdrv_set_backing_hd(top, old, &error_abort);
    bdrv_set_backing_hd(new, top, &error_abort);        /* so NEW below TOP is a cycle */
    g_assert_cmpint(bdrv_set_backing_hd(top, new, &err), <, 0);
    error_free_or_abort(&err);
    g_assert_true(top->backing && top->backing->bs == old);
    g_assert_cmpint(old->refcnt, ==, 2);
    g_assert_cmpint(new->refcnt, ==, 1);
    bdrv_unref(new);
    bdrv_unref(top);
    bdrv_unref(old);
}

static void test_a_refused_attach_leaves_the_node_where_it_was(void)
{
    Error *err = NULL;
    IOThread *io = iothread_create("io", &error_abort);
    BlockDriverState *ro = bdrv_new_open_driver(&bdrv_test, "ro", 0, &error_abort);
    BlockBackend *blk = blk_new(iothread_get_aio_context(io), BLK_PERM_WRITE, BLK_PERM_ALL);
    g_assert_cmpint(blk_insert_bs(blk, ro, &err), <, 0);
    expect(&err, "Block node is read-only");
    g_assert_true(bdrv_get_aio_context(ro) == qemu_get_aio_context());
    blk_unref(blk);
    bdrv_unref(ro);
    iothread_destroy(io);
}

static void test_read_only_node_is_not_written(void)
{
    Error *err = NULL;
    char buf[512] = { 0 };
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_test, "ro", 0, &error_abort);
    bs->total_sectors = 8;
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    g_assert_cmpint(blk_insert_bs(blk, bs, &err), <, 0);
    expect(&err, "Block node is read-only");
    blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    blk_insert_bs(blk, bs, &error_abort);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, -EPERM);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_truncate(blk, 0, false, PREALLOC_MODE_OFF, 0, NULL), ==, -EACCES);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_requests_are_checked(void)
{
    char buf[512];
    BlockDriverState *bs = test_node("bs");
    BlockBackend *blk = test_backend(bs);
    static const struct { int64_t offset, bytes; int want; } cases[] = {
        { 0, 512, 0 }, { -1, 512, -EIO }, { 0, -1, -EIO }, { 1 << 20, 1, -EIO },
        { (1 << 20) - 512, 512, 0 }, { (1 << 20) - 511, 512, -EIO }, { 0, 0, 0 },
        { INT64_MAX, 512, -EIO }, { INT64_MAX - 100, 512, -EIO },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_assert_cmpint(blk_pread(blk, cases[i].offset, cases[i].bytes, buf, 0), ==,
                        cases[i].want);
        g_assert_cmpint(blk_pwrite(blk, cases[i].offset, cases[i].bytes, buf, 0), ==,
                        cases[i].want);
    }
    BdrvCheckResult res;
    g_assert_cmpint(bdrv_check(bs, &res, 0), ==, -ENOTSUP);
    g_assert_cmpint(blk_pwrite_compressed(blk, 0, 512, buf), ==, -ENOTSUP);
    Error *err = NULL;
    g_assert_cmpint(blk_truncate(blk, 1024, false, PREALLOC_MODE_OFF, 0, &err), ==, -ENOTSUP);
    error_free_or_abort(&err);
    g_assert_cmpint(blk_truncate(blk, -1, false, PREALLOC_MODE_OFF, 0, NULL), ==, -EINVAL);
    blk_unref(blk);
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_add_func("/graph/names", test_names);
    g_test_add_func("/graph/edges", test_edges_hold_references_and_come_newest_first);
    g_test_add_func("/graph/cycles", test_cycles_are_refused);
    g_test_add_func("/graph/append", test_append_and_replace);
    g_test_add_func("/graph/perm/conflict",
                    test_permission_conflicts_are_named_and_rolled_back);
    g_test_add_func("/graph/perm/read-only", test_read_only_node_is_not_written);
    g_test_add_func("/graph/requests", test_requests_are_checked);
    g_test_add_func("/graph/perm/drop-filter",
                    test_filter_above_a_lone_writer_can_be_dropped);
    g_test_add_func("/graph/refused/replace", test_a_refused_replacement_changes_nothing);
    g_test_add_func("/graph/refused/backing", test_a_refused_backing_file_leaves_the_old_one);
    g_test_add_func("/graph/refused/attach",
                    test_a_refused_attach_leaves_the_node_where_it_was);
    return g_test_run();
}
