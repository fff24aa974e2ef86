/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots. A snapshot is an L1 table of its own with a reference of its own to all
 * that can be reached from it; the clusters lose their "copied" flag, so that whoever writes
 * to them makes a copy.
 *
 * A power failure at any moment leaves the image as it was or as it is to be. References are
 * added before the pointer to them is written, and taken away after it was removed; what is
 * wrong between is that refcounts are too high and flags do not match them. So meanwhile
 * images of version 3 carry the dirty bit, which has refcounts and flags repaired. (Those of
 * version 2 have none. They leak clusters, and a check will find flags that are wrong
 * without danger.)
 */
#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "images/qcow2-manage.h"

typedef struct Qcow2SnapshotCall {
    Qcow2State *s;
    QEMUSnapshotInfo *info;     /* create */
    int index;                  /* goto, delete, load_tmp */
    int coroutine_fn (*fn)(struct Qcow2SnapshotCall *c);
    Error **errp;
    bool half_done;             /* a failure from here on leaves refcounts or flags wrong */
    int ret;
} Qcow2SnapshotCall;

/* ---- what all changes begin and end with ----------------------------------------- */

static int coroutine_fn begin_change(Qcow2State *s)
{
    int ret = s->corrupt ? -EIO : qcow2_writeback_all(s);

    if (ret >= 0 && s->header.version >= 3 && !(s->header.incompat & QCOW2_INCOMPAT_DIRTY)) {
        ret = qcow2_header_set_incompat(s, s->header.incompat | QCOW2_INCOMPAT_DIRTY);
    }
    return ret;
}

/* RET: of the change. When it has failed half way, the dirty bit remains. */
static int coroutine_fn end_change(Qcow2State *s, int ret, bool half_done)
{
    int written = s->corrupt ? -EIO : qcow2_writeback_all(s);

    qcow2_overlap_collect(s);
    if (written < 0 || (ret < 0 && half_done)) {
        s->unrepaired = s->header.version >= 3;
    } else if (!s->lazy_refcounts && (s->header.incompat & QCOW2_INCOMPAT_DIRTY) &&
               !s->unrepaired) {
        written = qcow2_header_set_incompat(s, s->header.incompat & ~QCOW2_INCOMPAT_DIRTY);
    }
    return ret < 0 ? ret : written;
}

static void coroutine_fn call_entry(void *opaque)
{
    Qcow2SnapshotCall *c = opaque;
    Qcow2State *s = c->s;

    qemu_co_mutex_lock(&s->lock);
    c->ret = begin_change(s);
    if (c->ret >= 0) {
        c->ret = c->fn(c);
        c->ret = end_change(s, c->ret, c->half_done);
    }
    qemu_co_mutex_unlock(&s->lock);
}

static int run_call(Qcow2SnapshotCall *c)
{
    bdrv__run_co_on(c->s->bs, call_entry, c);
    return c->ret;
}

uint64_t *coroutine_mixed_fn qcow2_snapshot_read_l1(Qcow2State *s, const Qcow2Snapshot *sn,
                                                    uint32_t min_size, uint32_t *size,
                                                    int *ret)
{
    uint64_t bytes = (uint64_t)sn->l1_size * 8;

    if (bytes > QCOW2_L1_BYTES_MAX || min_size > QCOW2_L1_BYTES_MAX / 8) {
        *ret = -EFBIG;
        return NULL;
    }
    if ((sn->l1_offset & s->cluster_mask) || sn->l1_offset > s->virgin_offset ||
        bytes > s->virgin_offset - sn->l1_offset) {
        *ret = -EINVAL;
        return NULL;
    }
    *size = MAX(sn->l1_size, min_size);
    uint64_t *l1 = g_try_malloc0(((size_t)*size + 1) * 8);
    *ret = !l1 ? -ENOMEM : bytes ? qcow2_file_read(s, sn->l1_offset, bytes, l1) : 0;
    if (*ret < 0) {
        g_free(l1);
        return NULL;
    }
    for (uint32_t i = 0; i < sn->l1_size; i++) {
        l1[i] = GUINT64_FROM_BE(l1[i]);
    }
    return l1;
}

/* ---- create ---------------------------------------------------------------------- */

/* The number after the highest one in use. */
static int choose_id(const Qcow2State *s, char *id, size_t id_bytes)
{
    uint64_t highest = 0;

    for (uint32_t i = 0; i < s->header.nb_snapshots; i++) {
        highest = MAX(highest, g_ascii_strtoull(s->snapshots[i].id, NULL, 10));
    }
    snprintf(id, id_bytes, "%" PRIu64, highest + 1);
    return qcow2_snapshot_find(s, id, NULL) < 0 ? 0 : -EEXIST;
}

