/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What ThreadSanitizer is told, and nothing in other builds: tsan.c. To it the lab is what libc
 * and the system are to other programs. It sees nothing of what the lab does, but what orders
 * one thread after another.
 */
#ifndef LAB_TSAN_H
#define LAB_TSAN_H

#include <stddef.h>
#include <stdint.h>
#include "aio/sanitizer.h"

#ifdef USE_TSAN

/* What the running thread has done so far comes before what others do after
 * lab_acquire(OBJECT). OBJECT: an address, of which the 8 bytes around are meant. */
void lab_release(const volatile void *object);
void lab_acquire(const volatile void *object);

/* The same of a release store of the running thread that waits in its buffer: it orders when it
 * lands, what came before it only. */
const void *lab_release_begin(void);
void lab_release_end(int thread, const void *token, uintptr_t object);

/* For fiber.c: THREAD is new; how deep the running one is in functions of the lab. */
void lab__carrier_init(int thread);
extern unsigned lab__depth;

/* Between these the lab calls the program, or goes on in it. */
unsigned lab_program_begin(void);
void lab_program_end(unsigned depth);
/* A function of the lab that counts as the program's. */
#define LAB_IN_PROGRAM __attribute__((no_instrument_function))

/* Each thread has bytes of its own there, though at the same address. */
void lab_tsan_own_bytes(void *start, size_t size);

#else

#define LAB_IN_PROGRAM
static inline void lab_release(const volatile void *object) {}
static inline void lab_acquire(const volatile void *object) {}
static inline const void *lab_release_begin(void) { return NULL; }
static inline void lab_release_end(int thread, const void *token, uintptr_t object) {}
static inline unsigned lab_program_begin(void) { return 0; }
static inline void lab_program_end(unsigned depth) {}
static inline void lab_tsan_own_bytes(void *start, size_t size) {}

#endif

#define LAB_PROGRAM(call) do {                                                  \
        unsigned depth_ = lab_program_begin();                                  \
        call;                                                                   \
        lab_program_end(depth_); } while (0)

#endif
