/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Jobs that work on nodes. A block job is a parent of its nodes, through edges of a class of
 * its own: it is paused while any of them is drained, and moves with them.
 */
#ifndef MINIBLK_BLOCKJOB_H
#define MINIBLK_BLOCKJOB_H

#include "block.h"
#include "job.h"

typedef struct BlockJob BlockJob;
typedef struct BlockJobDriver BlockJobDriver;

typedef enum BlockDeviceIoStatus {
    BLOCK_DEVICE_IO_STATUS_OK,
    BLOCK_DEVICE_IO_STATUS_FAILED,
    BLOCK_DEVICE_IO_STATUS_NOSPACE,
} BlockDeviceIoStatus;

/* What to do when a request of the job fails. */
typedef enum BlockdevOnError {
    BLOCKDEV_ON_ERROR_REPORT,   /* the job fails */
    BLOCKDEV_ON_ERROR_IGNORE,   /* go on; a mirror tries again */
    BLOCKDEV_ON_ERROR_ENOSPC,   /* ENOSPC: stop, others: report */
    BLOCKDEV_ON_ERROR_STOP,     /* pause until the user resumes the job, then try again */
    BLOCKDEV_ON_ERROR_AUTO,     /* enospc */
} BlockdevOnError;

typedef enum BlockErrorAction {
    BLOCK_ERROR_ACTION_IGNORE,
    BLOCK_ERROR_ACTION_REPORT,
    BLOCK_ERROR_ACTION_STOP,
} BlockErrorAction;

typedef enum MirrorSyncMode {
    MIRROR_SYNC_MODE_TOP,       /* what the topmost layer holds */
    MIRROR_SYNC_MODE_FULL,      /* everything */
    MIRROR_SYNC_MODE_NONE,      /* only what is written from now on */
    MIRROR_SYNC_MODE_INCREMENTAL,
    MIRROR_SYNC_MODE_BITMAP,
} MirrorSyncMode;

/* What becomes of the target's backing file when a mirror has completed. */
typedef enum BlockMirrorBackingMode {
    MIRROR_SOURCE_BACKING_CHAIN,    /* the source's */
    MIRROR_OPEN_BACKING_CHAIN,      /* what the target's image names */
    MIRROR_LEAVE_BACKING_CHAIN,     /* what it has */
} BlockMirrorBackingMode;

typedef enum MirrorCopyMode {
    MIRROR_COPY_MODE_BACKGROUND,        /* what guests write is copied later */
    MIRROR_COPY_MODE_WRITE_BLOCKING,    /* their writes go to source and target */
} MirrorCopyMode;

typedef struct BlockJobChangeOptions {
    const char *id;
    JobType type;
    MirrorCopyMode copy_mode;   /* type mirror */
} BlockJobChangeOptions;

/* A block job. Protected by the job lock, NODES by the main thread. */
struct BlockJob {
    Job job;
    BlockDeviceIoStatus iostatus;
    int64_t speed;              /* bytes per second, 0: no limit; atomic */
    int64_t next_ns;            /* the speed allows nothing more before; realtime clock */
    GSList *nodes;              /* of BdrvChild */
};

/* A kind of block job. job_driver.free is block_job_free() or a function that calls it. */
struct BlockJobDriver {
    JobDriver job_driver;
    /*
     * Whether the job, which has not paused yet, still has requests in flight or may start
     * one. Without it: yes. Main thread, may not poll. Optional.
     */
    bool (*drained_poll)(BlockJob *job);
    /* The paused job has moved; take along what else it has. Main thread. Optional. */
    void (*attached_aio_context)(BlockJob *job, AioContext *new_context);
    /* The speed has changed. Job lock dropped. Optional. */
    void (*set_speed)(BlockJob *job, int64_t speed);
    /* Change the running job. Main thread, job lock dropped. Optional. */
    void (*change)(BlockJob *job, BlockJobChangeOptions *opts, Error **errp);
};

/* ---- life (GS) -------------------------------------------------------------------------- */

/*
 * A block job with BS as its "main node". JOB_ID NULL: the name of the backend on BS. PERM and
 * SHARED_PERM as for any edge. SPEED in bytes per second, 0: no limit. The rest as for
 * job_create(). Takes a reference on BS. The embedded BlockJob, or NULL with ERRP set.
 */
void *block_job_create(const char *job_id, const BlockJobDriver *driver, JobTxn *txn,
                       BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                       int64_t speed, int flags, BlockCompletionFunc *cb, void *opaque,
                       Error **errp);
