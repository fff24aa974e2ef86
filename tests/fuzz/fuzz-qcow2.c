/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 images as an enemy would make them. Whatever the bytes: no crash, no hang, no
 * memory without bound.
 *
 * With libFuzzer (option "fuzz"): the input is an image file. Without: arguments are files to
 * replay, or "--seeds" and a directory for valid images to begin with; with none, valid images
 * with random damage are tried, as a test.
 */
#include "../unit/qcow2-test.h"
#include "../unit/memory-disk.h"
#include "miniblk/dirty-bitmap.h"

enum { IO_BYTES = 128 * 1024, DISK_BYTES_MAX = 64 << 20, FILE_BYTES_MAX = 4 << 20 };

/* ---- what is done with an image ---------------------------------------------------- */

/* Offsets worth a try on a disk of LENGTH bytes. */
static int64_t offset_no(int i, int64_t length)
{
    int64_t offsets[] = { 0, length / 2, length - IO_BYTES, 65536 - 512, length / 3 };
    int64_t o = offsets[i % ARRAY_SIZE(offsets)];
    return QEMU_ALIGN_DOWN(CLAMP(o, 0, MAX(length - IO_BYTES, 0)), 512);
}

static void read_here_and_there(BlockBackend *blk, int64_t length, uint8_t *buf)
{
    for (int i = 0; i < 5; i++) {
        int64_t at = offset_no(i, length), n = MIN(IO_BYTES, length - at), pnum, map;
        BlockDriverState *file;
        blk_pread(blk, at, n, buf, 0);
        bdrv_block_status(blk_bs(blk), at, n, &pnum, &map, &file);
    }
}

static void write_here_and_there(BlockBackend *blk, int64_t length, uint8_t *buf)
{
    memset(buf, 0x5a, IO_BYTES);
    for (int i = 0; i < 5; i++) {
        int64_t at = offset_no(i, length), n = MIN(IO_BYTES, length - at);
        blk_pwrite(blk, at + MIN(512, n), n - MIN(512, n), buf, 0);
        blk_pdiscard(blk, at, n / 2);
        blk_pwrite_zeroes(blk, at, n, i % 2 ? BDRV_REQ_MAY_UNMAP : 0);
        blk_pwrite(blk, at, n, buf, 0);
        blk_flush(blk);
    }
    blk_pwrite(blk, 0, MIN(IO_BYTES, length), buf, BDRV_REQ_WRITE_COMPRESSED);
    /* With the smallest clusters, enough for a longer refcount table. */
    BlockDriverInfo bdi = { 0 };
    bdrv_get_info(blk_bs(blk), &bdi);
    int64_t more = bdi.cluster_size == 512 ? 10 << 20 : 1 << 20;
    blk_truncate(blk, length + more, false, PREALLOC_MODE_METADATA, 0, NULL);
    blk_truncate(blk, length / 1024 * 512, false, PREALLOC_MODE_OFF, 0, NULL);
}

/* A VM state and some snapshots more; then those that were there. */
static void use_snapshots(BlockBackend *blk, uint8_t *buf)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autofree QEMUSnapshotInfo *list = NULL;
    QEMUSnapshotInfo mine = { .name = "mine" };

    int n = bdrv_snapshot_list(bs, &list);
    bdrv_load_vmstate(bs, buf, 1000, 5000);
    bdrv_save_vmstate(bs, buf, 1000, 5000);
    bdrv_snapshot_create(bs, &mine);
    for (int i = 0; i < MIN(n, 3); i++) {
        bdrv_snapshot_goto(bs, list[i].id_str, NULL);
        blk_pwrite(blk, 0, MIN(4096, blk_getlength(blk)), buf, 0);
        bdrv_snapshot_delete(bs, list[i].id_str, list[i].name, NULL);
    }
    bdrv_snapshot_goto(bs, "mine", NULL);
    bdrv_snapshot_delete(bs, NULL, "mine", NULL);
}

static void show_snapshots(BlockBackend *blk, uint8_t *buf)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autofree QEMUSnapshotInfo *list = NULL;

    int n = bdrv_snapshot_list(bs, &list);
    for (int i = 0; i < MIN(n, 3); i++) {
        if (bdrv_snapshot_load_tmp(bs, list[i].id_str, NULL, NULL) == 0) {
            read_here_and_there(blk, blk_getlength(blk), buf);
        }
    }
}

static void use_bitmaps(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    BdrvDirtyBitmap *b = bdrv_dirty_bitmap_first(bs);

    json_decref(bdrv_query_dirty_bitmaps(bs));
    json_decref(bs->drv->bdrv_get_specific_info(bs));
    if (bdrv_is_read_only(bs)) {
        return;
    }
    if (b) {
        bdrv_remove_persistent_dirty_bitmap(bs, bdrv_dirty_bitmap_name(b), NULL);
        bdrv_release_dirty_bitmap(b);
    }
    if (bdrv_can_store_new_dirty_bitmap(bs, "mine", 65536, NULL) &&
        (b = bdrv_create_dirty_bitmap(bs, 65536, "mine", NULL))) {
        bdrv_dirty_bitmap_set_persistence(b, true);
    }
}

