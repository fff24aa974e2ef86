/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stack switching on AArch64 (AAPCS64). What coroutine-asm-x86_64.S says holds here too: only
 * what a called function must preserve is saved (of the vector registers the low halves of
 * v8 to v15), FPCR is taken to be common to all coroutines, the unwind rules fit both stacks,
 * and without a .note.gnu.property the program runs without BTI, which "br" needs.
 *
 * coroutine__start must be a global symbol: taking the address of a local one through the
 * global offset table makes GNU ld 2.40 forget its offset in the section.
 */
        .text

        .macro for_saved insn
        \insn x19, x20, [sp, #0]
        \insn x21, x22, [sp, #16]
        \insn x23, x24, [sp, #32]
        \insn x25, x26, [sp, #48]
        \insn x27, x28, [sp, #64]
        \insn x29, x30, [sp, #80]
        \insn d8, d9, [sp, #96]
        \insn d10, d11, [sp, #112]
        \insn d12, d13, [sp, #128]
        \insn d14, d15, [sp, #144]
        .endm

/* void coroutine__switch(void **save_sp (x0), void *to_sp (x1)) */
        .p2align 4
        .globl coroutine__switch
        .hidden coroutine__switch
        .type coroutine__switch, %function
coroutine__switch:
        .cfi_startproc
        sub sp, sp, #160
        .cfi_def_cfa_offset 160
        for_saved stp
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
        .cfi_rel_offset 19 + \n, 8 * \n
        .endr
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7
        .cfi_rel_offset 72 + \n, 96 + 8 * \n    /* 72: d8 in the debugger's numbering */
        .endr
        mov x9, sp
        str x9, [x0]
        mov sp, x1
        for_saved ldp
        add sp, sp, #160
        .cfi_def_cfa_offset 0
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
        .cfi_restore 19 + \n
        .endr
        .irp n, 0, 1, 2, 3, 4, 5, 6, 7
        .cfi_restore 72 + \n
        .endr
        mov x16, x30
        br x16
        .cfi_endproc
        .size coroutine__switch, . - coroutine__switch

/* The first frame; the nop is for unwinders, which look one instruction before. */
        .p2align 4
        .cfi_startproc
        .cfi_undefined x30
        nop
        .globl coroutine__start
        .hidden coroutine__start
        .type coroutine__start, %function
coroutine__start:
        mov x29, xzr
        bl coroutine__main
        brk #0
        .cfi_endproc
        .size coroutine__start, . - coroutine__start

        .section .note.GNU-stack, "", %progbits
