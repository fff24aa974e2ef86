/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying on read: what is copied, from where, and what happens beside it. */
#include "qcow2-test.h"
#include "memory-disk.h"

enum { CLUSTER = 65536, DISK_BYTES = 16 * CLUSTER };

/* base <- mid <- top; clusters 0-3 are in base, 4-7 in mid, 8-11 are nowhere, 12 is in top. */
static char *base_path, *mid_path, *top_path;

static void make_chain(void)
{
    g_autofree char *opts = NULL, *more = NULL;

    base_path = scratch_path("base.qcow2");
    mid_path = scratch_path("mid.qcow2");
    top_path = scratch_path("top.qcow2");
    qcow2_create(base_path, "size=1M");
    opts = g_strdup_printf("size=1M,backing_file=%s,backing_fmt=qcow2", base_path);
    qcow2_create(mid_path, opts);
    more = g_strdup_printf("size=1M,backing_file=%s,backing_fmt=qcow2", mid_path);
    qcow2_create(top_path, more);
    BlockBackend *blk = qcow2_open_file(base_path, "");
    write_pattern(blk, 0, 4 * CLUSTER, 0xba);
    blk_unref(blk);
    blk = qcow2_open_file(mid_path, "");
    write_pattern(blk, 4 * CLUSTER, 4 * CLUSTER, 0x3d);
    blk_unref(blk);
    blk = qcow2_open_file(top_path, "");
    write_pattern(blk, 12 * CLUSTER, CLUSTER, 0x70);
    blk_unref(blk);
}

static void drop_chain(void)
{
    g_clear_pointer(&base_path, g_free);
    g_clear_pointer(&mid_path, g_free);
    g_clear_pointer(&top_path, g_free);
}

/* The filter over the chain; blkdebug is below top. MORE begins with a comma. */
static BlockBackend *open_filter(const char *more)
{
    return open_rw(options_of("driver=copy-on-read,file.driver=qcow2,file.discard=unmap,"
                              "file.file.driver=blkdebug,file.file.image.driver=file,"
                              "file.file.image.filename=%s%s", top_path, more));
}

/* A letter per cluster of the node below the filter: allocated, zero, or not there. */
static char *map_of(BlockBackend *blk)
{
    BlockDriverState *top = blk_bs(blk)->file->bs;
    char *map = g_strnfill(DISK_BYTES / CLUSTER, '-');

    for (int i = 0; i < DISK_BYTES / CLUSTER; i++) {
        int64_t n, at;
        BlockDriverState *file;
        int allocated = bdrv_is_allocated(top, i * CLUSTER, CLUSTER, &n);
        g_assert_cmpint(allocated, >=, 0);
        g_assert_cmpint(n, ==, CLUSTER);
        if (allocated) {
            int ret = bdrv_block_status(top, i * CLUSTER, CLUSTER, &n, &at, &file);
            map[i] = ret & BDRV_BLOCK_ZERO ? '0' : 'x';
        }
    }
    return map;
}

static void assert_map(BlockBackend *blk, const char *expected)
{
    g_autofree char *map = map_of(blk);
    g_assert_cmpstr(map, ==, expected);
}

static void assert_image_consistent(BlockBackend *blk)
{
    BdrvCheckResult res;

    g_assert_cmpint(bdrv_check(blk_bs(blk)->file->bs, &res, 0), ==, 0);
    g_assert_cmpint(res.corruptions + res.leaks + res.check_errors, ==, 0);
}

/* ---- what is copied --------------------------------------------------------------- */

static void test_read_copies_whole_clusters_from_any_layer(void)
{
    make_chain();
    BlockBackend *blk = open_filter("");

    assert_map(blk, "------------x---");
    assert_content(blk, CLUSTER + 100, 1, 0xba);
    assert_map(blk, "-x----------x---");
    g_autofree uint8_t *buf = g_malloc(2 * CLUSTER);
    g_assert_cmpint(blk_pread(blk, 3 * CLUSTER + 1000, 2 * CLUSTER, buf, 0), ==, 0);
    assert_bytes(buf, CLUSTER - 1000, 0xba);
    assert_bytes(buf + CLUSTER - 1000, CLUSTER + 1000, 0x3d);
    assert_map(blk, "-x-xxx------x---");
    blk_unref(blk);
    drop_chain();
}

