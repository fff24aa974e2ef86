/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The states of a job, and every verb in each of them. */
#include "job-test.h"

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

/* ---- main ------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
    job_test_init(&argc, &argv);
    g_test_add_func("/job/state/transition-table", test_transition_table);
    g_test_add_func("/job/state/verb-table", test_verb_table);
    g_test_add_func("/job/state/every-verb-in-every-state", test_every_verb_in_every_state);
    g_test_add_func("/job/cancel/in-every-state", test_cancel_in_every_state);
    return g_test_run();
}
