/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The worker pool of one AioContext, and the handles of asynchronous requests.
 *
 * A piece of work goes through
 *
 *      QUEUED --(a worker takes it)--> ACTIVE --(its function returns)--> DONE
 *         \-----(cancelled, no thread to be had, or the pool is freed)----^
 *
 * and is handed back to the loop on DONE's list. A worker never touches work again once it
 * is on that list: its memory may be a coroutine's stack that is already in other use.
 */
#include "miniblk/osdep.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/queue.h"
#include "miniblk/thread-pool.h"
#include "miniblk/thread.h"
#include "aio/aio-internal.h"

enum {
    WORKERS_MAX_DEFAULT = 64,
    IDLE_TIME_MS_DEFAULT = 10 * 1000,
};

typedef enum WorkState { WORK_QUEUED, WORK_ACTIVE, WORK_DONE } WorkState;

typedef struct PoolWork PoolWork;
struct PoolWork {
    ThreadPoolFunc *func;
    void *arg;
    void (*complete)(PoolWork *work);   /* home thread; frees WORK */
    int ret;                    /* written before the work is DONE */
    WorkState state;            /* protected by the pool's lock */
    QTAILQ_ENTRY(PoolWork) next;        /* in QUEUE or DONE; the same */
};
typedef QTAILQ_HEAD(PoolWorkList, PoolWork) PoolWorkList;

struct ThreadPool {
    AioContext *ctx;
    QEMUBH *deliver_bh;
    unsigned in_flight;         /* submitted, callback not yet called; home thread */

    QemuMutex lock;             /* a leaf; protects all below */
    QemuCond work_cond;         /* QUEUE has grown, limits have changed, or STOPPING */
    QemuCond gone_cond;         /* WORKERS has become 0 */
    PoolWorkList queue;
    unsigned queued;            /* length of QUEUE */
    PoolWorkList done;          /* not empty: DELIVER_BH is scheduled, or about to be */
    unsigned n_done;            /* length of DONE */
    unsigned workers;           /* threads started and not yet gone */
    unsigned idle;              /* of these, the ones that will look at QUEUE next */
    unsigned workers_min, workers_max;
    int idle_time_ms;           /* after which a worker above the minimum leaves */
    bool stopping;
};

/* ---- handing back ---------------------------------------------------------------------- */

/* Lock held. True when the caller must schedule the bottom half after unlocking. */
static bool push_done(ThreadPool *pool, PoolWork *work)
{
    bool first = QTAILQ_EMPTY(&pool->done);

    g_assert(work->state != WORK_DONE);
    work->state = WORK_DONE;
    QTAILQ_INSERT_TAIL(&pool->done, work, next);
    pool->n_done++;
    return first;
}

/*
 * Complete what is done, one at a time. A callback may poll until another work of this pool
 * is complete, which may be on the list already: so whenever something is left the bottom
 * half is pending while the callback runs, and the nested loop goes on from here.
 *
 * Callbacks submit anew, and workers may be as quick as we are: what was not done when we
 * came is left for the next iteration, or the rest of the loop would never have its turn.
 */
static void deliver(void *opaque)
{
    ThreadPool *pool = opaque;

    qemu_mutex_lock(&pool->lock);
    for (unsigned left = pool->n_done; left > 0 && pool->n_done > 0; left--) {
        PoolWork *work = QTAILQ_FIRST(&pool->done);
        QTAILQ_REMOVE(&pool->done, work, next);
        bool more = --pool->n_done > 0;
        qemu_mutex_unlock(&pool->lock);

        if (more) {
            qemu_bh_schedule(pool->deliver_bh);
        }
        pool->in_flight--;
        work->complete(work);
        qemu_mutex_lock(&pool->lock);
    }
    bool rest = pool->n_done > 0;
    if (!rest) {
        /*
         * Whoever adds to the empty list schedules after adding, so a schedule that is taken
         * back here was for work that has been delivered above.
         */
        qemu_bh_cancel(pool->deliver_bh);
    }
    qemu_mutex_unlock(&pool->lock);
    if (rest) {
        qemu_bh_schedule(pool->deliver_bh);
    }
}

/* ---- workers --------------------------------------------------------------------------- */

/* Lock held. */
static bool must_leave(ThreadPool *pool)
{
    return pool->stopping || pool->workers > pool->workers_max;
}

/*
 * Lock held; the caller is idle. Wait for work: true, or for a reason to leave: false. Then
 * the caller must be taken off WORKERS before the lock is dropped, or others who look at the
 * same number leave for the same reason.
 */
static bool worker_wait(ThreadPool *pool)
{
    for (;;) {
        if (must_leave(pool)) {
            return false;
        }
        if (!QTAILQ_EMPTY(&pool->queue)) {
            return true;
        }
        bool signalled = qemu_cond_timedwait(&pool->work_cond, &pool->lock,
                                             pool->idle_time_ms);
        if (!signalled && QTAILQ_EMPTY(&pool->queue) && pool->workers > pool->workers_min) {
            return false;
        }
    }
}

