/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AioContext: an event loop. Its home thread calls aio_poll() (or drives it as a GSource);
 * every other call is safe from any thread and takes the locks it needs.
 */
#ifndef MINIBLK_AIO_H
#define MINIBLK_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

#include "compiler.h"
#include "event_notifier.h"
#include "timer.h"

typedef struct Error Error;
typedef struct AioContext AioContext;
typedef struct QEMUBH QEMUBH;
typedef struct Coroutine Coroutine;
typedef struct BlockAIOCB BlockAIOCB;

typedef void QEMUBHFunc(void *opaque);
typedef void IOHandler(void *opaque);
typedef bool AioPollFn(void *opaque);
/* Completion of an asynchronous request; RET is 0 or -errno. */
typedef void BlockCompletionFunc(void *opaque, int ret);

/* ---- life ------------------------------------------------------------------------- */

/*
 * A new loop with one reference, bound to no thread yet. NULL with ERRP set when the
 * system has no file descriptor left. Does not need a main loop.
 */
AioContext *aio_context_new(Error **errp);
void aio_context_ref(AioContext *ctx);
/* The last reference frees the loop; bottom halves that are still alive then abort. */
void aio_context_unref(AioContext *ctx);

/* The loop bound to the calling thread; NULL in a plain worker thread. */
AioContext *qemu_get_current_aio_context(void);
/* Bind CTX to the calling thread, once per thread; the thread becomes its home. */
void qemu_set_current_aio_context(AioContext *ctx);
bool in_aio_context_home_thread(AioContext *ctx);

/* ---- the context lock ------------------------------------------------------------- */

/*
 * A recursive lock per context. Order: big lock, then context locks, then any other mutex.
 * A thread that does not hold the big lock may hold one context lock at the most. aio_poll()
 * neither takes nor drops it; AIO_WAIT_WHILE() drops every level its caller holds.
 */
void aio_context_acquire(AioContext *ctx);
void aio_context_release(AioContext *ctx);

/* ---- running ---------------------------------------------------------------------- */

/*
 * One iteration: bottom halves and scheduled coroutines, ready fds, expired timers. With
 * BLOCKING, sleeps until there is something to do or aio_notify() is called. True if any
 * callback ran (the loop's own wake-up is not progress). Home thread; may be called again
 * from a callback. Whatever was ready in the outer iteration may run in the inner one, and
 * runs once.
 */
bool aio_poll(AioContext *ctx, bool blocking);
/* Make aio_poll() return without waiting: one that sleeps, or else the next. Any thread. */
void aio_notify(AioContext *ctx);
/*
 * How CTX finds out which descriptors are ready: "epoll" or "io_uring". A new context has
 * what MINIBLK_FD_MONITOR in the environment says, or else epoll. False with ERRP set when
 * there is no such monitor, the kernel refuses, or CTX has become a GSource and NAME is not
 * "epoll"; then nothing has changed. Home thread,
 * outside of aio_poll(), or before the loop runs for the first time. Under io_uring a handler
 * may be called for what somebody else has read since: its descriptor must not block.
 */
bool aio_context_set_fd_monitor(AioContext *ctx, const char *name, Error **errp);
/*
 * A new reference to CTX as a GSource. As a side effect its fd monitor becomes epoll, whose
 * one descriptor stands for all the others in GLib's poll(). The source holds a reference to
 * CTX until it is freed. The GMainContext's thread must be the home thread.
 */
GSource *aio_get_g_source(AioContext *ctx);
/*
 * Adaptive busy polling before sleeping: at most MAX_NS (0: off); the window is multiplied by
 * GROW (0: 2) when a longer one would have caught the event, and divided by SHRINK (0: back
 * to zero) when none would. Negative values are an error. Any thread, at any time.
 */
void aio_context_set_poll_params(AioContext *ctx, int64_t max_ns, int64_t grow,
                                 int64_t shrink, Error **errp);

/* ---- bottom halves ---------------------------------------------------------------- */

