/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading guest data. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

/* ---- the file ---------------------------------------------------------------------- */

/*
 * How many of BYTES at OFFSET lie inside FILE, which is known to have *KNOWN bytes at least;
 * -errno.
 */
static int64_t coroutine_mixed_fn bytes_inside(BdrvChild *file, uint64_t *known,
                                               uint64_t offset, uint64_t bytes)
{
    if (unlikely(offset + bytes > *known)) {
        int64_t len = bdrv_getlength(file->bs);
        if (len < 0) {
            return len;
        }
        *known = len;
    }
    return offset >= *known ? 0 : MIN(bytes, *known - offset);
}

int coroutine_mixed_fn qcow2_file_read(Qcow2State *s, uint64_t offset, size_t bytes,
                                       void *buf)
{
    int64_t n = bytes_inside(s->bs->file, &s->file_bytes, offset, bytes);

    if (n < 0) {
        return n;
    }
    int ret = n ? bdrv_pread(s->bs->file, offset, n, buf, 0) : 0;
    if (ret >= 0) {
        memset((uint8_t *)buf + n, 0, bytes - n);
        ret = 0;
    }
    return ret;
}

static int coroutine_fn read_host(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                  QEMUIOVector *qiov, size_t qiov_offset)
{
    BdrvChild *data = qcow2_data(s);
    int64_t n = bytes_inside(data, s->data_file ? &s->data_file_bytes : &s->file_bytes, offset,
                             bytes);

    if (n < 0) {
        return n;
    }
    if ((uint64_t)n < bytes) {
        qemu_iovec_memset(qiov, qiov_offset + n, 0, bytes - n);
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_READ_AIO);
    return n ? bdrv_co_preadv_part(data, offset, n, qiov, qiov_offset, 0) : 0;
}

/* ---- other sources ----------------------------------------------------------------- */

static int coroutine_fn read_backing(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset)
{
    BdrvChild *backing = s->bs->backing;
    int64_t len = backing ? bdrv_getlength(backing->bs) : 0;

    if (len < 0) {
        return len;
    }
    uint64_t n = offset >= (uint64_t)len ? 0 : MIN(bytes, len - offset);
    if (n < bytes) {
        qemu_iovec_memset(qiov, qiov_offset + n, 0, bytes - n);
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_READ_BACKING_AIO);
    return n ? bdrv_co_preadv_part(backing, offset, n, qiov, qiov_offset, 0) : 0;
}

static int coroutine_fn read_compressed(Qcow2State *s, uint64_t entry, uint64_t in_cluster,
                                        uint64_t bytes, QEMUIOVector *qiov,
                                        size_t qiov_offset)
{
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);

    if (!buf) {
        return -ENOMEM;
    }
    int ret = qcow2_read_compressed(s, entry, buf);
    if (ret >= 0) {
        qemu_iovec_from_buf(qiov, qiov_offset, buf + in_cluster, bytes);
        ret = 0;
    }
    qemu_vfree(buf);
    return ret;
}

/* ---- the request ------------------------------------------------------------------- */

static int coroutine_fn read_run(Qcow2State *s, const Qcow2Run *run, uint64_t offset,
                                 QEMUIOVector *qiov, size_t qiov_offset)
{
    switch (run->type) {
    case QCOW2_NORMAL:
        return read_host(s, run->host, run->bytes, qiov, qiov_offset);
    case QCOW2_UNALLOCATED:
    case QCOW2_UNALLOCATED_ALLOC:
        return read_backing(s, offset, run->bytes, qiov, qiov_offset);
    case QCOW2_COMPRESSED_DATA:
        return read_compressed(s, run->host, offset & s->cluster_mask, run->bytes, qiov,
                               qiov_offset);
    default:
        qemu_iovec_memset(qiov, qiov_offset, 0, run->bytes);
        return 0;
    }
}

int coroutine_fn qcow2_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    Qcow2State *s = bs->opaque;
    unsigned epoch = qcow2_request_begin(s);
    int ret = qcow2_check_data(s);

    while (bytes > 0 && ret >= 0) {
        Qcow2Run run;
        ret = qcow2_map(s, offset, bytes, &run);
        if (ret >= 0) {
            ret = read_run(s, &run, offset, qiov, qiov_offset);
        }
        if (ret < 0) {
            break;
        }
        offset += run.bytes;
        bytes -= run.bytes;
        qiov_offset += run.bytes;
    }
    qcow2_request_end(s, epoch);
    return ret < 0 ? ret : 0;
}
