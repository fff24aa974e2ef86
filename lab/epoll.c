/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* poll() and epoll, level triggered. */
#include "miniblk/osdep.h"
#include <dlfcn.h>
#include "lab/event-internal.h"
#include "lab/tsan.h"
#include "lab/world.h"

enum { NESTING_MAX = 5 };       /* of epoll descriptors in each other, as in Linux */

typedef struct Interest {
    int fd;
    LabFile *file;              /* NULL: FD is a real one */
    struct epoll_event event;
    bool disarmed;              /* EPOLLONESHOT has been reported */
} Interest;

typedef struct LabEpoll {
    unsigned n, capacity;
    Interest *interest;         /* in the order in which they were added */
} LabEpoll;

/* Ask the real system, at once. */
static unsigned real_ready(int fd, unsigned events)
{
    static int (*real_poll)(struct pollfd *, nfds_t, int) LAB_KEEP;
    struct pollfd p = { .fd = fd, .events = events };

    if (!real_poll) {
        real_poll = dlsym(RTLD_NEXT, "poll");
    }
    return real_poll(&p, 1, 0) == 1 ? p.revents : 0;
}

static bool is_file(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

static unsigned ready_of(int fd, const LabFile *file, unsigned events)
{
    unsigned always = POLLERR | POLLHUP;
    return file ? file->ops->ready(file->opaque) & (events | always) : real_ready(fd, events);
}

/* ---- epoll ----------------------------------------------------------------------------- */

static unsigned interest_ready(const Interest *i)
{
    return i->disarmed ? 0 : ready_of(i->fd, i->file, i->event.events);
}

static bool any_ready(const void *opaque)
{
    const LabEpoll *e = opaque;
    for (unsigned i = 0; i < e->n; i++) {
        if (interest_ready(&e->interest[i])) {
            return true;
        }
    }
    return false;
}

static unsigned epoll_ready(const void *opaque)
{
    return any_ready(opaque) ? POLLIN : 0;
}

static void epoll_close(void *opaque)
{
    LabEpoll *e = opaque;
    for (unsigned i = 0; i < e->n; i++) {
        if (e->interest[i].file) {
            e->interest[i].file->watched--;
        }
    }
    free(e->interest);
    free(e);
}

const LabFdOps lab__epoll_ops = {
    .name = "epoll",
    .ready = epoll_ready,
    .close = epoll_close,
};

static void remove_interest(LabEpoll *e, unsigned i)
{
    if (e->interest[i].file) {
        e->interest[i].file->watched--;
    }
    e->n--;
    memmove(&e->interest[i], &e->interest[i + 1], (e->n - i) * sizeof(e->interest[0]));
}

void lab__epoll_forget(LabEpoll *e, const LabFile *file)
{
    for (unsigned i = e->n; i-- > 0;) {
        if (e->interest[i].file == file) {
            remove_interest(e, i);
        }
    }
}

int lab_epoll_create(void)
{
    return lab_fd_open(&lab__epoll_ops, calloc(1, sizeof(LabEpoll)), O_CLOEXEC);
}

/* How deep the epoll descriptors below E nest; above NESTING_MAX: too deep, or a circle. */
static unsigned nesting(const LabEpoll *e, unsigned depth)
{
    unsigned deepest = depth;
    for (unsigned i = 0; i < e->n && deepest <= NESTING_MAX; i++) {
        const LabFile *file = e->interest[i].file;
        if (file && file->ops == &lab__epoll_ops) {
            deepest = MAX(deepest, nesting(file->opaque, depth + 1));
        }
    }
    return deepest;
}

static int add_interest(LabEpoll *e, int fd, LabFile *file, const struct epoll_event *event)
{
    if (e->n == e->capacity) {
        e->capacity = e->capacity ? 2 * e->capacity : 4;
        e->interest = realloc(e->interest, e->capacity * sizeof(e->interest[0]));
    }
    e->interest[e->n++] = (Interest) { .fd = fd, .file = file, .event = *event };
    if (file) {
        file->watched++;
    }
    if (nesting(e, 0) > NESTING_MAX) {
        remove_interest(e, e->n - 1);
        return ELOOP;
    }
    return 0;
}

static int change_interest(LabEpoll *e, int op, int fd, const struct epoll_event *event)
{
    LabFile *file = lab_fd_is_virtual(fd) ? lab__file(fd) : NULL;
    unsigned i = 0;

    if (lab_fd_is_virtual(fd) && !file) {
        return EBADF;
    }
    if (file ? file->ops->always_ready || !file->ops->ready : is_file(fd)) {
        return EPERM;
    }
    if ((file && file->opaque == e) || (op != EPOLL_CTL_DEL && event->events & EPOLLET)) {
        return EINVAL;          /* edges are not modelled */
    }
    while (i < e->n && !(e->interest[i].fd == fd && e->interest[i].file == file)) {
        i++;
    }
    if (op == EPOLL_CTL_ADD) {
        return i < e->n ? EEXIST : add_interest(e, fd, file, event);
    }
    if (i == e->n) {
        return ENOENT;
    }
    if (op == EPOLL_CTL_DEL) {
        remove_interest(e, i);
    } else if (op == EPOLL_CTL_MOD) {
        e->interest[i].event = *event;
        e->interest[i].disarmed = false;
    } else {
        return EINVAL;
    }
    return 0;
}

/* lab__file_get() of what must be an epoll descriptor. */
static LabFile *get_epoll(int epfd, LabOpKind kind)
{
    LabFile *file = lab__file_get(epfd, kind, 0);
    if (file && file->ops != &lab__epoll_ops) {
        lab__file_put(file);
        errno = EINVAL;
        return NULL;
    }
    return file;
}

int lab_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    LabFile *file = get_epoll(epfd, LAB_OP_SYSCALL);
    if (!file) {
        return -1;
    }
    lab_release(file);
    int err = change_interest(file->opaque, op, fd, event);
    lab__file_put(file);
    lab_changed();
    errno = err ? err : errno;
    return err ? -1 : 0;
}

