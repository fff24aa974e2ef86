/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The port seam, as its header promises it. The same source is linked with the native side and
 * with the lab's, and both must pass: what the lab says about a program is worth something
 * only when its primitives are those of Linux.
 */
#include "miniblk/osdep.h"
#include "aio/port.h"
#include "aio/sanitizer.h"
#include "miniblk/atomic.h"
#include "miniblk/lab-test.h"

enum { MS = 1000000 };

static int readable_now(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };
    g_assert_cmpint(port_poll_ms(&p, 1, 0), >=, 0);
    return p.revents;
}

/* ---- eventfds -------------------------------------------------------------------------- */

static void test_eventfd_counts_and_clears(void)
{
    int fd = port_eventfd(0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(readable_now(fd), ==, POLLOUT);
    g_assert_false(port_eventfd_clear(fd));
    g_assert_cmpint(port_eventfd_signal(fd), ==, 0);
    g_assert_cmpint(port_eventfd_signal(fd), ==, 0);
    g_assert_cmpint(readable_now(fd), ==, POLLIN | POLLOUT);
    g_assert_true(port_eventfd_clear(fd));
    g_assert_false(port_eventfd_clear(fd));
    g_assert_cmpint(close(fd), ==, 0);

    fd = port_eventfd(1);
    g_assert_true(port_eventfd_clear(fd));
    close(fd);
}

static void test_eventfd_overflow(void)
{
    int fd = port_eventfd(0);
    uint64_t value = UINT64_MAX;

    g_assert_cmpint(write(fd, &value, sizeof(value)), ==, -1);
    g_assert_cmpint(errno, ==, EINVAL);
    g_assert_cmpint(write(fd, &value, 4), ==, -1);
    g_assert_cmpint(errno, ==, EINVAL);
    value = UINT64_MAX - 1;
    g_assert_cmpint(write(fd, &value, sizeof(value)), ==, sizeof(value));
    g_assert_cmpint(readable_now(fd), ==, POLLIN);
    /* full: what is signalled stays so */
    value = 1;
    g_assert_cmpint(write(fd, &value, sizeof(value)), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpint(port_eventfd_signal(fd), ==, 0);
    g_assert_cmpint(read(fd, &value, 4), ==, -1);
    g_assert_cmpint(errno, ==, EINVAL);
    g_assert_cmpint(read(fd, &value, sizeof(value)), ==, sizeof(value));
    g_assert_cmpuint(value, ==, UINT64_MAX - 1);
    g_assert_cmpint(read(fd, &value, sizeof(value)), ==, -1);
    g_assert_cmpint(errno, ==, EAGAIN);
    close(fd);
}

static void test_eventfd_semaphore(void)
{
    int fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    uint64_t value = 0;

    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(read(fd, &value, sizeof(value)), ==, sizeof(value));
        g_assert_cmpuint(value, ==, 1);
    }
    g_assert_cmpint(read(fd, &value, sizeof(value)), ==, -1);
    close(fd);
}

static void *signal_later(void *opaque)
{
    port_eventfd_signal(GPOINTER_TO_INT(opaque));
    return opaque;
}

static void test_blocking_eventfd(void)
{
    int fd = eventfd(0, 0);
    uint64_t value = 0;
    pthread_t thread;

    g_assert_cmpint(port_thread_create(&thread, signal_later, GINT_TO_POINTER(fd), false),
                    ==, 0);
    g_assert_cmpint(read(fd, &value, sizeof(value)), ==, sizeof(value));
    g_assert_cmpuint(value, ==, 1);
    g_assert_true(port_thread_join(thread) == GINT_TO_POINTER(fd));
    close(fd);
}

static void test_closed_descriptors(void)
{
    int fd = port_eventfd(0);
    struct pollfd p = { .fd = fd, .events = POLLIN };

    g_assert_cmpint(close(fd), ==, 0);
    g_assert_cmpint(close(fd), ==, -1);
    g_assert_cmpint(errno, ==, EBADF);
    g_assert_cmpint(port_eventfd_signal(fd), ==, -EBADF);
    g_assert_cmpint(port_poll_ms(&p, 1, -1), ==, 1);
    g_assert_cmpint(p.revents, ==, POLLNVAL);
}

static void test_lowest_descriptor_first(void)
{
    int a = port_eventfd(0), b = port_eventfd(0);

    g_assert_cmpint(a, <, b);
    close(a);
    int c = port_eventfd(0);
    g_assert_cmpint(c, ==, a);
    close(b);
    close(c);
}

/* What a case is about is forbidden, and ThreadSanitizer would end the program for it. */
static bool skip_misuse(void)
{
#ifdef USE_TSAN
    if (!lab_in_lab()) {
        g_test_skip("ThreadSanitizer reports this misuse");
        return true;
    }
#endif
    return false;
}

enum { CALLS = 7 };

static int by_descriptor(int call, int fd)
{
    struct stat st;
    struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
    char c;

    switch (call) {
    case 0:
        return pread(fd, &c, 1, 0) == 1 ? 0 : -1;
    case 1:
        return read(fd, &c, 1) == 1 ? 0 : -1;
    case 2:
        return fstat(fd, &st);
    case 3:
        return lseek(fd, 0, SEEK_SET);
    case 4:
        return ftruncate(fd, 1);
    case 5:
        return fdatasync(fd);
    default:
        return fcntl(fd, F_OFD_SETLK, &lock);
    }
}

static int shared_fd;

static void *call_all(void *opaque)
{
    for (int call = 0; call < CALLS; call++) {
        int ret = by_descriptor(call, shared_fd);
        g_assert_true(ret == 0 || errno == EBADF);
    }
    return NULL;
}

/*
 *      thread                              main
 *      calls pread()
 *                                          close: the last user of the file
 *      goes on: the file is there, or EBADF
 */
static void test_file_closed_by_another(void)
{
    g_autofree char *name = NULL;
    pthread_t thread;

    if (skip_misuse()) {
        return;
    }
    shared_fd = g_file_open_tmp("conformance-XXXXXX", &name, NULL);
    g_assert_cmpint(write(shared_fd, "xy", 2), ==, 2);
    g_assert_cmpint(lseek(shared_fd, 0, SEEK_SET), ==, 0);
    unlink(name);
    g_assert_cmpint(port_thread_create(&thread, call_all, NULL, false), ==, 0);
    g_assert_cmpint(close(shared_fd), ==, 0);
    port_thread_join(thread);
    g_assert_cmpint(by_descriptor(0, shared_fd), ==, -1);
    g_assert_cmpint(errno, ==, EBADF);
}

/* ---- poll ------------------------------------------------------------------------------ */

static void test_poll_timeouts(void)
{
    int fd = port_eventfd(0);
    struct pollfd p[2] = { { .fd = fd, .events = POLLIN }, { .fd = -1, .events = POLLIN } };

    int64_t start = port_clock_ns(false);
    p[1].revents = 99;
    g_assert_cmpint(port_poll_ms(p, 2, 3), ==, 0);
    g_assert_cmpint(port_clock_ns(false) - start, >=, 3 * MS);
    g_assert_cmpint(p[1].revents, ==, 0);
    port_eventfd_signal(fd);
    g_assert_cmpint(port_poll_ms(p, 2, -1), ==, 1);
    g_assert_cmpint(p[0].revents, ==, POLLIN);
    close(fd);
}

static void test_pipe_hang_up(void)
{
    int fds[2];
    char c = 'x';

    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(readable_now(fds[0]), ==, 0);
    g_assert_cmpint(readable_now(fds[1]), ==, POLLOUT);
    g_assert_cmpint(write(fds[1], &c, 1), ==, 1);
    g_assert_cmpint(readable_now(fds[0]), ==, POLLIN);
    close(fds[1]);
    g_assert_cmpint(readable_now(fds[0]), ==, POLLIN | POLLHUP);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 1);
    g_assert_cmpint(readable_now(fds[0]), ==, POLLHUP);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
    close(fds[0]);

    g_assert_cmpint(pipe(fds), ==, 0);
    close(fds[0]);
    g_assert_cmpint(readable_now(fds[1]), ==, POLLOUT | POLLERR);
    g_assert_cmpint(write(fds[1], &c, 1), ==, -1);
    g_assert_cmpint(errno, ==, EPIPE);
    close(fds[1]);
}

