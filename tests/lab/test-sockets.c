/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * UNIX stream sockets. The same source is linked with the native library and with the lab, and
 * both must pass: the lab's sockets are those of Linux.
 */
#include "miniblk/osdep.h"
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "miniblk/atomic.h"

static char *directory;

static int ready(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

    g_assert_cmpint(poll(&p, 1, 0), >=, 0);
    return p.revents;
}

static void make_nonblocking(int fd)
{
    g_assert_cmpint(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), ==, 0);
}

#define ASSERT_FAILS(call, err) do {                                            \
        g_assert_cmpint((call), ==, -1);                                        \
        g_assert_cmpstr(strerror(errno), ==, strerror(err));                    \
    } while (0)

/* ---- servers and clients --------------------------------------------------------------- */

static struct sockaddr_un address_of(const char *name)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    g_assert_cmpint(snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s", directory, name), <,
                    sizeof(un.sun_path));
    return un;
}

static int stream_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static int bind_to(int fd, const char *name)
{
    struct sockaddr_un un = address_of(name);
    return bind(fd, (struct sockaddr *)&un, sizeof(un));
}

static int connect_to(int fd, const char *name)
{
    struct sockaddr_un un = address_of(name);
    return connect(fd, (struct sockaddr *)&un, sizeof(un));
}

static int server_new(const char *name, int backlog)
{
    int fd = stream_socket();

    g_assert_cmpint(bind_to(fd, name), ==, 0);
    g_assert_cmpint(listen(fd, backlog), ==, 0);
    return fd;
}

static void remove_name(const char *name)
{
    struct sockaddr_un un = address_of(name);
    g_assert_cmpint(unlink(un.sun_path), ==, 0);
}

static int client_new(const char *name)
{
    int fd = stream_socket();

    g_assert_cmpint(connect_to(fd, name), ==, 0);
    return fd;
}

