/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_HBITMAP_H
#define QEMU_COMPAT_QEMU_HBITMAP_H

#include "../../miniblk/hbitmap.h"
#include "bitops.h"

#endif
