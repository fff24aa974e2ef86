/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The world that a schedule runs in: memory that is put back, the cases of the program, files.
 *
 * Memory of the program is of four kinds:
 *
 *      image       static data of the program and its libraries, the main thread's TLS and its
 *                  stack above g_test_run(), and what was allocated before g_test_run():
 *                  lab_world_reset() puts it back
 *      run         allocated (malloc, mmap) while lab_running: gone at lab_world_reset()
 *      keep        allocated otherwise, after g_test_run(): stays
 *      LAB_KEEP    variables that stay
 *
 * A static variable of the engine that is not LAB_KEEP is part of the image: it has its first
 * value again in each schedule, without a line of code. In the middle of a schedule the engine
 * allocates nothing that must survive it.
 */
#ifndef LAB_WORLD_H
#define LAB_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "lab/lab.h"

/* ---- image.c --------------------------------------------------------------------------- */

/*
 * False in builds with a sanitizer that must own memory: then nothing is put back and each
 * schedule has a process of its own, which makes it slow.
 */
bool lab_world_restores(void);

/* Take the image; by g_test_run(), whose caller's stack begins at FRAME. Once. */
void lab_world_freeze(void *frame);

/*
 * Put the image back and forget the run memory. Before each schedule, on the engine's own
 * stack. (Descriptors, threads and files are static data, and so part of the image.)
 */
void lab_world_reset(void);

/* Pages that are copied back at each restore, for reports. */
size_t lab_image_dirty_pages(void);

/* Make [ADDRESS, ADDRESS + SIZE) writable for the kernel: a system call that stores into a
 * page that has not been written yet would fail with EFAULT. */
void lab_image_touch(void *address, size_t size);

/* ---- isolate.c ------------------------------------------------------------------------- */

/* RUN(OUTCOME), which runs one schedule; in another process if lab_world_restores() is false. */
void lab_isolate(void (*run)(LabOutcome *outcome), LabOutcome *outcome);

/* ---- sanitizer.c ----------------------------------------------------------------------- */

/* Before the first schedule: what the sanitizer reads for its reports must be the real files. */
void lab_sanitizer_prepare(void);
/* What a sanitizer reports in this process, and this schedule, is a failure of the schedule. */
void lab_sanitizer_begin(void);
/* The caller has come to another stack, for good. */
void lab_sanitizer_stack(const void *low, size_t size);
/* CALLER is in the sanitizer, which must not see the lab's world. */
bool lab_sanitizer_calls(const void *caller);

/* ---- arena.c --------------------------------------------------------------------------- */

/* Keep memory; zeroed. Never in the middle of a schedule. What a strategy writes must lie in
 * it, or in LAB_SHARED variables. */
void *lab_keep_alloc(size_t size);
void lab_keep_free(void *p);

/* At the end of a case: overruns and writes after free that have not been noticed yet; calls
 * lab_fail(). In the schedule. */
void lab_arena_check(void);

/* Where and of which size the live or freed allocation is that ADDRESS points into; false:
 * none. For naming objects. */
typedef struct LabBlockInfo {
    uintptr_t start;
    size_t size;
    unsigned serial;            /* the Nth allocation of this schedule, from 1 */
    bool freed;
    const void *caller;         /* that asked for it, or freed it */
} LabBlockInfo;
bool lab_arena_find(uintptr_t address, LabBlockInfo *info);

/* ---- symbol.c -------------------------------------------------------------------------- */

/* "function()", "variable", "variable+8" or the name of a library that ADDRESS lies in; NULL:
 * in none. */
const char *lab_symbol_name(uintptr_t address, char *buffer, size_t size);

/* ---- gtest.c --------------------------------------------------------------------------- */

/*
 * Setup, function and teardown of case NUMBER; in the main thread of a schedule, with
 * lab_running. LAB_OK, LAB_SKIP after g_test_skip(), LAB_ASSERT after g_test_fail(); *MESSAGE
 * says why. What aborts does not come back: lab_fail().
 */
LabVerdict lab_case_run(unsigned number, const char **message);

/* What the program was called with: argv[0] and the rest. */
char **lab_arguments(int *argc);

/* The last text that the program wrote to stderr in this schedule (the words of a failed
 * assertion); empty: none. */
const char *lab_last_words(void);

/* ---- libaio.c ---------------------------------------------------------------------- */

/*
 * Disk requests that could complete now, as agents of kind LAB_AGENT_DISK, at most MAX; called
 * by the scheduler, changes nothing.
 */
unsigned lab_disk_agents(LabAgent *agents, LabOp *ops, unsigned max);
/* One of these completes now: its data moves, its completion is queued and signalled. */
void lab_disk_complete(uint32_t number);
/* A number that changes whenever lab_disk_agents() may give something else. */
extern unsigned lab_disk_generation;

/* ---- what the world needs from the engine ---------------------------------------------- */

/* Write 1 to virtual eventfd FD without being a point (from lab_disk_complete()). */
void lab_eventfd_post(int fd);
/* The limits of the schedule that runs. */
const LabLimits *lab_limits(void);
/* The thread that runs; 0 is the main one. */
unsigned lab_self(void);

#endif
