/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal snapshots. A snapshot is an L1 table of its own with a reference of its own to all
 * that can be reached from it; the clusters lose their "copied" flag, so that whoever writes
 * to them makes a copy.
 *
 * Each change makes another image beside the one in force, and puts it in force in one step
 * (qcow2-shadow.c). So a power failure at any moment leaves the image as it was or as it is to
 * be, and a failure leaves it as it was.
 */
#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "images/qcow2-manage.h"

typedef struct Qcow2SnapshotCall {
    Qcow2State *s;
    QEMUSnapshotInfo *info;     /* create */
    int index;                  /* goto, delete */
    Error **errp;

    /* What the other image will have; filled in, as far as they change it, by: */
    int coroutine_fn (*prepare)(struct Qcow2SnapshotCall *c);
    uint64_t *l1;               /* a copy of the active table before */
    uint32_t l1_size;
    uint64_t disk_bytes;
    Qcow2Snapshot *snapshots;   /* NULL: those there are now */
    uint32_t nb_snapshots;
    Qcow2Snapshot changed;      /* the one created or deleted */
    int ret;
} Qcow2SnapshotCall;

/* ---- what all changes begin and end with ----------------------------------------- */

/* Exchange the snapshots in memory for those that C has. */
static void swap_snapshots(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    Qcow2Snapshot *snapshots = s->snapshots;
    uint32_t n = s->header.nb_snapshots;

    s->snapshots = c->snapshots;
    s->header.nb_snapshots = c->nb_snapshots;
    c->snapshots = snapshots;
    c->nb_snapshots = n;
}

/* Store the tables that the header points to and put the other image in force. */
static int coroutine_fn commit(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    uint64_t offset = s->header.snapshots_offset, bytes = s->snapshots_bytes;
    uint64_t l1_offset, old = offset, old_bytes = bytes;
    bool other_snapshots = c->snapshots;
    int ret = 0;

    if (other_snapshots) {
        swap_snapshots(c);
        ret = qcow2_snapshots_store(s, &offset, &bytes);
        ret = ret < 0 ? ret : qcow2_shadow_drop(s, old, old_bytes);
    }
    ret = ret < 0 ? ret : qcow2_l1_store(s, c->l1, c->l1_size, &l1_offset);
    ret = ret < 0 ? ret : qcow2_shadow_drop(s, s->l1.offset, (uint64_t)s->l1.size * 8);
    if (ret >= 0) {
        Qcow2Header h = s->header;
        h.size = c->disk_bytes;
        h.l1_size = c->l1_size;
        h.l1_offset = l1_offset;
        h.snapshots_offset = offset;
        ret = qcow2_shadow_commit(s, &h, c->l1);
    }
    if (ret < 0 && other_snapshots) {
        swap_snapshots(c);
    } else if (ret >= 0) {
        c->l1 = NULL;
        qcow2_snapshots_stored(s, offset, bytes);
    }
    return ret;
}

