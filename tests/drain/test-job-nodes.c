/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block jobs and their nodes: drained sections, moves, edges, and the ends of jobs in them. */
#include "drain-driver.h"
#include "miniblk/blockjob.h"

static IOThread *io;
static AioContext *io_ctx;

/* ---- a block job that is busy all the time ---------------------------------------------- */

typedef struct TestBlockJob {
    BlockJob common;
    BlockDriverState *bs;       /* drained in the callbacks of the end; or NULL */
    int run_ret, prepare_ret;
    bool sleeps_idle;           /* in job_sleep_ns(), which a drain need not wait for */
    bool drain_poll_says_no;
    bool running;               /* atomic */
    bool should_complete;       /* atomic */
    int rounds;                 /* atomic */
} TestBlockJob;

static TestBlockJob *test_job(Job *job)
{
    return container_of(job, TestBlockJob, common.job);
}

static int coroutine_fn test_run(Job *job, Error **errp)
{
    TestBlockJob *t = test_job(job);

    job_transition_to_ready(job);
    /* Who waits for it may complete us. The store is to land before the kick looks for them. */
    qatomic_set_mb(&t->running, true);
    aio_wait_kick();
    while (!qatomic_read(&t->should_complete) && !job_is_cancelled(job)) {
        g_assert_true(qemu_get_current_aio_context() == job->aio_context);
        qatomic_inc(&t->rounds);
        if (t->sleeps_idle) {
            job_sleep_ns(job, 0);
        } else {
            qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 10000);   /* as if a request took so long */
            job_pause_point(job);
        }
    }
    g_assert_true(qemu_get_current_aio_context() == job->aio_context);
    return t->run_ret;
}

static void test_complete(Job *job, Error **errp)
{
    qatomic_set(&test_job(job)->should_complete, true);
}

/* The end of a job may wait: no drained section waits for it then. */
static void drain_something(Job *job)
{
    TestBlockJob *t = test_job(job);

    g_assert_true(qemu_get_current_aio_context() == qemu_get_aio_context());
    if (t->bs) {
        bdrv_drain(t->bs);
        bdrv_flush(t->bs);
    }
}

static int test_prepare(Job *job)
{
    drain_something(job);
    return test_job(job)->prepare_ret;
}

static bool test_drained_poll(BlockJob *bjob)
{
    return !container_of(bjob, TestBlockJob, common)->drain_poll_says_no;
}

static const BlockJobDriver test_job_driver = {
    .job_driver = {
        .instance_size = sizeof(TestBlockJob),
        .free = block_job_free,
        .user_resume = block_job_user_resume,
        .run = test_run,
        .complete = test_complete,
        .prepare = test_prepare,
        .commit = drain_something,
        .abort = drain_something,
        .clean = drain_something,
    },
};

static const BlockJobDriver test_job_with_poll_driver = {
    .job_driver = {
        .instance_size = sizeof(TestBlockJob),
        .free = block_job_free,
        .user_resume = block_job_user_resume,
        .run = test_run,
        .complete = test_complete,
    },
    .drained_poll = test_drained_poll,
};

static TestBlockJob *new_job(const BlockJobDriver *driver, BlockDriverState *bs, int flags)
{
    TestBlockJob *t = block_job_create("job0", driver, NULL, bs, 0, BLK_PERM_ALL, 0, flags,
                                       NULL, NULL, &error_abort);
    return t;
}

static void start(TestBlockJob *t)
{
    job_start(&t->common.job);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read(&t->running));
}

static void wait_for_round(TestBlockJob *t)
{
    int before = qatomic_read(&t->rounds);
    while (qatomic_read(&t->rounds) == before) {
        aio_poll(qemu_get_aio_context(), false);
    }
}

static int complete(TestBlockJob *t)
{
    JOB_LOCK_GUARD();
    return job_complete_sync_locked(&t->common.job, &error_abort);
}

static void set_context(BlockDriverState *bs, AioContext *ctx)
{
    AioContext *old = bdrv_get_aio_context(bs);
    aio_context_acquire(old);
    bdrv_try_change_aio_context(bs, ctx, NULL, &error_abort);
    aio_context_release(old);
}

/* ---- drain ------------------------------------------------------------------------------ */

