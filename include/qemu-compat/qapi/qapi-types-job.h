/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QAPI_QAPI_TYPES_JOB_H
#define QEMU_COMPAT_QAPI_QAPI_TYPES_JOB_H

#include "../../miniblk/job.h"

#endif
