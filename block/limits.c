/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A node's limits, lengths, memory and name, as they follow from driver and children. */
#include "block/block-internal.h"
#include "block/json-write.h"

/* The parent must keep to what each child that carries its requests demands. */
static void merge_limits(BlockLimits *to, const BlockLimits *from)
{
    if (from->max_transfer) {
        to->max_transfer = to->max_transfer ? MIN(to->max_transfer, from->max_transfer)
                                            : from->max_transfer;
    }
    to->opt_transfer = MAX(to->opt_transfer, from->opt_transfer);
    to->min_mem_alignment = MAX(to->min_mem_alignment, from->min_mem_alignment);
    to->opt_mem_alignment = MAX(to->opt_mem_alignment, from->opt_mem_alignment);
    to->max_iov = to->max_iov && from->max_iov ? MIN(to->max_iov, from->max_iov)
                                               : MAX(to->max_iov, from->max_iov);
}

void bdrv_refresh_limits(BlockDriverState *bs, Transaction *tran, Error **errp)
{
    ERRP_GUARD();
    BdrvChild *c;

    GLOBAL_STATE_CODE();
    memset(&bs->bl, 0, sizeof(bs->bl));
    bs->bl.request_alignment = 1;
    bs->bl.min_mem_alignment = 1;
    if (!bs->drv) {
        return;
    }
    if (!bs->drv->bdrv_co_preadv && !bs->drv->bdrv_co_preadv_part) {
        bs->bl.request_alignment = BDRV_SECTOR_SIZE;
    }
    QLIST_FOREACH(c, &bs->children, next) {
        if (c->role & (BDRV_CHILD_DATA | BDRV_CHILD_FILTERED | BDRV_CHILD_COW)) {
            merge_limits(&bs->bl, &c->bs->bl);
        }
    }
    if (!bs->bl.opt_mem_alignment) {
        bs->bl.opt_mem_alignment = sysconf(_SC_PAGESIZE);
    }
    if (bs->drv->bdrv_refresh_limits) {
        bs->drv->bdrv_refresh_limits(bs, errp);
        if (*errp) {
            return;
        }
    }
    uint32_t align = bs->bl.request_alignment;
    if (!align || (align & (align - 1)) || align > BDRV_MAX_ALIGNMENT) {
        error_setg(errp, "Driver '%s' returned invalid request alignment %" PRIu32,
                   bs->drv->format_name, align);
    }
}

/* ---- length --------------------------------------------------------------------------------------- */

int coroutine_fn bdrv__co_refresh_total_sectors(BlockDriverState *bs)
{
    if (!bs->drv) {
        return -ENOMEDIUM;
    }
    if (bs->drv->bdrv_co_getlength) {
        int64_t length = bs->drv->bdrv_co_getlength(bs);
        if (length < 0) {
            return length;
        }
        if (length > BDRV_MAX_LENGTH) {
            return -EFBIG;
        }
        bs->total_sectors = DIV_ROUND_UP(length, (int64_t)BDRV_SECTOR_SIZE);
    } else if (bs->drv->is_filter && bdrv_filter_bs(bs)) {
        bs->total_sectors = bdrv_filter_bs(bs)->total_sectors;
    }
    return 0;
}

/* ---- memory --------------------------------------------------------------------------------------- */

static size_t mem_alignment(BlockDriverState *bs)
{
    size_t opt = bs && bs->drv ? bs->bl.opt_mem_alignment : 0;
    return opt ? opt : (size_t)sysconf(_SC_PAGESIZE);
}

void *qemu_blockalign(BlockDriverState *bs, size_t size)
{
    return qemu_memalign(mem_alignment(bs), size);
}

void *qemu_try_blockalign(BlockDriverState *bs, size_t size)
{
    return qemu_try_memalign(mem_alignment(bs), size);
}

void *qemu_try_blockalign0(BlockDriverState *bs, size_t size)
{
    void *mem = qemu_try_blockalign(bs, size);
    return mem ? memset(mem, 0, size) : NULL;
}

/* ---- name ------------------------------------------------------------------------------------------ */

/* The options that make this node again, children nested: what a json: filename holds. */
static json_t *full_options(BlockDriverState *bs)
{
    json_t *opts = json_object(), *value;
    const char *key;
    BdrvChild *c;

    json_object_set_new(opts, "driver", json_string(bs->drv->format_name));
    json_object_foreach(bs->options, key, value) {
        if (strcmp(key, "node-name") && strcmp(key, "driver")) {
            json_object_set(opts, key, value);
        }
    }
    QLIST_FOREACH(c, &bs->children, next) {
        if (!(c->role & BDRV_CHILD_COW)) {
            json_object_set_new(opts, c->name, full_options(c->bs));
        }
    }
    return opts;
}

static void set_string(char **field, const char *value)
{
    g_free(*field);
    *field = g_strdup(value);
}

void bdrv_refresh_filename(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    if (!bs->drv) {
        return;
    }
    if (bs->drv->bdrv_refresh_filename) {
        bs->drv->bdrv_refresh_filename(bs);
    } else if (bs->file && !bs->drv->is_filter && bs->file->bs->exact_filename[0]) {
        /* a format on a plain file opens again by that file's name */
        set_string(&bs->exact_filename, bs->file->bs->exact_filename);
    }
    if (bs->exact_filename[0]) {
        set_string(&bs->filename, bs->exact_filename);
    } else {
        json_t *opts = full_options(bs);
        GString *text = g_string_new("json:");
        json_write(text, opts, false, 0);
        json_decref(opts);
        g_free(bs->filename);
        bs->filename = g_string_free(text, FALSE);
    }
}
