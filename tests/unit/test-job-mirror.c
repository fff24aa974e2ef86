/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirror job on disks in memory: contents against a shadow copy, under guests that write
 * all the time, drained sections, moves, errors, and every way to end.
 */
#include "miniblk/osdep.h"
#include "memory-disk.h"
#include "miniblk/atomic.h"
#include "miniblk/block-backend.h"
#include "miniblk/blockjob.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

enum {
    GRANULARITY = 4096,
    DISK_BYTES = (256 << 10) + 3 * 512,         /* the last granule is not whole */
    BUF_BYTES = 8 * GRANULARITY,                /* so there are many copies */
    GUESTS = 5,
    GUEST_BYTES = (DISK_BYTES / GUESTS) & ~511, /* no multiple of the granularity */
};

static IOThread *io[2];

/* ---- guests ----------------------------------------------------------------------------- */

typedef struct Rig Rig;

/* Writes to a range of its own, one request after the other. */
typedef struct Guest {
    Rig *rig;
    GRand *rand;
    int64_t first, offset, bytes;
    bool zeroes;
    uint8_t buf[8 * GRANULARITY];
    QEMUIOVector qiov;
} Guest;

struct Rig {
    MemoryDisk *source_disk, *target_disk;
    BlockDriverState *source, *target;
    BlockBackend *blk;                  /* of the guests */
    uint8_t shadow[DISK_BYTES];         /* what the guests see */
    Guest guests[GUESTS];
    int running;                        /* atomic */
    bool stop;                          /* atomic */
    int writes;                         /* atomic; that have ended */
};

static void guest_write(Guest *g);

static void guest_done(void *opaque, int ret)
{
    Guest *g = opaque;
    Rig *r = g->rig;

    g_assert_cmpint(ret, ==, 0);
    if (g->zeroes) {
        memset(r->shadow + g->offset, 0, g->bytes);
    } else {
        memcpy(r->shadow + g->offset, g->buf, g->bytes);
    }
    qatomic_inc(&r->writes);
    if (qatomic_read(&r->stop)) {
        qatomic_dec(&r->running);
        aio_wait_kick();
    } else {
        guest_write(g);
    }
}

static void guest_write(Guest *g)
{
    int64_t end;

    g->offset = g_rand_int_range(g->rand, 0, GUEST_BYTES);
    end = g->offset + g_rand_int_range(g->rand, 1, sizeof(g->buf));
    if (g_rand_boolean(g->rand)) {
        g->offset &= ~511;
        end = (end + 511) & ~511;
    }
    end = MIN(end, GUEST_BYTES);
    end = MIN(end, g->offset + (int64_t)sizeof(g->buf));
    g->bytes = end - g->offset;
    g->offset += g->first;
    g->zeroes = g_rand_int_range(g->rand, 0, 8) == 0;
    for (int64_t i = 0; i < g->bytes; i++) {
        g->buf[i] = g_rand_int(g->rand);
    }
    qemu_iovec_init_buf(&g->qiov, g->buf, g->bytes);
    blk_aio_pwritev(g->rig->blk, g->offset, &g->qiov, g->zeroes ? BDRV_REQ_ZERO_WRITE : 0,
                    guest_done, g);
}

static void guests_start(Rig *r)
{
    r->stop = false;
    r->running = GUESTS;
    for (int i = 0; i < GUESTS; i++) {
        r->guests[i].rig = r;
        r->guests[i].first = (int64_t)i * GUEST_BYTES;
        guest_write(&r->guests[i]);
    }
}

static void guests_stop(Rig *r)
{
    qatomic_set(&r->stop, true);
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read_sc(&r->running) > 0);
}

