/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The filter "blkdebug": rules, states, breakpoints, limits, and errors below qcow2. */
#include "qcow2-test.h"
#include "miniblk/aio-wait.h"
#include "miniblk/iothread.h"
#include "miniblk/snapshot.h"

enum { DISK_BYTES = 1 << 20 };

static char *disk;

/* raw on blkdebug on a file; MORE begins with a comma. */
static BlockBackend *open_debug(const char *more)
{
    return open_rw(options_of("driver=raw,discard=unmap,file.driver=blkdebug,"
                              "file.discard=unmap,file.image.discard=unmap,"
                              "file.image.driver=file,file.image.filename=%s%s", disk, more));
}

/* ---- rules ------------------------------------------------------------------------ */

/* OP is like "w8": write sector 8; r read, z zeroes, d discard, f flush, s block status. */
static int run_op(BlockBackend *blk, const char *op)
{
    int64_t at = g_ascii_strtoll(op + 1, NULL, 10) * 512, n, map;
    uint8_t buf[512] = { 0x77 };
    BlockDriverState *file;
    int ret;

    switch (op[0]) {
    case 'r':
        return blk_pread(blk, at, 512, buf, 0);
    case 'w':
        return blk_pwrite(blk, at, 512, buf, 0);
    case 'z':
        return blk_pwrite_zeroes(blk, at, 512, 0);
    case 'd':
        return blk_pdiscard(blk, at, 4096);
    case 'f':
        return blk_flush(blk);
    case 's':
        ret = bdrv_block_status(blk_bs(blk), at, 512, &n, &map, &file);
        return MIN(ret, 0);
    }
    g_assert_not_reached();
}

/* SCRIPT: operations with the errno they end with, "r0=28 w8 f=5"; nothing said is success. */
static void run_script(BlockBackend *blk, const char *script)
{
    g_auto(GStrv) ops = g_strsplit(script, " ", -1);

    for (char **op = ops; *op; op++) {
        const char *expected = strchr(*op, '=');
        int ret = run_op(blk, *op);
        if (ret != (expected ? -atoi(expected + 1) : 0)) {
            g_error("in '%s', %s ended with %d", script, *op, ret);
        }
    }
}

#define INJECT(n, event) ",file.inject-error." #n ".event=" #event
#define INJECT_OPT(n, opt) ",file.inject-error." #n "." #opt
#define STATE(n, event) ",file.set-state." #n ".event=" #event
#define STATE_OPT(n, opt) ",file.set-state." #n "." #opt

