/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by event.c, stream.c, socket.c and epoll.c. */
#ifndef LAB_EVENT_INTERNAL_H
#define LAB_EVENT_INTERNAL_H

#include "lab/event.h"
#include "lab/engine.h"

/* An open file description. */
struct LabFile {
    const LabFdOps *ops;
    void *opaque;
    int flags;                  /* O_NONBLOCK */
    int users;                  /* descriptors, and calls under way */
    int watched;                /* by so many epoll instances */
    uintptr_t id;               /* the object of its points: its first descriptor, or what it
                                   shares with others */
};

/* NULL and EBADF. */
LabFile *lab__file(int fd);
const char *lab__fd_name(int fd);

/*
 * A call of FD begins: its point, whose object is OBJECT or, when that is 0, the file; then
 * the file, as FD may have been closed or opened again at the point. Until lab__file_put() it
 * stays whole, whoever closes FD. NULL and EBADF.
 */
LabFile *lab__file_get(int fd, LabOpKind kind, uintptr_t object);
void lab__file_put(LabFile *file);

/*
 * In a call of FILE: wait until CAN(OPAQUE). False and EAGAIN when it does not, now, and FILE
 * does not block, or DONTWAIT is set. WHERE names the call; NULL: its kind does.
 */
bool lab__wait_or_again(const LabFile *file, bool dontwait, LabOpKind kind, const char *where,
                        bool (*can)(const void *), const void *opaque);


extern const LabFdOps lab__epoll_ops;
struct LabEpoll;
void lab__epoll_forget(struct LabEpoll *epoll, const LabFile *file);

#endif
