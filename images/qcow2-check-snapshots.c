/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Check of the snapshot table. An image with a damaged one can be opened only for a check,
 * which reads the table itself, and, if it is to repair errors, drops what cannot be kept.
 * What the lost snapshots referred to is not known then: leaks are not repaired in that run.
 */
#include "miniblk/osdep.h"
#include "images/qcow2-manage.h"
#include "images/qcow2-check.h"

static void note_fixed(Qcow2Check *c, uint32_t n)
{
    c->res->corruptions_fixed += n;
    c->rewrite_snapshots = true;
}

static void note_lost(Qcow2Check *c, uint32_t n)
{
    note_fixed(c, n);
    c->lost = true;
}

/* How many entries the table is to have, and where it is. */
static int check_header(Qcow2Check *c, uint32_t *n)
{
    Error *err = NULL;

    if (*n > QCOW2_SNAPSHOTS_MAX) {
        uint32_t more = *n - QCOW2_SNAPSHOTS_MAX;
        if (!(c->fix & BDRV_FIX_ERRORS)) {
            error_report("ERROR snapshot table too large");
            fprintf(stderr, "You can force-remove all %" PRIu32 " overhanging snapshots with "
                    "miniblk-img check -r all\n", more);
            return -EFBIG;
        }
        fprintf(stderr, "Discarding %" PRIu32 " overhanging snapshots\n", more);
        note_lost(c, more);
        *n = QCOW2_SNAPSHOTS_MAX;
    }
    if (qcow2_header_check_snapshots(&c->s->header, *n, &err) < 0) {
        error_free(err);
        error_report("ERROR snapshot table offset invalid");
        return -EINVAL;
    }
    return 0;
}

/* Entry I, which was read, is not within the limits, as ERR says. Whether it may stay. */
static bool mend_size(Qcow2Check *c, uint32_t i, uint32_t n, Qcow2Snapshot *sn)
{
    if (sn->extra_bytes > QCOW2_SNAPSHOT_EXTRA_BYTES_MAX) {
        fprintf(stderr, "Discarding too much extra metadata in snapshot table entry %" PRIu32
                " (%" PRIu32 " > %u)\n", i, sn->extra_bytes, QCOW2_SNAPSHOT_EXTRA_BYTES_MAX);
        sn->extra_bytes = QCOW2_SNAPSHOT_EXTRA_BYTES_MAX;
        note_lost(c, 1);
        return true;
    }
    fprintf(stderr, "Discarding %" PRIu32 " overhanging snapshots (snapshot table is too "
            "big)\n", n - i);
    note_lost(c, n - i);
    return false;
}

/* Read entry I of N. 1; 0: the table ends before it; -errno. */
static int coroutine_fn read_entry(Qcow2Check *c, uint32_t i, uint32_t n, uint64_t *offset)
{
    Qcow2State *s = c->s;
    Qcow2Snapshot *sn = &s->snapshots[i];
    bool repair = c->fix & BDRV_FIX_ERRORS;
    Error *err = NULL;

    if (*offset + QCOW2_SNAPSHOT_BYTES_MIN > s->file_bytes) {
        if (repair) {
            fprintf(stderr, "Discarding %" PRIu32 " snapshots beyond the end of the file\n",
                    n - i);
            note_lost(c, n - i);
        } else {
            c->lost = true;
            qcow2_check_error(c, "ERROR snapshot table entry %" PRIu32 " is beyond the end of "
                              "the file\n", i);
        }
        return 0;
    }
    int ret = qcow2_snapshot_read(s, offset, sn, &err);
    if (ret >= 0) {
        if (c->lost && !*sn->id && !sn->l1_offset) {
            /* Where numbers were wrong before: not the remains of a snapshot. */
            fprintf(stderr, "Discarding %" PRIu32 " empty snapshot table entries\n", n - i);
            note_fixed(c, n - i);
            return 0;
        }
        ret = qcow2_snapshot_check_size(i, sn, n, *offset - s->header.snapshots_offset, &err);
        if (ret >= 0) {
            return 1;
        }
        if (repair) {
            error_free(err);
            return mend_size(c, i, n, sn);
        }
    }
    error_reportf_err(err, "ERROR failed to read the snapshot table: ");
    return ret;
}

/* The table that was read is BYTES long: does that fit into the file? */
static void check_end(Qcow2Check *c, uint64_t bytes)
{
    Qcow2State *s = c->s;
    uint64_t room = (c->file_clusters << s->cluster_bits) - s->header.snapshots_offset;

    if (bytes > room && c->fix & BDRV_FIX_ERRORS) {
        fprintf(stderr, "Repairing snapshot table: its last name ends beyond the end of the "
                "file\n");
        note_fixed(c, 1);
        bytes = room;
    }
    s->snapshots_bytes = bytes;
}

static int coroutine_fn read_table(Qcow2Check *c)
{
    Qcow2State *s = c->s;
    uint32_t n = s->snapshots_unread, i = 0;
    uint64_t offset = s->header.snapshots_offset;

    qcow2_snapshots_free(s);
    s->header.nb_snapshots = 0;
    int ret = check_header(c, &n);
    if (ret < 0) {
        return ret;
    }
    s->snapshots = g_new0(Qcow2Snapshot, n);
    s->header.nb_snapshots = n;
    do {
        s->snapshots_bytes = offset - s->header.snapshots_offset;
        ret = read_entry(c, i, n, &offset);
    } while (ret > 0 && ++i < n);
    for (uint32_t k = i; k < n; k++) {
        qcow2_snapshot_clear(&s->snapshots[k]);
    }
    s->header.nb_snapshots = i;
    if (ret > 0) {
        check_end(c, offset - s->header.snapshots_offset);
        /* (one that is to be written anew is read again if that fails) */
        s->snapshots_unread = c->rewrite_snapshots ? s->snapshots_unread : 0;
    }
    qcow2_overlap_collect(s);
    return MIN(ret, 0);
}

/* Entries of version 3 have extra data; what is missing has been assumed when reading. */
static void check_entries(Qcow2Check *c)
{
    const Qcow2State *s = c->s;

    for (uint32_t i = 0; i < s->header.nb_snapshots && s->header.version >= 3; i++) {
        if (s->snapshots[i].extra_bytes >= QCOW2_SNAPSHOT_V3_EXTRA_BYTES) {
            continue;
        }
        if (c->fix & BDRV_FIX_ERRORS) {
            fprintf(stderr, "Repairing snapshot table entry %" PRIu32 " is incomplete\n", i);
            note_fixed(c, 1);
        } else {
            qcow2_check_error(c, "ERROR snapshot table entry %" PRIu32 " is incomplete\n", i);
        }
    }
}

int coroutine_fn qcow2_check_snapshots(Qcow2Check *c)
{
    int ret = c->s->snapshots_unread ? read_table(c) : 0;

    if (ret >= 0) {
        check_entries(c);
    }
    return ret;
}
