/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CoMutex, CoQueue and CoRwlock: order and fairness in one thread without an event loop, and
 * exclusion between threads.
 */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/lab-test.h"
#include "miniblk/main-loop.h"

static GString *trace;
static CoMutex mutex;
static CoQueue queue;
static CoRwlock rwlock;

static void say(const char *s)
{
    g_string_append(trace, s);
}

static void start_trace(void)
{
    g_string_truncate(trace, 0);
    qemu_co_mutex_init(&mutex);
    qemu_co_queue_init(&queue);
    qemu_co_rwlock_init(&rwlock);
}

/* ---- one thread: CoMutex ------------------------------------------------------------- */

static void coroutine_fn lock_twice_yielding(void *opaque)
{
    const char *name = opaque;
    qemu_co_mutex_lock(&mutex);
    say(name);
    qemu_coroutine_yield();
    say(name);
    qemu_co_mutex_unlock(&mutex);
    say(".");
}

static void test_mutex_hands_over_in_order(void)
{
    Coroutine *co[3];
    start_trace();
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = { "a", "b", "c" };
        co[i] = qemu_coroutine_create(lock_twice_yielding, (void *)names[i]);
        qemu_coroutine_enter(co[i]);
    }
    g_assert_cmpstr(trace->str, ==, "a");
    qemu_coroutine_enter(co[0]);        /* unlocks; B runs when A ends */
    g_assert_cmpstr(trace->str, ==, "aa.b");
    qemu_coroutine_enter(co[1]);
    qemu_coroutine_enter(co[2]);
    g_assert_cmpstr(trace->str, ==, "aa.bb.cc.");
}

static void coroutine_fn lock_again_at_once(void *opaque)
{
    for (int i = 0; i < 3; i++) {
        qemu_co_mutex_lock(&mutex);
        say(opaque);
        if (i == 0) {
            qemu_coroutine_yield();
        }
        qemu_co_mutex_unlock(&mutex);
    }
}

static void test_mutex_cannot_be_taken_from_the_first_waiter(void)
{
    start_trace();
    Coroutine *a = qemu_coroutine_create(lock_again_at_once, "a");
    Coroutine *b = qemu_coroutine_create(lock_again_at_once, "b");
    qemu_coroutine_enter(a);
    qemu_coroutine_enter(b);
    qemu_coroutine_enter(a);    /* unlocks for B, wants it again, has to wait for B */
    g_assert_cmpstr(trace->str, ==, "ab");
    qemu_coroutine_enter(b);    /* from here on each release finds the other one waiting */
    g_assert_cmpstr(trace->str, ==, "ababab");
}

/* ---- one thread: CoQueue ------------------------------------------------------------- */

typedef struct Waiter {
    const char *name;
    CoQueueWaitFlags flags;
} Waiter;

static void coroutine_fn wait_in_queue(void *opaque)
{
    Waiter *w = opaque;
    qemu_co_mutex_lock(&mutex);
    say("w");
    qemu_co_queue_wait_flags(&queue, &mutex, w->flags);
    qemu_co_mutex_assert_locked(&mutex);
    say(w->name);
    qemu_co_mutex_unlock(&mutex);
}

static void coroutine_fn wake_all(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    qemu_co_queue_restart_all(&queue);
    say("!");
    qemu_co_mutex_unlock(&mutex);
}

static void coroutine_fn wake_one(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    say(qemu_co_queue_next(&queue) ? "!" : "?");
    qemu_co_mutex_unlock(&mutex);
}

static void queue_up(Waiter *waiters, int n)
{
    start_trace();
    for (int i = 0; i < n; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(wait_in_queue, &waiters[i]));
    }
    g_assert_false(qemu_co_queue_empty(&queue));
}

static void test_queue_wakes_in_order(void)
{
    Waiter w[] = { { "1", 0 }, { "2", 0 } };
    queue_up(w, 2);
    qemu_coroutine_enter(qemu_coroutine_create(wake_all, NULL));
    g_assert_cmpstr(trace->str, ==, "ww!12");
    g_assert_true(qemu_co_queue_empty(&queue));
}

static void test_queue_waiting_in_front(void)
{
    Waiter w[] = { { "1", 0 }, { "2", CO_QUEUE_WAIT_FRONT } };
    queue_up(w, 2);
    for (int i = 0; i < 3; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(wake_one, NULL));
    }
    g_assert_cmpstr(trace->str, ==, "ww!2!1?");
}

static void coroutine_fn wait_with_thread_mutex(void *opaque)
{
    QemuMutex *lock = opaque;
    qemu_mutex_lock(lock);
    qemu_co_queue_wait(&queue, lock);
    g_assert_cmpint(qemu_mutex_trylock(lock), ==, -EBUSY);
    say("w");
    qemu_mutex_unlock(lock);
}

