/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stacks, and the pool of finished coroutines.
 *
 * A finished coroutine is kept, mapped and suspended in coroutine__main(), for the next
 * create: first in the pool of the thread that finished it, which no lock guards, and in
 * batches from there in a global one, since many programs create in one thread and finish
 * in another. Of those that find no room there the memory is given back but for the top of
 * the stack. Nothing is ever unmapped, so that whoever still has a pointer to a finished
 * coroutine is told so and does not crash.
 */
#include <sys/mman.h>
#include "aio/coroutine-internal.h"

enum {
    /* Address space, not memory: only what is touched is ever backed. */
#if defined(USE_ASAN) || defined(USE_TSAN)
    STACK_SIZE = 2 << 20,
#else
    STACK_SIZE = 1 << 20,
#endif
    BATCH = 64,                 /* moved between a thread's pool and the global one */
    THREAD_POOL_MAX = 2 * BATCH,
    WARM_MAX = 16 * BATCH,
};

typedef struct CoroutinePool {
    Coroutine *first;
    unsigned count;
} CoroutinePool;

typedef struct ThreadStacks {
    CoroutinePool pool;
    bool registered;            /* thread_exit() will be called */
} ThreadStacks;

/* Used by functions that are not inlined only; see coroutine.c. */
static COROUTINE_THREAD_LOCAL ThreadStacks stacks_here;

static QemuMutex global_lock;           /* all zero bytes: a valid mutex */
/* Protected by GLOBAL_LOCK: */
static CoroutinePool warm;              /* keep their memory; at most WARM_MAX */
static CoroutinePool cold;              /* all others */
static unsigned warm_max = WARM_MAX;
/* Every coroutine there is, linked by NEXT_MAPPED; scripts/gdb/miniblk.py reads it. */
Coroutine *coroutine__all;

static port_thread_key exit_key;
static port_once exit_key_once = PORT_ONCE_INIT;

/* ---- stacks -------------------------------------------------------------------------- */

static size_t page_size(void)
{
    return sysconf(_SC_PAGESIZE);
}

static Coroutine *stack_map(void)
{
    char *stack = port_stack_map(page_size(), STACK_SIZE);
    if (!stack) {
        coroutine__misuse("qemu_coroutine_create", "no memory for another stack: %s (or see "
                          "/proc/sys/vm/max_map_count)", strerror(errno));
    }
#ifdef USE_ASAN
    /* The last user of these addresses has left marks for frames that never returned. */
    __asan_unpoison_memory_region(stack, STACK_SIZE);
#endif
    /* Colouring: tops that differ in their cache sets, or all stacks fight for the same. */
    static unsigned colour;
    size_t offset = 64 * (qatomic_fetch_inc(&colour) % 32);
    size_t top = STACK_SIZE - sizeof(Coroutine) - offset;
    Coroutine *co = (void *)(stack + ROUND_DOWN(top, (size_t)64));
    /* all other fields: fresh pages are zero */
    co->pending_at = &co->pending;
    co->stack = stack;
    co->stack_size = (char *)co - stack;
    coroutine__stack_prepare(co);
    return co;
}

/* Give back the memory below the frames of coroutine__main() and the switch. */
static void stack_trim(Coroutine *co)
{
    /* A page more, because a ucontext lies in the midst of the switch's frames. */
    uintptr_t low = (uintptr_t)co->stack;
    uintptr_t used = ROUND_DOWN((uintptr_t)co->sp - page_size(), (uintptr_t)page_size());

    madvise((void *)low, used - low, MADV_DONTNEED);
#ifdef USE_TSAN
    __tsan_destroy_fiber(co->fiber);
    co->fiber = NULL;
#endif
}

/* ---- pools --------------------------------------------------------------------------- */

static Coroutine *pool_pop(CoroutinePool *pool)
{
    Coroutine *co = pool->first;
    pool->first = co->next;
    pool->count--;
    return co;
}

static void pool_push(CoroutinePool *pool, Coroutine *co)
{
    co->next = pool->first;
    pool->first = co;
    pool->count++;
}

static QEMU_NOINLINE void refill(CoroutinePool *pool)
{
    WITH_QEMU_LOCK_GUARD(&global_lock) {
        while (warm.first && pool->count < BATCH) {
            pool_push(pool, pool_pop(&warm));
        }
        if (!pool->first && cold.first) {
            pool_push(pool, pool_pop(&cold));
        }
    }
    if (!pool->first) {
        Coroutine *co = stack_map();
        pool_push(pool, co);
        QEMU_MUTEX_GUARD(&global_lock);
        co->next_mapped = coroutine__all;
        coroutine__all = co;
    }
}

/* Move coroutines to the global pools until KEEP are left. */
static QEMU_NOINLINE void spill(CoroutinePool *pool, unsigned keep)
{
    CoroutinePool excess = { NULL };

    WITH_QEMU_LOCK_GUARD(&global_lock) {
        while (pool->count > keep) {
            Coroutine *co = pool_pop(pool);
            pool_push(warm.count < warm_max ? &warm : &excess, co);
        }
    }
    for (Coroutine *co = excess.first; co; co = co->next) {
        stack_trim(co);
    }
    QEMU_MUTEX_GUARD(&global_lock);
    while (excess.first) {
        pool_push(&cold, pool_pop(&excess));
    }
}

static void thread_exit(void *opaque)
{
    ThreadStacks *t = opaque;
    t->registered = false;      /* another destructor may yet run coroutines */
    spill(&t->pool, 0);
}

static void make_exit_key(void)
{
    port_thread_key_init(&exit_key, thread_exit);
}

static QEMU_NOINLINE void register_exit(ThreadStacks *t)
{
    port_once_run(&exit_key_once, make_exit_key);
    port_thread_key_set(exit_key, t);
    t->registered = true;
}

QEMU_NOINLINE Coroutine *coroutine__alloc(void)
{
    ThreadStacks *t = &stacks_here;

    if (unlikely(!t->pool.first)) {
        if (!t->registered) {
            register_exit(t);
        }
        refill(&t->pool);
    }
    Coroutine *co = pool_pop(&t->pool);
#ifdef USE_TSAN
    if (!co->fiber) {
        co->fiber = __tsan_create_fiber(0);
    }
#endif
    return co;
}

QEMU_NOINLINE void coroutine__free(Coroutine *co)
{
    ThreadStacks *t = &stacks_here;

    qatomic_set(&co->scheduled, coroutine__finished);
    qatomic_set(&co->ctx, NULL);
    /* CO still runs on its stack: it goes into this thread's pool only, and no further. */
    if (unlikely(t->pool.count >= THREAD_POOL_MAX)) {
        spill(&t->pool, BATCH);
    }
    pool_push(&t->pool, co);
    if (unlikely(!t->registered)) {
        register_exit(t);
    }
}

void qemu_coroutine_inc_pool_size(unsigned additional)
{
    QEMU_MUTEX_GUARD(&global_lock);
    warm_max += additional;
}

void qemu_coroutine_dec_pool_size(unsigned removed)
{
    unsigned raised_by;

    WITH_QEMU_LOCK_GUARD(&global_lock) {
        raised_by = warm_max - WARM_MAX;
        warm_max -= MIN(removed, raised_by);
    }
    if (unlikely(removed > raised_by)) {
        coroutine__misuse("qemu_coroutine_dec_pool_size", "%u taken away, but only %u were "
                          "added", removed, raised_by);
    }
}