typedef enum What { DRAIN_NODE, DRAIN_CHILD, DRAIN_TARGET, DRAIN_ALL } What;

/* overlay -> src -> backing;  the job has src and target */
typedef struct Rig {
    BlockDriverState *overlay, *src, *backing, *target;
    TestBlockJob *t;
} Rig;

static void drain_begin(Rig *r, What what)
{
    BlockDriverState *nodes[] = { r->src, r->backing, r->target };
    if (what == DRAIN_ALL) {
        bdrv_drain_all_begin();
    } else {
        bdrv_drained_begin(nodes[what]);
    }
}

static void drain_end(Rig *r, What what)
{
    BlockDriverState *nodes[] = { r->src, r->backing, r->target };
    if (what == DRAIN_ALL) {
        bdrv_drain_all_end();
    } else {
        bdrv_drained_end(nodes[what]);
    }
}

static void rig_init(Rig *r, bool iothread)
{
    r->overlay = test_node("overlay");
    r->src = test_node("src");
    r->backing = test_node("backing");
    r->target = test_node("target");
    bdrv_set_backing_hd(r->src, r->backing, &error_abort);
    bdrv_set_backing_hd(r->overlay, r->src, &error_abort);
    if (iothread) {
        set_context(r->src, io_ctx);
    }
    r->t = new_job(&test_job_driver, r->src, JOB_DEFAULT);
    g_assert_cmpint(block_job_add_bdrv(&r->t->common, "target", r->target, 0, BLK_PERM_ALL,
                                       &error_abort), ==, 0);
    g_assert_true(bdrv_get_aio_context(r->target) == bdrv_get_aio_context(r->src));
    r->t->bs = r->src;
}

static void rig_free(Rig *r)
{
    set_context(r->overlay, qemu_get_aio_context());
    bdrv_unref(r->overlay);
    bdrv_unref(r->src);
    bdrv_unref(r->backing);
    bdrv_unref(r->target);
}

static void expect_state(Rig *r, int pause_count, bool paused, bool busy)
{
    Job *job = &r->t->common.job;

    JOB_LOCK_GUARD();
    g_assert_cmpint(job->pause_count, ==, pause_count);
    g_assert_cmpint(job->paused, ==, paused);
    g_assert_cmpint(job->busy, ==, busy);
}

static bool is_paused(Rig *r)
{
    return job_is_paused(&r->t->common.job);
}

static void drain_once(Rig *r, What what)
{
    expect_state(r, 0, false, true);
    drain_begin(r, what);
    expect_state(r, what == DRAIN_ALL ? 2 : 1, true, false);
    int rounds = qatomic_read(&r->t->rounds);
    for (int i = 0; i < 10; i++) {
        aio_poll(qemu_get_aio_context(), false);
    }
    g_assert_cmpint(qatomic_read(&r->t->rounds), ==, rounds);
    drain_end(r, what);
    if (r->t->common.job.aio_context == qemu_get_aio_context()) {
        expect_state(r, 0, false, true);    /* it went on at once */
    }
    while (is_paused(r)) {
        aio_poll(qemu_get_aio_context(), false);
    }
    expect_state(r, 0, false, true);
}

typedef struct DrainCase {
    const char *path;
    bool iothread;
    int run_ret, prepare_ret;
} DrainCase;

static const DrainCase drain_cases[] = {
    { "/job/drain/main-loop/success", false, 0, 0 },
    { "/job/drain/main-loop/run-fails", false, -EIO, 0 },
    { "/job/drain/main-loop/prepare-fails", false, 0, -EIO },
    { "/job/drain/iothread/success", true, 0, 0 },
    { "/job/drain/iothread/run-fails", true, -EIO, 0 },
    { "/job/drain/iothread/prepare-fails", true, 0, -EIO },
};

