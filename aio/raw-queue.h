/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the engines of raw-aio.h have in common: the queue from a coroutine to the kernel. */
#ifndef AIO_RAW_QUEUE_H
#define AIO_RAW_QUEUE_H

#include "miniblk/osdep.h"
#include "miniblk/queue.h"
#include "miniblk/raw-aio.h"

enum {
    RAW_QUEUE_REQUESTS_MAX = 1024,  /* with the kernel at a time, per engine */
    RAW_QUEUE_BATCH_MAX = 128,      /* per system call */
};

/* One trip to the kernel; on the stack of the coroutine that waits for it. */
typedef struct RawRequest {
    Coroutine *co;
    int64_t ret;                /* bytes or -errno; valid once the coroutine is woken */
    QEMUIOVector *qiov;         /* NULL: a flush */
    uint64_t offset_bytes;
    int fd;
    int type;                   /* QEMU_AIO_* */
    unsigned tries;             /* that have ended with -EAGAIN or -EINTR */
    bool done;
    QSIMPLEQ_ENTRY(RawRequest) next;    /* in PENDING or FAILED */
} RawRequest;
typedef QSIMPLEQ_HEAD(, RawRequest) RawRequestList;

typedef struct RawQueue RawQueue;
/* What makes an engine. All are called in the home thread, and complete nothing. */
typedef struct RawQueueOps {
    /*
     * Offer the first N (1 to RAW_QUEUE_BATCH_MAX) of PENDING to the kernel. How many it has
     * taken, which are its own then; -EAGAIN when it has no room; another -errno when it
     * refuses the first one for good.
     */
    int (*submit)(RawQueue *q, unsigned n);
    /* Whether a request is complete that take() has not returned. Makes no system call. */
    bool (*ready)(RawQueue *q);
    /* The next one that is complete, with ret set; NULL when there is none. */
    RawRequest *(*take)(RawQueue *q);
} RawQueueOps;

/* All of it belongs to the home thread of CTX. */
struct RawQueue {
    const RawQueueOps *ops;
    AioContext *ctx;            /* NULL while detached */
    AioBatchHook hook;
    QEMUBH *complete_bh;
    bool complete_bh_armed;
    bool blocked;               /* the kernel takes no more before something completes */
    QEMUBH *retry_bh;           /* for when it is blocked with nothing in flight */
    unsigned batch;             /* most requests per system call, as last asked for */
    unsigned early;             /* so many are handed over without waiting for more */
    unsigned in_flight;         /* with the kernel, or complete and not taken */
    unsigned pending_count, failed_count;
    RawRequestList pending;
    RawRequestList failed;      /* refused, to be completed by the loop */
};

void raw_queue_init(RawQueue *q, const RawQueueOps *ops);
void raw_queue_attach(RawQueue *q, AioContext *ctx);
/* Aborts while requests are in flight; CALL names the public function in the message. */
void raw_queue_detach(RawQueue *q, AioContext *ctx, const char *call);

/* Wake all whose requests are complete. From the loop. */
void raw_queue_complete(RawQueue *q);

/* The body of laio_co_submit() and luring_co_submit(). */
int coroutine_fn raw_queue_co_submit(RawQueue *q, int fd, uint64_t offset, QEMUIOVector *qiov,
                                    int type, uint64_t max_batch);

#endif
