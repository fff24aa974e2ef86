/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hierarchical bitmap.
 *
 * Level 0 has one bit per granule. A bit of level k + 1 says whether a word of level k is
 * not zero; the top level is one word. Finding the next set bit climbs until a word has
 * something to the right, and then descends along first set bits, so that a gap of any
 * length costs two words per level:
 *
 *      level 2                       [ 0 1 ]
 *                                       |
 *      level 1             [ 0 0 0 0 | 0 1 0 0 ]
 *                                        |
 *      level 0    .. [ 0 0 0 0 ] [ 0 0 1 0 ] [ 0 0 0 0 ] ..
 *
 * Invariant: bit W of level k + 1 is set if and only if word W of level k is not zero, and
 * bits beyond BITS are clear. COUNT is the number of ones in level 0.
 */
#include "miniblk/osdep.h"
#include "miniblk/bswap.h"
#include "miniblk/hbitmap.h"
#include "miniblk/host-utils.h"

enum {
    WORD_BITS = 64,
    WORD_SHIFT = 6,
    LEVELS_MAX = DIV_ROUND_UP(HBITMAP_LOG_MAX_SIZE, WORD_SHIFT),
};

struct HBitmap {
    uint64_t size;              /* items */
    uint64_t bits;              /* granules */
    uint64_t count;             /* dirty granules */
    int granularity;
    int levels;
    uint64_t *level[LEVELS_MAX];
};

static uint64_t words_for(uint64_t bits)
{
    return DIV_ROUND_UP(bits, WORD_BITS);
}

/* Granules that it takes for SIZE items; written so as not to overflow. */
static uint64_t granules(uint64_t size, int granularity)
{
    return (size >> granularity) + !!(size & ((1ULL << granularity) - 1));
}

/* ---- ranges of one level -------------------------------------------------------------- */

/* Bits FIRST..LAST of WORD, clipped to it; both count from the level's beginning. */
static uint64_t word_mask(uint64_t word, uint64_t first, uint64_t last)
{
    uint64_t base = word * WORD_BITS;
    unsigned low = first > base ? first - base : 0;
    unsigned high = MIN(last - base, WORD_BITS - 1);
    return (~0ULL << low) & (~0ULL >> (WORD_BITS - 1 - high));
}

/* Set FIRST..LAST in level K and above. How many bits of level K were clear. */
static uint64_t set_bits(HBitmap *hb, int k, uint64_t first, uint64_t last)
{
    uint64_t changed = 0;
    bool woke = false;          /* a word was zero: the level above must know */

    for (uint64_t w = first / WORD_BITS; w <= last / WORD_BITS; w++) {
        uint64_t *word = &hb->level[k][w], mask = word_mask(w, first, last);
        changed += ctpop64(mask & ~*word);
        woke |= *word == 0;
        *word |= mask;
    }
    if (woke && k + 1 < hb->levels) {
        set_bits(hb, k + 1, first / WORD_BITS, last / WORD_BITS);
    }
    return changed;
}

/* The opposite. How many bits of level K were set. */
static uint64_t clear_bits(HBitmap *hb, int k, uint64_t first, uint64_t last)
{
    uint64_t changed = 0;
    uint64_t first_word = first / WORD_BITS, last_word = last / WORD_BITS;

    for (uint64_t w = first_word; w <= last_word; w++) {
        uint64_t *word = &hb->level[k][w], mask = word_mask(w, first, last);
        changed += ctpop64(mask & *word);
        *word &= ~mask;
    }
    if (changed && k + 1 < hb->levels) {
        /* the words at the ends may have bits left; those between are zero now */
        first_word += hb->level[k][first_word] != 0;
        if (last_word >= first_word && hb->level[k][last_word] != 0) {
            if (last_word == first_word) {
                return changed;
            }
            last_word--;
        }
        if (first_word <= last_word) {
            clear_bits(hb, k + 1, first_word, last_word);
        }
    }
    return changed;
}

/* Make bit W of the level above K agree with word W of level K. */
static void propagate_word(HBitmap *hb, int k, uint64_t w)
{
    if (k + 1 < hb->levels) {
        if (hb->level[k][w]) {
            set_bits(hb, k + 1, w, w);
        } else {
            clear_bits(hb, k + 1, w, w);
        }
    }
}

