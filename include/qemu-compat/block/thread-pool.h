/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_THREAD_POOL_H
#define QEMU_COMPAT_BLOCK_THREAD_POOL_H

#include "../../miniblk/thread-pool.h"
#include "aio.h"

#endif
