/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A lock of one word for sections of a few instructions. Waiting for it is busy at first and
 * asleep when it takes long, so a holder that was preempted does not keep others spinning.
 * Not recursive, not fair. All zero bytes are a free one. Any thread.
 */
#ifndef MINIBLK_SPIN_H
#define MINIBLK_SPIN_H

#include <stdbool.h>

typedef struct QemuSpin {
    unsigned value;             /* atomic; see aio/spin.c */
} QemuSpin;

void qemu_spin_init(QemuSpin *spin);
/* It must be free. */
void qemu_spin_destroy(QemuSpin *spin);
void qemu_spin_lock(QemuSpin *spin);
/* True when it was NOT taken, because somebody holds it. */
bool qemu_spin_trylock(QemuSpin *spin);
bool qemu_spin_locked(QemuSpin *spin);
void qemu_spin_unlock(QemuSpin *spin);

#endif
