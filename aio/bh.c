/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bottom halves, and the message queue they share with scheduled coroutines.
 *
 * Any thread pushes on a lock-free stack. The home thread takes the whole stack at once,
 * turns it round and appends it to a FIFO, stamped with the number of the take. One
 * iteration runs the FIFO up to the last message of its own take, so that
 *   - what a callback schedules runs in the next iteration, and
 *   - a nested aio_poll() first finishes what the outer iteration had taken: nothing that
 *     was ready is stuck behind the callback that polls.
 */
#include "aio/aio-internal.h"

enum {
    BH_QUEUED    = 1 << 0,      /* in the queue; whoever sets it pushes */
    BH_SCHEDULED = 1 << 1,      /* the callback is wanted */
    BH_ONESHOT   = 1 << 2,      /* free it after the callback */
    BH_DELETED   = 1 << 3,      /* free it, no callback */
    BH_IDLE      = 1 << 4,      /* it is the idle stack that it is on */
};

struct QEMUBH {
    AioMessage msg;
    AioContext *ctx;
    QEMUBHFunc *cb;
    void *opaque;
    const char *name;
    unsigned flags;             /* atomic */
};

/* True when the stack was empty before. */
static bool push(AioMessage **stack, AioMessage *msg)
{
    AioMessage *head = qatomic_read(stack), *seen;
    for (;;) {
        msg->next = head;
        seen = qatomic_cmpxchg(stack, head, msg);
        if (seen == head) {
            return head == NULL;
        }
        head = seen;
    }
}

void aio_message_post(AioContext *ctx, AioMessage *msg)
{
    if (in_aio_context_home_thread(ctx)) {
        /* we are awake, and shall look again before we sleep */
        if (push(&ctx->incoming, msg)) {
            aio_notify(ctx);
        }
        return;
    }
    /*
     * As soon as MSG is on the stack it may run, and may drop the last reference to CTX.
     * Only whoever finds the stack empty notifies: the others' messages are covered by that
     * notification, which is made after their message was pushed or before it was looked for.
     */
    aio_context_ref(ctx);
    if (push(&ctx->incoming, msg)) {
        aio_notify(ctx);
    }
    aio_context_unref(ctx);
}

/* Move a taken stack to the FIFO, oldest first. */
static void append_taken(AioContext *ctx, AioMessage *stack)
{
    AioMessage *fifo = NULL;
    AioMessage **tail = stack ? &stack->next : NULL;    /* the newest will be the last */

    while (stack) {
        AioMessage *next = stack->next;
        stack->batch = ctx->batch;
        stack->next = fifo;
        fifo = stack;
        stack = next;
    }
    if (fifo) {
        *ctx->ready_tail = fifo;
        ctx->ready_tail = tail;
    }
}

static void take_incoming(AioContext *ctx)
{
    ctx->batch++;
    if (qatomic_read(&ctx->incoming)) {
        append_taken(ctx, qatomic_xchg(&ctx->incoming, NULL));
    }
    if (unlikely(qatomic_read(&ctx->incoming_idle))) {
        append_taken(ctx, qatomic_xchg(&ctx->incoming_idle, NULL));
    }
}

static AioMessage *pop_ready(AioContext *ctx)
{
    AioMessage *msg = ctx->ready;
    ctx->ready = msg->next;
    if (!ctx->ready) {
        ctx->ready_tail = &ctx->ready;
    }
    return msg;
}

bool aio__messages_pending(AioContext *ctx)
{
    return ctx->ready || qatomic_read(&ctx->incoming);
}

bool aio__messages_idle_pending(AioContext *ctx)
{
    return qatomic_read(&ctx->incoming_idle);
}

bool aio__messages_run(AioContext *ctx)
{
    bool progress = false;

    take_incoming(ctx);
    uint64_t last = ctx->batch;
    while (ctx->ready && ctx->ready->batch <= last) {
        AioMessage *msg = pop_ready(ctx);
        progress |= msg->run(ctx, msg);
    }
    return progress;
}

/* True if the callback was called. */
static bool bh_run(AioContext *ctx, AioMessage *msg)
{
    QEMUBH *bh = container_of(msg, QEMUBH, msg);
    /*
     * Cleared before the callback: a schedule from now on queues it again. The full barrier
     * pairs with the one in qemu_bh_schedule(): whoever finds BH_QUEUED still set knows that
     * the callback is yet to come and will see what was done before scheduling.
     */
    unsigned old = qatomic_fetch_and(&bh->flags, ~(BH_QUEUED | BH_SCHEDULED | BH_IDLE));

    if (old & BH_DELETED) {
        g_free(bh);
        return false;
    }
    if (!(old & BH_SCHEDULED)) {
        return false;
    }
    bh->cb(bh->opaque);
    if (old & BH_ONESHOT) {
        g_free(bh);
    }
    return true;
}

