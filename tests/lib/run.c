/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Test harness: the scratch directory and running programs. */
#include "miniblk/osdep.h"
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "tests/lib/harness.h"
#include "tests/lib/harness-internal.h"

#define RUN_TIMEOUT_S 300
#define OUTPUT_BYTES_MAX (64 << 20)

static char *scratch_dir;

void t__fail(const char *fmt, ...)
{
    va_list ap;
    g_autofree char *message = NULL;

    va_start(ap, fmt);
    message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assertion_message(NULL, "harness", 0, "", message);
    abort();
}

int64_t t__deadline(int timeout_ms)
{
    return g_get_monotonic_time() + (int64_t)timeout_ms * 1000;
}

int t__ms_left(int64_t deadline)
{
    int64_t left_us = deadline - g_get_monotonic_time();

    return left_us <= 0 ? 0 : (int)MIN((left_us + 999) / 1000, INT_MAX);
}

/* ---- program ---------------------------------------------------------------------- */

void t_init(int *argc, char ***argv)
{
    const char *build = g_getenv("MINIBLK_BUILD");
    g_autoptr(GError) err = NULL;

    g_test_init(argc, argv, NULL);
    if (build) {
        g_autofree char *path = g_strdup_printf("%s/tools:%s", build,
                                                g_getenv("PATH") ?: "/usr/bin:/bin");
        g_setenv("PATH", path, true);
    }
    scratch_dir = g_dir_make_tmp("miniblk-XXXXXX", &err);
    if (!scratch_dir || chdir(scratch_dir) < 0) {
        t__fail("cannot make a scratch directory: %s",
                err ? err->message : strerror(errno));
    }
}

int t_main(void)
{
    int ret = g_test_run();

    if (chdir("/") == 0) {
        g_autofree char *cmd = g_strdup_printf("rm -rf '%s'", scratch_dir);
        if (system(cmd) != 0) {
            g_test_message("cannot remove %s", scratch_dir);
        }
    }
    g_clear_pointer(&scratch_dir, g_free);
    return ret;
}

const char *t_dir(void)
{
    g_assert_nonnull(scratch_dir);
    return scratch_dir;
}

char *t_path(const char *fmt, ...)
{
    va_list ap;
    g_autofree char *name = NULL;

    va_start(ap, fmt);
    name = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return g_build_filename(t_dir(), name, NULL);
}

bool t_have(const char *program)
{
    g_autofree char *path = g_find_program_in_path(program);

    return path != NULL;
}

bool t_need(const char *program)
{
    if (t_have(program)) {
        return true;
    }
    g_autofree char *why = g_strdup_printf("%s is not installed", program);
    g_test_skip(why);
    return false;
}

char *t_tool(const char *name)
{
    const char *build = g_getenv("MINIBLK_BUILD");

    if (!build) {
        t__fail("MINIBLK_BUILD is not set: it names the build directory");
    }
    return g_build_filename(build, "tools", name, NULL);
}

void t_make_file(const char *path, gsize bytes, guint32 seed)
{
    g_autofree guint32 *buf = g_malloc(bytes + sizeof(guint32));
    GRand *rand = g_rand_new_with_seed(seed);
    g_autoptr(GError) err = NULL;

    for (gsize i = 0; i < bytes; i += sizeof(guint32)) {
        buf[i / sizeof(guint32)] = g_rand_int(rand);
    }
    g_rand_free(rand);
    if (!g_file_set_contents(path, (char *)buf, bytes, &err)) {
        t__fail("%s", err->message);
    }
}

/* ---- running programs ------------------------------------------------------------- */

int t__status(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status)
                                    : WEXITSTATUS(wait_status);
}

int t__wait_pid(pid_t pid, int timeout_ms)
{
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    struct pollfd pfd = { .fd = pidfd, .events = POLLIN };
    int64_t deadline = t__deadline(timeout_ms);
    int status, ret;

    if (pidfd < 0) {
        t__fail("pidfd_open: %s", strerror(errno));
    }
    do {
        ret = poll(&pfd, 1, t__ms_left(deadline));
    } while (ret < 0 && errno == EINTR);
    close(pidfd);
    if (ret == 0) {
        return -1;
    }
    while (waitpid(pid, &status, 0) < 0) {
        g_assert_cmpint(errno, ==, EINTR);
    }
    return t__status(status);
}

