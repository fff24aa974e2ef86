/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a client of the verifying load knows about its blocks: which of them are its own, and
 * what each must contain. The knowledge lives in a file that is mapped, so that it survives
 * the client being killed at any instruction.
 *
 * Invariant of an entry: the disk holds `sure`, or `maybe`, where
 *     maybe == sure       nothing is in doubt
 *     maybe != sure       a write of `maybe` was begun and its end was never seen
 * `maybe` is set before the request is sent, `sure` after it was acknowledged.
 */
#ifndef TESTS_LOAD_STATE_H
#define TESTS_LOAD_STATE_H

#include <glib.h>
#include "pattern.h"

typedef struct BlockState {
    uint32_t sure;
    uint32_t maybe;
    /*
     * The connection ended with a write in flight. The server may carry it out at any later
     * time, so a new write could be overtaken by it: the block is only read from then on.
     */
    uint32_t quarantined;
    uint32_t reserved;
} BlockState;

/* A sorted list of the offsets (in bytes, multiples of 4096) that the load may write. */
typedef struct BlockList {
    uint64_t *offset_bytes;
    size_t count;
} BlockList;

/* The part of a list that one client owns. */
typedef struct LoadState {
    BlockList blocks;           /* owned; offsets of this client */
    BlockState *block;          /* mapped; one for each offset */
    uint32_t client;
    void *map;
    size_t map_bytes;
} LoadState;

typedef struct Reference {
    const uint8_t *data;
    uint64_t size_bytes;
} Reference;

/*
 * Read "OFFSET LENGTH" lines (bytes). False, with a message on stderr, when the file is
 * missing or a line is malformed, unaligned or out of order.
 */
bool block_list_load(BlockList *list, const char *filename);
/* One extent instead of a file. */
bool block_list_from_region(BlockList *list, uint64_t offset_bytes, uint64_t length_bytes);
void block_list_free(BlockList *list);
/* Whether [OFFSET, OFFSET+LENGTH) touches a block of the list. */
bool block_list_overlaps(const BlockList *list, uint64_t offset_bytes, uint64_t length_bytes);

/*
 * Map FILENAME, making it when it does not exist. CLIENT's slice is part SLICE of SLICES of
 * ALL, interleaved so that neighbouring clients share qcow2 clusters. Blocks that a killed
 * predecessor left in doubt are quarantined. With FILENAME NULL: in memory only.
 */
bool load_state_open(LoadState *state, const char *filename, const BlockList *all,
                     uint32_t client, uint32_t slice, uint32_t slices);
/* Map an existing file for verification; who it belongs to is read from it. */
bool load_state_reopen(LoadState *state, const char *filename, const BlockList *all);
void load_state_close(LoadState *state);
size_t load_state_in_doubt(const LoadState *state);

bool reference_open(Reference *ref, const char *filename);
void reference_close(Reference *ref);

/*
 * Compare what was read from block INDEX with what it must be; REF may have no data, then
 * blocks that were never written match anything. NULL when it is right, else a new string
 * that says what is wrong. A write that was in doubt and is seen becomes sure.
 */
char *load_state_check(LoadState *state, size_t index, const uint8_t *data,
                       const Reference *ref);

#endif
