/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HBitmap beside a model: one bool per item. Sizes are chosen around the words and levels of
 * the hierarchy, and such that the last granule is incomplete.
 */
#include "miniblk/osdep.h"
#include "miniblk/hbitmap.h"
#include "trap.h"

typedef struct Model {
    HBitmap *hb;
    uint64_t size;
    int granularity;
    bool *dirty;                /* one per item */
} Model;

static const uint64_t sizes[] = {
    1, 2, 63, 64, 65, 100, 127, 128, 4095, 4096, 4097, 4160, 10000, 262143, 262144, 262145,
    300000,
};
static const int granularities[] = { 0, 1, 3, 7 };

static uint64_t random_below(uint64_t limit)
{
    return (((uint64_t)g_test_rand_int() << 32) | (uint32_t)g_test_rand_int()) % limit;
}

static Model *model_new(uint64_t size, int granularity)
{
    Model *m = g_new0(Model, 1);
    m->size = size;
    m->granularity = granularity;
    m->hb = hbitmap_alloc(size, granularity);
    m->dirty = g_new0(bool, size + 1);
    return m;
}

static void model_free(Model *m)
{
    hbitmap_free(m->hb);
    g_free(m->dirty);
    g_free(m);
}

static uint64_t granule(const Model *m)
{
    return 1ULL << m->granularity;
}

/* Mark items as a set or reset of [START, START + COUNT) does: whole granules. */
static void model_mark(Model *m, uint64_t start, uint64_t count, bool dirty)
{
    if (count) {
        uint64_t end = MIN(QEMU_ALIGN_UP(start + count, granule(m)), m->size);
        for (uint64_t i = QEMU_ALIGN_DOWN(start, granule(m)); i < end; i++) {
            m->dirty[i] = dirty;
        }
    }
}

static void model_set(Model *m, uint64_t start, uint64_t count)
{
    hbitmap_set(m->hb, start, count);
    model_mark(m, start, count, true);
}

static void model_reset(Model *m, uint64_t start, uint64_t count)
{
    start = QEMU_ALIGN_DOWN(start, granule(m));
    count = MIN(QEMU_ALIGN_UP(count, granule(m)), m->size - start);
    hbitmap_reset(m->hb, start, count);
    model_mark(m, start, count, false);
}

/* ---- comparing ----------------------------------------------------------------------------- */

static int64_t model_next(const Model *m, int64_t start, int64_t count, bool dirty)
{
    for (int64_t i = start; i < (int64_t)m->size && i - start < count; i++) {
        if (m->dirty[i] == dirty) {
            return i;
        }
    }
    return -1;
}

static void check_searches(const Model *m, int64_t start, int64_t count, int64_t max)
{
    int64_t from, len, first = model_next(m, start, count, true);

    g_assert_cmpint(hbitmap_next_dirty(m->hb, start, count), ==, first);
    g_assert_cmpint(hbitmap_next_zero(m->hb, start, count), ==,
                    model_next(m, start, count, false));
    bool found = hbitmap_next_dirty_area(m->hb, start, start + count, max, &from, &len);
    g_assert_cmpint(found, ==, first >= 0);
    if (found) {
        int64_t end = MIN(start + count, (int64_t)m->size);
        int64_t clean = model_next(m, first, end - first, false);
        g_assert_cmpint(from, ==, first);
        g_assert_cmpint(len, ==, MIN((clean < 0 ? end : clean) - first, max));
    }
    if (start < (int64_t)m->size && count) {
        bool dirty = hbitmap_status(m->hb, start, count, &len);
        int64_t end = model_next(m, start, count, !dirty);
        g_assert_cmpint(dirty, ==, m->dirty[start]);
        g_assert_cmpint(len, ==, end < 0 ? MIN(count, (int64_t)m->size - start) : end - start);
    }
}

static void check_iteration(const Model *m, uint64_t first)
{
    HBitmapIter it;
    hbitmap_iter_init(&it, m->hb, first);
    for (uint64_t i = QEMU_ALIGN_DOWN(first, granule(m)); i < m->size; i += granule(m)) {
        if (m->dirty[i]) {
            g_assert_cmpint(hbitmap_iter_next(&it), ==, i);
        }
    }
    g_assert_cmpint(hbitmap_iter_next(&it), ==, -1);
    g_assert_cmpint(hbitmap_iter_next(&it), ==, -1);
}

