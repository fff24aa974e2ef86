/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options given when an image is opened. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

#define L2_CACHE_BYTES_DEFAULT      (32u * 1024 * 1024)
#define REFBLOCK_SLICES_DEFAULT     64
#define REFBLOCK_CACHE_BYTES_MAX    (1ULL << 30)
#define SLICE_BYTES_DEFAULT         4096u
#define SLICE_BYTES_MIN             512u
#define CLEAN_INTERVAL_S_DEFAULT    600

#define OVERLAP_CHECK_UNSUPPORTED                                               \
    "Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are any " \
    "of the following: none, constant, cached, all"

typedef struct Sizes {
    uint64_t all, l2, refcount, l2_entry;
    bool all_set, l2_set, refcount_set;
} Sizes;

static bool take_sizes(Qcow2State *s, QDict *options, Sizes *z, Error **errp)
{
    z->l2_entry = MIN(s->cluster_bytes, SLICE_BYTES_DEFAULT);
    z->all_set = qdict_haskey(options, "cache-size");
    z->l2_set = qdict_haskey(options, "l2-cache-size");
    z->refcount_set = qdict_haskey(options, "refcount-cache-size");
    if (!bdrv_opt_size(options, "cache-size", &z->all, errp) ||
        !bdrv_opt_size(options, "l2-cache-size", &z->l2, errp) ||
        !bdrv_opt_size(options, "refcount-cache-size", &z->refcount, errp) ||
        !bdrv_opt_size(options, "l2-cache-entry-size", &z->l2_entry, errp)) {
        return false;
    }
    if (z->l2_entry < SLICE_BYTES_MIN || z->l2_entry > s->cluster_bytes ||
        (z->l2_entry & (z->l2_entry - 1))) {
        error_setg(errp, "L2 cache entry size must be a power of two between %u and the "
                   "cluster size (%" PRIu64 ")", SLICE_BYTES_MIN, s->cluster_bytes);
        return false;
    }
    return true;
}

/* Split what the user gave among the two caches. */
static bool resolve_sizes(Sizes *z, uint64_t refcount_min, Error **errp)
{
    if (!z->all_set) {
        z->l2 = z->l2_set ? z->l2 : L2_CACHE_BYTES_DEFAULT;
        z->refcount = z->refcount_set ? z->refcount : refcount_min;
        return true;
    }
    if (z->l2_set && z->refcount_set) {
        error_setg(errp, "cache-size, l2-cache-size and refcount-cache-size may not be set "
                   "at the same time");
        return false;
    }
    if (z->l2_set && z->l2 > z->all) {
        error_setg(errp, "l2-cache-size may not exceed cache-size");
        return false;
    }
    if (z->refcount_set && z->refcount > z->all) {
        error_setg(errp, "refcount-cache-size may not exceed cache-size");
        return false;
    }
    if (z->l2_set) {
        z->refcount = z->all - z->l2;
    } else {
        z->refcount = z->refcount_set ? z->refcount : MIN(z->all, refcount_min);
        z->l2 = z->all - z->refcount;
    }
    return true;
}

/* A cache never needs more than all the tables there can be. */
static uint64_t all_l2_bytes(const Qcow2State *s)
{
    return MAX(s->header.l1_size, 1) * s->cluster_bytes;
}

static bool setup_caches(Qcow2State *s, QDict *options, Error **errp)
{
    uint64_t refblock_slice = MIN(s->cluster_bytes, SLICE_BYTES_DEFAULT);
    Sizes z = { 0 };

    if (!take_sizes(s, options, &z, errp) ||
        !resolve_sizes(&z, refblock_slice * REFBLOCK_SLICES_DEFAULT, errp)) {
        return false;
    }
    /* The image may grow; a cache of the default size costs nothing while it is unused. */
    z.l2 = MIN(z.l2, MAX(all_l2_bytes(s), L2_CACHE_BYTES_DEFAULT));
    if (z.refcount / refblock_slice > INT_MAX) {
        error_setg(errp, "Refcount cache size too big");
        return false;
    }
    z.refcount = MIN(z.refcount, REFBLOCK_CACHE_BYTES_MAX);
    qcow2_cache_init(&s->l2_cache, g_bit_nth_lsf(z.l2_entry, -1), z.l2);
    qcow2_cache_init(&s->refblock_cache, g_bit_nth_lsf(refblock_slice, -1), z.refcount);
    return true;
}

