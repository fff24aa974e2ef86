/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_DIRTY_BITMAP_H
#define QEMU_COMPAT_BLOCK_DIRTY_BITMAP_H

#include "../../miniblk/dirty-bitmap.h"

#endif
