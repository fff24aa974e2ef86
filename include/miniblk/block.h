/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph for its users: opening and naming nodes, requests on edges, drain, moves.
 * "GS" = global state: main thread, big lock held. "I/O" = coroutine in the node's context.
 * "mixed" = also outside a coroutine, where it polls until done (and so the graph may have
 * changed when it returns); in the main thread the caller holds the node's context lock
 * once, or not at all.
 */
#ifndef MINIBLK_BLOCK_H
#define MINIBLK_BLOCK_H

#include "block-common.h"
#include "block-debug.h"
#include "transaction.h"

/* ---- drivers ---------------------------------------------------------------------- */

/* Register the drivers that are built in. GS; idempotent. */
void bdrv_init(void);
void bdrv_register(BlockDriver *bdrv);
/* By format_name; NULL when there is none. Any thread after bdrv_init(). */
BlockDriver *bdrv_find_format(const char *format_name);
/*
 * By filename: the protocol prefix ("nbd:"), a host device, else "file". NULL with ERRP set
 * ("Unknown protocol 'xx'"). GS.
 */
BlockDriver *bdrv_find_protocol(const char *filename, bool allow_protocol_prefix,
                                Error **errp);
/* Iterate; NULL gives the first. */
BlockDriver *bdrv_next_driver(BlockDriver *drv);

/* ---- opening (GS) ----------------------------------------------------------------- */

/*
 * Open a node: by REFERENCE (an existing node-name), or by FILENAME and OPTIONS (consumed,
 * also on failure; either may be NULL). A "driver" option or probing chooses the driver;
 * "json:{...}" filenames are options. Polls. One reference, or NULL with ERRP set.
 */
BlockDriverState *no_coroutine_fn bdrv_open(const char *filename, const char *reference,
                                            QDict *options, int flags, Error **errp);
/* A node of DRV with no options and no file; NODE_NAME NULL: "#blockNNN". */
BlockDriverState *bdrv_new_open_driver(BlockDriver *drv, const char *node_name, int flags,
                                       Error **errp);
BlockDriverState *bdrv_new_open_driver_opts(BlockDriver *drv, const char *node_name,
                                            QDict *options, int flags, Error **errp);
/*
 * For drivers: open the child that option BDREF_KEY names (a node-name or nested options),
 * or FILENAME, and attach it to PARENT. With ALLOW_NONE nothing given is not an error
 * (NULL, ERRP unset).
 */
BdrvChild *bdrv_open_child(const char *filename, QDict *options, const char *bdref_key,
                           BlockDriverState *parent, const BdrvChildClass *child_class,
                           BdrvChildRole child_role, bool allow_none, Error **errp);
/* The same for bs->file, with the roles of a format or (driver is_filter) a filter. */
int bdrv_open_file_child(const char *filename, QDict *options, const char *bdref_key,
                         BlockDriverState *parent, Error **errp);
/*
 * Empty all backends and drop the monitor's references to its nodes, each flushed; at the
 * end of a program.
 */
void bdrv_close_all(void);

/*
 * Create an image with driver DRV. OPTS: see the driver's create options; consumed are the
 * known ones, what is left over is an error ("Invalid parameter 'x'"). 0 or -errno. mixed.
 */
int coroutine_mixed_fn bdrv_create(BlockDriver *drv, const char *filename, QDict *opts,
                                   Error **errp);
/*
 * Delete the file that BS, a protocol node, stores in, as creating an image in it has failed.
 * 0; -ENOTSUP when it is no file but a disk, say; -ENOENT when its name is a symbolic link, or
 * stands for another file by now; another -errno. mixed; polls outside of coroutines.
 */
int coroutine_mixed_fn bdrv_co_delete_file(BlockDriverState *bs, Error **errp);

/*
 * Change what options gave BS's image its form. OPTS: strings by option name, of those in the
 * driver's amend_opts; consumed are the known ones, any other is an error ("Invalid parameter
 * 'x'"). STATUS_CB is told of progress: work done so far and, as far as is known, in all; units
 * are the driver's. FORCE: also what may destroy data. The caller has write permission. 0 or
 * -errno with ERRP set. GS, polls.
 */
typedef void BlockDriverAmendStatusCB(BlockDriverState *bs, int64_t offset,
                                      int64_t total_work_size, void *opaque);
