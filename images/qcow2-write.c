/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing guest data. Clusters that are ours alone are written in place, without a lock.
 * For others: allocate, write the data together with what must be copied around it, then
 * change the mapping; so a mapping never points to data that was not written.
 */
#include "miniblk/osdep.h"
#include "miniblk/host-utils.h"
#include "images/qcow2-entry.h"

/* Elements that one vector may have; the block layer splits no vector that we merge. */
#define IOV_ELEMENTS_MAX 1000

typedef struct Piece {          /* of a guest write */
    uint64_t offset, bytes;
    QEMUIOVector *qiov;
    size_t qiov_offset;
} Piece;

/* ---- copy on write ----------------------------------------------------------------- */

/* Read the guest's present data; beyond the end of the disk there are zeroes. */
static int coroutine_fn read_old(Qcow2State *s, uint64_t offset, uint64_t bytes, uint8_t *buf)
{
    uint64_t size = qcow2_guest_bytes(s);
    uint64_t n = offset >= size ? 0 : MIN(bytes, size - offset);
    QEMUIOVector qiov;

    memset(buf + n, 0, bytes - n);
    if (!n) {
        return 0;
    }
    qemu_iovec_init_buf(&qiov, buf, n);
    return qcow2_co_preadv_part(s->bs, offset, n, &qiov, 0, 0);
}

/* Whether the range reads as zeroes, without looking at data. */
static bool coroutine_fn known_zero(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t end = MIN(offset + bytes, qcow2_guest_bytes(s));

    while (offset < end) {
        Qcow2Run run;
        if (qcow2_map(s, offset, end - offset, &run) < 0) {
            return false;
        }
        bool unallocated = run.type == QCOW2_UNALLOCATED ||
                           run.type == QCOW2_UNALLOCATED_ALLOC;
        if (unallocated && s->bs->backing) {
            int64_t len = bdrv_getlength(s->bs->backing->bs);
            if (len < 0 || offset < (uint64_t)len) {
                return false;
            }
        } else if (run.type == QCOW2_NORMAL || run.type == QCOW2_COMPRESSED_DATA) {
            return false;
        }
        offset += run.bytes;
    }
    return true;
}

typedef struct Copies {         /* the parts around the data, in one buffer */
    uint8_t *buf;
    uint64_t head, tail;        /* bytes */
} Copies;

static int coroutine_fn read_copies(Qcow2State *s, const Qcow2Alloc *a, const Piece *p,
                                    Copies *c)
{
    uint64_t end = p->offset + p->bytes;

    *c = (Copies){ NULL, p->offset - a->start, a->end - end };
    if (a->reads_zero) {
        if (c->head && known_zero(s, a->start, c->head)) {
            c->head = 0;
        }
        if (c->tail && known_zero(s, end, c->tail)) {
            c->tail = 0;
        }
    }
    if (!c->head && !c->tail) {
        return 0;
    }
    c->buf = qemu_try_blockalign(s->bs->file->bs, c->head + c->tail);
    if (!c->buf) {
        return -ENOMEM;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_COW_READ);
    int ret = c->head ? read_old(s, a->start, c->head, c->buf) : 0;
    if (ret >= 0 && c->tail) {
        ret = read_old(s, end, c->tail, c->buf + c->head);
    }
    return ret;
}

static int coroutine_fn write_host(Qcow2State *s, uint64_t host, uint64_t bytes,
                                   QEMUIOVector *qiov, size_t qiov_offset)
{
    BLKDBG_EVENT(s->bs->file, BLKDBG_WRITE_AIO);
    int ret = s->corrupt ? -EIO : s->data_file ? 0 : qcow2_overlap_check_data(s, host, bytes);

    return ret < 0 ? ret : bdrv_co_pwritev_part(qcow2_data(s), host, bytes, qiov, qiov_offset,
                                                0);
}

static int coroutine_fn write_buffer(Qcow2State *s, uint64_t host, uint64_t bytes,
                                     uint8_t *buf)
{
    QEMUIOVector qiov;

    if (!bytes) {
        return 0;
    }
    qemu_iovec_init_buf(&qiov, buf, bytes);
    return write_host(s, host, bytes, &qiov, 0);
}

/* Write P with the copies around it: in one request where a vector can hold them. */
static int coroutine_fn write_with_copies(Qcow2State *s, const Qcow2Alloc *a, const Piece *p,
                                          Copies *c)
{
    uint64_t host = a->host + (p->offset - a->guest);

    if (!c->head && !c->tail) {
        return write_host(s, host, p->bytes, p->qiov, p->qiov_offset);
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_COW_WRITE);
    if (p->qiov->niov > IOV_ELEMENTS_MAX) {
        int ret = write_buffer(s, host - c->head, c->head, c->buf);
        ret = ret < 0 ? ret : write_host(s, host, p->bytes, p->qiov, p->qiov_offset);
        return ret < 0 ? ret : write_buffer(s, host + p->bytes, c->tail, c->buf + c->head);
    }
    QEMUIOVector all;
    qemu_iovec_init(&all, p->qiov->niov + 2);
    if (c->head) {
        qemu_iovec_add(&all, c->buf, c->head);
    }
    qemu_iovec_concat(&all, p->qiov, p->qiov_offset, p->bytes);
    if (c->tail) {
        qemu_iovec_add(&all, c->buf + c->head, c->tail);
    }
    int ret = write_host(s, host - c->head, all.size, &all, 0);
    qemu_iovec_destroy(&all);
    return ret;
}

