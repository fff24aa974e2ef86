/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a host file demands of requests: alignment of offsets and buffers, and its length. */
#include "miniblk/osdep.h"
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include "images/file-internal.h"

#ifndef HUGETLBFS_MAGIC
#define HUGETLBFS_MAGIC 0x958458f6
#endif

enum {
    ALIGNMENT_MIN = 512,
    ALIGNMENT_SAFE = 4096,      /* good for all storage that is known */
    ALIGNMENT_MAX = 65536,
};

int64_t file_length(int fd)
{
    /* For block devices too, where fstat() knows nothing. */
    off_t end = lseek(fd, 0, SEEK_END);
    return end < 0 ? -errno : end;
}

bool file_probe_in_memory(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) {
        return false;
    }
    return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
           fs.f_type == HUGETLBFS_MAGIC;
}

static bool sane(uint32_t alignment)
{
    return alignment > 0 && alignment <= BDRV_MAX_ALIGNMENT &&
           (alignment & (alignment - 1)) == 0;
}

/* Ask the kernel (6.1 and later). True when it has answered; 0 means no O_DIRECT. */
static bool ask_statx(int fd, uint32_t *request_alignment, uint32_t *mem_alignment)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN)) {
        *request_alignment = stx.stx_dio_offset_align;
        *mem_alignment = stx.stx_dio_mem_align;
        return true;
    }
#endif
    return false;
}

static bool can_read(int fd, void *buf, size_t len)
{
    ssize_t n;

    do {
        n = pread(fd, buf, len, 0);
    } while (n < 0 && errno == EINTR);
    /* Any other failure is the medium's: it has nothing against the alignment. */
    return n >= 0 || errno != EINVAL;
}

/* Try small reads until one is not refused. 0: all were. */
static uint32_t try_request_alignment(int fd, char *buf)
{
    if (can_read(fd, buf, 1)) {
        /* Nothing is checked here (an empty file, say), so nothing can be learnt. */
        return ALIGNMENT_SAFE;
    }
    for (uint32_t align = ALIGNMENT_MIN; align <= ALIGNMENT_MAX; align *= 2) {
        if (can_read(fd, buf, align)) {
            return align;
        }
    }
    return 0;
}

static uint32_t try_mem_alignment(int fd, char *buf, uint32_t request_alignment)
{
    if (can_read(fd, buf + 1, request_alignment)) {
        return ALIGNMENT_SAFE;
    }
    for (uint32_t align = ALIGNMENT_MIN; align <= ALIGNMENT_MAX; align *= 2) {
        if (can_read(fd, buf + align, request_alignment)) {
            return align;
        }
    }
    return 0;
}

bool file_probe_alignment(FileState *s)
{
    uint32_t request = 0, mem = 0;

    if (!s->direct) {
        s->request_alignment = 1;
        s->mem_alignment = 1;
        return true;
    }
    if (!ask_statx(s->fd, &request, &mem)) {
        char *buf = qemu_memalign(ALIGNMENT_MAX, 3 * ALIGNMENT_MAX);
        int sector = 0;
        if (ioctl(s->fd, BLKSSZGET, &sector) == 0 && sector > 0) {
            request = sector;
        } else {
            request = try_request_alignment(s->fd, buf);
        }
        mem = request ? try_mem_alignment(s->fd, buf, request) : 0;
        qemu_vfree(buf);
    }
    if (!sane(request) || !sane(mem)) {
        return false;
    }
    s->request_alignment = request;
    s->mem_alignment = mem;
    return true;
}
