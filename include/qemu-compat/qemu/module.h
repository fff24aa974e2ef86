/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_MODULE_H
#define QEMU_COMPAT_QEMU_MODULE_H

#include "../../miniblk/module.h"

#endif
