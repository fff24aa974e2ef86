/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCKJOB_INT_H
#define QEMU_COMPAT_BLOCK_BLOCKJOB_INT_H

#if __has_include("../../miniblk/blockjob.h")
#include "../../miniblk/blockjob.h"
#endif
#include "blockjob.h"
#include "block.h"

#endif