static int coroutine_fn write_new_clusters(Qcow2State *s, Qcow2Alloc *a, const Piece *p)
{
    Copies copies;

    int ret = read_copies(s, a, p, &copies);
    /* Where we copy nothing, others may write beside our data. */
    a->joinable = a->reads_zero && !copies.head && !copies.tail;
    ret = ret < 0 ? ret : write_with_copies(s, a, p, &copies);
    qemu_vfree(copies.buf);
    return ret;
}

/* ---- allocate and map -------------------------------------------------------------- */

/* Whether a cluster has a place where it can be written, so that it needs no new one. */
static bool has_own_host(const Qcow2State *s, Qcow2Entry e)
{
    return qcow2_has_host(s, e.desc) && (e.desc & QCOW2_COPIED);
}

/* How many clusters from entry I on, at most MAX, are handled like the first one. */
static uint64_t count_alike(const Qcow2State *s, const Qcow2Slice *slice, uint32_t i,
                            uint64_t max)
{
    Qcow2Entry first = qcow2_entry_load(s, slice, i);
    uint64_t n = 1;

    max = MIN(max, qcow2_slice_entries(s) - i);
    for (; n < max; n++) {
        Qcow2Entry e = qcow2_entry_load(s, slice, i + n);
        bool odd = qcow2_has_host(s, e.desc) && (e.desc & QCOW2_OFFSET_MASK & s->cluster_mask);
        if (odd || (has_own_host(s, first) ? e.desc != first.desc + (n << s->cluster_bits)
                                           : has_own_host(s, e))) {
            break;
        }
    }
    return n;
}

/*
 * What becomes data when [FROM, TO) of a cluster with entry E is written: whole subclusters,
 * and in a new place all that has data now. Concurrent writes go to subclusters that have
 * data in place, so of these nothing is copied.
 */
static void widen(const Qcow2State *s, Qcow2Entry e, bool in_place, uint64_t *from,
                  uint64_t *to)
{
    uint32_t first = *from >> s->subcluster_bits, last = (*to - 1) >> s->subcluster_bits;
    uint32_t move = in_place ? 0
                  : e.desc & QCOW2_COMPRESSED ? qcow2_all_subclusters(s) : e.alloc;

    if (move) {
        first = MIN(first, (uint32_t)ctz32(move));
        last = MAX(last, 31u - clz32(move));
    }
    if (!in_place || !(e.alloc >> first & 1)) {
        *from = (uint64_t)first << s->subcluster_bits;
    }
    if (!in_place || !(e.alloc >> last & 1)) {
        *to = (uint64_t)(last + 1) << s->subcluster_bits;
    }
}

/* The part of the guest disk that has data in A's clusters once P is written; see widen(). */
static void set_extent(const Qcow2State *s, Qcow2Alloc *a, const Piece *p, Qcow2Entry first,
                       Qcow2Entry last)
{
    uint64_t last_guest = qcow2_alloc_guest_end(s, a) - s->cluster_bytes, from, to;

    from = p->offset - a->guest;
    to = MIN(p->offset + p->bytes - a->guest, s->cluster_bytes);
    widen(s, first, a->in_place, &from, &to);
    a->start = a->guest + from;
    if (last_guest != a->guest) {
        from = 0;
        to = p->offset + p->bytes - last_guest;
        widen(s, last, a->in_place, &from, &to);
    }
    a->end = last_guest + to;
    if (s->data_file) {
        /* It is not to become longer than the disk. */
        a->end = MIN(a->end, MAX(qcow2_guest_bytes(s), p->offset + p->bytes));
    }
}

/* Whether the place that A's clusters have already can be one. */
static int coroutine_fn check_place(Qcow2State *s, const Qcow2Alloc *a)
{
    if (s->data_file ? a->host != a->guest
                     : (a->host & s->cluster_mask) || a->host >= s->virgin_offset) {
        return qcow2_signal_corruption(s, true, "Preallocated cluster offset %#" PRIx64
                                       " invalid", a->host);
    }
    return 0;
}

/* Find a place for at most N clusters of A. */
static int coroutine_fn find_place(Qcow2State *s, Qcow2Alloc *a, Qcow2Entry first, uint64_t n)
{
    a->clusters = n;
    a->in_place = has_own_host(s, first);
    if (a->in_place) {
        a->host = first.desc & QCOW2_OFFSET_MASK;
        return check_place(s, a);
    }
    if (s->data_file) {
        a->host = a->guest;
        return 0;
    }
    return qcow2_alloc_clusters(s, 1, n, &a->host, &a->clusters, &a->reads_zero);
}

/*
 * Choose host clusters for the clusters of P, which is shortened to what one allocation
 * takes. Lock held. 0; 1 when the mapping is such that P can be written in place; -errno.
 */