int no_coroutine_fn bdrv_amend_options(BlockDriverState *bs, QDict *opts,
                                       BlockDriverAmendStatusCB *status_cb, void *cb_opaque,
                                       bool force, Error **errp);

/* ---- reopening (GS) --------------------------------------------------------------- */

/*
 * Ask for BS to be reopened with OPTIONS (consumed): on top of those in force
 * (KEEP_OLD_OPTS), or in place of them. Children that were opened along with BS follow its
 * flags and are added, too. QUEUE NULL: a new one; the queue is returned. Polls: BS is
 * drained until bdrv_reopen_multiple() returns or the queue is freed.
 */
BlockReopenQueue *bdrv_reopen_queue(BlockReopenQueue *queue, BlockDriverState *bs,
                                    QDict *options, bool keep_old_opts);
/* NULL is fine. */
void bdrv_reopen_queue_free(BlockReopenQueue *queue);
/*
 * Reopen all nodes of QUEUE (consumed), or none. Polls. 0 or -errno with ERRP set: -EINVAL (an
 * option), -ENOTSUP (a driver that cannot), -EPERM (permissions), or what the driver met.
 */
int bdrv_reopen_multiple(BlockReopenQueue *queue, Error **errp);
/* A queue of one. */
int bdrv_reopen(BlockDriverState *bs, QDict *options, bool keep_old_opts, Error **errp);
int bdrv_reopen_set_read_only(BlockDriverState *bs, bool read_only, Error **errp);

/* ---- handing images over (GS, poll) ----------------------------------------------- */

/*
 * BS, and what below it nobody else uses, may from now on be changed by others: everything is
 * written back, and others are locked out no more. 0; -EPERM when somebody still writes to it;
 * -errno.
 */
int no_coroutine_fn bdrv_inactivate(BlockDriverState *bs, Error **errp);
/*
 * Make an inactive node (opened with BDRV_O_INACTIVE, or bdrv_inactivate()) usable again,
 * children first. 0, at once when it is active; -ENOMEDIUM; -EPERM when the permissions that
 * it needs are not to be had; -errno.
 */
int no_coroutine_fn bdrv_activate(BlockDriverState *bs, Error **errp);

/* ---- nodes ------------------------------------------------------------------------ */

/* No reference taken; NULL when there is none. GS. */
BlockDriverState *bdrv_find_node(const char *node_name);
/* Find a node for a user command: error "Cannot find device='' nor node-name='x'". GS. */
BlockDriverState *bdrv_lookup_bs(const char *device, const char *node_name, Error **errp);
/* Iterate over all nodes (NULL: first); no references; do not poll between. GS. */
BlockDriverState *bdrv_next_node(BlockDriverState *bs);
/* Nodes that the monitor owns (blockdev-add); the same rules. GS. */
BlockDriverState *bdrv_next_monitor_owned(BlockDriverState *bs);
void bdrv_ref(BlockDriverState *bs);
/* The last reference closes the node in a drained section (polls). GS. */
void no_coroutine_fn bdrv_unref(BlockDriverState *bs);
const char *bdrv_get_node_name(const BlockDriverState *bs);
const char *bdrv_get_device_or_node_name(const BlockDriverState *bs);
/* Human name of an edge's parent: "node 'x'", "block device 'y'"; g_free() it. GS. */
char *bdrv_child_user_desc(BdrvChild *c);
bool bdrv_is_read_only(BlockDriverState *bs);
bool bdrv_is_writable(BlockDriverState *bs);
bool bdrv_is_inserted(BlockDriverState *bs);
int bdrv_get_flags(BlockDriverState *bs);
/* Whether any parent other than the monitor uses the node. GS. */
bool bdrv_has_blk_parent(BlockDriverState *bs);

/* ---- edges (GS) ------------------------------------------------------------------- */

/*
 * All of these poll before they change anything, and what runs then may change the graph.
 * The change itself happens at once or, on failure, not at all. Errors: -EPERM (permissions,
 * a frozen link, a parent that does not follow to another context), -EINVAL (a cycle, a
 * driver without backing files). The caller holds the lock of the nodes' context once, or
 * not at all.
 */

/*
 * Add an edge at the head of PARENT_BS's children; it is also bs->backing or bs->file when
 * CHILD_ROLE says so and that is free. Consumes the caller's reference on CHILD_BS, also on
 * failure. NULL with ERRP set.
 */
