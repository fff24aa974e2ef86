/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BlockBackend: the place where a user (export, device, tool) is attached to the graph. It
 * has a home context of its own and may be empty. Thread classes as in block.h.
 */
#ifndef MINIBLK_BLOCK_BACKEND_H
#define MINIBLK_BLOCK_BACKEND_H

#include "block.h"
#include "throttle-groups.h"

/* The user's callbacks. All Optional. Main thread; may not poll. */
typedef struct BlockDevOps {
    /* No request may be started any more (call blk_* only after drained_end). */
    void (*drained_begin)(void *opaque);
    void (*drained_end)(void *opaque);
    /* Whether the user still has work in flight beyond its requests. */
    bool (*drained_poll)(void *opaque);
    void (*resize_cb)(void *opaque);
} BlockDevOps;

/* GS: an empty backend, one reference. PERM and SHARED_PERM: BLK_PERM_*. */
BlockBackend *blk_new(AioContext *ctx, uint64_t perm, uint64_t shared_perm);
/* GS: bdrv_open + blk_new with permissions derived from FLAGS + blk_insert_bs. */
BlockBackend *no_coroutine_fn blk_new_open(const char *filename, const char *reference,
                                           QDict *options, int flags, Error **errp);
/* GS: a backend on an open node. Takes a reference on BS. */
BlockBackend *blk_new_with_bs(BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                              Error **errp);
/* GS. */
void blk_ref(BlockBackend *blk);
/* GS: the last reference drains (polls), detaches and frees. */
void no_coroutine_fn blk_unref(BlockBackend *blk);
/* Run blk_unref() in the main loop, yield until done. */
void coroutine_fn blk_co_unref(BlockBackend *blk);
/* GS: iterate over all backends (NULL: first). */
BlockBackend *blk_all_next(BlockBackend *blk);
/* GS: a user-visible unique name. */
bool monitor_add_blk(BlockBackend *blk, const char *name, Error **errp);
void monitor_remove_blk(BlockBackend *blk);
const char *blk_name(const BlockBackend *blk);

/* ---- I/O limits (GS) -------------------------------------------------------------- */

/* What others may look at. */
typedef struct BlockBackendPublic {
    ThrottleGroupMember throttle_group_member;
} BlockBackendPublic;
BlockBackendPublic *blk_get_public(BlockBackend *blk);
BlockBackend *blk_by_public(BlockBackendPublic *public);
/*
 * Put the backend, which is in none, into throttle group GROUP / take it out (or nothing) /
 * move it to another one, if it is in one. Poll until its requests in flight have ended; new
 * ones are parked meanwhile.
 */
void blk_io_limits_enable(BlockBackend *blk, const char *group);
void blk_io_limits_disable(BlockBackend *blk);
void blk_io_limits_update_group(BlockBackend *blk, const char *group);
/* Change the limits of its group. */
void blk_set_io_limits(BlockBackend *blk, ThrottleConfig *cfg);

/* ---- the node --------------------------------------------------------------------- */

/* Root node or NULL. */
BlockDriverState *blk_bs(BlockBackend *blk);
BdrvChild *blk_root(BlockBackend *blk);
/* GS: attach; takes a reference; may move the node into the backend's context. */
int blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, Error **errp);
/* GS: drain, detach, drop the reference. The backend keeps its context. */
void blk_remove_bs(BlockBackend *blk);
/* GS: on failure nothing changes. */
int blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared_perm, Error **errp);
/* GS: bdrv_make_empty() of the root node. */
int no_coroutine_fn blk_make_empty(BlockBackend *blk, Error **errp);
void blk_get_perm(BlockBackend *blk, uint64_t *perm, uint64_t *shared_perm);
void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque);
/* A name for the user in messages ("Conflicts with use by NAME"); kept by copy. GS. */
void blk_set_user_desc(BlockBackend *blk, const char *desc);

/* GS, poll. */
void blk_drain(BlockBackend *blk);
void blk_drain_all(void);

