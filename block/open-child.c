/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening the children that a node's options name. */
#include "block/block-internal.h"

int bdrv__child_flags(BlockDriverState *parent, int parent_flags, BdrvChildRole role)
{
    int flags = parent_flags & (BDRV_O_CACHE_MASK | BDRV_O_RDWR | BDRV_O_AUTO_RDONLY |
                                BDRV_O_NO_IO | BDRV_O_CHECK);

    if (role & BDRV_CHILD_COW) {
        /* a backing file is only read; who writes to it, a commit, wants it to stay sparse */
        return (flags & ~(BDRV_O_RDWR | BDRV_O_CHECK)) | BDRV_O_UNMAP;
    }
    if (!(role & BDRV_CHILD_FILTERED) || (role & BDRV_CHILD_PRIMARY)) {
        /* who discards at all decides at the top */
        flags |= BDRV_O_UNMAP;
    }
    if (!parent->drv->is_filter || (role & BDRV_CHILD_METADATA)) {
        flags |= BDRV_O_PROTOCOL;       /* below a format there is no other format */
    }
    if (role & BDRV_CHILD_METADATA) {
        flags &= ~BDRV_O_NO_IO;
    }
    return flags;
}

/*
 * Take OPTIONS[KEY]: a node-name (*REFERENCE) or nested options (returned). The caller owns
 * both.
 */
static QDict *take_bdref(QDict *options, const char *key, char **reference, Error **errp)
{
    json_t *value = json_object_get(options, key);
    QDict *child_options = NULL;

    *reference = NULL;
    if (json_is_object(value)) {
        child_options = json_incref(value);
    } else if (json_is_string(value)) {
        *reference = g_strdup(json_string_value(value));
    } else if (value) {
        error_setg(errp, "Invalid parameter type for '%s', expected: BlockdevRef", key);
    }
    json_object_del(options, key);
    return child_options;
}

BdrvChild *bdrv_open_child(const char *filename, QDict *options, const char *bdref_key,
                           BlockDriverState *parent, const BdrvChildClass *child_class,
                           BdrvChildRole child_role, bool allow_none, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *reference = NULL;
    BlockDriverState *bs;

    GLOBAL_STATE_CODE();
    QDict *child_options = take_bdref(options, bdref_key, &reference, errp);
    if (*errp) {
        return NULL;
    }
    if (!filename && !reference && !child_options) {
        if (!allow_none) {
            error_setg(errp, "A block device must be specified for \"%s\"", bdref_key);
        }
        return NULL;
    }
    if (parent->force_share && !reference) {
        if (!child_options) {
            child_options = qdict_new();
        }
        qdict_put_bool(child_options, "force-share", true);
    }
    bs = bdrv_open(filename, reference, child_options,
                   bdrv__child_flags(parent, parent->open_flags, child_role), errp);
    if (!bs) {
        return NULL;
    }
    if (!reference) {
        bs->opened_by = parent->serial;
    }
    return bdrv_attach_child(parent, bs, bdref_key, child_class, child_role, errp);
}

int bdrv_open_file_child(const char *filename, QDict *options, const char *bdref_key,
                         BlockDriverState *parent, Error **errp)
{
    BdrvChildRole role = parent->drv->is_filter ? BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY
                                                : BDRV_CHILD_IMAGE;

    g_assert(!parent->drv->filtered_child_is_backing);
    if (!bdrv_open_child(filename, options, bdref_key, parent, &child_of_bds, role, false,
                         errp)) {
        return -EINVAL;
    }
    return 0;
}
