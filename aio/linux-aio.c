/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Linux AIO: the kernel reads and writes while the loop does something else.
 *
 *      laio_co_submit() -> PENDING -> io_submit() -> kernel -> EVENTS -> coroutine woken
 *                             \---------(refused)----------> FAILED ----^
 *
 * Requests wait on PENDING until the loop is about to look for events, so that one system
 * call takes over all that an iteration has made. A coroutine is woken from the loop only,
 * never from the submission path: the one to be woken might be further up that very stack.
 *
 * All of an engine belongs to its context's home thread; there are no locks.
 */
#include "miniblk/osdep.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/linux-aio.h"
#include "miniblk/queue.h"
#include "aio/port.h"

enum {
    REQUESTS_MAX = 1024,        /* with the kernel at a time, per engine */
    EVENTS_MAX = 128,           /* completions fetched per system call */
    BATCH_DEFAULT = 32,
    BATCH_MAX = 128,            /* requests per io_submit() */
};

typedef struct LaioRequest {
    struct iocb iocb;
    Coroutine *co;
    int64_t ret;                /* bytes or -errno; valid once the coroutine is woken */
    bool done;
    QSIMPLEQ_ENTRY(LaioRequest) next;   /* in PENDING or FAILED */
} LaioRequest;
typedef QSIMPLEQ_HEAD(, LaioRequest) LaioRequestList;

struct LinuxAioState {
    AioContext *ctx;
    io_context_t io;
    EventNotifier notifier;     /* the kernel signals it at each completion */
    AioBatchHook hook;

    LaioRequestList pending;
    unsigned pending_count;
    unsigned batch;             /* most requests per system call, as last asked for */
    unsigned in_flight;         /* with the kernel or in EVENTS */
    bool blocked;               /* the kernel takes no more before something completes */
    QEMUBH *retry_bh;           /* for when it is blocked with nothing in flight */

    /* Completions fetched and not yet delivered; a nested loop goes on at EVENT_NEXT. */
    struct io_event events[EVENTS_MAX];
    unsigned event_next, event_count;
    LaioRequestList failed;     /* refused by io_submit() */
    QEMUBH *complete_bh;
    bool complete_bh_armed;
};

/* ---- submission ------------------------------------------------------------------------ */

static void arm_complete_bh(LinuxAioState *s)
{
    if (!s->complete_bh_armed) {
        s->complete_bh_armed = true;
        qemu_bh_schedule(s->complete_bh);
    }
}

static LaioRequest *pop_pending(LinuxAioState *s)
{
    LaioRequest *req = QSIMPLEQ_FIRST(&s->pending);

    g_assert(req && s->pending_count > 0);
    QSIMPLEQ_REMOVE_HEAD(&s->pending, next);
    s->pending_count--;
    return req;
}

static void fail_first_pending(LinuxAioState *s, int ret)
{
    LaioRequest *req = pop_pending(s);

    req->ret = ret;
    QSIMPLEQ_INSERT_TAIL(&s->failed, req, next);
    arm_complete_bh(s);
}

static unsigned collect_batch(LinuxAioState *s, struct iocb **iocbs)
{
    unsigned max = MIN(s->batch, REQUESTS_MAX - s->in_flight);
    unsigned n = 0;
    LaioRequest *req;

    QSIMPLEQ_FOREACH(req, &s->pending, next) {
        if (n == max) {
            break;
        }
        iocbs[n++] = &req->iocb;
    }
    return n;
}

static void submit_pending(LinuxAioState *s)
{
    struct iocb *iocbs[BATCH_MAX];
    unsigned n;

    while ((n = collect_batch(s, iocbs)) > 0) {
        int ret = port_io_submit(s->io, n, iocbs);
        if (ret == -EINTR) {
            continue;
        }
        if (ret == -EAGAIN || ret == 0) {
            break;
        }
        if (ret < 0) {
            /* It is the first one that the kernel refuses; the others get their own try. */
            fail_first_pending(s, ret);
            continue;
        }
        g_assert(ret <= (int)n);
        s->in_flight += ret;
        while (ret-- > 0) {
            pop_pending(s);
        }
    }
    s->blocked = s->pending_count > 0;
    if (s->blocked && s->in_flight == 0) {
        /* Nothing of ours will complete and so give us the next chance. */
        qemu_bh_schedule_idle(s->retry_bh);
    }
}

