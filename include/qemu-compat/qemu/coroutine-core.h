/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_COROUTINE_CORE_H
#define QEMU_COMPAT_QEMU_COROUTINE_CORE_H

#include "../../miniblk/coroutine.h"

#endif
