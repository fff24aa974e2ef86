/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblkd as a program: its command line, its ends, running in the background. */
#include "miniblk/osdep.h"
#include <poll.h>
#include <sys/syscall.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "tests/lib/harness.h"

/* ---- command line ----------------------------------------------------------------- */

/* Arguments, and what is printed on stderr after "miniblkd: ". */
static const char *const bad_command_lines[][2] = {
    { "--blockdev driver=foo",
      "--blockdev driver=foo: Parameter 'driver' does not accept value 'foo'" },
    { "--blockdev=foo", "--blockdev=foo: Parameter 'driver' does not accept value 'foo'" },
    { "--blockdev null-co", "--blockdev null-co: 'node-name' must be specified for the "
      "root node" },
    { "--blockdev null-co,node-name=n,size=1M",
      "--blockdev null-co,node-name=n,size=1M: Parameter 'size' expects integer" },
    { "--blockdev null-co,node-name=n,size",
      "--blockdev null-co,node-name=n,size: Expected '=' after parameter 'size'" },
    { "--blockdev null-co,node-name=n,foo=1",
      "--blockdev null-co,node-name=n,foo=1: Parameter 'foo' is unexpected" },
    { "--blockdev raw,node-name=n,file=later --blockdev null-co,node-name=later",
      "--blockdev raw,node-name=n,file=later: Cannot find device='later' nor "
      "node-name='later'" },
    { "--blockdev '{\"driver\":\"null-co\"'",
      "--blockdev {\"driver\":\"null-co\": JSON parse error, premature EOI" },
    { "--blockdev '{\"driver\":\"null-co\",\"node-name\":\"n\",\"size\":\"1\"}'",
      "--blockdev {\"driver\":\"null-co\",\"node-name\":\"n\",\"size\":\"1\"}: "
      "Invalid parameter type for 'size', expected: integer" },
    { "--blockdev file,node-name=f,filename=/nonexistent",
      "--blockdev file,node-name=f,filename=/nonexistent: Could not open '/nonexistent': "
      "No such file or directory" },
    { "--object foo,id=x",
      "--object foo,id=x: Parameter 'qom-type' does not accept value 'foo'" },
    { "--object iothread", "--object iothread: Parameter 'id' is missing" },
    { "--object iothread,id=x --object iothread,id=x",
      "--object iothread,id=x: attempt to add duplicate property 'x' to object "
      "(type 'container')" },
    { "--object iothread,id=x,poll-max-ns=abc",
      "--object iothread,id=x,poll-max-ns=abc: Parameter 'poll-max-ns' expects integer" },
    { "--export nbd,id=e,node-name=n",
      "--export nbd,id=e,node-name=n: Cannot find device='' nor node-name='n'" },
    { "--export foo,id=e,node-name=n",
      "--export foo,id=e,node-name=n: Parameter 'type' does not accept value 'foo'" },
    { "--nbd-server addr.type=unix",
      "--nbd-server addr.type=unix: Parameter 'addr.path' is missing" },
    { "--nbd-server addr.type=foo",
      "--nbd-server addr.type=foo: Parameter 'type' does not accept value 'foo'" },
    { "--chardev foo,id=c", "--chardev foo,id=c: 'foo' is not a valid char driver name" },
    { "--chardev socket,id=c", "--chardev socket,id=c: chardev: socket: exactly one of "
      "'path', 'host' and 'fd' is required" },
    { "--chardev socket,path=x", "--chardev socket,path=x: chardev: no id specified" },
    { "--chardev socket,id=c,path=s,foo=1,server=on,wait=off",
      "--chardev socket,id=c,path=s,foo=1,server=on,wait=off: Invalid parameter 'foo'" },
    { "--chardev socket,id=c,path=/nonexistent/s,server=on,wait=off",
      "--chardev socket,id=c,path=/nonexistent/s,server=on,wait=off: Failed to bind socket "
      "to /nonexistent/s: No such file or directory" },
    { "--chardev socket,id=c,path=/nonexistent/s",
      "--chardev socket,id=c,path=/nonexistent/s: Failed to connect to '/nonexistent/s': "
      "No such file or directory" },
    { "--chardev fd,id=c,fd=77", "--chardev fd,id=c,fd=77: '77' is not an open file "
      "descriptor" },
    { "--monitor c", "--monitor c: chardev \"c\" not found" },
    { "--chardev socket,id=c,path=s,server=on,wait=off --monitor c --monitor c",
      "--monitor c: Device 'c' is in use" },
    { "--chardev stdio,id=c --monitor c,mode=readline",
      "--monitor c,mode=readline: Parameter 'mode' does not accept value 'readline'" },
    { "foo", "foo: Unexpected argument" },
    { "--blockdev null-co,node-name=n -- foo", "foo: Unexpected argument" },
    { "--pidfile /nonexistent/p", "cannot create PID file: Cannot open pid file "
      "'/nonexistent/p': No such file or directory" },
    { "--foo", "unrecognized option '--foo'" },
    { "--blockdev", "option '--blockdev' requires an argument" },
};

