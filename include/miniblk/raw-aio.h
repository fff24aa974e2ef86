/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asynchronous file I/O by the kernel: the Linux AIO engine (laio_*) and the io_uring engine
 * (luring_*). An AioContext has at most one of each; aio_setup_linux_aio() and
 * aio_setup_linux_io_uring() make them, and who submits finds that of its own context.
 */
#ifndef MINIBLK_RAW_AIO_H
#define MINIBLK_RAW_AIO_H

#include "aio.h"
#include "iov.h"

typedef struct LinuxAioState LinuxAioState;
typedef struct LuringState LuringState;

/* Request types. */
#define QEMU_AIO_READ   0x0001
#define QEMU_AIO_WRITE  0x0002
#define QEMU_AIO_FLUSH  0x0008      /* data and what is needed to find it: fdatasync() */
/* With QEMU_AIO_WRITE: on stable storage before completion. */
#define QEMU_AIO_FUA    0x0100

/*
 * A new engine that belongs to no context yet; NULL with ERRP set when the kernel refuses:
 * no file descriptor left, Linux AIO's aio-max-nr used up, io_uring disabled or too old, or
 * this build has no io_uring. Any thread.
 */
LinuxAioState *laio_init(Error **errp);
LuringState *luring_init(Error **errp);
/* Free a detached engine. Any thread. */
void laio_cleanup(LinuxAioState *s);
void luring_cleanup(LuringState *s);

/*
 * Bind an engine to NEW_CONTEXT, whose home thread serves it from then on / undo that.
 * Any thread; nobody may be submitting. Detaching aborts while a request is in flight.
 */
void laio_attach_aio_context(LinuxAioState *s, AioContext *new_context);
void laio_detach_aio_context(LinuxAioState *s, AioContext *old_context);
void luring_attach_aio_context(LuringState *s, AioContext *new_context);
void luring_detach_aio_context(LuringState *s, AioContext *old_context);

/*
 * Tell the engine that FD will be read and written much, which saves the kernel the look-up
 * per request; it may decline. From then on FD stands for the file that it is open on now,
 * until it is forgotten: do that before FD is closed or made to be another file. Forgetting
 * what was never registered is fine. Any thread, while no request on FD is in flight.
 */
void luring_register_fd(LuringState *s, int fd);
void luring_forget_fd(LuringState *s, int fd);

/*
 * Read or write all of QIOV at OFFSET (bytes) of FD, or flush FD (QIOV NULL, OFFSET 0). The
 * engine is that of the current context, which must have one.
 *
 * Requests of one loop iteration, or of a defer_call_begin()/defer_call_end() section, go
 * out in one system call, at most MAX_BATCH at a time (0: no opinion; the smaller one of it
 * and aio_context_set_aio_params()'s counts, 16 without either). TYPE is one of QEMU_AIO_*.
 *
 * 0 or -errno. Short transfers are continued; what a read misses because the file ends is
 * filled with zeroes, a write that cannot go on is -ENOSPC. -EOPNOTSUPP: FD cannot do
 * QEMU_AIO_FUA. The caller yields, and is woken by the loop, never from a submission.
 *
 * Linux AIO: FD is open with O_DIRECT and offset, lengths and buffers are aligned as it
 * demands (the kernel would make everything else wait in the submission); no flushes.
 */
int coroutine_fn laio_co_submit(int fd, uint64_t offset, QEMUIOVector *qiov, int type,
                                uint64_t max_batch);
int coroutine_fn luring_co_submit(int fd, uint64_t offset, QEMUIOVector *qiov, int type,
                                  uint64_t max_batch);

#endif
