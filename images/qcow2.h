/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 images: what the files of the driver offer each other. */
#ifndef IMAGES_QCOW2_H
#define IMAGES_QCOW2_H

#include "images/qcow2-state.h"
#include "images/qcow2-meta.h"

/* ---- qcow2-header.c ---------------------------------------------------------------- */

/*
 * Read and validate; fills S's header, extensions and geometry, BS's backing strings. With
 * BDRV_O_CHECK in FLAGS nothing is refused that the check can tell more about.
 */
int qcow2_header_read(BlockDriverState *bs, int flags, Error **errp);
/* Number and place of the snapshot table, which has N entries: 0 or -errno. */
int qcow2_header_check_snapshots(const Qcow2Header *h, uint32_t n, Error **errp);
/* Write N bytes of the header area at OFFSET in place. */
int coroutine_mixed_fn qcow2_header_patch(Qcow2State *s, uint64_t offset, const void *buf,
                                          size_t n);
/*
 * The same for N bytes of one sector that put other metadata, durable already, in force:
 * durable when it returns. On failure the old bytes are put back. If that fails, too, nobody
 * knows which metadata the file has, so S is written no more.
 */
int coroutine_fn qcow2_header_switch(Qcow2State *s, uint64_t offset, const void *buf, size_t n);
int coroutine_mixed_fn qcow2_header_set_incompat(Qcow2State *s, uint64_t bits);
int coroutine_mixed_fn qcow2_header_set_autoclear(Qcow2State *s, uint64_t bits);
/* Strings of the header; NULL or "": none. */
typedef struct Qcow2HeaderNames {
    const char *backing_file, *backing_fmt, *data_file;
    size_t backing_from;        /* the backing file's name is not to be placed before */
} Qcow2HeaderNames;
/*
 * The first bytes of an image with header H, whose place of the backing file's name is filled
 * in, and EXTENSIONS (NULL: the names of features). NULL with *RET = -ENOSPC when it does not
 * fit into a cluster.
 */
uint8_t *qcow2_header_build(Qcow2Header *h, GByteArray *extensions,
                            const Qcow2HeaderNames *names, size_t *bytes, int *ret);
int coroutine_mixed_fn qcow2_header_set_backing(Qcow2State *s, const char *backing_file,
                                                const char *backing_fmt);
/* Entries of the L1 table for a disk of SIZE bytes; cluster size and kind of L2 from H. */
uint64_t qcow2_l1_entries_for(const Qcow2Header *h, uint64_t size);

/* ---- qcow2-snapshot-table.c -------------------------------------------------------- */

int qcow2_snapshots_read(Qcow2State *s, Error **errp);
void qcow2_snapshot_clear(Qcow2Snapshot *sn);
void qcow2_snapshots_free(Qcow2State *s);

/* ---- qcow2-sparse.c ---------------------------------------------------------------- */

/*
 * Whether the file is so much smaller on its disk than what the image has allocated that
 * allocated ranges may be holes. Found out once; S->lock is not held.
 */
bool coroutine_fn qcow2_has_holes(Qcow2State *s);

/* ---- qcow2-io.c, qcow2-write.c, qcow2-zero.c, qcow2-resize.c, qcow2-compress.c ------ */

/* Read from the file; what lies beyond its end is zero. */
int coroutine_mixed_fn qcow2_file_read(Qcow2State *s, uint64_t offset, size_t bytes,
                                       void *buf);
int coroutine_fn qcow2_co_preadv_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      QEMUIOVector *qiov, size_t qiov_offset,
                                      BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pwritev_part(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, size_t qiov_offset,
                                       BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                       int64_t bytes, int64_t *pnum, int64_t *map,
                                       BlockDriverState **file);
int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags,
                                   Error **errp);
/* Write anywhere that an L1 entry covers, be it behind the end of the disk. */
int coroutine_fn qcow2_write(Qcow2State *s, uint64_t offset, uint64_t bytes,
                             QEMUIOVector *qiov, size_t qiov_offset);
/*
 * 0, or -EIO when the range is not on the disk. The block layer has looked, but then the
 * request may have waited for the disk to shrink.
 */
