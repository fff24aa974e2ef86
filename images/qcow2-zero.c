/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zero clusters, discard and block status. */
#include "miniblk/osdep.h"
#include "miniblk/host-utils.h"
#include "images/qcow2-entry.h"

/* What becomes of the L2 entries of a range of whole subclusters. */
typedef struct Change {
    /* *E for the subclusters in MASK; false when they cannot be had like that. */
    bool (*change)(const Qcow2State *s, Qcow2Entry *e, uint32_t mask, const void *opaque);
    const void *opaque;
    uint64_t unit;              /* what can be changed: clusters or subclusters, in bytes */
    Qcow2Discard cause;         /* of freeing what is freed */
    bool punch;                 /* data that keeps its place is let go of there */
} Change;

/* Whether a range is made of whole units of UNIT bytes, the disk's last one cut. */
static bool is_whole(const Qcow2State *s, uint64_t offset, uint64_t bytes, uint64_t unit)
{
    uint64_t end = offset + bytes;

    return !(offset & (unit - 1)) && (!(end & (unit - 1)) || end == qcow2_guest_bytes(s));
}

/* The subclusters of cluster number K, counted from OFFSET's, in BYTES from OFFSET on. */
static uint32_t mask_in_cluster(const Qcow2State *s, uint64_t offset, uint64_t bytes,
                                uint64_t k)
{
    uint64_t in_cluster = offset & s->cluster_mask, end = in_cluster + bytes;
    uint64_t start = k << s->cluster_bits;

    return qcow2_subcluster_mask(s, MAX(in_cluster, start) - start,
                                 MIN(end - start, s->cluster_bytes));
}

/*
 * Let go of the data of a guest cluster whose descriptor was OLD and is NEW, if it keeps its
 * place. Only a hint, and zeroes, unlike a discard, cannot surprise anybody after a crash.
 */
static void coroutine_fn punch_data(Qcow2State *s, uint64_t guest, uint64_t old, uint64_t new)
{
    uint64_t host = old & QCOW2_OFFSET_MASK;

    if (!qcow2_has_host(s, old) || !(old & QCOW2_COPIED)) {
        return;
    }
    /* In a data file each cluster has its place, mapped or not. */
    if (s->data_file ? host == guest
                     : old == new && !(host & s->cluster_mask) && host < s->virgin_offset &&
                       qcow2_overlap_check_data(s, host, s->cluster_bytes) >= 0) {
        bdrv_co_pwrite_zeroes(qcow2_data(s), host, s->cluster_bytes,
                              BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);
    }
}

/* Change entry I of SLICE, of the guest's cluster at GUEST. Lock held. 0; -ENOTSUP. */
static int coroutine_fn change_entry(Qcow2State *s, Qcow2Slice *slice, uint32_t i,
                                     uint64_t guest, uint32_t mask, const Change *change)
{
    Qcow2Entry old = qcow2_entry_load(s, slice, i), new = old;

    if (!change->change(s, &new, mask, change->opaque)) {
        return -ENOTSUP;
    }
    if (qcow2_entry_equal(new, old)) {
        return 0;
    }
    qcow2_entry_store(s, slice, i, new);
    qcow2_cache_mark_dirty(&s->l2_cache, slice);
    if (new.desc != old.desc) {
        qcow2_free_entry(s, old.desc, change->cause);
    }
    if (change->punch && mask == qcow2_all_subclusters(s)) {
        punch_data(s, guest, old.desc, new.desc);
    }
    return 0;
}

/* Whether nothing in BYTES from OFFSET on, of one kind as RUN tells, would change. */
static bool changes_nothing(const Qcow2State *s, const Qcow2Run *run, const Change *change)
{
    Qcow2Entry e = { 0 };

    return run->type == QCOW2_UNALLOCATED &&
           change->change(s, &e, 1, change->opaque) && qcow2_entry_equal(e, (Qcow2Entry){ 0 });
}

/*
 * Change the entries of one slice from OFFSET on. Lock held. Bytes done; -errno. The slice
 * is fetched for writing only when something changes.
 */
