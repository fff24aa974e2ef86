/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads as fibers: a stack each, and the program's thread-local variables exchanged at every
 * switch.
 *
 * The variables of the executable lie below the thread pointer, in one block that the linker
 * laid out (PT_TLS). All fibers run on the one kernel thread, so they share that block; the
 * contents are copied out of it for the thread that leaves and into it for the one that comes.
 * So the address of a variable is the same in all of them, and no compiler can keep a
 * stale one.
 *
 * Stacks lie in an area of their own at a fixed address: first those of the threads, then
 * those of coroutines. Their contents need not be put back, but for what was there when the first
 * schedule began: threads that main() started before g_test_run(), and their coroutines.
 */
#include "miniblk/osdep.h"
#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>
#include "aio/sanitizer.h"
#include "lab/engine.h"
#include "lab/tsan.h"

#ifdef USE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef USE_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* aio/coroutine-asm-*.S or -ucontext.c: save the stack in *SAVE_SP, continue on TO_SP. */
void coroutine__switch(void **save_sp, void *to_sp);

#ifdef USE_TSAN
#define AREA_BASE ((char *)0x001000000000)      /* where it expects memory of the program */
#else
#define AREA_BASE ((char *)0x500000000000)
#endif
enum {
    PAGE_SIZE = 4096,
    STACK_SIZE = 2 << 20,       /* of a thread, its guard page at the low end included */
    TLS_SIZE_MAX = 16 << 10,
    COROUTINE_TOP = 8 << 10,    /* of a coroutine's stack: all that its creator expects zero */
};
#define COROUTINES_SIZE ((size_t)16 << 30)
#define AREA_SIZE (LAB_THREADS_MAX * (size_t)STACK_SIZE + COROUTINES_SIZE)

/* What the sanitizers know of whoever is switched out. */
typedef struct StackBounds {
    const void *low;
    size_t size;
    void *fiber;
    unsigned depth;
} StackBounds;

typedef struct StackTop {
    char tls[TLS_SIZE_MAX] __attribute__((aligned(64)));
    void (*entry)(void);
    StackBounds bounds;         /* where it goes on: here, or on a coroutine's stack */
} StackTop;

/* What a stretch of stack held when the first schedule began. */
typedef struct Saved {
    struct Saved *next;
    void *address;
    size_t size;
    char bytes[];
} Saved;

static char *tls_block LAB_KEEP;
static size_t tls_size LAB_KEEP;
static const void *tls_image LAB_KEEP;  /* what a new thread starts with */
static size_t tls_image_size LAB_KEEP;
static Saved *saved LAB_KEEP;
static void *explorer_sp LAB_KEEP;      /* of lab__fiber_run() */
static StackBounds explorer_bounds LAB_KEEP;
static void *discarded_sp LAB_KEEP;
static StackBounds discarded_bounds LAB_KEEP;
static size_t coroutines_protected LAB_KEEP;    /* so many bytes have their guard pages */

static size_t coroutines_used;          /* bytes of the second part of the area */
#ifdef USE_ASAN
static StackBounds *left_bounds;        /* of whom the last switch has left */
#endif

/* ---- the area -------------------------------------------------------------------------- */

static int find_tls(struct dl_phdr_info *info, size_t size, void *opaque)
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type == PT_TLS) {
            uintptr_t top = (uintptr_t)__builtin_thread_pointer();
            tls_size = ROUND_UP(ph->p_memsz, ph->p_align);
            tls_block = (char *)(top - tls_size);
            tls_image = (void *)(info->dlpi_addr + ph->p_vaddr);
            tls_image_size = ph->p_filesz;
        }
    }
    return 1;                   /* the first object is the program itself */
}

