/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Large blocks of a schedule. They are zero when they are given out, which makes the schedule
 * independent of the ones before it, yet only those pages have to be zeroed that somebody has
 * written in an earlier life: all others are read-only until the first write to them.
 */
#include "miniblk/osdep.h"
#include <sys/mman.h>
#include "lab/world.h"
#include "lab/arena.h"

enum { FREED = 0xdd };
#define ZONE_START ((uintptr_t)0x540000000000)
#define ZONE_PAGES ((size_t)4 << 20)            /* 16 GiB */
#define EXTENTS_MAX ((size_t)1 << 20)

/* A run of pages; extents follow each other without a gap. */
typedef struct Extent {
    uint32_t first, pages;
    bool live;
    size_t size;                /* as asked for */
    const void *caller;
} Extent;

static LAB_KEEP Extent *extents;        /* [EXTENTS_MAX] */
static LAB_KEEP size_t extent_count;
static LAB_KEEP size_t top;             /* pages in use */
static LAB_KEEP uint8_t *written;       /* [ZONE_PAGES], by page: it is not read-only */

static uintptr_t page_address(size_t page)
{
    return ZONE_START + page * LAB_PAGE;
}

static void prepare(void)
{
    if (!extents) {
        extents = lab_reserve(0, EXTENTS_MAX * sizeof(Extent), PROT_READ | PROT_WRITE);
        written = lab_reserve(0, ZONE_PAGES, PROT_READ | PROT_WRITE);
        lab_reserve(ZONE_START, ZONE_PAGES * LAB_PAGE, PROT_READ);
    }
}

/* Fill what has been written of EXTENT; what has not is zero. */
static void fill_written(const Extent *e, int byte)
{
    for (uint32_t i = e->first; i < e->first + e->pages; i++) {
        if (written[i]) {
            memset((void *)page_address(i), byte, LAB_PAGE);
        }
    }
}

/* A free one of exactly PAGES pages. */
static Extent *find_free(size_t pages)
{
    for (size_t i = 0; i < extent_count; i++) {
        if (!extents[i].live && extents[i].pages == pages) {
            return &extents[i];
        }
    }
    return NULL;
}

static Extent *append(size_t pages, size_t alignment)
{
    size_t first = ROUND_UP(top, MAX(alignment / LAB_PAGE, (size_t)1));

    if (extent_count == EXTENTS_MAX || first + pages > ZONE_PAGES) {
        return NULL;
    }
    Extent *e = &extents[extent_count++];
    e->first = first;
    e->pages = pages;
    top = first + pages;
    return e;
}

void *lab_pages_alloc(size_t size, size_t alignment, const void *caller)
{
    size_t pages = MAX(DIV_ROUND_UP(size, LAB_PAGE), (size_t)1);

    prepare();
    if (pages > ZONE_PAGES) {
        return NULL;
    }
    Extent *e = alignment <= LAB_PAGE ? find_free(pages) : NULL;
    e = e ? e : append(pages, alignment);
    if (!e) {
        return NULL;
    }
    e->live = true;
    e->size = size;
    e->caller = caller;
    fill_written(e, 0);
    return (void *)page_address(e->first);
}

bool lab_pages_own(const void *p)
{
    return (uintptr_t)p - ZONE_START < ZONE_PAGES * LAB_PAGE;
}

/* The one that ADDRESS is in; NULL: none. */
static Extent *extent_of(uintptr_t address)
{
    size_t page = (address - ZONE_START) / LAB_PAGE, low = 0, high = extent_count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (extents[middle].first <= page) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low && page - extents[low - 1].first < extents[low - 1].pages
           ? &extents[low - 1] : NULL;
}

size_t lab_pages_size(const void *p)
{
    Extent *e = extent_of((uintptr_t)p);
    return e && e->live && page_address(e->first) == (uintptr_t)p ? e->size : SIZE_MAX;
}

void lab_pages_free(void *p, const void *caller)
{
    Extent *e = extent_of((uintptr_t)p);

    fill_written(e, FREED);
    e->live = false;
    e->caller = caller;
}

void lab_pages_reset(void)
{
    extent_count = 0;
    top = 0;
}

bool lab_pages_fault(uintptr_t address)
{
    size_t page = (address - ZONE_START) / LAB_PAGE;

    if (!lab_pages_own((void *)address) || written[page] ||
        mprotect((void *)page_address(page), LAB_PAGE, PROT_READ | PROT_WRITE) < 0) {
        return false;
    }
    written[page] = 1;
    return true;
}

bool lab_pages_find(uintptr_t address, LabBlockInfo *info)
{
    Extent *e = lab_pages_own((void *)address) ? extent_of(address) : NULL;

    if (e) {
        *info = (LabBlockInfo){ .start = page_address(e->first), .size = e->size,
                                .freed = !e->live, .caller = e->caller };
    }
    return e;
}
