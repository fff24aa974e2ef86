/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The filter "copy-on-read": what is read through it and comes from a backing file is copied
 * into the image right below it.
 *
 *      [copy-on-read] -> [image] -> [backing] -> [bottom] -> [not copied]
 */
#include "block/filter/filter.h"

typedef struct CopyOnRead {
    BlockDriverState *bottom;   /* the last layer to copy from, with a reference; NULL: all */
} CopyOnRead;

/* ---- opening ---------------------------------------------------------------------- */

/* Whether BOTTOM is TOP or one of its backing images. */
static bool in_chain(BlockDriverState *top, BlockDriverState *bottom)
{
    while (top && top != bottom) {
        top = bdrv_filter_or_cow_bs(top);
    }
    return top;
}

static BlockDriverState *find_bottom(BlockDriverState *bs, const char *name, Error **errp)
{
    BlockDriverState *bottom = bdrv_find_node(name);

    if (!bottom) {
        error_setg(errp, "Bottom node '%s' not found", name);
    } else if (bottom->drv && bottom->drv->is_filter) {
        error_setg(errp, "Bottom node '%s' is a filter", name);
        bottom = NULL;
    } else if (!in_chain(bs->file->bs, bottom)) {
        error_setg(errp, "Bottom node '%s' is not in the backing chain of node '%s'", name,
                   bdrv_get_node_name(bs->file->bs));
        bottom = NULL;
    }
    return bottom;
}

static int cor_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    CopyOnRead *s = bs->opaque;
    g_autofree char *bottom = NULL;
    int ret = bdrv__filter_open_file(bs, options, errp);

    if (ret < 0) {
        return ret;
    }
    if (!bdrv_opt_str(options, "bottom", &bottom, errp)) {
        return -EINVAL;
    }
    if (bottom) {
        s->bottom = find_bottom(bs, bottom, errp);
        if (!s->bottom) {
            return -EINVAL;
        }
        bdrv_ref(s->bottom);
    }
    return 0;
}

static void cor_close(BlockDriverState *bs)
{
    CopyOnRead *s = bs->opaque;
    bdrv_unref(s->bottom);
}

static void cor_child_perm(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                           BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                           uint64_t *nperm, uint64_t *nshared)
{
    bdrv_default_perms(bs, c, role, reopen_queue, perm, shared, nperm, nshared);
    *nperm |= BLK_PERM_WRITE_UNCHANGED;
}

/* ---- reading ---------------------------------------------------------------------- */

/*
 * Whether the range's first *PNUM bytes come from a layer below TOP, down to BOTTOM: 1, 0, or
 * -errno.
 */
static int coroutine_fn comes_from_below(BlockDriverState *top, BlockDriverState *bottom,
                                         int64_t offset, int64_t bytes, int64_t *pnum)
{
    BlockDriverState *image = bdrv_skip_filters(top);
    int ret = bdrv_is_allocated(image, offset, bytes, pnum);

    if (ret == 0 && *pnum > 0 && image != bottom) {
        return bdrv_is_allocated_above(bdrv_filter_or_cow_bs(image), bottom, true, offset,
                                       *pnum, pnum);
    }
    if (*pnum == 0) {
        *pnum = bytes;          /* behind the end */
    }
    return MIN(ret, 0);
}

static int coroutine_fn read_down_to_bottom(BlockDriverState *bs, int64_t offset,
                                            int64_t bytes, QEMUIOVector *qiov,
                                            size_t qiov_offset)
{
    CopyOnRead *s = bs->opaque;

    while (bytes > 0) {
        int64_t n;
        int ret = comes_from_below(bs->file->bs, s->bottom, offset, bytes, &n);

        if (ret >= 0) {
            ret = bdrv_co_preadv_part(bs->file, offset, n, qiov, qiov_offset,
                                      ret ? BDRV_REQ_COPY_ON_READ : 0);
        }
        if (ret < 0) {
            return ret;
        }
        offset += n;
        bytes -= n;
        qiov_offset += n;
    }
    return 0;
}

static int coroutine_fn cor_co_preadv_part(BlockDriverState *bs, int64_t offset,
                                           int64_t bytes, QEMUIOVector *qiov,
                                           size_t qiov_offset, BdrvRequestFlags flags)
{
    CopyOnRead *s = bs->opaque;

    if (s->bottom) {
        return read_down_to_bottom(bs, offset, bytes, qiov, qiov_offset);
    }
    return bdrv_co_preadv_part(bs->file, offset, bytes, qiov, qiov_offset,
                               flags | BDRV_REQ_COPY_ON_READ);
}

static BlockDriver bdrv_copy_on_read = {
    .format_name = "copy-on-read",
    .instance_size = sizeof(CopyOnRead),
    .is_filter = true,
    .has_variable_length = true,
    .bdrv_open = cor_open,
    .bdrv_close = cor_close,
    .bdrv_child_perm = cor_child_perm,
    .bdrv_co_getlength = bdrv__filter_co_getlength,
    .bdrv_co_preadv_part = cor_co_preadv_part,
    .bdrv_co_pwritev_part = bdrv__filter_co_pwritev_part,
    .bdrv_co_pwritev_compressed_part = bdrv__filter_co_pwritev_compressed,
    .bdrv_co_pwrite_zeroes = bdrv__filter_co_pwrite_zeroes,
    .bdrv_co_pdiscard = bdrv__filter_co_pdiscard,
};

static void cor_driver_init(void)
{
    bdrv_register(&bdrv_copy_on_read);
}
block_init(cor_driver_init)