static void coroutine_fn call_entry(void *opaque)
{
    Qcow2SnapshotCall *c = opaque;
    Qcow2State *s = c->s;

    qemu_co_mutex_lock(&s->lock);
    c->ret = qcow2_shadow_begin(s);
    if (c->ret >= 0) {
        c->l1_size = s->l1.size;
        c->l1 = g_memdup2(s->l1.entries, ((size_t)c->l1_size + 1) * 8);
        c->disk_bytes = s->header.size;
        c->ret = c->prepare(c);
        c->ret = c->ret < 0 ? c->ret : commit(c);
        if (c->ret < 0) {
            qcow2_shadow_abort(s);
        }
        qcow2_overlap_collect(s);
        g_free(c->l1);
        g_free(c->snapshots);
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

/*
 * All that the disk has gets a second reference. What lies behind it, the VM state, goes over
 * to the snapshot with its references: in the active table it would be carried on from
 * snapshot to snapshot.
 */
static int coroutine_fn prepare_create(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    uint32_t n = s->header.nb_snapshots;
    uint32_t disk = MIN(qcow2_l1_entries_for(&s->header, c->disk_bytes), c->l1_size);
    Qcow2Snapshot sn = describe(s, c->info);

    int ret = qcow2_tree_flags(s, c->l1, disk, 1);
    ret = ret < 0 ? ret : qcow2_tree_add(s, c->l1, disk);
    ret = ret < 0 ? ret : qcow2_l1_store(s, c->l1, c->l1_size, &sn.l1_offset);
    if (ret < 0) {
        qcow2_snapshot_clear(&sn);
        return ret;
    }
    memset(c->l1 + disk, 0, (size_t)(c->l1_size - disk) * 8);
    c->changed = sn;
    c->nb_snapshots = n + 1;
    c->snapshots = g_new(Qcow2Snapshot, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        c->snapshots[i] = s->snapshots[i];
    }
    c->snapshots[n] = sn;
    return 0;
}

int qcow2_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info)
{
    Qcow2State *s = bs->opaque;
    Qcow2SnapshotCall c = { .s = s, .info = sn_info, .prepare = prepare_create };

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
    ret = ret < 0 ? ret : run_call(&c);
    if (ret < 0) {
        qcow2_snapshot_clear(&c.changed);
    }
    return ret;
}

/* ---- goto ------------------------------------------------------------------------ */

static int coroutine_fn prepare_goto(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    const Qcow2Snapshot *sn = &s->snapshots[c->index];
    int ret;

    if (sn->disk_bytes > BDRV_MAX_LENGTH) {
        return -EFBIG;
    }
    uint64_t entries = qcow2_l1_entries_for(&s->header, sn->disk_bytes);
    g_free(c->l1);
    c->l1 = qcow2_snapshot_read_l1(s, sn, MIN(entries, UINT32_MAX), &c->l1_size, &ret);
    c->disk_bytes = sn->disk_bytes;
    if (!c->l1) {
        return ret;
    }
    ret = qcow2_tree_add(s, c->l1, c->l1_size);
    ret = ret < 0 ? ret : qcow2_tree_drop(s, s->l1.entries, s->l1.size);
    return ret < 0 ? ret : qcow2_tree_flags(s, c->l1, c->l1_size, 0);
}

int qcow2_snapshot_goto(BlockDriverState *bs, const char *snapshot_id)
{
    Qcow2State *s = bs->opaque;
    Qcow2SnapshotCall c = { .s = s, .prepare = prepare_goto,
                            .index = qcow2_snapshot_find_any(s, snapshot_id) };

    if (s->header.incompat & QCOW2_INCOMPAT_DATA_FILE) {
        return -ENOTSUP;
    }
    if (!s->writable) {
        return -EACCES;
    }
    int ret = c.index < 0 ? -ENOENT : run_call(&c);
    if (ret >= 0) {
        bs->total_sectors = DIV_ROUND_UP(s->header.size, BDRV_SECTOR_SIZE);
    }
    return ret;
}

/* ---- delete ---------------------------------------------------------------------- */

static int coroutine_fn prepare_delete(Qcow2SnapshotCall *c)
{
    Qcow2State *s = c->s;
    const Qcow2Snapshot *sn = &s->snapshots[c->index];
    uint32_t size, n = s->header.nb_snapshots;
    int ret;

    g_autofree uint64_t *l1 = qcow2_snapshot_read_l1(s, sn, 0, &size, &ret);
    if (!l1) {
        error_setg_errno(c->errp, -ret, "Snapshot L1 table cannot be used");
        return ret;
    }
    ret = qcow2_tree_drop(s, l1, size);
    ret = ret < 0 ? ret : qcow2_shadow_drop(s, sn->l1_offset, (uint64_t)sn->l1_size * 8);
    /* What only the active table refers to now may be written in place again. */
    ret = ret < 0 ? ret : qcow2_tree_flags(s, c->l1, c->l1_size, 0);
    if (ret < 0) {
        error_setg_errno(c->errp, -ret, "Failed to free the cluster and L1 table");
        return ret;
    }
    c->nb_snapshots = n - 1;
    c->snapshots = g_new(Qcow2Snapshot, n);
    memcpy(c->snapshots, s->snapshots, c->index * sizeof(*sn));
    memcpy(c->snapshots + c->index, sn + 1, (n - 1 - c->index) * sizeof(*sn));
    c->changed = *sn;
    return 0;
}

int qcow2_snapshot_delete(BlockDriverState *bs, const char *snapshot_id, const char *name,
                          Error **errp)
{
    ERRP_GUARD();
    Qcow2State *s = bs->opaque;
    Qcow2SnapshotCall c = { .s = s, .prepare = prepare_delete, .errp = errp,
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
    if (ret >= 0) {
        qcow2_snapshot_clear(&c.changed);
    } else if (!*errp) {
        error_setg_errno(errp, -ret, "Failed to remove snapshot from snapshot list");
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
