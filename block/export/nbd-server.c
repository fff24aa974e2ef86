/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server: listening, accepting, counting connections. All of it runs in the main
 * thread, events in the control context, so that no connection begins in somebody's wait.
 */
#include "miniblk/osdep.h"
#include "block/export/nbd-internal.h"
#include "miniblk/main-loop.h"
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define ACCEPTS_PER_EVENT       16
/* How long to leave the listening sockets alone when the system is out of descriptors. */
#define ACCEPT_RETRY_DELAY_MS   100

typedef struct NBDServer {
    GArray *fds;                        /* int: listening sockets */
    char *unix_path;                    /* to be removed at the end, or NULL */
    uint32_t max_connections;           /* 0: no limit */
    uint32_t handshake_max_secs;        /* 0: no limit */
    uint32_t connections;               /* accepted and not yet closed */
    bool watching;                      /* handlers on FDS are set */
    bool stopping;
    QEMUTimer retry;
    QLIST_HEAD(, NBDHandshake) handshakes;
} NBDServer;

static NBDServer *nbd_server;

static void server_accept(void *opaque);

/* Listen, or leave new connections in the kernel's queue, as the limit demands. */
static void server_update_watch(NBDServer *s)
{
    bool want = !s->stopping && !timer_pending(&s->retry) &&
                (!s->max_connections || s->connections < s->max_connections);

    if (want == s->watching) {
        return;
    }
    s->watching = want;
    for (guint i = 0; i < s->fds->len; i++) {
        int fd = g_array_index(s->fds, int, i);
        aio_set_fd_handler(iohandler_get_aio_context(), fd, want ? server_accept : NULL,
                           NULL, NULL, NULL,
                           want ? GINT_TO_POINTER(fd) : NULL);
    }
}

static void server_retry(void *opaque)
{
    server_update_watch(opaque);
}

static void connection_tune(int fd)
{
    int on = 1;

    /* These fail for unix sockets, which do not need them. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static void server_accept(void *opaque)
{
    NBDServer *s = nbd_server;
    int listen_fd = GPOINTER_TO_INT(opaque);

    for (int i = 0; i < ACCEPTS_PER_EVENT && s->watching; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                timer_mod(&s->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                     ACCEPT_RETRY_DELAY_MS);
                server_update_watch(s);
            }
            return;
        }
        connection_tune(fd);
        s->connections++;
        NBDHandshake *hs = nbd_handshake_begin(fd, s->handshake_max_secs);
        QLIST_INSERT_HEAD(&s->handshakes, hs, next);
        server_update_watch(s);
    }
}

void nbd_server_handshake_ended(NBDHandshake *hs)
{
    QLIST_REMOVE(hs, next);
}

void nbd_server_connection_closed(void)
{
    g_assert(nbd_server->connections > 0);
    nbd_server->connections--;
    server_update_watch(nbd_server);
}

bool nbd_server_single_connection(void)
{
    return nbd_server->max_connections == 1;
}

bool nbd_server_is_running(void)
{
    GLOBAL_STATE_CODE();
    return nbd_server;
}

bool nbd_server_start(QDict *addr, uint32_t max_connections, uint32_t handshake_max_secs,
                      Error **errp)
{
    g_autoptr(json_t) own_addr = json_copy(addr);
    g_autoptr(GArray) fds = g_array_new(false, false, sizeof(int));
    char *unix_path = NULL;
    NBDServer *s;

    GLOBAL_STATE_CODE();
    if (nbd_server) {
        error_setg(errp, "NBD server already running");
        return false;
    }
    if (!nbd_socket_listen(own_addr, fds, &unix_path, errp)) {
        return false;
    }
    s = g_new0(NBDServer, 1);
    s->fds = g_steal_pointer(&fds);
    s->unix_path = unix_path;
    s->max_connections = max_connections;
    s->handshake_max_secs = handshake_max_secs;
    QLIST_INIT(&s->handshakes);
    aio_timer_init(iohandler_get_aio_context(), &s->retry, QEMU_CLOCK_REALTIME, SCALE_MS,
                   server_retry, s);
    nbd_server = s;
    server_update_watch(s);
    return true;
}

bool nbd_server_stop(Error **errp)
{
    NBDServer *s = nbd_server;
    NBDHandshake *hs;

    GLOBAL_STATE_CODE();
    if (!s || s->stopping) {
        error_setg(errp, "NBD server not running");
        return false;
    }
    s->stopping = true;
    timer_deinit(&s->retry);
    server_update_watch(s);
    for (guint i = 0; i < s->fds->len; i++) {
        close(g_array_index(s->fds, int, i));
    }
    if (s->unix_path) {
        unlink(s->unix_path);
    }
    while ((hs = QLIST_FIRST(&s->handshakes))) {
        nbd_handshake_abort(hs);
    }
    blk_exp_close_all_type(&nbd_export_driver);
    /* Each client has held its export, so none is left. */
    g_assert(s->connections == 0);

    nbd_server = NULL;
    g_array_unref(s->fds);
    g_free(s->unix_path);
    g_free(s);
    return true;
}
