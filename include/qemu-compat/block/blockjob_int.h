/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCKJOB_INT_H
#define QEMU_COMPAT_BLOCK_BLOCKJOB_INT_H

#include "../../miniblk/blockjob.h"
#include "blockjob.h"
#include "block.h"

#endif
