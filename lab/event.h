/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptors of the lab: eventfds, pipes, epoll; and sockets (socket.h) and files (files.h),
 * which come in by lab_fd_open(). Numbers begin at LAB_FD_BASE, lowest free first; what is
 * below belongs to the real system. Calls are shaped like the system's: -1 and errno.
 */
#ifndef LAB_EVENT_H
#define LAB_EVENT_H

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { LAB_FD_BASE = 10000, LAB_FDS_MAX = 1024 };

static inline int lab_errno(int err)
{
    errno = err;
    return -1;
}

/* An open file description. */
typedef struct LabFile LabFile;

/*
 * What a descriptor is. All but READY may be NULL (EINVAL). Points have been passed before,
 * blocking is the callee's.
 */
typedef struct LabFdOps {
    const char *name;
    unsigned type;                      /* S_IFIFO, S_IFSOCK, or 0: for fstat() */
    /* POLLIN, POLLOUT, POLLHUP... as they are now. */
    unsigned (*ready)(const void *opaque);
    ssize_t (*readv)(LabFile *file, void *opaque, const struct iovec *iov, int n);
    ssize_t (*writev)(LabFile *file, void *opaque, const struct iovec *iov, int n);
    void (*close)(void *opaque);        /* its last descriptor */
    bool always_ready;                  /* epoll refuses it with EPERM, as it does files */
} LabFdOps;

/* FLAGS: O_NONBLOCK, O_CLOEXEC. The descriptor, or -1 with EMFILE. */
int lab_fd_open(const LabFdOps *ops, void *opaque, int flags);
static inline bool lab_fd_is_virtual(int fd)
{
    return fd >= LAB_FD_BASE && fd < LAB_FD_BASE + LAB_FDS_MAX;
}
/*
 * What is done to FD is seen elsewhere, at the other end of a connection or in the same file by
 * another descriptor: points of both have the object OBJECT.
 */
void lab_fd_shares(int fd, uintptr_t object);
/* The description behind FD when it is open and made with OPS, or else NULL and EBADF. */
void *lab_fd_lookup(int fd, const LabFdOps *ops);
/* The type of FD; EBADF as above. */
int lab_fd_type(int fd);

int lab_close(int fd);
int lab_dup(int fd);
/* F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD, F_DUPFD_CLOEXEC. */
int lab_fd_fcntl(int fd, int cmd, long arg);
ssize_t lab_readv(int fd, const struct iovec *iov, int n);
ssize_t lab_writev(int fd, const struct iovec *iov, int n);
ssize_t lab_read(int fd, void *buffer, size_t size);
ssize_t lab_write(int fd, const void *buffer, size_t size);

int lab_eventfd(unsigned initial, int flags);
int lab_pipe(int fds[2], int flags);

int lab_epoll_create(void);
int lab_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);
/* TIMEOUT_NS < 0: none. */
int lab_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns);
/* Real descriptors among FDS are asked without waiting, but for the last resort. */
int lab_poll(struct pollfd *fds, nfds_t n, int64_t timeout_ns);

#endif
