/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hierarchical bitmaps, with sizes that are powers of the word's width. */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/hbitmap.h"

#define L1 BITS_PER_LONG
#define L2 (BITS_PER_LONG * L1)
#define L3 (BITS_PER_LONG * L2)

static uint64_t count_by_iterating(const HBitmap *hb, uint64_t first)
{
    HBitmapIter it;
    int64_t item;
    uint64_t count = 0;
    hbitmap_iter_init(&it, hb, first);
    while ((item = hbitmap_iter_next(&it)) >= 0) {
        g_assert_true(hbitmap_get(hb, item));
        count++;
    }
    return count;
}

static void test_set_and_reset(void)
{
    HBitmap *hb = hbitmap_alloc(L3, 0);
    hbitmap_set(hb, L2 - 1, 2);
    hbitmap_set(hb, L3 - 1, 1);
    g_assert_cmpuint(hbitmap_count(hb), ==, 3);
    hbitmap_set(hb, 0, L3);
    hbitmap_set(hb, 5, L2);
    g_assert_cmpuint(hbitmap_count(hb), ==, L3);
    g_assert_cmpuint(count_by_iterating(hb, L1), ==, L3 - L1);
    hbitmap_reset(hb, L1 - 1, L2);
    g_assert_cmpuint(hbitmap_count(hb), ==, L3 - L2);
    g_assert_true(hbitmap_get(hb, L1 - 2));
    g_assert_false(hbitmap_get(hb, L1 - 1));
    hbitmap_reset_all(hb);
    g_assert_cmpuint(hbitmap_count(hb), ==, 0);
    g_assert_cmpuint(count_by_iterating(hb, 0), ==, 0);
    hbitmap_free(hb);
}

static void test_granularity(void)
{
    HBitmap *hb = hbitmap_alloc(100, 3);        /* 12 granules and a half */
    g_assert_cmpint(hbitmap_granularity(hb), ==, 3);
    hbitmap_set(hb, 7, 2);
    g_assert_cmpuint(hbitmap_count(hb), ==, 16);
    g_assert_cmpint(hbitmap_next_dirty(hb, 3, 100), ==, 3);
    g_assert_cmpint(hbitmap_next_zero(hb, 3, INT64_MAX), ==, 16);
    hbitmap_set(hb, 99, 1);
    g_assert_cmpuint(hbitmap_count(hb), ==, 20);
    hbitmap_reset(hb, 96, 4);                   /* the end may be the size */
    g_assert_cmpuint(hbitmap_count(hb), ==, 16);
    g_assert_cmpuint(count_by_iterating(hb, 0), ==, 2);
    hbitmap_free(hb);
}

static void test_areas(void)
{
    HBitmap *hb = hbitmap_alloc(L3, 0);
    int64_t start = -1, count = -1;
    g_assert_false(hbitmap_next_dirty_area(hb, 0, INT64_MAX, INT64_MAX, &start, &count));
    hbitmap_set(hb, L1, L2);
    g_assert_true(hbitmap_next_dirty_area(hb, 0, L3, INT64_MAX, &start, &count));
    g_assert_true(start == (int64_t)L1 && count == (int64_t)L2);
    g_assert_true(hbitmap_next_dirty_area(hb, L1 + 5, L3, 10, &start, &count));
    g_assert_true(start == (int64_t)L1 + 5 && count == 10);
    g_assert_false(hbitmap_next_dirty_area(hb, L1 + L2, L3, 10, &start, &count));
    g_assert_false(hbitmap_next_dirty_area(hb, 0, L1, 10, &start, &count));
    g_assert_cmpint(hbitmap_next_dirty(hb, 0, L1), ==, -1);
    g_assert_cmpint(hbitmap_next_zero(hb, L1, L2), ==, -1);
    hbitmap_free(hb);
}

static void test_truncate(void)
{
    HBitmap *hb = hbitmap_alloc(L3, 0);
    hbitmap_set(hb, 0, L3);
    hbitmap_truncate(hb, L2 + 1);
    g_assert_cmpuint(hbitmap_count(hb), ==, L2 + 1);
    hbitmap_truncate(hb, 2 * L3);
    g_assert_cmpuint(hbitmap_count(hb), ==, L2 + 1);
    g_assert_cmpint(hbitmap_next_dirty(hb, L2 + 1, 2 * L3), ==, -1);
    hbitmap_set(hb, 2 * L3 - 1, 1);
    g_assert_cmpint(hbitmap_next_dirty(hb, L2 + 1, 2 * L3), ==, 2 * L3 - 1);
    hbitmap_free(hb);
}

static void test_serialisation(void)
{
    HBitmap *from = hbitmap_alloc(L3 + 10, 1), *to = hbitmap_alloc(L3 + 10, 1);
    g_assert_true(hbitmap_is_serializable(from));
    uint64_t align = hbitmap_serialization_align(from);
    g_assert_cmpuint(align, ==, 128);
    hbitmap_set(from, 0, 2);
    hbitmap_set(from, L2, 100);
    hbitmap_set(from, L3 + 9, 1);
    for (uint64_t at = 0; at < L3 + 10; ) {
        uint64_t count = MIN(10 * align, L3 + 10 - at);
        uint64_t size = hbitmap_serialization_size(from, at, count);
        g_autofree uint8_t *buf = g_malloc(size);
        hbitmap_serialize_part(from, buf, at, count);
        if (at == 0) {
            g_assert_cmpint(buf[0], ==, 1);
        }
        at += count;
        hbitmap_deserialize_part(to, buf, at - count, count, at == L3 + 10);
    }
    g_assert_cmpuint(hbitmap_count(to), ==, 2 + 100 + 2);
    for (uint64_t i = 0; i < L3 + 10; i++) {
        g_assert_cmpint(hbitmap_get(to, i), ==, hbitmap_get(from, i));
    }
    hbitmap_deserialize_zeroes(to, 0, align, true);
    g_assert_false(hbitmap_get(to, 0));
    g_assert_cmpuint(hbitmap_count(to), ==, 102);

    HBitmap *sum = hbitmap_alloc(L3 + 10, 0);
    hbitmap_merge(from, to, sum);
    g_assert_cmpuint(hbitmap_count(sum), ==, 104);
    hbitmap_free(sum);
    hbitmap_free(from);
    hbitmap_free(to);
    HBitmap *coarse = hbitmap_alloc(1, 60);
    g_assert_false(hbitmap_is_serializable(coarse));
    hbitmap_free(coarse);
}

static void test_iterator_and_resets(void)
{
    HBitmap *hb = hbitmap_alloc(L2, 0);
    HBitmapIter it;
    hbitmap_set(hb, 0, 4);
    hbitmap_set(hb, L1 + 3, 1);
    hbitmap_iter_init(&it, hb, 1);
    g_assert_cmpint(hbitmap_iter_next(&it), ==, 1);
    hbitmap_reset(hb, 0, L1);
    g_assert_cmpint(hbitmap_iter_next(&it), ==, L1 + 3);
    hbitmap_reset_all(hb);
    g_assert_cmpint(hbitmap_iter_next(&it), ==, -1);
    hbitmap_free(hb);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/foreign/hbitmap/set", test_set_and_reset);
    g_test_add_func("/foreign/hbitmap/granularity", test_granularity);
    g_test_add_func("/foreign/hbitmap/areas", test_areas);
    g_test_add_func("/foreign/hbitmap/truncate", test_truncate);
    g_test_add_func("/foreign/hbitmap/serialise", test_serialisation);
    g_test_add_func("/foreign/hbitmap/iterator", test_iterator_and_resets);
    return g_test_run();
}
