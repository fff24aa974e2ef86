/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The block layer for authors of drivers: nodes, edges and the driver's table of calls. */
#ifndef MINIBLK_BLOCK_DRIVER_H
#define MINIBLK_BLOCK_DRIVER_H

#include "block.h"
#include "module.h"
#include "snapshot.h"

/* A node that is being reopened, for its driver. */
typedef struct BDRVReopenState {
    BlockDriverState *bs;
    int flags;                  /* BDRV_O_* to be */
    /*
     * All of the driver's options as they are to be. Prepare takes out those that it can
     * change; the others must be what they were.
     */
    QDict *options;
    void *opaque;               /* the driver's, from prepare on; freed by commit or abort */
} BDRVReopenState;

/*
 * A driver: a plain static structure. Every callback is Optional unless marked Required.
 * I/O callbacks run as coroutines in the node's context; the block layer has checked range
 * and permissions, aligned the request to bs->bl, and split it to the limits.
 */
struct BlockDriver {
    const char *format_name;            /* Required; the "driver" option's value */
    int instance_size;                  /* bytes of bs->opaque, zeroed; may be 0 */
    bool is_filter;                     /* shows its one filtered child's data unchanged */
    bool filtered_child_is_backing;     /* that child is bs->backing, not bs->file */
    bool is_format;                     /* has metadata of its own on bs->file */
    bool supports_backing;
    bool supports_multiqueue;           /* requests may come from several threads at once */
    bool has_variable_length;           /* ask .bdrv_co_getlength at each use */
    const char *protocol_name;          /* filename prefix; NULL for formats */

    /* Score 0..100 of how sure BUF (the image's first BUF_SIZE bytes) is this format. */
    int (*bdrv_probe)(const uint8_t *buf, int buf_size, const char *filename);
    int (*bdrv_probe_device)(const char *filename);
    /* Turn FILENAME (with prefix) into options. */
    void (*bdrv_parse_filename)(const char *filename, QDict *options, Error **errp);

    /*
     * Open. Take the known keys out of OPTIONS; what is left is an error. FLAGS: BDRV_O_*.
     * Set bs->total_sectors (or provide getlength). On failure release everything; close is
     * not called. Main thread, not in a coroutine, may poll. bdrv_file_open is the same for
     * protocol drivers.
     */
    int (*bdrv_open)(BlockDriverState *bs, QDict *options, int flags, Error **errp);
    int (*bdrv_file_open)(BlockDriverState *bs, QDict *options, int flags, Error **errp);
    /* Called in a drained section; children are detached afterwards by the block layer. */
    void (*bdrv_close)(BlockDriverState *bs);

    /*
     * Reopen with other options and flags; see BDRVReopenState. Main thread; the node is
     * drained. Prepare does all that can fail, and changes nothing that cannot be undone: it
     * may poll. Then, if it has not failed, exactly one of commit, which may not poll, and
     * abort, which may. Without prepare a node cannot be reopened. Commit_post comes when all
     * nodes have been committed and may poll.
     */
    int (*bdrv_reopen_prepare)(BDRVReopenState *reopen_state, BlockReopenQueue *queue,
                               Error **errp);
    void (*bdrv_reopen_commit)(BDRVReopenState *reopen_state);
    void (*bdrv_reopen_commit_post)(BDRVReopenState *reopen_state);
    void (*bdrv_reopen_abort)(BDRVReopenState *reopen_state);
    /*
     * The image is handed over to somebody else: write back everything. / It is ours again:
     * what was known of its contents may be wrong. Main thread, drained; may poll.
     */
    int (*bdrv_inactivate)(BlockDriverState *bs);
    int (*bdrv_invalidate_cache)(BlockDriverState *bs, Error **errp);
    /* Options that a reopen may leave out to have the default again, NULL-terminated. */
    const char *const *mutable_opts;

    /* Make an image. OPTS: strings by option name; take the known ones out. */
    int coroutine_fn (*bdrv_co_create_opts)(BlockDriver *drv, const char *filename,
                                            QDict *opts, Error **errp);
    /* Names of the create options, NULL-terminated. */
    const char *const *create_opts;

