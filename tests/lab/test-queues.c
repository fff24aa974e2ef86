/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waits that anybody could end: in a CoQueue, for a turn in a throttle group. They are no step of
 * a certain circle, so who hangs in them is told about at the step bound, or when nobody can go
 * on; then it must be said what they wait for, and who could have ended that.
 */
#include "miniblk/osdep.h"
#include "hook-disk.h"
#include "miniblk/block-backend.h"
#include "miniblk/throttle-groups.h"
#include "lab-cases.h"

static CoQueue queue, *on_heap;

/* ---- CoQueue --------------------------------------------------------------------------- */

static void coroutine_fn wait_in_queue(BlockDriverState *bs)
{
    set_flag(&flag);
    qemu_co_queue_wait(&queue, NULL);
}

static void nobody_wakes(void)
{
    BlockBackend *blk = disk("disk", io_ctx[0], wait_in_queue);

    qemu_co_queue_init(&queue);
    start_read(blk);
    wait_for_flag(&flag);
    bdrv_drained_begin(blk_bs(blk));
}

/*
 * The lost wake-up:
 *
 *      main                            request
 *                                      looks: must wait
 *      wakes; nobody waits
 *                                      waits
 */
static void coroutine_fn wake_too_early(void *opaque)
{
    qemu_co_queue_restart_all(&queue);
}

static void woken_too_early(void)
{
    BlockBackend *blk = disk("disk", qemu_get_aio_context(), wait_in_queue);

    qemu_co_queue_init(&queue);
    qemu_coroutine_enter(qemu_coroutine_create(wake_too_early, NULL));
    start_read(blk);
    bdrv_drained_begin(blk_bs(blk));
}

/* One is woken, and does not pass it on; the other waits for ever, while somebody is busy. */
static void coroutine_fn wait_on_heap(void *opaque)
{
    set_flag(opaque);
    qemu_co_queue_wait(on_heap, NULL);
}

static void one_of_two(void)
{
    static bool both[2], never;

    on_heap = g_new(CoQueue, 1);
    qemu_co_queue_init(on_heap);
    start_bystander();
    aio_co_enter(qemu_get_aio_context(), qemu_coroutine_create(wait_on_heap, &both[0]));
    aio_co_enter(qemu_get_aio_context(), qemu_coroutine_create(wait_on_heap, &both[1]));
    qemu_co_enter_next(on_heap, NULL);
    wait_for_flag(&never);
}

/* ---- throttle groups ------------------------------------------------------------------- */

static void coroutine_fn read_at_once(BlockDriverState *bs)
{
    set_flag(&flag);
}

static void limit(BlockBackend *blk)
{
    ThrottleConfig cfg;

    blk_io_limits_enable(blk, "g");
    throttle_config_init(&cfg);
    cfg.buckets[THROTTLE_OPS_TOTAL].avg = 1;
    blk_set_io_limits(blk, &cfg);
}

static void nothing(void *opaque)
{
}

/*
 *      main                            io0
 *                                      the second read has to wait for the timer
 *      locks
 *                                      wants the lock
 *      a read of the same group
 */
static void timer_of_a_loop_that_waits(void)
{
    BlockBackend *there = disk("there", io_ctx[0], read_at_once);
    BlockBackend *here = disk("here", qemu_get_aio_context(), read_at_once);
    char buffer[512];

    limit(there);
    limit(here);
    start_bystander();
    start_read(there);
    start_read(there);
    aio_wait_bh_oneshot(io_ctx[0], nothing, NULL);
    qemu_mutex_lock(&mutex);
    aio_bh_schedule_oneshot(io_ctx[0], take_mutex, NULL);
    blk_pread(here, 4096, sizeof(buffer), buffer, 0);
}

/* ---- too many things ------------------------------------------------------------------- */

static void more_objects_than_are_kept(void)
{
    enum { MANY = 5000 };
    static bool never;
    CoQueue *queues = g_new(CoQueue, MANY);

    for (int i = 0; i < MANY; i++) {
        qemu_co_queue_init(&queues[i]);
        qemu_co_enter_next(&queues[i], NULL);
    }
    wait_for_flag(&never);
}

static const LabCase cases[] = {
    { "/queue/nobody-wakes", nobody_wakes, LAB_DEADLOCK,
      { "R1: read 4096+512 of disk, begun in IO io0, whose coroutine last ran in IO io0 and "
        "waits for CoQueue queue, in which nobody has woken anybody" }, .schedules = 100 },
    { "/queue/woken-too-early", woken_too_early, LAB_DEADLOCK,
      { "R1: read 4096+512 of disk", "waits for CoQueue queue, in which main was the last to "
        "wake, before this wait began" }, .schedules = 100 },
    { "/queue/one-of-two", one_of_two, LAB_LIVELOCK,
      { "main: AIO_WAIT_WHILE(!qatomic_load_acquire(f)), sleeps in epoll of 'main loop'",
        "coroutine C2 last ran in main and waits for CoQueue Q1, in which main was the last to "
        "wake, after this wait began" } },
    { "/throttle/timer-of-a-loop-that-waits", timer_of_a_loop_that_waits, LAB_LIVELOCK,
      { "main: AIO_WAIT_WHILE(still_runs(&r, co))",
        "IO io0: waits for lock mutex, held by main",
        " and waits for its turn among reads of throttle group 'g', which a timer of the loop of "
        "IO io0 serves next" } },
    { "/objects/too-many", more_objects_than_are_kept, LAB_DEADLOCK,
      { "there were more than 4096 objects: some are not told about" } },
};

int main(int argc, char **argv)
{
    hook_disk_init(&argc, &argv);
    lab_cases_add(cases, G_N_ELEMENTS(cases));
    return g_test_run();
}
