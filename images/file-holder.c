/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who has a file locked. Locks of open file descriptions belong to no process, so the kernel
 * does not say; but /proc tells which processes have the file open, and which locks each of
 * their descriptors has. Slow, for error messages; and best effort: processes of other users
 * and those of other PID namespaces are not seen.
 */
#include "miniblk/osdep.h"
#include "images/file-internal.h"

#include <inttypes.h>

/* Descriptors that are looked at; a message is not worth more. */
#define DESCRIPTORS_MAX 100000

typedef struct Wanted {
    dev_t dev;
    ino_t ino;
    int64_t byte;
    char *own;                  /* the link in /proc of who asks */
    int looked_at;
} Wanted;

/*
 * Whether LINE of a fdinfo file is of a lock that has BYTE:
 *
 *     lock:   1: OFDLCK  ADVISORY  READ -1 fe:00:262146 100 101
 */
static bool lock_has_byte(const char *line, int64_t byte)
{
    int64_t start, end;
    char last[24];

    if (sscanf(line, "lock: %*d: %*s %*s %*s %*d %*s %" SCNd64 " %23s", &start, last) != 2) {
        return false;
    }
    end = !strcmp(last, "EOF") ? INT64_MAX : g_ascii_strtoll(last, NULL, 10);
    return start <= byte && byte <= end;
}

/* Whether descriptor FD of process PID is the one. */
static bool holds(const char *pid, const char *fd, const Wanted *wanted)
{
    g_autofree char *link = g_strdup_printf("/proc/%s/fd/%s", pid, fd);
    g_autofree char *info = g_strdup_printf("/proc/%s/fdinfo/%s", pid, fd);
    g_autofree char *text = NULL;
    struct stat st;

    if (!strcmp(link, wanted->own) || stat(link, &st) < 0 || st.st_dev != wanted->dev ||
        st.st_ino != wanted->ino || !g_file_get_contents(info, &text, NULL, NULL)) {
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        if (lock_has_byte(*line, wanted->byte)) {
            return true;
        }
    }
    return false;
}

static bool process_holds(const char *pid, Wanted *wanted)
{
    g_autofree char *path = g_strdup_printf("/proc/%s/fd", pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *fd;

    while (dir && (fd = g_dir_read_name(dir))) {
        if (wanted->looked_at++ < DESCRIPTORS_MAX && holds(pid, fd, wanted)) {
            return true;
        }
    }
    return false;
}

/* "process 1234 'name'" */
static char *describe(const char *pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%s/comm", pid);
    g_autofree char *name = NULL;

    if (!g_file_get_contents(path, &name, NULL, NULL)) {
        return g_strdup_printf("process %s", pid);
    }
    return g_strdup_printf("process %s '%s'", pid, g_strchomp(name));
}

char *file_lock_holder(int fd, int64_t byte)
{
    g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
    g_autofree char *own = g_strdup_printf("/proc/%d/fd/%d", (int)getpid(), fd);
    Wanted wanted = { .byte = byte, .own = own };
    const char *pid;
    struct stat st;

    if (!proc || fstat(fd, &st) < 0) {
        return NULL;
    }
    wanted.dev = st.st_dev;
    wanted.ino = st.st_ino;
    while ((pid = g_dir_read_name(proc))) {
        if (g_ascii_isdigit(*pid) && process_holds(pid, &wanted)) {
            return describe(pid);
        }
    }
    return NULL;
}
