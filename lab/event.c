/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of descriptors, and eventfds. */
#include "miniblk/osdep.h"
#include <sys/eventfd.h>
#include "lab/event-internal.h"
#include "lab/tsan.h"
#include "lab/world.h"

typedef struct Descriptor {
    LabFile *file;              /* NULL: free */
    int flags;                  /* FD_CLOEXEC */
} Descriptor;

static Descriptor descriptors[LAB_FDS_MAX];

/* ---- the table ------------------------------------------------------------------------- */

LabFile *lab__file(int fd)
{
    LabFile *file = lab_fd_is_virtual(fd) ? descriptors[fd - LAB_FD_BASE].file : NULL;
    if (!file) {
        errno = EBADF;
    }
    return file;
}

static int install(LabFile *file, int lowest, int fd_flags)
{
    for (int i = MAX(lowest - LAB_FD_BASE, 0); i < LAB_FDS_MAX; i++) {
        if (!descriptors[i].file) {
            descriptors[i] = (Descriptor) { file, fd_flags };
            file->users++;
            return LAB_FD_BASE + i;
        }
    }
    errno = EMFILE;
    return -1;
}

int lab_fd_open(const LabFdOps *ops, void *opaque, int flags)
{
    LabFile *file = calloc(1, sizeof(*file));

    *file = (LabFile) { .ops = ops, .opaque = opaque, .flags = flags & O_NONBLOCK };
    int fd = install(file, 0, flags & O_CLOEXEC ? FD_CLOEXEC : 0);
    if (fd < 0) {
        free(file);
        errno = EMFILE;
    } else {
        file->id = fd;
    }
    return fd;
}

void *lab_fd_lookup(int fd, const LabFdOps *ops)
{
    LabFile *file = lab__file(fd);
    if (file && file->ops != ops) {
        errno = EBADF;
        return NULL;
    }
    return file ? file->opaque : NULL;
}

void lab_fd_shares(int fd, uintptr_t object)
{
    lab__file(fd)->id = object;
}

int lab_fd_type(int fd)
{
    LabFile *file = lab__file(fd);
    return file ? (int)file->ops->type : -1;
}

const char *lab__fd_name(int fd)
{
    LabFile *file = lab_fd_is_virtual(fd) ? descriptors[fd - LAB_FD_BASE].file : NULL;
    return file ? file->ops->name : "descriptor";
}

LabFile *lab__file_get(int fd, LabOpKind kind, uintptr_t object)
{
    LabFile *file = lab__file(fd);
    if (file) {
        lab_syscall_point(kind, object ? object : file->id, kind != LAB_OP_POLL);
        file = lab__file(fd);
    }
    if (file) {
        file->users++;
    }
    return file;
}

static void forget_watched(const LabFile *file)
{
    for (int i = 0; i < LAB_FDS_MAX && file->watched; i++) {
        LabFile *other = descriptors[i].file;
        if (other && other->ops == &lab__epoll_ops) {
            lab__epoll_forget(other->opaque, file);
        }
    }
}

void lab__file_put(LabFile *file)
{
    if (--file->users == 0) {
        forget_watched(file);
        if (file->ops->close) {
            file->ops->close(file->opaque);
        }
        free(file);
        lab_changed();
    }
}

int lab_close(int fd)
{
    LabFile *file = lab__file_get(fd, LAB_OP_SYSCALL, 0);
    if (!file) {
        return -1;
    }
    descriptors[fd - LAB_FD_BASE].file = NULL;
    lab__file_put(file);        /* the descriptor's use */
    lab__file_put(file);
    lab_changed();
    return 0;
}

int lab_dup(int fd)
{
    return lab_fd_fcntl(fd, F_DUPFD, 0);
}

int lab_fd_fcntl(int fd, int cmd, long arg)
{
    LabFile *file = lab__file(fd);
    if (!file) {
        return -1;
    }
    Descriptor *d = &descriptors[fd - LAB_FD_BASE];
    switch (cmd) {
    case F_GETFL:
        return O_RDWR | file->flags;
    case F_SETFL:
        file->flags = arg & O_NONBLOCK;
        return 0;
    case F_GETFD:
        return d->flags;
    case F_SETFD:
        d->flags = arg & FD_CLOEXEC;
        return 0;
    case F_DUPFD:
        return install(file, arg, 0);
    case F_DUPFD_CLOEXEC:
        return install(file, arg, FD_CLOEXEC);
    default:
        errno = EINVAL;
        return -1;
    }
}

ssize_t lab_readv(int fd, const struct iovec *iov, int n)
{
    LabFile *file = lab__file_get(fd, LAB_OP_EVENT_READ, 0);
    ssize_t ret = -1;

    if (!file) {
        return -1;
    }
    if (file->ops->readv) {
        ret = file->ops->readv(file, file->opaque, iov, n);
    } else {
        errno = EINVAL;
    }
    if (ret >= 0) {
        lab_busy();
    }
    lab__file_put(file);
    return ret;
}

