/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bytes on their way in one direction: a pipe is one of these, a connection of sockets two.
 * Each has a reader and a writer, that may leave at any time.
 */
#ifndef LAB_STREAM_H
#define LAB_STREAM_H

#include "lab/event-internal.h"

enum {
    LAB_STREAM_CAPACITY = 64 << 10,
    LAB_STREAM_ATOMIC_MAX = 4096,   /* PIPE_BUF: a write of so much to a pipe is not split */
};

typedef struct LabStream {
    int ends;                   /* that are open: freed with the last one */
    bool no_reader, no_writer;
    size_t head, used;
    char data[LAB_STREAM_CAPACITY];
} LabStream;

LabStream *lab__stream_new(void);
/* NULL: nothing to leave. */
void lab__stream_leave(LabStream *s, bool reader);

static inline bool lab__stream_ended(const LabStream *s)
{
    return s->no_reader || s->no_writer;
}
/* Whether so much may be written that those who wait for it are told. */
static inline bool lab__stream_has_room(const LabStream *s)
{
    return LAB_STREAM_CAPACITY - s->used >= LAB_STREAM_ATOMIC_MAX;
}

size_t lab__iov_size(const struct iovec *iov, int n);
/* Wait for data or the end; false and EAGAIN when there is neither and FILE does not block. */
bool lab__stream_await(const LabFile *file, LabStream *s, bool dontwait);
/* Move what is there to IOV, or copy it if it is only to be looked at; 0: nothing. */
size_t lab__stream_take(LabStream *s, const struct iovec *iov, int n, bool peek);
/*
 * All of IOV as there is room, or in one piece when ATOMIC. What was written when FILE does
 * not block; or -1 with EAGAIN or EPIPE, if nothing was. There is no SIGPIPE: who takes that
 * does not test it.
 */
ssize_t lab__stream_write(const LabFile *file, LabStream *s, const struct iovec *iov, int n,
                          bool atomic, bool dontwait);

#endif
