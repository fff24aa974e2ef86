/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The library functions that the lab's definitions hide. */
#ifndef LAB_REAL_H
#define LAB_REAL_H

#include <dlfcn.h>
#include <sys/types.h>
#include "lab/lab.h"

/* REAL(write)(2, text, size): libc's. */
#define REAL(name) __extension__({                                              \
        static __typeof__(name) *real_fn_ LAB_KEEP;                             \
        if (__builtin_expect(!real_fn_, 0)) {                                   \
            real_fn_ = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);             \
        }                                                                       \
        real_fn_; })

/*
 * NAME64, what a program compiled with _FILE_OFFSET_BITS=64 calls, is the same function. A file
 * that defines such must not be compiled with it, as it renames them.
 */
#define ALIAS64(name) \
    extern __typeof__(name) name##64 __attribute__((alias(#name), copy(name)))
_Static_assert(sizeof(off_t) == 8, "the lab is for 64-bit machines");

/*
 * Whether a call belongs to the lab's world: in a case, and in main() before g_test_run().
 * Between cases it is the engine that calls, and means the real thing.
 */
extern bool lab_frozen;
static inline bool lab_inside(void)
{
    return lab_running || !lab_frozen;
}

/* The case does what cannot be undone: it is skipped. Returns when no case runs. */
void lab_unsupported(const char *what);

#endif
