/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libc's calls for descriptors and the files behind them, which in a case are the lab's
 * (files.c); others are libc's own. Files by name are in interpose-path.c.
 */
#undef _FORTIFY_SOURCE
#undef _FILE_OFFSET_BITS        /* it would rename the functions below */
#include "miniblk/osdep.h"
#include <sys/ioctl.h>
#include "lab/event.h"
#include "lab/files.h"
#include "lab/real.h"
#include "lab/world.h"

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
    va_list ap;

    va_start(ap, cmd);
    long arg = va_arg(ap, long);
    va_end(ap);
    if (!lab_fd_is_virtual(fd)) {
        return REAL(fcntl)(fd, cmd, arg);
    }
    bool locks = cmd == F_OFD_GETLK || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW;
    bool of_descriptor = cmd == F_GETFD || cmd == F_SETFD || cmd == F_DUPFD ||
                         cmd == F_DUPFD_CLOEXEC;
    LabOpenFile *f = locks ? lab_file_at_point(fd, cmd != F_OFD_GETLK) : lab_file_of(fd);
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
        return lab_errno(ENOTTY);
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

/* No file is behind virtual FD: ERR when it is open, as another kind of thing. */
static int fail_other(int fd, int err)
{
    return lab_fd_fcntl(fd, F_GETFD, 0) < 0 ? -1 : lab_errno(err);
}

static ssize_t positioned(int fd, const struct iovec *iov, int n, off_t offset, bool write,
                          int flags)
{
    LabOpenFile *f = lab_file_at_point(fd, write);
    return f ? lab_file_rw(f, iov, n, offset, write, flags) : fail_other(fd, ESPIPE);
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
#define BY_FD(fd, is_write, err, lab_call, name, ...) __extension__({           \
        LabOpenFile *f = lab_file_at_point(fd, is_write);                       \
        f ? (lab_call) : lab_fd_is_virtual(fd) ? fail_other(fd, err)            \
                                               : REAL(name)(__VA_ARGS__); })

off_t lseek(int fd, off_t offset, int whence)
{
    return BY_FD(fd, false, ESPIPE, lab_file_seek(f, offset, whence), lseek, fd, offset,
                 whence);
}
ALIAS64(lseek);
int ftruncate(int fd, off_t size)
{
    return BY_FD(fd, true, EINVAL, lab_file_truncate(f, size), ftruncate, fd, size);
}
ALIAS64(ftruncate);
int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return BY_FD(fd, true, ESPIPE, lab_file_allocate(f, mode, offset, size), fallocate, fd,
                 mode, offset, size);
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
    return BY_FD(fd, true, EINVAL, lab_file_sync(f), fsync, fd);
}
int fdatasync(int fd)
{
    return BY_FD(fd, true, EINVAL, lab_file_sync(f), fdatasync, fd);
}
int fchmod(int fd, mode_t mode)
{
    return BY_FD(fd, true, EINVAL, lab_file_chmod(f->inode, mode), fchmod, fd, mode);
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
    LabOpenFile *f = lab_file_at_point(fd, false);
    return f ? lab_file_fstat(f, st) : lab_fd_is_virtual(fd) ? stat_other(fd, st)
                                                             : REAL(fstat)(fd, st);
}
int fstatfs(int fd, struct statfs *st)
{
    return BY_FD(fd, false, EINVAL, lab_file_fstatfs(f, st), fstatfs, fd, st);
}
/* struct stat64 is struct stat by another name; so is struct statfs64. */
int fstat64(int fd, struct stat64 *st)
{
    return fstat(fd, (struct stat *)st);
}
int fstatfs64(int fd, struct statfs64 *st)
{
    return fstatfs(fd, (struct statfs *)st);
}
