/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a block of the verifying load looks like on the disk.
 *
 * Every 4 KiB block carries where it belongs, which write of which client made it, and a
 * checksum over all of it; the rest is filler that follows from these. So a block tells by
 * itself whether it is whole, in its place, and how old it is.
 */
#ifndef TESTS_LOAD_PATTERN_H
#define TESTS_LOAD_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#define LOAD_BLOCK_BYTES 4096

/*
 * Generations count the writes of one block. 0: never written, the block is as it was in
 * the reference image. With LOAD_GEN_ZEROES the write was a "write zeroes" request.
 */
#define LOAD_GEN_ZEROES 0x80000000u
#define LOAD_GEN_NUMBER(gen) ((gen) & ~LOAD_GEN_ZEROES)

typedef enum BlockVerdict {
    BLOCK_GOOD,         /* whole, in its place */
    BLOCK_ZERO,         /* nothing but zero bytes */
    BLOCK_MISPLACED,    /* whole, but it belongs to another offset or client */
    BLOCK_TORN,         /* ours, but the contents do not match the checksum or the filler */
    BLOCK_FOREIGN,      /* not ours at all */
} BlockVerdict;

typedef struct BlockInfo {
    uint64_t offset_bytes;
    uint32_t generation;
    uint32_t client;
} BlockInfo;

/* Make the block that INFO describes. */
void pattern_fill(uint8_t *block, const BlockInfo *info);
/*
 * Look at a block that was read from OFFSET_BYTES in CLIENT's area. FOUND is set for every
 * verdict but BLOCK_ZERO and BLOCK_FOREIGN.
 */
BlockVerdict pattern_check(const uint8_t *block, uint64_t offset_bytes, uint32_t client,
                           BlockInfo *found);
bool pattern_is_zero(const uint8_t *data, uint64_t bytes);

/* A small generator with a state per user, so that a seed gives the same run again. */
uint64_t load_random(uint64_t *state);

#endif
