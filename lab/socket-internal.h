/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by socket.c and socket-connect.c. */
#ifndef LAB_SOCKET_INTERNAL_H
#define LAB_SOCKET_INTERNAL_H

#include "miniblk/queue.h"
#include "lab/inode.h"
#include "lab/socket.h"
#include "lab/stream.h"

typedef struct LabSocket LabSocket;
struct LabSocket {
    enum { FRESH, LISTENING, CONNECTED } state;
    uintptr_t object;           /* of its points, when others need to know */
    LabInode *inode;            /* that it is bound to */
    char *name;                 /* as it was given to bind(); NULL: none */

    /* LISTENING: the server's ends of connections that have not been accepted */
    QSIMPLEQ_HEAD(, LabSocket) pending;
    unsigned n_pending, backlog;
    QSIMPLEQ_ENTRY(LabSocket) next;

    /* CONNECTED */
    LabStream *in, *out;
    LabSocket *peer;            /* NULL: closed */
    char *peer_name;
    int error;                  /* to be reported once */
};

LabSocket *lab__socket_new(void);
/* Connect A and B. */
void lab__socket_join(LabSocket *a, LabSocket *b);
/* A descriptor for S, or -1. */
int lab__socket_open(LabSocket *s, int flags);
/* lab__file_get() of what must be a socket, or else NULL and ENOTSOCK. */
LabFile *lab__socket_get(int fd, LabOpKind kind, uintptr_t object);

#endif