    /* Recompute bs->filename / bs->exact_filename. */
    void (*bdrv_refresh_filename)(BlockDriverState *bs);
    /* Set the fields of bs->bl that differ from the defaults (merged from the children). */
    void (*bdrv_refresh_limits)(BlockDriverState *bs, Error **errp);

    /* Exactly one of a _part and its plain variant. */
    int coroutine_fn (*bdrv_co_preadv)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       QEMUIOVector *qiov, BdrvRequestFlags flags);
    int coroutine_fn (*bdrv_co_preadv_part)(BlockDriverState *bs, int64_t offset,
                                            int64_t bytes, QEMUIOVector *qiov,
                                            size_t qiov_offset, BdrvRequestFlags flags);
    int coroutine_fn (*bdrv_co_pwritev)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        QEMUIOVector *qiov, BdrvRequestFlags flags);
    int coroutine_fn (*bdrv_co_pwritev_part)(BlockDriverState *bs, int64_t offset,
                                             int64_t bytes, QEMUIOVector *qiov,
                                             size_t qiov_offset, BdrvRequestFlags flags);
    /* -ENOTSUP: the block layer writes buffers of zeroes instead. */
    int coroutine_fn (*bdrv_co_pwrite_zeroes)(BlockDriverState *bs, int64_t offset,
                                              int64_t bytes, BdrvRequestFlags flags);
    /* Advisory; -ENOTSUP counts as success. */
    int coroutine_fn (*bdrv_co_pdiscard)(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes);
    int coroutine_fn (*bdrv_co_pwritev_compressed)(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, QEMUIOVector *qiov);
    int coroutine_fn (*bdrv_co_pwritev_compressed_part)(BlockDriverState *bs, int64_t offset,
                                                   int64_t bytes, QEMUIOVector *qiov,
                                                   size_t qiov_offset);
    /*
     * See bdrv_co_copy_range_from(). "From" is asked of the source's drivers: whoever has the
     * data in a child passes on to it, the last one turns to the target by
     * bdrv_co_copy_range_to(). "To" is asked of the target's drivers in the same way.
     */
    int coroutine_fn (*bdrv_co_copy_range_from)(BlockDriverState *bs, BdrvChild *src,
                                                int64_t src_offset, BdrvChild *dst,
                                                int64_t dst_offset, int64_t bytes,
                                                BdrvRequestFlags read_flags,
                                                BdrvRequestFlags write_flags);
    int coroutine_fn (*bdrv_co_copy_range_to)(BlockDriverState *bs, BdrvChild *src,
                                              int64_t src_offset, BdrvChild *dst,
                                              int64_t dst_offset, int64_t bytes,
                                              BdrvRequestFlags read_flags,
                                              BdrvRequestFlags write_flags);
    /* See bdrv_block_status(); without it everything is allocated data. */
    int coroutine_fn (*bdrv_co_block_status)(BlockDriverState *bs, bool want_zero,
                                             int64_t offset, int64_t bytes, int64_t *pnum,
                                             int64_t *map, BlockDriverState **file);
    /* All of a flush by itself, children included. */
    int coroutine_fn (*bdrv_co_flush)(BlockDriverState *bs);
    /* Write back internal caches to the children, which the block layer flushes next. */
    int coroutine_fn (*bdrv_co_flush_to_os)(BlockDriverState *bs);
    /* Flush what the host caches of this node itself. */
    int coroutine_fn (*bdrv_co_flush_to_disk)(BlockDriverState *bs);
    int coroutine_fn (*bdrv_co_truncate)(BlockDriverState *bs, int64_t offset, bool exact,
                                         PreallocMode prealloc, BdrvRequestFlags flags,
                                         Error **errp);
    /* Delete what it stores in, if its name still stands for that; bdrv_co_delete_file(). */
    int coroutine_fn (*bdrv_co_delete_file)(BlockDriverState *bs, Error **errp);
    int64_t coroutine_fn (*bdrv_co_getlength)(BlockDriverState *bs);
    int64_t coroutine_fn (*bdrv_co_get_allocated_file_size)(BlockDriverState *bs);
    int coroutine_fn (*bdrv_co_get_info)(BlockDriverState *bs, BlockDriverInfo *bdi);
    /* "format-specific" of image info as {"type": ..., "data": {...}}; NULL for none. */
    json_t *(*bdrv_get_specific_info)(BlockDriverState *bs);
    int coroutine_fn (*bdrv_co_check)(BlockDriverState *bs, BdrvCheckResult *result,
                                      BdrvCheckMode fix);
    int (*bdrv_change_backing_file)(BlockDriverState *bs, const char *backing_file,
                                    const char *backing_fmt);
    /* See bdrv_make_empty(). Main thread, drained; may poll. */
    int (*bdrv_make_empty)(BlockDriverState *bs);

    /* Names of the options that .bdrv_amend_options knows, NULL-terminated. */
    const char *const *amend_opts;
    /* See bdrv_amend_options(). Take the known keys out of OPTS. */
    int (*bdrv_amend_options)(BlockDriverState *bs, QDict *opts,
                              BlockDriverAmendStatusCB *status_cb, void *cb_opaque,
                              bool force, Error **errp);

    /*
     * Internal snapshots, see snapshot.h: all or none, load_tmp optional. Main thread, not in a
     * coroutine; the node is drained (but for list) and, for the first three, writable.
     */
    int (*bdrv_snapshot_create)(BlockDriverState *bs, QEMUSnapshotInfo *sn_info);
    int (*bdrv_snapshot_goto)(BlockDriverState *bs, const char *snapshot_id);
    int (*bdrv_snapshot_delete)(BlockDriverState *bs, const char *snapshot_id,
                                const char *name, Error **errp);
    int (*bdrv_snapshot_list)(BlockDriverState *bs, QEMUSnapshotInfo **psn_info);
    int (*bdrv_snapshot_load_tmp)(BlockDriverState *bs, const char *snapshot_id,
                                  const char *name, Error **errp);

    /* Bitmaps kept in the image, see dirty-bitmap.h: all or none. */
    bool (*bdrv_supports_persistent_dirty_bitmap)(BlockDriverState *bs);
    bool coroutine_fn (*bdrv_co_can_store_new_dirty_bitmap)(BlockDriverState *bs,
                                                            const char *name,
                                                            uint32_t granularity,
                                                            Error **errp);
    int coroutine_fn (*bdrv_co_remove_persistent_dirty_bitmap)(BlockDriverState *bs,
                                                               const char *name,
                                                               Error **errp);

    /*
     * What the node needs of edge C and shares on it, given what its own parents need and
     * share. Without it: bdrv_default_perms(). C may be NULL: an edge yet to be made.
     */
    void (*bdrv_child_perm)(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                            BlockReopenQueue *reopen_queue, uint64_t parent_perm,
                            uint64_t parent_shared, uint64_t *nperm, uint64_t *nshared);
    /* The cumulative permissions of all parents are about to change; may refuse. */
    int (*bdrv_check_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared,
                           Error **errp);
    void (*bdrv_set_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared);
    void (*bdrv_abort_perm_update)(BlockDriverState *bs);

    /* Main thread, drained, lock of the old / new context held; may not poll. */
    void (*bdrv_detach_aio_context)(BlockDriverState *bs);
    void (*bdrv_attach_aio_context)(BlockDriverState *bs, AioContext *new_context);

    /*
     * Main thread, may not poll; called when the quiesce counter goes 0->1 and 1->0, always
     * in pairs between open and close. (A node that is opened or closed while drained is
     * told so at that moment.)
     */
    void (*bdrv_drain_begin)(BlockDriverState *bs);
    void (*bdrv_drain_end)(BlockDriverState *bs);

    int coroutine_fn (*bdrv_co_save_vmstate)(BlockDriverState *bs, QEMUIOVector *qiov,
                                             int64_t pos);
    int coroutine_fn (*bdrv_co_load_vmstate)(BlockDriverState *bs, QEMUIOVector *qiov,
                                             int64_t pos);

    /*
     * The requests of this node's parents, and the node's own, have come to EVENT; it may
     * yield. And breakpoints, see block-debug.h: all four or none.
     */
    void coroutine_fn (*bdrv_co_debug_event)(BlockDriverState *bs, BlkdebugEvent event);
    int (*bdrv_debug_breakpoint)(BlockDriverState *bs, const char *event, const char *tag);
    int (*bdrv_debug_remove_breakpoint)(BlockDriverState *bs, const char *tag);
    int (*bdrv_debug_resume)(BlockDriverState *bs, const char *tag);
    bool (*bdrv_debug_is_suspended)(BlockDriverState *bs, const char *tag);

    QLIST_ENTRY(BlockDriver) list;      /* of registered drivers; block/driver.c */
};

