/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 driver: open, close, information, and the table of calls. */
#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "images/qcow2-manage.h"

static int qcow2_probe(const uint8_t *buf, int buf_size, const char *filename)
{
    static const uint8_t magic[4] = { 'Q', 'F', 'I', 0xfb };
    uint32_t version;

    if (buf_size < 8 || memcmp(buf, magic, sizeof(magic)) != 0) {
        return 0;
    }
    memcpy(&version, buf + 4, sizeof(version));
    return GUINT32_FROM_BE(version) >= 2 ? 100 : 0;
}

/* ---- open -------------------------------------------------------------------------- */

static void free_state(Qcow2State *s)
{
    qcow2_cleaner_stop(s);
    qcow2_cache_free(&s->l2_cache);
    qcow2_cache_free(&s->refblock_cache);
    qcow2_root_free(&s->l1);
    qcow2_root_free(&s->reftable);
    qcow2_snapshots_free(s);
    qcow2_set_clear(&s->fixed_meta);
    qcow2_set_clear(&s->l2_meta);
    g_clear_pointer(&s->extensions, g_byte_array_unref);
    g_clear_pointer(&s->data_file_name, g_free);
    g_clear_pointer(&s->luks_header, g_free);
    g_clear_pointer(&s->freed, g_array_unref);
    g_clear_pointer(&s->resting, g_array_unref);
}

static void init_state(Qcow2State *s, BlockDriverState *bs, int flags)
{
    s->bs = bs;
    s->writable = (flags & BDRV_O_RDWR) && !(flags & BDRV_O_INACTIVE);
    s->extensions = g_byte_array_new();
    s->freed = g_array_new(false, false, sizeof(Qcow2Free));
    s->resting = g_array_new(false, false, sizeof(Qcow2Free));
    qemu_co_mutex_init(&s->lock);
    QTAILQ_INIT(&s->allocs);
}

/*
 * Behind the end of a file there are zeroes, so a table that lies there would read as an
 * empty one: an image of which the end has been cut off must not pass for an empty disk.
 */
static bool table_in_file(Qcow2State *s, const char *what, uint64_t offset, uint64_t bytes,
                          Error **errp)
{
    if (bytes && (offset > s->file_bytes || bytes > s->file_bytes - offset)) {
        error_setg(errp, "Image is truncated: its %s (offset 0x%" PRIx64 ", %" PRIu64
                   " bytes) ends beyond the file's %" PRIu64 " bytes", what, offset, bytes,
                   (uint64_t)s->file_bytes);
        return false;
    }
    return true;
}

static int read_tables(Qcow2State *s, int flags, Error **errp)
{
    const Qcow2Header *h = &s->header;
    uint64_t reftable_bytes = (uint64_t)h->reftable_clusters << h->cluster_bits;
    int64_t len = bdrv_getlength(s->bs->file->bs);
    int ret;

    if (len < 0) {
        error_setg_errno(errp, -len, "Could not inquire the length of the image file");
        return len;
    }
    s->file_bytes = len;
    /* check and info are for looking at damaged images, too */
    if (!(flags & (BDRV_O_CHECK | BDRV_O_NO_IO)) &&
        (!table_in_file(s, "refcount table", h->reftable_offset, MIN(reftable_bytes, 8),
                        errp) ||
         !table_in_file(s, "L1 table", h->l1_offset, (uint64_t)h->l1_size * 8, errp))) {
        return -EINVAL;
    }
    BLKDBG_EVENT(s->bs->file, BLKDBG_REFTABLE_LOAD);
    ret = qcow2_root_read(s, &s->reftable, h->reftable_offset, reftable_bytes / 8);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not initialize refcount handling");
        return ret;
    }
    ret = qcow2_root_read(s, &s->l1, h->l1_offset, h->l1_size);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read L1 table");
        return ret;
    }
    if (flags & BDRV_O_CHECK) {
        s->snapshots_unread = h->nb_snapshots;
        s->header.nb_snapshots = 0;
    } else {
        ret = qcow2_snapshots_read(s, errp);
        if (ret < 0) {
            return ret;
        }
    }
    s->virgin_offset = qcow2_clusters(s, len) << s->cluster_bits;
    s->virgin_is_zero = s->bs->file->bs->supported_truncate_flags & BDRV_REQ_ZERO_WRITE;
    qcow2_overlap_collect(s);
    return 0;
}

typedef struct Repair {
    Qcow2State *s;
    BdrvCheckResult res;
    int ret;
} Repair;

