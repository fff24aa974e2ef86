/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCK_INT_H
#define QEMU_COMPAT_BLOCK_BLOCK_INT_H

#include "block.h"
#include "block_int-common.h"
#include "block_int-global-state.h"
#include "block_int-io.h"

#endif
