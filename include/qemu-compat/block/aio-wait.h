/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_AIO_WAIT_H
#define QEMU_COMPAT_BLOCK_AIO_WAIT_H

#include "../../miniblk/aio-wait.h"
#include "aio.h"
#include "../qemu/main-loop.h"

#endif
