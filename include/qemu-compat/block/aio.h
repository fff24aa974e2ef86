/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_AIO_H
#define QEMU_COMPAT_BLOCK_AIO_H

#include "../../miniblk/aio.h"
#include "../../miniblk/thread-pool.h"
#include "../qemu/coroutine-core.h"
#include "../qemu/event_notifier.h"
#include "../qemu/queue.h"
#include "../qemu/thread.h"
#include "../../miniblk/timer.h"

#endif
