/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program of docs/lab.md: a device with one request in flight, and its drain.
 *
 *      main loop                       IOThread
 *      draining = true                 busy = false
 *      busy? sleep until kicked        draining? kick
 *
 * Each side writes its own word and then reads the other's. Without a barrier between the two
 * the IOThread may read before its write has left the processor: it does not kick, the main
 * loop reads the old value and sleeps for ever.
 */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

typedef struct Device {
    bool busy, draining;        /* atomic */
} Device;

/* In the IOThread. */
static void request_done(void *opaque)
{
    Device *d = opaque;

    qatomic_set(&d->busy, false);
#ifdef LESSON_FIXED
    smp_mb();                   /* pairs with the registration of AIO_WAIT_WHILE() */
#endif
    if (qatomic_read(&d->draining)) {
        aio_wait_kick();
    }
}

static void device_drain(Device *d)
{
    qatomic_set(&d->draining, true);
    AIO_WAIT_WHILE(NULL, qatomic_read(&d->busy));
    qatomic_set(&d->draining, false);
}

static void test_drain(void)
{
    IOThread *iothread = iothread_create("io", &error_abort);
    Device device = { .busy = true };

    aio_bh_schedule_oneshot(iothread_get_aio_context(iothread), request_done, &device);
    device_drain(&device);
    g_assert_false(device.busy);
    iothread_destroy(iothread);
}

int main(int argc, char **argv)
{
    qemu_init_main_loop(&error_abort);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/device/drain", test_drain);
    return g_test_run();
}
