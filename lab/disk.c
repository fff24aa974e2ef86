/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See disk.h. */
#include "miniblk/osdep.h"
#include "lab/disk.h"
#include "lab/rng.h"

enum {
    CACHE_BYTES_MAX = 32 << 20,         /* of a disk; what is older lands */
    RESERVED_BLOCKS_MAX = 1 << 20,      /* at a time: 4 GiB */
};

/* DATA follows unless it is zeroes. */
struct LabWrite {
    LabWrite *next;
    uint64_t offset, size;
    bool zero;
    uint8_t data[];
};

/* Blocks without bytes: a hole where the backing has some; reserved space. */
static const uint8_t hole[1], reserved[1];

/* ---- a view: NOW or DURABLE ------------------------------------------------------------- */

static gpointer key_of(uint64_t block)
{
    return (gpointer)(uintptr_t)block;
}

static bool is_bytes(gconstpointer block)
{
    return block && block != hole && block != reserved;
}

static bool has_backing(const LabDisk *d, uint64_t block)
{
    return block * LAB_DISK_BLOCK < d->backing_size;
}

static void free_block(gpointer block)
{
    if (is_bytes(block)) {
        g_free(block);
    }
}

static GHashTable *new_view(void)
{
    return g_hash_table_new_full(NULL, NULL, NULL, free_block);
}

/* The bytes of BLOCK; NULL: zeroes. At the end of the backing there may be less than a block:
 * *SIZE. */
static const uint8_t *view_look(const LabDisk *d, GHashTable *view, uint64_t block,
                                size_t *size)
{
    const uint8_t *bytes = g_hash_table_lookup(view, key_of(block));

    *size = LAB_DISK_BLOCK;
    if (bytes) {
        return is_bytes(bytes) ? bytes : NULL;
    }
    if (!has_backing(d, block)) {
        return NULL;
    }
    *size = MIN(d->backing_size - block * LAB_DISK_BLOCK, (uint64_t)LAB_DISK_BLOCK);
    return d->backing + block * LAB_DISK_BLOCK;
}

static void view_read(const LabDisk *d, GHashTable *view, uint64_t offset, uint8_t *buffer,
                      size_t size)
{
    while (size) {
        size_t in_block = offset % LAB_DISK_BLOCK, have;
        size_t n = MIN(size, LAB_DISK_BLOCK - in_block);
        const uint8_t *bytes = view_look(d, view, offset / LAB_DISK_BLOCK, &have);
        size_t copied = bytes && have > in_block ? MIN(n, have - in_block) : 0;

        if (copied) {
            memcpy(buffer, bytes + in_block, copied);
        }
        memset(buffer + copied, 0, n - copied);
        offset += n;
        buffer += n;
        size -= n;
    }
}

static uint8_t *view_block(const LabDisk *d, GHashTable *view, uint64_t block)
{
    uint8_t *bytes = g_hash_table_lookup(view, key_of(block));

    if (!is_bytes(bytes)) {
        uint8_t *fresh = g_malloc(LAB_DISK_BLOCK);
        view_read(d, view, block * LAB_DISK_BLOCK, fresh, LAB_DISK_BLOCK);
        g_hash_table_insert(view, key_of(block), fresh);
        bytes = fresh;
    }
    return bytes;
}

static void view_drop(const LabDisk *d, GHashTable *view, uint64_t block)
{
    if (has_backing(d, block)) {
        g_hash_table_insert(view, key_of(block), (gpointer)hole);
    } else {
        g_hash_table_remove(view, key_of(block));
    }
}

static bool view_has(const LabDisk *d, GHashTable *view, uint64_t block)
{
    size_t size;
    return view_look(d, view, block, &size);
}