static void test_requests_fail_as_the_rules_say(void)
{
    static const struct {
        const char *rules, *script;
    } table[] = {
        { "", "w0 r0 z0 d0 f s0" },
        /* an error stays in force for all kinds of requests, until others come into force */
        { INJECT(0, read_aio) INJECT_OPT(0, errno=28), "w0 r0=28 w0=28 r0=28 z0=28 d0=28" },
        { INJECT(0, read_aio), "r0=5" },
        { INJECT(0, read_aio) INJECT_OPT(0, once=on), "w0 r0=5 r0 w0" },
        { INJECT(0, write_aio), "r0 w0=5 r0=5" },
        { INJECT(0, none) INJECT_OPT(0, sector=2), "w0 r0 r2=5 w2=5 w1 z2=5 r3" },
        { INJECT(0, pwritev), "r0 w0=5 r0=5" },
        { INJECT(0, pwritev_zero), "w0 z0=5" },
        { INJECT(0, none) INJECT_OPT(0, iotype=write), "r0 w0=5 z0" },
        { INJECT(0, none) INJECT_OPT(0, iotype=read), "w0 r0=5" },
        { INJECT(0, none) INJECT_OPT(0, iotype=write-zeroes), "r0 w0 z0=5" },
        { INJECT(0, none) INJECT_OPT(0, iotype=discard), "r0 w0 d0=5" },
        { INJECT(0, none) INJECT_OPT(0, iotype=flush), "w0 f=5 r0" },
        { INJECT(0, none) INJECT_OPT(0, iotype=block-status), "r0 w0 s0=5" },
        { INJECT(0, none), "s0 r0=5" },                 /* status only when asked for */
        { INJECT(0, none) INJECT_OPT(0, once=on) INJECT_OPT(0, iotype=write), "r9 w1=5 w9" },
        { INJECT(0, read_aio) INJECT_OPT(0, errno=0), "r0" },
        { INJECT(0, read_aio) INJECT_OPT(0, immediately=on), "r0=5" },
        { INJECT(0, flush_to_disk), "w0 f=5" },
        { INJECT(0, flush_to_os), "w0 f=5" },
        /* the first of several */
        { INJECT(0, read_aio) INJECT_OPT(0, errno=28) INJECT(1, read_aio), "r0=28" },
        /* those of another event replace them */
        { INJECT(0, read_aio) INJECT_OPT(0, sector=0) INJECT_OPT(0, errno=28)
          INJECT(1, write_aio) INJECT_OPT(1, sector=100), "r0=28 w100=5 w0 w100=5" },
        { INJECT(0, none) INJECT_OPT(0, sector=9)
          INJECT(1, read_aio) INJECT_OPT(1, sector=1), "r9 r1=5 r9" },
        /* states: the documentation's example, the second write fails */
        { STATE(0, write_aio) STATE_OPT(0, state=1) STATE_OPT(0, new_state=2)
          INJECT(0, write_aio) INJECT_OPT(0, state=2), "w0 w0=5 r0=5" },
        { STATE(0, read_aio) STATE_OPT(0, state=1) STATE_OPT(0, new_state=7)
          STATE(1, write_aio) STATE_OPT(1, state=7) STATE_OPT(1, new_state=8)
          INJECT(0, read_aio) INJECT_OPT(0, state=8), "w0 r0 r0 w0 r0=5" },
        { STATE(0, none) STATE_OPT(0, new_state=2)
          INJECT(0, read_aio) INJECT_OPT(0, state=2), "r0=5" },
        { INJECT(0, read_aio) INJECT_OPT(0, state=2), "r0" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        BlockBackend *blk = open_debug(table[i].rules);
        run_script(blk, table[i].script);
        blk_unref(blk);
    }
}

static void test_rules_come_from_a_file(void)
{
    g_autofree char *path = scratch_path("rules.cfg");
    g_autofree char *more = g_strdup_printf(",file.config=%s" INJECT(0, none)
                                            INJECT_OPT(0, sector=7), path);
    g_assert_true(g_file_set_contents(path,
        "# a comment\n"
        "[set-state]\n"
        "event = \"write_aio\"\n"
        "  state=\"1\"\n"
        "new_state = \"2\"\n"
        "\n"
        "[inject-error \"name\"]\n"
        "event = \"write_aio\"\n"
        "state = \"2\"\n"
        "errno = \"28\"\n", -1, NULL));
    BlockBackend *blk = open_debug(more);
    run_script(blk, "r7=5 w0 w0=28 r7=28");
    blk_unref(blk);
}

static void test_bad_options_are_refused(void)
{
    static const struct {
        const char *more, *error;
    } table[] = {
        { ",foo=1", "Block protocol 'blkdebug' doesn't support the option 'foo'" },
        { ",inject-error.0.event=nope", "invalid parameter value: nope" },
        { ",inject-error.0.errno=5", "Missing event name for rule" },
        { ",inject-error.0.event=none,inject-error.0.bar=5",
          "[inject-error] section doesn't support the option 'bar'" },
        { ",inject-error.0.event=none,inject-error.0.iotype=foo",
          "invalid parameter value: foo" },
        { ",inject-error.0.event=none,inject-error.0.state=x",
          "Parameter 'state' expects a number" },
        { ",inject-error.0.event=none,inject-error.0.errno=-5",
          "Parameter 'errno' expects a number" },
        { ",inject-error.0.event=none,inject-error.0.sector=-2",
          "Parameter 'sector' expects a number" },
        { ",inject-error.0.event=none,inject-error.0.sector=9223372036854775807",
          "Parameter 'sector' expects a number" },
        { ",inject-error.0.event=none,inject-error.0.once=maybe",
          "Parameter 'once' expects 'on' or 'off'" },
        { ",inject-error=5", "Invalid parameter type for 'inject-error', expected: array" },
        { ",inject-error.0=5",
          "Invalid parameter type for 'inject-error[0]', expected: object" },
        { ",set-state.0.event=none,set-state.0.errno=5",
          "[set-state] section doesn't support the option 'errno'" },
        { ",config=/nonexistent",
          "Could not read blkdebug config file: No such file or directory" },
        { ",config=/dev/zero", "Could not read blkdebug config file: File too large" },
        { ",config=/", "Could not read blkdebug config file: Is a directory" },
        { ",take-child-perms.0=write,take-child-perms.1=foo",
          "Parameter 'take-child-perms[1]' does not accept value 'foo'" },
        { ",align=3", "Cannot meet constraints with align 3" },
        { ",align=4096,max-transfer=6144", "Cannot meet constraints with max-transfer 6144" },
        { ",align=512,opt-write-zero=1000",
          "Cannot meet constraints with opt-write-zero 1000" },
        { ",align=512,max-discard=1000", "Cannot meet constraints with max-discard 1000" },
        { ",align=4294967296", "Cannot meet constraints with align 4294967296" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_open_fails(options_of("driver=blkdebug,image.driver=file,image.filename=%s%s",
                                     disk, table[i].more), 0, table[i].error, NULL);
    }
    assert_open_fails(options_of("driver=blkdebug"), 0,
                      "A block device must be specified for \"image\"", NULL);
}

static void test_bad_files_are_refused(void)
{
    static const struct {
        const char *text, *error;       /* %s: the file's name; NULL: fine */
    } table[] = {
        { "", NULL },
        { "\n# only\n\n", NULL },
        { "[bogus]\nevent = \"read_aio\"\n", "There is no option group 'bogus'" },
        { "event = \"x\"\n", "no group defined" },
        { "garbage\n", "no group defined" },
        { "[inject-error]\nevent = \"nope\"\n", "invalid parameter value: nope" },
        { "[inject-error]\nerrno = \"5\"\n", "Missing event name for rule" },
        { "[inject-error]\nevent = \"read_aio\"\nfoo = \"5\"\n",
          "[inject-error] section doesn't support the option 'foo'" },
        { "[inject-error]\nevent = read_aio\n", "%s:2: parse error" },
        { "[inject-error]\nevent \"read_aio\"\n", "%s:2: parse error" },
        { "[inject-error]\nevent = \"read\"aio\"\n", "%s:2: parse error" },
        { "[inject-error]\n\n = \"read_aio\"\n", "%s:3: parse error" },
        { "[inject-error\n", "%s:1: parse error" },
        { "[inject-error]\nevent = \"read_aio\"", NULL },
    };
    g_autofree char *path = scratch_path("bad.cfg");

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        QDict *options = options_of("driver=blkdebug,config=%s,image.driver=file,"
                                    "image.filename=%s", path, disk);
        g_assert_true(g_file_set_contents(path, table[i].text, -1, NULL));
        if (table[i].error) {
            assert_open_fails(options, 0, table[i].error, path);
        } else {
            blk_unref(open_rw(options));
        }
    }
}

static void test_filename_names_config_and_image(void)
{
    g_autofree char *path = scratch_path("name.cfg");
    g_autofree char *name = g_strdup_printf("blkdebug:%s:%s", path, disk);
    g_autofree char *plain = g_strdup_printf("blkdebug::%s", disk);
    Error *err = NULL;

    g_assert_true(g_file_set_contents(path, "[inject-error]\nevent = \"none\"\n", -1, NULL));
    BlockBackend *blk = blk_new_open(name, NULL, NULL, BDRV_O_PROTOCOL | BDRV_O_RDWR,
                                     &error_abort);
    run_script(blk, "r0=5");
    g_assert_cmpstr(blk_bs(blk)->exact_filename, ==, name);
    blk_unref(blk);
    blk = blk_new_open(plain, NULL, NULL, BDRV_O_PROTOCOL | BDRV_O_RDWR, &error_abort);
    run_script(blk, "r0 w0");
    g_assert_cmpstr(blk_bs(blk)->exact_filename, ==, plain);
    blk_unref(blk);
    /* with rules a filename is not enough */
    blk = open_rw(options_of("driver=blkdebug,align=512,image.driver=file,image.filename=%s",
                             disk));
    g_assert_cmpstr(blk_bs(blk)->exact_filename, ==, "");
    blk_unref(blk);
    g_assert_null(blk_new_open("blkdebug:nothing", NULL, NULL, BDRV_O_PROTOCOL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "blkdebug requires both config file and image path");
    error_free(err);
}

/* ---- limits and permissions ------------------------------------------------------- */

static void test_limits_are_shown_and_kept_to(void)
{
    BlockBackend *blk = open_debug(",file.align=512,file.max-transfer=1536,"
                                   "file.opt-write-zero=1536,file.max-write-zero=3072,"
                                   "file.opt-discard=2048,file.max-discard=4096");
    const BlockLimits *bl = &blk_bs(blk)->file->bs->bl;
    g_autofree uint8_t *buf = g_malloc(65536);

    g_assert_cmpint(bl->request_alignment, ==, 512);
    g_assert_cmpint(bl->max_transfer, ==, 1536);
    g_assert_cmpint(bl->pwrite_zeroes_alignment, ==, 1536);
    g_assert_cmpint(bl->max_pwrite_zeroes, ==, 3072);
    g_assert_cmpint(bl->pdiscard_alignment, ==, 2048);
    g_assert_cmpint(bl->max_pdiscard, ==, 4096);
    memset(buf, 0x5a, 65536);
    g_assert_cmpint(blk_pwrite(blk, 100, 65000, buf, 0), ==, 0);
    assert_content(blk, 100, 65000, 0x5a);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 300, 60000, 0), ==, 0);
    assert_content(blk, 100, 200, 0x5a);
    assert_content(blk, 300, 60000, 0);
    assert_content(blk, 60300, 4800, 0x5a);
    g_assert_cmpint(blk_pdiscard(blk, 0, 65536), ==, 0);
    blk_unref(blk);
}

