/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regression tests of known bug classes (QB-nn): requests that are held back by drained
 * sections.
 */
#include "drain-driver.h"
#include "loop-parts.h"
#include "miniblk/coroutine.h"
#include "miniblk/thread.h"

static IOThread *io;
static AioContext *io_ctx;
static char buffer[512];

/* ---- QB-28: every way into a drained backend -------------------------------------------- */

/*
 *      main                                coroutine
 *      drained_begin
 *                                          request: must park
 *      put another node under the backend
 *      drained_end
 *                                          goes on, to the new node
 */
static int entries;             /* of the counting driver */

static int coroutine_fn count_flush(BlockDriverState *bs)
{
    entries++;
    return 0;
}

static int coroutine_fn count_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    entries++;
    return 0;
}

static int coroutine_fn count_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                       PreallocMode prealloc, BdrvRequestFlags flags,
                                       Error **errp)
{
    entries++;
    return 0;
}

static int coroutine_fn count_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     BdrvRequestFlags flags)
{
    entries++;
    return 0;
}

static int coroutine_fn count_rw(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    entries++;
    return 0;
}

static int coroutine_fn count_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                     int64_t bytes, int64_t *pnum, int64_t *map,
                                     BlockDriverState **file)
{
    entries++;
    *pnum = bytes;
    return BDRV_BLOCK_DATA;
}

static BlockDriver bdrv_count = {
    .format_name = "count",
    .instance_size = sizeof(TestNode),
    .bdrv_co_preadv = count_rw,
    .bdrv_co_pwritev = count_rw,
    .bdrv_co_pwrite_zeroes = count_zeroes,
    .bdrv_co_pdiscard = count_discard,
    .bdrv_co_flush = count_flush,
    .bdrv_co_truncate = count_truncate,
    .bdrv_co_block_status = count_status,
};

static BlockDriverState *count_node(const char *name)
{
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_count, name,
                                                BDRV_O_RDWR | BDRV_O_UNMAP, &error_abort);
    bs->total_sectors = 1 << 11;
    return bs;
}

static int coroutine_fn way_read(BlockBackend *blk)
{
    return blk_co_pread(blk, 0, 512, buffer, 0);
}

static int coroutine_fn way_write(BlockBackend *blk)
{
    return blk_co_pwrite(blk, 0, 512, buffer, 0);
}

static int coroutine_fn way_zeroes(BlockBackend *blk)
{
    return blk_co_pwrite_zeroes(blk, 0, 512, 0);
}

static int coroutine_fn way_discard(BlockBackend *blk)
{
    return blk_co_pdiscard(blk, 0, 512);
}

static int coroutine_fn way_status(BlockBackend *blk)
{
    int64_t n;
    return MIN(blk_co_block_status(blk, 0, 512, &n, NULL, NULL), 0);
}

static int coroutine_fn way_flush(BlockBackend *blk)
{
    /* (a node that has not been written to has nothing to flush) */
    return blk_co_pwrite(blk, 0, 512, buffer, 0) ?: blk_co_flush(blk);
}

static int coroutine_fn way_flush_only(BlockBackend *blk)
{
    return blk_co_flush(blk);
}

static int coroutine_fn way_truncate(BlockBackend *blk)
{
    return blk_truncate(blk, 1 << 20, false, PREALLOC_MODE_OFF, 0, NULL);
}

static int coroutine_fn way_sync_discard(BlockBackend *blk)
{
    return blk_pdiscard(blk, 0, 512);
}

static int coroutine_fn way_sync_read(BlockBackend *blk)
{
    return blk_pread(blk, 0, 512, buffer, 0);
}

static const struct Way {
    const char *name;
    int coroutine_fn (*enter)(BlockBackend *blk);
    int entries;
} ways[] = {
    { "read", way_read, 1 },
    { "write", way_write, 1 },
    { "write-zeroes", way_zeroes, 1 },
    { "discard", way_discard, 1 },
    { "block-status", way_status, 1 },
    { "flush", way_flush_only, 0 },
    { "write-flush", way_flush, 2 },
    { "truncate", way_truncate, 1 },
    { "mixed-discard", way_sync_discard, 1 },
    { "mixed-read", way_sync_read, 1 },
};

typedef struct Entry {
    const struct Way *way;
    BlockBackend *blk;
    bool done;
} Entry;

static void coroutine_fn entry_entry(void *opaque)
{
    Entry *e = opaque;

    g_assert_cmpint(e->way->enter(e->blk), ==, 0);
    e->done = true;
}

static void run_main_loop_dry(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* until nothing is ready */
    }
}

static void test_qb28(gconstpointer opaque)
{
    BlockDriverState *old = count_node("old"), *new = count_node("new");
    Entry e = { .way = opaque, .blk = test_backend(old) };

    blk_set_perm(e.blk, BLK_PERM_ALL, BLK_PERM_ALL, &error_abort);
    bdrv_drained_begin(old);
    bdrv_drained_begin(new);
    entries = 0;
    qemu_coroutine_enter(qemu_coroutine_create(entry_entry, &e));
    run_main_loop_dry();
    g_assert_false(e.done);
    g_assert_cmpint(entries, ==, 0);
    bdrv_replace_node(old, new, &error_abort);
    bdrv_drained_end(old);
    run_main_loop_dry();
    g_assert_false(e.done);
    bdrv_unref(old);            /* whoever has kept a pointer to it will be sorry */
    bdrv_drained_end(new);
    run_main_loop_dry();
    g_assert_true(e.done);
    g_assert_cmpint(entries, ==, e.way->entries);
    blk_unref(e.blk);
    bdrv_unref(new);
}

