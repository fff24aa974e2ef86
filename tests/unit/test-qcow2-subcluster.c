/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: extended L2 entries, by what the entries are after each kind of request. */
#include "qcow2-test.h"

enum { CLUSTER = 16 * 1024, SUB = 512 };

/* An extended entry; the host offset does not matter, whether there is one does. */
typedef struct Bits {
    bool host, compressed;
    uint32_t alloc, zero;
} Bits;

static uint64_t load(const char *image, uint64_t offset)
{
    uint64_t be;
    memcpy(&be, image + offset, sizeof(be));
    return GUINT64_FROM_BE(be);
}

/* The entry of cluster I; there is one L2 table at most. */
static Bits bits_of(const char *path, uint32_t i)
{
    g_autofree char *image = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(path, &image, &len, NULL));
    uint64_t l2 = load(image, load(image, 40)) & 0x00fffffffffffe00;
    if (!l2) {
        return (Bits){ 0 };
    }
    uint64_t desc = load(image, l2 + 16 * i), bits = load(image, l2 + 16 * i + 8);
    bool compressed = desc & 1ULL << 62;
    return (Bits){ !compressed && (desc & 0x00fffffffffffe00), compressed, bits, bits >> 32 };
}

typedef struct Step { OpType type; int64_t offset, bytes; } Step;

static void apply(BlockBackend *blk, const Step *step)
{
    Op op = { .blk = blk, .type = step->type, .offset = step->offset, .bytes = step->bytes,
              .buf = g_malloc(step->bytes + 1) };

    memset(op.buf, 0x5a, step->bytes);
    run_ops(&op, 1);
    g_assert_cmpint(op.ret, ==, 0);
    g_free(op.buf);
}

#define ALL UINT32_MAX

/* All requests go to cluster 0. */
static const struct {
    const char *name;
    Step steps[3];
    Bits bits;
} rows[] = {
    { "nothing", { { OP_FLUSH } }, { 0 } },
    { "one subcluster", { { OP_WRITE, 3 * SUB, SUB } }, { true, false, 1 << 3, 0 } },
    { "part of one", { { OP_WRITE, 3 * SUB + 100, 9 } }, { true, false, 1 << 3, 0 } },
    { "across a border", { { OP_WRITE, 3 * SUB + 100, SUB } }, { true, false, 3 << 3, 0 } },
    { "two writes", { { OP_WRITE, 0, SUB }, { OP_WRITE, 31 * SUB, SUB } },
      { true, false, 1 | 1u << 31, 0 } },
    { "all", { { OP_WRITE, 0, CLUSTER } }, { true, false, ALL, 0 } },
    { "zeroes in nothing", { { OP_ZERO, SUB, 2 * SUB } }, { false, false, 0, 6 } },
    { "all zeroes in nothing", { { OP_ZERO, 0, CLUSTER } }, { false, false, 0, ALL } },
    { "zeroes in data", { { OP_WRITE, 0, CLUSTER }, { OP_ZERO, SUB, 2 * SUB } },
      { true, false, ALL & ~6u, 6 } },
    { "all zeroes in data", { { OP_WRITE, 0, CLUSTER }, { OP_ZERO, 0, CLUSTER } },
      { true, false, 0, ALL } },
    { "unmap a part", { { OP_WRITE, 0, CLUSTER }, { OP_UNMAP, SUB, 2 * SUB } },
      { true, false, ALL & ~6u, 6 } },
    { "unmap all", { { OP_WRITE, 0, CLUSTER }, { OP_UNMAP, 0, CLUSTER } },
      { false, false, 0, ALL } },
    { "data in zeroes", { { OP_ZERO, 0, CLUSTER }, { OP_WRITE, SUB, SUB } },
      { true, false, 2, ALL & ~2u } },
    { "data in kept zeroes", { { OP_WRITE, 0, CLUSTER }, { OP_ZERO, 0, CLUSTER },
                               { OP_WRITE, SUB, SUB } }, { true, false, 2, ALL & ~2u } },
    { "discard all", { { OP_WRITE, 0, CLUSTER }, { OP_DISCARD, 0, CLUSTER } },
      { false, false, 0, ALL } },
    { "discard a part", { { OP_WRITE, 0, CLUSTER }, { OP_DISCARD, 0, CLUSTER / 2 } },
      { true, false, ALL, 0 } },
    { "compressed", { { OP_COMPRESSED, 0, CLUSTER } }, { false, true, 0, 0 } },
    { "data in compressed", { { OP_COMPRESSED, 0, CLUSTER }, { OP_WRITE, SUB, SUB } },
      { true, false, ALL, 0 } },
    { "zeroes in compressed", { { OP_COMPRESSED, 0, CLUSTER }, { OP_ZERO, SUB, SUB } },
      { true, false, ALL, 0 } },
};

