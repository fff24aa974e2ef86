/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See socket.h. What is said of errors and of poll() is unix(7)'s and what Linux does. */
#include "miniblk/osdep.h"
#include "miniblk/queue.h"
#include <sys/un.h>
#include "lab/inode.h"
#include "lab/real.h"
#include "lab/socket.h"
#include "lab/stream.h"

enum { BACKLOG_MAX = 4096 };    /* SOMAXCONN of Linux */

typedef struct Socket Socket;
struct Socket {
    enum { FRESH, LISTENING, CONNECTED } state;
    int object;                 /* of its points */
    LabInode *inode;            /* that it is bound to */
    char *name;                 /* as it was given to bind(); NULL: none */

    /* LISTENING: the server's ends of connections that have not been accepted */
    QSIMPLEQ_HEAD(, Socket) pending;
    unsigned n_pending, backlog;
    QSIMPLEQ_ENTRY(Socket) next;

    /* CONNECTED */
    LabStream *in, *out;
    Socket *peer;               /* NULL: closed */
    char *peer_name;
    int error;                  /* to be reported once */
};

static int fail(int err)
{
    errno = err;
    return -1;
}

/* ---- life ------------------------------------------------------------------------------ */

static Socket *socket_new(void)
{
    Socket *s = g_new0(Socket, 1);
    QSIMPLEQ_INIT(&s->pending);
    return s;
}

static void join(Socket *a, Socket *b)
{
    a->state = b->state = CONNECTED;
    a->peer = b;
    b->peer = a;
    a->out = b->in = lab__stream_new();
    b->out = a->in = lab__stream_new();
}

/* RESET: the connection ends before somebody has taken it. */
static void socket_free(Socket *s, bool reset)
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
    Socket *s = opaque, *server_end;

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
    const Socket *s = opaque;

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

static ssize_t receive(const LabFile *file, Socket *s, const struct iovec *iov, int n, int flags)
{
    if (s->state != CONNECTED) {
        return fail(EINVAL);
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
        return fail(err);
    }
    lab_busy();
    return lab__stream_take(s->in, iov, n, flags & MSG_PEEK);
}

