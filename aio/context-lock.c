/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The recursive lock of an AioContext, with the rules that keep it free of deadlocks: a
 * thread that does not hold the big lock holds one context at the most, and nobody waits
 * for a context while holding a lock that comes after it.
 *
 * The lock is one word:
 *
 *      0                       free
 *      ID                      owned by thread ID
 *      ID | LOCK_WAITERS       the same, and threads sleep on the word
 *      LOCK_WAITERS            given up by its owner in favour of one that has slept
 *
 * Uncontended it costs a compare-and-swap each way. Contended it is handed over: a loop that
 * takes the lock again and again would otherwise win every race against the thread it has
 * just woken, and a monitor command would wait until the loop is idle.
 */
#include "aio/aio-internal.h"

enum { LOCK_FREE = 0 };
#define LOCK_WAITERS (1U << 31)     /* thread ids are far smaller */

/* What the calling thread holds. */
typedef struct LockHolder {
    unsigned id;                /* thread id; 0 until first used */
    AioContext *held;           /* contexts held, linked by lock_next_held */
    bool bql;
} LockHolder;

static PORT_THREAD_LOCAL LockHolder holder_storage;

static QEMU_NOINLINE LockHolder *lock_holder(void)
{
    if (unlikely(!holder_storage.id)) {
        holder_storage.id = qemu_get_thread_id();
    }
    return &holder_storage;
}

static unsigned owner_of(AioContext *ctx)
{
    return qatomic_read(&ctx->lock_word) & ~LOCK_WAITERS;
}

/* ---- the rules ------------------------------------------------------------------------- */

/* "thread 'NAME' (ID)" */
static void describe_thread(char *out, size_t size, unsigned id)
{
    char name[16];

    port_thread_name(id, name);
    snprintf(out, size, "thread '%s' (%u)", name, id);
}

/* "context 'NAME' (held by thread 'NAME' (ID))" */
static void describe_context(char *out, size_t size, AioContext *ctx)
{
    unsigned owner = owner_of(ctx);
    char thread[48];
    int n = ctx->lock_name ? snprintf(out, size, "context '%s'", ctx->lock_name)
                           : snprintf(out, size, "context %p", (void *)ctx);

    if (owner && n < (int)size) {
        describe_thread(thread, sizeof(thread), owner);
        snprintf(out + n, size - n, " (held by %s)", thread);
    }
}

static QEMU_NOINLINE G_GNUC_NORETURN void
lock_abort(const char *call, const char *does, AioContext *ctx, AioContext *held,
           const char *rule)
{
    char me[48], wanted[160] = "", mine[160] = "";

    describe_thread(me, sizeof(me), lock_holder()->id);
    if (ctx) {
        describe_context(wanted, sizeof(wanted), ctx);
    }
    if (held) {
        describe_context(mine, sizeof(mine), held);
    }
    fprintf(stderr, "miniblk: %s: %s %s%s%s%s; %s\n", call, me, does, wanted,
            held ? " while it holds " : "", mine, rule);
    abort();
}

static void check_one_context(const LockHolder *me, AioContext *ctx)
{
#ifndef MINIBLK_RELEASE
    if (unlikely(me->held && !me->bql)) {
        lock_abort("aio_context_acquire", "takes ", ctx, me->held,
                   "without the big lock only one may be held");
    }
#endif
}

static void check_may_wait(AioContext *ctx)
{
#ifndef MINIBLK_RELEASE
    if (qemu_thread_mutexes_held()) {
        lock_abort("aio_context_acquire", "waits with a mutex locked for ", ctx, NULL,
                   "context locks come before mutexes");
    }
#endif
}

void aio__check_bql_order(void)
{
    LockHolder *me = lock_holder();

    if (unlikely(me->held)) {
        lock_abort("bql_lock", "takes the big lock", NULL, me->held,
                   "the big lock comes before context locks");
    }
}

void aio__thread_set_bql(bool held)
{
    LockHolder *me = lock_holder();

    if (unlikely(!held && me->held && me->held->lock_next_held)) {
        lock_abort("bql_unlock", "releases the big lock and keeps ",
                   me->held->lock_next_held, me->held,
                   "without the big lock only one may be held");
    }
    me->bql = held;
}

void aio__context_set_name(AioContext *ctx, const char *name)
{
    g_free(ctx->lock_name);
    ctx->lock_name = g_strdup(name);
    AIO_CONTEXT_NOTE_NAME(ctx, name);
}

