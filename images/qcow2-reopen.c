/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reopening an image with other flags and options.
 *
 * Before, all that is cached is written back: then caches can be replaced, and a read-only
 * image is one that needs no repair. An image that becomes writable is prepared for that when
 * it is allowed to write to its file, and that is after the change.
 */
#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "images/qcow2-manage.h"

const char *const qcow2_mutable_opts[] = {
    "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot", "pass-discard-other",
    "discard-no-unref", "overlap-check", "cache-size", "l2-cache-size",
    "l2-cache-entry-size", "refcount-cache-size", "cache-clean-interval", NULL
};

static void discard_copy(BDRVReopenState *state)
{
    Qcow2State *n = state->opaque;

    qcow2_cache_free(&n->l2_cache);
    qcow2_cache_free(&n->refblock_cache);
    g_free(n);
    state->opaque = NULL;
}

int qcow2_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp)
{
    Qcow2State *s = state->bs->opaque;

    if ((state->flags & BDRV_O_RDWR) && !s->writable &&
        (s->header.incompat & QCOW2_INCOMPAT_CORRUPT)) {
        error_setg(errp, "qcow2: Image is corrupt; cannot be opened read/write");
        return -EACCES;
    }
    if ((state->flags & BDRV_O_RDWR) && s->shows_snapshot) {
        error_setg(errp, "An image that shows a snapshot cannot be made writable");
        return -EACCES;
    }
    /* a copy to put what the options make of it in */
    Qcow2State *n = g_new0(Qcow2State, 1);
    n->bs = s->bs;
    n->header = s->header;
    n->cluster_bytes = s->cluster_bytes;
    n->cluster_bits = s->cluster_bits;
    state->opaque = n;
    if (s->data_file) {
        /* the edge stays as it is */
        qdict_del(state->options, "data-file");
    }
    int ret = qcow2_options_apply(n, state->options, state->flags, errp);
    if (ret >= 0 && !(state->flags & BDRV_O_RDWR)) {
        ret = qcow2_bitmaps_save(s, errp);
    }
    if (ret < 0) {
        discard_copy(state);
        return ret;
    }
    ret = qcow2_make_clean(s);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write back the metadata of '%s'",
                         state->bs->filename);
        qcow2_reopen_abort(state);      /* the bitmaps have been stored */
    }
    return ret;
}

/* An empty cache of the same kind as OTHER in place of CACHE, which has nothing dirty. */
static void replace_cache(Qcow2Cache *cache, const Qcow2Cache *other)
{
    qcow2_cache_free(cache);
    qcow2_cache_init(cache, other->slice_bits, other->slices_max << other->slice_bits);
}

void qcow2_reopen_commit(BDRVReopenState *state)
{
    Qcow2State *s = state->bs->opaque;
    const Qcow2State *n = state->opaque;

    replace_cache(&s->l2_cache, &n->l2_cache);
    replace_cache(&s->refblock_cache, &n->refblock_cache);
    memcpy(s->pass_discard, n->pass_discard, sizeof(s->pass_discard));
    s->discard_no_unref = n->discard_no_unref;
    qcow2_cleaner_stop(s);
    s->clean_interval_s = n->clean_interval_s;
    qcow2_cleaner_start(s, bdrv_get_aio_context(s->bs));
    s->lazy_refcounts = n->lazy_refcounts;
    if (s->writable && !(state->flags & BDRV_O_RDWR)) {
        qcow2_bitmaps_set_readonly(s, true);    /* they have been stored */
    }
    discard_copy(state);
}

void qcow2_reopen_commit_post(BDRVReopenState *state)
{
    Qcow2State *s = state->bs->opaque;
    Error *err = NULL;
    bool was_writable = s->writable;

    s->writable = (state->flags & BDRV_O_RDWR) && !(state->flags & BDRV_O_INACTIVE);
    if (s->writable && !was_writable && qcow2_prepare_writing(s, state->flags, &err) < 0) {
        /* too late to refuse; writes fail */
        error_prepend(&err, "Image '%s' cannot be written to: ", state->bs->filename);
        error_report_err(err);
        s->corrupt = true;
    }
}

/*
 * Those bitmaps that prepare has stored are outdated with the next write. So they are marked
 * before there can be one: the node is still drained.
 */
void qcow2_reopen_abort(BDRVReopenState *state)
{
    Qcow2State *s = state->bs->opaque;
    Error *err = NULL;

    if (s->writable && !s->corrupt && !(state->flags & BDRV_O_RDWR) &&
        qcow2_bitmaps_mark_in_use(s, &err) < 0) {
        error_report_err(err);
        s->corrupt = true;      /* no writes: the bitmaps would pass for up to date */
    }
    discard_copy(state);
}
