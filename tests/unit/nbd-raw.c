/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "tests/unit/nbd-raw.h"
#include <sys/socket.h>
#include <sys/un.h>

int raw_connect(const char *path)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpuint(g_strlcpy(un.sun_path, path, sizeof(un.sun_path)), <,
                     sizeof(un.sun_path));
    if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
        g_error("connect %s: %s", path, strerror(errno));
    }
    return fd;
}

bool raw_send(int fd, const void *buf, size_t len)
{
    while (len) {
        ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        buf = (const char *)buf + n;
        len -= n;
    }
    return true;
}

bool raw_recv(int fd, void *buf, size_t len)
{
    while (len) {
        ssize_t n = recv(fd, buf, len, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        buf = (char *)buf + n;
        len -= n;
    }
    return true;
}

bool raw_at_eof(int fd)
{
    char c;

    return recv(fd, &c, 1, 0) <= 0;
}

/* ---- handshake -------------------------------------------------------------------- */

bool raw_greet(int fd, uint32_t client_flags)
{
    uint8_t greeting[NBD_GREETING_SIZE], flags[4];

    if (!raw_recv(fd, greeting, sizeof(greeting))) {
        return false;
    }
    g_assert_cmphex(nbd_get64(greeting), ==, NBD_INIT_MAGIC);
    g_assert_cmphex(nbd_get64(greeting + 8), ==, NBD_OPTS_MAGIC);
    g_assert_cmphex(nbd_get16(greeting + 16), ==,
                    NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    nbd_put32(flags, client_flags);
    return raw_send(fd, flags, sizeof(flags));
}

bool raw_option(int fd, uint32_t option, const void *data, uint32_t len)
{
    uint8_t header[NBD_OPTION_HEADER_SIZE];

    nbd_put32(nbd_put32(nbd_put64(header, NBD_OPTS_MAGIC), option), len);
    return raw_send(fd, header, sizeof(header)) && (!len || raw_send(fd, data, len));
}

uint32_t raw_option_reply(int fd, uint32_t option, char *text, size_t text_size)
{
    uint8_t header[NBD_OPTION_REPLY_SIZE];
    uint32_t len;
    g_autofree char *payload = NULL;

    g_assert_true(raw_recv(fd, header, sizeof(header)));
    g_assert_cmphex(nbd_get64(header), ==, NBD_REP_MAGIC);
    g_assert_cmpuint(nbd_get32(header + 8), ==, option);
    len = nbd_get32(header + 16);
    g_assert_cmpuint(len, <=, 64 * 1024);
    payload = g_malloc0(len + 1);
    g_assert_true(raw_recv(fd, payload, len));
    if (text) {
        memset(text, 0, text_size);
        memcpy(text, payload, MIN((size_t)len, text_size - 1));
    }
    return nbd_get32(header + 12);
}

static bool negotiate_structured(int fd)
{
    return raw_option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0) &&
           raw_option_reply(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0) == NBD_REP_ACK;
}

int64_t raw_go(int fd, const char *name, bool structured)
{
    size_t name_len = strlen(name);
    g_autofree uint8_t *data = g_malloc(6 + name_len);
    int64_t size = -1;
    char text[64];
    uint32_t type;

    if (!raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES) ||
        (structured && !negotiate_structured(fd))) {
        return -1;
    }
    memcpy(nbd_put32(data, name_len), name, name_len);
    nbd_put16(data + 4 + name_len, 0);
    if (!raw_option(fd, NBD_OPT_GO, data, 6 + name_len)) {
        return -1;
    }
    for (;;) {
        type = raw_option_reply(fd, NBD_OPT_GO, text, sizeof(text));
        if (type == NBD_REP_ACK) {
            return size;
        }
        if (type != NBD_REP_INFO) {
            return -1;
        }
        if (nbd_get16(text) == NBD_INFO_EXPORT) {
            size = nbd_get64(text + 2);
        }
    }
}

int raw_open(const char *path, const char *name, int64_t *size)
{
    int fd = raw_connect(path);
    int64_t n = raw_go(fd, name, false);

    g_assert_cmpint(n, >=, 0);
    if (size) {
        *size = n;
    }
    return fd;
}

/* ---- transmission ----------------------------------------------------------------- */

void raw_request_header(uint8_t *buf, uint16_t flags, uint16_t type, uint64_t cookie,
                        uint64_t offset, uint32_t len)
{
    buf = nbd_put16(nbd_put16(nbd_put32(buf, NBD_REQUEST_MAGIC), flags), type);
    nbd_put32(nbd_put64(nbd_put64(buf, cookie), offset), len);
}

bool raw_request(int fd, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
                 uint32_t len)
{
    uint8_t header[NBD_REQUEST_SIZE];

    raw_request_header(header, flags, type, cookie, offset, len);
    return raw_send(fd, header, sizeof(header));
}

bool raw_reply(int fd, uint32_t *error, uint64_t *cookie)
{
    uint8_t header[NBD_SIMPLE_REPLY_SIZE];

    if (!raw_recv(fd, header, sizeof(header))) {
        return false;
    }
    g_assert_cmphex(nbd_get32(header), ==, NBD_SIMPLE_REPLY_MAGIC);
    *error = nbd_get32(header + 4);
    *cookie = nbd_get64(header + 8);
    return true;
}

static int reply_to(int fd, uint64_t cookie)
{
    uint32_t error;
    uint64_t got;

    if (!raw_reply(fd, &error, &got)) {
        return -1;
    }
    g_assert_cmphex(got, ==, cookie);
    return error;
}

int raw_command(int fd, uint16_t flags, uint16_t type, uint64_t offset, uint32_t len)
{
    uint64_t cookie = offset ^ UINT64_C(0xfeedfacecafebeef) ^ type;

    if (!raw_request(fd, flags, type, cookie, offset, len)) {
        return -1;
    }
    return reply_to(fd, cookie);
}

int raw_pread(int fd, void *buf, uint64_t offset, uint32_t len)
{
    int error = raw_command(fd, 0, NBD_CMD_READ, offset, len);

    if (error == 0 && !raw_recv(fd, buf, len)) {
        return -1;
    }
    return error;
}

int raw_pwrite(int fd, const void *buf, uint64_t offset, uint32_t len, uint16_t flags)
{
    if (!raw_request(fd, flags, NBD_CMD_WRITE, offset, offset, len) ||
        !raw_send(fd, buf, len)) {
        return -1;
    }
    return reply_to(fd, offset);
}
