/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "hook-disk.h"

static IOThread *io[2];
AioContext *io_ctx[2];
QemuMutex mutex;
bool flag, other_flag;
int reads;

void hook_disk_init(int *argc, char ***argv)
{
    test_init(argc, argv);
    test_threads_start(io, io_ctx, 2);
    qemu_mutex_init(&mutex);
}

void set_flag(bool *f)
{
    qatomic_set_mb(f, true);
    aio_wait_kick();
}

void wait_for_flag(bool *f)
{
    AIO_WAIT_WHILE_UNLOCKED(NULL, !qatomic_load_acquire(f));
}

/* ---- somebody who is busy --------------------------------------------------------------- */

static void again_and_again(void *opaque)
{
    if (!qatomic_read(&other_flag)) {
        aio_bh_schedule_oneshot(io_ctx[1], again_and_again, NULL);
    }
}

/* Until other_flag is set. */
void start_bystander(void)
{
    aio_bh_schedule_oneshot(io_ctx[1], again_and_again, NULL);
}

/* ---- a driver whose reads do what the case wants ---------------------------------------- */

static void coroutine_fn (*in_read)(BlockDriverState *bs);

static int coroutine_fn hook_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    in_read(bs);
    return 0;
}

static int coroutine_fn hook_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                     QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    in_read(bs);
    return 0;
}

static BlockDriver bdrv_hook = {
    .format_name = "hook",
    .bdrv_co_preadv = hook_preadv,
    .bdrv_co_pwritev = hook_pwritev,
    .bdrv_child_perm = bdrv_default_perms,
};

BlockBackend *disk(const char *name, AioContext *ctx,
                   void coroutine_fn (*hook)(BlockDriverState *bs))
{
    BlockDriverState *bs = bdrv_new_open_driver(&bdrv_hook, name, BDRV_O_RDWR, &error_abort);

    in_read = hook;
    bs->total_sectors = 1 << 11;
    BlockBackend *blk = test_backend(bs);
    if (ctx != qemu_get_aio_context()) {
        test_move(bs, ctx);
    }
    return blk;
}

void free_disk(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    /* they have to be there when the node moves back */
    AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&reads) > 0);
    if (bdrv_get_aio_context(bs) != qemu_get_aio_context()) {
        test_move(bs, qemu_get_aio_context());
    }
    blk_unref(blk);
    bdrv_unref(bs);
}

void coroutine_fn read_once(void *opaque)
{
    char buffer[512];
    blk_co_pread(opaque, 4096, sizeof(buffer), buffer, 0);
    qatomic_dec(&reads);
    aio_wait_kick();
}

void start_read(BlockBackend *blk)
{
    qatomic_inc(&reads);
    aio_co_enter(blk_get_aio_context(blk), qemu_coroutine_create(read_once, blk));
}

void coroutine_fn sleep_in_loop(BlockDriverState *bs)
{
    set_flag(&flag);
    qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, LONG);
}

void take_mutex(void *opaque)
{
    qemu_mutex_lock(&mutex);
    qemu_mutex_unlock(&mutex);
}
