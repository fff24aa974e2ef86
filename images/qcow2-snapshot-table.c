/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of internal snapshots: reading it, finding in it, writing it. */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"

typedef struct QEMU_PACKED DiskSnapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint16_t id_bytes, name_bytes;
    uint32_t date_s, date_ns;
    uint64_t vm_clock_ns;
    uint32_t vm_state_bytes, extra_bytes;
} DiskSnapshot;
G_STATIC_ASSERT(sizeof(DiskSnapshot) == QCOW2_SNAPSHOT_BYTES_MIN);

/* What we know of the extra data. */
typedef struct QEMU_PACKED DiskExtra {
    uint64_t vm_state_bytes, disk_bytes, icount;
} DiskExtra;

/* ---- reading ---------------------------------------------------------------------------- */

/* FIELD is there only if so many bytes of extra data are. */
#define EXTRA_HAS(bytes, field) \
    ((bytes) >= offsetof(DiskExtra, field) + sizeof(((DiskExtra *)0)->field))

static void take_extra(Qcow2Snapshot *sn, const uint8_t *extra, uint32_t bytes)
{
    DiskExtra e = { 0 };

    memcpy(&e, extra, MIN(bytes, sizeof(e)));
    if (EXTRA_HAS(bytes, vm_state_bytes)) {
        sn->vm_state_bytes = GUINT64_FROM_BE(e.vm_state_bytes);
    }
    if (EXTRA_HAS(bytes, disk_bytes)) {
        sn->disk_bytes = GUINT64_FROM_BE(e.disk_bytes);
    }
    sn->icount = EXTRA_HAS(bytes, icount) ? GUINT64_FROM_BE(e.icount) : UINT64_MAX;
    sn->extra_bytes = bytes;
    if (bytes > sizeof(e)) {
        sn->unknown_extra = g_memdup2(extra + sizeof(e), bytes - sizeof(e));
    }
}

int qcow2_snapshot_read(Qcow2State *s, uint64_t *offset, Qcow2Snapshot *sn, Error **errp)
{
    DiskSnapshot d;

    int ret = qcow2_file_read(s, *offset, sizeof(d), &d);
    if (ret < 0 || *offset + sizeof(d) > s->file_bytes) {
        error_setg_errno(errp, ret < 0 ? -ret : EIO, "Failed to read snapshot table");
        return ret < 0 ? ret : -EIO;
    }
    uint32_t extra = GUINT32_FROM_BE(d.extra_bytes);
    uint32_t known = MIN(extra, QCOW2_SNAPSHOT_EXTRA_BYTES_MAX);
    uint32_t id = GUINT16_FROM_BE(d.id_bytes), name = GUINT16_FROM_BE(d.name_bytes);
    uint64_t id_offset = *offset + sizeof(d) + extra;
    sn->l1_offset = GUINT64_FROM_BE(d.l1_offset);
    sn->l1_size = GUINT32_FROM_BE(d.l1_size);
    sn->date_s = GUINT32_FROM_BE(d.date_s);
    sn->date_ns = GUINT32_FROM_BE(d.date_ns);
    sn->vm_clock_ns = GUINT64_FROM_BE(d.vm_clock_ns);
    sn->vm_state_bytes = GUINT32_FROM_BE(d.vm_state_bytes);
    sn->disk_bytes = s->header.size;
    g_autofree uint8_t *var = g_malloc0(MAX(known, id + name) + 1);
    ret = qcow2_file_read(s, *offset + sizeof(d), known, var);
    if (ret >= 0) {
        take_extra(sn, var, known);
        ret = qcow2_file_read(s, id_offset, id + name, var);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read snapshot table");
        return ret;
    }
    sn->extra_bytes = extra;
    sn->id = g_strndup((char *)var, id);
    sn->name = g_strndup((char *)var + id, name);
    *offset += ROUND_UP((uint64_t)sizeof(d) + extra + id + name, 8);
    return 0;
}

