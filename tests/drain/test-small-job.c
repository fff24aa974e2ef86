/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The smallest cases of jobs and drained sections: one job, one section, one write of a guest,
 * so that a controlled scheduler can try many of their interleavings.
 */
#include "drain-driver.h"
#include "miniblk/blockjob.h"
#include "miniblk/graph-lock.h"
#include "tests/unit/memory-disk.h"

static IOThread *io;
static AioContext *io_ctx;

/* ---- a job that sleeps ------------------------------------------------------------------ */

typedef struct SleepyJob {
    BlockJob common;
    bool finish;                /* atomic */
} SleepyJob;

static int coroutine_fn sleepy_run(Job *job, Error **errp)
{
    SleepyJob *s = container_of(job, SleepyJob, common.job);

    while (!qatomic_read(&s->finish)) {
        job_sleep_ns(job, 1000);
    }
    return 0;
}

static const BlockJobDriver sleepy_job = {
    .job_driver = {
        .instance_size = sizeof(SleepyJob),
        .free = block_job_free,
        .user_resume = block_job_user_resume,
        .run = sleepy_run,
    },
};

static SleepyJob *sleepy_start(BlockDriverState *bs)
{
    SleepyJob *s = block_job_create("job0", &sleepy_job, NULL, bs, 0, BLK_PERM_ALL, 0,
                                    JOB_DEFAULT, NULL, NULL, &error_abort);
    job_start(&s->common.job);
    return s;
}

static void sleepy_finish(SleepyJob *s)
{
    qatomic_set(&s->finish, true);
    WITH_JOB_LOCK_GUARD() {
        g_assert_cmpint(job_finish_sync_locked(&s->common.job, NULL, &error_abort), ==, 0);
    }
}

static BlockDriverState *job_node(gconstpointer in_iothread)
{
    BlockDriverState *bs = test_node("d");

    if (in_iothread) {
        bdrv_try_change_aio_context(bs, io_ctx, NULL, &error_abort);
    }
    return bs;
}

static void job_node_free(BlockDriverState *bs)
{
    AioContext *ctx = bdrv_get_aio_context(bs);

    aio_context_acquire(ctx);
    bdrv_try_change_aio_context(bs, qemu_get_aio_context(), NULL, &error_abort);
    aio_context_release(ctx);
    bdrv_unref(bs);
}

static void test_job_paused(gconstpointer in_iothread)
{
    BlockDriverState *bs = job_node(in_iothread);
    SleepyJob *s = sleepy_start(bs);

    bdrv_drained_begin(bs);
    g_assert_true(job_is_paused(&s->common.job));
    bdrv_drained_end(bs);
    sleepy_finish(s);
    job_node_free(bs);
}

/*
 *      job                     main
 *      has nothing left to do
 *                              begin: the job has ended with all that follows, or is paused
 *                              nothing happens to it in the section
 */
static void test_job_end(gconstpointer in_iothread)
{
    BlockDriverState *bs = job_node(in_iothread);
    SleepyJob *s = sleepy_start(bs);

    WITH_JOB_LOCK_GUARD() {
        job_ref_locked(&s->common.job);
    }
    qatomic_set(&s->finish, true);
    bdrv_drained_begin(bs);
    bool ended = job_is_completed(&s->common.job);
    g_assert_true(ended || job_is_paused(&s->common.job));
    aio_poll(qemu_get_aio_context(), false);
    g_assert_cmpint(job_is_completed(&s->common.job), ==, ended);
    bdrv_drained_end(bs);
    WITH_JOB_LOCK_GUARD() {
        job_finish_sync_locked(&s->common.job, NULL, &error_abort);
        job_unref_locked(&s->common.job);
    }
    job_node_free(bs);
}

/* A job is paused, and somebody wants to write to the graph. */
static void test_job_writer(gconstpointer in_iothread)
{
    BlockDriverState *bs = job_node(in_iothread);
    SleepyJob *s = sleepy_start(bs);

    bdrv_drained_begin(bs);
    bdrv_graph_wrlock();
    bdrv_graph_wrunlock();
    bdrv_drained_end(bs);
    sleepy_finish(s);
    job_node_free(bs);
}

/* ---- the end of a mirror ---------------------------------------------------------------- */

enum { MIRROR_BYTES = 2 * 4096 };

/* A guest that writes when the target is flushed after the last copy. */
typedef struct Guest {
    BlockBackend *blk;          /* NULL: it does not write; I/O */
    QEMUIOVector qiov;
    char buffer[512];
    bool done;                  /* atomic */
} Guest;

static Guest guest;

