/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Metadata: tables in memory, caches, refcounts, the mapping, and the order in which they are
 * written.
 */
#ifndef IMAGES_QCOW2_META_H
#define IMAGES_QCOW2_META_H

#include "images/qcow2-state.h"

/* ---- qcow2-root.c ------------------------------------------------------------------ */

int qcow2_root_read(Qcow2State *s, Qcow2Root *root, uint64_t offset, uint32_t size);
void qcow2_root_init(Qcow2Root *root, uint64_t *entries, uint32_t size, uint64_t offset);
void qcow2_root_free(Qcow2Root *root);
/* Change an entry in memory; qcow2_root_write() brings it to the file. */
void qcow2_root_set(Qcow2Root *root, uint32_t index, uint64_t value);
static inline bool qcow2_root_changed(const Qcow2Root *root, uint32_t index)
{
    return index < root->size && (root->changed[index / 64] >> (index % 64) & 1);
}
int coroutine_fn qcow2_root_write(Qcow2State *s, Qcow2Root *root);

/* ---- qcow2-cache.c ----------------------------------------------------------------- */

void qcow2_cache_init(Qcow2Cache *c, uint32_t slice_bits, size_t bytes_max);
void qcow2_cache_free(Qcow2Cache *c);
/* Forget all that is in it, without writing. */
void qcow2_cache_reset(Qcow2Cache *c);
/* The slice at OFFSET if it is in memory. Good until the next yield. */
Qcow2Slice *qcow2_cache_peek(Qcow2Cache *c, uint64_t offset);
/* The same, read from the file if need be; pinned until qcow2_cache_put(). Lock held. */
int coroutine_fn qcow2_cache_get(Qcow2State *s, Qcow2Cache *c, uint64_t offset,
                                 uint32_t owner, Qcow2Slice **slice);
/* The same for a slice whose content is known to be zero; it becomes dirty. */
int coroutine_fn qcow2_cache_get_zeroed(Qcow2State *s, Qcow2Cache *c, uint64_t offset,
                                        uint32_t owner, Qcow2Slice **slice);
static inline void qcow2_cache_put(Qcow2Slice *slice)
{
    slice->pins--;
}
void qcow2_cache_mark_dirty(Qcow2Cache *c, Qcow2Slice *slice);
/* Forget, without writing, what lies in BYTES from OFFSET on. */
void qcow2_cache_drop(Qcow2Cache *c, uint64_t offset, uint64_t bytes);
/*
 * Let go of the memory of slices that were not used since the last call. Any time between two
 * yields of others.
 */
void qcow2_cache_clean(Qcow2Cache *c);
/* Have that done at intervals in CTX, where the node is or will be. Its thread, or drained. */
void qcow2_cleaner_start(Qcow2State *s, AioContext *ctx);
void qcow2_cleaner_stop(Qcow2State *s);
/* Write the dirty slices; with FRESH_OF only those of tables whose entry there changed. */
int coroutine_fn qcow2_cache_write(Qcow2State *s, Qcow2Cache *c, const Qcow2Root *fresh_of);
static inline bool qcow2_cache_is_clean(const Qcow2Cache *c)
{
    return QTAILQ_EMPTY(&c->dirty);
}

/* ---- qcow2-set.c ------------------------------------------------------------------- */

void qcow2_set_add(Qcow2Set *set, uint64_t cluster);
void qcow2_set_remove(Qcow2Set *set, uint64_t cluster);
bool qcow2_set_has(const Qcow2Set *set, uint64_t cluster);
void qcow2_set_clear(Qcow2Set *set);
/* Put the slots in use first, in order. After that SET is only good to be cleared. */
void qcow2_set_sort(Qcow2Set *set);

/* ---- qcow2-overlap.c --------------------------------------------------------------- */

