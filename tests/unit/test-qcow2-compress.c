/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: writing compressed clusters. */
#include "qcow2-test.h"

#ifdef CONFIG_ZSTD
static const char *const types[] = { "zlib", "zstd" };
#else
static const char *const types[] = { "zlib" };
#endif

enum { CLUSTER = 64 * 1024 };

static BlockBackend *new_image(const char *path, const char *opts)
{
    qcow2_create(path, opts);
    return qcow2_open_file(path, "");
}

static int write_compressed(BlockBackend *blk, int64_t offset, int64_t bytes, int pattern)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    memset(buf, pattern, bytes);
    return blk_pwrite_compressed(blk, offset, bytes, buf);
}

/* Data that no method makes shorter. */
static uint8_t *noise(size_t bytes)
{
    uint8_t *buf = g_malloc(bytes);
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = g_test_rand_int();
    }
    return buf;
}

static bool is_compressed(BlockBackend *blk, int64_t offset)
{
    int64_t n, map;
    BlockDriverState *file;
    int ret = bdrv_block_status(blk_bs(blk), offset, 512, &n, &map, &file);
    g_assert_cmpint(ret, >=, 0);
    return ret & BDRV_BLOCK_COMPRESSED;
}

/* Both types: what was written is read, by the peer too, and takes a fraction of the room. */
static void test_round_trip(void)
{
    for (unsigned t = 0; t < ARRAY_SIZE(types); t++) {
        g_autofree char *path = scratch_path("round.qcow2");
        g_autofree char *raw = scratch_path("round.raw");
        g_autofree char *opts = g_strdup_printf("size=4M,compression_type=%s", types[t]);
        g_autofree uint8_t *all = g_malloc(4 << 20);
        BlockBackend *blk = new_image(path, opts);

        for (int i = 0; i < 64; i++) {
            memset(all + i * CLUSTER, i + 1, CLUSTER);
        }
        /* one request of many clusters, then one by one */
        g_assert_cmpint(blk_pwrite_compressed(blk, 0, 2 << 20, all), ==, 0);
        for (int i = 32; i < 64; i++) {
            g_assert_cmpint(write_compressed(blk, i * CLUSTER, CLUSTER, i + 1), ==, 0);
        }
        for (int i = 0; i < 64; i++) {
            g_assert_true(is_compressed(blk, i * CLUSTER));
            assert_content(blk, i * CLUSTER, CLUSTER, i + 1);
        }
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        g_assert_cmpint(file_bytes(path), <, 8 * CLUSTER);
        g_assert_true(g_file_set_contents(raw, (char *)all, 4 << 20, NULL));
        qcow2_assert_peer_finds_no_fault(path);
        qcow2_assert_peer("compare -q -f qcow2 -F raw %s %s", path, raw);
    }
}

/* As many pieces as a refcount can count share a host cluster. */
static void test_packing(void)
{
    static const struct { int refcount_bits; uint64_t host_clusters; } rows[] = {
        /* header, refcount table and block, L1, L2, and 16 pieces in so many clusters */
        { 1, 5 + 16 }, { 2, 5 + 6 }, { 4, 5 + 2 }, { 8, 5 + 1 }, { 64, 5 + 1 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        g_autofree char *path = scratch_path("pack.qcow2");
        g_autofree char *opts = g_strdup_printf("size=1M,refcount_bits=%d",
                                                rows[i].refcount_bits);
        BlockBackend *blk = new_image(path, opts);
        BdrvCheckResult res;
        for (int k = 0; k < 16; k++) {
            g_assert_cmpint(write_compressed(blk, k * CLUSTER, CLUSTER, k), ==, 0);
        }
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
        g_assert_cmpint(res.corruptions + res.leaks, ==, 0);
        g_assert_cmpint(res.bfi.compressed_clusters, ==, 16);
        g_assert_cmpuint(res.image_end_offset, ==, rows[i].host_clusters * CLUSTER);
        /* pieces of a cluster are given up one by one */
        for (int k = 0; k < 16; k += 2) {
            g_assert_cmpint(blk_pdiscard(blk, k * CLUSTER, CLUSTER), ==, 0);
        }
        g_assert_cmpint(blk_flush(blk), ==, 0);
        for (int k = 0; k < 16; k++) {
            assert_content(blk, k * CLUSTER, CLUSTER, k % 2 ? k : 0);
        }
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
    }
}

/* When its last piece goes, the cluster may serve anything: nothing more is packed there. */
static void test_packed_cluster_is_freed(void)
{
    g_autofree char *path = scratch_path("freed.qcow2");
    BlockBackend *blk = new_image(path, "size=1M");

    g_assert_cmpint(write_compressed(blk, 0, CLUSTER, 1), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 0, CLUSTER), ==, 0);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(blk_flush(blk), ==, 0);
    }
    write_pattern(blk, 2 * CLUSTER, CLUSTER, 0x55);
    g_assert_cmpint(write_compressed(blk, 4 * CLUSTER, CLUSTER, 2), ==, 0);
    assert_content(blk, 2 * CLUSTER, CLUSTER, 0x55);
    assert_content(blk, 4 * CLUSTER, CLUSTER, 2);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
}

