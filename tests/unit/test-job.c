/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs without nodes: states, verbs, transactions, pausing, news. */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"
#include "miniblk/iothread.h"

/* ---- a job that does what the test says ------------------------------------------------- */

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

static GString *log_of_calls;
static int cb_calls, cb_ret;

static TestJob *test_job(Job *job)
{
    return container_of(job, TestJob, job);
}

static int coroutine_fn test_run(Job *job, Error **errp)
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

static void logged(Job *job, char what)
{
    g_assert_true(qemu_in_main_thread());
    g_string_append_c(log_of_calls, what);
    g_string_append(log_of_calls, job->id ? job->id : "-");
    g_string_append_c(log_of_calls, ' ');
}

static int test_prepare(Job *job)
{
    TestJob *t = test_job(job);

    logged(job, 'p');
    if (t->cancel_in_prepare) {
        JOB_LOCK_GUARD();
        job_cancel_locked(t->cancel_in_prepare, true);
    }
    return t->prepare_ret;
}

static void test_commit(Job *job) { logged(job, 'c'); }
static void test_abort(Job *job) { logged(job, 'a'); }
static void test_clean(Job *job) { logged(job, 'x'); }
static void test_free(Job *job) { logged(job, 'f'); }

static void test_complete(Job *job, Error **errp)
{
    qatomic_set(&test_job(job)->should_end, true);
}

static bool test_cancel(Job *job, bool force)
{
    TestJob *t = test_job(job);
    return force || !(t->soft_cancel_allowed && job_is_ready(job));
}

static const JobDriver test_driver = {
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

static const JobDriver test_driver_with_cancel = {
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

static void completion(void *opaque, int ret)
{
    cb_calls++;
    cb_ret = ret;
}

static void forget_log(void)
{
    g_string_truncate(log_of_calls, 0);
    cb_calls = 0;
    cb_ret = 1;
}

static TestJob *new_job_in(const char *id, JobTxn *txn, int flags, AioContext *ctx)
{
    return job_create(id, &test_driver, txn, ctx, flags, completion, NULL, &error_abort);
}

static TestJob *new_job(const char *id, JobTxn *txn, int flags)
{
    return new_job_in(id, txn, flags, qemu_get_aio_context());
}

static JobStatus status_of(TestJob *t)
{
    JOB_LOCK_GUARD();
    return t->job.status;
}

static void poll_until(TestJob *t, JobStatus status)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, status_of(t) != status);
}

/* Let the job's coroutine go on if it sleeps. */
static void kick(TestJob *t)
{
    job_enter(&t->job);
}

static void run_pending(void)
{
    while (aio_poll(qemu_get_aio_context(), false)) {
        /* until nothing is left */
    }
}

/* ---- the tables ------------------------------------------------------------------------- */

/* Rows: from; columns: to. Both in the order of JobStatus, undefined first. */
static const char *const transitions[JOB_STATUS__MAX] = {
    /*               U C R P Y S W D X E N */
    /* undefined */ ". C . . . . . . . . .",
    /* created   */ ". . R . . . . . X . N",
    /* running   */ ". . . P Y . W . X . .",
    /* paused    */ ". . R . . . . . . . .",
    /* ready     */ ". . . . . S W . X . .",
    /* standby   */ ". . . . Y . . . . . .",
    /* waiting   */ ". . . . . . . D X . .",
    /* pending   */ ". . . . . . . . X E .",
    /* aborting  */ ". . . . . . . . . E .",
    /* concluded */ ". . . . . . . . . . N",
    /* null      */ ". . . . . . . . . . .",
};

static void test_transition_table(void)
{
    for (int from = 0; from < JOB_STATUS__MAX; from++) {
        for (int to = 0; to < JOB_STATUS__MAX; to++) {
            bool expected = transitions[from][2 * to] != '.';
            if (job__transition_allowed(from, to) != expected) {
                g_test_message("%s -> %s", JobStatus_str(from), JobStatus_str(to));
                g_test_fail();
            }
        }
    }
}

/* Rows: verbs in the order of JobVerb; columns as above. */
static const char *const verbs[JOB_VERB__MAX] = {
    /*               U C R P Y S W D X E N */
    /* cancel    */ ". C C C C C C C . . .",
    /* pause     */ ". C C C C C . . . . .",
    /* resume    */ ". C C C C C . . . . .",
    /* set-speed */ ". C C C C C . . . . .",
    /* complete  */ ". . . . C C . . . . .",
    /* dismiss   */ ". . . . . . . . . C .",
    /* finalize  */ ". . . . . . . C . . .",
    /* change    */ ". C C C C C . . . . .",
};

static void test_verb_table(void)
{
    for (int verb = 0; verb < JOB_VERB__MAX; verb++) {
        for (int status = 0; status < JOB_STATUS__MAX; status++) {
            bool expected = verbs[verb][2 * status] != '.';
            if (job__verb_allowed(status, verb) != expected) {
                g_test_message("%s in %s", JobVerb_str(verb), JobStatus_str(status));
                g_test_fail();
            }
        }
    }
}

