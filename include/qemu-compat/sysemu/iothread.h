/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_SYSEMU_IOTHREAD_H
#define QEMU_COMPAT_SYSEMU_IOTHREAD_H

#include "../../miniblk/iothread.h"
#include "../block/aio.h"

#endif
