/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP clients that send junk, vanish, come in numbers, or do not read. */
#include "miniblk/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include "tests/lib/harness.h"

#define TIMEOUT_MS 60000

#define QUERY "\"execute\":\"query-block-exports\""

/* ---- junk ------------------------------------------------------------------------- */

/* Read until the reply with "id": N; what comes before is not looked at. */
static void sync_to(TQmp *q, unsigned n)
{
    g_autofree char *tail = g_strdup_printf("\"id\": %u}\r\n", n);
    bool found = false;

    while (!found) {
        g_autofree char *line = t_qmp_read_line(q, TIMEOUT_MS);

        g_assert_nonnull(line);
        g_assert_true(g_str_has_suffix(line, "}\r\n"));
        found = g_str_has_suffix(line, tail);
    }
}

/* Bytes that look enough like JSON to get somewhere. */
static void fill_junk(GRand *rand, char *buf, size_t len, bool jsonish)
{
    static const char chars[] = "{}[]:,\"'\\u0123456789eE+-.truefalsn \n\t\xff\xc3\xa9\x01";

    for (size_t i = 0; i < len; i++) {
        buf[i] = jsonish ? chars[g_rand_int_range(rand, 0, sizeof(chars) - 1)]
                         : (char)g_rand_int_range(rand, 0, 256);
    }
}

static void test_junk(void)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_qmp_connect(t_daemon_socket(d), true);
    GRand *rand = g_rand_new_with_seed(20240229);

    for (unsigned i = 0; i < 200; i++) {
        char junk[2048];
        g_autofree char *probe = g_strdup_printf("\xff{" QUERY ",\"id\":%u}\n", i);

        fill_junk(rand, junk, sizeof(junk), i & 1);
        t_qmp_send_raw(q, junk, sizeof(junk));
        t_qmp_send_raw(q, probe, strlen(probe));
        sync_to(q, i);
    }
    g_rand_free(rand);
    t_qmp_close(q);
    t_daemon_stop_ok(d);
}

static void send_repeated(TQmp *q, const char *text, int n)
{
    g_autoptr(GString) all = g_string_new(NULL);

    for (int i = 0; i < n; i++) {
        g_string_append(all, text);
    }
    t_qmp_send_raw(q, all->str, all->len);
}

/* One answer for thousands of brackets, and then life goes on. */
static void test_deep_nesting(void)
{
    static const char too_deep[] = "{\"error\": {\"class\": \"GenericError\", \"desc\": "
                                   "\"JSON nesting depth limit exceeded\"}}\r\n";
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_qmp_connect(t_daemon_socket(d), true);
    g_autofree char *line = NULL;

    send_repeated(q, "[", 100000);
    send_repeated(q, "]", 100000);
    line = t_qmp_read_line(q, TIMEOUT_MS);
    g_assert_cmpstr(line, ==, too_deep);
    t_qmp_run(q, "{'execute': 'blockdev-add', 'arguments': {'driver': 'null-co', "
              "'node-name': 'n0'}}");
    send_repeated(q, "{\"a\":", 100000);
    send_repeated(q, "}", 100000);
    g_free(line);
    line = t_qmp_read_line(q, TIMEOUT_MS);
    g_assert_cmpstr(line, ==, too_deep);
    t_qmp_run(q, "{'execute': 'blockdev-del', 'arguments': {'node-name': 'n0'}}");
    t_qmp_close(q);
    t_daemon_stop_ok(d);
}

/* ---- clients that go and come ----------------------------------------------------- */

