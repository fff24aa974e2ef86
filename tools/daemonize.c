/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include <sys/wait.h>
#include "tools/daemonize.h"

static int ready_fd = -1;
static int pidfile_fd = -1;
static char *pidfile_path;

static void G_GNUC_NORETURN wait_for_child(pid_t pid, int fd)
{
    char byte;
    ssize_t n;

    do {
        n = read(fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 1) {
        _exit(EXIT_SUCCESS);
    }
    /* It ended without a word; it has told why on stderr. */
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        continue;
    }
    _exit(EXIT_FAILURE);
}

void daemonize_begin(void)
{
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        error_report("Cannot create a pipe: %s", strerror(errno));
        exit(EXIT_FAILURE);
    }
    pid = fork();
    if (pid < 0) {
        error_report("Cannot fork: %s", strerror(errno));
        exit(EXIT_FAILURE);
    }
    if (pid > 0) {
        close(fds[1]);
        wait_for_child(pid, fds[0]);
    }
    close(fds[0]);
    ready_fd = fds[1];
    setsid();
}

void daemonize_ready(void)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null_fd < 0 || chdir("/") < 0) {
        error_report("Cannot detach: %s", strerror(errno));
        exit(EXIT_FAILURE);
    }
    dup2(null_fd, STDIN_FILENO);
    dup2(null_fd, STDOUT_FILENO);
    dup2(null_fd, STDERR_FILENO);
    close(null_fd);
    while (write(ready_fd, "", 1) < 0 && errno == EINTR) {
        continue;
    }
    close(ready_fd);
    ready_fd = -1;
}

/* ---- PID file --------------------------------------------------------------------- */

/* Open and lock PATH; -1 with ERRP set. *RETRY: the file was removed meanwhile. */
static int open_locked(const char *path, bool *retry, Error **errp)
{
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    struct stat ours, there;
    int ret;

    *retry = false;
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot create PID file: Cannot open pid file '%s'",
                         path);
        return -1;
    }
    ret = qemu_lock_fd(fd, 0, 1, true);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot create PID file: Cannot lock pid file '%s'",
                         path);
        close(fd);
        return -1;
    }
    /* Its owner may have removed it between our open and our lock. */
    if (fstat(fd, &ours) < 0 || stat(path, &there) < 0 || ours.st_ino != there.st_ino ||
        ours.st_dev != there.st_dev) {
        close(fd);
        *retry = true;
        return -1;
    }
    return fd;
}

bool pidfile_create(const char *path, Error **errp)
{
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    bool retry;
    int fd;

    do {
        fd = open_locked(path, &retry, errp);
    } while (retry);
    if (fd < 0) {
        return false;
    }
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, strlen(text), 0) != strlen(text)) {
        error_setg_errno(errp, errno, "cannot create PID file: Cannot write '%s'", path);
        unlink(path);
        close(fd);
        return false;
    }
    pidfile_fd = fd;
    pidfile_path = g_strdup(path);
    return true;
}

void pidfile_remove(void)
{
    if (pidfile_fd >= 0) {
        unlink(pidfile_path);
        close(pidfile_fd);
        pidfile_fd = -1;
        g_clear_pointer(&pidfile_path, g_free);
    }
}
