/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Image locking: permissions become locks, locks of others become refusals. */
#include "image-test.h"
#include <signal.h>
#include <sys/wait.h>

enum { HELD = 100, UNSHARED = 200, PERM_BITS = 4 };
enum {
    R = BLK_PERM_CONSISTENT_READ, W = BLK_PERM_WRITE, WU = BLK_PERM_WRITE_UNCHANGED,
    RS = BLK_PERM_RESIZE, ALL = BLK_PERM_ALL,
};

/* Another user of PATH: an open file description of its own. */
static int other_user(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

/* The bytes from BASE on that somebody else than FD has locked, as permission bits. */
static uint64_t locked_by_others(int fd, int base)
{
    uint64_t bits = 0;
    for (int i = 0; i < PERM_BITS; i++) {
        int ret = qemu_lock_fd_test(fd, base + i, 1, true);
        g_assert_true(ret == 0 || ret == -EAGAIN);
        bits |= ret ? 1ULL << i : 0;
    }
    return bits;
}

static void assert_locks(const char *path, uint64_t held, uint64_t unshared)
{
    int fd = other_user(path);
    g_assert_cmphex(locked_by_others(fd, HELD), ==, held);
    g_assert_cmphex(locked_by_others(fd, UNSHARED), ==, unshared);
    /* and nothing but these */
    for (int byte = 90; byte < 210; byte++) {
        bool ours = (byte >= HELD && byte < HELD + PERM_BITS) ||
                    (byte >= UNSHARED && byte < UNSHARED + PERM_BITS);
        g_assert_true(ours || qemu_lock_fd_test(fd, byte, 1, true) == 0);
    }
    close(fd);
}

static BlockBackend *try_open(const char *path, const char *more, uint64_t perm,
                              uint64_t shared, Error **errp)
{
    int flags = perm & (W | WU | RS) ? BDRV_O_RDWR : 0;
    return open_with_perms(options_of("driver=file,filename=%s%s", path, more), flags, perm,
                           shared, errp);
}

/* ---- the primitive ---------------------------------------------------------------------- */

static void test_fd_locks(void)
{
    g_autofree char *path = scratch_file("fd", 4096);
    int a = other_user(path), b = other_user(path);

    g_assert_true(qemu_has_ofd_lock());
    g_assert_cmpint(qemu_lock_fd_test(a, 10, 5, true), ==, 0);
    g_assert_cmpint(qemu_lock_fd(a, 10, 5, false), ==, 0);
    g_assert_cmpint(qemu_lock_fd_test(a, 10, 5, true), ==, 0);      /* one's own */
    g_assert_cmpint(qemu_lock_fd_test(b, 10, 5, false), ==, 0);
    g_assert_cmpint(qemu_lock_fd_test(b, 14, 1, true), ==, -EAGAIN);
    g_assert_cmpint(qemu_lock_fd_test(b, 15, 1, true), ==, 0);
    g_assert_cmpint(qemu_lock_fd(b, 12, 1, true), ==, -EAGAIN);
    g_assert_cmpint(qemu_lock_fd(b, 12, 1, false), ==, 0);
    g_assert_cmpint(qemu_unlock_fd(a, 10, 5), ==, 0);
    g_assert_cmpint(qemu_lock_fd(b, 12, 1, true), ==, 0);
    g_assert_cmpint(qemu_lock_fd_test(a, 12, 1, false), ==, -EAGAIN);
    g_assert_cmpint(qemu_unlock_fd(b, 12, 1), ==, 0);
    close(a);
    close(b);
    g_assert_cmpint(qemu_lock_fd(a, 0, 1, false), ==, -EBADF);
    g_assert_cmpint(qemu_lock_fd_test(a, 0, 1, false), ==, -EBADF);
}

/* ---- a node's locks --------------------------------------------------------------------- */

/* From every state of permissions to every other, and nothing left at the end. */
static void test_permissions_become_locks(void)
{
    g_autofree char *path = scratch_file("become", 4096);
    BlockBackend *blk = open_with_perms(options_of("driver=file,filename=%s", path),
                                        BDRV_O_RDWR, 0, ALL, &error_abort);

    assert_locks(path, 0, 0);
    for (uint64_t from = 0; from < 256; from += 5) {
        for (uint64_t to = 0; to < 256; to += 3) {
            g_assert_cmpint(blk_set_perm(blk, from & 15, from >> 4, &error_abort), ==, 0);
            g_assert_cmpint(blk_set_perm(blk, to & 15, to >> 4, &error_abort), ==, 0);
            assert_locks(path, to & 15, ~(to >> 4) & 15);
        }
    }
    blk_set_perm(blk, ALL, 0, &error_abort);
    blk_unref(blk);
    assert_locks(path, 0, 0);
}

static void test_conflicts(void)
{
    static const struct {
        int locked_byte;        /* by the other */
        uint64_t perm, shared;  /* wanted by us */
        const char *text;       /* NULL: no conflict */
    } cases[] = {
        { UNSHARED + 0, R, ALL, "Failed to get \"consistent read\" lock" },
        { UNSHARED + 1, W, ALL, "Failed to get \"write\" lock" },
        { UNSHARED + 2, WU, ALL, "Failed to get \"write unchanged\" lock" },
        { UNSHARED + 3, RS, ALL, "Failed to get \"resize\" lock" },
        { UNSHARED + 1, R | WU | RS, ALL, NULL },
        { UNSHARED + 1, R, R, NULL },
        { HELD + 0, 0, ALL & ~R, "Failed to get shared \"consistent read\" lock" },
        { HELD + 1, R, ALL & ~W, "Failed to get shared \"write\" lock" },
        { HELD + 2, R, ALL & ~WU, "Failed to get shared \"write unchanged\" lock" },
        { HELD + 3, R, ALL & ~RS, "Failed to get shared \"resize\" lock" },
        { HELD + 1, ALL, ALL, NULL },
        { HELD + 1, ALL, W, NULL },
        { HELD + 1, R | W, R, "Failed to get shared \"write\" lock" },
        { HELD + 4, ALL, 0, NULL },
        { HELD - 1, ALL, 0, NULL },
        { UNSHARED + 4, ALL, 0, NULL },
    };
    g_autofree char *path = scratch_file("conflicts", 4096);

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        int other = other_user(path);
        Error *err = NULL;

        g_assert_cmpint(qemu_lock_fd(other, cases[i].locked_byte, 1, false), ==, 0);
        BlockBackend *blk = try_open(path, "", cases[i].perm, cases[i].shared, &err);
        g_assert_cmpstr(err ? error_get_pretty(err) : NULL, ==, cases[i].text);
        g_assert_true(!blk == !!cases[i].text);
        error_free(err);
        /* a refused opening leaves no lock behind */
        g_assert_cmphex(locked_by_others(other, HELD), ==, blk ? cases[i].perm : 0);
        g_assert_cmphex(locked_by_others(other, UNSHARED), ==,
                        blk ? ~cases[i].shared & ALL : 0);
        close(other);
        if (blk) {
            blk_unref(blk);
        }
    }
}

