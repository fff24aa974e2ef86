/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_THREAD_H
#define QEMU_COMPAT_QEMU_THREAD_H

#include "../../miniblk/thread.h"
#include "../../miniblk/semaphore.h"
#include "../../miniblk/spin.h"
#include "atomic.h"
#include "clang-tsa.h"

#endif
