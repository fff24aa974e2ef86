/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The graph, its permissions and locks, and options, in QEMU's spellings only. */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "block/graph-lock.h"
#include "qapi/error.h"
#include "qapi/qmp/qdict.h"
#include "qemu/main-loop.h"
#include "sysemu/block-backend.h"

/* ---- drivers: plain structures that nobody registers ------------------------------------------- */

static void no_perms(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                     BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                     uint64_t *nperm, uint64_t *nshared)
{
    *nperm = 0;
    *nshared = BLK_PERM_ALL;
}

static void sole_writer_perms(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                              BlockReopenQueue *reopen_queue, uint64_t perm,
                              uint64_t shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = BLK_PERM_WRITE;
    *nshared = BLK_PERM_ALL & ~BLK_PERM_WRITE;
}

static BlockDriver bdrv_meek = {
    .format_name = "meek",
    .supports_backing = true,
    .bdrv_child_perm = no_perms,
};

static BlockDriver bdrv_show = {
    .format_name = "show",
    .is_filter = true,
    .filtered_child_is_backing = true,
    .bdrv_child_perm = bdrv_default_perms,
};

static BlockDriver bdrv_greedy = {
    .format_name = "greedy",
    .is_filter = true,
    .filtered_child_is_backing = true,
    .bdrv_child_perm = sole_writer_perms,
};

static BlockDriverState *node(BlockDriver *drv, const char *name)
{
    return bdrv_new_open_driver(drv, name, BDRV_O_RDWR, &error_abort);
}

/* ---- references and order ----------------------------------------------------------------------- */

static void test_references(void)
{
    BlockDriverState *top = node(&bdrv_meek, "top"), *base = node(&bdrv_meek, "base");
    BlockBackend *blk = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
    Error *err = NULL;

    g_assert_cmpint(bdrv_set_backing_hd(top, base, &error_abort), ==, 0);
    g_assert_cmpint(base->refcnt, ==, 2);
    g_assert_cmpint(blk_insert_bs(blk, top, &error_abort), ==, 0);
    g_assert_cmpint(top->refcnt, ==, 2);
    bdrv_ref(base);
    BdrvChild *c = bdrv_attach_child(top, base, "data", &child_of_bds, BDRV_CHILD_DATA,
                                     &error_abort);
    g_assert_cmpint(base->refcnt, ==, 3);
    bdrv_unref_child(top, c);
    bdrv_unref_child(top, NULL);
    g_assert_cmpint(base->refcnt, ==, 2);
    bdrv_ref(top);
    g_assert_true(bdrv_attach_child(base, top, "loop", &child_of_bds, BDRV_CHILD_DATA,
                                    &err) == NULL);
    error_free_or_abort(&err);
    g_assert_cmpint(top->refcnt, ==, 2);
    blk_unref(blk);
    bdrv_unref(top);
    g_assert_cmpint(base->refcnt, ==, 1);
    bdrv_unref(base);
    g_assert_true(bdrv_find_node("base") == NULL);
}