static void test_connect(void)
{
    int server = server_new("s", 5);
    char text[8] = "";

    g_assert_cmpint(ready(server), ==, 0);
    int client = client_new("s");
    /* connected, and may send, before the server has looked */
    g_assert_cmpint(send(client, "hello", 5, MSG_NOSIGNAL), ==, 5);
    g_assert_cmpint(ready(server), ==, POLLIN);
    int end = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    g_assert_cmpint(end, >=, 0);
    g_assert_cmpint(fcntl(end, F_GETFL) & O_NONBLOCK, ==, O_NONBLOCK);
    g_assert_cmpint(fcntl(end, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(ready(server), ==, 0);
    g_assert_cmpint(ready(end), ==, POLLIN | POLLOUT);
    g_assert_cmpint(recv(end, text, sizeof(text), 0), ==, 5);
    g_assert_cmpstr(text, ==, "hello");
    ASSERT_FAILS(recv(end, text, 1, 0), EAGAIN);
    /* the listening socket is not needed any more */
    close(server);
    remove_name("s");
    g_assert_cmpint(send(end, "back", 4, 0), ==, 4);
    g_assert_cmpint(read(client, text, sizeof(text)), ==, 4);
    close(end);
    close(client);
}

static void test_what_cannot_be_connected(void)
{
    int server = server_new("s", 5), client = stream_socket(), fds[2];
    struct sockaddr_un un = address_of("s");
    struct sockaddr_in in = { .sin_family = AF_INET };
    g_autofree char *file = g_build_filename(directory, "file", NULL);

    ASSERT_FAILS(connect_to(client, "nobody"), ENOENT);
    g_assert_true(g_file_set_contents(file, "x", 1, NULL));
    ASSERT_FAILS(connect_to(client, "file"), ECONNREFUSED);
    unlink(file);
    ASSERT_FAILS(connect(client, (struct sockaddr *)&in, sizeof(in)), EINVAL);
    ASSERT_FAILS(connect(client, (struct sockaddr *)&un, 1), EINVAL);
    ASSERT_FAILS(connect(-1, (struct sockaddr *)&un, sizeof(un)), EBADF);
    g_assert_cmpint(pipe(fds), ==, 0);
    ASSERT_FAILS(connect(fds[0], (struct sockaddr *)&un, sizeof(un)), ENOTSOCK);
    ASSERT_FAILS(send(fds[1], "x", 1, 0), ENOTSOCK);
    ASSERT_FAILS(recv(fds[0], &un, 1, 0), ENOTSOCK);
    close(fds[0]);
    close(fds[1]);

    g_assert_cmpint(connect_to(client, "s"), ==, 0);
    ASSERT_FAILS(connect_to(client, "s"), EISCONN);
    ASSERT_FAILS(connect_to(server, "s"), EINVAL);
    close(server);
    int other = stream_socket();
    ASSERT_FAILS(connect_to(other, "s"), ECONNREFUSED);
    remove_name("s");
    ASSERT_FAILS(connect_to(other, "s"), ENOENT);
    /* a name that is bound but does not listen */
    int bound = stream_socket();
    g_assert_cmpint(bind_to(bound, "b"), ==, 0);
    ASSERT_FAILS(connect_to(other, "b"), ECONNREFUSED);
    remove_name("b");
    close(bound);
    close(other);
    close(client);
}

static void test_names_of_sockets(void)
{
    int fd = stream_socket(), other = stream_socket();
    struct sockaddr_un un = address_of("s");
    struct stat st;

    ASSERT_FAILS(listen(fd, 1), EINVAL);
    ASSERT_FAILS(bind_to(fd, "missing/s"), ENOENT);
    g_assert_cmpint(bind_to(fd, "s"), ==, 0);
    ASSERT_FAILS(bind_to(fd, "again"), EINVAL);
    ASSERT_FAILS(bind_to(other, "s"), EADDRINUSE);
    g_assert_cmpint(lstat(un.sun_path, &st), ==, 0);
    g_assert_true(S_ISSOCK(st.st_mode));
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_true(S_ISSOCK(st.st_mode));
    ASSERT_FAILS(open(un.sun_path, O_RDWR), ENXIO);
    close(fd);
    /* the name outlives the socket */
    ASSERT_FAILS(bind_to(other, "s"), EADDRINUSE);
    remove_name("s");
    g_assert_cmpint(bind_to(other, "s"), ==, 0);
    remove_name("s");
    close(other);
}

static void assert_name(int ret, const struct sockaddr_un *un, socklen_t size,
                        const char *name)
{
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpint(un->sun_family, ==, AF_UNIX);
    if (name) {
        struct sockaddr_un expected = address_of(name);
        g_assert_cmpuint(size, ==, offsetof(struct sockaddr_un, sun_path) +
                         strlen(expected.sun_path) + 1);
        g_assert_cmpstr(un->sun_path, ==, expected.sun_path);
    } else {
        g_assert_cmpuint(size, ==, offsetof(struct sockaddr_un, sun_path));
    }
}

#define ASSERT_NAME(call, fd, name) do {                                        \
        struct sockaddr_un un_;                                                 \
        socklen_t size_ = sizeof(un_);                                          \
        int ret_ = call(fd, (struct sockaddr *)&un_, &size_);                   \
        assert_name(ret_, &un_, size_, name);                                   \
    } while (0)

static void test_who_is_who(void)
{
    int server = server_new("s", 5), client = stream_socket();
    struct sockaddr_un un;
    socklen_t size = sizeof(un);

    ASSERT_NAME(getsockname, server, "s");
    ASSERT_NAME(getsockname, client, NULL);
    ASSERT_FAILS(getpeername(client, (struct sockaddr *)&un, &size), ENOTCONN);
    g_assert_cmpint(connect_to(client, "s"), ==, 0);
    int end = accept(server, (struct sockaddr *)&un, &size);
    assert_name(0, &un, size, NULL);
    g_assert_cmpint(fcntl(end, F_GETFL) & O_NONBLOCK, ==, 0);
    ASSERT_NAME(getsockname, end, "s");
    ASSERT_NAME(getpeername, end, NULL);
    ASSERT_NAME(getpeername, client, "s");
    /* a client may have a name */
    int named = stream_socket();
    g_assert_cmpint(bind_to(named, "c"), ==, 0);
    g_assert_cmpint(connect_to(named, "s"), ==, 0);
    size = sizeof(un);
    int named_end = accept(server, (struct sockaddr *)&un, &size);
    assert_name(0, &un, size, "c");
    /* what does not fit is cut, and its size told */
    size = sizeof(un.sun_family);
    g_assert_cmpint(getpeername(named_end, (struct sockaddr *)&un, &size), ==, 0);
    g_assert_cmpuint(size, >, sizeof(un.sun_family));
    remove_name("c");
    remove_name("s");
    close(named_end);
    close(named);
    close(end);
    close(client);
    close(server);
}

static void test_options(void)
{
    int server = server_new("s", 5), on = 1, value = -1;
    socklen_t size = sizeof(value);

    g_assert_cmpint(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), ==, 0);
    g_assert_cmpint(setsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)), ==, 0);
    ASSERT_FAILS(setsockopt(server, SOL_SOCKET, SO_KEEPALIVE, &on, 1), EINVAL);
    ASSERT_FAILS(setsockopt(server, 6 /* TCP */, 1, &on, sizeof(on)), EOPNOTSUPP);
    g_assert_cmpint(getsockopt(server, SOL_SOCKET, SO_TYPE, &value, &size), ==, 0);
    g_assert_cmpint(value, ==, SOCK_STREAM);
    g_assert_cmpuint(size, ==, sizeof(value));
    g_assert_cmpint(getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &value, &size), ==, 0);
    g_assert_cmpint(value, ==, 1);
    g_assert_cmpint(getsockopt(server, SOL_SOCKET, SO_ERROR, &value, &size), ==, 0);
    g_assert_cmpint(value, ==, 0);
    ASSERT_FAILS(getsockopt(server, 6, 1, &value, &size), EOPNOTSUPP);
    remove_name("s");
    close(server);
}

