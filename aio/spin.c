/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QemuSpin, and the futex calls for others who build such things. */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/futex.h"
#include "miniblk/spin.h"
#include "aio/port.h"

enum { SPIN_FREE, SPIN_HELD, SPIN_SLEEPERS /* held, and somebody may sleep */ };
enum { SPIN_TURNS = 200 };      /* a few times what a short section takes */

void qemu_spin_init(QemuSpin *spin)
{
    qatomic_set(&spin->value, SPIN_FREE);
}

void qemu_spin_destroy(QemuSpin *spin)
{
    g_assert(!qemu_spin_locked(spin));
}

bool qemu_spin_trylock(QemuSpin *spin)
{
    return qatomic_cmpxchg(&spin->value, SPIN_FREE, SPIN_HELD) != SPIN_FREE;
}

bool qemu_spin_locked(QemuSpin *spin)
{
    return qatomic_read(&spin->value) != SPIN_FREE;
}

void qemu_spin_lock(QemuSpin *spin)
{
    for (int i = 0; i < PORT_SPIN_TURNS(SPIN_TURNS); i++) {
        if (!qemu_spin_locked(spin) && !qemu_spin_trylock(spin)) {
            return;
        }
        port_cpu_relax();
    }
    /* Who has slept does not know whether others still do, and so leaves SLEEPERS behind. */
    while (qatomic_xchg(&spin->value, SPIN_SLEEPERS) != SPIN_FREE) {
        port_futex_wait(&spin->value, SPIN_SLEEPERS);
    }
}

void qemu_spin_unlock(QemuSpin *spin)
{
    unsigned old = qatomic_xchg(&spin->value, SPIN_FREE);
    g_assert(old != SPIN_FREE);
    if (old == SPIN_SLEEPERS) {
        port_futex_wake(&spin->value, 1);
    }
}

void qemu_futex_wake(void *f, int n)
{
    port_futex_wake(f, n);
}

void qemu_futex_wait(void *f, unsigned val)
{
    port_futex_wait(f, val);
}