/* DATA NULL: zeroes. */
static void view_write(const LabDisk *d, GHashTable *view, uint64_t offset,
                       const uint8_t *data, uint64_t size)
{
    while (size) {
        uint64_t block = offset / LAB_DISK_BLOCK;
        size_t in_block = offset % LAB_DISK_BLOCK;
        size_t n = MIN(size, (uint64_t)LAB_DISK_BLOCK - in_block);

        if (data) {
            memcpy(view_block(d, view, block) + in_block, data, n);
            data += n;
        } else if (n == LAB_DISK_BLOCK) {
            view_drop(d, view, block);
        } else if (view_has(d, view, block)) {
            memset(view_block(d, view, block) + in_block, 0, n);
        }
        offset += n;
        size -= n;
    }
}

/* Zeroes without walking through all the blocks of a huge range. */
static void view_zero(const LabDisk *d, GHashTable *view, uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size, low = ROUND_UP(offset, (uint64_t)LAB_DISK_BLOCK);
    uint64_t high = ROUND_DOWN(end, (uint64_t)LAB_DISK_BLOCK);
    GHashTableIter iter;
    gpointer key;

    if (low >= high) {
        view_write(d, view, offset, NULL, size);
        return;
    }
    view_write(d, view, offset, NULL, low - offset);
    view_write(d, view, high, NULL, end - high);
    g_hash_table_iter_init(&iter, view);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        uint64_t block = (uintptr_t)key;
        if (block >= low / LAB_DISK_BLOCK && block < high / LAB_DISK_BLOCK &&
            !has_backing(d, block)) {
            g_hash_table_iter_remove(&iter);
        }
    }
    high = MIN(high, ROUND_UP(d->backing_size, (uint64_t)LAB_DISK_BLOCK));
    for (uint64_t at = low; at < high; at += LAB_DISK_BLOCK) {
        view_drop(d, view, at / LAB_DISK_BLOCK);
    }
}

static void view_put(const LabDisk *d, GHashTable *view, const LabWrite *w, uint64_t from,
                     uint64_t size)
{
    if (w->zero) {
        view_zero(d, view, w->offset + from, size);
    } else {
        view_write(d, view, w->offset + from, w->data + from, size);
    }
}

/* ---- pending writes --------------------------------------------------------------------- */

static LabWrite *take_first(LabDisk *d)
{
    LabWrite *w = d->first;

    d->first = w->next;
    if (!d->first) {
        d->last = NULL;
    }
    d->pending_bytes -= w->zero ? 0 : w->size;
    return w;
}

static void land_first(LabDisk *d)
{
    LabWrite *w = take_first(d);

    view_put(d, d->durable, w, 0, w->size);
    g_free(w);
}

static LabWrite *new_write(uint64_t offset, const void *data, uint64_t size)
{
    LabWrite *w = g_malloc(sizeof(*w) + (data ? size : 0));

    *w = (LabWrite){ .offset = offset, .size = size, .zero = !data };
    if (data) {
        memcpy(w->data, data, size);
    }
    return w;
}

static void append(LabDisk *d, uint64_t offset, const void *data, uint64_t size)
{
    LabWrite *w = new_write(offset, data, size);

    d->pending_bytes += data ? size : 0;
    if (d->last) {
        d->last->next = w;
    } else {
        d->first = w;
    }
    d->last = w;
    while (d->pending_bytes > CACHE_BYTES_MAX) {
        land_first(d);
    }
}

/* The bytes [FROM, TO) of W; NULL when there are none. */
static LabWrite *part_of(const LabWrite *w, uint64_t from, uint64_t to)
{
    from = MAX(from, w->offset);
    to = MIN(to, w->offset + w->size);
    const uint8_t *data = w->zero ? NULL : w->data + (from - w->offset);
    return from < to ? new_write(from, data, to - from) : NULL;
}

/* What is pending of [FROM, TO) does not land any more: something newer has. */
static void forget(LabDisk *d, uint64_t from, uint64_t to)
{
    LabWrite *old = d->first;

    d->first = d->last = NULL;
    d->pending_bytes = 0;
    while (old) {
        LabWrite *next = old->next;
        LabWrite *parts[] = { part_of(old, 0, from), part_of(old, to, UINT64_MAX) };
        for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
            if (parts[i]) {
                *(d->last ? &d->last->next : &d->first) = parts[i];
                d->last = parts[i];
                d->pending_bytes += parts[i]->zero ? 0 : parts[i]->size;
            }
        }
        g_free(old);
        old = next;
    }
}