/* CB(OPAQUE) to be run in CTX's home thread each time it is scheduled. */
#define aio_bh_new(ctx, cb, opaque) aio_bh_new_full((ctx), (cb), (opaque), #cb)
QEMUBH *aio_bh_new_full(AioContext *ctx, QEMUBHFunc *cb, void *opaque, const char *name);
/* Run CB(OPAQUE) once in CTX's home thread, in the order of scheduling. */
#define aio_bh_schedule_oneshot(ctx, cb, opaque)                                \
        aio_bh_schedule_oneshot_full((ctx), (cb), (opaque), #cb)
void aio_bh_schedule_oneshot_full(AioContext *ctx, QEMUBHFunc *cb, void *opaque,
                                  const char *name);
/* Idempotent while pending. From its own callback: runs in the next iteration. */
void qemu_bh_schedule(QEMUBH *bh);
/* As above, but does not by itself keep the loop from sleeping (at most 10 ms). */
void qemu_bh_schedule_idle(QEMUBH *bh);
void qemu_bh_cancel(QEMUBH *bh);
/* Never runs again; freed by the loop. Legal from its own callback. */
void qemu_bh_delete(QEMUBH *bh);

/*
 * What bottom halves are made of, for structures that would rather embed one than have one
 * allocated: RUN(ctx, MSG) is called once per post in CTX's home thread, in the order of
 * posting with everything else that is scheduled there.
 */
typedef struct AioMessage AioMessage;
struct AioMessage {
    bool (*run)(AioContext *ctx, AioMessage *msg);  /* returns whether it was progress */
    AioMessage *next;           /* the loop's */
    uint64_t batch;             /* the loop's */
};
/* Post MSG, which is not posted already. Any thread; MSG may be gone when this returns. */
void aio_message_post(AioContext *ctx, AioMessage *msg);

/* ---- file descriptors ------------------------------------------------------------- */

/*
 * Call IO_READ(OPAQUE) / IO_WRITE(OPAQUE) in CTX's home thread while FD is readable /
 * writable; hang-up and error count as both. Replaces what was set before; NULL for both
 * unregisters. Any thread; unregister before closing FD, and free OPAQUE only in the home
 * thread or when no callback can be running there.
 *
 * IO_POLL (may be NULL) tells through memory whether there is something to do; the loop asks
 * it while it busy-polls, and also in place of a system call that would not sleep. When it
 * says true, IO_POLL_READY is called, once, and never inside itself (or IO_READ, when the
 * monitor has seen FD too: one of the two). IO_POLL must see whatever
 * makes FD readable, must not poll and needs IO_POLL_READY, or else it is ignored. The
 * loop busy-polls only while every descriptor has one.
 */
void aio_set_fd_handler(AioContext *ctx, int fd, IOHandler *io_read, IOHandler *io_write,
                        AioPollFn *io_poll, IOHandler *io_poll_ready, void *opaque);
void aio_set_event_notifier(AioContext *ctx, EventNotifier *notifier,
                            EventNotifierHandler *io_read, AioPollFn *io_poll,
                            EventNotifierHandler *io_poll_ready);

/* ---- timers ----------------------------------------------------------------------- */

void aio_timer_init(AioContext *ctx, QEMUTimer *ts, QEMUClockType type, int scale,
                    QEMUTimerCB *cb, void *opaque);
QEMUTimer *aio_timer_new(AioContext *ctx, QEMUClockType type, int scale,
                         QEMUTimerCB *cb, void *opaque);

/* ---- coroutines and loops --------------------------------------------------------- */

/* Run CO from CTX's loop. Any thread. Aborts when CO is already scheduled. */
void aio_co_schedule(AioContext *ctx, Coroutine *co);
/* Resume a yielded coroutine in the context it last ran in; see aio_co_enter(). */
void aio_co_wake(Coroutine *co);
/*
 * Run CO in CTX: from another thread it is scheduled there; from inside a coroutine it runs
 * when that one yields or ends; otherwise it is entered now, with CTX's lock held.
 */
void aio_co_enter(AioContext *ctx, Coroutine *co);
/* Continue the calling coroutine in NEW_CTX. */
void coroutine_fn aio_co_reschedule_self(AioContext *new_ctx);

/* ---- per-context engines ---------------------------------------------------------- */

struct ThreadPool;
struct LinuxAioState;
struct LuringState;
/* The worker pool of CTX, made at the first call. Home thread or any thread. */
struct ThreadPool *aio_get_thread_pool(AioContext *ctx);
/*
 * The Linux AIO engine of CTX, made at the first call. NULL with ERRP set when the kernel
 * refuses (EAGAIN: the system's aio-max-nr is used up). Any thread.
 */
struct LinuxAioState *aio_setup_linux_aio(AioContext *ctx, Error **errp);
struct LinuxAioState *aio_get_linux_aio(AioContext *ctx);
/* The same for io_uring; refused also when it is disabled, too old or not in this build. */
struct LuringState *aio_setup_linux_io_uring(AioContext *ctx, Error **errp);
struct LuringState *aio_get_linux_io_uring(AioContext *ctx);
/*
 * Have CTX's engines hand at most MAX_BATCH requests to the kernel at a time (0: as they
 * think best), from the next one on. Any thread.
 */
void aio_context_set_aio_params(AioContext *ctx, int64_t max_batch);

/*
 * A hook that the loop calls each time before it looks for events, so that an engine can
 * hand over in one system call all that the iteration's callbacks have queued. It is called
 * only while armed; arming is for the home thread. The hook lives in the engine.
 */
typedef struct AioBatchHook {
    void (*flush)(struct AioBatchHook *hook);
    struct AioBatchHook *next;
    bool armed;
} AioBatchHook;
/* Have HOOK->flush called once before CTX next looks for events. Home thread. */
void aio_batch_arm(AioContext *ctx, AioBatchHook *hook);

#endif
