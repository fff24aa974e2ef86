/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_SYSEMU_BLOCK_BACKEND_H
#define QEMU_COMPAT_SYSEMU_BLOCK_BACKEND_H

#include "block-backend-global-state.h"
#include "block-backend-io.h"

#endif