/* Bring a new job into STATUS, which is one that a user can see it in. */
static TestJob *job_in_state(JobStatus status)
{
    TestJob *t = new_job("j", NULL, JOB_MANUAL_FINALIZE | JOB_MANUAL_DISMISS);

    WITH_JOB_LOCK_GUARD() {
        job_ref_locked(&t->job);
    }
    if (status == JOB_STATUS_CREATED) {
        return t;
    }
    if (status == JOB_STATUS_NULL) {
        job_early_fail(&t->job);
        return t;
    }
    job_start(&t->job);
    if (status == JOB_STATUS_READY || status == JOB_STATUS_STANDBY) {
        t->should_become_ready = true;
        kick(t);
    }
    if (status == JOB_STATUS_PAUSED || status == JOB_STATUS_STANDBY) {
        JOB_LOCK_GUARD();
        job_user_pause_locked(&t->job, &error_abort);
    }
    if (status == JOB_STATUS_PENDING || status == JOB_STATUS_CONCLUDED) {
        t->should_end = true;
        kick(t);
        poll_until(t, JOB_STATUS_PENDING);
    }
    if (status == JOB_STATUS_CONCLUDED) {
        JOB_LOCK_GUARD();
        job_finalize_locked(&t->job, &error_abort);
    }
    g_assert_cmpstr(JobStatus_str(status_of(t)), ==, JobStatus_str(status));
    return t;
}

static void apply_verb(Job **job, JobVerb verb, Error **errp)
{
    JOB_LOCK_GUARD();
    switch (verb) {
    case JOB_VERB_CANCEL:
        job_user_cancel_locked(*job, true, errp);
        break;
    case JOB_VERB_PAUSE:
        job_user_pause_locked(*job, errp);
        break;
    case JOB_VERB_RESUME:
        job_user_resume_locked(*job, errp);
        break;
    case JOB_VERB_COMPLETE:
        job_complete_locked(*job, errp);
        break;
    case JOB_VERB_DISMISS:
        job_dismiss_locked(job, errp);
        break;
    case JOB_VERB_FINALIZE:
        job_finalize_locked(*job, errp);
        break;
    default:
        job_apply_verb_locked(*job, verb, errp);
    }
}

/* What a verb says that is allowed in the state but has nothing to do there; or NULL. */
static const char *also_refused(JobStatus status, JobVerb verb)
{
    bool paused = status == JOB_STATUS_PAUSED || status == JOB_STATUS_STANDBY;

    if (verb == JOB_VERB_PAUSE && paused) {
        return "Job is already paused";
    }
    if (verb == JOB_VERB_RESUME && !paused) {
        return "Can't resume a job that was not paused";
    }
    if (verb == JOB_VERB_COMPLETE && status == JOB_STATUS_STANDBY) {
        return "The active block job 'j' cannot be completed";  /* the user has paused it */
    }
    return NULL;
}

static void finish_off(TestJob *t)
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

static void test_every_verb_in_every_state(void)
{
    static const JobStatus states[] = {
        JOB_STATUS_CREATED, JOB_STATUS_RUNNING, JOB_STATUS_PAUSED, JOB_STATUS_READY,
        JOB_STATUS_STANDBY, JOB_STATUS_PENDING, JOB_STATUS_CONCLUDED, JOB_STATUS_NULL,
    };

    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        for (JobVerb verb = 0; verb < JOB_VERB__MAX; verb++) {
            TestJob *t = job_in_state(states[i]);
            Job *job = &t->job;
            g_autoptr(Error) err = NULL;
            const char *refused = also_refused(states[i], verb);
            g_autofree char *expected = NULL;

            if (refused && (verb == JOB_VERB_RESUME || job__verb_allowed(states[i], verb))) {
                expected = g_strdup(refused);
            } else if (!job__verb_allowed(states[i], verb)) {
                expected = g_strdup_printf("Job 'j' in state '%s' cannot accept command "
                                           "verb '%s'", JobStatus_str(states[i]),
                                           JobVerb_str(verb));
            }
            apply_verb(&job, verb, &err);
            g_test_message("%s in %s", JobVerb_str(verb), JobStatus_str(states[i]));
            g_assert_cmpstr(err ? error_get_pretty(err) : NULL, ==, expected);
            if (expected) {
                g_assert_cmpint(status_of(t), ==, states[i]);
            }
            finish_off(t);
            run_pending();
        }
    }
}

/* ---- life ------------------------------------------------------------------------------- */

