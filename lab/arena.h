/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory inside the lab: who allocates where. See world.h for the kinds.
 *
 *      base    0x510000000000      before lab_world_freeze(); part of the image
 *      keep    0x520000000000      by the engine, between schedules
 *      run     0x530000000000      in a schedule, small
 *      pages   0x540000000000      in a schedule, large
 */
#ifndef LAB_ARENA_H
#define LAB_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lab/world.h"

enum { LAB_PAGE = 4096 };

/* ---- arena.c --------------------------------------------------------------------------- */

/* ALIGNMENT: a power of two, at least 16. NULL: no memory. */
void *lab_arena_alloc(size_t size, size_t alignment, bool zero, const void *caller);
void lab_arena_free(void *p, const void *caller);
size_t lab_arena_size(void *p, const void *caller);

/* The image is taken: what is allocated from now on is run or keep memory. */
void lab_arena_freeze(void);
/* Forget the run memory. */
void lab_arena_reset(void);
/* What is used of the base memory. */
void lab_arena_base(uintptr_t *start, uintptr_t *end);

/* ---- pages.c: large blocks of a schedule ------------------------------------------------ */

/* Zeroed; page-aligned at least. */
void *lab_pages_alloc(size_t size, size_t alignment, const void *caller);
bool lab_pages_own(const void *p);
/* Size of the live block that starts at P; SIZE_MAX: there is none. */
size_t lab_pages_size(const void *p);
void lab_pages_free(void *p, const void *caller);       /* of a live block */
void lab_pages_reset(void);
/* A page is written for the first time: true when the write may be tried again. */
bool lab_pages_fault(uintptr_t address);
bool lab_pages_find(uintptr_t address, LabBlockInfo *info);

/* ---- image.c --------------------------------------------------------------------------- */

extern bool lab_frozen;     /* the image has been taken */

/* Real mappings at fixed addresses. Aborts when there is none. */
void *lab_reserve(uintptr_t address, size_t size, int protection);

#endif
