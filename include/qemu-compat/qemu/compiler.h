/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_COMPILER_H
#define QEMU_COMPAT_QEMU_COMPILER_H

#include "../../miniblk/compiler.h"

#endif
