/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for a condition while polling.
 *
 *      waiter                                  kicker
 *      register (WAITERS++, an RMW)            make the condition false; a fence, or an RMW
 *      look at the condition                   read WAITERS
 *      poll                                    if not 0: schedule the waiter's kick_bh
 *
 * Both sides are sequentially consistent, so either the waiter's look comes after the change
 * or the kicker's read comes after the registration: it cannot be that the waiter saw the
 * old condition and the kicker saw no waiter. The kick is a bottom half, not a bare
 * notification, because it must outlast whatever the polled loop does before it sleeps.
 */
#include "aio/aio-internal.h"

static unsigned waiter_count;           /* atomic; length of WAITERS */
static QemuMutex waiters_lock;          /* all zero bytes: a valid mutex */
static AioWaiter *waiters;

void aio_wait_begin(AioWaiter *waiter, AioContext *ctx, bool unlock)
{
    AioContext *here = qemu_get_current_aio_context();

    if (unlikely(!here || qemu_in_coroutine())) {
        fprintf(stderr, "miniblk: AIO_WAIT_WHILE: called %s\n",
                here ? "in a coroutine" : "in a thread without an event loop");
        abort();
    }
    waiter->poll_ctx = here;
    waiter->locked_ctx = ctx;
    waiter->unlock = unlock && ctx != here;

    WITH_QEMU_LOCK_GUARD(&waiters_lock) {
        waiter->next = waiters;
        waiter->pprev = &waiters;
        if (waiters) {
            waiters->pprev = &waiter->next;
        }
        waiters = waiter;
        qatomic_inc(&waiter_count);
        /* The condition may be read with any order: have it be after the registration. */
        smp_mb__after_rmw();
    }
}

void aio_wait_poll(AioWaiter *waiter)
{
    /*
     * Whoever makes the condition false may need the lock to get there; dropping one level
     * of several would not help it.
     */
    GArray *dropped = waiter->unlock ? aio__context_locks_drop(waiter->locked_ctx) : NULL;
    port_note(PORT_NOTE_WAIT_POLL, NULL, NULL);
    aio_poll(waiter->poll_ctx, true);
    port_note(PORT_NOTE_WAIT_LOOK, NULL, NULL);
    aio__context_locks_retake(dropped);
}

void aio_wait_end(AioWaiter *waiter)
{
    port_note(PORT_NOTE_WAIT_END, NULL, NULL);
    QEMU_MUTEX_GUARD(&waiters_lock);
    *waiter->pprev = waiter->next;
    if (waiter->next) {
        waiter->next->pprev = waiter->pprev;
    }
    qatomic_dec(&waiter_count);
}

void aio_wait_kick_after_rmw(void)
{
    /* Pairs with the increment in aio_wait_begin(). */
    if (likely(!qatomic_read_sc(&waiter_count))) {
        return;
    }
    QEMU_MUTEX_GUARD(&waiters_lock);
    for (AioWaiter *waiter = waiters; waiter; waiter = waiter->next) {
        qemu_bh_schedule(waiter->poll_ctx->kick_bh);
    }
}

void aio_wait_kick(void)
{
    /* The change before the look at WAITERS; pairs with the increment in aio_wait_begin(). */
    smp_mb();
    aio_wait_kick_after_rmw();
}

typedef struct BhWait {
    QEMUBHFunc *cb;
    void *opaque;
    bool done;                  /* atomic */
} BhWait;

static void bh_wait_run(void *opaque)
{
    BhWait *w = opaque;
    port_note(PORT_NOTE_CO_HOLD, w, "bottom half");
    w->cb(w->opaque);
    port_note(PORT_NOTE_CO_RELEASE, w, NULL);
    qatomic_set_mb(&w->done, true);     /* W may be gone from here on */
    aio_wait_kick_after_rmw();
}

static bool bh_is_pending(BhWait *w)
{
    if (qatomic_load_acquire(&w->done)) {
        return false;
    }
    port_note(PORT_NOTE_WAIT_FOR, w, NULL);
    return true;
}

void aio_wait_bh_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque)
{
    BhWait w = { .cb = cb, .opaque = opaque };
    port_note_pair(PORT_NOTE_SCHEDULE, &w, ctx);
    aio_bh_schedule_oneshot(ctx, bh_wait_run, &w);
    AIO_WAIT_WHILE_UNLOCKED(NULL, bh_is_pending(&w));
}
