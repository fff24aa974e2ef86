/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Locks, condition variables, futexes and one-time initialisation, for fibers. What a lock
 * knows lies in the pthread object, at the places where glibc's initialisers put the kind.
 */
#include "miniblk/osdep.h"
#include <pthread.h>
#include "lab/event.h"
#include "lab/engine.h"
#include "lab/sync.h"
#include "lab/tsan.h"

#define E lab__engine

/* ---- mutexes --------------------------------------------------------------------------- */

enum { DESTROYED = -1 };

typedef struct LabMutex {
    int owner;                  /* thread + 1; 0 free; DESTROYED */
    unsigned depth;
    uint32_t since;             /* E.waits when it was taken: what its owner waits for later
                                   has to end before he lets go */
    int unused;
    int kind;                   /* where PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP has it */
} LabMutex;
G_STATIC_ASSERT(sizeof(LabMutex) <= sizeof(pthread_mutex_t));
G_STATIC_ASSERT(offsetof(pthread_mutex_t, __data.__kind) == offsetof(LabMutex, kind));

static void misuse(const char *call, const void *object, const char *what)
{
    char name[80];
    lab_fail(LAB_ORACLE, "%s of %s by %s: %s", call,
             lab_object_name((uintptr_t)object, name, sizeof(name)),
             lab_thread_name(E.self), what);
}

int lab_mutex_init(pthread_mutex_t *mutex, int kind)
{
    memset(mutex, 0, sizeof(*mutex));
    ((LabMutex *)mutex)->kind = kind;
    return 0;
}

int lab_mutex_destroy(pthread_mutex_t *mutex)
{
    LabMutex *m = (LabMutex *)mutex;

    if (m->owner > 0) {
        misuse("destroy", m, "it is locked");
    }
    m->owner = DESTROYED;
    return 0;
}

static bool mutex_is_free(const void *opaque)
{
    return ((const LabMutex *)opaque)->owner == 0;
}

static void mutex_take(LabMutex *m)
{
    m->owner = E.self + 1;
    m->depth = 1;
    m->since = E.waits;
    lab__self()->mutexes++;
    lab_acquire(m);
    lab_changed();
}

/* Have it again without a point, or know why not; false: it must be waited for. */
static bool mutex_relock(LabMutex *m, int *err)
{
    if (m->owner == DESTROYED) {
        misuse("lock", m, "it has been destroyed");
    }
    if (m->owner != E.self + 1) {
        return false;
    }
    if (m->kind == PTHREAD_MUTEX_RECURSIVE) {
        m->depth++;
        *err = 0;
    } else if (m->kind == PTHREAD_MUTEX_ERRORCHECK) {
        *err = EDEADLK;
    } else {
        char name[80];
        lab_fail(LAB_CYCLE, "%s locks %s, which it holds itself", lab_thread_name(E.self),
                 lab_object_name((uintptr_t)m, name, sizeof(name)));
    }
    return true;
}

/* An uncontended lock is one read-modify-write of the lock word. */
int lab_mutex_lock(pthread_mutex_t *mutex)
{
    LabMutex *m = (LabMutex *)mutex;
    int err;

    if (mutex_relock(m, &err)) {
        return err;
    }
    if (lab_running || m->owner) {
        lab__drain_at_point(NULL);
        LabBlock block = {
            .op = { .kind = LAB_OP_LOCK, .is_write = true, .object = (uintptr_t)m },
            .ready = mutex_is_free, .opaque = m, .deadline_ns = -1, .holder = &m->owner,
            .since = &m->since,
        };
        lab_block(&block);
    }
    mutex_take(m);
    return 0;
}

int lab_mutex_trylock(pthread_mutex_t *mutex)
{
    LabMutex *m = (LabMutex *)mutex;

    if (m->owner == E.self + 1 && m->kind == PTHREAD_MUTEX_RECURSIVE) {
        m->depth++;
        return 0;
    }
    lab_syscall_point(LAB_OP_TRYLOCK, (uintptr_t)m, true);
    if (m->owner == DESTROYED) {
        misuse("trylock", m, "it has been destroyed");
    }
    if (m->owner) {
        lab_idle();
        return EBUSY;
    }
    mutex_take(m);
    return 0;
}

int lab_mutex_unlock(pthread_mutex_t *mutex)
{
    LabMutex *m = (LabMutex *)mutex;

    if (m->owner != E.self + 1) {
        if (m->kind == PTHREAD_MUTEX_ERRORCHECK) {
            return EPERM;
        }
        misuse("unlock", m, m->owner > 0 ? "another thread holds it" : "nobody holds it");
    }
    if (m->depth > 1) {
        m->depth--;
        return 0;
    }
    lab_syscall_point(LAB_OP_UNLOCK, (uintptr_t)m, true);
    lab_release(m);
    m->owner = 0;
    m->depth = 0;
    lab__self()->mutexes--;
    lab_changed();
    return 0;
}

/* ---- waiting for somebody to wake us --------------------------------------------------- */

static bool is_woken(const void *opaque)
{
    return ((const LabThread *)opaque)->woken;
}

