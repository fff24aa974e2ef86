/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting for a condition while an event loop runs.
 *
 * Whoever makes a waited-for condition false must first change the state and then call
 * aio_wait_kick(). The waiter registers itself before it looks, so that one of the two
 * always sees the other; see aio/wait.c for the argument.
 */
#ifndef MINIBLK_AIO_WAIT_H
#define MINIBLK_AIO_WAIT_H

#include "aio.h"

typedef struct AioWaiter {
    AioContext *poll_ctx;       /* the loop the waiter runs */
    AioContext *locked_ctx;     /* whose lock is dropped around polling; NULL: all held */
    bool unlock;                /* whether any is dropped */
    struct AioWaiter *next, **pprev;
} AioWaiter;

void aio_wait_begin(AioWaiter *waiter, AioContext *ctx, bool unlock);
void aio_wait_poll(AioWaiter *waiter);
void aio_wait_end(AioWaiter *waiter);

/* The lab wants to know what is being waited for. */
#ifdef MINIBLK_LAB
void lab_wait_note(const char *condition);
#define AIO_WAIT_NOTE_(condition) lab_wait_note(condition)
#else
#define AIO_WAIT_NOTE_(condition) ((void)0)
#endif

#define AIO_WAIT_WHILE_INTERNAL(ctx, cond, unlock, text) __extension__({        \
        bool aio_waited_ = false;                                               \
        AioWaiter aio_waiter_;                                                  \
        aio_wait_begin(&aio_waiter_, (ctx), (unlock));                          \
        AIO_WAIT_NOTE_(text);                                                   \
        while ((cond)) {                                                        \
            aio_wait_poll(&aio_waiter_);                                        \
            aio_waited_ = true;                                                 \
        }                                                                       \
        aio_wait_end(&aio_waiter_);                                             \
        aio_waited_; })

/*
 * Poll until COND is false; evaluates to whether it polled. CTX's home thread polls CTX
 * itself; the main thread, for a foreign CTX, polls the main context and drops its hold on
 * CTX's lock (all levels) while it does; for NULL, on every context's. COND is evaluated with
 * the lock held. Any callback of the polled loop may run: look up afterwards what may have
 * changed.
 * Not from a coroutine.
 */
#define AIO_WAIT_WHILE(ctx, cond)          AIO_WAIT_WHILE_INTERNAL(ctx, cond, true, #cond)
/* The same for callers who do not hold CTX's lock; it is never touched. */
#define AIO_WAIT_WHILE_UNLOCKED(ctx, cond)                                      \
        AIO_WAIT_WHILE_INTERNAL(ctx, cond, false, #cond)

/* Make every waiter look again. Any thread; costs a fence and a load when nobody waits. */
void aio_wait_kick(void);
/* The same, without the fence, after a change that was a read-modify-write. */
void aio_wait_kick_after_rmw(void);
/* Run CB(OPAQUE) in CTX's home thread and wait until it has returned. Main thread. */
void aio_wait_bh_oneshot(AioContext *ctx, QEMUBHFunc *cb, void *opaque);

#endif
