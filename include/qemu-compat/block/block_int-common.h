/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCK_INT_COMMON_H
#define QEMU_COMPAT_BLOCK_BLOCK_INT_COMMON_H

#include "../../miniblk/block-driver.h"
#include "aio.h"
#include "block-common.h"
#include "block-global-state.h"
#include "../qemu/iov.h"
#include "../qemu/hbitmap.h"

#endif
