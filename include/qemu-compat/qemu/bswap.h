/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_BSWAP_H
#define QEMU_COMPAT_QEMU_BSWAP_H

#include "../../miniblk/bswap.h"

#endif