BdrvChild *bdrv_attach_child(BlockDriverState *parent_bs, BlockDriverState *child_bs,
                             const char *child_name, const BdrvChildClass *child_class,
                             BdrvChildRole child_role, Error **errp);
/* The same for a parent that is not a node (a BlockBackend, a job). */
BdrvChild *bdrv_root_attach_child(BlockDriverState *child_bs, const char *child_name,
                                  const BdrvChildClass *child_class,
                                  BdrvChildRole child_role, uint64_t perm,
                                  uint64_t shared_perm, void *opaque, Error **errp);
/* Take the edge out and drop the reference it held. */
void bdrv_root_unref_child(BdrvChild *child);
/* CHILD may be NULL. */
void bdrv_unref_child(BlockDriverState *parent, BdrvChild *child);
/* BACKING_HD (NULL: none) in place of bs->backing; takes a reference of its own. */
int bdrv_set_backing_hd(BlockDriverState *bs, BlockDriverState *backing_hd, Error **errp);
/*
 * Put BS_NEW, which has no backing child yet, on top of BS_TOP: BS_TOP becomes its backing
 * child (filtered, if BS_NEW is a filter), and the parents of BS_TOP become those of BS_NEW.
 */
int bdrv_append(BlockDriverState *bs_new, BlockDriverState *bs_top, Error **errp);
/*
 * Re-point all parents of FROM to TO, in the same context, except those that are to stay
 * (stay_at_node) or that TO depends on. FROM is drained meanwhile.
 */
int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, Error **errp);
/*
 * Open a node with OPTIONS (consumed; "driver" is needed, and some child option should name
 * BS) and have it replace BS. One reference for the caller, or NULL with ERRP set.
 */
BlockDriverState *bdrv_insert_node(BlockDriverState *bs, QDict *options, int flags,
                                   Error **errp);
/* Re-point all parents of BS to its filtered (or backing) child, and take that from it. */
int bdrv_drop_filter(BlockDriverState *bs, Error **errp);
/*
 * Take TOP and what follows below it, down to BASE (which stays), out of the chain: all
 * parents of TOP write down BACKING_FILE_STR (NULL: BASE's filename) as the name of what is
 * below them (.update_filename), and are then re-pointed to BASE. The subtree is drained
 * meanwhile. 0; -EIO when BASE is not below TOP or a link between is frozen; else -errno of
 * whoever refused, and the parents have their old names back.
 */
int bdrv_drop_intermediate(BlockDriverState *top, BlockDriverState *base,
                           const char *backing_file_str);
/*
 * Forbid / allow again that the links of the chain from BS to BASE (NULL: to its end) are
 * changed. -EPERM with ERRP set when one is frozen already.
 */
int bdrv_freeze_backing_chain(BlockDriverState *bs, BlockDriverState *base, Error **errp);
void bdrv_unfreeze_backing_chain(BlockDriverState *bs, BlockDriverState *base);
/* Whether one is; then ERRP says which. */
bool bdrv_is_backing_chain_frozen(BlockDriverState *bs, BlockDriverState *base,
                                  Error **errp);
/*
 * Write down in BS's image that its backing file is called BACKING_FILE (NULL: none), of
 * format BACKING_FMT (may be NULL). Does not change the graph. -ENOMEDIUM; -EINVAL: a format
 * without a name; -ENOTSUP: the driver cannot; -errno.
 */
int bdrv_change_backing_file(BlockDriverState *bs, const char *backing_file,
                             const char *backing_fmt);
/*
 * Free all that C's node holds, so that it shows only its backing file (or zeroes). C has write
 * permission. 0; -ENOTSUP: the driver cannot; -ENOMEDIUM; -EPERM; -errno, then some may be gone.
 * Polls.
 */
int no_coroutine_fn bdrv_make_empty(BdrvChild *c, Error **errp);
/* Change what the parent of C needs and shares; on failure nothing changes. */
int bdrv_child_try_set_perm(BdrvChild *c, uint64_t perm, uint64_t shared, Error **errp);
int bdrv_child_refresh_perms(BlockDriverState *bs, BdrvChild *c, Error **errp);

