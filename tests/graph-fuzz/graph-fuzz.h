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
/* Whether it is one of these, and not a filter of a job. */
static inline bool is_ours(BlockDriverState *bs)
{
    return bs->drv == &fuzz_store || bs->drv == &fuzz_overlay || bs->drv == &fuzz_filter ||
           bs->drv == &fuzz_insert;
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

/* ---- world.c --------------------------------------------------------------------------------- */

enum { DISKS = 3, LOADS_PER_DISK = 3, SECTIONS_MAX = 5, CHAIN_MAX = 12, LINKS_MAX = 2 };

typedef struct Disk {
    BlockBackend *anchor;       /* needs nothing, minds nothing, and is always on the top */
    Shadow shadow;
    Load *load[LOADS_PER_DISK]; /* NULL: none at present */
} Disk;

extern Disk disk[DISKS];
extern AioContext *context[CONTEXTS];
extern IOThread *io[CONTEXTS];
extern GHashTable *held;        /* our references, by node */
extern GHashTable *chained;     /* nodes with one of these because they are in a chain */
extern GPtrArray *sections;     /* of BlockDriverState; one reference each, in HELD */
extern int drain_all_sections;
extern BlockDriverState *link_node[LINKS_MAX];
extern int operations, refusals, nested;
extern int depth;               /* of operations inside of waits */
extern bool nested_pending;     /* an operation waits for the next wait */

/* Write down what is about to be done; printed when the program aborts. */
void G_GNUC_PRINTF(1, 2) tell(const char *fmt, ...);
void tell_the_story(int sig);
int below(int n);
bool one_in(int n);
/* References, which are counted in HELD. */
void hold(BlockDriverState *bs);
void take(BlockDriverState *bs);
void drop(BlockDriverState *bs);
BlockDriverState *new_node(BlockDriver *drv);
BlockDriverState *top_of(Disk *d);
BlockDriverState *store_of(Disk *d);    /* the last of the chain */
int length_of(Disk *d);
Disk *any_disk(void);
/* A reference comes with it. */
BlockDriverState *any_node(Disk *d);
bool is_filter(BlockDriverState *bs);   /* one of ours */
bool in_a_chain(BlockDriverState *bs);
/* Drop what is no longer in a chain of CHAINED. */
void forget_what_is_out(void);
/* Let the operation that waits for a wait have it now, so that the next waits have none. */
void no_surprises(void);
/* What was refused must have said why. Forgets the error. */
bool done(int ret, Error **err);

/* ---- ops-*.c: operations --------------------------------------------------------------------- */

void op_append(void);
void op_insert(void);
void op_drop_filter(void);
void op_commit(void);
void op_section_begin(void);
void op_section_end(void);
void op_drain(void);
void op_drain_all(void);
void op_drain_all_end(void);
void op_move(void);
void op_set_perm(void);
void op_freeze(void);
void op_reopen(void);
void op_make_writable(void);
void op_backend(void);
void op_eject(void);
void op_link(void);
void op_scratch(void);
void op_illegal(void);
void op_job_start(void);
void op_job_verb(void);
/* Whether any job has not ended, or a node of one is still in a chain. */
bool jobs_active(void);
/* Cancel all jobs, and wait until nothing is left of them. No sections are open. */
void jobs_end(void);
void jobs_reap(void);
void end_section(unsigned i);

/* ---- check.c --------------------------------------------------------------------------------- */

/*
 * Recompute from scratch what the graph keeps up to date, and compare: lists, heights,
 * permissions, contexts. With SECTIONS, the number of open sections by node, also drained
 * levels and references; HELD: our references by node. Both NULL inside of somebody's poll.
 */
void check_graph(GHashTable *sections, int drain_all_sections, GHashTable *held);

#endif
