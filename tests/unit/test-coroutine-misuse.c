/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What must not be done with coroutines and their locks aborts, and says what it was. */
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/thread.h"
#include "trap.h"

static CoMutex mutex;
static CoQueue queue;
static CoRwlock rwlock;
static QemuCoSleep handle;
static Coroutine *first;

static Coroutine *run(CoroutineEntry *entry)
{
    Coroutine *co = qemu_coroutine_create(entry, NULL);
    qemu_coroutine_enter(co);
    return co;
}

static void coroutine_fn nop(void *opaque)
{
}

static void coroutine_fn suspended(void *opaque)
{
    qemu_coroutine_yield();
}

static AioContext *use_new_context(void)
{
    AioContext *ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);
    return ctx;
}

/* ---- enter, yield, wake -------------------------------------------------------------- */

static void coroutine_fn enter_self(void *opaque)
{
    qemu_coroutine_enter(qemu_coroutine_self());
}

static void coroutine_fn enter_first(void *opaque)
{
    qemu_coroutine_enter(first);
}

static void coroutine_fn enter_one_that_enters_first(void *opaque)
{
    first = qemu_coroutine_self();
    run(enter_first);
}

static void coroutine_fn wake_self(void *opaque)
{
    aio_co_wake(qemu_coroutine_self());
}

static void coroutine_fn wake_first_twice(void *opaque)
{
    aio_co_wake(first);
    aio_co_wake(first);
}

static void coroutine_fn wake_then_enter_first(void *opaque)
{
    aio_co_wake(first);
    qemu_coroutine_enter(first);
}

static void coroutine_fn sleep_long(void *opaque)
{
    qemu_co_sleep_ns_wakeable(&handle, QEMU_CLOCK_REALTIME, INT64_MAX);
}

static void do_enter_self(void) { run(enter_self); }
static void do_enter_enterer(void) { run(enter_one_that_enters_first); }
static void do_enter_finished(void) { qemu_coroutine_enter(run(nop)); }
static void do_wake_finished(void) { aio_co_wake(run(nop)); }
static void do_wake_self(void) { run(wake_self); }
static void do_yield_outside(void) { qemu_coroutine_yield(); }

static void do_wake_finished_in_loop(void)
{
    use_new_context();
    aio_co_wake(run(nop));
}

static void do_wake_twice(void)
{
    first = run(suspended);
    run(wake_first_twice);
}

static void do_enter_woken(void)
{
    first = run(suspended);
    run(wake_then_enter_first);
}

static void do_schedule_twice(void)
{
    AioContext *other = aio_context_new(&error_abort);
    Coroutine *co = qemu_coroutine_create(nop, NULL);
    aio_co_schedule(other, co);
    aio_co_schedule(other, co);
}

static void do_enter_scheduled(void)
{
    Coroutine *co = qemu_coroutine_create(nop, NULL);
    aio_co_schedule(aio_context_new(&error_abort), co);
    qemu_coroutine_enter(co);
}

static void do_wake_new(void)
{
    use_new_context();
    aio_co_wake(qemu_coroutine_create(nop, NULL));
}

static void do_enter_sleeping(void)
{
    use_new_context();
    qemu_coroutine_enter(run(sleep_long));
}

static void do_sleep_twice_on_one_handle(void)
{
    use_new_context();
    run(sleep_long);
    run(sleep_long);
}

static void *run_in_new_context(void *opaque)
{
    use_new_context();
    return run(suspended);
}

static void do_enter_from_wrong_thread(void)
{
    QemuThread thread;
    qemu_thread_create(&thread, "other", run_in_new_context, NULL, QEMU_THREAD_JOINABLE);
    Coroutine *co = qemu_thread_join(&thread);
    use_new_context();
    qemu_coroutine_enter(co);
}

static void do_reschedule_outside(void)
{
    aio_co_reschedule_self(use_new_context());
}

static void do_sleep_without_loop(void) { run(sleep_long); }

static void do_wait_for_fd_outside(void)
{
    use_new_context();
    yield_until_fd_readable(0);
}

static void do_shrink_pool(void)
{
    qemu_coroutine_inc_pool_size(10);
    qemu_coroutine_dec_pool_size(11);
}

/* ---- locks --------------------------------------------------------------------------- */

static void coroutine_fn keep_mutex(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
}

static void coroutine_fn lock_twice(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    qemu_co_mutex_lock(&mutex);
}

static void coroutine_fn lock_and_yield(void *opaque)
{
    qemu_co_mutex_lock(&mutex);
    qemu_coroutine_yield();
}

static void coroutine_fn unlock(void *opaque)
{
    qemu_co_mutex_unlock(&mutex);
}