static void test_new_edges_come_first(void)
{
    BlockDriverState *top = node(&bdrv_meek, "top"), *a = node(&bdrv_meek, "a"),
                     *b = node(&bdrv_meek, "b");
    BlockBackend *blk = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);

    BdrvChild *ca = bdrv_attach_child(top, a, "a", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    BdrvChild *cb = bdrv_attach_child(top, b, "b", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    g_assert_true(top->children.lh_first == cb && QLIST_NEXT(cb, next) == ca);
    g_assert_true(QLIST_FIRST(&a->parents) == ca);
    blk_insert_bs(blk, a, &error_abort);
    g_assert_true(QLIST_FIRST(&a->parents) != ca && QLIST_FIRST(&a->parents)->bs == a);
    blk_unref(blk);
    g_assert_true(QLIST_FIRST(&a->parents) == ca);
    bdrv_unref(top);
}

/* ---- drivers ------------------------------------------------------------------------------------- */

static int close_level, closed;

static void close_looks(BlockDriverState *bs)
{
    close_level = bs->quiesce_counter;
    closed++;
}

static void close_counts(BlockDriverState *bs)
{
    closed += 10;
}

static void test_drivers(void)
{
    static BlockDriver drv = { .format_name = "changing", .bdrv_close = close_looks };
    BlockDriverState *bs = node(&drv, NULL);

    g_assert_true(bs->opaque == NULL || drv.instance_size == 0);
    bdrv_unref(bs);
    g_assert_cmpint(closed, ==, 1);
    g_assert_cmpint(close_level, >, 0);
    bs = node(&drv, NULL);
    drv.bdrv_close = close_counts;
    bdrv_unref(bs);
    g_assert_cmpint(closed, ==, 11);
}

/* ---- append and replace -------------------------------------------------------------------------- */

static void test_append_that_fails_changes_nothing(void)
{
    BlockBackend *root = blk_new(qemu_get_aio_context(),
                                 BLK_PERM_WRITE | BLK_PERM_CONSISTENT_READ,
                                 BLK_PERM_ALL & ~BLK_PERM_WRITE);
    BlockDriverState *bs = node(&bdrv_meek, "node"), *filter = node(&bdrv_show, "filter");
    Error *err = NULL;

    blk_insert_bs(root, bs, &error_abort);
    bdrv_attach_child(filter, bs, "child", &child_of_bds, BDRV_CHILD_DATA, &error_abort);
    /* both children would be written to, and neither lets the other */
    bdrv_show.bdrv_child_perm = sole_writer_perms;
    g_assert_cmpint(bdrv_append(filter, bs, &err), <, 0);
    error_free_or_abort(&err);
    bdrv_show.bdrv_child_perm = bdrv_default_perms;
    g_assert_true(blk_bs(root) == bs && filter->backing == NULL);
    g_assert_cmpint(bs->quiesce_counter + filter->quiesce_counter, ==, 0);
    bdrv_unref(filter);
    blk_unref(root);
}

/* TARGET stands on BS, and FILTER on TARGET: its edge to BS must not be turned to FILTER. */
static void test_append_makes_no_circle(void)
{
    BlockBackend *root = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
    BlockDriverState *bs = node(&bdrv_meek, "node"), *filter = node(&bdrv_meek, "filter"),
                     *target = node(&bdrv_meek, "target");

    blk_insert_bs(root, bs, &error_abort);
    bdrv_set_backing_hd(target, bs, &error_abort);
    bdrv_attach_child(filter, target, "target", &child_of_bds, BDRV_CHILD_DATA,
                      &error_abort);
    g_assert_cmpint(bdrv_append(filter, bs, &error_abort), ==, 0);
    g_assert_true(target->backing->bs == bs && blk_bs(root) == filter);
    bdrv_unref(filter);
    bdrv_unref(bs);
    blk_unref(root);
}

/* All edges are changed before anybody is asked: TOP hands its right over to FILTER. */
static void test_append_of_a_sole_writer(void)
{
    BlockDriverState *top = node(&bdrv_greedy, "top"), *base = node(&bdrv_meek, "base"),
                     *filter = node(&bdrv_greedy, "filter");

    bdrv_attach_child(top, base, "backing", &child_of_bds,
                      BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, &error_abort);
    g_assert_cmpint(bdrv_append(filter, base, &error_abort), ==, 0);
    g_assert_true(top->backing->bs == filter && filter->backing->bs == base);
    bdrv_unref(filter);
    bdrv_unref(top);
}

/*
 *      top  (writes, alone)         what f1 may have needed before it lost its parent does not
 *       |                           stand in the way of f2
 *      f1   f2
 *        \ /
 *        base
 */
static void test_replace_forgets_who_is_removed(void)
{
    BlockDriverState *top = node(&bdrv_greedy, "top"), *f1 = node(&bdrv_show, "f1"),
                     *f2 = node(&bdrv_show, "f2"), *base = node(&bdrv_meek, "base");
    BdrvChildRole role = BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY;

    bdrv_ref(f1);
    bdrv_attach_child(top, f1, "backing", &child_of_bds, role, &error_abort);
    bdrv_ref(base);
    bdrv_attach_child(f1, base, "backing", &child_of_bds, role, &error_abort);
    bdrv_attach_child(f2, base, "backing", &child_of_bds, role, &error_abort);
    g_assert_cmphex(f1->backing->perm, ==, BLK_PERM_WRITE);
    g_assert_cmpint(bdrv_replace_node(f1, f2, &error_abort), ==, 0);
    g_assert_true(top->backing->bs == f2);
    g_assert_cmphex(f1->backing->perm, ==, 0);
    g_assert_cmphex(f2->backing->perm, ==, BLK_PERM_WRITE);
    bdrv_unref(f1);
    bdrv_unref(f2);
    bdrv_unref(top);
}

/* A driver that writes to one child at a time, and changes its mind. */
static BdrvChild *selected;

static void selected_perms(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                           BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                           uint64_t *nperm, uint64_t *nshared)
{
    *nperm = c && c == selected ? BLK_PERM_WRITE : 0;
    *nshared = BLK_PERM_ALL & ~(c && c == selected ? BLK_PERM_WRITE : 0);
}

static void test_permissions_go_down_in_order(void)
{
    static BlockDriver chooser = { .format_name = "chooser",
                                   .bdrv_child_perm = selected_perms };
    BlockDriverState *top = node(&bdrv_meek, "top"), *ws = node(&chooser, "ws"),
                     *f1 = node(&bdrv_show, "f1"), *f2 = node(&bdrv_show, "f2"),
                     *base = node(&bdrv_meek, "base");

    bdrv_attach_child(top, ws, "file", &child_of_bds, BDRV_CHILD_DATA, &error_abort);
    BdrvChild *c1 = bdrv_attach_child(ws, f1, "first", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    BdrvChild *c2 = bdrv_attach_child(ws, f2, "second", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    bdrv_ref(base);
    bdrv_attach_child(f1, base, "backing", &child_of_bds, BDRV_CHILD_FILTERED, &error_abort);
    bdrv_attach_child(f2, base, "backing", &child_of_bds, BDRV_CHILD_FILTERED, &error_abort);
    for (int i = 0; i < 4; i++) {
        selected = i % 2 ? c2 : c1;
        bdrv_child_refresh_perms(top, top->children.lh_first, &error_abort);
        g_assert_cmphex(c1->perm, ==, i % 2 ? 0 : BLK_PERM_WRITE);
        g_assert_cmphex(c2->perm, ==, i % 2 ? BLK_PERM_WRITE : 0);
        g_assert_cmphex(f1->backing->perm, ==, c1->perm);
        g_assert_cmphex(f2->backing->perm, ==, c2->perm);
    }
    selected = NULL;
    bdrv_child_refresh_perms(top, top->children.lh_first, &error_abort);
    bdrv_unref(top);
}

/* ---- edge classes -------------------------------------------------------------------------------- */

static int begun, ended;

static void count_begin(BdrvChild *c)
{
    begun++;
    child_of_bds.drained_begin(c);
}

static void count_end(BdrvChild *c)
{
    ended++;
    child_of_bds.drained_end(c);
}

static void test_classes_can_be_changed(void)
{
    BdrvChildClass counting = child_of_bds, deaf = child_of_bds;
    BlockDriverState *a = node(&bdrv_meek, "a"), *b = node(&bdrv_meek, "b"),
                     *base = node(&bdrv_meek, "base");

    counting.drained_begin = count_begin;
    counting.drained_end = count_end;
    deaf.drained_begin = NULL;
    deaf.drained_end = NULL;
    deaf.drained_poll = NULL;
    bdrv_ref(base);
    bdrv_attach_child(a, base, "child", &counting, BDRV_CHILD_DATA, &error_abort);
    bdrv_ref(base);
    bdrv_attach_child(b, base, "child", &deaf, BDRV_CHILD_DATA, &error_abort);
    bdrv_drained_begin(base);
    g_assert_cmpint(a->quiesce_counter, ==, 1);
    g_assert_cmpint(b->quiesce_counter, ==, 0);
    bdrv_drained_end(base);
    g_assert_cmpint(a->quiesce_counter, ==, 0);
    g_assert_cmpint(begun, ==, 1);
    g_assert_cmpint(ended, ==, 1);
    bdrv_unref(a);
    bdrv_unref(b);
    bdrv_unref(base);
}

/* ---- the graph lock ------------------------------------------------------------------------------- */

static void coroutine_fn lock_entry(void *opaque)
{
    bdrv_graph_co_rdlock();
    qemu_coroutine_yield();
    bdrv_graph_co_rdunlock();
    *(bool *)opaque = true;
}

static void go_on(void *opaque)
{
    qemu_coroutine_enter(opaque);
}

/* A change of the graph waits for who is reading it. */
static void test_graph_lock(void)
{
    bool done = false;
    Coroutine *co = qemu_coroutine_create(lock_entry, &done);
    BlockDriverState *top = node(&bdrv_meek, "top"), *base = node(&bdrv_meek, "base");

    qemu_coroutine_enter(co);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), go_on, co);
    bdrv_set_backing_hd(top, base, &error_abort);
    g_assert_true(done);
    bdrv_unref(top);
    bdrv_unref(base);
}

/* ---- images: options and locks ---------------------------------------------------------------------- */

static char *scratch(void)
{
    char *path = g_strdup("foreign-graph-XXXXXX");
    int fd = g_mkstemp(path);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, 1 << 20), ==, 0);
    close(fd);
    return path;
}

