/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libc's threads, locks, clocks and descriptors, for those who do not come through aio/port.h:
 * GLib, other libraries, and tests. A definition in the program is found before libc's by all
 * of them. Files are in interpose-file.c, sockets in interpose-socket.c, memory in malloc.c.
 *
 * Calls that libc makes itself do not come here; they do not wait for other threads.
 */
#undef _FORTIFY_SOURCE
#include "miniblk/osdep.h"
#include <linux/futex.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "lab/event.h"
#include "lab/real.h"
#include "lab/engine.h"
#include "lab/sync.h"
#include "lab/world.h"

#define NS_PER_S 1000000000LL

static int64_t to_ns(const struct timespec *ts)
{
    return ts->tv_sec > INT64_MAX / NS_PER_S - 1 ? INT64_MAX
           : ts->tv_sec * NS_PER_S + ts->tv_nsec;
}

/* libc's calls that return -1 with errno, from -errno. */
static int result(int ret)
{
    if (ret < 0) {
        errno = -ret;
        return -1;
    }
    return ret;
}

void lab_unsupported(const char *what)
{
    if (lab_running) {
        lab_fail(LAB_SKIP, "%s: out of the lab's reach", what);
    }
}

/* What pthread_GET() says of ATTR, or UNSET when there are no attributes. */
#define ATTRIBUTE(attr, get, type, unset) __extension__({                       \
        type attribute_ = (unset);                                              \
        if (attr) {                                                             \
            pthread_##get(attr, &attribute_);                                   \
        }                                                                       \
        attribute_; })

/* ---- locks ----------------------------------------------------------------------------- */

int pthread_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *attr)
{
    return lab_mutex_init(m, ATTRIBUTE(attr, mutexattr_gettype, int, PTHREAD_MUTEX_NORMAL));
}
int pthread_mutex_destroy(pthread_mutex_t *m) { return lab_mutex_destroy(m); }
int pthread_mutex_lock(pthread_mutex_t *m) { return lab_mutex_lock(m); }
int pthread_mutex_trylock(pthread_mutex_t *m) { return lab_mutex_trylock(m); }
int pthread_mutex_unlock(pthread_mutex_t *m) { return lab_mutex_unlock(m); }

int pthread_cond_init(pthread_cond_t *c, const pthread_condattr_t *attr)
{
    return lab_cond_init(c, ATTRIBUTE(attr, condattr_getclock, clockid_t, CLOCK_REALTIME));
}
int pthread_cond_destroy(pthread_cond_t *c) { return lab_cond_destroy(c); }
int pthread_cond_signal(pthread_cond_t *c) { return lab_cond_signal(c); }
int pthread_cond_broadcast(pthread_cond_t *c) { return lab_cond_broadcast(c); }
int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m) { return lab_cond_wait(c, m); }
int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *ts)
{
    return lab_cond_timedwait(c, m, ts);
}

int pthread_rwlock_init(pthread_rwlock_t *l, const pthread_rwlockattr_t *attr)
{
    return lab_rwlock_init(l);
}
int pthread_rwlock_destroy(pthread_rwlock_t *l) { return lab_rwlock_destroy(l); }
int pthread_rwlock_rdlock(pthread_rwlock_t *l) { return lab_rwlock_rdlock(l); }
int pthread_rwlock_wrlock(pthread_rwlock_t *l) { return lab_rwlock_wrlock(l); }
int pthread_rwlock_tryrdlock(pthread_rwlock_t *l) { return lab_rwlock_tryrdlock(l); }
int pthread_rwlock_trywrlock(pthread_rwlock_t *l) { return lab_rwlock_trywrlock(l); }
int pthread_rwlock_unlock(pthread_rwlock_t *l) { return lab_rwlock_unlock(l); }

int pthread_once(pthread_once_t *once, void (*fn)(void)) { return lab_once(once, fn); }

