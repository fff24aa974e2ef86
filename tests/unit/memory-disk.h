/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A protocol driver "memory-disk" for tests: a disk in memory that completes requests late
 * and in any order, can fail them, and writes down all that happens, so that a power
 * failure at any moment can be replayed.
 */
#ifndef MEMORY_DISK_H
#define MEMORY_DISK_H

#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"

typedef enum MemoryOpType { MEMORY_WRITE, MEMORY_TRUNCATE, MEMORY_FLUSH } MemoryOpType;

typedef struct MemoryOp {
    MemoryOpType type;
    const struct MemoryDisk *disk;      /* several may write to one log */
    uint64_t offset;            /* of a write; new length of a truncate */
    uint64_t bytes;
    uint8_t *data;
} MemoryOp;

typedef struct MemoryDisk {
    GByteArray *data;
    GArray *log;                /* MemoryOp; NULL: not wanted */
    GRand *late;                /* delays requests at random; NULL: none */
    int fail_in;                /* the request after so many fails; 0: none does */
    uint64_t length_max;        /* longer is -ENOSPC; 0: no limit */
} MemoryDisk;

/* The disk that the next node opened will show, and that of the node after it (or NULL). */
static MemoryDisk *memory_disk_to_open, *memory_disk_to_open_next;

static inline MemoryDisk *memory_disk_new(const void *data, size_t bytes)
{
    MemoryDisk *d = g_new0(MemoryDisk, 1);
    d->data = g_byte_array_new();
    if (bytes) {
        g_byte_array_append(d->data, data, bytes);
    }
    return d;
}

static inline void memory_disk_clear_log(MemoryDisk *d)
{
    for (guint i = 0; d->log && i < d->log->len; i++) {
        g_free(g_array_index(d->log, MemoryOp, i).data);
    }
    g_clear_pointer(&d->log, g_array_unref);
}

static inline void memory_disk_free(MemoryDisk *d)
{
    memory_disk_clear_log(d);
    g_byte_array_unref(d->data);
    g_clear_pointer(&d->late, g_rand_free);
    g_free(d);
}

static inline void memory_disk_resize(GByteArray *data, uint64_t bytes)
{
    guint old = data->len;
    g_byte_array_set_size(data, bytes);
    if (bytes > old) {
        memset(data->data + old, 0, bytes - old);
    }
}

static inline MemoryDisk *memory_disk_of(BlockDriverState *bs)
{
    return *(MemoryDisk **)bs->opaque;
}

static int memory_disk_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    *(MemoryDisk **)bs->opaque = memory_disk_to_open;
    g_assert_nonnull(memory_disk_to_open);
    bs->total_sectors = DIV_ROUND_UP(memory_disk_to_open->data->len, 512);
    if (memory_disk_to_open_next) {
        memory_disk_to_open = memory_disk_to_open_next;
        memory_disk_to_open_next = NULL;
    }
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
    return 0;
}

static void memory_disk_limits(BlockDriverState *bs, Error **errp)
{
    bs->bl.request_alignment = 512;
}

static int64_t coroutine_fn memory_disk_length(BlockDriverState *bs)
{
    return memory_disk_of(bs)->data->len;
}

/* For how many rounds of the loop a request waits: mostly few, now and then many. */
static int memory_disk_delay(MemoryDisk *d)
{
    if (!d->late) {
        return 0;
    }
    return g_rand_int_range(d->late, 0, g_rand_int_range(d->late, 0, 8) ? 4 : 60);
}

/* Let others go first for a while; whether this request shall fail. */
static int coroutine_fn memory_disk_wait(BlockDriverState *bs)
{
    MemoryDisk *d = memory_disk_of(bs);

    for (int i = memory_disk_delay(d); i > 0; i--) {
        aio_co_schedule(bdrv_get_aio_context(bs), qemu_coroutine_self());
        qemu_coroutine_yield();
    }
    return d->fail_in && --d->fail_in == 0 ? -EIO : 0;
}

static void memory_disk_note(MemoryDisk *d, MemoryOpType type, uint64_t offset,
                             uint64_t bytes)
{
    if (d->log) {
        MemoryOp op = { type, d, offset, bytes, NULL };
        if (type == MEMORY_WRITE) {
            op.data = g_memdup2(d->data->data + offset, bytes);
        }
        g_array_append_val(d->log, op);
    }
}

