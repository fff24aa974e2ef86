/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_GRAPH_LOCK_H
#define QEMU_COMPAT_BLOCK_GRAPH_LOCK_H

#if __has_include("../../miniblk/graph-lock.h")
#include "../../miniblk/graph-lock.h"
#endif
#include "../qemu/clang-tsa.h"

#endif
