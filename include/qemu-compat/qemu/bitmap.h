/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_BITMAP_H
#define QEMU_COMPAT_QEMU_BITMAP_H

#include "../../miniblk/bitmap.h"
#include "../../miniblk/host-utils.h"

#endif
