/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The main loop, its legacy calls, and the rule that they are made in the main thread. */
#include "miniblk/osdep.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "miniblk/runstate.h"
#include "miniblk/thread.h"
#include "trap.h"

static void count(void *opaque)
{
    ++*(int *)opaque;
}

static void main_loop_until_idle(void)
{
    while (g_main_context_iteration(NULL, false)) {
        /* until nothing is left */
    }
}

/* ---- the calls do what they did ------------------------------------------------------- */

static void test_bh(void)
{
    int runs = 0;
    QEMUBH *bh = qemu_bh_new(count, &runs);

    qemu_bh_schedule(bh);
    main_loop_wait(false);
    g_assert_cmpint(runs, ==, 1);
    qemu_bh_schedule(bh);
    g_assert_true(qemu_aio_wait());
    g_assert_cmpint(runs, ==, 2);
    qemu_bh_delete(bh);
    main_loop_until_idle();
}

static void test_timers(void)
{
    int runs = 0;
    QEMUTimer *timers[] = {
        timer_new_ns(QEMU_CLOCK_REALTIME, count, &runs),
        timer_new_us(QEMU_CLOCK_REALTIME, count, &runs),
        timer_new_ms(QEMU_CLOCK_REALTIME, count, &runs),
    };
    static const int64_t scale_ns[] = { 1, 1000, 1000000 };

    for (unsigned i = 0; i < ARRAY_SIZE(timers); i++) {
        int64_t due_ns = get_clock() + 2000000;
        due_ns -= due_ns % scale_ns[i];
        timer_mod(timers[i], due_ns / scale_ns[i]);
        while (runs <= (int)i) {
            main_loop_wait(false);
        }
        g_assert_cmpint(get_clock(), >=, due_ns);
        timer_free(timers[i]);
    }
    g_assert_cmpint(runs, ==, 3);
}

typedef struct Readable {
    EventNotifier e;
    int runs;
} Readable;

static void readable_cb(void *opaque)
{
    Readable *r = opaque;
    g_assert_true(event_notifier_test_and_clear(&r->e));
    r->runs++;
}

/* The control context's handlers do not run while somebody polls the main context. */
static void test_fd_handlers(void)
{
    Readable control = { .runs = 0 }, in_main = { .runs = 0 };
    int fd_control, fd_main;

    event_notifier_init(&control.e, 1);
    event_notifier_init(&in_main.e, 1);
    fd_control = event_notifier_get_fd(&control.e);
    fd_main = event_notifier_get_fd(&in_main.e);
    qemu_set_fd_handler(fd_control, readable_cb, NULL, &control);
    qemu_aio_set_fd_handler(fd_main, readable_cb, NULL, &in_main);

    g_assert_true(qemu_aio_wait());
    g_assert_cmpint(in_main.runs, ==, 1);
    g_assert_cmpint(control.runs, ==, 0);
    while (!control.runs) {
        main_loop_wait(false);
    }
    g_assert_cmpint(control.runs, ==, 1);

    qemu_set_fd_handler(fd_control, NULL, NULL, NULL);
    qemu_aio_set_fd_handler(fd_main, NULL, NULL, NULL);
    event_notifier_set(&control.e);
    event_notifier_set(&in_main.e);
    main_loop_until_idle();
    g_assert_cmpint(in_main.runs + control.runs, ==, 2);
    event_notifier_cleanup(&control.e);
    event_notifier_cleanup(&in_main.e);
}

static int notified;

static void notifier_cb(EventNotifier *e)
{
    g_assert_true(event_notifier_test_and_clear(e));
    notified++;
}

static void test_event_notifier(void)
{
    EventNotifier e;

    notified = 0;
    event_notifier_init(&e, 0);
    qemu_aio_set_event_notifier(&e, notifier_cb);
    event_notifier_set(&e);
    g_assert_true(qemu_aio_wait());
    g_assert_cmpint(notified, ==, 1);
    qemu_aio_set_event_notifier(&e, NULL);
    event_notifier_cleanup(&e);
}

static void *notify_thread(void *opaque)
{
    qemu_notify_event();
    return NULL;
}

/* Without the notification main_loop_wait() would sleep for ever: nothing else is there. */
static void test_notify_event_ends_the_wait(void)
{
    QemuThread thread;

    main_loop_until_idle();
    qemu_notify_event();
    main_loop_wait(false);
    for (int i = 0; i < 200; i++) {
        qemu_thread_create(&thread, "notify", notify_thread, NULL, QEMU_THREAD_JOINABLE);
        main_loop_wait(false);
        qemu_thread_join(&thread);
        main_loop_until_idle();
    }
}

/* ---- elsewhere they abort --------------------------------------------------------------- */