static void coroutine_fn repair_entry(void *opaque)
{
    Repair *r = opaque;

    qemu_co_mutex_lock(&r->s->lock);
    r->ret = qcow2_check_locked(r->s, &r->res, BDRV_FIX_ERRORS | BDRV_FIX_LEAKS);
    qemu_co_mutex_unlock(&r->s->lock);
}

/* The last writer did not write its refcounts. */
static int repair_dirty(Qcow2State *s, Error **errp)
{
    Repair r = { .s = s };

    bdrv__run_co_on(s->bs, repair_entry, &r);
    if (r.ret >= 0 && (r.res.corruptions || r.res.check_errors)) {
        r.ret = -EIO;
    }
    if (r.ret < 0) {
        error_setg_errno(errp, -r.ret, "Could not repair dirty image");
    }
    return r.ret;
}

int qcow2_prepare_writing(Qcow2State *s, int flags, Error **errp)
{
    const Qcow2Header *h = &s->header;

    if (!s->writable) {
        return 0;
    }
    if (flags & BDRV_O_CHECK) {
        s->unrepaired = h->incompat & QCOW2_INCOMPAT_DIRTY;
        return 0;
    }
    if (h->incompat & QCOW2_INCOMPAT_CORRUPT) {
        error_setg(errp, "qcow2: Image is corrupt; cannot be opened read/write");
        return -EACCES;
    }
    /* Others we do not keep up to date. */
    uint64_t kept = h->autoclear & (QCOW2_AUTOCLEAR_DATA_RAW |
                                    (h->has_bitmaps ? QCOW2_AUTOCLEAR_BITMAPS : 0));
    if (h->version >= 3 && h->autoclear != kept) {
        int ret = qcow2_header_set_autoclear(s, kept);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not update qcow2 header");
            return ret;
        }
    }
    int ret = h->incompat & QCOW2_INCOMPAT_DIRTY ? repair_dirty(s, errp) : 0;
    ret = ret < 0 ? ret : qcow2_bitmaps_mark_in_use(s, errp);
    if (ret >= 0) {
        qcow2_bitmaps_set_readonly(s, false);
    }
    return ret;
}

/* A check, and whoever is to get the image later, have no use for the bitmaps. */
static int load_bitmaps(Qcow2State *s, int flags, Error **errp)
{
    return flags & (BDRV_O_CHECK | BDRV_O_INACTIVE) ? 0 : qcow2_bitmaps_load(s, errp);
}

static int open_image(Qcow2State *s, QDict *options, int flags, Error **errp)
{
    int ret = qcow2_header_read(s->bs, flags, errp);

    ret = ret < 0 ? ret : qcow2_crypto_open(s, flags, errp);
    if (ret >= 0 && !s->data_file) {
        ret = qcow2_data_file_open(s, options, flags, errp);
    }
    ret = ret < 0 ? ret : qcow2_options_apply(s, options, flags, errp);
    if (ret < 0) {
        return ret;
    }
    s->bs->total_sectors = DIV_ROUND_UP(s->header.size, BDRV_SECTOR_SIZE);
    ret = read_tables(s, flags, errp);
    ret = ret < 0 ? ret : load_bitmaps(s, flags, errp);
    ret = ret < 0 ? ret : qcow2_prepare_writing(s, flags, errp);
    if (ret >= 0) {
        qcow2_cleaner_start(s, bdrv_get_aio_context(s->bs));
    }
    return ret;
}

static void qcow2_detach_aio_context(BlockDriverState *bs)
{
    qcow2_cleaner_stop(bs->opaque);
}

static void qcow2_attach_aio_context(BlockDriverState *bs, AioContext *new_context)
{
    qcow2_cleaner_start(bs->opaque, new_context);
}

static int qcow2_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
    Qcow2State *s = bs->opaque;

    int ret = bdrv_open_file_child(NULL, options, "file", bs, errp);
    if (ret < 0) {
        return ret;
    }
    init_state(s, bs, flags);
    ret = open_image(s, options, flags, errp);
    if (ret < 0) {
        qcow2_bitmaps_release(s);
        free_state(s);
        return ret;
    }
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
    return 0;
}

/* ---- close ------------------------------------------------------------------------- */

typedef struct Clean {
    Qcow2State *s;
    int ret;
} Clean;

