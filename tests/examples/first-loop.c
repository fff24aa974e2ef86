/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An IOThread, and something that lives in its loop. */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

typedef struct Ticker {
    AioContext *ctx;            /* where it lives; given by its maker, never assumed */
    QEMUTimer *timer;
    int ticks;                  /* home thread of CTX */
    bool finished;              /* atomic */
} Ticker;

static void tick(void *opaque)
{
    Ticker *t = opaque;

    g_assert(in_aio_context_home_thread(t->ctx));
    if (++t->ticks < 3) {
        timer_mod(t->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + 1);
        return;
    }
    qatomic_set_mb(&t->finished, true);
    aio_wait_kick();            /* part of the change: who waits must look again */
}

static void ticker_start(Ticker *t, AioContext *ctx)
{
    *t = (Ticker) { .ctx = ctx };
    t->timer = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, SCALE_MS, tick, t);
    aio_bh_schedule_oneshot(ctx, tick, t);
}

int main(void)
{
    Ticker t;

    qemu_init_main_loop(&error_fatal);
    IOThread *io0 = iothread_create("io0", &error_fatal);

    ticker_start(&t, iothread_get_aio_context(io0));
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&t.finished));
    timer_free(t.timer);
    iothread_destroy(io0);
    printf("%d ticks\n", t.ticks);
    return t.ticks == 3 ? 0 : 1;
}