static void coroutine_fn wait_in_queue(void *opaque)
{
    qemu_co_queue_wait(&queue, NULL);
}

static void coroutine_fn keep_reading(void *opaque)
{
    qemu_co_rwlock_rdlock(&rwlock);
}

static void coroutine_fn read_and_yield(void *opaque)
{
    qemu_co_rwlock_rdlock(&rwlock);
    qemu_coroutine_yield();
}

static void coroutine_fn write_and_yield(void *opaque)
{
    qemu_co_rwlock_wrlock(&rwlock);
    qemu_coroutine_yield();
}

static void coroutine_fn write_twice(void *opaque)
{
    qemu_co_rwlock_wrlock(&rwlock);
    qemu_co_rwlock_wrlock(&rwlock);
}

static void coroutine_fn write_then_read(void *opaque)
{
    qemu_co_rwlock_wrlock(&rwlock);
    qemu_co_rwlock_rdlock(&rwlock);
}

static void coroutine_fn rw_unlock(void *opaque) { qemu_co_rwlock_unlock(&rwlock); }
static void coroutine_fn rw_upgrade(void *opaque) { qemu_co_rwlock_upgrade(&rwlock); }
static void coroutine_fn rw_downgrade(void *opaque) { qemu_co_rwlock_downgrade(&rwlock); }

static void do_keep_mutex(void) { run(keep_mutex); }
static void do_lock_twice(void) { run(lock_twice); }
static void do_unlock_free(void) { run(unlock); }
static void do_lock_outside(void) { qemu_co_mutex_lock(&mutex); }
static void do_unlock_outside(void) { qemu_co_mutex_unlock(&mutex); }
static void do_assert_locked(void) { qemu_co_mutex_assert_locked(&mutex); }
static void do_queue_outside(void) { qemu_co_queue_wait(&queue, NULL); }
static void do_queue_next_outside(void) { qemu_co_queue_next(&queue); }
static void do_queue_restart_outside(void) { qemu_co_queue_restart_all(&queue); }
static void do_keep_reading(void) { run(keep_reading); }
static void do_write_twice(void) { run(write_twice); }
static void do_write_then_read(void) { run(write_then_read); }
static void do_rw_unlock_free(void) { run(rw_unlock); }
static void do_rw_upgrade_free(void) { run(rw_upgrade); }
static void do_rw_downgrade_free(void) { run(rw_downgrade); }
static void do_rw_outside(void) { qemu_co_rwlock_rdlock(&rwlock); }

static void do_unlock_others(void)
{
    run(lock_and_yield);
    run(unlock);
}

static void do_enter_mutex_waiter(void)
{
    run(lock_and_yield);
    qemu_coroutine_enter(run(keep_mutex));
}

static void do_enter_queue_waiter(void)
{
    qemu_coroutine_enter(run(wait_in_queue));
}

static void do_enter_rwlock_waiter(void)
{
    run(write_and_yield);
    qemu_coroutine_enter(run(keep_reading));
}

static void do_rw_unlock_others(void)
{
    run(write_and_yield);
    run(rw_unlock);
}

static void do_rw_downgrade_reader(void)
{
    run(read_and_yield);
    run(rw_downgrade);
}

typedef struct Misuse {
    const char *name, *stderr_pattern;
    void (*fn)(void);
} Misuse;

