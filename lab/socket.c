/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See socket.h. What is said of errors and of poll() is unix(7)'s and what Linux does. */
#include "miniblk/osdep.h"
#include "lab/real.h"
#include "lab/socket-internal.h"

/* ---- life ------------------------------------------------------------------------------ */

LabSocket *lab__socket_new(void)
{
    LabSocket *s = g_new0(LabSocket, 1);
    QSIMPLEQ_INIT(&s->pending);
    return s;
}

void lab__socket_join(LabSocket *a, LabSocket *b)
{
    a->state = b->state = CONNECTED;
    a->peer = b;
    b->peer = a;
    a->out = b->in = lab__stream_new();
    b->out = a->in = lab__stream_new();
}

/* RESET: the connection ends before somebody has taken it. */
static void socket_free(LabSocket *s, bool reset)
{
    if (s->peer) {
        if (reset || s->in->used) {
            s->peer->error = ECONNRESET;
        }
        s->peer->peer = NULL;
    }
    lab__stream_leave(s->in, true);
    lab__stream_leave(s->out, false);
    g_free(s->name);
    g_free(s->peer_name);
    g_free(s);
}

static void socket_close(void *opaque)
{
    LabSocket *s = opaque, *server_end;

    while ((server_end = QSIMPLEQ_FIRST(&s->pending))) {
        QSIMPLEQ_REMOVE_HEAD(&s->pending, next);
        socket_free(server_end, true);
    }
    if (s->inode) {
        s->inode->socket = NULL;
        lab_inode_unref(s->inode);
    }
    socket_free(s, false);
}

/* A socket is writable while no more than a quarter of its buffer is used. */
static bool has_room(const LabStream *s)
{
    return s->used <= LAB_STREAM_CAPACITY / 4 || lab__stream_ended(s);
}

static unsigned socket_ready(const void *opaque)
{
    const LabSocket *s = opaque;

    if (s->state == FRESH) {
        return POLLOUT | POLLHUP;
    }
    if (s->state == LISTENING) {
        return s->n_pending ? POLLIN : 0;
    }
    bool in_ended = lab__stream_ended(s->in), out_ended = lab__stream_ended(s->out);
    return (s->in->used || in_ended ? POLLIN : 0) | (in_ended ? POLLRDHUP : 0) |
           (has_room(s->out) ? POLLOUT : 0) | (in_ended && out_ended ? POLLHUP : 0) |
           (s->error ? POLLERR : 0);
}

/* ---- data ------------------------------------------------------------------------------ */

static ssize_t receive(const LabFile *file, LabSocket *s, const struct iovec *iov, int n,
                       int flags)
{
    if (s->state != CONNECTED) {
        return lab_errno(EINVAL);
    }
    if (lab__iov_size(iov, n) == 0) {
        return 0;
    }
    if (!lab__stream_await(file, s->in, flags & MSG_DONTWAIT)) {
        return -1;
    }
    if (s->in->used == 0 && s->error) {
        int err = s->error;
        s->error = 0;
        return lab_errno(err);
    }
    lab_busy();
    return lab__stream_take(s->in, iov, n, flags & MSG_PEEK);
}

static ssize_t transmit(const LabFile *file, LabSocket *s, const struct iovec *iov, int n,
                        int flags)
{
    if (s->state != CONNECTED) {
        return lab_errno(ENOTCONN);
    }
    if (lab__stream_ended(s->out)) {
        return lab_errno(EPIPE);
    }
    return lab__stream_write(file, s->out, iov, n, false, flags & MSG_DONTWAIT);
}

static ssize_t socket_readv(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    return receive(file, opaque, iov, n, 0);
}

static ssize_t socket_writev(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    return transmit(file, opaque, iov, n, 0);
}

static const LabFdOps socket_ops = {
    .name = "socket",
    .type = S_IFSOCK,
    .ready = socket_ready,
    .readv = socket_readv,
    .writev = socket_writev,
    .close = socket_close,
};

/* lab__file_get() of what must be a socket. */
LabFile *lab__socket_get(int fd, LabOpKind kind, uintptr_t object)
{
    LabFile *file = lab__file_get(fd, kind, object);
    if (file && file->ops != &socket_ops) {
        lab__file_put(file);
        errno = ENOTSOCK;
        return NULL;
    }
    return file;
}

ssize_t lab_recvv(int fd, const struct iovec *iov, int n, int flags)
{
    if (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_PEEK | MSG_CMSG_CLOEXEC)) {
        lab_unsupported("recv() with other flags than MSG_DONTWAIT and MSG_PEEK");
    }
    LabFile *file = lab__socket_get(fd, LAB_OP_EVENT_READ, 0);
    if (!file) {
        return -1;
    }
    ssize_t ret = receive(file, file->opaque, iov, n, flags);
    lab__file_put(file);
    return ret;
}

