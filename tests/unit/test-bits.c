/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bits, bit strings, byte order and powers of two, beside the obvious way to compute each. */
#include "miniblk/osdep.h"
#include "miniblk/bitmap.h"
#include "miniblk/bswap.h"
#include "miniblk/host-utils.h"

enum { BITS = 5 * 64 + 9 };

static uint64_t random64(void)
{
    uint64_t v = ((uint64_t)g_test_rand_int() << 32) | (uint32_t)g_test_rand_int();
    return v >> (g_test_rand_int() & 63);       /* of every magnitude */
}

static long random_below(long limit)
{
    return (uint32_t)g_test_rand_int() % limit;
}

static void test_find_matches_a_scan(void)
{
    for (int round = 0; round < 2000; round++) {
        DECLARE_BITMAP(map, BITS);
        bitmap_zero(map, BITS);
        bool full = g_test_rand_bit();
        if (full) {
            bitmap_fill(map, BITS);
        }
        for (int i = random_below(6); i-- > 0; ) {
            change_bit(random_below(BITS), map);
        }
        unsigned long size = random_below(BITS) + 1, from = random_below(size + 1);
        unsigned long one = size, zero = size, last = size, ones = 0;
        for (unsigned long i = 0; i < size; i++) {
            bool bit = map[i / 64] >> (i % 64) & 1;
            g_assert_cmpint(test_bit(i, map), ==, bit);
            one = bit && i >= from && one == size ? i : one;
            zero = !bit && i >= from && zero == size ? i : zero;
            last = bit ? i : last;
            ones += bit;
        }
        g_assert_cmpuint(find_next_bit(map, size, from), ==, one);
        g_assert_cmpuint(find_next_zero_bit(map, size, from), ==, zero);
        g_assert_cmpuint(find_last_bit(map, size), ==, last);
        g_assert_cmpint(bitmap_count_one(map, size), ==, ones);
        g_assert_cmpint(bitmap_empty(map, size), ==, ones == 0);
        g_assert_cmpint(bitmap_full(map, size), ==, ones == size);
        g_assert_cmpuint(find_first_bit(map, size), ==, find_next_bit(map, size, 0));
    }
}

static void test_ranges_touch_nothing_else(void)
{
    for (int round = 0; round < 2000; round++) {
        g_autofree unsigned long *map = bitmap_new(BITS);
        bool set = g_test_rand_bit();
        long start = random_below(BITS), nr = random_below(BITS - start + 1);
        if (set) {
            bitmap_set(map, start, nr);
        } else {
            bitmap_fill(map, BITS);
            bitmap_clear(map, start, nr);
        }
        for (long i = 0; i < BITS; i++) {
            g_assert_cmpint(test_bit(i, map), ==, (i >= start && i < start + nr) == set);
        }
    }
}

static void test_operations_on_whole_bitmaps(void)
{
    for (int round = 0; round < 500; round++) {
        DECLARE_BITMAP(a, BITS);
        DECLARE_BITMAP(b, BITS);
        DECLARE_BITMAP(r, BITS);
        for (unsigned i = 0; i < G_N_ELEMENTS(a); i++) {
            a[i] = random64();
            b[i] = random64() & random64();
        }
        bool common = false, left = false;
#define EACH(call, expr) do {                                                   \
        call;                                                                   \
        for (long i = 0; i < BITS; i++) {                                       \
            bool x = test_bit(i, a), y = test_bit(i, b);                        \
            g_assert_cmpint(test_bit(i, r), ==, (expr));                        \
            common |= x && y;                                                   \
            left |= x && !y;                                                    \
        } } while (0)
        EACH(bitmap_or(r, a, b, BITS), x || y);
        EACH(bitmap_xor(r, a, b, BITS), x != y);
        EACH(g_assert_cmpint(bitmap_and(r, a, b, BITS), ==, common), x && y);
        EACH(g_assert_cmpint(bitmap_andnot(r, a, b, BITS), ==, left), x && !y);
        EACH(bitmap_complement(r, a, BITS), (y || !y) && !x);
        EACH(bitmap_copy(r, a, BITS), (y || !y) && x);
#undef EACH
        g_assert_cmpint(bitmap_intersects(a, b, BITS), ==, common);
        g_assert_true(bitmap_equal(a, r, BITS));
        r[G_N_ELEMENTS(r) - 1] ^= 1UL << 63;            /* beyond the last bit */
        g_assert_true(bitmap_equal(a, r, BITS));
        change_bit(random_below(BITS), r);
        g_assert_false(bitmap_equal(a, r, BITS));
    }
    unsigned long *map = bitmap_new(70);
    bitmap_fill(map, 70);
    map = bitmap_zero_extend(map, 70, BITS);
    g_assert_cmpint(bitmap_count_one(map, BITS), ==, 70);
    g_free(map);
}

static void test_single_bits(void)
{
    DECLARE_BITMAP(map, BITS);
    bitmap_zero(map, BITS);
    g_assert_false(test_and_set_bit(200, map));
    g_assert_true(test_and_set_bit(200, map));
    g_assert_true(test_and_clear_bit(200, map));
    g_assert_false(test_and_clear_bit(200, map));
    g_assert_false(test_and_change_bit(200, map));
    clear_bit(200, map);
    set_bit_atomic(64, map);
    g_assert_cmpuint(map[1], ==, 1);
    clear_bit_atomic(64, map);
    set_bit(65, map);
    g_assert_cmpuint(map[1], ==, 2);
    g_assert_cmpuint(BIT_ULL(40), ==, 1ULL << 40);
    g_assert_cmpuint(BITS_TO_LONGS(0), ==, 0);
    g_assert_cmpuint(BITS_TO_LONGS(1), ==, 1);
    g_assert_cmpuint(BITS_TO_LONGS(129), ==, 3);
}