static void guests_make_progress(Rig *r, int writes)
{
    int until = qatomic_read(&r->writes) + writes;
    while (qatomic_read(&r->writes) - until < 0) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

/* ---- disks ------------------------------------------------------------------------------ */

static bool sector_is_zero(const MemoryDisk *d, int64_t offset)
{
    return buffer_is_zero(d->data->data + offset, MIN(512, d->data->len - offset));
}

/* Many short extents, and answers take their time: a copy has many steps. */
static int coroutine_fn disk_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                    int64_t bytes, int64_t *pnum, int64_t *map,
                                    BlockDriverState **file)
{
    MemoryDisk *d = memory_disk_of(bs);
    bool zero = sector_is_zero(d, offset);

    for (int i = memory_disk_delay(d); i > 0; i--) {
        aio_co_schedule(bdrv_get_aio_context(bs), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    for (*pnum = 512; *pnum < bytes && sector_is_zero(d, offset + *pnum) == zero; ) {
        *pnum += 512;
    }
    return zero ? BDRV_BLOCK_ZERO : BDRV_BLOCK_DATA;
}

static BlockDriverState *closed;        /* atomic; drained: nobody may use it */

static int coroutine_fn disk_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    g_assert_true(qatomic_read(&closed) != bs);
    return memory_disk_preadv(bs, offset, bytes, qiov, flags);
}

static int coroutine_fn disk_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    g_assert_true(qatomic_read(&closed) != bs);
    return memory_disk_pwritev(bs, offset, bytes, qiov, flags);
}

static BlockDriver disk_driver;         /* a memory-disk with the above */

/* ---- a disk of clusters ----------------------------------------------------------------- */

enum { CLUSTER = 8 * GRANULARITY };

static bool touched[DIV_ROUND_UP(DISK_BYTES, CLUSTER)];

/* The first write to a cluster fills all of it, as an image does without its backing file. */
static void touch(MemoryDisk *d, int64_t offset, int64_t bytes)
{
    for (int64_t c = offset / CLUSTER; c * CLUSTER < offset + bytes; c++) {
        if (!touched[c]) {
            touched[c] = true;
            memset(d->data->data + c * CLUSTER, 0, MIN(CLUSTER, DISK_BYTES - c * CLUSTER));
        }
    }
}

static int coroutine_fn clusters_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    touch(memory_disk_of(bs), offset, bytes);
    return disk_pwritev(bs, offset, bytes, qiov, flags);
}

static int coroutine_fn clusters_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags)
{
    touch(memory_disk_of(bs), offset, bytes);
    return memory_disk_zeroes(bs, offset, bytes, flags);
}

static int coroutine_fn clusters_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    bdi->cluster_size = CLUSTER;
    return 0;
}

static BlockDriver clusters_driver;     /* the disk above with these */

/* ---- the rig ---------------------------------------------------------------------------- */

static BlockDriverState *node(BlockDriver *driver, const char *name, MemoryDisk *d)
{
    memory_disk_to_open = d;
    return bdrv_new_open_driver(driver, name, BDRV_O_RDWR | BDRV_O_UNMAP,
                                &error_abort);
}

static MemoryDisk *random_disk(GRand *rand)
{
    MemoryDisk *d = memory_disk_new(NULL, 0);

    memory_disk_resize(d->data, DISK_BYTES);
    for (int i = 0; i < DISK_BYTES; i++) {
        d->data->data[i] = i / (3 * GRANULARITY) % 3 == 1 ? 0 : g_rand_int(rand);
    }
    d->late = g_rand_new_with_seed(g_rand_int(rand));
    return d;
}

static Rig *rig_new_with_target(AioContext *ctx, BlockDriver *target_driver)
{
    Rig *r = g_new0(Rig, 1);
    GRand *rand = g_rand_new_with_seed(g_test_rand_int());

    r->source_disk = random_disk(rand);
    r->target_disk = random_disk(rand);
    r->source = node(&disk_driver, "source", r->source_disk);
    r->target = node(target_driver, "target", r->target_disk);
    memcpy(r->shadow, r->source_disk->data->data, DISK_BYTES);
    r->blk = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                     BLK_PERM_ALL);
    blk_insert_bs(r->blk, r->source, &error_abort);
    monitor_add_blk(r->blk, "disk", &error_abort);
    blk_set_allow_aio_context_change(r->blk, true);
    if (ctx != qemu_get_aio_context()) {
        blk_set_aio_context(r->blk, ctx, &error_abort);
    }
    for (int i = 0; i < GUESTS; i++) {
        r->guests[i].rand = g_rand_new_with_seed(g_rand_int(rand));
    }
    g_rand_free(rand);
    return r;
}

static Rig *rig_new(AioContext *ctx)
{
    return rig_new_with_target(ctx, &disk_driver);
}

