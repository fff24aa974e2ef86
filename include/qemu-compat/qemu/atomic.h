/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_ATOMIC_H
#define QEMU_COMPAT_QEMU_ATOMIC_H

#include "../../miniblk/atomic.h"

#endif
