/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCK_GLOBAL_STATE_H
#define QEMU_COMPAT_BLOCK_BLOCK_GLOBAL_STATE_H

#include "../../miniblk/block.h"
#include "../../miniblk/block-driver.h"
#include "block-common.h"

#endif
