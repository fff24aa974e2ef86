/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of an AioContext, shared by the files of aio/. */
#ifndef AIO_INTERNAL_H
#define AIO_INTERNAL_H

#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/aio-wait.h"
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/thread.h"
#include "aio/port.h"
#include "aio/port-note.h"

typedef struct AioHandler AioHandler;
typedef struct FdMonitor FdMonitor;
typedef struct FdRing FdRing;
typedef struct TimerHeap {
    GPtrArray *timers;          /* binary heap by expire_time; of QEMUTimer */
} TimerHeap;

struct AioContext {
    unsigned refcount;          /* atomic */

    /* aio/notify.c: the wake-up protocol */
    int wake_state;             /* atomic; AIO_AWAKE, AIO_NOTIFIED or AIO_ASLEEP */
    EventNotifier notifier;     /* wakes the home thread out of AIO_ASLEEP */

    /* aio/bh.c: messages */
    AioMessage *incoming;       /* atomic LIFO, pushed by any thread */
    AioMessage *incoming_idle;  /* the same for idle bottom halves */
    AioMessage *ready, **ready_tail;    /* FIFO being run; home thread */
    uint64_t batch;             /* number of drains of INCOMING so far; home thread */
    unsigned bhs_alive;         /* atomic; made with aio_bh_new() and not deleted */

    /* aio/context-lock.c */
    unsigned lock_word;         /* atomic; who owns it, see there */
    unsigned lock_depth;        /* owner only */
    AioContext *lock_next_held; /* owner only */
    char *lock_name;            /* what messages call the context; NULL: its address */

    /* aio/fd.c */
    const FdMonitor *fd_monitor;
    QemuMutex fd_lock;          /* protects HANDLERS; taken to write the next three */
    GHashTable *handlers;       /* fd -> AioHandler in force */
    unsigned fd_changes;        /* atomic; counts changes of HANDLERS */
    unsigned unpollable;        /* atomic; how many of them have no io_poll */
    bool pollers_stale;         /* atomic; HANDLERS has changed since POLLERS was made */
    AioHandler *garbage;        /* atomic; replaced, to be freed when no dispatch can see them */
    GPtrArray *pollers;         /* of AioHandler that have io_poll; home thread */
    AioHandler *ready_fds, **ready_fds_tail;    /* FIFO being dispatched; home thread */

    /* aio/fdmon-epoll.c */
    int epoll_fd;
    unsigned always_ready;      /* atomic; under fd_lock; handlers that epoll cannot watch */

    FdRing *fd_ring;            /* aio/fdmon-io-uring.c; NULL when not in use */

    /* aio/busy-poll.c */
    int64_t poll_max_ns, poll_grow, poll_shrink;    /* atomic; any thread */
    int64_t poll_window_ns;     /* home thread */

    /* aio/timer.c */
    QemuMutex timer_lock;       /* protects TIMERS and the expire_time of each */
    TimerHeap timers[QEMU_CLOCK_MAX];
    unsigned timers_armed;      /* atomic */

    /* aio/context.c */
    unsigned poll_depth;        /* nesting of aio_poll(); home thread */
    GSource *source;            /* while there is one; it holds a reference to us */
    bool source_checked;        /* since the last dispatch; home thread */
    QEMUBH *kick_bh;            /* does nothing; see aio/wait.c */

    AioBatchHook *batch_hooks;  /* armed ones; home thread; aio/batch.c */

    QemuMutex engine_lock;      /* protects the making of engines */
    struct ThreadPool *thread_pool;
    struct LinuxAioState *linux_aio;
    struct LuringState *linux_io_uring;
    int64_t aio_max_batch;      /* atomic; 0: the engines' choice */
};

/* aio/notify.c */
int aio__wake_init(AioContext *ctx);
void aio__wake_destroy(AioContext *ctx);
/* Forget notifications so far, and whether there were any; look for work then. Home thread. */
bool aio__notify_accept(AioContext *ctx);
/* About to sleep: false when notified since aio__notify_accept(). Home thread. */
bool aio__sleep_begin(AioContext *ctx);
void aio__sleep_end(AioContext *ctx);
/* Notified since aio__notify_accept(). Home thread. */
bool aio__notified(AioContext *ctx);