/* ---- the interface --------------------------------------------------------------------- */

void lab_disk_init(LabDisk *d, const uint8_t *backing, uint64_t size)
{
    *d = (LabDisk){ .size = size, .durable_size = size, .backing = backing,
                    .backing_size = size, .now = new_view(), .durable = new_view() };
}

void lab_disk_destroy(LabDisk *d)
{
    lab_disk_lose(d);
    g_hash_table_destroy(d->now);
    g_hash_table_destroy(d->durable);
}

void lab_disk_read(const LabDisk *d, uint64_t offset, void *buffer, size_t size)
{
    view_read(d, d->now, offset, buffer, size);
}

void lab_disk_write(LabDisk *d, uint64_t offset, const void *data, uint64_t size)
{
    if (!size) {
        return;
    }
    if (data) {
        view_write(d, d->now, offset, data, size);
    } else {
        view_zero(d, d->now, offset, size);
    }
    append(d, offset, data, size);
    d->size = MAX(d->size, offset + size);
}

void lab_disk_resize(LabDisk *d, uint64_t size)
{
    if (size < d->size) {
        /* What was pending there is gone with it; the rest becomes durable a bit early. */
        lab_disk_flush(d);
        view_zero(d, d->now, size, d->size - size);
        view_zero(d, d->durable, size, d->size - size);
        d->durable_size = size;
    }
    d->size = size;
}

void lab_disk_flush(LabDisk *d)
{
    while (d->first) {
        land_first(d);
    }
    d->durable_size = d->size;
}

void lab_disk_lose(LabDisk *d)
{
    while (d->first) {
        g_free(take_first(d));
    }
}

bool lab_disk_reserve(LabDisk *d, uint64_t offset, uint64_t size)
{
    uint64_t first = offset / LAB_DISK_BLOCK;
    uint64_t end = DIV_ROUND_UP(offset + size, LAB_DISK_BLOCK);

    if (end - first > RESERVED_BLOCKS_MAX) {
        return false;
    }
    for (uint64_t block = first; block < end; block++) {
        if (!g_hash_table_contains(d->now, key_of(block)) && !has_backing(d, block)) {
            g_hash_table_insert(d->now, key_of(block), (gpointer)reserved);
        }
    }
    return true;
}

void lab_disk_flush_range(LabDisk *d, uint64_t offset, uint64_t size)
{
    g_autofree uint8_t *bytes = g_malloc(size);

    view_read(d, d->now, offset, bytes, size);
    view_write(d, d->durable, offset, bytes, size);
    d->durable_size = MAX(d->durable_size, offset + size);
    forget(d, offset, offset + size);
}

uint64_t lab_disk_allocated(const LabDisk *d)
{
    GHashTableIter iter;
    gpointer key, bytes;
    uint64_t blocks = DIV_ROUND_UP(d->backing_size, LAB_DISK_BLOCK);

    g_hash_table_iter_init(&iter, d->now);
    while (g_hash_table_iter_next(&iter, &key, &bytes)) {
        bool backed = has_backing(d, (uintptr_t)key);
        blocks += bytes == hole ? -1 : backed ? 0 : 1;
    }
    return blocks * LAB_DISK_BLOCK;
}

uint64_t lab_disk_seek(const LabDisk *d, uint64_t offset, bool data)
{
    uint64_t block = offset / LAB_DISK_BLOCK, end = DIV_ROUND_UP(d->size, LAB_DISK_BLOCK);

    if (view_has(d, d->now, block) == data) {
        return MIN(offset, d->size);
    }
    if (!data) {
        while (block < end && view_has(d, d->now, block)) {
            block++;
        }
        return MIN(block * LAB_DISK_BLOCK, d->size);
    }
    /* the next one of the backing, or of what was written: a hole may be long */
    uint64_t backed = DIV_ROUND_UP(d->backing_size, LAB_DISK_BLOCK), best = end;
    for (uint64_t b = block; b < backed; b++) {
        if (view_has(d, d->now, b)) {
            best = b;
            break;
        }
    }
    GHashTableIter iter;
    gpointer key, bytes;
    g_hash_table_iter_init(&iter, d->now);
    while (g_hash_table_iter_next(&iter, &key, &bytes)) {
        if (is_bytes(bytes) && (uintptr_t)key > block) {
            best = MIN(best, (uint64_t)(uintptr_t)key);
        }
    }
    return MIN(best * LAB_DISK_BLOCK, d->size);
}

