/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 with requests that overlap while they are in flight. Which of them wins is nobody's
 * promise, but data must never turn up elsewhere. Every sector is only ever written with its
 * own number, so that it must hold that or zeroes:
 *
 *   write  |--------- cluster of sector 8, looked up -------------> data written late
 *   discard     |- unmapped -|
 *   flush                     |- freed? -|
 *   write                                 |- the cluster for sector 99 -|   must be another
 */
#include "qcow2-test.h"
#include "miniblk/atomic.h"
#include "miniblk/iothread.h"
#include "memory-disk.h"

enum { SECTOR = 512, SECTORS = 512, OPS = 24 };

static void tag_sectors(uint8_t *buf, int first, int n)
{
    for (int i = 0; i < n; i++) {
        uint16_t *words = (uint16_t *)(buf + i * SECTOR);
        for (int k = 0; k < SECTOR / 2; k++) {
            words[k] = first + i + 1;
        }
    }
}

static void assert_sectors_are_their_own(BlockBackend *blk, const char *create)
{
    g_autofree uint16_t *now = g_malloc(SECTORS * SECTOR);

    g_assert_cmpint(blk_pread(blk, 0, SECTORS * SECTOR, now, 0), ==, 0);
    for (int i = 0; i < SECTORS * SECTOR / 2; i++) {
        int sector = i / (SECTOR / 2);
        if (now[i] != 0 && now[i] != sector + 1) {
            g_error("%s: sector %d holds data of sector %d", create, sector, now[i] - 1);
        }
    }
}

static void run_overlapping(GRand *r, BlockBackend *blk)
{
    static const OpType types[] = { OP_WRITE, OP_WRITE, OP_WRITE, OP_DISCARD, OP_DISCARD,
                                    OP_UNMAP, OP_ZERO, OP_FLUSH, OP_READ };
    Op ops[OPS];

    for (int i = 0; i < OPS; i++) {
        int first = g_rand_int_range(r, 0, SECTORS);
        int n = MIN(g_rand_int_range(r, 1, g_rand_boolean(r) ? 8 : 64), SECTORS - first);
        ops[i] = (Op){ .blk = blk, .offset = first * SECTOR, .bytes = n * SECTOR,
                       .type = types[g_rand_int_range(r, 0, ARRAY_SIZE(types))],
                       .buf = g_malloc(n * SECTOR) };
        tag_sectors(ops[i].buf, first, n);
    }
    run_ops(ops, OPS);
    for (int i = 0; i < OPS; i++) {
        g_assert_cmpint(ops[i].ret, ==, 0);
        g_free(ops[i].buf);
    }
}

static void test_overlapping(void)
{
    static const char *const images[] = {
        "size=256k,cluster_size=512", "size=256k,cluster_size=1k,refcount_bits=1",
        "size=256k,cluster_size=4k", "size=256k,cluster_size=4k,compat=0.10",
        "size=256k,cluster_size=4k,lazy_refcounts=on", "size=256k",
        "size=256k,cluster_size=4k,preallocation=metadata",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
        GRand *r = g_rand_new_with_seed(g_test_rand_int());
        g_autofree char *path = scratch_path("races.qcow2");
        g_autofree char *bytes = NULL;
        gsize length;
        qcow2_create(path, images[i]);
        g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
        MemoryDisk *disk = memory_disk_new(bytes, length);
        disk->late = g_rand_new_with_seed(g_rand_int(r));
        memory_disk_to_open = disk;
        BlockBackend *blk = open_rw(
            options_of("driver=qcow2,discard=unmap,file.driver=memory-disk"));
        for (int k = 0; k < (g_test_slow() ? 1000 : 60); k++) {
            run_overlapping(r, blk);
            assert_sectors_are_their_own(blk, images[i]);
            if (k % 8 == 0) {
                qcow2_assert_consistent(blk, false);
            }
        }
        qcow2_assert_consistent(blk, false);
        blk_unref(blk);
        blk = open_rw(options_of("driver=qcow2,file.driver=memory-disk"));
        qcow2_assert_consistent(blk, false);
        assert_sectors_are_their_own(blk, images[i]);
        blk_unref(blk);
        memory_disk_free(disk);
        g_rand_free(r);
    }
}

/* ---- requests that fail while others share their clusters --------------------------- */

