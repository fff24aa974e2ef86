/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is in the files of the lab. See files.h. */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/event.h"
#include "lab/inode.h"
#include "lab/trouble.h"
#include "lab/world.h"

/* As ext4 with blocks of 4 KiB. */
#define FILE_SIZE_MAX (((int64_t)16 << 40) - LAB_DISK_BLOCK)

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
    return bits % lab_sector_logical() == 0;
}

static unsigned what_may_happen(size_t size, bool write)
{
    unsigned may = LAB_TROUBLE_ERROR | (write ? LAB_TROUBLE_FULL : 0);

    return size < 2 * lab_sector_logical() ? may
           : may | LAB_TROUBLE_SHORT | (write ? LAB_TROUBLE_TORN : 0);
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
    LabTrouble trouble = size ? lab_trouble(what_may_happen(size, write)) : LAB_TROUBLE_NONE;
    if (trouble & (LAB_TROUBLE_ERROR | LAB_TROUBLE_FULL)) {
        return trouble == LAB_TROUBLE_FULL ? -ENOSPC : -EIO;
    }
    if (trouble) {
        size = ROUND_DOWN(size / 2, lab_sector_logical());
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
    return trouble == LAB_TROUBLE_TORN ? -EIO : (ssize_t)done;
}

ssize_t lab_file_rw(LabOpenFile *f, const struct iovec *iov, int niov, int64_t offset,
                    bool write, int rwf)
{
    ssize_t n = lab_file_transfer(f, iov, niov, offset, write, rwf);
    return n < 0 ? lab_errno(-n) : n;
}

int lab_file_flush(LabOpenFile *f)
{
    /*
     * The page cache forgets what it could not write: it is clean then, and the next flush
     * succeeds. A disk that keeps its own cache does not.
     */
    bool cached = !(f->flags & O_DIRECT);
    LabTrouble trouble = lab_trouble(LAB_TROUBLE_ERROR | (cached ? LAB_TROUBLE_LOST : 0));

    if (trouble == LAB_TROUBLE_LOST) {
        lab_disk_lose(&f->inode->disk);
    } else if (!trouble) {
        lab_disk_flush(&f->inode->disk);
    }
    return trouble ? -EIO : 0;
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
    if (lab_trouble(LAB_TROUBLE_ERROR)) {
        return lab_errno(EIO);
    }
    lab_disk_resize(&f->inode->disk, size);
    return 0;
}

int lab_file_allocate(LabOpenFile *f, int mode, int64_t offset, int64_t size)
{
    LabDisk *disk = &f->inode->disk;
    bool keep_size = mode & FALLOC_FL_KEEP_SIZE;

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
    LabTrouble trouble = lab_trouble(LAB_TROUBLE_ERROR | LAB_TROUBLE_FULL);
    if (trouble) {
        return lab_errno(trouble == LAB_TROUBLE_FULL ? ENOSPC : EIO);
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
