/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCK_COMMON_H
#define QEMU_COMPAT_BLOCK_BLOCK_COMMON_H

#include "../../miniblk/block-common.h"
#include "graph-lock.h"
#include "aio.h"
#include "../qemu/iov.h"

#endif
