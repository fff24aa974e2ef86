/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Single bits, bit fields, and arrays of unsigned long as bit strings: bit NR is bit
 * NR % BITS_PER_LONG of element NR / BITS_PER_LONG. Not atomic unless said so. Any thread.
 */
#ifndef MINIBLK_BITOPS_H
#define MINIBLK_BITOPS_H

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include "atomic.h"

#define BITS_PER_BYTE CHAR_BIT
#define BITS_PER_LONG (sizeof(unsigned long) * BITS_PER_BYTE)
/* How many elements it takes to hold NR bits. */
#define BITS_TO_LONGS(nr) (((nr) + BITS_PER_LONG - 1) / BITS_PER_LONG)

#define BIT(nr)      (1UL << (nr))
#define BIT_ULL(nr)  (1ULL << (nr))
/* Place of bit NR in an array: mask within the element, and which element. */
#define BIT_MASK(nr) (1UL << ((nr) % BITS_PER_LONG))
#define BIT_WORD(nr) ((nr) / BITS_PER_LONG)
/* LENGTH (1..64) ones from bit SHIFT on. */
#define MAKE_64BIT_MASK(shift, length) ((~0ULL >> (64 - (length))) << (shift))

static inline int test_bit(long nr, const unsigned long *addr)
{
    return !!(addr[BIT_WORD(nr)] & BIT_MASK(nr));
}
static inline void set_bit(long nr, unsigned long *addr)
{
    addr[BIT_WORD(nr)] |= BIT_MASK(nr);
}
static inline void clear_bit(long nr, unsigned long *addr)
{
    addr[BIT_WORD(nr)] &= ~BIT_MASK(nr);
}
static inline void change_bit(long nr, unsigned long *addr)
{
    addr[BIT_WORD(nr)] ^= BIT_MASK(nr);
}
static inline void set_bit_atomic(long nr, unsigned long *addr)
{
    qatomic_or(&addr[BIT_WORD(nr)], BIT_MASK(nr));
}
static inline void clear_bit_atomic(long nr, unsigned long *addr)
{
    qatomic_and(&addr[BIT_WORD(nr)], ~BIT_MASK(nr));
}

/* Change a bit and return what it was. */
static inline int test_and_set_bit(long nr, unsigned long *addr)
{
    int old = test_bit(nr, addr);
    set_bit(nr, addr);
    return old;
}
static inline int test_and_clear_bit(long nr, unsigned long *addr)
{
    int old = test_bit(nr, addr);
    clear_bit(nr, addr);
    return old;
}
static inline int test_and_change_bit(long nr, unsigned long *addr)
{
    int old = test_bit(nr, addr);
    change_bit(nr, addr);
    return old;
}

/* The first bit at OFFSET or behind it that differs from FLIP's; SIZE when there is none. */
static inline unsigned long bitops_find_next_(const unsigned long *addr, unsigned long size,
                                              unsigned long offset, unsigned long flip)
{
    while (offset < size) {
        unsigned long word = (addr[BIT_WORD(offset)] ^ flip) >> (offset % BITS_PER_LONG);
        if (word) {
            offset += __builtin_ctzl(word);
            return offset < size ? offset : size;
        }
        offset = (BIT_WORD(offset) + 1) * BITS_PER_LONG;
    }
    return size;
}

/* The first set / clear bit of a string of SIZE bits from OFFSET on; SIZE: none. */
static inline unsigned long find_next_bit(const unsigned long *addr, unsigned long size,
                                          unsigned long offset)
{
    return bitops_find_next_(addr, size, offset, 0);
}
static inline unsigned long find_next_zero_bit(const unsigned long *addr, unsigned long size,
                                               unsigned long offset)
{
    return bitops_find_next_(addr, size, offset, ~0UL);
}
static inline unsigned long find_first_bit(const unsigned long *addr, unsigned long size)
{
    return find_next_bit(addr, size, 0);
}
static inline unsigned long find_first_zero_bit(const unsigned long *addr, unsigned long size)
{
    return find_next_zero_bit(addr, size, 0);
}
/* The last set bit; SIZE: none. */
static inline unsigned long find_last_bit(const unsigned long *addr, unsigned long size)
{
    for (unsigned long nr = size; nr-- > 0; ) {
        unsigned long word = addr[BIT_WORD(nr)] << (BITS_PER_LONG - 1 - nr % BITS_PER_LONG);
        if (word) {
            return nr - __builtin_clzl(word);
        }
        nr -= nr % BITS_PER_LONG;
    }
    return size;
}

/* ---- fields: LENGTH (>= 1) bits from bit START on ---------------------------------- */

static inline uint64_t extract64(uint64_t value, int start, int length)
{
    assert(start >= 0 && length > 0 && length <= 64 - start);
    return (value >> start) & MAKE_64BIT_MASK(0, length);
}
static inline uint32_t extract32(uint32_t value, int start, int length)
{
    assert(start >= 0 && length > 0 && length <= 32 - start);
    return extract64(value, start, length);
}
/* The field as a signed number. */
static inline int64_t sextract64(uint64_t value, int start, int length)
{
    assert(start >= 0 && length > 0 && length <= 64 - start);
    return (int64_t)(value << (64 - length - start)) >> (64 - length);
}
static inline int32_t sextract32(uint32_t value, int start, int length)
{
    assert(start >= 0 && length > 0 && length <= 32 - start);
    return sextract64(value, start, length);
}
/* VALUE with the field replaced by FIELDVAL's low bits. */
static inline uint64_t deposit64(uint64_t value, int start, int length, uint64_t fieldval)
{
    assert(start >= 0 && length > 0 && length <= 64 - start);
    uint64_t mask = MAKE_64BIT_MASK(start, length);
    return (value & ~mask) | ((fieldval << start) & mask);
}
static inline uint32_t deposit32(uint32_t value, int start, int length, uint32_t fieldval)
{
    assert(start >= 0 && length > 0 && length <= 32 - start);
    return deposit64(value, start, length, fieldval);
}

/* ---- rotation ----------------------------------------------------------------------- */

static inline uint32_t rol32(uint32_t word, unsigned shift)
{
    return (word << (shift & 31)) | (word >> (-shift & 31));
}
static inline uint32_t ror32(uint32_t word, unsigned shift)
{
    return rol32(word, -shift);
}
static inline uint64_t rol64(uint64_t word, unsigned shift)
{
    return (word << (shift & 63)) | (word >> (-shift & 63));
}
static inline uint64_t ror64(uint64_t word, unsigned shift)
{
    return rol64(word, -shift);
}

#endif
