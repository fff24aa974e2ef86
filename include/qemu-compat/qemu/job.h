/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_JOB_H
#define QEMU_COMPAT_QEMU_JOB_H

#include "../../miniblk/job.h"
#include "lockable.h"
#include "queue.h"
#include "coroutine.h"
#include "../qapi/qapi-types-job.h"
#include "../block/aio.h"

#endif
