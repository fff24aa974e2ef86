/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_BITOPS_H
#define QEMU_COMPAT_QEMU_BITOPS_H

#include "../../miniblk/bitops.h"
#include "../../miniblk/host-utils.h"

#endif