static void test_ids(void)
{
    static const char *const bad[] = { "", "1", "-a", "a b", "a/b", "\xc3\xa4", "a\n", "_a" };
    static const char *const good[] = { "a", "a1", "A-._9", "job0" };
    g_autoptr(Error) err = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_null(job_create(bad[i], &test_driver, NULL, qemu_get_aio_context(), 0, NULL,
                                 NULL, &err));
        g_autofree char *text = g_strdup_printf("Invalid job ID '%s'", bad[i]);
        g_assert_cmpstr(error_get_pretty(err), ==, text);
        error_free_or_abort(&err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        TestJob *t = new_job(good[i], NULL, 0);
        g_assert_null(job_create(good[i], &test_driver, NULL, qemu_get_aio_context(), 0,
                                 NULL, NULL, &err));
        g_autofree char *text = g_strdup_printf("Job ID '%s' already in use", good[i]);
        g_assert_cmpstr(error_get_pretty(err), ==, text);
        error_free_or_abort(&err);
        job_early_fail(&t->job);
    }
    g_assert_null(job_create("x", &test_driver, NULL, qemu_get_aio_context(), JOB_INTERNAL,
                             NULL, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Cannot specify job ID for internal job");
    error_free_or_abort(&err);
    g_assert_null(job_create(NULL, &test_driver, NULL, qemu_get_aio_context(), 0, NULL, NULL,
                             &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "An explicit job ID is required");
    g_assert_null(job_next(NULL));
}

static void test_success(void)
{
    TestJob *t = new_job("a", NULL, 0);

    forget_log();
    job_start(&t->job);
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_RUNNING);
    t->should_end = true;
    kick(t);
    g_assert_cmpint(cb_calls, ==, 0);           /* only the main loop ends a job */
    run_pending();
    g_assert_cmpstr(log_of_calls->str, ==, "pa ca xa fa ");
    g_assert_cmpint(cb_calls, ==, 1);
    g_assert_cmpint(cb_ret, ==, 0);
    g_assert_null(job_next(NULL));
}

static void test_failure_in_run(void)
{
    TestJob *t = new_job("a", NULL, JOB_MANUAL_DISMISS);

    forget_log();
    t->run_ret = -EIO;
    t->should_end = true;
    job_start(&t->job);
    run_pending();
    g_assert_cmpstr(log_of_calls->str, ==, "aa xa ");
    g_assert_cmpint(cb_ret, ==, -EIO);
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_CONCLUDED);
    g_assert_cmpint(t->job.ret, ==, -EIO);
    g_assert_cmpstr(error_get_pretty(t->job.err), ==, strerror(EIO));
    Job *job = &t->job;
    WITH_JOB_LOCK_GUARD() {
        job_dismiss_locked(&job, &error_abort);
    }
    g_assert_null(job);
    g_assert_cmpstr(log_of_calls->str, ==, "aa xa fa ");
}

static void test_failure_with_a_message(void)
{
    TestJob *t = new_job("a", NULL, JOB_MANUAL_DISMISS);

    t->run_ret = -EINVAL;
    t->set_error = true;
    t->should_end = true;
    job_start(&t->job);
    run_pending();
    g_assert_cmpstr(error_get_pretty(t->job.err), ==, "an error of its own");
    job_cancel_sync_all();
    g_assert_null(job_next(NULL));
}

static void test_failure_in_prepare(void)
{
    TestJob *t = new_job("a", NULL, 0);

    forget_log();
    t->prepare_ret = -ENOSPC;
    t->should_end = true;
    job_start(&t->job);
    run_pending();
    g_assert_cmpstr(log_of_calls->str, ==, "pa aa xa fa ");
    g_assert_cmpint(cb_ret, ==, -ENOSPC);
}

static void test_finalize_and_dismiss_by_hand(void)
{
    TestJob *t = new_job("a", NULL, JOB_MANUAL_FINALIZE | JOB_MANUAL_DISMISS);
    Job *job = &t->job;

    forget_log();
    t->should_end = true;
    job_start(job);
    run_pending();
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_PENDING);
    g_assert_cmpstr(log_of_calls->str, ==, "");
    JOB_LOCK_GUARD();
    job_finalize_locked(job, &error_abort);
    g_assert_cmpint(job->status, ==, JOB_STATUS_CONCLUDED);
    g_assert_cmpstr(log_of_calls->str, ==, "pa ca xa ");
    job_dismiss_locked(&job, &error_abort);
    g_assert_cmpstr(log_of_calls->str, ==, "pa ca xa fa ");
}

static void test_internal_job(void)
{
    TestJob *t = new_job(NULL, NULL, JOB_INTERNAL);

    forget_log();
    t->should_end = true;
    job_start(&t->job);
    run_pending();
    g_assert_cmpstr(log_of_calls->str, ==, "p- c- x- f- ");
}

static void test_progress(void)
{
    TestJob *t = new_job("a", NULL, 0);
    job_progress_set_remaining(&t->job, 100);
    job_progress_update(&t->job, 30);
    g_assert_cmpint(t->job.progress.current, ==, 30);
    g_assert_cmpint(t->job.progress.total, ==, 100);
    job_progress_increase_remaining(&t->job, 5);
    g_assert_cmpint(t->job.progress.total, ==, 105);
    job_progress_set_remaining(&t->job, 10);
    g_assert_cmpint(t->job.progress.total, ==, 40);
    job_early_fail(&t->job);
}

