/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reopening: other flags, options and children for nodes in use; all of a queue or none. */
#include "qcow2-test.h"

enum { HELD = 100, UNSHARED = 200, PERM_BITS = 4 };

static void expect(Error **err, const char *text)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, text);
    error_free_or_abort(err);
}

static QDict *json_options(const char *text)
{
    g_autofree char *json = g_strdup(text);
    for (char *p = json; *p; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    QDict *options = json_loads(json, 0, NULL);
    g_assert_nonnull(options);
    return options;
}

/* Reopen with all the options that are to be; the error must be TEXT (NULL: none). */
static void reopen(BlockDriverState *bs, const char *options, const char *text)
{
    Error *err = NULL;
    int ret = bdrv_reopen(bs, json_options(options), false, &err);
    if (text) {
        g_assert_cmpint(ret, <, 0);
        expect(&err, text);
    } else if (ret < 0) {
        error_report_err(err);
        g_assert_not_reached();
    }
    g_assert_cmpint(bs->quiesce_counter, ==, 0);
}

static BlockDriverState *add(const char *options)
{
    BlockDriverState *bs = bdrv_open(NULL, NULL, json_options(options), BDRV_O_RDWR,
                                     &error_abort);
    return bs;
}

/* The lock bytes of PATH from BASE on that are locked, as permission bits. */
static uint64_t locked(const char *path, int base)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint64_t bits = 0;
    g_assert_cmpint(fd, >=, 0);
    for (int i = 0; i < PERM_BITS; i++) {
        bits |= qemu_lock_fd_test(fd, base + i, 1, true) ? 1ULL << i : 0;
    }
    close(fd);
    return bits;
}

/* How PATH is open in this process: O_RDONLY, O_RDWR, and whether O_DIRECT; -1: not. */
static int open_mode(const char *path)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    const char *name;
    int mode = -1;
    while ((name = g_dir_read_name(dir))) {
        char target[PATH_MAX];
        g_autofree char *link = g_build_filename("/proc/self/fd", name, NULL);
        ssize_t n = readlink(link, target, sizeof(target) - 1);
        target[n < 0 ? 0 : n] = '\0';
        if (!strcmp(target, path)) {
            g_assert_cmpint(mode, ==, -1);      /* once */
            mode = fcntl(atoi(name), F_GETFL) & (O_ACCMODE | O_DIRECT);
        }
    }
    g_dir_close(dir);
    return mode;
}

/* ---- flags ---------------------------------------------------------------------------------- */

static void test_read_only_and_back(void)
{
    g_autofree char *path = scratch_file("ro", 1 << 20);
    g_autofree char *opts = g_strdup_printf(
        "{'driver':'raw','node-name':'n','read-only':true,"
        " 'file':{'driver':'file','filename':'%s'}}", path);
    BlockDriverState *bs = add(opts);
    char buf[512] = "written";
    Error *err = NULL;

    BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                                        &error_abort);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, &err), ==, -EPERM);
    expect(&err, "Block node is read-only");
    g_assert_cmpint(open_mode(path), ==, O_RDONLY);

    bdrv_reopen_set_read_only(bs, false, &error_abort);
    g_assert_cmpint(open_mode(path), ==, O_RDWR);
    g_assert_false(bdrv_is_read_only(bs) || bdrv_is_read_only(bs->file->bs));
    blk_set_perm(blk, BLK_PERM_WRITE | BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    g_assert_cmpint(blk_pwrite(blk, 0, sizeof(buf), buf, 0), ==, 0);

    /* not while somebody writes */
    g_assert_cmpint(bdrv_reopen_set_read_only(bs, true, &err), ==, -EPERM);
    expect(&err, "Read-only block node 'n' cannot support read-write users");
    g_assert_false(bdrv_is_read_only(bs) || bdrv_is_read_only(bs->file->bs));
    g_assert_cmpint(open_mode(path), ==, O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, 512, sizeof(buf), buf, 0), ==, 0);

    blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    bdrv_reopen_set_read_only(bs, true, &error_abort);
    g_assert_cmpint(open_mode(path), ==, O_RDONLY);
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(blk_pread(blk, 512, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpstr(buf, ==, "written");
    blk_unref(blk);
    bdrv_unref(bs);
}

/* A child that has its own user, or its own flag, does not follow. */
static void test_who_follows(void)
{
    g_autofree char *path = scratch_file("follow", 1 << 20);
    g_autofree char *file = g_strdup_printf(
        "{'driver':'file','node-name':'f','filename':'%s'}", path);
    g_autofree char *own = g_strdup_printf(
        "{'driver':'raw','node-name':'own','file':{'driver':'file','read-only':false,"
        "'filename':'%s'}}", path);
    BlockDriverState *f = add(file);
    BlockDriverState *bs = add("{'driver':'raw','node-name':'n','file':'f'}");
    bdrv_reopen_set_read_only(bs, true, &error_abort);
    g_assert_true(bdrv_is_read_only(bs) && !bdrv_is_read_only(f));
    bdrv_unref(bs);
    bdrv_unref(f);
    bs = add(own);
    bdrv_reopen_set_read_only(bs, true, &error_abort);
    g_assert_true(bdrv_is_read_only(bs) && !bdrv_is_read_only(bs->file->bs));
    bdrv_unref(bs);
}

static void test_direct(void)
{
    g_autofree char *path = scratch_file("direct", 1 << 20);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0) {
        g_test_skip("no O_DIRECT here");
        return;
    }
    close(fd);
    g_autofree char *buffered = g_strdup_printf(
        "{'driver':'file','node-name':'n','filename':'%s'}", path);
    g_autofree char *direct = g_strdup_printf(
        "{'driver':'file','node-name':'n','filename':'%s','cache':{'direct':true}}", path);
    BlockDriverState *bs = add(buffered);
    g_assert_cmpint(open_mode(path), ==, O_RDWR);
    reopen(bs, direct, NULL);
    g_assert_cmpint(open_mode(path), ==, O_RDWR | O_DIRECT);
    g_assert_cmpuint(bs->bl.request_alignment, >=, 1);
    reopen(bs, buffered, NULL);
    g_assert_cmpint(open_mode(path), ==, O_RDWR);
    g_assert_cmpuint(bs->bl.request_alignment, ==, 1);
    bdrv_unref(bs);
}

