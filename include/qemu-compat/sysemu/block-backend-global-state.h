/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_SYSEMU_BLOCK_BACKEND_GLOBAL_STATE_H
#define QEMU_COMPAT_SYSEMU_BLOCK_BACKEND_GLOBAL_STATE_H

#include "block-backend-common.h"

#endif
