/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The inside of a coroutine, for aio/coroutine*.c and for programs that take a coroutine's
 * memory apart. The fields are private and change without notice.
 */
#ifndef MINIBLK_COROUTINE_INT_H
#define MINIBLK_COROUTINE_INT_H

#include "aio.h"
#include "coroutine.h"

/*
 * A coroutine lives at the top of its own stack, so that one page serves both:
 *
 *      low                                                     high
 *      | guard page | unused ....... frames  <- sp | Coroutine |
 *
 * A thread's own stack has one too, its leader, which is the root of the callers. The first
 * eight words are what a switch needs. scripts/gdb/miniblk.py knows the names of the fields.
 */
struct Coroutine {
    void *sp;                   /* saved stack pointer while switched away */
    Coroutine *caller;          /* who entered us; NULL while not entered */
    const char *scheduled;      /* atomic; NULL, or why we must not be entered */
    AioContext *ctx;            /* atomic; where we last ran; NULL before that */
    Coroutine *pending;         /* FIFO; run before control comes back to us, the caller */
    Coroutine **pending_at;     /* where the next one woken by whom we entered is put */
    CoroutineEntry *entry;
    void *opaque;

    Coroutine *next;            /* in PENDING, or in the pool */
    unsigned locks_held;        /* CoMutexes and CoRwlocks; must be none at the end */
    unsigned graph_readers;     /* levels of the graph's read lock; block/graph-lock.c */
    unsigned drained_sections;  /* begun and not ended by us; block/drain.c */
    AioMessage msg;             /* carries us to another context */

    /* aio/coroutine-stack.c */
    void *stack;                /* lowest usable byte; NULL for a thread's own stack */
    size_t stack_size;
    Coroutine *next_mapped;     /* list of all, for debuggers */
    void *fiber;                /* ThreadSanitizer's handle */
    void *asan_stack;           /* AddressSanitizer's shadow of a suspended stack */
};

#endif