static void test_fields(void)
{
    for (int round = 0; round < 5000; round++) {
        uint64_t value = random64(), field = random64();
        int start = random_below(64), length = 1 + random_below(64 - start);
        uint64_t mask = length == 64 ? ~0ULL : (1ULL << length) - 1;
        uint64_t x = value >> start & mask;
        g_assert_cmpuint(extract64(value, start, length), ==, x);
        int64_t s = x >> (length - 1) & 1 ? (int64_t)(x | ~mask) : (int64_t)x;
        g_assert_cmpint(sextract64(value, start, length), ==, s);
        g_assert_cmpuint(deposit64(value, start, length, field), ==,
                         (value & ~(mask << start)) | (field & mask) << start);
        if (start + length <= 32) {
            g_assert_cmpuint(extract32(value, start, length), ==, x);
            g_assert_cmpint(sextract32(value, start, length), ==, s);
            g_assert_cmpuint(deposit32(value, start, length, field), ==,
                             (uint32_t)deposit64((uint32_t)value, start, length, field));
        }
        unsigned shift = random_below(64);
        g_assert_cmpuint(ror64(rol64(value, shift), shift), ==, value);
        g_assert_cmpuint(ror32(rol32(value, shift), shift), ==, (uint32_t)value);
    }
    g_assert_cmpuint(rol32(0x80000001, 1), ==, 3);
    g_assert_cmpuint(rol64(1ULL << 63, 1), ==, 1);
    g_assert_cmpuint(MAKE_64BIT_MASK(4, 8), ==, 0xff0);
    g_assert_cmpuint(MAKE_64BIT_MASK(0, 64), ==, ~0ULL);
}

static void test_counts_and_powers(void)
{
    for (int round = 0; round < 5000; round++) {
        uint64_t v = round ? random64() : 0;
        int lead = 0, trail = 0, ones = 0;
        for (int i = 63; i >= 0 && !(v >> i & 1); i--) {
            lead++;
        }
        for (int i = 0; i < 64 && !(v >> i & 1); i++) {
            trail++;
        }
        for (int i = 0; i < 64; i++) {
            ones += v >> i & 1;
        }
        g_assert_cmpint(clz64(v), ==, lead);
        g_assert_cmpint(ctz64(v), ==, trail);
        g_assert_cmpint(clo64(~v), ==, lead);
        g_assert_cmpint(cto64(~v), ==, trail);
        g_assert_cmpint(ctpop64(v), ==, ones);
        g_assert_cmpint(is_power_of_2(v), ==, ones == 1);
        g_assert_cmpuint(pow2floor(v), ==, v ? 1ULL << (63 - lead) : 0);
        if (v <= 1ULL << 63) {
            uint64_t p = 1;
            while (p < v) {
                p *= 2;
            }
            g_assert_cmpuint(pow2ceil(v), ==, p);
        } else {
            g_assert_cmpuint(pow2ceil(v), ==, 0);
        }
    }
    g_assert_cmpint(clz32(0), ==, 32);
    g_assert_cmpint(ctz32(0), ==, 32);
    g_assert_cmpint(clz32(1), ==, 31);
    g_assert_cmpint(ctz32(1u << 31), ==, 31);
    g_assert_cmpuint(muldiv64(UINT64_MAX, 1000, 1000), ==, UINT64_MAX);
    g_assert_cmpuint(muldiv64_round_up(10, 1, 3), ==, 4);
}

static void test_byte_order(void)
{
    static const uint8_t bytes[] = { 0xff, 0x81, 0x02, 0x83, 0x04, 0x85, 0x06, 0x87, 0x08 };
    const uint8_t *p = bytes + 1;       /* not aligned */
    uint8_t out[9] = { 0 };
    uint32_t v = 0x12345678;

    g_assert_cmphex(lduw_le_p(p), ==, 0x0281);
    g_assert_cmphex(lduw_be_p(p), ==, 0x8102);
    g_assert_cmphex((uint32_t)ldl_le_p(p), ==, 0x04830281);
    g_assert_cmphex((uint32_t)ldl_be_p(p), ==, 0x81028304);
    g_assert_cmphex(ldq_le_p(p), ==, 0x0887068504830281ULL);
    g_assert_cmphex(ldq_be_p(p), ==, 0x8102830485068708ULL);
    stq_be_p(out + 1, 0x8102830485068708ULL);
    g_assert_cmpmem(out + 1, 8, p, 8);
    stl_le_p(out + 1, 0x04830281);
    stw_be_p(out + 5, 0x8506);
    stb_p(out + 7, 0x87);
    g_assert_cmpmem(out + 1, 8, p, 8);
    g_assert_cmphex(bswap16(0x1234), ==, 0x3412);
    g_assert_cmphex(bswap64(0x0102030405060708ULL), ==, 0x0807060504030201ULL);
    g_assert_cmphex(be32_to_cpu(cpu_to_be32(v)), ==, v);
    g_assert_cmphex(le64_to_cpu(cpu_to_le64(v)), ==, v);
    cpu_to_be32s(&v);
    g_assert_cmpint(*(uint8_t *)&v, ==, 0x12);
    be32_to_cpus(&v);
    cpu_to_le32s(&v);
    g_assert_cmpint(*(uint8_t *)&v, ==, 0x78);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/bits/find", test_find_matches_a_scan);
    g_test_add_func("/bits/ranges", test_ranges_touch_nothing_else);
    g_test_add_func("/bits/whole", test_operations_on_whole_bitmaps);
    g_test_add_func("/bits/single", test_single_bits);
    g_test_add_func("/bits/fields", test_fields);
    g_test_add_func("/bits/counts", test_counts_and_powers);
    g_test_add_func("/bits/byte-order", test_byte_order);
    return g_test_run();
}
