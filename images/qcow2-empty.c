/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making an image hold nothing of its own, so that all of it shows the backing file. */
#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "images/qcow2.h"

typedef struct Empty {
    Qcow2State *s;
    int ret;
} Empty;

static void coroutine_fn empty_entry(void *opaque)
{
    Empty *e = opaque;
    Qcow2State *s = e->s;

    BLKDBG_EVENT(s->bs->file, BLKDBG_EMPTY_IMAGE_PREPARE);
    e->ret = qcow2_unmap(s, 0, ROUND_UP(qcow2_guest_bytes(s), s->cluster_bytes));
    if (e->ret == 0) {
        qemu_co_mutex_lock(&s->lock);
        e->ret = qcow2_writeback_all(s);
        qemu_co_mutex_unlock(&s->lock);
    }
}

int qcow2_make_empty(BlockDriverState *bs)
{
    Qcow2State *s = bs->opaque;
    Empty e = { .s = s };

    bdrv__run_co_on(bs, empty_entry, &e);
    return e.ret;
}
