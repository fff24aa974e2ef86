/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making an image hold nothing of its own, so that all of it shows the backing file. */
#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "images/qcow2-manage.h"

typedef struct Empty {
    Qcow2State *s;
    int ret;
} Empty;

/*
 * Tables go with what they name: an empty one would take a reference from each snapshot to
 * be, which refcounts of one bit do not have.
 */
static void coroutine_fn empty_entry(void *opaque)
{
    Empty *e = opaque;
    Qcow2State *s = e->s;

    QEMU_LOCK_GUARD(&s->lock);
    BLKDBG_EVENT(s->bs->file, BLKDBG_EMPTY_IMAGE_PREPARE);
    e->ret = qcow2_l1_drop(s, 0, s->l1.size);
    e->ret = e->ret < 0 ? e->ret : qcow2_writeback_all(s);
    if (e->ret >= 0) {
        qcow2_trim(s, NULL);    /* where the file can be cut; the image is empty anyway */
    }
}

int qcow2_make_empty(BlockDriverState *bs)
{
    Qcow2State *s = bs->opaque;
    Empty e = { .s = s };

    bdrv__run_co_on(bs, empty_entry, &e);
    return e.ret;
}
