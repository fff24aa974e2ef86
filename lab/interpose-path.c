/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libc's calls for files by name. In a case files are the lab's (files.c); otherwise, and for
 * what the lab has no notion of, they are libc's own.
 */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS        /* it would rename the functions below */
#include "miniblk/osdep.h"
#include <dirent.h>
#include "lab/event.h"
#include "lab/files.h"
#include "lab/real.h"
#include "lab/world.h"

/* ---- opening --------------------------------------------------------------------------- */

static mode_t mode_argument(int flags, va_list ap)
{
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, mode_t) : 0;
}

static int open_mode(const char *path, int flags, mode_t mode)
{
    int fd = lab_running ? lab_file_open(path, flags, mode) : -2;

    return fd == -2 ? REAL(open)(path, flags, mode) : fd;
}

int open(const char *path, int flags, ...)
{
    va_list ap;

    va_start(ap, flags);
    mode_t mode = mode_argument(flags, ap);
    va_end(ap);
    return open_mode(path, flags, mode);
}
ALIAS64(open);

int openat(int dir, const char *path, int flags, ...)
{
    va_list ap;

    va_start(ap, flags);
    mode_t mode = mode_argument(flags, ap);
    va_end(ap);
    if (lab_running && (dir == AT_FDCWD || path[0] == '/')) {
        return open_mode(path, flags, mode);
    }
    return REAL(openat)(dir, path, flags, mode);
}
ALIAS64(openat);

