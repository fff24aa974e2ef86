/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 and single errors. An operation that changes metadata is done again and again, and
 * each time a later one of its requests to the file fails:
 *
 *   run 1: x          run 2: r x        run 3: r w x      ...until none fails
 *
 * The operation may fail then, but afterwards the image can be written to, the same operation
 * succeeds, and nothing is lost.
 */
#include "qcow2-test.h"
#include "memory-disk.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/snapshot.h"

enum { CLUSTER = 512, DISK = 2 << 20, PART = 64 << 10 };

/* ---- operations: 0 or -errno -------------------------------------------------------- */

static int grow(BlockBackend *blk)
{
    return blk_truncate(blk, 4 * DISK, false, PREALLOC_MODE_OFF, 0, NULL);
}

static int grow_mapped(BlockBackend *blk)
{
    return blk_truncate(blk, DISK + PART, false, PREALLOC_MODE_METADATA, 0, NULL);
}

static int shrink(BlockBackend *blk)
{
    return blk_truncate(blk, DISK / 2, false, PREALLOC_MODE_OFF, 0, NULL);
}

static int take(BlockBackend *blk)
{
    QEMUSnapshotInfo sn = { .name = "second" };
    return bdrv_snapshot_create(blk_bs(blk), &sn);
}

static int go_back(BlockBackend *blk)
{
    return bdrv_snapshot_goto(blk_bs(blk), "first", NULL);
}

static int delete(BlockBackend *blk)
{
    QEMUSnapshotInfo sn;

    /* The first try may have done it although an error was reported. */
    return bdrv_snapshot_find(blk_bs(blk), &sn, "first") < 0 ? 0
           : bdrv_snapshot_delete(blk_bs(blk), sn.id_str, sn.name, NULL);
}

static int amend(BlockBackend *blk, const char *text)
{
    QDict *opts = options_of("%s", text);
    int ret = bdrv_amend_options(blk_bs(blk), opts, NULL, NULL, false, NULL);

    json_decref(opts);
    return ret;
}

static int amend_lazy(BlockBackend *blk)
{
    return amend(blk, "lazy_refcounts=on");
}

static int amend_width(BlockBackend *blk)
{
    return amend(blk, "refcount_bits=64");
}

static int amend_down(BlockBackend *blk)
{
    return amend(blk, "compat=0.10");
}

static int amend_up(BlockBackend *blk)
{
    return amend(blk, "compat=1.1");
}

static int name_backing(BlockBackend *blk)
{
    g_autofree char *name = g_strnfill(300, 'b');
    return bdrv_change_backing_file(blk_bs(blk), name, "raw");
}

/* Enough of them that the refcount table must grow. */
static int write_much(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc0(DISK / 2);
    return blk_pwrite(blk, DISK / 2, DISK / 2, buf, 0);
}

static int flush_discards(BlockBackend *blk)
{
    int ret = blk_pdiscard(blk, DISK / 2, DISK / 2);
    return ret < 0 ? ret : blk_flush(blk);
}

static int remove_bitmap(BlockBackend *blk)
{
    return bdrv_remove_persistent_dirty_bitmap(blk_bs(blk), "b", NULL);
}

/* What was lost or not is written anew; only one request fails. */
static int empty(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc(PART);
    int ret = blk_make_empty(blk, NULL);

    memset(buf, 1, PART);
    if (blk_pwrite(blk, 0, PART, buf, 0) < 0) {
        g_assert_cmpint(blk_pwrite(blk, 0, PART, buf, 0), ==, 0);
    }
    return ret;
}

static void add_bitmap(BlockBackend *blk)
{
    BdrvDirtyBitmap *bitmap = bdrv_create_dirty_bitmap(blk_bs(blk), 65536, "b", &error_abort);
    bdrv_dirty_bitmap_set_persistence(bitmap, true);
}

typedef struct Case {
    const char *name, *create;
    int (*run)(BlockBackend *blk);
    bool leaves_no_rest;        /* even a failure leaks nothing */
} Case;