static void retry(void *opaque)
{
    submit_pending(opaque);
}

static void flush_hook(AioBatchHook *hook)
{
    LinuxAioState *s = container_of(hook, LinuxAioState, hook);

    if (!s->blocked) {
        submit_pending(s);
    }
}

static void enqueue(LinuxAioState *s, LaioRequest *req, uint64_t max_batch)
{
    QSIMPLEQ_INSERT_TAIL(&s->pending, req, next);
    s->pending_count++;
    s->batch = max_batch ? MIN(max_batch, BATCH_MAX) : BATCH_DEFAULT;
    if (s->blocked) {
        return;
    }
    if (s->pending_count >= s->batch) {
        submit_pending(s);
    } else {
        aio_batch_arm(s->ctx, &s->hook);
    }
}

/* ---- completion ------------------------------------------------------------------------ */

/* Whether there are completions in EVENTS, after fetching some if it was empty. */
static bool fetch_events(LinuxAioState *s)
{
    if (s->event_next < s->event_count) {
        return true;
    }
    /* With nothing there, libaio sees that from the ring in our memory: no system call. */
    int n;
    do {
        n = port_io_getevents(s->io, EVENTS_MAX, s->events);
    } while (n == -EINTR);
    g_assert(n >= 0);
    s->event_next = 0;
    s->event_count = n;
    return n > 0;
}

static LaioRequest *next_complete(LinuxAioState *s)
{
    LaioRequest *req = QSIMPLEQ_FIRST(&s->failed);

    if (unlikely(req)) {
        QSIMPLEQ_REMOVE_HEAD(&s->failed, next);
        return req;
    }
    if (!fetch_events(s)) {
        return NULL;
    }
    const struct io_event *ev = &s->events[s->event_next++];
    req = ev->data;
    req->ret = (long)ev->res;
    g_assert(s->in_flight > 0);
    s->in_flight--;
    return req;
}

/* Whether something may be complete whose signal has been consumed already. */
static bool more_to_complete(LinuxAioState *s)
{
    return s->event_next < s->event_count || s->event_count == EVENTS_MAX ||
           !QSIMPLEQ_EMPTY(&s->failed);
}

/*
 * Wake all whose requests are complete. What is woken may poll; then the rest must not be
 * stuck behind it in this suspended loop: hence the bottom half, pending while there is a
 * rest, by which the nested loop comes here and goes on.
 */
static void complete_all(LinuxAioState *s)
{
    LaioRequest *req;

    while ((req = next_complete(s))) {
        if (more_to_complete(s)) {
            arm_complete_bh(s);
        }
        req->done = true;
        aio_co_wake(req->co);
    }
    if (s->complete_bh_armed) {
        s->complete_bh_armed = false;
        qemu_bh_cancel(s->complete_bh);
    }
    if (s->blocked) {
        submit_pending(s);
    }
}

static void complete_bh_cb(void *opaque)
{
    LinuxAioState *s = opaque;

    s->complete_bh_armed = false;
    complete_all(s);
}

static void notifier_read(EventNotifier *notifier)
{
    LinuxAioState *s = container_of(notifier, LinuxAioState, notifier);

    /* First consume the signal, then look: what completes in between signals again. */
    event_notifier_test_and_clear(notifier);
    complete_all(s);
}

static bool notifier_poll(void *opaque)
{
    return fetch_events(container_of((EventNotifier *)opaque, LinuxAioState, notifier));
}

static void notifier_poll_ready(EventNotifier *notifier)
{
    complete_all(container_of(notifier, LinuxAioState, notifier));
}

/* ---- requests -------------------------------------------------------------------------- */

static void prepare(LaioRequest *req, int fd, uint64_t offset, QEMUIOVector *qiov,
                    enum LinuxAioType type)
{
    if (qiov->niov == 1 && type == LAIO_READ) {
        io_prep_pread(&req->iocb, fd, qiov->iov[0].iov_base, qiov->iov[0].iov_len, offset);
    } else if (qiov->niov == 1) {
        io_prep_pwrite(&req->iocb, fd, qiov->iov[0].iov_base, qiov->iov[0].iov_len, offset);
    } else if (type == LAIO_READ) {
        io_prep_preadv(&req->iocb, fd, qiov->iov, qiov->niov, offset);
    } else {
        io_prep_pwritev(&req->iocb, fd, qiov->iov, qiov->niov, offset);
    }
}