/* ---- what poll() says ------------------------------------------------------------------ */

static void test_not_connected(void)
{
    int fd = stream_socket();
    char c;

    g_assert_cmpint(ready(fd), ==, POLLOUT | POLLHUP);
    ASSERT_FAILS(recv(fd, &c, 1, 0), EINVAL);
    ASSERT_FAILS(send(fd, "x", 1, MSG_NOSIGNAL), ENOTCONN);
    ASSERT_FAILS(accept(fd, NULL, NULL), EINVAL);
    close(fd);
}

static void pair(int fds[2])
{
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
}

static void test_pair(void)
{
    char text[8] = "";
    int fds[2];

    pair(fds);
    g_assert_cmpint(ready(fds[0]), ==, POLLOUT);
    ASSERT_FAILS(read(fds[0], text, sizeof(text)), EAGAIN);
    g_assert_cmpint(write(fds[1], "hello", 5), ==, 5);
    g_assert_cmpint(recv(fds[0], text, 3, MSG_PEEK), ==, 3);
    g_assert_cmpint(read(fds[0], text, 2), ==, 2);
    g_assert_cmpint(read(fds[0], text + 2, sizeof(text) - 2), ==, 3);
    g_assert_cmpstr(text, ==, "hello");
    close(fds[0]);
    close(fds[1]);
}

static void test_shutdown(void)
{
    int fds[2];
    char c;

    pair(fds);
    ASSERT_FAILS(shutdown(fds[0], 9), EINVAL);
    g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
    g_assert_cmpint(shutdown(fds[1], SHUT_WR), ==, 0);
    g_assert_cmpint(ready(fds[1]), ==, POLLOUT);
    ASSERT_FAILS(send(fds[1], "y", 1, MSG_NOSIGNAL), EPIPE);
    /* the other end reads what there was, then the end; and may still send */
    g_assert_cmpint(ready(fds[0]), ==, POLLIN | POLLRDHUP | POLLOUT);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 1);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
    g_assert_cmpint(write(fds[0], "back", 4), ==, 4);
    g_assert_cmpint(shutdown(fds[0], SHUT_RDWR), ==, 0);
    g_assert_cmpint(ready(fds[0]), ==, POLLIN | POLLRDHUP | POLLOUT | POLLHUP);
    g_assert_cmpint(ready(fds[1]), ==, POLLIN | POLLRDHUP | POLLOUT | POLLHUP);
    g_assert_cmpint(read(fds[1], &c, 1), ==, 1);
    close(fds[0]);
    close(fds[1]);

    pair(fds);
    g_assert_cmpint(shutdown(fds[0], SHUT_RD), ==, 0);
    ASSERT_FAILS(send(fds[1], "y", 1, MSG_NOSIGNAL), EPIPE);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
    close(fds[0]);
    close(fds[1]);
}

