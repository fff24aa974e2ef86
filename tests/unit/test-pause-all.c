/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stopping the world: what stands still, who is told, and IOThreads that come and go. */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/lab-test.h"
#include "miniblk/main-loop.h"
#include "miniblk/runstate.h"
#include "miniblk/thread.h"
#include "aio/aio-internal.h"
#include "trap.h"

enum { THREADS = 3 };
static IOThread *io[THREADS];
static AioContext *io_ctx[THREADS];

static void start(void)
{
    for (int i = 0; i < THREADS; i++) {
        g_autofree char *id = g_strdup_printf("io%d", i);
        io[i] = iothread_create(id, &error_abort);
        io_ctx[i] = iothread_get_aio_context(io[i]);
    }
}

static void stop(void)
{
    IOThread *t;
    while ((t = iothread_next(NULL))) {
        iothread_destroy(t);
    }
}

/* ---- what stands still ----------------------------------------------------------------- */

/* A coroutine that reschedules itself, so its loop never sleeps. */
typedef struct Busy {
    AioContext *ctx;
    int steps;                  /* atomic; written under the lock of CTX by its coroutine */
    bool end;                   /* the same */
    bool ended;                 /* atomic */
} Busy;

static void coroutine_fn busy_co(void *opaque)
{
    Busy *b = opaque;

    while (!b->end) {
        qatomic_set(&b->steps, b->steps + 1);
        aio_co_schedule(b->ctx, qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    qatomic_set_mb(&b->ended, true);
    aio_wait_kick();
}

enum { PAUSES = LAB_ROUNDS(200, 8) };

static void test_coroutines_stand_still(void)
{
    Busy busy[THREADS];

    start();
    for (int i = 0; i < THREADS; i++) {
        busy[i] = (Busy) { .ctx = io_ctx[i] };
        aio_co_schedule(io_ctx[i], qemu_coroutine_create(busy_co, &busy[i]));
    }
    for (int i = 0; i < THREADS; i++) {
        while (!qatomic_read(&busy[i].steps)) {
            /* until it is on its way */
        }
    }
    for (int round = 1; round <= PAUSES; round++) {
        int steps[THREADS];

        iothread_pause_all();
        for (int i = 0; i < THREADS; i++) {
            steps[i] = busy[i].steps;
        }
        for (int i = 0; i < LAB_ROUNDS(1000, 5); i++) {
            for (int k = 0; k < THREADS; k++) {
                g_assert_cmpint(qatomic_read(&busy[k].steps), ==, steps[k]);
            }
        }
        if (round == PAUSES) {
            for (int i = 0; i < THREADS; i++) {
                busy[i].end = true;
            }
        }
        iothread_resume_all();
    }
    for (int i = 0; i < THREADS; i++) {
        AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&busy[i].ended));
    }
    stop();
}

static void test_pauses_nest(void)
{
    start();
    for (unsigned depth = 1; depth <= 3; depth++) {
        iothread_pause_all();
        for (int i = 0; i < THREADS; i++) {
            g_assert_cmpuint(aio__context_lock_depth(io_ctx[i]), ==, depth);
        }
    }
    for (unsigned depth = 3; depth-- > 0; ) {
        iothread_resume_all();
        for (int i = 0; i < THREADS; i++) {
            g_assert_cmpuint(aio__context_lock_depth(io_ctx[i]), ==, depth);
        }
    }
    stop();
}

static void acquire_and_set(void *opaque)
{
    AioContext *here = qemu_get_current_aio_context();
    aio_context_acquire(here);
    qatomic_set_mb((bool *)opaque, true);
    aio_context_release(here);
    aio_wait_kick();
}

/* A wait opens the world, or what it waits for could not come. */
static void test_waiting_opens_the_world_meanwhile(void)
{
    bool done = false;

    start();
    iothread_pause_all();
    iothread_pause_all();
    aio_bh_schedule_oneshot(io_ctx[1], acquire_and_set, &done);
    AIO_WAIT_WHILE(io_ctx[1], !qatomic_read_sc(&done));
    for (int i = 0; i < THREADS; i++) {
        g_assert_cmpuint(aio__context_lock_depth(io_ctx[i]), ==, 2);
    }
    iothread_resume_all();
    iothread_resume_all();
    stop();
}