/* The COW child of a format, the filtered child of a filter; NULL when there is none. */
BdrvChild *bdrv_cow_child(BlockDriverState *bs);
BdrvChild *bdrv_filter_child(BlockDriverState *bs);
BdrvChild *bdrv_filter_or_cow_child(BlockDriverState *bs);
BlockDriverState *bdrv_cow_bs(BlockDriverState *bs);
BlockDriverState *bdrv_filter_bs(BlockDriverState *bs);
BlockDriverState *bdrv_filter_or_cow_bs(BlockDriverState *bs);
BlockDriverState *bdrv_skip_filters(BlockDriverState *bs);
/* Next layer of the backing chain below BS, filters skipped. */
BlockDriverState *bdrv_backing_chain_next(BlockDriverState *bs);

/* ---- requests --------------------------------------------------------------------- */

/*
 * OFFSET and BYTES: >= 0 and BYTES <= BDRV_REQUEST_MAX_BYTES. 0 or -errno: -EIO (range, or
 * the medium), -ENOMEDIUM (no driver), -ENOSPC, -EPERM (write to a read-only node). mixed.
 */
int coroutine_mixed_fn bdrv_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                                  BdrvRequestFlags flags);
int coroutine_mixed_fn bdrv_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                                   const void *buf, BdrvRequestFlags flags);
/* The same, followed by a flush. */
int coroutine_mixed_fn bdrv_pwrite_sync(BdrvChild *child, int64_t offset, int64_t bytes,
                                        const void *buf, BdrvRequestFlags flags);
int coroutine_mixed_fn bdrv_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags);
int coroutine_mixed_fn bdrv_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes);
int coroutine_mixed_fn bdrv_flush(BlockDriverState *bs);
int coroutine_mixed_fn bdrv_truncate(BdrvChild *child, int64_t offset, bool exact,
                                     PreallocMode prealloc, BdrvRequestFlags flags,
                                     Error **errp);
int coroutine_mixed_fn bdrv_check(BlockDriverState *bs, BdrvCheckResult *res,
                                  BdrvCheckMode fix);
/*
 * Write / read SIZE bytes at POS of the VM state area. SIZE; -ENOTSUP when neither the driver
 * nor that of the primary child has one, -ENOMEDIUM, -EIO for a negative or too large range,
 * or what the driver says. mixed; the node's context lock held once at the most.
 */
int coroutine_mixed_fn bdrv_save_vmstate(BlockDriverState *bs, const uint8_t *buf,
                                         int64_t pos, int size);
int coroutine_mixed_fn bdrv_load_vmstate(BlockDriverState *bs, uint8_t *buf, int64_t pos,
                                         int size);
int bdrv_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes, int64_t *pnum);
/*
 * Whether any layer from TOP down to BASE (NULL: to the end of the chain), with or without BASE
 * itself, defines the range. *PNUM as for bdrv_is_allocated(). mixed.
 */
int bdrv_is_allocated_above(BlockDriverState *top, BlockDriverState *base, bool include_base,
                            int64_t offset, int64_t bytes, int64_t *pnum);
/*
 * BDRV_BLOCK_* bits of the first *PNUM bytes (0 < *PNUM <= BYTES, or 0 at the end of the
 * node) from OFFSET on, looking through the backing chain; *MAP and *FILE as the bits say.
 */
int coroutine_mixed_fn bdrv_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         int64_t *pnum, int64_t *map,
                                         BlockDriverState **file);

/* The coroutine twins. I/O. */
int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                                const void *buf, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes);
int coroutine_fn bdrv_co_flush(BlockDriverState *bs);
int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags,
                                  Error **errp);
/*
 * Copy BYTES of SRC to DST within the host, both in the same context and inside their nodes.
 * 0; -ENOTSUP: read and write instead (a part may have been copied); or as for reads and writes.
 * No flags are known. The second one continues a request that has come to the end of the
 * source's side.
 */
int coroutine_fn bdrv_co_copy_range_from(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags read_flags,
                                         BdrvRequestFlags write_flags);
int coroutine_fn bdrv_co_copy_range_to(BdrvChild *src, int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes,
                                       BdrvRequestFlags read_flags,
                                       BdrvRequestFlags write_flags);
int coroutine_fn bdrv_co_check(BlockDriverState *bs, BdrvCheckResult *res,
                               BdrvCheckMode fix);
