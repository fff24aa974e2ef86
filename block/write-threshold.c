/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "block/block-internal.h"
#include "miniblk/write-threshold.h"

typedef struct Exceeded {
    char *node_name;
    uint64_t amount, threshold;
} Exceeded;

static void (*exceeded_listener)(const char *, uint64_t, uint64_t);     /* main thread */

void bdrv_write_threshold_set_listener(void (*listener)(const char *node_name,
                                                        uint64_t amount_exceeded_bytes,
                                                        uint64_t threshold_bytes))
{
    GLOBAL_STATE_CODE();
    exceeded_listener = listener;
}

void bdrv_write_threshold_set(BlockDriverState *bs, uint64_t threshold_bytes)
{
    qatomic_set(&bs->write_threshold_bytes, threshold_bytes);
}

uint64_t bdrv_write_threshold_get(const BlockDriverState *bs)
{
    return qatomic_read(&bs->write_threshold_bytes);
}

static void tell_bh(void *opaque)
{
    Exceeded *e = opaque;

    if (exceeded_listener) {
        exceeded_listener(e->node_name, e->amount, e->threshold);
    }
    g_free(e->node_name);
    g_free(e);
}

void bdrv_write_threshold_check_write(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    uint64_t threshold = bdrv_write_threshold_get(bs);
    uint64_t end = (uint64_t)offset + bytes;

    /* Of several requests that cross it at the same time one switches it off. */
    if (!threshold || end <= threshold ||
        qatomic_cmpxchg(&bs->write_threshold_bytes, threshold, (uint64_t)0) != threshold) {
        return;
    }
    Exceeded *e = g_new(Exceeded, 1);
    *e = (Exceeded) { g_strdup(bs->node_name), end - threshold, threshold };
    aio_bh_schedule_oneshot(qemu_get_aio_context(), tell_bh, e);
}