/* ---- IOThreads that come and go -------------------------------------------------------- */

static void test_created_while_stopped(void)
{
    bool done = false;

    start();
    iothread_pause_all();
    iothread_pause_all();
    IOThread *t = iothread_create("new", &error_abort);
    AioContext *ctx = iothread_get_aio_context(t);
    g_assert_cmpuint(aio__context_lock_depth(ctx), ==, 2);
    aio_bh_schedule_oneshot(ctx, acquire_and_set, &done);
    g_assert_false(qatomic_read(&done));
    iothread_resume_all();
    g_assert_false(qatomic_read(&done));
    iothread_resume_all();
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&done));
    stop();
}

/* The one that goes needs its lock to finish, and gets it. */
static void test_destroyed_while_stopped(void)
{
    bool done = false, other_done = false;

    start();
    iothread_pause_all();
    iothread_pause_all();
    aio_bh_schedule_oneshot(io_ctx[1], acquire_and_set, &done);
    aio_bh_schedule_oneshot(io_ctx[2], acquire_and_set, &other_done);
    iothread_destroy(io[1]);
    g_assert_true(done);
    g_assert_false(qatomic_read(&other_done));
    iothread_stop(io[0]);       /* a stopped one is still counted */
    iothread_resume_all();
    iothread_resume_all();
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&other_done));
    g_assert_cmpuint(aio__context_lock_depth(io_ctx[0]), ==, 0);
    stop();
}

/* ---- listeners ------------------------------------------------------------------------- */

static GString *told;

typedef struct Listener {
    char tag;
    VMChangeStateEntry *entry;
    void (*act)(struct Listener *l, bool running);
    struct Listener *victim;
} Listener;

static void listen_cb(void *opaque, bool running, RunState state)
{
    Listener *l = opaque;

    g_assert_cmpint(state, ==, running ? RUN_STATE_RUNNING : RUN_STATE_PAUSED);
    g_assert_true(runstate_is_running() == running);
    for (IOThread *t = iothread_next(NULL); t; t = iothread_next(t)) {
        g_assert_cmpuint(aio__context_lock_depth(iothread_get_aio_context(t)), ==, 0);
    }
    g_string_append_printf(told, "%c%c", running ? '+' : '-', l->tag);
    if (l->act) {
        l->act(l, running);
    }
}

static void add(Listener *l, int priority)
{
    l->entry = qemu_add_vm_change_state_handler_prio(listen_cb, l, priority);
}

static const char *pause_and_resume(void)
{
    g_string_truncate(told, 0);
    iothread_pause_all();
    g_assert_false(runstate_is_running());
    iothread_pause_all();
    iothread_resume_all();
    iothread_resume_all();
    return told->str;
}

static void test_order_of_listeners(void)
{
    Listener a = { 'a' }, b = { 'b' }, c = { 'c' }, d = { 'd' };

    start();
    g_assert_cmpstr(pause_and_resume(), ==, "");
    add(&a, 0);
    add(&b, 5);
    add(&c, 0);
    add(&d, -1);
    g_assert_cmpstr(pause_and_resume(), ==, "-b-c-a-d+d+a+c+b");
    qemu_del_vm_change_state_handler(c.entry);
    g_assert_cmpstr(pause_and_resume(), ==, "-b-a-d+d+a+b");
    qemu_del_vm_change_state_handler(a.entry);
    qemu_del_vm_change_state_handler(b.entry);
    qemu_del_vm_change_state_handler(d.entry);
    g_assert_cmpstr(pause_and_resume(), ==, "");
    stop();
}

static void remove_victim(Listener *l, bool running)
{
    if (l->victim) {
        qemu_del_vm_change_state_handler(l->victim->entry);
        l->victim->entry = NULL;
        l->victim = NULL;
    }
}

