/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The format "raw": windows, lengths, permissions, and the guard of guessed formats. */
#include "image-test.h"

enum { FILE_BYTES = 1024 * 1024 };

static BlockBackend *open_window(const char *path, const char *window)
{
    return open_rw(options_of("driver=raw,file.driver=file,file.filename=%s%s", path, window));
}

/* ---- windows ---------------------------------------------------------------------------- */

static void test_window_length(void)
{
    static const struct { const char *window; int64_t length; } cases[] = {
        { "", FILE_BYTES },
        { ",offset=0", FILE_BYTES },
        { ",offset=4096", FILE_BYTES - 4096 },
        { ",offset=1M", 0 },
        { ",size=4096", 4096 },
        { ",size=1M", FILE_BYTES },
        { ",size=0", 0 },
        { ",offset=512K,size=512K", FILE_BYTES / 2 },
        { ",offset=1000", FILE_BYTES - 1000 },
        { ",offset=1000,size=2048", 2048 },
    };
    g_autofree char *path = scratch_file("window", FILE_BYTES);

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        BlockBackend *blk = open_window(path, cases[i].window);
        /* a node's length is counted in sectors, the last one perhaps partly there */
        int64_t sectors = bdrv_nb_sectors(blk_bs(blk));
        g_test_message("%s", cases[i].window);
        g_assert_cmpint(sectors, ==, DIV_ROUND_UP(cases[i].length, 512));
        blk_unref(blk);
    }
}

static void test_refused_windows(void)
{
    static const struct { const char *window, *text; } cases[] = {
        { "offset=2M", "Offset (2097152) cannot be greater than size of the containing file "
                       "(1048576)" },
        { "size=2M", "The sum of offset (0) and size (2097152) has to be smaller or equal to "
                     "the  actual size of the containing file (1048576)" },
        { "offset=512K,size=1M", "The sum of offset (524288) and size (1048576) has to be "
                                 "smaller or equal to the  actual size of the containing file "
                                 "(1048576)" },
        { "size=15E,offset=1K", "The sum of offset (1024) and size (17293822569102704640) has "
                                "to be smaller or equal to the  actual size of the containing "
                                "file (1048576)" },
        { "size=1000", "Specified size is not multiple of 512" },
        { "colour=red", "Block format 'raw' does not support the option 'colour'" },
    };
    g_autofree char *path = scratch_file("refused", FILE_BYTES);

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_open_fails(options_of("driver=raw,file.driver=file,file.filename=%s,%s", path,
                                     cases[i].window), BDRV_O_RDWR, cases[i].text, NULL);
    }
    assert_open_fails(options_of("driver=raw"), BDRV_O_RDWR,
                      "A block device must be specified for \"file\"", NULL);
}