static QEMUBH *bh_alloc(AioContext *ctx, QEMUBHFunc *cb, void *opaque, const char *name,
                        unsigned flags)
{
    QEMUBH *bh = g_new(QEMUBH, 1);
    *bh = (QEMUBH) { .msg.run = bh_run, .ctx = ctx, .cb = cb, .opaque = opaque,
                     .name = name, .flags = flags };
    return bh;
}

QEMUBH *aio_bh_new_full(AioContext *ctx, QEMUBHFunc *cb, void *opaque, const char *name)
{
    qatomic_inc(&ctx->bhs_alive);
    return bh_alloc(ctx, cb, opaque, name, 0);
}

void aio_bh_schedule_oneshot_full(AioContext *ctx, QEMUBHFunc *cb, void *opaque,
                                  const char *name)
{
    QEMUBH *bh = bh_alloc(ctx, cb, opaque, name, BH_QUEUED | BH_SCHEDULED | BH_ONESHOT);
    aio_message_post(ctx, &bh->msg);
}

/* Somebody on the idle stack is wanted now: all who are there need not wait any longer. */
static QEMU_NOINLINE void hurry_idle(AioContext *ctx)
{
    /* The first of them may run and drop CTX before we have posted the next. */
    aio_context_ref(ctx);
    AioMessage *msg = qatomic_xchg(&ctx->incoming_idle, NULL);
    while (msg) {
        AioMessage *next = msg->next;
        aio_message_post(ctx, msg);
        msg = next;
    }
    aio_context_unref(ctx);
}

void qemu_bh_schedule(QEMUBH *bh)
{
    AioContext *ctx = bh->ctx;      /* once scheduled, BH may be gone */
    unsigned old = qatomic_fetch_or(&bh->flags, BH_QUEUED | BH_SCHEDULED);

    if (!(old & BH_QUEUED)) {
        aio_message_post(ctx, &bh->msg);
    } else if (unlikely(old & BH_IDLE)) {
        hurry_idle(ctx);
    }
}

void aio__bh_schedule_pinned(QEMUBH *bh)
{
    AioContext *ctx = bh->ctx;
    if (!(qatomic_fetch_or(&bh->flags, BH_QUEUED | BH_SCHEDULED) & BH_QUEUED) &&
        push(&ctx->incoming, &bh->msg)) {
        aio_notify(ctx);
    }
}

void qemu_bh_schedule_idle(QEMUBH *bh)
{
    AioContext *ctx = bh->ctx;
    unsigned old = qatomic_read(&bh->flags), seen;

    /* BH_IDLE together with BH_QUEUED, and not on one that is queued for real already */
    while ((seen = qatomic_cmpxchg(&bh->flags, old, old & BH_QUEUED ? old | BH_SCHEDULED
                                   : old | BH_QUEUED | BH_SCHEDULED | BH_IDLE)) != old) {
        old = seen;
    }
    if (!(old & BH_QUEUED)) {
        /* A loop that is asleep must learn that it may sleep so long only. */
        aio_context_ref(ctx);
        if (push(&ctx->incoming_idle, &bh->msg)) {
            aio_notify(ctx);
        }
        aio_context_unref(ctx);
    }
}

void qemu_bh_cancel(QEMUBH *bh)
{
    qatomic_and(&bh->flags, ~BH_SCHEDULED);
}

void qemu_bh_delete(QEMUBH *bh)
{
    AioContext *ctx = bh->ctx;
    unsigned old = qatomic_fetch_or(&bh->flags, BH_QUEUED | BH_DELETED);
    if (old & BH_DELETED) {
        fprintf(stderr, "miniblk: qemu_bh_delete: '%s' is deleted twice\n", bh->name);
        abort();
    }
    qatomic_dec(&ctx->bhs_alive);
    if (!(old & BH_QUEUED)) {
        aio_message_post(ctx, &bh->msg);
    }
}

void aio__messages_destroy(AioContext *ctx)
{
    take_incoming(ctx);
    while (ctx->ready) {
        AioMessage *msg = pop_ready(ctx);
        if (msg->run != bh_run) {
            fprintf(stderr, "miniblk: aio_context_unref: a coroutine is still scheduled\n");
            abort();
        }
        QEMUBH *bh = container_of(msg, QEMUBH, msg);
        if (bh->flags & BH_ONESHOT) {
            fprintf(stderr, "miniblk: aio_context_unref: '%s' was scheduled and has not run\n",
                    bh->name);
            abort();
        }
        if (bh->flags & BH_DELETED) {
            g_free(bh);
        }
    }
    if (qatomic_read(&ctx->bhs_alive)) {
        fprintf(stderr, "miniblk: aio_context_unref: %u bottom half/halves were not deleted\n",
                ctx->bhs_alive);
        abort();
    }
}