static void rig_free(Rig *r)
{
    monitor_remove_blk(r->blk);
    blk_unref(r->blk);
    g_assert_cmpint(r->source->refcnt, ==, 1);
    g_assert_cmpint(r->target->refcnt, ==, 1);
    g_assert_true(bdrv_get_aio_context(r->source) == qemu_get_aio_context());
    g_assert_true(bdrv_get_aio_context(r->target) == qemu_get_aio_context());
    bdrv_unref(r->source);
    bdrv_unref(r->target);
    g_assert_null(bdrv_find_node("filter"));
    for (int i = 0; i < GUESTS; i++) {
        g_rand_free(r->guests[i].rand);
    }
    memory_disk_free(r->source_disk);
    memory_disk_free(r->target_disk);
    g_free(r);
}

/* The first byte in which the disk differs from the shadow, or -1. */
static int64_t difference(const Rig *r, const MemoryDisk *d)
{
    for (int64_t i = 0; i < DISK_BYTES; i++) {
        if (d->data->data[i] != r->shadow[i]) {
            return i;
        }
    }
    return -1;
}

typedef struct Options {
    MirrorSyncMode sync;
    MirrorCopyMode copy_mode;
    BlockdevOnError on_source_error, on_target_error;
    int64_t speed;
    int flags;
} Options;

static Job *start_with(Rig *r, const Options *o)
{
    Error *err = NULL;

    mirror_start(NULL, r->source, r->target, NULL, o->flags, o->speed, GRANULARITY, BUF_BYTES,
                 o->sync, MIRROR_LEAVE_BACKING_CHAIN, o->sync == MIRROR_SYNC_MODE_FULL,
                 o->on_source_error, o->on_target_error, true, "filter", o->copy_mode, &err);
    g_assert_cmpstr(err ? error_get_pretty(err) : NULL, ==, NULL);
    JOB_LOCK_GUARD();
    Job *job = job_get_locked("disk");
    g_assert_nonnull(job);
    job_ref_locked(job);
    return job;
}

static void unref(Job *job)
{
    JOB_LOCK_GUARD();
    job_unref_locked(job);
}

static void wait_until_ready(Job *job)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, !job_is_ready(job) && !job_is_completed(job));
    g_assert_true(job_is_ready(job));
}

static int complete(Job *job)
{
    JOB_LOCK_GUARD();
    return job_complete_sync_locked(job, &error_abort);
}

/* ---- every way through ------------------------------------------------------------------ */

typedef enum End { COMPLETE, SOFT_CANCEL, FORCE_CANCEL, EARLY_CANCEL } End;

typedef struct Way {
    MirrorCopyMode copy_mode;
    bool iothread, drains, moves;
    End end;
    const char *name;
} Way;

static void disturb(Rig *r, const Way *w, int i)
{
    AioContext *stops[] = { iothread_get_aio_context(io[0]), qemu_get_aio_context(),
                            iothread_get_aio_context(io[1]) };
    BlockDriverState *nodes[] = { r->source, r->target, bdrv_find_node("filter") };
    BlockDriverState *bs = nodes[i % 3];

    if (w->drains && i % 4 == 3) {
        bdrv_drain_all();
    } else if (w->drains && bs) {
        bdrv_ref(bs);
        bdrv_drained_begin(bs);
        qatomic_set(&closed, bs);
        for (int k = 0; k < 20; k++) {
            aio_poll(qemu_get_aio_context(), false);
        }
        qatomic_set(&closed, NULL);
        bdrv_drained_end(bs);
        bdrv_unref(bs);
    }
    if (w->moves && bs) {
        AioContext *old = bdrv_get_aio_context(bs);
        aio_context_acquire(old);
        g_assert_cmpint(bdrv_try_change_aio_context(bs, stops[i / 3 % 3], NULL,
                                                    &error_abort), ==, 0);
        aio_context_release(old);
    }
}

static int end_it(Job *job, End end)
{
    return end == COMPLETE ? complete(job) : job_cancel_sync(job, end != SOFT_CANCEL);
}

