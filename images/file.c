/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The drivers "file" (a regular file of the host) and "host_device" (a device file). */
#include "miniblk/osdep.h"
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "miniblk/raw-aio.h"
#include "images/file-internal.h"

/* ---- options --------------------------------------------------------------------------- */

/* By FileEngine. */
static const char *const aio_names[] = { "threads", "native", "io_uring", NULL };

enum { LOCKING_AUTO, LOCKING_ON, LOCKING_OFF };
static const char *const locking_names[] = { "auto", "on", "off", NULL };

typedef struct FileOptions {
    char *filename;
    int aio, locking;
    uint64_t aio_max_batch;
    bool drop_cache;            /* about migration between hosts, which there is none here */
} FileOptions;

static const char *strip_prefix(const char *filename, const char *prefix)
{
    return g_str_has_prefix(filename, prefix) ? filename + strlen(prefix) : filename;
}

static bool parse_options(BlockDriverState *bs, QDict *options, int flags, FileOptions *o,
                          Error **errp)
{
    *o = (FileOptions) {
        .aio = flags & BDRV_O_NATIVE_AIO ? FILE_NATIVE :
               flags & BDRV_O_IO_URING ? FILE_IO_URING : FILE_THREADS,
        .drop_cache = true,
    };
    if (!bdrv_opt_str(options, "filename", &o->filename, errp) ||
        !bdrv_opt_enum(options, "aio", aio_names, &o->aio, errp) ||
        !bdrv_opt_enum(options, "locking", locking_names, &o->locking, errp) ||
        !bdrv_opt_size(options, "aio-max-batch", &o->aio_max_batch, errp) ||
        !bdrv_opt_bool(options, "drop-cache", &o->drop_cache, errp)) {
        return false;
    }
    if (!o->filename || !*o->filename) {
        error_setg(errp, "The '%s' block driver requires a file name",
                   bs->drv->format_name);
        return false;
    }
    if (o->aio == FILE_NATIVE && !(flags & BDRV_O_NOCACHE)) {
        error_setg(errp, "aio=native was specified, but it requires cache.direct=on, "
                   "which was not specified.");
        return false;
    }
#ifndef CONFIG_LINUX_IO_URING
    if (o->aio == FILE_IO_URING) {
        error_setg(errp, "aio=io_uring was specified, but is not supported in this build.");
        return false;
    }
#endif
    return true;
}

static bool setup_locking(FileState *s, int locking, Error **errp)
{
    s->locks.enabled = locking != LOCKING_OFF && qemu_has_ofd_lock();
    if (locking == LOCKING_ON && !s->locks.enabled) {
        error_setg(errp, "File lock requested but OFD locking syscall is unavailable");
        return false;
    }
    return true;
}

static void file_parse_filename(const char *filename, QDict *options, Error **errp)
{
    qdict_put_str(options, "filename", strip_prefix(filename, "file:"));
}

static void device_parse_filename(const char *filename, QDict *options, Error **errp)
{
    qdict_put_str(options, "filename", strip_prefix(filename, "host_device:"));
}

/* ---- engines --------------------------------------------------------------------------- */

/* Have CTX make the engine that was asked for. */
static bool setup_engine(FileState *s, AioContext *ctx, Error **errp)
{
    switch (s->engine_wanted) {
    case FILE_NATIVE:
        return aio_setup_linux_aio(ctx, errp) != NULL;
    case FILE_IO_URING:
        return aio_setup_linux_io_uring(ctx, errp) != NULL;
    case FILE_THREADS:
        break;
    }
    return true;
}

static const char *engine_name(FileState *s)
{
    return s->engine_wanted == FILE_NATIVE ? "native AIO" : "linux io_uring";
}

void file_begin_fd(FileState *s, AioContext *ctx)
{
    if (s->engine == FILE_IO_URING) {
        luring_register_fd(aio_get_linux_io_uring(ctx), s->fd);
    }
}

void file_end_fd(FileState *s, AioContext *ctx)
{
    if (s->engine == FILE_IO_URING) {
        luring_forget_fd(aio_get_linux_io_uring(ctx), s->fd);
    }
}

