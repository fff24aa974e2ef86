/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stack that the assembler's switch (coroutine-asm-*.S) first switches to. */
#include "aio/coroutine-internal.h"

#if defined(__x86_64__)
enum { SAVED_WORDS = 7, RETURN_WORD = 6 };      /* six registers, the address to go to */
#elif defined(__aarch64__)
enum { SAVED_WORDS = 20, RETURN_WORD = 11 };    /* x19 to x30, d8 to d15 */
#else
#error "no stack switch for this machine: configure with -Dcoroutine=ucontext"
#endif

/* In coroutine-asm-*.S: calls coroutine__main(). Not to be called. */
void coroutine__start(void);

void coroutine__stack_prepare(Coroutine *co)
{
    /* When the saved words have been popped the stack pointer is TOP, aligned for a call. */
    void **top = (void **)ROUND_DOWN((uintptr_t)co, (uintptr_t)16);
    void **sp = top - SAVED_WORDS;

    memset(sp, 0, SAVED_WORDS * sizeof(void *));
    sp[RETURN_WORD] = (void *)coroutine__start;
    co->sp = sp;
}
