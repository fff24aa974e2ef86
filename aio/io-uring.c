/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * io_uring: two rings shared with the kernel. Requests are written into the one and handed
 * over by a system call per batch; completions are read from the other, in place, and the
 * ring's own descriptor is readable while there are any. The queue is aio/raw-queue.c's.
 */
#include "miniblk/osdep.h"
#include "miniblk/error.h"
#include "aio/raw-queue.h"
#include "aio/port-io-uring.h"

struct LuringState {
    RawQueue queue;
    struct io_uring ring;       /* its submission queue is empty between calls of submit() */
};

static void prepare(struct io_uring_sqe *sqe, RawRequest *req)
{
    const QEMUIOVector *qiov = req->qiov;
    uint64_t offset = req->offset_bytes;

    if (!qiov) {
        io_uring_prep_fsync(sqe, req->fd, IORING_FSYNC_DATASYNC);
    } else if (qiov->niov > 1 && (req->type & QEMU_AIO_READ)) {
        io_uring_prep_readv(sqe, req->fd, qiov->iov, qiov->niov, offset);
    } else if (qiov->niov > 1) {
        io_uring_prep_writev(sqe, req->fd, qiov->iov, qiov->niov, offset);
    } else if (req->type & QEMU_AIO_READ) {
        io_uring_prep_read(sqe, req->fd, qiov->iov->iov_base, qiov->iov->iov_len, offset);
    } else {
        io_uring_prep_write(sqe, req->fd, qiov->iov->iov_base, qiov->iov->iov_len, offset);
    }
    if (req->type & QEMU_AIO_FUA) {
        sqe->rw_flags = RWF_DSYNC;
    }
    if (req->tries) {
        /* It could not be done without waiting: let a thread of the kernel wait for it. */
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
    io_uring_sqe_set_data(sqe, req);
}

static int luring_submit(RawQueue *q, unsigned n)
{
    LuringState *s = container_of(q, LuringState, queue);
    int ret;

    do {
        RawRequest *req = QSIMPLEQ_FIRST(&q->pending);
        for (unsigned i = 0; i < n; i++, req = QSIMPLEQ_NEXT(req, next)) {
            prepare(io_uring_get_sqe(&s->ring), req);
        }
        ret = port_ring_submit_some(&s->ring);
    } while (ret == -EINTR);
    /* EBUSY: completions wait for room in their ring */
    return ret == -EBUSY ? -EAGAIN : ret;
}

static bool luring_ready(RawQueue *q)
{
    return port_ring_ready(&container_of(q, LuringState, queue)->ring);
}

static RawRequest *luring_take(RawQueue *q)
{
    LuringState *s = container_of(q, LuringState, queue);
    struct io_uring_cqe *cqe = port_ring_peek(&s->ring);

    if (!cqe) {
        return NULL;
    }
    RawRequest *req = io_uring_cqe_get_data(cqe);
    req->ret = cqe->res;
    io_uring_cqe_seen(&s->ring, cqe);
    return req;
}

static const RawQueueOps luring_ops = { luring_submit, luring_ready, luring_take };

/* ---- the loop's side ------------------------------------------------------------------- */

static void ring_complete(void *opaque)
{
    raw_queue_complete(&((LuringState *)opaque)->queue);
}

static bool ring_poll(void *opaque)
{
    return luring_ready(&((LuringState *)opaque)->queue);
}

/* ---- life ------------------------------------------------------------------------------ */

LuringState *luring_init(Error **errp)
{
    LuringState *s = g_new0(LuringState, 1);
    /* Every request in flight has room for its completion, so the ring cannot overflow. */
    struct io_uring_params params = { .flags = IORING_SETUP_CQSIZE,
                                      .cq_entries = RAW_QUEUE_REQUESTS_MAX };
    int ret = port_ring_init_params(&s->ring, RAW_QUEUE_BATCH_MAX, &params);

    if (ret == 0 && !(params.features & IORING_FEAT_RW_CUR_POS)) {
        /* Linux 5.6 brought this feature, and with it plain reads and writes. */
        port_ring_exit(&s->ring);
        ret = -ENOSYS;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "failed to init linux io_uring ring");
        if (ret == -EPERM) {
            error_append_hint(errp, "See /proc/sys/kernel/io_uring_disabled.\n");
        } else if (ret == -ENOMEM) {
            error_append_hint(errp, "The limit of locked memory may be too low.\n");
        }
        g_free(s);
        return NULL;
    }
    raw_queue_init(&s->queue, &luring_ops);
    return s;
}

void luring_cleanup(LuringState *s)
{
    g_assert(!s->queue.ctx);
    port_ring_exit(&s->ring);
    g_free(s);
}

void luring_attach_aio_context(LuringState *s, AioContext *new_context)
{
    raw_queue_attach(&s->queue, new_context);
    aio_set_fd_handler(new_context, s->ring.ring_fd, ring_complete, NULL, ring_poll,
                       ring_complete, s);
}

void luring_detach_aio_context(LuringState *s, AioContext *old_context)
{
    raw_queue_detach(&s->queue, old_context, "luring_detach_aio_context");
    aio_set_fd_handler(old_context, s->ring.ring_fd, NULL, NULL, NULL, NULL, NULL);
}

int coroutine_fn luring_co_submit(int fd, uint64_t offset, QEMUIOVector *qiov, int type,
                                  uint64_t max_batch)
{
    LuringState *s = aio_get_linux_io_uring(qemu_get_current_aio_context());

    return raw_queue_co_submit(&s->queue, fd, offset, qiov, type, max_batch);
}
