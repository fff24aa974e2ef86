/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a sanitizer reports in a schedule is the failure of that schedule: told in a few words,
 * without an address, as other failures are. The sanitizer's own report, with its stacks, goes
 * to stderr as ever unless the limits say quiet.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/fault.h"
#include "lab/world.h"
#include "aio/sanitizer.h"

#if defined(USE_ASAN) || defined(USE_TSAN)
#include <dlfcn.h>
#include <execinfo.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

/* Of headers that gcc does not install. */
void __sanitizer_free_hook(const volatile void *p);
int __sanitizer_get_ownership(const volatile void *p);
size_t __sanitizer_get_allocated_size(const volatile void *p);

extern char __executable_start[], etext[];      /* the linker's */

enum { FRAMES_MAX = 32 };

/* The function of the program that is nearest to the top of STACK, and not the lab's. */
static bool culprit(void **stack, int depth, char *name, size_t size)
{
    for (int i = 0; i < depth; i++) {
        char *pc = stack[i];
        if (pc > __executable_start && pc <= etext &&
            lab_symbol_name((uintptr_t)pc - 1, name, size) &&   /* in the call, not after it */
            !g_str_has_prefix(name, "lab_") && !g_str_has_prefix(name, "__asan_")) {
            return true;
        }
    }
    return false;
}

/* The sanitizer's, before it frees P. */
void __sanitizer_free_hook(const volatile void *p)
{
    if (lab_running && lab__engine.buffered && __sanitizer_get_ownership(p)) {
        lab__stores_forget((void *)p, __sanitizer_get_allocated_size(p));
    }
}

bool lab_sanitizer_calls(const void *caller)
{
    Dl_info sanitizer, info;

    return dladdr((void *)__sanitizer_set_report_fd, &sanitizer) && dladdr(caller, &info) &&
           info.dli_fbase == sanitizer.dli_fbase;
}
#endif

#ifdef USE_ASAN
/* Of headers that gcc does not install. */
void __ubsan_on_report(void);
void __ubsan_get_current_report_data(const char **kind, const char **message,
                                     const char **filename, unsigned *line, unsigned *column,
                                     char **address);

static char words[1024];

static void lab_describe_report(void)
{
    g_autoptr(GString) text = g_string_new("AddressSanitizer: ");
    void *address = __asan_get_report_address(), *stack[FRAMES_MAX];
    size_t bytes = __asan_get_report_access_size();
    char name[120];
    int thread;

    g_string_append_printf(text, "%s in %s", __asan_get_report_description(),
                           lab_thread_name(lab_self()));
    if (culprit(stack, backtrace(stack, FRAMES_MAX), name, sizeof(name))) {
        g_string_append_printf(text, " by %s", name);
    }
    if (bytes) {
        g_string_append_printf(text, ", %s of %zu bytes",
                               __asan_get_report_access_type() ? "write" : "read", bytes);
    }
    if (culprit(stack, __asan_get_alloc_stack(address, stack, FRAMES_MAX, &thread), name,
                sizeof(name))) {
        g_string_append_printf(text, ", allocated by %s", name);
    }
    if (culprit(stack, __asan_get_free_stack(address, stack, FRAMES_MAX, &thread), name,
                sizeof(name))) {
        g_string_append_printf(text, ", freed by %s", name);
    }
    g_strlcpy(words, text->str, sizeof(words));
}

/* The sanitizer has printed its report, and would end the process now. */
static void report_done(const char *report)
{
    if (words[0]) {
        lab_running = true;
        lab_fail(LAB_MEMORY, "%s", words);
    }
}

/* The sanitizer's, before it prints: it opens files for that, which must be real ones. */
void __asan_on_error(void)
{
    if (!lab_running) {
        return;
    }
    lab_running = false;
    lab_describe_report();
    if (lab__limits.quiet) {
        report_done(NULL);
    }
}

/* The same of UBSan, which prints one line that says what we say. */
void __ubsan_on_report(void)
{
    const char *kind, *message, *filename;
    unsigned line, column;
    char *address;

    if (lab_running) {
        __ubsan_get_current_report_data(&kind, &message, &filename, &line, &column, &address);
        lab_fail(LAB_ASSERT, "undefined behaviour at %s:%u: %s", filename, line, message);
    }
}

void lab_sanitizer_prepare(void)
{
}

void lab_sanitizer_begin(void)
{
    if (lab__limits.quiet) {
        /* for its first line, which comes before it asks us */
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        __sanitizer_set_report_fd((void *)(intptr_t)nowhere);
    }
    __asan_set_error_report_callback(report_done);
    lab_fault_install();        /* in place of its own, which tells less */
}

void lab_sanitizer_stack(const void *low, size_t size)
{
    __sanitizer_start_switch_fiber(NULL, low, size);
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
}

#elif defined(USE_TSAN)
/* Of headers that gcc does not install. */
void __tsan_on_report(void *report);
void __sanitizer_symbolize_pc(void *pc, const char *format, char *text, size_t size);
int __tsan_get_report_data(void *report, const char **kind, int *count, int *stacks,
                           int *accesses, int *places, int *mutexes, int *threads,
                           int *threads_of_accesses, void **sleep, unsigned long sleep_size);
int __tsan_get_report_mop(void *report, unsigned long i, int *thread, void **address, int *size,
                          int *is_write, int *is_atomic, void **stack, unsigned long stack_size);

static void describe_access(GString *text, void *report, unsigned i)
{
    int thread, size, is_write, is_atomic;
    void *address, *stack[FRAMES_MAX] = { NULL };
    char name[120];

    __tsan_get_report_mop(report, i, &thread, &address, &size, &is_write, &is_atomic, stack,
                          FRAMES_MAX);
    if (i == 0) {
        g_string_append_printf(text, " at %s in %s:", lab_object_name((uintptr_t)address, name,
                               sizeof(name)), lab_thread_name(lab_self()));
    }
    g_string_append_printf(text, "%s %s%s of %d bytes", i ? " against" : "",
                           is_atomic ? "atomic " : "", is_write ? "write" : "read", size);
    if (culprit(stack, FRAMES_MAX, name, sizeof(name))) {
        g_string_append_printf(text, " by %s", name);
    }
}

/* The sanitizer has printed its report. */
void __tsan_on_report(void *report)
{
    g_autoptr(GString) text = g_string_new("ThreadSanitizer: ");
    const char *kind;
    int count, stacks, accesses, places, mutexes, threads, threads_of_accesses;

    if (lab_running) {
        __tsan_get_report_data(report, &kind, &count, &stacks, &accesses, &places, &mutexes,
                               &threads, &threads_of_accesses, NULL, 0);
        g_string_append(text, kind);
        for (int i = 0; i < accesses; i++) {
            describe_access(text, report, i);
        }
        lab_fail(LAB_MEMORY, "%s", text->str);
    }
}

void lab_sanitizer_prepare(void)
{
    char text[64];

    __sanitizer_symbolize_pc((void *)lab_sanitizer_prepare, "%L", text, sizeof(text));
}

void lab_sanitizer_begin(void)
{
    if (lab__limits.quiet) {
        int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        __sanitizer_set_report_fd((void *)(intptr_t)nowhere);
    }
    lab_fault_install();
}

void lab_sanitizer_stack(const void *low, size_t size)
{
}

#else

void lab_sanitizer_prepare(void)
{
}

void lab_sanitizer_begin(void)
{
}

void lab_sanitizer_stack(const void *low, size_t size)
{
}

bool lab_sanitizer_calls(const void *caller)
{
    return false;
}
#endif
