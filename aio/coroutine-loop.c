/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines and event loops: how a coroutine gets to run in the right thread. */
#include "aio/coroutine-internal.h"

AioContext *coroutine__context_for(const char *call)
{
    AioContext *ctx = qemu_get_current_aio_context();
    if (unlikely(!ctx)) {
        coroutine__misuse(call, "this thread has no event loop");
    }
    return ctx;
}

static void enter_locked(AioContext *ctx, Coroutine *co)
{
    aio_context_acquire(ctx);
    qemu_aio_coroutine_enter(ctx, co);
    aio_context_release(ctx);
}

static bool scheduled_run(AioContext *ctx, AioMessage *msg)
{
    Coroutine *co = container_of(msg, Coroutine, msg);
    qatomic_set(&co->scheduled, NULL);
    enter_locked(ctx, co);
    return true;
}

void aio_co_schedule(AioContext *ctx, Coroutine *co)
{
    const char *earlier = qatomic_cmpxchg(&co->scheduled, (const char *)NULL, __func__);
    if (unlikely(earlier)) {
        coroutine__not_suspended(__func__, co, earlier);
    }
    if (unlikely(!ctx)) {
        coroutine__misuse(__func__, "Co-routine %p has no context: it has not run yet, or "
                          "last in a thread without an event loop", (void *)co);
    }
    port_note_pair(PORT_NOTE_SCHEDULE, co, ctx);
    co->msg.run = scheduled_run;
    aio_message_post(ctx, &co->msg);
}

void aio_co_enter(AioContext *ctx, Coroutine *co)
{
    if (ctx != qemu_get_current_aio_context()) {
        aio_co_schedule(ctx, co);
    } else if (qemu_in_coroutine()) {
        coroutine__defer(ctx, co);
    } else if (ctx) {
        enter_locked(ctx, co);
    } else {
        qemu_aio_coroutine_enter(NULL, co);
    }
}

void aio_co_wake(Coroutine *co)
{
    aio_co_enter(qatomic_read(&co->ctx), co);
}

typedef struct Reschedule {
    AioContext *ctx;
    Coroutine *co;
} Reschedule;

static void reschedule_bh(void *opaque)
{
    Reschedule *r = opaque;
    aio_co_schedule(r->ctx, r->co);
}

void coroutine_fn aio_co_reschedule_self(AioContext *new_ctx)
{
    Coroutine *self = coroutine__self_for(__func__);
    AioContext *old_ctx = coroutine__context_for(__func__);

    if (old_ctx == new_ctx) {
        return;
    }
    /* From a bottom half, so that nobody can enter us before we have yielded. */
    Reschedule r = { new_ctx, self };
    aio_bh_schedule_oneshot(old_ctx, reschedule_bh, &r);
    qemu_coroutine_yield();
}

typedef struct FdYield {
    AioContext *ctx;
    Coroutine *co;
    int fd;
} FdYield;

static void fd_yield_ready(void *opaque)
{
    FdYield *y = opaque;
    aio_set_fd_handler(y->ctx, y->fd, NULL, NULL, NULL, NULL, NULL);
    aio_co_wake(y->co);
}

void coroutine_fn yield_until_fd_readable(int fd)
{
    FdYield y = { coroutine__context_for(__func__), coroutine__self_for(__func__), fd };
    aio_set_fd_handler(y.ctx, fd, fd_yield_ready, NULL, NULL, NULL, &y);
    qemu_coroutine_yield();
}