static void test_drain(gconstpointer opaque)
{
    const DrainCase *c = opaque;
    Rig r;

    rig_init(&r, c->iothread);
    r.t->run_ret = c->run_ret;
    r.t->prepare_ret = c->prepare_ret;
    start(r.t);
    for (What what = DRAIN_NODE; what <= DRAIN_ALL; what++) {
        drain_once(&r, what);
    }
    drain_begin(&r, DRAIN_NODE);
    drain_begin(&r, DRAIN_TARGET);
    expect_state(&r, 2, true, false);
    drain_end(&r, DRAIN_NODE);
    expect_state(&r, 1, true, false);
    drain_end(&r, DRAIN_TARGET);
    while (is_paused(&r)) {
        aio_poll(qemu_get_aio_context(), false);
    }
    g_assert_cmpint(complete(r.t), ==, c->run_ret ? c->run_ret : c->prepare_ret);
    g_assert_null(job_next(NULL));
    rig_free(&r);
}

static void test_started_while_drained(void)
{
    Rig r;

    rig_init(&r, true);
    drain_begin(&r, DRAIN_ALL);
    job_start(&r.t->common.job);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !is_paused(&r));
    g_assert_false(qatomic_read(&r.t->running));
    drain_end(&r, DRAIN_ALL);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read(&r.t->running));
    g_assert_cmpint(complete(r.t), ==, 0);
    rig_free(&r);
}

/* A drain need not wait for a job that sleeps, but finds it at its pause point. */
static void test_idle_job_is_drained_at_once(void)
{
    Rig r;

    rig_init(&r, false);
    r.t->sleeps_idle = true;
    start(r.t);
    drain_begin(&r, DRAIN_NODE);
    expect_state(&r, 1, true, false);
    drain_end(&r, DRAIN_NODE);
    g_assert_cmpint(complete(r.t), ==, 0);
    rig_free(&r);
}

/* The driver knows that its busy job has nothing in flight. */
static void test_drained_poll_of_the_driver(void)
{
    BlockDriverState *bs = test_node("bs");
    TestBlockJob *t = new_job(&test_job_with_poll_driver, bs, JOB_DEFAULT);

    t->drain_poll_says_no = true;
    start(t);
    int rounds = t->rounds;
    bdrv_drained_begin(bs);
    g_assert_cmpint(t->rounds, ==, rounds);
    g_assert_true(t->common.job.busy);
    bdrv_drained_end(bs);
    g_assert_cmpint(complete(t), ==, 0);
    bdrv_unref(bs);
}

/*
 * QB-26: the bottom half that ends a job is work that a drain waits for.
 *
 *      job                 main
 *      RUN returns,
 *      end is scheduled
 *                          drained_begin: the end runs in its poll
 *                          drained: nothing changes any more
 */
static void test_qb26_end_is_waited_for(gconstpointer opaque)
{
    for (int i = 0; i < test_rounds(30); i++) {
        Rig r;
        rig_init(&r, opaque);
        Job *job = &r.t->common.job;
        WITH_JOB_LOCK_GUARD() {
            job_ref_locked(job);
        }
        start(r.t);
        qatomic_set(&r.t->should_complete, true);
        for (int k = 0; k < i % 20; k++) {
            sched_yield();      /* the job is anywhere between here and its end */
        }
        drain_begin(&r, i % 4);
        WITH_JOB_LOCK_GUARD() {
            /* at a pause point, or all over: not on its way to the end */
            g_assert_true(job->paused || job->status == JOB_STATUS_NULL);
        }
        JobStatus status = job->status;
        for (int k = 0; k < 5; k++) {
            aio_poll(qemu_get_aio_context(), false);
        }
        g_assert_cmpint(job->status, ==, status);
        drain_end(&r, i % 4);
        WITH_JOB_LOCK_GUARD() {
            job_finish_sync_locked(job, NULL, NULL);
            g_assert_cmpint(job->ret, ==, 0);
            job_unref_locked(job);
        }
        rig_free(&r);
    }
}

/* A paused job that is released by the end of a section ends in the next iteration. */
static void test_ends_right_after_the_section(void)
{
    Rig r;

    rig_init(&r, false);
    r.t->sleeps_idle = true;
    start(r.t);
    r.t->should_complete = true;
    drain_begin(&r, DRAIN_CHILD);
    g_assert_nonnull(job_next(NULL));
    drain_end(&r, DRAIN_CHILD);
    aio_poll(qemu_get_aio_context(), false);
    g_assert_null(job_next(NULL));
    rig_free(&r);
}

