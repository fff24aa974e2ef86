/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_ERROR_REPORT_H
#define QEMU_COMPAT_QEMU_ERROR_REPORT_H

#include "../../miniblk/error.h"

#endif