/* "overlap-check": the constant and cached checks cost next to nothing and are always on. */
static bool take_overlap_check(QDict *options, Error **errp)
{
    static const char *const templates[] = { "none", "constant", "cached", "all", NULL };
    static const char *const areas[] = {
        "main-header", "active-l1", "active-l2", "refcount-table", "refcount-block",
        "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory", NULL
    };
    json_t *value = json_object_get(options, "overlap-check");
    const char *name = json_string_value(value);
    bool ok = true;

    if (json_is_object(value)) {
        g_autofree char *template = NULL;
        bool on;
        ok = bdrv_opt_str(value, "template", &template, errp);
        for (int i = 0; ok && areas[i]; i++) {
            ok = bdrv_opt_bool(value, areas[i], &on, errp);
        }
        if (ok && template && !g_strv_contains(templates, template)) {
            error_setg(errp, OVERLAP_CHECK_UNSUPPORTED, template);
            ok = false;
        }
        if (ok && json_object_size(value)) {
            error_setg(errp, "Invalid parameter '%s'",
                       json_object_iter_key(json_object_iter(value)));
            ok = false;
        }
    } else if (value && (!name || !g_strv_contains(templates, name))) {
        error_setg(errp, OVERLAP_CHECK_UNSUPPORTED, name ?: "");
        ok = false;
    }
    qdict_del(options, "overlap-check");
    return ok;
}

static bool take_flags(Qcow2State *s, QDict *options, int flags, Error **errp)
{
    bool lazy = s->header.compat & QCOW2_COMPAT_LAZY_REFCOUNTS, *pass = s->pass_discard;

    pass[QCOW2_DISCARD_REQUEST] = flags & BDRV_O_UNMAP;
    pass[QCOW2_DISCARD_SNAPSHOT] = true;
    pass[QCOW2_DISCARD_OTHER] = false;
    if (!bdrv_opt_bool(options, "lazy-refcounts", &lazy, errp) ||
        !bdrv_opt_bool(options, "pass-discard-request", &pass[QCOW2_DISCARD_REQUEST], errp) ||
        !bdrv_opt_bool(options, "pass-discard-snapshot", &pass[QCOW2_DISCARD_SNAPSHOT],
                       errp) ||
        !bdrv_opt_bool(options, "pass-discard-other", &pass[QCOW2_DISCARD_OTHER], errp) ||
        !bdrv_opt_bool(options, "discard-no-unref", &s->discard_no_unref, errp)) {
        return false;
    }
    if (s->discard_no_unref && s->header.version < 3) {
        error_setg(errp, "discard-no-unref is only supported since qcow2 version 3");
        return false;
    }
    if (lazy && s->header.version < 3) {
        error_setg(errp, "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
                   "compatibility level");
        return false;
    }
    s->lazy_refcounts = lazy && (flags & BDRV_O_RDWR);
    return true;
}

static bool take_clean_interval(Qcow2State *s, QDict *options, Error **errp)
{
    uint64_t seconds = CLEAN_INTERVAL_S_DEFAULT;

    if (!bdrv_opt_size(options, "cache-clean-interval", &seconds, errp)) {
        return false;
    }
    if (seconds > UINT_MAX) {
        error_setg(errp, "Cache clean interval too big");
        return false;
    }
    s->clean_interval_s = seconds;
    return true;
}

int qcow2_options_apply(Qcow2State *s, QDict *options, int flags, Error **errp)
{
    if (!take_overlap_check(options, errp) || !take_flags(s, options, flags, errp) ||
        !take_clean_interval(s, options, errp) || !setup_caches(s, options, errp)) {
        return -EINVAL;
    }
    return 0;
}
