/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The graph fuzzer: what its files share. */
#ifndef GRAPH_FUZZ_H
#define GRAPH_FUZZ_H

#include "miniblk/osdep.h"
#include "block/block-internal.h"
#include "miniblk/atomic.h"
#include "miniblk/block-backend.h"
#include "miniblk/iothread.h"

enum {
    BLOCK_BYTES = 512,
    DISK_BLOCKS = 64,
    CONTEXTS = 3,               /* the main one and two IOThreads */
};

/* ---- drivers.c ------------------------------------------------------------------------------ */

/*
 * "fuzz-store" keeps data in memory, "fuzz-overlay" keeps what is written to it and shows its
 * backing child elsewhere, "fuzz-filter" (over bs->backing) and "fuzz-insert" (over bs->file)
 * pass everything on. All of them complain when a request comes while they are drained, or in
 * another thread than that of their context.
 */
typedef struct FuzzNode {
    bool is_store;
    int drained;                /* begin callbacks minus end callbacks */
    bool forbidden;             /* atomic; drained: no request may be here */
    int requests;               /* atomic; in the driver right now */
    bool refuse_reopen;         /* the next bdrv_reopen_prepare fails */
    uint8_t data[DISK_BLOCKS];  /* what a block is filled with */
    bool allocated[DISK_BLOCKS];
} FuzzNode;

extern BlockDriver fuzz_store, fuzz_overlay, fuzz_filter, fuzz_insert;
static inline FuzzNode *fuzz_node(BlockDriverState *bs)
{
    return bs->opaque;
}
void fuzz_drivers_register(void);

/* ---- load.c ---------------------------------------------------------------------------------- */

/* What a disk must show, by block: NOW, or, while that is being written, COMING. Atomic. */
typedef struct Shadow {
    uint8_t now[DISK_BLOCKS], coming[DISK_BLOCKS];
} Shadow;
/* A backend with coroutines that write and read, each its own blocks of the shadow copy. */
typedef struct Load Load;
enum { WORKERS = 4, BLOCKS_PER_WORKER = 4 };
/*
 * FIRST: the first of the workers' blocks. MOBILE: the backend goes along with moves; else it
 * stays and parks its requests.
 */
Load *load_start(BlockBackend *blk, Shadow *shadow, int first, bool may_write, bool mobile);
BlockBackend *load_backend(Load *load);
/* Whether the backend may write now; takes effect when no write is under way. */
void load_allow_writes(Load *load, bool allow);
bool load_writes(Load *load);
int64_t load_requests(Load *load);
/* Polls until the workers have ended; they must be able to go on. Drops the backend. */
void load_stop(Load *load);

/* ---- check.c --------------------------------------------------------------------------------- */

/*
 * Recompute from scratch what the graph keeps up to date, and compare: lists, heights,
 * permissions, contexts. With SECTIONS, the number of open sections by node, also drained
 * levels and references; HELD: our references by node. Both NULL inside of somebody's poll.
 */
void check_graph(GHashTable *sections, int drain_all_sections, GHashTable *held);

#endif
