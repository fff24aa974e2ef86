/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random numbers of the explorer: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom
 * number generators, 2014). Of our own because a seed must mean the same schedule with every
 * C library and in every build.
 */
#ifndef LAB_RNG_H
#define LAB_RNG_H

#include <stdint.h>

typedef struct LabRng {
    uint64_t state;
} LabRng;

static inline uint64_t lab_rng_next(LabRng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [0, N), N > 0. The high half of a product: no division, and a bias below N / 2^64. */
static inline uint64_t lab_rng_below(LabRng *rng, uint64_t n)
{
    return ((unsigned __int128)lab_rng_next(rng) * n) >> 64;
}

/* True once in N. */
static inline bool lab_rng_once_in(LabRng *rng, uint64_t n)
{
    return lab_rng_below(rng, n) == 0;
}

/* A number that depends on all bits of A and B, and on their order. */
static inline uint64_t lab_mix(uint64_t a, uint64_t b)
{
    LabRng rng = { a };

    rng.state = lab_rng_next(&rng) ^ b;
    return lab_rng_next(&rng);
}

#endif
