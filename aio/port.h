/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The port seam: the one place where the library meets what the operating system decides,
 * that is which thread runs, what time it is, which descriptor is ready and when a disk
 * request completes. (Atomics are the other half: miniblk/atomic.h.)
 *
 * This is the native side: inline wrappers that cost nothing. The drain lab provides the
 * same names on top of its controlled scheduler. scripts/check-seam keeps everybody else from
 * reaching past this file.
 *
 * Calls that can fail return -errno. All may be called from any thread.
 */
#ifndef AIO_PORT_H
#define AIO_PORT_H

#ifdef MINIBLK_LAB
#include "lab/port-lab.h"
#else

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- failing loudly ---------------------------------------------------------------- */

/* A primitive was used wrongly: say which call and what the system answered, then abort. */
static inline void port_check(int err, const char *call)
{
    if (__builtin_expect(err != 0, 0)) {
        fprintf(stderr, "miniblk: %s: %s\n", call, strerror(err));
        abort();
    }
}

/* ---- threads and locks -------------------------------------------------------------- */

/* Storage of which each thread has its own. Reach it through a noinline function only: a
 * coroutine may continue in another thread, and the compiler may cache the address. */
#define PORT_THREAD_LOCAL __thread

static inline void port_mutex_init(pthread_mutex_t *m)
{
    port_check(pthread_mutex_init(m, NULL), "mutex_init");
}
static inline void port_mutex_destroy(pthread_mutex_t *m)
{
    port_check(pthread_mutex_destroy(m), "mutex_destroy");
}
static inline void port_mutex_lock(pthread_mutex_t *m)
{
    port_check(pthread_mutex_lock(m), "mutex_lock");
}
static inline int port_mutex_trylock(pthread_mutex_t *m)
{
    return pthread_mutex_trylock(m) ? -EBUSY : 0;
}
static inline void port_mutex_unlock(pthread_mutex_t *m)
{
    port_check(pthread_mutex_unlock(m), "mutex_unlock");
}

static inline void port_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    port_check(pthread_condattr_init(&attr), "condattr_init");
    port_check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC), "condattr_setclock");
    port_check(pthread_cond_init(c, &attr), "cond_init");
    pthread_condattr_destroy(&attr);
}
static inline void port_cond_destroy(pthread_cond_t *c)
{
    port_check(pthread_cond_destroy(c), "cond_destroy");
}
static inline void port_cond_signal(pthread_cond_t *c)
{
    port_check(pthread_cond_signal(c), "cond_signal");
}
static inline void port_cond_broadcast(pthread_cond_t *c)
{
    port_check(pthread_cond_broadcast(c), "cond_broadcast");
}
static inline void port_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    port_check(pthread_cond_wait(c, m), "cond_wait");
}
/* False when TIMEOUT_NS passed. */
static inline bool port_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                       int64_t timeout_ns)
{
    struct timespec ts;
    timeout_ns = timeout_ns < 0 ? 0 : timeout_ns;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    int64_t ns = ts.tv_nsec + timeout_ns % 1000000000;
    ts.tv_sec += timeout_ns / 1000000000 + ns / 1000000000;
    ts.tv_nsec = ns % 1000000000;
    int err = pthread_cond_timedwait(c, m, &ts);
    if (err == ETIMEDOUT) {
        return false;
    }
    port_check(err, "cond_timedwait");
    return true;
}

