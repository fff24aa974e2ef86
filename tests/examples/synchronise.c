/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Four ways for the main thread to deal with a state that lives in another loop. */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

typedef struct Queue {
    AioContext *ctx;
    int length;                 /* protected by CTX's lock */
    int served;                 /* atomic; only grows */
} Queue;

/* In the loop. Whatever touches LENGTH there takes the lock, briefly. */
static void enqueue(void *opaque)
{
    Queue *q = opaque;

    aio_context_acquire(q->ctx);
    q->length++;
    aio_context_release(q->ctx);
}

static void serve_all(void *opaque)
{
    Queue *q = opaque;

    aio_context_acquire(q->ctx);
    qatomic_add(&q->served, q->length);
    q->length = 0;
    aio_context_release(q->ctx);
    aio_wait_kick();
}

/* 1. Tell it, and do not wait. */
static void tell(Queue *q)
{
    aio_bh_schedule_oneshot(q->ctx, enqueue, q);
}

/* 2. Have a function run there, and wait until it has. */
static void have_done(Queue *q)
{
    aio_wait_bh_oneshot(q->ctx, serve_all, q);
}

/* 3. Keep the loop out and look for yourself. */
static int look(Queue *q)
{
    aio_context_acquire(q->ctx);
    int length = q->length;
    aio_context_release(q->ctx);
    return length;
}

/* 4. Wait until something has become true, with the lock held while it is looked at. */
static void wait_until_served(Queue *q, int total)
{
    aio_context_acquire(q->ctx);
    AIO_WAIT_WHILE(q->ctx, qatomic_read_sc(&q->served) < total);
    aio_context_release(q->ctx);
}

int main(void)
{
    Queue q = { 0 };

    qemu_init_main_loop(&error_fatal);
    IOThread *io0 = iothread_create("io0", &error_fatal);
    q.ctx = iothread_get_aio_context(io0);

    for (int i = 0; i < 10; i++) {
        tell(&q);
    }
    have_done(&q);              /* in the order of scheduling, so after the ten */
    g_assert(look(&q) == 0 && q.served == 10);

    tell(&q);
    aio_bh_schedule_oneshot(q.ctx, serve_all, &q);
    wait_until_served(&q, 11);
    iothread_destroy(io0);
    printf("%d served\n", q.served);
    return 0;
}
