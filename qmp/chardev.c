/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Character devices: listening sockets, inherited file descriptors, stdio. All of this runs
 * in the main thread before the main loop does, so it may block (wait=on, name look-up).
 */
#include "miniblk/osdep.h"
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "qmp/chardev.h"
#include "qmp/qmp.h"

static GPtrArray *chardevs;

Chardev *chardev_find(const char *id)
{
    for (guint i = 0; chardevs && i < chardevs->len; i++) {
        Chardev *chr = g_ptr_array_index(chardevs, i);

        if (!strcmp(chr->id, id)) {
            return chr;
        }
    }
    return NULL;
}

bool chardev_set_nonblocking(int fd, Error **errp)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        error_setg_errno(errp, errno, "Cannot use file descriptor %d", fd);
        return false;
    }
    return true;
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

static void chardev_free(Chardev *chr)
{
    if (chr->restore_flags) {
        fcntl(STDIN_FILENO, F_SETFL, chr->in_flags);
        fcntl(STDOUT_FILENO, F_SETFL, chr->out_flags);
    }
    close_fd(&chr->listen_fd);
    if (chr->out_fd != chr->in_fd && chr->out_fd > STDERR_FILENO) {
        close_fd(&chr->out_fd);
    }
    if (chr->in_fd > STDERR_FILENO) {
        close_fd(&chr->in_fd);
    }
    if (chr->unlink_path) {
        unlink(chr->unlink_path);
    }
    g_free(chr->unlink_path);
    g_free(chr->id);
    g_free(chr);
}

void chardev_cleanup_all(void)
{
    for (guint i = 0; chardevs && i < chardevs->len; i++) {
        chardev_free(g_ptr_array_index(chardevs, i));
    }
    if (chardevs) {
        g_ptr_array_free(chardevs, true);
        chardevs = NULL;
    }
}

/* ---- UNIX sockets ----------------------------------------------------------------- */

static bool unix_address(const char *path, struct sockaddr_un *addr, Error **errp)
{
    *addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(addr->sun_path)) {
        error_setg(errp, "UNIX socket path '%s' is too long", path);
        error_append_hint(errp, "Path must be less than %zu bytes\n",
                          sizeof(addr->sun_path));
        return false;
    }
    strcpy(addr->sun_path, path);
    return true;
}

/* What an earlier run left behind is in the way of bind(); other files are not ours. */
static void remove_stale_socket(const char *path)
{
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
        unlink(path);
    }
}

static int unix_listen(const char *path, Error **errp)
{
    struct sockaddr_un addr;
    int fd;

    if (!unix_address(path, &addr, errp)) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        error_setg_errno(errp, errno, "Failed to create Unix socket");
        return -1;
    }
    remove_stale_socket(path);
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        error_setg_errno(errp, errno, "Failed to bind socket to %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

static int unix_connect(const char *path, Error **errp)
{
    struct sockaddr_un addr;
    int fd;

    if (!unix_address(path, &addr, errp)) {
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        error_setg_errno(errp, errno, "Failed to connect to '%s'", path);
        close_fd(&fd);
    }
    return fd;
}

/* ---- TCP -------------------------------------------------------------------------- */

static int inet_try(const struct addrinfo *ai, bool server)
{
    int one = 1;
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);
    int ret;

    if (fd < 0) {
        return -1;
    }
    if (server) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        ret = bind(fd, ai->ai_addr, ai->ai_addrlen);
    } else {
        ret = connect(fd, ai->ai_addr, ai->ai_addrlen);
    }
    if (ret < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int inet_open(const char *host, const char *port, bool server, Error **errp)
{
    struct addrinfo hints = {
        .ai_flags = server ? AI_PASSIVE : 0,
        .ai_socktype = SOCK_STREAM,
    };
    struct addrinfo *list;
    int fd = -1;
    int ret = getaddrinfo(*host ? host : NULL, port, &hints, &list);

    if (ret) {
        error_setg(errp, "address resolution failed for %s:%s: %s", host, port,
                   gai_strerror(ret));
        return -1;
    }
    errno = EADDRNOTAVAIL;
    for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next) {
        fd = inet_try(ai, server);
    }
    if (fd < 0) {
        error_setg_errno(errp, errno, server ? "Failed to bind socket to %s:%s"
                         : "Failed to connect to '%s:%s'", host, port);
    }
    freeaddrinfo(list);
    return fd;
}

/* ---- options ---------------------------------------------------------------------- */

typedef struct SocketOptions {
    char *path, *host, *port, *fd;
    bool server, wait, nodelay;
} SocketOptions;

static void socket_options_clear(SocketOptions *o)
{
    g_free(o->path);
    g_free(o->host);
    g_free(o->port);
    g_free(o->fd);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SocketOptions, socket_options_clear)

static bool socket_options_parse(QDict *options, SocketOptions *o, Error **errp)
{
    o->wait = true;
    if (!bdrv_opt_str(options, "path", &o->path, errp) ||
        !bdrv_opt_str(options, "host", &o->host, errp) ||
        !bdrv_opt_str(options, "port", &o->port, errp) ||
        !bdrv_opt_str(options, "fd", &o->fd, errp) ||
        !bdrv_opt_bool(options, "server", &o->server, errp) ||
        !bdrv_opt_bool(options, "wait", &o->wait, errp) ||
        !bdrv_opt_bool(options, "nodelay", &o->nodelay, errp)) {
        return false;
    }
    if (!o->path + !o->host + !o->fd != 2) {
        error_setg(errp, "chardev: socket: exactly one of 'path', 'host' and 'fd' "
                   "is required");
        return false;
    }
    if (o->host && !o->port) {
        error_setg(errp, "chardev: socket: no port given");
        return false;
    }
    return true;
}

