/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The wake-up protocol.
 *
 * wake_state has three values:
 *
 *      AWAKE     the home thread is running, nobody has notified since it last looked
 *      NOTIFIED  somebody has; the home thread must look again before it sleeps
 *      ASLEEP    the home thread sleeps or is just about to; a notifier must ring
 *
 *      home thread                              notifier
 *      -----------                              --------
 *      accept:  NOTIFIED -> AWAKE, and do       change the state (push, arm a timer)
 *               not sleep this time
 *      look for work; none:                     notify: old = xchg(NOTIFIED)
 *      begin:   AWAKE -> ASLEEP, or, when             if old was ASLEEP: ring the eventfd
 *               it is NOTIFIED, do not sleep
 *      sleep in epoll
 *      end:     any -> AWAKE
 *
 * Invariant: if work exists that the home thread has not looked at since it appeared, then
 * wake_state is NOTIFIED, or the eventfd is or will be rung, or the notifier has not yet
 * come to its xchg.
 *
 * Proof sketch. Every transition is a sequentially consistent read-modify-write of one
 * word, so they have one total order. Take a notifier's xchg X and the home thread's begin
 * B (AWAKE -> ASLEEP) before it sleeps.
 *   X before B: B finds NOTIFIED and does not sleep, unless an accept A lies between, X < A
 *   < B. A reads what X wrote, so the change made before X is visible to all that follows A,
 *   and the look between A and B finds the work.
 *   B before X, and no end between: X finds ASLEEP and rings; the sleep ends.
 *   B, end, X: the thread is awake again; X is a notification before the next begin.
 * An eventfd rung late (the sleeper had already woken for another reason) ends the next
 * sleep early, once; that is all it does. The bell is silenced only by whoever saw it ring
 * in its fd monitor (aio/fdmon-*.c), and that is always followed by a look for work.
 *
 * A poll that accepts a notification returns even when it finds no work. So whoever sets a
 * flag of his own and notifies makes a loop that tests the flag between polls see it; the
 * loop in epoll could not know of it otherwise.
 *
 * Only the home thread accepts, begins and ends. A non-blocking look needs none of them.
 */
#include "aio/aio-internal.h"

enum { AIO_AWAKE, AIO_NOTIFIED, AIO_ASLEEP };

int aio__wake_init(AioContext *ctx)
{
    return event_notifier_init(&ctx->notifier, 0);
}

void aio__wake_destroy(AioContext *ctx)
{
    event_notifier_cleanup(&ctx->notifier);
}

void aio_notify(AioContext *ctx)
{
    if (qatomic_xchg(&ctx->wake_state, AIO_NOTIFIED) == AIO_ASLEEP) {
        event_notifier_set(&ctx->notifier);
    }
}

bool aio__notify_accept(AioContext *ctx)
{
    /*
     * The plain read may miss a notification; then begin will find it. When it does not
     * miss it, the xchg is what makes the notifier's change visible to the look that follows.
     */
    return qatomic_read(&ctx->wake_state) != AIO_AWAKE &&
           /* (ASLEEP here: a GSource whose check GLib has skipped) */
           qatomic_xchg(&ctx->wake_state, AIO_AWAKE) == AIO_NOTIFIED;
}

bool aio__sleep_begin(AioContext *ctx)
{
    return qatomic_cmpxchg(&ctx->wake_state, AIO_AWAKE, AIO_ASLEEP) == AIO_AWAKE;
}

void aio__sleep_end(AioContext *ctx)
{
    qatomic_set_mb(&ctx->wake_state, AIO_AWAKE);
}

bool aio__notified(AioContext *ctx)
{
    return qatomic_read(&ctx->wake_state) != AIO_AWAKE;
}
