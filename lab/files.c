/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Open files and names: see files.h. */
#include "miniblk/osdep.h"
#include <linux/magic.h>
#include "lab/engine.h"
#include "lab/event.h"
#include "lab/files.h"
#include "lab/inode.h"
#include "lab/real.h"
#include "lab/world.h"

/* The point of a call that looks for a name, or changes one. */
static void names_point(bool is_write)
{
    lab_syscall_point(LAB_OP_SYSCALL, lab_names_object(), is_write);
}

/* ---- open files ------------------------------------------------------------------------ */

static unsigned file_ready(const void *opaque)
{
    return POLLIN | POLLOUT;
}

static void file_close(void *opaque)
{
    lab_file_unlock(opaque, 0, INT64_MAX);
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

LabOpenFile *lab_file_at_point(int fd, bool is_write)
{
    LabOpenFile *f = lab_file_of(fd);

    if (f) {
        lab_syscall_point(LAB_OP_SYSCALL, (uintptr_t)f->inode, is_write);
        f = lab_file_of(fd);
    }
    return f;
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
    } else {
        lab_fd_shares(fd, (uintptr_t)inode);
    }
    return fd;
}

int lab_file_open(const char *given, int flags, mode_t mode)
{
    g_autofree char *path = lab_path_whole(given);
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    LabInode *inode;

    names_point(flags & O_CREAT);
    lab_refuse_proc(path);
    LabFound found = lab_name_look_up(path, &inode);
    if (found == FOUND_REAL) {
        return -2;
    }
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        return open_inode(lab_inode_new(S_IFREG | (mode & 07777)), flags & ~O_DIRECTORY);
    }
    if (found == FOUND_REAL_DIRECTORY || (found == FOUND && S_ISDIR(inode->mode))) {
        return writes || (flags & O_CREAT) ? lab_errno(EISDIR)
               : found == FOUND ? lab_errno(EACCES) : -2;
    }
    if (flags & O_DIRECTORY) {
        return lab_errno(found == FOUND ? ENOTDIR : ENOENT);
    }
    if (found == FOUND && geteuid() != 0 && writes && !(inode->mode & 0222)) {
        return lab_errno(EACCES);
    }
    if (found == FOUND && (flags & O_CREAT) && (flags & O_EXCL)) {
        return lab_errno(EEXIST);
    }
    if (found == FOUND && S_ISSOCK(inode->mode)) {
        return lab_errno(ENXIO);
    }
    if (found == FOUND_NOTHING) {
        if (!(flags & O_CREAT) || !lab_name_parent_exists(path)) {
            return lab_errno(ENOENT);
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

    names_point(false);
    switch (lab_name_look_up(path, &inode)) {
    case FOUND:
        fill_stat(inode, st);
        return 0;
    case FOUND_NOTHING:
        return lab_errno(ENOENT);
    default:
        return -2;
    }
}

int lab_file_fstat(const LabOpenFile *f, struct stat *st)
{
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

/* ---- changing names --------------------------------------------------------------------- */

int lab_file_unlink(const char *given, bool directory)
{
    g_autofree char *path = lab_path_whole(given);
    LabInode *inode;

    names_point(true);
    LabFound found = lab_name_look_up(path, &inode);
    if (found == FOUND_NOTHING) {
        return lab_errno(ENOENT);
    }
    if (found != FOUND) {
        return lab_errno(found == FOUND_REAL_DIRECTORY && !directory ? EISDIR : EACCES);
    }
    if (S_ISDIR(inode->mode) != directory) {
        return lab_errno(directory ? ENOTDIR : EISDIR);
    }
    lab_name_set(g_steal_pointer(&path), NULL);
    return 0;
}

int lab_file_rename(const char *given_from, const char *given_to)
{
    g_autofree char *from = lab_path_whole(given_from), *to = lab_path_whole(given_to);
    LabInode *inode, *old;

    names_point(true);
    LabFound found = lab_name_look_up(from, &inode), target = lab_name_look_up(to, &old);
    if (found != FOUND || S_ISDIR(inode->mode)) {
        return lab_errno(found == FOUND_NOTHING ? ENOENT : EACCES);
    }
    if (target == FOUND_REAL_DIRECTORY || (target == FOUND && S_ISDIR(old->mode))) {
        return lab_errno(EISDIR);
    }
    if (!lab_name_parent_exists(to)) {
        return lab_errno(ENOENT);
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

    names_point(true);
    if (lab_name_look_up(path, &inode) != FOUND_NOTHING) {
        return lab_errno(EEXIST);
    }
    if (!lab_name_parent_exists(path)) {
        return lab_errno(ENOENT);
    }
    lab_name_set(g_steal_pointer(&path), lab_inode_new(S_IFDIR | 0755));
    return 0;
}