AioContext *blk_get_aio_context(BlockBackend *blk);
/* GS: move the backend and its graph; the old context's lock is held; 0 or -errno. Polls. */
int blk_set_aio_context(BlockBackend *blk, AioContext *new_context, Error **errp);
/* GS: whether moves begun elsewhere in the graph may take this backend along. */
void blk_set_allow_aio_context_change(BlockBackend *blk, bool allow);
/*
 * Let requests pass instead of parking them: the user sees to it that none begins in a drained
 * section that has come to rest (one that does is an error, see docs/drain.md). Any thread.
 */
void blk_set_disable_request_queuing(BlockBackend *blk, bool disable);
/* As bdrv_add_aio_context_notifier(), and follows the backend from node to node. GS. */
void blk_add_aio_context_notifier(BlockBackend *blk,
        void (*attached_aio_context)(AioContext *new_context, void *opaque),
        void (*detach_aio_context)(void *opaque), void *opaque);
void blk_remove_aio_context_notifier(BlockBackend *blk,
        void (*attached_aio_context)(AioContext *, void *),
        void (*detach_aio_context)(void *), void *opaque);

/*
 * In-flight tokens of the backend; see bdrv_inc_in_flight(). Any thread. A user that holds
 * one while it calls blk_co_*() parks for itself in drained_begin and switches queuing off
 * (blk_set_disable_request_queuing): a request parked under such a token would keep the
 * section waiting for its own end.
 */
void blk_inc_in_flight(BlockBackend *blk);
void blk_dec_in_flight(BlockBackend *blk);
/* Whether the backend is in a drained section (atomic read; any thread). */
bool blk_in_drain(BlockBackend *blk);

/* ---- requests --------------------------------------------------------------------- */

/*
 * As the bdrv_ calls, plus: -ENOMEDIUM without a root; a range beyond the end is -EIO;
 * while the backend is drained the request is parked (see blk_set_disable_request_queuing)
 * and starts when the section ends. mixed: 0 or -errno.
 */
int coroutine_mixed_fn blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                                 BdrvRequestFlags flags);
int coroutine_mixed_fn blk_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
                                  QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_mixed_fn blk_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags);
int coroutine_mixed_fn blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                                  const void *buf, BdrvRequestFlags flags);
int coroutine_mixed_fn blk_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                                   QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_mixed_fn blk_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, size_t qiov_offset,
                                        BdrvRequestFlags flags);
int coroutine_mixed_fn blk_pwrite_compressed(BlockBackend *blk, int64_t offset,
                                             int64_t bytes, const void *buf);
int coroutine_mixed_fn blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                         BdrvRequestFlags flags);
int coroutine_mixed_fn blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int coroutine_mixed_fn blk_flush(BlockBackend *blk);
int coroutine_mixed_fn blk_truncate(BlockBackend *blk, int64_t offset, bool exact,
                                    PreallocMode prealloc, BdrvRequestFlags flags,
                                    Error **errp);
int64_t coroutine_mixed_fn blk_getlength(BlockBackend *blk);

/* I/O. */
int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              BdrvRequestFlags flags);
int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes,
                               QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn blk_co_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, size_t qiov_offset,
                                    BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes,
                               const void *buf, BdrvRequestFlags flags);
int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn blk_co_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags);
int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
int coroutine_fn blk_co_flush(BlockBackend *blk);
int coroutine_fn blk_co_block_status(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     int64_t *pnum, int64_t *map, BlockDriverState **file);

/* As bdrv_co_copy_range_from(). */
int coroutine_fn blk_co_copy_range(BlockBackend *blk_in, int64_t off_in,
                                   BlockBackend *blk_out, int64_t off_out, int64_t bytes,
                                   BdrvRequestFlags read_flags, BdrvRequestFlags write_flags);

/* Asynchronous: CB(OPAQUE, 0 or -errno) always comes later, in the backend's context. */
BlockAIOCB *blk_aio_preadv(BlockBackend *blk, int64_t offset, QEMUIOVector *qiov,
                           BdrvRequestFlags flags, BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pwritev(BlockBackend *blk, int64_t offset, QEMUIOVector *qiov,
                            BdrvRequestFlags flags, BlockCompletionFunc *cb, void *opaque);
BlockAIOCB *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                  BdrvRequestFlags flags, BlockCompletionFunc *cb,
                                  void *opaque);
BlockAIOCB *blk_aio_flush(BlockBackend *blk, BlockCompletionFunc *cb, void *opaque);

#endif