static Qcow2Snapshot describe(const Qcow2State *s, const QEMUSnapshotInfo *info)
{
    return (Qcow2Snapshot){
        .l1_size = s->l1.size, .id = g_strdup(info->id_str), .name = g_strdup(info->name),
        .date_s = info->date_sec, .date_ns = info->date_nsec,
        .vm_clock_ns = info->vm_clock_nsec, .vm_state_bytes = info->vm_state_size,
        .disk_bytes = s->header.size, .icount = info->icount,
    };
}

/* Have the active L1 table share all that it refers to with a copy of it. */
static int coroutine_fn share_active(Qcow2SnapshotCall *c, Qcow2Snapshot *sn)
{
    Qcow2State *s = c->s;

    int ret = qcow2_l1_store(s, s->l1.entries, s->l1.size, &sn->l1_offset);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_tree_add(s, s->l1.entries, s->l1.size);
    if (ret < 0) {
        qcow2_l1_forget(s, sn->l1_offset, sn->l1_size);
        return ret;
    }
    c->half_done = true;
    ret = qcow2_tree_flags(s, s->l1.entries, s->l1.size);
    /* On disk before the snapshot is: shared tables are read from there. */
    return ret < 0 ? ret : qcow2_writeback(s);
}

static void insert_snapshot(Qcow2State *s, uint32_t at, Qcow2Snapshot sn)
{
    uint32_t n = s->header.nb_snapshots++;

    s->snapshots = g_renew(Qcow2Snapshot, s->snapshots, n + 1);
    memmove(&s->snapshots[at + 1], &s->snapshots[at], (n - at) * sizeof(sn));
    s->snapshots[at] = sn;
}

static Qcow2Snapshot remove_snapshot(Qcow2State *s, uint32_t at)
{
    Qcow2Snapshot sn = s->snapshots[at];
    uint32_t n = --s->header.nb_snapshots;

    memmove(&s->snapshots[at], &s->snapshots[at + 1], (n - at) * sizeof(sn));
    return sn;
}

static int coroutine_fn create_entry(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    Qcow2Snapshot sn = describe(s, c->info);

    int ret = share_active(c, &sn);
    if (ret < 0) {
        qcow2_snapshot_clear(&sn);
        return ret;
    }
    insert_snapshot(s, s->header.nb_snapshots, sn);
    ret = qcow2_snapshots_write(s);
    if (ret < 0) {
        /* Leaked rather than freed: a table that refers to it may be in force. */
        sn = remove_snapshot(s, s->header.nb_snapshots - 1);
        qcow2_snapshot_clear(&sn);
        return ret;
    }
    /* The copy keeps it; in the active table it would be carried on from copy to copy. */
    return qcow2_vmstate_drop(s);
}

int qcow2_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info)
{
    Qcow2State *s = bs->opaque;
    Qcow2SnapshotCall c = { .s = s, .info = sn_info, .fn = create_entry };

    if (s->header.incompat & QCOW2_INCOMPAT_DATA_FILE) {
        return -ENOTSUP;        /* the clusters of a data file have no refcounts */
    }
    if (!s->writable) {
        return -EACCES;
    }
    if (s->header.nb_snapshots >= QCOW2_SNAPSHOTS_MAX) {
        return -EFBIG;
    }
    int ret = choose_id(s, sn_info->id_str, sizeof(sn_info->id_str));
    return ret < 0 ? ret : run_call(&c);
}

/* ---- goto ------------------------------------------------------------------------ */

static int coroutine_fn goto_entry(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    const Qcow2Snapshot *sn = &s->snapshots[c->index];
    uint32_t size, old_size = s->l1.size;
    int ret;

    if (sn->disk_bytes > BDRV_MAX_LENGTH) {
        return -EFBIG;
    }
    uint64_t entries = qcow2_l1_entries_for(&s->header, sn->disk_bytes);
    uint64_t *l1 = qcow2_snapshot_read_l1(s, sn, MIN(entries, UINT32_MAX), &size, &ret);
    if (!l1) {
        return ret;
    }
    ret = qcow2_tree_add(s, l1, size);
    c->half_done = ret >= 0;
    ret = ret < 0 ? ret : qcow2_tree_flags(s, l1, size);
    if (ret < 0) {
        g_free(l1);
        return ret;
    }
    g_autofree uint64_t *old = g_memdup2(s->l1.entries, ((size_t)old_size + 1) * 8);
    ret = qcow2_l1_replace(s, l1, size, sn->disk_bytes);
    if (ret < 0) {
        return ret;
    }
    s->bs->total_sectors = DIV_ROUND_UP(sn->disk_bytes, BDRV_SECTOR_SIZE);
    return qcow2_tree_drop(s, old, old_size);
}

