/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the options that an image was made with. */
#include "miniblk/osdep.h"
#include "miniblk/dirty-bitmap.h"
#include "block/block-internal.h"
#include "images/file-same.h"
#include "images/qcow2-manage.h"

const char *const qcow2_amend_option_names[] = {
    "backing_file", "backing_fmt", "compat", "data_file", "data_file_raw",
    "encrypt.iter-time", "encrypt.keyslot", "encrypt.new-secret", "encrypt.old-secret",
    "encrypt.state", "lazy_refcounts", "refcount_bits", "size", NULL
};

typedef struct Amend {          /* what is wanted; as it is now where nothing was said */
    Qcow2State *s;
    uint32_t version;
    bool lazy, data_raw;
    uint64_t refcount_bits, size;
    char *data_file;
    bool has_lazy, has_refcount_bits, has_size, has_data_file;
    Qcow2Progress progress;
    Error **errp;
    int ret;
} Amend;

void qcow2_progress(Qcow2Progress *p, uint64_t done, uint64_t total)
{
    if (p->cb) {
        p->cb(p->bs, done, total, p->opaque);
    }
}

/* ---- options --------------------------------------------------------------------- */

static bool take_compat(QDict *opts, Amend *a, Error **errp)
{
    g_autofree char *compat = NULL;

    if (!bdrv_opt_str(opts, "compat", &compat, errp)) {
        return false;
    }
    if (!compat || !*compat) {
        return true;
    }
    if (strcmp(compat, "0.10") == 0 || strcmp(compat, "v2") == 0) {
        a->version = 2;
    } else if (strcmp(compat, "1.1") == 0 || strcmp(compat, "v3") == 0) {
        a->version = 3;
    } else {
        error_setg(errp, "Unknown compatibility level %s", compat);
        return false;
    }
    return true;
}

static bool take_refcount_bits(QDict *opts, Amend *a, Error **errp)
{
    json_t *v = json_object_get(opts, "refcount_bits");
    const char *text = json_string_value(v);
    guint64 n = json_integer_value(v);

    if (!v) {
        return true;
    }
    if (!json_is_integer(v) &&
        !(text && g_ascii_string_to_unsigned(text, 10, 0, UINT64_MAX, &n, NULL))) {
        error_setg(errp, "Parameter 'refcount_bits' expects a number");
        return false;
    }
    if (!n || (n & (n - 1)) || n > 64) {
        error_setg(errp, "Refcount width must be a power of two and may not exceed 64 bits");
        return false;
    }
    a->refcount_bits = n;
    qdict_del(opts, "refcount_bits");
    return true;
}

/* Whether OPTS, if they name a backing file, name the one that is recorded, and its format. */
static bool take_backing(const BlockDriverState *bs, QDict *opts, Error **errp)
{
    bool given = qdict_haskey(opts, "backing_file") || qdict_haskey(opts, "backing_fmt");
    g_autofree char *file = NULL, *format = NULL;

    if (!bdrv_opt_str(opts, "backing_file", &file, errp) ||
        !bdrv_opt_str(opts, "backing_fmt", &format, errp)) {
        return false;
    }
    if (given && (!file || !*file || strcmp(file, bs->backing_file) != 0 ||
                  g_strcmp0(format, bs->backing_format) != 0)) {
        error_setg(errp, "Cannot amend the backing file");
        error_append_hint(errp, "You can use '%s rebase' instead.\n", error_get_progname());
        return false;
    }
    return true;
}

static bool refuse_encryption(QDict *opts, Error **errp)
{
    const char *key;
    json_t *value;

    json_object_foreach(opts, key, value) {
        if (g_str_has_prefix(key, "encrypt.")) {
            error_setg(errp, "Can't amend encryption options - encryption not present");
            return false;
        }
    }
    return true;
}

static bool take_options(QDict *opts, Amend *a, Error **errp)
{
    const Qcow2Header *h = &a->s->header;

    a->version = h->version;
    a->lazy = h->compat & QCOW2_COMPAT_LAZY_REFCOUNTS;
    a->data_raw = h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW;
    a->refcount_bits = 1u << h->refcount_order;
    a->has_lazy = qdict_haskey(opts, "lazy_refcounts");
    a->has_refcount_bits = qdict_haskey(opts, "refcount_bits");
    a->has_size = qdict_haskey(opts, "size");
    a->has_data_file = qdict_haskey(opts, "data_file");
    return take_backing(a->s->bs, opts, errp) && refuse_encryption(opts, errp) &&
           take_compat(opts, a, errp) && take_refcount_bits(opts, a, errp) &&
           bdrv_opt_bool(opts, "lazy_refcounts", &a->lazy, errp) &&
           bdrv_opt_bool(opts, "data_file_raw", &a->data_raw, errp) &&
           bdrv_opt_size(opts, "size", &a->size, errp) &&
           bdrv_opt_str(opts, "data_file", &a->data_file, errp);
}

