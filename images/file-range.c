/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zeroing, discarding and finding ranges of a host file, without moving data. */
#include "miniblk/osdep.h"
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "miniblk/atomic.h"
#include "miniblk/thread-pool.h"
#include "images/file-internal.h"

typedef struct FileRange {
    FileState *s;
    int64_t offset, bytes;
    bool may_unmap, no_fallback;
} FileRange;

static bool supported(FileState *s, unsigned what)
{
    return !(qatomic_read(&s->unsupported) & what);
}

/*
 * -ENOTSUP (and not asked again, if that is the file's nature rather than this range's) when
 * the host cannot do MODE.
 */
static int try_fallocate(const FileRange *r, int mode, unsigned what)
{
    int ret;

    if (!supported(r->s, what)) {
        return -ENOTSUP;
    }
    do {
        ret = fallocate(r->s->fd, mode, r->offset, r->bytes);
    } while (ret < 0 && errno == EINTR);
    if (ret == 0) {
        return 0;
    }
    switch (errno) {
    case EOPNOTSUPP:
    case ENOSYS:
    case ENODEV:
        qatomic_or(&r->s->unsupported, what);
        return -ENOTSUP;
    case EINVAL:        /* block devices: not aligned to what they can zero */
    case ETXTBSY:
        return -ENOTSUP;
    default:
        return -errno;
    }
}

static bool within_file(const FileRange *r)
{
    int64_t length = file_length(r->s->fd);
    return length >= 0 && r->offset + r->bytes <= length;
}

/*
 * Zeroes without writing them. In this order: a hole, when the caller does not mind (holes
 * keep the file's length, so not beyond its end); a zeroed range, which stays allocated; a
 * hole that is allocated again.
 */
static int zero_blocking(void *opaque)
{
    const FileRange *r = opaque;
    const int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int ret = -ENOTSUP;

    if (r->may_unmap && within_file(r)) {
        ret = try_fallocate(r, hole, FILE_NO_PUNCH_HOLE);
    }
    /* Block devices may fall back to writing zeroes here, which is not wanted then. */
    if (ret == -ENOTSUP && !(r->no_fallback && r->s->is_block_device)) {
        ret = try_fallocate(r, FALLOC_FL_ZERO_RANGE, FILE_NO_ZERO_RANGE);
    }
    if (ret == -ENOTSUP && r->s->is_regular && supported(r->s, FILE_NO_FALLOCATE)) {
        ret = try_fallocate(r, hole, FILE_NO_PUNCH_HOLE);
        if (ret == 0) {
            ret = try_fallocate(r, 0, FILE_NO_FALLOCATE);
        }
    }
    return ret;
}

int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags)
{
    FileState *s = bs->opaque;
    FileRange r = {
        .s = s, .offset = offset, .bytes = bytes,
        .may_unmap = flags & BDRV_REQ_MAY_UNMAP,
        .no_fallback = flags & BDRV_REQ_NO_FALLBACK,
    };

    if (!s->is_regular && !s->is_block_device) {
        return -ENOTSUP;
    }
    if (!supported(s, FILE_NO_ZERO_RANGE) && !supported(s, FILE_NO_PUNCH_HOLE)) {
        return -ENOTSUP;
    }
    return thread_pool_submit_co(zero_blocking, &r);
}

/* ---- discard --------------------------------------------------------------------------- */

static int discard_blocking(void *opaque)
{
    const FileRange *r = opaque;

    if (r->s->is_regular) {
        return try_fallocate(r, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             FILE_NO_PUNCH_HOLE);
    }
    if (!supported(r->s, FILE_NO_DISCARD)) {
        return -ENOTSUP;
    }
    uint64_t range[2] = { r->offset, r->bytes };
    int ret;
    do {
        ret = ioctl(r->s->fd, BLKDISCARD, range);
    } while (ret < 0 && errno == EINTR);
    if (ret == 0) {
        return 0;
    }
    if (errno == EOPNOTSUPP || errno == ENOTTY || errno == ENOSYS) {
        qatomic_or(&r->s->unsupported, FILE_NO_DISCARD);
        return -ENOTSUP;
    }
    return errno == EINVAL ? -ENOTSUP : -errno;
}

int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    FileState *s = bs->opaque;
    FileRange r = { .s = s, .offset = offset, .bytes = bytes };

    if (!s->is_regular && !s->is_block_device) {
        return -ENOTSUP;
    }
    if (!supported(s, s->is_regular ? FILE_NO_PUNCH_HOLE : FILE_NO_DISCARD)) {
        return -ENOTSUP;
    }
    return thread_pool_submit_co(discard_blocking, &r);
}

/* ---- holes ----------------------------------------------------------------------------- */

typedef struct FileExtent {
    int fd;
    int64_t start;              /* what is asked about */
    bool hole;                  /* the answer: what START lies in, */
    int64_t end;                /* and up to where that goes; INT64_MAX: beyond the file */
} FileExtent;

static int extent_blocking(void *opaque)
{
    FileExtent *e = opaque;
    off_t data = lseek(e->fd, e->start, SEEK_DATA);

    if (data < 0) {
        /* ENXIO: no data from START on. Otherwise the file system cannot tell. */
        e->hole = errno == ENXIO;
        e->end = INT64_MAX;
        return 0;
    }
    if (data > e->start) {
        e->hole = true;
        e->end = data;
        return 0;
    }
    off_t hole = lseek(e->fd, e->start, SEEK_HOLE);
    e->hole = false;
    /* Not beyond START: the file has just been cut, and what we knew is out of date. */
    e->end = hole > e->start ? hole : INT64_MAX;
    return 0;
}

int coroutine_fn file_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                      int64_t bytes, int64_t *pnum, int64_t *map,
                                      BlockDriverState **file)
{
    FileState *s = bs->opaque;
    int64_t alignment = MAX(bs->bl.request_alignment, 1);
    FileExtent e = { .fd = s->fd, .start = offset };

    *pnum = bytes;
    *map = offset;
    *file = bs;
    if (!want_zero || !s->is_regular) {
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    }
    if (s->in_memory) {
        extent_blocking(&e);    /* in memory too, and so quick */
    } else {
        thread_pool_submit_co(extent_blocking, &e);
    }

    /* A partial unit at an extent's end counts as data. */
    int64_t len = MIN(e.end - offset, bytes);
    if (e.hole) {
        len = QEMU_ALIGN_DOWN(len, alignment);
        if (len > 0) {
            *pnum = len;
            return BDRV_BLOCK_ZERO | BDRV_BLOCK_OFFSET_VALID;
        }
        len = alignment;
    }
    *pnum = MIN(QEMU_ALIGN_UP(len, alignment), bytes);
    return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
}