static void test_permissions_are_taken_and_not_shared(void)
{
    BlockBackend *blk = open_with_perms(
        options_of("driver=blkdebug,take-child-perms.0=write,take-child-perms.1=resize,"
                   "unshare-child-perms.0=write,image.driver=file,image.filename=%s", disk),
        BDRV_O_RDWR, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    BdrvChild *c = blk_bs(blk)->file;

    g_assert_cmphex(c->perm, ==, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE);
    g_assert_cmphex(c->shared_perm, ==, BLK_PERM_ALL & ~(uint64_t)BLK_PERM_WRITE);
    blk_unref(blk);
}

/* ---- breakpoints ------------------------------------------------------------------ */

typedef struct Write {
    BlockBackend *blk;
    int64_t offset;
    uint8_t buf[512];
    QEMUIOVector qiov;
    int done;                   /* atomic; order of completion, from 1 */
} Write;

static int writes_done;         /* atomic */

static void write_cb(void *opaque, int ret)
{
    Write *w = opaque;
    g_assert_cmpint(ret, ==, 0);
    qatomic_set_mb(&w->done, qatomic_fetch_inc(&writes_done) + 1);
}

static void start_write(Write *w, BlockBackend *blk, int64_t offset)
{
    *w = (Write) { .blk = blk, .offset = offset };
    qemu_iovec_init_buf(&w->qiov, w->buf, sizeof(w->buf));
    blk_aio_pwritev(blk, offset, &w->qiov, 0, write_cb, w);
}

static bool is_done(Write *w)
{
    return qatomic_load_acquire(&w->done);
}

static void wait_suspended(BlockBackend *blk, const char *tag)
{
    while (!bdrv_debug_is_suspended(blk_bs(blk), tag)) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

/* A stops; B and C, later, do not; A goes on when it is told to. In the main loop or not. */
static void test_request_waits_at_a_breakpoint(gconstpointer in_iothread)
{
    IOThread *io = in_iothread ? iothread_create("io", &error_abort) : NULL;
    BlockBackend *blk = open_debug("");
    BlockDriverState *bs = blk_bs(blk);
    Write a, b, c;

    if (io) {
        blk_set_aio_context(blk, iothread_get_aio_context(io), &error_abort);
    }
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "write_aio", "A"), ==, 0);
    g_assert_false(bdrv_debug_is_suspended(bs, "A"));
    start_write(&a, blk, 0);
    wait_suspended(blk, "A");
    start_write(&b, blk, 512);
    start_write(&c, blk, 1024);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !is_done(&b) || !is_done(&c));
    g_assert_false(is_done(&a));
    g_assert_cmpint(bdrv_debug_resume(bs, "B"), ==, -ENOENT);
    g_assert_cmpint(bdrv_debug_resume(bs, "A"), ==, 0);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !is_done(&a));
    g_assert_cmpint(bdrv_debug_resume(bs, "A"), ==, -ENOENT);
    blk_unref(blk);
    if (io) {
        iothread_destroy(io);
    }
}