/* How an edge's parent takes part in the life of its child. All Optional. GS. */
struct BdrvChildClass {
    bool stay_at_node;          /* bdrv_replace_node() does not re-point this edge */
    bool parent_is_bds;         /* OPAQUE is a BlockDriverState */
    /* Newly allocated description of the parent for messages. */
    char *(*get_parent_desc)(BdrvChild *child);
    const char *(*get_name)(BdrvChild *child);
    /* Stop starting requests; must not poll. Called once per edge and drained section. */
    void (*drained_begin)(BdrvChild *child);
    void (*drained_end)(BdrvChild *child);
    /* Whether the parent still has requests in flight or about to start. Must not poll. */
    bool (*drained_poll)(BdrvChild *child);
    void (*attach)(BdrvChild *child);
    void (*detach)(BdrvChild *child);
    int (*update_filename)(BdrvChild *child, BlockDriverState *new_base,
                           const char *filename, Error **errp);
    /* The child is about to move to CTX: add the parent's part to TRAN or refuse. */
    bool (*change_aio_ctx)(BdrvChild *child, AioContext *ctx, GHashTable *visited,
                           Transaction *tran, Error **errp);
    AioContext *(*get_parent_aio_context)(BdrvChild *child);
    /* The child's length has changed. */
    void (*resize)(BdrvChild *child);
};
/* The edge class for parents that are nodes. */
extern const BdrvChildClass child_of_bds;