/* aio/bh.c */
/*
 * qemu_bh_schedule() for threads that the freeing of BH's context waits for. The ordinary
 * one holds a reference for a moment; if that were the last, such a thread would have to
 * free the context itself, and so to wait for itself.
 */
void aio__bh_schedule_pinned(QEMUBH *bh);
bool aio__messages_pending(AioContext *ctx);
bool aio__messages_idle_pending(AioContext *ctx);
bool aio__messages_run(AioContext *ctx);
/* Free what is queued and dead; abort naming CTX's leaked bottom halves. */
void aio__messages_destroy(AioContext *ctx);

/* aio/fd.c */
int aio__fds_init(AioContext *ctx);
void aio__fds_destroy(AioContext *ctx);
/* Wait at most TIMEOUT_NS (-1: for ever) and queue the ready handlers. Home thread. */
void aio__fds_wait(AioContext *ctx, int64_t timeout_ns);
/*
 * Queue the ready handlers, by the cheapest way that finds them all. With LAZY one that can be
 * polled and never was ready before may be left for the next time. Home thread.
 */
void aio__fds_look(AioContext *ctx, bool lazy);
/*
 * Look without a system call: queue those whose io_poll says so. True if anything is ready.
 * *COMPLETE: whether all could be asked.
 */
bool aio__fds_poll(AioContext *ctx, bool *complete);
/* Whether it makes sense to call aio__fds_poll() in place of aio__fds_wait(). */
bool aio__fds_can_poll(AioContext *ctx);
bool aio__fds_ready(AioContext *ctx);
bool aio__fds_dispatch(AioContext *ctx);
void aio__fds_collect_garbage(AioContext *ctx);

/* aio/busy-poll.c */
/* Look for work until the window or TIMEOUT_NS (-1: none) has passed; whether it came. */
bool aio__busy_poll(AioContext *ctx, int64_t start_ns, int64_t timeout_ns);
/* It took WAITED_NS until there was something to do: set the next window. */
void aio__busy_poll_adapt(AioContext *ctx, int64_t waited_ns);

/* aio/timer.c */
void aio__timers_init(AioContext *ctx);
void aio__timers_destroy(AioContext *ctx);
/* ns until the first timer expires: 0 now, -1 none armed. */
int64_t aio__timers_deadline_ns(AioContext *ctx);
bool aio__timers_run(AioContext *ctx);

/* aio/batch.c */
void aio__batch_flush(AioContext *ctx);
void aio__batch_disarm(AioContext *ctx, AioBatchHook *hook);

/* aio/context-lock.c */
/*
 * Drop all levels the calling thread holds of CTX, or of every context (CTX NULL). What is
 * to be retaken; NULL when nothing was held.
 */
GArray *aio__context_locks_drop(AioContext *ctx);
void aio__context_locks_retake(GArray *dropped);
/* The calling thread is about to take the big lock: it must not hold a context yet. */
void aio__check_bql_order(void);
/* The calling thread holds / does not hold the big lock, and so may hold many contexts. */
void aio__thread_set_bql(bool held);
/* What messages about its lock call CTX. Before other threads know CTX. */
void aio__context_set_name(AioContext *ctx, const char *name);
/* For pictures and explanations only. */
#define AIO_CONTEXT_NOTE_NAME(ctx, name) do {                                                \
        port_note(PORT_NOTE_NAME, (ctx), "context of '%s'", (name));                         \
        port_note(PORT_NOTE_NAME, &(ctx)->wake_state, "wake_state of '%s'", (name));         \
        port_note(PORT_NOTE_NAME, &(ctx)->incoming, "bottom halves of '%s'", (name));        \
        port_note(PORT_NOTE_NAME, &(ctx)->lock_word, "context lock of '%s'", (name));        \
        port_note(PORT_NOTE_NAME, GINT_TO_POINTER(ctx->epoll_fd), "epoll of '%s'", (name));  \
        port_note(PORT_NOTE_NAME, GINT_TO_POINTER(event_notifier_get_fd(&(ctx)->notifier)),  \
                  "bell of '%s'", (name));                                                   \
    } while (0)
/* How many levels of CTX's lock the calling thread holds. */
unsigned aio__context_lock_depth(AioContext *ctx);
/* Abort when anybody holds CTX's lock. CTX is being freed. */
void aio__context_lock_destroy(AioContext *ctx);

#endif