static void test_pipe_is_full(void)
{
    static char block[4096];
    int fds[2];
    unsigned n = 0;

    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(fcntl(fds[1], F_SETFL, O_NONBLOCK), ==, 0);
    while (write(fds[1], block, sizeof(block)) == sizeof(block)) {
        n++;
    }
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpuint(n, ==, 16);
    g_assert_cmpint(readable_now(fds[1]), ==, 0);
    g_assert_cmpint(read(fds[0], block, sizeof(block)), ==, sizeof(block));
    g_assert_cmpint(readable_now(fds[1]), ==, POLLOUT);
    close(fds[0]);
    close(fds[1]);
}

/* ---- epoll ----------------------------------------------------------------------------- */

static int watch(int epfd, int op, int fd, uint32_t events)
{
    struct epoll_event ev = { .events = events, .data.fd = fd };
    return port_epoll_ctl(epfd, op, fd, &ev);
}

static void test_epoll_is_level_triggered(void)
{
    struct epoll_event ev[4];
    int epfd = port_epoll_create(), a = port_eventfd(0), b = port_eventfd(1);

    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, a, EPOLLIN), ==, 0);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, a, EPOLLIN), ==, -EEXIST);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_MOD, b, EPOLLIN), ==, -ENOENT);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_DEL, b, 0), ==, -ENOENT);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 4, 0), ==, 0);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, b, EPOLLIN), ==, 0);
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(port_epoll_wait(epfd, ev, 4, -1), ==, 1);
        g_assert_cmpint(ev[0].data.fd, ==, b);
        g_assert_cmpint(ev[0].events, ==, EPOLLIN);
    }
    port_eventfd_signal(a);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 4, -1), ==, 2);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 1, -1), ==, 1);
    /* the descriptor of an epoll can be polled itself */
    g_assert_cmpint(readable_now(epfd), ==, POLLIN);
    port_eventfd_clear(a);
    port_eventfd_clear(b);
    g_assert_cmpint(readable_now(epfd), ==, 0);
    close(epfd);
    close(a);
    close(b);
}

