/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See files.h. */
#include "miniblk/osdep.h"
#include <linux/magic.h>
#include "lab/engine.h"
#include "lab/event.h"
#include "lab/files.h"
#include "lab/inode.h"
#include "miniblk/lab-test.h"
#include "lab/real.h"
#include "lab/world.h"

enum { DIRECT_ALIGNMENT = 512 };

static bool power_off, faults_wanted;

/* As ext4 with blocks of 4 KiB. */
#define FILE_SIZE_MAX (((int64_t)16 << 40) - LAB_DISK_BLOCK)

static int fail(int err)
{
    errno = err;
    return -1;
}

static void point(const LabInode *inode, bool is_write)
{
    uintptr_t object = inode ? (uintptr_t)inode : lab_names_object();
    lab_syscall_point(LAB_OP_SYSCALL, object, is_write);
}

/* ---- open files ------------------------------------------------------------------------ */

static unsigned file_ready(const void *opaque)
{
    return POLLIN | POLLOUT;
}

static void drop_locks(LabOpenFile *f, int64_t start, int64_t end);

static void file_close(void *opaque)
{
    drop_locks(opaque, 0, INT64_MAX);
    lab_file_unref(opaque);
}

static ssize_t file_sequential(LabOpenFile *f, const struct iovec *iov, int niov, bool write)
{
    int64_t offset = write && (f->flags & O_APPEND) ? f->inode->disk.size : f->position;
    ssize_t n = lab_file_rw(f, iov, niov, offset, write, 0);

    if (n > 0) {
        f->position = offset + n;
    }
    return n;
}

static ssize_t file_readv(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    return file_sequential(opaque, iov, n, false);
}

static ssize_t file_writev(LabFile *file, void *opaque, const struct iovec *iov, int n)
{
    return file_sequential(opaque, iov, n, true);
}

static const LabFdOps file_ops = {
    .name = "file",
    .ready = file_ready,
    .readv = file_readv,
    .writev = file_writev,
    .close = file_close,
    .always_ready = true,
};

LabOpenFile *lab_file_of(int fd)
{
    int saved_errno = errno;
    LabOpenFile *f = lab_fd_is_virtual(fd) ? lab_fd_lookup(fd, &file_ops) : NULL;

    errno = saved_errno;
    return f;
}

void lab_file_unref(LabOpenFile *f)
{
    if (--f->users == 0) {
        lab_inode_unref(f->inode);
        g_free(f);
    }
}

uintptr_t lab_file_object(const LabOpenFile *f)
{
    return (uintptr_t)f->inode;
}

static int open_inode(LabInode *inode, int flags)
{
    LabOpenFile *f = g_new0(LabOpenFile, 1);

    f->inode = lab_inode_ref(inode);
    f->flags = flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
    f->users = 1;
    int fd = lab_fd_open(&file_ops, f, flags);
    if (fd < 0) {
        lab_file_unref(f);
        errno = EMFILE;
    }
    return fd;
}

int lab_file_open(const char *given, int flags, mode_t mode)
{
    g_autofree char *path = lab_path_whole(given);
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    LabInode *inode;

    point(NULL, flags & O_CREAT);
    lab_refuse_proc(path);
    LabFound found = lab_name_look_up(path, &inode);
    if (found == FOUND_REAL) {
        return -2;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        return open_inode(lab_inode_new(S_IFREG | (mode & 07777)), flags & ~O_DIRECTORY);
    }
    if (found == FOUND_REAL_DIRECTORY || (found == FOUND && S_ISDIR(inode->mode))) {
        return writes || (flags & O_CREAT) ? fail(EISDIR) : found == FOUND ? fail(EACCES) : -2;
    }
    if (flags & O_DIRECTORY) {
        return fail(found == FOUND ? ENOTDIR : ENOENT);
    }
    if (found == FOUND && geteuid() != 0 && writes && !(inode->mode & 0222)) {
        return fail(EACCES);
    }
    if (found == FOUND && (flags & O_CREAT) && (flags & O_EXCL)) {
        return fail(EEXIST);
    }
    if (found == FOUND && S_ISSOCK(inode->mode)) {
        return fail(ENXIO);
    }
    if (found == FOUND_NOTHING) {
        if (!(flags & O_CREAT) || !lab_name_parent_exists(path)) {
            return fail(ENOENT);
        }
        inode = lab_inode_new(S_IFREG | (mode & 07777));
        lab_name_set(g_steal_pointer(&path), inode);
    } else if ((flags & O_TRUNC) && writes) {
        lab_disk_resize(&inode->disk, 0);
    }
    return open_inode(inode, flags);
}

/* ---- status ---------------------------------------------------------------------------- */

