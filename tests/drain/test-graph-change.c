/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes of several edges: all of it or nothing, and who may refuse. */
#include "drain-driver.h"

static void expect(Error **err, const char *text)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, text);
    error_free_or_abort(err);
}

/* A chain of COUNT nodes; chain[0] is the base. Each is held by us. */
enum { CHAIN_MAX = 8 };
typedef struct Chain {
    BlockDriverState *bs[CHAIN_MAX];
    int count;
    BlockBackend *blk;          /* on the top */
} Chain;

static Chain chain_new(int count)
{
    Chain c = { .count = count };
    for (int i = 0; i < count; i++) {
        g_autofree char *name = g_strdup_printf("n%d", i);
        c.bs[i] = test_node(name);
        if (i) {
            bdrv_set_backing_hd(c.bs[i], c.bs[i - 1], &error_abort);
        }
    }
    c.blk = test_backend(c.bs[count - 1]);
    return c;
}

static void chain_free(Chain *c)
{
    blk_unref(c->blk);
    for (int i = c->count; i-- > 0; ) {
        g_assert_cmpint(c->bs[i]->quiesce_counter, ==, 0);
        bdrv_unref(c->bs[i]);
    }
}

/* The shape of what is below BS, by names: "n3 n2 n1 n0". */
static char *shape(BlockDriverState *bs)
{
    GString *s = g_string_new(bdrv_get_node_name(bs));
    while ((bs = bdrv_filter_or_cow_bs(bs))) {
        g_string_append_printf(s, " %s", bdrv_get_node_name(bs));
    }
    return g_string_free(s, false);
}

static void assert_shape(BlockDriverState *bs, const char *want)
{
    g_autofree char *got = shape(bs);
    g_assert_cmpstr(got, ==, want);
}

/* ---- dropping nodes in between ----------------------------------------------------------------- */

typedef struct FilenameLog {
    int calls;
    char *filename;             /* of the last call */
    int ret[4];                 /* what to answer, by call */
} FilenameLog;
static FilenameLog filename_log;

static int change_backing_file(BlockDriverState *bs, const char *file, const char *format)
{
    FilenameLog *l = &filename_log;
    g_free(l->filename);
    l->filename = g_strdup(file);
    return l->ret[l->calls++ % 4];
}

static void filename_log_clear(void)
{
    g_free(filename_log.filename);
    filename_log = (FilenameLog) { 0 };
}

static void test_drop_intermediate(void)
{
    static const struct { int top, base; const char *want; } cases[] = {
        { 3, 0, "n4 n0" }, { 2, 1, "n4 n3 n1 n0" }, { 3, 2, "n4 n2 n1 n0" },
    };
    bdrv_test.bdrv_change_backing_file = change_backing_file;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Chain c = chain_new(5);
        BlockDriverState *top = c.bs[cases[i].top], *base = c.bs[cases[i].base];
        BlockDriverState *overlay = c.bs[cases[i].top + 1];
        filename_log_clear();
        g_assert_cmpint(bdrv_drop_intermediate(top, base, "new name"), ==, 0);
        assert_shape(c.bs[4], cases[i].want);
        g_assert_cmpint(filename_log.calls, ==, 1);
        g_assert_cmpstr(filename_log.filename, ==, "new name");
        g_assert_cmpstr(overlay->backing_file, ==, "new name");
        g_assert_cmpstr(overlay->backing_format, ==, "test");
        g_assert_cmpint(top->refcnt, ==, 1);            /* ours */
        g_assert_cmpint(base->refcnt, ==, 2);           /* ours and the overlay's */
        g_assert_null(c.bs[cases[i].base + 1]->backing);
        chain_free(&c);
    }
    bdrv_test.bdrv_change_backing_file = NULL;
}

static void test_drop_intermediate_of_the_top_has_nobody_to_tell(void)
{
    Chain c = chain_new(3);
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[2], c.bs[0], NULL), ==, 0);
    g_assert_true(blk_bs(c.blk) == c.bs[0]);
    chain_free(&c);
}