static void test_epoll_one_shot(void)
{
    struct epoll_event ev[2];
    int epfd = port_epoll_create(), fd = port_eventfd(1);

    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLONESHOT), ==, 0);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 2, 0), ==, 1);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 2, 0), ==, 0);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT), ==, 0);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 2, 0), ==, 1);
    close(epfd);
    close(fd);
}

static void test_epoll_forgets_closed(void)
{
    struct epoll_event ev[2];
    int epfd = port_epoll_create(), fd = port_eventfd(1), copy = dup(fd);

    g_assert_cmpint(copy, >=, 0);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, fd, EPOLLIN), ==, 0);
    close(fd);
    /* another descriptor of the same eventfd is open: it is still watched */
    g_assert_cmpint(port_epoll_wait(epfd, ev, 2, 0), ==, 1);
    close(copy);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 2, 0), ==, 0);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, fd, EPOLLIN), ==, -EBADF);
    close(epfd);
}

static void test_epoll_refuses_files(void)
{
    int epfd = port_epoll_create();
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("conformance-XXXXXX", &name, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, fd, EPOLLIN), ==, -EPERM);
    g_assert_cmpint(readable_now(fd), ==, POLLIN | POLLOUT);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, epfd, EPOLLIN), ==, -EINVAL);
    close(fd);
    unlink(name);
    close(epfd);
}

static void test_epoll_hang_up_needs_no_asking(void)
{
    struct epoll_event ev[2];
    int epfd = port_epoll_create(), fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(watch(epfd, EPOLL_CTL_ADD, fds[0], 0), ==, 0);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 2, 0), ==, 0);
    close(fds[1]);
    g_assert_cmpint(port_epoll_wait(epfd, ev, 2, -1), ==, 1);
    g_assert_cmpint(ev[0].events, ==, EPOLLHUP);
    close(fds[0]);
    close(epfd);
}