static void test_way(gconstpointer opaque)
{
    const Way *w = opaque;
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .copy_mode = w->copy_mode };
    int rounds = g_test_quick() ? 2 : 60;

    for (int k = 0; k < rounds; k++) {
        Rig *r = rig_new(w->iothread ? iothread_get_aio_context(io[0])
                                     : qemu_get_aio_context());
        guests_start(r);
        guests_make_progress(r, 3);
        Job *job = start_with(r, &o);
        for (int i = 0; i < 12; i++) {
            disturb(r, w, i + k);
            guests_make_progress(r, 2);
        }
        if (w->end != EARLY_CANCEL) {
            wait_until_ready(job);
        }
        if (w->end == SOFT_CANCEL) {
            /* a copy of this moment: nobody writes then */
            guests_stop(r);
        }
        int ret = end_it(job, w->end);
        g_assert_cmpint(ret, ==, w->end == COMPLETE || w->end == SOFT_CANCEL ? 0 : -ECANCELED);
        unref(job);
        if (w->end != SOFT_CANCEL) {
            guests_make_progress(r, 3);
            guests_stop(r);
        }
        blk_drain(r->blk);
        g_assert_true(blk_bs(r->blk) == (w->end == COMPLETE ? r->target : r->source));
        g_assert_cmpint(difference(r, w->end == COMPLETE ? r->target_disk : r->source_disk),
                        ==, -1);
        if (w->end == SOFT_CANCEL) {
            g_assert_cmpint(difference(r, r->target_disk), ==, -1);
        }
        rig_free(r);
    }
}

static void add_ways(void)
{
    static const char *const ends[] = { "complete", "soft-cancel", "force-cancel",
                                        "early-cancel" };
    for (int bits = 0; bits < 16; bits++) {
        for (End end = COMPLETE; end <= EARLY_CANCEL; end++) {
            Way *w = g_new0(Way, 1);
            *w = (Way) {
                .copy_mode = bits & 1, .iothread = bits & 2, .drains = bits & 4,
                .moves = bits & 8, .end = end,
            };
            w->name = g_strdup_printf("/mirror/%s/%s%s%s/%s",
                                      w->copy_mode ? "write-blocking" : "background",
                                      w->iothread ? "iothread" : "main-loop",
                                      w->drains ? "/drains" : "", w->moves ? "/moves" : "",
                                      ends[end]);
            g_test_add_data_func(w->name, w, test_way);
        }
    }
}

/* What a cluster of the target shows once anything was written there is all from the source. */
static void test_clusters_are_copied_whole(gconstpointer opaque)
{
    const Way *w = opaque;
    Options o = { .sync = MIRROR_SYNC_MODE_NONE, .copy_mode = w->copy_mode };
    int rounds = g_test_quick() ? 10 : 100, clusters = 0;

    for (int k = 0; k < rounds; k++) {
        memset(touched, 0, sizeof(touched));
        Rig *r = rig_new_with_target(w->iothread ? iothread_get_aio_context(io[0])
                                                 : qemu_get_aio_context(), &clusters_driver);
        Job *job = start_with(r, &o);
        guests_start(r);
        for (int i = 0; i < 6; i++) {
            disturb(r, w, i + k);
        }
        guests_stop(r);
        wait_until_ready(job);
        g_assert_cmpint(end_it(job, w->end), ==, 0);
        unref(job);
        for (size_t c = 0; c < G_N_ELEMENTS(touched); c++) {
            size_t bytes = MIN(CLUSTER, DISK_BYTES - c * CLUSTER);
            g_assert_true(!touched[c] ||
                          !memcmp(r->target_disk->data->data + c * CLUSTER,
                                  r->shadow + c * CLUSTER, bytes));
            clusters += touched[c];
        }
        rig_free(r);
    }
    g_assert_cmpint(clusters, >, 0);
}

