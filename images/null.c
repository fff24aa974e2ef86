/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes without storage, to measure and test everything else: writes are dropped, reads
 * leave the buffer as it is (or zero it). "null-co" completes within the request's own
 * call, "null-aio" always later, from the loop.
 */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"

enum { SIZE_DEFAULT = 1 << 30 };

typedef struct NullState {
    int64_t latency_ns;
    bool read_zeroes;
    bool later;                 /* null-aio: complete from the loop */
    uint64_t size;
} NullState;

/* ---- opening --------------------------------------------------------------------------- */

static void parse_filename(const char *filename, const char *driver, Error **errp)
{
    size_t len = strlen(driver);

    /* "null-co://", and nothing after it */
    if (strncmp(filename, driver, len) != 0 || strcmp(filename + len, "://") != 0) {
        error_setg(errp, "The only allowed filename for this driver is '%s://'", driver);
    }
}

static void null_co_parse_filename(const char *filename, QDict *options, Error **errp)
{
    parse_filename(filename, "null-co", errp);
}

static void null_aio_parse_filename(const char *filename, QDict *options, Error **errp)
{
    parse_filename(filename, "null-aio", errp);
}

static bool parse_options(NullState *s, QDict *options, Error **errp)
{
    uint64_t latency_ns = 0;
    g_autofree char *filename = NULL;

    s->size = SIZE_DEFAULT;
    if (!bdrv_opt_str(options, "filename", &filename, errp) ||
        !bdrv_opt_size(options, "size", &s->size, errp) ||
        !bdrv_opt_size(options, "latency-ns", &latency_ns, errp) ||
        !bdrv_opt_bool(options, "read-zeroes", &s->read_zeroes, errp)) {
        return false;
    }
    if (latency_ns > INT64_MAX) {
        error_setg(errp, "latency-ns is invalid");
        return false;
    }
    if (s->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "size is invalid");
        return false;
    }
    s->latency_ns = latency_ns;
    return true;
}

static int null_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    NullState *s = bs->opaque;

    if (!parse_options(s, options, errp)) {
        return -EINVAL;
    }
    s->later = strcmp(bs->drv->format_name, "null-aio") == 0;
    bs->total_sectors = DIV_ROUND_UP(s->size, BDRV_SECTOR_SIZE);
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK | BDRV_REQ_FUA;
    return 0;
}

/* Everything but the size, which users may rely on. */
static const char *const mutable_opts[] = { "latency-ns", "read-zeroes", NULL };

static int null_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp)
{
    const NullState *s = state->bs->opaque;
    NullState *new_state = g_new0(NullState, 1);

    if (!parse_options(new_state, state->options, errp)) {
        g_free(new_state);
        return -EINVAL;
    }
    if (new_state->size != s->size) {
        error_setg(errp, "Cannot change the option 'size'");
        g_free(new_state);
        return -EINVAL;
    }
    new_state->later = s->later;
    state->opaque = new_state;
    return 0;
}

static void null_reopen_commit(BDRVReopenState *state)
{
    *(NullState *)state->bs->opaque = *(NullState *)state->opaque;
    g_free(state->opaque);
}

static void null_reopen_abort(BDRVReopenState *state)
{
    g_free(state->opaque);
}

/* The name alone makes one that reads alike. */
static void null_refresh_filename(BlockDriverState *bs)
{
    bool plain = !qdict_haskey(bs->options, "size") &&
                 !qdict_haskey(bs->options, "read-zeroes");

    g_free(bs->exact_filename);
    bs->exact_filename = plain ? g_strdup_printf("%s://", bs->drv->protocol_name)
                               : g_strdup("");
}

/* ---- requests -------------------------------------------------------------------------- */

static int coroutine_fn QEMU_NOINLINE wait_latency(const NullState *s)
{
    if (s->latency_ns) {
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, s->latency_ns);
    } else {
        aio_co_schedule(qemu_get_current_aio_context(), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    return 0;
}

static inline int coroutine_fn complete(const NullState *s)
{
    return likely(!s->latency_ns && !s->later) ? 0 : wait_latency(s);
}

static int coroutine_fn null_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    const NullState *s = bs->opaque;

    if (s->read_zeroes) {
        qemu_iovec_memset(qiov, 0, 0, bytes);
    }
    return complete(s);
}

static int coroutine_fn null_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    return complete(bs->opaque);
}

static int coroutine_fn null_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                              int64_t bytes, BdrvRequestFlags flags)
{
    return complete(bs->opaque);
}

static int coroutine_fn null_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return complete(bs->opaque);
}

static int coroutine_fn null_co_flush(BlockDriverState *bs)
{
    return complete(bs->opaque);
}

static int coroutine_fn null_co_block_status(BlockDriverState *bs, bool want_zero,
                                             int64_t offset, int64_t bytes, int64_t *pnum,
                                             int64_t *map, BlockDriverState **file)
{
    const NullState *s = bs->opaque;

    *pnum = bytes;
    *map = offset;
    *file = bs;
    return BDRV_BLOCK_OFFSET_VALID | (s->read_zeroes ? BDRV_BLOCK_ZERO : 0);
}

static int64_t coroutine_fn null_co_getlength(BlockDriverState *bs)
{
    const NullState *s = bs->opaque;
    return s->size;
}

static int64_t coroutine_fn null_co_get_allocated_file_size(BlockDriverState *bs)
{
    return 0;
}

#define NULL_DRIVER_COMMON                                                      \
    .instance_size = sizeof(NullState),                                         \
    .bdrv_file_open = null_open,                                                \
    .bdrv_reopen_prepare = null_reopen_prepare,                                 \
    .bdrv_reopen_commit = null_reopen_commit,                                   \
    .bdrv_reopen_abort = null_reopen_abort,                                     \
    .bdrv_refresh_filename = null_refresh_filename,                             \
    .mutable_opts = mutable_opts,                                               \
    .bdrv_co_preadv = null_co_preadv,                                           \
    .bdrv_co_pwritev = null_co_pwritev,                                         \
    .bdrv_co_pwrite_zeroes = null_co_pwrite_zeroes,                             \
    .bdrv_co_pdiscard = null_co_pdiscard,                                       \
    .bdrv_co_flush_to_disk = null_co_flush,                                     \
    .bdrv_co_block_status = null_co_block_status,                               \
    .bdrv_co_getlength = null_co_getlength,                                     \
    .bdrv_co_get_allocated_file_size = null_co_get_allocated_file_size

static BlockDriver bdrv_null_co = {
    .format_name = "null-co",
    .supports_multiqueue = true,
    .protocol_name = "null-co",
    .bdrv_parse_filename = null_co_parse_filename,
    NULL_DRIVER_COMMON,
};

static BlockDriver bdrv_null_aio = {
    .format_name = "null-aio",
    .supports_multiqueue = true,
    .protocol_name = "null-aio",
    .bdrv_parse_filename = null_aio_parse_filename,
    NULL_DRIVER_COMMON,
};

static void null_init(void)
{
    bdrv_register(&bdrv_null_co);
    bdrv_register(&bdrv_null_aio);
}
block_init(null_init)
