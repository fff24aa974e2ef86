/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sections of deferred calls, per thread.
 *
 * This and AioBatchHook (aio/batch.c) both make one call out of many, and neither can
 * replace the other. A hook's section is the loop's iteration, which always ends before the
 * loop could sleep: nothing that is put off can be forgotten, so an engine arms its hook for
 * every request and a producer needs to know nothing. A section here ends when its producer
 * says so, earlier than the iteration or where there is no loop, but also never if it waits
 * inside for what it has put off. So engines arm the hook in any case and, inside a section,
 * defer the same hand-over: whichever comes first does it, the other finds nothing to do.
 */
#include "miniblk/osdep.h"
#include "miniblk/defer-call.h"
#include "aio/port.h"

typedef struct DeferredCall {
    void (*fn)(void *);
    void *opaque;
} DeferredCall;

typedef struct DeferState {
    unsigned depth;             /* of nested sections */
    GArray *calls;              /* of DeferredCall; NULL when there are none */
} DeferState;

static PORT_THREAD_LOCAL DeferState thread_state;

static QEMU_NOINLINE DeferState *get_state(void)
{
    return &thread_state;
}

bool defer_call_in_section(void)
{
    return get_state()->depth > 0;
}

void defer_call_begin(void)
{
    DeferState *s = get_state();

    g_assert(s->depth < UINT_MAX);
    s->depth++;
}

void defer_call_end(void)
{
    DeferState *s = get_state();

    if (s->depth == 0) {
        fprintf(stderr, "miniblk: defer_call_end: the thread has no section open\n");
        abort();
    }
    if (--s->depth > 0 || !s->calls) {
        return;
    }
    /* Off the state first: the calls may open sections of their own. */
    g_autoptr(GArray) calls = g_steal_pointer(&s->calls);
    for (unsigned i = 0; i < calls->len; i++) {
        DeferredCall *call = &g_array_index(calls, DeferredCall, i);
        call->fn(call->opaque);
    }
}

void defer_call(void (*fn)(void *), void *opaque)
{
    DeferState *s = get_state();

    if (s->depth == 0) {
        fn(opaque);
        return;
    }
    if (!s->calls) {
        s->calls = g_array_new(false, false, sizeof(DeferredCall));
    }
    /* The newest is the likeliest to be repeated; there are few anyway. */
    for (unsigned i = s->calls->len; i-- > 0; ) {
        DeferredCall *call = &g_array_index(s->calls, DeferredCall, i);
        if (call->fn == fn && call->opaque == opaque) {
            return;
        }
    }
    g_array_append_val(s->calls, ((DeferredCall) { fn, opaque }));
}
