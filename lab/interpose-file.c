/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libc's calls for files and descriptors. In a case files are the lab's (files.c); otherwise,
 * and for what the lab has no notion of, they are libc's own.
 *
 * _FILE_OFFSET_BITS changes nothing on a 64-bit machine but the names: each has an alias.
 */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS        /* it would rename the functions below */
#include "miniblk/osdep.h"
#include <dirent.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include "lab/event.h"
#include "lab/files.h"
#include "lab/real.h"
#include "lab/world.h"

_Static_assert(sizeof(off_t) == 8, "the lab is for 64-bit machines");

/* NAME64 is the same function. */
#define ALIAS64(name) \
    extern __typeof__(name) name##64 __attribute__((alias(#name), copy(name)))

static int fail(int err)
{
    errno = err;
    return -1;
}

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
        return fail(EINVAL);
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
    return fail(EEXIST);
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

/* ---- descriptors ----------------------------------------------------------------------- */

int close(int fd)
{
    return lab_fd_is_virtual(fd) ? lab_close(fd) : REAL(close)(fd);
}
int dup(int fd)
{
    return lab_fd_is_virtual(fd) ? lab_dup(fd) : REAL(dup)(fd);
}
int dup2(int from, int to)
{
    lab_unsupported("dup2()");
    return REAL(dup2)(from, to);
}
int fcntl(int fd, int cmd, ...)
{
    LabOpenFile *f = lab_file_of(fd);
    va_list ap;

    va_start(ap, cmd);
    long arg = va_arg(ap, long);
    va_end(ap);
    if (!lab_fd_is_virtual(fd)) {
        return REAL(fcntl)(fd, cmd, arg);
    }
    bool of_descriptor = cmd == F_GETFD || cmd == F_SETFD || cmd == F_DUPFD ||
                         cmd == F_DUPFD_CLOEXEC;
    return f && !of_descriptor ? lab_file_fcntl(f, cmd, arg) : lab_fd_fcntl(fd, cmd, arg);
}
ALIAS64(fcntl);

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;

    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    if (lab_fd_is_virtual(fd)) {
        return fail(ENOTTY);
    }
    return REAL(ioctl)(fd, request, arg);
}

/* ---- data ------------------------------------------------------------------------------ */

/* The kernel cannot store into a page that the lab has not seen written yet. */
static const struct iovec *touch(const struct iovec *iov, int n)
{
    for (int i = 0; i < n; i++) {
        lab_image_touch(iov[i].iov_base, iov[i].iov_len);
    }
    return iov;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    if (lab_fd_is_virtual(fd)) {
        return lab_read(fd, buffer, size);
    }
    lab_image_touch(buffer, size);
    return REAL(read)(fd, buffer, size);
}
ssize_t write(int fd, const void *buffer, size_t size)
{
    if (lab_running && (fd == STDOUT_FILENO || fd == STDERR_FILENO)) {
        return size;            /* would come with every schedule */
    }
    return lab_fd_is_virtual(fd) ? lab_write(fd, buffer, size)
                                 : REAL(write)(fd, buffer, size);
}
ssize_t readv(int fd, const struct iovec *iov, int n)
{
    return lab_fd_is_virtual(fd) ? lab_readv(fd, iov, n) : REAL(readv)(fd, touch(iov, n), n);
}
ssize_t writev(int fd, const struct iovec *iov, int n)
{
    return lab_fd_is_virtual(fd) ? lab_writev(fd, iov, n) : REAL(writev)(fd, iov, n);
}

