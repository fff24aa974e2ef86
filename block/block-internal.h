/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of block/ share with each other and with nobody else. */
#ifndef BLOCK_INTERNAL_H
#define BLOCK_INTERNAL_H

#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/block-driver.h"
#include "miniblk/graph-lock.h"
#include "miniblk/main-loop.h"
#include "miniblk/transaction.h"
#include "aio/port-note.h"

/* ---- node.c ------------------------------------------------------------------------------ */

/* A node without driver or name, one reference, in the main context. */
BlockDriverState *bdrv__new(void);
/* Name BS (NULL: "#blockNNN"); it can be found from now on. 0 or -EINVAL with ERRP set. */
int bdrv__set_node_name(BlockDriverState *bs, const char *node_name, Error **errp);
BlockDriverState *bdrv__next_any(BlockDriverState *bs);

/* ---- open.c / open-child.c --------------------------------------------------------------- */

/* Options of all drivers, taken out before the driver sees the others. */
typedef struct BdrvCommonOptions {
    char *node_name;            /* NULL: not given */
    json_t *backing;            /* NULL: not given */
    int flags;                  /* in: without any option; out: in force */
    int explicit_flags;         /* those that an option has set or cleared */
    int detect_zeroes;
    bool force_share;
} BdrvCommonOptions;
void bdrv__common_options_clear(BdrvCommonOptions *co);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(BdrvCommonOptions, bdrv__common_options_clear)
bool bdrv__take_common_options(QDict *options, BdrvCommonOptions *co, Error **errp);
/*
 * What a child that is opened along with PARENT inherits, when PARENT has PARENT_FLAGS; an
 * option in its own subset wins.
 */
int bdrv__child_flags(BlockDriverState *parent, int parent_flags, BdrvChildRole role);

/* ---- open.c ------------------------------------------------------------------------------- */

/* Open and attach the backing file that BS's image names, if it has none yet. 0 or -errno. */
int bdrv__open_backing_file(BlockDriverState *bs, Error **errp);

/* ---- graph-order.c ------------------------------------------------------------------------ */

/* The children of BS have changed: so may its height, and those of the nodes above. */
void bdrv__update_height(BlockDriverState *bs);
/* Whether an edge from PARENT to CHILD would close a circle. */
bool bdrv__would_cycle(BlockDriverState *parent, BlockDriverState *child);
/* Whether, after a change below BS, no way down is too long: 0, or -ELOOP with ERRP set. */
int bdrv__check_depth(BlockDriverState *bs, Error **errp);

/* ---- graph.c: holding the graph lock, in a transaction; none polls ------------------------ */

/* An edge that is in no list yet, and the end of one that no longer is. */
BdrvChild *bdrv__new_edge(const char *name, const BdrvChildClass *klass, BdrvChildRole role,
                          uint64_t perm, uint64_t shared, void *opaque);
void bdrv__free_edge(BdrvChild *child);
/* Drop a reference on an edge, taken by child->refcnt++ to find it again after a wait. */
void bdrv__unref_edge(BdrvChild *child);
/* The parent of an edge, if that is a node. */
static inline BlockDriverState *bdrv__parent_node(const BdrvChild *c)
{
    return c->klass->parent_is_bds ? c->opaque : NULL;
}
/*
 * Have a new edge point to CHILD_BS, with a reference of its own; take one out; point one to
 * NEW_BS instead. The caller has references of its own on all nodes involved. When the
 * transaction is aborted, the new edge remains, unused, for the caller to free.
 */
void bdrv__attach_edge(BdrvChild *child, BlockDriverState *child_bs, Transaction *tran);
void bdrv__detach_edge(BdrvChild *child, Transaction *tran);
void bdrv__move_edge(BdrvChild *child, BlockDriverState *new_bs, Transaction *tran);
/*
 * After the change: release the parents that rest because of an edge to BS although BS does
 * not. The caller has a reference on BS; callbacks may change the graph.
 */
void bdrv__settle_parents(BlockDriverState *bs);

/* ---- attach.c ----------------------------------------------------------------------------- */

/*
 * Poll until the parent of EDGE, a new one, is fit to have CHILD_BS: in one context, and at
 * rest if CHILD_BS is drained. Then take the graph lock for writing. 0 or -EPERM.
 */