static void coroutine_fn clean_entry(void *opaque)
{
    Clean *c = opaque;
    Qcow2State *s = c->s;
    uint64_t bits = s->header.incompat & ~QCOW2_INCOMPAT_DIRTY;

    qemu_co_mutex_lock(&s->lock);
    c->ret = qcow2_writeback_all(s);
    if (c->ret >= 0 && bits != s->header.incompat && !s->unrepaired) {
        c->ret = qcow2_header_set_incompat(s, bits);
    }
    qemu_co_mutex_unlock(&s->lock);
}

int qcow2_make_clean(Qcow2State *s)
{
    Clean c = { .s = s };

    if (s->writable && !s->corrupt) {
        bdrv__run_co(bdrv_get_aio_context(s->bs), clean_entry, &c);
    }
    return c.ret;
}

/* Store the bitmaps and forget them; a failure loses them, and is reported. */
static void put_bitmaps_away(Qcow2State *s)
{
    Error *err = NULL;

    if (qcow2_bitmaps_save(s, &err) < 0) {
        error_prepend(&err, "Lost persistent bitmaps of node '%s': ",
                      bdrv_get_device_or_node_name(s->bs));
        error_report_err(err);
    }
    qcow2_bitmaps_release(s);
}

static void qcow2_close(BlockDriverState *bs)
{
    Qcow2State *s = bs->opaque;

    put_bitmaps_away(s);
    int ret = qcow2_make_clean(s);
    if (ret < 0) {
        error_report("Lost changes to the metadata of qcow2 image '%s': %s",
                     s->bs->filename ?: "", strerror(-ret));
    }
    free_state(s);
}

/* ---- handing the image over --------------------------------------------------------- */

static int qcow2_inactivate(BlockDriverState *bs)
{
    Qcow2State *s = bs->opaque;

    put_bitmaps_away(s);
    int ret = qcow2_make_clean(s);
    if (ret >= 0) {
        s->writable = false;
    }
    return ret;
}

/* All that is known of the image is read again. After an error it is what it was. */
static int qcow2_invalidate_cache(BlockDriverState *bs, Error **errp)
{
    g_autoptr(json_t) options = json_deep_copy(bs->options);
    Qcow2State *old = bs->opaque, *s = g_new0(Qcow2State, 1), *unused = old;
    int64_t sectors = bs->total_sectors;
    g_autofree char *backing_file = g_strdup(bs->backing_file);
    g_autofree char *backing_format = g_strdup(bs->backing_format);

    bs->opaque = s;
    init_state(s, bs, bs->open_flags);
    s->data_file = old->data_file;
    qdict_del(options, "file");
    qdict_del(options, "data-file");
    int ret = open_image(s, options, bs->open_flags, errp);
    if (ret < 0) {
        qcow2_bitmaps_release(s);
        bs->opaque = old;
        bs->total_sectors = sectors;
        g_free(bs->backing_file);
        g_free(bs->backing_format);
        bs->backing_file = g_steal_pointer(&backing_file);
        bs->backing_format = g_steal_pointer(&backing_format);
        unused = s;
    }
    free_state(unused);
    g_free(unused);
    return ret;
}

/* ---- information ------------------------------------------------------------------- */

static void qcow2_refresh_limits(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = bs->opaque;

    bs->bl.pwrite_zeroes_alignment = s->subcluster_bytes;
    bs->bl.pdiscard_alignment = s->cluster_bytes;
}

static int coroutine_fn qcow2_co_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    Qcow2State *s = bs->opaque;

    bdi->cluster_size = s->cluster_bytes;
    bdi->subcluster_size = s->subcluster_bytes;
    bdi->vm_state_offset = (int64_t)qcow2_l1_entries_for(&s->header, s->header.size)
                           << qcow2_l1_shift(s);
    bdi->is_dirty = s->header.incompat & QCOW2_INCOMPAT_DIRTY;
    return 0;
}

