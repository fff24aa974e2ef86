/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What QEMU_MAKE_LOCKABLE() puts into a QemuLockable. */
#include "miniblk/osdep.h"
#include "miniblk/coroutine.h"
#include "miniblk/lockable.h"

void qemu_lockable_mutex_lock_(void *m) { qemu_mutex_lock((QemuMutex *)m); }
void qemu_lockable_mutex_unlock_(void *m) { qemu_mutex_unlock((QemuMutex *)m); }
void qemu_lockable_rec_mutex_lock_(void *m) { qemu_rec_mutex_lock(m); }
void qemu_lockable_rec_mutex_unlock_(void *m) { qemu_rec_mutex_unlock(m); }
void qemu_lockable_co_mutex_lock_(void *m) { qemu_co_mutex_lock(m); }
void qemu_lockable_co_mutex_unlock_(void *m) { qemu_co_mutex_unlock(m); }
void qemu_lockable_spin_lock_(void *s) { qemu_spin_lock(s); }
void qemu_lockable_spin_unlock_(void *s) { qemu_spin_unlock(s); }
