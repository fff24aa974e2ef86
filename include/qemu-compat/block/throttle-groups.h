/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_THROTTLE_GROUPS_H
#define QEMU_COMPAT_BLOCK_THROTTLE_GROUPS_H

#include "../../miniblk/throttle-groups.h"
#include "../qemu/coroutine.h"
#include "../qemu/throttle.h"
#include "block_int.h"

#endif