int qcow2_snapshot_check_size(uint32_t i, const Qcow2Snapshot *sn, uint32_t n,
                              uint64_t table_bytes, Error **errp)
{
    if (sn->extra_bytes > QCOW2_SNAPSHOT_EXTRA_BYTES_MAX) {
        error_setg(errp, "Too much extra metadata in snapshot table entry %" PRIu32, i);
        error_append_hint(errp, "You can force-remove this extra metadata with miniblk-img "
                          "check -r all\n");
        return -EFBIG;
    }
    if (table_bytes > QCOW2_SNAPSHOT_TABLE_BYTES_MAX) {
        error_setg(errp, "Snapshot table is too big");
        error_append_hint(errp, "You can force-remove all %" PRIu32 " overhanging snapshots "
                          "with miniblk-img check -r all\n", n - i);
        return -EFBIG;
    }
    return 0;
}

int qcow2_snapshots_read(Qcow2State *s, Error **errp)
{
    ERRP_GUARD();
    uint64_t start = s->header.snapshots_offset, offset = start;
    uint32_t n = s->header.nb_snapshots;

    if (!n) {
        s->header.snapshots_offset = 0;
        return 0;
    }
    s->snapshots = g_new0(Qcow2Snapshot, n);
    for (uint32_t i = 0; i < n; i++) {
        int ret = qcow2_snapshot_read(s, &offset, &s->snapshots[i], errp);
        ret = ret < 0 ? ret : qcow2_snapshot_check_size(i, &s->snapshots[i], n,
                                                        offset - start, errp);
        if (ret < 0) {
            return ret;
        }
    }
    s->snapshots_bytes = offset - start;
    return 0;
}

void qcow2_snapshot_clear(Qcow2Snapshot *sn)
{
    g_free(sn->id);
    g_free(sn->name);
    g_free(sn->unknown_extra);
}

void qcow2_snapshots_free(Qcow2State *s)
{
    for (uint32_t i = 0; s->snapshots && i < s->header.nb_snapshots; i++) {
        qcow2_snapshot_clear(&s->snapshots[i]);
    }
    g_clear_pointer(&s->snapshots, g_free);
}

/* ---- finding ---------------------------------------------------------------------------- */

int qcow2_snapshot_find(const Qcow2State *s, const char *id, const char *name)
{
    for (uint32_t i = 0; i < s->header.nb_snapshots; i++) {
        const Qcow2Snapshot *sn = &s->snapshots[i];
        if ((!id || strcmp(sn->id, id) == 0) && (!name || strcmp(sn->name, name) == 0)) {
            return i;
        }
    }
    return -1;
}

int qcow2_snapshot_find_any(const Qcow2State *s, const char *id_or_name)
{
    int i = qcow2_snapshot_find(s, id_or_name, NULL);

    return i >= 0 ? i : qcow2_snapshot_find(s, NULL, id_or_name);
}

/* ---- writing ---------------------------------------------------------------------------- */

static void append_one(GByteArray *table, const Qcow2Snapshot *sn)
{
    static const uint8_t pad[8];
    uint32_t id = strlen(sn->id), name = strlen(sn->name);
    uint32_t extra = MAX(sn->extra_bytes, sizeof(DiskExtra));
    DiskSnapshot d = {
        .l1_offset = GUINT64_TO_BE(sn->l1_offset),
        .l1_size = GUINT32_TO_BE(sn->l1_size),
        .id_bytes = GUINT16_TO_BE(id),
        .name_bytes = GUINT16_TO_BE(name),
        .date_s = GUINT32_TO_BE(sn->date_s),
        .date_ns = GUINT32_TO_BE(sn->date_ns),
        .vm_clock_ns = GUINT64_TO_BE(sn->vm_clock_ns),
        .vm_state_bytes = GUINT32_TO_BE(MIN(sn->vm_state_bytes, UINT32_MAX)),
        .extra_bytes = GUINT32_TO_BE(extra),
    };
    DiskExtra e = {
        GUINT64_TO_BE(sn->vm_state_bytes), GUINT64_TO_BE(sn->disk_bytes),
        GUINT64_TO_BE(sn->icount),
    };

    g_byte_array_append(table, (uint8_t *)&d, sizeof(d));
    g_byte_array_append(table, (uint8_t *)&e, sizeof(e));
    if (sn->unknown_extra) {
        g_byte_array_append(table, sn->unknown_extra, extra - sizeof(e));
    }
    g_byte_array_append(table, (uint8_t *)sn->id, id);
    g_byte_array_append(table, (uint8_t *)sn->name, name);
    g_byte_array_append(table, pad, -table->len & 7);
}

