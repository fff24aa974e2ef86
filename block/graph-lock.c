/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The graph lock: see miniblk/graph-lock.h for who needs it.
 *
 * Each thread counts the readers that began in it minus those that ended in it; a reader may
 * end in another thread than it began in, so only the sum says anything. A thread's count is
 * written by that thread alone.
 *
 *      reader                                  writer
 *      COUNT++                                 WRITERS++
 *      (compiler barrier)                      membarrier
 *      read WRITERS; 0: go on,                 read all COUNTs; sum 0: go on,
 *           else COUNT-- and wait                   else poll and look again
 *      ...
 *      COUNT--         (release)
 *      (compiler barrier)
 *      read WRITERS; not 0: full barrier, kick
 *
 * It is Dekker's protocol with the barrier of the reader's side moved over to the writer, who
 * comes so much more rarely: membarrier is as good as a full barrier executed in each thread
 * at some point of it. If that point is after a reader's write, the writer sees the write; if
 * it is before, the reader's next read sees WRITERS. Where the system has no membarrier, the
 * reader's write is a read-modify-write.
 *
 * The sum is read while threads run. Readers that were let in before WRITERS was raised have
 * their increments seen, all of them; a later one takes its increment back in the same thread,
 * so it adds 1 or 0 to what is seen. So the sum is never below the number of readers inside.
 */
#include "block/block-internal.h"
#include "miniblk/coroutine-int.h"
#include "miniblk/graph-lock.h"
#include "miniblk/thread.h"
#include "aio/port.h"

typedef struct ThreadReaders {
    unsigned count;             /* atomic; wraps */
    QLIST_ENTRY(ThreadReaders) next;
} ThreadReaders;

typedef struct Waiter {
    Coroutine *co;
    QSIMPLEQ_ENTRY(Waiter) next;
} Waiter;

static QemuMutex lock;          /* all zero bytes: a valid mutex; protects the next three */
static QLIST_HEAD(, ThreadReaders) threads = QLIST_HEAD_INITIALIZER(threads);
static unsigned ended_threads;  /* sum of the counts of threads that are no more */
static QSIMPLEQ_HEAD(, Waiter) waiters = QSIMPLEQ_HEAD_INITIALIZER(waiters);

static unsigned writers;        /* atomic; how many hold or want it; main thread writes */
static unsigned held;           /* levels held; main thread */

static bool has_membarrier;     /* fixed by setup() */
static port_thread_key exit_key;
static port_once setup_once = PORT_ONCE_INIT;
static PORT_THREAD_LOCAL ThreadReaders *this_thread;

/* ---- threads --------------------------------------------------------------------------------- */

static void thread_ends(void *opaque)
{
    ThreadReaders *t = opaque;

    QEMU_MUTEX_GUARD(&lock);
    QLIST_REMOVE(t, next);
    ended_threads += t->count;
    g_free(t);
}

static void setup(void)
{
    has_membarrier = port_membarrier_init() == 0;
    port_thread_key_init(&exit_key, thread_ends);
}

static QEMU_NOINLINE ThreadReaders *new_thread(void)
{
    ThreadReaders *t = g_new0(ThreadReaders, 1);

    port_once_run(&setup_once, setup);
    port_thread_key_set(exit_key, t);
    this_thread = t;
    QEMU_MUTEX_GUARD(&lock);
    QLIST_INSERT_HEAD(&threads, t, next);
    return t;
}

/* Not inline: the coroutine that asks may have asked in another thread before. */
static QEMU_NOINLINE ThreadReaders *here(void)
{
    return likely(this_thread) ? this_thread : new_thread();
}

static unsigned readers_inside(void)
{
    ThreadReaders *t;
    QEMU_MUTEX_GUARD(&lock);
    unsigned sum = ended_threads;

    QLIST_FOREACH(t, &threads, next) {
        sum += qatomic_load_acquire(&t->count); /* pairs with the release in leave() */
    }
    return sum;
}

/* ---- readers --------------------------------------------------------------------------------- */

/*
 * The reader's half: change the count of this thread, then look whether somebody writes.
 * release: who sees the count sees what we did; pairs with readers_inside(). acquire: we see
 * what the last writer changed; pairs with the end of wrunlock.
 */
static inline bool count_and_look(unsigned n)
{
    ThreadReaders *t = here();

    if (likely(has_membarrier)) {
        qatomic_store_release(&t->count, t->count + n);
        barrier();              /* the processor's part is done by wrlock's membarrier */
        return qatomic_load_acquire(&writers);
    }
    qatomic_fetch_add(&t->count, n);
    return qatomic_read_sc(&writers);
}