/* ---- QB-30: woken by the end of a section, run in the next ------------------------------ */

/*
 *      main                                IOThread
 *                                          request parks
 *                                          busy with something else
 *      drained_end: schedules the request
 *      drained_begin: nothing in flight
 *                                          request runs: must park again
 */
typedef struct Latecomer {
    TestDisk d;
    Coroutine *co;
    bool done;                  /* atomic */
    bool parked, blocked;       /* atomic */
    QemuEvent go;
} Latecomer;

static void coroutine_fn latecomer_entry(void *opaque)
{
    Latecomer *l = opaque;

    g_assert_cmpint(blk_co_pread(l->d.blk, 0, 512, buffer, 0), ==, 0);
    qatomic_set_mb(&l->done, true);
    aio_wait_kick();
}

static void block_thread(void *opaque)
{
    Latecomer *l = opaque;

    qatomic_set_mb(&l->blocked, true);
    aio_wait_kick();
    qemu_event_wait(&l->go);
}

static void test_qb30(void)
{
    Latecomer l = { .d = test_disk_new("d", io_ctx) };
    TestNode *s = test_state(l.d.bs);

    qemu_event_init(&l.go, false);
    for (int i = 0; i < test_rounds(50); i++) {
        l.done = l.blocked = false;
        qemu_event_reset(&l.go);
        bdrv_drained_begin(l.d.bs);
        qatomic_set(&s->submit_forbidden, true);
        aio_co_schedule(io_ctx, qemu_coroutine_create(latecomer_entry, &l));
        aio_wait_bh_oneshot(io_ctx, test_nothing_bh, NULL);      /* it has parked */
        aio_bh_schedule_oneshot(io_ctx, block_thread, &l);
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&l.blocked));
        for (int n = 0; n <= i % 3; n++) {
            bdrv_drained_end(l.d.bs);
            bdrv_drained_begin(l.d.bs);
        }
        qemu_event_set(&l.go);
        aio_wait_bh_oneshot(io_ctx, test_nothing_bh, NULL);
        aio_wait_bh_oneshot(io_ctx, test_nothing_bh, NULL);
        g_assert_false(qatomic_read(&l.done));
        qatomic_set(&s->submit_forbidden, false);
        bdrv_drained_end(l.d.bs);
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&l.done));
    }
    qemu_event_destroy(&l.go);
    test_disk_free(&l.d);
}

static void read_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    qatomic_inc((int *)opaque);
}

/* ---- QB-38: a bottom half that will submit ---------------------------------------------- */

/*
 *      main                                IOThread
 *      token; schedule a bottom half that restarts requests
 *      drained_begin: waits for the token
 *                                          submits: parks; token back
 *      drained: nothing starts
 *      move the node; drained_end
 *                                          the request runs in the new home
 */
typedef struct Restart {
    TestDisk d;
    QEMUIOVector qiov;
    bool ran;                   /* atomic */
    int done;                   /* atomic */
} Restart;

static void restart_bh(void *opaque)
{
    Restart *r = opaque;

    g_assert_true(blk_get_aio_context(r->d.blk) == qemu_get_current_aio_context());
    blk_aio_preadv(r->d.blk, 0, &r->qiov, 0, read_done, &r->done);
    qatomic_set(&r->ran, true);
    blk_dec_in_flight(r->d.blk);
}

static void test_qb38(void)
{
    Restart r = { .d = test_disk_new("d", io_ctx) };

    r.qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(r.qiov, buffer, sizeof(buffer));
    for (int i = 0; i < test_rounds(100); i++) {
        AioContext *other = i & 1 ? io_ctx : qemu_get_aio_context();
        r.ran = false;
        blk_inc_in_flight(r.d.blk);
        aio_bh_schedule_oneshot(blk_get_aio_context(r.d.blk), restart_bh, &r);
        bdrv_drained_begin(r.d.bs);
        g_assert_true(qatomic_read(&r.ran));
        int done = qatomic_read(&r.done);
        qatomic_set(&test_state(r.d.bs)->submit_forbidden, done == i);
        test_move(blk_bs(r.d.blk), other);
        qatomic_set(&test_state(r.d.bs)->submit_forbidden, false);
        bdrv_drained_end(r.d.bs);
        AIO_WAIT_WHILE_UNLOCKED(NULL, (blk_drain(r.d.blk), qatomic_read(&r.done) == i));
    }
    test_disk_free(&r.d);
}

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(&io, &io_ctx, 1);

    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *path = g_strdup_printf("/classes/QB-28-way-into-a-drained-backend/%s",
                                                ways[i].name);
        g_test_add_data_func(path, &ways[i], test_qb28);
    }
    g_test_add_func("/classes/QB-30-woken-between-two-sections", test_qb30);
    g_test_add_func("/classes/QB-38-work-that-will-submit", test_qb38);
    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