static int64_t coroutine_fn change_slice(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                         const Change *change)
{
    Qcow2Slice *slice;
    Qcow2Run run;
    uint32_t i;
    int ret;

    bytes = qcow2_wait_allocs(s, offset, bytes);
    if (!is_whole(s, offset, bytes, change->unit)) {
        return -ENOTSUP;        /* the disk has grown meanwhile and does not end there now */
    }
    /* As it does, its last cluster counts as whole. Growing cannot end before we unlock. */
    uint64_t covered = offset + bytes == qcow2_guest_bytes(s)
                     ? ROUND_UP(offset + bytes, s->cluster_bytes) - offset : bytes;
    ret = qcow2_map_locked(s, offset, bytes, &run);
    if (ret < 0) {
        return ret;
    }
    /* Runs end at subclusters, what comes after this one must begin at a whole unit. */
    uint64_t alike = run.bytes < bytes ? QEMU_ALIGN_DOWN(run.bytes, change->unit) : run.bytes;
    if (alike && changes_nothing(s, &run, change)) {
        return alike;
    }
    ret = qcow2_l2_for_write(s, offset, &slice, &i);
    if (ret < 0) {
        return ret;
    }
    uint64_t in_cluster = offset & s->cluster_mask;
    uint64_t n = MIN(qcow2_clusters(s, in_cluster + bytes), qcow2_slice_entries(s) - i);
    uint64_t done = 0;
    for (uint64_t k = 0; k < n && ret >= 0; k++) {
        uint64_t guest = offset - in_cluster + (k << s->cluster_bits);
        ret = change_entry(s, slice, i + k, guest, mask_in_cluster(s, offset, covered, k),
                           change);
        done = ret < 0 ? done : MIN(bytes, guest + s->cluster_bytes - offset);
    }
    qcow2_cache_put(slice);
    if (!done) {
        return ret;
    }
    ret = qcow2_limit_frees(s);
    return ret < 0 ? ret : (int64_t)done;
}

static int coroutine_fn change_range(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                     const Change *change)
{
    int64_t ret = 0;

    while (bytes > 0 && ret >= 0) {
        /* Step by step, so that what a long range gives up does not rest until its end. */
        unsigned epoch = qcow2_request_begin(s);
        qemu_co_mutex_lock(&s->lock);
        ret = s->corrupt ? -EIO : change_slice(s, offset, bytes, change);
        qemu_co_mutex_unlock(&s->lock);
        qcow2_request_end(s, epoch);
        if (ret > 0) {
            offset += ret;
            bytes -= ret;
        }
    }
    return ret < 0 ? ret : 0;
}

/* ---- write zeroes ------------------------------------------------------------------ */

typedef struct ZeroRequest {
    bool unmap;
    bool in_part;               /* of the first and the last subcluster */
    bool rest_is_zero;          /* in the backing file: their rest, if it shows that */
} ZeroRequest;

static bool zero_entry(const Qcow2State *s, Qcow2Entry *e, uint32_t mask, const void *opaque)
{
    const ZeroRequest *req = opaque;
    bool host = qcow2_has_host(s, e->desc);

    if (mask == qcow2_all_subclusters(s)) {
        bool keep = host && (!req->unmap || s->discard_no_unref);
        *e = (Qcow2Entry){ keep ? e->desc : 0, 0, mask };
        return true;
    }
    if (e->desc & QCOW2_COMPRESSED) {
        return false;           /* the rest would have to be unpacked */
    }
    *e = (Qcow2Entry){ host ? e->desc : 0, e->alloc & ~mask, e->zero | mask };
    return true;
}

static bool is_unallocated(Qcow2Type type)
{
    return type == QCOW2_UNALLOCATED || type == QCOW2_UNALLOCATED_ALLOC;
}

static bool is_zero(Qcow2Type type)
{
    return type == QCOW2_ZERO_PLAIN || type == QCOW2_ZERO_ALLOC;
}

/* As zero_entry(), for subclusters that hold no data by now: part of each has been written. */
static bool zero_entry_in_part(const Qcow2State *s, Qcow2Entry *e, uint32_t mask,
                               const void *opaque)
{
    const ZeroRequest *req = opaque;

    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        Qcow2Type type = qcow2_entry_type(s, *e, ctz32(rest));
        if (!is_zero(type) && !(is_unallocated(type) && req->rest_is_zero)) {
            return false;
        }
    }
    return zero_entry(s, e, mask, opaque);
}