static void test_epoll_timeouts(void)
{
    static const int64_t timeouts_ns[] = { 1, 999, 1500, 1 * MS, 2 * MS + 1 };
    struct epoll_event ev[1];
    int epfd = port_epoll_create();

    for (unsigned i = 0; i < G_N_ELEMENTS(timeouts_ns); i++) {
        int64_t start = port_clock_ns(false);
        g_assert_cmpint(port_epoll_wait(epfd, ev, 1, timeouts_ns[i]), ==, 0);
        g_assert_cmpint(port_clock_ns(false) - start, >=, timeouts_ns[i]);
    }
    close(epfd);
}

typedef struct Watcher {
    int epfd, fd;
} Watcher;

static void *watch_later(void *opaque)
{
    Watcher *w = opaque;
    g_assert_cmpint(watch(w->epfd, EPOLL_CTL_ADD, w->fd, EPOLLIN), ==, 0);
    return NULL;
}

/* What is added while somebody sleeps wakes him. */
static void test_epoll_changes_reach_the_sleeper(void)
{
    Watcher w = { .epfd = port_epoll_create(), .fd = port_eventfd(1) };
    struct epoll_event ev[1];
    pthread_t thread;

    g_assert_cmpint(port_thread_create(&thread, watch_later, &w, false), ==, 0);
    g_assert_cmpint(port_epoll_wait(w.epfd, ev, 1, -1), ==, 1);
    port_thread_join(thread);
    close(w.epfd);
    close(w.fd);
}

/* ---- locks ----------------------------------------------------------------------------- */

static pthread_mutex_t mutex;   /* all zero bytes: a valid one */
static pthread_cond_t cond;
static int turn;                /* protected by MUTEX */

static void *try_it(void *opaque)
{
    return GINT_TO_POINTER(port_mutex_trylock(&mutex));
}

static void test_trylock(void)
{
    pthread_t thread;

    g_assert_cmpint(port_mutex_trylock(&mutex), ==, 0);
    g_assert_cmpint(port_thread_create(&thread, try_it, NULL, false), ==, 0);
    g_assert_cmpint(GPOINTER_TO_INT(port_thread_join(thread)), ==, -EBUSY);
    port_mutex_unlock(&mutex);
    g_assert_cmpint(port_mutex_trylock(&mutex), ==, 0);
    port_mutex_unlock(&mutex);
}

enum { TURNS = 20 };

static void *take_turns(void *opaque)
{
    port_mutex_lock(&mutex);
    for (int i = 0; i < TURNS; i++) {
        while (turn % 2 == 0) {
            port_cond_wait(&cond, &mutex);
        }
        turn++;
        port_cond_signal(&cond);
    }
    port_mutex_unlock(&mutex);
    return NULL;
}

static void test_taking_turns(void)
{
    pthread_t thread;

    turn = 0;
    port_cond_init(&cond);
    g_assert_cmpint(port_thread_create(&thread, take_turns, NULL, false), ==, 0);
    port_mutex_lock(&mutex);
    for (int i = 0; i < TURNS; i++) {
        while (turn % 2 == 1) {
            port_cond_wait(&cond, &mutex);
        }
        turn++;
        port_cond_signal(&cond);
    }
    port_mutex_unlock(&mutex);
    port_thread_join(thread);
    g_assert_cmpint(turn, ==, 2 * TURNS);
    port_cond_destroy(&cond);
}

static void test_timed_wait(void)
{
    int64_t start = port_clock_ns(false);

    port_cond_init(&cond);
    port_mutex_lock(&mutex);
    g_assert_false(port_cond_timedwait(&cond, &mutex, 2 * MS));
    g_assert_cmpint(port_clock_ns(false) - start, >=, 2 * MS);
    g_assert_false(port_cond_timedwait(&cond, &mutex, -1));
    port_mutex_unlock(&mutex);
    port_cond_destroy(&cond);
}

/* Memory of a lock may be used again after it was destroyed. */
static void test_locks_come_and_go(void)
{
    for (int i = 0; i < 3; i++) {
        pthread_mutex_t *m = g_new0(pthread_mutex_t, 1);
        port_mutex_init(m);
        port_mutex_lock(m);
        port_mutex_unlock(m);
        port_mutex_destroy(m);
        port_mutex_init(m);
        port_mutex_destroy(m);
        g_free(m);
    }
}

