/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_MAIN_LOOP_H
#define QEMU_COMPAT_QEMU_MAIN_LOOP_H

#include "../../miniblk/main-loop.h"
#include "../block/aio.h"

#endif