static void test_failed_change_leaves_locks(void)
{
    g_autofree char *path = scratch_file("change", 4096);
    BlockBackend *blk = open_with_perms(options_of("driver=file,filename=%s", path),
                                        BDRV_O_RDWR, R | WU, ALL & ~RS, &error_abort);
    int other = other_user(path);
    Error *err = NULL;

    g_assert_cmpint(qemu_lock_fd(other, UNSHARED + 1, 1, false), ==, 0);
    /* gives up WU and unsharing of RS, and wants W and unsharing of R: all or nothing */
    g_assert_cmpint(blk_set_perm(blk, R | W, ALL & ~R, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to get \"write\" lock");
    error_free(err);
    g_assert_cmphex(locked_by_others(other, HELD), ==, R | WU);
    g_assert_cmphex(locked_by_others(other, UNSHARED), ==, RS);

    g_assert_cmpint(qemu_unlock_fd(other, UNSHARED + 1, 1), ==, 0);
    g_assert_cmpint(blk_set_perm(blk, R | W, ALL & ~R, &error_abort), ==, 0);
    g_assert_cmphex(locked_by_others(other, HELD), ==, R | W);
    g_assert_cmphex(locked_by_others(other, UNSHARED), ==, R);
    close(other);
    blk_unref(blk);
}

/* Refused by another parent of the node: nothing is locked for it. */
static void test_refusal_by_the_graph(void)
{
    g_autofree char *path = scratch_file("graph", 4096);
    BlockBackend *first = open_with_perms(options_of("driver=file,filename=%s", path),
                                          BDRV_O_RDWR, R, R, &error_abort);
    Error *err = NULL;

    BlockBackend *second = blk_new_with_bs(blk_bs(first), R | W, ALL, &err);
    g_assert_null(second);
    error_free_or_abort(&err);
    assert_locks(path, R, ALL & ~R);
    blk_unref(first);
    assert_locks(path, 0, 0);
}

/* A node over two files, which asks of both what is asked of it. */
static int pair_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    static const char *const keys[] = { "file", "other" };

    for (unsigned i = 0; i < ARRAY_SIZE(keys); i++) {
        if (!bdrv_open_child(NULL, options, keys[i], bs, &child_of_bds,
                             BDRV_CHILD_DATA | (i ? 0 : BDRV_CHILD_PRIMARY), false, errp)) {
            return -EINVAL;
        }
    }
    return 0;
}

static void pair_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                            BlockReopenQueue *reopen_queue, uint64_t parent_perm,
                            uint64_t parent_shared, uint64_t *nperm, uint64_t *nshared)
{
    *nperm = parent_perm;
    *nshared = parent_shared;
}

static BlockDriver bdrv_pair = {
    .format_name = "test-pair",
    .bdrv_open = pair_open,
    .bdrv_child_perm = pair_child_perm,
};

/*
 * One file agrees and has locked, then the other one refuses: the first gives its new locks
 * back. Either file refuses once, so that it happens in this order whatever the graph's is.
 */
