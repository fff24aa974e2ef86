/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The allocator of lab programs: deterministic, and suspicious.
 *
 *      | Block | ............... | what the program got | red zone |     Block by Block, to
 *                 only if aligned                                         the arena's top
 *
 * Fresh memory is filled with one pattern and freed memory with another; a freed block waits
 * in a queue before it is used again, so that a write to it is noticed. The run arena starts
 * empty in each schedule: nothing of it needs to be put back.
 */
#include "miniblk/osdep.h"
#include <sys/mman.h>
#include "lab/engine.h"
#include "lab/world.h"
#include "lab/arena.h"

enum {
    GRAIN = 16,
    SMALL_MAX = 64 * 1024,      /* larger ones in a schedule: pages.c */
    RED_ZONE = 8,               /* at least */
    CHECKED_MAX = 4096,         /* bytes of a freed block that are looked at */
    EXACT_CLASSES = 64,         /* classes of GRAIN bytes each; then four to a doubling */
    CLASSES = EXACT_CLASSES + 4 * 32,
    QUARANTINE_BLOCKS = 256,
    QUARANTINE_BYTES = 256 * 1024,

    FRESH = 0xa5, FREED = 0xdd, RED = 0xfb,
};

typedef enum BlockState {
    BLOCK_LIVE = 0x4c495645,
    BLOCK_FREED = 0x44454144,           /* in quarantine */
    BLOCK_FREE = 0x46524545,            /* in the list of its class */
    BLOCK_ALIGNED = 0x414c4e44,         /* no block: BACK leads to it */
} BlockState;

typedef struct Block Block;
struct Block {
    uint32_t state;
    uint32_t serial;            /* the Nth of its arena */
    uint32_t user;              /* from here to what the program got; BLOCK_ALIGNED: BACK */
    uint32_t grains;            /* of the whole block */
    union {
        uint64_t size;          /* as asked for */
        Block *next;            /* BLOCK_FREE */
    };
    const void *caller;         /* who asked for it, or freed it */
};
_Static_assert(sizeof(Block) == 32, "user memory must stay aligned");

typedef struct Arena {
    uintptr_t start, top, end;
    uint32_t serial;
    bool suspicious;            /* has a quarantine and patterns */
    Block *lists[CLASSES];
    unsigned queue_first, queue_count;
    size_t queue_bytes;
    Block *queue[QUARANTINE_BLOCKS];
} Arena;

static LAB_KEEP Arena base = { .start = 0x510000000000, .end = 0x510100000000 };
static LAB_KEEP Arena keep = { .start = 0x520000000000, .end = 0x521000000000 };
static LAB_KEEP Arena run = { .start = 0x530000000000, .end = 0x530100000000,
                              .suspicious = true };

/* ---- blocks ---------------------------------------------------------------------------- */

static unsigned class_of(uint64_t grains)
{
    if (grains <= EXACT_CLASSES) {
        return grains - 1;
    }
    unsigned log = 63 - __builtin_clzll(grains - 1);    /* 2^log < grains <= 2^(log+1) */
    unsigned quarter = (grains - 1 - (1ULL << log)) >> (log - 2);
    return EXACT_CLASSES + 4 * (log - 6) + quarter;
}

static uint64_t class_grains(unsigned class)
{
    if (class < EXACT_CLASSES) {
        return class + 1;
    }
    unsigned log = 6 + (class - EXACT_CLASSES) / 4;
    return (1ULL << log) + (((class - EXACT_CLASSES) % 4 + 1ULL) << (log - 2));
}

static inline char *block_user(Block *b)
{
    return (char *)b + b->user;
}

static inline size_t block_bytes(const Block *b)
{
    return (size_t)b->grains * GRAIN;
}

static Arena *arena_of(const void *p)
{
    uintptr_t address = (uintptr_t)p;

    return address - run.start < run.end - run.start ? &run
         : address - base.start < base.end - base.start ? &base
         : address - keep.start < keep.end - keep.start ? &keep : NULL;
}

static Arena *arena_now(void)
{
    return lab_running ? &run : lab_frozen ? &keep : &base;
}

/* Wrong use of memory: in a schedule its verdict, otherwise the end. */
static void __attribute__((noreturn, format(printf, 1, 2))) memory_error(const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (lab_running) {
        lab_fail(LAB_MEMORY, "%s", text);
    }
    dprintf(2, "miniblk-lab: memory: %s\n", text);
    abort();
}

