/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sockets find each other: names, listening, connecting. See socket.h. */
#include "miniblk/osdep.h"
#include <sys/un.h>
#include "lab/real.h"
#include "lab/socket-internal.h"

enum { BACKLOG_MAX = 4096 };    /* SOMAXCONN of Linux */

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
    LabFile *file = lab__socket_get(fd, LAB_OP_SYSCALL, 0);
    const LabSocket *s = file ? file->opaque : NULL;
    int ret = 0;

    if (!file) {
        return -1;
    }
    if (peer && s->state != CONNECTED) {
        ret = lab_errno(ENOTCONN);
    } else {
        put_name(peer ? s->peer_name : s->name, address, size);
    }
    lab__file_put(file);
    return ret;
}

static int bind_to(const LabFile *file, LabSocket *s, const char *name)
{
    g_autofree char *path = lab_path_whole(name);
    LabInode *other;

    if (s->inode) {
        return lab_errno(EINVAL);
    }
    if (lab_name_look_up(path, &other) != FOUND_NOTHING) {
        return lab_errno(EADDRINUSE);
    }
    if (!lab_name_parent_exists(path)) {
        return lab_errno(ENOENT);
    }
    s->name = g_strdup(name);
    s->inode = lab_inode_ref(lab_inode_new(S_IFSOCK | 0755));
    s->inode->socket = s;
    s->object = file->id;
    lab_name_set(g_steal_pointer(&path), s->inode);
    return 0;
}

int lab_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    LabFile *file = lab__socket_get(fd, LAB_OP_SYSCALL, lab_names_object());

    if (!file) {
        return -1;
    }
    g_autofree char *name = path_in(address, size);
    int ret = name ? bind_to(file, file->opaque, name) : -1;
    lab__file_put(file);
    return ret;
}

/* ---- connecting ------------------------------------------------------------------------ */

int lab_listen(int fd, int backlog)
{
    LabFile *file = lab__socket_get(fd, LAB_OP_SYSCALL, 0);
    LabSocket *s = file ? file->opaque : NULL;
    int ret = 0;

    if (!file) {
        return -1;
    }
    if (!s->inode || s->state == CONNECTED) {
        ret = lab_errno(EINVAL);
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
    const LabSocket *s = found == FOUND ? inode->socket : NULL;
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
    const LabSocket *s = inode->socket;

    return !s || s->n_pending <= s->backlog;
}

static int connect_to(const LabFile *file, LabSocket *s, const char *path)
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
        return lab_errno(s->state == CONNECTED ? EISCONN : EINVAL);
    }
    LabSocket *listener = inode->socket, *server_end = lab__socket_new();
    lab__socket_join(s, server_end);
    server_end->object = file->id;
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
    const LabSocket *listener = inode ? inode->socket : NULL;
    /* who accepts may see what this does: one object for both */
    LabFile *file = lab__socket_get(fd, LAB_OP_SYSCALL, listener ? listener->object : 0);

    if (!file) {
        return -1;
    }
    int ret = path ? connect_to(file, file->opaque, path) : lab_errno(EINVAL);
    lab__file_put(file);
    return ret;
}

static bool has_pending(const void *opaque)
{
    return ((const LabSocket *)opaque)->n_pending > 0;
}

static int accept_from(const LabFile *file, LabSocket *s, struct sockaddr *address,
                       socklen_t *size, int flags)
{
    if (s->state != LISTENING) {
        return lab_errno(EINVAL);
    }
    if (!lab__wait_or_again(file, false, LAB_OP_SYSCALL, "accept", has_pending, s)) {
        return -1;
    }
    LabSocket *server_end = QSIMPLEQ_FIRST(&s->pending);
    int fd = lab__socket_open(server_end, flags);
    if (fd >= 0) {
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
    LabFile *file = lab__socket_get(fd, LAB_OP_SYSCALL, 0);

    if (!file) {
        return -1;
    }
    int ret = accept_from(file, file->opaque, address, size, flags);
    lab__file_put(file);
    return ret;
}
