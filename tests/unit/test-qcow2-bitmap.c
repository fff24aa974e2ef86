/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: dirty bitmaps kept in the image. */
#include "qcow2-test.h"
#include "memory-disk.h"
#include "miniblk/bswap.h"
#include "miniblk/dirty-bitmap.h"

enum { GUEST_BYTES = 1 << 20, GRANULARITY = 4096 };
enum { H_AUTOCLEAR = 88, H_BACKING_FIELDS = 8 };

/* ---- one step each ------------------------------------------------------------------- */

static char *new_image(const char *opts)
{
    char *path = scratch_path("bitmap.qcow2");
    qcow2_create(path, opts);
    return path;
}

static BdrvDirtyBitmap *add(BlockBackend *blk, const char *name, uint32_t granularity)
{
    BlockDriverState *bs = blk_bs(blk);

    g_assert_true(bdrv_supports_persistent_dirty_bitmap(bs));
    g_assert_true(bdrv_can_store_new_dirty_bitmap(bs, name, granularity, &error_abort));
    BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(bs, granularity, name, &error_abort);
    bdrv_dirty_bitmap_set_persistence(b, true);
    return b;
}

static BdrvDirtyBitmap *find(BlockBackend *blk, const char *name)
{
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(blk_bs(blk), name);

    g_assert_nonnull(b);
    g_assert_true(bdrv_dirty_bitmap_get_persistence(b));
    return b;
}

/* Take NAME out of the image and out of memory. */
static void drop(BlockBackend *blk, const char *name)
{
    BdrvDirtyBitmap *b = find(blk, name);

    g_assert_cmpint(bdrv_remove_persistent_dirty_bitmap(blk_bs(blk), name, &error_abort), ==,
                    0);
    bdrv_release_dirty_bitmap(b);
}

static void assert_dirty(BdrvDirtyBitmap *b, int64_t offset, int64_t bytes)
{
    int64_t start, n;

    g_assert_true(bdrv_dirty_bitmap_next_dirty_area(b, 0, bdrv_dirty_bitmap_size(b), INT64_MAX,
                                                    &start, &n));
    g_assert_cmpint(start, ==, offset);
    g_assert_cmpint(n, ==, bytes);
    g_assert_cmpint(bdrv_get_dirty_count(b), ==, bytes);
}

static json_t *info_of(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs->drv->bdrv_get_specific_info(bs);
}

static void assert_bitmaps_info(BlockBackend *blk, const char *expected)
{
    json_t *info = info_of(blk);
    json_t *list = json_object_get(json_object_get(info, "data"), "bitmaps");
    char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;

    g_assert_cmpstr(text, ==, expected);
    free(text);
    json_decref(info);
}

/* ---- behaviours ------------------------------------------------------------------------ */

