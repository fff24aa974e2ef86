/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Linux AIO through libaio: one engine per AioContext, see aio_setup_linux_aio(). */
#ifndef MINIBLK_LINUX_AIO_H
#define MINIBLK_LINUX_AIO_H

#include "aio.h"
#include "iov.h"

typedef struct LinuxAioState LinuxAioState;

enum LinuxAioType { LAIO_READ, LAIO_WRITE };

/* NULL with ERRP set, see aio_setup_linux_aio(). */
LinuxAioState *laio_init(AioContext *ctx, Error **errp);
/* No request may be in flight. */
void laio_cleanup(LinuxAioState *s);
/*
 * Read or write all of QIOV at OFFSET of FD through the engine of the current context;
 * requests of one loop iteration go out in one system call, at most MAX_BATCH (0: 32) at a
 * time. FD is open with O_DIRECT, offset, lengths and buffers are aligned as it demands.
 * 0 or -errno; a short read at the end of the file is filled with zeroes, a short write is
 * -ENOSPC.
 */
int coroutine_fn laio_co_submit(int fd, uint64_t offset, QEMUIOVector *qiov,
                                enum LinuxAioType type, uint64_t max_batch);

#endif