static int count_fds(TDaemon *d)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", (int)t_daemon_pid(d));
    GDir *dir = g_dir_open(path, 0, NULL);
    int n = 0;

    g_assert_nonnull(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

/* A client that vanishes after any number of bytes leaves nothing behind. */
static void test_vanishing_clients(void)
{
    static const char session[] = "{\"execute\":\"qmp_capabilities\"}\n"
                                  "{\"execute\":\"query-commands\",\"id\":1}\n"
                                  "{\"execute\":\"query-named-block-nodes\"}\n";
    TDaemon *d = t_daemon_start("--blockdev null-co,node-name=n0");
    TQmp *q = t_qmp_connect(t_daemon_socket(d), true);
    int fds = count_fds(d);

    t_qmp_close(q);
    for (size_t len = 0; len <= strlen(session); len++) {
        q = t_qmp_connect_raw(t_daemon_socket(d));
        t_qmp_send_raw(q, session, len);
        t_qmp_close(q);
    }
    q = t_qmp_connect(t_daemon_socket(d), true);
    json_decref(t_qmp_ok(q, "{'execute': 'query-version'}"));
    g_assert_cmpint(count_fds(d), ==, fds);
    t_qmp_close(q);
    t_daemon_stop_ok(d);
}

/* What was sent before the client closed its half is carried out and answered. */
static void test_half_close(void)
{
    static const char session[] =
        "{'execute':'qmp_capabilities'}"
        "{'execute':'blockdev-add','arguments':{'driver':'null-co','node-name':'a'}}"
        "{'execute':'blockdev-del','arguments':{'node-name':'a'},'id':'end'}"
        "{'execute':'incompl";
    TDaemon *d = t_daemon_start("%s", "");

    for (int i = 0; i < 20; i++) {
        TQmp *q = t_qmp_connect_raw(t_daemon_socket(d));
        static const char *const expected[] = {
            NULL, "{\"return\": {}}\r\n", "{\"return\": {}}\r\n",
            "{\"return\": {}, \"id\": \"end\"}\r\n"
        };

        t_qmp_send_raw(q, session, strlen(session));
        shutdown(t_qmp_fd(q), SHUT_WR);
        for (size_t n = 0; n < G_N_ELEMENTS(expected); n++) {
            g_autofree char *line = t_qmp_read_line(q, TIMEOUT_MS);

            g_assert_nonnull(line);
            if (expected[n]) {
                g_assert_cmpstr(line, ==, expected[n]);
            }
        }
        g_assert_true(t_qmp_wait_eof(q, TIMEOUT_MS));
        t_qmp_close(q);
    }
    t_daemon_stop_ok(d);
}

/* The second client is greeted when the first has left, not before. */
static void test_one_at_a_time(void)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *first = t_qmp_connect(t_daemon_socket(d), true);
    TQmp *second = t_qmp_connect_raw(t_daemon_socket(d));
    g_autofree char *greeting = NULL;

    for (int i = 0; i < 50; i++) {
        json_decref(t_qmp_ok(first, "{'execute': 'query-version'}"));
        g_assert_null(t_qmp_read_line(second, 0));
    }
    t_qmp_close(first);
    greeting = t_qmp_read_line(second, TIMEOUT_MS);
    g_assert_true(g_str_has_prefix(greeting, "{\"QMP\""));
    /* The first one's negotiation does not count for the second. */
    t_qmp_fails(second, "Expecting capabilities negotiation with 'qmp_capabilities'",
                "{'execute': 'query-version'}");
    t_qmp_close(second);
    t_daemon_stop_ok(d);
}

/* Monitors are independent, and events reach those that are past negotiation. */
static void test_two_monitors(void)
{
    TDaemon *d = t_daemon_start("--chardev socket,id=m2,path=m2.sock,server=on,wait=off "
                                "--monitor chardev=m2 --blockdev null-co,node-name=n0 "
                                "--nbd-server addr.type=unix,addr.path=nbd.sock "
                                "--export nbd,id=e0,node-name=n0");
    TQmp *a = t_daemon_qmp(d);
    TQmp *b = t_qmp_connect("m2.sock", false);
    json_t *event;

    t_qmp_run(a, "{'execute': 'block-export-del', 'arguments': {'id': 'e0'}}");
    event = t_qmp_event(a, "BLOCK_EXPORT_DELETED", TIMEOUT_MS);
    g_assert_nonnull(event);
    g_assert_cmpstr(json_string_value(json_object_get(event, "id")), ==, "e0");
    json_decref(event);

    t_qmp_run(b, "{'execute': 'qmp_capabilities'}");
    t_qmp_run(a, "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', 'id': 'e1', "
              "'node-name': 'n0'}}");
    t_qmp_run(b, "{'execute': 'block-export-del', 'arguments': {'id': 'e1'}}");
    for (int i = 0; i < 2; i++) {
        event = t_qmp_event(i ? a : b, "BLOCK_EXPORT_DELETED", TIMEOUT_MS);
        g_assert_nonnull(event);
        g_assert_cmpstr(json_string_value(json_object_get(event, "id")), ==, "e1");
        json_decref(event);
    }
    t_qmp_close(b);
    t_daemon_stop_ok(d);
}

/* ---- clients that do not read ----------------------------------------------------- */

/*
 * Send COMMAND over and over until the daemon has not taken any for QUIET_MS; how many went
 * out completely. The limit only makes a daemon that takes everything fail in finite time.
 */
static unsigned send_until_refused(TQmp *q, const char *command, unsigned limit,
                                   int quiet_ms)
{
    size_t len = strlen(command), pos = 0;
    unsigned n = 0;

    while (n < limit) {
        struct pollfd pfd = { .fd = t_qmp_fd(q), .events = POLLOUT };
        ssize_t sent;

        if (poll(&pfd, 1, quiet_ms) == 0) {
            break;
        }
        sent = send(pfd.fd, command + pos, len - pos, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            continue;
        }
        pos += sent;
        if (pos == len) {
            pos = 0;
            n++;
        }
    }
    return n;
}