/* Whether the backing file, if there is one, reads as zeroes there. */
static bool coroutine_fn backing_is_zero(const Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    BlockDriverState *backing = s->bs->backing ? s->bs->backing->bs : NULL;

    while (backing && bytes > 0) {
        int64_t n;
        int ret = bdrv_co_block_status(backing, offset, bytes, &n, NULL, NULL);
        if (ret >= 0 && n == 0) {
            break;              /* behind its end */
        }
        if (ret < 0 || !(ret & BDRV_BLOCK_ZERO)) {
            return false;
        }
        offset += n;
        bytes -= n;
    }
    return true;
}

/* Without zero clusters (version 2): what is not there reads as zeroes. */
static bool no_entry(const Qcow2State *s, Qcow2Entry *e, uint32_t mask, const void *opaque)
{
    *e = (Qcow2Entry){ 0 };
    return true;
}

static bool shows_zeroes(const Qcow2State *s, const Qcow2Run *run)
{
    return is_zero(run->type) || (is_unallocated(run->type) && !s->bs->backing);
}

/* Whether all of a range reads as zeroes whatever the data on the disk. */
static bool coroutine_fn all_zero(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        Qcow2Run run;
        if (qcow2_map(s, offset, bytes, &run) < 0 || !shows_zeroes(s, &run)) {
            return false;
        }
        offset += run.bytes;
        bytes -= run.bytes;
    }
    return true;
}

static int coroutine_fn zero_clusters(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                      const ZeroRequest *req)
{
    if (s->header.version < 3) {
        if (req->in_part || !req->unmap) {
            return all_zero(s, offset, bytes) ? 0 : -ENOTSUP;
        }
        return change_range(s, offset, bytes, &(Change){ no_entry, NULL, s->cluster_bytes,
                                                         QCOW2_DISCARD_REQUEST });
    }
    return change_range(s, offset, bytes,
                        &(Change){ req->in_part ? zero_entry_in_part : zero_entry, req,
                                   s->subcluster_bytes, QCOW2_DISCARD_REQUEST,
                                   .punch = req->unmap && !qcow2_data_raw(s) &&
                                            s->pass_discard[QCOW2_DISCARD_REQUEST] });
}

/* A raw data file must hold the zeroes itself, whatever the tables say. */
static int coroutine_fn zero_raw_data(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                      BdrvRequestFlags flags)
{
    if (!qcow2_data_raw(s)) {
        return 0;
    }
    return bdrv_co_pwrite_zeroes(s->data_file, offset, bytes,
                                 flags & (BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK));
}

int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags)
{
    Qcow2State *s = bs->opaque;

    if (qcow2_check_end(s, offset, bytes) < 0) {
        return -EIO;
    }
    ZeroRequest req = {
        .unmap = flags & BDRV_REQ_MAY_UNMAP,
        .in_part = !is_whole(s, offset, bytes, s->subcluster_bytes),
    };
    /* What is not there may show a backing file one day that is recorded but not open now. */
    if (s->header.version < 3 && (bs->backing || *bs->backing_file)) {
        return -ENOTSUP;
    }
    int ret = zero_raw_data(s, offset, bytes, flags);
    if (ret < 0) {
        return ret;
    }
    if (req.in_part) {
        uint64_t start = QEMU_ALIGN_DOWN(offset, s->subcluster_bytes);
        uint64_t end = MIN(QEMU_ALIGN_UP(offset + bytes, s->subcluster_bytes),
                           qcow2_guest_bytes(s));
        req.rest_is_zero = backing_is_zero(s, start, offset - start) &&
                           backing_is_zero(s, offset + bytes, end - offset - bytes);
        offset = start;
        bytes = end - start;
    }
    return zero_clusters(s, offset, bytes, &req);
}

static int coroutine_fn write_zeroes_as_data(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint8_t *buf = qemu_try_blockalign(s->bs->file->bs, bytes);
    QEMUIOVector qiov;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, bytes);
    qemu_iovec_init_buf(&qiov, buf, bytes);
    int ret = qcow2_co_pwritev_part(s->bs, offset, bytes, &qiov, 0, 0);
    qemu_vfree(buf);
    return ret;
}