static void add_cluster_ways(void)
{
    static const Way ways[] = {
        { MIRROR_COPY_MODE_BACKGROUND, true, true, true, SOFT_CANCEL,
          "/mirror/clusters-are-whole/background" },
        { MIRROR_COPY_MODE_WRITE_BLOCKING, true, true, true, SOFT_CANCEL,
          "/mirror/clusters-are-whole/write-blocking" },
        { MIRROR_COPY_MODE_WRITE_BLOCKING, false, true, false, SOFT_CANCEL,
          "/mirror/clusters-are-whole/main-loop" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
        g_test_add_data_func(ways[i].name, &ways[i], test_clusters_are_copied_whole);
    }
}

/* ---- modes ------------------------------------------------------------------------------ */

static void test_sync_none_copies_only_what_is_written(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_NONE };
    g_autofree uint8_t *old = g_memdup2(r->target_disk->data->data, DISK_BYTES);
    uint8_t buf[512];

    memset(buf, 0x5a, sizeof(buf));
    Job *job = start_with(r, &o);
    wait_until_ready(job);
    g_assert_cmpint(blk_pwrite(r->blk, 2 * GRANULARITY, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(complete(job), ==, 0);
    unref(job);
    memcpy(old + 2 * GRANULARITY, r->source_disk->data->data + 2 * GRANULARITY, GRANULARITY);
    g_assert_cmpmem(old, DISK_BYTES, r->target_disk->data->data, DISK_BYTES);
    rig_free(r);
}

static void test_change_to_write_blocking(void)
{
    Rig *r = rig_new(iothread_get_aio_context(io[0]));
    Options o = { .sync = MIRROR_SYNC_MODE_FULL };
    BlockJobChangeOptions change = { "disk", JOB_TYPE_MIRROR,
                                     MIRROR_COPY_MODE_WRITE_BLOCKING };
    g_autoptr(Error) err = NULL;

    guests_start(r);
    Job *job = start_with(r, &o);
    guests_make_progress(r, 20);
    WITH_JOB_LOCK_GUARD() {
        block_job_change_locked(container_of(job, BlockJob, job), &change, &error_abort);
    }
    guests_make_progress(r, 50);
    wait_until_ready(job);
    change.copy_mode = MIRROR_COPY_MODE_BACKGROUND;
    WITH_JOB_LOCK_GUARD() {
        block_job_change_locked(container_of(job, BlockJob, job), &change, &err);
    }
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Change to copy mode 'background' is not implemented");
    g_assert_cmpint(complete(job), ==, 0);
    unref(job);
    guests_stop(r);
    g_assert_cmpint(difference(r, r->target_disk), ==, -1);
    rig_free(r);
}

static void count_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    ++*(int *)opaque;
}

/*
 * The mode is switched while a write is in flight that has not taken its granule.
 *
 *      A (background)          B (write-blocking), other bytes of the same granule
 *      begins
 *                              takes the granule: it is clean
 *      is in the source: the granule is dirty
 *                              is in both: is the granule clean again?
 */
static void test_change_with_a_write_in_flight(void)
{
    BlockJobChangeOptions change = { "disk", JOB_TYPE_MIRROR,
                                     MIRROR_COPY_MODE_WRITE_BLOCKING };
    Options o = { .sync = MIRROR_SYNC_MODE_NONE };
    uint8_t a[512], b[512];
    QEMUIOVector qa = QEMU_IOVEC_INIT_BUF(qa, a, 512), qb = QEMU_IOVEC_INIT_BUF(qb, b, 512);

    memset(a, 0xaa, sizeof(a));
    memset(b, 0xbb, sizeof(b));
    for (int i = 0; i < (g_test_quick() ? 150 : 5000); i++) {
        Rig *r = rig_new(qemu_get_aio_context());
        int done = 0;

        Job *job = start_with(r, &o);
        wait_until_ready(job);
        blk_aio_pwritev(r->blk, 0, &qa, 0, count_done, &done);
        WITH_JOB_LOCK_GUARD() {
            block_job_change_locked(container_of(job, BlockJob, job), &change, &error_abort);
        }
        blk_aio_pwritev(r->blk, 1024, &qb, 0, count_done, &done);
        AIO_WAIT_WHILE_UNLOCKED(NULL, done < 2);
        g_assert_cmpint(complete(job), ==, 0);
        unref(job);
        g_assert_cmpmem(r->target_disk->data->data, 512, a, 512);
        g_assert_cmpmem(r->target_disk->data->data + 1024, 512, b, 512);
        rig_free(r);
    }
}

/* In write-blocking mode both sides are equal whenever no request is in flight. */
static void test_write_blocking_keeps_both_equal(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_FULL,
                  .copy_mode = MIRROR_COPY_MODE_WRITE_BLOCKING };
    Job *job = start_with(r, &o);

    wait_until_ready(job);
    for (int i = 0; i < 10; i++) {
        job_pause(job);         /* the job itself copies nothing */
        guests_start(r);
        guests_make_progress(r, 20);
        guests_stop(r);
        g_assert_cmpint(difference(r, r->target_disk), ==, -1);
        job_resume(job);
    }
    g_assert_cmpint(job_cancel_sync(job, true), ==, -ECANCELED);
    unref(job);
    rig_free(r);
}

/* ---- the end ---------------------------------------------------------------------------- */

/*
 * QB-54: no write is lost between the decision to complete and the switch. The decision is
 * days old here: the job has been pending while guests went on writing.
 */