/* For JobDriver.free and JobDriver.user_resume of every block job. */
void block_job_free(Job *job);
void block_job_user_resume(Job *job);
/*
 * Add an edge called NAME to BS, which may be moved to the job's context. Takes a reference.
 * 0 or -EPERM with ERRP set.
 */
int block_job_add_bdrv(BlockJob *job, const char *name, BlockDriverState *bs, uint64_t perm,
                       uint64_t shared_perm, Error **errp);
/* Drop all edges. Polls. */
void block_job_remove_all_bdrv(BlockJob *job);
bool block_job_has_bdrv(BlockJob *job, BlockDriverState *bs);
/*
 * False with ERRP set when a block job has an edge to BS: "Node 'x' is busy: block device is
 * in use by block job: mirror".
 */
bool block_job_none_uses(BlockDriverState *bs, Error **errp);

/* ---- looking; job lock held ------------------------------------------------------------- */

/* Iterate over block jobs, newest first; NULL gives the first. */
BlockJob *block_job_next_locked(BlockJob *job);
BlockJob *block_job_get_locked(const char *id);
bool block_job_is_internal(BlockJob *job);
const BlockJobDriver *block_job_driver(BlockJob *job);
AioContext *block_job_get_aio_context(BlockJob *job);

/* ---- changing --------------------------------------------------------------------------- */

/* GS. False with ERRP set: "Parameter 'speed' expects a non-negative value", or the state. */
bool block_job_set_speed_locked(BlockJob *job, int64_t speed, Error **errp);
bool block_job_set_speed(BlockJob *job, int64_t speed, Error **errp);
/* GS. */
void block_job_change_locked(BlockJob *job, BlockJobChangeOptions *opts, Error **errp);
void block_job_iostatus_reset_locked(BlockJob *job);

/* ---- for the job itself ----------------------------------------------------------------- */

/* N bytes have been done, which the speed is measured by. Any thread. */
void block_job_ratelimit_processed_bytes(BlockJob *job, uint64_t n);
/* Sleep as long as the speed demands. Job. */
void coroutine_fn block_job_ratelimit_sleep(BlockJob *job);
/*
 * A request has failed with ERROR (> 0): report it, pause the job if ON_ERR says so, and tell
 * what to do with the request. Any thread.
 */
BlockErrorAction block_job_error_action(BlockJob *job, BlockdevOnError on_err, int is_read,
                                        int error);

/* ---- the jobs there are (GS) ------------------------------------------------------------ */

/*
 * Copy BS to TARGET and follow its changes; when completed, TARGET takes the place of the node
 * named REPLACES (NULL: of BS). A filter named FILTER_NODE_NAME (NULL: a made-up name) stands
 * over BS meanwhile. GRANULARITY: bytes, a power of two, 0: as fits TARGET. BUF_SIZE: bytes in
 * flight at most, 0: 16 MiB. ZERO_TARGET: TARGET does not read as zeroes yet. UNMAP: zeroes
 * may be unmapped there. The job is started. On failure ERRP is set and nothing has changed;
 * so it is when another job uses BS, its filter say, or TARGET.
 */
void mirror_start(const char *job_id, BlockDriverState *bs, BlockDriverState *target,
                  const char *replaces, int creation_flags, int64_t speed,
                  uint32_t granularity, int64_t buf_size, MirrorSyncMode mode,
                  BlockMirrorBackingMode backing_mode, bool zero_target,
                  BlockdevOnError on_source_error, BlockdevOnError on_target_error,
                  bool unmap, const char *filter_node_name, MirrorCopyMode copy_mode,
                  Error **errp);
/* Whether a ready mirror writes to the target what guests write. Job lock held. */
bool mirror_is_actively_synced(BlockJob *job);
/*
 * Write what the layers from TOP down to (not including) BASE hold into BASE, then drop them.
 * TOP is an image in the backing chain of BS, but not BS itself; BACKING_FILE_STR (NULL: the
 * name of BASE) is recorded in the images that were over TOP.
 */
void commit_start(const char *job_id, BlockDriverState *bs, BlockDriverState *base,
                  BlockDriverState *top, int creation_flags, int64_t speed,
                  BlockdevOnError on_error, const char *backing_file_str,
                  const char *filter_node_name, Error **errp);
/*
 * The same for the active layer BS: a mirror to its backing image BASE, which takes the place
 * of BS in the end. NULL with ERRP set when it could not be started.
 */
BlockJob *commit_active_start(const char *job_id, BlockDriverState *bs,
                              BlockDriverState *base, int creation_flags, int64_t speed,
                              BlockdevOnError on_error, const char *filter_node_name,
                              BlockCompletionFunc *cb, void *opaque, bool auto_complete,
                              Error **errp);

#endif
