/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The state of a machine that a snapshot goes with. It lies behind the guest's disk, from the
 * first L1 entry on that has no part of the disk:
 *
 *   L1:   | disk . . . . | disk, nothing | VM state | VM state ...
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

/* Where POS of the area is on the disk; -EFBIG when it is nowhere. */
static int64_t place_of(const Qcow2State *s, uint64_t pos, uint64_t bytes)
{
    uint64_t start = qcow2_l1_entries_for(&s->header, s->header.size) << qcow2_l1_shift(s);

    return start > INT64_MAX || pos > INT64_MAX - start || bytes > INT64_MAX - start - pos
           ? -EFBIG : (int64_t)(start + pos);
}

/* ---- load ------------------------------------------------------------------------ */

/* Read from the area; where nothing was written are zeroes, and no backing file. */
static int coroutine_fn read_area(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                  QEMUIOVector *qiov, size_t qiov_offset)
{
    while (bytes > 0) {
        Qcow2Run run;
        int ret = qcow2_map(s, offset, bytes, &run);
        if (ret < 0) {
            return ret;
        }
        if (run.type == QCOW2_UNALLOCATED || run.type == QCOW2_UNALLOCATED_ALLOC) {
            qemu_iovec_memset(qiov, qiov_offset, 0, run.bytes);
        } else {
            ret = qcow2_co_preadv_part(s->bs, offset, run.bytes, qiov, qiov_offset, 0);
        }
        if (ret < 0) {
            return ret;
        }
        offset += run.bytes;
        bytes -= run.bytes;
        qiov_offset += run.bytes;
    }
    return 0;
}

int coroutine_fn qcow2_co_load_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    Qcow2State *s = bs->opaque;

    int64_t offset = place_of(s, pos, qiov->size);
    BLKDBG_EVENT(bs->file, BLKDBG_VMSTATE_LOAD);
    return offset < 0 ? offset : read_area(s, offset, qiov->size, qiov, 0);
}

/* ---- save ------------------------------------------------------------------------ */

/* Write N bytes inside a cluster, with what is around them: copy-on-write ends at the disk. */
static int coroutine_fn write_in_cluster(Qcow2State *s, uint64_t offset, uint64_t n,
                                         QEMUIOVector *qiov, size_t qiov_offset)
{
    uint64_t start = offset & ~s->cluster_mask;
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, s->cluster_bytes);
    QEMUIOVector whole;

    if (!buf) {
        return -ENOMEM;
    }
    qemu_iovec_init_buf(&whole, buf, s->cluster_bytes);
    int ret = read_area(s, start, s->cluster_bytes, &whole, 0);
    if (ret >= 0) {
        qemu_iovec_to_buf(qiov, qiov_offset, buf + (offset - start), n);
        ret = qcow2_write(s, start, s->cluster_bytes, &whole, 0);
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn write_area(Qcow2State *s, uint64_t offset, QEMUIOVector *qiov)
{
    uint64_t bytes = qiov->size, done = 0;
    int ret = 0;

    while (done < bytes && ret >= 0) {
        uint64_t o = offset + done, in_cluster = o & s->cluster_mask;
        uint64_t n = MIN(bytes - done, s->cluster_bytes - in_cluster);
        if (n < s->cluster_bytes) {
            ret = write_in_cluster(s, o, n, qiov, done);
        } else {
            n = (bytes - done) & ~s->cluster_mask;
            ret = qcow2_write(s, o, n, qiov, done);
        }
        done += n;
    }
    return ret;
}

int coroutine_fn qcow2_co_save_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    Qcow2State *s = bs->opaque;
    int64_t offset = place_of(s, pos, qiov->size);

    if (s->header.incompat & QCOW2_INCOMPAT_DATA_FILE) {
        return -ENOTSUP;        /* it would be written into the data file, behind the disk */
    }
    if (!s->writable) {
        return -EACCES;
    }
    if (offset < 0) {
        return offset;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_VMSTATE_SAVE);
    qemu_co_mutex_lock(&s->lock);
    int ret = s->corrupt ? -EIO
            : qcow2_l1_grow(s, qcow2_l1_entries_for(&s->header, offset + qiov->size));
    qemu_co_mutex_unlock(&s->lock);
    return ret < 0 || !qiov->size ? ret : write_area(s, offset, qiov);
}

/* ---- drop ------------------------------------------------------------------------ */

int coroutine_fn qcow2_vmstate_drop(Qcow2State *s)
{
    return qcow2_l1_drop(s, qcow2_l1_entries_for(&s->header, s->header.size), s->l1.size);
}
