/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compressed clusters. Compressed data begins at any byte; that of several clusters shares
 * one host cluster, which has one reference for each of them.
 */
#include "miniblk/osdep.h"
#include "miniblk/thread-pool.h"
#include "images/qcow2.h"

/* Clusters that are compressed at the same time: of one request, and of a node. */
#define PARALLEL_MAX 8
#define WORKSPACES_MAX MAX(PARALLEL_MAX, 2 * g_get_num_processors())    /* a slow call */

typedef struct Job {            /* of a worker */
    Qcow2Compression type;
    const uint8_t *in;
    uint8_t *out;
    size_t in_bytes, out_bytes;
} Job;

static int decompress_job(void *opaque)
{
    const Job *j = opaque;
    return qcow2_decompress(j->type, j->in, j->in_bytes, j->out, j->out_bytes);
}

/* ---- reading ----------------------------------------------------------------------- */

int coroutine_fn qcow2_read_compressed(Qcow2State *s, uint64_t entry, uint8_t *buf)
{
    uint64_t offset, bytes;

    qcow2_compressed_range(s, entry, &offset, &bytes);
    if (offset >= s->virgin_offset) {
        return -EIO;
    }
    /* At most two clusters: the length field has cluster_bits - 8 bits. */
    uint8_t *in = qemu_try_blockalign(s->bs->file->bs, bytes);
    if (!in) {
        return -ENOMEM;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_READ_COMPRESSED);
    int ret = qcow2_file_read(s, offset, bytes, in);
    if (ret >= 0) {
        Job job = { s->header.compression_type, in, buf, bytes, s->cluster_bytes };
        ret = thread_pool_submit_co(decompress_job, &job);
    }
    qemu_vfree(in);
    return ret;
}

/* ---- finding room ------------------------------------------------------------------ */

/* Bytes left where the last compressed data ends, if its cluster can be shared. */
static int coroutine_fn room_in_packed(Qcow2State *s, uint64_t *room)
{
    uint64_t refcount = 0, in_cluster = s->packed_end & s->cluster_mask;

    *room = 0;
    if (!in_cluster) {
        return 0;
    }
    int ret = qcow2_refcount_get(s, s->packed_end >> s->cluster_bits, &refcount);
    if (ret >= 0 && refcount && refcount < s->refcount_max) {
        *room = s->cluster_bytes - in_cluster;
    }
    return ret;
}

/* References to BYTES (less than a cluster) anywhere in the file. Lock held. */
static int coroutine_fn alloc_packed(Qcow2State *s, uint64_t bytes, uint64_t *offset)
{
    uint64_t room, fresh_offset = 0, n;
    bool fresh;

    BLKDBG_EVENT(s->bs->file, BLKDBG_CLUSTER_ALLOC_BYTES);
    int ret = room_in_packed(s, &room);
    if (ret < 0) {
        return ret;
    }
    uint64_t last = s->packed_end >> s->cluster_bits;
    if (bytes > room) {
        ret = qcow2_alloc_clusters(s, 1, 1, &fresh_offset, &n, &fresh);
        if (ret < 0) {
            return ret;
        }
        qcow2_cache_drop(&s->l2_cache, fresh_offset, s->cluster_bytes);
        qcow2_cache_drop(&s->refblock_cache, fresh_offset, s->cluster_bytes);
    }
    /* What does not fit may go on in the next cluster, if that is the one just taken. */
    bool shared = room && (bytes <= room || fresh_offset >> s->cluster_bits == last + 1);
    if (shared) {
        ret = qcow2_refcount_change(s, last, 1, 1);
        if (ret < 0) {
            if (fresh_offset) {
                qcow2_refcount_change(s, last + 1, 1, -1);
            }
            return ret;
        }
    }
    *offset = shared ? s->packed_end : fresh_offset;
    s->packed_end = *offset + bytes;
    return 0;
}

/* The L2 entry for BYTES of compressed data at OFFSET; 0 when there is none. */
static uint64_t compressed_entry(const Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint32_t offset_bits = 62 - (s->cluster_bits - 8);
    uint64_t further_sectors = ((offset + bytes - 1) >> 9) - (offset >> 9);

    if (offset >> MIN(offset_bits, 56)) {
        return 0;
    }
    return QCOW2_COMPRESSED | further_sectors << offset_bits | offset;
}