static void area_init(void)
{
    static bool done LAB_KEEP;

    if (done) {
        return;
    }
    done = true;
    void *area = mmap(AREA_BASE, AREA_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                      -1, 0);
    if (area != AREA_BASE) {
        fprintf(stderr, "lab: no room for stacks at %p: %s\n", AREA_BASE, strerror(errno));
        abort();
    }
    for (unsigned i = 0; i < LAB_THREADS_MAX; i++) {
        mprotect(AREA_BASE + i * (size_t)STACK_SIZE, PAGE_SIZE, PROT_NONE);
    }
    dl_iterate_phdr(find_tls, NULL);
    lab_tsan_own_bytes(tls_block, tls_size);
    lab_tsan_own_bytes(&errno, sizeof(errno));
    if (tls_size > TLS_SIZE_MAX) {
        fprintf(stderr, "lab: the program has %zu bytes of thread-local variables, the lab "
                "has room for %d\n", tls_size, TLS_SIZE_MAX);
        abort();
    }
}

void lab__fiber_area(uintptr_t *low, uintptr_t *high)
{
    *low = (uintptr_t)AREA_BASE;
    *high = (uintptr_t)AREA_BASE + AREA_SIZE;
}

static StackTop *stack_top(int thread)
{
    return (StackTop *)(AREA_BASE + (thread + 1) * (size_t)STACK_SIZE) - 1;
}

void *lab_stack_map(size_t guard_size, size_t size)
{
    area_init();
    char *base = AREA_BASE + LAB_THREADS_MAX * (size_t)STACK_SIZE + coroutines_used;
    if (coroutines_used + guard_size + size > COROUTINES_SIZE) {
        errno = ENOMEM;
        return NULL;
    }
    coroutines_used += guard_size + size;
    if (coroutines_used > coroutines_protected) {
        mprotect(base, guard_size, PROT_NONE);
        coroutines_protected = coroutines_used;
    } else {
        /* of an earlier schedule */
        size_t top = MIN(size, (size_t)COROUTINE_TOP);
        memset(base + guard_size + size - top, 0, top);
    }
    return base + guard_size;
}

/* ---- fibers ---------------------------------------------------------------------------- */

/* First thing after a switch. Only now ASan tells on which stack it left whom. */
static inline void arrived(void *fake_stack)
{
#ifdef USE_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, &left_bounds->low, &left_bounds->size);
#endif
}

/* Continue where TO_SP is, within TO; the place that is left goes to *SAVE_SP and *SAVE. */
static inline void switch_stack(void **save_sp, StackBounds *save, void *to_sp,
                                const StackBounds *to)
{
    void *fake_stack = NULL;

#ifdef USE_ASAN
    left_bounds = save;
    __sanitizer_start_switch_fiber(save_sp == &discarded_sp ? NULL : &fake_stack, to->low,
                                   to->size);
#endif
#ifdef USE_TSAN
    save->fiber = __tsan_get_current_fiber();
    save->depth = lab__depth;
    lab__depth = to->depth;
    __tsan_switch_to_fiber(to->fiber, __tsan_switch_to_fiber_no_sync);
#endif
    coroutine__switch(save_sp, to_sp);
    arrived(fake_stack);
}

static void fiber_main(void)
{
    arrived(NULL);
    stack_top(lab__engine.self)->entry();
    __builtin_trap();
}

/* What coroutine__switch() pops and jumps to, or continues; see aio/coroutine-*. */
static void *first_frame(StackTop *top)
{
#if defined(LAB_UCONTEXT)
    ucontext_t *uc = (void *)top->bounds.low;
    if (getcontext(uc) < 0) {
        abort();
    }
    uc->uc_stack.ss_sp = uc + 1;
    uc->uc_stack.ss_size = top->bounds.size - sizeof(*uc);
    uc->uc_link = NULL;
    makecontext(uc, fiber_main, 0);
    return uc;
#else
#if defined(__x86_64__)
    enum { WORDS = 7, RETURN_WORD = 6 };
    /* a called function finds the stack pointer 8 below a multiple of 16 */
    void **sp = (void **)ROUND_DOWN((uintptr_t)top, (uintptr_t)16) - 1 - WORDS;
#elif defined(__aarch64__)
    enum { WORDS = 20, RETURN_WORD = 11 };
    void **sp = (void **)ROUND_DOWN((uintptr_t)top, (uintptr_t)16) - WORDS;
#else
#error "the lab has no stack switch for this machine"
#endif
    memset(sp, 0, WORDS * sizeof(void *));
    sp[RETURN_WORD] = (void *)fiber_main;
    return sp;
#endif
}