/* ---- life ------------------------------------------------------------------------------- */

static int levels_for(uint64_t bits)
{
    int levels = 1;
    while ((bits = words_for(bits)) > 1) {
        levels++;
    }
    return levels;
}

HBitmap *hbitmap_alloc(uint64_t size, int granularity)
{
    g_assert(size <= INT64_MAX);
    g_assert(granularity >= 0 && granularity < 64);
    g_assert(granules(size, granularity) <= 1ULL << HBITMAP_LOG_MAX_SIZE);

    HBitmap *hb = g_new0(HBitmap, 1);
    hb->size = size;
    hb->granularity = granularity;
    hb->bits = granules(size, granularity);
    hb->levels = levels_for(hb->bits);
    uint64_t words = hb->bits;
    for (int k = 0; k < hb->levels; k++) {
        words = MAX(words_for(words), 1);
        hb->level[k] = g_new0(uint64_t, words);
    }
    return hb;
}

void hbitmap_free(HBitmap *hb)
{
    if (hb) {
        for (int k = 0; k < hb->levels; k++) {
            g_free(hb->level[k]);
        }
        g_free(hb);
    }
}

/* Give level K room for NEW_WORDS words; what is new is zero. */
static void resize_level(HBitmap *hb, int k, uint64_t old_words, uint64_t new_words)
{
    hb->level[k] = g_renew(uint64_t, hb->level[k], new_words);
    if (new_words > old_words) {
        memset(&hb->level[k][old_words], 0, (new_words - old_words) * sizeof(uint64_t));
    }
}

void hbitmap_truncate(HBitmap *hb, uint64_t size)
{
    g_assert(size <= INT64_MAX);
    uint64_t bits = granules(size, hb->granularity);
    g_assert(bits <= 1ULL << HBITMAP_LOG_MAX_SIZE);

    if (bits < hb->bits) {
        hb->count -= clear_bits(hb, 0, bits, hb->bits - 1);
    }
    int old_levels = hb->levels, levels = levels_for(bits);
    uint64_t old_words = hb->bits, words = bits;
    for (int k = 0; k < MAX(levels, old_levels); k++) {
        old_words = k < old_levels ? MAX(words_for(old_words), 1) : 0;
        words = MAX(words_for(words), 1);
        if (k < levels) {
            resize_level(hb, k, old_words, words);
        } else {
            g_free(hb->level[k]);
            hb->level[k] = NULL;
        }
    }
    hb->size = size;
    hb->bits = bits;
    hb->levels = levels;
    /* What was the top level is word 0 of its level, which a new level must know of. */
    for (int k = old_levels - 1; k + 1 < levels; k++) {
        hb->level[k + 1][0] = hb->level[k][0] != 0;
    }
}

int hbitmap_granularity(const HBitmap *hb)
{
    return hb->granularity;
}

bool hbitmap_empty(const HBitmap *hb)
{
    return hb->count == 0;
}

static bool bit_is_set(const HBitmap *hb, uint64_t bit)
{
    return hb->level[0][bit / WORD_BITS] >> (bit % WORD_BITS) & 1;
}

uint64_t hbitmap_count(const HBitmap *hb)
{
    uint64_t items = hb->count << hb->granularity;
    if (hb->bits && bit_is_set(hb, hb->bits - 1)) {
        /* the last granule may reach beyond the size */
        items -= (hb->bits << hb->granularity) - hb->size;
    }
    return items;
}

bool hbitmap_get(const HBitmap *hb, uint64_t item)
{
    g_assert(item < hb->size);
    return bit_is_set(hb, item >> hb->granularity);
}

/* ---- changing --------------------------------------------------------------------------- */

static void check_range(const HBitmap *hb, uint64_t start, uint64_t count)
{
    g_assert(start <= hb->size && count <= hb->size - start);
}

static bool is_aligned_end(const HBitmap *hb, uint64_t end, uint64_t align)
{
    return end == hb->size || (end & (align - 1)) == 0;
}

void hbitmap_set(HBitmap *hb, uint64_t start, uint64_t count)
{
    check_range(hb, start, count);
    if (count) {
        hb->count += set_bits(hb, 0, start >> hb->granularity,
                              (start + count - 1) >> hb->granularity);
    }
}

