/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of internal snapshots: reading it. */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

typedef struct QEMU_PACKED DiskSnapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint16_t id_bytes, name_bytes;
    uint32_t date_s, date_ns;
    uint64_t vm_clock_ns;
    uint32_t vm_state_bytes, extra_bytes;
} DiskSnapshot;
G_STATIC_ASSERT(sizeof(DiskSnapshot) == 40);

static int read_one(Qcow2State *s, uint64_t *offset, Qcow2Snapshot *sn, Error **errp)
{
    DiskSnapshot d;

    int ret = qcow2_file_read(s, *offset, sizeof(d), &d);
    if (ret < 0 || *offset + sizeof(d) > s->file_bytes) {
        error_setg_errno(errp, ret < 0 ? -ret : EIO, "Failed to read snapshot table");
        return ret < 0 ? ret : -EIO;
    }
    uint32_t extra = GUINT32_FROM_BE(d.extra_bytes);
    uint32_t id = GUINT16_FROM_BE(d.id_bytes), name = GUINT16_FROM_BE(d.name_bytes);
    sn->l1_offset = GUINT64_FROM_BE(d.l1_offset);
    sn->l1_size = GUINT32_FROM_BE(d.l1_size);
    sn->date_s = GUINT32_FROM_BE(d.date_s);
    sn->date_ns = GUINT32_FROM_BE(d.date_ns);
    sn->vm_clock_ns = GUINT64_FROM_BE(d.vm_clock_ns);
    sn->vm_state_bytes = GUINT32_FROM_BE(d.vm_state_bytes);
    sn->disk_bytes = s->header.size;
    if (extra > QCOW2_SNAPSHOT_EXTRA_BYTES_MAX) {
        error_setg(errp, "Too much extra metadata in snapshot table entry");
        return -EINVAL;
    }
    g_autofree uint8_t *var = g_malloc0((size_t)extra + id + name + 1);
    ret = qcow2_file_read(s, *offset + sizeof(d), (size_t)extra + id + name, var);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read snapshot table");
        return ret;
    }
    if (extra >= 8) {
        sn->vm_state_bytes = qcow2_load64(var);
    }
    if (extra >= 16) {
        sn->disk_bytes = qcow2_load64(var + 8);
    }
    sn->id = g_strndup((char *)var + extra, id);
    sn->name = g_strndup((char *)var + extra + id, name);
    *offset += ROUND_UP((uint64_t)sizeof(d) + extra + id + name, 8);
    return 0;
}

int qcow2_snapshots_read(Qcow2State *s, Error **errp)
{
    uint64_t start = s->header.snapshots_offset, offset = start;

    if (!s->header.nb_snapshots) {
        s->header.snapshots_offset = 0;
        return 0;
    }
    s->snapshots = g_new0(Qcow2Snapshot, s->header.nb_snapshots);
    for (uint32_t i = 0; i < s->header.nb_snapshots; i++) {
        int ret = read_one(s, &offset, &s->snapshots[i], errp);
        if (ret < 0) {
            return ret;
        }
        if (offset - start > QCOW2_SNAPSHOT_TABLE_BYTES_MAX) {
            error_setg(errp, "Snapshot table is too big");
            return -EFBIG;
        }
    }
    s->snapshots_bytes = offset - start;
    return 0;
}

void qcow2_snapshots_free(Qcow2State *s)
{
    for (uint32_t i = 0; s->snapshots && i < s->header.nb_snapshots; i++) {
        g_free(s->snapshots[i].id);
        g_free(s->snapshots[i].name);
    }
    g_clear_pointer(&s->snapshots, g_free);
}