static void fill_stat(const LabInode *inode, struct stat *st)
{
    *st = (struct stat){
        .st_dev = 1, .st_ino = inode->number, .st_nlink = inode->names,
        .st_mode = inode->mode,
        .st_uid = getuid(), .st_gid = getgid(), .st_size = inode->disk.size,
        .st_blksize = LAB_DISK_BLOCK, .st_blocks = lab_disk_allocated(&inode->disk) / 512,
    };
}

int lab_file_stat(const char *given, struct stat *st)
{
    g_autofree char *path = lab_path_whole(given);
    LabInode *inode;

    point(NULL, false);
    switch (lab_name_look_up(path, &inode)) {
    case FOUND:
        fill_stat(inode, st);
        return 0;
    case FOUND_NOTHING:
        return fail(ENOENT);
    default:
        return -2;
    }
}

int lab_file_fstat(const LabOpenFile *f, struct stat *st)
{
    point(f->inode, false);
    fill_stat(f->inode, st);
    return 0;
}

int lab_file_fstatfs(const LabOpenFile *f, struct statfs *st)
{
    *st = (struct statfs){ .f_type = EXT4_SUPER_MAGIC, .f_bsize = LAB_DISK_BLOCK,
                           .f_blocks = 1 << 30, .f_bfree = 1 << 29, .f_bavail = 1 << 29,
                           .f_namelen = NAME_MAX };
    return 0;
}

int lab_file_chmod(LabInode *inode, mode_t mode)
{
    inode->mode = (inode->mode & S_IFMT) | (mode & 07777);
    return 0;
}

LabInode *lab_file_find(const char *given)
{
    g_autofree char *path = lab_path_whole(given);
    LabInode *inode;

    return lab_name_look_up(path, &inode) == FOUND ? inode : NULL;
}

/* ---- what the disk refuses -------------------------------------------------------------- */

void lab_faults(bool on)
{
    faults_wanted = on;
}

static void cut(LabInode *inode, void *pattern)
{
    if (S_ISREG(inode->mode)) {
        lab_disk_cut(&inode->disk, *(unsigned *)pattern);
    }
}

void lab_power_cut(void)
{
    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)&power_off, true);
    unsigned pattern = lab_choose(LAB_CHOICE_VALUE, LAB_CUT_PATTERNS);
    power_off = true;
    lab_inode_foreach(cut, &pattern);
}

void lab_power_on(void)
{
    lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)&power_off, true);
    power_off = false;
}

/* 0, or the -errno that a request ends with; it may leave *SIZE smaller. */
static int trouble(bool write, size_t *size)
{
    enum { NONE, IO_ERROR, SHORT, NO_SPACE };

    if (power_off) {
        return -EIO;
    }
    if (!faults_wanted || !lab_limits()->faults) {
        return 0;
    }
    switch (lab_choose(LAB_CHOICE_FAULT, write ? 4 : 3)) {
    case IO_ERROR:
        return -EIO;
    case SHORT:
        *size = *size > LAB_SECTOR ? ROUND_DOWN(*size / 2, (size_t)LAB_SECTOR) : *size;
        return 0;
    case NO_SPACE:
        return -ENOSPC;
    default:
        return 0;
    }
}

/* ---- data ------------------------------------------------------------------------------ */

static bool aligned(const LabOpenFile *f, const struct iovec *iov, int niov, int64_t offset)
{
    uint64_t bits = offset;

    if (!(f->flags & O_DIRECT)) {
        return true;
    }
    for (int i = 0; i < niov; i++) {
        bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    }
    return bits % DIRECT_ALIGNMENT == 0;
}

ssize_t lab_file_transfer(LabOpenFile *f, const struct iovec *iov, int niov, int64_t offset,
                          bool write, int rwf)
{
    LabDisk *disk = &f->inode->disk;
    int access = f->flags & O_ACCMODE;
    size_t size = 0, done = 0;

    if (access == (write ? O_RDONLY : O_WRONLY)) {
        return -EBADF;
    }
    if (S_ISDIR(f->inode->mode)) {
        return -EISDIR;
    }
    if (offset < 0 || !aligned(f, iov, niov, offset)) {
        return -EINVAL;
    }
    if (rwf & ~(RWF_DSYNC | RWF_SYNC | RWF_HIPRI)) {
        return -EOPNOTSUPP;     /* RWF_NOWAIT: so that workers are used */
    }
    for (int i = 0; i < niov; i++) {
        size += iov[i].iov_len;
    }
    if (!write) {
        size = offset < disk->size ? MIN(size, disk->size - offset) : 0;
    } else if (offset > FILE_SIZE_MAX || size > FILE_SIZE_MAX - offset) {
        return -EFBIG;
    }
    int ret = size ? trouble(write, &size) : 0;
    if (ret < 0) {
        return ret;
    }
    for (int i = 0; i < niov && done < size; i++) {
        size_t n = MIN(iov[i].iov_len, size - done);
        if (write) {
            lab_disk_write(disk, offset + done, iov[i].iov_base, n);
        } else {
            lab_disk_read(disk, offset + done, iov[i].iov_base, n);
        }
        done += n;
    }
    if (write && done && ((rwf & (RWF_DSYNC | RWF_SYNC)) || (f->flags & (O_DSYNC | O_SYNC)))) {
        lab_disk_flush_range(disk, offset, done);
    }
    return done;
}

