/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of the host file drivers, shared by images/file*.c. */
#ifndef IMAGES_FILE_INTERNAL_H
#define IMAGES_FILE_INTERNAL_H

#include "miniblk/block-driver.h"

/* What the host has refused once and is not asked again; FileState.unsupported. */
enum {
    FILE_NO_PUNCH_HOLE = 1 << 0,
    FILE_NO_ZERO_RANGE = 1 << 1,
    FILE_NO_FALLOCATE  = 1 << 2,
    FILE_NO_DISCARD    = 1 << 3,
    FILE_NO_DSYNC      = 1 << 4,        /* pwritev2(RWF_DSYNC) */
    FILE_NO_NOWAIT     = 1 << 5,        /* preadv2(RWF_NOWAIT) */
};

/* How requests are made: the option "aio". */
typedef enum FileEngine { FILE_THREADS, FILE_NATIVE, FILE_IO_URING } FileEngine;

/* The bits (BLK_PERM_*) that a node holds, or has others not hold, in a file's lock bytes. */
typedef struct FileLocks {
    bool enabled;
    uint64_t held, unshared;            /* as committed */
    uint64_t locked_held, locked_unshared;  /* as locked right now; a superset */
} FileLocks;

typedef struct FileState {
    /* fixed after open; images/file.c */
    int fd;
    char *filename;
    bool is_regular, is_block_device;
    bool direct;                /* opened with O_DIRECT */
    bool in_memory;             /* the file system has no storage behind it */
    bool no_flush;              /* cache.no-flush: completed means done */
    uint32_t request_alignment, mem_alignment;
    FileEngine engine_wanted;
    uint64_t max_batch;         /* aio-max-batch; 0: not given */

    /* images/file.c; main thread, while no request is in flight */
    FileEngine engine;          /* as wanted, or FILE_THREADS: the context has no such */

    /* images/file-ops.c; atomic */
    unsigned unsupported;       /* FILE_NO_* */
    int flush_error;            /* -errno of a failed flush: the page cache is not to be
                                   trusted any more */

    FileLocks locks;            /* images/file-lock.c; main thread */
} FileState;

/* ---- images/file.c ---------------------------------------------------------------------- */

/*
 * Open as *FLAGS (BDRV_O_*) say; where writing is not allowed and BDRV_O_AUTO_RDONLY is among
 * them, to read, with BDRV_O_RDWR taken away. A descriptor or -errno.
 */
int file_open_fd(const char *filename, int *flags);
/*
 * s->fd begins, or ends, to be what requests in CTX are made with. Main thread, while none is
 * in flight; end it before the descriptor is closed or replaced.
 */
void file_begin_fd(FileState *s, AioContext *ctx);
void file_end_fd(FileState *s, AioContext *ctx);

/* ---- images/file-reopen.c: see BlockDriver ---------------------------------------------- */

int file_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp);
void file_reopen_commit(BDRVReopenState *state);
void file_reopen_abort(BDRVReopenState *state);

/* ---- images/file-lock.c: main thread or a file nobody else knows of yet ----------------- */

/*
 * Lock for PERM held and SHARED allowed to others, on top of what is locked, and see that
 * nobody is in the way. On error nothing has changed: 0, -EAGAIN, -errno. NAME is for hints.
 */
int file_locks_prepare(FileLocks *locks, int fd, const char *name, uint64_t perm,
                       uint64_t shared, Error **errp);
/* Make it so / return to the last commit: drop what is locked beyond. */
void file_locks_commit(FileLocks *locks, int fd, uint64_t perm, uint64_t shared);
void file_locks_abort(FileLocks *locks, int fd);
/* Lock in NEW_FD, the same file opened again, all that is locked right now. 0 or -errno. */
int file_locks_copy(const FileLocks *locks, int new_fd);

/* ---- images/file-copy.c ----------------------------------------------------------------- */

int coroutine_fn file_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                                         int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags read_flags,
                                         BdrvRequestFlags write_flags);
int coroutine_fn file_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                                       int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes,
                                       BdrvRequestFlags read_flags,
                                       BdrvRequestFlags write_flags);

/* ---- images/file-holder.c --------------------------------------------------------------- */

/*
 * "process 1234 'name'" of one who has byte BYTE of FD's file locked, through another open
 * file description; newly allocated. NULL when that cannot be found out. Blocking.
 */
char *file_lock_holder(int fd, int64_t byte);

/* ---- images/file-probe.c: main thread; blocking ----------------------------------------- */

/* Set s->request_alignment and s->mem_alignment. False when FD cannot do O_DIRECT. */
bool file_probe_alignment(FileState *s);
/* Whether reads and writes of FD are copies within memory. */
bool file_probe_in_memory(int fd);
/* Bytes; -errno. Any thread. */
int64_t file_length(int fd);

/* ---- images/file-ops.c: coroutines; blocking calls are made in workers ------------------ */

int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn file_co_flush(BlockDriverState *bs);

/* ---- images/file-range.c: likewise ------------------------------------------------------ */

int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags);
int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn file_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                      int64_t bytes, int64_t *pnum, int64_t *map,
                                      BlockDriverState **file);

/* ---- images/file-size.c ----------------------------------------------------------------- */

extern const char *const file_prealloc_names[];     /* by PreallocMode */
/* Blocking; any thread. DIRECT: FD is open with O_DIRECT. */
int file_resize(int fd, bool direct, int64_t new_length, bool exact, PreallocMode prealloc,
                Error **errp);
int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags,
                                  Error **errp);
int64_t coroutine_fn file_co_getlength(BlockDriverState *bs);
int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs);

/* ---- images/file-create.c --------------------------------------------------------------- */

extern const char *const file_create_opts[];
int coroutine_fn file_co_create_opts(BlockDriver *drv, const char *filename, QDict *opts,
                                     Error **errp);
int coroutine_fn device_co_create_opts(BlockDriver *drv, const char *filename, QDict *opts,
                                       Error **errp);

#endif