int bdrv__lock_for_edge(BdrvChild *edge, BlockDriverState *child_bs, Error **errp);
/* Undo what this did to BS (may be NULL), which was in CTX. Polls. */
void bdrv__move_back(BlockDriverState *bs, AioContext *ctx);
/*
 * Take out an edge; its reference on the child becomes the caller's. Polls; NULL: somebody has
 * taken it out meanwhile.
 */
BlockDriverState *bdrv__detach_child(BlockDriverState *parent, BdrvChild *child);
/*
 * BS has lost a parent: if it was the last, and no user is connected with BS, it returns to the
 * main context. The caller has a reference. Polls.
 */
void bdrv__go_home(BlockDriverState *bs);

/* ---- replace.c --------------------------------------------------------------------------- */

/* The edge of FROM's backing chain that leads to TO; NULL if there is none. */
BdrvChild *bdrv__last_link(BlockDriverState *from, BlockDriverState *to);
/*
 * Re-point the parents of FROM to TO, holding the graph lock. FROM is drained, so they are all
 * at rest; they are released by the end of its section and by bdrv__settle_parents(TO).
 * Without SKIP, a parent that cannot follow is an error. With CUT, TO is below FROM, and what
 * lies between is on its way out: its link to what remains goes as well, so that it has no say
 * any more. 0 or -errno, and nothing has changed.
 */
int bdrv__replace_drained(BlockDriverState *from, BlockDriverState *to, bool cut, bool skip,
                          Error **errp);
/* An edge for a backing child of BS. */
BdrvChild *bdrv__new_backing_edge(BlockDriverState *bs);
/*
 * As steps of TRAN, with BS drained and the graph lock held: EDGE to BACKING_HD in place of
 * bs->backing (both NULL: nothing). 0 or -errno. Permissions are the caller's.
 */
int bdrv__change_backing(BlockDriverState *bs, BdrvChild *edge, BlockDriverState *backing_hd,
                         Transaction *tran, Error **errp);

/* ---- perm.c ------------------------------------------------------------------------------ */

/*
 * Recompute the permissions of two nodes (either may be NULL), or of all of NODES, and of what
 * this changes below them, as steps of TRAN. 0 or -errno.
 */
int bdrv__refresh_perms(BlockDriverState *a, BlockDriverState *b, Transaction *tran,
                        Error **errp);
int bdrv__refresh_perms_of_all(GPtrArray *nodes, BlockReopenQueue *q, Transaction *tran,
                               Error **errp);
/* What parent BS needs and shares on a child edge of ROLE (C NULL: yet to be made). */
void bdrv__child_perm(BlockDriverState *bs, BlockDriverState *child_bs, BdrvChild *c,
                      BdrvChildRole role, BlockReopenQueue *q, uint64_t parent_perm,
                      uint64_t parent_shared, uint64_t *nperm, uint64_t *nshared);
void bdrv__set_child_perm(BdrvChild *c, uint64_t perm, uint64_t shared, Transaction *tran);

/* ---- drain.c ----------------------------------------------------------------------------- */

/* One level more / less of quiescing for BS; neither polls. Main thread. */
void bdrv__quiesce(BlockDriverState *bs);
void bdrv__unquiesce(BlockDriverState *bs);
/* Whether anything is in flight on BS or on the way to it from its parents. */
bool bdrv__drain_poll(BlockDriverState *bs);
/*
 * Whether anything is in flight on any of NODES (which is sorted) or in the parents of them
 * that are not nodes in COVERED; NULL: that are not nodes. Linear.
 */
bool bdrv__any_in_flight(GPtrArray *nodes, GHashTable *covered);
/* Tell / release the parent of one edge; idempotent per edge. */
void bdrv__parent_drained_begin(BdrvChild *c);
void bdrv__parent_drained_end(BdrvChild *c);
bool bdrv__parent_drained_poll(BdrvChild *c);
/* The driver is ready to be told of the node's drained sections / is told no more. */
void bdrv__driver_opened(BlockDriverState *bs);
void bdrv__driver_closed(BlockDriverState *bs);
/*
 * The oracle, in all but release builds: nobody submits while drained. REQUEST at OFFSET bytes
 * is about to go to BS, by way of C (NULL: not known). Called before it is counted.
 */