/* What would not get shorter is stored as it is. */
static void test_incompressible(void)
{
    for (unsigned t = 0; t < ARRAY_SIZE(types); t++) {
        g_autofree char *path = scratch_path("noise.qcow2");
        g_autofree char *opts = g_strdup_printf("size=1M,compression_type=%s", types[t]);
        g_autofree uint8_t *data = noise(4 * CLUSTER), *back = g_malloc(4 * CLUSTER);
        BlockBackend *blk = new_image(path, opts);

        memset(data + CLUSTER, 7, CLUSTER);
        g_assert_cmpint(blk_pwrite_compressed(blk, 0, 4 * CLUSTER, data), ==, 0);
        g_assert_false(is_compressed(blk, 0));
        g_assert_true(is_compressed(blk, CLUSTER));
        g_assert_false(is_compressed(blk, 2 * CLUSTER));
        g_assert_cmpint(blk_pread(blk, 0, 4 * CLUSTER, back, 0), ==, 0);
        g_assert_cmpmem(back, 4 * CLUSTER, data, 4 * CLUSTER);
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* Whole clusters only, or the rest of the disk. */
static void test_alignment(void)
{
    static const struct { int64_t offset, bytes; int ret; } rows[] = {
        { 0, CLUSTER, 0 },
        { 0, 2 * CLUSTER, 0 },
        { 512, CLUSTER, -EINVAL },
        { 0, 512, -EINVAL },
        { CLUSTER, CLUSTER + 512, -EINVAL },
        { 3 * CLUSTER, 512, -EINVAL },
        { 3 * CLUSTER, 8192, 0 },               /* the disk ends there */
        { 2 * CLUSTER, CLUSTER + 8192, 0 },
        { 3 * CLUSTER + 4096, 4096, -EINVAL },
    };
    g_autofree char *path = scratch_path("align.qcow2");
    BlockBackend *blk = new_image(path, "size=200k");

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmpint(write_compressed(blk, rows[i].offset, rows[i].bytes, i + 1), ==,
                        rows[i].ret);
        if (!rows[i].ret) {
            assert_content(blk, rows[i].offset, rows[i].bytes, i + 1);
        }
    }
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/* Over what is there already, of every kind. */
static void test_overwrite(void)
{
    g_autofree char *path = scratch_path("over.qcow2");
    BlockBackend *blk = new_image(path, "size=1M");

    write_pattern(blk, 0, CLUSTER, 1);
    g_assert_cmpint(blk_pwrite_zeroes(blk, CLUSTER, CLUSTER, 0), ==, 0);
    g_assert_cmpint(write_compressed(blk, 2 * CLUSTER, CLUSTER, 3), ==, 0);
    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(write_compressed(blk, i * CLUSTER, CLUSTER, i + 10), ==, 0);
        assert_content(blk, i * CLUSTER, CLUSTER, i + 10);
    }
    /* and the other way round: a part of a compressed cluster */
    write_pattern(blk, 512, 512, 99);
    assert_content(blk, 0, 512, 10);
    assert_content(blk, 512, 512, 99);
    assert_content(blk, 1024, CLUSTER - 1024, 10);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/* Through the filter everything is compressed, in whole clusters, up to the very end. */
static void test_filter(void)
{
    g_autofree char *path = scratch_path("filter.qcow2");

    qcow2_create(path, "size=200k");
    BlockBackend *blk = open_rw(options_of("driver=compress,file.driver=qcow2,"
                                           "file.file.driver=file,file.file.filename=%s",
                                           path));
    write_pattern(blk, 1000, 3000, 5);
    write_pattern(blk, 192 * 1024 + 512, 4096, 6);
    write_pattern(blk, 200 * 1024 - 1024, 1024, 7);
    g_assert_cmpint(blk_getlength(blk), ==, 200 * 1024);
    assert_content(blk, 0, 1000, 0);
    assert_content(blk, 1000, 3000, 5);
    assert_content(blk, 192 * 1024, 512, 0);
    assert_content(blk, 192 * 1024 + 512, 4096, 6);
    assert_content(blk, 200 * 1024 - 1024, 1024, 7);
    blk_unref(blk);
    blk = qcow2_open_file(path, "");
    g_assert_cmpint(blk_getlength(blk), ==, 200 * 1024);
    g_assert_true(is_compressed(blk, 0));
    g_assert_true(is_compressed(blk, 192 * 1024));
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/compress/round-trip", test_round_trip);
    g_test_add_func("/qcow2/compress/packing", test_packing);
    g_test_add_func("/qcow2/compress/packed-cluster-is-freed", test_packed_cluster_is_freed);
    g_test_add_func("/qcow2/compress/incompressible", test_incompressible);
    g_test_add_func("/qcow2/compress/alignment", test_alignment);
    g_test_add_func("/qcow2/compress/overwrite", test_overwrite);
    g_test_add_func("/qcow2/compress/filter", test_filter);
    return image_test_run();
}
