/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_WRITE_THRESHOLD_H
#define QEMU_COMPAT_BLOCK_WRITE_THRESHOLD_H

#if __has_include("../../miniblk/write-threshold.h")
#include "../../miniblk/write-threshold.h"
#endif
#include "block_int.h"

#endif
