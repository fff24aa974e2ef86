/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stacks of coroutines: guard page, reuse, memory given back, what unwinders see. */
#include <execinfo.h>
#include <signal.h>
#include <sys/mman.h>
#include "miniblk/osdep.h"
#include "miniblk/coroutine.h"
#include "aio/coroutine-internal.h"     /* where a stack is; USE_ASAN, USE_TSAN */

/* ---- overflow ------------------------------------------------------------------------ */

static uintptr_t guard_page;            /* of the coroutine that overflows */

static void on_segv(int sig, siginfo_t *info, void *uc)
{
    static const char hit[] = "fault in guard page\n", missed[] = "fault elsewhere\n";
    uintptr_t at = (uintptr_t)info->si_addr;
    ssize_t n = at >= guard_page && at - guard_page < (uintptr_t)sysconf(_SC_PAGESIZE)
                ? write(2, hit, sizeof(hit) - 1) : write(2, missed, sizeof(missed) - 1);
    (void)n;
    signal(SIGSEGV, SIG_DFL);
}

static int overflow(int n)
{
    volatile char frame[1024];
    frame[0] = n;
    return n < 0 ? 0 : overflow(n + 1) + frame[0];
}

static void coroutine_fn overflow_entry(void *opaque)
{
    overflow(0);
}

static void test_stack_overflow_hits_the_guard_page(void)
{
    if (g_test_subprocess()) {
        static char handler_stack[1 << 16];
        stack_t ss = { .ss_sp = handler_stack, .ss_size = sizeof(handler_stack) };
        struct sigaction sa = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK };
        g_assert_cmpint(sigaltstack(&ss, NULL), ==, 0);
        g_assert_cmpint(sigaction(SIGSEGV, &sa, NULL), ==, 0);
        Coroutine *co = qemu_coroutine_create(overflow_entry, NULL);
        guard_page = (uintptr_t)co->stack - sysconf(_SC_PAGESIZE);
        qemu_coroutine_enter(co);
        exit(0);
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*fault in guard page*");
}

static void coroutine_fn overrun_entry(void *opaque)
{
    char buffer[16];
    volatile int n = sizeof(buffer);
    memset(buffer, 0, n + 1);
    __asm__ volatile("" : : "r"(buffer) : "memory");
}

/* AddressSanitizer knows the frames on a coroutine's stack, also of a reused one. */
static void test_asan_sees_frames(void)
{
#ifdef USE_ASAN
    if (g_test_subprocess()) {
        Coroutine *co = qemu_coroutine_create(overrun_entry, NULL);
        qemu_coroutine_enter(co);
        exit(0);
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*stack-buffer-overflow*overrun_entry*'buffer'*");
#else
    (void)overrun_entry;
    g_test_skip("not built with AddressSanitizer");
#endif
}

/* ---- unwinding ----------------------------------------------------------------------- */

void coroutine__start(void) __attribute__((weak));      /* not with ucontext */

static void coroutine_fn unwind_entry(void *opaque)
{
    void *pc[64];
    int n = backtrace(pc, ARRAY_SIZE(pc));
    /* us, coroutine__main() (never inlined), coroutine__start; no one beyond */
    g_assert_cmpint(n, >=, 3);
    g_assert_cmpint(n, <=, 6);
    if (coroutine__start) {
        g_assert_cmpuint((uintptr_t)pc[n - 1] - (uintptr_t)coroutine__start, <=, 16);
    }
}

static void test_unwinding_ends_at_the_start(void)
{
    for (int i = 0; i < 2; i++) {
        qemu_coroutine_enter(qemu_coroutine_create(unwind_entry, NULL));
    }
}

/* ---- memory -------------------------------------------------------------------------- */

enum { MANY = 2000, DEPTH = 64 << 10 };
static char *touched[MANY];             /* a page deep in the stack of each */

static void coroutine_fn touch_entry(void *opaque)
{
    volatile char deep[DEPTH];
    deep[0] = deep[DEPTH / 2] = 1;
    touched[GPOINTER_TO_INT(opaque)] = (char *)&deep[DEPTH / 2];
    qemu_coroutine_yield();
}

/* Run MANY at once; how many have kept their memory afterwards. */
static int count_resident_after_burst(void)
{
    static Coroutine *co[MANY];
    size_t page = sysconf(_SC_PAGESIZE);
    int resident = 0;

    for (int i = 0; i < MANY; i++) {
        co[i] = qemu_coroutine_create(touch_entry, GINT_TO_POINTER(i));
        qemu_coroutine_enter(co[i]);
    }
    for (int i = 0; i < MANY; i++) {
        qemu_coroutine_enter(co[i]);
    }
    for (int i = 0; i < MANY; i++) {
        unsigned char in_core;
        void *at = (void *)((uintptr_t)touched[i] / page * page);
        g_assert_cmpint(mincore(at, page, &in_core), ==, 0);
        resident += in_core & 1;
        /* finished, but the object can be looked at */
        g_assert_false(qemu_coroutine_entered(co[i]));
        g_assert_null(qemu_coroutine_get_aio_context(co[i]));
    }
    return resident;
}

static void test_memory_of_a_burst_is_given_back(void)
{
    int kept = count_resident_after_burst();
    g_assert_cmpint(kept, >=, 1024);
    g_assert_cmpint(kept, <=, 1024 + 128);      /* the global pool and this thread's */
    qemu_coroutine_inc_pool_size(MANY);
    g_assert_cmpint(count_resident_after_burst(), ==, MANY);
    qemu_coroutine_dec_pool_size(MANY);
    g_assert_cmpint(count_resident_after_burst(), <=, 1024 + 128);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/costack/overflow", test_stack_overflow_hits_the_guard_page);
    g_test_add_func("/costack/asan", test_asan_sees_frames);
    g_test_add_func("/costack/unwind", test_unwinding_ends_at_the_start);
    g_test_add_func("/costack/memory", test_memory_of_a_burst_is_given_back);
    return g_test_run();
}
