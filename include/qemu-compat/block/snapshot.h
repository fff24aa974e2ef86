/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_SNAPSHOT_H
#define QEMU_COMPAT_BLOCK_SNAPSHOT_H

#include "../../miniblk/snapshot.h"

#endif