/* ---- cancelling ------------------------------------------------------------------------- */

static void test_cancel_in_every_state(void)
{
    static const JobStatus states[] = {
        JOB_STATUS_CREATED, JOB_STATUS_RUNNING, JOB_STATUS_PAUSED, JOB_STATUS_READY,
        JOB_STATUS_STANDBY, JOB_STATUS_PENDING,
    };

    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        for (int force = 0; force < 2; force++) {
            TestJob *t = job_in_state(states[i]);
            forget_log();
            g_assert_cmpint(job_cancel_sync(&t->job, force), ==, -ECANCELED);
            g_assert_cmpint(cb_calls, ==, 1);
            g_assert_cmpint(cb_ret, ==, -ECANCELED);
            g_assert_true(job_is_cancelled(&t->job));
            /* what has not been started is not kept for its user */
            g_assert_cmpint(status_of(t), ==, states[i] == JOB_STATUS_CREATED
                            ? JOB_STATUS_NULL : JOB_STATUS_CONCLUDED);
            g_assert_cmpstr(log_of_calls->str, ==, "aj xj ");
            finish_off(t);
        }
    }
}

/* A driver that knows soft cancels: a ready job ends well, any other is cancelled hard. */
static void test_soft_cancel(void)
{
    for (int ready = 0; ready < 2; ready++) {
        TestJob *t = job_create("j", &test_driver_with_cancel, NULL, qemu_get_aio_context(),
                                JOB_MANUAL_DISMISS, completion, NULL, &error_abort);
        WITH_JOB_LOCK_GUARD() {
            job_ref_locked(&t->job);
        }
        t->soft_cancel_allowed = true;
        t->should_become_ready = ready;
        job_start(&t->job);
        forget_log();
        int ret = job_cancel_sync(&t->job, false);
        g_assert_cmpint(ret, ==, ready ? 0 : -ECANCELED);
        g_assert_cmpint(job_is_cancelled(&t->job), ==, !ready);
        g_assert_true(job_cancel_requested(&t->job));
        g_assert_cmpstr(log_of_calls->str, ==, ready ? "pj cj xj " : "aj xj ");
        finish_off(t);
    }
}

static void test_soft_cancel_comes_too_late(void)
{
    TestJob *t = job_create("j", &test_driver_with_cancel, NULL, qemu_get_aio_context(),
                            JOB_MANUAL_FINALIZE, completion, NULL, &error_abort);

    t->soft_cancel_allowed = true;
    t->should_become_ready = true;
    job_start(&t->job);
    t->should_end = true;
    kick(t);
    /* it has returned from RUN, and is ready still: nothing is left to be cancelled softly */
    JOB_LOCK_GUARD();
    job_cancel_locked(&t->job, false);
    g_assert_false(job_cancel_requested_locked(&t->job));
    job_finish_sync_locked(&t->job, NULL, NULL);
    g_assert_cmpint(t->job.status, ==, JOB_STATUS_PENDING);
    job_finalize_locked(&t->job, &error_abort);
    g_assert_cmpint(cb_ret, ==, 0);
}

static void test_cancel_after_run_has_returned(void)
{
    TestJob *t = new_job("a", NULL, 0);

    forget_log();
    job_start(&t->job);
    t->should_end = true;
    kick(t);                    /* the end is a bottom half that has not run yet */
    WITH_JOB_LOCK_GUARD() {
        job_cancel_locked(&t->job, true);
        g_assert_cmpint(t->job.status, ==, JOB_STATUS_RUNNING);
    }
    run_pending();
    g_assert_cmpint(cb_ret, ==, -ECANCELED);
    g_assert_cmpstr(log_of_calls->str, ==, "aa xa fa ");
}

/* ---- pausing ---------------------------------------------------------------------------- */

static void test_pause_counts(void)
{
    TestJob *t = new_job("a", NULL, 0);

    g_assert_true(t->job.paused);
    job_start(&t->job);
    g_assert_cmpint(t->job.pause_count, ==, 0);
    g_assert_false(t->job.paused);
    job_pause(&t->job);
    g_assert_true(t->job.paused);
    g_assert_false(t->job.busy);
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_PAUSED);
    WITH_JOB_LOCK_GUARD() {
        job_user_pause_locked(&t->job, &error_abort);
    }
    g_assert_cmpint(t->job.pause_count, ==, 2);
    int rounds = t->rounds;
    kick(t);                    /* nobody but a resume gets it going */
    g_assert_cmpint(t->rounds, ==, rounds);
    job_resume(&t->job);
    g_assert_true(t->job.paused);
    WITH_JOB_LOCK_GUARD() {
        job_user_resume_locked(&t->job, &error_abort);
    }
    g_assert_false(t->job.paused);
    g_assert_cmpint(t->rounds, ==, rounds + 1);
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_RUNNING);
    job_cancel_sync(&t->job, true);
}

