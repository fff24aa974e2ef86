/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What AddressSanitizer and UBSan report in a schedule is the failure of that schedule: told
 * in a few words, without an address, as other failures are. The sanitizer's own report, with
 * its stacks, goes to stderr as ever unless the limits say quiet.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/fault.h"
#include "lab/world.h"
#include "aio/sanitizer.h"

#ifdef USE_ASAN
#include <dlfcn.h>
#include <execinfo.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

/* Of headers that gcc does not install. */
void __sanitizer_free_hook(const volatile void *p);
int __sanitizer_get_ownership(const volatile void *p);
size_t __sanitizer_get_allocated_size(const volatile void *p);
void __ubsan_on_report(void);
void __ubsan_get_current_report_data(const char **kind, const char **message,
                                     const char **filename, unsigned *line, unsigned *column,
                                     char **address);

extern char __executable_start[], etext[];      /* the linker's */

enum { FRAMES_MAX = 32 };

static char words[1024];

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

/* The sanitizer's, before it frees P. */
void __sanitizer_free_hook(const volatile void *p)
{
    if (lab_running && lab__engine.buffered && __sanitizer_get_ownership(p)) {
        lab__stores_forget((void *)p, __sanitizer_get_allocated_size(p));
    }
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

bool lab_sanitizer_calls(const void *caller)
{
    Dl_info sanitizer, info;

    return dladdr((void *)__asan_get_report_address, &sanitizer) && dladdr(caller, &info) &&
           info.dli_fbase == sanitizer.dli_fbase;
}

#else

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
