/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signals that a wrong access raises, and those that only tell of a page's first write. */
#ifndef LAB_FAULT_H
#define LAB_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* Handlers for SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, on a stack of their own. */
void lab_fault_install(void);

/* image.c: a page of the image, or fresh memory, is written for the first time: true when the
 * write may be tried again. */
bool lab_image_fault(uintptr_t address);

#endif