/* ---- locks ---------------------------------------------------------------------------------- */

static void test_locks_go_with_the_descriptor(void)
{
    g_autofree char *path = scratch_file("locks", 1 << 20);
    g_autofree char *opts = g_strdup_printf(
        "{'driver':'file','node-name':'n','read-only':true,'filename':'%s'}", path);
    BlockDriverState *bs = add(opts);
    Error *err = NULL;
    BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ,
                                        BLK_PERM_ALL & ~BLK_PERM_RESIZE, &error_abort);
    g_assert_cmphex(locked(path, HELD), ==, BLK_PERM_CONSISTENT_READ);
    g_assert_cmphex(locked(path, UNSHARED), ==, BLK_PERM_RESIZE);

    bdrv_reopen_set_read_only(bs, false, &error_abort);
    g_assert_cmphex(locked(path, HELD), ==, BLK_PERM_CONSISTENT_READ);
    g_assert_cmphex(locked(path, UNSHARED), ==, BLK_PERM_RESIZE);
    blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_CONSISTENT_READ, &error_abort);
    g_assert_cmphex(locked(path, HELD), ==, BLK_PERM_WRITE);
    g_assert_cmphex(locked(path, UNSHARED), ==, BLK_PERM_ALL & ~BLK_PERM_CONSISTENT_READ);

    /* a refused one leaves them */
    g_assert_cmpint(bdrv_reopen_set_read_only(bs, true, &err), ==, -EPERM);
    error_free_or_abort(&err);
    g_assert_cmphex(locked(path, HELD), ==, BLK_PERM_WRITE);
    g_assert_cmphex(locked(path, UNSHARED), ==, BLK_PERM_ALL & ~BLK_PERM_CONSISTENT_READ);
    blk_unref(blk);
    bdrv_unref(bs);
    g_assert_cmphex(locked(path, HELD) | locked(path, UNSHARED), ==, 0);
}

/* ---- options -------------------------------------------------------------------------------- */