static void test_qb54_pending_while_guests_write(gconstpointer opaque)
{
    Rig *r = rig_new(opaque ? iothread_get_aio_context(io[0]) : qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .flags = JOB_MANUAL_FINALIZE };
    Job *job = start_with(r, &o);

    guests_start(r);
    wait_until_ready(job);
    g_assert_cmpint(complete(job), ==, 0);
    g_assert_cmpint(job->status, ==, JOB_STATUS_PENDING);
    guests_make_progress(r, 200);
    WITH_JOB_LOCK_GUARD() {
        job_finalize_locked(job, &error_abort);
    }
    g_assert_cmpint(job->status, ==, JOB_STATUS_NULL);
    g_assert_cmpint(job->ret, ==, 0);
    guests_make_progress(r, 20);
    guests_stop(r);
    g_assert_true(blk_bs(r->blk) == r->target);
    g_assert_cmpint(difference(r, r->target_disk), ==, -1);
    unref(job);
    rig_free(r);
}

static void test_cancel_while_pending(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .flags = JOB_MANUAL_FINALIZE };
    Job *job = start_with(r, &o);

    wait_until_ready(job);
    g_assert_cmpint(complete(job), ==, 0);
    g_assert_cmpint(job_cancel_sync(job, true), ==, -ECANCELED);
    g_assert_true(blk_bs(r->blk) == r->source);
    unref(job);
    rig_free(r);
}

static void test_error_in_the_last_copy(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .flags = JOB_MANUAL_FINALIZE,
                  .on_target_error = BLOCKDEV_ON_ERROR_STOP };
    Job *job = start_with(r, &o);

    wait_until_ready(job);
    g_assert_cmpint(complete(job), ==, 0);
    guests_start(r);
    guests_make_progress(r, 5);
    guests_stop(r);
    r->target_disk->fail_in = 1;
    WITH_JOB_LOCK_GUARD() {
        job_finalize_locked(job, &error_abort);
    }
    g_assert_cmpint(job->ret, ==, -EIO);
    g_assert_cmpint(job->status, ==, JOB_STATUS_NULL);
    g_assert_true(blk_bs(r->blk) == r->source);
    unref(job);
    rig_free(r);
}

/* Somebody else must not let the guests' writes be shared with others: the pivot fails. */
static void test_pivot_refused(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .flags = JOB_MANUAL_DISMISS };
    Job *job = start_with(r, &o);
    /* may read the target's unfinished data, and forbids everybody to write */
    BlockBackend *other = blk_new(qemu_get_aio_context(), 0,
                                  BLK_PERM_ALL & ~BLK_PERM_CONSISTENT_READ);

    wait_until_ready(job);
    blk_insert_bs(other, r->target, &error_abort);
    g_assert_cmpint(complete(job), ==, -EPERM);
    g_assert_nonnull(strstr(error_get_pretty(job->err),
                            "Permission conflict on node 'target'"));
    g_assert_true(blk_bs(r->blk) == r->source);
    WITH_JOB_LOCK_GUARD() {
        job_cancel_locked(job, true);
    }
    unref(job);
    blk_unref(other);
    rig_free(r);
}

/* ---- errors ----------------------------------------------------------------------------- */

static GString *errors_told;

static void listener(const JobNews *news)
{
    static const char *const actions[] = { "ignore", "report", "stop" };
    if (news->kind == JOB_NEWS_ERROR) {
        g_string_append_printf(errors_told, "%s:%s ", news->operation_write ? "write" : "read",
                               actions[news->action]);
    }
}

typedef struct ErrorCase {
    const char *path;
    bool of_target;
    BlockdevOnError on_error;
    const char *told;
    int ret;                    /* of the job */
    bool stops;
} ErrorCase;

static const ErrorCase error_cases[] = {
    { "/mirror/error/source/report", false, BLOCKDEV_ON_ERROR_REPORT, "read:report ", -EIO },
    { "/mirror/error/source/ignore", false, BLOCKDEV_ON_ERROR_IGNORE, "read:ignore ", 0 },
    { "/mirror/error/source/stop", false, BLOCKDEV_ON_ERROR_STOP, "read:stop ", 0, true },
    { "/mirror/error/source/enospc", false, BLOCKDEV_ON_ERROR_ENOSPC, "read:report ", -EIO },
    { "/mirror/error/target/report", true, BLOCKDEV_ON_ERROR_REPORT, "write:report ", -EIO },
    { "/mirror/error/target/ignore", true, BLOCKDEV_ON_ERROR_IGNORE, "write:ignore ", 0 },
    { "/mirror/error/target/stop", true, BLOCKDEV_ON_ERROR_STOP, "write:stop ", 0, true },
    { "/mirror/error/target/auto", true, BLOCKDEV_ON_ERROR_AUTO, "write:report ", -EIO },
};