static void file_detach_aio_context(BlockDriverState *bs)
{
    file_end_fd(bs->opaque, bdrv_get_aio_context(bs));
}

/* After a move there is no way back: do without what the new context cannot have. */
static void file_attach_aio_context(BlockDriverState *bs, AioContext *new_context)
{
    FileState *s = bs->opaque;
    Error *err = NULL;

    s->engine = s->engine_wanted;
    if (!setup_engine(s, new_context, &err)) {
        s->engine = FILE_THREADS;
        error_prepend(&err, "Unable to use %s for '%s', falling back to thread pool: ",
                      engine_name(s), s->filename);
        error_report_err(err);
    }
    file_begin_fd(s, new_context);
}

/* ---- opening --------------------------------------------------------------------------- */

static int open_flags(int flags)
{
    return ((flags & BDRV_O_RDWR) ? O_RDWR : O_RDONLY) | O_CLOEXEC |
           ((flags & BDRV_O_NOCACHE) ? O_DIRECT : 0);
}

/* The kernel lets one open such a disk for writing, and refuses the writes. */
static bool is_write_protected(int fd)
{
    int protected = 0;

    return ioctl(fd, BLKROGET, &protected) == 0 && protected;
}

static int open_as(const char *filename, int flags)
{
    int fd = open(filename, open_flags(flags));

    if (fd >= 0 && (flags & BDRV_O_RDWR) && is_write_protected(fd)) {
        close(fd);
        return -EACCES;
    }
    return fd < 0 ? -errno : fd;
}

int file_open_fd(const char *filename, int *flags)
{
    int fd = open_as(filename, *flags);
    bool forbidden = fd == -EACCES || fd == -EPERM || fd == -EROFS;

    if (forbidden && (*flags & BDRV_O_RDWR) && (*flags & BDRV_O_AUTO_RDONLY)) {
        *flags &= ~BDRV_O_RDWR;
        fd = open_as(filename, *flags);
    }
    return fd;
}

static int open_file(BlockDriverState *bs, const char *filename, int *flags, Error **errp)
{
    struct stat st;

    /* Opening a FIFO would wait for its other end. */
    if (stat(filename, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))) {
        return -ENOTSUP;
    }
    int fd = file_open_fd(filename, flags);
    if (!(*flags & BDRV_O_RDWR)) {
        bs->open_flags &= ~BDRV_O_RDWR;
    }
    if (fd == -EINVAL && (*flags & BDRV_O_NOCACHE)) {
        error_setg(errp, "Could not open '%s': filesystem does not support O_DIRECT",
                   filename);
    } else if (fd < 0) {
        error_setg_errno(errp, -fd, "Could not open '%s'", filename);
    }
    return fd;
}

/* See what FD is, and whether the driver is for such. */
static bool check_type(BlockDriverState *bs, FileState *s, bool device, Error **errp)
{
    struct stat st;
    mode_t mode = 0;

    if (s->fd >= 0) {
        if (fstat(s->fd, &st) < 0) {
            error_setg_errno(errp, errno, "Could not stat file");
            return false;
        }
        mode = st.st_mode;
    }
    s->is_regular = S_ISREG(mode);
    s->is_block_device = S_ISBLK(mode);
    if (!device && !s->is_regular) {
        error_setg(errp, "'%s' driver requires '%s' to be a regular file",
                   bs->drv->format_name, s->filename);
        return false;
    }
    if (device && !s->is_block_device && !S_ISCHR(mode)) {
        error_setg(errp, "'%s' driver requires '%s' to be either a character or block device",
                   bs->drv->format_name, s->filename);
        return false;
    }
    return true;
}

static int examine(BlockDriverState *bs, FileState *s, bool device, Error **errp)
{
    if (!check_type(bs, s, device, errp)) {
        return -EINVAL;
    }
    if (!file_probe_alignment(s)) {
        error_setg(errp, "Could not find working O_DIRECT alignment");
        error_append_hint(errp, "Try cache.direct=off\n");
        return -EINVAL;
    }
    s->in_memory = s->is_regular && file_probe_in_memory(s->fd);

    int64_t length = file_length(s->fd);
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not determine the length of '%s'",
                         s->filename);
        return length;
    }
    if (length > BDRV_MAX_LENGTH) {
        error_setg(errp, "'%s' is too large", s->filename);
        return -EFBIG;
    }
    bs->total_sectors = DIV_ROUND_UP(length, BDRV_SECTOR_SIZE);
    return 0;
}

