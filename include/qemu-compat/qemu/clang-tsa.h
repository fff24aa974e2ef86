/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_CLANG_TSA_H
#define QEMU_COMPAT_QEMU_CLANG_TSA_H

#include "../../miniblk/clang-tsa.h"

#endif