static ssize_t transmit(const LabFile *file, Socket *s, const struct iovec *iov, int n,
                        int flags)
{
    if (s->state != CONNECTED) {
        return fail(ENOTCONN);
    }
    if (lab__stream_ended(s->out)) {
        return fail(EPIPE);
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
static LabFile *get_socket(int fd, LabOpKind kind, uintptr_t object)
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
    LabFile *file = get_socket(fd, LAB_OP_EVENT_READ, 0);
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
    LabFile *file = get_socket(fd, LAB_OP_EVENT_WRITE, 0);
    if (!file) {
        return -1;
    }
    ssize_t ret = transmit(file, file->opaque, iov, n, flags);
    lab__file_put(file);
    return ret;
}

int lab_shutdown(int fd, int how)
{
    LabFile *file = get_socket(fd, LAB_OP_EVENT_WRITE, 0);
    Socket *s = file ? file->opaque : NULL;

    if (!file) {
        return -1;
    }
    if (s->state != CONNECTED) {
        lab_unsupported("shutdown() of a socket that is not connected");
    }
    int ret = how >= SHUT_RD && how <= SHUT_RDWR ? 0 : fail(EINVAL);
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

/* ---- names ----------------------------------------------------------------------------- */

/* The path in ADDRESS, or NULL with EINVAL. */
static char *path_in(const struct sockaddr *address, socklen_t size)
{
    const struct sockaddr_un *un = (const void *)address;
    size_t header = offsetof(struct sockaddr_un, sun_path);

    if (size < header || size > sizeof(*un) || un->sun_family != AF_UNIX) {
        errno = EINVAL;
        return NULL;
    }
    if (size == header || !un->sun_path[0]) {
        lab_unsupported("a socket whose name is no file");
    }
    return g_strndup(un->sun_path, size - header);
}

static void put_name(const char *name, struct sockaddr *address, socklen_t *size)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    socklen_t whole = offsetof(struct sockaddr_un, sun_path);

    if (!address) {
        return;
    }
    if (name) {
        whole += g_strlcpy(un.sun_path, name, sizeof(un.sun_path)) + 1;
    }
    memcpy(address, &un, MIN(MIN(*size, whole), (socklen_t)sizeof(un)));
    *size = whole;
}

int lab_socket_name(int fd, bool peer, struct sockaddr *address, socklen_t *size)
{
    LabFile *file = get_socket(fd, LAB_OP_SYSCALL, 0);
    const Socket *s = file ? file->opaque : NULL;
    int ret = 0;

    if (!file) {
        return -1;
    }
    if (peer && s->state != CONNECTED) {
        ret = fail(ENOTCONN);
    } else {
        put_name(peer ? s->peer_name : s->name, address, size);
    }
    lab__file_put(file);
    return ret;
}

static int bind_to(Socket *s, const char *name)
{
    g_autofree char *path = lab_path_whole(name);
    LabInode *other;

    if (s->inode) {
        return fail(EINVAL);
    }
    if (lab_name_look_up(path, &other) != FOUND_NOTHING) {
        return fail(EADDRINUSE);
    }
    if (!lab_name_parent_exists(path)) {
        return fail(ENOENT);
    }
    s->name = g_strdup(name);
    s->inode = lab_inode_ref(lab_inode_new(S_IFSOCK | 0755));
    s->inode->socket = s;
    lab_name_set(g_steal_pointer(&path), s->inode);
    return 0;
}

int lab_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    LabFile *file = get_socket(fd, LAB_OP_SYSCALL, lab_names_object());

    if (!file) {
        return -1;
    }
    g_autofree char *name = path_in(address, size);
    int ret = name ? bind_to(file->opaque, name) : -1;
    lab__file_put(file);
    return ret;
}

/* ---- connecting ------------------------------------------------------------------------ */

int lab_listen(int fd, int backlog)
{
    LabFile *file = get_socket(fd, LAB_OP_SYSCALL, 0);
    Socket *s = file ? file->opaque : NULL;
    int ret = 0;

    if (!file) {
        return -1;
    }
    if (!s->inode || s->state == CONNECTED) {
        ret = fail(EINVAL);
    } else {
        s->state = LISTENING;
        s->backlog = MIN((unsigned)backlog, BACKLOG_MAX);
    }
    lab_changed();
    lab__file_put(file);
    return ret;
}

/* Who listens at PATH; NULL and errno. */
static LabInode *find_listener(const char *path)
{
    LabInode *inode;
    LabFound found = lab_name_look_up(path, &inode);

    if (found == FOUND_REAL) {
        lab_unsupported("connect() to a server that is none of the lab's");
    }
    const Socket *s = found == FOUND ? inode->socket : NULL;
    if (!s || s->state != LISTENING) {
        errno = found == FOUND_NOTHING ? ENOENT : ECONNREFUSED;
        return NULL;
    }
    return inode;
}

/* Whether connect() to the socket at an inode can go on; that may be an error. */
static bool can_connect(const void *opaque)
{
    const LabInode *inode = opaque;
    const Socket *s = inode->socket;

    return !s || s->n_pending <= s->backlog;
}

static int connect_to(const LabFile *file, Socket *s, const char *path)
{
    LabInode *inode;

    while ((inode = find_listener(path)) && !can_connect(inode)) {
        lab_inode_ref(inode);
        bool again = lab__wait_or_again(file, false, LAB_OP_SYSCALL, "connect", can_connect,
                                        inode);
        lab_inode_unref(inode);
        if (!again) {
            return -1;
        }
    }
    if (!inode) {
        return -1;
    }
    if (s->state != FRESH) {
        return fail(s->state == CONNECTED ? EISCONN : EINVAL);
    }
    Socket *listener = inode->socket, *server_end = socket_new();
    join(s, server_end);
    server_end->object = s->object;
    server_end->name = g_strdup(listener->name);
    server_end->peer_name = g_strdup(s->name);
    s->peer_name = g_strdup(listener->name);
    QSIMPLEQ_INSERT_TAIL(&listener->pending, server_end, next);
    listener->n_pending++;
    lab_changed();
    return 0;
}

