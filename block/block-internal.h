/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of block/ share with each other and with nobody else. */
#ifndef BLOCK_INTERNAL_H
#define BLOCK_INTERNAL_H

#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/block-driver.h"
#include "miniblk/main-loop.h"
#include "miniblk/transaction.h"

/* ---- node.c ------------------------------------------------------------------------------ */

/* A node without driver or name, one reference, in the main context. */
BlockDriverState *bdrv__new(void);
/* Name BS (NULL: "#blockNNN"); it can be found from now on. 0 or -EINVAL with ERRP set. */
int bdrv__set_node_name(BlockDriverState *bs, const char *node_name, Error **errp);
BlockDriverState *bdrv__next_any(BlockDriverState *bs);

/* ---- graph.c / perm.c -------------------------------------------------------------------- */

/* Point edge CHILD at NEW_BS (may be NULL), keeping the parent's quiesced state right. */
void bdrv__replace_child_noperm(BdrvChild *child, BlockDriverState *new_bs);
/* Recompute permissions of BS and everything below, as steps of TRAN. 0 or -EPERM. */
int bdrv__refresh_perms(BlockDriverState *bs, Transaction *tran, Error **errp);
/* The same for two nodes in one topological order. */
int bdrv__refresh_perms_of_two(BlockDriverState *a, BlockDriverState *b, Transaction *tran,
                               Error **errp);
/* What parent BS needs and shares on a child edge of ROLE (C NULL: yet to be made). */
void bdrv__child_perm(BlockDriverState *bs, BlockDriverState *child_bs, BdrvChild *c,
                      BdrvChildRole role, uint64_t parent_perm, uint64_t parent_shared,
                      uint64_t *nperm, uint64_t *nshared);
void bdrv__set_child_perm(BdrvChild *c, uint64_t perm, uint64_t shared, Transaction *tran);

/* ---- drain.c ----------------------------------------------------------------------------- */

/* One level more / less of quiescing for BS; neither polls. Main thread. */
void bdrv__quiesce(BlockDriverState *bs);
void bdrv__unquiesce(BlockDriverState *bs);
/* Whether anything is in flight on BS or on the way to it from its parents. */
bool bdrv__drain_poll(BlockDriverState *bs);
/* Tell / release the parent of one edge; idempotent per edge. */
void bdrv__parent_drained_begin(BdrvChild *c);
void bdrv__parent_drained_end(BdrvChild *c);
bool bdrv__parent_drained_poll(BdrvChild *c);
/* The driver is ready to be told of the node's drained sections / is told no more. */
void bdrv__driver_opened(BlockDriverState *bs);
void bdrv__driver_closed(BlockDriverState *bs);
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