static StackTop *new_stack(int thread, void (*entry)(void))
{
    StackTop *top = stack_top(thread);
    char *low = (char *)(top + 1) - STACK_SIZE + PAGE_SIZE;

#ifdef USE_ASAN
    __asan_unpoison_memory_region(low, (char *)top - low);
#endif
    top->entry = entry;
    top->bounds = (StackBounds) { low, (char *)top - low };
    lab__threads[thread].sp = first_frame(top);
    return top;
}

void lab__fiber_init(int thread, void (*entry)(void))
{
    area_init();
    StackTop *top = new_stack(thread, entry);
    memcpy(top->tls, tls_image, tls_image_size);
    memset(top->tls + tls_image_size, 0, tls_size - tls_image_size);
#ifdef USE_TSAN
    top->bounds.fiber = __tsan_create_fiber(0);
    lab__carrier_init(thread);
#endif
    lab__threads[thread].saved_errno = 0;
}

void lab__fiber_switch(LabThread *save)
{
    LabThread *to = lab__self();
    StackTop *to_top = stack_top(to - lab__threads);
    StackTop *save_top = save ? stack_top(save - lab__threads) : NULL;

    if (save) {
        lab__view_hide(save);
        save->saved_errno = errno;
        memcpy(save_top->tls, tls_block, tls_size);
    }
    memcpy(tls_block, to_top->tls, tls_size);
    lab__view_show(to);
    errno = to->saved_errno;
    if (save) {
        switch_stack(&save->sp, &save_top->bounds, to->sp, &to_top->bounds);
    } else {
        switch_stack(&discarded_sp, &discarded_bounds, to->sp, &to_top->bounds);
    }
}

void lab__fiber_run(void (*entry)(void))
{
    area_init();
    /* thread 0 goes on with the variables that are there */
    StackTop *top = new_stack(0, entry);
    lab__engine.self = 0;
#ifdef USE_TSAN
    top->bounds.fiber = __tsan_get_current_fiber();
    top->bounds.depth = lab__depth;
    lab__carrier_init(0);
#endif
    switch_stack(&explorer_sp, &explorer_bounds, lab__threads[0].sp, &top->bounds);
}

void lab__fiber_leave(void)
{
    switch_stack(&discarded_sp, &discarded_bounds, explorer_sp, &explorer_bounds);
    __builtin_trap();
}

/* ---- what was there before the first schedule ------------------------------------------- */

/* Not malloc(): that memory is itself put back. */
static void *keep_alloc(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? abort(), NULL : p;
}

static void save_stretch(char *start, char *end)
{
    Saved *s = keep_alloc(sizeof(*s) + (end - start));
    s->next = saved;
    s->address = start;
    s->size = end - start;
    memcpy(s->bytes, start, s->size);
    saved = s;
}

static bool page_is_zero(const char *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_SIZE - 1) == 0;
}

/* The page is there and not a guard: reading a page for the first time would make it. */
static bool page_is_used(char *page)
{
    unsigned char resident;
    return mincore(page, PAGE_SIZE, &resident) == 0 && (resident & 1) && !page_is_zero(page);
}

void lab__fibers_save(void)
{
    area_init();
    for (int i = 1; i < lab__engine.n_threads; i++) {
        if (lab__engine.live & lab__bit(i)) {
            save_stretch(lab__threads[i].sp, (char *)(stack_top(i) + 1));
        }
    }
    char *low = AREA_BASE + LAB_THREADS_MAX * (size_t)STACK_SIZE;
    for (char *p = low; p < low + coroutines_used; p += PAGE_SIZE) {
        char *end = p;
        while (end < low + coroutines_used && page_is_used(end)) {
            end += PAGE_SIZE;
        }
        if (end > p) {
            save_stretch(p, end);
            p = end;
        }
    }
}

void lab__fibers_restore(void)
{
    for (Saved *s = saved; s; s = s->next) {
        memcpy(s->address, s->bytes, s->size);
    }
}
