/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_DEFER_CALL_H
#define QEMU_COMPAT_QEMU_DEFER_CALL_H

#include "../../miniblk/defer-call.h"

#endif
