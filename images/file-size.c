/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A host file's length, and changing it. */
#include "miniblk/osdep.h"
#include "miniblk/thread-pool.h"
#include "images/file-internal.h"

enum { ZERO_CHUNK_BYTES = 1024 * 1024 };

const char *const file_prealloc_names[] = {
    [PREALLOC_MODE_OFF] = "off",
    [PREALLOC_MODE_METADATA] = "metadata",
    [PREALLOC_MODE_FALLOC] = "falloc",
    [PREALLOC_MODE_FULL] = "full",
    NULL
};

/* ---- growing --------------------------------------------------------------------------- */

static int write_all(int fd, const char *buf, size_t len, off_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, buf, len, offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -ENOSPC;
        }
        buf += n;
        len -= n;
        offset += n;
    }
    return 0;
}

static int write_zeroes_to(int fd, int64_t offset, int64_t end)
{
    g_autofree char *zeroes = g_malloc0(ZERO_CHUNK_BYTES);
    int ret = 0;

    while (offset < end && ret == 0) {
        size_t len = MIN(end - offset, ZERO_CHUNK_BYTES);
        ret = write_all(fd, zeroes, len, offset);
        offset += len;
    }
    return ret;
}

static int grow_full(int fd, bool direct, int64_t length, int64_t new_length, Error **errp)
{
    int plain_fd = fd;
    int ret;

    if (direct) {
        /* The old end need not be where O_DIRECT can begin to write. */
        g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
        plain_fd = open(path, O_WRONLY | O_CLOEXEC);
        if (plain_fd < 0) {
            ret = -errno;
            error_setg_errno(errp, -ret, "Could not reopen the file for preallocation");
            return ret;
        }
    }
    ret = write_zeroes_to(plain_fd, length, new_length);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write zeros for preallocation");
    } else if (fsync(plain_fd) < 0) {
        ret = -errno;
        error_setg_errno(errp, -ret, "Could not flush file to disk");
    }
    if (plain_fd != fd) {
        close(plain_fd);
    }
    return ret;
}

static int grow_falloc(int fd, int64_t length, int64_t new_length, Error **errp)
{
    if (new_length == length) {
        return 0;
    }
    /* Where the file system cannot, libc does it by writing. */
    int err = posix_fallocate(fd, length, new_length - length);
    if (err) {
        error_setg_errno(errp, err, "Could not preallocate data for the new file");
    }
    return -err;
}

static int resize_regular(int fd, bool direct, int64_t length, int64_t new_length,
                          PreallocMode prealloc, Error **errp)
{
    int ret;

    if (prealloc != PREALLOC_MODE_OFF && new_length < length) {
        error_setg(errp, "Preallocation can't be used for shrinking files");
        return -ENOTSUP;
    }
    switch (prealloc) {
    case PREALLOC_MODE_OFF:
        ret = ftruncate(fd, new_length) < 0 ? -errno : 0;
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not resize file");
        }
        return ret;
    case PREALLOC_MODE_FALLOC:
        ret = grow_falloc(fd, length, new_length, errp);
        break;
    case PREALLOC_MODE_FULL:
        ret = grow_full(fd, direct, length, new_length, errp);
        break;
    default:
        error_setg(errp, "Unsupported preallocation mode: %s", file_prealloc_names[prealloc]);
        return -ENOTSUP;
    }
    if (ret < 0 && ftruncate(fd, length) < 0) {
        warn_report("Could not shrink the file back to its old length: %s",
                    strerror(errno));
    }
    return ret;
}

static int resize_device(int64_t length, int64_t new_length, bool exact,
                         PreallocMode prealloc, Error **errp)
{
    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation mode '%s' unsupported for this non-regular file",
                   file_prealloc_names[prealloc]);
        return -ENOTSUP;
    }
    if (exact && new_length != length) {
        error_setg(errp, "Cannot resize device files");
        return -ENOTSUP;
    }
    if (new_length > length) {
        error_setg(errp, "Cannot grow device files");
        return -EINVAL;
    }
    return 0;
}

int file_resize(int fd, bool direct, int64_t new_length, bool exact, PreallocMode prealloc,
                Error **errp)
{
    struct stat st;
    int64_t length;

    if (fstat(fd, &st) < 0) {
        length = -errno;
    } else {
        length = S_ISREG(st.st_mode) ? st.st_size : file_length(fd);
    }
    if (length < 0) {
        error_setg_errno(errp, -length, "Failed to inquire current file length");
        return length;
    }
    if (S_ISREG(st.st_mode)) {
        return resize_regular(fd, direct, length, new_length, prealloc, errp);
    }
    return resize_device(length, new_length, exact, prealloc, errp);
}

typedef struct FileResize {
    FileState *s;
    int64_t new_length;
    bool exact;
    PreallocMode prealloc;
    Error *err;
} FileResize;

static int resize_blocking(void *opaque)
{
    FileResize *r = opaque;
    return file_resize(r->s->fd, r->s->direct, r->new_length, r->exact, r->prealloc,
                       &r->err);
}

int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags,
                                  Error **errp)
{
    FileResize r = {
        .s = bs->opaque, .new_length = offset, .exact = exact, .prealloc = prealloc,
    };
    int ret = thread_pool_submit_co(resize_blocking, &r);

    error_propagate(errp, r.err);
    return ret;
}

/* ---- asking ---------------------------------------------------------------------------- */

int64_t coroutine_fn file_co_getlength(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    return file_length(s->fd);
}

int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    struct stat st;

    if (fstat(s->fd, &st) < 0) {
        return -errno;
    }
    return (int64_t)st.st_blocks * 512;
}
