/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations on jobs: mirrors and commits are started, and then users do to them what they
 * can, while the graph changes around them. Whether a job succeeds, fails or is cancelled, the
 * disk shows the same afterwards.
 */
#include "graph-fuzz.h"
#include "miniblk/blockjob.h"

enum { JOBS_MAX = 2 };

/* The target has a reference of ours until the job has ended. */
typedef struct Running {
    char *id;                   /* NULL: no job */
    BlockDriverState *target;   /* NULL: the job is a commit */
} Running;

static Running running[JOBS_MAX];
static unsigned started;
static int ready_and_completed, over;

static bool is_over(const Running *r)
{
    JOB_LOCK_GUARD();
    return r->id && !job_get_locked(r->id);
}

/* Forget the jobs that have ended; what they have put into a chain stays ours. */
void jobs_reap(void)
{
    for (int i = 0; i < JOBS_MAX; i++) {
        Running *r = &running[i];
        if (!is_over(r)) {
            continue;
        }
        tell("%s is over", r->id);
        over++;
        g_clear_pointer(&r->id, g_free);
        if (r->target && in_a_chain(r->target)) {
            g_hash_table_add(chained, r->target);
        } else if (r->target) {
            drop(r->target);
        }
        r->target = NULL;
    }
}

bool jobs_active(void)
{
    for (int i = 0; i < JOBS_MAX; i++) {
        if (running[i].id) {
            return true;
        }
    }
    return false;
}

/* ---- starting ---------------------------------------------------------------------------- */

static int random_speed(void)
{
    return one_in(2) ? 0 : (1 << below(12)) * 1024;
}

static void start_mirror(Running *r, Disk *d, Error **errp)
{
    BlockDriverState *bs = any_node(d);

    r->target = new_node(&fuzz_store);
    tell("%s: mirror %s to %s", r->id, bs->node_name, r->target->node_name);
    mirror_start(r->id, bs, r->target, NULL, JOB_DEFAULT, random_speed(), BLOCK_BYTES,
                 (1 + below(8)) * BLOCK_BYTES, MIRROR_SYNC_MODE_FULL,
                 MIRROR_LEAVE_BACKING_CHAIN, false, BLOCKDEV_ON_ERROR_REPORT,
                 BLOCKDEV_ON_ERROR_REPORT, false, NULL,
                 one_in(2) ? MIRROR_COPY_MODE_BACKGROUND : MIRROR_COPY_MODE_WRITE_BLOCKING,
                 errp);
    drop(bs);
}

/* A node of ours below BS; NULL: there is none. No reference. */
static BlockDriverState *some_node_below(BlockDriverState *bs)
{
    BlockDriverState *found = NULL;

    while ((bs = bdrv_filter_or_cow_bs(bs))) {
        if (is_ours(bs) && !is_filter(bs) && (!found || one_in(2))) {
            found = bs;
        }
    }
    return found;
}

static void start_commit(Running *r, Disk *d, bool active, Error **errp)
{
    BlockDriverState *bs = top_of(d);
    BlockDriverState *top = active ? bs : some_node_below(bs);
    BlockDriverState *base = top ? some_node_below(top) : NULL;

    if (!base || top->drv != &fuzz_overlay || !block_job_none_uses(top, NULL)) {
        error_setg(errp, "there are no such layers");
        return;
    }
    tell("%s: %s commit of %s to %s", r->id, active ? "active" : "inner", top->node_name,
         base->node_name);
    if (active) {
        commit_active_start(r->id, top, base, JOB_DEFAULT, random_speed(),
                            BLOCKDEV_ON_ERROR_REPORT, NULL, NULL, NULL, one_in(2), errp);
    } else {
        commit_start(r->id, bs, base, top, JOB_DEFAULT, random_speed(),
                     BLOCKDEV_ON_ERROR_REPORT, "base", NULL, errp);
    }
}

void op_job_start(void)
{
    Running *r = &running[below(JOBS_MAX)];
    Error *err = NULL;

    no_surprises();
    if (depth || r->id) {
        return;
    }
    *r = (Running) { g_strdup_printf("job%u", started++), NULL };
    switch (below(3)) {
    case 0:
        start_mirror(r, any_disk(), &err);
        break;
    case 1:
        start_commit(r, any_disk(), false, &err);
        break;
    default:
        start_commit(r, any_disk(), true, &err);
        break;
    }
    if (!done(err ? -1 : 0, &err)) {
        g_clear_pointer(&r->id, g_free);
        if (r->target) {
            drop(g_steal_pointer(&r->target));
        }
    }
}

/* ---- what users do ----------------------------------------------------------------------- */

static void apply_verb(Job *job, int verb, Error **errp)
{
    BlockJob *bjob = block_job_get_locked(job->id);

    switch (verb) {
    case 0:
    case 1:
        job_complete_locked(job, errp);
        ready_and_completed += !*errp;
        break;
    case 2:
        job_user_pause_locked(job, errp);
        break;
    case 3:
    case 4:
        job_user_resume_locked(job, errp);
        break;
    case 5:
        block_job_set_speed_locked(bjob, random_speed(), errp);
        break;
    default:
        job_user_cancel_locked(job, one_in(2), errp);
        break;
    }
}

void op_job_verb(void)
{
    static const char *const names[] = {
        "complete", "complete", "pause", "resume", "resume", "set the speed of", "cancel",
    };
    Running *r = &running[below(JOBS_MAX)];
    int verb = below(ARRAY_SIZE(names));
    Error *err = NULL;

    if (!r->id) {
        return;
    }
    tell("%s %s", names[verb], r->id);
    WITH_JOB_LOCK_GUARD() {
        Job *job = job_get_locked(r->id);
        if (job) {
            job_ref_locked(job);
            apply_verb(job, verb, &err);
            job_unref_locked(job);
        }
    }
    done(err ? -1 : 0, &err);
}

void jobs_end(void)
{
    job_cancel_sync_all();
    jobs_reap();
    g_assert_false(jobs_active());
    g_test_message("%u jobs, %d completed on demand, %d over", started, ready_and_completed,
                   over);
}
