/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Test harness: a miniblkd under test. */
#include "miniblk/osdep.h"
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include "tests/lib/harness.h"
#include "tests/lib/harness-internal.h"

#define START_TIMEOUT_MS 120000
#define STOP_TIMEOUT_MS  120000
#define RETRY_INTERVAL_US 2000

struct TDaemon {
    pid_t pid;
    char *socket_path;
    char *log_path;
    TQmp *qmp;
};

static unsigned n_daemons;

static char *daemon_log(TDaemon *d)
{
    char *text = NULL;

    if (!g_file_get_contents(d->log_path, &text, NULL, NULL)) {
        text = g_strdup("");
    }
    return text;
}

static bool socket_accepts(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok;

    g_assert_cmpuint(strlen(path), <, sizeof(addr.sun_path));
    strcpy(addr.sun_path, path);
    ok = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
    close(fd);
    return ok;
}

static void wait_ready(TDaemon *d)
{
    int64_t deadline = t__deadline(START_TIMEOUT_MS);

    while (!socket_accepts(d->socket_path)) {
        int status;

        if (waitpid(d->pid, &status, WNOHANG) == d->pid) {
            g_autofree char *log = daemon_log(d);
            t__fail("miniblkd ended with %d before it was ready:\n%s", t__status(status),
                    log);
        }
        if (!t__ms_left(deadline)) {
            g_autofree char *log = daemon_log(d);
            t__fail("miniblkd is not ready after %d ms:\n%s", START_TIMEOUT_MS, log);
        }
        g_usleep(RETRY_INTERVAL_US);
    }
}

static char **daemon_argv(TDaemon *d, const char *args)
{
    GPtrArray *argv = g_ptr_array_new();
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) words = NULL;
    int n_words = 0;

    if (args[strspn(args, " \n\t")] && !g_shell_parse_argv(args, &n_words, &words, &err)) {
        t__fail("arguments '%s': %s", args, err->message);
    }
    g_ptr_array_add(argv, g_getenv("MINIBLK_BUILD") ? t_tool("miniblkd")
                                                    : g_strdup("miniblkd"));
    for (int i = 0; i < n_words; i++) {
        g_ptr_array_add(argv, g_strdup(words[i]));
    }
    g_ptr_array_add(argv, g_strdup("--chardev"));
    g_ptr_array_add(argv, g_strdup_printf("socket,id=t-mon,path=%s,server=on,wait=off",
                                          d->socket_path));
    g_ptr_array_add(argv, g_strdup("--monitor"));
    g_ptr_array_add(argv, g_strdup("chardev=t-mon"));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, false);
}

TDaemon *t_daemon_start(const char *fmt, ...)
{
    TDaemon *d = g_new0(TDaemon, 1);
    unsigned n = ++n_daemons;
    va_list ap;
    g_autofree char *args = NULL;
    g_auto(GStrv) argv = NULL;
    int log_fd;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    d->socket_path = t_path("qmp-%u.sock", n);
    d->log_path = t_path("miniblkd-%u.log", n);
    log_fd = open(d->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    g_assert_cmpint(log_fd, >=, 0);
    argv = daemon_argv(d, args);
    d->pid = t__spawn(argv, log_fd, log_fd);
    close(log_fd);
    wait_ready(d);
    return d;
}

pid_t t_daemon_pid(TDaemon *d)
{
    return d->pid;
}

const char *t_daemon_socket(TDaemon *d)
{
    return d->socket_path;
}

TQmp *t_daemon_qmp(TDaemon *d)
{
    if (!d->qmp) {
        d->qmp = t_qmp_connect(d->socket_path, true);
    }
    return d->qmp;
}

bool t_daemon_alive(TDaemon *d)
{
    siginfo_t info = { 0 };

    return waitid(P_PID, d->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
}

long t_daemon_peak_rss_kib(TDaemon *d)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)d->pid);
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        !(line = strstr(text, "VmHWM:"))) {
        t__fail("no memory figures in %s", path);
    }
    return strtol(line + strlen("VmHWM:"), NULL, 10);
}

static void daemon_free(TDaemon *d)
{
    if (d->qmp) {
        t_qmp_close(d->qmp);
    }
    unlink(d->socket_path);
    g_free(d->socket_path);
    g_free(d->log_path);
    g_free(d);
}

static void check_sanitizers(const char *log)
{
    static const char *const marks[] = {
        "AddressSanitizer", "LeakSanitizer", "ThreadSanitizer", "runtime error:", NULL
    };

    for (int i = 0; marks[i]; i++) {
        if (strstr(log, marks[i])) {
            t__fail("a sanitizer reported:\n%s", log);
        }
    }
}

int t_daemon_stop(TDaemon *d, bool quit, char **log)
{
    g_autofree char *text = NULL;
    int status;

    if (quit) {
        json_decref(t_qmp_ok(t_daemon_qmp(d), "{'execute': 'quit'}"));
    } else {
        kill(d->pid, SIGTERM);
    }
    status = t__wait_pid(d->pid, STOP_TIMEOUT_MS);
    text = daemon_log(d);
    if (status < 0) {
        kill(d->pid, SIGABRT);
        t__fail("miniblkd (%d) still runs %d ms after it was told to end:\n%s",
                (int)d->pid, STOP_TIMEOUT_MS, text);
    }
    check_sanitizers(text);
    daemon_free(d);
    if (log) {
        *log = g_steal_pointer(&text);
    } else if (status) {
        g_test_message("miniblkd ended with %d and printed:\n%s", status, text);
    }
    return status;
}

void t_daemon_stop_ok(TDaemon *d)
{
    g_assert_cmpint(t_daemon_stop(d, true, NULL), ==, 0);
}

void t_daemon_kill(TDaemon *d)
{
    kill(d->pid, SIGKILL);
    g_assert_cmpint(t__wait_pid(d->pid, STOP_TIMEOUT_MS), ==, 128 + SIGKILL);
    daemon_free(d);
}