static void test_peer_closes(void)
{
    int fds[2];
    char c;

    pair(fds);
    g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
    close(fds[1]);
    g_assert_cmpint(ready(fds[0]), ==, POLLIN | POLLRDHUP | POLLOUT | POLLHUP);
    ASSERT_FAILS(send(fds[0], "y", 1, MSG_NOSIGNAL), EPIPE);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 1);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
    close(fds[0]);
}

/* Who closes while there is something to read resets the connection. */
static void test_peer_closes_unread(void)
{
    int fds[2], value = 0;
    socklen_t size = sizeof(value);
    char c;

    for (int round = 0; round < 2; round++) {
        pair(fds);
        g_assert_cmpint(write(fds[0], "x", 1), ==, 1);
        g_assert_cmpint(write(fds[1], "y", 1), ==, 1);
        close(fds[1]);
        g_assert_cmpint(ready(fds[0]), ==,
                        POLLIN | POLLRDHUP | POLLOUT | POLLHUP | POLLERR);
        g_assert_cmpint(read(fds[0], &c, 1), ==, 1);
        if (round == 0) {
            ASSERT_FAILS(read(fds[0], &c, 1), ECONNRESET);
        } else {
            g_assert_cmpint(getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &value, &size), ==, 0);
            g_assert_cmpint(value, ==, ECONNRESET);
        }
        g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
        close(fds[0]);
    }
}

/* So does a server that goes away before it has accepted. */
static void test_server_closes_unaccepted(void)
{
    int server = server_new("s", 5), client = client_new("s");
    char c;

    close(server);
    remove_name("s");
    g_assert_cmpint(ready(client), ==, POLLIN | POLLRDHUP | POLLOUT | POLLHUP | POLLERR);
    ASSERT_FAILS(read(client, &c, 1), ECONNRESET);
    g_assert_cmpint(read(client, &c, 1), ==, 0);
    ASSERT_FAILS(send(client, &c, 1, MSG_NOSIGNAL), EPIPE);
    close(client);
}

static void test_client_leaves_unaccepted(void)
{
    int server = server_new("s", 5), client = client_new("s");
    char c;

    g_assert_cmpint(write(client, "x", 1), ==, 1);
    close(client);
    int end = accept(server, NULL, NULL);
    g_assert_cmpint(end, >=, 0);
    g_assert_cmpint(read(end, &c, 1), ==, 1);
    g_assert_cmpint(read(end, &c, 1), ==, 0);
    remove_name("s");
    close(end);
    close(server);
}

/* ---- limits ---------------------------------------------------------------------------- */

static void test_backlog(void)
{
    int server = server_new("s", 1), clients[3];

    make_nonblocking(server);
    for (int i = 0; i < 3; i++) {
        clients[i] = stream_socket();
        make_nonblocking(clients[i]);
    }
    /* one more than asked for, as ever */
    g_assert_cmpint(connect_to(clients[0], "s"), ==, 0);
    g_assert_cmpint(connect_to(clients[1], "s"), ==, 0);
    ASSERT_FAILS(connect_to(clients[2], "s"), EAGAIN);
    for (int i = 0; i < 2; i++) {
        int end = accept(server, NULL, NULL);
        g_assert_cmpint(end, >=, 0);
        close(end);
    }
    ASSERT_FAILS(accept(server, NULL, NULL), EAGAIN);
    g_assert_cmpint(connect_to(clients[2], "s"), ==, 0);
    remove_name("s");
    for (int i = 0; i < 3; i++) {
        close(clients[i]);
    }
    close(server);
}

enum { BLOCK = 4096 };

/* A socket that takes no more is writable again when most has been read. */
static void test_full(void)
{
    static char block[BLOCK];
    size_t sent = 0, read_bytes = 0;
    int fds[2];
    ssize_t n;

    pair(fds);
    while ((n = send(fds[0], block, sizeof(block), MSG_DONTWAIT)) > 0) {
        sent += n;
    }
    g_assert_cmpint(errno, ==, EAGAIN);
    g_assert_cmpuint(sent, >=, 32 * 1024);
    g_assert_cmpint(ready(fds[0]), ==, 0);
    g_assert_cmpint(read(fds[1], block, sizeof(block)), ==, sizeof(block));
    /* a block of room: it may send, but is not told so */
    g_assert_cmpint(ready(fds[0]), ==, 0);
    for (read_bytes = BLOCK; read_bytes < sent; read_bytes += n) {
        n = read(fds[1], block, sizeof(block));
        g_assert_cmpint(n, >, 0);
    }
    g_assert_cmpuint(read_bytes, ==, sent);
    g_assert_cmpint(ready(fds[0]), ==, POLLOUT);
    ASSERT_FAILS(read(fds[1], block, sizeof(block)), EAGAIN);
    close(fds[0]);
    close(fds[1]);
}