static void test_error(gconstpointer opaque)
{
    const ErrorCase *c = opaque;
    Rig *r = rig_new(iothread_get_aio_context(io[0]));
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .flags = JOB_MANUAL_DISMISS };

    errors_told = g_string_new(NULL);
    job_set_listener(listener);
    *(c->of_target ? &o.on_target_error : &o.on_source_error) = c->on_error;
    (c->of_target ? r->target_disk : r->source_disk)->fail_in = 7;
    Job *job = start_with(r, &o);
    BlockJob *bjob = container_of(job, BlockJob, job);
    if (c->stops) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, !job_is_paused(job));
        JOB_LOCK_GUARD();
        g_assert_true(job_user_paused_locked(job));
        g_assert_cmpint(bjob->iostatus, ==, BLOCK_DEVICE_IO_STATUS_FAILED);
        job_user_resume_locked(job, &error_abort);
        g_assert_cmpint(bjob->iostatus, ==, BLOCK_DEVICE_IO_STATUS_OK);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, !job_is_ready(job) && !job_is_completed(job));
    if (job_is_ready(job)) {
        g_assert_cmpint(complete(job), ==, c->ret);
        g_assert_cmpint(difference(r, r->target_disk), ==, -1);
    } else {
        WITH_JOB_LOCK_GUARD() {
            g_assert_cmpint(job_finish_sync_locked(job, NULL, NULL), ==, c->ret);
        }
        g_assert_true(blk_bs(r->blk) == r->source);
    }
    g_assert_cmpstr(errors_told->str, ==, c->told);
    WITH_JOB_LOCK_GUARD() {
        job_cancel_locked(job, true);
    }
    unref(job);
    job_set_listener(NULL);
    g_string_free(errors_told, true);
    rig_free(r);
}

/* A target that loses one guest's write is written again by the job. */
static void test_error_in_a_guests_write(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .on_target_error = BLOCKDEV_ON_ERROR_IGNORE,
                  .copy_mode = MIRROR_COPY_MODE_WRITE_BLOCKING };
    Job *job = start_with(r, &o);

    wait_until_ready(job);
    guests_start(r);
    r->target_disk->fail_in = 10;
    guests_make_progress(r, 60);
    guests_stop(r);
    g_assert_cmpint(r->target_disk->fail_in, ==, 0);
    g_assert_cmpint(complete(job), ==, 0);
    g_assert_cmpint(difference(r, r->target_disk), ==, -1);
    unref(job);
    rig_free(r);
}

/* ---- refused at the start --------------------------------------------------------------- */

static void expect_refused(Rig *r, BlockDriverState *target, const char *id,
                           const char *filter, MirrorSyncMode sync, int64_t buf_size,
                           const char *message)
{
    g_autoptr(Error) err = NULL;

    mirror_start(id, r->source, target, NULL, 0, 0, 0, buf_size, sync,
                 MIRROR_LEAVE_BACKING_CHAIN, false, 0, 0, false, filter, 0, &err);
    g_assert_nonnull(err);
    if (!strstr(error_get_pretty(err), message)) {
        g_assert_cmpstr(error_get_pretty(err), ==, message);
    }
    g_assert_true(blk_bs(r->blk) == r->source);
    g_assert_null(job_next(NULL));
}

