/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef QEMU_COMPAT_QEMU_TYPEDEFS_H
#define QEMU_COMPAT_QEMU_TYPEDEFS_H

#include <stdbool.h>

typedef struct AioContext AioContext;
typedef struct BdrvChild BdrvChild;
typedef struct BlockBackend BlockBackend;
typedef struct BlockDriver BlockDriver;
typedef struct BlockDriverState BlockDriverState;
typedef struct BlockJob BlockJob;
typedef struct CoMutex CoMutex;
typedef struct Coroutine Coroutine;
typedef struct Error Error;
typedef struct EventNotifier EventNotifier;
typedef struct HBitmap HBitmap;
typedef struct IOThread IOThread;
typedef struct Job Job;
typedef struct JobTxn JobTxn;
typedef struct QEMUBH QEMUBH;
typedef struct QEMUIOVector QEMUIOVector;
typedef struct QEMUTimer QEMUTimer;
typedef struct QemuLockable QemuLockable;
typedef struct QemuMutex QemuMutex;
typedef struct QemuSpin QemuSpin;
typedef struct json_t QDict;

#endif
