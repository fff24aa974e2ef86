/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "miniblk/lockable.h"
#include "miniblk/semaphore.h"
#include "aio/port.h"

void qemu_sem_init(QemuSemaphore *sem, int count)
{
    g_assert(count >= 0);
    qemu_mutex_init(&sem->lock);
    qemu_cond_init(&sem->posted);
    sem->count = count;
}

void qemu_sem_destroy(QemuSemaphore *sem)
{
    qemu_cond_destroy(&sem->posted);
    qemu_mutex_destroy(&sem->lock);
}

void qemu_sem_post(QemuSemaphore *sem)
{
    QEMU_LOCK_GUARD(&sem->lock);
    g_assert(sem->count < UINT_MAX);
    sem->count++;
    /* under the lock: a waiter may destroy the semaphore as soon as it has it */
    qemu_cond_signal(&sem->posted);
}

void qemu_sem_wait(QemuSemaphore *sem)
{
    QEMU_LOCK_GUARD(&sem->lock);
    while (!sem->count) {
        qemu_cond_wait(&sem->posted, &sem->lock);
    }
    sem->count--;
}

int qemu_sem_timedwait(QemuSemaphore *sem, int ms)
{
    int64_t deadline_ns = port_clock_ns(false) + ms * 1000000LL;

    QEMU_LOCK_GUARD(&sem->lock);
    while (!sem->count) {
        int64_t left_ns = deadline_ns - port_clock_ns(false);
        if (left_ns <= 0) {
            return -1;
        }
        qemu_cond_timedwait(&sem->posted, &sem->lock, (left_ns + 999999) / 1000000);
    }
    sem->count--;
    return 0;
}