ssize_t lab_file_rw(LabOpenFile *f, const struct iovec *iov, int niov, int64_t offset,
                    bool write, int rwf)
{
    point(f->inode, write);
    ssize_t n = lab_file_transfer(f, iov, niov, offset, write, rwf);
    return n < 0 ? fail(-n) : n;
}

int lab_file_flush(LabOpenFile *f)
{
    size_t size = 0;
    int ret = trouble(false, &size);

    if (ret == 0) {
        lab_disk_flush(&f->inode->disk);
    }
    return ret;
}

int lab_file_sync(LabOpenFile *f)
{
    point(f->inode, true);
    int ret = lab_file_flush(f);
    return ret < 0 ? fail(-ret) : 0;
}

int lab_file_truncate(LabOpenFile *f, int64_t size)
{
    point(f->inode, true);
    if (size < 0 || (f->flags & O_ACCMODE) == O_RDONLY || S_ISDIR(f->inode->mode)) {
        return fail(EINVAL);
    }
    if (size > FILE_SIZE_MAX) {
        return fail(EFBIG);
    }
    if (power_off) {
        return fail(EIO);
    }
    lab_disk_resize(&f->inode->disk, size);
    return 0;
}

int lab_file_allocate(LabOpenFile *f, int mode, int64_t offset, int64_t size)
{
    LabDisk *disk = &f->inode->disk;
    bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
    size_t whole = LAB_DISK_BLOCK;

    point(f->inode, true);
    if (offset < 0 || size <= 0) {
        return fail(EINVAL);
    }
    if (offset > FILE_SIZE_MAX || size > FILE_SIZE_MAX - offset) {
        return fail(EFBIG);
    }
    if ((f->flags & O_ACCMODE) == O_RDONLY) {
        return fail(EBADF);
    }
    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ||
        ((mode & FALLOC_FL_PUNCH_HOLE) && !keep_size)) {
        return fail(EOPNOTSUPP);
    }
    int ret = trouble(true, &whole);
    if (ret < 0) {
        return fail(-ret);
    }
    int64_t end = offset + size;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
        int64_t stop = keep_size ? MIN(end, (int64_t)disk->size) : end;
        if (stop > offset) {
            lab_disk_write(disk, offset, NULL, stop - offset);
        }
        if (mode & FALLOC_FL_PUNCH_HOLE) {
            return 0;
        }
    }
    if (!lab_disk_reserve(disk, offset, size)) {
        return fail(ENOSPC);
    }
    if (!keep_size && end > (int64_t)disk->size) {
        lab_disk_resize(disk, end);
    }
    return 0;
}

int64_t lab_file_seek(LabOpenFile *f, int64_t offset, int whence)
{
    LabDisk *disk = &f->inode->disk;
    int64_t size = disk->size, target = offset;

    point(f->inode, false);
    switch (whence) {
    case SEEK_SET:
        break;
    case SEEK_CUR:
        target += f->position;
        break;
    case SEEK_END:
        target += size;
        break;
    case SEEK_DATA:
    case SEEK_HOLE:
        if (offset < 0 || offset >= size) {
            return fail(ENXIO);
        }
        target = lab_disk_seek(disk, offset, whence == SEEK_DATA);
        if (whence == SEEK_DATA && target >= size) {
            return fail(ENXIO);
        }
        break;
    default:
        return fail(EINVAL);
    }
    if (target < 0) {
        return fail(EINVAL);
    }
    return f->position = target;
}

/* ---- locks ----------------------------------------------------------------------------- */

static void drop_locks(LabOpenFile *f, int64_t start, int64_t end)
{
    GArray *locks = f->inode->locks;

    for (unsigned i = locks->len; i-- > 0;) {
        LabLock l = g_array_index(locks, LabLock, i);
        if (l.owner != f || l.end <= start || l.start >= end) {
            continue;
        }
        g_array_remove_index(locks, i);
        LabLock before = { l.owner, l.type, l.start, start };
        LabLock after = { l.owner, l.type, end, l.end };
        if (before.start < before.end) {
            g_array_append_val(locks, before);
        }
        if (after.start < after.end) {
            g_array_append_val(locks, after);
        }
    }
}

