/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Work handed from the servers' threads to the main thread; see export-internal.h. */
#include "miniblk/osdep.h"
#include "block/export/export-internal.h"
#include "miniblk/main-loop.h"

static QemuMutex deferred_lock;     /* leaf lock: nothing else is taken under it */
static QSIMPLEQ_HEAD(, BlkExpDeferred) deferred_queue =
    QSIMPLEQ_HEAD_INITIALIZER(deferred_queue);

static void deferred_bh(void *opaque)
{
    blk_exp_deferred_run();
}

void blk_exp_defer(BlkExpDeferred *work)
{
    bool was_empty;

    qemu_mutex_lock(&deferred_lock);
    was_empty = QSIMPLEQ_EMPTY(&deferred_queue);
    QSIMPLEQ_INSERT_TAIL(&deferred_queue, work, next);
    qemu_mutex_unlock(&deferred_lock);

    if (was_empty) {
        aio_bh_schedule_oneshot(iohandler_get_aio_context(), deferred_bh, NULL);
    }
    /* Whoever closes all exports waits for the queue to fill. */
    aio_wait_kick();
}

bool blk_exp_deferred_pending(void)
{
    QEMU_MUTEX_GUARD(&deferred_lock);
    return !QSIMPLEQ_EMPTY(&deferred_queue);
}

void blk_exp_deferred_run(void)
{
    BlkExpDeferred *work;

    GLOBAL_STATE_CODE();
    for (;;) {
        qemu_mutex_lock(&deferred_lock);
        work = QSIMPLEQ_FIRST(&deferred_queue);
        if (work) {
            QSIMPLEQ_REMOVE_HEAD(&deferred_queue, next);
        }
        qemu_mutex_unlock(&deferred_lock);
        if (!work) {
            return;
        }
        work->run(work);
    }
}