static void run_life(const char *opts)
{
    g_autofree char *path = new_image(opts);
    BlockBackend *blk = qcow2_open_file(path, "");

    g_test_message("%s", opts);
    add(blk, "recording", GRANULARITY);
    bdrv_disable_dirty_bitmap(add(blk, "disabled", 65536));
    write_pattern(blk, 40960, 8192, 1);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_file(path, "");
    assert_dirty(find(blk, "recording"), 40960, 8192);
    g_assert_true(bdrv_dirty_bitmap_enabled(find(blk, "recording")));
    g_assert_cmpint(bdrv_get_dirty_count(find(blk, "disabled")), ==, 0);
    g_assert_false(bdrv_dirty_bitmap_enabled(find(blk, "disabled")));
    g_assert_cmpuint(bdrv_dirty_bitmap_granularity(find(blk, "disabled")), ==, 65536);
    assert_bitmaps_info(blk, "[{\"flags\":[\"in-use\"],\"name\":\"disabled\",\"granularity\":"
                        "65536},{\"flags\":[\"in-use\",\"auto\"],\"name\":\"recording\","
                        "\"granularity\":4096}]");
    write_pattern(blk, 49152, 4096, 2);
    blk_unref(blk);
    blk = qcow2_open_ro(path);
    assert_dirty(find(blk, "recording"), 40960, 12288);
    g_assert_true(bdrv_dirty_bitmap_readonly(find(blk, "recording")));
    g_assert_true(bdrv_has_readonly_bitmaps(blk_bs(blk)));
    assert_bitmaps_info(blk, "[{\"flags\":[],\"name\":\"disabled\",\"granularity\":65536},"
                        "{\"flags\":[\"auto\"],\"name\":\"recording\",\"granularity\":4096}]");
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_file(path, "");
    drop(blk, "recording");
    qcow2_assert_consistent(blk, false);
    drop(blk, "disabled");
    qcow2_assert_consistent(blk, false);
    assert_bitmaps_info(blk, NULL);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

static void test_life(void)
{
    run_life("size=1M,cluster_size=512");
    run_life("size=1M,cluster_size=4k,lazy_refcounts=on");
    run_life("size=1M,cluster_size=64k");
    run_life("size=1M,cluster_size=2M,refcount_bits=1");
    run_life("size=1M,cluster_size=16k,extended_l2=on");
}

/* Bitmaps of more than one cluster, and of sizes that fill no byte. */
static void test_sizes(void)
{
    static const struct { const char *size; int64_t bytes; uint32_t granularity; } cases[] = {
        { "8M", 8 << 20, 512 }, { "5000k", 5000 << 10, 512 }, { "512", 512, 512 },
        { "4M", 4 << 20, 1u << 31 }, { "9000k", 9000 << 10, 1024 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *opts = g_strdup_printf("cluster_size=512,size=%s", cases[i].size);
        g_autofree char *path = new_image(opts);
        BlockBackend *blk = qcow2_open_file(path, "");
        BdrvDirtyBitmap *b = add(blk, "b", cases[i].granularity);
        int64_t n = cases[i].bytes, first = n / 3 / 512 * 512;
        bdrv_set_dirty_bitmap(b, first, 512);
        bdrv_set_dirty_bitmap(b, n - 512, 512);
        int64_t count = bdrv_get_dirty_count(b);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
        blk = qcow2_open_file(path, "");
        b = find(blk, "b");
        g_assert_cmpint(bdrv_get_dirty_count(b), ==, count);
        g_assert_true(bdrv_dirty_bitmap_get(b, first));
        g_assert_true(bdrv_dirty_bitmap_get(b, n - 512));
        bdrv_set_dirty_bitmap(b, 0, n);
        blk_unref(blk);
        blk = qcow2_open_file(path, "");
        g_assert_cmpint(bdrv_get_dirty_count(find(blk, "b")), ==, n);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* A crash while the image was written to: the bitmap is of no use, but can be removed. */
static void test_inconsistent(void)
{
    g_autofree char *path = new_image("size=1M"), *crashed = scratch_path("crashed.qcow2");
    g_autofree char *bytes = NULL;
    gsize n;

    BlockBackend *blk = qcow2_open_file(path, "");
    bdrv_set_dirty_bitmap(add(blk, "b", GRANULARITY), 0, 4096);
    blk_unref(blk);
    blk = qcow2_open_file(path, "");
    g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
    g_assert_true(g_file_set_contents(crashed, bytes, n, NULL));
    blk_unref(blk);
    for (int round = 0; round < 2; round++) {
        Error *err = NULL;
        blk = qcow2_open_file(crashed, "");
        BdrvDirtyBitmap *b = find(blk, "b");
        g_assert_true(bdrv_dirty_bitmap_inconsistent(b));
        g_assert_false(bdrv_dirty_bitmap_enabled(b));
        g_assert_cmpint(bdrv_dirty_bitmap_check(b, BDRV_BITMAP_DEFAULT, &err), ==, -1);
        g_assert_cmpstr(error_get_pretty(err), ==,
                        "Bitmap 'b' is inconsistent and cannot be used");
        error_free(err);
        write_pattern(blk, 0, 65536, 1);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(crashed);
    }
    blk = qcow2_open_file(crashed, "");
    drop(blk, "b");
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(crashed);
}

static void test_reopen(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    BlockDriverState *bs = blk_bs(blk);

    add(blk, "b", GRANULARITY);
    write_pattern(blk, 0, 4096, 1);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort),
                    ==, 0);
    g_assert_cmpint(bdrv_reopen_set_read_only(bs, true, &error_abort), ==, 0);
    g_assert_true(bdrv_dirty_bitmap_readonly(find(blk, "b")));
    assert_bitmaps_info(blk, "[{\"flags\":[\"auto\"],\"name\":\"b\",\"granularity\":4096}]");
    g_assert_cmpint(bdrv_reopen_set_read_only(bs, false, &error_abort), ==, 0);
    g_assert_false(bdrv_dirty_bitmap_readonly(find(blk, "b")));
    assert_bitmaps_info(blk, "[{\"flags\":[\"in-use\",\"auto\"],\"name\":\"b\","
                        "\"granularity\":4096}]");
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort), ==, 0);
    write_pattern(blk, 4096, 4096, 1);
    assert_dirty(find(blk, "b"), 0, 8192);
    blk_unref(blk);
    blk = qcow2_open_ro(path);
    assert_dirty(find(blk, "b"), 0, 8192);
    g_assert_cmpint(bdrv_reopen_set_read_only(blk_bs(blk), false, &error_abort), ==, 0);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort), ==, 0);
    write_pattern(blk, 8192, 4096, 1);
    blk_unref(blk);
    blk = qcow2_open_ro(path);
    assert_dirty(find(blk, "b"), 0, 12288);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/* What a copy of DISK shows, taken as after a power failure. */