static void call_bh_new(void)          { qemu_bh_new(count, NULL); }
static void call_timer_new_ns(void)    { timer_new_ns(QEMU_CLOCK_REALTIME, count, NULL); }
static void call_timer_new_us(void)    { timer_new_us(QEMU_CLOCK_REALTIME, count, NULL); }
static void call_timer_new_ms(void)    { timer_new_ms(QEMU_CLOCK_REALTIME, count, NULL); }
static void call_set_fd(void)          { qemu_set_fd_handler(0, NULL, NULL, NULL); }
static void call_aio_set_fd(void)      { qemu_aio_set_fd_handler(0, NULL, NULL, NULL); }
static void call_aio_wait(void)        { qemu_aio_wait(); }
static void call_main_loop_wait(void)  { main_loop_wait(true); }
static void call_create(void)          { iothread_create("io0", NULL); }
static void call_by_id(void)           { iothread_by_id("io0"); }
static void call_pause_all(void)       { iothread_pause_all(); }
static void call_resume_all(void)      { iothread_resume_all(); }
static void call_add_listener(void)    { qemu_add_vm_change_state_handler(NULL, NULL); }

static void call_aio_set_notifier(void)
{
    EventNotifier e;
    event_notifier_init(&e, 0);
    qemu_aio_set_event_notifier(&e, notifier_cb);
}

typedef struct Misplaced {
    const char *name;
    void (*call)(void);
} Misplaced;

static const Misplaced misplaced[] = {
    { "qemu_bh_new", call_bh_new },
    { "timer_new_ns", call_timer_new_ns },
    { "timer_new_us", call_timer_new_us },
    { "timer_new_ms", call_timer_new_ms },
    { "qemu_set_fd_handler", call_set_fd },
    { "qemu_aio_set_fd_handler", call_aio_set_fd },
    { "qemu_aio_set_event_notifier", call_aio_set_notifier },
    { "qemu_aio_wait", call_aio_wait },
    { "main_loop_wait", call_main_loop_wait },
    { "iothread_create", call_create },
    { "iothread_by_id", call_by_id },
    { "iothread_pause_all", call_pause_all },
    { "iothread_resume_all", call_resume_all },
    { "qemu_add_vm_change_state_handler_prio", call_add_listener },
};
static const Misplaced *current;

static void *call_thread(void *opaque)
{
    if (opaque) {
        bql_lock();
    }
    current->call();
    return NULL;
}

static void call_elsewhere(void)
{
    QemuThread thread;
    qemu_thread_create(&thread, "elsewhere", call_thread, NULL, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
}

static void test_call_elsewhere_aborts(gconstpointer data)
{
    current = data;
    g_autofree char *pattern = g_strdup_printf("*miniblk: %s: called in thread *, is for the "
                                               "main thread*", current->name);
    trap(call_elsewhere, pattern);
}

/* The big lock alone does not make a thread the main thread. */
static void call_elsewhere_with_big_lock(void)
{
    QemuThread thread;
    int with_big_lock;

    current = &misplaced[0];
    qemu_thread_create(&thread, "elsewhere", call_thread, &with_big_lock,
                       QEMU_THREAD_JOINABLE);
    bql_unlock();
    qemu_thread_join(&thread);
}

static void test_big_lock_elsewhere_is_not_enough(void)
{
    trap(call_elsewhere_with_big_lock, "*qemu_bh_new: called in thread * with the big lock*");
}

static void init_again(void)
{
    qemu_init_main_loop(&error_abort);
}

static void test_second_main_loop_aborts(void)
{
    trap(init_again, "*qemu_init_main_loop: there is a main loop already*");
}

static void unlock_twice(void)
{
    bql_unlock();
    bql_unlock();
}

static void test_big_lock_misuse_aborts(void)
{
    trap(bql_lock, "*bql_lock: thread * holds the big lock*");
}

static void test_big_lock_not_held_aborts(void)
{
    trap(unlock_twice, "*bql_unlock: thread * does not hold the big lock*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    g_test_add_func("/main-loop/legacy/bh", test_bh);
    g_test_add_func("/main-loop/legacy/timers", test_timers);
    g_test_add_func("/main-loop/legacy/fd-handlers", test_fd_handlers);
    g_test_add_func("/main-loop/legacy/event-notifier", test_event_notifier);
    g_test_add_func("/main-loop/notify-event", test_notify_event_ends_the_wait);
    for (unsigned i = 0; i < ARRAY_SIZE(misplaced); i++) {
        g_autofree char *path = g_strdup_printf("/main-loop/misplaced/%s", misplaced[i].name);
        g_test_add_data_func(path, &misplaced[i], test_call_elsewhere_aborts);
    }
    g_test_add_func("/main-loop/misplaced/with-big-lock",
                    test_big_lock_elsewhere_is_not_enough);
    g_test_add_func("/main-loop/big-lock/twice", test_big_lock_misuse_aborts);
    g_test_add_func("/main-loop/big-lock/not-held", test_big_lock_not_held_aborts);
    g_test_add_func("/main-loop/misplaced/second-init", test_second_main_loop_aborts);
    return g_test_run();
}