int creat(const char *path, mode_t mode)
{
    return open_mode(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
ALIAS64(creat);

int __open_2(const char *path, int flags);
int __open_2(const char *path, int flags)
{
    return open_mode(path, flags, 0);
}
int __open64_2(const char *path, int flags);
int __open64_2(const char *path, int flags)
{
    return open_mode(path, flags, 0);
}

/* Not by chance: the Nth name of this schedule. */
static int make_temporary(char *template, int suffix, int flags, bool directory)
{
    static unsigned serial;
    size_t length = strlen(template);
    char number[16];

    if (length < 6 + suffix || memcmp(template + length - suffix - 6, "XXXXXX", 6) != 0) {
        return lab_errno(EINVAL);
    }
    for (unsigned tries = 0; tries < 1000; tries++) {
        snprintf(number, sizeof(number), "%06u", serial++ % 1000000);
        memcpy(template + length - suffix - 6, number, 6);
        int ret = directory ? lab_file_mkdir(template)
                  : lab_file_open(template, flags | O_RDWR | O_CREAT | O_EXCL, 0600);
        if (ret >= 0 || errno != EEXIST) {
            return ret;
        }
    }
    return lab_errno(EEXIST);
}

int mkstemp(char *template)
{
    return lab_running ? make_temporary(template, 0, 0, false) : REAL(mkstemp)(template);
}
ALIAS64(mkstemp);
int mkostemp(char *template, int flags)
{
    return lab_running ? make_temporary(template, 0, flags, false)
                       : REAL(mkostemp)(template, flags);
}
ALIAS64(mkostemp);
char *mkdtemp(char *template)
{
    if (!lab_running) {
        return REAL(mkdtemp)(template);
    }
    return make_temporary(template, 0, 0, true) < 0 ? NULL : template;
}

/* ---- status ---------------------------------------------------------------------------- */

int stat(const char *restrict path, struct stat *restrict st)
{
    int ret = lab_running ? lab_file_stat(path, st) : -2;
    return ret == -2 ? REAL(stat)(path, st) : ret;
}
int lstat(const char *restrict path, struct stat *restrict st)
{
    int ret = lab_running ? lab_file_stat(path, st) : -2;
    return ret == -2 ? REAL(lstat)(path, st) : ret;
}
int fstatat(int dir, const char *restrict path, struct stat *restrict st, int flags)
{
    return lab_running && (dir == AT_FDCWD || path[0] == '/') ? stat(path, st)
           : REAL(fstatat)(dir, path, st, flags);
}
int access(const char *path, int mode)
{
    struct stat st;
    int ret = lab_running ? lab_file_stat(path, &st) : -2;
    return ret == -2 ? REAL(access)(path, mode) : ret;
}
/* struct stat64 is struct stat by another name. */
int stat64(const char *restrict path, struct stat64 *restrict st)
{
    return stat(path, (struct stat *)st);
}
int lstat64(const char *restrict path, struct stat64 *restrict st)
{
    return lstat(path, (struct stat *)st);
}
int fstatat64(int dir, const char *restrict path, struct stat64 *restrict st, int flags)
{
    return fstatat(dir, path, (struct stat *)st, flags);
}
int chmod(const char *path, mode_t mode)
{
    LabInode *inode = lab_running ? lab_file_find(path) : NULL;
    return inode ? lab_file_chmod(inode, mode) : REAL(chmod)(path, mode);
}

/* ---- names ----------------------------------------------------------------------------- */

int unlink(const char *path)
{
    return lab_running ? lab_file_unlink(path, false) : REAL(unlink)(path);
}
int rmdir(const char *path)
{
    return lab_running ? lab_file_unlink(path, true) : REAL(rmdir)(path);
}
int remove(const char *path)
{
    if (!lab_running) {
        return REAL(remove)(path);
    }
    int ret = unlink(path);
    return ret < 0 && errno == EISDIR ? rmdir(path) : ret;
}
int rename(const char *from, const char *to)
{
    return lab_running ? lab_file_rename(from, to) : REAL(rename)(from, to);
}
int mkdir(const char *path, mode_t mode)
{
    return lab_running ? lab_file_mkdir(path) : REAL(mkdir)(path, mode);
}
int truncate(const char *path, off_t size)
{
    if (!lab_running) {
        return REAL(truncate)(path, size);
    }
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int ret = fd < 0 ? -1 : ftruncate(fd, size);
    if (fd >= 0) {
        int saved_errno = errno;
        close(fd);
        errno = saved_errno;
    }
    return ret;
}
ALIAS64(truncate);

ssize_t readlink(const char *restrict path, char *restrict buffer, size_t size)
{
    lab_refuse_proc(path);
    return REAL(readlink)(path, buffer, size);
}
DIR *opendir(const char *path)
{
    lab_refuse_proc(path);
    return REAL(opendir)(path);
}

/* Other kinds of files than regular ones. */
int mkfifo(const char *path, mode_t mode)
{
    lab_unsupported("mkfifo()");
    return REAL(mkfifo)(path, mode);
}
int symlink(const char *to, const char *path)
{
    lab_unsupported("symlink()");
    return REAL(symlink)(to, path);
}
int link(const char *from, const char *to)
{
    lab_unsupported("link()");
    return REAL(link)(from, to);
}

/* ---- streams --------------------------------------------------------------------------- */

static ssize_t cookie_read(void *cookie, char *buffer, size_t size)
{
    return read((intptr_t)cookie, buffer, size);
}
static ssize_t cookie_write(void *cookie, const char *buffer, size_t size)
{
    ssize_t n = write((intptr_t)cookie, buffer, size);
    return n < 0 ? 0 : n;
}
static int cookie_seek(void *cookie, off64_t *offset, int whence)
{
    off_t target = lseek((intptr_t)cookie, *offset, whence);
    *offset = target;
    return target < 0 ? -1 : 0;
}
static int cookie_close(void *cookie)
{
    return close((intptr_t)cookie);
}

FILE *fdopen(int fd, const char *mode)
{
    static const cookie_io_functions_t functions = {
        cookie_read, cookie_write, cookie_seek, cookie_close,
    };
    return lab_fd_is_virtual(fd) ? fopencookie((void *)(intptr_t)fd, mode, functions)
                                 : REAL(fdopen)(fd, mode);
}
FILE *fopen(const char *restrict path, const char *restrict mode)
{
    int access = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
    int create = mode[0] == 'r' ? 0 : O_CREAT | (mode[0] == 'w' ? O_TRUNC : O_APPEND);

    if (!lab_running) {
        return REAL(fopen)(path, mode);
    }
    int fd = open_mode(path, access | create | (strchr(mode, 'x') ? O_EXCL : 0), 0666);
    if (fd < 0) {
        return NULL;
    }
    FILE *f = fdopen(fd, mode);
    if (!f) {
        close(fd);
    }
    return f;
}
ALIAS64(fopen);
