/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Managing qcow2 images: snapshots, the VM state, bitmaps, the header, amending. What requests
 * of guests have no use for. Lock: the image's.
 */
#ifndef IMAGES_QCOW2_MANAGE_H
#define IMAGES_QCOW2_MANAGE_H

#include "images/qcow2.h"

/* ---- qcow2-header-update.c -------------------------------------------------------------- */

/* Bytes of the header whose meaning we know. */
#define QCOW2_KNOWN_HEADER_BYTES 105u
/* Of the headers that we make. */
#define QCOW2_NEW_HEADER_BYTES   112u
/* Compute what follows from the header's fields: sizes and widths. qcow2-header.c */
void qcow2_header_set_geometry(Qcow2State *s);
/* Append the extension with the names of features. qcow2-header-write.c */
void qcow2_header_feature_names(GByteArray *extensions);
/* Those in force. */
Qcow2HeaderNames qcow2_header_names(const Qcow2State *s);
/*
 * Replace the header by H, a copy of s->header with some fields changed, in a way that
 * survives a power failure at any moment. 0 or -errno, with the header as it was; if it could
 * not be put back, the image is not written to any more. Lock held, or the node is drained.
 */
int coroutine_mixed_fn qcow2_header_update(Qcow2State *s, Qcow2Header *h,
                                           const Qcow2HeaderNames *names);

/* ---- qcow2-shadow.c: lock held, no request running -------------------------------------- */

/*
 * Begin to make another image of this one, in a copy of its refcounts: from now on they
 * change there, and what is allocated is so in the other image only. Nothing that the file
 * refers to may be changed. 0; -errno when nothing has changed.
 */
int coroutine_fn qcow2_shadow_begin(Qcow2State *s);
/* The other image has one reference less to each cluster of the range. */
int coroutine_fn qcow2_shadow_drop(Qcow2State *s, uint64_t offset, uint64_t bytes);
/*
 * Put the other image in force, in one step on disk. H, a copy of s->header, has its size, L1
 * table and snapshot table; L1 (consumed, but for a failure) is that table, one entry longer.
 * 0; -errno, after which only qcow2_shadow_abort() is possible.
 */
int coroutine_fn qcow2_shadow_commit(Qcow2State *s, Qcow2Header *h, uint64_t *l1);
/* Forget the other image. */
void coroutine_fn qcow2_shadow_abort(Qcow2State *s);

/* ---- qcow2-tree.c: lock held, L2 tables written back ------------------------------------ */

/* One reference more to all that the L1 table refers to. Between shadow_begin and its end. */
int coroutine_fn qcow2_tree_add(Qcow2State *s, const uint64_t *l1, uint32_t size);
/* One reference less; else, the pointer to the table is durably gone. Frees are deferred. */
int coroutine_fn qcow2_tree_drop(Qcow2State *s, const uint64_t *l1, uint32_t size);
/*
 * Make the "copied" flags in L1, a table to be the active one, and in its L2 tables agree with
 * the refcounts, to all of which MORE will be added. L2 tables that must change are replaced.
 * Between shadow_begin and its end.
 */
int coroutine_fn qcow2_tree_flags(Qcow2State *s, uint64_t *l1, uint32_t size, uint64_t more);

/* ---- qcow2-l1.c: lock held ------------------------------------------------------- */

/* Write ENTRIES (host order) into new clusters at *OFFSET; 0 when there are no entries. */
int coroutine_fn qcow2_l1_store(Qcow2State *s, const uint64_t *entries, uint32_t size,
                                uint64_t *offset);
/* Make the active L1 table at least SIZE entries long. */
int coroutine_fn qcow2_l1_grow(Qcow2State *s, uint64_t size);
/*
 * Give up the active table's entries FIRST to END - 1, with the L2 tables and clusters behind
 * them, which no request uses. 0; -errno with nothing changed, or, when all is given up, with
 * some of it leaked.
 */
int coroutine_fn qcow2_l1_drop(Qcow2State *s, uint64_t first, uint64_t end);

/* ---- qcow2-resize.c: lock held --------------------------------------------------- */

/* Let the file end behind its last cluster in use. 0 or -errno with ERRP set. */
int coroutine_fn qcow2_trim(Qcow2State *s, Error **errp);