static void test_paused_before_the_start(void)
{
    TestJob *t = new_job("a", NULL, 0);

    job_pause(&t->job);
    job_start(&t->job);
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_PAUSED);
    g_assert_cmpint(t->rounds, ==, 0);
    job_resume(&t->job);
    g_assert_cmpint(t->rounds, ==, 1);
    job_cancel_sync(&t->job, true);
}

static void test_cancel_frees_a_paused_job(void)
{
    TestJob *t = new_job("a", NULL, 0);

    job_start(&t->job);
    WITH_JOB_LOCK_GUARD() {
        job_user_pause_locked(&t->job, &error_abort);
    }
    job_pause(&t->job);         /* as a drain would: cancelling is stronger */
    WITH_JOB_LOCK_GUARD() {
        job_ref_locked(&t->job);
    }
    g_assert_cmpint(job_cancel_sync(&t->job, true), ==, -ECANCELED);
    g_assert_cmpint(t->job.pause_count, ==, 1);
    g_assert_false(t->job.user_paused);
    WITH_JOB_LOCK_GUARD() {
        job_unref_locked(&t->job);
    }
}

/* ---- bug classes ------------------------------------------------------------------------ */

static int coroutine_fn sleepy_run(Job *job, Error **errp)
{
    TestJob *t = test_job(job);

    while (!qatomic_read(&t->should_end) && !job_is_cancelled(job)) {
        qatomic_inc(&t->rounds);
        job_sleep_ns(job, t->run_ret);
    }
    return 0;
}

static const JobDriver sleepy_driver = {
    .instance_size = sizeof(TestJob),
    .run = sleepy_run,
    .commit = test_commit,
    .abort = test_abort,
    .free = test_free,
};

/*
 * QB-13: whoever wakes a sleeping job does not race with its timer.
 *
 *      job in ctx          timer (main)        main
 *      sleep 1 us
 *                          fires               enter, pause, resume
 *      runs once, sleeps   ...                 ...
 *
 * A double entry aborts in the coroutine code; an entry after the end is a use after free.
 */
static void test_qb13_timer_and_enter(gconstpointer opaque)
{
    IOThread *io = opaque ? iothread_create("io", &error_abort) : NULL;
    AioContext *ctx = io ? iothread_get_aio_context(io) : qemu_get_aio_context();

    for (int i = 0; i < (g_test_quick() ? 200 : 5000); i++) {
        TestJob *t = job_create("j", &sleepy_driver, NULL, ctx, 0, completion, NULL,
                                &error_abort);
        t->run_ret = (i % 4) * 1000;    /* ns */
        job_start(&t->job);
        for (int k = 0; k < 10; k++) {
            job_enter(&t->job);
            job_pause(&t->job);
            job_enter(&t->job);
            job_resume(&t->job);
            aio_poll(qemu_get_aio_context(), false);
        }
        if (i % 2) {
            job_cancel_sync(&t->job, true);
        } else {
            WITH_JOB_LOCK_GUARD() {
                job_ref_locked(&t->job);
            }
            qatomic_set(&t->should_end, true);
            poll_until(t, JOB_STATUS_NULL);
            WITH_JOB_LOCK_GUARD() {
                job_unref_locked(&t->job);
            }
        }
        /* a timer of a job that has gone would fire here */
        aio_poll(qemu_get_aio_context(), false);
        g_assert_null(job_next(NULL));
    }
    if (io) {
        iothread_destroy(io);
    }
}

static void test_sleep_forever_is_woken(void)
{
    TestJob *t = job_create("j", &sleepy_driver, NULL, qemu_get_aio_context(), 0, NULL, NULL,
                            &error_abort);
    t->run_ret = INT_MAX;
    job_start(&t->job);
    for (int i = 0; i < 3; i++) {
        job_enter(&t->job);
    }
    g_assert_cmpint(t->rounds, ==, 4);
    job_cancel_sync(&t->job, true);
}

/* ---- transactions ----------------------------------------------------------------------- */

typedef struct TxnCase {
    const char *name;
    int ret[3];                 /* of RUN */
    int prepare[3];
    int cancelled;              /* which is cancelled by the user, -1: none */
    const char *calls;          /* sorted by job, without free; in order of calls for each */
} TxnCase;

static const TxnCase txn_cases[] = {
    { "all succeed", { 0, 0, 0 }, { 0 }, -1, "pcx pcx pcx" },
    { "first fails", { -EIO, 0, 0 }, { 0 }, -1, "ax ax ax" },
    { "last fails", { 0, 0, -EIO }, { 0 }, -1, "ax ax ax" },
    { "two fail", { 0, -EIO, -ENOSPC }, { 0 }, -1, "ax ax ax" },
    { "one cancelled", { 0, 0, 0 }, { 0 }, 1, "ax ax ax" },
    { "prepare fails", { 0, 0, 0 }, { 0, -EIO, 0 }, -1, "?ax pax ?ax" },
};

