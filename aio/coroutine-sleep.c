/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sleeping in a coroutine. Whoever takes TO_WAKE out of the handle is the one to wake. */
#include "aio/coroutine-internal.h"

void qemu_co_sleep_wake(QemuCoSleep *w)
{
    Coroutine *co = qatomic_xchg(&w->to_wake, NULL);
    if (co) {
        qatomic_set(&co->scheduled, NULL);
        aio_co_wake(co);
    }
}

static void sleep_timer_cb(void *opaque)
{
    qemu_co_sleep_wake(opaque);
}

void coroutine_fn qemu_co_sleep(QemuCoSleep *w)
{
    Coroutine *self = coroutine__self_for(__func__);

    /* Anybody else who enters us while we sleep is wrong; let him be caught. */
    const char *earlier = qatomic_cmpxchg(&self->scheduled, (const char *)NULL,
                                          "qemu_co_sleep_ns");
    if (unlikely(earlier)) {
        coroutine__not_suspended(__func__, self, earlier);
    }
    Coroutine *other = qatomic_xchg(&w->to_wake, self);
    if (unlikely(other)) {
        coroutine__misuse(__func__, "Co-routine %p sleeps on the same handle", (void *)other);
    }
    port_note(PORT_NOTE_CO_WAIT, qatomic_read(&self->ctx), "a timer of the loop");
    qemu_coroutine_yield();
    g_assert(!qatomic_read(&w->to_wake));
}

void coroutine_fn qemu_co_sleep_ns_wakeable(QemuCoSleep *w, QEMUClockType type, int64_t ns)
{
    AioContext *ctx = coroutine__context_for("qemu_co_sleep_ns");
    QEMUTimer timer;
    int64_t until;

    if (__builtin_add_overflow(qemu_clock_get_ns(type), ns, &until)) {
        until = INT64_MAX;
    }
    aio_timer_init(ctx, &timer, type, SCALE_NS, sleep_timer_cb, w);
    timer_mod(&timer, until);
    /*
     * The timer belongs to this thread, so it cannot fire before the yield. A wake-up that
     * came before we slept is not one.
     */
    qemu_co_sleep(w);
    timer_del(&timer);
}
