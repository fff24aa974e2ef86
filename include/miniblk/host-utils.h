/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counting bits, and powers of two. Any value is allowed, zero too. */
#ifndef MINIBLK_HOST_UTILS_H
#define MINIBLK_HOST_UTILS_H

#include <stdbool.h>
#include <stdint.h>

/* Leading and trailing zeroes (all of them for 0), and ones. */
static inline int clz32(uint32_t val) { return val ? __builtin_clz(val) : 32; }
static inline int clz64(uint64_t val) { return val ? __builtin_clzll(val) : 64; }
static inline int ctz32(uint32_t val) { return val ? __builtin_ctz(val) : 32; }
static inline int ctz64(uint64_t val) { return val ? __builtin_ctzll(val) : 64; }
static inline int clo32(uint32_t val) { return clz32(~val); }
static inline int clo64(uint64_t val) { return clz64(~val); }
static inline int cto32(uint32_t val) { return ctz32(~val); }
static inline int cto64(uint64_t val) { return ctz64(~val); }
#define ctzl(val) ctz64((unsigned long)(val))
/* Ones. */
static inline int ctpop8(uint8_t val) { return __builtin_popcount(val); }
static inline int ctpop16(uint16_t val) { return __builtin_popcount(val); }
static inline int ctpop32(uint32_t val) { return __builtin_popcount(val); }
static inline int ctpop64(uint64_t val) { return __builtin_popcountll(val); }

static inline bool is_power_of_2(uint64_t value)
{
    return value && !(value & (value - 1));
}
/* The largest power of two that is no larger; 0 for 0. */
static inline uint64_t pow2floor(uint64_t value)
{
    return value ? 1ULL << (63 - clz64(value)) : 0;
}
/* The smallest that is no smaller; 1 for 0, and 0 when it does not fit. */
static inline uint64_t pow2ceil(uint64_t value)
{
    int bits = value > 1 ? 64 - clz64(value - 1) : 0;
    return bits < 64 ? 1ULL << bits : 0;
}

/* A * B / C without losing the product's high bits; the quotient must fit. */
static inline uint64_t muldiv64(uint64_t a, uint32_t b, uint32_t c)
{
    return (unsigned __int128)a * b / c;
}
static inline uint64_t muldiv64_round_up(uint64_t a, uint32_t b, uint32_t c)
{
    return ((unsigned __int128)a * b + c - 1) / c;
}

#endif