/* ---- what is possible ------------------------------------------------------------ */

/* Whether the image, as it is to be, can be one of version 2. */
static bool check_old_version(const Amend *a, Error **errp)
{
    const Qcow2Header *h = &a->s->header;
    uint64_t incompat = h->incompat & ~QCOW2_INCOMPAT_DIRTY;

    if (a->refcount_bits != 16) {
        if (h->version == 3 && !a->has_refcount_bits) {
            error_setg(errp, "compat=0.10 requires refcount_bits=16");
        } else {
            error_setg(errp, "Refcount widths other than 16 bits require compatibility level "
                       "1.1 or above (use compat=1.1 or greater)");
        }
    } else if (a->lazy && (h->version == 2 || a->has_lazy)) {
        error_setg(errp, "Lazy refcounts only supported with compatibility level 1.1 and "
                   "above (use compat=1.1 or greater)");
    } else if (incompat & QCOW2_INCOMPAT_DATA_FILE) {
        error_setg(errp, "Cannot downgrade an image with a data file");
    } else if (incompat) {
        error_setg(errp, "Cannot downgrade an image with incompatible features %#" PRIx64
                   " set", incompat);
    } else if (h->has_bitmaps || bdrv_has_named_bitmaps(a->s->bs)) {
        error_setg(errp, "Cannot downgrade an image with bitmaps");
    } else {
        return true;
    }
    return false;
}

static bool check_snapshots(const Amend *a, Error **errp)
{
    const Qcow2State *s = a->s;

    for (uint32_t i = 0; i < s->header.nb_snapshots; i++) {
        const Qcow2Snapshot *sn = &s->snapshots[i];
        if (sn->vm_state_bytes > UINT32_MAX || sn->disk_bytes != s->header.size) {
            error_setg(errp, "Internal snapshots prevent downgrade of image");
            return false;
        }
    }
    return true;
}

static bool check_data_file(const Amend *a, Error **errp)
{
    const Qcow2Header *h = &a->s->header;

    if (a->has_data_file && strlen(a->data_file) > QCOW2_BACKING_NAME_BYTES_MAX) {
        error_setg(errp, "Data file name too long");
        return false;
    }
    if (a->has_data_file && file_same(a->data_file, a->s->bs->file->bs->filename ?: "")) {
        error_setg(errp, "An image cannot be its own data file");
        return false;
    }
    if (a->has_data_file && !(h->incompat & QCOW2_INCOMPAT_DATA_FILE)) {
        error_setg(errp, "data-file can only be set for images that use an external data "
                   "file");
        return false;
    }
    if (a->data_raw && !(h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW)) {
        error_setg(errp, "data-file-raw cannot be set on existing images");
        return false;
    }
    return true;
}

static bool check_possible(const Amend *a, Error **errp)
{
    if (a->version == 2 && !check_old_version(a, errp)) {
        return false;
    }
    if (a->version == 2 && a->s->header.version == 3 && !check_snapshots(a, errp)) {
        return false;
    }
    return check_data_file(a, errp);
}

/* ---- the version ----------------------------------------------------------------- */

static int coroutine_fn upgrade(Qcow2State *s)
{
    Qcow2HeaderNames names = qcow2_header_names(s);
    int ret = 0;

    /* Version 3 demands extra data of every snapshot; whatever we write has it. */
    if (s->header.nb_snapshots) {
        ret = qcow2_snapshots_write(s);
        qcow2_overlap_collect(s);
    }
    if (ret >= 0 && !s->extensions->len) {
        qcow2_header_feature_names(s->extensions);
    }
    Qcow2Header h = s->header;
    h.version = 3;
    h.refcount_order = 4;
    h.header_length = QCOW2_NEW_HEADER_BYTES;
    h.incompat = h.compat = h.autoclear = 0;
    return ret < 0 ? ret : qcow2_header_update(s, &h, &names);
}

