/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of a BlockBackend, shared by the block/backend*.c files. */
#ifndef BACKEND_INTERNAL_H
#define BACKEND_INTERNAL_H

#include "block/block-internal.h"
#include "miniblk/block-backend.h"

typedef struct BlkAioNotifier {
    void (*attached)(AioContext *new_context, void *opaque);
    void (*detach)(void *opaque);
    void *opaque;
    QLIST_ENTRY(BlkAioNotifier) list;
} BlkAioNotifier;

struct BlockBackend {
    BlockBackendPublic public;  /* block/throttle-groups.c */

    /* main thread */
    int refcnt;
    char *name;                 /* NULL: anonymous */
    char *user_desc;            /* for messages; NULL: none */
    uint64_t perm, shared_perm;
    const BlockDevOps *dev_ops;
    void *dev_opaque;
    bool allow_aio_context_change;
    bool dev_drained;           /* dev_ops->drained_begin has been called and not ended */
    QLIST_HEAD(, BlkAioNotifier) aio_notifiers;
    QTAILQ_ENTRY(BlockBackend) all_list;

    BdrvChild *root;            /* main thread writes it, drained */
    AioContext *ctx;            /* atomic; main thread writes it, drained */

    /* block/backend.c: see there for how a request begins */
    unsigned in_flight;         /* atomic; tokens */
    int quiesce_counter;        /* atomic; main thread writes it */
    bool disable_request_queuing;       /* atomic */
    QemuMutex parked_lock;      /* protects PARKED */
    CoQueue parked;             /* requests held back until the section ends */
};

/*
 * A drained section of BLK alone: nobody starts a request, and those that are being throttled
 * go at once. Neither polls; poll until section_poll() is false. Main thread.
 */
void blk__begin_section(BlockBackend *blk);
void blk__end_section(BlockBackend *blk);
bool blk__section_poll(BlockBackend *blk);

/*
 * Begin a request: wait while the backend is drained. The caller holds exactly one token for
 * it, taken before the work was spawned, which is given back while the request is parked.
 * (With a second one held, the section would wait for a request that waits for its end.)
 */
void coroutine_fn blk__wait_while_drained(BlockBackend *blk);

/* Requests whose one token the caller holds; backend-io.c. */
int coroutine_fn blk__do_preadv_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags);
int coroutine_fn blk__do_pwritev_part(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);
int coroutine_fn blk__do_flush(BlockBackend *blk);

#endif
