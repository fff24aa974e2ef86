/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* In place of aio/io-uring.c in a build without io_uring: there never is an engine. */
#include "miniblk/osdep.h"
#include "miniblk/error.h"
#include "miniblk/raw-aio.h"

LuringState *luring_init(Error **errp)
{
    error_setg(errp, "io_uring is not supported in this build");
    return NULL;
}

void luring_cleanup(LuringState *s)
{
    g_assert_not_reached();
}

void luring_attach_aio_context(LuringState *s, AioContext *new_context)
{
    g_assert_not_reached();
}

void luring_detach_aio_context(LuringState *s, AioContext *old_context)
{
    g_assert_not_reached();
}

void luring_register_fd(LuringState *s, int fd)
{
    g_assert_not_reached();
}

void luring_forget_fd(LuringState *s, int fd)
{
    g_assert_not_reached();
}

int coroutine_fn luring_co_submit(int fd, uint64_t offset, QEMUIOVector *qiov, int type,
                                  uint64_t max_batch)
{
    g_assert_not_reached();
}