static void test_copy_is_found_without_the_backing_file(void)
{
    make_chain();
    BlockBackend *blk = open_filter("");
    g_autofree uint8_t *buf = g_malloc(DISK_BYTES);

    /* zeroes are copied as zeroes, which take no room */
    g_assert_cmpint(blk_pread(blk, 0, DISK_BYTES, buf, 0), ==, 0);
    assert_map(blk, "xxxxxxxx0000x000");
    g_assert_cmpint(blk_flush(blk), ==, 0);
    assert_image_consistent(blk);
    blk_unref(blk);
    g_assert_cmpint(disk_bytes(top_path), <, 15 * CLUSTER);
    blk = qcow2_open_file(top_path, ",backing=");
    assert_content(blk, 0, 4 * CLUSTER, 0xba);
    assert_content(blk, 4 * CLUSTER, 4 * CLUSTER, 0x3d);
    assert_content(blk, 8 * CLUSTER, 4 * CLUSTER, 0);
    assert_content(blk, 12 * CLUSTER, CLUSTER, 0x70);
    blk_unref(blk);
    drop_chain();
}

static void test_bottom_limits_the_layers_that_are_copied(void)
{
    static const struct {
        const char *options, *map;
    } table[] = {
        { ",bottom=top,file.node-name=top", "------------x---" },
        { ",bottom=mid,file.backing.node-name=mid", "----xxxx----x---" },
        { ",bottom=base,file.backing.backing.node-name=base", "xxxxxxxx----x---" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        make_chain();
        BlockBackend *blk = open_filter(table[i].options);
        assert_content(blk, 0, 4 * CLUSTER, 0xba);
        assert_content(blk, 4 * CLUSTER, 4 * CLUSTER, 0x3d);
        assert_content(blk, 8 * CLUSTER, 4 * CLUSTER, 0);
        assert_content(blk, 12 * CLUSTER, CLUSTER, 0x70);
        assert_map(blk, table[i].map);
        blk_unref(blk);
        drop_chain();
    }
}

static void test_bad_bottom_is_refused(void)
{
    static const struct {
        const char *options, *error;
    } table[] = {
        { ",bottom=nope", "Bottom node 'nope' not found" },
        { ",bottom=proto,file.file.image.node-name=proto",
          "Bottom node 'proto' is not in the backing chain of node 'q'" },
        { ",bottom=dbg,file.file.node-name=dbg", "Bottom node 'dbg' is a filter" },
    };

    make_chain();
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_open_fails(options_of(
            "driver=copy-on-read,file.driver=qcow2,file.node-name=q,file.file.driver=blkdebug,"
            "file.file.image.driver=file,file.file.image.filename=%s%s", top_path,
            table[i].options), BDRV_O_RDWR, table[i].error, NULL);
    }
    /* copying is writing */
    assert_open_fails(options_of(
        "driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=%s",
        top_path), 0, "Block node is read-only", NULL);
    drop_chain();
}

static void coroutine_fn prefetch_entry(void *opaque)
{
    BlockBackend *blk = opaque;

    blk_inc_in_flight(blk);
    g_assert_cmpint(bdrv_co_preadv(blk_root(blk), 2 * CLUSTER, CLUSTER, NULL,
                                   BDRV_REQ_COPY_ON_READ | BDRV_REQ_PREFETCH), ==, 0);
    blk_dec_in_flight(blk);
}

static void test_prefetch_copies_without_a_buffer(void)
{
    make_chain();
    BlockBackend *blk = open_filter("");

    qemu_coroutine_enter(qemu_coroutine_create(prefetch_entry, blk));
    blk_drain(blk);
    assert_map(blk, "--x---------x---");
    blk_unref(blk);
    drop_chain();
}

static void test_failed_copy_fails_the_read(void)
{
    make_chain();
    BlockBackend *blk = open_filter(",file.file.inject-error.0.event=cor_write,"
                                    "file.file.inject-error.0.errno=28,"
                                    "file.file.inject-error.0.once=on");
    uint8_t buf[512];

    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, -ENOSPC);
    assert_map(blk, "------------x---");
    assert_content(blk, 0, 512, 0xba);
    assert_map(blk, "x-----------x---");
    blk_unref(blk);
    drop_chain();
}

/* ---- beside it -------------------------------------------------------------------- */

/*
 * read of cluster 1                    write to cluster 1
 * reads 0xba from base
 *                                      begins, must wait
 * writes the copy
 *                                      writes 0x11: must not be lost under the copy
 */