static void guest_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    qatomic_set_mb(&guest.done, true);
    aio_wait_kick();
}

static int coroutine_fn target_flush(BlockDriverState *bs)
{
    BlockBackend *blk = g_steal_pointer(&guest.blk);

    if (blk) {
        blk_aio_pwritev(blk, 0, &guest.qiov, 0, guest_done, NULL);
    }
    return 0;
}

static BlockDriver source_driver, target_driver;

static BlockDriverState *disk_node(BlockDriver *drv, const char *name, MemoryDisk *d)
{
    memory_disk_resize(d->data, MIRROR_BYTES);
    memory_disk_to_open = d;
    return bdrv_new_open_driver(drv, name, BDRV_O_RDWR, &error_abort);
}

/* It needs no more than a guest does. */
static BlockBackend *guest_backend(BlockDriverState *bs)
{
    BlockBackend *blk = blk_new(qemu_get_aio_context(),
                                BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);

    blk_insert_bs(blk, bs, &error_abort);
    blk_set_allow_aio_context_change(blk, true);
    return blk;
}

static Job *mirror_until_ready(BlockDriverState *source, BlockDriverState *target)
{
    Job *job;

    mirror_start("job0", source, target, NULL, JOB_DEFAULT, 0, 4096, MIRROR_BYTES,
                 MIRROR_SYNC_MODE_FULL, MIRROR_LEAVE_BACKING_CHAIN, true,
                 BLOCKDEV_ON_ERROR_REPORT, BLOCKDEV_ON_ERROR_REPORT, false, "filter",
                 MIRROR_COPY_MODE_BACKGROUND, &error_abort);
    WITH_JOB_LOCK_GUARD() {
        job = job_get_locked("job0");
        job_ref_locked(job);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, !job_is_ready(job));
    return job;
}

static void complete(Job *job)
{
    JOB_LOCK_GUARD();
    g_assert_cmpint(job_complete_sync_locked(job, &error_abort), ==, 0);
    job_unref_locked(job);
}

/*
 *      guest                   main
 *                              section of the source: copies what is left
 *      writes: waits
 *                              switches to the target, in the same section
 *                              end
 *      writes to the target
 */
static void test_mirror_switch(gconstpointer in_iothread)
{
    MemoryDisk *disks[2] = { memory_disk_new(NULL, 0), memory_disk_new(NULL, 0) };
    BlockDriverState *source = disk_node(&source_driver, "source", disks[0]);
    BlockDriverState *target = disk_node(&target_driver, "target", disks[1]);
    BlockBackend *blk = guest_backend(source);
    char back[512];

    if (in_iothread) {
        blk_set_aio_context(blk, io_ctx, &error_abort);
    }
    guest = (Guest) { .blk = NULL };
    Job *job = mirror_until_ready(source, target);
    memset(guest.buffer, 'g', sizeof(guest.buffer));
    guest.qiov = (QEMUIOVector)QEMU_IOVEC_INIT_BUF(guest.qiov, guest.buffer, 512);
    /* something to be copied, and so to be flushed, at the end */
    g_assert_cmpint(blk_pwrite(blk, 4096, 512, guest.buffer, 0), ==, 0);
    guest.blk = blk;
    complete(job);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&guest.done));
    g_assert_true(blk_bs(blk) == target);
    g_assert_cmpint(blk_pread(blk, 0, sizeof(back), back, 0), ==, 0);
    g_assert_cmpmem(back, sizeof(back), guest.buffer, sizeof(guest.buffer));
    blk_set_aio_context(blk, qemu_get_aio_context(), &error_abort);
    blk_unref(blk);
    for (int i = 0; i < 2; i++) {
        bdrv_unref(i ? target : source);
        memory_disk_free(disks[i]);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*fn)(gconstpointer in_iothread);
    } cases[] = {
        { "/small/job/paused", test_job_paused },
        { "/small/job/end-in-a-section", test_job_end },
        { "/small/job/writer", test_job_writer },
        { "/small/mirror/write-at-the-switch", test_mirror_switch },
    };

    test_init(&argc, &argv);
    test_threads_start(&io, &io_ctx, 1);
    aio_context_set_poll_params(io_ctx, 0, 0, 0, &error_abort);
    source_driver = target_driver = memory_disk_driver;
    target_driver.bdrv_co_flush_to_disk = target_flush;
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("%s/%s", cases[i / 2].path,
                                                i & 1 ? "iothread" : "main-loop");
        g_test_add_data_func(path, i & 1 ? "iothread" : NULL, cases[i / 2].fn);
    }
    int ret = g_test_run();
    test_threads_stop(&io, 1);
    return ret;
}
