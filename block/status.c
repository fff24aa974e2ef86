/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where data comes from: block status of one layer, and through the backing chain. */
#include "block/block-internal.h"

typedef struct Status {
    BlockDriverState *bs;
    bool want_zero;             /* precise zero information is wanted */
    int64_t offset, bytes;      /* asked for */
    int64_t pnum;               /* length of the answer */
    int64_t map;
    BlockDriverState *file;
    bool chain;                 /* look through the backing chain */
    int ret;                    /* bits, or -errno */
} Status;

static int64_t node_end(BlockDriverState *bs)
{
    return bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE;
}

/* Ask the driver about whole blocks around the range, and cut the answer to the range. */
static void coroutine_fn ask_driver(Status *s, int64_t bytes)
{
    BlockDriverState *bs = s->bs;
    int64_t align = bs->bl.request_alignment;
    int64_t start = QEMU_ALIGN_DOWN(s->offset, align);
    int64_t end = QEMU_ALIGN_UP(s->offset + bytes, align);
    int64_t pnum = 0, map = 0;

    s->ret = bs->drv->bdrv_co_block_status(bs, s->want_zero, start, end - start, &pnum, &map,
                                           &s->file);
    if (s->ret < 0) {
        return;
    }
    int64_t skipped = s->offset - start;
    g_assert(pnum > skipped || pnum == 0);
    s->pnum = MIN(MAX(pnum - skipped, 0), bytes);
    s->map = map + skipped;
    if (s->pnum == 0) {
        /* a driver that knows nothing here: let it be data, a block at a time */
        s->pnum = MIN(bytes, align - skipped);
        s->ret = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
    }
}

static void coroutine_fn one_layer(Status *s);

/* RAW: what the layer below says holds for us too. */
static void coroutine_fn follow_raw(Status *s)
{
    Status below = { .bs = s->file, .want_zero = s->want_zero, .offset = s->map,
                     .bytes = s->pnum };
    one_layer(&below);
    if (below.ret < 0) {
        s->ret = below.ret;
        return;
    }
    s->ret = below.ret & ~BDRV_BLOCK_EOF;
    s->pnum = below.pnum;
    s->map = below.map;
    s->file = below.file;
}

/* DATA with RECURSE: a hole in the file below reads as zeroes here. */
static void coroutine_fn refine_data(Status *s)
{
    Status below = { .bs = s->file, .want_zero = s->want_zero, .offset = s->map,
                     .bytes = s->pnum };
    one_layer(&below);
    if (below.ret < 0) {
        return;                 /* it was only a refinement */
    }
    if ((below.ret & BDRV_BLOCK_EOF) && (!below.pnum || (below.ret & BDRV_BLOCK_ZERO))) {
        s->ret |= BDRV_BLOCK_ZERO;      /* to the end of the file and behind it */
    } else {
        s->pnum = below.pnum;
        s->ret |= below.ret & BDRV_BLOCK_ZERO;
    }
}

static void coroutine_fn one_layer(Status *s)
{
    BlockDriverState *bs = s->bs;
    int64_t end = node_end(bs);
    int64_t bytes = MIN(s->bytes, end - s->offset);

    s->pnum = 0;
    if (s->offset >= end) {
        s->ret = BDRV_BLOCK_EOF;
        return;
    }
    if (s->bytes == 0) {
        s->ret = 0;
        return;
    }
    bdrv_inc_in_flight(bs);
    if (bs->drv->bdrv_co_block_status) {
        ask_driver(s, bytes);
    } else if (bdrv_filter_bs(bs)) {
        s->ret = BDRV_BLOCK_RAW | BDRV_BLOCK_OFFSET_VALID;
        s->pnum = bytes;
        s->map = s->offset;
        s->file = bdrv_filter_bs(bs);
    } else {
        s->ret = BDRV_BLOCK_DATA | BDRV_BLOCK_ALLOCATED;
        s->pnum = bytes;
        if (bs->drv->protocol_name) {
            s->ret |= BDRV_BLOCK_OFFSET_VALID;
            s->map = s->offset;
            s->file = bs;
        }
    }
    if (s->ret >= 0 && (s->ret & BDRV_BLOCK_RAW)) {
        follow_raw(s);
    } else if (s->ret >= 0) {
        if (s->ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
            s->ret |= BDRV_BLOCK_ALLOCATED;
        }
        if (s->want_zero && (s->ret & BDRV_BLOCK_RECURSE) &&
            (s->ret & BDRV_BLOCK_DATA) && !(s->ret & BDRV_BLOCK_ZERO) &&
            (s->ret & BDRV_BLOCK_OFFSET_VALID) && s->file && s->file != bs) {
            refine_data(s);
        }
    }
    bdrv_dec_in_flight(bs);
    if (s->ret >= 0) {
        s->ret &= ~(BDRV_BLOCK_RECURSE | BDRV_BLOCK_RAW);
        if (s->offset + s->pnum == end) {
            s->ret |= BDRV_BLOCK_EOF;
        }
    }
}