static void test_bad_command_lines(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(bad_command_lines); i++) {
        g_autofree char *out = NULL, *err = NULL;
        g_autofree char *expected = g_strdup_printf("miniblkd: %s\n",
                                                    bad_command_lines[i][1]);
        int status = t_run2(&out, &err, "miniblkd %s", bad_command_lines[i][0]);

        g_assert_cmpstr(err, ==, expected);
        g_assert_cmpstr(out, ==, "");
        g_assert_cmpint(status, ==, 1);
    }
    g_assert_false(g_file_test("s", G_FILE_TEST_EXISTS));
}

static void test_help(void)
{
    static const char *const asks[][2] = {
        { "--help", "Usage: miniblkd" },
        { "-h --blockdev foo", "Usage: miniblkd" },
        { "--version", "miniblkd version " },
        { "--vers", "miniblkd version " },
        { "-V", "miniblkd version " },
        { "--blockdev help", "List of block drivers:\n" },
        { "--export help", "List of export types:\n" },
        { "--object help", "List of user creatable objects:\n" },
        { "--object iothread,help", "List of user creatable objects:\n" },
        { "--chardev help", "Available chardev backend types:\n" },
        { "--nbd-server help", "addr.type=unix" },
        { "--monitor '?'", "[chardev=]ID" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(asks); i++) {
        g_autofree char *out = t_run_ok("miniblkd %s", asks[i][0]);

        if (!g_str_has_prefix(out, asks[i][1])) {
            g_error("miniblkd %s printed:\n%s", asks[i][0], out);
        }
    }
}

/* ---- monitors --------------------------------------------------------------------- */

static void test_stdio_monitor(void)
{
    g_autofree char *out = t_run_ok(
        "printf '%%s' '{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-iothreads\"}"
        "{\"execute\":\"quit\",\"id\":1}' | "
        "miniblkd --chardev stdio,id=c --monitor chardev=c | tr -d '\\r' | tail -n +2");

    g_assert_cmpstr(out, ==, "{\"return\": {}}\n{\"return\": []}\n"
                    "{\"return\": {}, \"id\": 1}\n");
}

static void test_pretty(void)
{
    g_autofree char *out = t_run_ok(
        "printf '%%s' '{\"execute\":\"qmp_capabilities\",\"id\":\"x\"}{\"execute\":\"foo\"}"
        "{\"execute\":\"quit\"}' | "
        "miniblkd --chardev stdio,id=c --monitor c,pretty=on | tr -d '\\r' | tail -n +16");

    g_assert_cmpstr(out, ==,
                    "{\n"
                    "    \"return\": {\n"
                    "    },\n"
                    "    \"id\": \"x\"\n"
                    "}\n"
                    "{\n"
                    "    \"error\": {\n"
                    "        \"class\": \"CommandNotFound\",\n"
                    "        \"desc\": \"The command foo has not been found\"\n"
                    "    }\n"
                    "}\n"
                    "{\n"
                    "    \"return\": {\n"
                    "    }\n"
                    "}\n");
}

/* The end of stdin ends that session, not the daemon. */
static void test_stdio_end_of_file(void)
{
    TDaemon *d = t_daemon_start("--chardev stdio,id=c --monitor c");
    json_t *version = t_qmp_ok(t_daemon_qmp(d), "{'execute': 'query-version'}");

    json_decref(version);
    t_daemon_stop_ok(d);
}

/* Connect to PATH as soon as somebody listens there, and keep the connection. */
static void *patient_client(void *opaque)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(addr.sun_path, opaque);
    for (int attempt = 0; attempt < 30000; attempt++) {
        if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
            return GINT_TO_POINTER(fd);
        }
        g_usleep(1000);
    }
    return GINT_TO_POINTER(-1);
}

/* With wait=on nothing goes on before the first client, who is served then. */
static void test_wait_for_client(void)
{
    GThread *thread = g_thread_new("client", patient_client, (void *)"w.sock");
    TDaemon *d = t_daemon_start("--chardev socket,id=w,path=w.sock,server=on --monitor w");
    int fd = GPOINTER_TO_INT(g_thread_join(thread));
    char buf[7] = { 0 };
    g_autofree char *log = NULL;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(recv(fd, buf, 6, MSG_WAITALL), ==, 6);
    g_assert_cmpstr(buf, ==, "{\"QMP\"");
    close(fd);
    /* The next client finds a listening socket as ever. */
    t_qmp_close(t_qmp_connect("w.sock", true));
    g_assert_cmpint(t_daemon_stop(d, true, &log), ==, 0);
    g_assert_cmpstr(log, ==, "miniblkd: info: waiting for connection on: "
                    "disconnected:unix:w.sock,server=on\n");
}

/* ---- the end ---------------------------------------------------------------------- */

