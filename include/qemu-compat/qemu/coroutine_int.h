/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_COROUTINE_INT_H
#define QEMU_COMPAT_QEMU_COROUTINE_INT_H

#include "coroutine.h"
#include "../../miniblk/coroutine-int.h"

#endif