static void change_options(BlockBackend *blk)
{
    static const char *const options[] = {
        "refcount_bits=64", "compat=0.10,refcount_bits=16,lazy_refcounts=off", "compat=1.1",
        "refcount_bits=16", "lazy_refcounts=on",
    };
    BlockDriverState *bs = blk_bs(blk);

    /* (images of version 2 have none) */
    for (BdrvDirtyBitmap *b; (b = bdrv_dirty_bitmap_first(bs)); ) {
        bdrv_remove_persistent_dirty_bitmap(bs, bdrv_dirty_bitmap_name(b), NULL);
        bdrv_release_dirty_bitmap(b);
    }
    bdrv_change_backing_file(bs, "other", "raw");
    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        g_autoptr(json_t) opts = options_of("%s", options[i]);
        bdrv_amend_options(bs, opts, NULL, NULL, false, NULL);
    }
}

/* MORE: options, beginning with a comma. */
static void visit(MemoryDisk *disk, int flags, BdrvCheckMode fix, const char *more)
{
    g_autofree uint8_t *buf = g_malloc0(IO_BYTES);
    bool rw = flags & BDRV_O_RDWR;
    BdrvCheckResult res;
    Error *err = NULL;

    memory_disk_to_open = disk;
    BlockBackend *blk = open_with_perms(
        options_of("driver=qcow2,discard=unmap,backing=,file.driver=memory-disk%s%s",
                   rw ? "" : ",read-only=on", more),
        flags, rw ? BLK_PERM_ALL : BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &err);
    if (!blk) {
        error_free(err);
        return;
    }
    int64_t length = blk_getlength(blk);
    read_here_and_there(blk, length, buf);
    bdrv_check(blk_bs(blk), &res, fix);
    if (rw && !(flags & BDRV_O_CHECK)) {
        use_bitmaps(blk);
        write_here_and_there(blk, length, buf);
        bdrv_release_named_dirty_bitmaps(blk_bs(blk));
        use_snapshots(blk, buf);
        use_bitmaps(blk);
        change_options(blk);
    }
    read_here_and_there(blk, blk_getlength(blk), buf);
    if (!rw) {
        use_bitmaps(blk);
        show_snapshots(blk, buf);
    }
    blk_unref(blk);
}

static void try_image(const uint8_t *data, size_t size)
{
    MemoryDisk *disk = memory_disk_new(data, MIN(size, FILE_BYTES_MAX));

    disk->length_max = DISK_BYTES_MAX;
    visit(disk, 0, 0, "");
    visit(disk, BDRV_O_RDWR, 0, "");
    visit(disk, BDRV_O_RDWR | BDRV_O_CHECK, BDRV_FIX_ERRORS | BDRV_FIX_LEAKS, "");
    /* now with metadata that is dropped and read again all the time */
    visit(disk, BDRV_O_RDWR, 0, ",l2-cache-size=8k,l2-cache-entry-size=512,"
          "refcount-cache-size=4k,pass-discard-other=on");
    memory_disk_free(disk);
}

static inline void quiet_stderr(void)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(dup2(fd, 2), ==, 2);
    close(fd);
}

#ifdef MINIBLK_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;

    if (!ready) {
        g_assert_cmpint(qemu_init_main_loop(&error_abort), ==, 0);
        bdrv_init();
        bdrv_register(&memory_disk_driver);
        ready = true;
    }
    try_image(data, size);
    return 0;
}

#else

/* ---- valid images with random damage ----------------------------------------------- */

static const char *const seeds[] = {
    "size=1M,cluster_size=512", "size=4M,cluster_size=4k", "size=64M",
    "size=1M,cluster_size=512,refcount_bits=64", "size=4M,cluster_size=4k,compat=0.10",
    "size=4M,cluster_size=4k,refcount_bits=1,lazy_refcounts=on",
    "size=4M,cluster_size=4k,preallocation=metadata",
    "size=4M,cluster_size=16k,extended_l2=on",
    "size=1M,cluster_size=512,compression_type=zstd",
    "size=1M,cluster_size=4k,compat=0.10,backing_file=other,backing_fmt=raw",
    "size=1M,cluster_size=4k,refcount_bits=8,backing_file=other,backing_fmt=raw",
    "size=300k,cluster_size=16k,extended_l2=on,preallocation=metadata",
};

