/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host file driver: options, what it refuses to open, making files, device files. */
#include "image-test.h"

enum { FILE_BYTES = 1024 * 1024 };

/* ---- options and opening ---------------------------------------------------------------- */

static void test_refused_opens(void)
{
    static const struct { const char *options; int flags; const char *text; } cases[] = {
        { "driver=file,filename=%s/nosuch", 0,
          "Could not open '%s/nosuch': No such file or directory" },
        { "driver=file,filename=%s", 0, "'file' driver requires '%s' to be a regular file" },
        { "driver=file,filename=%s", BDRV_O_RDWR, "Could not open '%s': Is a directory" },
        { "driver=file,filename=%s/fifo", BDRV_O_RDWR,
          "'file' driver requires '%s/fifo' to be a regular file" },
        { "driver=file,filename=%s/fifo", 0,
          "'file' driver requires '%s/fifo' to be a regular file" },
        { "driver=file,filename=/dev/null", 0,
          "'file' driver requires '/dev/null' to be a regular file" },
        { "driver=host_device,filename=%s/file", 0,
          "'host_device' driver requires '%s/file' to be either a character or block device" },
        { "driver=file", 0, "The 'file' block driver requires a file name" },
        { "driver=file,filename=%s/file,aio=native", 0,
          "aio=native was specified, but it requires cache.direct=on, which was not "
          "specified." },
        { "driver=file,filename=%s/file", BDRV_O_NATIVE_AIO,
          "aio=native was specified, but it requires cache.direct=on, which was not "
          "specified." },
#ifndef CONFIG_LINUX_IO_URING
        { "driver=file,filename=%s/file,aio=io_uring", 0,
          "aio=io_uring was specified, but is not supported in this build." },
#endif
        { "driver=file,filename=%s/file,colour=red", 0,
          "Block protocol 'file' doesn't support the option 'colour'" },
        { "driver=file,filename=/proc/version,cache.direct=on", 0,
          "Could not open '/proc/version': filesystem does not support O_DIRECT" },
    };
    g_autofree char *file = scratch_file("file", FILE_BYTES);
    g_autofree char *fifo = scratch_path("fifo");

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_auto(GStrv) parts = g_strsplit(cases[i].options, "%s", -1);
        g_autofree char *options = g_strjoinv(scratch_dir, parts);
        assert_open_fails(options_of("%s", options), cases[i].flags, cases[i].text,
                          scratch_dir);
    }
}

static void test_malformed_options(void)
{
    static const char *const options[] = {
        "aio=fast", "locking=perhaps", "drop-cache=maybe", "aio-max-batch=some",
        "aio-max-batch=-1",
    };
    g_autofree char *file = scratch_file("file", FILE_BYTES);

    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        Error *err = NULL;
        g_assert_null(bdrv_open(NULL, NULL, options_of("driver=file,filename=%s,%s", file,
                                                       options[i]), 0, &err));
        g_test_message("%s: %s", options[i], error_get_pretty(err));
        error_free(err);
    }
}

static void test_filenames(void)
{
    static const struct { const char *given, *path, *name; } cases[] = {
        { "plain", "plain", "plain" },
        { "file:plain", "plain", "plain" },
        { "file:with:colon", "with:colon", "file:with:colon" },
        { "./with:colon", "with:colon", "./with:colon" },
    };
    g_autofree char *old_dir = g_get_current_dir();

    g_assert_cmpint(chdir(scratch_dir), ==, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_free(scratch_file(cases[i].path, 512 * (i + 1)));
        BlockDriverState *bs = bdrv_open(cases[i].given, NULL, NULL, BDRV_O_PROTOCOL,
                                         &error_abort);
        g_assert_cmpint(bdrv_getlength(bs), ==, 512 * (i + 1));
        g_assert_cmpstr(bs->exact_filename, ==, cases[i].name);
        bdrv_unref(bs);
    }
    g_assert_cmpint(chdir(old_dir), ==, 0);
}

/* Without the right to write: refused, or read-only where that is allowed. */
static void test_auto_read_only(void)
{
    if (geteuid() == 0 && seteuid(65534) < 0) {
        g_test_skip("cannot give up the right to write everywhere");
        return;
    }
    bool was_root = getuid() == 0;
    if (was_root) {
        g_assert_cmpint(seteuid(0), ==, 0);
    }
    g_autofree char *path = scratch_file("ro", FILE_BYTES);
    g_assert_cmpint(chmod(path, 0444), ==, 0);
    g_assert_cmpint(chmod(scratch_dir, 0755), ==, 0);
    if (was_root) {
        g_assert_cmpint(seteuid(65534), ==, 0);
    }
    assert_open_fails(options_of("driver=file,filename=%s", path), BDRV_O_RDWR,
                      "Could not open '%s': Permission denied", path);
    BlockDriverState *bs = bdrv_open(NULL, NULL, options_of("driver=file,filename=%s,"
                                     "auto-read-only=on", path), BDRV_O_RDWR, &error_abort);
    g_assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);

    /* and the format above it follows */
    bs = bdrv_open(NULL, NULL, options_of("driver=raw,auto-read-only=on,file.driver=file,"
                                          "file.filename=%s", path), BDRV_O_RDWR,
                   &error_abort);
    g_assert_true(bdrv_is_read_only(bs));
    bdrv_unref(bs);
    if (was_root) {
        g_assert_cmpint(seteuid(0), ==, 0);
    }
}

/* ---- creating --------------------------------------------------------------------------- */

