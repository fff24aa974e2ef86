/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: options of an image in use, the caches, and what becomes of discarded clusters. */
#include "qcow2-test.h"
#include "images/qcow2.h"

enum { CLUSTER = 64 * 1024 };

static BlockBackend *new_image(const char *opts, const char *more, char **path)
{
    *path = scratch_path("options.qcow2");
    qcow2_create(*path, opts);
    return qcow2_open_file(*path, more);
}

/* ---- reopening --------------------------------------------------------------------- */

/* Everything about the caches can be changed while there is work for them. */
static void test_reopen(void)
{
    static const struct { const char *opts, *text; } rows[] = {
        { "l2-cache-size=64k", NULL },
        { "l2-cache-size=1M,l2-cache-entry-size=512", NULL },
        { "cache-size=1M,refcount-cache-size=512k", NULL },
        { "l2-cache-entry-size=64k,cache-clean-interval=0", NULL },
        { "cache-clean-interval=7,lazy-refcounts=on", NULL },
        { "lazy-refcounts=off,discard-no-unref=on,pass-discard-other=on", NULL },
        { "cache-size=1M,l2-cache-size=2M", "l2-cache-size may not exceed cache-size" },
        { "l2-cache-entry-size=100", "L2 cache entry size must be a power of two between 512 "
                                     "and the cluster size (65536)" },
        { "cache-clean-interval=99999999999", "Cache clean interval too big" },
    };
    g_autofree char *path = NULL;
    BlockBackend *blk = new_image("size=64M", "", &path);

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        Error *err = NULL;
        QDict *opts = options_of("driver=qcow2,discard=unmap,file.driver=file,"
                                 "file.filename=%s,%s", path, rows[i].opts);
        write_pattern(blk, i * 2 * CLUSTER, CLUSTER, i + 1);
        int ret = bdrv_reopen(blk_bs(blk), opts, false, &err);
        g_test_message("%s: %d", rows[i].opts, ret);
        if (rows[i].text) {
            g_assert_cmpint(ret, <, 0);
            g_assert_cmpstr(error_get_pretty(err), ==, rows[i].text);
            error_free(err);
        } else {
            g_assert_no_errno(ret);
            g_assert_null(err);
        }
        for (unsigned k = 0; k <= i; k++) {
            assert_content(blk, k * 2 * CLUSTER, CLUSTER, k + 1);
        }
    }
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
}

/* ---- caches ------------------------------------------------------------------------ */

static unsigned slices_in_memory(const Qcow2Cache *c)
{
    unsigned n = 0;

    for (size_t i = 0; i < c->nb_slices; i++) {
        n += c->slices[i]->offset != 0;
    }
    return n;
}

/* What was not used between two cleanings goes, but for what is not in the file yet. */
static void test_cleaning(void)
{
    g_autofree char *path = NULL;
    BlockBackend *blk = new_image("size=64M,cluster_size=4k", "", &path);
    Qcow2State *s = blk_bs(blk)->opaque;

    for (int i = 0; i < 8; i++) {
        write_pattern(blk, i * (2 << 20), 4096, i + 1);
    }
    unsigned dirty = slices_in_memory(&s->l2_cache);
    g_assert_cmpuint(dirty, >=, 8);
    qcow2_cache_clean(&s->l2_cache);
    qcow2_cache_clean(&s->l2_cache);
    g_assert_cmpuint(slices_in_memory(&s->l2_cache), ==, dirty);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    qcow2_cache_clean(&s->l2_cache);
    assert_content(blk, 0, 4096, 1);
    qcow2_cache_clean(&s->l2_cache);
    g_assert_cmpuint(slices_in_memory(&s->l2_cache), ==, 1);
    qcow2_cache_clean(&s->l2_cache);
    g_assert_cmpuint(slices_in_memory(&s->l2_cache), ==, 0);
    size_t taken = s->l2_cache.nb_slices;
    for (int i = 0; i < 8; i++) {
        assert_content(blk, i * (2 << 20), 4096, i + 1);
        write_pattern(blk, i * (2 << 20) + 4096, 4096, i + 0x11);
    }
    /* their memory is used again */
    g_assert_cmpuint(s->l2_cache.nb_slices, ==, taken);
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
}

