/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stack switching on x86-64 (System V ABI).
 *
 * The switch saves what a called function must preserve and nothing else: the compiler has
 * saved the rest, because it is an ordinary call. The SSE and x87 control words are taken to
 * be the same in all coroutines of a process and are not saved. The switch leaves through an
 * indirect jump, not a return: the return address belongs to another call chain, so the
 * processor's return predictor would be wrong every time.
 *
 * The unwind rules are given relative to the stack pointer. They hold on both sides of the
 * "movq %rsi, %rsp", since a suspended stack has at its top what we push.
 *
 * There is deliberately no .note.gnu.property: the switch moves neither the shadow stack nor
 * jumps to endbr64, so a program linked with this file must run without CET, and the linker
 * concludes just that from the missing note.
 */
        .text

/* void coroutine__switch(void **save_sp (rdi), void *to_sp (rsi)) */
        .p2align 4
        .globl coroutine__switch
        .hidden coroutine__switch
        .type coroutine__switch, @function
coroutine__switch:
        .cfi_startproc
        .irp reg, rbp, rbx, r12, r13, r14, r15
        pushq %\reg
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset \reg, 0
        .endr
        movq %rsp, (%rdi)
        movq %rsi, %rsp
        .irp reg, r15, r14, r13, r12, rbx, rbp
        popq %\reg
        .cfi_adjust_cfa_offset -8
        .cfi_restore \reg
        .endr
        popq %rcx
        .cfi_adjust_cfa_offset -8
        .cfi_register rip, rcx
        jmpq *%rcx
        .cfi_endproc
        .size coroutine__switch, . - coroutine__switch

/*
 * The first frame, which the first switch to a coroutine jumps to. It has no caller, and says
 * so to unwinders. They look for the rules one byte before the address they find on a
 * suspended stack that has not run yet, hence the nop.
 */
        .p2align 4
        .cfi_startproc
        .cfi_undefined rip
        nop
        .globl coroutine__start
        .hidden coroutine__start
        .type coroutine__start, @function
coroutine__start:
        xorl %ebp, %ebp
        call coroutine__main@PLT
        hlt
        .cfi_endproc
        .size coroutine__start, . - coroutine__start

        .section .note.GNU-stack, "", @progbits
