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

static int check_position(int64_t pos, QEMUIOVector *qiov)
{
    if (pos < 0 || qiov->size > BDRV_REQUEST_MAX_BYTES ||
        pos > BDRV_MAX_LENGTH - (int64_t)qiov->size) {
        return -EIO;
    }
    return 0;
}

int coroutine_fn bdrv_co_writev_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    int ret = check_position(pos, qiov);
    if (ret < 0) {
        return ret;
    }
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    bdrv_inc_in_flight(bs);
    BlockDriverState *child = primary_node(bs);
    if (bs->drv->bdrv_co_save_vmstate) {
        ret = bs->drv->bdrv_co_save_vmstate(bs, qiov, pos);
    } else {
        ret = child ? bdrv_co_writev_vmstate(child, qiov, pos) : -ENOTSUP;
    }
    bdrv_dec_in_flight(bs);
    return ret;
}

int coroutine_fn bdrv_co_readv_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos)
{
    int ret = check_position(pos, qiov);
    if (ret < 0) {
        return ret;
    }
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    bdrv_inc_in_flight(bs);
    BlockDriverState *child = primary_node(bs);
    if (bs->drv->bdrv_co_load_vmstate) {
        ret = bs->drv->bdrv_co_load_vmstate(bs, qiov, pos);
    } else {
        ret = child ? bdrv_co_readv_vmstate(child, qiov, pos) : -ENOTSUP;
    }
    bdrv_dec_in_flight(bs);
    return ret;
}

/* ---- from outside a coroutine ----------------------------------------------------------- */

typedef struct VmstateRequest {
    BlockDriverState *bs;
    QEMUIOVector *qiov;
    int64_t pos;
    int ret;
} VmstateRequest;

static void coroutine_fn writev_entry(void *opaque)
{
    VmstateRequest *r = opaque;
    r->ret = bdrv_co_writev_vmstate(r->bs, r->qiov, r->pos);
}

static void coroutine_fn readv_entry(void *opaque)
{
    VmstateRequest *r = opaque;
    r->ret = bdrv_co_readv_vmstate(r->bs, r->qiov, r->pos);
}

static int run(void (*entry)(void *opaque), BlockDriverState *bs, void *buf, int64_t pos,
               int size)
{
    if (size < 0) {
        return -EIO;
    }
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, size);
    VmstateRequest r = { .bs = bs, .qiov = &qiov, .pos = pos };
    bdrv__run_co_on(bs, entry, &r);
    return r.ret < 0 ? r.ret : size;
}

int coroutine_mixed_fn bdrv_save_vmstate(BlockDriverState *bs, const uint8_t *buf,
                                         int64_t pos, int size)
{
    return run(writev_entry, bs, (void *)buf, pos, size);
}

int coroutine_mixed_fn bdrv_load_vmstate(BlockDriverState *bs, uint8_t *buf, int64_t pos,
                                         int size)
{
    return run(readv_entry, bs, buf, pos, size);
}