/* 0 or -errno, as above. */
int coroutine_fn bdrv_co_writev_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos);
int coroutine_fn bdrv_co_readv_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos);
int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map, BlockDriverState **file);

/*
 * Length in bytes, refreshed from the driver when it has .bdrv_co_getlength and
 * has_variable_length, else bs->total_sectors * 512. -ENOMEDIUM, -errno. mixed.
 */
int64_t coroutine_mixed_fn bdrv_getlength(BlockDriverState *bs);
int64_t coroutine_mixed_fn bdrv_nb_sectors(BlockDriverState *bs);
/* Bytes of the host file(s) in use; -ENOTSUP when no file backs the node. mixed. */
int64_t coroutine_mixed_fn bdrv_get_allocated_file_size(BlockDriverState *bs);
int bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *bdi);
/* Recompute bs->bl from the driver and the children. GS. */
void bdrv_refresh_limits(BlockDriverState *bs, Transaction *tran, Error **errp);
/* Recompute bs->filename from the options in force; the children's are taken as they are. GS. */
void bdrv_refresh_filename(BlockDriverState *bs);
/* Memory for requests to BS that need no bouncing; release with qemu_vfree(). */
void *qemu_blockalign(BlockDriverState *bs, size_t size);
void *qemu_try_blockalign(BlockDriverState *bs, size_t size);
void *qemu_try_blockalign0(BlockDriverState *bs, size_t size);

/* ---- drain ------------------------------------------------------------------------ */

/*
 * From begin to end no new request starts on BS from any parent, and when begin returns
 * none is in flight. Nests. Main thread (polls; the node's context lock, if held, is
 * dropped meanwhile) or a coroutine (yields; the work is done by the main loop).
 */
void bdrv_drained_begin(BlockDriverState *bs);
/* Never polls. */
void bdrv_drained_end(BlockDriverState *bs);
void bdrv_drain(BlockDriverState *bs);
/* The same for every node, also those made before the end. */
void bdrv_drain_all_begin(void);
void bdrv_drain_all_end(void);
void bdrv_drain_all(void);

/*
 * In-flight tokens: drain waits until each has been dropped. Take one before work on BS is
 * spawned or scheduled, drop it after the work's last access. Any thread.
 */
void bdrv_inc_in_flight(BlockDriverState *bs);
void bdrv_dec_in_flight(BlockDriverState *bs);

/* ---- moves between AioContexts ---------------------------------------------------- */

/* The node's home loop. Any thread; stable while the node cannot move (token, drained). */
AioContext *bdrv_get_aio_context(BlockDriverState *bs);
/* The loop of the running coroutine's node, see aio_co_enter(). */
void bdrv_coroutine_enter(BlockDriverState *bs, Coroutine *co);
/*
 * Move the whole connected graph of BS, except through IGNORE_CHILD (may be NULL), to CTX.
 * GS; the caller holds the lock of the present context and not of CTX; polls. 0; -EPERM
 * with ERRP set when a parent refuses ("Cannot change iothread of active block backend"),
 * and then nothing has changed.
 */
int bdrv_try_change_aio_context(BlockDriverState *bs, AioContext *ctx,
                                BdrvChild *ignore_child, Error **errp);
/* The same where refusal would be a bug. */
void bdrv_set_aio_context(BlockDriverState *bs, AioContext *ctx);
/* For BdrvChildClass.change_aio_ctx and blk_set_aio_context; see block/context.c. */
bool bdrv_change_aio_context(BlockDriverState *bs, AioContext *ctx, GHashTable *visited,
                             Transaction *tran, Error **errp);
bool bdrv_child_change_aio_context(BdrvChild *c, AioContext *ctx, GHashTable *visited,
                                   Transaction *tran, Error **errp);
/*
 * ATTACHED(new context, OPAQUE) and DETACH(OPAQUE) are called in the main thread, while the
 * graph is drained, with the lock of the new / the old context held; they may not poll.
 */
void bdrv_add_aio_context_notifier(BlockDriverState *bs,
        void (*attached_aio_context)(AioContext *new_context, void *opaque),
        void (*detach_aio_context)(void *opaque), void *opaque);
void bdrv_remove_aio_context_notifier(BlockDriverState *bs,
        void (*attached_aio_context)(AioContext *, void *),
        void (*detach_aio_context)(void *), void *opaque);

#endif
