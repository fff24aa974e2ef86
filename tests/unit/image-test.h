/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tests of image drivers share: a scratch directory, opening, comparing. */
#ifndef IMAGE_TEST_H
#define IMAGE_TEST_H

#include "miniblk/osdep.h"
#include <signal.h>
#include <sys/resource.h>
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/main-loop.h"

static char *scratch_dir;

static inline void image_test_init(int *argc, char ***argv)
{
    g_test_init(argc, argv, NULL);
    error_set_progname("test");
    scratch_dir = g_dir_make_tmp("miniblk-test-XXXXXX", NULL);
    g_assert_nonnull(scratch_dir);
    g_assert_cmpint(qemu_init_main_loop(&error_abort), ==, 0);
    bdrv_init();
}

/* Run the tests and clean up; the program's exit status. */
static inline int image_test_run(void)
{
    int ret = g_test_run();
    GDir *dir = g_dir_open(scratch_dir, 0, NULL);
    const char *name;

    bdrv_close_all();
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(scratch_dir, name, NULL);
        unlink(path);
    }
    g_dir_close(dir);
    rmdir(scratch_dir);
    g_free(scratch_dir);
    return ret;
}

/*
 * Rounds of random work that one thread does after the other: QUICK, or SLOW with -m slow, and a
 * few where only the threads beneath are looked at.
 */
static inline int image_test_rounds(int quick, int slow)
{
    if (g_test_slow()) {
        return slow;
    }
#ifdef __SANITIZE_THREAD__
    return MAX(2, quick / 4);
#else
    return quick;
#endif
}

static inline char *scratch_path(const char *name)
{
    return g_build_filename(scratch_dir, name, NULL);
}

/* A sparse file of LENGTH bytes; its path is newly allocated. */
static inline char *scratch_file(const char *name, int64_t length)
{
    char *path = scratch_path(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, length), ==, 0);
    close(fd);
    return path;
}

/* Options as on the command line: "driver=file,filename=...,size=1M". */
static inline QDict *options_of(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static inline QDict *options_of(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return keyval_parse(text, NULL, &error_abort);
}

/* A node from options, which are consumed; its user needs PERM and shares SHARED. */
static inline BlockBackend *open_with_perms(QDict *options, int flags, uint64_t perm,
                                            uint64_t shared, Error **errp)
{
    BlockDriverState *bs = bdrv_open(NULL, NULL, options, flags, errp);
    if (!bs) {
        return NULL;
    }
    BlockBackend *blk = blk_new_with_bs(bs, perm, shared, errp);
    bdrv_unref(bs);
    return blk;
}

static inline BlockBackend *open_rw(QDict *options)
{
    return open_with_perms(options, BDRV_O_RDWR | BDRV_O_UNMAP, BLK_PERM_ALL, BLK_PERM_ALL,
                           &error_abort);
}

/* A file driver's node; MORE begins with a comma. */
static inline BlockBackend *open_file(const char *path, const char *more)
{
    return open_rw(options_of("driver=file,filename=%s%s", path, more));
}

/* What the file occupies, and how long it is. */
static inline int64_t disk_bytes(const char *path)
{
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    return (int64_t)st.st_blocks * 512;
}

static inline int64_t file_bytes(const char *path)
{
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    return st.st_size;
}

/* Not all file systems have a limit that can be reached: set one. */
static inline void limit_file_size(void)
{
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    limit.rlim_cur = MIN(limit.rlim_max, 1ULL << 40);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
}

/* Opening must fail with TEXT, in which %s stands for ARG. */
static inline void assert_open_fails(QDict *options, int flags, const char *text,
                                     const char *arg)
{
    Error *err = NULL;
    g_auto(GStrv) parts = g_strsplit(text, "%s", -1);
    g_autofree char *expected = g_strjoinv(arg ? arg : "", parts);
    BlockBackend *blk = open_with_perms(options, flags, BLK_PERM_CONSISTENT_READ,
                                        BLK_PERM_ALL, &err);

    g_assert_null(blk);
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
    error_free(err);
}

static inline void assert_bytes(const uint8_t *buf, size_t len, uint8_t expected)
{
    for (size_t i = 0; i < len; i++) {
        if (buf[i] != expected) {
            g_error("byte %zu of %zu is 0x%02x, not 0x%02x", i, len, buf[i], expected);
        }
    }
}

/* The node's bytes [OFFSET, OFFSET+LEN) are all EXPECTED. */
static inline void assert_content(BlockBackend *blk, int64_t offset, size_t len,
                                  uint8_t expected)
{
    g_autofree uint8_t *buf = g_malloc(len);
    memset(buf, ~expected, len);
    g_assert_cmpint(blk_pread(blk, offset, len, buf, 0), ==, 0);
    assert_bytes(buf, len, expected);
}

static inline void write_pattern(BlockBackend *blk, int64_t offset, size_t len,
                                 uint8_t pattern)
{
    g_autofree uint8_t *buf = g_malloc(len);
    memset(buf, pattern, len);
    g_assert_cmpint(blk_pwrite(blk, offset, len, buf, 0), ==, 0);
}

#endif
