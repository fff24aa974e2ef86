/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The VM state area of an image: a second address space beside the guest's disk. A node
 * whose driver has none asks its primary child.
 */
#include "block/block-internal.h"

static BlockDriverState *primary_node(BlockDriverState *bs)
{
    BdrvChild *c;
    QLIST_FOREACH(c, &bs->children, next) {
        if (c->role & BDRV_CHILD_PRIMARY) {
            return c->bs;
        }
    }
    return NULL;
}

static int coroutine_fn transfer(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos,
                                 bool save)
{
    int ret = -ENOTSUP;

    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    int coroutine_fn (*fn)(BlockDriverState *, QEMUIOVector *, int64_t) =
        save ? bs->drv->bdrv_co_save_vmstate : bs->drv->bdrv_co_load_vmstate;
    BlockDriverState *child = primary_node(bs);

    bdrv_inc_in_flight(bs);
    if (fn) {
        ret = fn(bs, qiov, pos);
    } else if (child) {
        ret = transfer(child, qiov, pos, save);
    }
    bdrv_dec_in_flight(bs);
    return ret;
}

static int coroutine_fn check_and_transfer(BlockDriverState *bs, QEMUIOVector *qiov,
                                           int64_t pos, bool save)
{
    if (pos < 0 || qiov->size > BDRV_REQUEST_MAX_BYTES ||
        pos > BDRV_MAX_LENGTH - (int64_t)qiov->size) {
        return -EIO;
    }
    bdrv__submitting(bs, NULL, "VM state", pos);
    return transfer(bs, qiov, pos, save);
}

int coroutine_fn bdrv_co_writev_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    return check_and_transfer(bs, qiov, pos, true);
}

int coroutine_fn bdrv_co_readv_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    return check_and_transfer(bs, qiov, pos, false);
}

/* ---- from outside a coroutine ----------------------------------------------------------- */

typedef struct VmstateRequest {
    BlockDriverState *bs;
    QEMUIOVector *qiov;
    int64_t pos;
    bool save;
    int ret;
} VmstateRequest;

static void coroutine_fn request_entry(void *opaque)
{
    VmstateRequest *r = opaque;
    r->ret = check_and_transfer(r->bs, r->qiov, r->pos, r->save);
}

static int run(BlockDriverState *bs, void *buf, int64_t pos, int size, bool save)
{
    if (size < 0) {
        return -EIO;
    }
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, size);
    VmstateRequest r = { .bs = bs, .qiov = &qiov, .pos = pos, .save = save };
    bdrv__run_co_on(bs, request_entry, &r);
    return r.ret < 0 ? r.ret : size;
}

int coroutine_mixed_fn bdrv_save_vmstate(BlockDriverState *bs, const uint8_t *buf,
                                         int64_t pos, int size)
{
    return run(bs, (void *)buf, pos, size, true);
}

int coroutine_mixed_fn bdrv_load_vmstate(BlockDriverState *bs, uint8_t *buf, int64_t pos,
                                         int size)
{
    return run(bs, buf, pos, size, false);
}