static void check_all(const Model *m)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < m->size; i++) {
        g_assert_cmpint(hbitmap_get(m->hb, i), ==, m->dirty[i]);
        count += m->dirty[i];
    }
    g_assert_cmpuint(hbitmap_count(m->hb), ==, count);
    g_assert_cmpint(hbitmap_empty(m->hb), ==, !count);
    check_iteration(m, 0);
    check_iteration(m, random_below(m->size + 1));
    check_iteration(m, m->size);
    check_searches(m, 0, m->size, m->size + 1);
    for (int i = 0; i < 20; i++) {
        check_searches(m, random_below(m->size + 2), random_below(m->size + 2),
                       1 + random_below(m->size));
    }
}

static void model_free_checked(Model *m)
{
    check_all(m);
    model_free(m);
}

/* ---- tests --------------------------------------------------------------------------------- */

/* FN for every size and granularity. */
static void each(void (*fn)(Model *m))
{
    for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
        for (unsigned g = 0; g < G_N_ELEMENTS(granularities); g++) {
            Model *m = model_new(sizes[s], granularities[g]);
            fn(m);
            model_free_checked(m);
        }
    }
}

static void fresh(Model *m)
{
    check_all(m);
    g_assert_cmpint(hbitmap_granularity(m->hb), ==, m->granularity);
    hbitmap_set(m->hb, 0, 0);
    hbitmap_reset(m->hb, 0, 0);
}

static void test_fresh_is_clean(void)
{
    each(fresh);
    Model *m = model_new(0, 0);
    g_assert_cmpint(hbitmap_count(m->hb), ==, 0);
    g_assert_cmpint(hbitmap_next_dirty(m->hb, 0, 1), ==, -1);
    g_assert_cmpint(hbitmap_next_zero(m->hb, 0, 1), ==, -1);
    check_iteration(m, 0);
    model_free(m);
}

/* Short ranges at random, long ones across word and level borders, everything. */
static void random_range(const Model *m, uint64_t *start, uint64_t *count)
{
    static const uint64_t lengths[] = { 1, 2, 64, 130, 4096, 5000, 262144, UINT64_MAX };
    *start = random_below(m->size);
    if (g_test_rand_bit()) {
        *start = *start / 64 * 64;      /* borders are where the mistakes are */
    }
    *count = random_below(MIN(lengths[random_below(8)], m->size - *start) + 1);
}

static void random_changes(Model *m)
{
    int rounds = m->size < 5000 ? 60 : 12;
    for (int i = 0; i < rounds; i++) {
        for (int k = 0; k < 5; k++) {
            uint64_t start, count;
            random_range(m, &start, &count);
            if (g_test_rand_bit()) {
                model_set(m, start, count);
            } else {
                model_reset(m, start, count);
            }
        }
        check_all(m);
        if (i % 10 == 9) {
            hbitmap_reset_all(m->hb);
            memset(m->dirty, 0, m->size);
            check_all(m);
        }
    }
}

static void test_random_changes(void)
{
    each(random_changes);
}

static void resize(Model *m, uint64_t size)
{
    /* a granule that is cut keeps its bit, and is dirty as a whole when it grows again */
    uint64_t keep = MIN(QEMU_ALIGN_UP(MIN(size, m->size), granule(m)), size);
    bool *dirty = g_new0(bool, size + 1);
    for (uint64_t i = 0; i < keep; i++) {
        dirty[i] = m->dirty[QEMU_ALIGN_DOWN(i, granule(m))];
    }
    g_free(m->dirty);
    m->dirty = dirty;
    m->size = size;
    hbitmap_truncate(m->hb, size);
}

static void truncate_both_ways(Model *m)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        /* dense up to the end, so that what a shrink forgets would be seen after growing */
        model_set(m, m->size - MIN(m->size, 200), MIN(m->size, 200));
        resize(m, sizes[random_below(G_N_ELEMENTS(sizes))]);
        if (m->size < 5000 || i % 4 == 0) {
            check_all(m);
        }
        model_reset(m, random_below(m->size), 1);
        resize(m, sizes[random_below(9)]);
        check_all(m);
    }
}

static void test_truncate_both_ways(void)
{
    each(truncate_both_ways);
}

static void test_truncate_to_nothing_and_back(void)
{
    Model *m = model_new(300000, 0);
    model_set(m, 0, 300000);
    hbitmap_truncate(m->hb, 0);
    g_assert_cmpuint(hbitmap_count(m->hb), ==, 0);
    hbitmap_truncate(m->hb, 300000);
    memset(m->dirty, 0, m->size);
    model_free_checked(m);
}