/* Something of everything that the format has. */
static void fill_seed(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);
    g_autofree uint8_t *buf = g_malloc0(65536);
    QEMUSnapshotInfo sn = { .name = "s", .vm_state_size = 3000, .icount = UINT64_MAX };

    write_pattern(blk, 0, 100000, 1);
    g_assert_cmpint(blk_pwrite(blk, 131072, 65536, buf, BDRV_REQ_WRITE_COMPRESSED), ==, 0);
    g_assert_cmpint(bdrv_save_vmstate(bs, buf, 0, 3000), ==, 3000);
    /* (one bit wide refcounts allow no snapshots) */
    bdrv_snapshot_create(bs, &sn);
    g_assert_cmpint(blk_pdiscard(blk, 8192, 8192), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 32768, 8192, 0), ==, 0);
    if (bdrv_supports_persistent_dirty_bitmap(bs)) {
        BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(bs, 65536, "b", &error_abort);
        bdrv_dirty_bitmap_set_persistence(b, true);
    }
    write_pattern(blk, 65536, 20000, 2);
}

static GByteArray *make_seed(const char *opts)
{
    g_autofree char *path = scratch_path("seed.qcow2");
    char *bytes;
    gsize length;

    qcow2_create(path, opts);
    BlockBackend *blk = qcow2_open_file(path, ",backing=");
    fill_seed(blk);
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
    if (strstr(opts, "lazy")) {
        bytes[79] |= 1;         /* the dirty bit: it is to be repaired when it is opened */
    }
    return g_byte_array_new_take((guint8 *)bytes, length);
}

/* Values that are likely to mean something where they land. */
static uint64_t random_value(GRand *r, const GByteArray *image)
{
    uint64_t cluster = 1ULL << (image->data[23] & 31);
    uint64_t offset = g_rand_int_range(r, 0, 2 * (image->len / cluster) + 2) * cluster;

    switch (g_rand_int_range(r, 0, 7)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return 1ULL << g_rand_int_range(r, 0, 64);
    case 3:
        return offset;
    case 4:
        return offset | 1ULL << 63;
    case 5:
        return offset | 1ULL << 62 | (uint64_t)g_rand_int(r) << 30;
    default:
        return (uint64_t)g_rand_int(r) << 32 | g_rand_int(r);
    }
}

/* Metadata lies in the first clusters: aim there, mostly at whole entries. */
static void damage(GRand *r, GByteArray *image)
{
    uint64_t cluster = 1ULL << (image->data[23] & 31);
    int n = g_rand_int_range(r, 1, 6);

    for (int i = 0; i < n; i++) {
        uint64_t area = g_rand_int_range(r, 0, 3) ? MIN(image->len, 12 * cluster) : 112;
        uint64_t at = g_rand_int_range(r, 0, area - 8);
        uint64_t value = GUINT64_TO_BE(random_value(r, image));
        if (g_rand_int_range(r, 0, 4)) {
            at = at % cluster % 128 + at / cluster * cluster;
        }
        at &= ~7ULL;
        if (at + 8 <= image->len) {
            memcpy(image->data + at, &value, 1 << g_rand_int_range(r, 0, 4));
        }
    }
    if (g_rand_int_range(r, 0, 10) == 0) {
        g_byte_array_set_size(image, g_rand_int_range(r, 0, image->len));
    }
}

static void test_damaged_images(void)
{
    int rounds = g_test_slow() ? 20000 : 400;
    GByteArray *images[ARRAY_SIZE(seeds)];
    GRand *r = g_rand_new_with_seed(g_test_rand_int());

    for (unsigned i = 0; i < ARRAY_SIZE(seeds); i++) {
        images[i] = make_seed(seeds[i]);
    }
    for (int i = 0; i < rounds; i++) {
        GByteArray *seed = images[i % ARRAY_SIZE(seeds)];
        GByteArray *image = g_byte_array_new();
        g_byte_array_append(image, seed->data, seed->len);
        damage(r, image);
        const char *keep = g_getenv("FUZZ_QCOW2_KEEP");
        if (keep) {
            /* So that a crash leaves its cause behind. */
            g_file_set_contents(keep, (char *)image->data, image->len, NULL);
        }
        try_image(image->data, image->len);
        g_byte_array_unref(image);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(seeds); i++) {
        g_byte_array_unref(images[i]);
    }
    g_rand_free(r);
}

static int write_seeds(const char *dir)
{
    for (unsigned i = 0; i < ARRAY_SIZE(seeds); i++) {
        g_autofree char *path = g_strdup_printf("%s/seed-%u.qcow2", dir, i);
        g_autoptr(GByteArray) image = make_seed(seeds[i]);
        g_autoptr(GError) err = NULL;
        if (!g_file_set_contents(path, (char *)image->data, image->len, &err)) {
            g_error("%s", err->message);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        return write_seeds(argv[2]);
    }
    quiet_stderr();
    for (int i = 1; i < argc; i++) {
        char *bytes;
        gsize length;
        if (g_file_get_contents(argv[i], &bytes, &length, NULL)) {
            try_image((uint8_t *)bytes, length);
            g_free(bytes);
        }
    }
    if (argc > 1) {
        return 0;
    }
    g_test_add_func("/fuzz/qcow2/damaged-images", test_damaged_images);
    return image_test_run();
}

#endif