static void assert_in_use_on(const MemoryDisk *disk)
{
    MemoryDisk *crashed = memory_disk_new(disk->data->data, disk->data->len);

    memory_disk_to_open = crashed;
    BlockBackend *blk = open_with_perms(options_of("driver=qcow2,read-only=on,"
                                                   "file.driver=memory-disk"), 0,
                                        BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    assert_bitmaps_info(blk, "[{\"flags\":[\"in-use\",\"auto\"],\"name\":\"b\","
                        "\"granularity\":4096}]");
    g_assert_true(bdrv_dirty_bitmap_inconsistent(find(blk, "b")));
    blk_unref(blk);
    memory_disk_free(crashed);
}

/*
 * Becoming read-only comes to nothing after the bitmaps have been stored. On a disk that takes
 * its time, too, they are marked again when the call returns, before anybody can write.
 */
static void test_reopen_aborted(void)
{
    g_autofree char *path = new_image("size=1M");
    g_autofree char *bytes = NULL;
    Error *err = NULL;
    gsize n;

    g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
    MemoryDisk *disk = memory_disk_to_open = memory_disk_new(bytes, n);
    BlockBackend *file = open_with_perms(options_of("driver=memory-disk,node-name=disk"),
                                         BDRV_O_RDWR, 0, BLK_PERM_ALL, &error_abort);
    BlockBackend *blk = open_with_perms(options_of("driver=qcow2,file=disk"), BDRV_O_RDWR,
                                        BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
    BlockBackend *other = open_with_perms(options_of("driver=null-co"), BDRV_O_RDWR, 0,
                                          BLK_PERM_ALL, &error_abort);
    add(blk, "b", GRANULARITY);
    write_pattern(blk, 0, 4096, 1);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort),
                    ==, 0);
    disk->late = g_rand_new_with_seed(1);
    BlockReopenQueue *queue = bdrv_reopen_queue(NULL, blk_bs(blk),
                                                options_of("read-only=on"), true);
    queue = bdrv_reopen_queue(queue, blk_bs(other), options_of("no-such-option=1"), true);
    g_assert_cmpint(bdrv_reopen_multiple(queue, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Cannot change the option 'no-such-option'");
    error_free(err);
    assert_in_use_on(disk);
    /* it goes on where it was */
    g_assert_false(bdrv_dirty_bitmap_readonly(find(blk, "b")));
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort), ==, 0);
    write_pattern(blk, 4096, 4096, 1);
    assert_dirty(find(blk, "b"), 0, 8192);
    qcow2_assert_consistent(blk, true);
    blk_unref(other);
    blk_unref(blk);
    blk_unref(file);
    memory_disk_free(disk);
}

