/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QAPI_ERROR_H
#define QEMU_COMPAT_QAPI_ERROR_H

#include "../../miniblk/error.h"

#endif