static void test_options(void)
{
    char *path = scratch();
    Error *err = NULL;

    /* dotted keys; a reference by node-name; a driver that is found out */
    QDict *options = qdict_new();
    qdict_put_str(options, "driver", "raw");
    qdict_put_str(options, "node-name", "format");
    qdict_put_str(options, "file.driver", "file");
    qdict_put_str(options, "file.node-name", "protocol");
    qdict_put_str(options, "file.filename", path);
    BlockDriverState *bs = bdrv_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
    g_assert_true(bdrv_find_node("format") == bs);
    g_assert_true(bdrv_find_node("protocol") == bs->children.lh_first->bs);

    options = qdict_new();
    qdict_put_str(options, "driver", "raw");
    qdict_put_str(options, "file", "protocol");
    BlockDriverState *other = bdrv_open(NULL, NULL, options, 0, &error_abort);
    g_assert_true(other->children.lh_first->bs == bdrv_find_node("protocol"));
    bdrv_unref(other);
    BlockDriverState *same = bdrv_open(NULL, "format", NULL, 0, &error_abort);
    g_assert_true(same == bs);
    bdrv_unref(same);
    g_assert_true(bdrv_open(NULL, "nobody", NULL, 0, &err) == NULL);
    error_free_or_abort(&err);
    bdrv_unref(bs);

    BlockBackend *blk = blk_new_open(path, NULL, NULL, 0, &error_abort);
    g_assert_cmpint(blk_bs(blk)->total_sectors, ==, 2048);
    blk_unref(blk);
    unlink(path);
    g_free(path);
}

