/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Dirty bitmaps: which parts of a node have been written to since the bitmap was made or
 * cleared. Offsets and lengths are bytes. A bit is set after the write that it is for has
 * ended, successfully or not; so who clears a bit and reads the data then sees every write,
 * or finds the bit set again.
 *
 * All bitmaps of a node share one mutex, bdrv_dirty_bitmap_lock(). Any thread. Functions
 * named *_locked, the searches and the iterators are called with it held, or while nobody
 * can write to the node. Functions marked GS: main thread.
 */
#ifndef MINIBLK_DIRTY_BITMAP_H
#define MINIBLK_DIRTY_BITMAP_H

#include "block-common.h"
#include "hbitmap.h"

typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;
typedef struct BdrvDirtyBitmapIter BdrvDirtyBitmapIter;

#define BDRV_BITMAP_MAX_NAME_SIZE 1023

/* ---- life (GS) -------------------------------------------------------------------------- */

/*
 * A clean, enabled bitmap for BS with one bit for GRANULARITY bytes, a power of two and at
 * least 512. NAME (NULL: anonymous) is unique in the node. NULL with ERRP set: "Bitmap already
 * exists: x", "Bitmap name too long".
 */
BdrvDirtyBitmap *bdrv_create_dirty_bitmap(BlockDriverState *bs, uint32_t granularity,
                                          const char *name, Error **errp);
void bdrv_release_dirty_bitmap(BdrvDirtyBitmap *bitmap);
/* Those that have names; when the node is closed. */
void bdrv_release_named_dirty_bitmaps(BlockDriverState *bs);
/* The cluster size of BS, but from 4 KiB to 64 KiB; 64 KiB if it has none. */
uint32_t bdrv_get_default_bitmap_granularity(BlockDriverState *bs);
/* Every bitmap of BS gets the length of BYTES. Any thread; takes the mutex. */
void bdrv_dirty_bitmap_truncate(BlockDriverState *bs, int64_t bytes);

/* ---- looking ---------------------------------------------------------------------------- */