/* A block in words: how large, and who allocated or freed it. */
static const char *describe(const Block *b, char *text, size_t size)
{
    char who[80];

    if (b->state == BLOCK_FREE) {
        snprintf(text, size, "memory that was freed long ago");
    } else {
        snprintf(text, size, "%" PRIu64 " bytes that %s %s", b->size,
                 lab_symbol_name((uintptr_t)b->caller, who, sizeof(who)) ? who : "somebody",
                 b->state == BLOCK_LIVE ? "allocated" : "has freed");
    }
    return text;
}

/* The block of which the program got P; CALL and CALLER are for the message. */
static Block *block_of(void *p, const char *call)
{
    Block *b = (Block *)p - 1;
    char text[160];

    if (b->state == BLOCK_ALIGNED) {
        b = (Block *)((char *)b - b->user);
    }
    if (b->state == BLOCK_FREED || b->state == BLOCK_FREE) {
        memory_error("%s of %s", call, describe(b, text, sizeof(text)));
    }
    if (b->state != BLOCK_LIVE || block_user(b) != p) {
        memory_error("%s of a pointer into the midst of memory, or what is before it was "
                     "overwritten", call);
    }
    return b;
}

static size_t pages_size(void *p, const char *call)
{
    size_t size = lab_pages_size(p);

    if (size == SIZE_MAX) {
        memory_error("%s of large memory that was freed already, or of a pointer into the "
                     "midst of it", call);
    }
    return size;
}

/* ---- patterns -------------------------------------------------------------------------- */

static bool all_bytes(const void *p, size_t size, uint8_t byte)
{
    const uint8_t *bytes = p;
    uint64_t word, pattern = 0x0101010101010101ULL * byte;
    size_t i = 0;

    for (; i + 8 <= size; i += 8) {
        memcpy(&word, bytes + i, 8);
        if (word != pattern) {
            return false;
        }
    }
    for (; i < size; i++) {
        if (bytes[i] != byte) {
            return false;
        }
    }
    return true;
}

static void check_red_zone(Block *b)
{
    char *end = block_user(b) + b->size;
    size_t zone = (char *)b + block_bytes(b) - end;
    char text[160];

    if (!all_bytes(end, MIN(zone, (size_t)GRAIN), RED)) {
        memory_error("written past the end of %s", describe(b, text, sizeof(text)));
    }
}

static void check_freed(Block *b)
{
    char text[160];

    if (!all_bytes(block_user(b), MIN(b->size, (uint64_t)CHECKED_MAX), FREED)) {
        memory_error("written after free: %s", describe(b, text, sizeof(text)));
    }
}

/* ---- allocation ------------------------------------------------------------------------ */

static void arena_prepare(Arena *a)
{
    if (!a->top) {
        lab_reserve(a->start, a->end - a->start, PROT_READ | PROT_WRITE);
        a->top = a->start;
    }
}

static Block *take(Arena *a, unsigned class)
{
    Block *b = a->lists[class];

    if (b) {
        a->lists[class] = b->next;
        return b;
    }
    uint64_t grains = class_grains(class);
    if (grains > UINT32_MAX || grains * GRAIN > a->end - a->top) {
        return NULL;
    }
    b = (Block *)a->top;
    a->top += grains * GRAIN;
    b->grains = grains;
    return b;
}

static void *arena_alloc(Arena *a, size_t size, size_t alignment, bool zero,
                         const void *caller)
{
    size_t room = sizeof(Block) + RED_ZONE + (alignment > GRAIN ? alignment + GRAIN : 0);

    if (size > (1ULL << 36)) {
        return NULL;
    }
    arena_prepare(a);
    Block *b = take(a, class_of(DIV_ROUND_UP(size + room, GRAIN)));
    if (!b) {
        return NULL;
    }
    b->state = BLOCK_LIVE;
    b->serial = ++a->serial;
    b->size = size;
    b->caller = caller;
    b->user = sizeof(Block);
    if (alignment > GRAIN) {
        uintptr_t user = ROUND_UP((uintptr_t)(b + 2), alignment);
        b->user = user - (uintptr_t)b;
        Block *link = (Block *)user - 1;
        if (link != b) {
            *link = (Block){ .state = BLOCK_ALIGNED, .user = (char *)link - (char *)b };
        }
    }
    char *user = block_user(b);
    if (zero) {
        memset(user, 0, size);
    } else if (a->suspicious) {
        memset(user, FRESH, size);
    }
    if (a->suspicious) {
        memset(user + size, RED, MIN((size_t)((char *)b + block_bytes(b) - user - size),
                                     (size_t)GRAIN));
    }
    return user;
}

static void to_list(Arena *a, Block *b)
{
    unsigned class = class_of(b->grains);

    b->state = BLOCK_FREE;
    b->next = a->lists[class];
    a->lists[class] = b;
}

