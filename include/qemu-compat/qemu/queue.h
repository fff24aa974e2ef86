/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_QUEUE_H
#define QEMU_COMPAT_QEMU_QUEUE_H

#include "../../miniblk/queue.h"

#endif
