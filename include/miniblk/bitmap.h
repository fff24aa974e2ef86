/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bit strings as wholes; single bits are in bitops.h. NBITS is the length in bits. */
#ifndef MINIBLK_BITMAP_H
#define MINIBLK_BITMAP_H

#include <glib.h>
#include <string.h>
#include "bitops.h"

#define DECLARE_BITMAP(name, bits) unsigned long name[BITS_TO_LONGS(bits)]
/* The bits of the first / last element that belong to a range. */
#define BITMAP_FIRST_WORD_MASK(start) (~0UL << ((start) % BITS_PER_LONG))
#define BITMAP_LAST_WORD_MASK(nbits)  (~0UL >> (-(nbits) % BITS_PER_LONG))

static inline size_t bitmap_bytes_(long nbits)
{
    return BITS_TO_LONGS(nbits) * sizeof(unsigned long);
}
/* All clear; release with g_free(). The try variant answers NULL instead of aborting. */
static inline unsigned long *bitmap_new(long nbits)
{
    return (unsigned long *)g_malloc0(bitmap_bytes_(nbits));
}
static inline unsigned long *bitmap_try_new(long nbits)
{
    return (unsigned long *)g_try_malloc0(bitmap_bytes_(nbits));
}
static inline void bitmap_zero(unsigned long *dst, long nbits)
{
    memset(dst, 0, bitmap_bytes_(nbits));
}
static inline void bitmap_copy(unsigned long *dst, const unsigned long *src, long nbits)
{
    memcpy(dst, src, bitmap_bytes_(nbits));
}

/* Set or clear NR bits from START on. */
static inline void bitmap_set(unsigned long *map, long start, long nr)
{
    for (long end = start + nr; start < end; ) {
        long stop = MIN(end, (long)((BIT_WORD(start) + 1) * BITS_PER_LONG));
        map[BIT_WORD(start)] |= MAKE_64BIT_MASK(start % BITS_PER_LONG, stop - start);
        start = stop;
    }
}
static inline void bitmap_clear(unsigned long *map, long start, long nr)
{
    for (long end = start + nr; start < end; ) {
        long stop = MIN(end, (long)((BIT_WORD(start) + 1) * BITS_PER_LONG));
        map[BIT_WORD(start)] &= ~MAKE_64BIT_MASK(start % BITS_PER_LONG, stop - start);
        start = stop;
    }
}
static inline void bitmap_fill(unsigned long *dst, long nbits)
{
    bitmap_zero(dst, nbits);
    bitmap_set(dst, 0, nbits);
}

static inline int bitmap_empty(const unsigned long *src, long nbits)
{
    return find_first_bit(src, nbits) == (unsigned long)nbits;
}
static inline int bitmap_full(const unsigned long *src, long nbits)
{
    return find_first_zero_bit(src, nbits) == (unsigned long)nbits;
}
static inline long bitmap_count_one(const unsigned long *map, long nbits)
{
    long count = 0;
    for (long i = 0; i < nbits; i += BITS_PER_LONG) {
        unsigned long word = map[BIT_WORD(i)];
        if (nbits - i < (long)BITS_PER_LONG) {
            word &= BITMAP_LAST_WORD_MASK(nbits);
        }
        count += __builtin_popcountl(word);
    }
    return count;
}
static inline int bitmap_equal(const unsigned long *a, const unsigned long *b, long nbits)
{
    long whole = nbits / BITS_PER_LONG;
    return !memcmp(a, b, whole * sizeof(*a)) &&
           (nbits % BITS_PER_LONG == 0 ||
            !((a[whole] ^ b[whole]) & BITMAP_LAST_WORD_MASK(nbits)));
}
static inline int bitmap_intersects(const unsigned long *a, const unsigned long *b, long nbits)
{
    for (long i = find_next_bit(a, nbits, 0); i < nbits; i = find_next_bit(a, nbits, i + 1)) {
        if (test_bit(i, b)) {
            return 1;
        }
    }
    return 0;
}

/* DST = A op B, element by element; DST may be A or B. */
static inline void bitmap_or(unsigned long *dst, const unsigned long *a,
                             const unsigned long *b, long nbits)
{
    for (unsigned long i = 0; i < BITS_TO_LONGS(nbits); i++) {
        dst[i] = a[i] | b[i];
    }
}
static inline void bitmap_xor(unsigned long *dst, const unsigned long *a,
                              const unsigned long *b, long nbits)
{
    for (unsigned long i = 0; i < BITS_TO_LONGS(nbits); i++) {
        dst[i] = a[i] ^ b[i];
    }
}
/* These two tell whether the result has a bit set. */
static inline int bitmap_and(unsigned long *dst, const unsigned long *a,
                             const unsigned long *b, long nbits)
{
    for (unsigned long i = 0; i < BITS_TO_LONGS(nbits); i++) {
        dst[i] = a[i] & b[i];
    }
    return !bitmap_empty(dst, nbits);
}
static inline int bitmap_andnot(unsigned long *dst, const unsigned long *a,
                                const unsigned long *b, long nbits)
{
    for (unsigned long i = 0; i < BITS_TO_LONGS(nbits); i++) {
        dst[i] = a[i] & ~b[i];
    }
    return !bitmap_empty(dst, nbits);
}
static inline void bitmap_complement(unsigned long *dst, const unsigned long *src, long nbits)
{
    for (unsigned long i = 0; i < BITS_TO_LONGS(nbits); i++) {
        dst[i] = ~src[i];
    }
}

/* A longer copy of OLD with the new bits clear; OLD is freed. */
static inline unsigned long *bitmap_zero_extend(unsigned long *old, long old_nbits,
                                                long new_nbits)
{
    unsigned long *map = (unsigned long *)g_realloc(old, bitmap_bytes_(new_nbits));
    bitmap_clear(map, old_nbits, new_nbits - old_nbits);
    return map;
}

#endif
