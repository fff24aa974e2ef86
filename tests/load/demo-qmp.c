/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "demo-qmp.h"

#define CONNECT_DEADLINE_US (10 * G_USEC_PER_SEC)
#define ANSWER_DEADLINE_US (20 * G_USEC_PER_SEC)

static int connect_once(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static bool fail(DemoQmp *qmp, const char *why)
{
    fprintf(stderr, "QMP: %s\n", why);
    qmp->dead = true;
    return false;
}

/* Append what arrives to qmp->input. False at the deadline or the end. */
static bool receive(DemoQmp *qmp, int64_t deadline_us)
{
    uint8_t buf[65536];
    struct pollfd pfd = { .fd = qmp->fd, .events = POLLIN };
    int64_t left_us = deadline_us - g_get_monotonic_time();
    ssize_t n;

    if (left_us <= 0 || poll(&pfd, 1, left_us / 1000 + 1) <= 0) {
        return fail(qmp, "the daemon does not answer");
    }
    n = read(qmp->fd, buf, sizeof(buf));
    if (n <= 0) {
        return fail(qmp, "the daemon closed the connection");
    }
    g_byte_array_append(qmp->input, buf, n);
    return true;
}

/* The next line as JSON, a new reference. */
static json_t *read_message(DemoQmp *qmp, int64_t deadline_us)
{
    for (;;) {
        uint8_t *end = qmp->input->len
            ? memchr(qmp->input->data, '\n', qmp->input->len) : NULL;

        if (end) {
            size_t n = end - qmp->input->data + 1;
            json_t *message = json_loadb((char *)qmp->input->data, n, 0, NULL);

            g_byte_array_remove_range(qmp->input, 0, n);
            if (!message) {
                fail(qmp, "the daemon sent a line that is not JSON");
            }
            return message;
        }
        if (!receive(qmp, deadline_us)) {
            return NULL;
        }
    }
}

static bool send_all(DemoQmp *qmp, const char *text)
{
    size_t left = strlen(text);

    while (left) {
        ssize_t n = send(qmp->fd, text, left, MSG_NOSIGNAL);

        if (n < 0) {
            return fail(qmp, strerror(errno));
        }
        text += n;
        left -= n;
    }
    return true;
}

bool demo_qmp_open(DemoQmp *qmp, const char *path)
{
    int64_t deadline_us = g_get_monotonic_time() + CONNECT_DEADLINE_US;
    json_t *message;

    *qmp = (DemoQmp){ .fd = connect_once(path), .input = g_byte_array_new() };
    while (qmp->fd < 0 && (errno == ENOENT || errno == ECONNREFUSED)
           && g_get_monotonic_time() < deadline_us) {
        g_usleep(5000);
        qmp->fd = connect_once(path);
    }
    if (qmp->fd < 0) {
        perror(path);
        qmp->dead = true;
        return false;
    }
    message = read_message(qmp, deadline_us);
    if (message && !json_object_get(message, "QMP")) {
        fail(qmp, "no greeting");
    }
    json_decref(message);
    if (!qmp->dead) {
        json_decref(demo_qmp_command(qmp, "qmp_capabilities", NULL, NULL));
    }
    return !qmp->dead;
}

void demo_qmp_close(DemoQmp *qmp)
{
    if (qmp->fd >= 0) {
        close(qmp->fd);
    }
    g_byte_array_unref(qmp->input);
    *qmp = (DemoQmp){ .fd = -1 };
}

/* The answer to ID, a new reference; whatever else arrives before it is an event. */
static json_t *wait_for_answer(DemoQmp *qmp, unsigned id)
{
    int64_t deadline_us = g_get_monotonic_time() + ANSWER_DEADLINE_US;

    for (;;) {
        json_t *message = read_message(qmp, deadline_us);
        json_t *answer_id;

        if (!message) {
            return NULL;
        }
        answer_id = json_object_get(message, "id");
        if (json_is_integer(answer_id) && json_integer_value(answer_id) == id) {
            return message;
        }
        json_decref(message);
    }
}

json_t *demo_qmp_command(DemoQmp *qmp, const char *command, json_t *arguments,
                         uint64_t *latency_us)
{
    unsigned id = qmp->next_id++;
    json_t *request, *answer, *value;
    g_autofree char *text = NULL;
    int64_t begin_us;

    request = json_pack("{s:s, s:i}", "execute", command, "id", id);
    if (arguments) {
        json_object_set_new(request, "arguments", arguments);
    }
    text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    begin_us = g_get_monotonic_time();
    if (qmp->dead || !send_all(qmp, text)) {
        return NULL;
    }
    answer = wait_for_answer(qmp, id);
    if (!answer) {
        return NULL;
    }
    if (latency_us) {
        *latency_us = g_get_monotonic_time() - begin_us;
    }
    value = json_incref(json_object_get(answer, "return"));
    if (!value) {
        json_t *error = json_object_get(answer, "error");

        fprintf(stderr, "QMP: %s: %s\n", text,
                json_string_value(json_object_get(error, "desc")));
    }
    json_decref(answer);
    return value;
}
