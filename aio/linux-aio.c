/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux AIO: io_submit() takes requests over, an eventfd says that some are complete, and
 * the ring that the kernel writes them to is read in place. The queue is aio/raw-queue.c's.
 */
#include "miniblk/osdep.h"
#include "miniblk/error.h"
#include "aio/raw-queue.h"
#include "aio/port.h"

struct LinuxAioState {
    RawQueue queue;
    io_context_t io;
    EventNotifier notifier;     /* the kernel signals it at each completion */
    struct iocb iocbs[RAW_QUEUE_BATCH_MAX];      /* only the kernel's during io_submit() */
    struct iocb *iocb_ptrs[RAW_QUEUE_BATCH_MAX]; /* to these; fixed */
};

static void prepare(LinuxAioState *s, struct iocb *iocb, RawRequest *req)
{
    const QEMUIOVector *qiov = req->qiov;
    uint64_t offset = req->offset_bytes;

    if (qiov->niov > 1 && (req->type & QEMU_AIO_READ)) {
        io_prep_preadv(iocb, req->fd, qiov->iov, qiov->niov, offset);
    } else if (qiov->niov > 1) {
        io_prep_pwritev(iocb, req->fd, qiov->iov, qiov->niov, offset);
    } else if (req->type & QEMU_AIO_READ) {
        io_prep_pread(iocb, req->fd, qiov->iov->iov_base, qiov->iov->iov_len, offset);
    } else {
        io_prep_pwrite(iocb, req->fd, qiov->iov->iov_base, qiov->iov->iov_len, offset);
    }
    iocb->aio_rw_flags = req->type & QEMU_AIO_FUA ? RWF_DSYNC : 0;
    iocb->data = req;
    io_set_eventfd(iocb, event_notifier_get_fd(&s->notifier));
}

static int laio_submit(RawQueue *q, unsigned n)
{
    LinuxAioState *s = container_of(q, LinuxAioState, queue);
    RawRequest *req = QSIMPLEQ_FIRST(&q->pending);
    int ret;

    for (unsigned i = 0; i < n; i++, req = QSIMPLEQ_NEXT(req, next)) {
        prepare(s, &s->iocbs[i], req);
    }
    do {
        ret = port_io_submit(s->io, n, s->iocb_ptrs);
    } while (ret == -EINTR);
    return ret;
}

static bool laio_ready(RawQueue *q)
{
    return port_io_ready(container_of(q, LinuxAioState, queue)->io);
}

static RawRequest *laio_take(RawQueue *q)
{
    LinuxAioState *s = container_of(q, LinuxAioState, queue);
    struct io_event ev;

    if (!port_io_take(s->io, &ev)) {
        return NULL;
    }
    RawRequest *req = ev.data;
    req->ret = (long)ev.res;
    return req;
}

static const RawQueueOps laio_ops = { laio_submit, laio_ready, laio_take };

/* ---- the loop's side ------------------------------------------------------------------- */

static void notifier_read(EventNotifier *notifier)
{
    LinuxAioState *s = container_of(notifier, LinuxAioState, notifier);

    /* First consume the signal, then look: what completes in between signals again. */
    event_notifier_test_and_clear(notifier);
    raw_queue_complete(&s->queue);
}

static bool notifier_poll(void *opaque)
{
    return laio_ready(&container_of((EventNotifier *)opaque, LinuxAioState, notifier)->queue);
}

static void notifier_poll_ready(EventNotifier *notifier)
{
    raw_queue_complete(&container_of(notifier, LinuxAioState, notifier)->queue);
}

/* ---- life ------------------------------------------------------------------------------ */

LinuxAioState *laio_init(Error **errp)
{
    LinuxAioState *s = g_new0(LinuxAioState, 1);
    int ret = event_notifier_init(&s->notifier, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "failed to initialize event notifier");
        g_free(s);
        return NULL;
    }
    ret = port_io_setup(RAW_QUEUE_REQUESTS_MAX, &s->io);
    if (ret == 0 && !port_io_ring_usable(s->io)) {
        port_io_destroy(s->io);
        ret = -ENOSYS;
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "failed to create linux AIO context");
        if (ret == -EAGAIN) {
            error_append_hint(errp, "The system's limit is in /proc/sys/fs/aio-max-nr.\n");
        }
        event_notifier_cleanup(&s->notifier);
        g_free(s);
        return NULL;
    }
    raw_queue_init(&s->queue, &laio_ops);
    for (unsigned i = 0; i < RAW_QUEUE_BATCH_MAX; i++) {
        s->iocb_ptrs[i] = &s->iocbs[i];
    }
    return s;
}

void laio_cleanup(LinuxAioState *s)
{
    g_assert(!s->queue.ctx);
    port_io_destroy(s->io);
    event_notifier_cleanup(&s->notifier);
    g_free(s);
}

void laio_attach_aio_context(LinuxAioState *s, AioContext *new_context)
{
    raw_queue_attach(&s->queue, new_context);
    aio_set_event_notifier(new_context, &s->notifier, notifier_read, notifier_poll,
                           notifier_poll_ready);
}

void laio_detach_aio_context(LinuxAioState *s, AioContext *old_context)
{
    raw_queue_detach(&s->queue, old_context, "laio_detach_aio_context");
    aio_set_event_notifier(old_context, &s->notifier, NULL, NULL, NULL);
}

int coroutine_fn laio_co_submit(int fd, uint64_t offset, QEMUIOVector *qiov, int type,
                                uint64_t max_batch)
{
    LinuxAioState *s = aio_get_linux_aio(qemu_get_current_aio_context());

    g_assert(!(type & QEMU_AIO_FLUSH));
    return raw_queue_co_submit(&s->queue, fd, offset, qiov, type, max_batch);
}