static int coroutine_fn begin_alloc(Qcow2State *s, Piece *p, Qcow2Alloc **alloc)
{
    uint64_t in_cluster = p->offset & s->cluster_mask;
    Qcow2Alloc a = { .guest = p->offset - in_cluster };
    Qcow2Slice *slice;
    uint32_t i;

    int ret = qcow2_l2_for_write(s, p->offset, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    Qcow2Entry first = qcow2_entry_load(s, slice, i);
    Qcow2Type type = qcow2_entry_type(s, first, in_cluster >> s->subcluster_bits);
    if ((type == QCOW2_NORMAL && (first.desc & QCOW2_COPIED)) || type == QCOW2_INVALID) {
        qcow2_cache_put(slice);
        return 1;
    }
    uint64_t n = count_alike(s, slice, i, qcow2_clusters(s, in_cluster + p->bytes));
    ret = find_place(s, &a, first, n);
    if (ret >= 0) {
        p->bytes = MIN(p->bytes, (a.clusters << s->cluster_bits) - in_cluster);
        set_extent(s, &a, p, first, qcow2_entry_load(s, slice, i + a.clusters - 1));
        *alloc = qcow2_alloc_begin(s, &a);
    }
    qcow2_cache_put(slice);
    return ret;
}

/* ---- the request ------------------------------------------------------------------- */

/*
 * Write P, or its first part, into clusters that somebody else is allocating. Lock held.
 * False when that is not possible; else *RET is 0, -errno, or 1 when it came to nothing
 * because the other failed.
 */
static bool coroutine_fn try_join(Qcow2State *s, Piece *p, int *ret)
{
    Qcow2Alloc *a = qcow2_alloc_first(s, p->offset, p->bytes);

    if (!a || !a->joinable || a->done || p->offset < a->start || p->offset >= a->end) {
        return false;
    }
    p->bytes = MIN(p->bytes, a->end - p->offset);
    a->refs++;
    a->joiners++;
    qemu_co_mutex_unlock(&s->lock);
    *ret = write_host(s, a->host + (p->offset - a->guest), p->bytes, p->qiov,
                      p->qiov_offset);
    qemu_co_mutex_lock(&s->lock);
    if (--a->joiners == 0 && a->done) {
        qemu_co_queue_restart_all(&a->waiters);
    }
    while (*ret >= 0 && !a->done) {
        qemu_co_queue_wait(&a->waiters, &s->lock);
    }
    if (*ret >= 0 && a->ret < 0) {
        *ret = 1;
    }
    qcow2_alloc_unref(a);
    return true;
}

static int coroutine_fn write_slowly(Qcow2State *s, Piece *p)
{
    Qcow2Alloc *a = NULL;
    int ret;

    qemu_co_mutex_lock(&s->lock);
    if (!try_join(s, p, &ret)) {
        p->bytes = qcow2_wait_allocs(s, p->offset, p->bytes);
        ret = begin_alloc(s, p, &a);
    }
    qemu_co_mutex_unlock(&s->lock);
    if (ret == 1) {
        p->bytes = 0;           /* look again: the mapping has changed */
        return 0;
    }
    if (!a) {
        return ret;
    }
    ret = write_new_clusters(s, a, p);
    qemu_co_mutex_lock(&s->lock);
    ret = qcow2_alloc_end(s, a, ret);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/* Write P, or a first part of it, and set P->bytes to what was written. */
static int coroutine_fn write_piece(Qcow2State *s, Piece *p)
{
    Qcow2Run run;

    int ret = qcow2_map(s, p->offset, p->bytes, &run);
    if (ret < 0) {
        return ret;
    }
    if (run.type != QCOW2_NORMAL || !run.copied) {
        return write_slowly(s, p);
    }
    if (unlikely(!s->data_file && run.host >= s->virgin_offset)) {
        return qcow2_signal_corruption(s, true, "Cluster allocation offset %#" PRIx64
                                       " beyond the end of the file", run.host);
    }
    p->bytes = run.bytes;
    return write_host(s, run.host, run.bytes, p->qiov, p->qiov_offset);
}

int coroutine_fn qcow2_write(Qcow2State *s, uint64_t offset, uint64_t bytes,
                             QEMUIOVector *qiov, size_t qiov_offset)
{
    unsigned epoch = qcow2_request_begin(s);
    int ret = s->corrupt ? -EIO : qcow2_check_data(s);

    while (bytes > 0 && ret >= 0) {
        Piece p = { offset, bytes, qiov, qiov_offset };
        ret = write_piece(s, &p);
        if (ret >= 0) {
            offset += p.bytes;
            bytes -= p.bytes;
            qiov_offset += p.bytes;
        }
    }
    qcow2_request_end(s, epoch);
    return ret < 0 ? ret : 0;
}

int coroutine_fn qcow2_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags)
{
    Qcow2State *s = bs->opaque;

    return qcow2_check_end(s, offset, bytes) ?: qcow2_write(s, offset, bytes, qiov,
                                                            qiov_offset);
}