static void test_options(void)
{
    BlockDriverState *bs = add("{'driver':'null-co','node-name':'n','size':4096,"
                               "'read-zeroes':true}");
    BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL,
                                        &error_abort);
    char buf[16];
    reopen(bs, "{'driver':'null-co','node-name':'n','size':4096,'latency-ns':5}", NULL);
    memset(buf, 7, sizeof(buf));
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 7);
    reopen(bs, "{'driver':'null-co','node-name':'n','size':'4k','read-zeroes':'on'}", NULL);
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, 0);

    reopen(bs, "{'driver':'null-co','size':8192}", "Cannot change the option 'size'");
    reopen(bs, "{'driver':'null-co','read-zeroes':true}",
           "Option 'size' cannot be reset to its default value");
    reopen(bs, "{'driver':'null-aio','size':4096}", "Cannot change the option 'driver'");
    reopen(bs, "{'driver':'null-co','node-name':'m','size':4096}",
           "Cannot change the option 'node-name'");
    reopen(bs, "{'driver':'null-co','size':4096,'foo':1}", "Cannot change the option 'foo'");
    reopen(bs, "{'size':4096,'detect-zeroes':'unmap'}",
           "setting detect-zeroes to unmap is not allowed without setting discard operation "
           "to unmap");
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_raw_window(void)
{
    g_autofree char *path = scratch_file("window", 1 << 20);
    g_autofree char *file = g_strdup_printf("{'driver':'file','node-name':'f',"
                                            "'filename':'%s'}", path);
    BlockDriverState *f = add(file);
    BlockDriverState *bs = add("{'driver':'raw','node-name':'n','offset':4096,'file':'f'}");
    g_assert_cmpint(bdrv_getlength(bs), ==, (1 << 20) - 4096);
    reopen(bs, "{'driver':'raw','node-name':'n','offset':8192,'size':4096,'file':'f'}", NULL);
    g_assert_cmpint(bdrv_getlength(bs), ==, 4096);
    g_assert_cmpint(bs->total_sectors, ==, 8);
    reopen(bs, "{'driver':'raw','node-name':'n','offset':2097152,'file':'f'}",
           "Offset (2097152) cannot be greater than size of the containing file (1048576)");
    reopen(bs, "{'driver':'raw','node-name':'n','file':'f'}",
           "Cannot change the option 'offset'");
    g_assert_cmpint(bdrv_getlength(bs), ==, 4096);
    bdrv_unref(bs);
    bdrv_unref(f);
}

/* ---- children ------------------------------------------------------------------------------- */

static char *qcow2_options(const char *name, const char *path, const char *more)
{
    return g_strdup_printf("{'driver':'qcow2','node-name':'%s','file':{'driver':'file',"
                           "'filename':'%s'}%s}", name, path, more);
}

static void test_backing(void)
{
    g_autofree char *path = scratch_path("overlay.qcow2");
    qcow2_create(path, "size=1M");
    g_autofree char *none = qcow2_options("n", path, ",'backing':null");
    g_autofree char *with_a = qcow2_options("n", path, ",'backing':'a'");
    g_autofree char *with_b = qcow2_options("n", path, ",'backing':'b'");
    g_autofree char *with_self = qcow2_options("n", path, ",'backing':'n'");
    g_autofree char *with_nobody = qcow2_options("n", path, ",'backing':'zz'");
    g_autofree char *missing = qcow2_options("n", path, "");
    BlockDriverState *a = add("{'driver':'null-co','node-name':'a','size':1048576}");
    BlockDriverState *b = add("{'driver':'null-co','node-name':'b','size':1048576}");
    BlockDriverState *bs = add(none);

    reopen(bs, missing, NULL);
    reopen(bs, with_a, NULL);
    g_assert_true(bdrv_cow_bs(bs) == a);
    g_assert_cmpint(a->refcnt, ==, 2);
    reopen(bs, missing, "backing is missing for 'n'");
    reopen(bs, with_a, NULL);
    reopen(bs, with_b, NULL);
    g_assert_true(bdrv_cow_bs(bs) == b);
    g_assert_cmpint(a->refcnt, ==, 1);
    reopen(bs, with_self, "Making 'n' a backing child of 'n' would create a cycle");
    reopen(bs, with_nobody, "Cannot find device='' nor node-name='zz'");
    g_assert_true(bdrv_cow_bs(bs) == b);
    bdrv_freeze_backing_chain(bs, b, &error_abort);
    reopen(bs, none, "Cannot change frozen 'backing' link from 'n' to 'b'");
    bdrv_unfreeze_backing_chain(bs, b);
    reopen(bs, none, NULL);
    g_assert_null(bs->backing);
    g_assert_cmpint(b->refcnt, ==, 1);
    bdrv_unref(bs);
    bdrv_unref(a);
    bdrv_unref(b);
}

