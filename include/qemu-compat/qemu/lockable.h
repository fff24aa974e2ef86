/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_LOCKABLE_H
#define QEMU_COMPAT_QEMU_LOCKABLE_H

#include "../../miniblk/lockable.h"
#include "coroutine-core.h"

#endif
