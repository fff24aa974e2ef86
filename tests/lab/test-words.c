/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the lab says when the block layer hangs: each case here hangs in its own way, and the
 * words must name what a developer would look for.
 */
#include "../drain/drain-driver.h"
#include "miniblk/aio-wait.h"
#include "miniblk/coroutine.h"
#include "aio/port-note.h"
#include "lab-cases.h"

static IOThread *io[1];
static AioContext *io_ctx[1];
static CoMutex never_free;
static bool has_begun;          /* atomic; the read */

/* ---- a driver whose reads want a lock -------------------------------------------------- */

static int coroutine_fn stuck_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    qatomic_set_mb(&has_begun, true);
    aio_wait_kick();
    qemu_co_mutex_lock(&never_free);
    qemu_co_mutex_unlock(&never_free);
    return 0;
}

static BlockDriver bdrv_stuck = {
    .format_name = "stuck",
    .bdrv_co_preadv = stuck_preadv,
    .bdrv_child_perm = bdrv_default_perms,
};

static BlockBackend *stuck_backend(AioContext *ctx)
{
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_stuck, "disk", BDRV_O_RDWR,
                                                &error_abort);
    bs->total_sectors = 1 << 11;
    BlockBackend *blk = test_backend(bs);
    if (ctx != qemu_get_aio_context()) {
        test_move(bs, ctx);
    }
    return blk;
}

static void coroutine_fn hold_for_ever(void *opaque)
{
    qemu_co_mutex_lock(&never_free);
    qemu_coroutine_yield();
}

static void coroutine_fn read_once(void *opaque)
{
    char buffer[512];
    blk_co_pread(opaque, 4096, sizeof(buffer), buffer, 0);
}

/* ---- cases ----------------------------------------------------------------------------- */

static void drain_waits_for_a_lock(void)
{
    BlockBackend *blk = stuck_backend(qemu_get_aio_context());

    qemu_co_mutex_init(&never_free);
    qemu_coroutine_enter(qemu_coroutine_create(hold_for_ever, NULL));
    qemu_coroutine_enter(qemu_coroutine_create(read_once, blk));
    bdrv_drained_begin(blk_bs(blk));
}

static void drain_waits_for_an_iothread(void)
{
    BlockBackend *blk = stuck_backend(io_ctx[0]);
    Coroutine *holder = qemu_coroutine_create(hold_for_ever, NULL);
    Coroutine *reader = qemu_coroutine_create(read_once, blk);

    qemu_co_mutex_init(&never_free);
    aio_co_enter(io_ctx[0], holder);
    aio_co_enter(io_ctx[0], reader);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read(&has_begun));
    bdrv_drain_all_begin();
}

static void parked_request(void)
{
    BlockDriverState *bs = test_node("disk");
    BlockBackend *blk = test_backend(bs);

    bdrv_drained_begin(bs);
    qemu_coroutine_enter(qemu_coroutine_create(read_once, blk));
    AIO_WAIT_WHILE(NULL, test_state(bs)->requests_finished == 0);
}

/* A token that nobody gives back. */
static void token_left(void)
{
    BlockBackend *blk = test_backend(test_node("disk"));

    blk_inc_in_flight(blk);
    bdrv_drained_begin(blk_bs(blk));
}

static void *take_lock_and_poll(void *opaque)
{
    aio_context_acquire(io_ctx[0]);
    qemu_mutex_lock(opaque);
    return NULL;
}

/* The context lock of a loop is on the way of a circle. */
static void context_lock_in_a_circle(void)
{
    static QemuMutex mutex;
    QemuThread thread;

    qemu_mutex_lock(&mutex);
    qemu_thread_create(&thread, "monitor", take_lock_and_poll, &mutex, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
}

static bool kicked;

static void set_without_kick(void *opaque)
{
    qatomic_set(&kicked, true);
}

static void missing_kick(void)
{
    aio_bh_schedule_oneshot(io_ctx[0], set_without_kick, NULL);
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_read(&kicked));
}

/* ---- rules that are broken ------------------------------------------------------------- */

static void coroutine_fn yield_with_mutex(void *opaque)
{
    static QemuMutex mutex;
    qemu_mutex_lock(&mutex);
    qemu_coroutine_yield();
    qemu_mutex_unlock(&mutex);
}

static void lock_held_over_yield(void)
{
    qemu_coroutine_enter(qemu_coroutine_create(yield_with_mutex, NULL));
}

static void section_left_open(void)
{
    bdrv_drained_begin(test_node("disk"));
}

static void request_left_over(void)
{
    BlockBackend *blk = stuck_backend(qemu_get_aio_context());

    qemu_co_mutex_init(&never_free);
    qemu_coroutine_enter(qemu_coroutine_create(hold_for_ever, NULL));
    qemu_coroutine_enter(qemu_coroutine_create(read_once, blk));
}

static void command_bh(void *opaque)
{
    port_note(PORT_NOTE_COMMAND_BEGIN, NULL, "quit");
    port_note(PORT_NOTE_COMMAND_END, NULL, NULL);
    kicked = true;
    aio_wait_kick();
}

static void command_inside_a_wait(void)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), command_bh, NULL);
    AIO_WAIT_WHILE(NULL, !kicked);
}

/* ---- what must be said ----------------------------------------------------------------- */

static const LabCase cases[] = {
    { "/words/drain/lock", drain_waits_for_a_lock, LAB_DEADLOCK,
      { "main: drained section of node 'disk'",
        "AIO_WAIT_WHILE(bdrv__drain_poll(bs)) because of backend '' of 'disk', sleeps",
        "R1: read 4096+512 of disk", "waits for CoMutex", "held by coroutine C1" } },
    { "/words/drain/iothread", drain_waits_for_an_iothread, LAB_DEADLOCK,
      { "main: drained section of all nodes", "IO io0: sleeps in epoll of 'io0'",
        "R1: read 4096+512 of disk, begun in IO io0", "held by coroutine C1" } },
    { "/words/parked", parked_request, LAB_DEADLOCK,
      { "AIO_WAIT_WHILE(test_state(bs)->requests_finished == 0)",
        "waits for the end of a drained section of backend" } },
    { "/words/token", token_left, LAB_DEADLOCK,
      { "AIO_WAIT_WHILE(bdrv__drain_poll(bs)) because of backend '' of 'disk' (something counts "
        "itself in flight there, but no request is known)" } },
    { "/words/circle", context_lock_in_a_circle, LAB_CYCLE,
      { "main: joins monitor", "monitor: waits for lock", "held by main" } },
    { "/words/kick", missing_kick, LAB_DEADLOCK,
      { "main: AIO_WAIT_WHILE(!qatomic_read(&kicked)), sleeps in epoll of 'main loop', "
        "nothing is ready" } },
    { "/oracle/lock-held-over-yield", lock_held_over_yield, LAB_ORACLE,
      { "a coroutine yields in main while it holds a mutex" } },
    { "/oracle/section-left-open", section_left_open, LAB_ORACLE,
      { "ends in a drained section of node 'disk'" } },
    { "/oracle/request-left-over", request_left_over, LAB_ORACLE,
      { "ends with a request in flight: read 4096+512 of disk" } },
    { "/oracle/command-inside-a-wait", command_inside_a_wait, LAB_ORACLE,
      { "command 'quit' starts inside AIO_WAIT_WHILE(!kicked)" } },
};

int main(int argc, char **argv)
{
    test_init(&argc, &argv);
    test_threads_start(io, io_ctx, 1);
    lab_cases_add(cases, G_N_ELEMENTS(cases));
    return g_test_run();
}
