/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the export servers share with the registry. */
#ifndef BLOCK_EXPORT_INTERNAL_H
#define BLOCK_EXPORT_INTERNAL_H

#include "miniblk/export.h"

/*
 * Work that a server's thread leaves to the main thread, such as dropping the reference of
 * a client that has gone. RUN may delete exports, hence poll; so it must never start inside
 * somebody's wait. It runs from the control context, or in blk_exp_close_all_type().
 */
typedef struct BlkExpDeferred BlkExpDeferred;
struct BlkExpDeferred {
    void (*run)(BlkExpDeferred *work);      /* may free WORK */
    QSIMPLEQ_ENTRY(BlkExpDeferred) next;    /* protected by the queue's lock */
};

/* Queue WORK, which is not queued yet. Any thread. WORK may be gone when this returns. */
void blk_exp_defer(BlkExpDeferred *work);
/* Whether anything is queued. Any thread; good as a condition for AIO_WAIT_WHILE(). */
bool blk_exp_deferred_pending(void);
/* Run what is queued. GS; may poll. */
void blk_exp_deferred_run(void);

#endif
