/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "pattern.h"

#define PATTERN_MAGIC 0x6b6c626c6f61644dull     /* "Mdaolblk" on the disk */
#define FILLER_WORDS ((LOAD_BLOCK_BYTES - 40) / 8)

/* Little-endian on the disk, so that images can be carried to another machine. */
typedef struct DiskBlock {
    uint64_t magic;
    uint64_t offset_bytes;
    uint32_t generation;
    uint32_t client;
    uint64_t filler_seed;
    uint64_t checksum;
    uint64_t filler[FILLER_WORDS];
} DiskBlock;
G_STATIC_ASSERT(sizeof(DiskBlock) == LOAD_BLOCK_BYTES);

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

uint64_t load_random(uint64_t *state)
{
    return mix(*state += 0x9e3779b97f4a7c15ull);
}

static uint64_t filler_word(uint64_t seed, unsigned i)
{
    /* One multiplication a word: the client must not be slower than the server. */
    return (seed + i) * 0x9e3779b97f4a7c15ull;
}

static uint64_t seed_of(const BlockInfo *info)
{
    return mix(info->offset_bytes ^ mix(((uint64_t)info->client << 32) | info->generation));
}

static uint64_t checksum_of(const DiskBlock *d)
{
    uint64_t sum = mix(GUINT64_FROM_LE(d->offset_bytes))
        ^ mix(((uint64_t)GUINT32_FROM_LE(d->client) << 32) | GUINT32_FROM_LE(d->generation));

    for (unsigned i = 0; i < FILLER_WORDS; i++) {
        sum = (sum << 7 | sum >> 57) ^ GUINT64_FROM_LE(d->filler[i]);
    }
    return mix(sum);
}

void pattern_fill(uint8_t *block, const BlockInfo *info)
{
    DiskBlock d;
    uint64_t seed = seed_of(info);

    d.magic = GUINT64_TO_LE(PATTERN_MAGIC);
    d.offset_bytes = GUINT64_TO_LE(info->offset_bytes);
    d.generation = GUINT32_TO_LE(info->generation);
    d.client = GUINT32_TO_LE(info->client);
    d.filler_seed = GUINT64_TO_LE(seed);
    for (unsigned i = 0; i < FILLER_WORDS; i++) {
        d.filler[i] = GUINT64_TO_LE(filler_word(seed, i));
    }
    d.checksum = GUINT64_TO_LE(checksum_of(&d));
    memcpy(block, &d, sizeof(d));
}

BlockVerdict pattern_check(const uint8_t *block, uint64_t offset_bytes, uint32_t client,
                           BlockInfo *found)
{
    DiskBlock d;
    uint64_t seed;

    memcpy(&d, block, sizeof(d));
    if (GUINT64_FROM_LE(d.magic) != PATTERN_MAGIC) {
        return pattern_is_zero(block, LOAD_BLOCK_BYTES) ? BLOCK_ZERO : BLOCK_FOREIGN;
    }
    found->offset_bytes = GUINT64_FROM_LE(d.offset_bytes);
    found->generation = GUINT32_FROM_LE(d.generation);
    found->client = GUINT32_FROM_LE(d.client);
    seed = GUINT64_FROM_LE(d.filler_seed);
    if (seed != seed_of(found) || GUINT64_FROM_LE(d.checksum) != checksum_of(&d)) {
        return BLOCK_TORN;
    }
    /* The checksum alone would miss two errors that cancel out; the filler cannot. */
    for (unsigned i = 0; i < FILLER_WORDS; i++) {
        if (GUINT64_FROM_LE(d.filler[i]) != filler_word(seed, i)) {
            return BLOCK_TORN;
        }
    }
    if (found->offset_bytes != offset_bytes || found->client != client) {
        return BLOCK_MISPLACED;
    }
    return BLOCK_GOOD;
}

bool pattern_is_zero(const uint8_t *data, uint64_t bytes)
{
    /* A buffer whose first byte is zero and that equals itself shifted by one is all zero. */
    return bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0);
}