static void test_queue_entered_from_outside(void)
{
    QemuMutex lock;
    start_trace();
    qemu_mutex_init(&lock);
    qemu_coroutine_enter(qemu_coroutine_create(wait_with_thread_mutex, &lock));
    qemu_coroutine_enter(qemu_coroutine_create(wait_with_thread_mutex, &lock));
    qemu_mutex_lock(&lock);
    g_assert_true(qemu_co_enter_next(&queue, &lock));
    g_assert_cmpstr(trace->str, ==, "w");
    qemu_co_enter_all(&queue, &lock);
    g_assert_cmpstr(trace->str, ==, "ww");
    g_assert_false(qemu_co_enter_next(&queue, &lock));
    qemu_mutex_unlock(&lock);
    qemu_mutex_destroy(&lock);
}

/* ---- one thread: CoRwlock ------------------------------------------------------------ */

typedef struct Rw {
    const char *ops;    /* r w lock, u upgrade, d downgrade, y yield, x unlock */
    const char *name;
} Rw;

static void coroutine_fn rw_entry(void *opaque)
{
    Rw *rw = opaque;
    for (const char *op = rw->ops; *op; op++) {
        switch (*op) {
        case 'r': qemu_co_rwlock_rdlock(&rwlock); break;
        case 'w': qemu_co_rwlock_wrlock(&rwlock); break;
        case 'u': qemu_co_rwlock_upgrade(&rwlock); break;
        case 'd': qemu_co_rwlock_downgrade(&rwlock); break;
        case 'x': qemu_co_rwlock_unlock(&rwlock); break;
        case 'y': qemu_coroutine_yield(); continue;
        }
        g_string_append_printf(trace, "%s%c ", rw->name, *op);
    }
}

/* Each case: scripts of coroutines, and the order in which they are entered. */
static void test_rwlock_is_fair(void)
{
    static const struct {
        const char *what, *ops[4], *enter, *want;
    } cases[] = {
        { "readers share", { "ryx", "ryx" }, "abab", "ar br ax bx " },
        { "a writer waits for all readers", { "ryx", "ryx", "wx" }, "abcab",
          "ar br ax bx cw cx " },
        { "a reader behind a waiting writer waits", { "ryx", "wx", "rx" }, "abca",
          "ar ax bw bx cr cx " },
        { "readers queued together go together", { "wyx", "ryx", "ryx", "wx" }, "abcdabc",
          "aw ax br cr bx cx dw dx " },
        { "writers go one by one", { "wyx", "wyx", "wyx" }, "abcabc",
          "aw ax bw bx cw cx " },
        { "upgrade queues behind a writer", { "ryux", "wyx" }, "abab",
          "ar bw bx au ax " },
        { "of two upgrades the first goes first", { "ryuyx", "ryux" }, "ababa",
          "ar br au ax bu bx " },
        { "lone upgrade is immediate", { "ruyx" }, "aa", "ar au ax " },
        { "upgrade waits for another reader", { "ryux", "ryx" }, "abab",
          "ar br bx au ax " },
        { "downgrade admits the readers queued next", { "wydyx", "ryx", "wx" }, "abcaab",
          "aw ad br ax bx cw cx " },
        { "downgrade does not admit a writer", { "wydyx", "wx", "rx" }, "abcaa",
          "aw ad ax bw bx cr cx " },
        { "a reader that comes after downgrade waits behind a writer",
          { "wydyx", "wx", "rx" }, "abaca", "aw ad ax bw bx cr cx " },
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Rw rw[4];
        Coroutine *co[4];
        start_trace();
        for (int k = 0; k < 4 && cases[i].ops[k]; k++) {
            static const char *const names[] = { "a", "b", "c", "d" };
            rw[k] = (Rw) { cases[i].ops[k], names[k] };
            co[k] = qemu_coroutine_create(rw_entry, &rw[k]);
        }
        for (const char *e = cases[i].enter; *e; e++) {
            qemu_coroutine_enter(co[*e - 'a']);
        }
        g_test_message("%s", cases[i].what);
        g_assert_cmpstr(trace->str, ==, cases[i].want);
    }
}

/* ---- several threads ----------------------------------------------------------------- */

enum { THREADS = 3, PER_THREAD = 4 };
static IOThread *iothread[THREADS];
static unsigned running;                /* atomic */

/* What the lock protects. Plain memory: ThreadSanitizer watches it too. */
static struct {
    uint64_t a, b;
    int inside;
} shared;

/* Run ENTRY(its number) in every thread PER_THREAD times at once; return when all ended. */
static void run_everywhere(CoroutineEntry *entry)
{
    static bool made;
    if (!made) {
        qemu_init_main_loop(&error_abort);
        made = true;
    }
    memset(&shared, 0, sizeof(shared));
    start_trace();
    qatomic_set(&running, THREADS * PER_THREAD);
    for (int i = 0; i < THREADS; i++) {
        g_autofree char *id = g_strdup_printf("locker%d", i);
        iothread[i] = iothread_create(id, &error_abort);
    }
    for (int i = 0; i < THREADS * PER_THREAD; i++) {
        aio_co_schedule(iothread_get_aio_context(iothread[i % THREADS]),
                        qemu_coroutine_create(entry, GINT_TO_POINTER(i)));
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&running));
    for (int i = 0; i < THREADS; i++) {
        iothread_destroy(iothread[i]);
    }
}

