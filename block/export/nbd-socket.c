/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The listening sockets of the NBD server. */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LISTEN_BACKLOG 128

static int socket_new(int family, Error **errp)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        error_setg_errno(errp, errno, "Failed to create socket");
    }
    return fd;
}

/*
 * A socket file that a killed server has left behind is in the way; anything else that goes
 * by that name is not ours to remove.
 */
static bool remove_stale(const char *path, Error **errp)
{
    struct stat st;

    if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return true;
    }
    if (unlink(path) < 0 && errno != ENOENT) {
        error_setg_errno(errp, errno, "Failed to unlink socket %s", path);
        return false;
    }
    return true;
}

static bool listen_unix(QDict *addr, GArray *fds, char **unix_path, Error **errp)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    g_autofree char *path = NULL;
    int fd;

    if (!bdrv_opt_str(addr, "path", &path, errp)) {
        return false;
    }
    if (!path) {
        error_setg(errp, "Parameter 'addr.path' is missing");
        return false;
    }
    if (strlen(path) >= sizeof(un.sun_path)) {
        error_setg(errp, "UNIX socket path '%s' is too long", path);
        error_append_hint(errp, "Path must be less than %zu bytes\n", sizeof(un.sun_path));
        return false;
    }
    strcpy(un.sun_path, path);
    if (!remove_stale(path, errp)) {
        return false;
    }
    fd = socket_new(AF_UNIX, errp);
    if (fd < 0) {
        return false;
    }
    if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
        error_setg_errno(errp, errno, "Failed to bind socket to %s", path);
        close(fd);
        return false;
    }
    if (listen(fd, LISTEN_BACKLOG) < 0) {
        error_setg_errno(errp, errno, "Failed to listen on socket");
        unlink(path);
        close(fd);
        return false;
    }
    g_array_append_val(fds, fd);
    *unix_path = g_canonicalize_filename(path, NULL);   /* a daemon changes its directory */
    return true;
}

/* 0 or -errno; *STEP says what failed. */
static int listen_one(const struct addrinfo *ai, GArray *fds, const char **step)
{
    int on = 1, ret = 0;
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    ai->ai_protocol);

    *step = "create";
    if (fd < 0) {
        return -errno;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6) {
        /* the IPv4 side of a wildcard has a socket of its own */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
        *step = "bind";
        ret = -errno;
    } else if (listen(fd, LISTEN_BACKLOG) < 0) {
        *step = "listen on";
        ret = -errno;
    }
    if (ret < 0) {
        close(fd);
        return ret;
    }
    g_array_append_val(fds, fd);
    return 0;
}

/* AF_UNSPEC unless the user has switched one of the families on alone, or one off. */
static bool inet_family(QDict *addr, int *family, Error **errp)
{
    bool has4 = qdict_haskey(addr, "ipv4"), has6 = qdict_haskey(addr, "ipv6");
    bool ipv4 = false, ipv6 = false;

    if (!bdrv_opt_bool(addr, "ipv4", &ipv4, errp) ||
        !bdrv_opt_bool(addr, "ipv6", &ipv6, errp)) {
        return false;
    }
    if (has4 && has6 && !ipv4 && !ipv6) {
        error_setg(errp, "Cannot disable IPv4 and IPv6 at same time");
        return false;
    }
    *family = AF_UNSPEC;
    if ((ipv4 && !ipv6) || (has6 && !ipv6)) {
        *family = AF_INET;
    } else if ((ipv6 && !ipv4) || (has4 && !ipv4)) {
        *family = AF_INET6;
    }
    return true;
}

static bool listen_inet(QDict *addr, GArray *fds, Error **errp)
{
    struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM };
    struct addrinfo *found, *ai;
    g_autofree char *host = NULL, *port = NULL;
    const char *step = "bind";
    int ret = -EADDRNOTAVAIL;

    if (!bdrv_opt_str(addr, "host", &host, errp) ||
        !bdrv_opt_str(addr, "port", &port, errp) ||
        !inet_family(addr, &hints.ai_family, errp)) {
        return false;
    }
    if (!host || !port) {
        error_setg(errp, "Parameter 'addr.%s' is missing", host ? "port" : "host");
        return false;
    }
    int gai = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (gai) {
        error_setg(errp, "address resolution failed for %s:%s: %s", host, port,
                   gai_strerror(gai));
        return false;
    }
    for (ai = found; ai; ai = ai->ai_next) {
        int err = listen_one(ai, fds, &step);
        ret = err && !fds->len ? err : 0;
        if (err && err != -EAFNOSUPPORT && err != -EADDRNOTAVAIL) {
            /* half of the addresses would be a surprise */
            ret = err;
            break;
        }
    }
    freeaddrinfo(found);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to %s socket", step);
    }
    return ret == 0;
}

static bool check_leftover(QDict *addr, Error **errp)
{
    if (json_object_size(addr)) {
        error_setg(errp, "Parameter 'addr.%s' is unexpected",
                   json_object_iter_key(json_object_iter(addr)));
        return false;
    }
    return true;
}

bool nbd_socket_listen(QDict *addr, GArray *fds, char **unix_path, Error **errp)
{
    g_autofree char *type = NULL;
    bool ok = false;

    if (!bdrv_opt_str(addr, "type", &type, errp)) {
        return false;
    }
    if (!type) {
        error_setg(errp, "Parameter 'addr.type' is missing");
    } else if (!strcmp(type, "unix")) {
        ok = listen_unix(addr, fds, unix_path, errp);
    } else if (!strcmp(type, "inet")) {
        ok = listen_inet(addr, fds, errp);
    } else {
        error_setg(errp, "Parameter 'addr.type' does not accept value '%s'", type);
    }
    if (ok && !check_leftover(addr, errp)) {
        ok = false;
    }
    if (!ok) {
        for (guint i = 0; i < fds->len; i++) {
            close(g_array_index(fds, int, i));
        }
        g_array_set_size(fds, 0);
        if (*unix_path) {
            unlink(*unix_path);
            g_clear_pointer(unix_path, g_free);
        }
    }
    return ok;
}