static void test_breakpoints_can_be_removed(void)
{
    BlockBackend *blk = open_debug("");
    BlockDriverState *bs = blk_bs(blk);
    Write w;

    g_assert_cmpint(bdrv_debug_breakpoint(bs, "nope", "A"), ==, -ENOENT);
    g_assert_cmpint(bdrv_debug_remove_breakpoint(bs, "A"), ==, -ENOENT);
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "write_aio", "A"), ==, 0);
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "read_aio", "A"), ==, 0);
    g_assert_cmpint(bdrv_debug_remove_breakpoint(bs, "A"), ==, 0);
    run_script(blk, "w0 r0");
    /* removing resumes who has already met it */
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "write_aio", "A"), ==, 0);
    start_write(&w, blk, 0);
    wait_suspended(blk, "A");
    g_assert_cmpint(bdrv_debug_remove_breakpoint(bs, "A"), ==, 0);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !is_done(&w));
    blk_unref(blk);
}

/* Two stops on the way of one request, and the order in which two are let go is ours. */
static void test_requests_can_be_put_in_any_order(void)
{
    BlockBackend *blk = open_debug("");
    BlockDriverState *bs = blk_bs(blk);
    Write a, b;

    writes_done = 0;
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "write_aio", "A"), ==, 0);
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "pwritev", "A2"), ==, 0);
    start_write(&a, blk, 0);
    wait_suspended(blk, "A");
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "write_aio", "B"), ==, 0);
    start_write(&b, blk, 512);
    wait_suspended(blk, "B");
    g_assert_cmpint(bdrv_debug_resume(bs, "A"), ==, 0);
    wait_suspended(blk, "A2");
    g_assert_cmpint(bdrv_debug_resume(bs, "B"), ==, 0);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !is_done(&b));
    g_assert_cmpint(bdrv_debug_resume(bs, "A2"), ==, 0);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !is_done(&a));
    g_assert_cmpint(b.done, ==, 1);
    g_assert_cmpint(a.done, ==, 2);
    blk_unref(blk);
}

