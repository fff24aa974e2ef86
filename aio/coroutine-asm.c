/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stack switching for x86-64 (System V ABI) and AArch64 (AAPCS64).
 *
 * The switch saves what a called function must preserve and nothing else: the compiler has
 * saved the rest, because it is an ordinary call. The SSE and x87 control words are taken to
 * be the same in all coroutines of a process and are not saved. The switch leaves through an
 * indirect jump, not a return: the return address belongs to another call chain, and the
 * processor's return predictor would be wrong every time, and for the callers after it too.
 */
#include "aio/coroutine-internal.h"

#if defined(__x86_64__)

/* void coroutine__switch(void **save_sp (rdi), void *to_sp (rsi)) */
__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl coroutine__switch\n"
    ".type coroutine__switch, @function\n"
    "coroutine__switch:\n"
    "    .cfi_startproc\n"
    "    endbr64\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    popq %rcx\n"
    "    jmpq *%rcx\n"
    "    .cfi_endproc\n"
    ".size coroutine__switch, . - coroutine__switch\n"

    /* The first frame. It has no caller, and says so to unwinders. */
    ".p2align 4\n"
    ".type coroutine_start, @function\n"
    "coroutine_start:\n"
    "    .cfi_startproc\n"
    "    .cfi_undefined rip\n"
    "    endbr64\n"
    "    xorl %ebp, %ebp\n"
    "    call coroutine__main@PLT\n"
    "    hlt\n"
    "    .cfi_endproc\n"
    ".size coroutine_start, . - coroutine_start\n"
);

enum { SAVED_WORDS = 7 };       /* six registers and the address to go to */
#define RETURN_WORD 6

#elif defined(__aarch64__)

/* void coroutine__switch(void **save_sp (x0), void *to_sp (x1)) */
__asm__(
    ".text\n"
    ".p2align 4\n"
    ".globl coroutine__switch\n"
    ".type coroutine__switch, %function\n"
    "coroutine__switch:\n"
    "    .cfi_startproc\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n"
    "    stp x21, x22, [sp, #16]\n"
    "    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n"
    "    stp x27, x28, [sp, #64]\n"
    "    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n"
    "    stp d10, d11, [sp, #112]\n"
    "    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n"
    "    str x9, [x0]\n"
    "    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n"
    "    ldp x21, x22, [sp, #16]\n"
    "    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n"
    "    ldp x27, x28, [sp, #64]\n"
    "    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n"
    "    ldp d10, d11, [sp, #112]\n"
    "    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    mov x16, x30\n"
    "    br x16\n"
    "    .cfi_endproc\n"
    ".size coroutine__switch, . - coroutine__switch\n"

    ".p2align 4\n"
    ".type coroutine_start, %function\n"
    "coroutine_start:\n"
    "    .cfi_startproc\n"
    "    .cfi_undefined x30\n"
    "    mov x29, xzr\n"
    "    bl coroutine__main\n"
    "    brk #0\n"
    "    .cfi_endproc\n"
    ".size coroutine_start, . - coroutine_start\n"
);

enum { SAVED_WORDS = 20 };
#define RETURN_WORD 11          /* x30 */

#else
#error "no stack switch for this machine: configure with -Dcoroutine=ucontext"
#endif

void coroutine_start(void);

void coroutine__stack_prepare(Coroutine *co)
{
    /* When the saved words have been popped the stack pointer is TOP, aligned for a call. */
    void **top = (void **)ROUND_DOWN((uintptr_t)co, (uintptr_t)16);
    void **sp = top - SAVED_WORDS;

    memset(sp, 0, SAVED_WORDS * sizeof(void *));
    sp[RETURN_WORD] = (void *)coroutine_start;
    co->sp = sp;
}