static inline int qcow2_check_end(const Qcow2State *s, int64_t offset, int64_t bytes)
{
    return (uint64_t)offset + bytes > qcow2_guest_bytes(s) ? -EIO : 0;
}
/* Make the zeroes of BYTES from OFFSET on explicit; ends may be unaligned. */
int coroutine_fn qcow2_zero_unaligned(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Make the range show the backing file again, freeing its clusters. Whole clusters. */
int coroutine_fn qcow2_unmap(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Read the compressed cluster of L2 entry ENTRY into BUF (one cluster). */
int coroutine_fn qcow2_read_compressed(Qcow2State *s, uint64_t entry, uint8_t *buf);
int coroutine_fn qcow2_co_pwritev_compressed_part(BlockDriverState *bs, int64_t offset,
                                                  int64_t bytes, QEMUIOVector *qiov,
                                                  size_t qiov_offset);
/* CLUSTER has become free: nothing more is packed into it. */
static inline void qcow2_packed_forget(Qcow2State *s, uint64_t cluster)
{
    if (s->packed_end >> s->cluster_bits == cluster) {
        s->packed_end = 0;
    }
}

/* ---- qcow2-codec.c: any thread ------------------------------------------------------- */

bool qcow2_compression_supported(Qcow2Compression type);
/* The memory that compressing takes, for one cluster at a time. NULL: there is none. */
typedef struct Qcow2Compressor Qcow2Compressor;
Qcow2Compressor *qcow2_compressor_new(Qcow2Compression type);
void qcow2_compressor_free(Qcow2Compressor *c);
/* The number of bytes, at most OUT_BYTES; -ENOSPC when there would be more; -errno. */
int qcow2_compress(Qcow2Compressor *c, const uint8_t *in, size_t in_bytes, uint8_t *out,
                   size_t out_bytes);
/* OUT is filled wholly, or -EIO; IN may be longer than the data. */
int qcow2_decompress(Qcow2Compression type, const uint8_t *in, size_t in_bytes, uint8_t *out,
                     size_t out_bytes);

/* ---- qcow2-check.c, qcow2-create.c, qcow2-options.c --------------------------------- */

int coroutine_fn qcow2_co_check(BlockDriverState *bs, BdrvCheckResult *result,
                                BdrvCheckMode fix);
/* The same with the lock held. */
int coroutine_fn qcow2_check_locked(Qcow2State *s, BdrvCheckResult *result,
                                    BdrvCheckMode fix);
extern const char *const qcow2_create_option_names[];
int coroutine_fn qcow2_co_create_opts(BlockDriver *drv, const char *filename, QDict *opts,
                                      Error **errp);
/* Take our runtime options out of OPTIONS and set up the caches. */
int qcow2_options_apply(Qcow2State *s, QDict *options, int flags, Error **errp);

/* ---- qcow2-crypto.c -------------------------------------------------------------------- */

/*
 * Whether the image may be opened with FLAGS: an encrypted one only for its metadata. 0 or
 * -errno. Reads the encryption header.
 */
int qcow2_crypto_open(Qcow2State *s, int flags, Error **errp);
/* How the data is encrypted, for the image's description; NULL: it is not. */
json_t *qcow2_crypto_info(const Qcow2State *s);
/* 0, or -ENOTSUP: guest data cannot be read or written. */
static inline int qcow2_check_data(const Qcow2State *s)
{
    return unlikely(s->header.crypt_method) ? -ENOTSUP : 0;
}

/* ---- qcow2-data-file.c ------------------------------------------------------------------ */

/* The edge through which guest data is read and written. */
static inline BdrvChild *qcow2_data(const Qcow2State *s)
{
    return s->data_file ?: s->bs->file;
}
/* Whether the data file must show what the guest sees. */
static inline bool qcow2_data_raw(const Qcow2State *s)
{
    return s->data_file && (s->header.autoclear & QCOW2_AUTOCLEAR_DATA_RAW);
}
/* Open the data file that the header demands. Main thread; polls. 0 or -errno. */
int qcow2_data_file_open(Qcow2State *s, QDict *options, int flags, Error **errp);
/*
 * Make the data file as long as the disk, SIZE bytes where it was OLD. 0 or -errno.
 */
int coroutine_fn qcow2_data_file_resize(Qcow2State *s, uint64_t old, uint64_t size,
                                        PreallocMode prealloc, Error **errp);
/* Whether what a longer data file gained reads as zeroes. */
static inline bool qcow2_data_file_grows_zeroed(const Qcow2State *s)
{
    return qcow2_data_raw(s) ||
           (s->data_file->bs->supported_truncate_flags & BDRV_REQ_ZERO_WRITE);
}

/* ---- qcow2.c, main thread: polls -------------------------------------------------------- */

/* What has to be done to the file before it is written to. 0 or -errno. */
int qcow2_prepare_writing(Qcow2State *s, int flags, Error **errp);
/* Write back everything, after which the image needs no repair. 0 or -errno. */
int qcow2_make_clean(Qcow2State *s);

/* ---- qcow2-empty.c ---------------------------------------------------------------------- */

int qcow2_make_empty(BlockDriverState *bs);

/* ---- qcow2-reopen.c: see BlockDriver ---------------------------------------------------- */

extern const char *const qcow2_mutable_opts[];
int qcow2_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp);
void qcow2_reopen_commit(BDRVReopenState *state);
void qcow2_reopen_commit_post(BDRVReopenState *state);
void qcow2_reopen_abort(BDRVReopenState *state);

#endif
