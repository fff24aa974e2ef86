/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* query-named-block-nodes: what there is to know about every node. */
#include "miniblk/osdep.h"
#include "miniblk/block-driver.h"
#include "miniblk/dirty-bitmap.h"
#include "miniblk/iothread.h"
#include "miniblk/write-threshold.h"
#include "qmp/dispatch.h"

static void put_size(json_t *info, const char *key, int64_t bytes)
{
    if (bytes >= 0) {
        qdict_put_int(info, key, bytes);
    }
}

static void put_text(json_t *info, const char *key, const char *text)
{
    if (text && *text) {
        qdict_put_str(info, key, text);
    }
}

static void put_driver_info(json_t *info, BlockDriverState *bs)
{
    BlockDriverInfo bdi = { 0 };

    if (bdrv_get_info(bs, &bdi) < 0) {
        return;
    }
    if (bdi.cluster_size) {
        qdict_put_int(info, "cluster-size", bdi.cluster_size);
    }
    qdict_put_bool(info, "dirty-flag", bdi.is_dirty);
}

/* Without FLAT the images of the backing chain are nested. */
static json_t *image_info(BlockDriverState *bs, bool flat)
{
    json_t *info = json_object();
    BlockDriverState *backing = bdrv_cow_bs(bs);
    json_t *specific;

    qdict_put_str(info, "filename", bs->filename);
    qdict_put_str(info, "format", bs->drv->format_name);
    put_driver_info(info, bs);
    put_size(info, "actual-size", bdrv_get_allocated_file_size(bs));
    put_size(info, "virtual-size", bdrv_getlength(bs));
    put_text(info, "backing-filename", bs->backing_file);
    put_text(info, "full-backing-filename", backing ? backing->filename : NULL);
    put_text(info, "backing-filename-format", bs->backing_format);
    if (backing && backing->drv && !flat) {
        json_object_set_new(info, "backing-image", image_info(backing, flat));
    }
    specific = bs->drv->bdrv_get_specific_info ? bs->drv->bdrv_get_specific_info(bs) : NULL;
    if (specific) {
        json_object_set_new(info, "format-specific", specific);
    }
    return info;
}

static int backing_depth(BlockDriverState *bs)
{
    int depth = 0;

    while ((bs = bdrv_cow_bs(bs))) {
        depth++;
    }
    return depth;
}

static void put_limits(json_t *info)
{
    /* Clients expect the fields; there is no throttling in a node. */
    static const char *const fields[] = {
        "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"
    };

    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        qdict_put_int(info, fields[i], 0);
    }
}

static json_t *cache_info(int flags)
{
    return json_pack("{s:b, s:b, s:b}", "writeback", true,
                     "direct", !!(flags & BDRV_O_NOCACHE),
                     "no-flush", !!(flags & BDRV_O_NO_FLUSH));
}

static json_t *node_info(BlockDriverState *bs, bool flat)
{
    static const char *const detect_zeroes[] = { "off", "on", "unmap" };
    IOThread *iothread = iothread_by_aio_context(bdrv_get_aio_context(bs));
    BlockDriverState *backing = bdrv_cow_bs(bs);
    json_t *info = json_object();

    qdict_put_str(info, "file", bs->filename);
    qdict_put_str(info, "node-name", bdrv_get_node_name(bs));
    qdict_put_bool(info, "ro", bdrv_is_read_only(bs));
    qdict_put_str(info, "drv", bs->drv->format_name);
    put_text(info, "backing_file", backing ? backing->filename : NULL);
    qdict_put_int(info, "backing_file_depth", backing_depth(bs));
    qdict_put_bool(info, "encrypted", false);
    qdict_put_str(info, "detect_zeroes",
                  detect_zeroes[CLAMP(bs->detect_zeroes, 0, 2)]);
    put_limits(info);
    json_object_set_new(info, "image", image_info(bs, flat));
    json_object_set_new(info, "cache", cache_info(bdrv_get_flags(bs)));
    qdict_put_int(info, "write_threshold", bdrv_write_threshold_get(bs));
    json_t *bitmaps = bdrv_query_dirty_bitmaps(bs);
    if (bitmaps) {
        json_object_set_new(info, "dirty-bitmaps", bitmaps);
    }
    if (iothread) {
        g_autofree char *id = iothread_get_id(iothread);
        qdict_put_str(info, "iothread", id);
    }
    return info;
}

static json_t *cmd_query_named_block_nodes(json_t *args, Error **errp)
{
    bool flat = json_is_true(json_object_get(args, "flat"));
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    json_t *list = json_array();

    /* Asking drivers polls, and the list of nodes may change meanwhile: hold them all. */
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        bdrv_ref(bs);
        g_ptr_array_add(nodes, bs);
    }
    for (guint i = 0; i < nodes->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(nodes, i);
        AioContext *ctx = bdrv_get_aio_context(bs);

        aio_context_acquire(ctx);
        if (bs->drv) {
            json_array_append_new(list, node_info(bs, flat));
        }
        aio_context_release(ctx);
    }
    for (guint i = 0; i < nodes->len; i++) {
        bdrv_unref(g_ptr_array_index(nodes, i));
    }
    return list;
}

const QmpCommand qmp_commands_query_nodes[] = {
    { "query-named-block-nodes", "{flat?:bool}", cmd_query_named_block_nodes },
    { NULL }
};