/* The letters logged for job ID, without 'f'. */
static char *calls_of(char id)
{
    GString *s = g_string_new(NULL);
    for (const char *p = log_of_calls->str; *p; p += 3) {
        if (p[1] == id && p[0] != 'f') {
            g_string_append_c(s, p[0]);
        }
    }
    return g_string_free(s, false);
}

static void expect_calls(const TxnCase *c, int i, const char *expected)
{
    g_autofree char *calls = calls_of('a' + i);

    /* '?': it may have been prepared before the other failed, or not */
    bool ok = expected[0] == '?' ? !strcmp(calls, expected + 1) ||
                                   (calls[0] == 'p' && !strcmp(calls + 1, expected + 1))
                                 : !strcmp(calls, expected);
    if (!ok) {
        g_test_message("%s: job %d: got '%s', expected '%s'", c->name, i, calls, expected);
        g_test_fail();
    }
}

static void run_txn_case(const TxnCase *c, const int order[3])
{
    JobTxn *txn = job_txn_new();
    TestJob *t[3];
    g_auto(GStrv) expected = g_strsplit(c->calls, " ", 0);
    bool fails = strcmp(expected[0], "pcx");

    forget_log();
    for (int i = 0; i < 3; i++) {
        char id[2] = { 'a' + i, 0 };
        t[i] = new_job(id, txn, JOB_MANUAL_DISMISS);
        t[i]->run_ret = c->ret[i];
        t[i]->prepare_ret = c->prepare[i];
        job_start(&t[i]->job);
    }
    job_txn_unref(txn);
    for (int k = 0; k < 3; k++) {
        TestJob *job = t[order[k]];
        if (order[k] == c->cancelled) {
            JOB_LOCK_GUARD();
            job_cancel_locked(&job->job, false);
        } else if (status_of(job) == JOB_STATUS_RUNNING) {
            qatomic_set(&job->should_end, true);
            kick(job);
        }
        run_pending();
        if (!fails && k < 2) {
            g_assert_cmpint(status_of(job), ==, JOB_STATUS_WAITING);
            g_assert_cmpstr(log_of_calls->str, ==, "");
        }
    }
    run_pending();
    for (int i = 0; i < 3; i++) {
        Job *job = &t[i]->job;
        expect_calls(c, i, expected[i]);
        g_assert_cmpint(status_of(t[i]), ==, JOB_STATUS_CONCLUDED);
        g_assert_cmpint(!!job->ret, ==, fails);
        JOB_LOCK_GUARD();
        job_dismiss_locked(&job, &error_abort);
    }
}