/* ---- power cut ------------------------------------------------------------------------- */

typedef enum Fate { LOST, LANDED, TORN } Fate;

static Fate fate_of_next(LabCut *cut)
{
    enum { SETS_OF_MAX = 6, TORN_ONCE_IN = 4 };
    _Static_assert(1 << SETS_OF_MAX == LAB_CUT_PATTERNS, "each set of so few has its pattern");
    uint64_t piece = cut->next++;

    if (cut->pattern < 2) {
        return cut->pattern ? LANDED : LOST;
    }
    if (cut->pieces <= SETS_OF_MAX && !cut->torn) {
        return (cut->pattern - 1) >> piece & 1 ? LANDED : LOST;
    }
    LabRng rng = { lab_mix(cut->pattern, piece) };
    if (cut->torn && lab_rng_once_in(&rng, TORN_ONCE_IN)) {
        return TORN;
    }
    /* patterns differ in how much survives: an eighth to seven of them */
    return lab_rng_below(&rng, 8) < 1 + cut->pattern % 7 ? LANDED : LOST;
}

/* So many bytes of the SIZE of a torn piece: words are whole. */
static uint64_t torn_bytes(const LabCut *cut, uint64_t size)
{
    LabRng rng = { lab_mix(cut->pattern, ~cut->next) };

    return size / 8 * lab_rng_below(&rng, 1 << 16) >> 16 << 3;
}

static uint64_t pieces_of(const LabWrite *w, unsigned sector_bytes)
{
    /* zeroes are one command to the file system */
    return w->zero ? 1 : (w->offset + w->size - 1) / sector_bytes - w->offset / sector_bytes + 1;
}

static bool grown(const LabDisk *d)
{
    return d->size != d->durable_size;
}

uint64_t lab_disk_pieces(const LabDisk *d, const LabCut *cut)
{
    uint64_t n = grown(d);

    for (const LabWrite *w = d->first; w; w = w->next) {
        n += pieces_of(w, cut->sector_bytes);
    }
    return n;
}

static void land_some(LabDisk *d, const LabWrite *w, LabCut *cut)
{
    uint64_t from = 0;

    for (uint64_t n = pieces_of(w, cut->sector_bytes); n > 0; n--) {
        uint64_t in_sector = (w->offset + from) % cut->sector_bytes;
        uint64_t size = n == 1 ? w->size - from : cut->sector_bytes - in_sector;
        Fate fate = fate_of_next(cut);
        if (fate != LOST) {
            view_put(d, d->durable, w, from, fate == TORN ? torn_bytes(cut, size) : size);
        }
        from += size;
    }
}

static void copy_block(gpointer key, gpointer bytes, gpointer opaque)
{
    g_hash_table_insert(opaque, key,
                        is_bytes(bytes) ? g_memdup2(bytes, LAB_DISK_BLOCK) : bytes);
}

void lab_disk_cut(LabDisk *d, LabCut *cut)
{
    uint64_t old_size = d->size;

    if (grown(d) && fate_of_next(cut) != LANDED) {
        d->size = d->durable_size;
    }
    while (d->first) {
        LabWrite *w = take_first(d);
        land_some(d, w, cut);
        g_free(w);
    }
    if (d->size < old_size) {
        view_zero(d, d->durable, d->size, old_size - d->size);
    }
    d->durable_size = d->size;
    g_hash_table_destroy(d->now);
    d->now = new_view();
    g_hash_table_foreach(d->durable, copy_block, d->now);
}
