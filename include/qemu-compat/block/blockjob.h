/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_BLOCKJOB_H
#define QEMU_COMPAT_BLOCK_BLOCKJOB_H

#include "../../miniblk/blockjob.h"
#include "../qemu/job.h"
#include "block.h"

#endif
