/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCK_INT_IO_H
#define QEMU_COMPAT_BLOCK_BLOCK_INT_IO_H

#include "../../miniblk/block-driver.h"
#include "block_int-common.h"

#endif
