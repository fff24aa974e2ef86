/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What aio/fd.c and the fd monitors share: the handler, and the monitor's interface. */
#ifndef AIO_FD_INTERNAL_H
#define AIO_FD_INTERNAL_H

#include "aio/aio-internal.h"

/* In AioHandler.ready_events beside the EPOLL* bits: io_poll has said so, not the monitor. */
#define FD_READY_POLLED (1u << 31)

struct AioHandler {
    int fd;
    IOHandler *io_read;
    IOHandler *io_write;
    AioPollFn *io_poll;
    IOHandler *io_poll_ready;
    void *opaque;
    bool deleted;               /* atomic; set under fd_lock */
    bool was_ready;             /* home thread; its descriptor has been, so poll it */
    bool in_poll_ready;         /* home thread; its io_poll_ready is on the stack */
    uint32_t ready_events;      /* home thread; not 0 while queued in ready_fds */
    AioHandler *next_ready;
    AioHandler *next_garbage;

    bool always_ready;          /* fdmon-epoll.c: epoll cannot watch it (a regular file) */
    bool armed;                 /* fdmon-io-uring.c: the ring has a poll of it; home thread */
    bool pending;               /* fdmon-io-uring.c: on the list of what to tell the ring */
    AioHandler *next_pending;
};

/*
 * A way of finding out which descriptors are ready. Readiness is level-triggered: a handler
 * is queued again as long as its descriptor stays ready.
 */
struct FdMonitor {
    const char *name;
    int (*init)(AioContext *ctx);           /* 0 or -errno */
    void (*destroy)(AioContext *ctx);
    /*
     * H (NULL: none) is in force for its descriptor, OLD (NULL: none) not any more. Under
     * fd_lock, any thread.
     */
    void (*update)(AioContext *ctx, AioHandler *h, AioHandler *old);
    /* Wait at most TIMEOUT_NS (-1: for ever) and queue the ready handlers. Home thread. */
    void (*wait)(AioContext *ctx, int64_t timeout_ns);
    /*
     * Queue the ready handlers without a system call that every look would cost; whether any
     * is ready. NULL when the monitor cannot. Home thread.
     */
    bool (*poll)(AioContext *ctx);
};

extern const FdMonitor fd_monitor_epoll, fd_monitor_io_uring;

/* EPOLL* bits H waits for. */
uint32_t fd__wanted_events(const AioHandler *h);
/* Queue H to be dispatched; EVENTS are EPOLL* bits or FD_READY_POLLED. Home thread. */
void fd__queue_ready(AioContext *ctx, AioHandler *h, uint32_t events);

#endif
