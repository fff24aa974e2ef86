/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_THROTTLE_H
#define QEMU_COMPAT_QEMU_THROTTLE_H

#include "../../miniblk/throttle.h"
#include "timer.h"

#endif
