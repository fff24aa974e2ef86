/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which zeroes of a buffer convert leaves out. */
#include "miniblk/osdep.h"
#include "tools/img-convert.h"

enum { K = 1024, BUFFER_BYTES = 64 * K };

typedef struct Picture {
    const char *name;
    const char *data;           /* a letter a KiB: '.' zeroes, anything else data */
    const char *runs;           /* the answer: the same, but '.' only where it is skipped */
    int64_t offset, sparse, align;
} Picture;

static const Picture pictures[] = {
    { "all data",       "xxxxxxxx",         "xxxxxxxx",         0, 4 * K, 1 },
    { "all zero",       "........",         "........",         0, 4 * K, 1 },
    { "hole between",   "xxxx....xxxx",     "xxxx....xxxx",     0, 4 * K, 1 },
    { "too short",      "xxxx....xxxx",     "xxxxxxxxxxxx",     0, 8 * K, 1 },
    { "not a page",     "xx....xxxxxx....", "xxxxxxxxxxxx....", 0, 4 * K, 1 },
    { "fine grained",   "xx..x.xx",         "xx..x.xx",         0, K, 1 },
    { "end is enough",  "xxxxxxxx....",     "xxxxxxxx....",     0, 8 * K, 1 },
    { "whole clusters", "xxxx............", "xxxxxxxx........", 0, 4 * K, 8 * K },
    { "inner cluster",  "xxxx................xxxx",
                        "xxxxxxxx........xxxxxxxx",             0, 4 * K, 8 * K },
    { "no cluster",     "xxxx........xxxx", "xxxxxxxxxxxxxxxx", 0, 4 * K, 8 * K },
    { "by position",    "xxxx............", "xxxx............", 4 * K, 4 * K, 8 * K },
    { "starts at once", "........xxxxxxxx", "........xxxxxxxx", 0, 4 * K, 8 * K },
    { "unaligned start", "....xxxxxxxx",    "....xxxxxxxx",     4 * K, 4 * K, 8 * K },
    { "two holes",      "....xxxx....xxxx", "....xxxx....xxxx", 0, 4 * K, 1 },
    { "short tail",     "xxxx..",           "xxxx..",           0, 4 * K, 1 },
    { "one zero byte short", "xxxxx",       "xxxxx",            0, 4 * K, 1 },
};

static void test_picture(gconstpointer opaque)
{
    const Picture *p = opaque;
    int64_t bytes = strlen(p->data) * K;
    g_autofree uint8_t *buf = g_malloc0(bytes);
    g_autofree char *answer = g_strdup(p->data);

    for (int64_t i = 0; i < bytes; i += K) {
        buf[i + K - 1] = p->data[i / K] == '.' ? 0 : 1;
    }
    for (int64_t pos = 0; pos < bytes;) {
        bool zero;
        int64_t len = convert_run_length(buf + pos, bytes - pos, p->offset + pos, p->sparse,
                                         p->align, &zero);
        g_assert_cmpint(len, >, 0);
        g_assert_cmpint(len, <=, bytes - pos);
        g_assert_cmpint(len % K, ==, 0);
        memset(answer + pos / K, zero ? '.' : 'x', len / K);
        pos += len;
    }
    g_assert_cmpstr(answer, ==, p->runs);
}

/*
 * Whatever the buffer: what is skipped is zero, starts and ends at clusters (or the
 * buffer's ends), and two answers in a row never say the same.
 */
static void test_random(void)
{
    static const int64_t sparses[] = { 512, K, 4 * K, 16 * K };
    static const int64_t aligns[] = { 1, 512, 4 * K, 32 * K };
    g_autofree uint8_t *buf = g_malloc(BUFFER_BYTES);
    int64_t skipped_bytes = 0;

    for (int round = 0; round < 3000; round++) {
        int64_t sparse = sparses[g_test_rand_int_range(0, G_N_ELEMENTS(sparses))];
        int64_t align = aligns[g_test_rand_int_range(0, G_N_ELEMENTS(aligns))];
        int64_t offset = (int64_t)g_test_rand_int_range(0, 1000) * 512;
        int64_t bytes = g_test_rand_int_range(1, BUFFER_BYTES / 512 + 1) * 512;
        bool was_zero = false;

        memset(buf, 0, BUFFER_BYTES);
        for (int n = g_test_rand_int_range(0, 8); n > 0; n--) {
            int64_t at = g_test_rand_int_range(0, BUFFER_BYTES);
            buf[at] = 0xff;
        }
        for (int64_t pos = 0, len; pos < bytes; pos += len) {
            bool zero;
            len = convert_run_length(buf + pos, bytes - pos, offset + pos, sparse, align,
                                     &zero);
            int64_t from = offset + pos, to = from + len;
            g_assert_true(len > 0 && pos + len <= bytes);
            g_assert_true(pos == 0 || zero != was_zero);
            was_zero = zero;
            if (zero) {
                g_assert_true(buffer_is_zero(buf + pos, len));
                g_assert_true(pos == 0 || from % align == 0);
                g_assert_true(pos + len == bytes || to % align == 0);
                skipped_bytes += len;
            }
        }
    }
    g_assert_cmpint(skipped_bytes, >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(pictures); i++) {
        g_autofree char *path = g_strconcat("/img/sparse/", pictures[i].name, NULL);
        g_test_add_data_func(path, &pictures[i], test_picture);
    }
    g_test_add_func("/img/sparse/random", test_random);
    return g_test_run();
}