static void merge(Model *a)
{
    Model *b = model_new(a->size, granularities[random_below(4)]);
    Model *c = model_new(a->size, granularities[random_below(4)]);
    for (int i = 0; i < 10; i++) {
        uint64_t start, count;
        random_range(a, &start, &count);
        model_set(a, start, MIN(count, 1000));
        random_range(b, &start, &count);
        model_set(b, start, MIN(count, 1000));
        random_range(c, &start, &count);
        model_set(c, start, count);
    }
    /* a new result forgets what it had */
    hbitmap_merge(a->hb, b->hb, c->hb);
    memset(c->dirty, 0, c->size);
    for (uint64_t i = 0; i < a->size; i++) {
        if (a->dirty[i] || b->dirty[i]) {
            model_mark(c, i, 1, true);
        }
    }
    check_all(c);
    /* a result that is a source keeps it */
    hbitmap_merge(a->hb, b->hb, g_test_rand_bit() ? a->hb : b->hb);
    hbitmap_merge(a->hb, b->hb, a->hb);
    for (uint64_t i = 0; i < a->size; i++) {
        a->dirty[i] = hbitmap_get(a->hb, i);
        g_assert_true(a->dirty[i] || !b->dirty[i]);
        b->dirty[i] = hbitmap_get(b->hb, i);
    }
    model_free_checked(b);
    model_free_checked(c);
}

static void test_merge_is_union(void)
{
    each(merge);
}

static void serialise_in_parts(Model *m)
{
    for (int i = 0; i < 20; i++) {
        uint64_t start, count;
        random_range(m, &start, &count);
        model_set(m, start, MIN(count, 3000));
    }
    uint64_t align = hbitmap_serialization_align(m->hb);
    g_assert_cmpuint(align, ==, 64ULL << m->granularity);

    Model *copy = model_new(m->size, m->granularity);
    hbitmap_set(copy->hb, 0, copy->size);       /* a load replaces what was there */
    for (uint64_t start = 0; start < m->size; ) {
        uint64_t count = MIN(align * (1 + random_below(4)), m->size - start);
        uint64_t bytes = hbitmap_serialization_size(m->hb, start, count);
        g_assert_cmpuint(bytes, ==, DIV_ROUND_UP(DIV_ROUND_UP(count, granule(m)), 64) * 8);
        g_autofree uint8_t *buf = g_malloc(bytes + 1);
        buf[bytes] = 0xa5;
        hbitmap_serialize_part(m->hb, buf, start, count);
        g_assert_cmpuint(buf[bytes], ==, 0xa5);
        /* little-endian bit by bit: bit N is bit N % 8 of byte N / 8 */
        for (uint64_t i = 0; i < count; i += granule(m)) {
            uint64_t bit = i >> m->granularity;
            g_assert_cmpint(buf[bit / 8] >> (bit % 8) & 1, ==, m->dirty[start + i]);
        }
        hbitmap_deserialize_part(copy->hb, buf, start, count, start + count == m->size);
        start += count;
    }
    memcpy(copy->dirty, m->dirty, m->size);
    check_all(copy);

    /* a hole and a full part */
    uint64_t part = MIN(align, m->size);
    hbitmap_deserialize_ones(copy->hb, 0, part, false);
    model_mark(copy, 0, part, true);
    uint64_t last = (m->size - 1) / align * align;
    hbitmap_deserialize_zeroes(copy->hb, last, m->size - last, false);
    model_mark(copy, last, m->size - last, false);
    hbitmap_deserialize_finish(copy->hb);
    model_free_checked(copy);
}

static void test_serialise_in_parts(void)
{
    each(serialise_in_parts);
}

static void test_bits_beyond_the_size_are_not_loaded(void)
{
    Model *m = model_new(70, 0);
    uint8_t buf[16];
    memset(buf, 0xff, sizeof(buf));
    hbitmap_deserialize_part(m->hb, buf, 0, 70, true);
    model_mark(m, 0, 70, true);
    check_all(m);
    hbitmap_truncate(m->hb, 128);       /* they must not come to light */
    g_assert_cmpuint(hbitmap_count(m->hb), ==, 70);
    hbitmap_truncate(m->hb, 70);
    model_free_checked(m);
}

/* Reset behind, at and ahead of the iterator between its steps. */
static void test_iterator_skips_what_was_reset(void)
{
    HBitmapIter it;
    Model *m = model_new(300000, 0);
    for (uint64_t i = 0; i < m->size; i += 7) {
        model_set(m, i, 1);
    }
    hbitmap_iter_init(&it, m->hb, 0);
    int64_t last = -1, at;
    while ((at = hbitmap_iter_next(&it)) >= 0) {
        g_assert_cmpint(at, >, last);
        g_assert_true(m->dirty[at]);
        for (int64_t i = last + 1; i < at; i++) {
            g_assert_false(m->dirty[i]);        /* none was left out */
        }
        last = at;
        model_reset(m, random_below(at + 1), 1);
        uint64_t ahead = MIN(at + random_below(3000), m->size - 1);
        model_reset(m, ahead, MIN(random_below(1000), m->size - ahead));
        model_reset(m, at, 1);
    }
    for (uint64_t i = last + 1; i < m->size; i++) {
        g_assert_false(m->dirty[i]);
    }
    model_free_checked(m);
}