/* The first layer that defines the range; behind a layer's end there are zeroes. */
static void coroutine_fn through_chain(Status *s)
{
    BlockDriverState *top = s->bs;
    Status above = *s;
    int64_t bytes = s->bytes;

    for (BlockDriverState *bs = top; bs; bs = bdrv_filter_or_cow_bs(bs)) {
        s->bs = bs;
        s->bytes = bytes;
        one_layer(s);
        if (s->ret < 0) {
            return;
        }
        if (s->pnum == 0 && bs != top) {
            /* a backing file that ends before the range: zeroes, up to what the top asked */
            s->ret = BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED |
                     (above.ret & BDRV_BLOCK_OFFSET_VALID);
            s->pnum = bytes;
            s->map = above.map;
            s->file = above.file;
            return;
        }
        above = *s;
        if (s->pnum == 0 || (s->ret & BDRV_BLOCK_ALLOCATED)) {
            break;
        }
        bytes = MIN(bytes, s->pnum);
        if (!bdrv_filter_or_cow_bs(bs) && bs->drv->supports_backing) {
            s->ret |= BDRV_BLOCK_ZERO;  /* nobody defines it */
        }
    }
    if (s->bs != top) {
        s->ret &= ~BDRV_BLOCK_EOF;
        if (s->offset + s->pnum == node_end(top)) {
            s->ret |= BDRV_BLOCK_EOF;
        }
    }
}

static void coroutine_fn status_entry(void *opaque)
{
    Status *s = opaque;

    bdrv__submitting(s->bs, NULL, "block status", s->offset);
    if (s->chain) {
        through_chain(s);
    } else {
        one_layer(s);
    }
}

static int finish(Status *s, int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    *pnum = s->ret < 0 ? 0 : s->pnum;
    if (map) {
        *map = s->map;
    }
    if (file) {
        *file = s->ret >= 0 && (s->ret & BDRV_BLOCK_OFFSET_VALID) ? s->file : NULL;
    }
    return s->ret;
}

static int check_range(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return !bs->drv ? -ENOMEDIUM : offset < 0 || bytes < 0 ? -EIO : 0;
}

int coroutine_mixed_fn bdrv_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         int64_t *pnum, int64_t *map,
                                         BlockDriverState **file)
{
    Status s = { .bs = bs, .want_zero = true, .offset = offset, .bytes = bytes,
                 .chain = true, .ret = check_range(bs, offset, bytes) };
    if (s.ret == 0) {
        bdrv__run_co_on(bs, status_entry, &s);
    }
    return finish(&s, pnum, map, file);
}

int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      int64_t *pnum, int64_t *map, BlockDriverState **file)
{
    return bdrv_block_status(bs, offset, bytes, pnum, map, file);
}

int bdrv_is_allocated(BlockDriverState *bs, int64_t offset, int64_t bytes, int64_t *pnum)
{
    Status s = { .bs = bs, .offset = offset, .bytes = bytes,
                 .ret = check_range(bs, offset, bytes) };
    if (s.ret == 0) {
        bdrv__run_co_on(bs, status_entry, &s);
    }
    int ret = finish(&s, pnum, NULL, NULL);
    return ret < 0 ? ret : !!(ret & BDRV_BLOCK_ALLOCATED);
}

typedef struct AllocatedAbove {
    BlockDriverState *top, *base;
    bool include_base;
    int64_t offset, bytes, pnum;
    int ret;
} AllocatedAbove;

static void coroutine_fn allocated_above_entry(void *opaque)
{
    AllocatedAbove *a = opaque;
    BlockDriverState *end = a->include_base ? bdrv_filter_or_cow_bs(a->base) : a->base;
    int64_t bytes = a->bytes;

    for (BlockDriverState *bs = a->top; bs && bs != end; bs = bdrv_filter_or_cow_bs(bs)) {
        int64_t pnum;
        a->ret = bdrv_is_allocated(bs, a->offset, bytes, &pnum);
        if (a->ret < 0) {
            return;
        }
        if (a->ret) {
            a->pnum = pnum;
            return;
        }
        /* what lies behind the end of a layer that is not the top one reads as zeroes there */
        if (pnum == 0 && bs != a->top) {
            a->ret = 1;
            a->pnum = bytes;
            return;
        }
        bytes = MIN(bytes, pnum);
    }
    a->pnum = bytes;
}

int bdrv_is_allocated_above(BlockDriverState *top, BlockDriverState *base, bool include_base,
                            int64_t offset, int64_t bytes, int64_t *pnum)
{
    AllocatedAbove a = { .top = top, .base = base, .include_base = base && include_base,
                         .offset = offset, .bytes = bytes,
                         .ret = check_range(top, offset, bytes) };
    if (a.ret == 0) {
        bdrv__run_co_on(top, allocated_above_entry, &a);
    }
    *pnum = a.ret < 0 ? 0 : a.pnum;
    return a.ret;
}
