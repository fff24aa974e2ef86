/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCK_IO_H
#define QEMU_COMPAT_BLOCK_BLOCK_IO_H

#include "../../miniblk/block.h"
#include "../../miniblk/thread-pool.h"
#include "block-common.h"
#include "aio-wait.h"
#include "../qemu/iov.h"

#endif