/* Lock held; the caller is idle and there is work. It is ACTIVE afterwards. */
static PoolWork *take_work(ThreadPool *pool)
{
    PoolWork *work = QTAILQ_FIRST(&pool->queue);

    g_assert(work->state == WORK_QUEUED && pool->queued > 0 && pool->idle > 0);
    QTAILQ_REMOVE(&pool->queue, work, next);
    work->state = WORK_ACTIVE;
    pool->queued--;
    pool->idle--;
    return work;
}

/* Lock held, and dropped meanwhile. */
static void kick_locked(ThreadPool *pool)
{
    qemu_mutex_unlock(&pool->lock);
    /* Pool and context stay as long as this thread is counted in WORKERS. */
    aio__bh_schedule_pinned(pool->deliver_bh);
    qemu_mutex_lock(&pool->lock);
}

/*
 * A new thread inherits from whoever happened to start it; a worker is not to be bound to the
 * processors of an IOThread, whose loop it would keep from running.
 */
static void leave_creator_behind(void)
{
    cpu_set_t cpus;

    if (port_process_affinity(&cpus) == 0) {
        port_thread_set_affinity(port_thread_self(), &cpus);
    }
    port_thread_set_name(port_thread_self(), "worker");
}

static void *worker_run(void *opaque)
{
    ThreadPool *pool = opaque;
    bool kick = false;          /* DELIVER_BH is owed a schedule */

    leave_creator_behind();
    qemu_mutex_lock(&pool->lock);
    for (;;) {
        if (kick && (QTAILQ_EMPTY(&pool->queue) || must_leave(pool))) {
            kick_locked(pool);
            kick = false;
        }
        if (!worker_wait(pool)) {
            break;
        }
        PoolWork *work = take_work(pool);
        qemu_mutex_unlock(&pool->lock);
        if (kick) {
            aio__bh_schedule_pinned(pool->deliver_bh);
        }
        int ret = work->func(work->arg);

        qemu_mutex_lock(&pool->lock);
        work->ret = ret;
        kick = push_done(pool, work);
        pool->idle++;
    }
    pool->idle--;
    if (--pool->workers == 0) {
        qemu_cond_broadcast(&pool->gone_cond);
    } else if (!QTAILQ_EMPTY(&pool->queue)) {
        /*
         * We may have been woken for work that we do not take, and so may others who leave
         * now; each of those who stay must look.
         */
        qemu_cond_broadcast(&pool->work_cond);
    }
    qemu_mutex_unlock(&pool->lock);
    return NULL;
}

/* Lock held. False when the system has no thread left. */
static bool spawn_worker(ThreadPool *pool)
{
    QemuThread thread;

    if (qemu_thread_try_create(&thread, NULL, worker_run, pool, QEMU_THREAD_DETACHED) < 0) {
        return false;
    }
    pool->workers++;
    pool->idle++;
    return true;
}

/* Lock held. WORK, which is queued, ends with RET. As push_done(). */
static bool take_back(ThreadPool *pool, PoolWork *work, int ret)
{
    QTAILQ_REMOVE(&pool->queue, work, next);
    pool->queued--;
    work->ret = ret;
    return push_done(pool, work);
}

static void pool_submit(ThreadPool *pool, PoolWork *work)
{
    bool kick = false, wake = false;

    pool->in_flight++;
    qemu_mutex_lock(&pool->lock);
    work->state = WORK_QUEUED;
    QTAILQ_INSERT_TAIL(&pool->queue, work, next);
    pool->queued++;
    if (unlikely(pool->stopping)) {
        kick = take_back(pool, work, -ECANCELED);
    } else if (pool->queued > pool->idle &&
               pool->workers < PORT_WORKERS_MAX(pool->workers_max)) {
        /* Without a new thread it waits for one of the others, if there is any. */
        if (!spawn_worker(pool) && pool->workers == 0) {
            kick = take_back(pool, work, -EAGAIN);
        }
    } else {
        wake = pool->idle > 0;
    }
    qemu_mutex_unlock(&pool->lock);
    /* After unlocking, so that who is woken does not run into the lock at once. */
    if (wake) {
        qemu_cond_signal(&pool->work_cond);
    }
    if (kick) {
        qemu_bh_schedule(pool->deliver_bh);
    }
}

/* Take WORK back if no worker has begun it. */
static void pool_cancel(ThreadPool *pool, PoolWork *work)
{
    bool kick = false;

    qemu_mutex_lock(&pool->lock);
    if (work->state == WORK_QUEUED) {
        kick = take_back(pool, work, -ECANCELED);
    }
    qemu_mutex_unlock(&pool->lock);
    if (kick) {
        qemu_bh_schedule(pool->deliver_bh);
    }
}

/* ---- life ------------------------------------------------------------------------------ */

ThreadPool *thread_pool_new(AioContext *ctx)
{
    ThreadPool *pool = g_new0(ThreadPool, 1);

    pool->ctx = ctx;
    pool->workers_max = WORKERS_MAX_DEFAULT;
    pool->idle_time_ms = IDLE_TIME_MS_DEFAULT;
    qemu_mutex_init(&pool->lock);
    qemu_cond_init(&pool->work_cond);
    qemu_cond_init(&pool->gone_cond);
    QTAILQ_INIT(&pool->queue);
    QTAILQ_INIT(&pool->done);
    pool->deliver_bh = aio_bh_new(ctx, deliver, pool);
    return pool;
}

