/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal snapshots of nodes. */
#include "block/block-internal.h"
#include "miniblk/snapshot.h"

/* ---- who has the snapshots ------------------------------------------------------- */

/*
 * The node below BS to which snapshots are passed on; NULL when there is none. What BS shows
 * must lie in it alone: the other children, if any, may only be what it is based on.
 */
static BlockDriverState *pass_on_to(BlockDriverState *bs)
{
    BlockDriverState *primary = NULL;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->children, next) {
        if (c->role & BDRV_CHILD_PRIMARY) {
            primary = c->bs;
        } else if (c->role & (BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_FILTERED)) {
            return NULL;
        }
    }
    return primary;
}

/* BS or the node below it whose driver keeps snapshots; NULL when there is none. */
static BlockDriverState *keeper_of(BlockDriverState *bs)
{
    while (bs && bs->drv && !bs->drv->bdrv_snapshot_create) {
        bs = pass_on_to(bs);
    }
    return bs && bs->drv ? bs : NULL;
}

/* 0, or -errno with ERRP set; then *KEEPER is set. */
static int find_keeper(BlockDriverState *bs, BlockDriverState **keeper, Error **errp)
{
    GLOBAL_STATE_CODE();
    if (!bs->drv) {
        error_setg(errp, "Device '%s' has no medium", bdrv_get_device_or_node_name(bs));
        return -ENOMEDIUM;
    }
    *keeper = keeper_of(bs);
    if (!*keeper) {
        error_setg(errp, "Block driver does not support snapshots");
        return -ENOTSUP;
    }
    return 0;
}

int bdrv_can_snapshot(BlockDriverState *bs)
{
    GLOBAL_STATE_CODE();
    return bs->drv && !bdrv_is_read_only(bs) && keeper_of(bs);
}

/* ---- changing -------------------------------------------------------------------- */

int bdrv_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info)
{
    BlockDriverState *keeper;

    int ret = find_keeper(bs, &keeper, NULL);
    if (ret < 0) {
        return ret;
    }
    if (bdrv_is_read_only(keeper)) {
        return -EACCES;
    }
    /* terminated, whatever the caller has put there */
    sn_info->id_str[sizeof(sn_info->id_str) - 1] = '\0';
    sn_info->name[sizeof(sn_info->name) - 1] = '\0';
    bdrv_drained_begin(bs);
    ret = keeper->drv->bdrv_snapshot_create(keeper, sn_info);
    bdrv_drained_end(bs);
    return ret;
}

/* Nodes from BS down to KEEPER show another disk now. */
static int refresh_lengths(BlockDriverState *bs, BlockDriverState *keeper)
{
    int ret = bs == keeper ? 0 : refresh_lengths(pass_on_to(bs), keeper);

    return ret < 0 ? ret : bdrv__refresh_total_sectors(bs);
}

static bool has_bitmaps(BlockDriverState *bs, BlockDriverState *keeper)
{
    return !QLIST_EMPTY(&bs->dirty_bitmaps) ||
           (bs != keeper && has_bitmaps(pass_on_to(bs), keeper));
}

int bdrv_snapshot_goto(BlockDriverState *bs, const char *snapshot_id, Error **errp)
{
    BlockDriverState *keeper;

    int ret = find_keeper(bs, &keeper, errp);
    if (ret < 0) {
        return ret;
    }
    if (bdrv_is_read_only(keeper)) {
        error_setg(errp, "Device is readonly");
        return -EACCES;
    }
    if (has_bitmaps(bs, keeper)) {
        error_setg(errp, "Device has active dirty bitmaps");
        return -EBUSY;
    }
    bdrv_drained_begin(bs);
    ret = keeper->drv->bdrv_snapshot_goto(keeper, snapshot_id);
    if (ret >= 0) {
        ret = refresh_lengths(bs, keeper);
        bdrv__parents_resized(bs);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to load snapshot");
    }
    bdrv_drained_end(bs);
    return ret;
}

