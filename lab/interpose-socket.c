/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libc's calls for sockets. Those that a case makes are the lab's; see socket.h. */
#undef _FORTIFY_SOURCE
#include "miniblk/osdep.h"
#include "lab/event.h"
#include "lab/real.h"
#include "lab/socket.h"
#include "lab/world.h"

/* ---- making and connecting ------------------------------------------------------------- */

/* Names are files, and so the lab's in a case only; a pair has no names. */
int socket(int domain, int type, int protocol)
{
    return lab_running ? lab_socket(domain, type) : REAL(socket)(domain, type, protocol);
}
int socketpair(int domain, int type, int protocol, int fds[2])
{
    return lab_inside() ? lab_socketpair(domain, type, fds)
                        : REAL(socketpair)(domain, type, protocol, fds);
}
int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    return lab_fd_is_virtual(fd) ? lab_bind(fd, address, size)
                                 : REAL(bind)(fd, address, size);
}
int listen(int fd, int backlog)
{
    return lab_fd_is_virtual(fd) ? lab_listen(fd, backlog) : REAL(listen)(fd, backlog);
}
int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    return lab_fd_is_virtual(fd) ? lab_connect(fd, address, size)
                                 : REAL(connect)(fd, address, size);
}
int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return lab_fd_is_virtual(fd) ? lab_accept(fd, address, size, flags)
                                 : REAL(accept4)(fd, address, size, flags);
}
int accept(int fd, struct sockaddr *address, socklen_t *size)
{
    return accept4(fd, address, size, 0);
}
int shutdown(int fd, int how)
{
    return lab_fd_is_virtual(fd) ? lab_shutdown(fd, how) : REAL(shutdown)(fd, how);
}

/* ---- data ------------------------------------------------------------------------------ */

ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
    struct iovec iov = { (void *)buffer, size };
    return lab_fd_is_virtual(fd) ? lab_sendv(fd, &iov, 1, flags)
                                 : REAL(send)(fd, buffer, size, flags);
}
ssize_t sendto(int fd, const void *buffer, size_t size, int flags,
               const struct sockaddr *address, socklen_t address_size)
{
    if (lab_fd_is_virtual(fd) && address) {
        lab_unsupported("sendto() with an address");
    }
    return lab_fd_is_virtual(fd)
           ? send(fd, buffer, size, flags)
           : REAL(sendto)(fd, buffer, size, flags, address, address_size);
}
ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (lab_fd_is_virtual(fd) && (msg->msg_controllen || msg->msg_name)) {
        lab_unsupported("sendmsg() with an address or control data");
    }
    return lab_fd_is_virtual(fd) ? lab_sendv(fd, msg->msg_iov, msg->msg_iovlen, flags)
                                 : REAL(sendmsg)(fd, msg, flags);
}
ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    struct iovec iov = { buffer, size };

    if (lab_fd_is_virtual(fd)) {
        return lab_recvv(fd, &iov, 1, flags);
    }
    lab_image_touch(buffer, size);
    return REAL(recv)(fd, buffer, size, flags);
}
ssize_t recvfrom(int fd, void *restrict buffer, size_t size, int flags,
                 struct sockaddr *restrict address, socklen_t *restrict address_size)
{
    if (!lab_fd_is_virtual(fd)) {
        lab_image_touch(buffer, size);
        return REAL(recvfrom)(fd, buffer, size, flags, address, address_size);
    }
    if (address) {
        *address_size = 0;
    }
    return recv(fd, buffer, size, flags);
}
ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    if (!lab_fd_is_virtual(fd)) {
        return REAL(recvmsg)(fd, msg, flags);
    }
    msg->msg_namelen = 0;
    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    return lab_recvv(fd, msg->msg_iov, msg->msg_iovlen, flags);
}
/* What a build with _FORTIFY_SOURCE calls. */
ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t room, int flags);
ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t room, int flags)
{
    return recv(fd, buffer, size, flags);
}

/* ---- names and options ------------------------------------------------------------------ */

int getsockname(int fd, struct sockaddr *restrict address, socklen_t *restrict size)
{
    return lab_fd_is_virtual(fd) ? lab_socket_name(fd, false, address, size)
                                 : REAL(getsockname)(fd, address, size);
}
int getpeername(int fd, struct sockaddr *restrict address, socklen_t *restrict size)
{
    return lab_fd_is_virtual(fd) ? lab_socket_name(fd, true, address, size)
                                 : REAL(getpeername)(fd, address, size);
}
int getsockopt(int fd, int level, int option, void *restrict value, socklen_t *restrict size)
{
    return lab_fd_is_virtual(fd) ? lab_getsockopt(fd, level, option, value, size)
                                 : REAL(getsockopt)(fd, level, option, value, size);
}
int setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    return lab_fd_is_virtual(fd) ? lab_setsockopt(fd, level, option, value, size)
                                 : REAL(setsockopt)(fd, level, option, value, size);
}