static void test_write_waits_for_a_copy_of_its_cluster(void)
{
    make_chain();
    BlockBackend *blk = open_filter("");
    BlockDriverState *bs = blk_bs(blk);
    g_autofree uint8_t *rbuf = g_malloc(CLUSTER), *wbuf = g_malloc(512);
    int pending = 3;
    Op read = { blk, OP_READ, CLUSTER, CLUSTER, rbuf, 1, &pending };
    Op write = { blk, OP_WRITE, CLUSTER + 512, 512, wbuf, 1, &pending };
    Op other = { blk, OP_WRITE, 3 * CLUSTER, 512, wbuf, 1, &pending };

    memset(wbuf, 0x11, 512);
    g_assert_cmpint(bdrv_debug_breakpoint(bs, "cor_write", "copy"), ==, 0);
    qemu_coroutine_enter(qemu_coroutine_create(op_entry, &read));
    while (!bdrv_debug_is_suspended(bs, "copy")) {
        aio_poll(qemu_get_aio_context(), true);
    }
    qemu_coroutine_enter(qemu_coroutine_create(op_entry, &write));
    qemu_coroutine_enter(qemu_coroutine_create(op_entry, &other));
    while (other.ret) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(pending, ==, 2);        /* another cluster is not held up */
    g_assert_cmpint(bdrv_debug_resume(bs, "copy"), ==, 0);
    while (pending) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpint(read.ret, ==, 0);
    g_assert_cmpint(write.ret, ==, 0);
    assert_content(blk, CLUSTER, 512, 0xba);
    assert_content(blk, CLUSTER + 512, 512, 0x11);
    assert_content(blk, CLUSTER + 1024, CLUSTER - 1024, 0xba);
    blk_unref(blk);
    drop_chain();
}

/*
 * Reads and writes at once, each group of random length and place, on a slow disk. Each byte
 * is written by at most one request of a group, so what it must be is known.
 */
static void test_random_requests_against_a_model(void)
{
    enum { ROUNDS = 60, OPS = 8 };
    MemoryDisk *disk = memory_disk_new(NULL, 0);
    g_autofree uint8_t *model = g_malloc(DISK_BYTES);
    g_autoptr(GRand) rand = g_rand_new_with_seed(g_test_rand_int());

    make_chain();
    memset(model, 0, DISK_BYTES);
    memset(model, 0xba, 4 * CLUSTER);
    memset(model + 4 * CLUSTER, 0x3d, 4 * CLUSTER);
    memset(model + 12 * CLUSTER, 0x70, CLUSTER);
    /* the top image in a memory disk that is late */
    g_autofree char *bytes = NULL;
    gsize len;
    g_assert_true(g_file_get_contents(top_path, &bytes, &len, NULL));
    g_byte_array_append(disk->data, (uint8_t *)bytes, len);
    disk->late = g_rand_new_with_seed(g_rand_int(rand));
    memory_disk_to_open = disk;
    BlockBackend *blk = open_rw(options_of("driver=copy-on-read,file.driver=qcow2,"
                                           "file.file.driver=memory-disk"));
    for (int round = 0; round < ROUNDS; round++) {
        Op ops[OPS];
        for (int i = 0; i < OPS; i++) {
            /* each in a stripe of its own, whose ends are in the middle of clusters */
            int64_t stripe = DISK_BYTES / OPS, at = i * stripe;
            int64_t from = at + g_rand_int_range(rand, 0, stripe - 1);
            int64_t n = 1 + g_rand_int_range(rand, 0, at + stripe - from);
            bool write = g_rand_boolean(rand);
            uint8_t *buf = g_malloc(n);
            memset(buf, g_rand_int(rand), n);
            ops[i] = (Op) { blk, write ? OP_WRITE : OP_READ, from, n, buf, 0, NULL };
        }
        run_ops(ops, OPS);
        for (int i = 0; i < OPS; i++) {
            g_assert_cmpint(ops[i].ret, ==, 0);
            if (ops[i].type == OP_WRITE) {
                memcpy(model + ops[i].offset, ops[i].buf, ops[i].bytes);
            } else {
                g_assert_cmpmem(ops[i].buf, ops[i].bytes, model + ops[i].offset,
                                ops[i].bytes);
            }
            g_free(ops[i].buf);
        }
    }
    g_autofree uint8_t *all = g_malloc(DISK_BYTES);
    g_assert_cmpint(blk_pread(blk, 0, DISK_BYTES, all, 0), ==, 0);
    g_assert_cmpmem(all, DISK_BYTES, model, DISK_BYTES);
    assert_image_consistent(blk);
    blk_unref(blk);
    memory_disk_free(disk);
    drop_chain();
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
#define ADD(name) g_test_add_func("/copy-on-read/" #name, test_##name)
    ADD(read_copies_whole_clusters_from_any_layer);
    ADD(copy_is_found_without_the_backing_file);
    ADD(bottom_limits_the_layers_that_are_copied);
    ADD(bad_bottom_is_refused);
    ADD(prefetch_copies_without_a_buffer);
    ADD(failed_copy_fails_the_read);
    ADD(write_waits_for_a_copy_of_its_cluster);
    ADD(random_requests_against_a_model);
    return image_test_run();
}
