/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The recursive lock of an AioContext, with the rule that keeps it free of deadlocks: a
 * thread that does not hold the big lock holds one context at the most.
 */
#include "aio/aio-internal.h"

#if defined(__SANITIZE_THREAD__)
/*
 * ThreadSanitizer reports two contexts taken in both orders as a possible deadlock. Only the
 * holder of the big lock takes two, so the big lock orders them; TSan knows no such gates.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "deadlock:aio_context_acquire\n";
}
#endif

/* What the calling thread holds. Its address is the thread's identity. */
typedef struct LockHolder {
    AioContext *held;           /* contexts held, linked by lock_next_held */
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
    if (unlikely(me->held && !me->bql)) {
        fprintf(stderr, "miniblk: aio_context_acquire: thread %d takes context %p while it "
                "holds context %p; without the big lock only one may be held\n",
                qemu_get_thread_id(), (void *)ctx, (void *)me->held);
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
        ctx->lock_next_held = me->held;
        me->held = ctx;
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
        AioContext **link = &me->held;
        while (*link != ctx) {
            link = &(*link)->lock_next_held;
        }
        *link = ctx->lock_next_held;
        qatomic_set(&ctx->lock_owner, NULL);
        qemu_mutex_unlock(&ctx->lock);
    }
}

static unsigned release_all_levels(AioContext *ctx)
{
    unsigned depth = 0;
    while (qatomic_read(&ctx->lock_owner) == lock_holder()) {
        depth++;
        aio_context_release(ctx);
    }
    return depth;
}

typedef struct DroppedLock {
    AioContext *ctx;
    unsigned depth;
} DroppedLock;

GArray *aio__context_locks_drop(AioContext *ctx)
{
    LockHolder *me = lock_holder();
    GArray *dropped = NULL;
    AioContext *victim;

    while ((victim = ctx ? ctx : me->held)) {
        DroppedLock d = { victim, release_all_levels(victim) };
        if (d.depth) {
            dropped = dropped ? dropped : g_array_new(false, false, sizeof(d));
            g_array_append_val(dropped, d);
        }
        if (ctx) {
            break;
        }
    }
    return dropped;
}

void aio__context_locks_retake(GArray *dropped)
{
    for (unsigned i = dropped ? dropped->len : 0; i-- > 0; ) {
        DroppedLock *d = &g_array_index(dropped, DroppedLock, i);
        while (d->depth--) {
            aio_context_acquire(d->ctx);
        }
    }
    if (dropped) {
        g_array_free(dropped, true);
    }
}