static void test_kinds_of_mutexes(void)
{
    pthread_mutexattr_t attr;
    pthread_mutex_t m;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&m, &attr);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(pthread_mutex_lock(&m), ==, 0);
    }
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(pthread_mutex_unlock(&m), ==, 0);
    }
    pthread_mutex_destroy(&m);
    pthread_mutexattr_destroy(&attr);
}

static void test_misuse_of_a_mutex(void)
{
    pthread_mutex_t m;
    pthread_mutexattr_t attr;

    if (skip_misuse()) {
        return;
    }
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&m, &attr);
    g_assert_cmpint(pthread_mutex_lock(&m), ==, 0);
    g_assert_cmpint(pthread_mutex_lock(&m), ==, EDEADLK);
    g_assert_cmpint(pthread_mutex_unlock(&m), ==, 0);
    g_assert_cmpint(pthread_mutex_unlock(&m), ==, EPERM);
    pthread_mutex_destroy(&m);
    pthread_mutexattr_destroy(&attr);
}

/* ---- futexes --------------------------------------------------------------------------- */

static int word;                /* atomic */
static int sleeping;            /* atomic */

static void *sleep_on_word(void *opaque)
{
    qatomic_inc(&sleeping);
    while (qatomic_read(&word) == 0) {
        port_futex_wait(&word, 0);
    }
    return NULL;
}

static void test_futex(void)
{
    pthread_t threads[2];
    int unrelated = 0;

    qatomic_set(&word, 0);
    g_assert_cmpint(port_futex_wake(&unrelated, 1), ==, 0);
    port_futex_wait(&unrelated, 1);         /* another value: does not sleep */
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(port_thread_create(&threads[i], sleep_on_word, NULL, false), ==, 0);
    }
    while (qatomic_read(&sleeping) < 2) {
        port_cpu_relax();
    }
    qatomic_set_mb(&word, 1);
    int woken = port_futex_wake(&word, INT_MAX);
    g_assert_cmpint(woken, >=, 0);
    g_assert_cmpint(woken, <=, 2);
    for (int i = 0; i < 2; i++) {
        port_thread_join(threads[i]);
    }
}

/* ---- threads --------------------------------------------------------------------------- */

static PORT_THREAD_LOCAL int mine = 7;
static PORT_THREAD_LOCAL int zero;
static int destroyed;

static void *look_at_mine(void *opaque)
{
    int ret = mine * 10 + zero;
    mine = 8;
    zero = 8;
    return GINT_TO_POINTER(ret);
}

static void test_thread_local(void)
{
    pthread_t thread;

    mine = 3;
    zero = 3;
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(port_thread_create(&thread, look_at_mine, NULL, false), ==, 0);
        g_assert_cmpint(GPOINTER_TO_INT(port_thread_join(thread)), ==, 70);
    }
    g_assert_cmpint(mine, ==, 3);
    g_assert_cmpint(zero, ==, 3);
    mine = 7;
    zero = 0;
}

static void *set_errno(void *opaque)
{
    errno = EXDEV;
    return NULL;
}

static void test_errno_is_the_threads_own(void)
{
    pthread_t thread;

    errno = ENOSPC;
    g_assert_cmpint(port_thread_create(&thread, set_errno, NULL, false), ==, 0);
    port_thread_join(thread);
    g_assert_cmpint(errno, ==, ENOSPC);
}

static void at_exit(void *value)
{
    destroyed += GPOINTER_TO_INT(value);
}

static port_thread_key key;
static port_once once = PORT_ONCE_INIT;

static void make_key(void)
{
    port_thread_key_init(&key, at_exit);
}

static void *with_key(void *opaque)
{
    port_once_run(&once, make_key);
    port_thread_key_set(key, opaque);
    return NULL;
}

static void test_keys(void)
{
    pthread_t thread;

    destroyed = 0;
    for (int i = 1; i <= 3; i++) {
        g_assert_cmpint(port_thread_create(&thread, with_key, GINT_TO_POINTER(i), false),
                        ==, 0);
        port_thread_join(thread);
    }
    g_assert_cmpint(destroyed, ==, 6);
}

