/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compressing and decompressing one cluster in memory. Runs in worker threads. */
#include "miniblk/osdep.h"
#include <zlib.h>
#ifdef CONFIG_ZSTD
#include <zstd.h>
#endif
#include "images/qcow2.h"

/* The format demands raw deflate with a window of 4 KiB; negative stands for raw. */
#define WINDOW_BITS (-12)
#define MEM_LEVEL 9             /* of deflate: fastest, 256 KiB */
/* No cluster has use for a larger window, whatever memory a frame asks for. */
#define ZSTD_WINDOW_BITS_MAX 23

bool qcow2_compression_supported(Qcow2Compression type)
{
#ifdef CONFIG_ZSTD
    if (type == QCOW2_ZSTD) {
        return true;
    }
#endif
    return type == QCOW2_ZLIB;
}

/* ---- zlib -------------------------------------------------------------------------- */

static int deflate_cluster(z_stream *z, const uint8_t *in, size_t in_bytes, uint8_t *out,
                           size_t out_bytes)
{
    if (deflateReset(z) != Z_OK) {
        return -EIO;
    }
    z->next_in = (Bytef *)in;
    z->avail_in = in_bytes;
    z->next_out = out;
    z->avail_out = out_bytes;
    int ret = deflate(z, Z_FINISH);
    return ret == Z_STREAM_END ? out_bytes - z->avail_out : ret == Z_OK ? -ENOSPC : -EIO;
}

static int inflate_cluster(const uint8_t *in, size_t in_bytes, uint8_t *out,
                           size_t out_bytes)
{
    z_stream z = { .next_in = (Bytef *)in, .avail_in = in_bytes,
                   .next_out = out, .avail_out = out_bytes };

    if (inflateInit2(&z, WINDOW_BITS) != Z_OK) {
        return -ENOMEM;
    }
    int ret = inflate(&z, Z_FINISH);
    /* Z_BUF_ERROR: the cluster is full before the stream has ended; that is fine. */
    bool whole = (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && z.avail_out == 0;
    inflateEnd(&z);
    return whole ? 0 : -EIO;
}

/* ---- zstd -------------------------------------------------------------------------- */

#ifdef CONFIG_ZSTD
static int zstd_cluster(ZSTD_CCtx *cctx, const uint8_t *in, size_t in_bytes, uint8_t *out,
                        size_t out_bytes)
{
    size_t n = ZSTD_compress2(cctx, out, out_bytes, in, in_bytes);
    /* With enough memory, a lack of room is all that can go wrong. */
    return ZSTD_isError(n) ? -ENOSPC : (int)n;
}

static int unzstd_cluster(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    ZSTD_DCtx *dctx = ZSTD_createDCtx();
    ZSTD_inBuffer from = { in, in_bytes, 0 };
    ZSTD_outBuffer to = { out, out_bytes, 0 };

    if (!dctx) {
        return -ENOMEM;
    }
    ZSTD_DCtx_setParameter(dctx, ZSTD_d_windowLogMax, ZSTD_WINDOW_BITS_MAX);
    while (to.pos < to.size) {
        size_t from_before = from.pos, to_before = to.pos;
        size_t ret = ZSTD_decompressStream(dctx, &to, &from);
        if (ZSTD_isError(ret) || (from.pos == from_before && to.pos == to_before)) {
            break;
        }
    }
    ZSTD_freeDCtx(dctx);
    return to.pos == to.size ? 0 : -EIO;
}
#endif

/* ------------------------------------------------------------------------------------ */

struct Qcow2Compressor {
    Qcow2Compression type;
    z_stream z;
#ifdef CONFIG_ZSTD
    ZSTD_CCtx *zstd;
#endif
};

static bool compressor_init(Qcow2Compressor *c)
{
#ifdef CONFIG_ZSTD
    if (c->type == QCOW2_ZSTD) {
        c->zstd = ZSTD_createCCtx();
        return c->zstd;
    }
#endif
    return deflateInit2(&c->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, MEM_LEVEL,
                        Z_DEFAULT_STRATEGY) == Z_OK;
}

Qcow2Compressor *qcow2_compressor_new(Qcow2Compression type)
{
    Qcow2Compressor *c = g_new0(Qcow2Compressor, 1);

    c->type = type;
    if (!compressor_init(c)) {
        g_free(c);
        return NULL;
    }
    return c;
}

void qcow2_compressor_free(Qcow2Compressor *c)
{
#ifdef CONFIG_ZSTD
    ZSTD_freeCCtx(c->zstd);
#endif
    if (c->type == QCOW2_ZLIB) {
        deflateEnd(&c->z);
    }
    g_free(c);
}

int qcow2_compress(Qcow2Compressor *c, const uint8_t *in, size_t in_bytes, uint8_t *out,
                   size_t out_bytes)
{
#ifdef CONFIG_ZSTD
    if (c->type == QCOW2_ZSTD) {
        return zstd_cluster(c->zstd, in, in_bytes, out, out_bytes);
    }
#endif
    return deflate_cluster(&c->z, in, in_bytes, out, out_bytes);
}

int qcow2_decompress(Qcow2Compression type, const uint8_t *in, size_t in_bytes, uint8_t *out,
                     size_t out_bytes)
{
#ifdef CONFIG_ZSTD
    if (type == QCOW2_ZSTD) {
        return unzstd_cluster(in, in_bytes, out, out_bytes);
    }
#endif
    return inflate_cluster(in, in_bytes, out, out_bytes);
}