static void resume_bh(void *opaque)
{
    g_assert_cmpint(bdrv_debug_resume(blk_bs(opaque), "A"), ==, 0);
}

/* A section waits for a request that is held up, and ends when that has been let go. */
static void test_drain_waits_for_a_suspended_request(void)
{
    BlockBackend *blk = open_debug("");
    Write w;

    bdrv_debug_breakpoint(blk_bs(blk), "write_aio", "A");
    start_write(&w, blk, 0);
    wait_suspended(blk, "A");
    aio_bh_schedule_oneshot(qemu_get_aio_context(), resume_bh, blk);
    blk_drain(blk);
    g_assert_true(is_done(&w));
    blk_unref(blk);
}

static void test_node_without_blkdebug_has_no_breakpoints(void)
{
    BlockBackend *blk = open_file(disk, "");
    BlockDriverState *bs = blk_bs(blk);

    g_assert_cmpint(bdrv_debug_breakpoint(bs, "write_aio", "A"), ==, -ENOTSUP);
    g_assert_cmpint(bdrv_debug_remove_breakpoint(bs, "A"), ==, -ENOTSUP);
    g_assert_cmpint(bdrv_debug_resume(bs, "A"), ==, -ENOTSUP);
    g_assert_false(bdrv_debug_is_suspended(bs, "A"));
    blk_unref(blk);
}

/* ---- below qcow2 ------------------------------------------------------------------ */

/* What is written need not survive the machine: syncs would take most of the tests' time. */
#define UNSYNCED(node) #node ".driver=file," #node ".cache.no-flush=on,"
#define DEBUGGED "driver=qcow2,discard=unmap,file.driver=blkdebug," UNSYNCED(file.image)

/* PATH becomes a copy of the image OF, which is made with OPTS when it is not there. */
static void copy_image(const char *of, const char *opts, const char *path)
{
    g_autofree char *image = scratch_path(of), *data = NULL;
    gsize bytes;

    if (!g_file_test(image, G_FILE_TEST_EXISTS)) {
        qcow2_create(image, opts);
        /* tables that are there already, so that they are loaded too */
        BlockBackend *blk = qcow2_open_file(image, "");
        write_pattern(blk, 0, 4096, 1);
        blk_unref(blk);
    }
    g_assert_true(g_file_get_contents(image, &data, &bytes, NULL));
    g_assert_true(g_file_set_contents_full(path, data, bytes, G_FILE_SET_CONTENTS_NONE, 0600,
                                           NULL));
}