static const Misuse cases[] = {
    { "enter/self", "*qemu_coroutine_enter: Co-routine * re-entered recursively\n",
      do_enter_self },
    { "enter/enterer", "*qemu_coroutine_enter: Co-routine * re-entered recursively\n",
      do_enter_enterer },
    { "enter/finished", "*qemu_coroutine_enter: Co-routine * has finished\n",
      do_enter_finished },
    { "enter/scheduled", "*qemu_coroutine_enter: * already scheduled in 'aio_co_schedule'\n",
      do_enter_scheduled },
    { "enter/woken", "*qemu_coroutine_enter: * already scheduled in 'aio_co_enter'\n",
      do_enter_woken },
    { "enter/sleeping", "*qemu_coroutine_enter: * already scheduled in 'qemu_co_sleep_ns'\n",
      do_enter_sleeping },
    { "enter/wrong-thread", "*qemu_coroutine_enter: Co-routine * last ran in context *",
      do_enter_from_wrong_thread },
    { "yield/outside", "*qemu_coroutine_yield: Co-routine is yielding to no one\n",
      do_yield_outside },
    { "wake/finished", "*: Co-routine * has finished\n", do_wake_finished },
    { "wake/finished-in-loop", "*aio_co_*: Co-routine * has finished\n",
      do_wake_finished_in_loop },
    { "wake/self", "*aio_co_enter: Co-routine * re-entered recursively\n", do_wake_self },
    { "wake/twice", "*aio_co_enter: * already scheduled in 'aio_co_enter'\n", do_wake_twice },
    { "wake/new", "*aio_co_schedule: Co-routine * has no context*", do_wake_new },
    { "schedule/twice", "*aio_co_schedule: * already scheduled in 'aio_co_schedule'\n",
      do_schedule_twice },
    { "sleep/one-handle", "*qemu_co_sleep: Co-routine * sleeps on the same handle\n",
      do_sleep_twice_on_one_handle },
    { "sleep/no-loop", "*qemu_co_sleep_ns: this thread has no event loop\n",
      do_sleep_without_loop },
    { "fd/outside", "*yield_until_fd_readable: called outside a coroutine\n",
      do_wait_for_fd_outside },
    { "reschedule/outside", "*aio_co_reschedule_self: called outside a coroutine\n",
      do_reschedule_outside },
    { "pool/dec", "*qemu_coroutine_dec_pool_size: 11 taken away, but only 10 were added\n",
      do_shrink_pool },

    { "mutex/held-at-end", "*ended while it held a CoMutex*", do_keep_mutex },
    { "mutex/lock-twice", "*qemu_co_mutex_lock: Co-routine * holds CoMutex * already\n",
      do_lock_twice },
    { "mutex/lock-outside", "*qemu_co_mutex_lock: called outside a coroutine\n",
      do_lock_outside },
    { "mutex/unlock-outside", "*qemu_co_mutex_unlock: called outside a coroutine\n",
      do_unlock_outside },
    { "mutex/unlock-free", "*qemu_co_mutex_unlock: Co-routine * does not hold CoMutex *\n",
      do_unlock_free },
    { "mutex/unlock-others", "*qemu_co_mutex_unlock: Co-routine * does not hold CoMutex *\n",
      do_unlock_others },
    { "mutex/assert-locked", "*qemu_co_mutex_assert_locked: * does not hold CoMutex *\n",
      do_assert_locked },
    { "mutex/enter-waiter", "*qemu_co_mutex_lock: * entered while it waits for CoMutex *\n",
      do_enter_mutex_waiter },
    { "queue/enter-waiter", "*qemu_co_queue_wait: * entered while it waits in CoQueue *\n",
      do_enter_queue_waiter },
    { "queue/outside", "*qemu_co_queue_wait: called outside a coroutine\n", do_queue_outside },
    { "queue/next-outside", "*qemu_co_queue_next: called outside a coroutine; use *\n",
      do_queue_next_outside },
    { "queue/restart-outside", "*qemu_co_queue_restart_all: called outside a coroutine; use *\n",
      do_queue_restart_outside },

    { "rwlock/held-at-end", "*ended while it held a CoMutex or CoRwlock*", do_keep_reading },
    { "rwlock/write-twice", "*qemu_co_rwlock_wrlock: * for writing already\n",
      do_write_twice },
    { "rwlock/write-then-read", "*qemu_co_rwlock_rdlock: * for writing already\n",
      do_write_then_read },
    { "rwlock/unlock-free", "*qemu_co_rwlock_unlock: nobody has locked CoRwlock *\n",
      do_rw_unlock_free },
    { "rwlock/unlock-others", "*qemu_co_rwlock_unlock: * has not locked CoRwlock *\n",
      do_rw_unlock_others },
    { "rwlock/upgrade-free", "*qemu_co_rwlock_upgrade: nobody has locked CoRwlock *\n",
      do_rw_upgrade_free },
    { "rwlock/downgrade-free", "*qemu_co_rwlock_downgrade: * has not locked CoRwlock *\n",
      do_rw_downgrade_free },
    { "rwlock/downgrade-reader", "*qemu_co_rwlock_downgrade: * has not locked CoRwlock *\n",
      do_rw_downgrade_reader },
    { "rwlock/enter-waiter", "*qemu_co_rwlock_rdlock: * entered while it waits for *\n",
      do_enter_rwlock_waiter },
    { "rwlock/outside", "*qemu_co_rwlock_rdlock: called outside a coroutine\n",
      do_rw_outside },
};

static void test_misuse_aborts(const void *opaque)
{
    const Misuse *m = opaque;
    qemu_co_queue_init(&queue);
    qemu_co_rwlock_init(&rwlock);
    trap(m->fn, m->stderr_pattern);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("/coroutine/misuse/%s", cases[i].name);
        g_test_add_data_func(path, &cases[i], test_misuse_aborts);
    }
    return g_test_run();
}
