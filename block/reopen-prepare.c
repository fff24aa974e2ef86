/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Preparing a reopen: what a node shall be, and whether its driver can do that. */
#include "block/reopen-internal.h"

/* ---- options ---------------------------------------------------------------------------- */

/* Typed values and strings from a command line may say the same. */
static bool same_value(json_t *a, json_t *b)
{
    if (json_equal(a, b)) {
        return true;
    }
    if (!json_is_string(a) && !json_is_string(b)) {
        return false;
    }
    g_autofree char *x = json_is_string(a) ? g_strdup(json_string_value(a))
                                           : json_dumps(a, JSON_ENCODE_ANY);
    g_autofree char *y = json_is_string(b) ? g_strdup(json_string_value(b))
                                           : json_dumps(b, JSON_ENCODE_ANY);
    return !g_strcmp0(x, y);
}

/* An option that names the node or its driver may be given, as it is. */
static bool check_fixed(QDict *options, const char *key, const char *now, Error **errp)
{
    const char *value = qdict_get_try_str(options, key);

    if (qdict_haskey(options, key) && g_strcmp0(value, now)) {
        error_setg(errp, "Cannot change the option '%s'", key);
        return false;
    }
    qdict_del(options, key);
    return true;
}

static int inherited_flags(const ReopenEntry *e)
{
    static const int inheritable = BDRV_O_CACHE_MASK | BDRV_O_RDWR | BDRV_O_AUTO_RDONLY |
                                   BDRV_O_UNMAP;
    BlockDriverState *bs = e->state.bs;
    int own = e->keep_old ? bs->explicit_flags : 0;
    int follows = inheritable & ~own;
    int from_parent = bdrv__child_flags(e->parent->state.bs, e->parent->state.flags, e->role);

    return (bs->open_flags & ~follows) | (from_parent & follows);
}

/* Flags and other common options; E->given is left with those of the driver. */
static bool take_common(ReopenEntry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    BdrvCommonOptions *co = &e->common;
    static const int defaults = BDRV_O_RDWR;    /* those of blockdev-add */
    static const int resettable = BDRV_O_CACHE_MASK | BDRV_O_RDWR | BDRV_O_AUTO_RDONLY |
                                  BDRV_O_UNMAP;

    if (!check_fixed(e->given, "driver", bs->drv->format_name, errp) ||
        !check_fixed(e->given, "node-name", bs->node_name, errp)) {
        return false;
    }
    co->flags = e->parent ? inherited_flags(e)
                : e->keep_old ? bs->open_flags
                : (bs->open_flags & ~resettable) | defaults;
    if (e->keep_old) {
        co->explicit_flags = bs->explicit_flags;
        co->detect_zeroes = bs->detect_zeroes;
        co->force_share = bs->force_share;
    }
    if (!bdrv__take_common_options(e->given, co, errp)) {
        return false;
    }
    e->state.flags = co->flags;
    return true;
}

/* ---- children --------------------------------------------------------------------------- */

static bool want_child(ReopenChild *n, BdrvChild *now, BlockDriverState *bs)
{
    n->wanted = true;
    n->bs = bs;
    n->old_bs = now ? now->bs : NULL;
    if (n->old_bs) {
        bdrv_ref(n->old_bs);
    }
    return true;
}

static bool take_backing(ReopenEntry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs, *new_bs = NULL;
    BdrvChild *now = bs->backing;
    json_t *value = json_object_get(e->given, "backing");

    if (!value) {
        if (!e->keep_old && bs->drv->supports_backing &&
            (now ? now->bs->opened_by != bs->serial : bs->backing_file[0] != '\0')) {
            error_setg(errp, "backing is missing for '%s'", bs->node_name);
            return false;
        }
        return true;
    }
    if (json_is_string(value) && *json_string_value(value)) {
        new_bs = bdrv_lookup_bs(NULL, json_string_value(value), errp);
        if (!new_bs) {
            return false;
        }
    } else if (!json_is_string(value) && !json_is_null(value)) {
        error_setg(errp, "Cannot change the option 'backing'");
        return false;
    }
    qdict_del(e->given, "backing");
    if (new_bs == (now ? now->bs : NULL)) {
        return true;
    }
    if (new_bs) {
        bdrv_ref(new_bs);
        e->backing.edge = bdrv__new_backing_edge(bs);
    }
    return want_child(&e->backing, now, new_bs);
}

