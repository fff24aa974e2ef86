/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The life of a node: making, naming, finding, references, closing. */
#include "block/block-internal.h"
#include "miniblk/id.h"
#include "miniblk/block-backend.h"
#include "miniblk/dirty-bitmap.h"

static QTAILQ_HEAD(, BlockDriverState) all_nodes = QTAILQ_HEAD_INITIALIZER(all_nodes);
static QTAILQ_HEAD(, BlockDriverState) named_nodes = QTAILQ_HEAD_INITIALIZER(named_nodes);
static GHashTable *by_name;     /* the same nodes; keys are their node_name */

BlockDriverState *bdrv__new(void)
{
    static uint64_t last_serial;

    GLOBAL_STATE_CODE();
    BlockDriverState *bs = g_new0(BlockDriverState, 1);

    bs->refcnt = 1;
    bs->serial = ++last_serial;
    bs->aio_context = qemu_get_aio_context();
    bs->filename = g_strdup("");
    bs->exact_filename = g_strdup("");
    bs->backing_file = g_strdup("");
    bs->backing_format = g_strdup("");
    bs->cum_shared = BLK_PERM_ALL;
    bs->bl.request_alignment = 1;
    QLIST_INIT(&bs->children);
    QLIST_INIT(&bs->parents);
    QLIST_INIT(&bs->tracked_requests);
    QLIST_INIT(&bs->aio_notifiers);
    qemu_mutex_init(&bs->reqs_lock);
    qemu_co_mutex_init(&bs->flush_lock);
    QTAILQ_INSERT_TAIL(&all_nodes, bs, all_list);
    bdrv__drain_all_join(bs);
    return bs;
}

/* ---- names -------------------------------------------------------------------------------- */

static void generate_name(char *name, size_t size)
{
    static unsigned counter;
    do {
        snprintf(name, size, "#block%03u", counter++);
    } while (bdrv_find_node(name));
}

static bool is_backend_name(const char *name)
{
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (!strcmp(blk_name(blk), name)) {
            return true;
        }
    }
    return false;
}

int bdrv__set_node_name(BlockDriverState *bs, const char *node_name, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (!node_name) {
        generate_name(bs->node_name, sizeof(bs->node_name));
    } else if (!id_wellformed(node_name)) {
        error_setg(errp, "Invalid node-name: '%s'", node_name);
        return -EINVAL;
    } else if (is_backend_name(node_name)) {
        error_setg(errp, "node-name=%s is conflicting with a device id", node_name);
        return -EINVAL;
    } else if (bdrv_find_node(node_name)) {
        error_setg(errp, "Duplicate nodes with node-name='%s'", node_name);
        return -EINVAL;
    } else if (strlen(node_name) >= sizeof(bs->node_name)) {
        error_setg(errp, "Node name too long");
        return -EINVAL;
    } else {
        g_strlcpy(bs->node_name, node_name, sizeof(bs->node_name));
    }
    QTAILQ_INSERT_TAIL(&named_nodes, bs, node_list);
    if (!by_name) {
        by_name = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_hash_table_insert(by_name, bs->node_name, bs);
    port_note(PORT_NOTE_NAME, bs, "node '%s'", bs->node_name);
    port_note(PORT_NOTE_NAME, &bs->in_flight, "in_flight of '%s'", bs->node_name);
    port_note(PORT_NOTE_NAME, &bs->quiesce_counter, "quiesce_counter of '%s'", bs->node_name);
    return 0;
}

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_get_device_or_node_name(const BlockDriverState *bs)
{
    BdrvChild *c;
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        const char *name = c->klass->get_name ? c->klass->get_name(c) : NULL;
        if (name && *name) {
            return name;
        }
    }
    return bs->node_name;
}

/* ---- finding ------------------------------------------------------------------------------ */

BlockDriverState *bdrv_find_node(const char *node_name)
{
    GLOBAL_STATE_CODE();
    return by_name ? g_hash_table_lookup(by_name, node_name) : NULL;
}

BlockDriverState *bdrv_lookup_bs(const char *device, const char *node_name, Error **errp)
{
    BlockDriverState *bs = NULL;

    if (device) {
        for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
            if (*device && !strcmp(blk_name(blk), device)) {
                bs = blk_bs(blk);
                if (!bs) {
                    error_setg(errp, "Device '%s' has no medium", device);
                    return NULL;
                }
            }
        }
    }
    if (!bs && node_name) {
        bs = bdrv_find_node(node_name);
    }
    if (!bs) {
        error_setg(errp, "Cannot find device='%s' nor node-name='%s'",
                   device ? device : "", node_name ? node_name : "");
    }
    return bs;
}

BlockDriverState *bdrv_next_node(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    return bs ? QTAILQ_NEXT(bs, node_list) : QTAILQ_FIRST(&named_nodes);
}

BlockDriverState *bdrv__next_any(BlockDriverState *bs)
{
    return bs ? QTAILQ_NEXT(bs, all_list) : QTAILQ_FIRST(&all_nodes);
}