/* Everything that makes qcow2 read and write metadata; errors are fine. */
static void exercise(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc0(256 * 1024);

    memset(buf, 0x11, 256 * 1024);
    for (int i = 0; i < 6; i++) {
        blk_pwrite(blk, i * 1400000, 100 * 1024, buf, 0);
        blk_pwrite(blk, i * 1400000 + 1000, 512, buf, 0);
        blk_pdiscard(blk, i * 1400000, 64 * 1024);
        blk_pwrite_zeroes(blk, i * 1400000 + 65536, 70000, BDRV_REQ_MAY_UNMAP);
        blk_pread(blk, i * 1400000, 256 * 1024, buf, 0);
        blk_flush(blk);
    }
    blk_truncate(blk, 64 << 20, false, PREALLOC_MODE_OFF, 0, NULL);
}

/* What else makes it do so; errors are fine here, too. */
static void manage(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    QEMUSnapshotInfo sn = { .name = "s" };
    g_autofree uint8_t *buf = g_malloc0(256 * 1024);

    blk_pwrite(blk, 512, 1024, buf, BDRV_REQ_WRITE_COMPRESSED);
    blk_pread(blk, 512, 512, buf, 0);
    bdrv_save_vmstate(bs, buf, 0, 1000);
    bdrv_load_vmstate(bs, buf, 0, 1000);
    if (bdrv_snapshot_create(bs, &sn) == 0) {
        blk_pwrite(blk, 0, 1024, buf, 0);
        bdrv_snapshot_delete(bs, sn.id_str, sn.name, NULL);
    }
    blk_flush(blk);
    blk_truncate(blk, 1 << 20, false, PREALLOC_MODE_OFF, 0, NULL);
    blk_truncate(blk, 4 << 20, false, PREALLOC_MODE_METADATA, 0, NULL);
    blk_make_empty(blk, NULL);
}

/*
 * After an error at any point, for good or once, the image has no corruption: at the worst
 * clusters that nobody uses.
 */
static void test_qcow2_survives_an_error_at(gconstpointer event)
{
    g_autofree char *path = scratch_path("survive.qcow2");

    int saved_stderr = qcow2_silence();
    for (int once = 0; once < 2; once++) {
        copy_image("plain.qcow2", "size=9M,cluster_size=512", path);
        BlockBackend *blk = open_rw(options_of(
            DEBUGGED "file.image.filename=%s,file.inject-error.0.event=%s,"
            "file.inject-error.0.once=%s", path, (const char *)event, once ? "on" : "off"));
        exercise(blk);
        manage(blk);
        blk_unref(blk);
        blk = open_rw(options_of("driver=qcow2,backing=," UNSYNCED(file) "file.filename=%s",
                                 path));
        qcow2_assert_consistent(blk, true);
        blk_unref(blk);
    }
    qcow2_end_silence(saved_stderr);
}

static void test_qcow2_is_not_opened_without_refcounts(void)
{
    g_autofree char *path = scratch_path("unread.qcow2");

    qcow2_create(path, "size=1M");
    assert_open_fails(options_of(
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,"
        "file.inject-error.0.event=reftable_load", path), 0,
        "Could not initialize refcount handling: Input/output error", NULL);
}

/* From EVENT on reading data fails, and all that comes after that. */
static void test_qcow2_reports(gconstpointer event)
{
    g_autofree char *base = scratch_file("report.raw", 1 << 20);
    g_autofree char *path = scratch_path("report.qcow2");
    g_autofree char *opts = g_strdup_printf(
        "size=9M,cluster_size=512,refcount_bits=64,backing_file=%s,backing_fmt=raw", base);
    uint8_t buf[512] = { 0 };

    copy_image("above.qcow2", opts, path);
    BlockBackend *blk = open_rw(options_of(
        DEBUGGED
        "file.image.filename=%s,file.set-state.0.event=%s,file.set-state.0.new_state=2,"
        "file.inject-error.0.event=read_aio,file.inject-error.0.state=2,"
        "file.inject-error.0.errno=99", path, (const char *)event));
    exercise(blk);
    manage(blk);
    int ret = blk_pwrite(blk, 0, 512, buf, 0);
    g_assert_cmpint(ret < 0 ? ret : blk_pread(blk, 0, 512, buf, 0), ==, -99);
    blk_unref(blk);
}

