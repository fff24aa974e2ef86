/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adaptive busy polling: before the loop sleeps it looks at memory for a while, because an
 * event that comes within that window costs neither the sleep nor the wake-up. Its notifier
 * gains as well: a loop that is awake need not be rung (aio/notify.c).
 *
 * The window adapts to how long the loop had to wait lately:
 *
 *      wait <= window          it is right
 *      wait <= poll_max_ns     a longer window would have caught it: grow
 *      wait >  poll_max_ns     polling was wasted: shrink
 *
 * A descriptor whose handler has no io_poll can be asked only by a system call. Polling
 * would make it wait, so while there is one the loop does not poll, unless the fd monitor
 * learns of readiness through memory. One that has io_poll is asked from its second event on:
 * the first is waited for, which tells that the descriptor is in use at all.
 */
#include "aio/aio-internal.h"

enum { FIRST_WINDOW_NS = 4000, DEFAULT_GROW = 2 };

static bool something_came(AioContext *ctx, bool *complete)
{
    return aio__notified(ctx) || aio__messages_pending(ctx) || aio__fds_poll(ctx, complete);
}

bool aio__busy_poll(AioContext *ctx, int64_t start_ns, int64_t timeout_ns)
{
    int64_t window_ns = MIN(ctx->poll_window_ns, qatomic_read(&ctx->poll_max_ns));

    if (timeout_ns >= 0) {
        window_ns = MIN(window_ns, timeout_ns);
    }
    if (!aio__fds_can_poll(ctx)) {
        return false;
    }
    /* Ask once in any case; going on would make those wait who cannot be asked yet. */
    bool complete = true;
    do {
        if (something_came(ctx, &complete)) {
            return true;
        }
        port_cpu_relax();
    } while (complete && get_clock() - start_ns < window_ns);
    return false;
}

void aio__busy_poll_adapt(AioContext *ctx, int64_t waited_ns)
{
    int64_t max_ns = qatomic_read(&ctx->poll_max_ns);
    int64_t window_ns = ctx->poll_window_ns, grow = qatomic_read(&ctx->poll_grow);
    int64_t shrink = qatomic_read(&ctx->poll_shrink);

    if (waited_ns <= window_ns) {
        return;
    }
    if (waited_ns > max_ns) {
        window_ns = shrink ? window_ns / shrink : 0;
    } else if (!window_ns) {
        window_ns = FIRST_WINDOW_NS;
    } else if (__builtin_mul_overflow(window_ns, grow ? grow : DEFAULT_GROW, &window_ns)) {
        window_ns = max_ns;
    }
    ctx->poll_window_ns = MIN(window_ns, max_ns);
}

void aio_context_set_poll_params(AioContext *ctx, int64_t max_ns, int64_t grow,
                                 int64_t shrink, Error **errp)
{
    if (max_ns < 0 || grow < 0 || shrink < 0) {
        error_setg(errp, "poll-max-ns, poll-grow and poll-shrink must not be negative");
        return;
    }
    qatomic_set(&ctx->poll_max_ns, max_ns);
    qatomic_set(&ctx->poll_grow, grow);
    qatomic_set(&ctx->poll_shrink, shrink);
    aio_notify(ctx);            /* whoever sleeps now starts with the new values */
}
