/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_IOV_H
#define QEMU_COMPAT_QEMU_IOV_H

#include "../../miniblk/iov.h"

#endif