void bdrv__check_submission(BlockDriverState *bs, BdrvChild *c, const char *request,
                            int64_t offset);
static inline void bdrv__submitting(BlockDriverState *bs, BdrvChild *c, const char *request,
                                    int64_t offset)
{
#ifndef MINIBLK_RELEASE
    if (unlikely(qatomic_read(&bs->at_rest))) {
        bdrv__check_submission(bs, c, request, offset);
    }
#endif
}
/* The main thread waits for what it does itself, as the owner of its sections may / has. */
void bdrv__sync_call_begin(void);
void bdrv__sync_call_end(void);
/* A new node joins, a closing node leaves the global drained sections in force. */
void bdrv__drain_all_join(BlockDriverState *bs);
void bdrv__drain_all_leave(BlockDriverState *bs);

/* ---- request.c / align.c / tracked.c ------------------------------------------------------ */

enum BdrvTrackedRequestType {
    BDRV_TRACKED_WRITE,
    BDRV_TRACKED_DISCARD,
    BDRV_TRACKED_TRUNCATE,
};
/* A request in flight that others may have to wait for. Lives on its coroutine's stack. */
struct BdrvTrackedRequest {
    BlockDriverState *bs;
    int64_t offset, bytes;
    enum BdrvTrackedRequestType type;
    bool serialising;
    int64_t overlap_offset, overlap_bytes;      /* what it holds off while serialising */
    Coroutine *co;
    BdrvTrackedRequest *waiting_for;
    CoQueue wait_queue;
    QLIST_ENTRY(BdrvTrackedRequest) list;
};
void bdrv__tracked_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                         int64_t bytes, enum BdrvTrackedRequestType type);
void coroutine_fn bdrv__tracked_end(BdrvTrackedRequest *req);
/* Hold off overlapping requests; with ALIGN > 1 whole blocks of that size. */
void coroutine_fn bdrv__make_serialising(BdrvTrackedRequest *req, uint64_t align);
/* Wait for overlapping serialising requests. */
void coroutine_fn bdrv__wait_serialising(BdrvTrackedRequest *req);

/* 0, or -EIO when the range is negative, too long or does not fit QIOV. */
int bdrv__check_request(int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                        size_t qiov_offset);
/* Aligned reads and writes of any length: limits, zero fill behind the end, driver. */
int coroutine_fn bdrv__aligned_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);
int coroutine_fn bdrv__aligned_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags);
/*
 * Before a read with BDRV_REQ_COPY_ON_READ: copy what BS does not have of the range, in whole
 * units of allocation, into BS. 0 or -errno. copy-on-read.c
 */
int coroutine_fn bdrv__copy_on_read(BlockDriverState *bs, int64_t offset, int64_t bytes);
/* The same for requests that are not aligned to bs->bl.request_alignment. */
int coroutine_fn bdrv__unaligned_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags);
/* REQ is made serialising. */
int coroutine_fn bdrv__unaligned_pwritev(BdrvTrackedRequest *req, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         size_t qiov_offset, BdrvRequestFlags flags);
/* Aligned write of zeroes: the driver's way, or buffers. zeroes.c */
int coroutine_fn bdrv__do_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags);
int coroutine_fn bdrv__driver_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);
/* Refresh bs->total_sectors from the driver. 0 or -errno. */
int coroutine_fn bdrv__co_refresh_total_sectors(BlockDriverState *bs);
int bdrv__refresh_total_sectors(BlockDriverState *bs);
/* Tell the parents that the length has changed. */
void bdrv__parents_resized(BlockDriverState *bs);

/* ---- sync.c ------------------------------------------------------------------------------- */

/*
 * Run FN(OPAQUE) as a coroutine in CTX and poll until it has returned; in a coroutine call
 * it directly.
 */
void bdrv__run_co(AioContext *ctx, void (*fn)(void *opaque), void *opaque);
/* The same in BS's context, with a token of BS from before the coroutine exists. */
void bdrv__run_co_on(BlockDriverState *bs, void (*fn)(void *opaque), void *opaque);

#endif