/* ---- threads --------------------------------------------------------------------------- */

enum { MESSAGE = 300 * 1024 };

static uint8_t byte_at(size_t i)
{
    return i * 7 + i / 251;
}

/* Blocking: all of it, in two pieces, however little room there is. */
static gpointer send_message(gpointer opaque)
{
    int fd = GPOINTER_TO_INT(opaque);
    g_autofree uint8_t *data = g_malloc(MESSAGE);
    struct iovec iov[2] = { { data, 5 }, { data + 5, MESSAGE - 5 } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

    for (size_t i = 0; i < MESSAGE; i++) {
        data[i] = byte_at(i);
    }
    g_assert_cmpint(sendmsg(fd, &msg, MSG_NOSIGNAL), ==, MESSAGE);
    g_assert_cmpint(shutdown(fd, SHUT_WR), ==, 0);
    return NULL;
}

static void test_long_message(void)
{
    uint8_t part[3][1000];
    struct iovec iov[3] = { { part[0], 1000 }, { part[1], 1 }, { part[2], 999 } };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
    size_t done = 0;
    int fds[2];
    ssize_t n;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    GThread *sender = g_thread_new("sender", send_message, GINT_TO_POINTER(fds[0]));
    while ((n = recvmsg(fds[1], &msg, 0)) > 0) {
        for (ssize_t i = 0; i < n; i++, done++) {
            uint8_t *p = i < 1000 ? &part[0][i] : i < 1001 ? part[1] : &part[2][i - 1001];
            g_assert_cmpuint(*p, ==, byte_at(done));
        }
    }
    g_assert_cmpint(n, ==, 0);
    g_assert_cmpuint(done, ==, MESSAGE);
    g_thread_join(sender);
    close(fds[0]);
    close(fds[1]);
}

static gpointer serve_one(gpointer opaque)
{
    int end = accept(GPOINTER_TO_INT(opaque), NULL, NULL);
    char c;

    g_assert_cmpint(end, >=, 0);
    g_assert_cmpint(read(end, &c, 1), ==, 1);
    g_assert_cmpint(write(end, &c, 1), ==, 1);
    g_assert_cmpint(read(end, &c, 1), ==, 0);
    close(end);
    return NULL;
}

/* Each of them sleeps until the other comes. */
static void test_echo(void)
{
    int server = server_new("s", 0);
    GThread *thread = g_thread_new("server", serve_one, GINT_TO_POINTER(server));
    int client = client_new("s");
    char c = 'x';

    g_assert_cmpint(write(client, &c, 1), ==, 1);
    g_assert_cmpint(read(client, &c, 1), ==, 1);
    g_assert_cmpint(c, ==, 'x');
    close(client);
    g_thread_join(thread);
    remove_name("s");
    close(server);
}

static gpointer connect_and_say(gpointer opaque)
{
    int fd = client_new("s");

    g_assert_cmpint(write(fd, opaque, 1), ==, 1);
    close(fd);
    return NULL;
}

/* More clients than the backlog takes wait, and each is served once. */
static void test_crowd(void)
{
    static const char *const names[] = { "a", "b", "c" };
    int server = server_new("s", 0), seen = 0;
    GThread *threads[G_N_ELEMENTS(names)];

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        threads[i] = g_thread_new("client", connect_and_say, (gpointer)names[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        int end = accept(server, NULL, NULL);
        char c = 0;
        g_assert_cmpint(read(end, &c, 1), ==, 1);
        seen |= 1 << (c - 'a');
        close(end);
    }
    g_assert_cmpint(seen, ==, 7);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_thread_join(threads[i]);
    }
    remove_name("s");
    close(server);
}

static bool refused;

static gpointer connect_or_not(gpointer opaque)
{
    int fd = stream_socket();

    refused = connect_to(fd, "s") < 0;
    g_assert_true(!refused || errno == ECONNREFUSED);
    close(fd);
    return NULL;
}

/*
 *      client                              main
 *      connect: the queue is full
 *                                          close the server: the client is refused
 */
static void test_server_closes_on_those_who_wait(void)
{
    int server = server_new("s", 0), first = client_new("s");
    GThread *thread = g_thread_new("client", connect_or_not, NULL);

    close(server);
    g_thread_join(thread);
    g_assert_true(refused);
    remove_name("s");
    close(first);
}

static gpointer hang_up(gpointer opaque)
{
    shutdown(GPOINTER_TO_INT(opaque), SHUT_RDWR);
    return NULL;
}

/* Who sleeps in read() or epoll learns that his own side was shut down by another thread. */
static void test_shutdown_wakes(void)
{
    struct epoll_event event = { .events = EPOLLIN };
    int fds[2], epfd = epoll_create1(EPOLL_CLOEXEC);
    char c;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    GThread *thread = g_thread_new("other", hang_up, GINT_TO_POINTER(fds[0]));
    g_assert_cmpint(epoll_ctl(epfd, EPOLL_CTL_ADD, fds[1], &event), ==, 0);
    g_assert_cmpint(read(fds[0], &c, 1), ==, 0);
    g_assert_cmpint(epoll_wait(epfd, &event, 1, -1), ==, 1);
    g_assert_cmpint(event.events, ==, EPOLLIN | EPOLLHUP);
    g_thread_join(thread);
    close(epfd);
    close(fds[0]);
    close(fds[1]);
}

static int closed_fds[2];

static gpointer close_it(gpointer opaque)
{
    close(closed_fds[0]);
    g_assert_cmpint(write(closed_fds[1], "x", 1), ==, 1);
    return NULL;
}

/* A call that has begun goes on when its descriptor is closed; the socket lives so long. */
static void test_close_under_a_reader(void)
{
    char c = 0;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, closed_fds), ==, 0);
    int copy = dup(closed_fds[0]);
    GThread *thread = g_thread_new("closer", close_it, NULL);
    ssize_t n = read(closed_fds[0], &c, 1);
    if (n < 0) {
        g_assert_cmpint(errno, ==, EBADF);      /* it was closed before */
    } else {
        g_assert_cmpint(c, ==, 'x');
    }
    g_thread_join(thread);
    close(copy);
    close(closed_fds[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    directory = g_dir_make_tmp("miniblk-sockets-XXXXXX", NULL);
    g_assert_nonnull(directory);
    g_test_add_func("/sockets/connect", test_connect);
    g_test_add_func("/sockets/connect/errors", test_what_cannot_be_connected);
    g_test_add_func("/sockets/names", test_names_of_sockets);
    g_test_add_func("/sockets/who-is-who", test_who_is_who);
    g_test_add_func("/sockets/options", test_options);
    g_test_add_func("/sockets/not-connected", test_not_connected);
    g_test_add_func("/sockets/pair", test_pair);
    g_test_add_func("/sockets/shutdown", test_shutdown);
    g_test_add_func("/sockets/peer-closes", test_peer_closes);
    g_test_add_func("/sockets/peer-closes/unread", test_peer_closes_unread);
    g_test_add_func("/sockets/server-closes", test_server_closes_unaccepted);
    g_test_add_func("/sockets/server-closes/on-those-who-wait",
                    test_server_closes_on_those_who_wait);
    g_test_add_func("/sockets/client-leaves", test_client_leaves_unaccepted);
    g_test_add_func("/sockets/backlog", test_backlog);
    g_test_add_func("/sockets/full", test_full);
    g_test_add_func("/sockets/long-message", test_long_message);
    g_test_add_func("/sockets/echo", test_echo);
    g_test_add_func("/sockets/crowd", test_crowd);
    g_test_add_func("/sockets/shutdown/wakes", test_shutdown_wakes);
    g_test_add_func("/sockets/close-under-a-reader", test_close_under_a_reader);
    int ret = g_test_run();
    g_assert_cmpint(rmdir(directory), ==, 0);
    g_free(directory);
    return ret;
}
