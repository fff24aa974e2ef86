/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Streams, see stream.h, and pipes. */
#include "miniblk/osdep.h"
#include "lab/stream.h"
#include "lab/tsan.h"

/* ---- streams --------------------------------------------------------------------------- */

LabStream *lab__stream_new(void)
{
    LabStream *s = malloc(sizeof(*s));
    memset(s, 0, offsetof(LabStream, data));
    s->ends = 2;
    return s;
}

void lab__stream_leave(LabStream *s, bool reader)
{
    if (s) {
        lab_release(s);
        *(reader ? &s->no_reader : &s->no_writer) = true;
        if (--s->ends == 0) {
            free(s);
        }
    }
}

size_t lab__iov_size(const struct iovec *iov, int n)
{
    size_t size = 0;
    for (int i = 0; i < n; i++) {
        size += iov[i].iov_len;
    }
    return size;
}

static bool readable(const void *opaque)
{
    const LabStream *s = opaque;
    return s->used || lab__stream_ended(s);
}

bool lab__stream_await(const LabFile *file, LabStream *s, bool dontwait)
{
    return lab__wait_or_again(file, dontwait, LAB_OP_EVENT_READ, NULL, readable, s);
}

/* Up to SIZE bytes, from SKIP on. */
static size_t copy_out(const LabStream *s, size_t skip, char *to, size_t size)
{
    size_t from = (s->head + skip) % LAB_STREAM_CAPACITY;
    size_t n = MIN(size, s->used - skip), first = MIN(n, LAB_STREAM_CAPACITY - from);
    memcpy(to, s->data + from, first);
    memcpy(to + first, s->data, n - first);
    return n;
}

size_t lab__stream_take(LabStream *s, const struct iovec *iov, int n, bool peek)
{
    size_t done = 0;

    lab_acquire(s);
    for (int i = 0; i < n; i++) {
        done += copy_out(s, done, iov[i].iov_base, iov[i].iov_len);
    }
    if (!peek) {
        s->head = (s->head + done) % LAB_STREAM_CAPACITY;
        s->used -= done;
        lab_changed();
    }
    return done;
}

static size_t copy_in(LabStream *s, const char *from, size_t size)
{
    size_t tail = (s->head + s->used) % LAB_STREAM_CAPACITY;
    size_t n = MIN(size, LAB_STREAM_CAPACITY - s->used);
    size_t first = MIN(n, LAB_STREAM_CAPACITY - tail);
    lab_release(s);
    memcpy(s->data + tail, from, first);
    memcpy(s->data, from + first, n - first);
    s->used += n;
    lab_changed();
    return n;
}

/* Room that a writer waits for. */
typedef struct Wanted {
    const LabStream *s;
    size_t size;
} Wanted;

static bool writable(const void *opaque)
{
    const Wanted *w = opaque;
    return LAB_STREAM_CAPACITY - w->s->used >= w->size || lab__stream_ended(w->s);
}

ssize_t lab__stream_write(const LabFile *file, LabStream *s, const struct iovec *iov, int n,
                          bool atomic, bool dontwait)
{
    Wanted wanted = { s, atomic ? lab__iov_size(iov, n) : 1 };
    ssize_t done = 0;

    for (int i = 0; i < n; i++) {
        for (size_t part = 0; part < iov[i].iov_len;) {
            if (!lab__wait_or_again(file, dontwait, LAB_OP_EVENT_WRITE, NULL, writable,
                                    &wanted)) {
                return done ? done : -1;
            }
            if (lab__stream_ended(s)) {
                errno = EPIPE;
                return done ? done : -1;
            }
            size_t moved = copy_in(s, (char *)iov[i].iov_base + part, iov[i].iov_len - part);
            part += moved;
            done += moved;
            wanted.size = 1;    /* the rest of what is atomic has its room already */
        }
    }
    return done;
}

/* ---- pipes ----------------------------------------------------------------------------- */

static unsigned reader_ready(const void *opaque)
{
    const LabStream *s = opaque;
    return (s->used ? POLLIN : 0) | (s->no_writer ? POLLHUP : 0);
}

static ssize_t pipe_readv(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    if (lab__iov_size(iov, n) == 0) {
        return 0;
    }
    return lab__stream_await(file, opaque, false) ? lab__stream_take(opaque, iov, n, false)
                                                  : -1;
}

static unsigned writer_ready(const void *opaque)
{
    const LabStream *s = opaque;
    return s->no_reader ? POLLERR | POLLOUT : lab__stream_has_room(s) ? POLLOUT : 0;
}

static ssize_t pipe_writev(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    bool atomic = lab__iov_size(iov, n) <= LAB_STREAM_ATOMIC_MAX;
    return lab__stream_write(file, opaque, iov, n, atomic, false);
}

/* Calls in the wrong direction: EBADF. */
static ssize_t refuse(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    errno = EBADF;
    return -1;
}

static void reader_close(void *opaque)
{
    lab__stream_leave(opaque, true);
}

static void writer_close(void *opaque)
{
    lab__stream_leave(opaque, false);
}

static const LabFdOps reader_ops = {
    .name = "pipe",
    .type = S_IFIFO,
    .ready = reader_ready,
    .readv = pipe_readv,
    .writev = refuse,
    .close = reader_close,
};

static const LabFdOps writer_ops = {
    .name = "pipe",
    .type = S_IFIFO,
    .ready = writer_ready,
    .readv = refuse,
    .writev = pipe_writev,
    .close = writer_close,
};

int lab_pipe(int fds[2], int flags)
{
    LabStream *s = lab__stream_new();
    int reader = lab_fd_open(&reader_ops, s, flags);
    int writer = reader < 0 ? -1 : lab_fd_open(&writer_ops, s, flags);

    if (writer < 0) {
        lab__stream_leave(s, false);
        if (reader >= 0) {
            lab_close(reader);
        } else {
            lab__stream_leave(s, true);
        }
        errno = EMFILE;
        return -1;
    }
    lab_fd_shares(writer, reader);
    fds[0] = reader;
    fds[1] = writer;
    return 0;
}
