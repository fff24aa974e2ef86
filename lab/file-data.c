/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is in the files of the lab, and what their disk refuses. See files.h. */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/event.h"
#include "lab/inode.h"
#include "miniblk/lab-test.h"
#include "lab/world.h"

enum { DIRECT_ALIGNMENT = 512 };

/* As ext4 with blocks of 4 KiB. */
#define FILE_SIZE_MAX (((int64_t)16 << 40) - LAB_DISK_BLOCK)

static bool power_off, faults_wanted;

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
    ssize_t n = lab_file_transfer(f, iov, niov, offset, write, rwf);
    return n < 0 ? lab_errno(-n) : n;
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
    int ret = lab_file_flush(f);
    return ret < 0 ? lab_errno(-ret) : 0;
}

int lab_file_truncate(LabOpenFile *f, int64_t size)
{
    if (size < 0 || (f->flags & O_ACCMODE) == O_RDONLY || S_ISDIR(f->inode->mode)) {
        return lab_errno(EINVAL);
    }
    if (size > FILE_SIZE_MAX) {
        return lab_errno(EFBIG);
    }
    if (power_off) {
        return lab_errno(EIO);
    }
    lab_disk_resize(&f->inode->disk, size);
    return 0;
}

int lab_file_allocate(LabOpenFile *f, int mode, int64_t offset, int64_t size)
{
    LabDisk *disk = &f->inode->disk;
    bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
    size_t whole = LAB_DISK_BLOCK;

    if (offset < 0 || size <= 0) {
        return lab_errno(EINVAL);
    }
    if (offset > FILE_SIZE_MAX || size > FILE_SIZE_MAX - offset) {
        return lab_errno(EFBIG);
    }
    if ((f->flags & O_ACCMODE) == O_RDONLY) {
        return lab_errno(EBADF);
    }
    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ||
        ((mode & FALLOC_FL_PUNCH_HOLE) && !keep_size)) {
        return lab_errno(EOPNOTSUPP);
    }
    int ret = trouble(true, &whole);
    if (ret < 0) {
        return lab_errno(-ret);
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
        return lab_errno(ENOSPC);
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
            return lab_errno(ENXIO);
        }
        target = lab_disk_seek(disk, offset, whence == SEEK_DATA);
        if (whence == SEEK_DATA && target >= size) {
            return lab_errno(ENXIO);
        }
        break;
    default:
        return lab_errno(EINVAL);
    }
    if (target < 0) {
        return lab_errno(EINVAL);
    }
    return f->position = target;
}
