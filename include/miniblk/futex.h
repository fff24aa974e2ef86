/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sleeping on a word of memory, what locks are made of. Any thread of this process. */
#ifndef MINIBLK_FUTEX_H
#define MINIBLK_FUTEX_H

/* Wake up to N of those who sleep on the word F points to. */
void qemu_futex_wake(void *f, int n);
/*
 * Sleep if the word F points to is VAL, which is looked at and slept on in one step. Returns
 * when woken, at once when the value differs, and sometimes without reason: look again.
 */
void qemu_futex_wait(void *f, unsigned val);

#endif