void hbitmap_reset(HBitmap *hb, uint64_t start, uint64_t count)
{
    uint64_t granule = 1ULL << hb->granularity;

    check_range(hb, start, count);
    g_assert((start & (granule - 1)) == 0 || count == 0);
    g_assert(is_aligned_end(hb, start + count, granule) || count == 0);
    if (count) {
        hb->count -= clear_bits(hb, 0, start >> hb->granularity,
                                (start + count - 1) >> hb->granularity);
    }
}

void hbitmap_reset_all(HBitmap *hb)
{
    if (hb->count) {
        clear_bits(hb, 0, 0, hb->bits - 1);
        hb->count = 0;
    }
}

/* Make dirty in DST what is dirty in SRC. */
static void add_dirty(HBitmap *dst, const HBitmap *src)
{
    int64_t start = 0, count;
    while (hbitmap_next_dirty_area(src, start, INT64_MAX, INT64_MAX, &start, &count)) {
        hbitmap_set(dst, start, count);
        start += count;
    }
}

void hbitmap_merge(const HBitmap *a, const HBitmap *b, HBitmap *result)
{
    g_assert(a->size == b->size && a->size == result->size);
    if (result != a && result != b) {
        hbitmap_reset_all(result);
    }
    if (result != a) {
        add_dirty(result, a);
    }
    if (result != b) {
        add_dirty(result, b);
    }
}

/* ---- searching -------------------------------------------------------------------------- */

/* The first set bit of level 0 at BIT or behind it; hb->bits when there is none. */
static uint64_t next_set_bit(const HBitmap *hb, uint64_t bit)
{
    uint64_t pos = bit, limit = hb->bits;
    int k = 0;

    if (bit >= hb->bits) {
        return hb->bits;
    }
    for (;;) {
        uint64_t word = hb->level[k][pos / WORD_BITS] >> (pos % WORD_BITS);
        if (word) {
            pos += ctz64(word);
            break;
        }
        pos = pos / WORD_BITS + 1;      /* the next word, which is a bit of the next level */
        limit = words_for(limit);
        if (++k == hb->levels || pos >= limit) {
            return hb->bits;
        }
    }
    while (k-- > 0) {
        pos = pos * WORD_BITS + ctz64(hb->level[k][pos]);
    }
    return pos;
}

/* The first clear bit in BIT..END - 1; END when there is none. */
static uint64_t next_clear_bit(const HBitmap *hb, uint64_t bit, uint64_t end)
{
    while (bit < end) {
        uint64_t word = ~hb->level[0][bit / WORD_BITS] >> (bit % WORD_BITS);
        if (word) {
            return MIN(bit + ctz64(word), end);
        }
        bit = ROUND_DOWN(bit, (uint64_t)WORD_BITS) + WORD_BITS;
    }
    return end;
}

/* Where [START, START + COUNT) ends within the bitmap; START when there is nothing of it. */
static int64_t window_end(const HBitmap *hb, int64_t start, int64_t count)
{
    g_assert(start >= 0 && count >= 0);
    int64_t size = hb->size;
    return start >= size ? start : start + MIN(count, size - start);
}

int64_t hbitmap_next_dirty(const HBitmap *hb, int64_t start, int64_t count)
{
    int64_t end = window_end(hb, start, count);
    if (start == end) {
        return -1;
    }
    uint64_t bit = next_set_bit(hb, start >> hb->granularity);
    if (bit > (uint64_t)(end - 1) >> hb->granularity) {
        return -1;
    }
    return MAX((int64_t)(bit << hb->granularity), start);
}

int64_t hbitmap_next_zero(const HBitmap *hb, int64_t start, int64_t count)
{
    int64_t end = window_end(hb, start, count);
    if (start == end) {
        return -1;
    }
    uint64_t end_bit = ((uint64_t)(end - 1) >> hb->granularity) + 1;
    uint64_t bit = next_clear_bit(hb, start >> hb->granularity, end_bit);
    return bit == end_bit ? -1 : MAX((int64_t)(bit << hb->granularity), start);
}