/* The ready ones, in an order that is a choice. */
static int collect(LabEpoll *e, struct epoll_event *events, int max)
{
    unsigned n_ready = 0;
    unsigned short ready[LAB_FDS_MAX];
    int n = 0;

    for (unsigned i = 0; i < e->n && n_ready < LAB_FDS_MAX; i++) {
        if (interest_ready(&e->interest[i])) {
            ready[n_ready++] = i;
        }
    }
    while (n < max && n_ready > 0) {
        unsigned pick = n_ready > 1 ? lab_choose(LAB_CHOICE_READY, n_ready) : 0;
        Interest *i = &e->interest[ready[pick]];
        n_ready--;
        memmove(&ready[pick], &ready[pick + 1], (n_ready - pick) * sizeof(ready[0]));
        events[n].events = interest_ready(i);
        events[n++].data = i->event.data;
        i->disarmed = i->event.events & EPOLLONESHOT;
    }
    return n;
}

/* Wait until READY(OPAQUE) or TIMEOUT_NS have passed. */
static void wait_for(bool (*ready)(const void *), const void *opaque, uintptr_t object,
                     int64_t timeout_ns)
{
    if (timeout_ns != 0) {
        LabBlock block = {
            .op = { .kind = LAB_OP_POLL_RETURN, .object = object },
            .ready = ready, .opaque = opaque,
            .deadline_ns = timeout_ns < 0 ? -1 : lab__engine.now_ns + timeout_ns,
        };
        lab_block(&block);
    }
}

/* Whoever polls without waiting and finds nothing may be spinning. */
static int polled(int n, int64_t timeout_ns)
{
    if (n > 0) {
        lab_busy();
    } else if (timeout_ns == 0) {
        lab_idle();
    }
    return n;
}

int lab_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    LabFile *file = get_epoll(epfd, LAB_OP_POLL);
    int n = -1;

    if (!file) {
        return -1;
    }
    if (max > 0) {
        wait_for(any_ready, file->opaque, file->id, timeout_ns);
        lab_acquire(file);
        n = polled(collect(file->opaque, events, max), timeout_ns);
    } else {
        errno = EINVAL;
    }
    lab__file_put(file);
    return n;
}

/* ---- poll ------------------------------------------------------------------------------ */

typedef struct PollSet {
    struct pollfd *fds;
    nfds_t n;
} PollSet;

static unsigned poll_ready(const struct pollfd *p)
{
    if (p->fd < 0) {
        return 0;
    }
    if (lab_fd_is_virtual(p->fd)) {
        LabFile *file = lab__file(p->fd);
        if (!file) {
            return POLLNVAL;
        }
        return file->ops->ready ? ready_of(p->fd, file, p->events)
                                : p->events & (POLLIN | POLLOUT);
    }
    return real_ready(p->fd, p->events);
}

static bool any_polled(const void *opaque)
{
    const PollSet *set = opaque;
    for (nfds_t i = 0; i < set->n; i++) {
        if (poll_ready(&set->fds[i])) {
            return true;
        }
    }
    return false;
}

int lab_poll(struct pollfd *fds, nfds_t n, int64_t timeout_ns)
{
    PollSet set = { fds, n };
    int count = 0;

    lab_syscall_point(LAB_OP_POLL, 0, false);
    wait_for(any_polled, &set, 0, timeout_ns);
    for (nfds_t i = 0; i < n; i++) {
        fds[i].revents = poll_ready(&fds[i]);
        count += fds[i].revents != 0;
    }
    return polled(count, timeout_ns);
}