static void test_entries(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        g_autofree char *path = scratch_path("sub.qcow2");
        qcow2_create(path, "size=1M,extended_l2=on,cluster_size=16k");
        BlockBackend *blk = qcow2_open_file(path, "");
        for (unsigned k = 0; k < ARRAY_SIZE(rows[i].steps); k++) {
            if (rows[i].steps[k].bytes) {
                apply(blk, &rows[i].steps[k]);
            }
        }
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        Bits b = bits_of(path, 0);
        g_test_message("%s: host %d, compressed %d, alloc %08x, zero %08x", rows[i].name,
                       b.host, b.compressed, b.alloc, b.zero);
        g_assert_cmpint(b.host, ==, rows[i].bits.host);
        g_assert_cmpint(b.compressed, ==, rows[i].bits.compressed);
        g_assert_cmphex(b.alloc, ==, rows[i].bits.alloc);
        g_assert_cmphex(b.zero, ==, rows[i].bits.zero);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* The status tells subclusters apart, and what shows the backing file has a place anyway. */
static void test_status(void)
{
    static const struct { int64_t offset, bytes; int ret; } expected[] = {
        { 0, SUB, BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ZERO },
        { SUB, SUB, BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED },
        { 2 * SUB, 2 * SUB, BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED },
        { 4 * SUB, 28 * SUB, BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_ZERO },
        { CLUSTER, CLUSTER, BDRV_BLOCK_ZERO },
    };
    g_autofree char *path = scratch_path("status.qcow2");

    qcow2_create(path, "size=32k,extended_l2=on,cluster_size=16k");
    BlockBackend *blk = qcow2_open_file(path, "");
    apply(blk, &(Step){ OP_WRITE, SUB, SUB });
    apply(blk, &(Step){ OP_ZERO, 2 * SUB, 2 * SUB });
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        int64_t n, map;
        BlockDriverState *file;
        int ret = bdrv_block_status(blk_bs(blk), expected[i].offset, 1 << 20, &n, &map, &file);
        g_assert_cmphex(ret & ~BDRV_BLOCK_EOF, ==, expected[i].ret);
        g_assert_cmpint(n, ==, expected[i].bytes);
    }
    blk_unref(blk);
}

/* Bitmaps that contradict themselves are reported, read as errors and found by the check. */
static void test_hostile_bitmaps(void)
{
    static const struct { int cluster; uint64_t bits; } cases[] = {
        { 0, 1ULL << 32 | 1 },          /* data and zero */
        { 1, 1 },                       /* data without a host cluster */
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = scratch_path("hostile.qcow2"), *image = NULL;
        BdrvCheckResult res;
        gsize len;
        qcow2_create(path, "size=1M,extended_l2=on,cluster_size=16k");
        BlockBackend *blk = qcow2_open_file(path, "");
        write_pattern(blk, 0, SUB, 1);
        blk_unref(blk);
        g_assert_true(g_file_get_contents(path, &image, &len, NULL));
        uint64_t l2 = load(image, load(image, 40)) & 0x00fffffffffffe00;
        uint64_t be = GUINT64_TO_BE(cases[i].bits);
        memcpy(image + l2 + 16 * cases[i].cluster + 8, &be, 8);
        g_assert_true(g_file_set_contents(path, image, len, NULL));
        blk = qcow2_open_file(path, "");
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
        g_assert_cmpint(res.corruptions, ==, 1);
        g_autofree uint8_t *buf = g_malloc(SUB);
        int64_t at = cases[i].cluster * CLUSTER;
        g_assert_cmpint(blk_pread(blk, at, SUB, buf, 0), ==, -EIO);
        g_assert_cmpint(blk_pwrite(blk, at, SUB, buf, 0), ==, -EIO);
        blk_unref(blk);
    }
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/subcluster/entries", test_entries);
    g_test_add_func("/qcow2/subcluster/status", test_status);
    g_test_add_func("/qcow2/subcluster/hostile-bitmaps", test_hostile_bitmaps);
    return image_test_run();
}