static void test_overlapping_with_errors(void)
{
    for (int n = 1; n < 120; n += g_test_slow() ? 1 : 3) {
        GRand *r = g_rand_new_with_seed(n);
        g_autofree char *path = scratch_path("races.qcow2");
        g_autofree char *bytes = NULL;
        gsize length;
        qcow2_create(path, n % 2 ? "size=256k,cluster_size=4k" : "size=256k");
        g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
        MemoryDisk *disk = memory_disk_new(bytes, length);
        disk->late = g_rand_new_with_seed(g_rand_int(r));
        memory_disk_to_open = disk;
        BlockBackend *blk = open_rw(options_of("driver=qcow2,file.driver=memory-disk"));
        disk->fail_in = n;
        for (int k = 0; k < 8; k++) {
            Op ops[OPS];
            for (int i = 0; i < OPS; i++) {
                /* Neighbours, so that many are in the same new cluster. */
                int first = (k * OPS + i) * 2;
                ops[i] = (Op){ .blk = blk, .type = OP_WRITE, .offset = first * SECTOR,
                               .bytes = 2 * SECTOR, .buf = g_malloc(2 * SECTOR) };
                tag_sectors(ops[i].buf, first, 2);
            }
            run_ops(ops, OPS);
            int fail_in = disk->fail_in;
            disk->fail_in = 0;
            for (int i = 0; i < OPS; i++) {
                if (ops[i].ret == 0) {
                    g_autofree uint8_t *now = g_malloc(2 * SECTOR);
                    g_assert_cmpint(blk_pread(blk, ops[i].offset, 2 * SECTOR, now, 0), ==, 0);
                    g_assert_cmpmem(now, 2 * SECTOR, ops[i].buf, 2 * SECTOR);
                }
                g_free(ops[i].buf);
            }
            disk->fail_in = fail_in;
        }
        disk->fail_in = 0;
        assert_sectors_are_their_own(blk, "with errors");
        qcow2_assert_consistent(blk, true);
        blk_unref(blk);
        memory_disk_free(disk);
        g_rand_free(r);
    }
}

/* ---- a disk that grows under requests ----------------------------------------------- */

/*
 * The disk ends in a cluster that it has only a part of, and grows while that is written. What
 * is written behind the old end must be there in the end:
 *
 *   write   |- new cluster for A ...................... data, mapped -|
 *   zero      |- all of the cluster that is on the disk: waits .......| all of it still?
 *   grow      |---------|
 *   write                |- behind the old end, beside A's data -----|
 *
 *   write   |- new cluster for A ...................... data, mapped -|
 *   grow      |- preallocation: the same cluster gets another place -|
 *   write                                             |- beside A, in that place -|
 */
typedef struct Growth {
    BlockBackend *blk;
    PreallocMode mode;
    int *pending;
} Growth;

enum { CLUSTER = 4096, OLD_BYTES = 16 * CLUSTER + 2 * SECTOR, NEW_BYTES = 18 * CLUSTER };

static void coroutine_fn growth_entry(void *opaque)
{
    Growth *g = opaque;
    uint8_t buf[SECTOR];

    memset(buf, 0xcc, SECTOR);
    int ret = bdrv_co_truncate(blk_root(g->blk), NEW_BYTES, false, g->mode, 0, &error_abort);
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpint(blk_co_pwrite(g->blk, OLD_BYTES, SECTOR, buf, 0), ==, 0);
    --*g->pending;
}

static BlockBackend *open_late(const char *create, GRand *r, MemoryDisk **disk)
{
    g_autofree char *path = scratch_path("races.qcow2");
    g_autofree char *bytes = NULL;
    gsize length;

    qcow2_create(path, create);
    g_assert_true(g_file_get_contents(path, &bytes, &length, NULL));
    *disk = memory_disk_new(bytes, length);
    (*disk)->late = g_rand_new_with_seed(g_rand_int(r));
    memory_disk_to_open = *disk;
    return open_rw(options_of("driver=qcow2,discard=unmap,file.driver=memory-disk"));
}

static void run_growth(GRand *r, const char *create, bool zero)
{
    MemoryDisk *disk;
    BlockBackend *blk = open_late(create, r, &disk);
    uint8_t a[SECTOR], b[SECTOR];
    int pending;
    Growth g = { .blk = blk, .pending = &pending,
                 .mode = zero ? PREALLOC_MODE_OFF : PREALLOC_MODE_METADATA };
    Op ops[] = {
        { .blk = blk, .type = OP_WRITE, .offset = OLD_BYTES - 2 * SECTOR, .bytes = SECTOR,
          .buf = a },
        { .blk = blk, .type = OP_UNMAP, .offset = OLD_BYTES - 2 * SECTOR,
          .bytes = 2 * SECTOR },
        { .blk = blk, .type = OP_WRITE, .offset = OLD_BYTES - SECTOR, .bytes = SECTOR,
          .buf = b },
    };

    memset(a, 0xaa, SECTOR);
    memset(b, 0xbb, SECTOR);
    start_ops(ops, zero ? 2 : 1, &pending);
    pending++;
    qemu_coroutine_enter(qemu_coroutine_create(growth_entry, &g));
    if (!zero) {
        int later;
        for (int i = g_rand_int_range(r, 0, 40); i > 0; i--) {
            aio_poll(qemu_get_aio_context(), false);
        }
        start_ops(ops + 2, 1, &later);
        wait_for_ops(&later);
    }
    wait_for_ops(&pending);
    for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
        g_assert_cmpint(ops[i].ret, ==, 0);
    }
    assert_content(blk, OLD_BYTES, SECTOR, 0xcc);
    assert_content(blk, OLD_BYTES + SECTOR, NEW_BYTES - OLD_BYTES - SECTOR, 0);
    assert_content(blk, OLD_BYTES - SECTOR, SECTOR, zero ? 0 : 0xbb);
    if (!zero) {
        assert_content(blk, OLD_BYTES - 2 * SECTOR, SECTOR, 0xaa);
    }
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    memory_disk_free(disk);
}