/* Cancelling by force is stronger than a drain. */
static void test_cancel_while_drained(gconstpointer opaque)
{
    Rig r;

    rig_init(&r, opaque);
    start(r.t);
    drain_begin(&r, DRAIN_ALL);
    g_assert_cmpint(job_cancel_sync(&r.t->common.job, true), ==, -ECANCELED);
    drain_end(&r, DRAIN_ALL);
    rig_free(&r);
}

/* ---- moves ------------------------------------------------------------------------------ */

static void test_job_follows_its_nodes(void)
{
    BlockDriverState *bs = test_node("bs"), *target = test_node("target");
    BlockBackend *blk = test_backend(bs);
    TestBlockJob *t = new_job(&test_job_driver, bs, JOB_DEFAULT);
    AioContext *stops[] = { io_ctx, qemu_get_aio_context() };

    block_job_add_bdrv(&t->common, "target", target, 0, BLK_PERM_ALL, &error_abort);
    start(t);
    for (int i = 0; i < test_rounds(60); i++) {
        AioContext *ctx = stops[i % 2];
        if (i % 3) {
            set_context(i % 4 ? bs : target, ctx);
        } else {
            AioContext *old = blk_get_aio_context(blk);
            aio_context_acquire(old);
            blk_set_aio_context(blk, ctx, &error_abort);
            aio_context_release(old);
        }
        g_assert_true(bdrv_get_aio_context(bs) == ctx);
        g_assert_true(bdrv_get_aio_context(target) == ctx);
        g_assert_true(t->common.job.aio_context == ctx);
        wait_for_round(t);      /* it asserts that it runs there */
    }
    g_assert_cmpint(complete(t), ==, 0);
    blk_unref(blk);
    bdrv_unref(bs);
    bdrv_unref(target);
}

