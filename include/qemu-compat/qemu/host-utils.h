/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_HOST_UTILS_H
#define QEMU_COMPAT_QEMU_HOST_UTILS_H

#include "../../miniblk/bswap.h"
#include "../../miniblk/host-utils.h"

#endif
