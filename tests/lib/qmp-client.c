/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Test harness: a QMP client. */
#include "miniblk/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "tests/lib/harness.h"
#include "tests/lib/harness-internal.h"

#define REPLY_TIMEOUT_MS 120000

struct TQmp {
    int fd;
    GString *in;            /* received and not yet handed out */
    json_t *events;         /* array, oldest first */
};

/* ---- connection ------------------------------------------------------------------- */

TQmp *t_qmp_connect_raw(const char *socket_path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    TQmp *q = g_new0(TQmp, 1);

    g_assert_cmpuint(strlen(socket_path), <, sizeof(addr.sun_path));
    strcpy(addr.sun_path, socket_path);
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (q->fd < 0 || connect(q->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        t__fail("cannot connect to %s: %s", socket_path, strerror(errno));
    }
    q->in = g_string_new(NULL);
    q->events = json_array();
    return q;
}

TQmp *t_qmp_connect(const char *socket_path, bool negotiate)
{
    TQmp *q = t_qmp_connect_raw(socket_path);
    g_autofree char *line = t_qmp_read_line(q, REPLY_TIMEOUT_MS);

    if (!line || !g_str_has_prefix(line, "{\"QMP\": ")) {
        t__fail("no greeting but: %s", line ?: "end of file");
    }
    if (negotiate) {
        t_qmp_run(q, "{'execute': 'qmp_capabilities'}");
    }
    return q;
}

void t_qmp_close(TQmp *q)
{
    close(q->fd);
    g_string_free(q->in, true);
    json_decref(q->events);
    g_free(q);
}

int t_qmp_fd(TQmp *q)
{
    return q->fd;
}

/* ---- lines ------------------------------------------------------------------------ */

void t_qmp_send_raw(TQmp *q, const void *buf, gsize len)
{
    const char *p = buf;

    while (len) {
        ssize_t n = send(q->fd, p, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            t__fail("QMP send: %s", strerror(errno));
        }
        p += n;
        len -= n;
    }
}

/* 1: something was read, 0: end of file, -1: nothing in time. */
static int receive(TQmp *q, int64_t deadline)
{
    char buf[65536];
    struct pollfd pfd = { .fd = q->fd, .events = POLLIN };
    ssize_t n;
    int ret;

    do {
        ret = poll(&pfd, 1, t__ms_left(deadline));
    } while (ret < 0 && errno == EINTR);
    if (ret == 0) {
        return -1;
    }
    n = recv(q->fd, buf, sizeof(buf), 0);
    if (n <= 0) {
        return 0;
    }
    g_string_append_len(q->in, buf, n);
    return 1;
}

char *t_qmp_read_line(TQmp *q, int timeout_ms)
{
    int64_t deadline = t__deadline(timeout_ms);
    char *nl, *line;
    gsize len;

    while (!(nl = memchr(q->in->str, '\n', q->in->len))) {
        int ret = receive(q, deadline);

        if (ret == 0) {
            if (q->in->len) {
                t__fail("end of file in the middle of a line: %s", q->in->str);
            }
            return NULL;
        }
        if (ret < 0 && timeout_ms == 0) {
            return NULL;
        }
        if (ret < 0) {
            t__fail("no QMP line within %d ms; so far: '%s'", timeout_ms, q->in->str);
        }
    }
    len = nl + 1 - q->in->str;
    line = g_strndup(q->in->str, len);
    g_string_erase(q->in, 0, len);
    return line;
}

bool t_qmp_wait_eof(TQmp *q, int timeout_ms)
{
    int64_t deadline = t__deadline(timeout_ms);
    int ret;

    while ((ret = receive(q, deadline)) > 0) {
        g_string_truncate(q->in, 0);
    }
    return ret == 0;
}

/* ---- commands --------------------------------------------------------------------- */

static json_t *read_object(TQmp *q, int timeout_ms)
{
    g_autofree char *line = t_qmp_read_line(q, timeout_ms);
    json_error_t err;
    json_t *obj;

    if (!line) {
        return NULL;
    }
    obj = json_loads(line, JSON_REJECT_DUPLICATES, &err);
    if (!obj || !json_is_object(obj)) {
        t__fail("not a JSON object: %s", line);
    }
    return obj;
}

static json_t *command(TQmp *q, const char *text)
{
    /* In one piece: after quit there may be nobody left to take the rest. */
    g_autofree char *line = g_strconcat(text, "\n", NULL);

    t_qmp_send_raw(q, line, strlen(line));
    for (;;) {
        json_t *obj = read_object(q, REPLY_TIMEOUT_MS);

        if (!obj) {
            t__fail("end of file instead of the reply to %s", text);
        }
        if (!json_object_get(obj, "event")) {
            return obj;
        }
        json_array_append_new(q->events, obj);
    }
}

#define FORMAT_TEXT(text, fmt)                                                  \
    g_autofree char *text = NULL;                                               \
    do {                                                                        \
        va_list ap_;                                                            \
        va_start(ap_, fmt);                                                     \
        text = g_strdup_vprintf(fmt, ap_);                                      \
        va_end(ap_);                                                            \
    } while (0)

json_t *t_qmp(TQmp *q, const char *fmt, ...)
{
    FORMAT_TEXT(text, fmt);
    return command(q, text);
}

static json_t *command_ok(TQmp *q, const char *text)
{
    json_t *reply = command(q, text);
    json_t *ret = json_object_get(reply, "return");

    if (!ret) {
        t__fail("%s: %s", text, json_dumps(reply, JSON_COMPACT));
    }
    json_incref(ret);
    json_decref(reply);
    return ret;
}

json_t *t_qmp_ok(TQmp *q, const char *fmt, ...)
{
    FORMAT_TEXT(text, fmt);
    return command_ok(q, text);
}

void t_qmp_run(TQmp *q, const char *fmt, ...)
{
    FORMAT_TEXT(text, fmt);
    json_t *ret = command_ok(q, text);

    if (!json_is_object(ret) || json_object_size(ret)) {
        t__fail("%s: returned %s", text, json_dumps(ret, JSON_ENCODE_ANY));
    }
    json_decref(ret);
}

void t_qmp_fails(TQmp *q, const char *desc, const char *fmt, ...)
{
    FORMAT_TEXT(text, fmt);
    json_t *reply = command(q, text);
    json_t *error = json_object_get(reply, "error");
    const char *got = error ? json_string_value(json_object_get(error, "desc")) : NULL;

    if (!got) {
        t__fail("%s: no error but %s", text, json_dumps(reply, JSON_COMPACT));
    }
    if (strcmp(got, desc)) {
        t__fail("%s:\nexpected: %s\ngot:      %s", text, desc, got);
    }
    json_decref(reply);
}

/* ---- events ----------------------------------------------------------------------- */

json_t *t_qmp_event(TQmp *q, const char *name, int timeout_ms)
{
    int64_t deadline = t__deadline(timeout_ms);
    size_t i = 0;

    for (;;) {
        for (; i < json_array_size(q->events); i++) {
            json_t *event = json_array_get(q->events, i);
            json_t *data;

            if (strcmp(json_string_value(json_object_get(event, "event")), name)) {
                continue;
            }
            data = json_incref(json_object_get(event, "data"));
            json_array_remove(q->events, i);
            return data ?: json_object();
        }
        while (!memchr(q->in->str, '\n', q->in->len)) {
            if (receive(q, deadline) <= 0) {
                return NULL;
            }
        }
        json_t *obj = read_object(q, 0);
        if (!json_object_get(obj, "event")) {
            t__fail("a reply instead of event %s: %s", name, json_dumps(obj, 0));
        }
        json_array_append_new(q->events, obj);
    }
}
