/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The format "raw": bs->file's data as they are, or a window of them.
 *
 *      bs->file    |---------|======================|---------|
 *                  0       offset             offset + size
 *      this node             |======================|
 *                            0                     size
 */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"

typedef struct RawState {
    uint64_t offset;            /* where the window begins, in bytes */
    uint64_t size;              /* how long it is, if HAS_SIZE; else up to the end */
    bool has_size;
} RawState;

static BlockDriver bdrv_raw;

/* Any image is at least raw; whoever recognises it better wins. */
static int raw_probe(const uint8_t *buf, int buf_size, const char *filename)
{
    return 1;
}

/* ---- opening --------------------------------------------------------------------------- */

static bool parse_options(RawState *s, QDict *options, Error **errp)
{
    s->has_size = qdict_haskey(options, "size");
    return bdrv_opt_size(options, "offset", &s->offset, errp) &&
           bdrv_opt_size(options, "size", &s->size, errp);
}

static int check_window(RawState *s, int64_t file_length, Error **errp)
{
    if (s->offset > (uint64_t)file_length) {
        error_setg(errp, "Offset (%" PRIu64 ") cannot be greater than size of the "
                   "containing file (%" PRId64 ")", s->offset, file_length);
        return -EINVAL;
    }
    if (s->has_size && s->size > (uint64_t)file_length - s->offset) {
        error_setg(errp, "The sum of offset (%" PRIu64 ") and size (%" PRIu64 ") has to be "
                   "smaller or equal to the  actual size of the containing file (%" PRId64
                   ")", s->offset, s->size, file_length);
        return -EINVAL;
    }
    if (s->has_size && !QEMU_IS_ALIGNED(s->size, BDRV_SECTOR_SIZE)) {
        error_setg(errp, "Specified size is not multiple of %llu", BDRV_SECTOR_SIZE);
        return -EINVAL;
    }
    return 0;
}

static int64_t window_length(const RawState *s, int64_t file_length)
{
    if (file_length < 0) {
        return file_length;
    }
    /* The file may have shrunk since. */
    uint64_t rest = (uint64_t)file_length > s->offset ? file_length - s->offset : 0;
    return s->has_size ? MIN(s->size, rest) : rest;
}

static int raw_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    RawState *s = bs->opaque;

    if (!parse_options(s, options, errp)) {
        return -EINVAL;
    }
    bool window = s->offset || s->has_size;
    BdrvChild *file = bdrv_open_child(NULL, options, "file", bs, &child_of_bds,
                                      (window ? BDRV_CHILD_DATA : BDRV_CHILD_FILTERED) |
                                      BDRV_CHILD_PRIMARY, false, errp);
    if (!file) {
        return -EINVAL;
    }
    BlockDriverState *file_bs = file->bs;
    int64_t file_length = bdrv_getlength(file_bs);
    if (file_length < 0) {
        error_setg_errno(errp, -file_length, "Could not get image size");
        return file_length;
    }
    int ret = check_window(s, file_length, errp);
    if (ret < 0) {
        return ret;
    }
    if ((flags & BDRV_O_AUTO_RDONLY) && bdrv_is_read_only(file_bs)) {
        bs->open_flags &= ~BDRV_O_RDWR;
    }
    if (bs->probed && (bs->open_flags & BDRV_O_RDWR)) {
        /* write_first_sector() will enforce it; the user is to know before */
        fprintf(stderr, "WARNING: Image format was not specified for '%s' and probing guessed "
                "raw.\n         Automatically detecting the format is dangerous for raw "
                "images, write operations on block 0 will be restricted.\n         Specify "
                "the 'raw' format explicitly to remove the restrictions.\n",
                file_bs->filename);
    }
    bs->total_sectors = DIV_ROUND_UP(window_length(s, file_length), BDRV_SECTOR_SIZE);
    bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED |
                                (BDRV_REQ_FUA & file_bs->supported_write_flags);
    bs->supported_zero_flags = BDRV_REQ_WRITE_UNCHANGED |
                               ((BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) &
                                file_bs->supported_zero_flags);
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE & file_bs->supported_truncate_flags;
    return 0;
}