typedef struct Sighting {
    BlockBackend *blk;
    bool done;
} Sighting;

static void coroutine_fn exercise_entry(void *opaque)
{
    Sighting *s = opaque;
    exercise(s->blk);
    s->done = true;
}

/* A breakpoint at the event is met. */
static void test_qcow2_stops_at(gconstpointer event)
{
    g_autofree char *path = scratch_path("report.qcow2");
    Sighting s = { 0 };

    copy_image("plain.qcow2", "size=9M,cluster_size=512", path);
    s.blk = open_rw(options_of(DEBUGGED "file.image.filename=%s", path));
    g_assert_cmpint(bdrv_debug_breakpoint(blk_bs(s.blk), event, "met"), ==, 0);
    qemu_coroutine_enter(qemu_coroutine_create(exercise_entry, &s));
    bool met = false;
    while (!s.done) {
        if (bdrv_debug_is_suspended(blk_bs(s.blk), "met")) {
            met = true;
            bdrv_debug_resume(blk_bs(s.blk), "met");
        }
        aio_poll(qemu_get_aio_context(), false);
    }
    if (!met) {
        g_error("%s was not met", (const char *)event);
    }
    blk_unref(s.blk);
}

/* By blkdebug itself, by copy-on-read, and for requests that do not fit the file's sectors. */
static const char *const others_report[] = {
    "none", "cor_write", "pwritev_rmw_head", "pwritev_rmw_after_head", "pwritev_rmw_tail",
    "pwritev_rmw_after_tail", NULL
};

/* Those that a breakpoint can be put at while requests are running. */
static const char *const request_events[] = {
    "l1_update", "l2_load", "l2_update", "l2_alloc_write", "read_aio", "write_aio", "cow_read",
    "cow_write", "refblock_load", "refblock_update_part", "refblock_alloc_hookup",
    "refblock_alloc", "cluster_alloc", "cluster_free", "flush_to_os",
    "flush_to_disk", "l1_grow_alloc_table",
    "l1_grow_write_table", "l1_grow_activate_table", "pwritev", "pwritev_done",
};

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    disk = scratch_file("disk.raw", DISK_BYTES);
#define ADD(name) g_test_add_func("/blkdebug/" #name, test_##name)
    ADD(requests_fail_as_the_rules_say);
    ADD(rules_come_from_a_file);
    ADD(bad_options_are_refused);
    ADD(bad_files_are_refused);
    ADD(filename_names_config_and_image);
    ADD(limits_are_shown_and_kept_to);
    ADD(permissions_are_taken_and_not_shared);
    g_test_add_data_func("/blkdebug/request_waits_at_a_breakpoint/main", NULL,
                         test_request_waits_at_a_breakpoint);
    g_test_add_data_func("/blkdebug/request_waits_at_a_breakpoint/iothread", "",
                         test_request_waits_at_a_breakpoint);
    ADD(breakpoints_can_be_removed);
    ADD(requests_can_be_put_in_any_order);
    ADD(drain_waits_for_a_suspended_request);
    ADD(node_without_blkdebug_has_no_breakpoints);
    ADD(qcow2_is_not_opened_without_refcounts);
    for (size_t i = 0; i < ARRAY_SIZE(request_events); i++) {
        g_autofree char *stops = g_strdup_printf("/blkdebug/qcow2_stops_at/%s",
                                                 request_events[i]);
        g_test_add_data_func(stops, request_events[i], test_qcow2_stops_at);
    }
    for (const char *const *event = blkdebug_event_names; *event; event++) {
        g_autofree char *reports = g_strdup_printf("/blkdebug/qcow2_reports/%s", *event);
        g_autofree char *survives = g_strdup_printf("/blkdebug/qcow2_survives_an_error_at/%s",
                                                    *event);
        if (g_strv_contains(others_report, *event)) {
            continue;
        }
        g_test_add_data_func(reports, *event, test_qcow2_reports);
        if (strcmp(*event, "reftable_load") != 0) {
            g_test_add_data_func(survives, *event, test_qcow2_survives_an_error_at);
        }
    }
    int ret = image_test_run();
    g_free(disk);
    return ret;
}