static const LabLock *conflicting(LabOpenFile *f, short type, int64_t start, int64_t end)
{
    for (unsigned i = 0; i < f->inode->locks->len; i++) {
        const LabLock *l = &g_array_index(f->inode->locks, LabLock, i);
        if (l->owner != f && l->start < end && start < l->end &&
            (type == F_WRLCK || l->type == F_WRLCK)) {
            return l;
        }
    }
    return NULL;
}

int lab_file_lock(LabOpenFile *f, int cmd, struct flock *fl)
{
    int64_t origin = fl->l_whence == SEEK_CUR ? f->position
                     : fl->l_whence == SEEK_END ? f->inode->disk.size : 0;
    int64_t start = fl->l_start + origin;
    int64_t end = fl->l_len ? start + fl->l_len : INT64_MAX;

    point(f->inode, cmd != F_OFD_GETLK);
    if (start < 0 || fl->l_len < 0) {
        return fail(EINVAL);
    }
    const LabLock *other = fl->l_type == F_UNLCK ? NULL
                           : conflicting(f, fl->l_type, start, end);
    if (cmd == F_OFD_GETLK) {
        fl->l_type = other ? other->type : F_UNLCK;
        if (other) {
            fl->l_whence = SEEK_SET;
            fl->l_start = other->start;
            fl->l_len = other->end == INT64_MAX ? 0 : other->end - other->start;
            fl->l_pid = -1;
        }
        return 0;
    }
    if (other) {
        if (cmd == F_OFD_SETLKW) {
            lab_unsupported("fcntl(F_OFD_SETLKW) that waits");
        }
        return fail(EAGAIN);
    }
    drop_locks(f, start, end);
    if (fl->l_type != F_UNLCK) {
        LabLock new = { f, fl->l_type, start, end };
        g_array_append_val(f->inode->locks, new);
    }
    return 0;
}

int lab_file_fcntl(LabOpenFile *f, int cmd, long arg)
{
    enum { CHANGEABLE = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME };

    switch (cmd) {
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
        return lab_file_lock(f, cmd, (struct flock *)arg);
    case F_GETLK:               /* of one process: never in its own way */
        ((struct flock *)arg)->l_type = F_UNLCK;
        return 0;
    case F_SETLK:
    case F_SETLKW:
        return 0;
    case F_GETFL:
        return f->flags;
    case F_SETFL:
        f->flags = (f->flags & ~CHANGEABLE) | (arg & CHANGEABLE);
        return 0;
    default:
        return fail(EINVAL);
    }
}

/* ---- changing names --------------------------------------------------------------------- */

int lab_file_unlink(const char *given, bool directory)
{
    g_autofree char *path = lab_path_whole(given);
    LabInode *inode;

    point(NULL, true);
    LabFound found = lab_name_look_up(path, &inode);
    if (found == FOUND_NOTHING) {
        return fail(ENOENT);
    }
    if (found != FOUND) {
        return fail(found == FOUND_REAL_DIRECTORY && !directory ? EISDIR : EACCES);
    }
    if (S_ISDIR(inode->mode) != directory) {
        return fail(directory ? ENOTDIR : EISDIR);
    }
    lab_name_set(g_steal_pointer(&path), NULL);
    return 0;
}

int lab_file_rename(const char *given_from, const char *given_to)
{
    g_autofree char *from = lab_path_whole(given_from), *to = lab_path_whole(given_to);
    LabInode *inode, *old;

    point(NULL, true);
    LabFound found = lab_name_look_up(from, &inode), target = lab_name_look_up(to, &old);
    if (found != FOUND || S_ISDIR(inode->mode)) {
        return fail(found == FOUND_NOTHING ? ENOENT : EACCES);
    }
    if (target == FOUND_REAL_DIRECTORY || (target == FOUND && S_ISDIR(old->mode))) {
        return fail(EISDIR);
    }
    if (!lab_name_parent_exists(to)) {
        return fail(ENOENT);
    }
    if (inode != old) {
        lab_name_set(g_steal_pointer(&to), inode);
        lab_name_set(g_steal_pointer(&from), NULL);
    }
    return 0;
}

int lab_file_mkdir(const char *given)
{
    g_autofree char *path = lab_path_whole(given);
    LabInode *inode;

    point(NULL, true);
    if (lab_name_look_up(path, &inode) != FOUND_NOTHING) {
        return fail(EEXIST);
    }
    if (!lab_name_parent_exists(path)) {
        return fail(ENOENT);
    }
    lab_name_set(g_steal_pointer(&path), lab_inode_new(S_IFDIR | 0755));
    return 0;
}