/* ---- threads --------------------------------------------------------------------------- */

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
                   void *arg)
{
    int state = ATTRIBUTE(attr, attr_getdetachstate, int, PTHREAD_CREATE_JOINABLE);

    return lab_thread_create(thread, fn, arg, state == PTHREAD_CREATE_DETACHED);
}
int pthread_join(pthread_t thread, void **ret) { return lab_thread_join(thread, ret); }
int pthread_detach(pthread_t thread) { return lab_thread_detach(thread); }
void pthread_exit(void *ret) { lab_thread_exit(ret); }
pthread_t pthread_self(void) { return lab_thread_self(); }
/* Sanitizers ask; all threads are the one that the system knows. */
int pthread_getattr_np(pthread_t thread, pthread_attr_t *attr)
{
    return REAL(pthread_getattr_np)(REAL(pthread_self)(), attr);
}
int pthread_setname_np(pthread_t thread, const char *name)
{
    return lab_thread_set_name(thread, name);
}
/* A sanitizer keeps by its key what it knows of the one real thread. */
int pthread_key_create(pthread_key_t *key, void (*fn)(void *))
{
    if (lab_sanitizer_calls(__builtin_return_address(0))) {
        return REAL(pthread_key_create)(key, fn);
    }
    return lab_key_create(key, fn);
}
int pthread_key_delete(pthread_key_t key) { return lab_key_delete(key); }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  /* VALUE is said not to be looked at */
int pthread_setspecific(pthread_key_t key, const void *value)
{
    return key < LAB_KEY_FIRST ? REAL(pthread_setspecific)(key, value)
                               : lab_key_set(key, value);
}
#pragma GCC diagnostic pop
void *pthread_getspecific(pthread_key_t key)
{
    return key < LAB_KEY_FIRST ? REAL(pthread_getspecific)(key) : lab_key_get(key);
}

int sched_yield(void)
{
    lab_thread_yield();
    return 0;
}
pid_t gettid(void) { return lab_inside() ? lab_thread_id() : REAL(gettid)(); }
pid_t getpid(void) { return lab_inside() ? LAB_PID : REAL(getpid)(); }

/* Signals stay with the real process; no thread of the lab is interrupted by one. */
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    if (!lab_inside()) {
        return REAL(pthread_sigmask)(how, set, old);
    }
    if (old) {
        sigemptyset(old);
    }
    return 0;
}
int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
    return pthread_sigmask(how, set, old);
}

/* Only what leads around libc: GLib's and our own futexes, thread ids. */
long syscall(long number, ...)
{
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (unsigned i = 0; i < 6; i++) {
        a[i] = va_arg(ap, long);
    }
    va_end(ap);
    if (number == SYS_futex && lab_inside()) {
        int op = a[1] & FUTEX_CMD_MASK;
        const struct timespec *ts = (void *)a[3];
        if (op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET) {
            int64_t timeout_ns = ts ? to_ns(ts) : -1;
            if (ts && op == FUTEX_WAIT_BITSET) {
                timeout_ns -= lab_clock_ns(a[1] & FUTEX_CLOCK_REALTIME);
                timeout_ns = MAX(timeout_ns, (int64_t)0);
            }
            return result(lab_futex_wait((void *)a[0], a[2], timeout_ns));
        }
        if (op == FUTEX_WAKE || op == FUTEX_WAKE_BITSET) {
            return lab_futex_wake((void *)a[0], a[2]);
        }
    }
    if (number == SYS_gettid && lab_inside()) {
        return lab_thread_id();
    }
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- time ------------------------------------------------------------------------------ */

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    if (!lab_inside()) {
        return REAL(clock_gettime)(clock, ts);
    }
    int64_t ns = lab_clock_ns(clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE);
    *ts = (struct timespec){ .tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S };
    return 0;
}
int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    *tv = (struct timeval){ .tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000 };
    return 0;
}
time_t time(time_t *result_s)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    if (result_s) {
        *result_s = ts.tv_sec;
    }
    return ts.tv_sec;
}
int nanosleep(const struct timespec *request, struct timespec *left)
{
    if (!lab_inside()) {
        return REAL(nanosleep)(request, left);
    }
    lab_sleep_ns(to_ns(request));
    return 0;
}
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request,
                    struct timespec *left)
{
    if (!lab_inside()) {
        return REAL(clock_nanosleep)(clock, flags, request, left);
    }
    int64_t ns = to_ns(request);
    lab_sleep_ns(flags & TIMER_ABSTIME ? ns - lab_clock_ns(clock == CLOCK_REALTIME) : ns);
    return 0;
}
int usleep(useconds_t us)
{
    struct timespec ts = { .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 };
    return nanosleep(&ts, NULL);
}
unsigned sleep(unsigned s)
{
    struct timespec ts = { .tv_sec = s };
    nanosleep(&ts, NULL);
    return 0;
}

/* ---- events ---------------------------------------------------------------------------- */

