/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program for the debugger to be stopped in (see test-coroutine-gdb.sh): when it comes to
 * stop_inlined() there is a coroutine in each of the states.
 */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"

/* At the end of a function: its last call is no tail call, so its frame is there. */
#define KEEP_FRAME() __asm__ volatile("" : : : "memory")

static CoMutex mutex;
static QemuCoSleep handle;
static Coroutine *deep;

static void coroutine_fn QEMU_NOINLINE wait_deep_inside(int depth)
{
    if (depth) {
        wait_deep_inside(depth - 1);
    } else {
        qemu_coroutine_yield();
    }
    KEEP_FRAME();
}

static void coroutine_fn deep_entry(void *opaque)
{
    wait_deep_inside(3);
    KEEP_FRAME();
}

static void coroutine_fn locking_entry(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    qemu_coroutine_yield();
    qemu_co_mutex_unlock(&mutex);
}

static void coroutine_fn sleeping_entry(void *opaque)
{
    qemu_co_sleep_ns_wakeable(&handle, QEMU_CLOCK_REALTIME, INT64_MAX);
    KEEP_FRAME();
}

static void coroutine_fn finished_entry(void *opaque)
{
}

/* The innermost function is an inlined one, which debuggers treat in their own way. */
static inline __attribute__((always_inline)) void stop_inlined(void)
{
    __asm__ volatile("nop\nnop" : : : "memory");
}

static void QEMU_NOINLINE stop_here(void)
{
    stop_inlined();
    KEEP_FRAME();
}

static void coroutine_fn inner_entry(void *opaque)
{
    stop_here();
    KEEP_FRAME();
}

static void coroutine_fn outer_entry(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_create(inner_entry, NULL));
    KEEP_FRAME();
}

static Coroutine *run(CoroutineEntry *entry)
{
    Coroutine *co = qemu_coroutine_create(entry, NULL);
    qemu_coroutine_enter(co);
    return co;
}

int main(void)
{
    AioContext *ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);
    run(finished_entry);
    deep = run(deep_entry);
    Coroutine *holder = run(locking_entry);
    run(locking_entry);
    run(sleeping_entry);
    aio_co_schedule(ctx, qemu_coroutine_create(finished_entry, NULL));
    Coroutine *new = qemu_coroutine_create(finished_entry, NULL);
    run(outer_entry);

    /* let all of them end */
    qemu_coroutine_enter(new);
    qemu_coroutine_enter(deep);
    qemu_coroutine_enter(holder);
    while (aio_poll(ctx, false)) {
        /* the scheduled one */
    }
    qemu_co_sleep_wake(&handle);
    aio_context_unref(ctx);
    return 0;
}
