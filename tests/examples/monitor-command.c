/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands of a monitor, on a node that may live in any thread and is busy. */
#include "miniblk/osdep.h"
#include "miniblk/block.h"
#include "miniblk/block-backend.h"
#include "miniblk/error.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"

/* Look at a node. */
static int64_t command_size(const char *node_name, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node_name);

    if (!bs) {
        error_setg(errp, "Cannot find node '%s'", node_name);
        return -1;
    }
    AioContext *ctx = bdrv_get_aio_context(bs);
    aio_context_acquire(ctx);
    int64_t bytes = bdrv_getlength(bs);
    aio_context_release(ctx);
    return bytes;
}

/* Change a node. While it is drained no request runs or starts, whoever uses it. */
static bool command_move(const char *node_name, AioContext *to, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node_name);

    if (!bs) {
        error_setg(errp, "Cannot find node '%s'", node_name);
        return false;
    }
    AioContext *from = bdrv_get_aio_context(bs);
    aio_context_acquire(from);
    bdrv_ref(bs);               /* what follows polls, and others may drop it meanwhile */
    bdrv_drained_begin(bs);
    int ret = bdrv_try_change_aio_context(bs, to, NULL, errp);
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    aio_context_release(from);  /* what was taken, wherever the node lives by now */
    return ret == 0;
}

typedef struct Load {
    BlockBackend *blk;
    char buf[4096];
    QEMUIOVector qiov;
    int completed;
} Load;

static void load_completed(void *opaque, int ret)
{
    Load *load = opaque;

    g_assert(ret == 0);
    load->completed++;
}

int main(void)
{
    static Load load;
    QDict *options = qdict_new();

    qemu_init_main_loop(&error_fatal);
    bdrv_init();
    IOThread *io0 = iothread_create("io0", &error_fatal);
    AioContext *ctx = iothread_get_aio_context(io0);
    qdict_put_str(options, "driver", "null-co");
    qdict_put_str(options, "node-name", "disk");
    qdict_put_int(options, "size", 1 << 20);
    BlockDriverState *bs = bdrv_open(NULL, NULL, options, BDRV_O_RDWR, &error_fatal);
    load.blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_fatal);
    blk_set_allow_aio_context_change(load.blk, true);
    qemu_iovec_init_buf(&load.qiov, load.buf, sizeof(load.buf));

    for (int i = 0; i < 100; i++) {
        /* the request is in flight when the command comes, and completes before the move */
        blk_aio_preadv(load.blk, 0, &load.qiov, 0, load_completed, &load);
        g_assert(command_size("disk", &error_fatal) == 1 << 20);
        g_assert(command_move("disk", ctx, &error_fatal));
        g_assert(bdrv_get_aio_context(bs) == ctx && load.completed == i + 1);
        g_assert(command_move("disk", qemu_get_aio_context(), &error_fatal));
    }
    g_assert(!command_move("floppy", ctx, NULL));

    blk_unref(load.blk);
    bdrv_unref(bs);
    iothread_destroy(io0);
    printf("200 moves, %d requests\n", load.completed);
    return 0;
}