static const Case cases[] = {
    { "grow", "compat=1.1", grow },
    { "grow-mapped", "compat=1.1", grow_mapped },
    { "shrink", "compat=1.1", shrink },
    { "snapshot-create", "compat=1.1", take },
    { "snapshot-goto", "compat=0.10", go_back },
    { "snapshot-delete", "compat=1.1", delete },
    { "amend-lazy", "compat=1.1", amend_lazy, true },
    { "amend-width", "compat=1.1", amend_width },
    { "amend-down", "compat=1.1", amend_down },
    { "amend-up", "compat=0.10", amend_up },
    { "backing-name", "compat=1.1", name_backing, true },
    { "write", "compat=1.1,refcount_bits=64", write_much },
    { "write-lazily", "compat=1.1,lazy_refcounts=on", write_much },
    { "discard", "compat=1.1", flush_discards },
    { "bitmap-remove", "compat=1.1", remove_bitmap },
    { "empty", "compat=1.1", empty },
};

/* ---- the runs ---------------------------------------------------------------------- */

static BlockBackend *open_disk(MemoryDisk *disk)
{
    memory_disk_to_open = disk;
    return open_rw(options_of("driver=qcow2,discard=unmap,backing=,file.driver=memory-disk"));
}

/* Two parts of data, one in the half that shrinking keeps, and a snapshot. */
static MemoryDisk *make_image(const Case *c)
{
    g_autofree char *path = scratch_path("image.qcow2");
    g_autofree char *opts = g_strdup_printf("size=%d,cluster_size=%d,%s", DISK, CLUSTER,
                                            c->create);
    g_autofree char *data = NULL;
    gsize bytes;

    qcow2_create(path, opts);
    BlockBackend *blk = qcow2_open_file(path, "");
    QEMUSnapshotInfo sn = { .name = "first" };
    if (c->run == remove_bitmap) {
        add_bitmap(blk);
    }
    write_pattern(blk, 0, PART, 1);
    write_pattern(blk, DISK - PART, PART, 2);
    g_assert_cmpint(bdrv_snapshot_create(blk_bs(blk), &sn), ==, 0);
    blk_unref(blk);
    g_assert_true(g_file_get_contents(path, &data, &bytes, NULL));
    return memory_disk_new(data, bytes);
}

static void assert_sound(BlockBackend *blk, bool leaks_ok)
{
    assert_content(blk, 0, PART, 1);
    assert_content(blk, 2 * PART, PART, 3);
    qcow2_assert_consistent(blk, leaks_ok);
}

/* Around a byte that was written alone all is zero, whatever its cluster was used for before. */
static void assert_lonely_bytes(BlockBackend *blk)
{
    for (int64_t offset = 4 * PART; offset < 5 * PART; offset += CLUSTER) {
        write_pattern(blk, offset + 7, 1, 4);
        assert_content(blk, offset, 7, 0);
        assert_content(blk, offset + 7, 1, 4);
        assert_content(blk, offset + 8, CLUSTER - 8, 0);
    }
}

static void use(BlockBackend *blk, bool leaks_ok)
{
    write_pattern(blk, 2 * PART, PART, 3);
    assert_lonely_bytes(blk);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    assert_sound(blk, leaks_ok);
}

/* Whether request number N was there to fail. */
static bool run_with_error(const Case *c, const MemoryDisk *image, int n)
{
    MemoryDisk *disk = memory_disk_new(image->data->data, image->data->len);
    BlockBackend *blk = open_disk(disk);

    disk->fail_in = n;
    int ret = c->run(blk);
    bool failed = !disk->fail_in;
    disk->fail_in = 0;
    g_test_message("%s: request %d, result %d", c->name, n, ret);
    g_assert_true(failed || ret == 0);
    bool leaks_ok = failed && !c->leaves_no_rest;
    use(blk, leaks_ok);
    if (ret < 0) {
        g_assert_cmpint(c->run(blk), ==, 0);
        use(blk, leaks_ok);
    }
    blk_unref(blk);
    blk = open_disk(disk);
    assert_sound(blk, leaks_ok);
    blk_unref(blk);
    memory_disk_free(disk);
    return failed;
}

static void test_single_error(gconstpointer opaque)
{
    const Case *c = opaque;
    int n = 1, saved_stderr = qcow2_silence();
    MemoryDisk *image = make_image(c);

    while (run_with_error(c, image, n)) {
        n++;
    }
    g_assert_cmpint(n, >, 1);
    memory_disk_free(image);
    qcow2_end_silence(saved_stderr);
}