static void test_file(void)
{
    BlockDriverState *a = add("{'driver':'null-co','node-name':'a','size':4096}");
    BlockDriverState *b = add("{'driver':'null-co','node-name':'b','size':4096}");
    BlockDriverState *bs = add("{'driver':'raw','node-name':'n','file':'a'}");
    reopen(bs, "{'driver':'raw','node-name':'n','file':'b'}", NULL);
    g_assert_true(bs->file->bs == b);
    g_assert_cmpint(a->refcnt, ==, 1);
    reopen(bs, "{'driver':'raw','node-name':'n','file':'n'}",
           "Making 'n' a file child of 'n' would create a cycle");
    g_autofree char *path = scratch_path("fixed.qcow2");
    qcow2_create(path, "size=1M");
    g_autofree char *opts = qcow2_options("q", path, "");
    BlockDriverState *q = add(opts);
    reopen(q, "{'driver':'qcow2','node-name':'q','file':'a'}",
           "Cannot change the option 'file'");
    bdrv_unref(q);
    bdrv_unref(bs);
    bdrv_unref(a);
    bdrv_unref(b);
}

/* ---- qcow2 ---------------------------------------------------------------------------------- */

/* What was written while writable is there while read-only, for everybody, and after. */
static void test_qcow2_read_only_and_back(void)
{
    g_autofree char *path = scratch_path("rw.qcow2");
    qcow2_create(path, "size=4M,cluster_size=4k,lazy_refcounts=on");
    BlockBackend *blk = qcow2_open_file(path, "");
    char buf[8192], got[8192];

    for (int round = 1; round < 6; round++) {
        memset(buf, round, sizeof(buf));
        g_assert_cmpint(blk_pwrite(blk, round * 65536, sizeof(buf), buf, 0), ==, 0);
        blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
        bdrv_reopen_set_read_only(blk_bs(blk), true, &error_abort);
        g_assert_cmpint(open_mode(path), ==, O_RDONLY);
        qcow2_assert_peer_finds_no_fault(path);
        qcow2_assert_consistent(blk, false);
        for (int k = 1; k <= round; k++) {
            memset(buf, k, sizeof(buf));
            g_assert_cmpint(blk_pread(blk, k * 65536, sizeof(got), got, 0), ==, 0);
            g_assert_cmpmem(got, sizeof(got), buf, sizeof(buf));
        }
        bdrv_reopen_set_read_only(blk_bs(blk), false, &error_abort);
        blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
    }
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_qcow2_options(void)
{
    g_autofree char *path = scratch_path("opts.qcow2");
    qcow2_create(path, "size=64M");
    g_autofree char *plain = qcow2_options("n", path, "");
    g_autofree char *tuned = qcow2_options("n", path, ",'cache-size':1048576,"
                                           "'l2-cache-entry-size':4096,'lazy-refcounts':true,"
                                           "'discard':'unmap','pass-discard-request':true");
    g_autofree char *bad = qcow2_options("n", path, ",'l2-cache-entry-size':4097");
    BlockDriverState *bs = add(plain);
    BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
    char buf[512] = "x";
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(blk_pwrite(blk, i << 20, sizeof(buf), buf, 0), ==, 0);
        reopen(bs, i % 2 ? plain : tuned, NULL);
        g_assert_cmpint(blk_pread(blk, i << 20, sizeof(buf), buf, 0), ==, 0);
        g_assert_cmpstr(buf, ==, "x");
    }
    reopen(bs, bad, "L2 cache entry size must be a power of two between 512 and the cluster "
           "size (65536)");
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    blk_unref(blk);
    bdrv_unref(bs);
    qcow2_assert_peer_finds_no_fault(path);
}

/* ---- all or none ---------------------------------------------------------------------------- */