static void ended(void)
{
    qatomic_dec(&running);
    aio_wait_kick();
}

/* Come back through the loop, so that others of this thread run meanwhile. */
static void coroutine_fn let_others_run(void)
{
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, 0);
}

enum { MUTEX_ROUNDS = LAB_ROUNDS(2000, 20) };

static void coroutine_fn count_under_mutex(void *opaque)
{
    for (int i = 0; i < MUTEX_ROUNDS; i++) {
        qemu_co_mutex_lock(&mutex);
        g_assert_cmpint(shared.inside++, ==, 0);
        shared.a++;
        if (i % 64 == 0) {
            let_others_run();
        }
        g_assert_cmpint(shared.inside--, ==, 1);
        qemu_co_mutex_unlock(&mutex);
    }
    ended();
}

static void test_mutex_excludes_other_threads(void)
{
    run_everywhere(count_under_mutex);
    g_assert_cmpuint(shared.a, ==, THREADS * PER_THREAD * MUTEX_ROUNDS);
}

enum { RW_ROUNDS = LAB_ROUNDS(400, 40) };

static void check_readable(void)
{
    g_assert_cmpuint(shared.a, ==, shared.b);
}

static void coroutine_fn change(void)
{
    uint64_t was = shared.a;
    g_assert_cmpint(shared.inside++, ==, 0);
    shared.a = was + 1;
    if (was % 16 == 0) {
        let_others_run();
    }
    shared.b = was + 1;
    g_assert_cmpint(shared.inside--, ==, 1);
}

static void coroutine_fn read_and_write(void *opaque)
{
    for (int i = GPOINTER_TO_INT(opaque); i < RW_ROUNDS + GPOINTER_TO_INT(opaque); i++) {
        switch (i % 4) {
        case 0:
            qemu_co_rwlock_wrlock(&rwlock);
            change();
            qemu_co_rwlock_downgrade(&rwlock);
            break;
        case 1:
            qemu_co_rwlock_rdlock(&rwlock);
            check_readable();
            qemu_co_rwlock_upgrade(&rwlock);
            change();
            break;
        default:
            qemu_co_rwlock_rdlock(&rwlock);
            break;
        }
        check_readable();
        if (i % 32 == 0) {
            let_others_run();
        }
        check_readable();
        qemu_co_rwlock_unlock(&rwlock);
    }
    ended();
}

static void test_rwlock_excludes_other_threads(void)
{
    run_everywhere(read_and_write);
    g_assert_cmpuint(shared.a, ==, THREADS * PER_THREAD * RW_ROUNDS / 2);
    g_assert_cmpuint(shared.b, ==, shared.a);
}

/*
 * Every coroutine gives and takes by turns, and gives first, so that there is something to
 * take whenever all that are left want to take. Nothing is lost, and all end.
 */
enum { QUEUE_ROUNDS = LAB_ROUNDS(400, 40) };

static void coroutine_fn give_and_take(void *opaque)
{
    for (int i = 0; i < QUEUE_ROUNDS; i++) {
        bool gives = i % 2 == 0;
        qemu_co_mutex_lock(&mutex);
        if (gives) {
            shared.inside++;
            shared.a++;
            qemu_co_queue_next(&queue);
        } else {
            while (!shared.inside) {
                qemu_co_queue_wait(&queue, &mutex);
            }
            shared.inside--;
            shared.b++;
        }
        qemu_co_mutex_unlock(&mutex);
    }
    ended();
}

static void test_queue_wakes_other_threads(void)
{
    run_everywhere(give_and_take);
    g_assert_cmpuint(shared.a, ==, THREADS * PER_THREAD * QUEUE_ROUNDS / 2);
    g_assert_cmpuint(shared.b, ==, shared.a);
    g_assert_cmpint(shared.inside, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    trace = g_string_new(NULL);
    g_test_add_func("/colock/mutex/order", test_mutex_hands_over_in_order);
    g_test_add_func("/colock/mutex/no-barging",
                    test_mutex_cannot_be_taken_from_the_first_waiter);
    g_test_add_func("/colock/queue/order", test_queue_wakes_in_order);
    g_test_add_func("/colock/queue/front", test_queue_waiting_in_front);
    g_test_add_func("/colock/queue/from-outside", test_queue_entered_from_outside);
    g_test_add_func("/colock/rwlock/fair", test_rwlock_is_fair);
    g_test_add_func("/colock/threads/mutex", test_mutex_excludes_other_threads);
    g_test_add_func("/colock/threads/rwlock", test_rwlock_excludes_other_threads);
    g_test_add_func("/colock/threads/queue", test_queue_wakes_other_threads);
    int ret = g_test_run();
    g_string_free(trace, true);
    return ret;
}