/* ---- qcow2-snapshot-table.c ------------------------------------------------------ */

/* Extra data that every snapshot of an image of version 3 has. */
#define QCOW2_SNAPSHOT_V3_EXTRA_BYTES 16u

/*
 * Read the entry at *OFFSET, which becomes that of the next one. 0 or -errno. It may claim
 * more extra data than there may be, of which only so much is kept.
 */
int qcow2_snapshot_read(Qcow2State *s, uint64_t *offset, Qcow2Snapshot *sn, Error **errp);
/*
 * Whether SN, entry I of N, with which the table has TABLE_BYTES, is within the limits: 0 or
 * -EFBIG.
 */
int qcow2_snapshot_check_size(uint32_t i, const Qcow2Snapshot *sn, uint32_t n,
                              uint64_t table_bytes, Error **errp);

/*
 * Write the table of the snapshots in memory to new clusters at *OFFSET, *BYTES long; 0 and 0
 * when there are none. Lock held.
 */
int coroutine_fn qcow2_snapshots_store(Qcow2State *s, uint64_t *offset, uint64_t *bytes);
/* Then have the header point there; the old one is given up. Lock held. */
int coroutine_fn qcow2_snapshots_write(Qcow2State *s);
/* The table, BYTES at OFFSET, is in force. */
void qcow2_snapshots_stored(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* The first that matches what is not NULL, or -1. */
int qcow2_snapshot_find(const Qcow2State *s, const char *id, const char *name);
/* By id, or else by name. */
int qcow2_snapshot_find_any(const Qcow2State *s, const char *id_or_name);

/*
 * The L1 table of SN in host order, at least MIN_SIZE entries and *SIZE in all; NULL with *RET
 * set. qcow2-snapshot.c
 */
uint64_t *coroutine_mixed_fn qcow2_snapshot_read_l1(Qcow2State *s, const Qcow2Snapshot *sn,
                                                    uint32_t min_size, uint32_t *size,
                                                    int *ret);

/* ---- qcow2-snapshot.c: see BlockDriver ------------------------------------------- */

int qcow2_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info);
int qcow2_snapshot_goto(BlockDriverState *bs, const char *snapshot_id);
int qcow2_snapshot_delete(BlockDriverState *bs, const char *snapshot_id, const char *name,
                          Error **errp);
int qcow2_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **psn_info);
int qcow2_snapshot_load_tmp(BlockDriverState *bs, const char *snapshot_id, const char *name,
                            Error **errp);

/* ---- qcow2-vmstate.c ------------------------------------------------------------- */

int coroutine_fn qcow2_co_save_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos);
int coroutine_fn qcow2_co_load_vmstate(BlockDriverState *bs, QEMUIOVector *qiov, int64_t pos);
/* Give up the VM state of the active L1 table. Lock held. */
int coroutine_fn qcow2_vmstate_drop(Qcow2State *s);

/* ---- qcow2-bitmap-dir.c ---------------------------------------------------------- */

#define QCOW2_BITMAP_IN_USE         (1u << 0)
#define QCOW2_BITMAP_AUTO           (1u << 1)
#define QCOW2_BITMAP_EXTRA_COMPAT   (1u << 2)

#define QCOW2_BITMAP_GRANULARITY_BITS_MIN 9
#define QCOW2_BITMAP_GRANULARITY_BITS_MAX 31
#define QCOW2_BITMAP_NAME_BYTES_MAX 1023u
#define QCOW2_BITMAP_TABLE_ENTRIES_MAX 0x8000000u
#define QCOW2_BITMAP_BYTES_MAX      (512ull * 1024 * 1024)

/* An entry of the bitmap directory. */
typedef struct Qcow2Bitmap {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags;             /* QCOW2_BITMAP_* */
    uint8_t granularity_bits;
    char *name;
    uint8_t *extra;             /* unknown; kept as it is */
    uint32_t extra_bytes;
} Qcow2Bitmap;

