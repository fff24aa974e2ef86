/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pipes and pairs of connected stream sockets. */
#include "miniblk/osdep.h"
#include <sys/socket.h>
#include "lab/event-internal.h"

enum {
    CAPACITY = 64 << 10,
    ATOMIC_MAX = 4096,          /* PIPE_BUF: a write of so much is not split */
};

/* One direction. */
typedef struct Stream {
    int ends;                   /* that are open: freed with the last one */
    bool no_reader, no_writer;
    size_t head, used;
    size_t wanted;              /* room that a blocked writer waits for */
    char data[CAPACITY];
} Stream;

typedef struct End {
    Stream *in, *out;           /* NULL: not that way (pipes) */
} End;

static size_t room(const Stream *s)
{
    return CAPACITY - s->used;
}

static bool readable(const void *opaque)
{
    const Stream *s = opaque;
    return s->used || s->no_writer || s->no_reader;
}

static bool writable(const void *opaque)
{
    const Stream *s = opaque;
    return room(s) >= s->wanted || s->no_reader || s->no_writer;
}

static unsigned end_ready(const void *opaque)
{
    const End *end = opaque;
    const Stream *in = end->in, *out = end->out;
    bool socket = in && out;
    unsigned ready = 0;

    if (in) {
        bool ended = in->no_writer || in->no_reader;
        ready |= in->used ? POLLIN : 0;
        if (ended && socket) {
            ready |= POLLIN | POLLRDHUP;
        } else if (ended) {
            ready |= POLLHUP;
        }
    }
    if (out) {
        bool ended = out->no_reader || out->no_writer;
        if (ended && !socket) {
            ready |= POLLERR;
        }
        ready |= room(out) >= ATOMIC_MAX || ended ? POLLOUT : 0;
    }
    if (socket && (in->no_writer || in->no_reader) && (out->no_reader || out->no_writer)) {
        ready |= POLLHUP;
    }
    return ready;
}

static size_t take(Stream *s, char *to, size_t size)
{
    size_t n = MIN(size, s->used), first = MIN(n, CAPACITY - s->head);
    memcpy(to, s->data + s->head, first);
    memcpy(to + first, s->data, n - first);
    s->head = (s->head + n) % CAPACITY;
    s->used -= n;
    return n;
}

static size_t give(Stream *s, const char *from, size_t size)
{
    size_t tail = (s->head + s->used) % CAPACITY;
    size_t n = MIN(size, room(s)), first = MIN(n, CAPACITY - tail);
    memcpy(s->data + tail, from, first);
    memcpy(s->data, from + first, n - first);
    s->used += n;
    return n;
}

static size_t total(const struct iovec *iov, int n)
{
    size_t size = 0;
    for (int i = 0; i < n; i++) {
        size += iov[i].iov_len;
    }
    return size;
}

static ssize_t end_readv(int fd, void *opaque, const struct iovec *iov, int n)
{
    Stream *s = ((End *)opaque)->in;
    ssize_t done = 0;

    if (!s) {
        errno = EBADF;
        return -1;
    }
    if (total(iov, n) == 0) {
        return 0;
    }
    if (!lab__wait_or_again(fd, LAB_OP_EVENT_READ, readable, s)) {
        return -1;
    }
    for (int i = 0; i < n; i++) {
        done += take(s, iov[i].iov_base, iov[i].iov_len);
    }
    lab_changed();
    return done;
}

static ssize_t end_writev(int fd, void *opaque, const struct iovec *iov, int n)
{
    End *end = opaque;
    Stream *s = end->out;
    bool pipe = !end->in;
    size_t size = total(iov, n), done = 0;

    if (!s) {
        errno = EBADF;
        return -1;
    }
    for (int i = 0; i < n; i++) {
        for (size_t part = 0; part < iov[i].iov_len;) {
            s->wanted = pipe && size <= ATOMIC_MAX ? size - done : 1;
            if (!lab__wait_or_again(fd, LAB_OP_EVENT_WRITE, writable, s)) {
                return done ? (ssize_t)done : -1;
            }
            if (s->no_reader || s->no_writer) {
                errno = EPIPE;          /* and no SIGPIPE: who takes that does not test it */
                return done ? (ssize_t)done : -1;
            }
            size_t moved = give(s, (char *)iov[i].iov_base + part, iov[i].iov_len - part);
            part += moved;
            done += moved;
            lab_changed();
        }
    }
    return done;
}

static void leave(Stream *s, bool reader)
{
    if (s) {
        *(reader ? &s->no_reader : &s->no_writer) = true;
        if (--s->ends == 0) {
            free(s);
        }
    }
}

static void end_close(void *opaque)
{
    End *end = opaque;
    leave(end->in, true);
    leave(end->out, false);
    free(end);
}

static const LabFdOps end_ops = {
    .name = "pipe",
    .ready = end_ready,
    .readv = end_readv,
    .writev = end_writev,
    .close = end_close,
};

static Stream *stream_new(void)
{
    Stream *s = malloc(sizeof(*s));
    memset(s, 0, offsetof(Stream, data));
    s->ends = 2;
    return s;
}

static int end_open(Stream *in, Stream *out, int flags)
{
    End *end = malloc(sizeof(*end));
    *end = (End) { in, out };
    return lab_fd_open(&end_ops, end, flags);
}

static int open_both(int fds[2], Stream *a_to_b, Stream *b_to_a, int flags)
{
    fds[0] = end_open(b_to_a, a_to_b, flags);
    fds[1] = fds[0] < 0 ? -1 : end_open(a_to_b, b_to_a, flags);
    if (fds[1] < 0) {
        if (fds[0] >= 0) {
            lab_close(fds[0]);
        }
        errno = EMFILE;
        return -1;
    }
    return 0;
}

int lab_pipe(int fds[2], int flags)
{
    return open_both(fds, NULL, stream_new(), flags);
}

int lab_socketpair(int fds[2], int flags)
{
    return open_both(fds, stream_new(), stream_new(), flags);
}

int lab_shutdown(int fd, int how)
{
    End *end = lab_fd_lookup(fd, &end_ops);

    if (!end) {
        return -1;
    }
    if (!end->in || !end->out) {
        errno = ENOTSOCK;
        return -1;
    }
    lab_syscall_point(LAB_OP_EVENT_WRITE, fd, true);
    if (how == SHUT_RD || how == SHUT_RDWR) {
        end->in->no_reader = true;
    }
    if (how == SHUT_WR || how == SHUT_RDWR) {
        end->out->no_writer = true;
    }
    lab_changed();
    return 0;
}