/* In the order -c -b -a: B removes one that was told, one that will be, or itself. */
static void test_listener_removes_listener(void)
{
    static const struct { int victim; const char *told; } cases[] = {
        { 0, "-c-b+b+c" }, { 1, "-c-b-a+a+c" }, { 2, "-c-b-a+a+b" },
    };

    start();
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Listener l[3] = { { 'a' }, { 'b' }, { 'c' } };
        l[1].act = remove_victim;
        l[1].victim = &l[cases[i].victim];
        for (int k = 0; k < 3; k++) {
            add(&l[k], 0);
        }
        g_assert_cmpstr(pause_and_resume(), ==, cases[i].told);
        for (int k = 0; k < 3; k++) {
            if (l[k].entry) {
                qemu_del_vm_change_state_handler(l[k].entry);
            }
        }
    }
    stop();
}

static void add_victim(Listener *l, bool running)
{
    if (!running && !l->victim->entry) {
        add(l->victim, 0);
    }
}

static void test_listener_adds_listener(void)
{
    Listener added = { 'x' }, l = { 'a', .act = add_victim, .victim = &added };

    start();
    add(&l, 0);
    g_assert_cmpstr(pause_and_resume(), ==, "-a+a+x");
    g_assert_cmpstr(pause_and_resume(), ==, "-x-a+a+x");
    qemu_del_vm_change_state_handler(l.entry);
    qemu_del_vm_change_state_handler(added.entry);
    stop();
}

/* Before the stop one thread goes and one comes; after it the same. */
static void replace_threads(Listener *l, bool running)
{
    static int number;
    g_autofree char *id = g_strdup_printf("fresh%d", number++);
    bool done = false;

    iothread_destroy(iothread_next(NULL));
    IOThread *t = iothread_create(id, &error_abort);
    aio_bh_schedule_oneshot(iothread_get_aio_context(t), acquire_and_set, &done);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read_sc(&done));
}

static void test_listener_replaces_iothreads(void)
{
    Listener l = { 'a', .act = replace_threads };

    start();
    add(&l, 0);
    for (int i = 0; i < 50; i++) {
        g_assert_cmpstr(pause_and_resume(), ==, "-a+a");
    }
    qemu_del_vm_change_state_handler(l.entry);
    stop();
}

/* ---- misuse ---------------------------------------------------------------------------- */

static void pause_again(Listener *l, bool running)
{
    iothread_pause_all();
}

static void pause_in_listener(void)
{
    Listener l = { 'a', .act = pause_again };

    told = g_string_new(NULL);
    add(&l, 0);
    iothread_pause_all();
}

static void test_pausing_in_a_listener_aborts(void)
{
    trap(pause_in_listener, "*vm_state_notify: the world is stopped or resumed by a "
         "listener*");
}

static void test_resuming_what_runs_aborts(void)
{
    trap(iothread_resume_all, "*iothread_resume_all: the world is not stopped*");
}

static void sleep_while_paused(void)
{
    start();
    iothread_pause_all();
    main_loop_wait(false);
}

static void test_sleeping_while_paused_aborts(void)
{
    trap(sleep_while_paused, "*bql_unlock: *only one may be held*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    told = g_string_new(NULL);
    g_test_add_func("/pause-all/coroutines-stand-still", test_coroutines_stand_still);
    g_test_add_func("/pause-all/nests", test_pauses_nest);
    g_test_add_func("/pause-all/waiting-opens", test_waiting_opens_the_world_meanwhile);
    g_test_add_func("/pause-all/created", test_created_while_stopped);
    g_test_add_func("/pause-all/destroyed", test_destroyed_while_stopped);
    g_test_add_func("/pause-all/listeners/order", test_order_of_listeners);
    g_test_add_func("/pause-all/listeners/removed", test_listener_removes_listener);
    g_test_add_func("/pause-all/listeners/added", test_listener_adds_listener);
    g_test_add_func("/pause-all/listeners/replace-iothreads",
                    test_listener_replaces_iothreads);
    g_test_add_func("/pause-all/misuse/in-listener", test_pausing_in_a_listener_aborts);
    g_test_add_func("/pause-all/misuse/not-paused", test_resuming_what_runs_aborts);
    g_test_add_func("/pause-all/misuse/sleep", test_sleeping_while_paused_aborts);
    int ret = g_test_run();
    g_string_free(told, true);
    return ret;
}