/* An edge. Fields are written by block/graph.c unless noted. */
struct BdrvChild {
    BlockDriverState *bs;
    char *name;
    const BdrvChildClass *klass;
    BdrvChildRole role;
    void *opaque;               /* the parent */
    uint64_t perm;              /* atomic; written by block/perm.c */
    uint64_t shared_perm;       /* written by block/perm.c */
    unsigned refcnt;            /* the graph's, and one of each who waits in between */
    bool frozen;                /* may not be re-pointed or taken out; block/replace.c */
    bool quiesced_parent;       /* the parent has been told drained_begin for this edge;
                                   written by block/drain.c */
    QLIST_ENTRY(BdrvChild) next;        /* in the parent node's children */
    QLIST_ENTRY(BdrvChild) next_parent; /* in the child's parents */
};

typedef struct BdrvTrackedRequest BdrvTrackedRequest;
typedef struct BdrvAioNotifier BdrvAioNotifier;
typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;

/* A node. */
struct BlockDriverState {
    /* fixed after open; block/node.c, block/open.c */
    BlockDriver *drv;           /* NULL before open and after close */
    void *opaque;               /* instance_size bytes for the driver */
    int open_flags;             /* BDRV_O_* in force */
    int explicit_flags;         /* those that the node's own options have set or cleared */
    char node_name[32];
    char *filename;             /* for messages; see bdrv_refresh_filename() */
    char *exact_filename;       /* what a plain filename would open again; "" if none */
    char *backing_file;         /* as recorded in the image; "" if none; by the driver */
    char *backing_format;       /* the same; "" if unknown */
    QDict *options;             /* effective runtime options, child options nested */
    bool probed;                /* format was guessed, not given */
    bool force_share;
    BlockDriverState *implicit_file;    /* during open only: the probed protocol layer */
    int detect_zeroes;          /* 0 off, 1 on, 2 unmap */

