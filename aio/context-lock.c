/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The recursive lock of an AioContext, with the rule that keeps it free of deadlocks: a
 * thread that does not hold the big lock holds one context at the most.
 */
#include "aio/aio-internal.h"

/* What the calling thread holds. Its address is the thread's identity. */
typedef struct LockHolder {
    AioContext *only;           /* the one context held, while COUNT is 1 */
    unsigned count;             /* contexts held */
    bool bql;
} LockHolder;

static PORT_THREAD_LOCAL LockHolder holder_storage;

static QEMU_NOINLINE LockHolder *lock_holder(void)
{
    return &holder_storage;
}

void aio__thread_set_bql(bool held)
{
    lock_holder()->bql = held;
}

static void check_rule(const LockHolder *me, AioContext *ctx)
{
    if (unlikely(me->count && !me->bql)) {
        fprintf(stderr, "miniblk: aio_context_acquire: thread %d takes context %p while it "
                "holds context %p; without the big lock only one may be held\n",
                qemu_get_thread_id(), (void *)ctx, (void *)me->only);
        abort();
    }
}

void aio_context_acquire(AioContext *ctx)
{
    LockHolder *me = lock_holder();

    /* Only we can have stored our own identity, so the unlocked read cannot mislead. */
    if (qatomic_read(&ctx->lock_owner) != me) {
        check_rule(me, ctx);
        qemu_mutex_lock(&ctx->lock);
        qatomic_set(&ctx->lock_owner, me);
        me->count++;
        me->only = ctx;
    }
    ctx->lock_depth++;
}

void aio_context_release(AioContext *ctx)
{
    LockHolder *me = lock_holder();

    if (unlikely(qatomic_read(&ctx->lock_owner) != me)) {
        fprintf(stderr, "miniblk: aio_context_release: thread %d does not hold context %p\n",
                qemu_get_thread_id(), (void *)ctx);
        abort();
    }
    if (--ctx->lock_depth == 0) {
        me->count--;
        qatomic_set(&ctx->lock_owner, NULL);
        qemu_mutex_unlock(&ctx->lock);
    }
}

unsigned aio__context_release_all(AioContext *ctx)
{
    unsigned depth = 0;
    while (qatomic_read(&ctx->lock_owner) == lock_holder()) {
        depth++;
        aio_context_release(ctx);
    }
    return depth;
}

void aio__context_reacquire(AioContext *ctx, unsigned depth)
{
    while (depth--) {
        aio_context_acquire(ctx);
    }
}
