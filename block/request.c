/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way of a request through a node: check, count, track, align, driver.
 */
#include "block/block-internal.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/write-threshold.h"

/* ---- checks ------------------------------------------------------------------------------------- */

static inline int check_request(int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                                size_t qiov_offset)
{
    if (offset < 0 || bytes < 0 || bytes > BDRV_REQUEST_MAX_BYTES ||
        offset > BDRV_MAX_LENGTH - bytes) {
        return -EIO;
    }
    if (qiov && (qiov_offset > qiov->size || (uint64_t)bytes > qiov->size - qiov_offset)) {
        return -EIO;
    }
    return 0;
}

int bdrv__check_request(int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                        size_t qiov_offset)
{
    return check_request(offset, bytes, qiov, qiov_offset);
}

static bool is_aligned(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return !((offset | bytes) & (bs->bl.request_alignment - 1));
}

/*
 * Whether BS takes requests in any thread: its driver must, and those below. The edges hold
 * still, because the caller has a token.
 */
static bool is_multiqueue(BlockDriverState *bs)
{
    BdrvChild *c;

    if (!bs->drv->supports_multiqueue) {
        return false;
    }
    QLIST_FOREACH(c, &bs->children, next) {
        if (!is_multiqueue(c->bs)) {
            return false;
        }
    }
    return true;
}

/* Requests run where their node lives, or the driver must allow for races. */
static void assert_may_run_here(BlockDriverState *bs)
{
    /* the loop it was entered from; outside of coroutines there is none */
    AioContext *here = qemu_coroutine_get_aio_context(qemu_coroutine_self());
    if (unlikely(here != bdrv_get_aio_context(bs))) {
        g_assert(here && is_multiqueue(bs));
    }
}

/* ---- the driver ---------------------------------------------------------------------------------- */