/* Memory is only looked at where freed memory is really free. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LOOKS_AT_MEMORY = false };
#else
enum { LOOKS_AT_MEMORY = true };
#endif

static void check_growth(long before_kib, long after_kib, long limit_kib)
{
    g_test_message("peak memory %ld -> %ld KiB", before_kib, after_kib);
    if (LOOKS_AT_MEMORY) {
        g_assert_cmpint(after_kib - before_kib, <, limit_kib);
    }
}

static void test_client_that_does_not_read(void)
{
    static const char command[] = "{\"execute\":\"query-named-block-nodes\"}\n";
    TDaemon *d = t_daemon_start("--chardev socket,id=m2,path=m2.sock,server=on,wait=off "
                                "--monitor chardev=m2");
    TQmp *q = t_daemon_qmp(d);
    TQmp *deaf = t_qmp_connect("m2.sock", true);
    long rss_before_kib;
    unsigned sent;

    for (int i = 0; i < 200; i++) {
        t_qmp_run(q, "{'execute': 'blockdev-add', 'arguments': {'driver': 'null-co', "
                  "'node-name': 'n%d'}}", i);
    }
    json_decref(t_qmp_ok(q, "{'execute': 'query-named-block-nodes'}"));
    rss_before_kib = t_daemon_peak_rss_kib(d);
    /* Each reply is about 100 KiB. */
    sent = send_until_refused(deaf, command, 100000, 1000);
    g_assert_cmpuint(sent, >, 10);
    g_assert_cmpuint(sent, <, 100000);
    check_growth(rss_before_kib, t_daemon_peak_rss_kib(d), 16 * 1024);
    /* The others are served. */
    json_decref(t_qmp_ok(q, "{'execute': 'query-version'}"));
    /* Once it reads, it gets every answer. */
    for (unsigned i = 0; i < sent; i++) {
        g_autofree char *line = t_qmp_read_line(deaf, TIMEOUT_MS);

        g_assert_nonnull(line);
        g_assert_true(g_str_has_prefix(line, "{\"return\": [{"));
    }
    t_qmp_close(deaf);
    t_daemon_stop_ok(d);
}

/* Events for a client that never reads are dropped, and the end is not held up by it. */
static void test_events_do_not_pile_up(void)
{
    TDaemon *d = t_daemon_start("--chardev socket,id=m2,path=m2.sock,server=on,wait=off "
                                "--monitor chardev=m2 --blockdev null-co,node-name=n0 "
                                "--nbd-server addr.type=unix,addr.path=nbd.sock");
    TQmp *q = t_daemon_qmp(d);
    TQmp *deaf = t_qmp_connect("m2.sock", true);
    g_autofree char *id = g_strnfill(60000, 'e');
    long rss_before_kib = 0;

    for (int i = 0; i < (LOOKS_AT_MEMORY ? 400 : 150); i++) {
        json_t *event;

        t_qmp_run(q, "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', "
                  "'id': '%s', 'node-name': 'n0', 'name': 'x'}}", id);
        t_qmp_run(q, "{'execute': 'block-export-del', 'arguments': {'id': '%s'}}", id);
        event = t_qmp_event(q, "BLOCK_EXPORT_DELETED", TIMEOUT_MS);
        g_assert_nonnull(event);
        json_decref(event);
        if (i == 100) {
            rss_before_kib = t_daemon_peak_rss_kib(d);
        }
    }
    check_growth(rss_before_kib, t_daemon_peak_rss_kib(d), 8 * 1024);
    t_daemon_stop_ok(d);
    t_qmp_close(deaf);
}

/* A flood of commands by a client that reads: all are answered, in order. */
static void test_pipelining(void)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_qmp_connect(t_daemon_socket(d), true);
    g_autoptr(GString) all = g_string_new(NULL);

    for (int i = 0; i < 2000; i++) {
        g_string_append_printf(all, "{" QUERY ",\"id\":%d}", i);
    }
    t_qmp_send_raw(q, all->str, all->len);
    for (int i = 0; i < 2000; i++) {
        g_autofree char *line = t_qmp_read_line(q, TIMEOUT_MS);
        g_autofree char *expected = g_strdup_printf("{\"return\": [], \"id\": %d}\r\n", i);

        g_assert_cmpstr(line, ==, expected);
    }
    t_qmp_close(q);
    t_daemon_stop_ok(d);
}

/* quit answers, ends the connection, and nothing behind it is carried out. */
static void test_quit(void)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_daemon_qmp(d);
    static const char text[] = "{'execute':'quit','id':1}{'execute':'query-version','id':2}";
    g_autofree char *line = NULL;

    t_qmp_send_raw(q, text, strlen(text));
    line = t_qmp_read_line(q, TIMEOUT_MS);
    g_assert_cmpstr(line, ==, "{\"return\": {}, \"id\": 1}\r\n");
    g_assert_null(t_qmp_read_line(q, TIMEOUT_MS));
    g_assert_cmpint(t_daemon_stop(d, false, NULL), ==, 0);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/qmp/junk", test_junk);
    g_test_add_func("/qmp/deep-nesting", test_deep_nesting);
    g_test_add_func("/qmp/vanishing-clients", test_vanishing_clients);
    g_test_add_func("/qmp/half-close", test_half_close);
    g_test_add_func("/qmp/one-at-a-time", test_one_at_a_time);
    g_test_add_func("/qmp/two-monitors", test_two_monitors);
    g_test_add_func("/qmp/client-that-does-not-read", test_client_that_does_not_read);
    g_test_add_func("/qmp/events-do-not-pile-up", test_events_do_not_pile_up);
    g_test_add_func("/qmp/pipelining", test_pipelining);
    g_test_add_func("/qmp/quit", test_quit);
    return t_main();
}
