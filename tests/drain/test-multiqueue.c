/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One node, requests from several threads at once, while the main thread drains and moves
 * it. The node is a disk in memory whose blocks are larger than the writes, so that each write
 * is a read-modify-write of a block that other threads write too: a lost update shows.
 */
#include "drain-driver.h"
#include "miniblk/qdict.h"
#include "miniblk/throttle-groups.h"

enum {
    THREADS = 4, BLOCK_BYTES = 4096, BLOCKS = 4, STEPS = 150,
    DISK_BYTES = BLOCKS * BLOCK_BYTES, PIECE_BYTES = 512,
};

static IOThread *io[THREADS];
static uint8_t *disk;
/* A read of a block beside a write to another piece of it is legal for requests, not for C. */
static QemuMutex disk_lock;
static int in_driver;           /* atomic */
static bool stop;               /* atomic */
static bool forbidden;          /* atomic; set while drained */

static void driver_enter(void)
{
    g_assert_false(qatomic_read_sc(&forbidden));
    qatomic_inc(&in_driver);
    /* let others in between: the request is in flight over a yield */
    aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
    qemu_coroutine_yield();
}

static void driver_leave(void)
{
    g_assert_false(qatomic_read_sc(&forbidden));
    qatomic_dec(&in_driver);
}

static int coroutine_fn disk_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    driver_enter();
    WITH_QEMU_LOCK_GUARD(&disk_lock) {
        qemu_iovec_from_buf(qiov, 0, disk + offset, bytes);
    }
    driver_leave();
    return 0;
}

static int coroutine_fn disk_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    driver_enter();
    WITH_QEMU_LOCK_GUARD(&disk_lock) {
        qemu_iovec_to_buf(qiov, 0, disk + offset, bytes);
    }
    driver_leave();
    return 0;
}

static int coroutine_fn disk_flush(BlockDriverState *bs)
{
    driver_enter();
    driver_leave();
    return 0;
}

static void disk_refresh_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = BLOCK_BYTES;
}

static BlockDriver bdrv_disk = {
    .format_name = "test-multiqueue",
    .supports_multiqueue = true,
    .bdrv_co_preadv = disk_preadv,
    .bdrv_co_pwritev = disk_pwritev,
    .bdrv_co_flush_to_disk = disk_flush,
    .bdrv_refresh_limits = disk_refresh_limits,
};

typedef struct Writer {
    BlockBackend *blk;
    int number;                 /* of the thread: writes its own piece of each block */
    int rounds;                 /* atomic */
} Writer;

static int running;             /* atomic; writers that have not ended */

static void coroutine_fn writer_entry(void *opaque)
{
    Writer *w = opaque;
    uint8_t mine[PIECE_BYTES], back[PIECE_BYTES];

    for (int i = 0; !qatomic_read(&stop); i++) {
        int64_t at = (int64_t)(i % BLOCKS) * BLOCK_BYTES + w->number * PIECE_BYTES;
        memset(mine, i * THREADS + w->number, sizeof(mine));
        g_assert_cmpint(blk_co_pwrite(w->blk, at, sizeof(mine), mine, 0), ==, 0);
        g_assert_cmpint(blk_co_pread(w->blk, at, sizeof(back), back, 0), ==, 0);
        g_assert_cmpmem(mine, sizeof(mine), back, sizeof(back));
        if (i % 16 == 0) {
            g_assert_cmpint(blk_co_flush(w->blk), ==, 0);
        }
        qatomic_inc(&w->rounds);
    }
    qatomic_dec(&running);
    aio_wait_kick();
}

static void drain_once(BlockDriverState *bs)
{
    bdrv_drained_begin(bs);
    g_assert_cmpint(qatomic_read_sc(&in_driver), ==, 0);
    qatomic_set_mb(&forbidden, true);
    aio_poll(qemu_get_aio_context(), false);
    qatomic_set_mb(&forbidden, false);
    bdrv_drained_end(bs);
}

static void move_once(BlockDriverState *bs, int step)
{
    AioContext *to = step % (THREADS + 1) == THREADS
                     ? qemu_get_aio_context()
                     : iothread_get_aio_context(io[step % (THREADS + 1)]);
    AioContext *from = bdrv_get_aio_context(bs);

    aio_context_acquire(from);
    bdrv_try_change_aio_context(bs, to, NULL, &error_abort);
    aio_context_release(from);
}