static void test_transactions(void)
{
    static const int orders[][3] = {
        { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(txn_cases); i++) {
        for (size_t o = 0; o < ARRAY_SIZE(orders); o++) {
            run_txn_case(&txn_cases[i], orders[o]);
        }
    }
}

static void test_failure_cancels_the_others(void)
{
    JobTxn *txn = job_txn_new();
    TestJob *a = new_job("a", txn, JOB_MANUAL_DISMISS);
    TestJob *b = new_job("b", txn, JOB_MANUAL_DISMISS);
    TestJob *c = new_job("c", txn, JOB_MANUAL_DISMISS);     /* never started */

    WITH_JOB_LOCK_GUARD() {
        job_ref_locked(&c->job);
    }
    job_txn_unref(txn);
    a->run_ret = -EIO;
    a->should_end = true;
    job_start(&b->job);
    job_start(&a->job);
    run_pending();
    g_assert_cmpint(a->job.ret, ==, -EIO);
    g_assert_cmpint(b->job.ret, ==, -ECANCELED);
    g_assert_cmpint(c->job.ret, ==, -ECANCELED);
    g_assert_cmpint(status_of(c), ==, JOB_STATUS_NULL);
    WITH_JOB_LOCK_GUARD() {
        job_unref_locked(&c->job);
    }
    job_cancel_sync_all();
}

/*
 *      a                   b
 *      cancelled
 *                          entered twice: returns 0
 *      main loop: a's end, b's end
 */
static void test_cancel_races_with_the_end_of_another(void)
{
    for (int b_first = 0; b_first < 2; b_first++) {
        JobTxn *txn = job_txn_new();
        TestJob *a = new_job("a", txn, JOB_MANUAL_DISMISS);
        TestJob *b = new_job("b", txn, JOB_MANUAL_DISMISS);

        job_txn_unref(txn);
        job_start(&a->job);
        job_start(&b->job);
        b->should_end = true;
        if (b_first) {
            kick(b);
        }
        WITH_JOB_LOCK_GUARD() {
            job_cancel_locked(&a->job, false);
        }
        kick(b);
        run_pending();
        g_assert_cmpint(a->job.ret, ==, -ECANCELED);
        g_assert_cmpint(b->job.ret, ==, -ECANCELED);
        job_cancel_sync_all();
    }
}

static void test_txn_finalized_by_hand(void)
{
    JobTxn *txn = job_txn_new();
    TestJob *a = new_job("a", txn, JOB_MANUAL_FINALIZE);
    TestJob *b = new_job("b", txn, 0);

    job_txn_unref(txn);
    forget_log();
    a->should_end = b->should_end = true;
    job_start(&a->job);
    job_start(&b->job);
    run_pending();
    g_assert_cmpint(status_of(a), ==, JOB_STATUS_PENDING);
    g_assert_cmpint(status_of(b), ==, JOB_STATUS_PENDING);
    WITH_JOB_LOCK_GUARD() {
        job_finalize_locked(&b->job, &error_abort);     /* any of them finalizes all */
    }
    g_assert_null(job_next(NULL));
    g_assert_cmpstr(log_of_calls->str, ==, "pb pa cb xb fb ca xa fa ");
}

static void test_cancel_of_a_pending_txn(void)
{
    JobTxn *txn = job_txn_new();
    TestJob *a = new_job("a", txn, JOB_MANUAL_FINALIZE);
    TestJob *b = new_job("b", txn, JOB_MANUAL_FINALIZE);

    job_txn_unref(txn);
    forget_log();
    a->should_end = b->should_end = true;
    job_start(&a->job);
    job_start(&b->job);
    run_pending();
    g_assert_cmpint(job_cancel_sync(&a->job, true), ==, -ECANCELED);
    g_assert_null(job_next(NULL));
    g_assert_cmpstr(log_of_calls->str, ==, "ab xb fb aa xa fa ");
}

/* Somebody cancels one member while another's driver is preparing. */
static void test_cancel_during_prepare(void)
{
    for (int self = 0; self < 2; self++) {
        JobTxn *txn = job_txn_new();
        TestJob *a = new_job("a", txn, JOB_MANUAL_DISMISS);
        TestJob *b = new_job("b", txn, JOB_MANUAL_DISMISS);

        job_txn_unref(txn);
        a->cancel_in_prepare = b->cancel_in_prepare = self ? &b->job : &a->job;
        a->should_end = b->should_end = true;
        job_start(&a->job);
        job_start(&b->job);
        run_pending();
        g_assert_cmpint(a->job.ret, ==, -ECANCELED);
        g_assert_cmpint(b->job.ret, ==, -ECANCELED);
        job_cancel_sync_all();
        g_assert_null(job_next(NULL));
    }
}

/* ---- waiting ---------------------------------------------------------------------------- */

static void test_complete_sync(gconstpointer opaque)
{
    IOThread *io = opaque ? iothread_create("io", &error_abort) : NULL;
    AioContext *ctx = io ? iothread_get_aio_context(io) : qemu_get_aio_context();

    for (int i = 0; i < 100; i++) {
        TestJob *t = new_job_in("a", NULL, 0, ctx);
        t->should_become_ready = true;
        job_start(&t->job);
        poll_until(t, JOB_STATUS_READY);
        if (i & 1) {
            aio_context_acquire(ctx);   /* held or not, the wait lets the job run */
        }
        JOB_LOCK_GUARD();
        g_assert_cmpint(job_complete_sync_locked(&t->job, &error_abort), ==, 0);
        if (i & 1) {
            aio_context_release(ctx);
        }
    }
    if (io) {
        iothread_destroy(io);
    }
}

static void test_complete_sync_refused(void)
{
    TestJob *t = new_job("a", NULL, 0);
    g_autoptr(Error) err = NULL;

    job_start(&t->job);
    WITH_JOB_LOCK_GUARD() {
        g_assert_cmpint(job_complete_sync_locked(&t->job, &err), ==, -EBUSY);
    }
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Job 'a' in state 'running' cannot accept command verb 'complete'");
    job_cancel_sync(&t->job, true);
}

/* A drain, not the user, has paused the job; completing it waits for the drain's end. */
static void test_complete_in_standby(void)
{
    IOThread *io = iothread_create("io", &error_abort);
    AioContext *ctx = iothread_get_aio_context(io);
    TestJob *t = new_job_in("a", NULL, JOB_MANUAL_DISMISS, ctx);

    t->should_become_ready = true;
    job_start(&t->job);
    poll_until(t, JOB_STATUS_READY);
    job_pause(&t->job);
    poll_until(t, JOB_STATUS_STANDBY);
    aio_context_acquire(ctx);           /* the job cannot run */
    job_resume(&t->job);
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_STANDBY);
    WITH_JOB_LOCK_GUARD() {
        job_complete_locked(&t->job, &error_abort);
    }
    g_assert_cmpint(status_of(t), ==, JOB_STATUS_STANDBY);
    aio_context_release(ctx);
    poll_until(t, JOB_STATUS_CONCLUDED);
    g_assert_cmpint(t->job.ret, ==, 0);
    job_cancel_sync_all();
    iothread_destroy(io);
}

/* ---- news ------------------------------------------------------------------------------- */

static GString *news_text;

static void listener(const JobNews *news)
{
    g_assert_true(qemu_in_main_thread());
    static const char *const kinds[] = { NULL, "READY", "PENDING", "COMPLETED", "CANCELLED",
                                         "ERROR" };
    g_string_append_printf(news_text, "%s ", news->kind == JOB_NEWS_STATUS
                           ? JobStatus_str(news->status) : kinds[news->kind]);
}