/* The calling thread sleeps on OBJECT until wake_one() picks it; false: the deadline came. */
static bool sleep_on(LabOpKind kind, const void *object, int64_t deadline_ns)
{
    LabThread *t = lab__self();

    t->waits_on = object;
    t->ticket = ++E.tickets;
    t->woken = false;
    LabBlock block = {
        .op = { .kind = kind, .is_write = true, .object = (uintptr_t)object },
        .ready = is_woken, .opaque = t, .deadline_ns = deadline_ns,
    };
    bool woken = lab_block(&block);
    t->waits_on = NULL;
    return woken;
}

/* Those who sleep on OBJECT, in the order in which they came. */
static unsigned sleepers(const void *object, int *threads)
{
    unsigned n = 0;

    for (uint64_t left = E.blocked; left; left &= left - 1) {
        int i = __builtin_ctzll(left);
        LabThread *t = &lab__threads[i];
        if (t->waits_on == object && !t->woken) {
            unsigned at = n++;
            while (at > 0 && lab__threads[threads[at - 1]].ticket > t->ticket) {
                threads[at] = threads[at - 1];
                at--;
            }
            threads[at] = i;
        }
    }
    return n;
}

/* Wake up to MAX of those who sleep on OBJECT; which ones is a choice. */
static int wake(const void *object, int max)
{
    int threads[LAB_THREADS_MAX], woken = 0;
    unsigned n = sleepers(object, threads);

    while (n > 0 && woken < max) {
        /* with room for all, the order does not matter */
        unsigned i = max - woken < n ? lab_choose(LAB_CHOICE_WAITER, n) : 0;
        lab__threads[threads[i]].woken = true;
        memmove(&threads[i], &threads[i + 1], (n - i - 1) * sizeof(threads[0]));
        n--;
        woken++;
    }
    if (woken) {
        lab_changed();
    }
    return woken;
}

enum { SPURIOUS_MAX = 3 };

static bool wakes_without_reason(void)
{
    if (lab_running && lab__limits.spurious && E.spurious < SPURIOUS_MAX &&
        lab_choose(LAB_CHOICE_SPURIOUS, 2)) {
        E.spurious++;
        return true;
    }
    return false;
}

/* ---- condition variables --------------------------------------------------------------- */

typedef struct LabCond {
    int state;                  /* DESTROYED or 0 */
    int clock;
} LabCond;
G_STATIC_ASSERT(sizeof(LabCond) <= sizeof(pthread_cond_t));

int lab_cond_init(pthread_cond_t *cond, clockid_t clock)
{
    memset(cond, 0, sizeof(*cond));
    ((LabCond *)cond)->clock = clock;
    return 0;
}

static void check_cond(pthread_cond_t *cond, const char *call)
{
    if (((LabCond *)cond)->state == DESTROYED) {
        misuse(call, cond, "it has been destroyed");
    }
}

int lab_cond_destroy(pthread_cond_t *cond)
{
    int threads[LAB_THREADS_MAX];

    check_cond(cond, "destroy");
    if (sleepers(cond, threads)) {
        misuse("destroy", cond, "threads wait for it");
    }
    ((LabCond *)cond)->state = DESTROYED;
    return 0;
}

int lab_cond_signal(pthread_cond_t *cond)
{
    lab_syscall_point(LAB_OP_SIGNAL, (uintptr_t)cond, true);
    check_cond(cond, "signal");
    wake(cond, 1);
    return 0;
}

int lab_cond_broadcast(pthread_cond_t *cond)
{
    lab_syscall_point(LAB_OP_SIGNAL, (uintptr_t)cond, true);
    check_cond(cond, "broadcast");
    wake(cond, INT_MAX);
    return 0;
}

int lab_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t deadline_ns)
{
    LabMutex *m = (LabMutex *)mutex;

    check_cond(cond, "wait");
    if (m->owner != E.self + 1 || m->depth != 1) {
        misuse("wait", cond, "the mutex must be held, once");
    }
    lab_syscall_point(LAB_OP_WAIT, (uintptr_t)cond, true);
    bool woken = wakes_without_reason();
    lab_release(m);
    m->owner = 0;
    lab__self()->mutexes--;
    lab_changed();
    if (!woken) {
        woken = sleep_on(LAB_OP_WAIT, cond, deadline_ns);
    }
    lab_mutex_lock(mutex);
    return woken ? 0 : ETIMEDOUT;
}

int lab_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    return lab_cond_wait_until(cond, mutex, -1);
}

int lab_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                       const struct timespec *deadline)
{
    int64_t ns = deadline->tv_sec * INT64_C(1000000000) + deadline->tv_nsec;
    if (((LabCond *)cond)->clock == CLOCK_REALTIME) {
        ns -= lab__wall_epoch_ns;
    }
    return lab_cond_wait_until(cond, mutex, MAX(ns, 0));
}

/* ---- readers-writer locks -------------------------------------------------------------- */

