/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by event.c, stream.c and epoll.c. */
#ifndef LAB_EVENT_INTERNAL_H
#define LAB_EVENT_INTERNAL_H

#include "lab/event.h"
#include "lab/engine.h"

/* An open file description. */
typedef struct LabFile {
    const LabFdOps *ops;
    void *opaque;
    int flags;                  /* O_NONBLOCK */
    int descriptors;            /* that refer to it */
    int watched;                /* by so many epoll instances */
    int id;                     /* the object of its points: its first descriptor */
} LabFile;

/* NULL and EBADF. */
LabFile *lab__file(int fd);
const char *lab__fd_name(int fd);

/*
 * In a read or write of FD: wait until CAN(OPAQUE). False and EAGAIN when it does not, now,
 * and FD does not block.
 */
bool lab__wait_or_again(int fd, LabOpKind kind, bool (*can)(const void *), void *opaque);

extern const LabFdOps lab__epoll_ops;
struct LabEpoll;
void lab__epoll_forget(struct LabEpoll *epoll, const LabFile *file);

#endif