static int coroutine_fn downgrade(Amend *a)
{
    Qcow2State *s = a->s;
    Qcow2HeaderNames names = qcow2_header_names(s);

    int ret = qcow2_expand_zeroes(s, &a->progress);
    if (ret < 0) {
        return ret;
    }
    QEMU_LOCK_GUARD(&s->lock);
    ret = qcow2_writeback_all(s);
    ret = ret < 0 ? ret : qcow2_expand_snapshots(s);
    ret = ret < 0 ? ret : qcow2_writeback_all(s);
    if (ret < 0) {
        return ret;
    }
    s->lazy_refcounts = false;
    Qcow2Header h = s->header;
    h.version = 2;
    h.header_length = QCOW2_V2_HEADER_BYTES;
    h.incompat = h.compat = h.autoclear = 0;
    return qcow2_header_update(s, &h, &names);
}

/* ---- other options --------------------------------------------------------------- */

static int coroutine_fn change_flags(Amend *a)
{
    Qcow2State *s = a->s;
    Qcow2HeaderNames names = qcow2_header_names(s);
    Qcow2Header h = s->header;
    bool lazy = s->lazy_refcounts;

    if (a->has_lazy && !a->lazy) {
        int ret = qcow2_writeback_all(s);
        if (ret < 0) {
            return ret;
        }
        s->lazy_refcounts = false;
        h.compat &= ~QCOW2_COMPAT_LAZY_REFCOUNTS;
        h.incompat &= s->unrepaired ? UINT64_MAX : ~QCOW2_INCOMPAT_DIRTY;
    } else if (a->has_lazy) {
        h.compat |= QCOW2_COMPAT_LAZY_REFCOUNTS;
        s->lazy_refcounts = true;
    }
    if (!a->data_raw) {
        h.autoclear &= ~QCOW2_AUTOCLEAR_DATA_RAW;
    }
    if (a->has_data_file) {
        names.data_file = *a->data_file ? a->data_file : NULL;
    }
    int ret = qcow2_header_update(s, &h, &names);
    if (ret < 0) {
        s->lazy_refcounts = lazy;
    } else if (a->has_data_file) {
        g_free(s->data_file_name);
        s->data_file_name = g_strdup(names.data_file);
    }
    return ret;
}

static int coroutine_fn change_size(Amend *a)
{
    BlockDriverState *bs = a->s->bs;

    int ret = qcow2_co_truncate(bs, a->size, false, PREALLOC_MODE_OFF, 0, a->errp);
    bdrv_dirty_bitmap_truncate(bs, bs->total_sectors * (int64_t)BDRV_SECTOR_SIZE);
    bdrv__parents_resized(bs);
    return ret;
}

static int coroutine_fn amend_locked(Amend *a)
{
    Qcow2State *s = a->s;
    int ret = qcow2_writeback_all(s);

    if (ret >= 0 && a->version > s->header.version) {
        ret = upgrade(s);
    }
    if (ret >= 0 && a->refcount_bits != 1u << s->header.refcount_order) {
        ret = qcow2_change_refcount_width(s, g_bit_nth_lsf(a->refcount_bits, -1), &a->progress,
                                          a->errp);
    }
    if (ret >= 0 && s->header.version >= 3) {
        ret = change_flags(a);
    }
    return ret;
}

static void coroutine_fn amend_entry(void *opaque)
{
    Amend *a = opaque;
    Qcow2State *s = a->s;

    qemu_co_mutex_lock(&s->lock);
    a->ret = amend_locked(a);
    qemu_co_mutex_unlock(&s->lock);
    if (a->ret >= 0 && a->has_size) {
        a->ret = change_size(a);
    }
    if (a->ret >= 0 && a->version < s->header.version) {
        a->ret = downgrade(a);
    }
}

int qcow2_amend_options(BlockDriverState *bs, QDict *opts, BlockDriverAmendStatusCB *status_cb,
                        void *cb_opaque, bool force, Error **errp)
{
    ERRP_GUARD();
    Qcow2State *s = bs->opaque;
    Amend a = { .s = s, .errp = errp, .progress = { bs, status_cb, cb_opaque } };

    if (!s->writable || s->corrupt) {
        error_setg(errp, "The image is not writable");
        return -EACCES;
    }
    qcow2_progress(&a.progress, 0, 1);
    if (!take_options(opts, &a, errp) || !check_possible(&a, errp)) {
        g_free(a.data_file);
        return -EINVAL;
    }
    bdrv__run_co_on(bs, amend_entry, &a);
    g_free(a.data_file);
    if (a.ret >= 0) {
        qcow2_progress(&a.progress, 1, 1);
    }
    return a.ret;
}
