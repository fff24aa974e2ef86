/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stacks, and the pool of finished coroutines.
 *
 * A finished coroutine is kept, mapped and suspended in coroutine__main(), for the next
 * create: first in the pool of the thread that finished it, which no lock guards, and in
 * batches from there in a global one, since many programs create in one thread and finish
 * in another.
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
    GLOBAL_POOL_MAX = 16 * BATCH,
};

typedef struct CoroutinePool {
    Coroutine *first;
    unsigned count;
} CoroutinePool;

static PORT_THREAD_LOCAL CoroutinePool thread_pool_storage;
static PORT_THREAD_LOCAL bool thread_pool_registered;

static QemuMutex global_lock;           /* all zero bytes: a valid mutex */
static CoroutinePool global_pool;       /* protected by GLOBAL_LOCK */
static port_thread_key exit_key;
static port_once exit_key_once = PORT_ONCE_INIT;

static QEMU_NOINLINE CoroutinePool *thread_pool_here(void)
{
    return &thread_pool_storage;
}

static size_t guard_size(void)
{
    return sysconf(_SC_PAGESIZE);
}

static Coroutine *stack_map(void)
{
    char *base = mmap(NULL, guard_size() + STACK_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || mprotect(base, guard_size(), PROT_NONE) < 0) {
        fprintf(stderr, "miniblk: no memory for a coroutine's stack: %s\n", strerror(errno));
        abort();
    }
#ifdef USE_ASAN
    /* The last user of these addresses has left marks for frames that never returned. */
    __asan_unpoison_memory_region(base + guard_size(), STACK_SIZE);
#endif
    /* Colouring: tops that differ in their cache sets, or all stacks fight for the same. */
    static unsigned colour;
    size_t offset = 64 * (qatomic_fetch_inc(&colour) % 32);
    size_t top = STACK_SIZE - sizeof(Coroutine) - offset;
    Coroutine *co = (void *)(base + guard_size() + ROUND_DOWN(top, (size_t)64));
    co->stack = base + guard_size();
    co->stack_size = (char *)co - (char *)co->stack;
    return co;
}

static void stack_unmap(Coroutine *co)
{
#ifdef USE_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
    munmap((char *)co->stack - guard_size(), guard_size() + STACK_SIZE);
}

/* ---- pools ------------------------------------------------------------------------------- */

static Coroutine *pool_pop(CoroutinePool *pool)
{
    Coroutine *co = pool->first;
    pool->first = co->pool_next;
    pool->count--;
    return co;
}

static void pool_push(CoroutinePool *pool, Coroutine *co)
{
    co->pool_next = pool->first;
    pool->first = co;
    pool->count++;
}

static void refill(CoroutinePool *pool)
{
    if (!qatomic_read(&global_pool.count)) {
        return;
    }
    QEMU_MUTEX_GUARD(&global_lock);
    while (global_pool.first && pool->count < BATCH) {
        Coroutine *co = global_pool.first;
        global_pool.first = co->pool_next;
        qatomic_set(&global_pool.count, global_pool.count - 1);
        pool_push(pool, co);
    }
}

/* Move coroutines to the global pool until KEEP are left; unmap what finds no room. */
static void spill(CoroutinePool *pool, unsigned keep)
{
    Coroutine *excess = NULL;

    WITH_QEMU_LOCK_GUARD(&global_lock) {
        while (pool->count > keep) {
            Coroutine *co = pool_pop(pool);
            if (global_pool.count < GLOBAL_POOL_MAX) {
                co->pool_next = global_pool.first;
                global_pool.first = co;
                qatomic_set(&global_pool.count, global_pool.count + 1);
            } else {
                co->pool_next = excess;
                excess = co;
            }
        }
    }
    while (excess) {
        Coroutine *co = excess;
        excess = co->pool_next;
        stack_unmap(co);
    }
}

static void thread_exit(void *pool)
{
    spill(pool, 0);
}

static void make_exit_key(void)
{
    port_thread_key_init(&exit_key, thread_exit);
}

static QEMU_NOINLINE void register_exit(CoroutinePool *pool)
{
    port_once_run(&exit_key_once, make_exit_key);
    port_thread_key_set(exit_key, pool);
    thread_pool_registered = true;
}

Coroutine *coroutine__alloc(void)
{
    CoroutinePool *pool = thread_pool_here();

    if (unlikely(!pool->first)) {
        refill(pool);
        if (pool->first && !thread_pool_registered) {
            register_exit(pool);
        }
    }
    if (likely(pool->first)) {
        return pool_pop(pool);
    }
    Coroutine *co = stack_map();        /* all other fields: fresh pages are zero */
#ifdef USE_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
    coroutine__stack_prepare(co);
    return co;
}

void coroutine__free(Coroutine *co)
{
    CoroutinePool *pool = thread_pool_here();

    pool_push(pool, co);
    if (unlikely(!thread_pool_registered)) {
        register_exit(pool);
    }
    if (unlikely(pool->count > THREAD_POOL_MAX)) {
        spill(pool, BATCH);
    }
}