typedef struct LabRwlock {
    int writer;                 /* thread + 1 */
    uint32_t since;             /* the writer; see LabMutex */
    int readers;                /* 8 bytes on: readers do not order each other (tsan.h) */
} LabRwlock;
G_STATIC_ASSERT(sizeof(LabRwlock) <= sizeof(pthread_rwlock_t));

int lab_rwlock_init(pthread_rwlock_t *lock)
{
    memset(lock, 0, sizeof(*lock));
    return 0;
}

int lab_rwlock_destroy(pthread_rwlock_t *lock)
{
    LabRwlock *l = (LabRwlock *)lock;
    if (l->writer || l->readers) {
        misuse("destroy", l, "it is locked");
    }
    return 0;
}

static bool rwlock_readable(const void *opaque)
{
    return !((const LabRwlock *)opaque)->writer;
}

static bool rwlock_writable(const void *opaque)
{
    const LabRwlock *l = opaque;
    return !l->writer && !l->readers;
}

static void rwlock_take(LabRwlock *l, bool write, bool wait)
{
    bool (*ready)(const void *) = write ? rwlock_writable : rwlock_readable;

    if (wait && (lab_running || !ready(l))) {
        lab__drain_at_point(NULL);
        LabBlock block = {
            .op = { .kind = LAB_OP_LOCK, .is_write = write, .object = (uintptr_t)l },
            .ready = ready, .opaque = l, .deadline_ns = -1, .holder = &l->writer,
            .since = &l->since,
        };
        lab_block(&block);
    }
    lab_acquire(&l->writer);
    if (write) {
        lab_acquire(&l->readers);
        l->writer = E.self + 1;
        l->since = E.waits;
    } else {
        l->readers++;
    }
    lab_changed();
}

int lab_rwlock_rdlock(pthread_rwlock_t *lock)
{
    rwlock_take((LabRwlock *)lock, false, true);
    return 0;
}

int lab_rwlock_wrlock(pthread_rwlock_t *lock)
{
    rwlock_take((LabRwlock *)lock, true, true);
    return 0;
}

int lab_rwlock_tryrdlock(pthread_rwlock_t *lock)
{
    lab_syscall_point(LAB_OP_TRYLOCK, (uintptr_t)lock, true);
    if (!rwlock_readable(lock)) {
        return EBUSY;
    }
    rwlock_take((LabRwlock *)lock, false, false);
    return 0;
}

int lab_rwlock_trywrlock(pthread_rwlock_t *lock)
{
    lab_syscall_point(LAB_OP_TRYLOCK, (uintptr_t)lock, true);
    if (!rwlock_writable(lock)) {
        return EBUSY;
    }
    rwlock_take((LabRwlock *)lock, true, false);
    return 0;
}

int lab_rwlock_unlock(pthread_rwlock_t *lock)
{
    LabRwlock *l = (LabRwlock *)lock;

    lab_syscall_point(LAB_OP_UNLOCK, (uintptr_t)l, true);
    if (l->writer == E.self + 1) {
        lab_release(&l->writer);
        l->writer = 0;
    } else if (l->readers > 0) {
        lab_release(&l->readers);
        l->readers--;
    } else {
        misuse("unlock", l, "it is not locked by this thread");
    }
    lab_changed();
    return 0;
}

/* ---- futexes --------------------------------------------------------------------------- */

int lab_futex_wait(const void *address, uint32_t value, int64_t timeout_ns)
{
    lab_syscall_point(LAB_OP_FUTEX_WAIT, (uintptr_t)address, true);
    if (*(const volatile uint32_t *)address != value) {
        return -EAGAIN;
    }
    if (wakes_without_reason()) {
        return 0;
    }
    return sleep_on(LAB_OP_FUTEX_WAIT, address, timeout_ns < 0 ? -1 : E.now_ns + timeout_ns)
           ? 0 : -ETIMEDOUT;
}

int lab_futex_wake(const void *address, int n)
{
    lab_syscall_point(LAB_OP_FUTEX_WAKE, (uintptr_t)address, true);
    return wake(address, n);
}

/* ---- once ------------------------------------------------------------------------------ */

enum { ONCE_NEW, ONCE_DONE = -1 };      /* or the number + 1 of the thread that runs it */

static bool once_is_done(const void *opaque)
{
    return *(const pthread_once_t *)opaque == ONCE_DONE;
}

int lab_once(pthread_once_t *once, void (*fn)(void))
{
    if (*once == ONCE_DONE) {
        lab_acquire(once);
        return 0;
    }
    lab_syscall_point(LAB_OP_RMW, (uintptr_t)once, true);
    if (*once == ONCE_NEW) {
        *once = E.self + 1;
        LAB_PROGRAM(fn());
        lab__drain_at_point("once");    /* who finds it done must find what FN has stored */
        lab_release(once);
        *once = ONCE_DONE;
        lab_changed();
        return 0;
    }
    LabBlock block = {
        .op = { .kind = LAB_OP_FUTEX_WAIT, .object = (uintptr_t)once },
        .ready = once_is_done, .opaque = once, .deadline_ns = -1, .holder = once,
    };
    lab_block(&block);
    lab_acquire(once);
    return 0;
}