/* A virtual descriptor of another kind has no offsets. */
static ssize_t positioned(int fd, const struct iovec *iov, int n, off_t offset, bool write,
                          int flags)
{
    LabOpenFile *f = lab_file_of(fd);
    return f ? lab_file_rw(f, iov, n, offset, write, flags) : fail(ESPIPE);
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
    struct iovec iov = { buffer, size };
    return preadv(fd, &iov, 1, offset);
}
ALIAS64(pread);
ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
    struct iovec iov = { (void *)buffer, size };
    return lab_fd_is_virtual(fd) ? positioned(fd, &iov, 1, offset, true, 0)
                                 : REAL(pwrite)(fd, buffer, size, offset);
}
ALIAS64(pwrite);
ssize_t preadv(int fd, const struct iovec *iov, int n, off_t offset)
{
    return lab_fd_is_virtual(fd) ? positioned(fd, iov, n, offset, false, 0)
                                 : REAL(preadv)(fd, touch(iov, n), n, offset);
}
ALIAS64(preadv);
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    return lab_fd_is_virtual(fd) ? positioned(fd, iov, n, offset, true, 0)
                                 : REAL(pwritev)(fd, iov, n, offset);
}
ALIAS64(pwritev);
ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    return lab_fd_is_virtual(fd) ? positioned(fd, iov, n, offset, false, flags)
                                 : REAL(preadv2)(fd, touch(iov, n), n, offset, flags);
}
ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    return preadv2(fd, iov, n, offset, flags);
}
ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    return lab_fd_is_virtual(fd) ? positioned(fd, iov, n, offset, true, flags)
                                 : REAL(pwritev2)(fd, iov, n, offset, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off_t offset, int flags)
{
    return pwritev2(fd, iov, n, offset, flags);
}
/* What a build with _FORTIFY_SOURCE calls. */
ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room);
ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room)
{
    return read(fd, buffer, size);
}
ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room);
ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room)
{
    return pread(fd, buffer, size, offset);
}
ssize_t __pread64_chk(int fd, void *buffer, size_t size, off_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *buffer, size_t size, off_t offset, size_t room)
{
    return pread(fd, buffer, size, offset);
}

/* Calls of one descriptor: the lab's file, another virtual one (ERR), or a real one. */
#define BY_FD(fd, err, lab_call, name, ...) __extension__({                     \
        LabOpenFile *f = lab_file_of(fd);                                       \
        f ? (lab_call) : lab_fd_is_virtual(fd) ? fail(err) : REAL(name)(__VA_ARGS__); })

off_t lseek(int fd, off_t offset, int whence)
{
    return BY_FD(fd, ESPIPE, lab_file_seek(f, offset, whence), lseek, fd, offset, whence);
}
ALIAS64(lseek);
int ftruncate(int fd, off_t size)
{
    return BY_FD(fd, EINVAL, lab_file_truncate(f, size), ftruncate, fd, size);
}
ALIAS64(ftruncate);
int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return BY_FD(fd, ESPIPE, lab_file_allocate(f, mode, offset, size), fallocate, fd, mode,
                 offset, size);
}
ALIAS64(fallocate);
int posix_fallocate(int fd, off_t offset, off_t size)
{
    if (!lab_fd_is_virtual(fd)) {
        return REAL(posix_fallocate)(fd, offset, size);
    }
    int saved_errno = errno, ret = fallocate(fd, 0, offset, size) < 0 ? errno : 0;
    errno = saved_errno;
    return ret;
}
ALIAS64(posix_fallocate);
int posix_fadvise(int fd, off_t offset, off_t size, int advice)
{
    return lab_fd_is_virtual(fd) ? 0 : REAL(posix_fadvise)(fd, offset, size, advice);
}
ALIAS64(posix_fadvise);
int fsync(int fd)
{
    return BY_FD(fd, EINVAL, lab_file_sync(f), fsync, fd);
}
int fdatasync(int fd)
{
    return BY_FD(fd, EINVAL, lab_file_sync(f), fdatasync, fd);
}
int fchmod(int fd, mode_t mode)
{
    return BY_FD(fd, EINVAL, lab_file_chmod(f->inode, mode), fchmod, fd, mode);
}
int chmod(const char *path, mode_t mode)
{
    LabInode *inode = lab_running ? lab_file_find(path) : NULL;
    return inode ? lab_file_chmod(inode, mode) : REAL(chmod)(path, mode);
}

/* ---- status ---------------------------------------------------------------------------- */

/* A pipe, a socket, an eventfd. */
static int stat_other(int fd, struct stat *st)
{
    int type = lab_fd_type(fd);

    *st = (struct stat){ .st_mode = type | 0600, .st_nlink = 1, .st_blksize = 4096 };
    return type < 0 ? -1 : 0;
}

int fstat(int fd, struct stat *st)
{
    LabOpenFile *f = lab_file_of(fd);
    return f ? lab_file_fstat(f, st) : lab_fd_is_virtual(fd) ? stat_other(fd, st)
                                                             : REAL(fstat)(fd, st);
}
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
int fstatfs(int fd, struct statfs *st)
{
    return BY_FD(fd, EINVAL, lab_file_fstatfs(f, st), fstatfs, fd, st);
}
/* struct stat64 is struct stat by another name; so is struct statfs64. */
int fstat64(int fd, struct stat64 *st)
{
    return fstat(fd, (struct stat *)st);
}
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
int fstatfs64(int fd, struct statfs64 *st)
{
    return fstatfs(fd, (struct statfs *)st);
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
