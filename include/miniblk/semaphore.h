/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A counter that threads wait for. Any thread. */
#ifndef MINIBLK_SEMAPHORE_H
#define MINIBLK_SEMAPHORE_H

#include "thread.h"

typedef struct QemuSemaphore {
    QemuMutex lock;
    QemuCond posted;
    unsigned count;             /* protected by LOCK */
} QemuSemaphore;

void qemu_sem_init(QemuSemaphore *sem, int count);
/* Nobody waits. */
void qemu_sem_destroy(QemuSemaphore *sem);
/* Count up; one waiter goes on. */
void qemu_sem_post(QemuSemaphore *sem);
/* Count down, first waiting until that can be done. */
void qemu_sem_wait(QemuSemaphore *sem);
/* The same for MS milliseconds at the most: 0, or -1 when the time ran out. */
int qemu_sem_timedwait(QemuSemaphore *sem, int ms);

#endif