static void set_supported_flags(BlockDriverState *bs, FileState *s)
{
    bs->supported_write_flags = BDRV_REQ_FUA;
    if (s->is_regular || s->is_block_device) {
        bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    }
    if (s->is_regular) {
        /* What a file grows by reads as zeroes. */
        bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
    }
}

static void release(FileState *s)
{
    if (s->fd >= 0) {
        file_locks_commit(&s->locks, s->fd, 0, BLK_PERM_ALL);
        close(s->fd);
        s->fd = -1;
    }
    g_clear_pointer(&s->filename, g_free);
}

static int open_common(BlockDriverState *bs, QDict *options, int flags, bool device,
                       Error **errp)
{
    ERRP_GUARD();
    FileState *s = bs->opaque;
    FileOptions o;
    int ret = -EINVAL;

    s->fd = -1;
    if (!parse_options(bs, options, flags, &o, errp) ||
        !setup_locking(s, o.locking, errp)) {
        g_free(o.filename);
        return ret;
    }
    s->filename = o.filename;
    s->max_batch = o.aio_max_batch;
    s->direct = flags & BDRV_O_NOCACHE;
    s->no_flush = flags & BDRV_O_NO_FLUSH;
    s->engine = s->engine_wanted = o.aio;

    s->fd = open_file(bs, s->filename, &flags, errp);
    ret = s->fd < 0 && *errp ? s->fd : examine(bs, s, device, errp);
    if (ret >= 0 && !setup_engine(s, bdrv_get_aio_context(bs), errp)) {
        error_prepend(errp, "Unable to use %s: ",
                      s->engine == FILE_NATIVE ? "native AIO" : "io_uring");
        ret = -EINVAL;
    }
    if (ret < 0) {
        release(s);
        return ret;
    }
    set_supported_flags(bs, s);
    file_begin_fd(s, bdrv_get_aio_context(bs));
    return 0;
}

static int file_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    return open_common(bs, options, flags, false, errp);
}

static int device_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    return open_common(bs, options, flags, true, errp);
}

static void file_close(BlockDriverState *bs)
{
    file_end_fd(bs->opaque, bdrv_get_aio_context(bs));
    release(bs->opaque);
}

static int device_probe(const char *filename)
{
    struct stat st;
    return stat(filename, &st) == 0 && (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)) ? 100 : 0;
}

/* ---- permissions ----------------------------------------------------------------------- */

/* Who has said that others may do as they like (-U) does not lock them out. */
static uint64_t effective_shared(BlockDriverState *bs, uint64_t shared)
{
    return bs->force_share ? BLK_PERM_ALL : shared;
}

static int file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                           Error **errp)
{
    FileState *s = bs->opaque;
    return file_locks_prepare(&s->locks, s->fd, s->filename, perm,
                              effective_shared(bs, shared), errp);
}

static void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    FileState *s = bs->opaque;
    file_locks_commit(&s->locks, s->fd, perm, effective_shared(bs, shared));
}

static void file_abort_perm_update(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    file_locks_abort(&s->locks, s->fd);
}

/* ---- the rest -------------------------------------------------------------------------- */

static void file_refresh_limits(BlockDriverState *bs, Error **errp)
{
    FileState *s = bs->opaque;

    bs->bl.request_alignment = s->request_alignment;
    bs->bl.min_mem_alignment = s->mem_alignment;
    bs->bl.opt_mem_alignment = MAX(s->mem_alignment, (uint32_t)sysconf(_SC_PAGESIZE));
    bs->bl.max_iov = IOV_MAX;
    if (s->is_block_device) {
        bs->bl.pdiscard_alignment = s->request_alignment;
        bs->bl.pwrite_zeroes_alignment = s->request_alignment;
    }
}