int eventfd(unsigned initial, int flags)
{
    return lab_inside() ? lab_eventfd(initial, flags) : REAL(eventfd)(initial, flags);
}
int pipe2(int fds[2], int flags)
{
    return lab_inside() ? lab_pipe(fds, flags) : REAL(pipe2)(fds, flags);
}
int pipe(int fds[2])
{
    return pipe2(fds, 0);
}
int epoll_create1(int flags)
{
    return lab_inside() ? lab_epoll_create() : REAL(epoll_create1)(flags);
}
int epoll_create(int size)
{
    return lab_inside() ? lab_epoll_create() : REAL(epoll_create)(size);
}
int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return lab_fd_is_virtual(epfd) ? lab_epoll_ctl(epfd, op, fd, event)
                                   : REAL(epoll_ctl)(epfd, op, fd, event);
}
int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms)
{
    return lab_fd_is_virtual(epfd)
           ? lab_epoll_wait(epfd, events, max, timeout_ms < 0 ? -1 : timeout_ms * 1000000LL)
           : REAL(epoll_wait)(epfd, events, max, timeout_ms);
}

int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    return lab_inside() ? lab_poll(fds, n, timeout_ms < 0 ? -1 : timeout_ms * 1000000LL)
                        : REAL(poll)(fds, n, timeout_ms);
}
int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
    return lab_inside() ? lab_poll(fds, n, ts ? to_ns(ts) : -1)
                        : REAL(ppoll)(fds, n, ts, mask);
}
/* What a build with _FORTIFY_SOURCE calls. */
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t size);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t size)
{
    return poll(fds, n, timeout_ms);
}
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask,
                size_t size);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *ts, const sigset_t *mask,
                size_t size)
{
    return ppoll(fds, n, ts, mask);
}

/* ---- the end --------------------------------------------------------------------------- */

void abort(void)
{
    if (lab_running) {
        lab_fail(LAB_ASSERT, "%s", *lab_last_words() ? lab_last_words() : "abort()");
    }
    REAL(abort)();
    __builtin_trap();
}
void exit(int status)
{
    if (lab_running) {
        lab_fail(LAB_ASSERT, "exit(%d)%s%s", status, *lab_last_words() ? ": " : "",
                 lab_last_words());
    }
    REAL(exit)(status);
    __builtin_trap();
}
void _exit(int status)
{
    if (lab_running) {
        lab_fail(LAB_ASSERT, "_exit(%d)", status);
    }
#ifdef USE_TSAN
    /* its own would find fault with our looking away, and wait for a report that we come from */
    REAL(syscall)(SYS_exit_group, status);
#endif
    REAL(_exit)(status);
    __builtin_trap();
}

/* ---- what cannot be undone -------------------------------------------------------------- */

#define REFUSED(type, name, parameters, arguments)                              \
    type name parameters                                                        \
    {                                                                           \
        lab_unsupported(#name "()");                                            \
        return REAL(name) arguments;                                            \
    }

pid_t fork(void)
{
    lab_unsupported("fork()");
#ifdef USE_TSAN
    return _Fork();     /* its own would have it look away if there were fibers already */
#else
    return REAL(fork)();
#endif
}
REFUSED(int, posix_spawn,
        (pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
         const posix_spawnattr_t *attr, char *const argv[], char *const envp[]),
        (pid, path, actions, attr, argv, envp))
REFUSED(int, posix_spawnp,
        (pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
         const posix_spawnattr_t *attr, char *const argv[], char *const envp[]),
        (pid, path, actions, attr, argv, envp))
REFUSED(int, system, (const char *command), (command))
REFUSED(FILE *, popen, (const char *command, const char *mode), (command, mode))
REFUSED(int, chdir, (const char *path), (path))
REFUSED(int, fchdir, (int fd), (fd))
REFUSED(mode_t, umask, (mode_t mask), (mask))
REFUSED(int, seteuid, (uid_t uid), (uid))
REFUSED(int, setegid, (gid_t gid), (gid))
REFUSED(int, setrlimit, (__rlimit_resource_t what, const struct rlimit *limit), (what, limit))

int sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
    if (lab_running && new) {
        lab_unsupported("sigaction()");
    }
    return REAL(sigaction)(number, new, old);
}
__sighandler_t signal(int number, __sighandler_t handler)
{
    if (number != SIGPIPE && number != SIGXFSZ) {       /* the lab raises neither */
        lab_unsupported("signal()");
    }
    return lab_running ? SIG_DFL : REAL(signal)(number, handler);
}