/* NULL when there is none. */
BdrvDirtyBitmap *bdrv_find_dirty_bitmap(BlockDriverState *bs, const char *name);
/* Iterate over those of BS; NULL gives the first. */
BdrvDirtyBitmap *bdrv_dirty_bitmap_first(BlockDriverState *bs);
BdrvDirtyBitmap *bdrv_dirty_bitmap_next(BdrvDirtyBitmap *bitmap);
/* NULL: anonymous. */
const char *bdrv_dirty_bitmap_name(const BdrvDirtyBitmap *bitmap);
int64_t bdrv_dirty_bitmap_size(const BdrvDirtyBitmap *bitmap);
uint32_t bdrv_dirty_bitmap_granularity(const BdrvDirtyBitmap *bitmap);
/* Whether writes are recorded in it. */
bool bdrv_dirty_bitmap_enabled(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_recording(BdrvDirtyBitmap *bitmap);
/* Whether an operation has it, so that users must leave it alone. */
bool bdrv_dirty_bitmap_busy(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_has_successor(BdrvDirtyBitmap *bitmap);
/* 0; -EBUSY with ERRP set when it is busy. */
int bdrv_dirty_bitmap_check_busy(const BdrvDirtyBitmap *bitmap, Error **errp);
/*
 * What FLAGS asks about, in this order; 0, or -1 with ERRP set when one of them is so: "Bitmap
 * 'x' is currently in use by another operation and cannot be used", "Bitmap 'x' is readonly
 * and cannot be modified", "Bitmap 'x' is inconsistent and cannot be used".
 */
#define BDRV_BITMAP_BUSY         1u
#define BDRV_BITMAP_RO           2u
#define BDRV_BITMAP_INCONSISTENT 4u
#define BDRV_BITMAP_DEFAULT      (BDRV_BITMAP_BUSY | BDRV_BITMAP_RO | BDRV_BITMAP_INCONSISTENT)
#define BDRV_BITMAP_ALLOW_RO     (BDRV_BITMAP_BUSY | BDRV_BITMAP_INCONSISTENT)
int bdrv_dirty_bitmap_check(const BdrvDirtyBitmap *bitmap, uint32_t flags, Error **errp);
/*
 * As query-named-block-nodes shows them: an array of {"name", "recording", "busy",
 * "persistent", "inconsistent" (when it is), "granularity", "count"}; NULL when BS has none. GS.
 */
json_t *bdrv_query_dirty_bitmaps(BlockDriverState *bs);

/* Dirty bytes. Takes no lock: exact only when nobody writes. */
int64_t bdrv_get_dirty_count(BdrvDirtyBitmap *bitmap);
bool bdrv_dirty_bitmap_get(BdrvDirtyBitmap *bitmap, int64_t offset);
bool bdrv_dirty_bitmap_get_locked(BdrvDirtyBitmap *bitmap, int64_t offset);
/* The first dirty / clean byte in the range; -1 when there is none. */
int64_t bdrv_dirty_bitmap_next_dirty(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
int64_t bdrv_dirty_bitmap_next_zero(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/* The first dirty run in [START, END), at most MAX_DIRTY_COUNT of it; false: there is none. */
bool bdrv_dirty_bitmap_next_dirty_area(BdrvDirtyBitmap *bitmap, int64_t start, int64_t end,
                                       int64_t max_dirty_count, int64_t *dirty_start,
                                       int64_t *dirty_count);

/* Iterators over the dirty granules: offset of the next one, or -1. */
BdrvDirtyBitmapIter *bdrv_dirty_iter_new(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_iter_free(BdrvDirtyBitmapIter *iter);
int64_t bdrv_dirty_iter_next(BdrvDirtyBitmapIter *iter);
void bdrv_set_dirty_iter(BdrvDirtyBitmapIter *iter, int64_t offset);

/* ---- changing --------------------------------------------------------------------------- */

void bdrv_dirty_bitmap_lock(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_unlock(BdrvDirtyBitmap *bitmap);

void bdrv_enable_dirty_bitmap(BdrvDirtyBitmap *bitmap);
void bdrv_enable_dirty_bitmap_locked(BdrvDirtyBitmap *bitmap);
void bdrv_disable_dirty_bitmap(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_busy(BdrvDirtyBitmap *bitmap, bool busy);
void bdrv_set_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
void bdrv_set_dirty_bitmap_locked(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/* The range consists of whole granules, or ends at the bitmap's. */
void bdrv_reset_dirty_bitmap(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
void bdrv_reset_dirty_bitmap_locked(BdrvDirtyBitmap *bitmap, int64_t offset, int64_t bytes);
/* Make it clean. What it was goes to *OUT (may be NULL), for bdrv_restore_dirty_bitmap(). */
void bdrv_clear_dirty_bitmap(BdrvDirtyBitmap *bitmap, HBitmap **out);
void bdrv_restore_dirty_bitmap(BdrvDirtyBitmap *bitmap, HBitmap *backup);
/*
 * Add what is dirty in SRC to DEST. What DEST was goes to *BACKUP (may be NULL). False with
 * ERRP set: one is busy, or "Bitmaps are of different sizes...".
 */
bool bdrv_merge_dirty_bitmap(BdrvDirtyBitmap *dest, const BdrvDirtyBitmap *src,
                             HBitmap **backup, Error **errp);

/*
 * Successors, for operations that take a bitmap as it is and may fail. From create on BITMAP
 * is busy and keeps its bits, and a successor records writes instead. In the end either the
 * successor takes BITMAP's place (abdicate, returns it), or it is merged back (reclaim,
 * returns BITMAP). GS. create: 0, or -EBUSY with ERRP set.
 */
int bdrv_dirty_bitmap_create_successor(BdrvDirtyBitmap *bitmap, Error **errp);
BdrvDirtyBitmap *bdrv_dirty_bitmap_abdicate(BdrvDirtyBitmap *bitmap, Error **errp);
BdrvDirtyBitmap *bdrv_reclaim_dirty_bitmap(BdrvDirtyBitmap *bitmap, Error **errp);

/* ---- bitmaps kept in images ------------------------------------------------------------- */

/*
 * A persistent bitmap is stored in the image of its node when that is closed, made read-only
 * or handed over, and loaded when it is opened. While the image is written to, what it holds of
 * the bitmap is marked as in use; found so on opening, the bitmap is
 *
 *   inconsistent    of no use, recorded nowhere and cleared by nobody; only to be removed
 *
 * A read-only bitmap is one of an image that cannot be marked; its node cannot be written to.
 * All GS, the searches for one of a kind any thread.
 */
bool bdrv_dirty_bitmap_get_persistence(BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_persistence(BdrvDirtyBitmap *bitmap, bool persistent);
bool bdrv_dirty_bitmap_readonly(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_set_readonly(BdrvDirtyBitmap *bitmap, bool readonly);
bool bdrv_dirty_bitmap_inconsistent(const BdrvDirtyBitmap *bitmap);
/* For good. The bitmap is persistent, enabled no more and not busy. */
void bdrv_dirty_bitmap_set_inconsistent(BdrvDirtyBitmap *bitmap);
/* Any bitmap of BS is read-only / has a name. */
bool bdrv_has_readonly_bitmaps(BlockDriverState *bs);
bool bdrv_has_named_bitmaps(BlockDriverState *bs);

/* Whether the driver of BS can store bitmaps at all. */
bool bdrv_supports_persistent_dirty_bitmap(BlockDriverState *bs);
/*
 * Whether one more persistent bitmap of that name and granularity fits the image of BS; else
 * false with ERRP set. "Can't store persistent bitmaps to NODE: Operation not supported"
 * (-ENOMEDIUM: "Node 'x' has no medium"), and the driver's reasons. mixed.
 */
bool coroutine_mixed_fn bdrv_can_store_new_dirty_bitmap(BlockDriverState *bs,
                                                        const char *name,
                                                        uint32_t granularity, Error **errp);
bool coroutine_fn bdrv_co_can_store_new_dirty_bitmap(BlockDriverState *bs, const char *name,
                                                     uint32_t granularity, Error **errp);
/*
 * Take the bitmap NAME out of the image of BS, if it is there; the bitmap in memory is the
 * caller's to release. 0, or -errno with ERRP set. mixed.
 */
int coroutine_mixed_fn bdrv_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                                           const char *name, Error **errp);
int coroutine_fn bdrv_co_remove_persistent_dirty_bitmap(BlockDriverState *bs,
                                                        const char *name, Error **errp);

/*
 * The bits as bytes, in parts; see hbitmap_serialize_part(). Deserialising is for whoever has
 * just created the bitmap.
 */
uint64_t bdrv_dirty_bitmap_serialization_size(const BdrvDirtyBitmap *bitmap, uint64_t offset,
                                              uint64_t bytes);
uint64_t bdrv_dirty_bitmap_serialization_align(const BdrvDirtyBitmap *bitmap);
void bdrv_dirty_bitmap_serialize_part(const BdrvDirtyBitmap *bitmap, uint8_t *buf,
                                      uint64_t offset, uint64_t bytes);
void bdrv_dirty_bitmap_deserialize_part(BdrvDirtyBitmap *bitmap, uint8_t *buf,
                                        uint64_t offset, uint64_t bytes, bool finish);
void bdrv_dirty_bitmap_deserialize_zeroes(BdrvDirtyBitmap *bitmap, uint64_t offset,
                                          uint64_t bytes, bool finish);
void bdrv_dirty_bitmap_deserialize_ones(BdrvDirtyBitmap *bitmap, uint64_t offset,
                                        uint64_t bytes, bool finish);
void bdrv_dirty_bitmap_deserialize_finish(BdrvDirtyBitmap *bitmap);

/* The request path: the range of BS has been changed. Any thread. */
void bdrv_set_dirty(BlockDriverState *bs, int64_t offset, int64_t bytes);

#endif