static void test_all_or_none(void)
{
    g_autofree char *path_a = scratch_file("all-a", 1 << 20);
    g_autofree char *path_b = scratch_file("all-b", 1 << 20);
    g_autofree char *a_opts = g_strdup_printf("{'driver':'file','node-name':'a','filename':"
                                              "'%s'}", path_a);
    g_autofree char *b_opts = g_strdup_printf("{'driver':'file','node-name':'b','filename':"
                                              "'%s'}", path_b);
    BlockDriverState *a = add(a_opts), *b = add(b_opts);
    Error *err = NULL;
    BlockBackend *writer = blk_new_with_bs(b, BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort);

    for (int order = 0; order < 2; order++) {
        BlockReopenQueue *q = NULL;
        BlockDriverState *nodes[] = { order ? b : a, order ? a : b };
        for (int i = 0; i < 2; i++) {
            q = bdrv_reopen_queue(q, nodes[i], json_options("{'read-only':true}"), true);
            g_assert_cmpint(nodes[i]->quiesce_counter, ==, 1);
        }
        g_assert_cmpint(bdrv_reopen_multiple(q, &err), ==, -EPERM);
        expect(&err, "Read-only block node 'b' cannot support read-write users");
        g_assert_false(bdrv_is_read_only(a) || bdrv_is_read_only(b));
        g_assert_cmpint(open_mode(path_a), ==, O_RDWR);
        g_assert_cmpint(open_mode(path_b), ==, O_RDWR);
        g_assert_cmpint(a->quiesce_counter + b->quiesce_counter, ==, 0);
    }
    blk_unref(writer);
    BlockReopenQueue *q = bdrv_reopen_queue(NULL, a, json_options("{'read-only':true}"), true);
    q = bdrv_reopen_queue(q, b, json_options("{'read-only':true}"), true);
    g_assert_cmpint(bdrv_reopen_multiple(q, &error_abort), ==, 0);
    g_assert_cmpint(open_mode(path_a), ==, O_RDONLY);
    g_assert_cmpint(open_mode(path_b), ==, O_RDONLY);

    /* a queue that is thrown away */
    q = bdrv_reopen_queue(NULL, a, json_options("{'read-only':false}"), true);
    bdrv_reopen_queue_free(q);
    bdrv_reopen_queue_free(NULL);
    g_assert_true(bdrv_is_read_only(a));
    g_assert_cmpint(a->quiesce_counter, ==, 0);
    bdrv_unref(a);
    bdrv_unref(b);
}

/* The name leads to another file by now. */
static void test_another_file(void)
{
    g_autofree char *path = scratch_file("gone", 1 << 20);
    g_autofree char *opts = g_strdup_printf("{'driver':'file','node-name':'n','filename':"
                                            "'%s'}", path);
    g_autofree char *text = g_strdup_printf("Could not reopen '%s': it is another file now",
                                            path);
    BlockDriverState *bs = add(opts);
    Error *err = NULL;
    unlink(path);
    g_assert_cmpint(bdrv_reopen_set_read_only(bs, true, &err), ==, -ENOENT);
    error_free_or_abort(&err);
    g_free(scratch_file("gone", 1 << 20));
    g_assert_cmpint(bdrv_reopen_set_read_only(bs, true, &err), ==, -ESTALE);
    expect(&err, text);
    g_assert_false(bdrv_is_read_only(bs));
    bdrv_unref(bs);
}

static void test_driver_without_reopen(void)
{
    static BlockDriver fixed = { .format_name = "fixed" };
    BlockDriverState *bs = bdrv_new_open_driver(&fixed, "n", 0, &error_abort);
    Error *err = NULL;
    g_assert_cmpint(bdrv_reopen_set_read_only(bs, false, &err), ==, -ENOTSUP);
    expect(&err, "Block format 'fixed' used by node 'n' does not support reopening files");
    g_assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);
}

/* ---- handing an image over ---------------------------------------------------------------------- */