ssize_t lab_writev(int fd, const struct iovec *iov, int n)
{
    LabFile *file = lab__file_get(fd, LAB_OP_EVENT_WRITE, 0);
    ssize_t ret = -1;

    if (!file) {
        return -1;
    }
    if (file->ops->writev) {
        ret = file->ops->writev(file, file->opaque, iov, n);
    } else {
        errno = EINVAL;
    }
    lab__file_put(file);
    return ret;
}

ssize_t lab_read(int fd, void *buffer, size_t size)
{
    struct iovec iov = { buffer, size };
    return lab_readv(fd, &iov, 1);
}

ssize_t lab_write(int fd, const void *buffer, size_t size)
{
    struct iovec iov = { (void *)buffer, size };
    return lab_writev(fd, &iov, 1);
}

/* ---- waiting for a descriptor ---------------------------------------------------------- */

bool lab__wait_or_again(const LabFile *file, bool dontwait, LabOpKind kind, const char *where,
                        bool (*can)(const void *), const void *opaque)
{
    if (can(opaque)) {
        return true;
    }
    if (dontwait || (file->flags & O_NONBLOCK)) {
        errno = EAGAIN;
        return false;
    }
    LabBlock block = {
        .op = { .kind = kind, .is_write = true, .object = file->id, .where = where },
        .ready = can, .opaque = opaque, .deadline_ns = -1,
    };
    lab_block(&block);
    return true;
}

/* ---- eventfds -------------------------------------------------------------------------- */

typedef struct EventFd {
    uint64_t counter;
    bool semaphore;
} EventFd;

/* What a writer wants to add. */
typedef struct Adding {
    const EventFd *e;
    uint64_t value;
} Adding;

static const uint64_t counter_max = UINT64_MAX - 1;

static bool eventfd_readable(const void *opaque)
{
    return ((const EventFd *)opaque)->counter > 0;
}

static bool eventfd_writable(const void *opaque)
{
    const Adding *adding = opaque;
    return adding->value <= counter_max - adding->e->counter;
}

static unsigned eventfd_ready(const void *opaque)
{
    const EventFd *e = opaque;
    return (e->counter > 0 ? POLLIN : 0) | (e->counter < counter_max ? POLLOUT : 0);
}

static ssize_t eventfd_readv(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    EventFd *e = opaque;

    if (n < 1 || iov[0].iov_len < sizeof(uint64_t)) {
        errno = EINVAL;
        return -1;
    }
    if (!lab__wait_or_again(file, false, LAB_OP_EVENT_READ, NULL, eventfd_readable, e)) {
        return -1;
    }
    uint64_t value = e->semaphore ? 1 : e->counter;
    e->counter -= value;
    lab_acquire(e);
    memcpy(iov[0].iov_base, &value, sizeof(value));
    lab_changed();
    return sizeof(value);
}

static ssize_t eventfd_writev(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    EventFd *e = opaque;
    uint64_t value;

    if (n < 1 || iov[0].iov_len < sizeof(value)) {
        errno = EINVAL;
        return -1;
    }
    memcpy(&value, iov[0].iov_base, sizeof(value));
    if (value == UINT64_MAX) {
        errno = EINVAL;
        return -1;
    }
    Adding adding = { e, value };
    if (!lab__wait_or_again(file, false, LAB_OP_EVENT_WRITE, NULL, eventfd_writable,
                            &adding)) {
        return -1;
    }
    lab_release(e);
    e->counter += value;
    lab_changed();
    return sizeof(value);
}

static void eventfd_close(void *opaque)
{
    free(opaque);
}

static const LabFdOps eventfd_ops = {
    .name = "eventfd",
    .ready = eventfd_ready,
    .readv = eventfd_readv,
    .writev = eventfd_writev,
    .close = eventfd_close,
};

int lab_eventfd(unsigned initial, int flags)
{
    EventFd *e = calloc(1, sizeof(*e));
    e->counter = initial;
    e->semaphore = flags & EFD_SEMAPHORE;
    G_STATIC_ASSERT(EFD_NONBLOCK == O_NONBLOCK && EFD_CLOEXEC == O_CLOEXEC);
    int fd = lab_fd_open(&eventfd_ops, e, flags & (O_NONBLOCK | O_CLOEXEC));
    if (fd < 0) {
        free(e);
    }
    return fd;
}

void lab_eventfd_post(int fd)
{
    EventFd *e = lab_fd_lookup(fd, &eventfd_ops);
    if (e && e->counter < counter_max) {
        e->counter++;
        lab_changed();
    }
}