static void test_change_is_for_all_files_or_none(void)
{
    g_autofree char *a = scratch_file("a", 4096);
    g_autofree char *b = scratch_file("b", 4096);
    const char *const paths[2] = { a, b };
    BlockBackend *blk = open_with_perms(
        options_of("driver=test-pair,file.driver=file,file.filename=%s,other.driver=file,"
                   "other.filename=%s", paths[0], paths[1]),
        BDRV_O_RDWR, R, ALL & ~RS, &error_abort);

    for (int i = 0; i < 2; i++) {
        int other = other_user(paths[i]);
        Error *err = NULL;

        g_assert_cmpint(qemu_lock_fd(other, UNSHARED + 1, 1, false), ==, 0);
        g_assert_cmpint(blk_set_perm(blk, R | W, ALL & ~WU, &err), <, 0);
        error_free_or_abort(&err);
        close(other);
        assert_locks(paths[0], R, RS);
        assert_locks(paths[1], R, RS);
    }
    g_assert_cmpint(blk_set_perm(blk, R | W, ALL & ~WU, &error_abort), ==, 0);
    assert_locks(paths[0], R | W, WU);
    assert_locks(paths[1], R | W, WU);
    blk_unref(blk);
}

static void test_two_nodes_of_one_process(void)
{
    g_autofree char *path = scratch_file("two", 4096);
    BlockBackend *writer = try_open(path, "", R | W, R, &error_abort);
    Error *err = NULL;

    g_assert_null(try_open(path, "", R | W, ALL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to get \"write\" lock");
    g_clear_pointer(&err, error_free);
    g_assert_null(try_open(path, "", R, R, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to get shared \"write\" lock");
    g_clear_pointer(&err, error_free);

    BlockBackend *reader = try_open(path, "", R, ALL, &error_abort);
    blk_unref(reader);
    /* the reader's end has not taken the writer's locks with it */
    assert_locks(path, R | W, ALL & ~R);
    blk_unref(writer);
}

static void test_ways_round_locking(void)
{
    g_autofree char *path = scratch_file("round", 4096);
    int other = other_user(path);

    for (int i = 0; i < PERM_BITS; i++) {
        g_assert_cmpint(qemu_lock_fd(other, HELD + i, 1, false), ==, 0);
    }
    g_assert_cmpint(qemu_lock_fd(other, UNSHARED + 1, 1, false), ==, 0);

    BlockBackend *blk = try_open(path, ",locking=off", ALL, 0, &error_abort);
    g_assert_cmphex(locked_by_others(other, HELD), ==, 0);
    g_assert_cmphex(locked_by_others(other, UNSHARED), ==, 0);
    blk_unref(blk);

    /* whoever shares everything by force is not stopped by a writer */
    blk = try_open(path, ",force-share=on", R, ALL & ~W, &error_abort);
    g_assert_cmphex(locked_by_others(other, HELD), ==, R);
    g_assert_cmphex(locked_by_others(other, UNSHARED), ==, 0);
    blk_unref(blk);

    blk = try_open(path, ",locking=on", R, ALL, &error_abort);
    g_assert_cmphex(locked_by_others(other, HELD), ==, R);
    blk_unref(blk);
    close(other);
}

/* ---- another process -------------------------------------------------------------------- */

/* A process that has BYTE of PATH locked until it is killed. */
static pid_t lock_in_child(const char *path, int byte)
{
    int ready[2];
    char c;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid_t pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        int fd = open(path, O_RDWR);
        struct flock fl = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte,
                            .l_len = 1 };
        if (fd < 0 || fcntl(fd, F_OFD_SETLK, &fl) < 0 || write(ready[1], "x", 1) != 1) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    close(ready[1]);
    g_assert_cmpint(read(ready[0], &c, 1), ==, 1);
    close(ready[0]);
    return pid;
}

static void test_other_process(void)
{
    g_autofree char *path = scratch_file("process", 4096);
    pid_t pid = lock_in_child(path, UNSHARED + 1);
    Error *err = NULL;

    g_assert_null(try_open(path, "", R | W, ALL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to get \"write\" lock");
    error_free(err);
    blk_unref(try_open(path, "", R, ALL, &error_abort));

    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    blk_unref(try_open(path, "", R | W, ALL, &error_abort));
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&bdrv_pair);
    if (!qemu_has_ofd_lock()) {
        printf("1..0 # SKIP no OFD locks on this system\n");
        return 0;
    }
    g_test_add_func("/file-lock/fd", test_fd_locks);
    g_test_add_func("/file-lock/permissions-become-locks", test_permissions_become_locks);
    g_test_add_func("/file-lock/conflicts", test_conflicts);
    g_test_add_func("/file-lock/failed-change-leaves-locks", test_failed_change_leaves_locks);
    g_test_add_func("/file-lock/refusal-by-the-graph", test_refusal_by_the_graph);
    g_test_add_func("/file-lock/change-is-for-all-files-or-none",
                    test_change_is_for_all_files_or_none);
    g_test_add_func("/file-lock/two-nodes-of-one-process", test_two_nodes_of_one_process);
    g_test_add_func("/file-lock/ways-round-locking", test_ways_round_locking);
    g_test_add_func("/file-lock/other-process", test_other_process);
    return image_test_run();
}