/* A new thread starts with all signals blocked: they belong to the main thread. */
static inline int port_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg,
                                     bool detached)
{
    sigset_t all, old;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    if (detached) {
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(thread, &attr, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return -err;
}
static inline void *port_thread_join(pthread_t thread)
{
    void *ret;
    port_check(pthread_join(thread, &ret), "thread_join");
    return ret;
}
static inline pthread_t port_thread_self(void)
{
    return pthread_self();
}
static inline bool port_thread_equal(pthread_t a, pthread_t b)
{
    return pthread_equal(a, b);
}
static inline void port_thread_set_name(pthread_t thread, const char *name)
{
    char cut[16];
    snprintf(cut, sizeof(cut), "%s", name);
    pthread_setname_np(thread, cut);
}
static inline int port_thread_id(void)
{
    return (int)syscall(SYS_gettid);
}
/* The name of the thread that the kernel calls ID, for messages; empty when there is none. */
static inline void port_thread_name(int id, char name[16])
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/task/%d/comm", id);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, name, 15);
    name[n > 0 && name[n - 1] == '\n' ? n - 1 : n > 0 ? n : 0] = '\0';
    if (fd >= 0) {
        close(fd);
    }
}
/* Let THREAD run on the processors of CPUS only. -EINVAL: none of them can be used. */
static inline int port_thread_set_affinity(pthread_t thread, const cpu_set_t *cpus)
{
    return -pthread_setaffinity_np(thread, sizeof(*cpus), cpus);
}
/* Where the process as a whole, that is its first thread, may run. */
static inline int port_process_affinity(cpu_set_t *cpus)
{
    return sched_getaffinity(getpid(), sizeof(*cpus), cpus) < 0 ? -errno : 0;
}
/* Call FN(value) when a thread that has set a value ends. */
typedef pthread_key_t port_thread_key;
static inline void port_thread_key_init(port_thread_key *key, void (*fn)(void *))
{
    port_check(pthread_key_create(key, fn), "key_create");
}
static inline void port_thread_key_set(port_thread_key key, void *value)
{
    port_check(pthread_setspecific(key, value), "setspecific");
}
typedef pthread_once_t port_once;
#define PORT_ONCE_INIT PTHREAD_ONCE_INIT
static inline void port_once_run(port_once *once, void (*fn)(void))
{
    port_check(pthread_once(once, fn), "once");
}

/* How many workers a pool may have that was told MAX: threads are cheap here. */
#define PORT_WORKERS_MAX(max) (max)

/* How often to look, in a loop that looks TURNS times before it sleeps. */
#define PORT_SPIN_TURNS(turns) (turns)

/* A turn of a busy-waiting loop. */
static inline void port_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleep while *F == VAL; may return without reason. */
static inline void port_futex_wait(void *f, unsigned val)
{
    syscall(SYS_futex, f, FUTEX_WAIT_PRIVATE, val, NULL, NULL, 0);
}
/* How many were woken. */
static inline int port_futex_wake(void *f, int n)
{
    return (int)syscall(SYS_futex, f, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/*
 * A full barrier in every running thread of the process, so that the threads themselves need
 * none: whatever such a thread does is either seen by the caller afterwards or sees what the
 * caller did before. _init() once before: -errno when the system has no such thing.
 */
static inline int port_membarrier_init(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) < 0
           ? -errno : 0;
}
static inline void port_membarrier(void)
{
    port_check(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) < 0 ? errno : 0,
               "membarrier");
}

/*
 * Memory for a coroutine's stack of SIZE bytes, all zero, above GUARD_SIZE bytes that nobody
 * can touch. It is never given back. NULL and errno: there is no more.
 */
static inline void *port_stack_map(size_t guard_size, size_t size)
{
    char *base = mmap(NULL, guard_size + size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || mprotect(base, guard_size, PROT_NONE) < 0) {
        return NULL;
    }
    return base + guard_size;
}

/* ---- clocks -------------------------------------------------------------------------- */

static inline int64_t port_clock_ns(bool wall)
{
    struct timespec ts;
    clock_gettime(wall ? CLOCK_REALTIME : CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* ---- events and readiness ------------------------------------------------------------ */

static inline int port_eventfd(unsigned initial)
{
    int fd = eventfd(initial, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
static inline int port_eventfd_signal(int fd)
{
    uint64_t one = 1;
    ssize_t n;
    do {
        n = write(fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so it is signalled already. */
    return n < 0 && errno != EAGAIN ? -errno : 0;
}
/* True if it was signalled; resets it. */
static inline bool port_eventfd_clear(int fd)
{
    uint64_t value;
    ssize_t n;
    do {
        n = read(fd, &value, sizeof(value));
    } while (n < 0 && errno == EINTR);
    return n == sizeof(value);
}

static inline int port_epoll_create(void)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
static inline int port_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    return epoll_ctl(epfd, op, fd, ev) < 0 ? -errno : 0;
}
/* TIMEOUT_NS < 0: for ever. The number of events, 0 also when a signal interrupted. */
static inline int port_epoll_wait(int epfd, struct epoll_event *ev, int max_events,
                                  int64_t timeout_ns)
{
    int n;

    if (timeout_ns <= 0) {
        n = epoll_wait(epfd, ev, max_events, timeout_ns < 0 ? -1 : 0);  /* the cheaper one */
        return n < 0 ? 0 : n;
    }
    struct timespec ts = { .tv_sec = timeout_ns / 1000000000,
                           .tv_nsec = timeout_ns % 1000000000 };
    n = epoll_pwait2(epfd, ev, max_events, &ts, NULL);
    if (n < 0 && errno == ENOSYS) {
        /* before Linux 5.11: whole milliseconds, rounded up so as not to spin */
        int64_t ms = (timeout_ns + 999999) / 1000000;
        n = epoll_wait(epfd, ev, max_events, ms > INT32_MAX ? INT32_MAX : (int)ms);
    }
    return n < 0 ? 0 : n;
}
/* What GLib's main context polls with. */
static inline int port_poll_ms(struct pollfd *fds, unsigned nfds, int timeout_ms)
{
    return poll(fds, nfds, timeout_ms);
}

/* ---- Linux AIO ----------------------------------------------------------------------- */

static inline int port_io_setup(int max_events, io_context_t *ctx)
{
    return io_setup(max_events, ctx);
}
static inline int port_io_destroy(io_context_t ctx)
{
    return io_destroy(ctx);
}
static inline int port_io_submit(io_context_t ctx, long n, struct iocb **iocbs)
{
    return io_submit(ctx, n, iocbs);
}
/*
 * Completions, read where the kernel writes them: the handle of a context is the address of
 * its ring (struct aio_ring in the kernel's fs/aio.c), which is mapped into the process.
 */
typedef struct port_io_ring {
    unsigned id, nr;
    unsigned head;              /* ours to advance */
    unsigned tail;              /* the kernel's; events before it are written */
    unsigned magic, compat_features, incompat_features, header_length;
    struct io_event events[];
} port_io_ring;
/* False on a system that only imitates Linux and keeps completions elsewhere. */
static inline bool port_io_ring_usable(io_context_t ctx)
{
    const port_io_ring *ring = (port_io_ring *)ctx;
    return ring->magic == 0xa10a10a1 && ring->incompat_features == 0;
}
static inline bool port_io_ready(io_context_t ctx)
{
    const port_io_ring *ring = (port_io_ring *)ctx;
    return ring->head != __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
}
static inline bool port_io_take(io_context_t ctx, struct io_event *event)
{
    port_io_ring *ring = (port_io_ring *)ctx;
    if (!port_io_ready(ctx)) {
        return false;
    }
    *event = ring->events[ring->head];
    unsigned next = ring->head + 1 < ring->nr ? ring->head + 1 : 0;
    __atomic_store_n(&ring->head, next, __ATOMIC_RELEASE);
    return true;
}

#endif /* MINIBLK_LAB */

#endif