bool hbitmap_next_dirty_area(const HBitmap *hb, int64_t start, int64_t end,
                             int64_t max_dirty_count, int64_t *dirty_start,
                             int64_t *dirty_count)
{
    g_assert(start >= 0 && end >= 0 && max_dirty_count > 0);
    end = MIN(end, (int64_t)hb->size);
    int64_t first = start < end ? hbitmap_next_dirty(hb, start, end - start) : -1;
    if (first < 0) {
        return false;
    }
    int64_t count = MIN(end - first, max_dirty_count);
    int64_t clean = hbitmap_next_zero(hb, first, count);
    *dirty_start = first;
    *dirty_count = clean < 0 ? count : clean - first;
    return true;
}

bool hbitmap_status(const HBitmap *hb, int64_t start, int64_t count, int64_t *pnum)
{
    g_assert(start >= 0 && count > 0 && (uint64_t)start < hb->size);
    count = window_end(hb, start, count) - start;
    bool dirty = hbitmap_get(hb, start);
    int64_t end = dirty ? hbitmap_next_zero(hb, start, count)
                        : hbitmap_next_dirty(hb, start, count);
    *pnum = end < 0 ? count : end - start;
    return dirty;
}

void hbitmap_iter_init(HBitmapIter *hbi, const HBitmap *hb, uint64_t first)
{
    g_assert(first <= hb->size);
    *hbi = (HBitmapIter) { .hb = hb, .next_bit = first >> hb->granularity };
}

int64_t hbitmap_iter_next(HBitmapIter *hbi)
{
    uint64_t bit = next_set_bit(hbi->hb, hbi->next_bit);
    if (bit == hbi->hb->bits) {
        return -1;
    }
    hbi->next_bit = bit + 1;
    return bit << hbi->hb->granularity;
}

/* ---- serialisation ---------------------------------------------------------------------- */

bool hbitmap_is_serializable(const HBitmap *hb)
{
    return hb->granularity < 64 - WORD_SHIFT;
}

uint64_t hbitmap_serialization_align(const HBitmap *hb)
{
    g_assert(hbitmap_is_serializable(hb));
    return (uint64_t)WORD_BITS << hb->granularity;
}

/* The words of a part: the first of them; *N is their number. */
static uint64_t part_words(const HBitmap *hb, uint64_t start, uint64_t count, uint64_t *n)
{
    uint64_t align = hbitmap_serialization_align(hb);

    check_range(hb, start, count);
    g_assert((start & (align - 1)) == 0 || count == 0);
    g_assert(is_aligned_end(hb, start + count, align) || count == 0);
    *n = words_for(granules(count, hb->granularity));
    return start >> hb->granularity >> WORD_SHIFT;
}

uint64_t hbitmap_serialization_size(const HBitmap *hb, uint64_t start, uint64_t count)
{
    uint64_t n;
    part_words(hb, start, count, &n);
    return n * sizeof(uint64_t);
}

void hbitmap_serialize_part(const HBitmap *hb, uint8_t *buf, uint64_t start, uint64_t count)
{
    uint64_t n, first = part_words(hb, start, count, &n);
    for (uint64_t i = 0; i < n; i++) {
        stq_le_p(buf + i * sizeof(uint64_t), hb->level[0][first + i]);
    }
}

/* The higher levels cost little beside the words themselves, so they are kept true here. */
void hbitmap_deserialize_part(HBitmap *hb, uint8_t *buf, uint64_t start, uint64_t count,
                              bool finish)
{
    uint64_t n, first = part_words(hb, start, count, &n);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t *word = &hb->level[0][first + i];
        uint64_t mask = word_mask(first + i, 0, hb->bits - 1);
        hb->count -= ctpop64(*word);
        *word = ldq_le_p(buf + i * sizeof(uint64_t)) & mask;
        hb->count += ctpop64(*word);
        propagate_word(hb, 0, first + i);
    }
}

void hbitmap_deserialize_zeroes(HBitmap *hb, uint64_t start, uint64_t count, bool finish)
{
    uint64_t n;
    part_words(hb, start, count, &n);
    hbitmap_reset(hb, start, count);
}

void hbitmap_deserialize_ones(HBitmap *hb, uint64_t start, uint64_t count, bool finish)
{
    uint64_t n;
    part_words(hb, start, count, &n);
    hbitmap_set(hb, start, count);
}

void hbitmap_deserialize_finish(HBitmap *hb)
{
    /* nothing was put off */
}
