/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Coroutines: create, enter, yield, end. */
#include "aio/coroutine-internal.h"

/* What each thread knows of its coroutines. */
typedef struct CoroutineThread {
    Coroutine *current;
    CoroutinePending *pending;  /* of the innermost qemu_aio_coroutine_enter() */
    bool ended;                 /* the last switch back was an end, not a yield */
    Coroutine leader;           /* stands for the thread's own stack */
} CoroutineThread;

static PORT_THREAD_LOCAL CoroutineThread thread_storage;

/*
 * Not inlined, and never kept across a switch: a coroutine may continue in another thread,
 * and must then find that one's storage.
 */
static QEMU_NOINLINE CoroutineThread *this_thread(void)
{
    CoroutineThread *t = &thread_storage;
    __asm__ volatile("" : "+r"(t));
    return t;
}

static Coroutine *current_of(CoroutineThread *t)
{
    if (unlikely(!t->current)) {
        t->current = &t->leader;
#ifdef USE_TSAN
        t->leader.fiber = __tsan_get_current_fiber();
#endif
    }
    return t->current;
}

Coroutine *qemu_coroutine_self(void)
{
    return current_of(this_thread());
}

bool qemu_in_coroutine(void)
{
    const Coroutine *co = this_thread()->current;
    return co && co->caller;
}

bool qemu_coroutine_entered(Coroutine *co)
{
    return co->caller;
}

AioContext *qemu_coroutine_get_aio_context(Coroutine *co)
{
    return qatomic_read(&co->ctx);
}

Coroutine *qemu_coroutine_create(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = coroutine__alloc();
    co->entry = entry;
    co->opaque = opaque;
    return co;
}

/* ---- switching --------------------------------------------------------------------------- */

#ifdef USE_ASAN
/* First thing on a stack after a switch to it: tell ASan where we are. */
static void asan_arrived(Coroutine *self)
{
    const void *from_stack;
    size_t from_size;
    __sanitizer_finish_switch_fiber(self->asan_stack, &from_stack, &from_size);
    Coroutine *leader = &this_thread()->leader;
    if (!leader->stack_size) {
        /* the first switch of this thread came from its own stack */
        leader->stack = (void *)from_stack;
        leader->stack_size = from_size;
    }
}
#endif

static void switch_to(Coroutine *from, Coroutine *to)
{
    this_thread()->current = to;
#ifdef USE_ASAN
    __sanitizer_start_switch_fiber(&from->asan_stack, to->stack, to->stack_size);
#endif
#ifdef USE_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    coroutine__switch(&from->sp, to->sp);
#ifdef USE_ASAN
    asan_arrived(from);
#endif
}

void coroutine__main(void)
{
    Coroutine *self = qemu_coroutine_self();
#ifdef USE_ASAN
    asan_arrived(self);
#endif
    for (;;) {
        self->entry(self->opaque);

        Coroutine *caller = self->caller;
        self->caller = NULL;
        this_thread()->ended = true;
        switch_to(self, caller);
        /* reused from the pool: ENTRY and OPAQUE are new */
    }
}

static QEMU_NORETURN void misuse(const char *call, const char *what, const char *detail)
{
    fprintf(stderr, "miniblk: %s: %s%s\n", call, what, detail ? detail : "");
    abort();
}

static void check_may_enter(Coroutine *co)
{
    const char *scheduled = qatomic_read(&co->scheduled);
    if (unlikely(scheduled)) {
        misuse("qemu_coroutine_enter", "Co-routine was already scheduled in ", scheduled);
    }
    if (unlikely(co->caller)) {
        misuse("qemu_coroutine_enter", "Co-routine re-entered recursively", NULL);
    }
}

void qemu_aio_coroutine_enter(AioContext *ctx, Coroutine *co)
{
    CoroutineThread *t = this_thread();
    Coroutine *self = current_of(t);
    CoroutinePending pending = QSIMPLEQ_HEAD_INITIALIZER(pending), woken;
    CoroutinePending *outer = t->pending;

    /*
     * Those whom CO wakes are collected here, not in CO: after the switch back CO may have
     * ended, or may already run in another thread.
     */
    QSIMPLEQ_INSERT_TAIL(&pending, co, pending_next);
    while (!QSIMPLEQ_EMPTY(&pending)) {
        Coroutine *to = QSIMPLEQ_FIRST(&pending);
        QSIMPLEQ_REMOVE_HEAD(&pending, pending_next);

        check_may_enter(to);
        QSIMPLEQ_INIT(&woken);
        t->pending = &woken;
        t->ended = false;
        to->caller = self;
        qatomic_set(&to->ctx, ctx);
        switch_to(self, to);
        t = this_thread();      /* SELF may be a coroutine that has moved */
        if (t->ended) {
            t->ended = false;
            if (unlikely(to->locks_held)) {
                misuse("qemu_coroutine_enter", "Co-routine ended while it held a CoMutex",
                       NULL);
            }
            coroutine__free(to);
        }
        /* the woken go first, as if TO's yield had called them */
        QSIMPLEQ_CONCAT(&woken, &pending);
        QSIMPLEQ_CONCAT(&pending, &woken);
    }
    t->pending = outer;
}

void qemu_coroutine_enter(Coroutine *co)
{
    qemu_aio_coroutine_enter(qemu_get_current_aio_context(), co);
}

void qemu_coroutine_enter_if_inactive(Coroutine *co)
{
    if (!qemu_coroutine_entered(co)) {
        qemu_coroutine_enter(co);
    }
}

void coroutine_fn qemu_coroutine_yield(void)
{
    Coroutine *self = qemu_coroutine_self();
    Coroutine *caller = self->caller;

    if (unlikely(!caller)) {
        misuse("qemu_coroutine_yield", "Co-routine is yielding to no one", NULL);
    }
    self->caller = NULL;
    switch_to(self, caller);
}

void coroutine__defer(Coroutine *co)
{
    QSIMPLEQ_INSERT_TAIL(this_thread()->pending, co, pending_next);
}

void qemu_coroutine_inc_pool_size(unsigned additional)
{
}

void qemu_coroutine_dec_pool_size(unsigned additional)
{
}
