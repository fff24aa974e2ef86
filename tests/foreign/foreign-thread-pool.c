/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Work for the pool of the main context. */
#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/block.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"

static AioContext *ctx;
static int active;

typedef struct Work {
    int begun;                  /* 0 waiting, 1 begun, 2 marked to be cancelled */
    int ran;
    int ret;
    int calls;                  /* of the callback */
    BlockAIOCB *acb;
    QemuEvent *gate;            /* wait for it */
} Work;

static int work_fn(void *opaque)
{
    Work *w = opaque;
    /* whom the test has marked before must not wait: it is waited for by the cancel */
    if (qatomic_cmpxchg(&w->begun, 0, 1) == 0 && w->gate) {
        qemu_event_wait(w->gate);
    }
    return qatomic_fetch_inc(&w->ran);
}

static void done_cb(void *opaque, int ret)
{
    Work *w = opaque;
    g_assert_true(qemu_get_current_aio_context() == ctx);
    w->calls++;
    w->ret = ret;
    w->acb = NULL;
    active--;
}

static void submit(Work *w)
{
    w->ret = -EINPROGRESS;
    active++;
    w->acb = thread_pool_submit_aio(work_fn, w, done_cb, w);
}

static void wait_all(void)
{
    while (active) {
        aio_poll(ctx, true);
    }
}

static void test_forgotten(void)
{
    Work w = { 0 };
    thread_pool_submit(work_fn, &w);
    while (!qatomic_read(&w.ran)) {
        aio_poll(ctx, true);
    }
    while (aio_poll(ctx, false)) {
        /* what is left of it */
    }
}

static void test_callback(void)
{
    Work w = { .ran = 5 };
    submit(&w);
    g_assert_cmpint(w.ret, ==, -EINPROGRESS);   /* only the loop delivers */
    wait_all();
    g_assert_cmpint(w.ran, ==, 6);
    g_assert_cmpint(w.ret, ==, 5);
    g_assert_cmpint(w.calls, ==, 1);
}

static void coroutine_fn work_co(void *opaque)
{
    Work *w = opaque;
    active++;
    w->ret = thread_pool_submit_co(work_fn, w);
    g_assert_true(qemu_get_current_aio_context() == ctx);
    active--;
}

static void test_coroutine(void)
{
    Work w = { .ran = 7, .ret = -EINPROGRESS };
    qemu_coroutine_enter(qemu_coroutine_create(work_co, &w));
    g_assert_cmpint(w.ret, ==, -EINPROGRESS);
    wait_all();
    g_assert_cmpint(w.ret, ==, 7);
}

static void test_many(void)
{
    static Work w[1000];
    for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
        submit(&w[i]);
    }
    wait_all();
    for (size_t i = 0; i < ARRAY_SIZE(w); i++) {
        g_assert_cmpint(w[i].ran, ==, 1);
        g_assert_cmpint(w[i].ret, ==, 0);
    }
}

/* More than can run at once, all held at a gate: those that wait can be cancelled. */
static void test_cancel(gconstpointer how)
{
    enum { WORKS = 300 };
    g_autofree Work *w = g_new0(Work, WORKS);
    QemuEvent gate;
    int cancelled = 0;

    qemu_event_init(&gate, false);
    for (int i = 0; i < WORKS; i++) {
        w[i].gate = &gate;
        submit(&w[i]);
    }
    for (int i = 0; i < WORKS; i++) {
        /* whoever has not begun is ours */
        if (w[i].acb && qatomic_cmpxchg(&w[i].begun, 0, 2) == 0) {
            if (how) {
                bdrv_aio_cancel_async(w[i].acb);
            } else {
                bdrv_aio_cancel(w[i].acb);
                g_assert_cmpint(w[i].calls, ==, 1);
            }
            cancelled++;
        }
    }
    g_assert_cmpint(cancelled, >, 0);
    qemu_event_set(&gate);
    wait_all();
    for (int i = 0; i < WORKS; i++) {
        g_assert_cmpint(w[i].calls, ==, 1);
        g_assert_cmpint(w[i].ret, ==, w[i].ran ? 0 : -ECANCELED);
    }
    qemu_event_destroy(&gate);
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    ctx = qemu_get_current_aio_context();
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/foreign/pool/forgotten", test_forgotten);
    g_test_add_func("/foreign/pool/callback", test_callback);
    g_test_add_func("/foreign/pool/coroutine", test_coroutine);
    g_test_add_func("/foreign/pool/many", test_many);
    g_test_add_data_func("/foreign/pool/cancel", NULL, test_cancel);
    g_test_add_data_func("/foreign/pool/cancel-async", &active, test_cancel);
    return g_test_run();
}
