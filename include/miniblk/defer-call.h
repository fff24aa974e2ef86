/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that are put off to the end of a section, so that one serves for many. */
#ifndef MINIBLK_DEFER_CALL_H
#define MINIBLK_DEFER_CALL_H

#include <stdbool.h>

/*
 * Open a section of the calling thread. Sections nest, and belong to the thread: what else
 * runs in it while a coroutine yields inside one is in that section too, and the coroutine
 * must end it in the thread where it began it.
 */
void defer_call_begin(void);
/*
 * Close it. At the end of the outermost one the deferred calls are made, in the order of
 * their first defer_call(). Aborts when the thread has no section open.
 */
void defer_call_end(void);
/*
 * Have FN(OPAQUE) called once at the end of the thread's outermost section, however often
 * this is said; without a section it is called now. Any thread. FN may defer calls: they are
 * made at once. It may not rely on being called before somebody's nested aio_poll() returns.
 */
void defer_call(void (*fn)(void *), void *opaque);
/* Whether the calling thread has a section open. */
bool defer_call_in_section(void);

#endif