static int coroutine_fn driver_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    BlockDriver *drv = bs->drv;

    if (drv->bdrv_co_preadv_part) {
        return drv->bdrv_co_preadv_part(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    if (!drv->bdrv_co_preadv) {
        return -ENOTSUP;
    }
    if (qiov_offset == 0 && bytes == qiov->size) {
        return drv->bdrv_co_preadv(bs, offset, bytes, qiov, flags);
    }
    QEMUIOVector slice;
    qemu_iovec_init_slice(&slice, qiov, qiov_offset, bytes);
    int ret = drv->bdrv_co_preadv(bs, offset, bytes, &slice, flags);
    qemu_iovec_destroy(&slice);
    return ret;
}

static int coroutine_fn driver_pwritev_flags(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes, QEMUIOVector *qiov,
                                             size_t qiov_offset, BdrvRequestFlags flags)
{
    BlockDriver *drv = bs->drv;

    if (drv->bdrv_co_pwritev_part) {
        return drv->bdrv_co_pwritev_part(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    if (!drv->bdrv_co_pwritev) {
        return -ENOTSUP;
    }
    if (qiov_offset == 0 && bytes == qiov->size) {
        return drv->bdrv_co_pwritev(bs, offset, bytes, qiov, flags);
    }
    QEMUIOVector slice;
    qemu_iovec_init_slice(&slice, qiov, qiov_offset, bytes);
    int ret = drv->bdrv_co_pwritev(bs, offset, bytes, &slice, flags);
    qemu_iovec_destroy(&slice);
    return ret;
}

/* Emulate FUA: what was just written is new to bdrv_co_flush(). */
static int coroutine_fn flush_written(BlockDriverState *bs)
{
    qatomic_inc(&bs->write_gen);
    return bdrv_co_flush(bs);
}

int coroutine_fn bdrv__driver_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    bool emulate_fua = (flags & BDRV_REQ_FUA) && !(bs->supported_write_flags & BDRV_REQ_FUA);
    int ret = driver_pwritev_flags(bs, offset, bytes, qiov, qiov_offset,
                                   flags & bs->supported_write_flags);

    return ret == 0 && emulate_fua ? flush_written(bs) : ret;
}

static int coroutine_fn driver_pwritev_compressed(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, QEMUIOVector *qiov,
                                                  size_t qiov_offset, BdrvRequestFlags flags)
{
    BlockDriver *drv = bs->drv;
    int ret;

    if (drv->bdrv_co_pwritev_compressed_part) {
        ret = drv->bdrv_co_pwritev_compressed_part(bs, offset, bytes, qiov, qiov_offset);
    } else if (drv->bdrv_co_pwritev_compressed) {
        QEMUIOVector slice;
        qemu_iovec_init_slice(&slice, qiov, qiov_offset, bytes);
        ret = drv->bdrv_co_pwritev_compressed(bs, offset, bytes, &slice);
        qemu_iovec_destroy(&slice);
    } else {
        return -ENOTSUP;
    }
    return ret >= 0 && (flags & BDRV_REQ_FUA) ? flush_written(bs) : ret;
}

/* The longest piece the driver takes, a multiple of the alignment. */
static int64_t max_piece(BlockDriverState *bs)
{
    int64_t max = bs->bl.max_transfer ? MIN(bs->bl.max_transfer, BDRV_REQUEST_MAX_BYTES)
                                      : BDRV_REQUEST_MAX_BYTES;
    int64_t align = bs->bl.request_alignment;       /* a power of two */
    return MAX(ROUND_DOWN(max, align), align);
}

/* ---- reads ---------------------------------------------------------------------------------------- */

int coroutine_fn bdrv__aligned_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    int64_t end = bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE;
    int64_t inside, max = max_piece(bs);

    if (likely(offset + bytes <= end && bytes <= max)) {
        return driver_preadv(bs, offset, bytes, qiov, qiov_offset, 0);
    }
    /* Behind the end there are zeroes; the last block may be partly inside. */
    inside = offset >= end ? 0
             : MIN(bytes, QEMU_ALIGN_UP(end - offset, (int64_t)bs->bl.request_alignment));
    for (int64_t done = 0; done < inside; ) {
        int64_t n = MIN(inside - done, max);
        int ret = driver_preadv(bs, offset + done, n, qiov, qiov_offset + done, 0);
        if (ret < 0) {
            return ret;
        }
        done += n;
    }
    if (inside < bytes) {
        qemu_iovec_memset(qiov, qiov_offset + inside, 0, bytes - inside);
    }
    return 0;
}

/*
 * Who waits for the request. A request through a backend is counted there, too; that of a node
 * above may be made by something that is not.
 */
static void note_counted(const void *request, BlockDriverState *bs, BdrvChild *c)
{
    port_note_pair(PORT_NOTE_COUNTED, request, bs);
    if (c && !c->klass->parent_is_bds) {
        port_note_pair(PORT_NOTE_COUNTED, request, c->opaque);
    }
}

int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret = check_request(offset, bytes, qiov, qiov_offset);

    if (unlikely(ret < 0)) {
        return ret;
    }
    if (unlikely(!bs || !bs->drv)) {
        return -ENOMEDIUM;
    }
    if (unlikely(bytes == 0)) {
        return 0;
    }
    assert_may_run_here(bs);
    bdrv__submitting(bs, child, "read", offset);
    port_note(PORT_NOTE_REQUEST_BEGIN, &ret, "read %" PRId64 "+%" PRId64 " of %s",
              offset, bytes, bs->node_name);
    note_counted(&ret, bs, child);
    bdrv_inc_in_flight(bs);
    if (unlikely(flags & BDRV_REQ_COPY_ON_READ)) {
        g_assert(qatomic_read(&child->perm) & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED));
        ret = bdrv__copy_on_read(bs, offset, bytes);
    }
    if (unlikely(ret < 0 || (flags & BDRV_REQ_PREFETCH))) {
        /* nothing to be read, or nothing wanted */
    } else if (likely(is_aligned(bs, offset, bytes))) {
        ret = bdrv__aligned_preadv(bs, offset, bytes, qiov, qiov_offset, flags);
    } else {
        ret = bdrv__unaligned_preadv(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    port_note(PORT_NOTE_REQUEST_END, &ret, NULL);
    bdrv_dec_in_flight(bs);
    return ret;
}

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_preadv_part(child, offset, bytes, qiov, 0, flags);
}