void aio__context_lock_destroy(AioContext *ctx)
{
    if (unlikely(qatomic_read(&ctx->lock_word) != LOCK_FREE)) {
        lock_abort("aio_context_unref", "frees ", ctx, NULL, "its lock must be free");
    }
    g_free(ctx->lock_name);
}

/* ---- taking and releasing -------------------------------------------------------------- */

static QEMU_NOINLINE void lock_contended(AioContext *ctx, unsigned id)
{
    bool slept = false;

    check_may_wait(ctx);
    for (;;) {
        unsigned word = qatomic_read(&ctx->lock_word);

        if (word == LOCK_FREE || (word == LOCK_WAITERS && slept)) {
            /* Others may sleep still; if none does, our release finds that out. */
            if (qatomic_cmpxchg(&ctx->lock_word, word, id | LOCK_WAITERS) == word) {
                return;
            }
        } else if ((word & LOCK_WAITERS) ||
                   qatomic_cmpxchg(&ctx->lock_word, word, word | LOCK_WAITERS) == word) {
            port_futex_wait(&ctx->lock_word, word | LOCK_WAITERS);
            slept = true;
        }
    }
}

/* The word is ours with LOCK_WAITERS. */
static QEMU_NOINLINE void hand_over(AioContext *ctx)
{
    qatomic_store_release(&ctx->lock_word, LOCK_WAITERS);
    if (port_futex_wake(&ctx->lock_word, 1) == 0 &&
        qatomic_cmpxchg(&ctx->lock_word, LOCK_WAITERS, LOCK_FREE) == LOCK_WAITERS) {
        /* Nobody slept then, but somebody may have gone to sleep on that value since. */
        port_futex_wake(&ctx->lock_word, 1);
    }
}

void aio_context_acquire(AioContext *ctx)
{
    LockHolder *me = lock_holder();

    /* Only we can have stored our own id, so the plain read cannot mislead. */
    if (owner_of(ctx) != me->id) {
        check_one_context(me, ctx);
        if (qatomic_cmpxchg(&ctx->lock_word, LOCK_FREE, me->id) != LOCK_FREE) {
            lock_contended(ctx, me->id);
        }
        port_note(PORT_NOTE_THREAD_HOLD, &ctx->lock_word, NULL);
        ctx->lock_next_held = me->held;
        me->held = ctx;
    }
    ctx->lock_depth++;
}

void aio_context_release(AioContext *ctx)
{
    LockHolder *me = lock_holder();

    if (unlikely(owner_of(ctx) != me->id)) {
        lock_abort("aio_context_release", "does not hold ", ctx, NULL,
                   "only what was acquired may be released");
    }
    if (--ctx->lock_depth == 0) {
        port_note(PORT_NOTE_THREAD_RELEASE, &ctx->lock_word, NULL);
        AioContext **link = &me->held;
        while (*link != ctx) {
            link = &(*link)->lock_next_held;
        }
        *link = ctx->lock_next_held;
        if (qatomic_cmpxchg(&ctx->lock_word, me->id, LOCK_FREE) != me->id) {
            hand_over(ctx);
        }
    }
}

unsigned aio__context_lock_depth(AioContext *ctx)
{
    return owner_of(ctx) == lock_holder()->id ? ctx->lock_depth : 0;
}

/* ---- dropping all levels while polling -------------------------------------------------- */

typedef struct DroppedLock {
    AioContext *ctx;
    unsigned depth;
} DroppedLock;

GArray *aio__context_locks_drop(AioContext *ctx)
{
    LockHolder *me = lock_holder();
    GArray *dropped = NULL;
    AioContext *victim;

    while ((victim = ctx ? ctx : me->held)) {
        DroppedLock d = { victim, aio__context_lock_depth(victim) };
        for (unsigned i = 0; i < d.depth; i++) {
            aio_context_release(victim);
        }
        if (d.depth) {
            dropped = dropped ? dropped : g_array_new(false, false, sizeof(d));
            g_array_append_val(dropped, d);
        }
        if (ctx) {
            break;
        }
    }
    return dropped;
}

void aio__context_locks_retake(GArray *dropped)
{
    for (unsigned i = dropped ? dropped->len : 0; i-- > 0; ) {
        DroppedLock *d = &g_array_index(dropped, DroppedLock, i);
        while (d->depth--) {
            aio_context_acquire(d->ctx);
        }
    }
    if (dropped) {
        g_array_free(dropped, true);
    }
}
