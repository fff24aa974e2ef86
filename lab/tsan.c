/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ThreadSanitizer: threads and coroutines are its fibers, and a switch (fiber.c) orders nothing. So
 * what it takes for ordered is what lab_release() and lab_acquire() say, and atomic accesses,
 * which are the program's own (miniblk/atomic-lab.h); though all of it ran on one kernel thread,
 * a race is a race.
 *
 * The lab is compiled without its instrumentation (meson.build), but memcpy(), malloc() and others
 * are the sanitizer's, whoever calls them. So it is told to look away from when a function of the
 * lab begins until it ends: the compiler calls the two hooks below for each of them.
 */
#include "miniblk/osdep.h"
#include "lab/tsan.h"

#ifdef USE_TSAN
#include <sanitizer/tsan_interface.h>
#include "lab/engine.h"

/* Of headers that gcc does not install. */
void __tsan_ignore_thread_begin(void);
void __tsan_ignore_thread_end(void);
void AnnotateBenignRaceSized(const char *file, int line, volatile void *address, size_t size,
                             const char *text);
const char *__tsan_default_options(void);

/* Descriptors order nothing but by what the lab says; fibers are no threads to wait for. */
const char *__tsan_default_options(void)
{
    return "io_sync=0:atexit_sleep_ms=0";
}

/* ---- looking away ----------------------------------------------------------------------- */

#define HOOK __attribute__((no_instrument_function))

unsigned lab__depth;            /* functions of the lab that the running fiber is in */
static bool begun;              /* the sanitizer has */

HOOK void __cyg_profile_func_enter(void *function, void *caller);
HOOK void __cyg_profile_func_enter(void *function, void *caller)
{
    if (lab__depth++ == 0 && begun) {
        __tsan_ignore_thread_begin();
    }
}

HOOK void __cyg_profile_func_exit(void *function, void *caller);
HOOK void __cyg_profile_func_exit(void *function, void *caller)
{
    if (--lab__depth == 0 && begun) {
        __tsan_ignore_thread_end();
    }
}

HOOK static void __attribute__((constructor)) begin(void)
{
    begun = true;
}

HOOK unsigned lab_program_begin(void)
{
    unsigned depth = lab__depth;

    lab__depth = 0;
    if (begun) {
        __tsan_ignore_thread_end();
    }
    return depth;
}

HOOK void lab_program_end(unsigned depth)
{
    lab__depth = depth;
    if (begun) {
        __tsan_ignore_thread_begin();
    }
}

/* ---- what orders ------------------------------------------------------------------------ */

void lab_release(const volatile void *object)
{
    __tsan_release((void *)object);
}

void lab_acquire(const volatile void *object)
{
    __tsan_acquire((void *)object);
}

/* A carrier is a thread's store buffer, as somebody who knows what had been done before each store
 * that waits there. */
static struct Carrier {
    void *fiber;
    unsigned stores;
    uint64_t tokens[LAB_STORES_MAX];    /* only their addresses are of use */
} carriers[LAB_THREADS_MAX];

void lab__carrier_init(int thread)
{
    carriers[thread].fiber = __tsan_create_fiber(0);
}

const void *lab_release_begin(void)
{
    struct Carrier *c = &carriers[lab__engine.self];
    const void *token = &c->tokens[c->stores++ % LAB_STORES_MAX];

    lab_release(token);
    return token;
}

static void become(void *fiber)
{
    __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync);
}

void lab_release_end(int thread, const void *token, uintptr_t object)
{
    void *self = __tsan_get_current_fiber();

    if (token) {
        become(carriers[thread].fiber);
        lab_acquire(token);
        lab_release((void *)object);
        become(self);
    }
}

void lab_tsan_own_bytes(void *start, size_t size)
{
    AnnotateBenignRaceSized(__FILE__, __LINE__, start, size, "each thread has its own");
}
#endif