/* ---- writing ----------------------------------------------------------------------- */

/* Reserve room for the cluster at GUEST, compressed to BYTES bytes. */
static int coroutine_fn begin_compressed(Qcow2State *s, uint64_t guest, uint64_t bytes,
                                         uint64_t *host, Qcow2Alloc **alloc)
{
    Qcow2Alloc a = { .guest = guest, .clusters = 1 };

    qemu_co_mutex_lock(&s->lock);
    qcow2_wait_allocs(s, guest, 1);
    int ret = s->corrupt ? -EIO : alloc_packed(s, bytes, host);
    if (ret >= 0) {
        a.compressed = compressed_entry(s, *host, bytes);
        if (a.compressed) {
            *alloc = qcow2_alloc_begin(s, &a);
        } else {
            uint64_t first = *host >> s->cluster_bits;
            qcow2_refcount_change(s, first, qcow2_clusters(s, *host + bytes) - first, -1);
            ret = -EFBIG;
        }
    }
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

static int coroutine_fn store_compressed(Qcow2State *s, uint64_t guest, const uint8_t *data,
                                         uint64_t bytes)
{
    Qcow2Alloc *a;
    uint64_t host;

    int ret = begin_compressed(s, guest, bytes, &host, &a);
    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_WRITE_COMPRESSED);
    ret = qcow2_overlap_check_data(s, host, bytes);
    ret = ret < 0 ? ret : bdrv_co_pwrite(s->bs->file, host, bytes, data, 0);
    qemu_co_mutex_lock(&s->lock);
    ret = qcow2_alloc_end(s, a, ret);
    qemu_co_mutex_unlock(&s->lock);
    return ret;
}

/*
 * What compressing one cluster takes. To have it made and given back for each would cost
 * more page faults than the cluster has pages, so it is kept as long as any compressed write
 * is under way.
 */
typedef struct Qcow2Workspace Qcow2Workspace;
struct Qcow2Workspace {
    Qcow2Compressor *compressor;
    uint8_t *in, *out;          /* one cluster each */
    size_t bytes;               /* of a cluster */
    Qcow2Workspace *next;
};

static void workspace_free(Qcow2Workspace *w)
{
    g_clear_pointer(&w->compressor, qcow2_compressor_free);
    qemu_vfree(w->in);
    g_free(w);
}

static Qcow2Workspace *workspace_new(Qcow2State *s)
{
    Qcow2Compressor *compressor = qcow2_compressor_new(s->header.compression_type);
    uint8_t *in = qemu_try_blockalign(s->bs->file->bs, 2 * s->cluster_bytes);
    Qcow2Workspace *w = g_new(Qcow2Workspace, 1);

    *w = (Qcow2Workspace) { compressor, in, in + s->cluster_bytes, s->cluster_bytes };
    if (!in || !compressor) {
        workspace_free(w);
        return NULL;
    }
    return w;
}

static Qcow2Workspace *coroutine_fn workspace_take(Qcow2State *s)
{
    Qcow2Workspace *w;

    qemu_co_mutex_lock(&s->lock);
    while (!s->workspaces && !s->workspaces_left) {
        qemu_co_queue_wait(&s->workspace_queue, &s->lock);
    }
    w = s->workspaces;
    if (w) {
        s->workspaces = w->next;
    } else {
        w = workspace_new(s);
        s->workspaces_left -= w != NULL;
    }
    qemu_co_mutex_unlock(&s->lock);
    return w;
}

static void coroutine_fn workspace_put(Qcow2State *s, Qcow2Workspace *w)
{
    qemu_co_mutex_lock(&s->lock);
    w->next = s->workspaces;
    s->workspaces = w;
    qemu_co_queue_next(&s->workspace_queue);
    qemu_co_mutex_unlock(&s->lock);
}