/* The refcounts that were written before the header could not be are nobody's data. */
static void test_lonely_bytes_after_amend(void)
{
    g_autofree char *path = scratch_path("lonely.qcow2");

    qcow2_create(path, "size=1M,cluster_size=512");
    BlockBackend *blk = open_rw(options_of(
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,"
        "file.inject-error.0.event=refblock_update,file.inject-error.0.iotype=write,"
        "file.inject-error.0.sector=0,file.inject-error.0.once=on", path));
    g_assert_cmpint(amend_width(blk), ==, -EIO);
    assert_lonely_bytes(blk);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/* ---- emptying ----------------------------------------------------------------------- */

/* A failure changes nothing, so that the next attempt finds all there is to be freed. */
static void test_empty_again(void)
{
    g_autofree char *path = scratch_path("again.qcow2");

    qcow2_create(path, "size=64M");
    int64_t bytes = file_bytes(path);
    BlockBackend *blk = open_rw(options_of(
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,"
        "file.inject-error.0.event=empty_image_prepare,file.inject-error.0.once=on", path));
    write_pattern(blk, 0, 8 << 20, 1);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_make_empty(blk, NULL), ==, -EIO);
    assert_content(blk, 0, 8 << 20, 1);
    qcow2_assert_consistent(blk, false);
    g_assert_cmpint(blk_make_empty(blk, &error_abort), ==, 0);
    assert_content(blk, 0, 8 << 20, 0);
    qcow2_assert_consistent(blk, false);
    g_assert_cmpint(file_bytes(path), <=, bytes + 65536);
    blk_unref(blk);
}

/* In a window of a file there is nothing that could be cut. */
static void test_empty_in_a_window(void)
{
    g_autofree char *path = scratch_path("window.qcow2");

    qcow2_create(path, "size=4M,cluster_size=4k");
    g_assert_cmpint(truncate(path, 8 << 20), ==, 0);
    BlockBackend *blk = open_rw(options_of("driver=qcow2,file.driver=raw,file.size=8M,"
                                           "file.file.driver=file,file.file.filename=%s", path));
    write_pattern(blk, 0, 1 << 20, 1);
    g_assert_cmpint(blk_make_empty(blk, &error_abort), ==, 0);
    assert_content(blk, 0, 1 << 20, 0);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
}

/* ---- errors that stay -------------------------------------------------------------- */

/* Nobody can tell which header the file has: not called corrupt, and opening it helps. */
static void test_unknown_header(void)
{
    g_autofree char *path = scratch_path("unknown.qcow2");
    uint8_t byte = 1;
    Error *err = NULL;

    qcow2_create(path, "size=1M,cluster_size=512");
    BlockBackend *blk = open_rw(options_of(
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,"
        "file.inject-error.0.event=l1_grow_activate_table,file.inject-error.0.iotype=write",
        path));
    write_pattern(blk, 0, PART, 1);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_truncate(blk, 64 << 20, false, PREALLOC_MODE_OFF, 0, &err), ==, -EIO);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Failed to grow the L1 table: Input/output error");
    g_clear_pointer(&err, error_free);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, -EIO);
    g_assert_cmpint(blk_truncate(blk, 64 << 20, false, PREALLOC_MODE_OFF, 0, &err), ==, -EIO);
    g_assert_cmpstr(error_get_pretty(err), ==, "Image is not written to any more after an "
                    "error: its header may be the old or the new one until it is opened "
                    "again");
    error_free(err);
    blk_unref(blk);
    blk = qcow2_open_file(path, "");
    assert_content(blk, 0, PART, 1);
    write_pattern(blk, PART, PART, 2);
    g_assert_cmpint(blk_truncate(blk, 64 << 20, false, PREALLOC_MODE_OFF, 0, &error_abort), ==,
                    0);
    qcow2_assert_consistent(blk, true);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *name = g_strdup_printf("/qcow2/errors/single/%s", cases[i].name);
        g_test_add_data_func(name, &cases[i], test_single_error);
    }
    g_test_add_func("/qcow2/errors/lonely-bytes-after-amend", test_lonely_bytes_after_amend);
    g_test_add_func("/qcow2/errors/empty-again", test_empty_again);
    g_test_add_func("/qcow2/errors/empty-in-a-window", test_empty_in_a_window);
    g_test_add_func("/qcow2/errors/unknown-header", test_unknown_header);
    return image_test_run();
}