static void test_window_shows_its_part(void)
{
    g_autofree char *path = scratch_file("part", FILE_BYTES);
    BlockBackend *all = open_window(path, "");
    BlockBackend *part = open_window(path, ",offset=4096,size=8192,file.locking=off");
    uint8_t buf[512] = { 0 };

    write_pattern(all, 0, 4096, 0x11);
    write_pattern(all, 4096, 8192, 0x22);
    write_pattern(all, 12288, 4096, 0x33);
    assert_content(part, 0, 8192, 0x22);
    write_pattern(part, 0, 512, 0x44);
    write_pattern(part, 8192 - 512, 512, 0x55);
    g_assert_cmpint(blk_pwrite_zeroes(part, 1024, 512, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(part, 4096, 4096), ==, 0);     /* may zero, no more */

    assert_content(all, 0, 4096, 0x11);
    assert_content(all, 4096, 512, 0x44);
    assert_content(all, 4096 + 512, 512, 0x22);
    assert_content(all, 4096 + 1024, 512, 0);
    assert_content(all, 12288, 4096, 0x33);

    g_assert_cmpint(blk_pread(part, 8192, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pwrite(part, 8192, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pread(part, 8192 - 256, 512, buf, 0), ==, -EIO);
    blk_unref(part);
    blk_unref(all);
}

static void test_block_status_is_mapped(void)
{
    g_autofree char *path = scratch_file("status", FILE_BYTES);
    BlockBackend *blk = open_window(path, ",offset=64K");
    int64_t pnum, map;
    BlockDriverState *file;

    write_pattern(blk, 65536, 65536, 0x11);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    int status = bdrv_block_status(blk_bs(blk), 65536, 65536, &pnum, &map, &file);
    g_assert_cmpint(status & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID), ==,
                    BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID);
    g_assert_cmpint(map, ==, 131072);
    g_assert_cmpint(pnum, ==, 65536);
    g_assert_cmpstr(file->drv->format_name, ==, "file");
    blk_unref(blk);
}

/* ---- resizing --------------------------------------------------------------------------- */

static void test_resize(void)
{
    g_autofree char *path = scratch_file("resize", FILE_BYTES);
    struct stat st;
    Error *err = NULL;

    BlockBackend *blk = open_window(path, ",offset=4096");
    g_assert_cmpint(blk_truncate(blk, 16384, true, PREALLOC_MODE_OFF, 0, &error_abort), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 16384);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 4096 + 16384);
    write_pattern(blk, 16384 - 512, 512, 0x11);
    g_assert_cmpint(blk_truncate(blk, INT64_MAX - 4095, true, PREALLOC_MODE_OFF, 0, &err), <,
                    0);
    error_free_or_abort(&err);
    blk_unref(blk);

    blk = open_window(path, ",size=8192");
    g_assert_cmpint(blk_truncate(blk, 4096, true, PREALLOC_MODE_OFF, 0, &err), ==, -ENOTSUP);
    g_assert_cmpstr(error_get_pretty(err), ==, "Cannot resize fixed-size raw disks");
    error_free(err);
    g_assert_cmpint(blk_getlength(blk), ==, 8192);
    blk_unref(blk);
}

/* The file grows and shrinks by another user's doing: what is there can be read. */
static void test_follows_its_file(gconstpointer window)
{
    g_autofree char *path = scratch_file("follow", FILE_BYTES);
    BlockBackend *blk = open_window(path, window);
    BlockBackend *file = blk_new_with_bs(blk_bs(blk)->file->bs, BLK_PERM_ALL, BLK_PERM_ALL,
                                         &error_abort);
    int64_t before = blk_getlength(blk);
    uint8_t buf[512];

    g_assert_cmpint(blk_truncate(file, 2 * FILE_BYTES, true, PREALLOC_MODE_OFF, 0,
                                 &error_abort), ==, 0);
    write_pattern(file, 2 * FILE_BYTES - 512, 512, 0x77);
    g_assert_cmpint(blk_getlength(blk), ==, before + FILE_BYTES);
    assert_content(blk, before + FILE_BYTES - 512, 512, 0x77);

    g_assert_cmpint(bdrv_pwrite_zeroes(blk_root(file), 2 * FILE_BYTES, 512, 0), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, before + FILE_BYTES + 512);

    g_assert_cmpint(blk_truncate(file, FILE_BYTES, true, PREALLOC_MODE_OFF, 0, &error_abort),
                    ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, before);
    g_assert_cmpint(blk_pread(blk, before, 512, buf, 0), ==, -EIO);
    blk_unref(file);
    blk_unref(blk);
}

/* ---- permissions ------------------------------------------------------------------------ */

/* What the user of the raw node needs and shares is what the file node is asked for. */
static void test_permissions_pass_through(void)
{
    g_autofree char *path = scratch_file("perms", FILE_BYTES);
    BlockBackend *blk = open_with_perms(
        options_of("driver=raw,file.driver=file,file.node-name=f,file.filename=%s", path),
        BDRV_O_RDWR, 0, BLK_PERM_ALL, &error_abort);

    for (uint64_t perm = 0; perm <= BLK_PERM_ALL; perm++) {
        for (uint64_t shared = 0; shared <= BLK_PERM_ALL; shared++) {
            g_assert_cmpint(blk_set_perm(blk, perm, shared, &error_abort), ==, 0);
            BdrvChild *edge = blk_bs(blk)->file;
            g_assert_cmphex(edge->perm, ==, perm);
            g_assert_cmphex(edge->shared_perm, ==, shared);
        }
    }
    blk_unref(blk);
}

/* ---- guessed formats -------------------------------------------------------------------- */

static int magic_probe(const uint8_t *buf, int buf_size, const char *filename)
{
    return buf_size >= 8 && !memcmp(buf, "TESTMAGI", 8) ? 100 : 0;
}

static BlockDriver bdrv_magic = {
    .format_name = "test-magic",
    .bdrv_probe = magic_probe,
};

static void test_guessed_raw_cannot_become_another_format(void)
{
    static const struct {
        int64_t offset;
        size_t len;
        const char *text;
        int guessed, given;     /* what the write returns if the format was ... */
    } cases[] = {
        { 0, 512, "TESTMAGI", -EPERM, 0 },
        { 0, 8, "TESTMAGI", -EPERM, 0 },
        { 0, 100, "TESTMAGI", -EPERM, 0 },
        { 0, 65536, "TESTMAGI", -EPERM, 0 },
        { 0, 512, "anything", 0, 0 },
        { 0, 65536, "anything", 0, 0 },
        { 512, 512, "TESTMAGI", 0, 0 },
        { 4, 512, "TESTMAGI", 0, 0 },
        { 0, 4, "TEST", 0, 0 },
        { 4, 4, "MAGI", -EPERM, 0 },    /* completes what the case before has left */
    };
    g_autofree uint8_t *buf = g_malloc0(65536);

    for (int given = 0; given < 2; given++) {
        g_autofree char *path = scratch_file("guess", FILE_BYTES);
        BlockDriverState *bs = bdrv_open(path, NULL, given ? options_of("driver=raw") : NULL,
                                         BDRV_O_RDWR, &error_abort);
        BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
        bdrv_unref(bs);
        g_assert_cmpstr(bs->drv->format_name, ==, "raw");
        g_assert_cmpint(bs->probed, ==, !given);

        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            memset(buf, 0xee, 65536);
            memcpy(buf, cases[i].text, strlen(cases[i].text));
            g_test_message("case %u", i);
            g_assert_cmpint(blk_pwrite(blk, cases[i].offset, cases[i].len, buf, 0), ==,
                            given ? cases[i].given : cases[i].guessed);
        }
        /* the whole of an accepted request was written */
        memset(buf, 0x77, 65536);
        g_assert_cmpint(blk_pwrite(blk, 0, 65536, buf, 0), ==, 0);
        assert_content(blk, 0, 65536, 0x77);
        blk_unref(blk);
    }
}

