/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way of a request through an engine:
 *
 *      co_submit() -> PENDING -> ops->submit() -> kernel -> ops->take() -> coroutine woken
 *                      ^    \------(refused)-------> FAILED ----^  |
 *                      \-----------------(to be tried again)-------/
 *
 * Requests wait on PENDING until the loop is about to look for events, or the producer's
 * section ends (aio/defer-call.c), so that one system call takes over all that were made.
 * Not all of them wait: a disk that has completed everything has nothing to do meanwhile. So
 * the first of a turn of the loop goes at once, then two, four and so on: the disk is at work
 * when the second is made, and there are few calls all the same.
 *
 * A coroutine is woken from the loop only, never from the submission path: the one to be woken
 * might be further up that very stack.
 *
 * All of an engine belongs to its context's home thread; there are no locks.
 */
#include "aio/raw-queue.h"
#include "aio/aio-internal.h"
#include "miniblk/coroutine.h"
#include "miniblk/defer-call.h"

enum { BATCH_DEFAULT = 16, TRIES_MAX = 64 };

/* ---- submission ------------------------------------------------------------------------ */

static void arm_complete_bh(RawQueue *q)
{
    if (!q->complete_bh_armed) {
        q->complete_bh_armed = true;
        qemu_bh_schedule(q->complete_bh);
    }
}

static RawRequest *pop_pending(RawQueue *q)
{
    RawRequest *req = QSIMPLEQ_FIRST(&q->pending);

    g_assert(req && q->pending_count > 0);
    QSIMPLEQ_REMOVE_HEAD(&q->pending, next);
    q->pending_count--;
    return req;
}

static void fail_first_pending(RawQueue *q, int ret)
{
    RawRequest *req = pop_pending(q);

    req->ret = ret;
    QSIMPLEQ_INSERT_TAIL(&q->failed, req, next);
    q->failed_count++;
    arm_complete_bh(q);
}

static unsigned batch_max(RawQueue *q, uint64_t max_batch)
{
    uint64_t of_context = qatomic_read(&q->ctx->aio_max_batch);

    if (of_context && (!max_batch || of_context < max_batch)) {
        max_batch = of_context;
    }
    return max_batch ? MIN(max_batch, RAW_QUEUE_BATCH_MAX) : BATCH_DEFAULT;
}

static void submit_pending(RawQueue *q)
{
    while (q->pending_count > 0 && q->in_flight < RAW_QUEUE_REQUESTS_MAX) {
        unsigned n = MIN(MIN(q->pending_count, q->batch),
                         RAW_QUEUE_REQUESTS_MAX - q->in_flight);
        int ret = q->ops->submit(q, n);

        if (ret == -EAGAIN || ret == 0) {
            break;
        }
        if (ret < 0) {
            /* It is the first one that the kernel refuses; the others get their own try. */
            fail_first_pending(q, ret);
            continue;
        }
        g_assert(ret <= (int)n);
        q->in_flight += ret;
        while (ret-- > 0) {
            pop_pending(q);
        }
    }
    q->blocked = q->pending_count > 0;
    if (q->blocked && q->in_flight == 0) {
        /* Nothing of ours will complete and so give us the next chance. */
        qemu_bh_schedule_idle(q->retry_bh);
    }
}

static void retry(void *opaque)
{
    submit_pending(opaque);
}

/* The end of a batch. */
static void flush(void *opaque)
{
    RawQueue *q = opaque;

    if (!q->blocked) {
        submit_pending(q);
    }
}

static void flush_hook(AioBatchHook *hook)
{
    RawQueue *q = container_of(hook, RawQueue, hook);

    q->early = 1;
    flush(q);
}

static void enqueue(RawQueue *q, RawRequest *req)
{
    QSIMPLEQ_INSERT_TAIL(&q->pending, req, next);
    q->pending_count++;
    if (q->blocked) {
        return;
    }
    bool in_section = unlikely(defer_call_in_section());
    aio_batch_arm(q->ctx, &q->hook);
    if (q->pending_count >= (in_section ? q->batch : MIN(q->early, q->batch))) {
        q->early = MIN(2 * q->early, q->batch);
        submit_pending(q);
    } else if (in_section) {
        defer_call(flush, q);
    }
}

/* ---- completion ------------------------------------------------------------------------ */

/* When the kernel has only said that it could not do it now, ask again: true. */
static bool try_again(RawQueue *q, RawRequest *req)
{
    if (likely(req->ret != -EAGAIN && req->ret != -EINTR) || ++req->tries == TRIES_MAX) {
        return false;
    }
    enqueue(q, req);
    return true;
}

static RawRequest *next_complete(RawQueue *q)
{
    RawRequest *req = QSIMPLEQ_FIRST(&q->failed);

    if (unlikely(req)) {
        QSIMPLEQ_REMOVE_HEAD(&q->failed, next);
        q->failed_count--;
        return req;
    }
    do {
        req = q->ops->take(q);
        if (!req) {
            return NULL;
        }
        g_assert(q->in_flight > 0);
        q->in_flight--;
    } while (unlikely(try_again(q, req)));
    return req;
}

/*
 * Whether the loop must come here again by itself: something is complete whose signal may
 * have been consumed, or nothing may be left whose completion would unblock the queue.
 */
static bool must_return(RawQueue *q)
{
    return q->blocked || q->failed_count > 0 || q->ops->ready(q);
}

