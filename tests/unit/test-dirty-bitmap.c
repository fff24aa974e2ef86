/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps and the write threshold of a node, under writes to it. */
#include "miniblk/osdep.h"
#include "memory-disk.h"
#include "miniblk/block-backend.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/main-loop.h"
#include "miniblk/write-threshold.h"

enum { DISK_BYTES = (1 << 20) + 512, GRANULARITY = 4096,
       GRANULES = DISK_BYTES / GRANULARITY + 1 };

typedef struct Rig {
    MemoryDisk *disk;
    BlockDriverState *bs;
    BlockBackend *blk;
} Rig;

static Rig rig_new(void)
{
    Rig r = { memory_disk_new(NULL, 0) };

    memory_disk_resize(r.disk->data, DISK_BYTES);
    memory_disk_to_open = r.disk;
    r.bs = bdrv_new_open_driver(&memory_disk_driver, "disk", BDRV_O_RDWR | BDRV_O_UNMAP,
                                &error_abort);
    r.blk = blk_new_with_bs(r.bs, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
    return r;
}

static void rig_free(Rig *r)
{
    blk_unref(r->blk);
    bdrv_unref(r->bs);
    memory_disk_free(r->disk);
}

static BdrvDirtyBitmap *bitmap_new(Rig *r, const char *name)
{
    return bdrv_create_dirty_bitmap(r->bs, GRANULARITY, name, &error_abort);
}

/* ---- what is recorded ------------------------------------------------------------------- */

typedef enum Kind { WRITE, ZEROES, DISCARD, FAILING } Kind;

static void do_write(Rig *r, Kind kind, int64_t offset, int64_t bytes)
{
    static uint8_t buf[64 << 10];

    switch (kind) {
    case WRITE:
        g_assert_cmpint(blk_pwrite(r->blk, offset, bytes, buf, 0), ==, 0);
        break;
    case ZEROES:
        g_assert_cmpint(blk_pwrite_zeroes(r->blk, offset, bytes, 0), ==, 0);
        break;
    case DISCARD:
        g_assert_cmpint(blk_pdiscard(r->blk, offset, bytes), ==, 0);
        break;
    case FAILING:
        /* part of it may have been done */
        r->disk->fail_in = 1;
        g_assert_cmpint(blk_pwrite(r->blk, offset & ~511, 512, buf, 0), ==, -EIO);
        break;
    }
}

/* Random writes of all kinds, against an array of flags. */
static void test_model(void)
{
    Rig r = rig_new();
    BdrvDirtyBitmap *bitmap = bitmap_new(&r, NULL);
    bool model[GRANULES] = { false };

    for (int i = 0; i < (g_test_quick() ? 300 : 20000); i++) {
        Kind kind = g_test_rand_int_range(WRITE, FAILING + 1);
        int64_t offset = g_test_rand_int_range(0, DISK_BYTES - 512);
        int64_t bytes = g_test_rand_int_range(1, MIN(60 << 10, DISK_BYTES - offset));

        do_write(&r, kind, offset, bytes);
        if (kind == FAILING) {
            offset &= ~511;
            bytes = 512;
        }
        for (int64_t g = offset / GRANULARITY; g <= (offset + bytes - 1) / GRANULARITY; g++) {
            model[g] = true;
        }
        if (i % 3 == 0) {
            int64_t g = g_test_rand_int_range(0, GRANULES);
            model[g] = false;
            bdrv_reset_dirty_bitmap(bitmap, g * GRANULARITY,
                                    MIN(GRANULARITY, DISK_BYTES - g * GRANULARITY));
        }
        for (int g = 0; g < GRANULES; g++) {
            g_assert_cmpint(bdrv_dirty_bitmap_get(bitmap, (int64_t)g * GRANULARITY), ==,
                            model[g]);
        }
    }
    bdrv_release_dirty_bitmap(bitmap);
    rig_free(&r);
}

static void test_disabled_and_cleared(void)
{
    Rig r = rig_new();
    BdrvDirtyBitmap *bitmap = bitmap_new(&r, "b");
    HBitmap *backup;

    g_assert_true(bdrv_dirty_bitmap_enabled(bitmap));
    g_assert_cmpint(bdrv_dirty_bitmap_granularity(bitmap), ==, GRANULARITY);
    g_assert_cmpint(bdrv_dirty_bitmap_size(bitmap), ==, ROUND_UP(DISK_BYTES, 512));
    bdrv_disable_dirty_bitmap(bitmap);
    do_write(&r, WRITE, 0, 512);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 0);
    bdrv_enable_dirty_bitmap(bitmap);
    do_write(&r, WRITE, 8192, 512);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, GRANULARITY);
    bdrv_clear_dirty_bitmap(bitmap, &backup);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 0);
    bdrv_restore_dirty_bitmap(bitmap, backup);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, GRANULARITY);
    bdrv_clear_dirty_bitmap(bitmap, NULL);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 0);
    rig_free(&r);               /* a named bitmap goes with its node */
}

