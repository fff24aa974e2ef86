/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making host files, and preparing host devices to hold an image. */
#include "miniblk/osdep.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "miniblk/thread-pool.h"
#include "images/file-internal.h"

const char *const file_create_opts[] = {
    "size", "preallocation", "nocow", "extent_size_hint", NULL
};

enum { EXTENT_SIZE_HINT_DEFAULT = 1024 * 1024 };

typedef struct FileCreate {
    const char *filename;
    uint64_t size;
    PreallocMode prealloc;
    bool nocow;
    uint64_t extent_size_hint;
    bool extent_size_hint_given;
    Error *err;
} FileCreate;

static bool parse_opts(QDict *opts, FileCreate *c, Error **errp)
{
    int prealloc = PREALLOC_MODE_OFF;

    c->extent_size_hint = EXTENT_SIZE_HINT_DEFAULT;
    c->extent_size_hint_given = qdict_haskey(opts, "extent_size_hint");
    if (!bdrv_opt_size(opts, "size", &c->size, errp) ||
        !bdrv_opt_enum(opts, "preallocation", file_prealloc_names, &prealloc, errp) ||
        !bdrv_opt_bool(opts, "nocow", &c->nocow, errp) ||
        !bdrv_opt_size(opts, "extent_size_hint", &c->extent_size_hint, errp)) {
        return false;
    }
    c->prealloc = prealloc;
    if (c->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "Image size must be at most %" PRId64 " bytes",
                   (int64_t)BDRV_MAX_LENGTH);
        return false;
    }
    c->size = ROUND_UP(c->size, BDRV_SECTOR_SIZE);
    if (c->extent_size_hint > UINT32_MAX) {
        error_setg(errp, "Extent size hint is too large");
        return false;
    }
    return true;
}

/* ---- hints to the file system ----------------------------------------------------------- */

/* Before the first byte is written; file systems that know nothing of it refuse. */
static void set_nocow(int fd)
{
    int attr;

    if (ioctl(fd, FS_IOC_GETFLAGS, &attr) == 0) {
        attr |= FS_NOCOW_FL;
        if (ioctl(fd, FS_IOC_SETFLAGS, &attr) < 0) {
            return;     /* an optimisation that is not to be had */
        }
    }
}

static void set_extent_size_hint(int fd, const FileCreate *c)
{
    struct fsxattr attr;
    int ret = ioctl(fd, FS_IOC_FSGETXATTR, &attr);

    if (ret == 0) {
        attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attr.fsx_extsize = c->extent_size_hint;
        ret = ioctl(fd, FS_IOC_FSSETXATTR, &attr);
    }
    if (ret < 0 && c->extent_size_hint_given) {
        warn_report("Failed to set extent size hint: %s", strerror(errno));
    }
}

/* ---- creating -------------------------------------------------------------------------- */

/* Open for writing, making the file unless it is there; *MADE tells. fd or -errno. */
static int open_or_make(const char *filename, bool *made)
{
    int fd = open(filename, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    *made = fd >= 0;
    if (fd < 0 && errno == EEXIST) {
        /* O_CREAT still: a dangling symbolic link makes its target. */
        fd = open(filename, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    }
    return fd < 0 ? -errno : fd;
}

static int fill(int fd, FileCreate *c)
{
    /* Whoever has the image open keeps us from throwing its contents away. */
    FileLocks locks = { .enabled = qemu_has_ofd_lock() };
    int ret = file_locks_prepare(&locks, fd, c->filename, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                                 BLK_PERM_ALL & ~BLK_PERM_RESIZE, &c->err);
    if (ret < 0) {
        return ret;
    }
    ret = file_resize(fd, false, 0, false, PREALLOC_MODE_OFF, &c->err);
    if (ret == 0 && c->nocow) {
        set_nocow(fd);
    }
    if (ret == 0 && c->extent_size_hint) {
        set_extent_size_hint(fd, c);
    }
    if (ret == 0) {
        ret = file_resize(fd, false, c->size, false, c->prealloc, &c->err);
    }
    file_locks_abort(&locks, fd);
    return ret;
}

static int create_file_blocking(void *opaque)
{
    FileCreate *c = opaque;
    bool made;
    int fd = open_or_make(c->filename, &made);

    if (fd < 0) {
        error_setg_errno(&c->err, -fd, "Could not create '%s'", c->filename);
        return fd;
    }
    int ret = fill(fd, c);
    if (close(fd) < 0 && ret == 0) {
        ret = -errno;
        error_setg_errno(&c->err, -ret, "Could not close the new file '%s'", c->filename);
    }
    if (ret < 0 && made) {
        unlink(c->filename);
    }
    return ret;
}

/* A file descriptor; -errno with C->err set. What is no device was named by mistake. */
static int open_device(FileCreate *c)
{
    static const char why[] = "Protocol driver 'host_device' does not support image creation, "
                              "and opening the image failed: ";
    struct stat st;
    int fd = open(c->filename, O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        int ret = -errno;
        error_setg_errno(&c->err, -ret, "%sCould not open '%s'", why, c->filename);
        return ret;
    }
    if (fstat(fd, &st) < 0 || !(S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode))) {
        error_setg(&c->err, "%s'host_device' driver requires '%s' to be either a character or "
                   "block device", why, c->filename);
        close(fd);
        return -EINVAL;
    }
    return fd;
}

/* A device has its size; what an earlier image left must not be taken for the new one. */
static int create_device_blocking(void *opaque)
{
    FileCreate *c = opaque;
    char zeroes[BDRV_SECTOR_SIZE] = { 0 };
    int fd = open_device(c);

    if (fd < 0) {
        return fd;
    }
    FileLocks locks = { .enabled = qemu_has_ofd_lock() };
    int ret = file_locks_prepare(&locks, fd, c->filename, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                                 BLK_PERM_ALL & ~BLK_PERM_RESIZE, &c->err);
    if (ret == 0) {
        ret = file_resize(fd, false, c->size, false, c->prealloc, &c->err);
    }
    if (ret == 0 && file_length(fd) >= (int64_t)sizeof(zeroes) &&
        pwrite(fd, zeroes, sizeof(zeroes), 0) != sizeof(zeroes)) {
        ret = errno ? -errno : -EIO;
        error_setg_errno(&c->err, -ret, "Failed to clear the new image's first sector");
    }
    close(fd);
    return ret;
}

static int coroutine_fn create(const char *filename, QDict *opts, bool device, Error **errp)
{
    FileCreate c = { .filename = filename };

    if (!parse_opts(opts, &c, errp)) {
        return -EINVAL;
    }
    int ret = thread_pool_submit_co(device ? create_device_blocking : create_file_blocking,
                                    &c);
    error_propagate(errp, c.err);
    return ret;
}

int coroutine_fn file_co_create_opts(BlockDriver *drv, const char *filename, QDict *opts,
                                     Error **errp)
{
    return create(g_str_has_prefix(filename, "file:") ? filename + 5 : filename, opts, false,
                  errp);
}

int coroutine_fn device_co_create_opts(BlockDriver *drv, const char *filename, QDict *opts,
                                       Error **errp)
{
    return create(g_str_has_prefix(filename, "host_device:") ? filename + 12 : filename, opts,
                  true, errp);
}
