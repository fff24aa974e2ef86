/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_EVENT_NOTIFIER_H
#define QEMU_COMPAT_QEMU_EVENT_NOTIFIER_H

#include "../../miniblk/event_notifier.h"

#endif
