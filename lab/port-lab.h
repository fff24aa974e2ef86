/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The port seam on top of the lab: every name of aio/port.h, which includes this file when
 * MINIBLK_LAB is defined. The contracts are written there.
 */
#ifndef LAB_PORT_LAB_H
#define LAB_PORT_LAB_H

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "lab/event.h"
#include "lab/sync.h"

static inline void port_check(int err, const char *call)
{
    if (__builtin_expect(err != 0, 0)) {
        fprintf(stderr, "miniblk: %s: %s\n", call, strerror(err));
        abort();
    }
}

/* ---- threads and locks -------------------------------------------------------------- */

/* The program's thread-local variables are exchanged with the fiber: see fiber.c. */
#define PORT_THREAD_LOCAL __thread

static inline void port_mutex_init(pthread_mutex_t *m)
{
    lab_mutex_init(m, PTHREAD_MUTEX_NORMAL);
}
static inline void port_mutex_destroy(pthread_mutex_t *m) { lab_mutex_destroy(m); }
static inline void port_mutex_lock(pthread_mutex_t *m)
{
    port_check(lab_mutex_lock(m), "mutex_lock");
}
static inline int port_mutex_trylock(pthread_mutex_t *m)
{
    return lab_mutex_trylock(m) ? -EBUSY : 0;
}
static inline void port_mutex_unlock(pthread_mutex_t *m)
{
    port_check(lab_mutex_unlock(m), "mutex_unlock");
}

static inline void port_cond_init(pthread_cond_t *c) { lab_cond_init(c, CLOCK_MONOTONIC); }
static inline void port_cond_destroy(pthread_cond_t *c) { lab_cond_destroy(c); }
static inline void port_cond_signal(pthread_cond_t *c) { lab_cond_signal(c); }
static inline void port_cond_broadcast(pthread_cond_t *c) { lab_cond_broadcast(c); }
static inline void port_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    port_check(lab_cond_wait(c, m), "cond_wait");
}
bool port_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, int64_t timeout_ns);

static inline int port_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg,
                                     bool detached)
{
    return -lab_thread_create(thread, fn, arg, detached);
}
static inline void *port_thread_join(pthread_t thread)
{
    void *ret;
    port_check(lab_thread_join(thread, &ret), "thread_join");
    return ret;
}
static inline pthread_t port_thread_self(void) { return lab_thread_self(); }
static inline bool port_thread_equal(pthread_t a, pthread_t b) { return a == b; }
static inline void port_thread_set_name(pthread_t thread, const char *name)
{
    lab_thread_set_name(thread, name);
}
static inline int port_thread_id(void) { return lab_thread_id(); }
void port_thread_name(int id, char name[16]);
/* Which processor serves a thread makes no difference here: affinity.c. */
int port_thread_set_affinity(pthread_t thread, const cpu_set_t *cpus);
int port_process_affinity(cpu_set_t *cpus);

typedef pthread_key_t port_thread_key;
static inline void port_thread_key_init(port_thread_key *key, void (*fn)(void *))
{
    port_check(lab_key_create(key, fn), "key_create");
}
static inline void port_thread_key_set(port_thread_key key, void *value)
{
    port_check(lab_key_set(key, value), "setspecific");
}
typedef pthread_once_t port_once;
#define PORT_ONCE_INIT PTHREAD_ONCE_INIT
static inline void port_once_run(port_once *once, void (*fn)(void))
{
    port_check(lab_once(once, fn), "once");
}

/* A schedule has LAB_THREADS_MAX threads at the most, and several pools. */
#define PORT_WORKERS_MAX(max) ((max) < 16 ? (max) : 16)
/* Each look is a point; more of the same show nothing new. */
#define PORT_SPIN_TURNS(turns) ((turns) < 2 ? (turns) : 2)
static inline void port_cpu_relax(void) { lab_thread_yield(); }

static inline void port_futex_wait(void *f, unsigned val) { lab_futex_wait(f, val, -1); }
static inline int port_futex_wake(void *f, int n) { return lab_futex_wake(f, n); }

static inline int port_membarrier_init(void) { return 0; }
/* A point, and a full barrier in every thread (tso.c). */
void port_membarrier(void);

void *lab_stack_map(size_t guard_size, size_t size);
static inline void *port_stack_map(size_t guard_size, size_t size)
{
    return lab_stack_map(guard_size, size);
}

/* ---- clocks -------------------------------------------------------------------------- */

int64_t lab_clock_ns(bool wall);
static inline int64_t port_clock_ns(bool wall) { return lab_clock_ns(wall); }

/* ---- events and readiness ------------------------------------------------------------ */

static inline int port_eventfd(unsigned initial)
{
    int fd = lab_eventfd(initial, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
int port_eventfd_signal(int fd);
bool port_eventfd_clear(int fd);

static inline int port_epoll_create(void)
{
    int fd = lab_epoll_create();
    return fd < 0 ? -errno : fd;
}
static inline int port_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
    return lab_epoll_ctl(epfd, op, fd, ev) < 0 ? -errno : 0;
}
static inline int port_epoll_wait(int epfd, struct epoll_event *ev, int max_events,
                                  int64_t timeout_ns)
{
    int n = lab_epoll_wait(epfd, ev, max_events, timeout_ns);
    return n < 0 ? 0 : n;
}
static inline int port_poll_ms(struct pollfd *fds, unsigned nfds, int timeout_ms)
{
    return lab_poll(fds, nfds, timeout_ms < 0 ? -1 : timeout_ms * (int64_t)1000000);
}

/* ---- Linux AIO: the virtual disk, libaio.c ------------------------------------------- */

int lab_io_setup(int max_events, io_context_t *ctx);
int lab_io_destroy(io_context_t ctx);
int lab_io_submit(io_context_t ctx, long n, struct iocb **iocbs);
bool lab_io_ready(io_context_t ctx);
bool lab_io_take(io_context_t ctx, struct io_event *event);

static inline int port_io_setup(int max_events, io_context_t *ctx)
{
    return lab_io_setup(max_events, ctx);
}
static inline int port_io_destroy(io_context_t ctx) { return lab_io_destroy(ctx); }
static inline int port_io_submit(io_context_t ctx, long n, struct iocb **iocbs)
{
    return lab_io_submit(ctx, n, iocbs);
}
static inline bool port_io_ring_usable(io_context_t ctx) { return true; }
static inline bool port_io_ready(io_context_t ctx) { return lab_io_ready(ctx); }
static inline bool port_io_take(io_context_t ctx, struct io_event *event)
{
    return lab_io_take(ctx, event);
}

#endif