/* A relative path whose first part has a colon would be taken for a protocol's prefix. */
static bool looks_like_protocol(const char *path)
{
    size_t len = strcspn(path, ":/");
    return path[len] == ':';
}

static void file_refresh_filename(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    g_free(bs->exact_filename);
    if (looks_like_protocol(s->filename)) {
        bs->exact_filename = g_strdup_printf("%s:%s", bs->drv->protocol_name, s->filename);
    } else {
        bs->exact_filename = g_strdup(s->filename);
    }
    g_free(bs->filename);
    bs->filename = g_strdup(s->filename);
}

static int coroutine_fn file_co_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    return 0;
}

static int coroutine_fn file_co_delete_file(BlockDriverState *bs, Error **errp)
{
    FileState *s = bs->opaque;
    struct stat file, named;

    /* Not a symbolic link, nor what has taken the name meanwhile. */
    if (fstat(s->fd, &file) < 0 || lstat(s->filename, &named) < 0 ||
        file.st_dev != named.st_dev || file.st_ino != named.st_ino) {
        error_setg(errp, "Could not delete '%s': it is not the file that is open", s->filename);
        return -ENOENT;
    }
    if (unlink(s->filename) < 0) {
        int ret = -errno;
        error_setg_errno(errp, -ret, "Could not delete '%s'", s->filename);
        return ret;
    }
    return 0;
}

static json_t *file_get_specific_info(BlockDriverState *bs)
{
    return json_pack("{s:s, s:{}}", "type", "file", "data");
}

#define FILE_DRIVER_COMMON                                                      \
    .instance_size = sizeof(FileState),                                         \
    .bdrv_close = file_close,                                                   \
    .bdrv_reopen_prepare = file_reopen_prepare,                                 \
    .bdrv_reopen_commit = file_reopen_commit,                                   \
    .bdrv_reopen_abort = file_reopen_abort,                                     \
    .bdrv_refresh_filename = file_refresh_filename,                             \
    .bdrv_refresh_limits = file_refresh_limits,                                 \
    .bdrv_co_preadv = file_co_preadv,                                           \
    .bdrv_co_pwritev = file_co_pwritev,                                         \
    .bdrv_co_pwrite_zeroes = file_co_pwrite_zeroes,                             \
    .bdrv_co_pdiscard = file_co_pdiscard,                                       \
    .bdrv_co_block_status = file_co_block_status,                               \
    .bdrv_co_copy_range_from = file_co_copy_range_from,                         \
    .bdrv_co_copy_range_to = file_co_copy_range_to,                             \
    .bdrv_co_flush_to_disk = file_co_flush,                                     \
    .bdrv_co_truncate = file_co_truncate,                                       \
    .bdrv_co_getlength = file_co_getlength,                                     \
    .bdrv_co_get_allocated_file_size = file_co_get_allocated_file_size,         \
    .bdrv_co_get_info = file_co_get_info,                                       \
    .bdrv_check_perm = file_check_perm,                                         \
    .bdrv_set_perm = file_set_perm,                                             \
    .bdrv_abort_perm_update = file_abort_perm_update,                           \
    .bdrv_attach_aio_context = file_attach_aio_context,                         \
    .bdrv_detach_aio_context = file_detach_aio_context,                         \
    .create_opts = file_create_opts

static BlockDriver bdrv_file = {
    .format_name = "file",
    .supports_multiqueue = true,
    .protocol_name = "file",
    .bdrv_parse_filename = file_parse_filename,
    .bdrv_file_open = file_open,
    .bdrv_get_specific_info = file_get_specific_info,
    .bdrv_co_create_opts = file_co_create_opts,
    .bdrv_co_delete_file = file_co_delete_file,
    FILE_DRIVER_COMMON,
};

static BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .supports_multiqueue = true,
    .protocol_name = "host_device",
    .bdrv_probe_device = device_probe,
    .bdrv_parse_filename = device_parse_filename,
    .bdrv_file_open = device_open,
    .bdrv_co_create_opts = device_co_create_opts,
    FILE_DRIVER_COMMON,
};

static void file_init(void)
{
    bdrv_register(&bdrv_file);
    bdrv_register(&bdrv_host_device);
}
block_init(file_init)