/*
 * What is woken may poll; then the rest must not be stuck behind it in this suspended loop:
 * hence the bottom half, pending while there is a rest, by which the nested loop comes here
 * and goes on.
 *
 * What is woken submits anew, which may be complete before we look again: no more are woken
 * than were under way when we came, or the rest of the loop would never have its turn.
 */
void raw_queue_complete(RawQueue *q)
{
    RawRequest *req = NULL;

    for (unsigned left = q->in_flight + q->failed_count; left > 0; left--) {
        req = next_complete(q);
        if (!req) {
            break;
        }
        if (must_return(q)) {
            arm_complete_bh(q);
        }
        req->done = true;
        aio_co_wake(req->co);
    }
    if (req && must_return(q)) {
        arm_complete_bh(q);
    } else if (q->complete_bh_armed) {
        q->complete_bh_armed = false;
        qemu_bh_cancel(q->complete_bh);
    }
    if (q->blocked) {
        submit_pending(q);
    }
}

static void complete_bh_cb(void *opaque)
{
    RawQueue *q = opaque;

    q->complete_bh_armed = false;
    raw_queue_complete(q);
}

/* ---- requests -------------------------------------------------------------------------- */

/* One trip to the kernel; bytes or -errno. */
static int64_t coroutine_fn submit_once(RawQueue *q, int fd, uint64_t offset,
                                        QEMUIOVector *qiov, int type, uint64_t max_batch)
{
    RawRequest req = { .co = qemu_coroutine_self(), .fd = fd, .offset_bytes = offset,
                      .qiov = qiov, .type = type };

    q->batch = batch_max(q, max_batch);
    enqueue(q, &req);
    port_note(PORT_NOTE_CO_WAIT, q->ctx, "the disk and the loop");
    qemu_coroutine_yield();
    g_assert(req.done);
    return req.ret;
}

/* The size is asked for because an O_DIRECT read that stopped there cannot be continued. */
static bool at_end_of_file(int fd, uint64_t offset)
{
    off_t end = lseek(fd, 0, SEEK_END);
    return end >= 0 && offset >= (uint64_t)end;
}

/*
 * The kernel stopped after DONE bytes. It does so at the end of the file, and also before a
 * bad or missing block, which the rest of the request then runs into: so try the rest, and
 * only where the file really ends are there zeroes to read.
 */
static int coroutine_fn QEMU_NOINLINE finish_short(RawQueue *q, int fd, uint64_t offset,
                                                   QEMUIOVector *qiov, size_t done, int type,
                                                   uint64_t max_batch)
{
    bool read = type & QEMU_AIO_READ;
    int64_t ret = -1;

    while (done < qiov->size && !(read && (ret == 0 || at_end_of_file(fd, offset + done)))) {
        QEMUIOVector rest;
        qemu_iovec_init_slice(&rest, qiov, done, qiov->size - done);
        ret = submit_once(q, fd, offset + done, &rest, type, max_batch);
        qemu_iovec_destroy(&rest);
        if (ret < 0) {
            /* -EINVAL: it stopped where O_DIRECT cannot go on */
            return ret != -EINVAL ? (int)ret : read ? -EIO : -ENOSPC;
        }
        if (ret == 0 && !read) {
            return -ENOSPC;
        }
        done += ret;
    }
    if (done < qiov->size) {
        qemu_iovec_memset(qiov, done, 0, qiov->size - done);
    }
    return 0;
}

int coroutine_fn raw_queue_co_submit(RawQueue *q, int fd, uint64_t offset, QEMUIOVector *qiov,
                                    int type, uint64_t max_batch)
{
    g_assert(in_aio_context_home_thread(q->ctx));
    g_assert(!qiov == !(type & (QEMU_AIO_READ | QEMU_AIO_WRITE)));

    int64_t ret = submit_once(q, fd, offset, qiov, type, max_batch);
    if (ret < 0 || !qiov || likely(ret == (int64_t)qiov->size)) {
        return MIN(ret, 0);
    }
    if (ret == 0 && (type & QEMU_AIO_WRITE)) {
        return -ENOSPC;
    }
    return finish_short(q, fd, offset, qiov, ret, type, max_batch);
}

/* ---- life ------------------------------------------------------------------------------ */

void raw_queue_init(RawQueue *q, const RawQueueOps *ops)
{
    *q = (RawQueue) { .ops = ops, .hook.flush = flush_hook, .early = 1 };
    QSIMPLEQ_INIT(&q->pending);
    QSIMPLEQ_INIT(&q->failed);
}

void raw_queue_attach(RawQueue *q, AioContext *ctx)
{
    g_assert(!q->ctx);
    q->ctx = ctx;
    q->complete_bh = aio_bh_new(ctx, complete_bh_cb, q);
    q->retry_bh = aio_bh_new(ctx, retry, q);
}

void raw_queue_detach(RawQueue *q, AioContext *ctx, const char *call)
{
    unsigned busy = q->in_flight + q->pending_count + q->failed_count;

    if (ctx != q->ctx || busy) {
        fprintf(stderr, "miniblk: %s: ", call);
        if (ctx != q->ctx) {
            fprintf(stderr, "the engine is bound to context %p, not %p\n", (void *)q->ctx,
                    (void *)ctx);
        } else {
            fprintf(stderr, "%u request(s) are in flight\n", busy);
        }
        abort();
    }
    aio__batch_disarm(q->ctx, &q->hook);
    qemu_bh_delete(q->complete_bh);
    qemu_bh_delete(q->retry_bh);
    q->ctx = NULL;
}
