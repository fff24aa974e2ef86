/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Accesses of two threads that nothing orders, and the same in order: see test-races.sh. Each
 * case is two functions, of which the second runs in a thread of its own.
 */
#include "miniblk/osdep.h"
#include <pthread.h>
#include <unistd.h>
#include "miniblk/aio.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/lockable.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread.h"

static int data, flag, turns;
static QemuMutex lock;
static QemuCond cond;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int ends[2];
static GMutex gmutex;
static GAsyncQueue *queue;
static __thread int own;

static void touch(void)
{
    data++;
}

static void touch_locked(void)
{
    WITH_QEMU_LOCK_GUARD(&lock) {
        data++;
    }
}

/* Ordered in most schedules: who does not get the lock at once goes on without. */
static void touch_impatiently(void)
{
    bool locked = qemu_mutex_trylock(&lock) == 0;

    data++;
    if (locked) {
        qemu_mutex_unlock(&lock);
    }
}

/* ---- publishing ------------------------------------------------------------------------- */

static void publish(void)
{
    data = 1;
    qatomic_store_release(&flag, 1);
}

static void publish_relaxed(void)
{
    data = 1;
    qatomic_set(&flag, 1);
}

/* What comes after the store it does not order, though it may still wait in the buffer then. */
static void publish_early(void)
{
    qatomic_store_release(&flag, 1);
    data = 1;
}

static void follow(void)
{
    if (qatomic_load_acquire(&flag)) {
        data++;
    }
}

/* It is ordered itself, too. */
static void follow_and_look(void)
{
    if (qatomic_load_acquire(&flag)) {
        g_assert_cmpint(flag, ==, 1);
    }
}

static void follow_relaxed(void)
{
    if (qatomic_read(&flag)) {
        data++;
    }
}

static void follow_plainly(void)
{
    turns += flag;
}

/* Who has not seen it is not ordered by it. */
static void follow_if_not(void)
{
    if (!qatomic_load_acquire(&flag)) {
        data++;
    }
}

static void exchange(void)
{
    data++;
    qatomic_xchg(&flag, 1);
}

static void follow_exchange(void)
{
    if (qatomic_xchg(&flag, 2) == 1) {
        data++;
    }
}

/* ---- conditions, readers, once ---------------------------------------------------------- */

static void signal_condition(void)
{
    data = 1;
    WITH_QEMU_LOCK_GUARD(&lock) {
        turns = 1;
        qemu_cond_signal(&cond);
    }
}

static void await_condition(void)
{
    WITH_QEMU_LOCK_GUARD(&lock) {
        while (!turns) {
            qemu_cond_wait(&cond, &lock);
        }
    }
    data++;
}

static void read_locked(void)
{
    pthread_rwlock_rdlock(&rwlock);
    turns = data;
    pthread_rwlock_unlock(&rwlock);
}

static void touch_as_writer(void)
{
    pthread_rwlock_wrlock(&rwlock);
    data++;
    pthread_rwlock_unlock(&rwlock);
}

static void touch_as_reader(void)
{
    pthread_rwlock_rdlock(&rwlock);
    data++;
    pthread_rwlock_unlock(&rwlock);
}

static void touch_once(void)
{
    pthread_once(&once, touch);
    turns = 0;
    pthread_once(&once, touch);
}

static void look_once(void)
{
    pthread_once(&once, touch);
    g_assert_cmpint(data, ==, 1);
}

/* ---- descriptors ------------------------------------------------------------------------ */

static void send(void)
{
    data = 1;
    g_assert_cmpint(write(ends[1], &data, 1), ==, 1);
}

static void send_early(void)
{
    char c = 0;

    g_assert_cmpint(write(ends[1], &c, 1), ==, 1);
    data = 1;
}

static void receive(void)
{
    char c;

    g_assert_cmpint(read(ends[0], &c, 1), ==, 1);
    data++;
}

/* ---- GLib's ----------------------------------------------------------------------------- */

static void touch_g_locked(void)
{
    g_mutex_lock(&gmutex);
    data++;
    g_mutex_unlock(&gmutex);
}

static void push(void)
{
    data = 1;
    g_async_queue_push(queue, &data);
}

static void pop(void)
{
    int *p = g_async_queue_pop(queue);
    (*p)++;
}

/* ---- what is not shared ------------------------------------------------------------------ */