static void wait_for_a_round(const Writer *w)
{
    int before = qatomic_read(&w->rounds);
    while (qatomic_read(&w->rounds) == before) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

static void test_threads_share_a_node(void)
{
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_disk, "disk", BDRV_O_RDWR, &error_abort);
    Writer w[THREADS];

    qemu_mutex_init(&disk_lock);
    disk = g_malloc0(DISK_BYTES);
    bs->total_sectors = DISK_BYTES / BDRV_SECTOR_SIZE;
    bdrv_refresh_limits(bs, NULL, &error_abort);
    BlockBackend *blk = test_backend(bs);
    running = THREADS;
    for (int i = 0; i < THREADS; i++) {
        w[i] = (Writer) { .blk = blk, .number = i };
        aio_co_enter(iothread_get_aio_context(io[i]),
                     qemu_coroutine_create(writer_entry, &w[i]));
    }
    for (int step = 0; step < test_rounds(STEPS); step++) {
        if (step % 3 == 2) {
            move_once(bs, step / 3);
        } else {
            AioContext *ctx = bdrv_get_aio_context(bs);
            aio_context_acquire(ctx);
            drain_once(bs);
            aio_context_release(ctx);
        }
        wait_for_a_round(&w[step % THREADS]);
    }
    for (int i = 0; i < THREADS; i++) {
        while (qatomic_read(&w[i].rounds) < BLOCKS) {
            wait_for_a_round(&w[i]);
        }
    }
    qatomic_set(&stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&running) > 0);
    for (int i = 0; i < THREADS; i++) {
        g_test_message("thread %d: %d rounds", i, w[i].rounds);
        g_assert_cmpint(w[i].rounds, >=, BLOCKS);
        for (int b = 0; b < BLOCKS; b++) {
            /* the last round that wrote this block */
            int last = w[i].rounds - 1 - ((w[i].rounds - 1 - b) % BLOCKS);
            uint8_t expected = last * THREADS + i;
            g_assert_cmpint(disk[b * BLOCK_BYTES + i * PIECE_BYTES], ==, expected);
            g_assert_cmpint(disk[b * BLOCK_BYTES + (i + 1) * PIECE_BYTES - 1], ==, expected);
        }
    }
    AioContext *ctx = bdrv_get_aio_context(bs);
    aio_context_acquire(ctx);
    blk_set_aio_context(blk, qemu_get_aio_context(), &error_abort);
    aio_context_release(ctx);
    blk_unref(blk);
    bdrv_unref(bs);
    g_free(disk);
}

/* ---- a real file, by each engine and through a filter ------------------------------------- */

enum { FILE_BYTES = 4 << 20, CHUNK_BYTES = 4096 };

static void coroutine_fn file_writer_entry(void *opaque)
{
    Writer *w = opaque;
    g_autofree uint8_t *buf = g_malloc(CHUNK_BYTES), *back = g_malloc(CHUNK_BYTES);

    for (int i = 0; !qatomic_read(&stop); i++) {
        /* chunks of the threads lie side by side */
        int64_t at = ((int64_t)i * THREADS + w->number) * CHUNK_BYTES % FILE_BYTES;
        memset(buf, i * THREADS + w->number, CHUNK_BYTES);
        g_assert_cmpint(blk_co_pwrite(w->blk, at, CHUNK_BYTES, buf, 0), ==, 0);
        g_assert_cmpint(blk_co_pread(w->blk, at, CHUNK_BYTES, back, 0), ==, 0);
        g_assert_cmpmem(buf, CHUNK_BYTES, back, CHUNK_BYTES);
        if (i % 64 == 0) {
            g_assert_cmpint(blk_co_flush(w->blk), ==, 0);
        }
        qatomic_inc(&w->rounds);
    }
    qatomic_dec(&running);
    aio_wait_kick();
}

typedef struct FileTest {
    const char *path, *driver, *engine;
} FileTest;