static void leave_quarantine(Arena *a)
{
    Block *b = a->queue[a->queue_first];

    a->queue_first = (a->queue_first + 1) % QUARANTINE_BLOCKS;
    a->queue_count--;
    a->queue_bytes -= block_bytes(b);
    check_freed(b);
    to_list(a, b);
}

static void arena_free(Arena *a, Block *b, const void *caller)
{
    if (!a->suspicious) {
        to_list(a, b);
        return;
    }
    check_red_zone(b);
    b->state = BLOCK_FREED;
    b->caller = caller;
    memset(block_user(b), FREED, b->size);
    while (a->queue_count == QUARANTINE_BLOCKS ||
           (a->queue_count && a->queue_bytes + block_bytes(b) > QUARANTINE_BYTES)) {
        leave_quarantine(a);
    }
    a->queue[(a->queue_first + a->queue_count++) % QUARANTINE_BLOCKS] = b;
    a->queue_bytes += block_bytes(b);
}

/* ---- the interface --------------------------------------------------------------------- */

void *lab_arena_alloc(size_t size, size_t alignment, bool zero, const void *caller)
{
    Arena *a = arena_now();

    if (a == &run && (size > SMALL_MAX || alignment > LAB_PAGE)) {
        return lab_pages_alloc(size, alignment, caller);  /* is zero */
    }
    return arena_alloc(a, size, alignment, zero, caller);
}

void lab_arena_free(void *p, const void *caller)
{
    Arena *a = arena_of(p);

    if (lab_pages_own(p)) {
        size_t size = pages_size(p, "free");
        lab__stores_forget(p, size);
        lab_pages_free(p, caller);
        return;
    }
    if (!a) {
        memory_error("free of a pointer that malloc() has not returned");
    }
    Block *b = block_of(p, "free");
    if (lab_running) {
        lab__stores_forget(p, b->size);
    }
    if (a == &base && lab_frozen) {
        /* Put back with the image; until then nobody may use it. */
        memset(p, FREED, b->size);
        b->state = BLOCK_FREED;
        return;
    }
    if (a == &run && !lab_running) {
        return;     /* a remnant of the schedule that is over */
    }
    arena_free(a, b, caller);
}

size_t lab_arena_size(void *p, const void *caller)
{
    return lab_pages_own(p) ? pages_size(p, "realloc") : block_of(p, "realloc")->size;
}

void lab_arena_freeze(void)
{
    arena_prepare(&base);
    base.top = ROUND_UP(base.top, (uintptr_t)LAB_PAGE);
}

void lab_arena_base(uintptr_t *start, uintptr_t *end)
{
    *start = base.start;
    *end = base.top;
}

void lab_arena_reset(void)
{
    memset(run.lists, 0, sizeof(run.lists));
    run.top = run.top ? run.start : 0;
    run.serial = 0;
    run.queue_first = run.queue_count = 0;
    run.queue_bytes = 0;
    lab_pages_reset();
}

void lab_arena_check(void)
{
    for (uintptr_t at = run.start; at < run.top; at += block_bytes((Block *)at)) {
        Block *b = (Block *)at;
        if (b->state == BLOCK_LIVE) {
            check_red_zone(b);
        } else if (b->state == BLOCK_FREED) {
            check_freed(b);
        } else if (b->state != BLOCK_FREE) {
            memory_error("written before the start of an allocation, or far past the end of "
                         "the one before it");
        }
    }
}

bool lab_arena_find(uintptr_t address, LabBlockInfo *info)
{
    Arena *a = arena_of((void *)address);

    if (!a) {
        return lab_pages_find(address, info);
    }
    for (uintptr_t at = a->start; at < a->top; at += block_bytes((Block *)at)) {
        Block *b = (Block *)at;
        if (!b->grains) {
            return false;       /* overwritten, or the round end of the base memory */
        }
        if (address - at < block_bytes(b)) {
            *info = (LabBlockInfo){
                .start = at + b->user, .size = b->state == BLOCK_FREE ? 0 : b->size,
                .serial = b->serial, .freed = b->state != BLOCK_LIVE, .caller = b->caller,
            };
            return true;
        }
    }
    return false;
}

#if LAB_OWNS_MEMORY     /* otherwise isolate.c has these */
void *lab_keep_alloc(size_t size)
{
    return arena_alloc(&keep, size, GRAIN, true, NULL);
}

void lab_keep_free(void *p)
{
    if (p) {
        arena_free(&keep, block_of(p, "lab_keep_free"), NULL);
    }
}
#endif