/* ---- creating --------------------------------------------------------------------------- */

static void test_create(void)
{
    g_autofree char *path = scratch_path("created");
    BlockDriver *drv = bdrv_find_format("raw");
    g_autoptr(json_t) opts = options_of("size=1000,preallocation=falloc");
    struct stat st;
    Error *err = NULL;

    g_assert_cmpint(bdrv_create(drv, path, opts, &error_abort), ==, 0);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 1024);
    g_assert_cmpint(st.st_blocks, >, 0);

    g_autoptr(json_t) bad = options_of("size=1M,colour=red");
    g_assert_cmpint(bdrv_create(drv, path, bad, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Invalid parameter 'colour'");
    error_free(err);
}

static void test_info(void)
{
    g_autofree char *path = scratch_file("info", FILE_BYTES);
    BlockBackend *blk = open_window(path, "");
    BlockDriverInfo bdi = { .cluster_size = 1 };

    g_assert_cmpstr(blk_bs(blk)->filename, ==, path);
    g_assert_cmpint(bdrv_get_info(blk_bs(blk), &bdi), ==, 0);
    g_assert_cmpint(bdi.cluster_size, ==, 0);
    write_pattern(blk, 0, 65536, 1);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(bdrv_get_allocated_file_size(blk_bs(blk)), >=, 65536);
    blk_unref(blk);

    blk = open_window(path, ",size=4096");
    g_assert_true(g_str_has_prefix(blk_bs(blk)->filename, "json:"));
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&bdrv_magic);
    g_test_add_func("/raw/window/length", test_window_length);
    g_test_add_func("/raw/window/refused", test_refused_windows);
    g_test_add_func("/raw/window/shows-its-part", test_window_shows_its_part);
    g_test_add_func("/raw/block-status-is-mapped", test_block_status_is_mapped);
    g_test_add_func("/raw/resize", test_resize);
    g_test_add_data_func("/raw/follows-its-file/whole", "", test_follows_its_file);
    g_test_add_data_func("/raw/follows-its-file/offset", ",offset=4096",
                         test_follows_its_file);
    g_test_add_func("/raw/permissions-pass-through", test_permissions_pass_through);
    g_test_add_func("/raw/guessed-raw-cannot-become-another-format",
                    test_guessed_raw_cannot_become_another_format);
    g_test_add_func("/raw/create", test_create);
    g_test_add_func("/raw/info", test_info);
    return image_test_run();
}
