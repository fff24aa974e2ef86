/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_SYSEMU_BLOCK_BACKEND_COMMON_H
#define QEMU_COMPAT_SYSEMU_BLOCK_BACKEND_COMMON_H

#include "../../miniblk/block-backend.h"
#include "../qemu/iov.h"
#include "../block/throttle-groups.h"

#endif