int bdrv_snapshot_delete(BlockDriverState *bs, const char *snapshot_id, const char *name,
                         Error **errp)
{
    BlockDriverState *keeper;

    int ret = find_keeper(bs, &keeper, errp);
    if (ret < 0) {
        return ret;
    }
    if (!snapshot_id && !name) {
        error_setg(errp, "snapshot_id and name are both NULL");
        return -EINVAL;
    }
    if (bdrv_is_read_only(keeper)) {
        error_setg(errp, "Device is readonly");
        return -EACCES;
    }
    bdrv_drained_begin(bs);
    ret = keeper->drv->bdrv_snapshot_delete(keeper, snapshot_id, name, errp);
    bdrv_drained_end(bs);
    return ret;
}

int bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *snapshot_id, const char *name,
                           Error **errp)
{
    BlockDriverState *keeper = keeper_of(bs);
    int ret;

    GLOBAL_STATE_CODE();
    if (!snapshot_id && !name) {
        error_setg(errp, "snapshot_id and name are both NULL");
        return -EINVAL;
    }
    if (bs->drv && !(keeper && keeper->drv->bdrv_snapshot_load_tmp)) {
        error_setg(errp, "Block format '%s' used by device '%s' does not support temporarily "
                   "loading internal snapshots", (keeper ?: bs)->drv->format_name,
                   bdrv_get_device_or_node_name(bs));
        return -ENOTSUP;
    }
    ret = find_keeper(bs, &keeper, errp);
    if (ret < 0) {
        return ret;
    }
    if (!bdrv_is_read_only(keeper)) {
        error_setg(errp, "Device is not readonly");
        return -EINVAL;
    }
    bdrv_drained_begin(bs);
    ret = keeper->drv->bdrv_snapshot_load_tmp(keeper, snapshot_id, name, errp);
    if (ret >= 0) {
        ret = refresh_lengths(bs, keeper);
        bdrv__parents_resized(bs);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not refresh total sector count");
        }
    }
    bdrv_drained_end(bs);
    return ret;
}

int bdrv_snapshot_load_tmp_by_id_or_name(BlockDriverState *bs, const char *id_or_name,
                                         Error **errp)
{
    QEMUSnapshotInfo info;
    bool by_id = bdrv_snapshot_find_by_id_and_name(bs, id_or_name, NULL, &info, NULL);

    return bdrv_snapshot_load_tmp(bs, by_id ? id_or_name : NULL, by_id ? NULL : id_or_name,
                                  errp);
}

/* ---- looking --------------------------------------------------------------------- */

int bdrv_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **psn_info)
{
    BlockDriverState *keeper;

    *psn_info = NULL;
    int ret = find_keeper(bs, &keeper, NULL);
    return ret < 0 ? ret : keeper->drv->bdrv_snapshot_list(keeper, psn_info);
}

/* The first of LIST that matches what is not NULL; N when none does. */
static int find_match(const QEMUSnapshotInfo *list, int n, const char *id, const char *name)
{
    for (int i = 0; i < n; i++) {
        if ((!id || strcmp(list[i].id_str, id) == 0) &&
            (!name || strcmp(list[i].name, name) == 0)) {
            return i;
        }
    }
    return n;
}

int bdrv_snapshot_find(BlockDriverState *bs, QEMUSnapshotInfo *sn_info, const char *name)
{
    g_autofree QEMUSnapshotInfo *list = NULL;

    int n = bdrv_snapshot_list(bs, &list);
    int i = find_match(list, n, NULL, name);
    if (n < 0 || i == n) {
        return n < 0 ? n : -ENOENT;
    }
    *sn_info = list[i];
    return 0;
}

bool bdrv_snapshot_find_by_id_and_name(BlockDriverState *bs, const char *id, const char *name,
                                       QEMUSnapshotInfo *sn_info, Error **errp)
{
    g_autofree QEMUSnapshotInfo *list = NULL;

    g_assert(id || name);
    int n = bdrv_snapshot_list(bs, &list);
    if (n < 0) {
        error_setg_errno(errp, -n, "Failed to get a snapshot list");
        return false;
    }
    int i = find_match(list, n, id, name);
    if (i == n) {
        return false;
    }
    *sn_info = list[i];
    return true;
}
