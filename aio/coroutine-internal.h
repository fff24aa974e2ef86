/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of a coroutine, shared by the aio/coroutine*.c files. */
#ifndef COROUTINE_INTERNAL_H
#define COROUTINE_INTERNAL_H

#include "aio/aio-internal.h"

/* The sanitizers follow stacks and must be told of each switch; gcc and clang say it apart. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define USE_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define USE_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define USE_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define USE_TSAN 1
#endif
#ifdef USE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef USE_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/*
 * A coroutine lives at the top of its own stack, so that one page serves both:
 *
 *      low                                                     high
 *      | guard page | unused ....... frames  <- sp | Coroutine |
 */
struct Coroutine {
    void *sp;                   /* saved stack pointer while switched away */
    CoroutineEntry *entry;
    void *opaque;
    Coroutine *caller;          /* who entered us; NULL while not entered */
    AioContext *ctx;            /* atomic; where we last ran */
    const char *scheduled;      /* atomic; the call that scheduled us, until we run */
    AioMessage msg;             /* carries us to another context */
    QSIMPLEQ_ENTRY(Coroutine) pending_next;
    unsigned locks_held;        /* CoMutexes; must be none at the end */
    Coroutine *pool_next;
    void *stack;                /* lowest usable byte; NULL for a thread's own stack */
    size_t stack_size;
    void *fiber;                /* ThreadSanitizer's handle */
    void *asan_stack;           /* AddressSanitizer's shadow of a suspended stack */
};

typedef QSIMPLEQ_HEAD(CoroutinePending, Coroutine) CoroutinePending;

/* aio/coroutine-stack.c: a new or pooled coroutine with a stack, ready to be entered. */
Coroutine *coroutine__alloc(void);
void coroutine__free(Coroutine *co);

/* aio/coroutine-asm.c or aio/coroutine-ucontext.c */
/* Make CO's stack such that the first switch to it calls coroutine__main(). */
void coroutine__stack_prepare(Coroutine *co);
/* Save the present stack in *SAVE_SP and continue on TO_SP. */
void coroutine__switch(void **save_sp, void *to_sp);

/* aio/coroutine.c: the bottom frame of every coroutine; never returns. */
void coroutine__main(void) QEMU_NORETURN;
/* Run CO when the calling coroutine next yields or ends. In a coroutine only. */
void coroutine__defer(Coroutine *co);

#endif