static void test_handed_over(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    BlockDriverState *bs = blk_bs(blk);

    add(blk, "b", GRANULARITY);
    write_pattern(blk, 0, 4096, 1);
    g_assert_cmpint(blk_set_perm(blk, 0, BLK_PERM_ALL, &error_abort), ==, 0);
    g_assert_cmpint(bdrv_inactivate(bs, &error_abort), ==, 0);
    g_assert_null(bdrv_find_dirty_bitmap(bs, "b"));
    /* meanwhile somebody else writes */
    BlockBackend *other = qcow2_open_file(path, "");
    assert_dirty(find(other, "b"), 0, 4096);
    write_pattern(other, 4096, 4096, 2);
    blk_unref(other);
    g_assert_cmpint(bdrv_activate(bs, &error_abort), ==, 0);
    assert_dirty(find(blk, "b"), 0, 8192);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/*
 * What somebody else has left cannot be opened, for reasons found early and late: the node
 * stays inactive, and can be closed, or activated once the image is sound again.
 */
static void run_damaged(uint64_t offset, uint8_t byte, bool mended)
{
    g_autofree char *path = new_image("size=1M"), *image = NULL;
    Error *err = NULL;
    gsize bytes;

    BlockBackend *blk = qcow2_open_file(path, "");
    BlockDriverState *bs = blk_bs(blk);
    add(blk, "b", GRANULARITY);
    write_pattern(blk, 0, 4096, 1);
    g_assert_cmpint(blk_set_perm(blk, 0, BLK_PERM_ALL, &error_abort), ==, 0);
    g_assert_cmpint(bdrv_inactivate(bs, &error_abort), ==, 0);
    g_assert_true(g_file_get_contents(path, &image, &bytes, NULL));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, &byte, 1, offset), ==, 1);
    g_assert_cmpint(bdrv_activate(bs, &err), <, 0);
    error_free(err);
    g_assert_null(bdrv_find_dirty_bitmap(bs, "b"));
    g_assert_cmpint(blk_getlength(blk), ==, 1 << 20);
    if (mended) {
        g_assert_cmpint(pwrite(fd, image + offset, 1, offset), ==, 1);
        g_assert_cmpint(bdrv_activate(bs, &error_abort), ==, 0);
        assert_dirty(find(blk, "b"), 0, 4096);
        g_assert_cmpint(blk_set_perm(blk, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort), ==, 0);
        assert_content(blk, 0, 4096, 1);
        write_pattern(blk, 4096, 4096, 2);
    }
    blk_unref(blk);
    close(fd);
    if (mended) {
        qcow2_assert_peer_finds_no_fault(path);
    }
}

static void test_handed_over_damaged(void)
{
    static const struct { uint64_t offset; uint8_t byte; } damage[] = {
        { 0, 'X' },             /* magic */
        { 23, 40 },             /* cluster size */
        { 24, 0x7f },           /* length of the disk */
        { 40, 0xff },           /* place of the L1 table */
        { 48, 0xff },           /* place of the refcount table */
        { 60, 0xff },           /* number of snapshots */
        { 79, 2 },              /* the corrupt bit */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(damage); i++) {
        run_damaged(damage[i].offset, damage[i].byte, false);
        run_damaged(damage[i].offset, damage[i].byte, true);
    }
}