static void test_names(void)
{
    Rig r = rig_new();
    g_autoptr(Error) err = NULL;
    g_autofree char *long_name = g_strnfill(BDRV_BITMAP_MAX_NAME_SIZE + 1, 'x');
    BdrvDirtyBitmap *a = bitmap_new(&r, "a"), *b = bitmap_new(&r, "b");

    g_assert_true(bdrv_find_dirty_bitmap(r.bs, "a") == a);
    g_assert_true(bdrv_find_dirty_bitmap(r.bs, "b") == b);
    g_assert_null(bdrv_find_dirty_bitmap(r.bs, "c"));
    g_assert_null(bdrv_create_dirty_bitmap(r.bs, GRANULARITY, "a", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Bitmap already exists: a");
    error_free_or_abort(&err);
    g_assert_null(bdrv_create_dirty_bitmap(r.bs, GRANULARITY, long_name, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Bitmap name too long");
    g_assert_cmpint(bdrv_get_default_bitmap_granularity(r.bs), ==, 65536);
    rig_free(&r);
}

static void test_grows_with_the_node(void)
{
    Rig r = rig_new();
    BdrvDirtyBitmap *bitmap = bitmap_new(&r, "b");

    do_write(&r, WRITE, DISK_BYTES - 512, 512);
    g_assert_cmpint(blk_truncate(r.blk, 2 << 20, true, PREALLOC_MODE_OFF, 0, &error_abort),
                    ==, 0);
    g_assert_cmpint(bdrv_dirty_bitmap_size(bitmap), ==, 2 << 20);
    do_write(&r, WRITE, (2 << 20) - 1, 1);
    g_assert_true(bdrv_dirty_bitmap_get(bitmap, (2 << 20) - 1));
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 2 * GRANULARITY);
    g_assert_cmpint(blk_truncate(r.blk, 8192, true, PREALLOC_MODE_OFF, 0, &error_abort), ==,
                    0);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, 0);
    rig_free(&r);
}

/* ---- searching -------------------------------------------------------------------------- */

static void test_iterator_and_searches(void)
{
    Rig r = rig_new();
    BdrvDirtyBitmap *bitmap = bitmap_new(&r, NULL);
    int64_t start, count;

    bdrv_set_dirty_bitmap(bitmap, GRANULARITY, 1);
    bdrv_set_dirty_bitmap(bitmap, 5 * GRANULARITY, 3 * GRANULARITY);
    BdrvDirtyBitmapIter *iter = bdrv_dirty_iter_new(bitmap);
    g_assert_cmpint(bdrv_dirty_iter_next(iter), ==, GRANULARITY);
    bdrv_reset_dirty_bitmap(bitmap, 6 * GRANULARITY, GRANULARITY);
    g_assert_cmpint(bdrv_dirty_iter_next(iter), ==, 5 * GRANULARITY);
    g_assert_cmpint(bdrv_dirty_iter_next(iter), ==, 7 * GRANULARITY);
    g_assert_cmpint(bdrv_dirty_iter_next(iter), ==, -1);
    bdrv_set_dirty_iter(iter, 2 * GRANULARITY);
    g_assert_cmpint(bdrv_dirty_iter_next(iter), ==, 5 * GRANULARITY);
    bdrv_dirty_iter_free(iter);
    g_assert_cmpint(bdrv_dirty_bitmap_next_dirty(bitmap, 0, DISK_BYTES), ==, GRANULARITY);
    g_assert_cmpint(bdrv_dirty_bitmap_next_zero(bitmap, GRANULARITY, DISK_BYTES), ==,
                    2 * GRANULARITY);
    g_assert_true(bdrv_dirty_bitmap_next_dirty_area(bitmap, 2 * GRANULARITY, DISK_BYTES,
                                                    INT64_MAX, &start, &count));
    g_assert_cmpint(start, ==, 5 * GRANULARITY);
    g_assert_cmpint(count, ==, GRANULARITY);
    bdrv_release_dirty_bitmap(bitmap);
    rig_free(&r);
}

/* ---- successors and merging ------------------------------------------------------------- */

static void test_successors(gconstpointer opaque)
{
    bool abdicate = opaque;
    Rig r = rig_new();
    BdrvDirtyBitmap *bitmap = bitmap_new(&r, "b"), *now;
    g_autoptr(Error) err = NULL;

    do_write(&r, WRITE, 0, 512);
    g_assert_cmpint(bdrv_dirty_bitmap_create_successor(bitmap, &error_abort), ==, 0);
    g_assert_true(bdrv_dirty_bitmap_busy(bitmap));
    g_assert_true(bdrv_dirty_bitmap_recording(bitmap));
    g_assert_cmpint(bdrv_dirty_bitmap_create_successor(bitmap, &err), ==, -EBUSY);
    do_write(&r, WRITE, 8192, 512);
    g_assert_cmpint(bdrv_get_dirty_count(bitmap), ==, GRANULARITY);     /* as it was */
    now = abdicate ? bdrv_dirty_bitmap_abdicate(bitmap, &error_abort)
                   : bdrv_reclaim_dirty_bitmap(bitmap, &error_abort);
    g_assert_true(bdrv_find_dirty_bitmap(r.bs, "b") == now);
    g_assert_false(bdrv_dirty_bitmap_busy(now));
    g_assert_true(bdrv_dirty_bitmap_enabled(now));
    g_assert_true(bdrv_dirty_bitmap_get(now, 8192));
    g_assert_cmpint(bdrv_dirty_bitmap_get(now, 0), ==, !abdicate);
    do_write(&r, WRITE, 16384, 512);
    g_assert_true(bdrv_dirty_bitmap_get(now, 16384));
    rig_free(&r);
}

static void test_merge(void)
{
    Rig r = rig_new();
    BdrvDirtyBitmap *a = bitmap_new(&r, "a");
    BdrvDirtyBitmap *b = bdrv_create_dirty_bitmap(r.bs, 512, "b", &error_abort);
    g_autoptr(Error) err = NULL;
    HBitmap *backup;

    bdrv_set_dirty_bitmap(a, 0, 1);
    bdrv_set_dirty_bitmap(b, 8192, 1);
    g_assert_true(bdrv_merge_dirty_bitmap(a, b, &backup, &error_abort));
    g_assert_cmpint(bdrv_get_dirty_count(a), ==, 2 * GRANULARITY);
    bdrv_restore_dirty_bitmap(a, backup);
    g_assert_cmpint(bdrv_get_dirty_count(a), ==, GRANULARITY);
    bdrv_dirty_bitmap_set_busy(b, true);
    g_assert_false(bdrv_merge_dirty_bitmap(a, b, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Bitmap 'b' is currently in use by another "
                    "operation and cannot be used");
    bdrv_dirty_bitmap_set_busy(b, false);
    rig_free(&r);
}

/* ---- write threshold -------------------------------------------------------------------- */

static GString *told;

static void listener(const char *node_name, uint64_t amount, uint64_t threshold)
{
    g_assert_true(qemu_in_main_thread());
    g_string_append_printf(told, "%s+%d/%d ", node_name, (int)amount, (int)threshold);
}

static void expect_told(const char *expected)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* until it has been delivered */
    }
    g_assert_cmpstr(told->str, ==, expected);
    g_string_truncate(told, 0);
}

static void test_write_threshold(void)
{
    Rig r = rig_new();

    told = g_string_new(NULL);
    bdrv_write_threshold_set_listener(listener);
    g_assert_cmpint(bdrv_write_threshold_get(r.bs), ==, 0);
    do_write(&r, WRITE, 4096, 4096);
    bdrv_write_threshold_set(r.bs, 65536);
    g_assert_cmpint(bdrv_write_threshold_get(r.bs), ==, 65536);
    do_write(&r, WRITE, 65536 - 512, 512);      /* up to it */
    expect_told("");
    do_write(&r, WRITE, 65536 - 512, 1024);
    expect_told("disk+512/65536 ");
    g_assert_cmpint(bdrv_write_threshold_get(r.bs), ==, 0);
    do_write(&r, WRITE, 70000, 1024);           /* once is enough */
    expect_told("");
    bdrv_write_threshold_set(r.bs, 512);
    do_write(&r, ZEROES, 0, 4096);
    expect_told("disk+3584/512 ");
    bdrv_write_threshold_set(r.bs, 1);
    bdrv_write_threshold_check_write(r.bs, 0, 1);
    g_assert_cmpint(bdrv_write_threshold_get(r.bs), ==, 1);
    bdrv_write_threshold_check_write(r.bs, INT64_MAX - 1, 1);
    g_assert_cmpint(bdrv_write_threshold_get(r.bs), ==, 0);
    rig_free(&r);               /* the news outlives the node */
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* until it has been delivered */
    }
    g_assert_true(g_str_has_prefix(told->str, "disk+"));
    bdrv_write_threshold_set_listener(NULL);
    g_string_free(told, true);
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/dirty-bitmap/model", test_model);
    g_test_add_func("/dirty-bitmap/disabled-and-cleared", test_disabled_and_cleared);
    g_test_add_func("/dirty-bitmap/names", test_names);
    g_test_add_func("/dirty-bitmap/grows", test_grows_with_the_node);
    g_test_add_func("/dirty-bitmap/searches", test_iterator_and_searches);
    g_test_add_data_func("/dirty-bitmap/successor/abdicate", "yes", test_successors);
    g_test_add_data_func("/dirty-bitmap/successor/reclaim", NULL, test_successors);
    g_test_add_func("/dirty-bitmap/merge", test_merge);
    g_test_add_func("/write-threshold", test_write_threshold);
    return g_test_run();
}