    uint64_t serial;            /* no two nodes ever have the same; block/node.c */
    uint64_t opened_by;         /* serial of the parent that this node was opened along with,
                                   and whose flags it follows; 0: none; block/open*.c */

    int refcnt;                 /* main thread; block/node.c */
    bool monitor_owned;         /* blockdev-add'ed; qmp layer */
    AioContext *aio_context;    /* block/context.c */
    QLIST_HEAD(, BdrvChild) children;   /* newest first; block/graph.c */
    QLIST_HEAD(, BdrvChild) parents;    /* newest first; block/graph.c */
    BdrvChild *backing;         /* block/graph.c */
    BdrvChild *file;            /* block/graph.c */
    uint64_t cum_perm, cum_shared;      /* of all parents; block/perm.c */
    unsigned height;            /* edges on the longest way down; block/graph.c */

    /* filled by the driver */
    int64_t total_sectors;      /* length, for drivers without has_variable_length */
    BlockLimits bl;
    unsigned supported_read_flags, supported_write_flags, supported_zero_flags,
             supported_truncate_flags; /* BDRV_REQ_* the driver handles itself */

    /* block/drain.c */
    unsigned int in_flight;     /* atomic; tokens */
    int quiesce_counter;        /* atomic; written by the main thread */
    unsigned drain_all_levels;  /* of these, how many are for bdrv_drain_all sections */
    bool driver_open;           /* the driver may be told of sections */
    bool driver_drained;        /* it has been told of one that has not ended */
    bool at_rest;               /* atomic; a look inside the section in force has found nothing
                                   in flight here or above: what comes now has slipped in */

    /* block/tracked.c */
    QemuMutex reqs_lock;
    QLIST_HEAD(, BdrvTrackedRequest) tracked_requests;
    unsigned serialising_in_flight;     /* atomic */

    /* block/request.c: flushes are merged; atomic */
    CoMutex flush_lock;
    unsigned write_gen;         /* number of writes completed so far */
    unsigned flushed_gen;       /* write_gen as of the last successful flush */

    /* block/dirty-bitmap.c */
    QLIST_HEAD(, BdrvDirtyBitmap) dirty_bitmaps;    /* changed in the main thread, locked */
    GHashTable *dirty_bitmap_names;     /* name -> bitmap; NULL: none ever had one */
    bool has_dirty_bitmaps;     /* atomic: there are any */
    QemuMutex dirty_bitmap_lock;        /* protects them and their bits */
    uint64_t write_threshold_bytes;     /* atomic; block/write-threshold.c */

    QLIST_HEAD(, BdrvAioNotifier) aio_notifiers;    /* block/context.c */
    QTAILQ_ENTRY(BlockDriverState) node_list;       /* all named nodes; block/node.c */
    QTAILQ_ENTRY(BlockDriverState) all_list;        /* all nodes; block/node.c */
};

/* The stock .bdrv_child_perm: filter, COW and image rules by role. */
void bdrv_default_perms(BlockDriverState *bs, BdrvChild *c, BdrvChildRole role,
                        BlockReopenQueue *reopen_queue, uint64_t perm, uint64_t shared,
                        uint64_t *nperm, uint64_t *nshared);

/* ---- debug events ----------------------------------------------------------------- */

void coroutine_mixed_fn bdrv__report_event(BlockDriverState *bs, BlkdebugEvent event);
/*
 * Tell BS, which may be a "blkdebug" node, what a request to it is about to do. Costs two loads
 * when it is not one. mixed.
 */
static inline void coroutine_mixed_fn bdrv_debug_event(BlockDriverState *bs,
                                                       BlkdebugEvent event)
{
    if (unlikely(bs->drv && bs->drv->bdrv_co_debug_event)) {
        bdrv__report_event(bs, event);
    }
}
/* The same by edge (may be NULL), for drivers. */
#define BLKDBG_EVENT(child, event)                                              \
    do {                                                                        \
        if (child) {                                                            \
            bdrv_debug_event((child)->bs, event);                               \
        }                                                                       \
    } while (0)

#endif
