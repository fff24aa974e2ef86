/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_FUTEX_H
#define QEMU_COMPAT_QEMU_FUTEX_H

#include "../../miniblk/futex.h"

#endif