/* The bytes from BASE on that somebody has locked. */
static uint64_t locked(const char *path, int base)
{
    int fd = open(path, O_RDWR);
    uint64_t bits = 0;

    g_assert_cmpint(fd, >=, 0);
    for (int i = 0; i < 4; i++) {
        bits |= qemu_lock_fd_test(fd, base + i, 1, true) ? 1 << i : 0;
    }
    close(fd);
    return bits;
}

static void test_image_locking(void)
{
    char *path = scratch();
    Error *err = NULL;

    if (!qemu_has_ofd_lock()) {
        g_test_skip("no OFD locks here");
        return;
    }
    QDict *options = qdict_new();
    qdict_put_str(options, "driver", "raw");
    qdict_put_str(options, "file.driver", "file");
    qdict_put_str(options, "file.filename", path);
    BlockDriverState *bs = bdrv_open(NULL, NULL, options, BDRV_O_RDWR, &error_abort);
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    blk_insert_bs(blk, bs, &error_abort);
    for (uint64_t perm = 0; perm <= BLK_PERM_ALL; perm++) {
        uint64_t shared = BLK_PERM_ALL & ~(perm >> 1);
        blk_set_perm(blk, perm, shared, &error_abort);
        g_assert_cmphex(locked(path, 100), ==, perm);
        g_assert_cmphex(locked(path, 200), ==, BLK_PERM_ALL & ~shared);
    }
    /* what somebody else shares with nobody is refused, and the locks are as they were */
    blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    options = qdict_new();
    qdict_put_str(options, "driver", "file");
    qdict_put_str(options, "filename", path);
    BlockBackend *other = blk_new_open(NULL, NULL, options, 0, &error_abort);
    blk_set_perm(other, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL & ~BLK_PERM_WRITE,
                 &error_abort);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, &err), <, 0);
    error_free_or_abort(&err);
    g_assert_cmphex(locked(path, 100), ==, BLK_PERM_CONSISTENT_READ);
    g_assert_cmphex(locked(path, 200), ==, BLK_PERM_WRITE);
    blk_unref(other);
    blk_unref(blk);
    bdrv_unref(bs);
    g_assert_cmphex(locked(path, 100) | locked(path, 200), ==, 0);
    unlink(path);
    g_free(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_add_func("/foreign/graph/references", test_references);
    g_test_add_func("/foreign/graph/order", test_new_edges_come_first);
    g_test_add_func("/foreign/graph/drivers", test_drivers);
    g_test_add_func("/foreign/graph/append/refused", test_append_that_fails_changes_nothing);
    g_test_add_func("/foreign/graph/append/circle", test_append_makes_no_circle);
    g_test_add_func("/foreign/graph/append/sole-writer", test_append_of_a_sole_writer);
    g_test_add_func("/foreign/graph/replace/removed", test_replace_forgets_who_is_removed);
    g_test_add_func("/foreign/graph/perm/order", test_permissions_go_down_in_order);
    g_test_add_func("/foreign/graph/class", test_classes_can_be_changed);
    g_test_add_func("/foreign/graph/lock", test_graph_lock);
    g_test_add_func("/foreign/graph/options", test_options);
    g_test_add_func("/foreign/graph/image-locking", test_image_locking);
    return g_test_run();
}