/* Two openings of one image take turns at writing it. */
static void test_activate(void)
{
    g_autofree char *path = scratch_path("turns.qcow2");
    qcow2_create(path, "size=4M,cluster_size=4k");
    g_autofree char *opts_a = qcow2_options("a", path, "");
    g_autofree char *opts_b = qcow2_options("b", path, "");
    BlockDriverState *bs[2] = { add(opts_a), NULL };
    char buf[512], got[512];
    Error *err = NULL;

    g_assert_cmpint(bdrv_activate(bs[0], &error_abort), ==, 0);
    BlockBackend *blk = blk_new_with_bs(bs[0], BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort);
    g_assert_cmpint(bdrv_inactivate(bs[0], &err), ==, -EPERM);
    expect(&err, "Node 'a' is still written to");
    blk_unref(blk);
    g_assert_cmpint(bdrv_inactivate(bs[0], &error_abort), ==, 0);
    g_assert_cmphex(locked(path, HELD) & BLK_PERM_WRITE, ==, 0);
    g_assert_cmphex(locked(path, UNSHARED), ==, 0);
    bs[1] = bdrv_open(NULL, NULL, json_options(opts_b), BDRV_O_RDWR, &error_abort);
    /* the other one has it */
    g_assert_cmpint(bdrv_activate(bs[0], &err), <, 0);
    error_free_or_abort(&err);
    bdrv_inactivate(bs[1], &error_abort);

    for (int turn = 1; turn < 7; turn++) {
        BlockDriverState *active = bs[turn % 2];
        g_assert_cmpint(bdrv_activate(active, &error_abort), ==, 0);
        blk = blk_new_with_bs(active, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
        for (int k = 1; k < turn; k++) {
            memset(buf, k, sizeof(buf));
            g_assert_cmpint(blk_pread(blk, k * 65536, sizeof(got), got, 0), ==, 0);
            g_assert_cmpmem(got, sizeof(got), buf, sizeof(buf));
        }
        memset(buf, turn, sizeof(buf));
        g_assert_cmpint(blk_pwrite(blk, turn * 65536, sizeof(buf), buf, 0), ==, 0);
        blk_unref(blk);
        bdrv_inactivate(active, &error_abort);
        qcow2_assert_peer_finds_no_fault(path);
    }
    bdrv_unref(bs[0]);
    bdrv_unref(bs[1]);
    qcow2_assert_peer_finds_no_fault(path);
}

/* ---- chains without an end ----------------------------------------------------------------------- */

static void test_an_image_that_backs_itself(void)
{
    g_autofree char *path = scratch_path("self.qcow2");
    qcow2_create(path, "size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    Error *err = NULL;
    g_assert_cmpint(bdrv_change_backing_file(blk_bs(blk), "self.qcow2", "qcow2"), ==, 0);
    blk_unref(blk);
    g_autofree char *opts = qcow2_options("n", path, "");
    g_assert_null(bdrv_open(NULL, NULL, json_options(opts), 0, &err));
    expect(&err, "Could not open backing file: the chain has more than 256 images; does one of "
           "them lead back to itself?");
    g_assert_null(bdrv_find_node("n"));
}

/* ---- the backing file of a read-only overlay ---------------------------------------------------- */

static void test_drop_intermediate_below_a_read_only_image(void)
{
    g_autofree char *base = scratch_path("c0.qcow2"), *mid = scratch_path("c1.qcow2");
    g_autofree char *top = scratch_path("c2.qcow2");
    qcow2_create(base, "size=1M");
    g_autofree char *mid_opts = g_strdup_printf("backing_file=%s,backing_fmt=qcow2", base);
    g_autofree char *top_opts = g_strdup_printf("backing_file=%s,backing_fmt=qcow2", mid);
    qcow2_create(mid, mid_opts);
    qcow2_create(top, top_opts);
    g_autofree char *opts = qcow2_options("n", top, ",'read-only':true");
    BlockDriverState *bs = add(opts);
    BlockDriverState *mid_bs = bdrv_cow_bs(bs), *base_bs = bdrv_cow_bs(mid_bs);
    g_assert_cmpint(bdrv_drop_intermediate(mid_bs, base_bs, NULL), ==, 0);
    g_assert_true(bdrv_cow_bs(bs) == base_bs && bdrv_is_read_only(bs));
    g_assert_cmpstr(bs->backing_file, ==, base);
    bdrv_unref(bs);
    bs = add(opts);
    g_assert_true(bdrv_cow_bs(bs) && !bdrv_cow_bs(bdrv_cow_bs(bs)));
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/reopen/read-only", test_read_only_and_back);
    g_test_add_func("/reopen/follows", test_who_follows);
    g_test_add_func("/reopen/direct", test_direct);
    g_test_add_func("/reopen/locks", test_locks_go_with_the_descriptor);
    g_test_add_func("/reopen/options", test_options);
    g_test_add_func("/reopen/raw", test_raw_window);
    g_test_add_func("/reopen/backing", test_backing);
    g_test_add_func("/reopen/file", test_file);
    g_test_add_func("/reopen/qcow2/read-only", test_qcow2_read_only_and_back);
    g_test_add_func("/reopen/qcow2/options", test_qcow2_options);
    g_test_add_func("/reopen/all-or-none", test_all_or_none);
    g_test_add_func("/reopen/another-file", test_another_file);
    g_test_add_func("/reopen/unsupported", test_driver_without_reopen);
    g_test_add_func("/reopen/activate", test_activate);
    g_test_add_func("/open/backs-itself", test_an_image_that_backs_itself);
    g_test_add_func("/reopen/drop-intermediate", test_drop_intermediate_below_a_read_only_image);
    return image_test_run();
}
