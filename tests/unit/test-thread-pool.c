/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The worker pool: results, order, limits, cancelling, nested loops, the pool's end. */
#include "miniblk/osdep.h"
#include <sys/resource.h>
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/thread-pool.h"
#include "miniblk/thread.h"

static AioContext *ctx;

enum { NOT_YET = 12345 };

typedef struct Job {
    int begun;                  /* atomic: how often the function was called */
    int result;                 /* what it returns */
    QemuEvent started, gate;    /* set when it begins; it ends when GATE is set */
    bool gated;
    int ret;                    /* what the callback got */
    int callbacks;
    bool home;                  /* the callback came in the home thread */
    struct Job *wait_for;       /* the callback polls until that one is complete */
    BlockAIOCB *acb;
} Job;

static int job_run(void *opaque)
{
    Job *job = opaque;

    qatomic_inc(&job->begun);
    qemu_event_set(&job->started);
    if (job->gated) {
        qemu_event_wait(&job->gate);
    }
    return job->result;
}

static void job_done(void *opaque, int ret)
{
    Job *job = opaque;

    job->ret = ret;
    job->callbacks++;
    job->home = in_aio_context_home_thread(ctx);
    while (job->wait_for && !job->wait_for->callbacks) {
        aio_poll(ctx, true);
    }
}

static void job_init(Job *job, int result, bool gated)
{
    *job = (Job) { .result = result, .ret = NOT_YET, .gated = gated };
    qemu_event_init(&job->started, false);
    qemu_event_init(&job->gate, false);
}

static void job_submit(Job *job)
{
    job->acb = thread_pool_submit_aio(job_run, job, job_done, job);
}

static void job_wait(Job *job)
{
    while (!job->callbacks) {
        aio_poll(ctx, true);
    }
}

static void limit_workers(int64_t max)
{
    thread_pool_set_limits(aio_get_thread_pool(ctx), 0, max);
}

/* ---- results ---------------------------------------------------------------------------- */

static void test_result_reaches_callback(void)
{
    static const int results[] = { 0, 1, -EIO, INT_MAX };

    for (unsigned i = 0; i < ARRAY_SIZE(results); i++) {
        Job job;
        job_init(&job, results[i], false);
        job_submit(&job);
        qemu_event_wait(&job.started);
        g_assert_cmpint(job.callbacks, ==, 0);      /* never before the loop runs */
        job_wait(&job);
        g_assert_cmpint(job.ret, ==, results[i]);
        g_assert_cmpint(job.begun, ==, 1);
        g_assert_cmpint(job.callbacks, ==, 1);
        g_assert_true(job.home);
    }
}

/* Nobody hears of its end: what it has done last is to set OPAQUE. */
static int set_and_fail(void *opaque)
{
    qatomic_set((bool *)opaque, true);
    return -EIO;
}

static void test_forgotten_work_wakes_the_loop(void)
{
    bool set = false;

    thread_pool_submit(set_and_fail, &set);
    while (!qatomic_read(&set)) {
        aio_poll(ctx, true);
    }
    while (aio_poll(ctx, false)) {
    }
}

static void coroutine_fn submit_from_coroutine(void *opaque)
{
    Job *job = opaque;
    job_done(job, thread_pool_submit_co(job_run, job));
}

static void test_coroutine_gets_result(void)
{
    Job job;

    job_init(&job, -ENOSPC, false);
    qemu_coroutine_enter(qemu_coroutine_create(submit_from_coroutine, &job));
    g_assert_cmpint(job.ret, ==, NOT_YET);
    job_wait(&job);
    g_assert_cmpint(job.ret, ==, -ENOSPC);
    g_assert_true(job.home);
}

/* Coroutines that each go through the pool many times. */
typedef struct Hops {
    int left, finished;
    int value;
} Hops;

static int increment(void *opaque)
{
    Hops *h = opaque;
    h->value++;         /* no atomic: a coroutine has one piece of work at a time */
    return h->value;
}

static void coroutine_fn hop(void *opaque)
{
    Hops *h = opaque;

    while (h->left--) {
        int before = h->value;
        g_assert_cmpint(thread_pool_submit_co(increment, h), ==, before + 1);
    }
    h->finished = 1;
}

static void test_many_coroutines(void)
{
    enum { N = 100, HOPS = 50 };
    Hops hops[N] = { };
    int finished;

    for (int i = 0; i < N; i++) {
        hops[i].left = HOPS;
        qemu_coroutine_enter(qemu_coroutine_create(hop, &hops[i]));
    }
    do {
        aio_poll(ctx, true);
        finished = 0;
        for (int i = 0; i < N; i++) {
            finished += hops[i].finished;
        }
    } while (finished < N);
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(hops[i].value, ==, HOPS);
    }
}