/* Their number and the offset of the table lie side by side in one sector. */
static int coroutine_fn switch_table(Qcow2State *s, uint64_t offset)
{
    struct QEMU_PACKED { uint32_t n; uint64_t offset; } field = {
        GUINT32_TO_BE(s->header.nb_snapshots), GUINT64_TO_BE(offset),
    };

    return qcow2_header_switch(s, 60, &field, sizeof(field));
}

/* Write TABLE to new clusters at *OFFSET; it is not empty. */
static int coroutine_fn store_table(Qcow2State *s, GByteArray *table, uint64_t *offset)
{
    uint64_t clusters = qcow2_clusters(s, table->len), got;
    uint32_t bytes = table->len;
    bool fresh;

    g_byte_array_set_size(table, clusters << s->cluster_bits);
    memset(table->data + bytes, 0, table->len - bytes);
    int ret = qcow2_alloc_clusters(s, clusters, clusters, offset, &got, &fresh);
    if (ret < 0) {
        return ret;
    }
    qcow2_cache_drop(&s->l2_cache, *offset, table->len);
    qcow2_cache_drop(&s->refblock_cache, *offset, table->len);
    ret = bdrv_co_pwrite(s->bs->file, *offset, table->len, table->data, 0);
    if (ret < 0) {
        qcow2_refcount_change(s, *offset >> s->cluster_bits, clusters, -1);
    }
    return ret;
}

int coroutine_fn qcow2_snapshots_store(Qcow2State *s, uint64_t *offset, uint64_t *bytes)
{
    g_autoptr(GByteArray) table = g_byte_array_new();

    for (uint32_t i = 0; i < s->header.nb_snapshots; i++) {
        append_one(table, &s->snapshots[i]);
        if (table->len > QCOW2_SNAPSHOT_TABLE_BYTES_MAX) {
            return -EFBIG;
        }
    }
    *offset = 0;
    *bytes = table->len;
    return table->len ? store_table(s, table, offset) : 0;
}

void qcow2_snapshots_stored(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    s->header.snapshots_offset = offset;
    s->snapshots_bytes = bytes;
    for (uint32_t i = 0; i < s->header.nb_snapshots; i++) {
        s->snapshots[i].extra_bytes = MAX(s->snapshots[i].extra_bytes, sizeof(DiskExtra));
    }
}

int coroutine_fn qcow2_snapshots_write(Qcow2State *s)
{
    uint64_t offset, bytes;
    uint64_t old = s->header.snapshots_offset, old_bytes = s->snapshots_bytes;

    int ret = qcow2_snapshots_store(s, &offset, &bytes);
    if (ret < 0) {
        return ret;
    }
    /* Refcounts before the header's pointer. */
    ret = qcow2_writeback(s);
    ret = ret < 0 ? ret : bdrv_co_flush(s->bs->file->bs);
    ret = ret < 0 ? ret : switch_table(s, offset);
    if (ret < 0) {
        if (bytes && !s->corrupt) {     /* else the header may point there */
            qcow2_refcount_change(s, offset >> s->cluster_bits, qcow2_clusters(s, bytes), -1);
        }
        return ret;
    }
    qcow2_snapshots_stored(s, offset, bytes);
    uint64_t old_clusters = qcow2_clusters(s, old_bytes);
    if (old_clusters) {
        qcow2_refcount_change(s, old >> s->cluster_bits, old_clusters, -1);
    }
    return 0;
}
