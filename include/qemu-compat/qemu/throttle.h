/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_THROTTLE_H
#define QEMU_COMPAT_QEMU_THROTTLE_H

#if __has_include("../../miniblk/throttle.h")
#include "../../miniblk/throttle.h"
#endif
#include "timer.h"

#endif
