/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_COROUTINE_H
#define QEMU_COMPAT_QEMU_COROUTINE_H

#include "../../miniblk/coroutine.h"
#include "lockable.h"
#include "queue.h"
#include "timer.h"

#endif