static void expect_news(const char *expected)
{
    g_assert_cmpstr(news_text->str, ==, expected);
    g_string_truncate(news_text, 0);
}

static void test_news(gconstpointer opaque)
{
    IOThread *io = opaque ? iothread_create("io", &error_abort) : NULL;
    AioContext *ctx = io ? iothread_get_aio_context(io) : qemu_get_aio_context();
    TestJob *t;

    news_text = g_string_new(NULL);
    job_set_listener(listener);
    t = new_job_in("a", NULL, JOB_MANUAL_FINALIZE, ctx);
    expect_news("created ");
    t->should_become_ready = true;
    job_start(&t->job);
    poll_until(t, JOB_STATUS_READY);
    run_pending();
    expect_news("running ready READY ");
    job_pause(&t->job);
    poll_until(t, JOB_STATUS_STANDBY);
    job_resume(&t->job);
    poll_until(t, JOB_STATUS_READY);
    run_pending();
    expect_news("standby ready ");
    WITH_JOB_LOCK_GUARD() {
        job_complete_sync_locked(&t->job, &error_abort);
    }
    expect_news("waiting pending PENDING ");
    WITH_JOB_LOCK_GUARD() {
        job_finalize_locked(&t->job, &error_abort);
    }
    expect_news("COMPLETED concluded null ");

    t = new_job_in("b", NULL, 0, ctx);
    job_start(&t->job);
    job_cancel_sync(&t->job, true);
    run_pending();
    expect_news("created running aborting CANCELLED concluded null ");

    t = new_job_in(NULL, NULL, JOB_INTERNAL, ctx);
    job_start(&t->job);
    job_cancel_sync(&t->job, true);
    run_pending();
    expect_news("");
    job_set_listener(NULL);
    g_string_free(news_text, true);
    if (io) {
        iothread_destroy(io);
    }
}

/* ---- main ------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    log_of_calls = g_string_new(NULL);

    g_test_add_func("/job/state/transition-table", test_transition_table);
    g_test_add_func("/job/state/verb-table", test_verb_table);
    g_test_add_func("/job/state/every-verb-in-every-state", test_every_verb_in_every_state);
    g_test_add_func("/job/ids", test_ids);
    g_test_add_func("/job/success", test_success);
    g_test_add_func("/job/failure/in-run", test_failure_in_run);
    g_test_add_func("/job/failure/with-a-message", test_failure_with_a_message);
    g_test_add_func("/job/failure/in-prepare", test_failure_in_prepare);
    g_test_add_func("/job/finalize-and-dismiss-by-hand", test_finalize_and_dismiss_by_hand);
    g_test_add_func("/job/internal", test_internal_job);
    g_test_add_func("/job/progress", test_progress);
    g_test_add_func("/job/cancel/in-every-state", test_cancel_in_every_state);
    g_test_add_func("/job/cancel/soft", test_soft_cancel);
    g_test_add_func("/job/cancel/soft-too-late", test_soft_cancel_comes_too_late);
    g_test_add_func("/job/cancel/after-run-has-returned", test_cancel_after_run_has_returned);
    g_test_add_func("/job/pause/counts", test_pause_counts);
    g_test_add_func("/job/pause/before-the-start", test_paused_before_the_start);
    g_test_add_func("/job/pause/cancel-is-stronger", test_cancel_frees_a_paused_job);
    g_test_add_func("/job/sleep/forever", test_sleep_forever_is_woken);
    g_test_add_data_func("/job/QB-13/timer-and-enter/main-loop", NULL,
                         test_qb13_timer_and_enter);
    g_test_add_data_func("/job/QB-13/timer-and-enter/iothread", "io",
                         test_qb13_timer_and_enter);
    g_test_add_func("/job/txn/outcomes", test_transactions);
    g_test_add_func("/job/txn/failure-cancels-the-others", test_failure_cancels_the_others);
    g_test_add_func("/job/txn/cancel-races-with-the-end-of-another",
                    test_cancel_races_with_the_end_of_another);
    g_test_add_func("/job/txn/finalized-by-hand", test_txn_finalized_by_hand);
    g_test_add_func("/job/txn/cancel-while-pending", test_cancel_of_a_pending_txn);
    g_test_add_func("/job/txn/cancel-during-prepare", test_cancel_during_prepare);
    g_test_add_data_func("/job/complete-sync/main-loop", NULL, test_complete_sync);
    g_test_add_data_func("/job/complete-sync/iothread", "io", test_complete_sync);
    g_test_add_func("/job/complete-sync/refused", test_complete_sync_refused);
    g_test_add_func("/job/complete-in-standby", test_complete_in_standby);
    g_test_add_data_func("/job/news/main-loop", NULL, test_news);
    g_test_add_data_func("/job/news/iothread", "io", test_news);
    return g_test_run();
}