BlockDriverState *bdrv_next_monitor_owned(BlockDriverState *bs)
{
    do {
        bs = bdrv_next_node(bs);
    } while (bs && !bs->monitor_owned);
    return bs;
}

/* ---- references and closing ------------------------------------------------------------------ */

void bdrv_ref(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    bs->refcnt++;
}

/* Close BS; the references it had on its children are added to CHILDREN. */
static void close_node(BlockDriverState *bs, GPtrArray *children)
{
    BdrvChild *child;
    AioContext *ctx = bs->aio_context;

    aio_context_acquire(ctx);
    bdrv_drained_begin(bs);
    if (bs->drv && !bdrv_is_read_only(bs)) {
        bdrv_flush(bs);         /* an error was reported to whoever wrote and flushed */
    }
    g_assert(QLIST_EMPTY(&bs->parents));
    bdrv__driver_closed(bs);
    if (bs->drv && bs->drv->bdrv_close) {
        bs->drv->bdrv_close(bs);        /* stores the bitmaps that are kept in the image */
    }
    bdrv_release_named_dirty_bitmaps(bs);
    while ((child = QLIST_FIRST(&bs->children))) {
        BlockDriverState *child_bs = bdrv__detach_child(bs, child);
        if (child_bs) {
            g_ptr_array_add(children, child_bs);
        }
    }
    g_assert(!bs->file && !bs->backing);
    bdrv_drained_end(bs);
    bdrv__drain_all_leave(bs);
    aio_context_release(ctx);
}

static void free_node(BlockDriverState *bs)
{
    g_assert(QLIST_EMPTY(&bs->parents) && QLIST_EMPTY(&bs->children));
    g_assert(QLIST_EMPTY(&bs->tracked_requests) && QLIST_EMPTY(&bs->aio_notifiers));
    g_assert(!qatomic_read(&bs->in_flight) && !bs->quiesce_counter);

    if (bs->node_name[0]) {
        QTAILQ_REMOVE(&named_nodes, bs, node_list);
        g_hash_table_remove(by_name, bs->node_name);
    }
    QTAILQ_REMOVE(&all_nodes, bs, all_list);
    g_free(bs->opaque);
    g_free(bs->filename);
    g_free(bs->exact_filename);
    g_free(bs->backing_file);
    g_free(bs->backing_format);
    json_decref(bs->options);
    g_assert(QLIST_EMPTY(&bs->dirty_bitmaps));
    g_clear_pointer(&bs->dirty_bitmap_names, g_hash_table_unref);
    qemu_mutex_destroy(&bs->dirty_bitmap_lock);
    qemu_mutex_destroy(&bs->reqs_lock);
    g_free(bs);
}

/*
 * A node that is closed gives up its children, which may be closed in turn: chains are long,
 * so this is a loop.
 */
void no_coroutine_fn bdrv_unref(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    if (!bs) {
        return;
    }
    g_assert(bs->refcnt > 0);
    if (bs->refcnt > 1) {
        bs->refcnt--;
        return;
    }
    g_autoptr(GPtrArray) dropped = g_ptr_array_new();
    g_ptr_array_add(dropped, bs);
    while (dropped->len) {
        bs = g_ptr_array_steal_index(dropped, dropped->len - 1);
        g_assert(bs->refcnt > 0);
        if (bs->refcnt > 1) {
            bs->refcnt--;
            continue;
        }
        /*
         * Closing polls, and what runs then may take and drop references of its own: ours
         * keeps the count from reaching zero a second time.
         */
        close_node(bs, dropped);
        g_assert(bs->refcnt == 1);
        free_node(bs);
    }
}

void bdrv_close_all(void)
{
    BlockDriverState *bs;

    GLOBAL_STATE_CODE();
    bdrv_drain_all();
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (blk_bs(blk)) {
            blk_remove_bs(blk);
        }
    }
    while ((bs = bdrv_next_monitor_owned(NULL))) {
        bs->monitor_owned = false;
        bdrv_unref(bs);
    }
}

/* ---- simple questions ------------------------------------------------------------------------ */

bool bdrv_is_read_only(BlockDriverState *bs)
{
    return !(bs->open_flags & BDRV_O_RDWR);
}

bool bdrv_is_writable(BlockDriverState *bs)
{
    return (bs->open_flags & (BDRV_O_RDWR | BDRV_O_INACTIVE)) == BDRV_O_RDWR;
}

bool bdrv_is_inserted(BlockDriverState *bs)
{
    return bs->drv;
}

int bdrv_get_flags(BlockDriverState *bs)
{
    return bs->open_flags;
}

bool bdrv_has_blk_parent(BlockDriverState *bs)
{
    BdrvChild *c;
    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (!c->klass->parent_is_bds) {
            return true;
        }
    }
    return false;
}

AioContext *bdrv_get_aio_context(BlockDriverState *bs)
{
    return bs ? qatomic_read(&bs->aio_context) : qemu_get_aio_context();
}
