/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCK_H
#define QEMU_COMPAT_BLOCK_BLOCK_H

#include "block-common.h"
#include "block-global-state.h"
#include "block-io.h"

#endif