static void *say_who(void *opaque)
{
    pthread_t *self = opaque;
    char name[16];

    *self = port_thread_self();
    port_thread_name(port_thread_id(), name);
    g_assert_cmpuint(strlen(name), <, 16);
    return GINT_TO_POINTER(port_thread_id());
}

static void test_identity(void)
{
    pthread_t thread, self;

    g_assert_cmpint(port_thread_create(&thread, say_who, &self, false), ==, 0);
    int id = GPOINTER_TO_INT(port_thread_join(thread));
    g_assert_cmpint(id, !=, port_thread_id());
    g_assert_false(port_thread_equal(self, port_thread_self()));
    g_assert_true(port_thread_equal(self, thread));
    g_assert_cmpint(getpid(), ==, port_thread_id());
}

static void test_affinity(void)
{
    cpu_set_t cpus, none;

    CPU_ZERO(&none);
    g_assert_cmpint(port_process_affinity(&cpus), ==, 0);
    g_assert_cmpint(CPU_COUNT(&cpus), >, 0);
    g_assert_cmpint(port_thread_set_affinity(port_thread_self(), &cpus), ==, 0);
    g_assert_cmpint(port_thread_set_affinity(port_thread_self(), &none), ==, -EINVAL);
}

/* ---- clocks ---------------------------------------------------------------------------- */

static void test_clocks_go_forward(void)
{
    int64_t wall = port_clock_ns(true), steady = port_clock_ns(false);

    g_assert_cmpint(wall, >, INT64_C(1700000000) * 1000 * MS);
    usleep(100);
    g_assert_cmpint(port_clock_ns(false) - steady, >=, 100000);
    /* a loop that waits for a time ends */
    while (port_clock_ns(false) - steady < 1 * MS) {
        port_cpu_relax();
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    g_test_add_func("/conformance/eventfd/counts", test_eventfd_counts_and_clears);
    g_test_add_func("/conformance/eventfd/overflow", test_eventfd_overflow);
    g_test_add_func("/conformance/eventfd/semaphore", test_eventfd_semaphore);
    g_test_add_func("/conformance/eventfd/blocking", test_blocking_eventfd);
    g_test_add_func("/conformance/fd/closed", test_closed_descriptors);
    g_test_add_func("/conformance/fd/lowest", test_lowest_descriptor_first);
    g_test_add_func("/conformance/fd/closed-by-another", test_file_closed_by_another);
    g_test_add_func("/conformance/poll/timeouts", test_poll_timeouts);
    g_test_add_func("/conformance/pipe/hang-up", test_pipe_hang_up);
    g_test_add_func("/conformance/pipe/full", test_pipe_is_full);
    g_test_add_func("/conformance/epoll/level", test_epoll_is_level_triggered);
    g_test_add_func("/conformance/epoll/one-shot", test_epoll_one_shot);
    g_test_add_func("/conformance/epoll/closed", test_epoll_forgets_closed);
    g_test_add_func("/conformance/epoll/files", test_epoll_refuses_files);
    g_test_add_func("/conformance/epoll/hang-up", test_epoll_hang_up_needs_no_asking);
    g_test_add_func("/conformance/epoll/timeouts", test_epoll_timeouts);
    g_test_add_func("/conformance/epoll/changes", test_epoll_changes_reach_the_sleeper);
    g_test_add_func("/conformance/mutex/trylock", test_trylock);
    g_test_add_func("/conformance/mutex/come-and-go", test_locks_come_and_go);
    g_test_add_func("/conformance/mutex/kinds", test_kinds_of_mutexes);
    g_test_add_func("/conformance/mutex/misuse", test_misuse_of_a_mutex);
    g_test_add_func("/conformance/cond/turns", test_taking_turns);
    g_test_add_func("/conformance/cond/timed", test_timed_wait);
    g_test_add_func("/conformance/futex", test_futex);
    g_test_add_func("/conformance/thread/local", test_thread_local);
    g_test_add_func("/conformance/thread/errno", test_errno_is_the_threads_own);
    g_test_add_func("/conformance/thread/keys", test_keys);
    g_test_add_func("/conformance/thread/identity", test_identity);
    g_test_add_func("/conformance/thread/affinity", test_affinity);
    g_test_add_func("/conformance/clock", test_clocks_go_forward);
    return g_test_run();
}
