/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QAPI_QMP_QOBJECT_H
#define QEMU_COMPAT_QAPI_QMP_QOBJECT_H

#include "../../../miniblk/qdict.h"

#endif
