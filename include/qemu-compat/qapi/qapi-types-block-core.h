/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QAPI_QAPI_TYPES_BLOCK_CORE_H
#define QEMU_COMPAT_QAPI_QAPI_TYPES_BLOCK_CORE_H

#include "../../miniblk/block-common.h"
#include "../../miniblk/blockjob.h"

#endif