static int parse_fd(const char *text, Error **errp)
{
    char *end;
    long fd;

    errno = 0;
    fd = strtol(text, &end, 10);
    if (errno || *end || !*text || fd < 0 || fd > INT_MAX || fcntl(fd, F_GETFD) < 0) {
        error_setg(errp, "'%s' is not an open file descriptor", text);
        return -1;
    }
    return fd;
}

/* Block until the first client is there, as wait=on asks for. */
static bool wait_for_client(Chardev *chr, const char *name, Error **errp)
{
    fprintf(stderr, "%s: info: waiting for connection on: disconnected:%s,server=on\n",
            error_get_progname(), name);
    do {
        chr->in_fd = accept4(chr->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (chr->in_fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (chr->in_fd < 0) {
        error_setg_errno(errp, errno, "Failed to accept on %s", name);
        return false;
    }
    chr->out_fd = chr->in_fd;
    return true;
}

static bool socket_serve(Chardev *chr, const SocketOptions *o, int fd, Error **errp)
{
    g_autofree char *name = o->path ? g_strdup_printf("unix:%s", o->path)
                          : o->host ? g_strdup_printf("tcp:%s:%s", o->host, o->port)
                          : g_strdup_printf("fd:%s", o->fd);

    chr->listen_fd = fd;
    /* absolute: a daemon changes its directory */
    chr->unlink_path = o->path ? g_canonicalize_filename(o->path, NULL) : NULL;
    if (listen(fd, 16) < 0) {
        error_setg_errno(errp, errno, "Failed to listen on %s", name);
        return false;
    }
    if (o->wait && !wait_for_client(chr, name, errp)) {
        return false;
    }
    return chardev_set_nonblocking(fd, errp);
}

static bool open_socket(Chardev *chr, QDict *options, Error **errp)
{
    g_auto(SocketOptions) o = { NULL };
    int fd;

    if (!socket_options_parse(options, &o, errp)) {
        return false;
    }
    if (o.path) {
        fd = o.server ? unix_listen(o.path, errp) : unix_connect(o.path, errp);
    } else if (o.host) {
        fd = inet_open(o.host, o.port, o.server, errp);
    } else {
        fd = parse_fd(o.fd, errp);
    }
    if (fd < 0) {
        return false;
    }
    if (o.server) {
        return socket_serve(chr, &o, fd, errp);
    }
    chr->in_fd = chr->out_fd = fd;
    return chardev_set_nonblocking(fd, errp);
}

/* fd=N: one file descriptor for both directions. */
static bool open_fd(Chardev *chr, QDict *options, Error **errp)
{
    g_autofree char *text = NULL;

    if (!bdrv_opt_str(options, "fd", &text, errp)) {
        return false;
    }
    if (!text) {
        error_setg(errp, "Parameter 'fd' is missing");
        return false;
    }
    chr->in_fd = chr->out_fd = parse_fd(text, errp);
    return chr->in_fd >= 0 && chardev_set_nonblocking(chr->in_fd, errp);
}

static bool open_stdio(Chardev *chr, QDict *options, Error **errp)
{
    for (guint i = 0; i < chardevs->len; i++) {
        Chardev *other = g_ptr_array_index(chardevs, i);

        if (other->restore_flags) {
            error_setg(errp, "cannot use stdio by multiple character devices");
            return false;
        }
    }
    chr->in_flags = fcntl(STDIN_FILENO, F_GETFL);
    chr->out_flags = fcntl(STDOUT_FILENO, F_GETFL);
    chr->restore_flags = chr->in_flags >= 0 && chr->out_flags >= 0;
    chr->in_fd = STDIN_FILENO;
    chr->out_fd = STDOUT_FILENO;
    return chardev_set_nonblocking(chr->in_fd, errp) &&
           chardev_set_nonblocking(chr->out_fd, errp);
}

static bool open_backend(Chardev *chr, const char *backend, QDict *options, Error **errp)
{
    const char *key;
    json_t *value;
    bool ok;

    if (!strcmp(backend, "socket")) {
        ok = open_socket(chr, options, errp);
    } else if (!strcmp(backend, "fd")) {
        ok = open_fd(chr, options, errp);
    } else if (!strcmp(backend, "stdio")) {
        ok = open_stdio(chr, options, errp);
    } else {
        error_setg(errp, "'%s' is not a valid char driver name", backend);
        ok = false;
    }
    if (!ok) {
        return false;
    }
    json_object_foreach(options, key, value) {
        error_setg(errp, "Invalid parameter '%s'", key);
        return false;
    }
    return true;
}

bool chardev_add(QDict *const_options, Error **errp)
{
    g_autoptr(json_t) options = json_deep_copy(const_options);
    g_autofree char *backend = NULL;
    g_autofree char *id = NULL;
    Chardev *chr;

    if (!chardevs) {
        chardevs = g_ptr_array_new();
    }
    if (!bdrv_opt_str(options, "backend", &backend, errp) ||
        !bdrv_opt_str(options, "id", &id, errp)) {
        return false;
    }
    if (!backend) {
        error_setg(errp, "chardev: \"%s\" missing backend", id ?: "");
        return false;
    }
    if (!id) {
        error_setg(errp, "chardev: no id specified");
        return false;
    }
    if (chardev_find(id)) {
        error_setg(errp, "Chardev with id '%s' already exists", id);
        return false;
    }
    chr = g_new0(Chardev, 1);
    *chr = (Chardev){ .id = g_strdup(id), .listen_fd = -1, .in_fd = -1, .out_fd = -1 };
    if (!open_backend(chr, backend, options, errp)) {
        chardev_free(chr);
        return false;
    }
    g_ptr_array_add(chardevs, chr);
    return true;
}
