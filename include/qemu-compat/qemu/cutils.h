/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_CUTILS_H
#define QEMU_COMPAT_QEMU_CUTILS_H

#include "../../miniblk/cutils.h"
#include "../../miniblk/iov.h"

#endif