static json_t *qcow2_get_specific_info(BlockDriverState *bs)
{
    Qcow2State *s = bs->opaque;
    const Qcow2Header *h = &s->header;
    const char *compression = h->compression_type == QCOW2_ZSTD ? "zstd" : "zlib";
    json_t *encrypt = qcow2_crypto_info(s);
    json_t *data;

    if (h->version < 3) {
        data = json_pack("{s:s, s:s, s:i}", "compat", "0.10", "compression-type", compression,
                         "refcount-bits", 1 << h->refcount_order);
    } else {
        data = json_pack("{s:s, s:s, s:b}", "compat", "1.1",
                         "compression-type", compression,
                         "lazy-refcounts", !!(h->compat & QCOW2_COMPAT_LAZY_REFCOUNTS));
        json_t *bitmaps = qcow2_bitmaps_info(s);
        if (bitmaps) {
            json_object_set_new(data, "bitmaps", bitmaps);
        }
        json_object_set_new(data, "refcount-bits", json_integer(1 << h->refcount_order));
        if (h->incompat & QCOW2_INCOMPAT_DATA_FILE) {
            json_object_set_new(data, "data-file", json_string_nocheck(s->data_file_name));
        }
    }
    if (encrypt) {
        json_object_set_new(data, "encrypt", encrypt);
    }
    if (h->version >= 3) {
        if (h->incompat & QCOW2_INCOMPAT_DATA_FILE) {
            json_object_set_new(data, "data-file-raw",
                                json_boolean(h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW));
        }
        json_object_set_new(data, "corrupt",
                            json_boolean(h->incompat & QCOW2_INCOMPAT_CORRUPT));
        json_object_set_new(data, "extended-l2",
                            json_boolean(h->incompat & QCOW2_INCOMPAT_EXTL2));
    }
    return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

static int qcow2_change_backing_file(BlockDriverState *bs, const char *backing_file,
                                     const char *backing_fmt)
{
    return qcow2_header_set_backing(bs->opaque, backing_file, backing_fmt);
}

static BlockDriver bdrv_qcow2 = {
    .format_name                = "qcow2",
    .instance_size              = sizeof(Qcow2State),
    .is_format                  = true,
    .supports_backing           = true,
    .bdrv_probe                 = qcow2_probe,
    .bdrv_open                  = qcow2_open,
    .bdrv_close                 = qcow2_close,
    .bdrv_inactivate            = qcow2_inactivate,
    .bdrv_invalidate_cache      = qcow2_invalidate_cache,
    .bdrv_reopen_prepare        = qcow2_reopen_prepare,
    .bdrv_reopen_commit         = qcow2_reopen_commit,
    .bdrv_reopen_commit_post    = qcow2_reopen_commit_post,
    .bdrv_reopen_abort          = qcow2_reopen_abort,
    .mutable_opts               = qcow2_mutable_opts,
    .bdrv_co_create_opts        = qcow2_co_create_opts,
    .create_opts                = qcow2_create_option_names,
    .bdrv_detach_aio_context    = qcow2_detach_aio_context,
    .bdrv_attach_aio_context    = qcow2_attach_aio_context,
    .bdrv_refresh_limits        = qcow2_refresh_limits,
    .bdrv_co_preadv_part        = qcow2_co_preadv_part,
    .bdrv_co_pwritev_part       = qcow2_co_pwritev_part,
    .bdrv_co_pwritev_compressed_part = qcow2_co_pwritev_compressed_part,
    .bdrv_co_pwrite_zeroes      = qcow2_co_pwrite_zeroes,
    .bdrv_co_pdiscard           = qcow2_co_pdiscard,
    .bdrv_co_block_status       = qcow2_co_block_status,
    .bdrv_co_flush_to_os        = qcow2_co_flush_to_os,
    .bdrv_co_truncate           = qcow2_co_truncate,
    .bdrv_co_get_info           = qcow2_co_get_info,
    .bdrv_get_specific_info     = qcow2_get_specific_info,
    .bdrv_co_check              = qcow2_co_check,
    .bdrv_change_backing_file   = qcow2_change_backing_file,
    .bdrv_make_empty            = qcow2_make_empty,
    .amend_opts                 = qcow2_amend_option_names,
    .bdrv_amend_options         = qcow2_amend_options,
    .bdrv_snapshot_create       = qcow2_snapshot_create,
    .bdrv_snapshot_goto         = qcow2_snapshot_goto,
    .bdrv_snapshot_delete       = qcow2_snapshot_delete,
    .bdrv_snapshot_list         = qcow2_snapshot_list,
    .bdrv_snapshot_load_tmp     = qcow2_snapshot_load_tmp,
    .bdrv_co_save_vmstate       = qcow2_co_save_vmstate,
    .bdrv_co_load_vmstate       = qcow2_co_load_vmstate,
    .bdrv_supports_persistent_dirty_bitmap = qcow2_supports_persistent_dirty_bitmap,
    .bdrv_co_can_store_new_dirty_bitmap    = qcow2_co_can_store_new_dirty_bitmap,
    .bdrv_co_remove_persistent_dirty_bitmap = qcow2_co_remove_persistent_dirty_bitmap,
};

static void qcow2_register(void)
{
    bdrv_register(&bdrv_qcow2);
}

block_init(qcow2_register);
