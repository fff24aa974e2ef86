/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All that does not name the main loop works in a program that has none. */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/aio-wait.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"
#include "qemu/timer.h"

static AioContext *ctx;

static void set_flag(void *opaque)
{
    qatomic_set((bool *)opaque, true);
}

static int work(void *opaque)
{
    g_assert_null(qemu_get_current_aio_context());
    return 17;
}

static void coroutine_fn everything(void *opaque)
{
    CoMutex mutex;
    CoQueue queue;
    g_assert_true(qemu_get_current_aio_context() == ctx);
    g_assert_cmpint(thread_pool_submit_co(work, NULL), ==, 17);
    qemu_co_sleep_ns(QEMU_CLOCK_VIRTUAL, 2 * SCALE_MS);
    qemu_co_mutex_init(&mutex);
    qemu_co_queue_init(&queue);
    WITH_QEMU_LOCK_GUARD(&mutex) {
        g_assert_true(qemu_co_queue_empty(&queue));
    }
    g_assert_true(qemu_get_current_aio_context() == ctx);
    set_flag(opaque);
}

static void test_coroutine_with_everything(void)
{
    bool done = false;
    aio_co_schedule(ctx, qemu_coroutine_create(everything, &done));
    AIO_WAIT_WHILE_UNLOCKED(ctx, !done);
    done = false;
    aio_co_enter(ctx, qemu_coroutine_create(everything, &done));
    AIO_WAIT_WHILE_UNLOCKED(ctx, !done);
}

static void *other_thread(void *opaque)
{
    aio_bh_schedule_oneshot(ctx, set_flag, opaque);
    return NULL;
}

static void test_scheduled_from_another_thread(void)
{
    bool done = false;
    QemuThread thread;
    qemu_thread_create(&thread, NULL, other_thread, &done, QEMU_THREAD_JOINABLE);
    AIO_WAIT_WHILE_UNLOCKED(ctx, !qatomic_read(&done));
    qemu_thread_join(&thread);
}

static void pool_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 17);
    set_flag(opaque);
}

static void test_pool_and_lock(void)
{
    bool done = false;
    aio_context_acquire(ctx);
    aio_context_acquire(ctx);
    thread_pool_submit_aio(work, NULL, pool_done, &done);
    while (!done) {
        aio_poll(ctx, true);
    }
    aio_context_release(ctx);
    aio_context_release(ctx);
}

static void test_there_is_no_main_loop(void)
{
    g_assert_null(qemu_get_aio_context());
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    init_clocks(NULL);
    ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);
    g_test_add_func("/foreign/no-main-loop/none", test_there_is_no_main_loop);
    g_test_add_func("/foreign/no-main-loop/coroutine", test_coroutine_with_everything);
    g_test_add_func("/foreign/no-main-loop/thread", test_scheduled_from_another_thread);
    g_test_add_func("/foreign/no-main-loop/pool", test_pool_and_lock);
    int ret = g_test_run();
    while (aio_poll(ctx, false)) {
        /* what is left */
    }
    aio_context_unref(ctx);
    return ret;
}