/* Only who shows its file as it is may be given another. */
static bool take_file(ReopenEntry *e, const char *name, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    BlockDriverState *new_bs = bdrv_lookup_bs(NULL, name, errp);

    if (!new_bs) {
        return false;
    }
    if (!(bs->file->role & BDRV_CHILD_FILTERED)) {
        error_setg(errp, "Cannot change the option 'file'");
        return false;
    }
    bdrv_ref(new_bs);
    return want_child(&e->file, bs->file, new_bs);
}

/* Children that are named in the options: the same as now, or one that can be replaced. */
static bool take_children(ReopenEntry *e, Error **errp)
{
    BdrvChild *c;

    if (!take_backing(e, errp)) {
        return false;
    }
    QLIST_FOREACH(c, &e->state.bs->children, next) {
        json_t *value = json_object_get(e->given, c->name);
        const char *name = json_string_value(value);
        if (!value) {
            continue;
        }
        if (name && strcmp(name, c->bs->node_name) && c == e->state.bs->file) {
            if (!take_file(e, name, errp)) {
                return false;
            }
        } else if (!name || strcmp(name, c->bs->node_name)) {
            error_setg(errp, "Cannot change the option '%s'", c->name);
            return false;
        }
        qdict_del(e->given, c->name);
    }
    return true;
}

/* ---- the driver ------------------------------------------------------------------------- */

static bool is_mutable(BlockDriver *drv, const char *key)
{
    return drv->mutable_opts && g_strv_contains(drv->mutable_opts, key);
}

static bool is_child(BlockDriverState *bs, const char *key)
{
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        if (!strcmp(c->name, key)) {
            return true;
        }
    }
    return false;
}

/* What is not given, although it was, goes back to its default: if the driver can do that. */
static bool check_left_out(ReopenEntry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    const char *key;
    json_t *value;

    json_object_foreach(bs->options, key, value) {
        if (!qdict_haskey(e->given, key) && !is_child(bs, key) &&
            !is_mutable(bs->drv, key)) {
            error_setg(errp, "Option '%s' cannot be reset to its default value", key);
            return false;
        }
    }
    return true;
}

/* What the driver has left alone must be as it was. */
static bool check_left_over(ReopenEntry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    const char *key;
    json_t *value;

    json_object_foreach(e->state.options, key, value) {
        json_t *old = json_object_get(bs->options, key);
        if (!old || !same_value(old, value)) {
            error_setg(errp, "Cannot change the option '%s'", key);
            return false;
        }
    }
    return true;
}

static int ask_driver(ReopenEntry *e, BlockReopenQueue *queue, Error **errp)
{
    ERRP_GUARD();
    BlockDriverState *bs = e->state.bs;

    if (!bs->drv->bdrv_reopen_prepare) {
        error_setg(errp, "Block format '%s' used by node '%s' does not support reopening files",
                   bs->drv->format_name, bs->node_name);
        return -ENOTSUP;
    }
    if (!(e->state.flags & BDRV_O_RDWR) && !bdrv_is_read_only(bs)) {
        int ret = bdrv_flush(bs);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Error flushing drive");
            return ret;
        }
    }
    int ret = bs->drv->bdrv_reopen_prepare(&e->state, queue, errp);
    if (ret < 0) {
        if (!*errp) {
            error_setg_errno(errp, -ret, "failed while preparing to reopen image '%s'",
                             bs->filename);
        }
        return ret;
    }
    e->driver_prepared = true;
    return check_left_over(e, errp) ? 0 : -EINVAL;
}

int bdrv__reopen_prepare(ReopenEntry *e, BlockReopenQueue *queue, Error **errp)
{
    if (!e->state.bs->drv) {
        error_setg(errp, "Node '%s' is not open", e->state.bs->node_name);
        return -ENOMEDIUM;
    }
    if (!bdrv_options_nest(e->given, errp) || !take_common(e, errp) ||
        !take_children(e, errp)) {
        return -EINVAL;
    }
    if (e->keep_old) {
        json_object_update_missing(e->given, e->state.bs->options);
    } else if (!check_left_out(e, errp)) {
        return -EINVAL;
    }
    e->new_options = json_deep_copy(e->given);
    e->state.options = json_deep_copy(e->given);
    return ask_driver(e, queue, errp);
}