/* A first part of a range of one kind. Bytes or -errno. */
static int64_t coroutine_fn zero_or_write(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t in_cluster = offset & s->cluster_mask;
    uint64_t n = in_cluster ? MIN(bytes, s->cluster_bytes - in_cluster)
               : bytes >= s->cluster_bytes ? MIN(bytes & ~s->cluster_mask, 1ULL << 30)
               : bytes;
    int ret = qcow2_co_pwrite_zeroes(s->bs, offset, n, 0);

    if (ret == -ENOTSUP) {
        n = MIN(n, s->cluster_bytes);
        ret = write_zeroes_as_data(s, offset, n);
    }
    return ret < 0 ? ret : (int64_t)n;
}

/* In steps, so that neither memory nor the time without a yield grows with the range. */
int coroutine_fn qcow2_zero_unaligned(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    int64_t n = 0;

    for (; bytes > 0 && n >= 0; offset += n, bytes -= n) {
        Qcow2Run run;
        n = qcow2_map(s, offset, bytes, &run);
        if (n >= 0) {
            n = shows_zeroes(s, &run) ? (int64_t)run.bytes
                                      : zero_or_write(s, offset, run.bytes);
        }
    }
    return n < 0 ? n : 0;
}

/* ---- discard ----------------------------------------------------------------------- */

static bool discarded_entry(const Qcow2State *s, Qcow2Entry *e, uint32_t mask,
                            const void *opaque)
{
    const bool *backing = opaque;
    uint32_t zero = s->header.version >= 3 ? mask : 0;
    bool host = qcow2_has_host(s, e->desc);

    if (!e->desc && !*backing) {
        return true;            /* there is no data */
    }
    /* Discarded data must not come back from the backing file. */
    *e = (Qcow2Entry){ host && s->discard_no_unref ? e->desc : 0, 0, zero };
    return true;
}

int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    Qcow2State *s = bs->opaque;
    bool backing = bs->backing;

    if (qcow2_check_end(s, offset, bytes) < 0) {
        return -EIO;
    }
    if (s->header.version < 3 && backing) {
        return -ENOTSUP;
    }
    if (!is_whole(s, offset, bytes, s->cluster_bytes)) {
        /* Whole clusters only: the rest of a request may still be discarded. */
        uint64_t end = offset + bytes, start = ROUND_UP((uint64_t)offset, s->cluster_bytes);
        if (end != qcow2_guest_bytes(s)) {
            end &= ~s->cluster_mask;
        }
        if (start >= end) {
            return -ENOTSUP;
        }
        offset = start;
        bytes = end - start;
    }
    int ret = zero_raw_data(s, offset, bytes, BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK);
    if (ret < 0) {
        return ret;
    }
    return change_range(s, offset, bytes,
                        &(Change){ discarded_entry, &backing, s->cluster_bytes,
                                   QCOW2_DISCARD_REQUEST,
                                   .punch = !qcow2_data_raw(s) &&
                                            s->pass_discard[QCOW2_DISCARD_REQUEST] });
}

int coroutine_fn qcow2_unmap(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    return change_range(s, offset, bytes, &(Change){ no_entry, NULL, s->cluster_bytes,
                                                     QCOW2_DISCARD_OTHER });
}

/* ---- block status ------------------------------------------------------------------ */

int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                       int64_t bytes, int64_t *pnum, int64_t *map,
                                       BlockDriverState **file)
{
    Qcow2State *s = bs->opaque;
    Qcow2Run run;

    int ret = qcow2_map(s, offset, bytes, &run);
    if (ret < 0) {
        return ret;
    }
    *pnum = run.bytes;
    switch (run.type) {
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOC:
    case QCOW2_UNALLOCATED_ALLOC:
        *map = run.host;
        *file = qcow2_data(s)->bs;
        if (run.type == QCOW2_NORMAL) {
            return BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_DATA |
                   (want_zero && qcow2_has_holes(s) ? BDRV_BLOCK_RECURSE : 0);
        }
        return BDRV_BLOCK_OFFSET_VALID |
               (run.type == QCOW2_ZERO_ALLOC ? BDRV_BLOCK_ZERO : 0);
    case QCOW2_COMPRESSED_DATA:
        return BDRV_BLOCK_DATA | BDRV_BLOCK_COMPRESSED;
    case QCOW2_ZERO_PLAIN:
        return BDRV_BLOCK_ZERO;
    default:
        return 0;
    }
}