static void test_drop_intermediate_is_refused(void)
{
    Chain c = chain_new(4);
    BlockDriverState *stranger = test_node("stranger");
    /* not below */
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[1], c.bs[3], NULL), ==, -EIO);
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[2], stranger, NULL), ==, -EIO);
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[2], c.bs[2], NULL), ==, -EIO);
    /* a driver that cannot write it down */
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[2], c.bs[0], NULL), ==, -ENOTSUP);
    /* a link that must stay */
    bdrv_test.bdrv_change_backing_file = change_backing_file;
    bdrv_freeze_backing_chain(c.bs[2], c.bs[0], &error_abort);
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[2], c.bs[0], NULL), ==, -EIO);
    bdrv_unfreeze_backing_chain(c.bs[2], c.bs[0]);
    assert_shape(c.bs[3], "n3 n2 n1 n0");
    bdrv_test.bdrv_change_backing_file = NULL;
    bdrv_unref(stranger);
    chain_free(&c);
}

/* Two overlays on the top; the second refuses: the first has its old name back. */
static void test_drop_intermediate_restores_names(void)
{
    Chain c = chain_new(3);
    BlockDriverState *a = test_node("a"), *b = test_node("b");
    bdrv_set_backing_hd(a, c.bs[2], &error_abort);
    bdrv_set_backing_hd(b, c.bs[2], &error_abort);
    bdrv_test.bdrv_change_backing_file = change_backing_file;
    filename_log_clear();
    g_assert_cmpint(bdrv_change_backing_file(a, "old", "test"), ==, 0);
    g_assert_cmpint(bdrv_change_backing_file(b, "old", "test"), ==, 0);
    filename_log_clear();
    filename_log.ret[1] = -ENOSPC;
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[2], c.bs[0], "new"), ==, -ENOSPC);
    g_assert_cmpint(filename_log.calls, ==, 3);
    g_assert_cmpstr(filename_log.filename, ==, "old");
    g_assert_cmpstr(a->backing_file, ==, "old");
    g_assert_cmpstr(b->backing_file, ==, "old");
    g_assert_true(a->backing->bs == c.bs[2] && b->backing->bs == c.bs[2]);
    assert_shape(c.bs[2], "n2 n1 n0");
    bdrv_test.bdrv_change_backing_file = NULL;
    filename_log_clear();
    bdrv_unref(a);
    bdrv_unref(b);
    chain_free(&c);
}

/* The subtree is at rest while parents are asked, and so it may be looked at and polled. */
static BlockDriverState *asked_about[3];

static int polling_update_filename(BdrvChild *c, BlockDriverState *new_base,
                                   const char *filename, Error **errp)
{
    for (unsigned i = 0; i < ARRAY_SIZE(asked_about); i++) {
        g_assert_cmpint(asked_about[i]->quiesce_counter, >, 0);
        g_assert_cmpint(test_state(asked_about[i])->drained, ==, 1);
    }
    aio_poll(qemu_get_aio_context(), false);
    return 0;
}

static void test_drop_intermediate_drains_all_below(void)
{
    static BdrvChildClass klass;
    Chain c = chain_new(3);
    BlockDriverState *parent = test_node("parent");
    klass = child_of_bds;
    klass.update_filename = polling_update_filename;
    memcpy(asked_about, c.bs, sizeof(asked_about));
    bdrv_ref(c.bs[2]);
    bdrv_attach_child(parent, c.bs[2], "chain", &klass, BDRV_CHILD_COW, &error_abort);
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[2], c.bs[0], NULL), ==, 0);
    g_assert_true(parent->backing->bs == c.bs[0]);
    g_assert_true(blk_bs(c.blk) == c.bs[0]);
    bdrv_unref(parent);
    chain_free(&c);
}