ssize_t lab_sendv(int fd, const struct iovec *iov, int n, int flags)
{
    if (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL)) {
        lab_unsupported("send() with other flags than MSG_DONTWAIT");
    }
    LabFile *file = lab__socket_get(fd, LAB_OP_EVENT_WRITE, 0);
    if (!file) {
        return -1;
    }
    ssize_t ret = transmit(file, file->opaque, iov, n, flags);
    lab__file_put(file);
    return ret;
}

int lab_shutdown(int fd, int how)
{
    LabFile *file = lab__socket_get(fd, LAB_OP_EVENT_WRITE, 0);
    LabSocket *s = file ? file->opaque : NULL;

    if (!file) {
        return -1;
    }
    if (s->state != CONNECTED) {
        lab_unsupported("shutdown() of a socket that is not connected");
    }
    int ret = how >= SHUT_RD && how <= SHUT_RDWR ? 0 : lab_errno(EINVAL);
    if (ret == 0 && how != SHUT_WR) {
        s->in->no_reader = true;
    }
    if (ret == 0 && how != SHUT_RD) {
        s->out->no_writer = true;
    }
    lab_changed();
    lab__file_put(file);
    return ret;
}

/* ---- making them ----------------------------------------------------------------------- */

/* TYPE without its flags is a kind that the lab has. */
static int flags_of(int domain, int type)
{
    enum { FLAGS = SOCK_NONBLOCK | SOCK_CLOEXEC };

    if (domain != AF_UNIX || (type & ~FLAGS) != SOCK_STREAM) {
        lab_unsupported("a socket that is no UNIX stream socket");
    }
    G_STATIC_ASSERT(SOCK_NONBLOCK == O_NONBLOCK && SOCK_CLOEXEC == O_CLOEXEC);
    return type & FLAGS;
}

int lab__socket_open(LabSocket *s, int flags)
{
    int fd = lab_fd_open(&socket_ops, s, flags);

    if (fd >= 0 && s->object) {
        lab_fd_shares(fd, s->object);
    }
    return fd;
}

int lab_socket(int domain, int type)
{
    LabSocket *s = lab__socket_new();
    int fd = lab__socket_open(s, flags_of(domain, type));

    if (fd < 0) {
        socket_free(s, false);
    }
    return fd;
}

int lab_socketpair(int domain, int type, int fds[2])
{
    int flags = flags_of(domain, type);
    LabSocket *a = lab__socket_new(), *b = lab__socket_new();

    lab__socket_join(a, b);
    int first = lab__socket_open(a, flags);
    int second = first < 0 ? -1 : lab__socket_open(b, flags);
    if (second < 0) {
        socket_free(b, false);
        if (first >= 0) {
            lab_close(first);
        } else {
            socket_free(a, false);
        }
        return lab_errno(EMFILE);
    }
    lab_fd_shares(second, first);
    fds[0] = first;
    fds[1] = second;
    return 0;
}

/* ---- options --------------------------------------------------------------------------- */

static int option_value(LabSocket *s, int option)
{
    int err;

    switch (option) {
    case SO_ERROR:
        err = s->error;
        s->error = 0;
        return err;
    case SO_TYPE:
        return SOCK_STREAM;
    case SO_DOMAIN:
        return AF_UNIX;
    case SO_ACCEPTCONN:
        return s->state == LISTENING;
    default:
        lab_unsupported("this option of getsockopt()");
        return 0;
    }
}

int lab_getsockopt(int fd, int level, int option, void *value, socklen_t *size)
{
    LabFile *file = lab__socket_get(fd, LAB_OP_SYSCALL, 0);
    int ret = 0;

    if (!file) {
        return -1;
    }
    if (level == SOL_SOCKET) {
        int n = option_value(file->opaque, option);
        *size = MIN(*size, (socklen_t)sizeof(n));
        memcpy(value, &n, *size);
        lab_changed();
    } else {
        ret = lab_errno(EOPNOTSUPP);
    }
    lab__file_put(file);
    return ret;
}

int lab_setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    LabFile *file = lab__socket_get(fd, LAB_OP_SYSCALL, 0);
    int ret = 0;

    if (!file) {
        return -1;
    }
    if (level != SOL_SOCKET) {
        ret = lab_errno(EOPNOTSUPP);
    } else if (size < sizeof(int)) {
        ret = lab_errno(EINVAL);
    } else if (option != SO_KEEPALIVE && option != SO_REUSEADDR) {
        lab_unsupported("this option of setsockopt()");
    }
    lab__file_put(file);
    return ret;
}