int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                               BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    return bdrv_co_preadv(child, offset, bytes, &qiov, flags);
}

/* ---- writes --------------------------------------------------------------------------------------- */

/* Who follows the node's changes is told when they are done, or may be done in part. */
static void mark_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    if (unlikely(qatomic_read(&bs->has_dirty_bitmaps))) {
        bdrv_set_dirty(bs, offset, bytes);
    }
}

/* After a change: what readers and flushes must know of it. */
static void changed(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t end_sector = DIV_ROUND_UP(offset + bytes, (int64_t)BDRV_SECTOR_SIZE);

    qatomic_inc(&bs->write_gen);
    if (unlikely(end_sector > bs->total_sectors)) {
        /* who writes beyond the end must be alone in doing so */
        g_assert(in_aio_context_home_thread(bdrv_get_aio_context(bs)));
        bs->total_sectors = end_sector;
        bdrv_dirty_bitmap_truncate(bs, end_sector * (int64_t)BDRV_SECTOR_SIZE);
        bdrv__parents_resized(bs);
    }
    mark_dirty(bs, offset, bytes);
}

static int coroutine_fn write_pieces(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, size_t qiov_offset,
                                     BdrvRequestFlags flags)
{
    int64_t max = max_piece(bs);

    if (likely(bytes <= max)) {
        return bdrv__driver_pwritev(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    for (int64_t done = 0; done < bytes; ) {
        int64_t n = MIN(bytes - done, max);
        /* one flush after the last piece is enough for an emulated FUA */
        bool last = done + n == bytes;
        BdrvRequestFlags f = last || (bs->supported_write_flags & BDRV_REQ_FUA)
                             ? flags : flags & ~BDRV_REQ_FUA;
        int ret = bdrv__driver_pwritev(bs, offset + done, n, qiov, qiov_offset + done, f);
        if (ret < 0) {
            return ret;
        }
        done += n;
    }
    return 0;
}

static BdrvRequestFlags detect_zeroes(BlockDriverState *bs, QEMUIOVector *qiov,
                                      size_t qiov_offset, int64_t bytes,
                                      BdrvRequestFlags flags)
{
    if (bs->detect_zeroes && !(flags & (BDRV_REQ_ZERO_WRITE | BDRV_REQ_WRITE_COMPRESSED)) &&
        qemu_iovec_is_zero(qiov, qiov_offset, bytes)) {
        flags |= BDRV_REQ_ZERO_WRITE;
        if (bs->detect_zeroes == 2) {
            flags |= BDRV_REQ_MAY_UNMAP;
        }
    }
    return flags;
}

int coroutine_fn bdrv__aligned_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags)
{
    int ret;

    if (unlikely(bs->detect_zeroes)) {
        flags = detect_zeroes(bs, qiov, qiov_offset, bytes, flags);
    }
    bdrv_debug_event(bs, flags & BDRV_REQ_ZERO_WRITE ? BLKDBG_PWRITEV_ZERO : BLKDBG_PWRITEV);
    if (flags & BDRV_REQ_ZERO_WRITE) {
        ret = bdrv__do_pwrite_zeroes(bs, offset, bytes, flags);
    } else if (flags & BDRV_REQ_WRITE_COMPRESSED) {
        ret = driver_pwritev_compressed(bs, offset, bytes, qiov, qiov_offset, flags);
    } else {
        ret = write_pieces(bs, offset, bytes, qiov, qiov_offset, flags);
    }
    bdrv_debug_event(bs, BLKDBG_PWRITEV_DONE);
    if (ret >= 0) {
        changed(bs, offset, bytes);
        return 0;
    }
    qatomic_inc(&bs->write_gen);        /* part of it may have been done */
    mark_dirty(bs, offset, bytes);
    return ret;
}

static int coroutine_fn write_tracked(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    BdrvTrackedRequest req;
    int ret;

    if (unlikely(bdrv_write_threshold_get(bs))) {
        bdrv_write_threshold_check_write(bs, offset, bytes);
    }
    bdrv__tracked_begin(&req, bs, offset, bytes, BDRV_TRACKED_WRITE);
    if (unlikely(flags & BDRV_REQ_SERIALISING)) {
        bdrv__make_serialising(&req, bs->bl.request_alignment);
    }
    if (likely(is_aligned(bs, offset, bytes))) {
        bdrv__wait_serialising(&req);
        ret = bdrv__aligned_pwritev(bs, offset, bytes, qiov, qiov_offset, flags);
    } else {
        ret = bdrv__unaligned_pwritev(&req, offset, bytes, qiov, qiov_offset, flags);
    }
    bdrv__tracked_end(&req);
    return ret;
}

int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int ret = check_request(offset, bytes, qiov, qiov_offset);

    if (unlikely(ret < 0)) {
        return ret;
    }
    if (unlikely(!bs || !bs->drv)) {
        return -ENOMEDIUM;
    }
    if (unlikely(bdrv_is_read_only(bs))) {
        return -EPERM;
    }
    g_assert(qatomic_read(&child->perm) & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED));
    if (unlikely(bytes == 0)) {
        return 0;
    }
    assert_may_run_here(bs);
    bdrv__submitting(bs, child, flags & BDRV_REQ_ZERO_WRITE ? "write of zeroes" : "write",
                     offset);
    port_note(PORT_NOTE_REQUEST_BEGIN, &ret, "write %" PRId64 "+%" PRId64 " of %s",
              offset, bytes, bs->node_name);
    note_counted(&ret, bs, child);
    bdrv_inc_in_flight(bs);
    ret = write_tracked(bs, offset, bytes, qiov, qiov_offset, flags);
    port_note(PORT_NOTE_REQUEST_END, &ret, NULL);
    bdrv_dec_in_flight(bs);
    return ret;
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return bdrv_co_pwritev_part(child, offset, bytes, qiov, 0, flags);
}