int lab_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    g_autofree char *name = path_in(address, size);
    g_autofree char *path = name ? lab_path_whole(name) : NULL;
    LabInode *inode = path ? find_listener(path) : NULL;
    LabFile *file = get_socket(fd, LAB_OP_SYSCALL, (uintptr_t)inode);

    if (!file) {
        return -1;
    }
    int ret = path ? connect_to(file, file->opaque, path) : fail(EINVAL);
    lab__file_put(file);
    return ret;
}

static bool has_pending(const void *opaque)
{
    return ((const Socket *)opaque)->n_pending > 0;
}

static int accept_from(const LabFile *file, Socket *s, struct sockaddr *address,
                       socklen_t *size, int flags)
{
    if (s->state != LISTENING) {
        return fail(EINVAL);
    }
    if (!lab__wait_or_again(file, false, LAB_OP_SYSCALL, "accept", has_pending, s)) {
        return -1;
    }
    Socket *server_end = QSIMPLEQ_FIRST(&s->pending);
    int fd = lab_fd_open(&socket_ops, server_end, flags);
    if (fd >= 0) {
        lab__file_joins(fd, server_end->object);
        QSIMPLEQ_REMOVE_HEAD(&s->pending, next);
        s->n_pending--;
        put_name(server_end->peer_name, address, size);
        lab_changed();
        lab_busy();
    }
    return fd;
}

int lab_accept(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    const Socket *s = lab_fd_lookup(fd, &socket_ops);
    LabFile *file = get_socket(fd, LAB_OP_SYSCALL, s ? (uintptr_t)s->inode : 0);

    if (!file) {
        return -1;
    }
    int ret = accept_from(file, file->opaque, address, size, flags);
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

static int socket_open(Socket *s, int flags)
{
    s->object = lab_fd_open(&socket_ops, s, flags);
    return s->object;
}

int lab_socket(int domain, int type)
{
    Socket *s = socket_new();
    int fd = socket_open(s, flags_of(domain, type));

    if (fd < 0) {
        socket_free(s, false);
    }
    return fd;
}

int lab_socketpair(int domain, int type, int fds[2])
{
    int flags = flags_of(domain, type);
    Socket *a = socket_new(), *b = socket_new();

    join(a, b);
    int first = socket_open(a, flags), second = first < 0 ? -1 : socket_open(b, flags);
    if (second < 0) {
        socket_free(b, false);
        if (first >= 0) {
            lab_close(first);
        } else {
            socket_free(a, false);
        }
        return fail(EMFILE);
    }
    lab__file_joins(second, first);
    fds[0] = first;
    fds[1] = second;
    return 0;
}

/* ---- options --------------------------------------------------------------------------- */

static int option_value(Socket *s, int option)
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
    LabFile *file = get_socket(fd, LAB_OP_SYSCALL, 0);
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
        ret = fail(EOPNOTSUPP);
    }
    lab__file_put(file);
    return ret;
}

int lab_setsockopt(int fd, int level, int option, const void *value, socklen_t size)
{
    LabFile *file = get_socket(fd, LAB_OP_SYSCALL, 0);
    int ret = 0;

    if (!file) {
        return -1;
    }
    if (level != SOL_SOCKET) {
        ret = fail(EOPNOTSUPP);
    } else if (size < sizeof(int)) {
        ret = fail(EINVAL);
    } else if (option != SO_KEEPALIVE && option != SO_REUSEADDR) {
        lab_unsupported("this option of setsockopt()");
    }
    lab__file_put(file);
    return ret;
}
