/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * UNIX stream sockets. Names are files of the lab (inode.h). Calls are shaped like the
 * system's: -1 and errno; each is a point. What is not said here ends the case as out of the
 * lab's reach: other kinds of sockets, descriptors in messages, names that are no files.
 */
#ifndef LAB_SOCKET_H
#define LAB_SOCKET_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* TYPE with SOCK_NONBLOCK and SOCK_CLOEXEC. */
int lab_socket(int domain, int type);
int lab_socketpair(int domain, int type, int fds[2]);
int lab_bind(int fd, const struct sockaddr *address, socklen_t size);
int lab_listen(int fd, int backlog);
int lab_connect(int fd, const struct sockaddr *address, socklen_t size);
/* FLAGS: SOCK_NONBLOCK, SOCK_CLOEXEC. */
int lab_accept(int fd, struct sockaddr *address, socklen_t *size, int flags);
int lab_shutdown(int fd, int how);
/* The name of FD's own end, or of its peer's. */
int lab_socket_name(int fd, bool peer, struct sockaddr *address, socklen_t *size);
/* Options of SOL_SOCKET; those that can be set have no effect on a UNIX socket. */
int lab_getsockopt(int fd, int level, int option, void *value, socklen_t *size);
int lab_setsockopt(int fd, int level, int option, const void *value, socklen_t size);
/* FLAGS: MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK. */
ssize_t lab_sendv(int fd, const struct iovec *iov, int n, int flags);
ssize_t lab_recvv(int fd, const struct iovec *iov, int n, int flags);

#endif