/* OTHER uses a node in the middle of what is dropped: for it nothing changes. */
static void test_what_others_use_keeps_its_link(void)
{
    Chain c = chain_new(5);
    BlockDriverState *other = test_node("other");
    bdrv_set_backing_hd(other, c.bs[2], &error_abort);
    bdrv_test.bdrv_change_backing_file = change_backing_file;
    filename_log_clear();
    g_assert_cmpint(bdrv_drop_intermediate(c.bs[3], c.bs[0], "x"), ==, 0);
    assert_shape(c.bs[4], "n4 n0");
    assert_shape(other, "other n2 n1 n0");
    g_assert_null(c.bs[3]->backing);
    bdrv_test.bdrv_change_backing_file = NULL;
    filename_log_clear();
    bdrv_unref(other);
    chain_free(&c);
}

/* What is dropped has no say any more: its own needs do not hold the base back. */
static void writer_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                        BlockReopenQueue *q, uint64_t perm, uint64_t shared, uint64_t *nperm,
                        uint64_t *nshared)
{
    *nperm = BLK_PERM_WRITE;
    *nshared = BLK_PERM_ALL & ~BLK_PERM_WRITE;
}

static void test_dropped_nodes_have_no_say(void)
{
    BlockDriver greedy = bdrv_test_filter;
    Error *err = NULL;
    greedy.format_name = "greedy";
    greedy.bdrv_child_perm = writer_perm;
    BlockDriverState *base = test_node("base"), *writer = test_node("writer");
    BlockDriverState *filter = bdrv_new_open_driver(&greedy, "filter", BDRV_O_RDWR,
                                                    &error_abort);
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_WRITE, BLK_PERM_ALL);
    bdrv_append(filter, base, &error_abort);
    blk_insert_bs(blk, filter, &error_abort);
    /* with the filter's edge in place the backend could not write to the base */
    g_assert_cmpint(bdrv_replace_node(filter, base, &err), ==, -EPERM);
    error_free_or_abort(&err);
    g_assert_true(blk_bs(blk) == filter && filter->backing->bs == base);
    g_assert_cmpint(bdrv_drop_filter(filter, &error_abort), ==, 0);
    g_assert_true(blk_bs(blk) == base && !filter->backing);
    blk_unref(blk);
    bdrv_unref(filter);
    bdrv_unref(writer);
    bdrv_unref(base);
}

/* ---- permissions of the whole change ------------------------------------------------------------ */

/* TOP is the only writer of BASE; the filter that comes in between wants to be that, too. */
static void test_append_a_greedy_filter(void)
{
    BlockDriver greedy = bdrv_test_filter;
    greedy.format_name = "greedy";
    greedy.bdrv_child_perm = writer_perm;
    BlockDriverState *top = bdrv_new_open_driver(&greedy, "top", BDRV_O_RDWR, &error_abort);
    BlockDriverState *base = test_node("base");
    BlockDriverState *filter = bdrv_new_open_driver(&greedy, "filter", BDRV_O_RDWR,
                                                    &error_abort);
    bdrv_attach_child(top, base, "backing", &child_of_bds,
                      BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, &error_abort);
    g_assert_cmpint(bdrv_append(filter, base, &error_abort), ==, 0);
    assert_shape(top, "top filter base");
    bdrv_unref(filter);
    bdrv_unref(top);
}

