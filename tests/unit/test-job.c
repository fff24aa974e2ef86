/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs without nodes: life, cancelling, pausing, waiting, news. */
#include "job-test.h"

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
    job_test_init(&argc, &argv);
    g_test_add_func("/job/ids", test_ids);
    g_test_add_func("/job/success", test_success);
    g_test_add_func("/job/failure/in-run", test_failure_in_run);
    g_test_add_func("/job/failure/with-a-message", test_failure_with_a_message);
    g_test_add_func("/job/failure/in-prepare", test_failure_in_prepare);
    g_test_add_func("/job/finalize-and-dismiss-by-hand", test_finalize_and_dismiss_by_hand);
    g_test_add_func("/job/internal", test_internal_job);
    g_test_add_func("/job/progress", test_progress);
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
    g_test_add_data_func("/job/complete-sync/main-loop", NULL, test_complete_sync);
    g_test_add_data_func("/job/complete-sync/iothread", "io", test_complete_sync);
    g_test_add_func("/job/complete-sync/refused", test_complete_sync_refused);
    g_test_add_func("/job/complete-in-standby", test_complete_in_standby);
    g_test_add_data_func("/job/news/main-loop", NULL, test_news);
    g_test_add_data_func("/job/news/iothread", "io", test_news);
    return g_test_run();
}