int qcow2_snapshot_goto(BlockDriverState *bs, const char *snapshot_id)
{
    Qcow2State *s = bs->opaque;
    Qcow2SnapshotCall c = { .s = s, .fn = goto_entry,
                            .index = qcow2_snapshot_find_any(s, snapshot_id) };

    if (s->header.incompat & QCOW2_INCOMPAT_DATA_FILE) {
        return -ENOTSUP;
    }
    if (!s->writable) {
        return -EACCES;
    }
    return c.index < 0 ? -ENOENT : run_call(&c);
}

/* ---- delete ---------------------------------------------------------------------- */

static int coroutine_fn delete_entry(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    uint32_t size;
    int ret;

    g_autofree uint64_t *l1 = qcow2_snapshot_read_l1(s, &s->snapshots[c->index], 0, &size,
                                                     &ret);
    if (!l1) {
        error_setg_errno(c->errp, -ret, "Snapshot L1 table cannot be used");
        return ret;
    }
    Qcow2Snapshot sn = remove_snapshot(s, c->index);
    c->half_done = true;
    ret = qcow2_snapshots_write(s);
    if (ret < 0) {
        error_setg_errno(c->errp, -ret, "Failed to remove snapshot from snapshot list");
        insert_snapshot(s, c->index, sn);
        return ret;
    }
    ret = qcow2_tree_drop(s, l1, size);
    ret = ret < 0 ? ret : qcow2_l1_forget(s, sn.l1_offset, sn.l1_size);
    ret = ret < 0 ? ret : qcow2_writeback_all(s);
    if (ret < 0) {
        error_setg_errno(c->errp, -ret, "Failed to free the cluster and L1 table");
    } else {
        /* What only the active table refers to now may be written in place again. */
        ret = qcow2_tree_flags(s, s->l1.entries, s->l1.size);
        if (ret < 0) {
            error_setg_errno(c->errp, -ret, "Failed to update snapshot status in disk");
        }
    }
    qcow2_snapshot_clear(&sn);
    return ret;
}

int qcow2_snapshot_delete(BlockDriverState *bs, const char *snapshot_id, const char *name,
                          Error **errp)
{
    ERRP_GUARD();
    Qcow2State *s = bs->opaque;
    Qcow2SnapshotCall c = { .s = s, .fn = delete_entry, .errp = errp,
                            .index = qcow2_snapshot_find(s, snapshot_id, name) };

    if (c.index < 0) {
        error_setg(errp, "Can't find the snapshot");
        return -ENOENT;
    }
    if (!s->writable) {
        error_setg(errp, "Device is readonly");
        return -EACCES;
    }
    int ret = run_call(&c);
    if (ret < 0 && !*errp) {
        error_setg_errno(errp, -ret, "Failed to write back the metadata");
    }
    return ret;
}

/* ---- looking --------------------------------------------------------------------- */

int qcow2_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **psn_info)
{
    Qcow2State *s = bs->opaque;
    uint32_t n = s->header.nb_snapshots;

    *psn_info = n ? g_new0(QEMUSnapshotInfo, n) : NULL;
    for (uint32_t i = 0; i < n; i++) {
        const Qcow2Snapshot *sn = &s->snapshots[i];
        QEMUSnapshotInfo *info = &(*psn_info)[i];
        g_strlcpy(info->id_str, sn->id, sizeof(info->id_str));
        g_strlcpy(info->name, sn->name, sizeof(info->name));
        info->vm_state_size = sn->vm_state_bytes;
        info->date_sec = sn->date_s;
        info->date_nsec = sn->date_ns;
        info->vm_clock_nsec = sn->vm_clock_ns;
        info->icount = sn->icount;
    }
    return n;
}

int qcow2_snapshot_load_tmp(BlockDriverState *bs, const char *snapshot_id, const char *name,
                            Error **errp)
{
    Qcow2State *s = bs->opaque;
    int ret, index = qcow2_snapshot_find(s, snapshot_id, name);
    uint32_t size;

    if (index < 0) {
        error_setg(errp, "Can't find snapshot");
        return -ENOENT;
    }
    const Qcow2Snapshot *sn = &s->snapshots[index];
    uint64_t *l1 = qcow2_snapshot_read_l1(s, sn, 0, &size, &ret);
    if (!l1) {
        error_setg_errno(errp, -ret, "Failed to read l1 table for snapshot");
        return ret;
    }
    if (sn->disk_bytes > BDRV_MAX_LENGTH) {
        error_setg(errp, "The disk of the snapshot is too large");
        g_free(l1);
        return -EFBIG;
    }
    qcow2_root_free(&s->l1);
    qcow2_root_init(&s->l1, l1, size, sn->l1_offset);
    s->shows_snapshot = true;
    s->header.size = sn->disk_bytes;
    bs->total_sectors = DIV_ROUND_UP(sn->disk_bytes, BDRV_SECTOR_SIZE);
    return 0;
}