static void test_growth(void)
{
    GRand *r = g_rand_new_with_seed(g_test_rand_int());

    for (int i = 0; i < (g_test_slow() ? 5000 : 250); i++) {
        g_autofree char *v3 = g_strdup_printf("size=%d,cluster_size=4k", OLD_BYTES);
        g_autofree char *v2 = g_strdup_printf("%s,compat=0.10", v3);
        run_growth(r, v3, true);
        run_growth(r, v2, true);
        run_growth(r, v3, false);
        run_growth(r, v2, false);
    }
    g_rand_free(r);
}

/* ---- moves between threads --------------------------------------------------------- */

enum { WRITERS = 8, WRITES = 40 };

typedef struct Writer {
    BlockBackend *blk;
    int index;
    int *running;               /* atomic */
} Writer;

/* Write sectors INDEX, INDEX + WRITERS, ... wherever the node happens to live. */
static void coroutine_fn writer_entry(void *opaque)
{
    Writer *w = opaque;
    g_autofree uint8_t *buf = g_malloc(SECTOR);

    for (int i = 0; i < WRITES; i++) {
        int sector = w->index + i * WRITERS;
        tag_sectors(buf, sector, 1);
        g_assert_cmpint(blk_co_pwrite(w->blk, sector * SECTOR, SECTOR, buf, 0), ==, 0);
        if (i % 10 == w->index) {
            g_assert_cmpint(blk_co_flush(w->blk), ==, 0);
        }
    }
    blk_dec_in_flight(w->blk);
    qatomic_fetch_dec(w->running);
    aio_wait_kick();
}

/* Each writer is started where the node lives; a move waits for those in flight. */
static void test_moves(void)
{
    IOThread *threads[2] = { iothread_create("qcow2-a", &error_abort),
                             iothread_create("qcow2-b", &error_abort) };
    g_autofree char *path = scratch_path("moves.qcow2");

    qcow2_create(path, "size=256k,cluster_size=4k");
    BlockBackend *blk = qcow2_open_file(path, ",l2-cache-size=1,refcount-cache-size=1");
    blk_set_allow_aio_context_change(blk, true);
    for (int round = 0; round < 12; round++) {
        AioContext *ctx = round % 3 == 2 ? qemu_get_aio_context()
                                         : iothread_get_aio_context(threads[round % 3]);
        AioContext *old = blk_get_aio_context(blk);
        aio_context_acquire(old);
        g_assert_cmpint(blk_set_aio_context(blk, ctx, &error_abort), ==, 0);
        aio_context_release(old);
        Writer writers[WRITERS];
        int running = WRITERS;
        for (int i = 0; i < WRITERS; i++) {
            writers[i] = (Writer){ blk, i, &running };
            blk_inc_in_flight(blk);
            aio_co_enter(ctx, qemu_coroutine_create(writer_entry, &writers[i]));
        }
        AIO_WAIT_WHILE_UNLOCKED(ctx, qatomic_load_acquire(&running) > 0);
        if (round % 4 == 3) {
            g_assert_cmpint(blk_pdiscard(blk, 0, SECTORS / 2 * SECTOR), ==, 0);
        }
    }
    /* Closed while it lives in an IOThread. */
    AioContext *home = iothread_get_aio_context(threads[0]);
    g_assert_cmpint(blk_set_aio_context(blk, home, &error_abort), ==, 0);
    aio_context_acquire(home);
    blk_unref(blk);
    aio_context_release(home);
    blk = qcow2_open_file(path, "");
    assert_sectors_are_their_own(blk, "moves");
    qcow2_assert_consistent(blk, false);
    blk_unref(blk);
    qcow2_assert_peer_finds_no_fault(path);
    iothread_destroy(threads[0]);
    iothread_destroy(threads[1]);
}

int main(int argc, char **argv)
{
    image_test_init(&argc, &argv);
    bdrv_register(&memory_disk_driver);
    g_test_add_func("/qcow2/races/overlapping", test_overlapping);
    g_test_add_func("/qcow2/races/overlapping-with-errors", test_overlapping_with_errors);
    g_test_add_func("/qcow2/races/growth", test_growth);
    g_test_add_func("/qcow2/races/moves", test_moves);
    return image_test_run();
}