/* Bitmaps grow with the disk. */
static void test_resize(void)
{
    g_autofree char *path = new_image("size=1M,cluster_size=512");
    BlockBackend *blk = qcow2_open_file(path, "");

    bdrv_set_dirty_bitmap(add(blk, "b", 512), 0, 4096);
    blk_unref(blk);
    blk = qcow2_open_file(path, "");
    g_assert_cmpint(blk_truncate(blk, 32 << 20, false, PREALLOC_MODE_OFF, 0, &error_abort), ==,
                    0);
    write_pattern(blk, 4096, 512, 1);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_file(path, "");
    assert_dirty(find(blk, "b"), 0, 4608);
    g_assert_cmpint(bdrv_dirty_bitmap_size(find(blk, "b")), ==, 32 << 20);
    blk_unref(blk);
}

static void test_limits(void)
{
    g_autofree char *too_long = g_strnfill(1024, 'x'), *longest = g_strnfill(1023, 'x');
    static const char *const refused_by_peer[] = {
        "Cannot store dirty bitmaps in qcow2 v2 files",
        "Too much space will be occupied by the bitmap. Use larger granularity",
        "Name length exceeds maximum (1023 characters)",
        "Granularity is under minimum (512 bytes)",
    };
    const struct { const char *opts, *name; uint32_t granularity; const char *text; }
    cases[] = {
        { "size=1M,compat=0.10", "b", 65536, refused_by_peer[0] },
        { "size=1P,cluster_size=2M", "b", 512, refused_by_peer[1] },
        { "size=1M", too_long, 65536, refused_by_peer[2] },
        { "size=1M", "b", 256, refused_by_peer[3] },
        { "size=1M", longest, 512, NULL },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = new_image(cases[i].opts);
        BlockBackend *blk = qcow2_open_file(path, "");
        Error *err = NULL;
        bool can = bdrv_can_store_new_dirty_bitmap(blk_bs(blk), cases[i].name,
                                                   cases[i].granularity, &err);
        g_assert_cmpint(can, ==, !cases[i].text);
        if (!can) {
            g_autofree char *text =
                g_strdup_printf("Can't make bitmap '%s' persistent in '%s': %s", cases[i].name,
                                bdrv_get_device_or_node_name(blk_bs(blk)), cases[i].text);
            g_assert_cmpstr(error_get_pretty(err), ==, text);
            error_free(err);
        } else {
            add(blk, cases[i].name, cases[i].granularity);
        }
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* The header has to make room, and the backing file's name moves on. */
static void test_header_is_kept(void)
{
    g_autofree char *base = scratch_file("base.raw", GUEST_BYTES);
    g_autofree char *path = new_image("size=1M,backing_file=base.raw,backing_fmt=raw");

    for (int i = 0; i < 4; i++) {
        BlockBackend *blk = qcow2_open_file(path, "");
        g_assert_cmpstr(blk_bs(blk)->backing_file, ==, "base.raw");
        g_assert_cmpstr(blk_bs(blk)->backing_format, ==, "raw");
        if (i % 2 == 0) {
            add(blk, "b", 65536);
        } else {
            drop(blk, "b");
        }
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* An extension that nobody knows, and a header that is longer than ours. */
static void test_unknown_is_kept(void)
{
    g_autofree char *path = new_image("size=1M");
    g_autofree char *bytes = NULL;
    gsize n;

    /* | header 112 | extensions .. | end |  ->  | header 112 + 8 | unknown | extensions .. */
    g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
    memmove(bytes + 120 + 16, bytes + 112, 1000);
    memcpy(bytes + 112, "\0\0\0\0\0\0\x12\x34", 8);
    memcpy(bytes + 120, "wxyz\0\0\0\5hello\0\0\0", 16);
    bytes[103] = 120;
    g_assert_true(g_file_set_contents(path, bytes, n, NULL));
    qcow2_assert_peer_finds_no_fault(path);
    for (int i = 0; i < 2; i++) {
        BlockBackend *blk = qcow2_open_file(path, ",backing=");
        add(blk, i ? "second" : "first", 65536);
        const char *name = i ? "x" : "long/name";
        g_assert_cmpint(bdrv_change_backing_file(blk_bs(blk), name, "raw"), ==,
                        0);
        blk_unref(blk);
        g_free(bytes);
        g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
        g_assert_nonnull(memmem(bytes, 4096, "wxyz\0\0\0\5hello\0\0\0", 16));
        g_assert_cmpmem(bytes + 112, 8, "\0\0\0\0\0\0\x12\x34", 8);
    }
    BlockBackend *blk = qcow2_open_file(path, ",backing=");
    g_assert_cmpstr(blk_bs(blk)->backing_file, ==, "x");
    find(blk, "first");
    find(blk, "second");
    blk_unref(blk);
}

/* ---- damage ---------------------------------------------------------------------- */

static void poke(const char *path, int64_t offset, uint64_t value, size_t n)
{
    uint64_t be = GUINT64_TO_BE(value);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, (uint8_t *)&be + 8 - n, n, offset), ==, (ssize_t)n);
    close(fd);
}

/* Where the extension's data is, and the directory. */
static int64_t find_extension(const char *path, int64_t *dir, int64_t *table)
{
    g_autofree char *bytes = NULL;
    gsize n;
    int64_t o = 112;

    g_assert_true(g_file_get_contents(path, &bytes, &n, NULL));
    while (ldl_be_p(bytes + o) != 0x23852875) {
        o += 8 + ROUND_UP(ldl_be_p(bytes + o + 4), 8);
    }
    *dir = ldq_be_p(bytes + o + 8 + 16);
    *table = ldq_be_p(bytes + *dir);
    return o + 8;
}

typedef enum Where { EXT, DIR_, TABLE, HEADER } Where;

static void test_hostile(void)
{
    static const struct { Where where; int offset, n; uint64_t value; const char *text; }
    cases[] = {
        { EXT, 0, 4, 0, "found bitmaps extension with zero bitmaps" },
        { EXT, 0, 4, 65536, "bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU "
          "supported maximum of 65535" },
        { EXT, 0, 4, 2, "Less bitmaps found than specified in header extension" },
        { EXT, 4, 4, 1, "bitmaps_ext: Reserved field is not zero" },
        { EXT, 8, 8, 1ULL << 40, "bitmaps_ext: bitmap directory size (1099511627776) exceeds "
          "the maximum supported size (67107840)" },
        { EXT, 8, 8, 8, "Broken bitmap directory" },
        { EXT, 8, 8, 64, "More bitmaps found than specified in header extension" },
        { EXT, 16, 8, 512, "bitmaps_ext: invalid bitmap directory offset" },
        { EXT, 16, 8, 1ULL << 40, "Broken bitmap directory" },
        { DIR_, 0, 8, 512, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 8, 4, 0, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 8, 4, 2, "Could not read bitmap 'bit' from image: Invalid argument" },
        { DIR_, 8, 4, 0x80000001, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 12, 4, 8, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 16, 1, 0, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 16, 1, 2, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 17, 1, 8, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 17, 1, 32, "Bitmap 'bit' doesn't satisfy the constraints" },
        { DIR_, 18, 2, 0, "Broken bitmap directory" },
        { DIR_, 20, 4, 8, "Broken bitmap directory" },
        { DIR_, 25, 1, 0, "Bitmap 'b' doesn't satisfy the constraints" },   /* "b\0t" */
        { TABLE, 0, 8, 0x200, "Could not read bitmap_table table from image for bitmap 'bit': "
          "Invalid argument" },
        { TABLE, 0, 8, 0x10001, "Could not read bitmap_table table from image for bitmap 'bit'"
          ": Invalid argument" },
        { TABLE, 0, 8, 2, "Could not read bitmap_table table from image for bitmap 'bit': "
          "Invalid argument" },
        { TABLE, 0, 8, 1ULL << 40, "Could not read bitmap 'bit' from image: Input/output "
          "error" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = new_image("size=1M");
        BlockBackend *blk = qcow2_open_file(path, "");
        int64_t dir, table, ext;
        bdrv_set_dirty_bitmap(add(blk, "bit", 65536), 0, 65536);
        blk_unref(blk);
        ext = find_extension(path, &dir, &table);
        int64_t base = cases[i].where == EXT ? ext : cases[i].where == DIR_ ? dir : table;
        poke(path, base + cases[i].offset, cases[i].value, cases[i].n);
        g_test_message("%u: %s", i, cases[i].text);
        assert_open_fails(options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
                          BDRV_O_RDWR, cases[i].text, NULL);
    }
}

/* Clean bits take no room in the file, but in memory. */
static void test_memory(void)
{
    g_autofree char *path = new_image("size=64T");
    BlockBackend *blk = qcow2_open_file(path, "");
    BlockDriverState *bs = blk_bs(blk);
    Error *err = NULL;

    for (int i = 0; i < 2; i++) {
        g_autofree char *name = g_strdup_printf("b%d", i);
        g_assert_true(bdrv_can_store_new_dirty_bitmap(bs, name, 32768, &error_abort));
        BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(bs, 32768, name, &error_abort);
        bdrv_dirty_bitmap_set_persistence(b, true);
    }
    g_assert_false(bdrv_can_store_new_dirty_bitmap(bs, "b2", 32768, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "would need more than 5"));
    error_free(err);
    blk_unref(blk);
    blk = qcow2_open_file(path, "");
    g_assert_nonnull(bdrv_find_dirty_bitmap(blk_bs(blk), "b1"));
    blk_unref(blk);
}

/* Two bitmaps with one table: found by the check, once, and no harm to others. */
static void test_shared_table(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");
    int64_t dir, table;
    BdrvCheckResult res;

    bdrv_set_dirty_bitmap(add(blk, "a", 65536), 0, 65536);
    bdrv_set_dirty_bitmap(add(blk, "b", 65536), 0, 65536);
    blk_unref(blk);
    find_extension(path, &dir, &table);
    poke(path, dir + 32, table, 8);
    blk = open_with_perms(options_of("driver=qcow2,file.driver=file,file.filename=%s", path),
                          BDRV_O_CHECK | BDRV_O_RDWR, BLK_PERM_ALL, BLK_PERM_ALL,
                          &error_abort);
    g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions, ==, 2);
    g_assert_cmpint(res.leaks, ==, 2);
    blk_unref(blk);
    blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, GUEST_BYTES, 1);
    drop(blk, "a");
    drop(blk, "b");
    assert_content(blk, 0, GUEST_BYTES, 1);
    qcow2_assert_consistent(blk, true);
    blk_unref(blk);
}

/* A program that knows nothing of bitmaps has written to the image. */
static void test_autoclear_is_off(void)
{
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");

    add(blk, "b", 65536);
    blk_unref(blk);
    poke(path, H_AUTOCLEAR, 0, 8);
    blk = qcow2_open_file(path, "");
    g_assert_null(bdrv_find_dirty_bitmap(blk_bs(blk), "b"));
    assert_bitmaps_info(blk, NULL);
    qcow2_assert_consistent(blk, true);
    add(blk, "b", 4096);
    blk_unref(blk);
    blk = qcow2_open_file(path, "");
    g_assert_cmpuint(bdrv_dirty_bitmap_granularity(find(blk, "b")), ==, 4096);
    blk_unref(blk);
}

/* ---- the peer -------------------------------------------------------------------- */

static void test_with_peer(void)
{
    g_autofree char *peer = g_find_program_in_path("qemu-img");
    g_autofree char *path = new_image("size=1M");
    g_autofree char *other = scratch_path("merged.qcow2");

    if (!peer) {
        g_test_skip("qemu-img is not installed");
        return;
    }
    qcow2_assert_peer("bitmap --add -g 4096 %s theirs", path);
    BlockBackend *blk = qcow2_open_file(path, "");
    add(blk, "ours", 8192);
    write_pattern(blk, 65536, 8192, 1);
    blk_unref(blk);
    qcow2_assert_peer("bitmap --disable %s ours", path);
    qcow2_assert_peer("bitmap --add -g 4096 --merge ours --merge theirs %s both", path);
    qcow2_assert_peer_finds_no_fault(path);
    blk = qcow2_open_ro(path);
    assert_dirty(find(blk, "theirs"), 65536, 8192);
    assert_dirty(find(blk, "both"), 65536, 8192);
    g_assert_false(bdrv_dirty_bitmap_enabled(find(blk, "ours")));
    g_assert_true(bdrv_dirty_bitmap_enabled(find(blk, "both")));
    blk_unref(blk);
    qcow2_assert_peer("bitmap --clear %s theirs", path);
    qcow2_assert_peer("bitmap --remove %s ours", path);
    blk = qcow2_open_file(path, "");
    g_assert_null(bdrv_find_dirty_bitmap(blk_bs(blk), "ours"));
    g_assert_cmpint(bdrv_get_dirty_count(find(blk, "theirs")), ==, 0);
    blk_unref(blk);
    qcow2_assert_peer("convert --bitmaps -O qcow2 %s %s", path, other);
    blk = qcow2_open_ro(other);
    assert_dirty(find(blk, "both"), 65536, 8192);
    blk_unref(blk);
}

/* A name is bytes, and is told as it is. */
static void test_any_name(void)
{
    static const char name[] = "\xff\xfe";
    g_autofree char *path = new_image("size=1M");
    BlockBackend *blk = qcow2_open_file(path, "");

    add(blk, name, 65536);
    blk_unref(blk);
    blk = qcow2_open_ro(path);
    find(blk, name);
    json_t *info = blk_bs(blk)->drv->bdrv_get_specific_info(blk_bs(blk));
    json_t *list = json_object_get(json_object_get(info, "data"), "bitmaps");
    g_assert_cmpuint(json_array_size(list), ==, 1);
    g_assert_cmpstr(json_string_value(json_object_get(json_array_get(list, 0), "name")), ==,
                    name);
    json_decref(info);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    g_test_add_func("/qcow2/bitmap/life", test_life);
    g_test_add_func("/qcow2/bitmap/sizes", test_sizes);
    g_test_add_func("/qcow2/bitmap/inconsistent", test_inconsistent);
    g_test_add_func("/qcow2/bitmap/reopen", test_reopen);
    g_test_add_func("/qcow2/bitmap/reopen-aborted", test_reopen_aborted);
    g_test_add_func("/qcow2/bitmap/handed-over", test_handed_over);
    g_test_add_func("/qcow2/bitmap/handed-over-damaged", test_handed_over_damaged);
    g_test_add_func("/qcow2/bitmap/resize", test_resize);
    g_test_add_func("/qcow2/bitmap/limits", test_limits);
    g_test_add_func("/qcow2/bitmap/header-is-kept", test_header_is_kept);
    g_test_add_func("/qcow2/bitmap/unknown-is-kept", test_unknown_is_kept);
    g_test_add_func("/qcow2/bitmap/hostile", test_hostile);
    g_test_add_func("/qcow2/bitmap/memory", test_memory);
    g_test_add_func("/qcow2/bitmap/shared-table", test_shared_table);
    g_test_add_func("/qcow2/bitmap/autoclear-is-off", test_autoclear_is_off);
    g_test_add_func("/qcow2/bitmap/any-name", test_any_name);
    g_test_add_func("/qcow2/bitmap/with-peer", test_with_peer);
    return image_test_run();
}