/* ---- reopening ------------------------------------------------------------------------- */

static const char *const mutable_opts[] = { "offset", "size", NULL };

/* A window may be moved and resized, but there stays one if there was one: the edge to the
 * file has another role without it. */
static int raw_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp)
{
    BlockDriverState *bs = state->bs;
    RawState *s = g_new0(RawState, 1);
    int64_t file_length = bdrv_getlength(bs->file->bs);
    int ret = file_length < 0 ? (int)file_length : -EINVAL;

    if (file_length < 0) {
        error_setg_errno(errp, -ret, "Could not get image size");
    } else if (parse_options(s, state->options, errp)) {
        bool window = s->offset || s->has_size;
        if (window != !(bs->file->role & BDRV_CHILD_FILTERED)) {
            error_setg(errp, "Cannot change the option '%s'",
                       s->has_size ? "size" : "offset");
        } else {
            ret = check_window(s, file_length, errp);
        }
    }
    if (ret < 0) {
        g_free(s);
        return ret;
    }
    state->opaque = s;
    return 0;
}

static void raw_reopen_commit(BDRVReopenState *state)
{
    *(RawState *)state->bs->opaque = *(RawState *)state->opaque;
    g_free(state->opaque);
}

/* The window may have another length: it is what bdrv_getlength() says. */
static void raw_reopen_commit_post(BDRVReopenState *state)
{
    int64_t length = bdrv_getlength(state->bs);

    if (length >= 0) {
        state->bs->total_sectors = DIV_ROUND_UP(length, BDRV_SECTOR_SIZE);
    }
}

static void raw_reopen_abort(BDRVReopenState *state)
{
    g_free(state->opaque);
}

/* ---- requests -------------------------------------------------------------------------- */

/* From the window to the file; -errno when the request does not lie in it. */
static inline int map_request(const RawState *s, int64_t *offset, int64_t bytes,
                              bool is_write)
{
    if (s->has_size && (*offset > (int64_t)s->size || bytes > (int64_t)s->size - *offset)) {
        /* The node's length is a multiple of sectors, so this is about a shrunk file. */
        return is_write ? -ENOSPC : -EINVAL;
    }
    if (*offset > INT64_MAX - (int64_t)s->offset) {
        return -EINVAL;
    }
    *offset += s->offset;
    return 0;
}

static int coroutine_fn raw_co_preadv_part(BlockDriverState *bs, int64_t offset,
                                           int64_t bytes, QEMUIOVector *qiov,
                                           size_t qiov_offset, BdrvRequestFlags flags)
{
    int ret = map_request(bs->opaque, &offset, bytes, false);

    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_READ_AIO);
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

/* Whether an image that begins with BUF would be opened as something else than raw. */
static bool looks_like_other_format(const uint8_t *buf, int len)
{
    int best_score = raw_probe(buf, len, NULL);

    for (BlockDriver *drv = bdrv_next_driver(NULL); drv; drv = bdrv_next_driver(drv)) {
        if (drv->bdrv_probe && drv != &bdrv_raw &&
            drv->bdrv_probe(buf, len, "") > best_score) {
            return true;
        }
    }
    return false;
}

/*
 * The format was guessed from the first sector, so its user must not be able to change the
 * next guess: that would turn a guest's data into, say, a backing file name of the host.
 * The sector is checked and written from a copy that nobody can change in between.
 */