static const FileTest file_tests[] = {
    { "/multiqueue/file/threads", "raw", "threads" },
    { "/multiqueue/file/native", "raw", "native" },
    { "/multiqueue/file/io_uring", "raw", "io_uring" },
    { "/multiqueue/throttle", "throttle", "threads" },
};

/* Few enough requests per second that some of each thread wait for their turn. */
static ThrottleGroup *slow_group(void)
{
    ThrottleConfig cfg;

    throttle_config_init(&cfg);
    cfg.buckets[THROTTLE_OPS_TOTAL].avg = 4000;
    return throttle_group_new("slow", &cfg, &error_abort);
}

static QDict *file_options(const FileTest *t, const char *path)
{
    const char *direct = strcmp(t->engine, "native") ? "off" : "on";
    QDict *options = qdict_new();

    qdict_put_str(options, "driver", t->driver);
    if (!strcmp(t->driver, "throttle")) {
        qdict_put_str(options, "throttle-group", "slow");
    }
    qdict_put_str(options, "file.driver", "file");
    qdict_put_str(options, "file.filename", path);
    qdict_put_str(options, "file.aio", t->engine);
    qdict_put_str(options, "file.cache.direct", direct);
    qdict_put_str(options, "cache.direct", direct);
    return options;
}

static void test_threads_share_a_file(gconstpointer data)
{
    const FileTest *t = data;
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "multiqueue.XXXXXX", NULL);
    int fd = g_mkstemp(path);
    Error *err = NULL;
    Writer w[THREADS];

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, FILE_BYTES), ==, 0);
    close(fd);
    ThrottleGroup *group = slow_group();
    BlockBackend *blk = blk_new_open(NULL, NULL, file_options(t, path), BDRV_O_RDWR, &err);
    if (!blk) {
        g_test_skip(error_get_pretty(err));     /* no O_DIRECT here, or no such engine */
        error_free(err);
        throttle_group_delete(group, &error_abort);
        unlink(path);
        return;
    }
    blk_set_allow_aio_context_change(blk, true);
    stop = false;
    running = THREADS;
    for (int i = 0; i < THREADS; i++) {
        w[i] = (Writer) { .blk = blk, .number = i };
        aio_co_enter(iothread_get_aio_context(io[i]),
                     qemu_coroutine_create(file_writer_entry, &w[i]));
    }
    for (int step = 0; step < test_rounds(STEPS / 3); step++) {
        move_once(blk_bs(blk), step);
        wait_for_a_round(&w[step % THREADS]);
    }
    qatomic_set(&stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&running) > 0);
    AioContext *ctx = blk_get_aio_context(blk);
    aio_context_acquire(ctx);
    blk_set_aio_context(blk, qemu_get_aio_context(), &error_abort);
    aio_context_release(ctx);
    blk_unref(blk);
    throttle_group_delete(group, &error_abort);
    unlink(path);
}

/* ---- a driver that has not said it can -------------------------------------------------------- */

static void coroutine_fn read_entry(void *opaque)
{
    uint8_t buf[PIECE_BYTES];
    blk_co_pread(opaque, 0, sizeof(buf), buf, 0);
}

static void read_in_another_thread(void)
{
    BlockDriverState *bs = test_node("node");
    BlockBackend *blk = test_backend(bs);
    aio_co_enter(iothread_get_aio_context(io[0]), qemu_coroutine_create(read_entry, blk));
    for (;;) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

static void test_other_drivers_are_protected(void)
{
    if (g_test_subprocess()) {
        read_in_another_thread();
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*is_multiqueue*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    for (int i = 0; i < THREADS; i++) {
        g_autofree char *id = g_strdup_printf("io%d", i);
        io[i] = iothread_create(id, &error_abort);
    }
    g_test_add_func("/multiqueue/share", test_threads_share_a_node);
    for (unsigned i = 0; i < ARRAY_SIZE(file_tests); i++) {
        g_test_add_data_func(file_tests[i].path, &file_tests[i], test_threads_share_a_file);
    }
    g_test_add_func("/multiqueue/protected", test_other_drivers_are_protected);
    int ret = g_test_run();
    for (int i = 0; i < THREADS; i++) {
        iothread_destroy(io[i]);
    }
    return ret;
}