/* Bits far apart: iterating must not visit all that lies between (it would take seconds). */
static void test_huge_and_sparse(void)
{
    static const int64_t items[] = { 0, 63, 64, 1 << 20, (1 << 29) + 5, (1 << 30) - 1 };
    HBitmap *hb = hbitmap_alloc(1 << 30, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
        hbitmap_set(hb, items[i], 1);
    }
    HBitmapIter it;
    hbitmap_iter_init(&it, hb, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
        g_assert_cmpint(hbitmap_iter_next(&it), ==, items[i]);
    }
    g_assert_cmpint(hbitmap_iter_next(&it), ==, -1);
    hbitmap_free(hb);
}

static void test_largest_granularity(void)
{
    HBitmap *hb = hbitmap_alloc(INT64_MAX, 63);
    hbitmap_set(hb, 5, 1);
    g_assert_cmpuint(hbitmap_count(hb), ==, INT64_MAX);
    g_assert_cmpint(hbitmap_next_dirty(hb, 7, INT64_MAX), ==, 7);
    g_assert_cmpint(hbitmap_next_zero(hb, 0, INT64_MAX), ==, -1);
    g_assert_false(hbitmap_is_serializable(hb));
    hbitmap_reset(hb, 0, INT64_MAX);
    g_assert_true(hbitmap_empty(hb));
    hbitmap_free(hb);

    hb = hbitmap_alloc(INT64_MAX, 57);
    g_assert_true(hbitmap_is_serializable(hb));
    g_assert_cmpuint(hbitmap_serialization_align(hb), ==, 1ULL << 63);
    g_assert_cmpuint(hbitmap_serialization_size(hb, 0, INT64_MAX), ==, 8);
    hbitmap_free(hb);
    hb = hbitmap_alloc(INT64_MAX, 58);
    g_assert_false(hbitmap_is_serializable(hb));
    hbitmap_free(hb);
}

/* ---- misuse -------------------------------------------------------------------------------- */

static void set_beyond(void) { hbitmap_set(hbitmap_alloc(100, 0), 99, 2); }
static void get_beyond(void) { hbitmap_get(hbitmap_alloc(100, 3), 100); }
static void reset_start(void) { hbitmap_reset(hbitmap_alloc(100, 3), 4, 4); }
static void reset_end(void) { hbitmap_reset(hbitmap_alloc(100, 3), 8, 4); }
static void too_many(void) { hbitmap_alloc((1ULL << 41) + 1, 0); }
static void too_large(void) { hbitmap_alloc(1ULL << 63, 63); }
static void coarse(void) { hbitmap_alloc(1, 64); }
static void part_start(void)
{
    uint8_t buf[16];
    hbitmap_serialize_part(hbitmap_alloc(128, 0), buf, 32, 96);
}
static void not_serialisable(void) { hbitmap_serialization_align(hbitmap_alloc(1, 58)); }

static void test_misuse(const void *fn)
{
    trap((void (*)(void))fn, "*assertion failed*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hbitmap/fresh", test_fresh_is_clean);
    g_test_add_func("/hbitmap/random", test_random_changes);
    g_test_add_func("/hbitmap/truncate/both-ways", test_truncate_both_ways);
    g_test_add_func("/hbitmap/truncate/nothing", test_truncate_to_nothing_and_back);
    g_test_add_func("/hbitmap/merge", test_merge_is_union);
    g_test_add_func("/hbitmap/serialise/parts", test_serialise_in_parts);
    g_test_add_func("/hbitmap/serialise/beyond", test_bits_beyond_the_size_are_not_loaded);
    g_test_add_func("/hbitmap/iterator/reset", test_iterator_skips_what_was_reset);
    g_test_add_func("/hbitmap/huge", test_huge_and_sparse);
    g_test_add_func("/hbitmap/granularity", test_largest_granularity);
#define MISUSE(fn) g_test_add_data_func("/hbitmap/misuse/" #fn, (void *)fn, test_misuse)
    MISUSE(set_beyond);
    MISUSE(get_beyond);
    MISUSE(reset_start);
    MISUSE(reset_end);
    MISUSE(too_many);
    MISUSE(too_large);
    MISUSE(coarse);
    MISUSE(part_start);
    MISUSE(not_serialisable);
    return g_test_run();
}