static inline bool enter(void)
{
    return likely(!count_and_look(1));
}

static inline void leave(void)
{
    if (unlikely(count_and_look(-1))) {
        /*
         * The writer may have read the old count after its membarrier and be about to sleep:
         * either it reads the new one, or the kick, which has the fence for it, sees it.
         */
        aio_wait_kick();
    }
}

/* Yield until nobody writes, as far as can be told without being counted. */
static void coroutine_fn QEMU_NOINLINE wait_for_writers(void)
{
    Waiter w = { .co = qemu_coroutine_self() };

    /* wrunlock lowers WRITERS and empties the list under the lock: we are woken */
    qemu_mutex_lock(&lock);
    if (!qatomic_read(&writers)) {
        qemu_mutex_unlock(&lock);
        return;
    }
    QSIMPLEQ_INSERT_TAIL(&waiters, &w, next);
    qemu_mutex_unlock(&lock);
    port_note(PORT_NOTE_CO_WAIT, &writers, "graph lock");
    qemu_coroutine_yield();
}

void coroutine_fn bdrv_graph_co_rdlock(void)
{
    if (qemu_coroutine_self()->graph_readers++ > 0) {
        return;                 /* whoever writes waits for us, so we must not wait */
    }
    while (unlikely(!enter())) {
        leave();
        wait_for_writers();
    }
    port_note(PORT_NOTE_CO_SHARE, &threads, "graph lock");
}

void coroutine_fn bdrv_graph_co_rdunlock(void)
{
    Coroutine *self = qemu_coroutine_self();

    g_assert(self->graph_readers > 0);
    if (--self->graph_readers == 0) {
        port_note(PORT_NOTE_CO_RELEASE, &threads, NULL);
        leave();
    }
}

void bdrv_graph_rdlock_main_loop(void)
{
    GLOBAL_STATE_CODE();
    g_assert(!qemu_in_coroutine());
}

void bdrv_graph_rdunlock_main_loop(void)
{
    GLOBAL_STATE_CODE();
    g_assert(!qemu_in_coroutine());
}

/* ---- the writer ------------------------------------------------------------------------------ */

static bool must_wait_for_readers(void)
{
    if (!readers_inside()) {
        return false;
    }
    port_note(PORT_NOTE_WAIT_FOR, &threads, NULL);
    return true;
}

void no_coroutine_fn bdrv_graph_wrlock(void)
{
    GLOBAL_STATE_CODE();
    g_assert(!qemu_in_coroutine());
    if (held > 0) {
        held++;
        return;
    }
    port_once_run(&setup_once, setup);
    port_note(PORT_NOTE_CO_SHARE, &writers, "graph lock");
    qatomic_set_mb(&writers, writers + 1);
    if (has_membarrier) {
        port_membarrier();
    }
    if (readers_inside()) {
        /* callbacks may come and go as writers meanwhile */
        AIO_WAIT_WHILE(NULL, must_wait_for_readers());
    }
    held = 1;
}

void no_coroutine_fn bdrv_graph_wrunlock(void)
{
    QSIMPLEQ_HEAD(, Waiter) woken = QSIMPLEQ_HEAD_INITIALIZER(woken);
    Waiter *w;

    GLOBAL_STATE_CODE();
    g_assert(held > 0);
    if (--held) {
        return;
    }
    port_note(PORT_NOTE_CO_RELEASE, &writers, NULL);
    WITH_QEMU_LOCK_GUARD(&lock) {
        qatomic_store_release(&writers, writers - 1);   /* pairs with the acquire in enter() */
        if (!writers) {
            QSIMPLEQ_CONCAT(&woken, &waiters);
        }
    }
    /* Scheduled, not entered: our caller is in the middle of something. */
    while ((w = QSIMPLEQ_FIRST(&woken))) {
        QSIMPLEQ_REMOVE_HEAD(&woken, next);
        aio_co_schedule(qemu_coroutine_get_aio_context(w->co), w->co);
    }
}

/* ---- checks ---------------------------------------------------------------------------------- */

void assert_bdrv_graph_readable(void)
{
    g_assert(qemu_in_main_thread() || qemu_coroutine_self()->graph_readers > 0);
}

void assert_bdrv_graph_unlocked(void)
{
    unsigned levels = qemu_coroutine_self()->graph_readers;

    if (unlikely(levels)) {
        fprintf(stderr, "miniblk: graph lock: a coroutine that reads the graph (%u levels) "
                "is about to wait for somebody who may change it\n", levels);
        abort();
    }
}

void assert_bdrv_graph_writable(void)
{
    GLOBAL_STATE_CODE();
    g_assert(held > 0);
}