static void test_create(void)
{
    static const struct {
        const char *options;
        int64_t length, disk_min;   /* -1: is refused */
    } cases[] = {
        { "size=1M", FILE_BYTES, 0 },
        { "size=0", 0, 0 },
        { "size=1", 512, 0 },
        { "size=1000000", 1000448, 0 },
        { "size=1M,preallocation=off", FILE_BYTES, 0 },
        { "size=1M,preallocation=falloc", FILE_BYTES, FILE_BYTES },
        { "size=1M,preallocation=full", FILE_BYTES, FILE_BYTES },
        { "size=1000000,preallocation=full", 1000448, 1000448 },
        { "size=1M,nocow=on,extent_size_hint=0", FILE_BYTES, 0 },
        { "size=1M,preallocation=metadata", -1, 0 },
        { "size=1M,preallocation=most", -1, 0 },
        { "size=big", -1, 0 },
        { "size=15E", -1, 0 },
        { "size=7E", -1, 0 },
        { "size=7E,preallocation=falloc", -1, 0 },
        { "size=1M,colour=red", -1, 0 },
        { "size=1M,extent_size_hint=8G", -1, 0 },
    };
    BlockDriver *drv = bdrv_find_format("file");
    g_autofree char *path = scratch_path("created");

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(json_t) opts = options_of("%s", cases[i].options);
        Error *err = NULL;
        int ret = bdrv_create(drv, path, opts, &err);
        g_test_message("%s: %s", cases[i].options, err ? error_get_pretty(err) : "made");
        if (cases[i].length < 0) {
            g_assert_cmpint(ret, <, 0);
            error_free_or_abort(&err);
            g_assert_cmpint(access(path, F_OK), <, 0);  /* nothing is left */
            continue;
        }
        g_assert_null(err);
        g_assert_cmpint(ret, ==, 0);
        g_assert_cmpint(file_bytes(path), ==, cases[i].length);
        g_assert_cmpint(disk_bytes(path), >=, cases[i].disk_min);
        unlink(path);
    }
}

/* An existing file is emptied first; one that is in use is left alone. */
static void test_create_over_existing(void)
{
    g_autofree char *path = scratch_file("existing", FILE_BYTES);
    BlockDriver *drv = bdrv_find_format("file");
    g_autoptr(json_t) opts = options_of("size=64K");
    g_autoptr(json_t) more_opts = options_of("size=64K");
    Error *err = NULL;

    BlockBackend *blk = open_with_perms(options_of("driver=file,filename=%s", path),
                                        BDRV_O_RDWR, BLK_PERM_CONSISTENT_READ |
                                        BLK_PERM_WRITE, BLK_PERM_CONSISTENT_READ,
                                        &error_abort);
    write_pattern(blk, 0, FILE_BYTES, 0x11);
    g_assert_cmpint(bdrv_create(drv, path, opts, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Failed to get \"write\" lock");
    error_free(err);
    assert_content(blk, 0, FILE_BYTES, 0x11);
    blk_unref(blk);
    g_assert_cmpint(file_bytes(path), ==, FILE_BYTES);

    g_assert_cmpint(bdrv_create(drv, path, more_opts, &error_abort), ==, 0);
    g_assert_cmpint(file_bytes(path), ==, 65536);
    blk = open_file(path, "");
    assert_content(blk, 0, 65536, 0);
    blk_unref(blk);
}

/* ---- devices ---------------------------------------------------------------------------- */

/* A file whose name was given for a device's by mistake is left as it is. */
static void test_file_is_no_device(void)
{
    g_autofree char *path = scratch_file("mistaken", 65536);
    BlockDriver *drv = bdrv_find_format("host_device");
    g_autoptr(json_t) opts = options_of("size=1M");
    Error *err = NULL;
    BlockBackend *blk = open_file(path, "");

    write_pattern(blk, 0, 65536, 7);
    blk_unref(blk);
    g_assert_cmpint(bdrv_create(drv, path, opts, &err), ==, -EINVAL);
    g_assert_nonnull(strstr(error_get_pretty(err), "to be either a character or block device"));
    error_free(err);
    g_assert_cmpint(file_bytes(path), ==, 65536);
    blk = open_file(path, "");
    assert_content(blk, 0, 65536, 7);
    blk_unref(blk);
}

static void test_character_device(void)
{
    BlockBackend *blk = open_rw(options_of("driver=host_device,filename=/dev/null"));
    BlockDriver *drv = bdrv_find_format("host_device");
    g_autoptr(json_t) opts = options_of("size=1M");
    Error *err = NULL;

    g_assert_cmpint(blk_getlength(blk), ==, 0);
    g_assert_cmpint(blk_truncate(blk, 512, true, PREALLOC_MODE_OFF, 0, &err), ==, -ENOTSUP);
    g_assert_cmpstr(error_get_pretty(err), ==, "Cannot resize device files");
    g_clear_pointer(&err, error_free);
    g_assert_cmpint(blk_truncate(blk, 512, false, PREALLOC_MODE_OFF, 0, &err), ==, -EINVAL);
    g_assert_cmpstr(error_get_pretty(err), ==, "Cannot grow device files");
    g_clear_pointer(&err, error_free);
    blk_unref(blk);

    g_assert_cmpint(bdrv_create(drv, "/dev/null", opts, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Cannot grow device files");
    error_free(err);
    g_assert_true(bdrv_find_protocol("/dev/null", true, &error_abort) == drv);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    limit_file_size();
    g_test_add_func("/file/open/refused", test_refused_opens);
    g_test_add_func("/file/open/malformed-options", test_malformed_options);
    g_test_add_func("/file/open/filenames", test_filenames);
    g_test_add_func("/file/open/auto-read-only", test_auto_read_only);
    g_test_add_func("/file/create", test_create);
    g_test_add_func("/file/create-over-existing", test_create_over_existing);
    g_test_add_func("/file/file-is-no-device", test_file_is_no_device);
    g_test_add_func("/file/character-device", test_character_device);
    return image_test_run();
}
