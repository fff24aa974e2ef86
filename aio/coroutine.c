/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Coroutines: create, enter, yield, end.
 *
 * Everything that happens after a coroutine has given up control, it does itself before: it
 * picks the next one to run (somebody it has woken, or else its caller), and when it ends it
 * puts itself into the pool. So enter and yield have nothing left to do after their switch,
 * which makes it a tail call: control goes straight to the caller of the enter or yield that
 * the other stack was suspended in.
 *
 * A coroutine may continue in another thread, so an address in thread-local storage is wrong
 * after a switch, and a compiler may keep it over one. Hence every function here that uses
 * coroutine_thread is not inlined and uses it before its switch only.
 */
#include "aio/coroutine-internal.h"

/* What each thread knows of its coroutines. */
typedef struct CoroutineThread {
    Coroutine *current;
    Coroutine leader;           /* stands for the thread's own stack */
} CoroutineThread;

static COROUTINE_THREAD_LOCAL CoroutineThread coroutine_thread;

const char coroutine__finished[] = "finished";

/* ---- who runs ------------------------------------------------------------------------ */

static QEMU_NOINLINE Coroutine *make_leader(void)
{
    CoroutineThread *t = &coroutine_thread;
    t->current = &t->leader;
    t->leader.pending_at = &t->leader.pending;
#ifdef USE_TSAN
    t->leader.fiber = __tsan_get_current_fiber();
#endif
    return t->current;
}

/* Only for functions that are not inlined; see above. */
static inline Coroutine *current(void)
{
    Coroutine *co = coroutine_thread.current;
    return likely(co) ? co : make_leader();
}

QEMU_NOINLINE Coroutine *qemu_coroutine_self(void)
{
    return current();
}

QEMU_NOINLINE bool qemu_in_coroutine(void)
{
    const Coroutine *co = coroutine_thread.current;
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

/* ---- misuse -------------------------------------------------------------------------- */

void coroutine__misuse(const char *call, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "miniblk: %s: ", call);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

Coroutine *coroutine__self_for(const char *call)
{
    Coroutine *self = qemu_coroutine_self();
    if (unlikely(!self->caller)) {
        coroutine__misuse(call, "called outside a coroutine");
    }
    return self;
}

QEMU_NOINLINE void coroutine__not_suspended(const char *call, const Coroutine *co,
                                            const char *scheduled)
{
    if (scheduled == coroutine__finished) {
        coroutine__misuse(call, "Co-routine %p has finished", (void *)co);
    }
    if (scheduled) {
        coroutine__misuse(call, "Co-routine %p was already scheduled in '%s'", (void *)co,
                          scheduled);
    }
    coroutine__misuse(call, "Co-routine %p re-entered recursively", (void *)co);
}

static inline void check_suspended(const char *call, const Coroutine *co)
{
    const char *scheduled = qatomic_read(&co->scheduled);
    if (unlikely(scheduled || co->caller)) {
        coroutine__not_suspended(call, co, scheduled);
    }
}

/* ---- switching ----------------------------------------------------------------------- */

#ifdef USE_ASAN
static QEMU_NOINLINE Coroutine *this_leader(void)
{
    return &coroutine_thread.leader;
}

/* First thing on a stack after a switch to it: tell ASan where we are. */
static void asan_arrived(Coroutine *self)
{
    const void *from_stack;
    size_t from_size;
    __sanitizer_finish_switch_fiber(self->asan_stack, &from_stack, &from_size);
    Coroutine *leader = this_leader();
    if (!leader->stack_size) {
        /* the first switch of this thread came from its own stack */
        leader->stack = (void *)from_stack;
        leader->stack_size = from_size;
    }
}
#endif

/* The last thing a caller does; see the top of the file. */
static inline void switch_to(Coroutine *from, Coroutine *to)
{
    coroutine_thread.current = to;
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

QEMU_NOINLINE void qemu_aio_coroutine_enter(AioContext *ctx, Coroutine *co)
{
    Coroutine *self = current();

    check_suspended("qemu_coroutine_enter", co);
    co->caller = self;
    qatomic_set(&co->ctx, ctx);
    port_note(PORT_NOTE_ENTER, co, NULL);
    switch_to(self, co);
}

QEMU_NOINLINE void coroutine_fn qemu_coroutine_yield(void)
{
    Coroutine *self = current();
    Coroutine *caller = self->caller;

    if (unlikely(!caller)) {
        coroutine__misuse("qemu_coroutine_yield", "Co-routine is yielding to no one");
    }
    self->caller = NULL;
    port_note(PORT_NOTE_YIELD, self, NULL);
    Coroutine *to = caller;
    if (unlikely(caller->pending)) {
        to = caller->pending;
        caller->pending = to->next;
        /* whom TO wakes goes first, as if TO's yield had entered them */
        caller->pending_at = &caller->pending;
        qatomic_set(&to->scheduled, NULL);
        to->caller = caller;
        port_note(PORT_NOTE_ENTER, to, NULL);
    }
    switch_to(self, to);
}

void coroutine__main(void)
{
    Coroutine *self = qemu_coroutine_self();
#ifdef USE_ASAN
    asan_arrived(self);
#endif
    for (;;) {
        self->entry(self->opaque);

        if (unlikely(self->locks_held)) {
            coroutine__misuse("qemu_coroutine_enter", "Co-routine %p ended while it held a "
                              "CoMutex or CoRwlock (%u of them)", (void *)self,
                              self->locks_held);
        }
        port_note(PORT_NOTE_CO_END, self, NULL);
        coroutine__free(self);
        qemu_coroutine_yield();
        /* reused from the pool: ENTRY and OPAQUE are new */
    }
}

Coroutine *qemu_coroutine_create(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = coroutine__alloc();
    co->entry = entry;
    co->opaque = opaque;
    qatomic_set(&co->scheduled, NULL);
    return co;
}

void qemu_coroutine_enter(Coroutine *co)
{
    AioContext *ctx = qemu_get_current_aio_context();
    AioContext *home = qatomic_read(&co->ctx);

    if (unlikely(home && home != ctx)) {
        coroutine__misuse("qemu_coroutine_enter", "Co-routine %p last ran in context %p, but "
                          "this thread's is %p; use aio_co_wake()", (void *)co, (void *)home,
                          (void *)ctx);
    }
    qemu_aio_coroutine_enter(ctx, co);
}

void qemu_coroutine_enter_if_inactive(Coroutine *co)
{
    if (!qemu_coroutine_entered(co)) {
        qemu_coroutine_enter(co);
    }
}

QEMU_NOINLINE void coroutine__defer(AioContext *ctx, Coroutine *co)
{
    Coroutine *caller = current()->caller;

    check_suspended("aio_co_enter", co);
    port_note_pair(PORT_NOTE_SCHEDULE, co, ctx);
    qatomic_set(&co->scheduled, "aio_co_enter");
    qatomic_set(&co->ctx, ctx);
    co->next = *caller->pending_at;
    *caller->pending_at = co;
    caller->pending_at = &co->next;
}