/* A filter that uses the node twice: both edges at once do not go. */
static void test_a_refused_append_changes_nothing(void)
{
    BlockDriver greedy = bdrv_test_filter;
    greedy.format_name = "greedy";
    greedy.bdrv_child_perm = writer_perm;
    BlockDriverState *bs = test_node("bs"), *other = test_node("other");
    BlockDriverState *filter = bdrv_new_open_driver(&greedy, "filter", BDRV_O_RDWR,
                                                    &error_abort);
    BlockBackend *a = test_backend(bs), *b = test_backend(bs);
    Error *err = NULL;
    bdrv_ref(other);
    BdrvChild *second = bdrv_attach_child(filter, other, "other", &child_of_bds,
                                          BDRV_CHILD_DATA, &error_abort);
    bdrv_ref(bs);
    g_assert_null(bdrv_attach_child(filter, bs, "data", &child_of_bds, BDRV_CHILD_DATA,
                                    &err));
    error_free_or_abort(&err);
    blk_set_perm(a, BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort);
    blk_set_perm(b, BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort);
    BdrvChild *parents[] = { QLIST_FIRST(&bs->parents), NULL };
    parents[1] = QLIST_NEXT(parents[0], next_parent);

    /* another writer of BS that is no parent to be moved: it stays */
    BdrvChildClass stays = child_of_bds;
    BlockDriverState *fixed = test_node("fixed");
    stays.stay_at_node = true;
    bdrv_ref(bs);
    bdrv_attach_child(fixed, bs, "fixed", &stays, BDRV_CHILD_DATA, &error_abort);
    BlockBackend *user = test_backend(fixed);
    g_assert_cmpint(bdrv_append(filter, bs, &err), ==, -EPERM);
    error_free_or_abort(&err);

    g_assert_true(blk_bs(a) == bs && blk_bs(b) == bs);
    g_assert_true(QLIST_NEXT(QLIST_FIRST(&bs->parents), next_parent) == parents[0]);
    g_assert_true(QLIST_NEXT(parents[0], next_parent) == parents[1]);
    g_assert_true(QLIST_FIRST(&filter->children) == second && !QLIST_NEXT(second, next));
    g_assert_null(filter->backing);
    g_assert_cmpint(bs->refcnt, ==, 4);
    g_assert_cmpint(filter->refcnt, ==, 1);
    g_assert_cmpint(bs->quiesce_counter + filter->quiesce_counter, ==, 0);
    blk_unref(user);
    bdrv_unref(fixed);
    blk_unref(a);
    blk_unref(b);
    bdrv_unref(filter);
    bdrv_unref(other);
    bdrv_unref(bs);
}

/* Children come back in the order they were. */
static void test_a_refused_backing_change_keeps_the_order(void)
{
    BlockDriverState *top = test_node("top"), *old = test_node("old"), *x = test_node("x"),
                     *y = test_node("y");
    BlockDriverState *ro = bdrv_new_open_driver(&bdrv_test, "ro", 0, &error_abort);
    BlockDriver greedy = bdrv_test;
    Error *err = NULL;
    greedy.bdrv_child_perm = writer_perm;       /* also on its backing child */
    bdrv_ref(x);
    BdrvChild *cx = bdrv_attach_child(top, x, "x", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    bdrv_set_backing_hd(top, old, &error_abort);
    BdrvChild *cold = top->backing;
    bdrv_ref(y);
    BdrvChild *cy = bdrv_attach_child(top, y, "y", &child_of_bds, BDRV_CHILD_DATA,
                                      &error_abort);
    top->drv = &greedy;
    g_assert_cmpint(bdrv_set_backing_hd(top, ro, &err), ==, -EPERM);
    expect(&err, "Block node is read-only");
    g_assert_true(top->backing == cold && cold->bs == old);
    g_assert_true(QLIST_FIRST(&top->children) == cy && QLIST_NEXT(cy, next) == cold &&
                  QLIST_NEXT(cold, next) == cx && !QLIST_NEXT(cx, next));
    top->drv = &bdrv_test;
    bdrv_unref(top);
    bdrv_unref(old);
    bdrv_unref(x);
    bdrv_unref(y);
    bdrv_unref(ro);
}

/* ---- frozen links ------------------------------------------------------------------------------- */

static void test_frozen_links_stay(void)
{
    Chain c = chain_new(4);
    Error *err = NULL;
    BlockDriverState *other = test_node("other"), *filter = test_filter("filter");
    bdrv_freeze_backing_chain(c.bs[2], c.bs[0], &error_abort);
    g_assert_false(bdrv_is_backing_chain_frozen(c.bs[3], c.bs[2], &err));
    g_assert_true(bdrv_is_backing_chain_frozen(c.bs[3], NULL, &err));
    expect(&err, "Cannot change 'backing' link from 'n2' to 'n1'");
    g_assert_cmpint(bdrv_freeze_backing_chain(c.bs[3], c.bs[1], &err), ==, -EPERM);
    expect(&err, "Cannot change 'backing' link from 'n2' to 'n1'");
    g_assert_false(c.bs[3]->backing->frozen);
    g_assert_cmpint(bdrv_set_backing_hd(c.bs[2], other, &err), ==, -EPERM);
    expect(&err, "Cannot change frozen 'backing' link from 'n2' to 'n1'");
    g_assert_cmpint(bdrv_set_backing_hd(c.bs[2], NULL, &err), ==, -EPERM);
    error_free_or_abort(&err);
    g_assert_cmpint(bdrv_replace_node(c.bs[1], other, &err), ==, -EPERM);
    expect(&err, "Cannot change 'backing' link to 'n1'");
    g_assert_cmpint(bdrv_append(filter, c.bs[0], &err), ==, -EPERM);
    expect(&err, "Cannot change 'backing' link to 'n0'");
    assert_shape(c.bs[3], "n3 n2 n1 n0");
    bdrv_unfreeze_backing_chain(c.bs[2], c.bs[0]);
    g_assert_cmpint(bdrv_append(filter, c.bs[0], &error_abort), ==, 0);
    assert_shape(c.bs[3], "n3 n2 n1 filter n0");
    bdrv_unref(filter);
    bdrv_unref(other);
    chain_free(&c);
}

/* ---- inserting ---------------------------------------------------------------------------------- */

static int insert_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    return bdrv_open_file_child(NULL, options, "file", bs, errp);
}