static void touch_own(void)
{
    own++;
    errno = own;
    g_assert_cmpint(own, ==, 1);
}

/* ---- event loops ------------------------------------------------------------------------- */

static void touch_bh(void *opaque)
{
    touch();
}

static void touch_locked_bh(void *opaque)
{
    touch_locked();
}

static void in_two_loops(QEMUBHFunc *fn)
{
    IOThread *a = iothread_create("io0", &error_abort);
    IOThread *b = iothread_create("io1", &error_abort);

    aio_bh_schedule_oneshot(iothread_get_aio_context(a), fn, NULL);
    aio_bh_schedule_oneshot(iothread_get_aio_context(b), fn, NULL);
    iothread_destroy(a);
    iothread_destroy(b);
    touch();
}

static void two_loops(void)
{
    in_two_loops(touch_bh);
}

static void two_loops_locked(void)
{
    in_two_loops(touch_locked_bh);
}

/* One loop does it after the other. */
static void hand_over_bh(void *opaque)
{
    touch();
    aio_bh_schedule_oneshot(opaque, touch_bh, NULL);
}

static void loop_after_loop(void)
{
    IOThread *a = iothread_create("io0", &error_abort);
    IOThread *b = iothread_create("io1", &error_abort);

    aio_bh_schedule_oneshot(iothread_get_aio_context(a), hand_over_bh,
                            iothread_get_aio_context(b));
    iothread_destroy(a);
    iothread_destroy(b);
    touch();
}

/* ---- running them ------------------------------------------------------------------------ */

typedef struct Pair {
    const char *path;
    void (*here)(void), (*there)(void);
} Pair;

static const Pair pairs[] = {
    { "/races/lock/none", touch, touch },
    { "/races/lock/one-side", touch, touch_locked },
    { "/races/lock/impatient", touch_locked, touch_impatiently },
    { "/races/publish/relaxed", publish_relaxed, follow },
    { "/races/publish/followed-relaxed", publish, follow_relaxed },
    { "/races/publish/followed-plainly", publish, follow_plainly },
    { "/races/publish/early", publish_early, follow },
    { "/races/publish/not-seen", publish, follow_if_not },
    { "/races/cond/before", signal_condition, touch },
    { "/races/rwlock/reader-writes", read_locked, touch_as_reader },
    { "/races/once/another", touch_once, touch },
    { "/races/descriptor/early", send_early, receive },
    { "/races/glib/one-side", touch_g_locked, touch },
    { "/races/loops", two_loops, NULL },
    { "/ordered/lock", touch_locked, touch_locked },
    { "/ordered/publish", publish, follow },
    { "/ordered/publish/itself", publish, follow_and_look },
    { "/ordered/exchange", exchange, follow_exchange },
    { "/ordered/cond", signal_condition, await_condition },
    { "/ordered/rwlock/readers", read_locked, touch_as_writer },
    { "/ordered/rwlock/writers", touch_as_writer, touch_as_writer },
    { "/ordered/once", touch_once, look_once },
    { "/ordered/descriptor", send, receive },
    { "/ordered/glib/lock", touch_g_locked, touch_g_locked },
    { "/ordered/glib/queue", push, pop },
    { "/ordered/thread-local", touch_own, touch_own },
    { "/ordered/loops/locked", two_loops_locked, NULL },
    { "/ordered/loops/one-after-the-other", loop_after_loop, NULL },
};

static void *there(void *opaque)
{
    ((const Pair *)opaque)->there();
    return NULL;
}

static void run(const void *opaque)
{
    const Pair *pair = opaque;
    QemuThread thread;

    qemu_mutex_init(&lock);
    qemu_cond_init(&cond);
    g_assert_cmpint(pipe(ends), ==, 0);
    queue = g_async_queue_new();
    touch();                    /* before there is another thread */
    data = 0;
    if (pair->there) {
        qemu_thread_create(&thread, "there", there, (void *)pair, QEMU_THREAD_JOINABLE);
    }
    pair->here();
    if (pair->there) {
        qemu_thread_join(&thread);
    }
    touch();                    /* after it has ended */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    for (unsigned i = 0; i < G_N_ELEMENTS(pairs); i++) {
        g_test_add_data_func(pairs[i].path, &pairs[i], run);
    }
    return g_test_run();
}