/* ---- discards ---------------------------------------------------------------------- */

static void give_up_all(BlockBackend *blk, OpType how)
{
    if (how == OP_DISCARD) {
        g_assert_cmpint(blk_pdiscard(blk, 0, 4 << 20), ==, 0);
    } else {
        g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 4 << 20, BDRV_REQ_MAY_UNMAP), ==, 0);
    }
    /* the second one knows that the first has made all of it durable */
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
}

/* Whether the file gets holes, and whether the clusters keep their place in it. */
static void test_discards(void)
{
    static const struct { const char *more; OpType how; bool holes, kept; } rows[] = {
        { "", OP_DISCARD, true, false },
        { "", OP_UNMAP, true, false },
        { ",pass-discard-request=off", OP_DISCARD, false, false },
        { ",discard-no-unref=on", OP_DISCARD, true, true },
        { ",discard-no-unref=on", OP_UNMAP, true, true },
        { ",discard-no-unref=on,pass-discard-request=off", OP_DISCARD, false, true },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        g_autofree char *path = NULL;
        BlockBackend *blk = new_image("size=8M", rows[i].more, &path);
        BdrvCheckResult res;
        write_pattern(blk, 0, 4 << 20, 0x66);
        g_assert_cmpint(blk_flush(blk), ==, 0);
        int64_t full = disk_bytes(path);
        give_up_all(blk, rows[i].how);
        g_test_message("%s: %" PRId64 " of %" PRId64 " bytes on disk", rows[i].more,
                       disk_bytes(path), full);
        g_assert_cmpint(disk_bytes(path) < full - (3 << 20), ==, rows[i].holes);
        assert_content(blk, 0, 4 << 20, 0);
        g_assert_cmpint(bdrv_check(blk_bs(blk), &res, 0), ==, 0);
        g_assert_cmpint(res.corruptions + res.leaks, ==, 0);
        g_assert_cmpint(res.bfi.allocated_clusters, ==, rows[i].kept ? 64 : 0);
        write_pattern(blk, 512, 512, 1);
        assert_content(blk, 0, 512, 0);
        assert_content(blk, 1024, CLUSTER - 1024, 0);
        blk_unref(blk);
        qcow2_assert_peer_finds_no_fault(path);
    }
}

/* Of the many clusters that a sparse file has, only those in use may take time. */
static void test_sparse_file(void)
{
    g_autofree char *path = scratch_path("sparse.qcow2");
    int64_t n, map;
    struct stat st;

    qcow2_create(path, "size=1M,cluster_size=512");
    BlockBackend *blk = qcow2_open_file(path, "");
    write_pattern(blk, 0, 64 << 10, 0x55);
    blk_unref(blk);
    if (truncate(path, 4LL << 40) < 0) {
        g_test_skip("there can be no file of 4 TiB here");
        return;
    }
    blk = qcow2_open_file(path, "");
    int64_t start = g_get_monotonic_time();
    g_assert_cmpint(bdrv_block_status(blk_bs(blk), 0, 512, &n, &map, NULL), >, 0);
    g_assert_cmpint(blk_truncate(blk, 512 << 10, false, PREALLOC_MODE_OFF, 0, &error_abort),
                    ==, 0);
    /* (it takes a few milliseconds, or else minutes) */
    g_assert_cmpint(g_get_monotonic_time() - start, <, 10 * G_USEC_PER_SEC);
    assert_content(blk, 0, 64 << 10, 0x55);
    blk_unref(blk);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, <, 1 << 20);
    qcow2_assert_peer_finds_no_fault(path);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    g_test_add_func("/qcow2/options/reopen", test_reopen);
    g_test_add_func("/qcow2/options/cleaning", test_cleaning);
    g_test_add_func("/qcow2/options/discards", test_discards);
    g_test_add_func("/qcow2/options/sparse-file", test_sparse_file);
    return image_test_run();
}
