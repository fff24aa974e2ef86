/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying from one host file to another without moving the data through this program. */
#include "miniblk/osdep.h"
#include "miniblk/thread-pool.h"
#include "images/file-internal.h"

typedef struct FileCopy {
    int in_fd, out_fd;
    int64_t in_offset, out_offset, bytes;
} FileCopy;

static int copy_blocking(void *opaque)
{
    FileCopy *c = opaque;

    while (c->bytes > 0) {
        loff_t in = c->in_offset, out = c->out_offset;
        ssize_t n = copy_file_range(c->in_fd, &in, c->out_fd, &out, c->bytes, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            /* Other file systems, no such call, or the end of the file: read and write. */
            return n == 0 || (errno != EIO && errno != ENOSPC && errno != EDQUOT)
                   ? -ENOTSUP : -errno;
        }
        c->in_offset += n;
        c->out_offset += n;
        c->bytes -= n;
    }
    return 0;
}

int coroutine_fn file_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                                         int64_t src_offset, BdrvChild *dst,
                                         int64_t dst_offset, int64_t bytes,
                                         BdrvRequestFlags read_flags,
                                         BdrvRequestFlags write_flags)
{
    return bdrv_co_copy_range_to(src, src_offset, dst, dst_offset, bytes, read_flags,
                                 write_flags);
}

int coroutine_fn file_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                                       int64_t src_offset, BdrvChild *dst,
                                       int64_t dst_offset, int64_t bytes,
                                       BdrvRequestFlags read_flags,
                                       BdrvRequestFlags write_flags)
{
    FileState *out = bs->opaque;

    if (src->bs->drv->bdrv_co_copy_range_to != file_co_copy_range_to) {
        return -ENOTSUP;        /* the source is no host file */
    }
    FileState *in = src->bs->opaque;
    FileCopy copy = { in->fd, out->fd, src_offset, dst_offset, bytes };
    return in->is_regular && out->is_regular ? thread_pool_submit_co(copy_blocking, &copy)
                                             : -ENOTSUP;
}