static void test_move_refused_by_a_user_of_the_other_node(void)
{
    BlockDriverState *bs = test_node("bs"), *target = test_node("target");
    BlockBackend *blk = test_backend(bs);
    TestBlockJob *t = new_job(&test_job_driver, bs, JOB_DEFAULT);
    g_autoptr(Error) err = NULL;

    block_job_add_bdrv(&t->common, "target", target, 0, BLK_PERM_ALL, &error_abort);
    start(t);
    blk_set_allow_aio_context_change(blk, false);
    g_assert_cmpint(bdrv_try_change_aio_context(target, io_ctx, NULL, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Cannot change iothread of active block backend");
    g_assert_true(bdrv_get_aio_context(bs) == qemu_get_aio_context());
    g_assert_true(bdrv_get_aio_context(target) == qemu_get_aio_context());
    g_assert_true(t->common.job.aio_context == qemu_get_aio_context());
    wait_for_round(t);
    blk_set_allow_aio_context_change(blk, true);
    set_context(target, io_ctx);
    g_assert_true(t->common.job.aio_context == io_ctx);
    g_assert_cmpint(complete(t), ==, 0);
    blk_unref(blk);
    bdrv_unref(bs);
    bdrv_unref(target);
}

/* The filter of a mirror, its source and target, and the job, whichever of them is moved. */
static void test_mirror_moves_as_a_whole(void)
{
    BlockDriverState *src = test_node("src"), *target = test_node("target");
    g_autoptr(Error) err = NULL;

    mirror_start("job0", src, target, NULL, JOB_DEFAULT, 0, 0, 0, MIRROR_SYNC_MODE_NONE,
                 MIRROR_OPEN_BACKING_CHAIN, false, BLOCKDEV_ON_ERROR_REPORT,
                 BLOCKDEV_ON_ERROR_REPORT, false, "filter", MIRROR_COPY_MODE_BACKGROUND,
                 &error_abort);
    BlockDriverState *filter = bdrv_find_node("filter");
    Job *job = job_next(NULL);
    BlockDriverState *nodes[] = { src, target, filter };
    for (int i = 0; i < 12; i++) {
        AioContext *ctx = i % 2 ? qemu_get_aio_context() : io_ctx;
        set_context(nodes[i % 3], ctx);
        for (int k = 0; k < 3; k++) {
            g_assert_true(bdrv_get_aio_context(nodes[k]) == ctx);
        }
        g_assert_true(job->aio_context == ctx);
    }
    BlockBackend *blk = blk_new(qemu_get_aio_context(), 0, BLK_PERM_ALL);
    blk_insert_bs(blk, src, &error_abort);
    g_assert_cmpint(bdrv_try_change_aio_context(target, io_ctx, NULL, &err), <, 0);
    for (int k = 0; k < 3; k++) {
        g_assert_true(bdrv_get_aio_context(nodes[k]) == qemu_get_aio_context());
    }
    blk_set_allow_aio_context_change(blk, true);
    set_context(target, io_ctx);
    g_assert_true(bdrv_get_aio_context(filter) == io_ctx);
    job_cancel_sync_all();
    AioContext *ctx = blk_get_aio_context(blk);
    aio_context_acquire(ctx);
    blk_set_aio_context(blk, qemu_get_aio_context(), &error_abort);
    aio_context_release(ctx);
    blk_unref(blk);
    bdrv_unref(src);
    bdrv_unref(target);
}

/* ---- edges ------------------------------------------------------------------------------ */

static void test_ids_from_backends(void)
{
    BlockDriverState *bs = test_node("bs");
    BlockBackend *blk = test_backend(bs);
    g_autoptr(Error) err = NULL;

    g_assert_null(block_job_create(NULL, &test_job_driver, NULL, bs, 0, BLK_PERM_ALL, 0, 0,
                                   NULL, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "An explicit job ID is required for this node");
    error_free_or_abort(&err);
    monitor_add_blk(blk, "drive0", &error_abort);
    BlockJob *job = block_job_create(NULL, &test_job_driver, NULL, bs, 0, BLK_PERM_ALL, 0, 0,
                                     NULL, NULL, &error_abort);
    g_assert_cmpstr(job->job.id, ==, "drive0");
    g_assert_null(block_job_create(NULL, &test_job_driver, NULL, bs, 0, BLK_PERM_ALL, 0, 0,
                                   NULL, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Job ID 'drive0' already in use");
    job_early_fail(&job->job);
    monitor_remove_blk(blk);
    blk_unref(blk);
    g_assert_cmpint(bs->refcnt, ==, 1);
    bdrv_unref(bs);
}

static void test_permissions(void)
{
    BlockDriverState *bs = test_node("bs"), *other = test_node("other");
    BlockBackend *writer = test_backend(bs);
    g_autoptr(Error) err = NULL;

    g_assert_null(block_job_create("job0", &test_job_driver, NULL, bs, 0,
                                   BLK_PERM_ALL & ~BLK_PERM_WRITE, 0, 0, NULL, NULL, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "Permission conflict on node 'bs'"));
    g_assert_nonnull(strstr(error_get_pretty(err), "commit job 'job0'"));
    error_free_or_abort(&err);
    g_assert_null(job_next(NULL));
    g_assert_cmpint(bs->refcnt, ==, 2);

    TestBlockJob *t = new_job(&test_job_driver, bs, 0);
    g_assert_true(block_job_has_bdrv(&t->common, bs));
    g_assert_false(block_job_has_bdrv(&t->common, other));
    g_assert_cmpint(block_job_add_bdrv(&t->common, "more", bs, 0, 0, &err), <, 0);
    error_free_or_abort(&err);
    g_assert_false(block_job_none_uses(bs, &err));
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Node 'bs' is busy: block device is in use by block job: commit");
    g_assert_true(block_job_none_uses(other, NULL));
    /* another job's node, which may lose what is below it when that job ends */
    for (int i = 0; i < 2; i++) {
        error_free_or_abort(&err);
        mirror_start("job1", i ? other : bs, i ? bs : other, NULL, JOB_DEFAULT, 0, 4096, 0,
                     MIRROR_SYNC_MODE_FULL, MIRROR_LEAVE_BACKING_CHAIN, false,
                     BLOCKDEV_ON_ERROR_REPORT, BLOCKDEV_ON_ERROR_REPORT, false, NULL,
                     MIRROR_COPY_MODE_BACKGROUND, &err);
        g_assert_cmpstr(error_get_pretty(err), ==,
                        "Node 'bs' is busy: block device is in use by block job: commit");
    }

    /* the job's edges stay when others are re-pointed */
    bdrv_replace_node(bs, other, &error_abort);
    g_assert_true(blk_bs(writer) == other);
    g_assert_true(block_job_has_bdrv(&t->common, bs));
    job_early_fail(&t->common.job);
    blk_unref(writer);
    bdrv_unref(bs);
    bdrv_unref(other);
}

/* ---- graph changes that poll ------------------------------------------------------------ */

/*
 * QB-33 and QB-35: a job ends in somebody's drained_end or poll, and takes edges away from the
 * node that is being released.
 */
typedef struct DropJob {
    BlockJob common;
    bool should_complete;       /* atomic */
    bool completed;
    BlockDriverState *parents[2];
} DropJob;

static int coroutine_fn drop_run(Job *job, Error **errp)
{
    DropJob *d = container_of(job, DropJob, common.job);
    while (!qatomic_read(&d->should_complete)) {
        job_sleep_ns(job, 0);
    }
    return 0;
}

static bool *drop_completed;

static void drop_commit(Job *job)
{
    DropJob *d = container_of(job, DropJob, common.job);
    for (int i = 0; i < 2; i++) {
        bdrv_set_backing_hd(d->parents[i], NULL, &error_abort);
    }
    *drop_completed = true;
}

static const BlockJobDriver drop_driver = {
    .job_driver = {
        .instance_size = sizeof(DropJob),
        .free = block_job_free,
        .user_resume = block_job_user_resume,
        .run = drop_run,
        .commit = drop_commit,
    },
};

static void test_end_by_drained_end(void)
{
    BlockDriverState *child = test_node("child");
    BlockDriverState *parents[] = { test_node("p0"), test_node("p1"), test_node("p2") };
    bool completed = false;

    drop_completed = &completed;
    for (int i = 0; i < 3; i++) {
        bdrv_set_backing_hd(parents[i], child, &error_abort);
    }
    DropJob *d = block_job_create("job0", &drop_driver, NULL, parents[1], 0, BLK_PERM_ALL, 0,
                                  0, NULL, NULL, &error_abort);
    d->parents[0] = parents[0];
    d->parents[1] = parents[2];
    job_start(&d->common.job);
    d->should_complete = true;
    bdrv_drained_begin(child);
    g_assert_false(completed);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(parents[i]->quiesce_counter, ==, 1);
    }
    bdrv_drained_end(child);
    while (!completed) {
        aio_poll(qemu_get_aio_context(), false);
    }
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(parents[i]->quiesce_counter, ==, 0);
        g_assert_cmpint(test_state(parents[i])->drained, ==, 0);
        bdrv_unref(parents[i]);
    }
    g_assert_cmpint(child->refcnt, ==, 1);
    bdrv_unref(child);
}

/* ---- two jobs on one chain -------------------------------------------------------------- */

static int change_backing_file(BlockDriverState *bs, const char *backing_file,
                               const char *backing_fmt)
{
    return 0;
}

static int coroutine_fn nothing_allocated(BlockDriverState *bs, bool want_zero,
                                          int64_t offset, int64_t bytes, int64_t *pnum,
                                          int64_t *map, BlockDriverState **file)
{
    *pnum = bytes;
    return 0;
}

/*
 * QB-52: each job looks up what it drops after it has drained, not before.
 *
 *      a -> filter1 -> b -> c -> filter2 -> d -> e         becomes         a -> c -> e
 *
 *      first job's end: drains the chain ...
 *                       ... second job's end runs in that poll, and drops filter2 and d
 *                       drops filter1 and b
 */
static void test_qb52_two_commits_on_one_chain(gconstpointer opaque)
{
    BlockDriver layer = bdrv_test;
    BlockDriverState *bs[5];
    static const char *const names[] = { "a", "b", "c", "d", "e" };

    layer.bdrv_change_backing_file = change_backing_file;
    layer.bdrv_co_block_status = nothing_allocated;
    for (int k = 0; k < test_rounds(10); k++) {
        for (int i = 4; i >= 0; i--) {
            bs[i] = bdrv_new_open_driver(&layer, names[i], BDRV_O_RDWR, &error_abort);
            bs[i]->total_sectors = 1 << 11;
            if (i < 4) {
                bdrv_set_backing_hd(bs[i], bs[i + 1], &error_abort);
            }
        }
        BlockBackend *blk = test_backend(bs[0]);
        if (opaque) {
            set_context(bs[0], io_ctx);
        }
        bdrv_drained_begin(bs[4]);      /* neither gets anywhere before both are there */
        for (int i = 0; i < 2; i++) {
            int upper = (i + k) % 2;
            commit_start(upper ? "upper" : "lower", bs[0], bs[upper ? 2 : 4],
                         bs[upper ? 1 : 3], 0, 0, BLOCKDEV_ON_ERROR_REPORT, "x", NULL,
                         &error_abort);
        }
        bdrv_drained_end(bs[4]);
        while (job_next(NULL)) {
            aio_poll(qemu_get_aio_context(), false);
        }
        g_assert_true(bs[0]->backing->bs == bs[2]);
        g_assert_true(bs[2]->backing->bs == bs[4]);
        for (int i = 0; i < 5; i++) {
            g_assert_cmpint(bs[i]->quiesce_counter, ==, 0);
        }
        blk_unref(blk);
        for (int i = 0; i < 5; i++) {
            bdrv_unref(bs[i]);
        }
    }
}

/*
 * QB-50: whoever changes the graph drains first, and so pauses the job. A job that held the
 * graph lock at its pause point would never let him in.
 */
static void test_qb50_graph_writers_and_a_mirror(gconstpointer opaque)
{
    BlockDriverState *src = test_node("src"), *target = test_node("target");
    BlockDriverState *backing = test_node("backing"), *filter = test_filter("top");
    /* one that cannot resize: a mirror does not allow that */
    BlockBackend *blk = blk_new_with_bs(src, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                                        BLK_PERM_ALL, &error_abort);

    blk_set_allow_aio_context_change(blk, true);
    if (opaque) {
        set_context(src, io_ctx);
    }
    test_state(src)->sleep_hops = test_state(target)->sleep_hops = 2;
    mirror_start("job0", src, target, NULL, JOB_DEFAULT, 0, 4096, 65536,
                 MIRROR_SYNC_MODE_FULL, MIRROR_LEAVE_BACKING_CHAIN, true,
                 BLOCKDEV_ON_ERROR_REPORT, BLOCKDEV_ON_ERROR_REPORT, false, "filter",
                 MIRROR_COPY_MODE_BACKGROUND, &error_abort);
    BlockDriverState *mirror = bdrv_find_node("filter");
    bdrv_append(filter, mirror, &error_abort);
    for (int i = 0; i < test_rounds(40); i++) {
        bdrv_set_backing_hd(target, i % 2 ? NULL : backing, &error_abort);
        bdrv_drain_all_begin();
        bdrv_drain_all_end();
        for (int k = 0; k < i % 7; k++) {
            aio_poll(qemu_get_aio_context(), false);
        }
    }
    bdrv_drop_filter(filter, &error_abort);
    job_cancel_sync_all();
    g_assert_true(blk_bs(blk) == src);
    blk_unref(blk);
    bdrv_unref(filter);
    bdrv_unref(backing);
    bdrv_unref(src);
    bdrv_unref(target);
}

/* ---- a job that cannot be started ------------------------------------------------------- */

static void coroutine_fn write_once(TestLoad *l)
{
    static const char zeroes[512];

    g_assert_cmpint(blk_co_pwrite(l->blk, 0, sizeof(zeroes), zeroes, 0), ==, 0);
    qatomic_inc(&l->requests);
}

/* The target has been moved, and is about to be refused. */
static void wait_for_a_write_under_way(void *opaque)
{
    TestNode *upper = opaque;

    /* not for ever: our caller may hold the lock that the IOThread wants first */
    for (int i = 0; i < 100000 && qatomic_read(&upper->requests_started) ==
                                  qatomic_read(&upper->requests_finished); i++) {
        /* there is one nearly always */
    }
}

/*
 *      main                                        guests, in the IOThread
 *      put the filter above the source
 *                                                  a write is on its way to the filter
 *      the target is refused
 *      take the filter out: the write still has to
 *      get through it
 */
static void test_a_failed_start_is_not_noticed(void)
{
    BlockDriverState *src = test_node("src"), *target = test_node("target");
    BlockDriverState *upper = test_filter("upper");
    BlockBackend *blk = test_backend(src);
    BlockBackend *jealous = blk_new_with_bs(target, 0, BLK_PERM_CONSISTENT_READ, &error_abort);
    static const BlockDevOps ops = { .drained_end = wait_for_a_write_under_way };
    TestLoad load;

    blk_set_allow_aio_context_change(jealous, true);
    bdrv_append(upper, src, &error_abort);
    set_context(src, io_ctx);
    blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL, &error_abort);
    test_state(upper)->sleep_hops = 50;
    blk_set_dev_ops(jealous, &ops, test_state(upper));
    test_load_start(&load, blk, 4, write_once);
    for (int i = 0; i < test_rounds(20); i++) {
        Error *err = NULL;
        mirror_start("job0", src, target, NULL, JOB_DEFAULT, 0, 4096, 65536,
                     MIRROR_SYNC_MODE_FULL, MIRROR_LEAVE_BACKING_CHAIN, true,
                     BLOCKDEV_ON_ERROR_REPORT, BLOCKDEV_ON_ERROR_REPORT, false, NULL,
                     MIRROR_COPY_MODE_BACKGROUND, &err);
        error_free_or_abort(&err);
        g_assert_true(upper->backing->bs == src);
    }
    blk_set_dev_ops(jealous, NULL, NULL);
    test_load_stop(&load);
    set_context(src, qemu_get_aio_context());
    blk_unref(jealous);
    blk_unref(blk);
    bdrv_unref(upper);
    bdrv_unref(src);
    bdrv_unref(target);
}

/* ---- main ------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_init(&argc, &argv, NULL);
    io = iothread_create("io", &error_abort);
    io_ctx = iothread_get_aio_context(io);

    for (size_t i = 0; i < ARRAY_SIZE(drain_cases); i++) {
        g_test_add_data_func(drain_cases[i].path, &drain_cases[i], test_drain);
    }
    g_test_add_func("/job/drain/started-inside", test_started_while_drained);
    g_test_add_func("/job/drain/idle", test_idle_job_is_drained_at_once);
    g_test_add_func("/job/drain/drivers-poll", test_drained_poll_of_the_driver);
    g_test_add_data_func("/job/drain/QB-26/end-is-waited-for/main-loop", NULL,
                         test_qb26_end_is_waited_for);
    g_test_add_data_func("/job/drain/QB-26/end-is-waited-for/iothread", "io",
                         test_qb26_end_is_waited_for);
    g_test_add_func("/job/drain/ends-right-after", test_ends_right_after_the_section);
    g_test_add_data_func("/job/drain/cancel-inside/main-loop", NULL,
                         test_cancel_while_drained);
    g_test_add_data_func("/job/drain/cancel-inside/iothread", "io",
                         test_cancel_while_drained);
    g_test_add_func("/job/drain/QB-33-QB-35/end-by-drained-end", test_end_by_drained_end);
    g_test_add_data_func("/job/graph/QB-52/two-commits-on-one-chain/main-loop", NULL,
                         test_qb52_two_commits_on_one_chain);
    g_test_add_data_func("/job/graph/QB-52/two-commits-on-one-chain/iothread", "io",
                         test_qb52_two_commits_on_one_chain);
    g_test_add_data_func("/job/graph/QB-50/writers-and-a-mirror/main-loop", NULL,
                         test_qb50_graph_writers_and_a_mirror);
    g_test_add_data_func("/job/graph/QB-50/writers-and-a-mirror/iothread", "io",
                         test_qb50_graph_writers_and_a_mirror);
    g_test_add_func("/job/start/refused-under-load", test_a_failed_start_is_not_noticed);
    g_test_add_func("/job/move/follows", test_job_follows_its_nodes);
    g_test_add_func("/job/move/refused", test_move_refused_by_a_user_of_the_other_node);
    g_test_add_func("/job/move/mirror", test_mirror_moves_as_a_whole);
    g_test_add_func("/job/edges/ids-from-backends", test_ids_from_backends);
    g_test_add_func("/job/edges/permissions", test_permissions);

    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