/* ---- order and nesting ------------------------------------------------------------------ */

/*
 * With one worker, when C has begun A and B are both complete and not yet delivered:
 *
 *      worker      A B C........
 *      loop              A's callback: polls until B's has come
 *
 * B must not be stuck behind the callback that waits for it, in either order.
 */
static void test_callback_may_poll_for_another(gconstpointer data)
{
    bool first_waits = GPOINTER_TO_INT(data);
    Job a, b, c;

    limit_workers(1);
    job_init(&a, 1, false);
    job_init(&b, 2, false);
    job_init(&c, 3, true);
    a.wait_for = first_waits ? &b : NULL;
    b.wait_for = first_waits ? NULL : &a;
    job_submit(&a);
    job_submit(&b);
    job_submit(&c);
    qemu_event_wait(&c.started);
    job_wait(&a);
    job_wait(&b);
    g_assert_cmpint(a.callbacks, ==, 1);
    g_assert_cmpint(b.callbacks, ==, 1);
    g_assert_cmpint(c.callbacks, ==, 0);

    qemu_event_set(&c.gate);
    job_wait(&c);
    g_assert_cmpint(c.ret, ==, 3);
    limit_workers(64);
}

/* A callback may wait for work that is not even done yet, several levels deep. */
static void test_nested_polls_unwind(void)
{
    enum { N = 20 };
    Job jobs[N];

    for (int i = 0; i < N; i++) {
        job_init(&jobs[i], i, false);
        jobs[i].wait_for = i > 0 ? &jobs[i - 1] : NULL;
    }
    for (int i = N - 1; i >= 0; i--) {
        job_submit(&jobs[i]);
    }
    job_wait(&jobs[N - 1]);
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(jobs[i].callbacks, ==, 1);
        g_assert_cmpint(jobs[i].ret, ==, i);
    }
}

/* ---- limits ----------------------------------------------------------------------------- */

static int active, active_max;      /* protected by ACTIVE_LOCK */
static QemuMutex active_lock;
static QemuCond active_changed;
static bool active_release;

static int count_active(void *opaque)
{
    qemu_mutex_lock(&active_lock);
    active++;
    active_max = MAX(active_max, active);
    qemu_cond_broadcast(&active_changed);
    while (!active_release) {
        qemu_cond_wait(&active_changed, &active_lock);
    }
    active--;
    qemu_mutex_unlock(&active_lock);
    return 0;
}

static void wait_active(int n)
{
    qemu_mutex_lock(&active_lock);
    while (active < n) {
        qemu_cond_wait(&active_changed, &active_lock);
    }
    g_assert_cmpint(active, ==, n);
    qemu_mutex_unlock(&active_lock);
}

static void count_done(void *opaque, int ret)
{
    ++*(int *)opaque;
}

static void test_limits(void)
{
    enum { N = 20 };
    int done = 0;

    active = active_max = 0;
    active_release = false;
    limit_workers(2);
    for (int i = 0; i < N; i++) {
        thread_pool_submit_aio(count_active, NULL, count_done, &done);
    }
    wait_active(2);
    limit_workers(5);           /* work that waits already is taken up */
    wait_active(5);
    limit_workers(1);           /* those at work finish it, then leave */

    qemu_mutex_lock(&active_lock);
    g_assert_cmpint(active_max, ==, 5);
    active_release = true;
    qemu_cond_broadcast(&active_changed);
    qemu_mutex_unlock(&active_lock);
    while (done < N) {
        aio_poll(ctx, true);
    }
    qemu_mutex_lock(&active_lock);
    g_assert_cmpint(active_max, ==, 5);
    g_assert_cmpint(active, ==, 0);
    qemu_mutex_unlock(&active_lock);
    limit_workers(64);
}

/* How many threads of ours are called "worker" by the system. */
static int count_workers(void)
{
    g_autoptr(GDir) dir = g_dir_open("/proc/self/task", 0, NULL);
    const char *id;
    int n = 0;

    while ((id = g_dir_read_name(dir))) {
        g_autofree char *path = g_strdup_printf("/proc/self/task/%s/comm", id);
        g_autofree char *name = NULL;
        /* it may be gone by now */
        n += g_file_get_contents(path, &name, NULL, NULL) && !strcmp(name, "worker\n");
    }
    return n;
}

/* Others may still be on their way out, so it takes a moment. */
static void wait_workers(int n)
{
    int64_t until_ns = get_clock() + 20LL * NANOSECONDS_PER_SECOND;

    while (count_workers() != n) {
        g_assert_cmpint(get_clock(), <, until_ns);
        g_usleep(200);
    }
}

