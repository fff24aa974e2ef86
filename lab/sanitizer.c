/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What AddressSanitizer and UBSan report in a schedule is the failure of that schedule: told
 * in a few words, without an address, as other failures are. The sanitizer's own report, with
 * its stacks, goes to stderr as ever unless the limits say quiet.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/world.h"
#include "aio/sanitizer.h"

#ifdef USE_ASAN
#include <dlfcn.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

/* ubsan_monitor.h, which no package installs. */
void __ubsan_on_report(void);
void __ubsan_get_current_report_data(const char **kind, const char **message,
                                     const char **filename, unsigned *line, unsigned *column,
                                     char **address);

extern char __executable_start[], etext[];      /* the linker's */

enum { FRAMES_MAX = 32 };

static char words[1024];

/* The function of the program that is nearest to the top of STACK. */
static bool culprit(void **stack, size_t depth, char *name, size_t size)
{
    for (size_t i = 0; i < depth; i++) {
        uintptr_t pc = (uintptr_t)stack[i] - 1;     /* in the call, not after it */
        if (pc >= (uintptr_t)__executable_start && pc < (uintptr_t)etext) {
            return lab_symbol_name(pc, name, size) != NULL;
        }
    }
    return false;
}

static size_t append_who(size_t used, const char *what,
                         size_t (*get)(void *, void **, size_t, int *))
{
    void *stack[FRAMES_MAX];
    char name[120];
    int thread;
    size_t depth = get(__asan_get_report_address(), stack, FRAMES_MAX, &thread);

    if (culprit(stack, depth, name, sizeof(name)) && used < sizeof(words)) {
        used += snprintf(words + used, sizeof(words) - used, "%s %s", what, name);
    }
    return used;
}

static void describe_report(void)
{
    size_t bytes = __asan_get_report_access_size(), used;
    char name[120];

    used = snprintf(words, sizeof(words), "AddressSanitizer: %s in %s",
                    __asan_get_report_description(), lab_thread_name(lab_self()));
    if (bytes) {
        used += snprintf(words + used, sizeof(words) - used, ", %s of %zu bytes by %s",
                         __asan_get_report_access_type() ? "write" : "read", bytes,
                         lab_symbol_name((uintptr_t)__asan_get_report_pc(), name,
                                         sizeof(name)) ? name : "somebody");
    }
    used = append_who(used, ", allocated by", __asan_get_alloc_stack);
    append_who(used, ", freed by", __asan_get_free_stack);
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
    describe_report();
    if (lab__limits.quiet) {
        report_done(NULL);
    }
    lab_running = false;
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

void lab_sanitizer_begin(void)
{
    __asan_set_error_report_callback(report_done);
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

bool lab_sanitizer_calls(const void *caller)
{
    return false;
}
#endif