static int coroutine_fn memory_disk_preadv(BlockDriverState *bs, int64_t offset,
                                           int64_t bytes, QEMUIOVector *qiov,
                                           BdrvRequestFlags flags)
{
    MemoryDisk *d = memory_disk_of(bs);
    int ret = memory_disk_wait(bs);
    uint64_t n = offset >= d->data->len ? 0 : MIN(bytes, d->data->len - offset);

    qemu_iovec_from_buf(qiov, 0, d->data->data + offset, n);
    qemu_iovec_memset(qiov, n, 0, bytes - n);
    return ret;
}

static int coroutine_fn memory_disk_store(BlockDriverState *bs, int64_t offset,
                                          int64_t bytes, QEMUIOVector *qiov)
{
    MemoryDisk *d = memory_disk_of(bs);
    int ret = memory_disk_wait(bs);

    if (ret < 0) {
        return ret;
    }
    if (d->length_max && (uint64_t)(offset + bytes) > d->length_max) {
        return -ENOSPC;
    }
    if (offset + bytes > d->data->len) {
        memory_disk_resize(d->data, offset + bytes);
    }
    if (qiov) {
        qemu_iovec_to_buf(qiov, 0, d->data->data + offset, bytes);
    } else {
        memset(d->data->data + offset, 0, bytes);
    }
    memory_disk_note(d, MEMORY_WRITE, offset, bytes);
    return 0;
}

static int coroutine_fn memory_disk_pwritev(BlockDriverState *bs, int64_t offset,
                                            int64_t bytes, QEMUIOVector *qiov,
                                            BdrvRequestFlags flags)
{
    return memory_disk_store(bs, offset, bytes, qiov);
}

static int coroutine_fn memory_disk_zeroes(BlockDriverState *bs, int64_t offset,
                                           int64_t bytes, BdrvRequestFlags flags)
{
    return memory_disk_store(bs, offset, bytes, NULL);
}

static int coroutine_fn memory_disk_discard(BlockDriverState *bs, int64_t offset,
                                            int64_t bytes)
{
    MemoryDisk *d = memory_disk_of(bs);
    uint64_t n = offset >= d->data->len ? 0 : MIN(bytes, d->data->len - offset);
    int ret = memory_disk_wait(bs);

    if (ret >= 0 && n) {
        /* Whoever relies on discarded data shall see it. */
        memset(d->data->data + offset, 0xdd, n);
        memory_disk_note(d, MEMORY_WRITE, offset, n);
    }
    return ret;
}

static int coroutine_fn memory_disk_truncate(BlockDriverState *bs, int64_t offset,
                                             bool exact, PreallocMode prealloc,
                                             BdrvRequestFlags flags, Error **errp)
{
    MemoryDisk *d = memory_disk_of(bs);
    int ret = memory_disk_wait(bs);

    if (ret >= 0 && d->length_max && (uint64_t)offset > d->length_max) {
        ret = -ENOSPC;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Cannot resize the disk");
        return ret;
    }
    memory_disk_resize(d->data, offset);
    memory_disk_note(d, MEMORY_TRUNCATE, offset, 0);
    return 0;
}

static int coroutine_fn memory_disk_flush(BlockDriverState *bs)
{
    MemoryDisk *d = memory_disk_of(bs);
    int ret = memory_disk_wait(bs);

    if (ret >= 0) {
        memory_disk_note(d, MEMORY_FLUSH, 0, 0);
    }
    return ret;
}

static BlockDriver memory_disk_driver = {
    .format_name = "memory-disk",
    .protocol_name = "memory-disk",
    .instance_size = sizeof(MemoryDisk *),
    .has_variable_length = true,
    .bdrv_file_open = memory_disk_open,
    .bdrv_refresh_limits = memory_disk_limits,
    .bdrv_co_getlength = memory_disk_length,
    .bdrv_co_preadv = memory_disk_preadv,
    .bdrv_co_pwritev = memory_disk_pwritev,
    .bdrv_co_pwrite_zeroes = memory_disk_zeroes,
    .bdrv_co_pdiscard = memory_disk_discard,
    .bdrv_co_truncate = memory_disk_truncate,
    .bdrv_co_flush_to_disk = memory_disk_flush,
};

#endif
