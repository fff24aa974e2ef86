/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compressed clusters: reading them. */
#include "miniblk/osdep.h"
#include <zlib.h>
#ifdef CONFIG_ZSTD
#include <zstd.h>
#endif
#include "miniblk/thread-pool.h"
#include "images/qcow2.h"

typedef struct Job {
    Qcow2Compression type;
    const uint8_t *in;
    uint8_t *out;
    size_t in_bytes, out_bytes;
} Job;

bool qcow2_compression_supported(Qcow2Compression type)
{
#ifdef CONFIG_ZSTD
    if (type == QCOW2_ZSTD) {
        return true;
    }
#endif
    return type == QCOW2_ZLIB;
}

/* Raw deflate with a 4 KiB window. The input may be longer than the stream. */
static int inflate_cluster(const Job *job)
{
    z_stream z = { .next_in = (Bytef *)job->in, .avail_in = job->in_bytes,
                   .next_out = job->out, .avail_out = job->out_bytes };

    if (inflateInit2(&z, -12) != Z_OK) {
        return -ENOMEM;
    }
    int ret = inflate(&z, Z_FINISH);
    /* Z_BUF_ERROR: the cluster is full before the stream has ended; that is fine. */
    bool whole = (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && z.avail_out == 0;
    inflateEnd(&z);
    return whole ? 0 : -EIO;
}

#ifdef CONFIG_ZSTD
static int unzstd_cluster(const Job *job)
{
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    ZSTD_inBuffer in = { job->in, job->in_bytes, 0 };
    ZSTD_outBuffer out = { job->out, job->out_bytes, 0 };

    if (!dctx) {
        return -ENOMEM;
    }
    /* A frame may ask for much memory for its window; no cluster has use for it. */
    ZSTD_DCtx_setParameter(dctx, ZSTD_d_windowLogMax, 23);
    while (out.pos < out.size) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t ret = ZSTD_decompressStream(dctx, &out, &in);
        if (ZSTD_isError(ret) || (in.pos == in_before && out.pos == out_before)) {
            break;
        }
    }
    ZSTD_freeDCtx(dctx);
    return out.pos == out.size ? 0 : -EIO;
}
#endif

static int decompress(void *opaque)
{
    const Job *job = opaque;

#ifdef CONFIG_ZSTD
    if (job->type == QCOW2_ZSTD) {
        return unzstd_cluster(job);
    }
#endif
    return inflate_cluster(job);
}

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
        ret = thread_pool_submit_co(decompress, &job);
    }
    qemu_vfree(in);
    return ret;
}
