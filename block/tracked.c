/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests in flight that others may have to wait for.
 *
 * Only changes are tracked: a read-modify-write must not lose a concurrent write to the
 * same block. A read beside it sees old or new data of the bytes being written and the
 * same data in the rest of the block, so it need not wait.
 */
#include "block/block-internal.h"

static bool overlaps(const BdrvTrackedRequest *a, const BdrvTrackedRequest *b)
{
    return a->overlap_offset < b->overlap_offset + b->overlap_bytes &&
           b->overlap_offset < a->overlap_offset + a->overlap_bytes;
}

void bdrv__tracked_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                         int64_t bytes, enum BdrvTrackedRequestType type)
{
    *req = (BdrvTrackedRequest) {
        .bs = bs, .offset = offset, .bytes = bytes, .type = type,
        .overlap_offset = offset, .overlap_bytes = bytes, .co = qemu_coroutine_self(),
    };
    qemu_co_queue_init(&req->wait_queue);
    QEMU_MUTEX_GUARD(&bs->reqs_lock);
    QLIST_INSERT_HEAD(&bs->tracked_requests, req, list);
}

void coroutine_fn bdrv__tracked_end(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->bs;

    WITH_QEMU_LOCK_GUARD(&bs->reqs_lock) {
        if (req->serialising) {
            qatomic_set(&bs->serialising_in_flight, bs->serialising_in_flight - 1);
        }
        QLIST_REMOVE(req, list);
        /* in a coroutine this only queues them to run after we yield or end */
        qemu_co_queue_restart_all(&req->wait_queue);
    }
}

/*
 * The first request that SELF has to wait for. One that itself waits for SELF is passed
 * over: it has not begun, and goes on when SELF has ended.
 */
static BdrvTrackedRequest *find_conflict(BdrvTrackedRequest *self)
{
    BdrvTrackedRequest *req;

    QLIST_FOREACH(req, &self->bs->tracked_requests, list) {
        if (req != self && (req->serialising || self->serialising) &&
            overlaps(req, self) && !req->waiting_for) {
            /* the same coroutine would wait for itself for ever */
            g_assert(req->co != self->co);
            return req;
        }
    }
    return NULL;
}

static void coroutine_fn wait_for_conflicts(BdrvTrackedRequest *self)
{
    BdrvTrackedRequest *req;

    while ((req = find_conflict(self))) {
        self->waiting_for = req;
        port_note(PORT_NOTE_CO_WAIT, req->co, "the end of a request that overlaps,");
        qemu_co_queue_wait(&req->wait_queue, &self->bs->reqs_lock);
        self->waiting_for = NULL;
    }
}

void coroutine_fn bdrv__make_serialising(BdrvTrackedRequest *req, uint64_t align)
{
    int64_t start = req->offset / align * align;
    int64_t end = DIV_ROUND_UP(req->offset + req->bytes, align) * align;

    QEMU_MUTEX_GUARD(&req->bs->reqs_lock);
    if (!req->serialising) {
        req->serialising = true;
        qatomic_set(&req->bs->serialising_in_flight, req->bs->serialising_in_flight + 1);
    }
    req->overlap_offset = MIN(req->overlap_offset, start);
    req->overlap_bytes = MAX(req->overlap_bytes, end - req->overlap_offset);
    wait_for_conflicts(req);
}

void coroutine_fn bdrv__wait_serialising(BdrvTrackedRequest *req)
{
    /* We are on the list already, so whoever becomes serialising later will see us. */
    if (qatomic_read(&req->bs->serialising_in_flight)) {
        QEMU_MUTEX_GUARD(&req->bs->reqs_lock);
        wait_for_conflicts(req);
    }
}
