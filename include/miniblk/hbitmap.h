/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HBitmap: a bitmap for sparse sets that is fast to search and to iterate.
 *
 * It records which of SIZE items are dirty, with one bit per granule of 2^GRANULARITY items.
 * All positions and counts are in items. No locking: callers exclude each other. Ranges
 * that do not lie within the bitmap, and breaches of the rules below, abort.
 */
#ifndef MINIBLK_HBITMAP_H
#define MINIBLK_HBITMAP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct HBitmap HBitmap;

/* Granules of one bitmap at the most. */
#define HBITMAP_LOG_MAX_SIZE 41

/* A clean bitmap. SIZE: 0..INT64_MAX; GRANULARITY: 0..63. Release with hbitmap_free(). */
HBitmap *hbitmap_alloc(uint64_t size, int granularity);
/* NULL is fine. */
void hbitmap_free(HBitmap *hb);
/* Resize. What lies beyond a smaller size is forgotten; what is new is clean. */
void hbitmap_truncate(HBitmap *hb, uint64_t size);

int hbitmap_granularity(const HBitmap *hb);
bool hbitmap_empty(const HBitmap *hb);
/* Number of dirty items: those of dirty granules, none beyond the size counted. */
uint64_t hbitmap_count(const HBitmap *hb);
bool hbitmap_get(const HBitmap *hb, uint64_t item);

/* ---- changing ----------------------------------------------------------------------- */

/* Make the granules that the range touches dirty. */
void hbitmap_set(HBitmap *hb, uint64_t start, uint64_t count);
/* Make a range clean. It begins and ends between granules, or ends at the size. */
void hbitmap_reset(HBitmap *hb, uint64_t start, uint64_t count);
void hbitmap_reset_all(HBitmap *hb);
/*
 * RESULT becomes the union of A and B. All have the same size; granularities may differ.
 * RESULT may be A or B.
 */
void hbitmap_merge(const HBitmap *a, const HBitmap *b, HBitmap *result);

/* ---- searching ---------------------------------------------------------------------- */

/* The first dirty / clean item of [START, START + COUNT), cut at the size; -1: none. */
int64_t hbitmap_next_dirty(const HBitmap *hb, int64_t start, int64_t count);
int64_t hbitmap_next_zero(const HBitmap *hb, int64_t start, int64_t count);
/*
 * The first run of dirty items in [START, END), cut at the size: its place and its length,
 * or MAX_DIRTY_COUNT if it is longer. False when there is none.
 */
bool hbitmap_next_dirty_area(const HBitmap *hb, int64_t start, int64_t end,
                             int64_t max_dirty_count, int64_t *dirty_start,
                             int64_t *dirty_count);
/* Whether item START is dirty, and in *PNUM how many from it on (at most COUNT) are alike. */
bool hbitmap_status(const HBitmap *hb, int64_t start, int64_t count, int64_t *pnum);

/* Walks over dirty granules. The bitmap may be changed, not resized, between two steps. */
typedef struct HBitmapIter {
    const HBitmap *hb;
    uint64_t next_bit;          /* where the next step starts to look */
} HBitmapIter;

/* Begin with the granule of item FIRST, which is below the size or equal to it. */
void hbitmap_iter_init(HBitmapIter *hbi, const HBitmap *hb, uint64_t first);
/* The first item of the next granule that is dirty now; -1 at the end. */
int64_t hbitmap_iter_next(HBitmapIter *hbi);

/* ---- serialisation ------------------------------------------------------------------ */

/*
 * Parts of a bitmap as bytes: its bits as little-endian 64-bit numbers, the first granule in
 * bit 0. A part starts at a multiple of hbitmap_serialization_align() items and ends at one
 * or at the size. Only bitmaps of which this multiple fits 64 bits can be serialised.
 */
bool hbitmap_is_serializable(const HBitmap *hb);
uint64_t hbitmap_serialization_align(const HBitmap *hb);
/* Bytes that a part takes. */
uint64_t hbitmap_serialization_size(const HBitmap *hb, uint64_t start, uint64_t count);
void hbitmap_serialize_part(const HBitmap *hb, uint8_t *buf, uint64_t start, uint64_t count);
/*
 * Replace a part. Bits of BUF beyond the size are ignored. Whoever loads in several parts
 * says FINISH with the last one, or calls hbitmap_deserialize_finish().
 */
void hbitmap_deserialize_part(HBitmap *hb, uint8_t *buf, uint64_t start, uint64_t count,
                              bool finish);
void hbitmap_deserialize_zeroes(HBitmap *hb, uint64_t start, uint64_t count, bool finish);
void hbitmap_deserialize_ones(HBitmap *hb, uint64_t start, uint64_t count, bool finish);
/* Until then searches and counts may miss what was loaded. */
void hbitmap_deserialize_finish(HBitmap *hb);

#endif