pid_t t__spawn(char **argv, int out_fd, int err_fd)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0) {
        t__fail("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        int in_fd = open("/dev/null", O_RDONLY);

        /* Nothing may outlive a test program that was aborted. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || setpgid(0, 0) < 0 || dup2(in_fd, 0) < 0 ||
            dup2(out_fd, 1) < 0 || dup2(err_fd, 2) < 0) {
            _exit(127);
        }
        signal(SIGPIPE, SIG_DFL);
        execvp(argv[0], argv);
        dprintf(2, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    return pid;
}

typedef struct Capture {
    int fd;             /* -1 when there is nothing more to read */
    GString *text;
} Capture;

/* False at end of file. */
static bool capture_read(Capture *c)
{
    char buf[16384];
    ssize_t n = read(c->fd, buf, sizeof(buf));

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (n <= 0) {
        close(c->fd);
        c->fd = -1;
        return false;
    }
    g_string_append_len(c->text, buf, n);
    if (c->text->len > OUTPUT_BYTES_MAX) {
        t__fail("a program printed more than %d bytes", OUTPUT_BYTES_MAX);
    }
    return true;
}

/* Everything that is there now; background children may keep the pipe open for ever. */
static void capture_rest(Capture *c)
{
    struct pollfd pfd = { .fd = c->fd, .events = POLLIN };

    while (c->fd >= 0 && poll(&pfd, 1, 0) > 0 && capture_read(c)) {
        continue;
    }
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
}

static int capture_open(Capture *c)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0) {
        t__fail("pipe: %s", strerror(errno));
    }
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    c->fd = fds[0];
    c->text = g_string_new(NULL);
    return fds[1];
}

static int run_captured(const char *cmd, Capture *caps, int n_caps)
{
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", (char *)cmd, NULL };
    int64_t deadline = t__deadline(RUN_TIMEOUT_S * 1000);
    int out_fd = capture_open(&caps[0]);
    int err_fd = n_caps > 1 ? capture_open(&caps[1]) : out_fd;
    pid_t pid = t__spawn(argv, out_fd, err_fd);
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    int status;

    close(out_fd);
    if (err_fd != out_fd) {
        close(err_fd);
    }
    for (;;) {
        struct pollfd pfd[3] = {{ .fd = pidfd, .events = POLLIN }};
        int ret;

        for (int i = 0; i < n_caps; i++) {
            pfd[i + 1] = (struct pollfd){ .fd = caps[i].fd, .events = POLLIN };
        }
        ret = poll(pfd, n_caps + 1, t__ms_left(deadline));
        if (ret == 0) {
            kill(-pid, SIGKILL);
            t__fail("'%s' took more than %d s; so far it printed:\n%s", cmd, RUN_TIMEOUT_S,
                    caps[0].text->str);
        }
        for (int i = 0; i < n_caps; i++) {
            if (pfd[i + 1].revents && caps[i].fd >= 0) {
                capture_read(&caps[i]);
            }
        }
        if (pfd[0].revents) {
            break;
        }
    }
    close(pidfd);
    while (waitpid(pid, &status, 0) < 0) {
        g_assert_cmpint(errno, ==, EINTR);
    }
    for (int i = 0; i < n_caps; i++) {
        capture_rest(&caps[i]);
    }
    return t__status(status);
}

static void capture_give(Capture *c, char **dst)
{
    if (dst) {
        *dst = g_string_free(c->text, false);
    } else {
        g_string_free(c->text, true);
    }
}

int t_run(char **out, const char *fmt, ...)
{
    Capture cap;
    va_list ap;
    g_autofree char *cmd = NULL;
    int status;

    va_start(ap, fmt);
    cmd = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    status = run_captured(cmd, &cap, 1);
    capture_give(&cap, out);
    return status;
}

int t_run2(char **out, char **err, const char *fmt, ...)
{
    Capture caps[2];
    va_list ap;
    g_autofree char *cmd = NULL;
    int status;

    va_start(ap, fmt);
    cmd = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    status = run_captured(cmd, caps, 2);
    capture_give(&caps[0], out);
    capture_give(&caps[1], err);
    return status;
}

char *t_run_ok(const char *fmt, ...)
{
    Capture cap;
    va_list ap;
    g_autofree char *cmd = NULL;
    int status;

    va_start(ap, fmt);
    cmd = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    status = run_captured(cmd, &cap, 1);
    if (status) {
        t__fail("'%s' ended with %d and printed:\n%s", cmd, status, cap.text->str);
    }
    return g_string_free(cap.text, false);
}
