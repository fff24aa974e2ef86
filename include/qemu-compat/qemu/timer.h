/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_TIMER_H
#define QEMU_COMPAT_QEMU_TIMER_H

#include "../../miniblk/timer.h"
#include "bitops.h"
#include "../block/aio.h"

#endif