static void test_signals(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++) {
        TDaemon *d = t_daemon_start("--object iothread,id=io0 "
                                    "--blockdev null-co,node-name=n0 "
                                    "--nbd-server addr.type=unix,addr.path=sig.sock "
                                    "--export nbd,id=e,node-name=n0,iothread=io0 "
                                    "--pidfile sig.pid");
        g_autofree char *socket_path = g_strdup(t_daemon_socket(d));

        /* An answer means that the main loop runs, and so that the file is there. */
        json_decref(t_qmp_ok(t_daemon_qmp(d), "{'execute': 'query-version'}"));
        g_assert_true(g_file_test("sig.pid", G_FILE_TEST_EXISTS));
        kill(t_daemon_pid(d), signals[i]);
        g_assert_cmpint(t_daemon_stop(d, false, NULL), ==, 0);
        g_assert_false(g_file_test("sig.pid", G_FILE_TEST_EXISTS));
        g_assert_false(g_file_test("sig.sock", G_FILE_TEST_EXISTS));
        g_assert_false(g_file_test(socket_path, G_FILE_TEST_EXISTS));
    }
}

/* A connected client sees the events of the exports that go, and then the end. */
static void test_quit_with_exports(void)
{
    TDaemon *d = t_daemon_start("--blockdev null-co,node-name=n0 "
                                "--nbd-server addr.type=unix,addr.path=qe.sock "
                                "--export nbd,id=e,node-name=n0");
    TQmp *q = t_daemon_qmp(d);
    json_t *data;

    t_qmp_run(q, "{'execute': 'quit'}");
    data = t_qmp_event(q, "BLOCK_EXPORT_DELETED", 60000);
    g_assert_nonnull(data);
    g_assert_cmpstr(json_string_value(json_object_get(data, "id")), ==, "e");
    json_decref(data);
    g_assert_true(t_qmp_wait_eof(q, 60000));
    g_assert_cmpint(t_daemon_stop(d, false, NULL), ==, 0);
}

/* ---- background ------------------------------------------------------------------- */

static void test_daemonize(void)
{
    g_autofree char *out = NULL;
    g_autofree char *text = NULL;
    TQmp *q;
    pid_t pid;

    /* When the command returns, everything that was asked for is there. */
    out = t_run_ok("miniblkd --blockdev null-co,node-name=n0 "
                   "--chardev socket,id=c,path=bg.sock,server=on,wait=off --monitor c "
                   "--nbd-server addr.type=unix,addr.path=bg-nbd.sock "
                   "--export nbd,id=e,node-name=n0 --daemonize --pidfile bg.pid");
    g_assert_cmpstr(out, ==, "");
    g_assert_true(g_file_get_contents("bg.pid", &text, NULL, NULL));
    pid = atoi(text);
    g_assert_cmpint(pid, >, 1);
    g_assert_cmpint(kill(pid, 0), ==, 0);
    g_assert_true(g_file_test("bg-nbd.sock", G_FILE_TEST_EXISTS));

    /* The file is locked while it runs. */
    g_free(out);
    g_assert_cmpint(t_run(&out, "miniblkd --pidfile bg.pid"), ==, 1);
    g_assert_true(g_str_has_prefix(out, "miniblkd: cannot create PID file: Cannot lock pid "
                                   "file '"));
    g_free(text);
    g_assert_true(g_file_get_contents("bg.pid", &text, NULL, NULL));
    g_assert_cmpint(atoi(text), ==, pid);

    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    g_assert_cmpint(pidfd, >=, 0);
    q = t_qmp_connect("bg.sock", true);
    t_qmp_run(q, "{'execute': 'quit'}");
    g_assert_true(t_qmp_wait_eof(q, 60000));
    t_qmp_close(q);
    struct pollfd ended = { .fd = pidfd, .events = POLLIN };
    g_assert_cmpint(poll(&ended, 1, 60000), ==, 1);
    close(pidfd);
    /* Relative names are meant from where it was started. */
    g_assert_false(g_file_test("bg-nbd.sock", G_FILE_TEST_EXISTS));
    g_assert_false(g_file_test("bg.sock", G_FILE_TEST_EXISTS));
}

/* What goes wrong in the background is reported by the command in the foreground. */
static void test_daemonize_failure(void)
{
    g_autofree char *out = NULL;

    g_assert_cmpint(t_run(&out, "miniblkd --daemonize --blockdev foo"), ==, 1);
    g_assert_cmpstr(out, ==, "miniblkd: --blockdev foo: Parameter 'driver' does not accept "
                    "value 'foo'\n");
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/miniblkd/bad-command-lines", test_bad_command_lines);
    g_test_add_func("/miniblkd/help", test_help);
    g_test_add_func("/miniblkd/stdio-monitor", test_stdio_monitor);
    g_test_add_func("/miniblkd/pretty", test_pretty);
    g_test_add_func("/miniblkd/stdio-end-of-file", test_stdio_end_of_file);
    g_test_add_func("/miniblkd/wait-for-client", test_wait_for_client);
    g_test_add_func("/miniblkd/signals", test_signals);
    g_test_add_func("/miniblkd/quit-with-exports", test_quit_with_exports);
    g_test_add_func("/miniblkd/daemonize", test_daemonize);
    g_test_add_func("/miniblkd/daemonize-failure", test_daemonize_failure);
    return t_main();
}
