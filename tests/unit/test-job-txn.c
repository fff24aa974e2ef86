/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that end together. */
#include "job-test.h"

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

/* ---- main ------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    job_test_init(&argc, &argv);
    g_test_add_func("/job/txn/outcomes", test_transactions);
    g_test_add_func("/job/txn/failure-cancels-the-others", test_failure_cancels_the_others);
    g_test_add_func("/job/txn/cancel-races-with-the-end-of-another",
                    test_cancel_races_with_the_end_of_another);
    g_test_add_func("/job/txn/finalized-by-hand", test_txn_finalized_by_hand);
    g_test_add_func("/job/txn/cancel-while-pending", test_cancel_of_a_pending_txn);
    g_test_add_func("/job/txn/cancel-during-prepare", test_cancel_during_prepare);
    return g_test_run();
}
