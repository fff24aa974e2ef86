/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signals of wrong accesses. A first write to a page of the image is let go on. Anything else
 * ends the schedule: not from the handler, which must return to be over, but from a stack of
 * its own that the handler returns to, as the thread's may be used up.
 */
#include "miniblk/osdep.h"
#include <signal.h>
#include <ucontext.h>
#include "lab/engine.h"
#include "lab/world.h"
#include "lab/fault.h"

enum { STACK_SIZE = 64 * 1024, NEAR_NULL = 64 * 1024 };

static LAB_KEEP char handler_stack[STACK_SIZE] __attribute__((aligned(16)));
static LAB_KEEP char failure_stack[STACK_SIZE] __attribute__((aligned(16)));
static LAB_KEEP int failed_signal, failed_code;
static LAB_KEEP uintptr_t failed_address, failed_pc;

static const char *signal_words(int number)
{
    return number == SIGSEGV ? "Segmentation fault" : number == SIGBUS ? "Bus error"
         : number == SIGFPE ? "Division by zero or overflow"
         : number == SIGILL ? "Illegal instruction" : "Trap";
}

/* What can be said of an address without saying the address. */
static void describe(uintptr_t address, char *text, size_t size)
{
    LabBlockInfo info;
    uintptr_t low, high;

    lab__fiber_area(&low, &high);
    if (failed_code == SI_KERNEL) {
        snprintf(text, size, "through a pointer that was read from freed or uninitialised "
                 "memory, or is none");
    } else if (address < NEAR_NULL) {
        snprintf(text, size, "at NULL + %zu", (size_t)address);
    } else if (lab_arena_find(address, &info)) {
        snprintf(text, size, "in %s memory, byte %zu of %zu",
                 info.freed ? "freed" : "allocated", (size_t)(address - info.start),
                 info.size);
    } else if (address >= low && address < high) {
        snprintf(text, size, "at the end of a stack: it has overflowed");
    } else {
        snprintf(text, size, "at an address where nothing is");
    }
}

static void __attribute__((noreturn)) end_schedule(void)
{
    char where[160], code[96];

    lab_sanitizer_stack(failure_stack, STACK_SIZE);
    if (failed_signal == SIGABRT || failed_signal == SIGTRAP) {
        lab_fail(LAB_ASSERT, "%s", *lab_last_words() ? lab_last_words() : "abort()");
    }
    describe(failed_address, where, sizeof(where));
    lab_fail(LAB_SIGNAL, "%s%s%s, in %s", signal_words(failed_signal),
             failed_signal == SIGSEGV || failed_signal == SIGBUS ? " " : "",
             failed_signal == SIGSEGV || failed_signal == SIGBUS ? where : "",
             lab_symbol_name(failed_pc, code, sizeof(code)) ? code : "no function");
}

static void continue_at(ucontext_t *uc, void (*fn)(void))
{
    uintptr_t sp = ROUND_DOWN((uintptr_t)(failure_stack + STACK_SIZE - 256), (uintptr_t)16);

#if defined(__x86_64__)
    failed_pc = uc->uc_mcontext.gregs[REG_RIP];
    uc->uc_mcontext.gregs[REG_RSP] = sp - 8;        /* as if called */
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)fn;
#elif defined(__aarch64__)
    failed_pc = uc->uc_mcontext.pc;
    uc->uc_mcontext.sp = sp;
    uc->uc_mcontext.pc = (uintptr_t)fn;
#else
#error "the lab does not know the registers of this machine"
#endif
}

static void handler(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;

    if (number == SIGSEGV && lab_image_fault((uintptr_t)info->si_addr)) {
        errno = saved_errno;
        return;
    }
    if (!lab_running) {
        /* the engine itself, or the program outside of any case */
        signal(number, SIG_DFL);
        errno = saved_errno;
        return;         /* and again */
    }
    failed_signal = number;
    failed_code = info->si_code;
    failed_address = (uintptr_t)info->si_addr;
    continue_at(context, end_schedule);
}

void lab_fault_install(void)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
    stack_t stack = { .ss_sp = handler_stack, .ss_size = STACK_SIZE };
    struct sigaction sa = { .sa_sigaction = handler,
                            .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

    sigaltstack(&stack, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++) {
        sigaction(signals[i], &sa, NULL);
    }
}
