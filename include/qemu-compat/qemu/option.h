/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_OPTION_H
#define QEMU_COMPAT_QEMU_OPTION_H

#include "../../miniblk/qdict.h"
#include "../qapi/error.h"

#endif