static BlockDriver insert_driver = {
    .format_name = "test-insert",
    .instance_size = sizeof(TestNode),
    .is_filter = true,
    .bdrv_open = insert_open,
};

static QDict *insert_options(const char *driver, const char *file)
{
    QDict *options = qdict_new();
    if (driver) {
        qdict_put_str(options, "driver", driver);
    }
    qdict_put_str(options, "node-name", "inserted");
    qdict_put_str(options, "file", file);
    return options;
}

static void test_insert_node(void)
{
    BlockDriverState *bs = test_node("bs");
    BlockBackend *blk = test_backend(bs);
    Error *err = NULL;

    g_assert_null(bdrv_insert_node(bs, insert_options(NULL, "bs"), BDRV_O_RDWR, &err));
    expect(&err, "driver is not specified");
    g_assert_null(bdrv_insert_node(bs, insert_options("none", "bs"), BDRV_O_RDWR, &err));
    expect(&err, "Unknown driver: 'none'");
    g_assert_null(bdrv_insert_node(bs, insert_options("test-insert", "zz"), BDRV_O_RDWR,
                                   &err));
    expect(&err, "Could not create node: Cannot find device='zz' nor node-name='zz'");
    g_assert_true(blk_bs(blk) == bs);

    BlockDriverState *f = bdrv_insert_node(bs, insert_options("test-insert", "bs"),
                                           BDRV_O_RDWR, &error_abort);
    g_assert_true(blk_bs(blk) == f && f->file->bs == bs);
    g_assert_cmpint(f->refcnt, ==, 2);
    g_assert_cmpint(bs->refcnt, ==, 2);
    g_assert_cmpint(bdrv_drop_filter(f, &error_abort), ==, 0);
    g_assert_true(blk_bs(blk) == bs);
    bdrv_unref(f);

    /* a read-only one below a writer */
    g_assert_null(bdrv_insert_node(bs, insert_options("test-insert", "bs"), 0, &err));
    expect(&err, "Could not replace node: Block node is read-only");
    g_assert_true(blk_bs(blk) == bs);
    g_assert_null(bdrv_find_node("inserted"));
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_insert_node_above_one_in_an_iothread(void)
{
    IOThread *io = iothread_create("io", &error_abort);
    AioContext *ctx = iothread_get_aio_context(io);
    BlockDriverState *bs = test_node("bs");
    BlockBackend *blk = test_backend(bs);
    blk_set_aio_context(blk, ctx, &error_abort);
    aio_context_acquire(ctx);
    BlockDriverState *f = bdrv_insert_node(bs, insert_options("test-insert", "bs"),
                                           BDRV_O_RDWR, &error_abort);
    g_assert_true(bdrv_get_aio_context(f) == ctx && blk_bs(blk) == f);
    bdrv_drop_filter(f, &error_abort);
    aio_context_release(ctx);
    bdrv_unref(f);
    blk_unref(blk);
    bdrv_unref(bs);
    iothread_destroy(io);
}

/* ---- depth -------------------------------------------------------------------------------------- */

/* A chain as deep as is allowed works; what would make it deeper is refused. */
static void test_depth_is_limited(void)
{
    enum { DEPTH = 2000 };
    static BlockDriverState *bs[DEPTH];
    BlockDriverState *extra;
    char buf[512];
    Error *err = NULL;

    if (test_skips_lab("its size is the point")) {
        return;
    }
    extra = test_filter("extra");
    bs[0] = test_node("base");
    for (int i = 1; i < DEPTH; i++) {
        bs[i] = test_filter(NULL);
        g_assert_cmpint(bdrv_append(bs[i], bs[i - 1], &error_abort), ==, 0);
    }
    g_assert_cmpuint(bs[DEPTH - 1]->height, ==, DEPTH - 1);
    BlockBackend *blk = test_backend(bs[DEPTH - 1]);
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    bdrv_drain(bs[0]);
    bdrv_drain_all();

    g_autofree char *text = g_strdup_printf("The graph would be more than 2000 nodes deep at "
                                            "node '%s'", "extra");
    g_assert_cmpint(bdrv_append(extra, bs[DEPTH / 2], &err), ==, -ELOOP);
    expect(&err, text);
    g_assert_cmpint(bdrv_set_backing_hd(extra, bs[DEPTH - 1], &err), ==, -ELOOP);
    expect(&err, text);
    g_assert_cmpuint(bs[DEPTH - 1]->height, ==, DEPTH - 1);
    g_assert_cmpuint(extra->height, ==, 0);
    g_assert_cmpint(bdrv_drop_filter(bs[DEPTH / 3], &error_abort), ==, 0);
    g_assert_cmpuint(bs[DEPTH - 1]->height, ==, DEPTH - 2);
    g_assert_cmpint(bdrv_append(extra, bs[DEPTH / 2], &error_abort), ==, 0);
    g_assert_cmpuint(bs[DEPTH - 1]->height, ==, DEPTH - 1);
    blk_unref(blk);
    bdrv_unref(extra);
    for (int i = 0; i < DEPTH; i++) {
        bdrv_unref(bs[i]);
    }
}

/*
 *      l[n]   r[n]         each on both of the level below: 2^n ways lead to the base,
 *        | \ / |           and each node is looked at once
 *      l[n-1] r[n-1]
 */
static void test_many_ways_lead_to_the_base(void)
{
    enum { LEVELS = 40 };
    BlockDriverState *level[LEVELS][2];
    for (int i = 0; i < LEVELS; i++) {
        for (int side = 0; side < 2; side++) {
            level[i][side] = test_node(NULL);
            for (int below = 0; i && below < 2; below++) {
                bdrv_ref(level[i - 1][below]);
                bdrv_attach_child(level[i][side], level[i - 1][below], "x", &child_of_bds,
                                  BDRV_CHILD_DATA, &error_abort);
            }
        }
    }
    BlockBackend *blk = blk_new_with_bs(level[LEVELS - 1][0], BLK_PERM_CONSISTENT_READ,
                                        BLK_PERM_ALL, &error_abort);
    g_assert_cmpuint(level[LEVELS - 1][0]->height, ==, LEVELS - 1);
    bdrv_drained_begin(level[0][0]);
    g_assert_cmpint(level[LEVELS - 1][0]->quiesce_counter, ==, 2);
    bdrv_drained_end(level[0][0]);
    bdrv_drain_all();
    g_assert_true(bdrv_set_backing_hd(level[0][0], level[LEVELS - 1][1], NULL) < 0);
    blk_unref(blk);
    for (int i = 0; i < LEVELS; i++) {
        bdrv_unref(level[i][0]);
        bdrv_unref(level[i][1]);
    }
}

/* ---- edges whose class is a changed copy -------------------------------------------------------- */

static void test_class_callbacks_are_optional(void)
{
    BdrvChildClass bare = { .parent_is_bds = true };
    BlockDriverState *top = test_node("top"), *a = test_node("a"), *b = test_node("b");
    bdrv_ref(a);
    bdrv_attach_child(top, a, "backing", &bare, BDRV_CHILD_COW, &error_abort);
    g_assert_true(top->backing && top->backing->bs == a);
    bdrv_drained_begin(a);
    g_assert_cmpint(top->quiesce_counter, ==, 0);       /* nobody tells it */
    bdrv_replace_node(a, b, &error_abort);
    bdrv_drained_end(a);
    g_assert_true(top->backing->bs == b);
    bdrv_set_backing_hd(top, NULL, &error_abort);
    g_assert_null(top->backing);
    bdrv_unref(top);
    bdrv_unref(a);
    bdrv_unref(b);
}

/*
 * QB-51 (an edge is changed with requests in flight). A request that was parked while its
 * backend had no medium goes on when a node comes: it must find the node.
 *
 *      main:  node drained          insert: backend rests, waits for the request in flight
 *      request:                                    ends; the next one is parked
 *      bottom half in that wait:                   the section of the node ends
 *      main:                        edge made; backend released; the parked request runs
 */
static int late_result = -EINPROGRESS;
static char buffer[512];

static void late_done(void *opaque, int ret)
{
    late_result = ret;
}

static QEMUIOVector late_qiov;

static void end_section_and_submit(void *opaque)
{
    BlockBackend *blk = opaque;
    bdrv_drained_end(bdrv_find_node("bs"));
    late_qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(late_qiov, buffer, sizeof(buffer));
    blk_aio_preadv(blk, 0, &late_qiov, 0, late_done, NULL);
    blk_dec_in_flight(blk);
}

static void test_parked_requests_find_the_new_medium(void)
{
    BlockDriverState *bs = test_node("bs");
    BlockBackend *blk = blk_new(qemu_get_aio_context(), BLK_PERM_ALL, BLK_PERM_ALL);
    bdrv_drained_begin(bs);
    blk_inc_in_flight(blk);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), end_section_and_submit, blk);
    blk_insert_bs(blk, bs, &error_abort);
    AIO_WAIT_WHILE_UNLOCKED(NULL, late_result == -EINPROGRESS);
    g_assert_cmpint(late_result, ==, 0);
    blk_unref(blk);
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    bdrv_register(&insert_driver);
    g_test_add_func("/graph/drop/chain", test_drop_intermediate);
    g_test_add_func("/graph/drop/top", test_drop_intermediate_of_the_top_has_nobody_to_tell);
    g_test_add_func("/graph/drop/refused", test_drop_intermediate_is_refused);
    g_test_add_func("/graph/drop/names", test_drop_intermediate_restores_names);
    g_test_add_func("/graph/drop/drained", test_drop_intermediate_drains_all_below);
    g_test_add_func("/graph/drop/shared", test_what_others_use_keeps_its_link);
    g_test_add_func("/graph/drop/no-say", test_dropped_nodes_have_no_say);
    g_test_add_func("/graph/append/greedy", test_append_a_greedy_filter);
    g_test_add_func("/graph/append/refused", test_a_refused_append_changes_nothing);
    g_test_add_func("/graph/backing/order", test_a_refused_backing_change_keeps_the_order);
    g_test_add_func("/graph/frozen", test_frozen_links_stay);
    g_test_add_func("/graph/insert", test_insert_node);
    g_test_add_func("/graph/insert/iothread", test_insert_node_above_one_in_an_iothread);
    g_test_add_func("/graph/depth", test_depth_is_limited);
    g_test_add_func("/graph/ladder", test_many_ways_lead_to_the_base);
    g_test_add_func("/graph/class/bare", test_class_callbacks_are_optional);
    g_test_add_func("/graph/QB-51/parked", test_parked_requests_find_the_new_medium);
    return g_test_run();
}