int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes,
                                const void *buf, BdrvRequestFlags flags)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, bytes);
    return bdrv_co_pwritev(child, offset, bytes, &qiov, flags);
}

int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags)
{
    return bdrv_co_pwritev_part(child, offset, bytes, NULL, 0, flags | BDRV_REQ_ZERO_WRITE);
}

/* ---- flush ---------------------------------------------------------------------------------------- */

static bool may_have_written(BdrvChild *c)
{
    return qatomic_read(&c->perm) & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED);
}

/*
 * Flush what lies below. Edges of a node in the main thread may change whenever we yield; the
 * tokens keep the nodes.
 */
static int coroutine_fn flush_children(BlockDriverState *bs)
{
    g_autofree BlockDriverState **nodes = NULL;
    unsigned count = 0, n = 0;
    BdrvChild *c;
    int ret = 0;

    QLIST_FOREACH(c, &bs->children, next) {
        count++;
    }
    nodes = g_new(BlockDriverState *, count);
    QLIST_FOREACH(c, &bs->children, next) {
        if (may_have_written(c)) {
            bdrv_inc_in_flight(c->bs);
            nodes[n++] = c->bs;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        int child_ret = bdrv_co_flush(nodes[i]);
        bdrv_dec_in_flight(nodes[i]);
        ret = ret < 0 ? ret : child_ret;
    }
    return ret;
}

/*
 * NEW: the node has been written to since the last flush. What a driver caches, and what it
 * has written to its children by itself (metadata, repairs), does not count as that.
 */
static int coroutine_fn do_flush(BlockDriverState *bs, bool new)
{
    BlockDriver *drv = bs->drv;
    int ret = 0;

    if (drv->bdrv_co_flush) {
        return new ? drv->bdrv_co_flush(bs) : 0;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_FLUSH_TO_OS);
    if (drv->bdrv_co_flush_to_os) {
        ret = drv->bdrv_co_flush_to_os(bs);
    }
    if (ret == 0 && new && !(bs->open_flags & BDRV_O_NO_FLUSH)) {
        BLKDBG_EVENT(bs->file, BLKDBG_FLUSH_TO_DISK);
        if (drv->bdrv_co_flush_to_disk) {
            ret = drv->bdrv_co_flush_to_disk(bs);
        }
    }
    return ret < 0 ? ret : flush_children(bs);
}

int coroutine_fn bdrv_co_flush(BlockDriverState *bs)
{
    int ret = 0;

    if (!bs->drv || bdrv_is_read_only(bs)) {
        return 0;
    }
    assert_may_run_here(bs);
    bdrv__submitting(bs, NULL, "flush", 0);
    port_note(PORT_NOTE_REQUEST_BEGIN, &ret, "flush of %s", bs->node_name);
    note_counted(&ret, bs, NULL);
    bdrv_inc_in_flight(bs);
    /*
     * A flush covers the writes completed before it begins. Those who wait here while one
     * runs find, most of the time, that a single further flush has served them all.
     */
    unsigned wanted = qatomic_read(&bs->write_gen);
    qemu_co_mutex_lock(&bs->flush_lock);
    unsigned covered = qatomic_read(&bs->write_gen);
    ret = do_flush(bs, (int)(wanted - bs->flushed_gen) > 0);
    if (ret == 0) {
        bs->flushed_gen = covered;
    }
    qemu_co_mutex_unlock(&bs->flush_lock);
    port_note(PORT_NOTE_REQUEST_END, &ret, NULL);
    bdrv_dec_in_flight(bs);
    return ret;
}

/* ---- discard --------------------------------------------------------------------------------------- */

/* How much of OFFSET to END the driver gets next: whole units, or what lies before or behind. */
static int64_t discard_piece(const BlockLimits *bl, int64_t offset, int64_t end)
{
    int64_t align = MAX(bl->pdiscard_alignment, bl->request_alignment);
    int64_t max = bl->max_pdiscard ? bl->max_pdiscard : BDRV_REQUEST_MAX_BYTES;
    int64_t n = MIN(end - offset, MAX(QEMU_ALIGN_DOWN(max, align), align));
    int64_t head = offset % align;

    if (head) {
        return MIN(n, align - head);
    }
    return n < align ? n : QEMU_ALIGN_DOWN(n, align);
}

/* Advisory: a driver refuses units that are not whole unless it knows better. */
static int coroutine_fn discard_pieces(BlockDriverState *bs, int64_t offset, int64_t end)
{
    offset = QEMU_ALIGN_UP(offset, (int64_t)bs->bl.request_alignment);
    end = QEMU_ALIGN_DOWN(end, (int64_t)bs->bl.request_alignment);
    while (offset < end) {
        int64_t n = discard_piece(&bs->bl, offset, end);
        int ret = bs->drv->bdrv_co_pdiscard(bs, offset, n);
        if (ret < 0 && ret != -ENOTSUP) {
            return ret;
        }
        offset += n;
    }
    return 0;
}

int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes)
{
    BlockDriverState *bs = child->bs;
    BdrvTrackedRequest req;
    int ret = bdrv__check_request(offset, bytes, NULL, 0);

    if (ret < 0) {
        return ret;
    }
    if (!bs || !bs->drv) {
        return -ENOMEDIUM;
    }
    if (bdrv_is_read_only(bs)) {
        return -EPERM;
    }
    if (!(bs->open_flags & BDRV_O_UNMAP) || !bs->drv->bdrv_co_pdiscard || bytes == 0) {
        return 0;
    }
    assert_may_run_here(bs);
    bdrv__submitting(bs, child, "discard", offset);
    port_note(PORT_NOTE_REQUEST_BEGIN, &ret, "discard %" PRId64 "+%" PRId64 " of %s",
              offset, bytes, bs->node_name);
    note_counted(&ret, bs, child);
    bdrv_inc_in_flight(bs);
    bdrv__tracked_begin(&req, bs, offset, bytes, BDRV_TRACKED_DISCARD);
    bdrv__wait_serialising(&req);
    ret = discard_pieces(bs, offset, offset + bytes);
    qatomic_inc(&bs->write_gen);
    mark_dirty(bs, offset, bytes);
    bdrv__tracked_end(&req);
    port_note(PORT_NOTE_REQUEST_END, &ret, NULL);
    bdrv_dec_in_flight(bs);
    return ret;
}
