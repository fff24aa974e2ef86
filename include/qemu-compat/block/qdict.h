/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_BLOCK_QDICT_H
#define QEMU_COMPAT_BLOCK_QDICT_H

#include "../../miniblk/qdict.h"

#endif
