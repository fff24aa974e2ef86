/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The standard streams of the programs. */
#ifndef TOOLS_STREAMS_H
#define TOOLS_STREAMS_H

#include <stdbool.h>

/*
 * Before anything is opened: no image must get the number of a standard stream that the caller
 * has closed, or what is printed would be written to it.
 */
void streams_guard(void);
/*
 * Write out what was printed; false with a message printed when it is lost. Not when nobody
 * reads it any more: that is no failure.
 */
bool streams_flush(void);

#endif