/* Workers above the minimum leave when they have been idle for long enough. */
static void test_idle_workers_leave(void)
{
    enum { N = 8 };
    ThreadPool *pool = aio_get_thread_pool(ctx);
    int done = 0;

    thread_pool_set_idle_time(pool, 1);
    wait_workers(0);
    for (int min = 0; min <= 3; min += 3) {
        thread_pool_set_limits(pool, min, 64);
        wait_workers(min);      /* started at once, without any work */
        active = done = 0;
        active_release = false;
        for (int i = 0; i < N; i++) {
            thread_pool_submit_aio(count_active, NULL, count_done, &done);
        }
        wait_active(N);
        g_assert_cmpint(count_workers(), ==, N);
        qemu_mutex_lock(&active_lock);
        active_release = true;
        qemu_cond_broadcast(&active_changed);
        qemu_mutex_unlock(&active_lock);
        while (done < N) {
            aio_poll(ctx, true);
        }
        wait_workers(min);
    }
    thread_pool_set_limits(pool, 0, 64);
    wait_workers(0);            /* the minimum has gone, and so do they */
    thread_pool_set_idle_time(pool, 10 * 1000);
}

/*
 * No thread can be started: there is no memory for its stack. Where the pool has a worker it
 * does the work after all; where it has none the callback is told.
 */
static void without_threads(void)
{
    struct rlimit limit;
    Job first, second, third;
    AioContext *other = aio_context_new(&error_abort);

    job_init(&first, 1, true);
    job_init(&second, 2, false);
    job_init(&third, 3, false);
    job_submit(&first);
    qemu_event_wait(&first.started);

    g_assert_cmpint(getrlimit(RLIMIT_AS, &limit), ==, 0);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = 1024 * 1024;       /* less than is in use: nothing can be mapped */
    g_assert_cmpint(setrlimit(RLIMIT_AS, &limit), ==, 0);
    job_submit(&second);
    thread_pool_set_limits(aio_get_thread_pool(ctx), 5, 64);
    qemu_event_set(&first.gate);
    job_wait(&second);
    g_assert_cmpint(second.ret, ==, 2);

    AioContext *home = ctx;
    qemu_set_current_aio_context(NULL);
    qemu_set_current_aio_context(ctx = other);
    job_submit(&third);
    g_assert_cmpint(third.callbacks, ==, 0);
    job_wait(&third);
    g_assert_cmpint(third.ret, ==, -EAGAIN);
    g_assert_cmpint(third.begun, ==, 0);

    limit.rlim_cur = before;
    g_assert_cmpint(setrlimit(RLIMIT_AS, &limit), ==, 0);
    job_init(&third, 4, false);
    job_submit(&third);
    job_wait(&third);
    g_assert_cmpint(third.ret, ==, 4);
    aio_context_unref(other);
    qemu_set_current_aio_context(NULL);
    qemu_set_current_aio_context(ctx = home);
}

static void test_no_thread_to_be_had(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    g_test_skip("a sanitizer needs more address space than can be limited");
#else
    if (g_test_subprocess()) {
        without_threads();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
#endif
}

/* ---- cancelling ------------------------------------------------------------------------- */

static void test_cancel_queued(gconstpointer data)
{
    bool async = GPOINTER_TO_INT(data);
    Job blocker, job;

    limit_workers(1);
    job_init(&blocker, 0, true);
    job_init(&job, 0, false);
    job_submit(&blocker);
    qemu_event_wait(&blocker.started);
    job_submit(&job);
    if (async) {
        bdrv_aio_cancel_async(job.acb);
        bdrv_aio_cancel_async(job.acb);
        g_assert_cmpint(job.callbacks, ==, 0);      /* not from within the call */
        job_wait(&job);
    } else {
        bdrv_aio_cancel(job.acb);
    }
    g_assert_cmpint(job.callbacks, ==, 1);
    g_assert_cmpint(job.ret, ==, -ECANCELED);
    g_assert_cmpint(blocker.callbacks, ==, 0);

    qemu_event_set(&blocker.gate);
    job_wait(&blocker);
    g_assert_cmpint(job.begun, ==, 0);
    g_assert_cmpint(job.callbacks, ==, 1);
    limit_workers(64);
}

static void open_gate(void *opaque)
{
    Job *job = opaque;
    g_assert_cmpint(job->callbacks, ==, 0);
    qemu_event_set(&job->gate);
}

/* Work that has begun cannot be taken back: cancelling waits for it. */
static void test_cancel_active(void)
{
    Job job;

    job_init(&job, 7, true);
    job_submit(&job);
    qemu_event_wait(&job.started);
    aio_bh_schedule_oneshot(ctx, open_gate, &job);  /* while cancel polls */
    bdrv_aio_cancel(job.acb);
    g_assert_cmpint(job.callbacks, ==, 1);
    g_assert_cmpint(job.ret, ==, 7);
}

/* ---- several contexts ------------------------------------------------------------------- */

static void *other_loop(void *opaque)
{
    AioContext *other = aio_context_new(&error_abort);
    Hops hops[20] = { };
    int finished;

    qemu_set_current_aio_context(other);
    for (unsigned i = 0; i < ARRAY_SIZE(hops); i++) {
        hops[i].left = 200;
        qemu_coroutine_enter(qemu_coroutine_create(hop, &hops[i]));
    }
    do {
        aio_poll(other, true);
        finished = 0;
        for (unsigned i = 0; i < ARRAY_SIZE(hops); i++) {
            finished += hops[i].finished;
        }
    } while (finished < (int)ARRAY_SIZE(hops));
    for (unsigned i = 0; i < ARRAY_SIZE(hops); i++) {
        g_assert_cmpint(hops[i].value, ==, 200);
    }
    g_assert_true(aio_get_thread_pool(other) != aio_get_thread_pool(ctx));
    aio_context_unref(other);
    return NULL;
}

static void test_pool_per_context(void)
{
    QemuThread threads[3];

    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_create(&threads[i], "loop", other_loop, NULL, QEMU_THREAD_JOINABLE);
    }
    test_many_coroutines();
    for (unsigned i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_join(&threads[i]);
    }
}

