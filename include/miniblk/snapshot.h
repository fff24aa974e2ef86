/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots: states of the disk (and of the machine, see bdrv_save_vmstate()) that an
 * image keeps inside itself.
 *
 * All of these are for the main thread, outside of coroutines, and poll; changes happen in a
 * drained section. A node without snapshots of its own, a filter or "raw", passes them on to
 * its primary child, unless it has another one with data or metadata.
 */
#ifndef MINIBLK_SNAPSHOT_H
#define MINIBLK_SNAPSHOT_H

#include "block-common.h"

typedef struct QEMUSnapshotInfo {
    char id_str[128];           /* unique in the image; chosen by create */
    char name[256];             /* the user's; need not be unique */
    uint64_t vm_state_size;     /* bytes; 0: none was saved */
    uint32_t date_sec;          /* UTC */
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;     /* how long the machine had been running */
    uint64_t icount;            /* instructions executed; UINT64_MAX: not counted */
} QEMUSnapshotInfo;

/* 1 when snapshots of BS can be taken, 0 when not: a driver without, or a read-only image. */
int bdrv_can_snapshot(BlockDriverState *bs);
/*
 * Take a snapshot described by SN_INFO, and fill in its id_str. 0; -ENOMEDIUM; -ENOTSUP;
 * -EACCES (read-only); -EFBIG (too many snapshots, or the table is too long); -EINVAL (the
 * image's refcounts are too narrow for one more reference); -errno of the file.
 */
int bdrv_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info);
/*
 * Make the disk what it was when snapshot SNAPSHOT_ID (an id, or else a name) was taken, its
 * length included. 0, or -errno with ERRP set: -ENOENT; -EBUSY (there are dirty bitmaps).
 */
int bdrv_snapshot_goto(BlockDriverState *bs, const char *snapshot_id, Error **errp);
/*
 * Delete the first snapshot with that id and that name; NULL stands for any, in one of the two.
 * 0, or -errno with ERRP set.
 */
int bdrv_snapshot_delete(BlockDriverState *bs, const char *snapshot_id, const char *name,
                         Error **errp);
/*
 * The number of snapshots, in their order; *PSN_INFO is an array of them, g_free() it (NULL if
 * there are none). -ENOMEDIUM, -ENOTSUP.
 */
int bdrv_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **psn_info);
/*
 * Show the disk as it was in a snapshot (chosen as for delete), without a change of the image.
 * BS is read-only, and cannot become writable again. 0, or -errno with ERRP set.
 */
int bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *snapshot_id, const char *name,
                           Error **errp);
/* The snapshot with that id, or, if there is none, the first with that name. */
int bdrv_snapshot_load_tmp_by_id_or_name(BlockDriverState *bs, const char *id_or_name,
                                         Error **errp);

/* Find by name; 0 with *SN_INFO filled, or -ENOENT or -errno. */
int bdrv_snapshot_find(BlockDriverState *bs, QEMUSnapshotInfo *sn_info, const char *name);
/* Find as for delete. False when there is none, and ERRP is set when even that is unknown. */
bool bdrv_snapshot_find_by_id_and_name(BlockDriverState *bs, const char *id, const char *name,
                                       QEMUSnapshotInfo *sn_info, Error **errp);

#endif
