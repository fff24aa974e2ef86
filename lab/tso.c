/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Store buffers, by views.
 *
 * A store waits in a queue of its thread before other threads see it; the thread itself sees
 * it at once. Here memory always shows the view of the running thread: a buffered store is
 * written to memory, and the value that the others see is kept beside it. When the thread is
 * switched out its stores are taken back, newest first; when it runs again they are
 * redone, oldest first. So the program may read its memory by plain instructions and finds
 * what this thread would find.
 *
 *      running      memory = landed stores + own pending ones;  entry holds OLD_VALUE
 *      switched out memory = landed stores (+ the running one's); entry holds NEW_VALUE
 *
 * A store lands by being dropped from the queue while its thread's view shows, which makes it
 * part of what everybody sees; entries behind it on the same address have it as OLD_VALUE
 * already.
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "aio/port.h"
#include "lab/engine.h"
#include "lab/tsan.h"

/* Not for ASan to see: a store to a variable on the stack may wait there when its function has
 * returned. */
#define UNSEEN __attribute__((no_sanitize("address")))

UNSEEN static uint64_t get(uintptr_t address, uint32_t size)
{
    switch (size) {
    case 1:
        return *(uint8_t *)address;
    case 2:
        return *(uint16_t *)address;
    case 4:
        return *(uint32_t *)address;
    default:
        return *(uint64_t *)address;
    }
}

UNSEEN static void put(uintptr_t address, uint32_t size, uint64_t value)
{
    switch (size) {
    case 1:
        *(uint8_t *)address = value;
        break;
    case 2:
        *(uint16_t *)address = value;
        break;
    case 4:
        *(uint32_t *)address = value;
        break;
    default:
        *(uint64_t *)address = value;
        break;
    }
}

void lab__view_hide(LabThread *t)
{
    for (unsigned i = t->n_stores; i-- > 0;) {
        LabStore *s = &t->stores[i];
        /* as it is now: plain stores may have come on top */
        s->new_value = get(s->address, s->size);
        put(s->address, s->size, s->old_value);
    }
}

void lab__view_show(LabThread *t)
{
    for (unsigned i = 0; i < t->n_stores; i++) {
        LabStore *s = &t->stores[i];
        s->old_value = get(s->address, s->size);
        put(s->address, s->size, s->new_value);
    }
}

static void drop(LabThread *t, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        lab_release_end(t - lab__threads, t->stores[i].token, t->stores[i].address);
    }
    t->n_stores -= n;
    memmove(t->stores, t->stores + n, t->n_stores * sizeof(t->stores[0]));
    if (t->n_stores == 0) {
        lab__engine.buffered &= ~lab__bit(t - lab__threads);
    }
}

/* The N oldest stores of T land. */
static void land(LabThread *t, unsigned n)
{
    LabThread *self = lab__self();

    if (t == self) {
        drop(t, n);
        return;
    }
    /* The running thread may have stores to the same place, which stay on top. */
    lab__view_hide(self);
    for (unsigned i = 0; i < n; i++) {
        put(t->stores[i].address, t->stores[i].size, t->stores[i].new_value);
    }
    drop(t, n);
    lab__view_show(self);
}

void lab__flush_oldest(int thread)
{
    land(&lab__threads[thread], 1);
}

void lab__drain(void)
{
    LabThread *t = lab__self();
    if (t->n_stores) {
        land(t, t->n_stores);
    }
}

/*
 * Those before and behind them wait on: a free is no barrier. Nobody may look at this memory any
 * more, so that these are seen out of order does not matter.
 */
void lab__stores_forget(const void *start, size_t size)
{
    if (likely(!lab__engine.buffered)) {
        return;
    }
    uintptr_t low = (uintptr_t)start, high = low + size;
    for (int i = 0; i < lab__engine.n_threads; i++) {
        LabThread *t = &lab__threads[i];
        unsigned n = t->n_stores;
        t->n_stores = 0;
        for (unsigned j = 0; j < n; j++) {
            const LabStore *s = &t->stores[j];
            if (s->address >= high || low >= s->address + s->size) {
                t->stores[t->n_stores++] = *s;
            }
        }
        if (t->n_stores == 0) {
            lab__engine.buffered &= ~lab__bit(i);
        }
    }
}

/* ---- what atomic-lab.h calls ----------------------------------------------------------- */

void lab__drain_at_point(const char *where)
{
    if (lab_running && lab__self()->n_stores) {
        lab_point_at(LAB_OP_FENCE, 0, true, where);
        lab__drain();
    }
}

void *lab_load(const volatile void *ptr, const char *where)
{
    if (lab_running) {
        lab_point_at(LAB_OP_LOAD, (uintptr_t)ptr, false, where);
    }
    return (void *)ptr;
}

void *lab_rmw(const volatile void *ptr, const char *where)
{
    if (lab_running) {
        lab__drain_at_point(where);
        lab_point_at(LAB_OP_RMW, (uintptr_t)ptr, true, where);
    }
    return (void *)ptr;
}

/* Whether anybody is there who could see the difference. */
static bool others_live(void)
{
    return lab__engine.live & (lab__engine.live - 1);
}

void *lab_store(const volatile void *ptr, size_t size, const char *where)
{
    uintptr_t address = (uintptr_t)ptr;
    LabThread *t = lab__self();

    if (lab_running) {
        lab_point_at(LAB_OP_STORE, address, true, where);
        if (lab__limits.tso && size <= sizeof(uint64_t) && others_live()) {
            if (t->n_stores == LAB_STORES_MAX) {
                drop(t, 1);
            }
            LabStore *s = &t->stores[t->n_stores++];
            s->address = address;
            s->size = size;
            s->where = where;
            s->old_value = get(address, size);
            s->token = NULL;
            lab__engine.buffered |= lab__bit(t - lab__threads);
        } else {
            lab__drain();       /* a store of this size is made of several */
        }
    }
    return (void *)ptr;
}

void lab_stored_release(const volatile void *ptr)
{
    LabThread *t = lab__self();

    if (t->n_stores) {
        t->stores[t->n_stores - 1].token = lab_release_begin();
    } else {
        lab_release(ptr);
    }
}

void lab_fence(const char *where)
{
    lab__drain_at_point(where);
}

void port_membarrier(void)
{
    lab_syscall_point(LAB_OP_SYSCALL, 0, true);
    LabThread *self = lab__self();
    for (int i = 0; i < lab__engine.n_threads; i++) {
        LabThread *t = &lab__threads[i];
        if (t != self && t->n_stores) {
            land(t, t->n_stores);
        }
    }
}

void lab_syscall_point(LabOpKind kind, uintptr_t object, bool is_write)
{
    if (lab_running) {
        lab__drain_at_point(NULL);
        lab_point(kind, object, is_write);
    }
}