static void coroutine_fn compressing_begin(Qcow2State *s)
{
    qemu_co_mutex_lock(&s->lock);
    if (s->compressing++ == 0) {
        s->workspaces_left = WORKSPACES_MAX;
        qemu_co_queue_init(&s->workspace_queue);
    }
    qemu_co_mutex_unlock(&s->lock);
}

static void coroutine_fn compressing_end(Qcow2State *s)
{
    Qcow2Workspace *w;

    qemu_co_mutex_lock(&s->lock);
    if (--s->compressing == 0) {
        while ((w = s->workspaces)) {
            s->workspaces = w->next;
            workspace_free(w);
        }
    }
    qemu_co_mutex_unlock(&s->lock);
}

static int compress_job(void *opaque)
{
    Qcow2Workspace *w = opaque;
    return qcow2_compress(w->compressor, w->in, w->bytes, w->out, w->bytes - 1);
}

typedef struct Batch {          /* a request, of which several clusters are in work */
    Qcow2State *s;
    QEMUIOVector *qiov;
    size_t qiov_offset;
    uint64_t start, next, end;  /* of the guest disk; next: nobody has taken it yet */
    int ret;
    unsigned helpers;           /* coroutines besides the request's own */
    Coroutine *waiting;         /* the request's own, once it has nothing else to do */
} Batch;

/* Compress and store the BYTES from OFFSET on: a cluster, or the disk's last part of one. */
static int coroutine_fn write_cluster(Batch *b, Qcow2Workspace *w, uint64_t offset,
                                      uint64_t bytes)
{
    size_t in_qiov = b->qiov_offset + (offset - b->start);

    qemu_iovec_to_buf(b->qiov, in_qiov, w->in, bytes);
    memset(w->in + bytes, 0, w->bytes - bytes);
    int ret = thread_pool_submit_co(compress_job, w);
    if (ret > 0) {
        ret = store_compressed(b->s, offset, w->out, ret);
    } else if (ret == -ENOSPC) {
        ret = qcow2_co_pwritev_part(b->s->bs, offset, bytes, b->qiov, in_qiov, 0);
    }
    return ret;
}

/* Work on B until nothing is left to begin. */
static void coroutine_fn write_clusters(Batch *b)
{
    Qcow2Workspace *w = workspace_take(b->s);

    if (!w) {
        b->ret = -ENOMEM;
        return;
    }
    while (b->ret >= 0 && b->next < b->end) {
        uint64_t offset = b->next, bytes = MIN(b->s->cluster_bytes, b->end - offset);
        b->next += bytes;
        int ret = write_cluster(b, w, offset, bytes);
        b->ret = b->ret < 0 ? b->ret : ret;
    }
    workspace_put(b->s, w);
}

static void coroutine_fn helper_entry(void *opaque)
{
    Batch *b = opaque;

    write_clusters(b);
    if (--b->helpers == 0 && b->waiting) {
        aio_co_wake(b->waiting);
    }
}

int coroutine_fn qcow2_co_pwritev_compressed_part(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, QEMUIOVector *qiov,
                                                  size_t qiov_offset)
{
    Qcow2State *s = bs->opaque;
    uint64_t end = offset + bytes;

    if (s->data_file) {
        return -ENOTSUP;        /* there each cluster has its own place */
    }
    int ret = qcow2_check_end(s, offset, bytes) ?: qcow2_check_data(s);
    if (ret < 0) {
        return ret;
    }
    if ((offset & s->cluster_mask) ||
        ((end & s->cluster_mask) && end != qcow2_guest_bytes(s))) {
        return -EINVAL;
    }
    unsigned epoch = qcow2_request_begin(s);
    compressing_begin(s);
    Batch b = { s, qiov, qiov_offset, offset, offset, end };
    b.helpers = MIN(qcow2_clusters(s, bytes), PARALLEL_MAX) - 1;
    for (unsigned i = b.helpers; i > 0; i--) {
        qemu_coroutine_enter(qemu_coroutine_create(helper_entry, &b));
    }
    write_clusters(&b);
    if (b.helpers) {
        b.waiting = qemu_coroutine_self();
        qemu_coroutine_yield();
    }
    compressing_end(s);
    qcow2_request_end(s, epoch);
    return b.ret;
}
