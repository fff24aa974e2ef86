/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_GRAPH_LOCK_H
#define QEMU_COMPAT_BLOCK_GRAPH_LOCK_H

#include "../../miniblk/graph-lock.h"
#include "../qemu/clang-tsa.h"

#endif