static int coroutine_fn QEMU_NOINLINE
write_first_sector(BlockDriverState *bs, int64_t bytes, QEMUIOVector *qiov,
                   size_t qiov_offset, BdrvRequestFlags flags)
{
    const RawState *s = bs->opaque;
    const size_t len = BDRV_SECTOR_SIZE;
    QEMUIOVector local;
    int ret = -EPERM;

    g_assert((size_t)bytes >= len);     /* see raw_refresh_limits() */
    uint8_t *buf = qemu_try_blockalign(bs->file->bs, len);
    if (!buf) {
        return -ENOMEM;
    }
    qemu_iovec_to_buf(qiov, qiov_offset, buf, len);
    if (!looks_like_other_format(buf, len)) {
        qemu_iovec_init(&local, qiov->niov + 1);
        qemu_iovec_add(&local, buf, len);
        qemu_iovec_concat(&local, qiov, qiov_offset + len, bytes - len);
        ret = bdrv_co_pwritev(bs->file, s->offset, bytes, &local, flags);
        qemu_iovec_destroy(&local);
    }
    qemu_vfree(buf);
    return ret;
}

static int coroutine_fn raw_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                                            int64_t bytes, QEMUIOVector *qiov,
                                            size_t qiov_offset, BdrvRequestFlags flags)
{
    bool first_sector = bs->probed && offset == 0 && bytes > 0;
    int ret = map_request(bs->opaque, &offset, bytes, true);

    if (ret < 0) {
        return ret;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_WRITE_AIO);
    if (unlikely(first_sector)) {
        return write_first_sector(bs, bytes, qiov, qiov_offset, flags);
    }
    return bdrv_co_pwritev_part(bs->file, offset, bytes, qiov, qiov_offset, flags);
}

static int coroutine_fn raw_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes, BdrvRequestFlags flags)
{
    int ret = map_request(bs->opaque, &offset, bytes, true);
    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
}

static int coroutine_fn raw_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int ret = map_request(bs->opaque, &offset, bytes, true);
    return ret < 0 ? ret : bdrv_co_pdiscard(bs->file, offset, bytes);
}

static int coroutine_fn raw_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                                               int64_t src_offset, BdrvChild *dst,
                                               int64_t dst_offset, int64_t bytes,
                                               BdrvRequestFlags read_flags,
                                               BdrvRequestFlags write_flags)
{
    int ret = map_request(bs->opaque, &src_offset, bytes, false);

    return ret < 0 ? ret : bdrv_co_copy_range_from(bs->file, src_offset, dst, dst_offset,
                                                   bytes, read_flags, write_flags);
}

static int coroutine_fn raw_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                                             int64_t src_offset, BdrvChild *dst,
                                             int64_t dst_offset, int64_t bytes,
                                             BdrvRequestFlags read_flags,
                                             BdrvRequestFlags write_flags)
{
    if (bs->probed && dst_offset < (int64_t)BDRV_SECTOR_SIZE) {
        return -ENOTSUP;        /* its contents must be looked at; see write_first_sector() */
    }
    int ret = map_request(bs->opaque, &dst_offset, bytes, true);
    return ret < 0 ? ret : bdrv_co_copy_range_to(src, src_offset, bs->file, dst_offset, bytes,
                                                 read_flags, write_flags);
}

static int coroutine_fn raw_co_block_status(BlockDriverState *bs, bool want_zero,
                                            int64_t offset, int64_t bytes, int64_t *pnum,
                                            int64_t *map, BlockDriverState **file)
{
    const RawState *s = bs->opaque;

    *pnum = bytes;
    *file = bs->file->bs;
    *map = offset + s->offset;
    return BDRV_BLOCK_OFFSET_VALID | BDRV_BLOCK_RAW;
}

/* ---- size ------------------------------------------------------------------------------ */

static int64_t coroutine_fn raw_co_getlength(BlockDriverState *bs)
{
    return window_length(bs->opaque, bdrv_getlength(bs->file->bs));
}

