/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_RCU_H
#define QEMU_COMPAT_QEMU_RCU_H

#include "../../miniblk/rcu.h"
#include "atomic.h"
#include "queue.h"
#include "thread.h"

#endif
