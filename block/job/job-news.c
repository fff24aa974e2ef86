/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * News about jobs, for the layer above.
 *
 * States change under the job lock and in any thread; the listener is called in the main
 * thread with no lock held. So news is queued where it happens, in the order in which it
 * happens, and delivered when the lock is dropped: at once in the main thread, from a bottom
 * half otherwise.
 */
#include "miniblk/osdep.h"
#include "block/job/job-internal.h"

typedef struct QueuedNews {
    JobNews news;
    QSIMPLEQ_ENTRY(QueuedNews) next;
} QueuedNews;

/* The job lock protects the queue and its length, which is also read without it. */
static QSIMPLEQ_HEAD(, QueuedNews) queue = QSIMPLEQ_HEAD_INITIALIZER(queue);
static unsigned queue_length;           /* atomic */
static bool flush_scheduled;            /* atomic */
static void (*listener)(const JobNews *news);   /* main thread; atomic */

void job_set_listener(void (*fn)(const JobNews *news))
{
    GLOBAL_STATE_CODE();
    qatomic_set(&listener, fn);
}

static QueuedNews *news_new(Job *job, JobNewsKind kind)
{
    QueuedNews *n = g_new0(QueuedNews, 1);
    n->news = (JobNews) {
        .kind = kind,
        .id = g_strdup(job->id),
        .type = job->driver->job_type,
        .status = job->status,
        .is_block_job = job->fill_news,
        .progress = job->progress,
        .error = g_strdup(kind == JOB_NEWS_COMPLETED && job->err
                          ? error_get_pretty(job->err) : NULL),
    };
    if (job->fill_news) {
        job->fill_news(job, &n->news);
    }
    return n;
}

static void news_free(QueuedNews *n)
{
    g_free(n->news.id);
    g_free(n->news.error);
    g_free(n);
}

/* Nobody is told of internal jobs. */
static bool nobody_asks(Job *job)
{
    return !job->id || !qatomic_read(&listener);
}

static void enqueue(QueuedNews *n)
{
    QSIMPLEQ_INSERT_TAIL(&queue, n, next);
    qatomic_set(&queue_length, queue_length + 1);
}

void job__news(Job *job, JobNewsKind kind)
{
    if (!nobody_asks(job)) {
        enqueue(news_new(job, kind));
    }
}

void job__news_error(Job *job, bool is_write, int action)
{
    if (!nobody_asks(job)) {
        QueuedNews *n = news_new(job, JOB_NEWS_ERROR);
        n->news.operation_write = is_write;
        n->news.action = action;
        enqueue(n);
    }
}

bool job__news_pending(void)
{
    return qatomic_read(&queue_length) > 0;
}

static QueuedNews *pop(void)
{
    JOB_LOCK_GUARD();
    QueuedNews *n = QSIMPLEQ_FIRST(&queue);
    if (n) {
        QSIMPLEQ_REMOVE_HEAD(&queue, next);
        qatomic_set(&queue_length, queue_length - 1);
    }
    return n;
}

static void deliver_all(void)
{
    static bool delivering;     /* main thread; what the listener causes waits its turn */
    QueuedNews *n;

    if (delivering) {
        return;
    }
    delivering = true;
    while ((n = pop())) {
        if (listener) {
            listener(&n->news);
        }
        news_free(n);
    }
    delivering = false;
}

static void flush_bh(void *opaque)
{
    qatomic_set_mb(&flush_scheduled, false);
    deliver_all();
}

void job__news_flush(void)
{
    if (qemu_in_main_thread()) {
        deliver_all();
    } else if (!qatomic_xchg(&flush_scheduled, true)) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), flush_bh, NULL);
    }
}
