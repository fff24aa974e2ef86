/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_CONFIG_HOST_H
#define QEMU_COMPAT_CONFIG_HOST_H

#include "../miniblk/osdep.h"

#endif
