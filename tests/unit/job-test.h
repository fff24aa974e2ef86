/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A job that does what a test says, and writes down what is done to it. */
#ifndef JOB_TEST_H
#define JOB_TEST_H

#include "miniblk/osdep.h"
#include "block/job/job-internal.h"
#include "miniblk/iothread.h"

typedef struct TestJob {
    Job job;
    bool should_end;            /* atomic; RUN returns RUN_RET */
    bool should_become_ready;   /* atomic */
    bool soft_cancel_allowed;
    int run_ret, prepare_ret;
    bool set_error;
    int rounds;                 /* atomic; of RUN */
    GString *calls;             /* of the driver, one letter each */
    Job *cancel_in_prepare;     /* somebody who shall be cancelled during prepare */
} TestJob;

static GString *log_of_calls __attribute__((unused));
static int cb_calls, cb_ret;

static inline TestJob *test_job(Job *job)
{
    return container_of(job, TestJob, job);
}

static inline int coroutine_fn test_run(Job *job, Error **errp)
{
    TestJob *t = test_job(job);

    while (!qatomic_read(&t->should_end)) {
        qatomic_inc(&t->rounds);
        if (job_is_cancelled(job)) {
            return 0;
        }
        if (job_cancel_requested(job)) {
            break;
        }
        if (qatomic_read(&t->should_become_ready) && !job_is_ready(job)) {
            job_transition_to_ready(job);
        }
        job_yield(job);
    }
    if (t->set_error) {
        error_setg(errp, "an error of its own");
    }
    return t->run_ret;
}

static inline void logged(Job *job, char what)
{
    g_assert_true(qemu_in_main_thread());
    g_string_append_c(log_of_calls, what);
    g_string_append(log_of_calls, job->id ? job->id : "-");
    g_string_append_c(log_of_calls, ' ');
}

static inline int test_prepare(Job *job)
{
    TestJob *t = test_job(job);

    logged(job, 'p');
    if (t->cancel_in_prepare) {
        JOB_LOCK_GUARD();
        job_cancel_locked(t->cancel_in_prepare, true);
    }
    return t->prepare_ret;
}

static inline void test_commit(Job *job) { logged(job, 'c'); }
static inline void test_abort(Job *job) { logged(job, 'a'); }
static inline void test_clean(Job *job) { logged(job, 'x'); }
static inline void test_free(Job *job) { logged(job, 'f'); }

static inline void test_complete(Job *job, Error **errp)
{
    qatomic_set(&test_job(job)->should_end, true);
}

static inline bool test_cancel(Job *job, bool force)
{
    TestJob *t = test_job(job);
    return force || !(t->soft_cancel_allowed && job_is_ready(job));
}

static const JobDriver test_driver __attribute__((unused)) = {
    .instance_size = sizeof(TestJob),
    .job_type = JOB_TYPE_CREATE,
    .run = test_run,
    .complete = test_complete,
    .prepare = test_prepare,
    .commit = test_commit,
    .abort = test_abort,
    .clean = test_clean,
    .free = test_free,
};

static const JobDriver test_driver_with_cancel __attribute__((unused)) = {
    .instance_size = sizeof(TestJob),
    .job_type = JOB_TYPE_MIRROR,
    .run = test_run,
    .complete = test_complete,
    .prepare = test_prepare,
    .commit = test_commit,
    .abort = test_abort,
    .clean = test_clean,
    .cancel = test_cancel,
    .free = test_free,
};

static inline void completion(void *opaque, int ret)
{
    cb_calls++;
    cb_ret = ret;
}

static inline void forget_log(void)
{
    g_string_truncate(log_of_calls, 0);
    cb_calls = 0;
    cb_ret = 1;
}

static inline TestJob *new_job_in(const char *id, JobTxn *txn, int flags, AioContext *ctx)
{
    return job_create(id, &test_driver, txn, ctx, flags, completion, NULL, &error_abort);
}

static inline TestJob *new_job(const char *id, JobTxn *txn, int flags)
{
    return new_job_in(id, txn, flags, qemu_get_aio_context());
}

static inline JobStatus status_of(TestJob *t)
{
    JOB_LOCK_GUARD();
    return t->job.status;
}

static inline void poll_until(TestJob *t, JobStatus status)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, status_of(t) != status);
}

/* Let the job's coroutine go on if it sleeps. */
static inline void kick(TestJob *t)
{
    job_enter(&t->job);
}

static inline void run_pending(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* until nothing is left */
    }
}

static inline void finish_off(TestJob *t)
{
    Job *job = &t->job;

    if (status_of(t) != JOB_STATUS_NULL) {
        job_cancel_sync(job, true);
    }
    JOB_LOCK_GUARD();
    if (job->status == JOB_STATUS_CONCLUDED) {
        job_cancel_locked(job, true);
    }
    g_assert_cmpint(job->status, ==, JOB_STATUS_NULL);
    g_assert_null(job_get_locked("j"));
    job_unref_locked(job);
}

/* Instead of main()'s first lines. */
static inline void job_test_init(int *argc, char ***argv)
{
    qemu_init_main_loop(&error_abort);
    g_test_init(argc, argv, NULL);
    log_of_calls = g_string_new(NULL);
}

#endif