void thread_pool_free(ThreadPool *pool)
{
    if (!pool) {
        return;
    }
    qemu_mutex_lock(&pool->lock);
    pool->stopping = true;
    while (!QTAILQ_EMPTY(&pool->queue)) {
        take_back(pool, QTAILQ_FIRST(&pool->queue), -ECANCELED);
    }
    qemu_cond_broadcast(&pool->work_cond);
    while (pool->workers) {
        qemu_cond_wait(&pool->gone_cond, &pool->lock);
    }
    qemu_mutex_unlock(&pool->lock);

    /* The loop will not run again, but every callback is owed its one call. */
    do {
        deliver(pool);
    } while (pool->n_done > 0);     /* a callback has submitted, in vain */
    g_assert(QTAILQ_EMPTY(&pool->queue) && pool->queued == 0 && pool->idle == 0);
    g_assert(pool->in_flight == 0);
    qemu_bh_delete(pool->deliver_bh);
    qemu_cond_destroy(&pool->gone_cond);
    qemu_cond_destroy(&pool->work_cond);
    qemu_mutex_destroy(&pool->lock);
    g_free(pool);
}

void thread_pool_set_limits(ThreadPool *pool, int64_t min, int64_t max)
{
    g_assert(min >= 0 && max > 0 && min <= max && max <= INT_MAX);

    QEMU_MUTEX_GUARD(&pool->lock);
    pool->workers_min = min;
    pool->workers_max = max;
    while (!pool->stopping && pool->workers < pool->workers_max &&
           (pool->workers < pool->workers_min || pool->queued > pool->idle) &&
           spawn_worker(pool)) {
        /* as many as are wanted, or as the system has */
    }
    /* The ones above the new maximum leave. */
    qemu_cond_broadcast(&pool->work_cond);
}

void thread_pool_set_idle_time(ThreadPool *pool, int ms)
{
    g_assert(ms >= 0);

    QEMU_MUTEX_GUARD(&pool->lock);
    pool->idle_time_ms = ms;
    qemu_cond_broadcast(&pool->work_cond);      /* those who wait, wait anew */
}

bool thread_pool_busy(ThreadPool *pool)
{
    return pool->in_flight;
}

/* ---- submitting ------------------------------------------------------------------------ */

static ThreadPool *current_pool(void)
{
    AioContext *ctx = qemu_get_current_aio_context();

    g_assert(ctx);      /* a thread without a loop has nowhere to be called back */
    return aio_get_thread_pool(ctx);
}

typedef struct PoolAiocb {
    BlockAIOCB common;
    PoolWork work;
    ThreadPool *pool;
} PoolAiocb;

static void aiocb_complete(PoolWork *work)
{
    PoolAiocb *acb = container_of(work, PoolAiocb, work);

    if (acb->common.cb) {
        acb->common.cb(acb->common.opaque, work->ret);
    }
    qemu_aio_unref(acb);
}

static void aiocb_cancel(BlockAIOCB *common)
{
    PoolAiocb *acb = container_of(common, PoolAiocb, common);
    pool_cancel(acb->pool, &acb->work);
}

static const AIOCBInfo pool_aiocb_info = {
    .aiocb_size = sizeof(PoolAiocb),
    .cancel_async = aiocb_cancel,
};

BlockAIOCB *thread_pool_submit_aio(ThreadPoolFunc *func, void *arg,
                                   BlockCompletionFunc *cb, void *opaque)
{
    PoolAiocb *acb = qemu_aio_get(&pool_aiocb_info, NULL, cb, opaque);

    acb->pool = current_pool();
    acb->work = (PoolWork) { .func = func, .arg = arg, .complete = aiocb_complete };
    pool_submit(acb->pool, &acb->work);
    /* Still there: it is completed by our own thread's loop only. */
    return &acb->common;
}

void thread_pool_submit(ThreadPoolFunc *func, void *arg)
{
    thread_pool_submit_aio(func, arg, NULL, NULL);
}

typedef struct PoolCo {
    PoolWork work;
    Coroutine *co;
} PoolCo;

static void co_complete(PoolWork *work)
{
    aio_co_wake(container_of(work, PoolCo, work)->co);
}

int coroutine_fn thread_pool_submit_co(ThreadPoolFunc *func, void *arg)
{
    PoolCo p = {
        .work = { .func = func, .arg = arg, .complete = co_complete },
        .co = qemu_coroutine_self(),
    };

    g_assert(qemu_in_coroutine());
    pool_submit(current_pool(), &p.work);
    /* Delivery waits for our thread's loop, which runs again only after we yield. */
    port_note(PORT_NOTE_CO_WAIT, qemu_get_current_aio_context(), "a worker and the loop");
    qemu_coroutine_yield();
    g_assert(p.work.state == WORK_DONE);
    return p.work.ret;
}