static void test_refused(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    const MirrorSyncMode full = MIRROR_SYNC_MODE_FULL;

    expect_refused(r, r->source, NULL, NULL, full, 0, "Can't mirror node into itself");
    expect_refused(r, r->target, "1", NULL, full, 0, "Invalid job ID '1'");
    expect_refused(r, r->target, NULL, "0", full, 0, "Invalid node-name: '0'");
    expect_refused(r, r->target, NULL, "target", full, 0, "Duplicate nodes");
    expect_refused(r, r->target, NULL, NULL, full, -1, "Invalid parameter 'buf-size'");
    expect_refused(r, r->target, NULL, NULL, MIRROR_SYNC_MODE_BITMAP, 0,
                   "Sync mode 'bitmap' not supported");

    BlockBackend *reader = blk_new(qemu_get_aio_context(), BLK_PERM_CONSISTENT_READ,
                                   BLK_PERM_ALL);
    blk_insert_bs(reader, r->target, &error_abort);
    expect_refused(r, r->target, NULL, NULL, full, 0, "Permission conflict on node 'target'");
    blk_unref(reader);

    /* held where it is */
    BlockBackend *fixed = blk_new(iothread_get_aio_context(io[0]), 0, BLK_PERM_ALL);
    blk_insert_bs(fixed, r->target, &error_abort);
    blk_set_allow_aio_context_change(r->blk, false);
    expect_refused(r, r->target, NULL, NULL, full, 0, "Cannot change iothread of active");
    blk_unref(fixed);
    rig_free(r);
}

/* ---- speed ------------------------------------------------------------------------------ */

static void test_speed(void)
{
    Rig *r = rig_new(qemu_get_aio_context());
    Options o = { .sync = MIRROR_SYNC_MODE_FULL, .speed = 1 };  /* a byte per second */
    Job *job = start_with(r, &o);
    BlockJob *bjob = container_of(job, BlockJob, job);
    g_autoptr(Error) err = NULL;

    for (int i = 0; i < 1000; i++) {
        aio_poll(qemu_get_aio_context(), false);
    }
    g_assert_false(job_is_ready(job));
    WITH_JOB_LOCK_GUARD() {
        g_assert_cmpint(job->progress.current, <=, 2 * GRANULARITY);
    }
    g_assert_false(block_job_set_speed(bjob, -1, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Parameter 'speed' expects a non-negative value");
    /* a drain, and a job that sleeps for an hour */
    bdrv_drain_all();
    g_assert_true(block_job_set_speed(bjob, 0, &error_abort));
    wait_until_ready(job);
    g_assert_cmpint(complete(job), ==, 0);
    g_assert_cmpint(difference(r, r->target_disk), ==, -1);
    unref(job);
    rig_free(r);
}

/* ---- main ------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_init(&argc, &argv, NULL);
    disk_driver = memory_disk_driver;
    disk_driver.bdrv_co_block_status = disk_status;
    disk_driver.bdrv_co_preadv = disk_preadv;
    disk_driver.bdrv_co_pwritev = disk_pwritev;
    clusters_driver = disk_driver;
    clusters_driver.bdrv_co_pwritev = clusters_pwritev;
    clusters_driver.bdrv_co_pwrite_zeroes = clusters_zeroes;
    clusters_driver.bdrv_co_get_info = clusters_info;
    io[0] = iothread_create("io0", &error_abort);
    io[1] = iothread_create("io1", &error_abort);

    add_ways();
    add_cluster_ways();
    g_test_add_func("/mirror/sync-none", test_sync_none_copies_only_what_is_written);
    g_test_add_func("/mirror/change-copy-mode", test_change_to_write_blocking);
    g_test_add_func("/mirror/change-copy-mode/write-in-flight",
                    test_change_with_a_write_in_flight);
    g_test_add_func("/mirror/write-blocking/equal", test_write_blocking_keeps_both_equal);
    g_test_add_data_func("/mirror/QB-54/pending-while-guests-write/main-loop", NULL,
                         test_qb54_pending_while_guests_write);
    g_test_add_data_func("/mirror/QB-54/pending-while-guests-write/iothread", "io",
                         test_qb54_pending_while_guests_write);
    g_test_add_func("/mirror/cancel-while-pending", test_cancel_while_pending);
    g_test_add_func("/mirror/pivot-refused", test_pivot_refused);
    g_test_add_func("/mirror/error/last-copy", test_error_in_the_last_copy);
    g_test_add_func("/mirror/error/guests-write", test_error_in_a_guests_write);
    for (size_t i = 0; i < ARRAY_SIZE(error_cases); i++) {
        g_test_add_data_func(error_cases[i].path, &error_cases[i], test_error);
    }
    g_test_add_func("/mirror/refused", test_refused);
    g_test_add_func("/mirror/speed", test_speed);

    int ret = g_test_run();
    iothread_destroy(io[0]);
    iothread_destroy(io[1]);
    return ret;
}