/* Work is running and waiting when the pool goes: each callback comes exactly once. */
static void *free_in_use(void *opaque)
{
    enum { N = 200 };
    AioContext *other = aio_context_new(&error_abort);
    g_autofree Job *jobs = g_new(Job, N);
    int dropped = 0;

    qemu_set_current_aio_context(other);
    thread_pool_set_limits(aio_get_thread_pool(other), 0, 2);
    for (int i = 0; i < N; i++) {
        job_init(&jobs[i], i, false);
        job_submit(&jobs[i]);
    }
    qemu_event_wait(&jobs[0].started);
    aio_context_unref(other);
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(jobs[i].callbacks, ==, 1);
        g_assert_cmpint(jobs[i].begun, ==, jobs[i].ret == -ECANCELED ? 0 : 1);
        g_assert_cmpint(jobs[i].ret, ==, jobs[i].begun ? i : -ECANCELED);
        dropped += !jobs[i].begun;
    }
    g_test_message("%d of %d dropped", dropped, N);
    g_assert_cmpint(jobs[0].begun, ==, 1);
    return NULL;
}

static void test_free_drops_what_has_not_begun(void)
{
    for (int i = 0; i < 20; i++) {
        QemuThread thread;
        qemu_thread_create(&thread, "loop", free_in_use, NULL, QEMU_THREAD_JOINABLE);
        qemu_thread_join(&thread);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_mutex_init(&active_lock);
    qemu_cond_init(&active_changed);
    ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);

    g_test_add_func("/thread-pool/result-reaches-callback", test_result_reaches_callback);
    g_test_add_func("/thread-pool/forgotten-work-wakes-the-loop",
                    test_forgotten_work_wakes_the_loop);
    g_test_add_func("/thread-pool/coroutine-gets-result", test_coroutine_gets_result);
    g_test_add_func("/thread-pool/many-coroutines", test_many_coroutines);
    g_test_add_data_func("/thread-pool/nested/first-waits-for-second", GINT_TO_POINTER(1),
                         test_callback_may_poll_for_another);
    g_test_add_data_func("/thread-pool/nested/second-waits-for-first", GINT_TO_POINTER(0),
                         test_callback_may_poll_for_another);
    g_test_add_func("/thread-pool/nested/deep", test_nested_polls_unwind);
    g_test_add_func("/thread-pool/limits", test_limits);
    g_test_add_func("/thread-pool/idle-workers-leave", test_idle_workers_leave);
    g_test_add_func("/thread-pool/no-thread-to-be-had", test_no_thread_to_be_had);
    g_test_add_data_func("/thread-pool/cancel/queued", GINT_TO_POINTER(0),
                         test_cancel_queued);
    g_test_add_data_func("/thread-pool/cancel/queued-async", GINT_TO_POINTER(1),
                         test_cancel_queued);
    g_test_add_func("/thread-pool/cancel/active", test_cancel_active);
    g_test_add_func("/thread-pool/pool-per-context", test_pool_per_context);
    g_test_add_func("/thread-pool/free-drops-what-has-not-begun",
                    test_free_drops_what_has_not_begun);
    int ret = g_test_run();
    aio_context_unref(ctx);
    return ret;
}
