/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of a coroutine, shared by the aio/coroutine*.c files. */
#ifndef COROUTINE_INTERNAL_H
#define COROUTINE_INTERNAL_H

#include "aio/aio-internal.h"
#include "miniblk/coroutine-int.h"
#include "aio/sanitizer.h"

/* The sanitizers follow stacks and must be told of each switch. */
#ifdef USE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef USE_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/*
 * For what is looked up at every switch: a fixed offset from the thread pointer, known when
 * the program is loaded, and no call of the dynamic linker.
 */
#define COROUTINE_THREAD_LOCAL PORT_THREAD_LOCAL __attribute__((tls_model("initial-exec")))

/*
 * SCHEDULED is NULL when CO may be entered, or else says why not: it is the name of the call
 * that has arranged for CO to run, or this one from when CO has finished to when it is reused.
 */
extern const char coroutine__finished[];

/* aio/coroutine-stack.c: a new or pooled coroutine with a stack, ready to be entered. */
Coroutine *coroutine__alloc(void);
/* CO may be handed out again as soon as another coroutine runs in this thread. */
void coroutine__free(Coroutine *co);

/* aio/coroutine-asm-*.S or aio/coroutine-ucontext.c */
/* Make CO's stack such that the first switch to it calls coroutine__main(). */
void coroutine__stack_prepare(Coroutine *co);
/* Save the present stack in *SAVE_SP and continue on TO_SP. */
void coroutine__switch(void **save_sp, void *to_sp);

/* aio/coroutine.c: the bottom frame of every coroutine; never returns. */
void coroutine__main(void) QEMU_NORETURN;
/*
 * Abort on behalf of CALL, which cannot have CO run: it is SCHEDULED already (by that call; or
 * coroutine__finished), or with SCHEDULED NULL it is running.
 */
void coroutine__not_suspended(const char *call, const Coroutine *co, const char *scheduled)
    QEMU_NORETURN;
/* Run CO in CTX, this thread's, when the calling coroutine next yields or ends. */
void coroutine__defer(AioContext *ctx, Coroutine *co);
/* The calling coroutine; abort on behalf of CALL when there is none. */
Coroutine *coroutine__self_for(const char *call);
/* aio/coroutine-loop.c: the calling thread's loop; abort on behalf of CALL without one. */
AioContext *coroutine__context_for(const char *call);
/* "miniblk: CALL: ..." and abort. */
void coroutine__misuse(const char *call, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3) QEMU_NORETURN;

#endif