/* Note all metadata of the image just opened. */
void qcow2_overlap_collect(Qcow2State *s);
/* 0, or -EIO after signalling corruption: guest data may not be written there. */
int coroutine_fn qcow2_overlap_check_data(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* The same for one cluster with a table; WHAT names it in the message. */
int coroutine_fn qcow2_overlap_check_l2(Qcow2State *s, uint64_t offset);
int coroutine_fn qcow2_overlap_check_new(Qcow2State *s, uint64_t cluster, uint64_t n);
/* Report corruption once; FATAL: set the corrupt bit and refuse writes. Returns -EIO. */
int coroutine_fn qcow2_signal_corruption(Qcow2State *s, bool fatal, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

/* ---- qcow2-refcount.c -------------------------------------------------------------- */

uint64_t qcow2_refcount_load(const uint8_t *block, uint32_t order, uint64_t i);
void qcow2_refcount_store(uint8_t *block, uint32_t order, uint64_t i, uint64_t value);
int coroutine_fn qcow2_refcount_get(Qcow2State *s, uint64_t cluster, uint64_t *refcount);
/* How many clusters from CLUSTER on have refcount 0 for sure, without looking far. */
int coroutine_fn qcow2_refcount_zeroes(Qcow2State *s, uint64_t cluster, uint64_t *n);
/* 1: *CLUSTER becomes the first one in use of those from it on before END; 0: none is. */
int coroutine_fn qcow2_refcount_next_used(Qcow2State *s, uint64_t *cluster, uint64_t end);
/* Where the last cluster before END that is in use ends, in clusters; 0: none is. */
int coroutine_fn qcow2_refcount_used_end(Qcow2State *s, uint64_t end, uint64_t *used_end);
/* Set one refcount, making its block if need be. */
int coroutine_fn qcow2_refcount_set(Qcow2State *s, uint64_t cluster, uint64_t refcount);
/* Add or take one reference of each; all or (on failure) none. */
int coroutine_fn qcow2_refcount_change(Qcow2State *s, uint64_t cluster, uint64_t n,
                                       int delta);
/* Take between MIN and MAX contiguous clusters; *FRESH: they read as zeroes already. */
int coroutine_fn qcow2_alloc_clusters(Qcow2State *s, uint64_t min, uint64_t max,
                                      uint64_t *offset, uint64_t *n, bool *fresh);

/* ---- qcow2-writeback.c ------------------------------------------------------------- */

/* Write all changed metadata in a safe order. Lock held. */
int coroutine_fn qcow2_writeback(Qcow2State *s);
/* The same until nothing is left to free. No requests may be running. Lock held. */
int coroutine_fn qcow2_writeback_all(Qcow2State *s);
/* Make the data that was written durable: the file's, and the data file's. */
int coroutine_fn qcow2_flush_files(Qcow2State *s);
/* Give up one reference per cluster once that is safe. Lock held. */
void qcow2_free_later(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Discard cause);
/* Called at the end of each operation that may have freed much. Lock held. */
int coroutine_fn qcow2_limit_frees(Qcow2State *s);
/* Driver call. */
int coroutine_fn qcow2_co_flush_to_os(BlockDriverState *bs);
/* Before the first change of a refcount in lazy mode. */
int coroutine_fn qcow2_mark_dirty(Qcow2State *s);
/* Bracket every guest request. */
static inline unsigned qcow2_request_begin(Qcow2State *s)
{
    s->running[s->epoch]++;
    return s->epoch;
}
static inline void qcow2_request_end(Qcow2State *s, unsigned epoch)
{
    s->running[epoch]--;
}

/* ---- qcow2-cluster.c --------------------------------------------------------------- */

/*
 * How the first bytes from OFFSET on (at most BYTES) are mapped. qcow2_map_cached() is
 * false when that needs I/O or the tables are corrupt.
 */
bool qcow2_map_cached(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Run *run);
int coroutine_fn qcow2_map(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2Run *run);
/* The same with the lock held. */
int coroutine_fn qcow2_map_locked(Qcow2State *s, uint64_t offset, uint64_t bytes,
                                  Qcow2Run *run);
/*
 * The slice with the L2 entry of OFFSET, pinned, in a table that we may change; *INDEX is
 * the entry's place in the slice. Lock held.
 */
int coroutine_fn qcow2_l2_for_write(Qcow2State *s, uint64_t offset, Qcow2Slice **slice,
                                    uint32_t *index);
static inline uint32_t qcow2_slice_entries(const Qcow2State *s)
{
    return 1u << (s->l2_cache.slice_bits - s->l2_entry_bits);
}
/* Give up what an L2 entry with descriptor DESC refers to. Lock held. */
void qcow2_free_entry(Qcow2State *s, uint64_t desc, Qcow2Discard cause);
/* Host range of a compressed cluster. */
void qcow2_compressed_range(const Qcow2State *s, uint64_t entry, uint64_t *offset,
                            uint64_t *bytes);

/* ---- qcow2-alloc.c: lock held ------------------------------------------------------- */

static inline uint64_t qcow2_alloc_guest_end(const Qcow2State *s, const Qcow2Alloc *a)
{
    return a->guest + (a->clusters << s->cluster_bits);
}
/* The first allocation in flight in the range, by position; NULL when there is none. */
Qcow2Alloc *qcow2_alloc_first(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Drop the reference of one who has waited for A. */
void qcow2_alloc_unref(Qcow2Alloc *a);
/*
 * Wait until no allocation touches the first byte of the range; the number of bytes from
 * there on that none touches. The lock is dropped while waiting.
 */
uint64_t coroutine_fn qcow2_wait_allocs(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* Enter a copy of A, to whose clusters data will be written, into the list. */
Qcow2Alloc *qcow2_alloc_begin(Qcow2State *s, const Qcow2Alloc *a);
/* The data of A was written (RET >= 0) or not: map or give up the clusters. */
int coroutine_fn qcow2_alloc_end(Qcow2State *s, Qcow2Alloc *a, int ret);

#endif
