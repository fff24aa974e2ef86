/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Protection against images whose structures overlap: where metadata lies is remembered,
 * and no guest data and no new table is written there.
 */
#include "miniblk/osdep.h"
#include "images/qcow2.h"

/* ---- the image's metadata ---------------------------------------------------------- */

/* Where a range ends inside the file; beyond it there is nothing to protect. */
static uint64_t end_inside(const Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    return bytes > s->virgin_offset || offset > s->virgin_offset - bytes ? s->virgin_offset
                                                                         : offset + bytes;
}

static void look_for_fixed(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t end = end_inside(s, offset, bytes);

    for (uint64_t o = offset; o < end; o += s->cluster_bytes) {
        s->meta_overlaps |= qcow2_set_has(&s->fixed_meta, o >> s->cluster_bits);
    }
}

static void add_fixed(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t end = end_inside(s, offset, bytes);

    look_for_fixed(s, offset, bytes);
    for (uint64_t o = offset; o < end; o += s->cluster_bytes) {
        qcow2_set_add(&s->fixed_meta, o >> s->cluster_bits);
    }
}

/* FN for the snapshots' L1 tables, while they are not too many. */
static void for_snapshot_tables(Qcow2State *s, void (*fn)(Qcow2State *, uint64_t, uint64_t))
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < s->header.nb_snapshots; i++) {
        uint64_t bytes = (uint64_t)s->snapshots[i].l1_size * 8;
        total += bytes;
        if (total > QCOW2_SNAPSHOT_L1_BYTES_MAX) {
            break;
        }
        fn(s, s->snapshots[i].l1_offset & ~s->cluster_mask, bytes);
    }
}

static void add_snapshots(Qcow2State *s)
{
    for_snapshot_tables(s, look_for_fixed);
    /* Several may share one table, which is no concern of ours. */
    bool before = s->meta_overlaps;
    for_snapshot_tables(s, add_fixed);
    s->meta_overlaps = before;
}

void qcow2_overlap_collect(Qcow2State *s)
{
    qcow2_set_clear(&s->fixed_meta);
    qcow2_set_clear(&s->l2_meta);
    s->meta_overlaps = false;
    add_fixed(s, 0, s->cluster_bytes);
    add_fixed(s, s->l1.offset, (uint64_t)s->l1.size * 8);
    add_fixed(s, s->reftable.offset, (uint64_t)s->reftable.size * 8);
    add_fixed(s, s->header.snapshots_offset, s->snapshots_bytes);
    if (s->header.has_bitmaps) {
        add_fixed(s, s->header.bitmap_dir_offset, s->header.bitmap_dir_bytes);
    }
    for (uint32_t i = 0; i < s->reftable.size; i++) {
        uint64_t offset = s->reftable.entries[i] & QCOW2_REFTABLE_MASK;
        if (offset && offset < s->virgin_offset) {
            add_fixed(s, offset, s->cluster_bytes);
        }
    }
    add_snapshots(s);
    for (uint32_t i = 0; i < s->l1.size; i++) {
        uint64_t offset = s->l1.entries[i] & QCOW2_OFFSET_MASK;
        if (offset && offset < s->virgin_offset) {
            s->meta_overlaps |= qcow2_set_has(&s->fixed_meta, offset >> s->cluster_bits);
            qcow2_set_add(&s->l2_meta, offset >> s->cluster_bits);
        }
    }
}

/* What fixed metadata lies in CLUSTER, for messages. */
static const char *fixed_name(const Qcow2State *s, uint64_t cluster)
{
    uint64_t offset = cluster << s->cluster_bits;

    if (cluster == 0) {
        return "qcow2_header";
    }
    if (offset >= s->l1.offset && offset - s->l1.offset < (uint64_t)s->l1.size * 8) {
        return "active L1 table";
    }
    if (offset >= s->reftable.offset &&
        offset - s->reftable.offset < (uint64_t)s->reftable.size * 8) {
        return "refcount table";
    }
    if (offset >= s->header.snapshots_offset &&
        offset - s->header.snapshots_offset < s->snapshots_bytes) {
        return "snapshot table";
    }
    if (s->header.has_bitmaps && offset >= s->header.bitmap_dir_offset &&
        offset - s->header.bitmap_dir_offset < s->header.bitmap_dir_bytes) {
        return "bitmap directory";
    }
    for (uint32_t i = 0; i < s->reftable.size; i++) {
        if ((s->reftable.entries[i] & QCOW2_REFTABLE_MASK) == offset) {
            return "refcount block";
        }
    }
    return "inactive L1 table";
}

static int coroutine_fn refuse_write(Qcow2State *s, uint64_t cluster)
{
    bool fixed = qcow2_set_has(&s->fixed_meta, cluster);

    return qcow2_signal_corruption(s, true, "Preventing invalid write on metadata (overlaps "
                                   "with %s)",
                                   fixed ? fixed_name(s, cluster) : "active L2 table");
}

int coroutine_fn qcow2_overlap_check_data(Qcow2State *s, uint64_t offset, uint64_t bytes)
{
    uint64_t last = (offset + bytes - 1) >> s->cluster_bits;

    for (uint64_t c = offset >> s->cluster_bits; c <= last; c++) {
        if (unlikely(qcow2_set_has(&s->fixed_meta, c) || qcow2_set_has(&s->l2_meta, c))) {
            return refuse_write(s, c);
        }
    }
    return 0;
}

int coroutine_fn qcow2_overlap_check_l2(Qcow2State *s, uint64_t offset)
{
    uint64_t cluster = offset >> s->cluster_bits;

    if (unlikely(qcow2_set_has(&s->fixed_meta, cluster))) {
        return qcow2_signal_corruption(s, true, "Preventing invalid write on active L2 table "
                                       "(overlaps with %s)", fixed_name(s, cluster));
    }
    return 0;
}

int coroutine_fn qcow2_overlap_check_new(Qcow2State *s, uint64_t cluster, uint64_t n)
{
    for (uint64_t c = cluster; c < cluster + n; c++) {
        if (unlikely(qcow2_set_has(&s->fixed_meta, c) || qcow2_set_has(&s->l2_meta, c))) {
            return refuse_write(s, c);
        }
    }
    return 0;
}

/* ---- reporting --------------------------------------------------------------------- */

int coroutine_fn qcow2_signal_corruption(Qcow2State *s, bool fatal, const char *fmt, ...)
{
    va_list ap;

    fatal = fatal && s->writable;
    if (s->corrupt || (s->corruption_signaled && !fatal)) {
        return -EIO;
    }
    va_start(ap, fmt);
    g_autofree char *message = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (fatal) {
        fprintf(stderr, "qcow2: Marking image as corrupt: %s; further corruption events will "
                "be suppressed\n", message);
        s->corrupt = true;
        if (s->header.version >= 3) {
            /* Best effort: the error we return says all that matters. */
            qcow2_header_set_incompat(s, s->header.incompat | QCOW2_INCOMPAT_CORRUPT);
        }
    } else {
        fprintf(stderr, "qcow2: Image is corrupt: %s; further non-fatal corruption events "
                "will be suppressed\n", message);
    }
    s->corruption_signaled = true;
    return -EIO;
}