/* The directory as an array of Qcow2Bitmap *, empty when there is none. NULL with ERRP set. */
GPtrArray *coroutine_mixed_fn qcow2_bitmaps_read(Qcow2State *s, Error **errp);
/* The two steps: its bytes, NULL with *RET set; what they mean, NULL with ERRP set. */
uint8_t *coroutine_mixed_fn qcow2_bitmaps_read_directory(Qcow2State *s, int *ret);
GPtrArray *qcow2_bitmaps_parse(Qcow2State *s, const uint8_t *dir, Error **errp);
GPtrArray *qcow2_bitmaps_new(void);
Qcow2Bitmap *qcow2_bitmaps_find(GPtrArray *list, const char *name);
/* Those of LIST by their names, for who looks up many. It refers to LIST's. */
GHashTable *qcow2_bitmaps_by_name(GPtrArray *list);
/* The directory as bytes. */
GByteArray *qcow2_bitmaps_build(GPtrArray *list);
/* Entries of the table of a bitmap for a disk of SIZE bytes. */
uint64_t qcow2_bitmap_table_entries(const Qcow2State *s, uint64_t size,
                                    uint32_t granularity_bits);
/* Its table in host order, each entry validated; NULL with *RET set. */
uint64_t *coroutine_mixed_fn qcow2_bitmap_read_table(Qcow2State *s, const Qcow2Bitmap *b,
                                                     int *ret);

/* ---- qcow2-bitmap-store.c: lock held --------------------------------------------- */

/*
 * Write BITMAPS (BdrvDirtyBitmap *) into the image, in place of those of the same names. 0 or
 * -errno with ERRP set.
 */
int coroutine_fn qcow2_bitmaps_store(Qcow2State *s, GPtrArray *bitmaps, Error **errp);
/* Take one out; 0 also when it is not there. */
int coroutine_fn qcow2_bitmaps_remove(Qcow2State *s, const char *name, Error **errp);
/* Before the image is written to: mark what it holds of bitmaps as outdated. 0 or -errno. */
int coroutine_mixed_fn qcow2_bitmaps_mark_in_use(Qcow2State *s, Error **errp);

/* ---- qcow2-bitmap.c -------------------------------------------------------------- */

/* Make the node's bitmaps from those of the image. Main thread; polls. 0 or -errno. */
int qcow2_bitmaps_load(Qcow2State *s, Error **errp);
/*
 * Store the node's bitmaps in a writable image. Main thread, drained; polls. 0 or -errno with
 * ERRP set.
 */
int qcow2_bitmaps_save(Qcow2State *s, Error **errp);
/* Forget the bitmaps of the node that are kept in the image. Main thread. */
void qcow2_bitmaps_release(Qcow2State *s);
/* All of them may be written to / must not. */
void qcow2_bitmaps_set_readonly(Qcow2State *s, bool readonly);
/* For the image's information; NULL when there are none. */
json_t *qcow2_bitmaps_info(Qcow2State *s);
bool qcow2_supports_persistent_dirty_bitmap(BlockDriverState *bs);
bool coroutine_fn qcow2_co_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                                      uint32_t granularity, Error **errp);
int coroutine_fn qcow2_co_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                                         const char *name, Error **errp);

/* ---- qcow2-refwidth.c, qcow2-expand.c, qcow2-amend.c ----------------------------- */

/* Who is told how far a long operation is; see bdrv_amend_options(). */
typedef struct Qcow2Progress {
    BlockDriverState *bs;
    BlockDriverAmendStatusCB *cb;       /* may be NULL */
    void *opaque;
} Qcow2Progress;
void qcow2_progress(Qcow2Progress *p, uint64_t done, uint64_t total);
/* Refcounts get 2^ORDER bits. Lock held. 0 or -errno; ERRP is set when one does not fit. */
int coroutine_fn qcow2_change_refcount_width(Qcow2State *s, uint32_t order,
                                             Qcow2Progress *progress, Error **errp);
/* Make the disk one without zero clusters; without the lock. */
int coroutine_fn qcow2_expand_zeroes(Qcow2State *s, Qcow2Progress *progress);
/* Then those of all snapshots. Lock held, all written back. */
int coroutine_fn qcow2_expand_snapshots(Qcow2State *s);
extern const char *const qcow2_amend_option_names[];
int qcow2_amend_options(BlockDriverState *bs, QDict *opts, BlockDriverAmendStatusCB *status_cb,
                        void *cb_opaque, bool force, Error **errp);

#endif
