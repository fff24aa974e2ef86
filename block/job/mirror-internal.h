/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The mirror job, which is the active commit too.
 *
 *      guests                              when it has completed:   guests
 *        |                                                            |
 *      filter ---- main node ---- job                               target
 *        | backing                 |
 *      source ----- "source" ------+
 *                   target --------+ and its backend
 *
 * The source has a dirty bitmap. The job clears a bit and copies what it stands for, until
 * nothing is dirty; guests set bits meanwhile. In write-blocking mode the filter writes to the
 * target what guests write, and leaves no bit set. When the job is told to complete and little
 * is dirty, its coroutine ends. The rest is done in the main thread, in one drained section of
 * the source from the last copy to the switch, so that no write can come between.
 */
#ifndef MIRROR_INTERNAL_H
#define MIRROR_INTERNAL_H

#include "block/job/job-internal.h"
#include "miniblk/block-backend.h"
#include "miniblk/block-driver.h"
#include "miniblk/blockjob.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/hbitmap.h"

typedef struct MirrorJob MirrorJob;

/* What is being copied, or written by a guest to both sides. Whole granules, see widen(). */
typedef struct MirrorOp {
    MirrorJob *s;
    int64_t offset, bytes;
    CoQueue waiters;            /* those who want to work on the same granules */
    QLIST_ENTRY(MirrorOp) list;
} MirrorOp;

struct MirrorJob {
    BlockJob common;

    /* fixed */
    bool is_commit;             /* the target is in the source's backing chain */
    bool auto_complete;
    MirrorSyncMode sync;
    BlockMirrorBackingMode backing_mode;
    bool zero_target, unmap;
    BlockdevOnError on_source_error, on_target_error;
    int64_t granularity, buf_size, length;      /* bytes */
    int64_t cluster_bytes;      /* of the target, when WHOLE is used */
    char *replaces;             /* node name; NULL: the source */

    /* main thread; each with a reference; NULL when it is all over. mirror-end.c */
    BlockDriverState *filter, *source, *target;
    BlockBackend *target_blk;
    BlockDriverState *to_replace;       /* set by complete; NULL: the source */
    bool target_was_read_only;

    BdrvDirtyBitmap *dirty;     /* of the source; has a lock of its own */
    MirrorCopyMode copy_mode;   /* atomic; the filter's */
    bool complete_wanted;       /* atomic; main thread */

    /* the job's context, which is the filter's and the source's. mirror-copy.c */
    QLIST_HEAD(, MirrorOp) ops;
    unsigned copies;            /* of these, how many are the job's own */
    int64_t copy_bytes;         /* bytes of those */
    int64_t copied_bytes;       /* bytes of those that have ended */
    int64_t first_pass_bytes;   /* what there was to be copied at the beginning */
    int64_t cursor;             /* where to look for the next dirty granule */
    CoQueue op_ended;
    /*
     * The target's clusters, each larger than a granule, that have been written whole; NULL:
     * none need be. The rest of one written in part would hide a backing file it gets later.
     */
    HBitmap *whole;
    bool tracking;              /* the bitmap is initialised: the filter may clear bits */
    bool failed_lately;         /* a request has failed, and will be tried again */
    int ret;                    /* why the job fails, -errno */
};

/* ---- mirror-copy.c; coroutines in the job's context ------------------------------------- */

/* Start as many copies as may be in flight; false: there is nothing that could be started. */
bool coroutine_fn mirror__start_copies(MirrorJob *s);
/* For any operation, a guest's or our own. */
void coroutine_fn mirror__wait_for_an_op(MirrorJob *s);
void coroutine_fn mirror__wait_for_all_copies(MirrorJob *s);
int64_t mirror__dirty_bytes(MirrorJob *s);
/* Copy until nothing is dirty, or BUDGET_BYTES have been copied. 0 or -errno. */
int coroutine_fn mirror__copy_rest(MirrorJob *s, int64_t budget_bytes);
/*
 * Copy the range from the source to the target, holes as holes. 0, or -errno and *IS_READ says
 * whether reading or writing failed.
 */
int coroutine_fn mirror__copy(MirrorJob *s, int64_t offset, int64_t bytes, bool *is_read);
/* Whether no cluster of the target would be written in part that must be written whole. */
bool mirror__may_write(const MirrorJob *s, int64_t offset, int64_t bytes);
/* Take and release the granules of a guest's write, and clusters to be written whole. */
void coroutine_fn mirror__op_begin(MirrorJob *s, MirrorOp *op, int64_t offset, int64_t bytes);
void coroutine_fn mirror__op_end(MirrorOp *op);
/* A request to the source / target has failed with RET: what to do. */
BlockErrorAction mirror__error(MirrorJob *s, bool is_read, int ret);

/* ---- mirror-filter.c -------------------------------------------------------------------- */

extern BlockDriver mirror__filter_driver;
/* From now on the filter belongs to S; NULL: to nobody. */
void mirror__filter_set_job(BlockDriverState *filter, MirrorJob *s);
/* It stands over the source of an active commit / no more. The latter can be refused. */
void mirror__filter_set_commit(BlockDriverState *filter);
int mirror__filter_end_commit(BlockDriverState *filter, Error **errp);
/* It needs nothing any more and allows all. */
void mirror__filter_drop_perms(BlockDriverState *filter);

/* ---- mirror-end.c; main thread ---------------------------------------------------------- */

int mirror__prepare(Job *job);
void mirror__abort(Job *job);
/* Take the filter out of the graph, and drop the job's reference. */
void mirror__drop_filter(BlockDriverState *filter);

/* ---- mirror.c --------------------------------------------------------------------------- */

extern const BlockJobDriver mirror__job_driver, mirror__commit_job_driver;

#endif