/* One trip to the kernel; bytes or -errno. */
static int64_t coroutine_fn submit_once(LinuxAioState *s, int fd, uint64_t offset,
                                        QEMUIOVector *qiov, enum LinuxAioType type,
                                        uint64_t max_batch)
{
    LaioRequest req = { .co = qemu_coroutine_self() };

    prepare(&req, fd, offset, qiov, type);
    req.iocb.data = &req;
    io_set_eventfd(&req.iocb, event_notifier_get_fd(&s->notifier));
    enqueue(s, &req, max_batch);
    qemu_coroutine_yield();
    g_assert(req.done);
    return req.ret;
}

/*
 * The kernel stopped after DONE bytes. It does so at the end of the file, and also before a
 * bad or missing block, which the rest of the request then runs into: so try the rest, and
 * only where the file really ends are there zeroes to read.
 */
static int coroutine_fn QEMU_NOINLINE finish_short(LinuxAioState *s, int fd, uint64_t offset,
                                                   QEMUIOVector *qiov, size_t done,
                                                   enum LinuxAioType type, uint64_t max_batch)
{
    while (done < qiov->size) {
        if (type == LAIO_READ && (off_t)(offset + done) >= lseek(fd, 0, SEEK_END)) {
            qemu_iovec_memset(qiov, done, 0, qiov->size - done);
            return 0;
        }
        QEMUIOVector rest;
        qemu_iovec_init_slice(&rest, qiov, done, qiov->size - done);
        int64_t ret = submit_once(s, fd, offset + done, &rest, type, max_batch);
        qemu_iovec_destroy(&rest);
        if (ret <= 0) {
            /* -EINVAL: it stopped where O_DIRECT cannot go on */
            bool stuck = ret == 0 || ret == -EINVAL;
            return !stuck ? (int)ret : type == LAIO_READ ? -EIO : -ENOSPC;
        }
        done += ret;
    }
    return 0;
}

int coroutine_fn laio_co_submit(int fd, uint64_t offset, QEMUIOVector *qiov,
                                enum LinuxAioType type, uint64_t max_batch)
{
    LinuxAioState *s = aio_get_linux_aio(qemu_get_current_aio_context());
    int64_t ret = submit_once(s, fd, offset, qiov, type, max_batch);

    if (likely(ret == (int64_t)qiov->size)) {
        return 0;
    }
    if (ret < 0) {
        return ret;
    }
    if (ret == 0 && type == LAIO_WRITE) {
        return -ENOSPC;
    }
    return finish_short(s, fd, offset, qiov, ret, type, max_batch);
}

/* ---- life ------------------------------------------------------------------------------ */

LinuxAioState *laio_init(AioContext *ctx, Error **errp)
{
    LinuxAioState *s = g_new0(LinuxAioState, 1);
    int ret = event_notifier_init(&s->notifier, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "failed to initialize event notifier");
        g_free(s);
        return NULL;
    }
    ret = port_io_setup(REQUESTS_MAX, &s->io);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "failed to create linux AIO context");
        if (ret == -EAGAIN) {
            error_append_hint(errp, "The system's limit is in /proc/sys/fs/aio-max-nr.\n");
        }
        event_notifier_cleanup(&s->notifier);
        g_free(s);
        return NULL;
    }
    s->ctx = ctx;
    s->batch = BATCH_DEFAULT;
    s->hook.flush = flush_hook;
    QSIMPLEQ_INIT(&s->pending);
    QSIMPLEQ_INIT(&s->failed);
    s->complete_bh = aio_bh_new(ctx, complete_bh_cb, s);
    s->retry_bh = aio_bh_new(ctx, retry, s);
    aio_set_event_notifier(ctx, &s->notifier, notifier_read, notifier_poll,
                           notifier_poll_ready);
    return s;
}

void laio_cleanup(LinuxAioState *s)
{
    g_assert(s->in_flight == 0 && s->pending_count == 0 && QSIMPLEQ_EMPTY(&s->failed));
    aio_set_event_notifier(s->ctx, &s->notifier, NULL, NULL, NULL);
    qemu_bh_delete(s->complete_bh);
    qemu_bh_delete(s->retry_bh);
    port_io_destroy(s->io);
    event_notifier_cleanup(&s->notifier);
    g_free(s);
}