static int coroutine_fn raw_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                        PreallocMode prealloc, BdrvRequestFlags flags,
                                        Error **errp)
{
    const RawState *s = bs->opaque;

    if (s->has_size) {
        error_setg(errp, "Cannot resize fixed-size raw disks");
        return -ENOTSUP;
    }
    if (offset > INT64_MAX - (int64_t)s->offset) {
        error_setg(errp, "Disk size too large for the chosen offset");
        return -EINVAL;
    }
    return bdrv_co_truncate(bs->file, offset + s->offset, exact, prealloc, flags, errp);
}

static int64_t coroutine_fn raw_co_get_allocated_file_size(BlockDriverState *bs)
{
    return bdrv_get_allocated_file_size(bs->file->bs);
}

static int coroutine_fn raw_co_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    return bdrv_get_info(bs->file->bs, bdi);
}

/* ---- the rest -------------------------------------------------------------------------- */

static void raw_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                           BlockReopenQueue *reopen_queue, uint64_t parent_perm,
                           uint64_t parent_shared, uint64_t *nperm, uint64_t *nshared)
{
    /* There is nothing here that the parents could not do to the file themselves. */
    *nperm = parent_perm;
    *nshared = parent_shared;
}

static void raw_refresh_limits(BlockDriverState *bs, Error **errp)
{
    if (bs->probed) {
        /* write_first_sector() wants it whole */
        bs->bl.request_alignment = MAX(bs->bl.request_alignment, BDRV_SECTOR_SIZE);
    }
}

static void raw_refresh_filename(BlockDriverState *bs)
{
    const RawState *s = bs->opaque;
    const char *name = bs->file ? bs->file->bs->exact_filename : NULL;

    /* Another opening of the same name would not find the window. */
    bool plain = !s->offset && !s->has_size && name;
    g_free(bs->exact_filename);
    bs->exact_filename = g_strdup(plain ? name : "");
}

static const char *const raw_create_opts[] = {
    "size", "preallocation", "nocow", "extent_size_hint", NULL
};

static int coroutine_fn raw_co_create_opts(BlockDriver *drv, const char *filename,
                                           QDict *opts, Error **errp)
{
    BlockDriver *protocol = bdrv_find_protocol(filename, true, errp);

    if (!protocol) {
        return -ENOENT;
    }
    return bdrv_create(protocol, filename, opts, errp);
}

static BlockDriver bdrv_raw = {
    .format_name = "raw",
    .supports_multiqueue = true,
    .instance_size = sizeof(RawState),
    .has_variable_length = true,
    .bdrv_probe = raw_probe,
    .bdrv_open = raw_open,
    .bdrv_reopen_prepare = raw_reopen_prepare,
    .bdrv_reopen_commit = raw_reopen_commit,
    .bdrv_reopen_commit_post = raw_reopen_commit_post,
    .bdrv_reopen_abort = raw_reopen_abort,
    .mutable_opts = mutable_opts,
    .bdrv_child_perm = raw_child_perm,
    .bdrv_refresh_limits = raw_refresh_limits,
    .bdrv_refresh_filename = raw_refresh_filename,
    .bdrv_co_preadv_part = raw_co_preadv_part,
    .bdrv_co_pwritev_part = raw_co_pwritev_part,
    .bdrv_co_pwrite_zeroes = raw_co_pwrite_zeroes,
    .bdrv_co_pdiscard = raw_co_pdiscard,
    .bdrv_co_block_status = raw_co_block_status,
    .bdrv_co_copy_range_from = raw_co_copy_range_from,
    .bdrv_co_copy_range_to = raw_co_copy_range_to,
    .bdrv_co_truncate = raw_co_truncate,
    .bdrv_co_getlength = raw_co_getlength,
    .bdrv_co_get_allocated_file_size = raw_co_get_allocated_file_size,
    .bdrv_co_get_info = raw_co_get_info,
    .bdrv_co_create_opts = raw_co_create_opts,
    .create_opts = raw_create_opts,
};

static void raw_init(void)
{
    bdrv_register(&bdrv_raw);
}
block_init(raw_init)
