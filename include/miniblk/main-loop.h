/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The main loop: the thread that owns the block graph, and the big lock.
 *
 * It runs two AioContexts. The main context is also polled by AIO_WAIT_WHILE(); the control
 * context (iohandler_get_aio_context()) is not, so what is scheduled there (monitor
 * commands, new connections) never starts inside somebody's wait.
 */
#ifndef MINIBLK_MAIN_LOOP_H
#define MINIBLK_MAIN_LOOP_H

#include "aio.h"

/*
 * Make the main loop in the calling thread, which becomes the main thread and holds the big
 * lock from now on except while main_loop_wait() sleeps. SIGPIPE and SIGXFSZ are ignored.
 * Once per process. 0, or -EMFILE with ERRP set: no file descriptor is left.
 */
int qemu_init_main_loop(Error **errp);
/*
 * One iteration of the default GMainContext, to which both contexts are attached; sleeps
 * until there is something to do unless NONBLOCKING. Main thread; holds no context lock.
 */
void main_loop_wait(int nonblocking);
/*
 * Make main_loop_wait() return. Any thread. Whatever is scheduled, armed or registered in
 * the main loop does that by itself; this is for a condition that the loop does not know.
 */
void qemu_notify_event(void);

/* The main context and the control context; NULL before qemu_init_main_loop(). Any thread. */
AioContext *qemu_get_aio_context(void);
AioContext *iohandler_get_aio_context(void);

/* Whether the caller is the main thread holding the big lock. Any thread. */
bool qemu_in_main_thread(void);
/* On the first line of a function for the main thread: abort naming it if it is elsewhere. */
#define ASSERT_MAIN_THREAD() main_loop_assert_here(__func__)
void main_loop_assert_here(const char *call);

/*
 * The big lock. Not recursive; comes before every context lock, so that a thread that waits
 * for it must hold none, and one that releases it may keep one at the most. Any thread.
 */
bool bql_locked(void);
void bql_lock(void);
void bql_unlock(void);
#define qemu_mutex_lock_iothread()   bql_lock()
#define qemu_mutex_unlock_iothread() bql_unlock()
#define qemu_mutex_iothread_locked() bql_locked()

/*
 * Legacy calls, which imply the main loop and so cannot be moved to another thread. They are
 * kept for old code and abort outside the main thread. New code names the context:
 *
 *      qemu_bh_new(cb, opaque)         aio_bh_new(ctx, cb, opaque)
 *      timer_new_ms(type, cb, opaque)  aio_timer_new(ctx, type, SCALE_MS, cb, opaque)
 *        (likewise _us, _ns)
 *      qemu_aio_set_fd_handler(fd, ..) aio_set_fd_handler(ctx, fd, ..)
 *      qemu_set_fd_handler(fd, ..)     the same with iohandler_get_aio_context()
 *      qemu_aio_set_event_notifier(..) aio_set_event_notifier(ctx, ..)
 *      qemu_aio_wait()                 AIO_WAIT_WHILE(ctx, condition)
 */
#define qemu_bh_new(cb, opaque) qemu_bh_new_full((cb), (opaque), #cb)
QEMUBH *qemu_bh_new_full(QEMUBHFunc *cb, void *opaque, const char *name);
/* In the control context: not called while somebody waits for a condition. */
void qemu_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque);
/* In the main context, like all that follow. */
void qemu_aio_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque);
void qemu_aio_set_event_notifier(EventNotifier *notifier, EventNotifierHandler *io_read);
/* One blocking iteration; whether a callback ran. */
bool qemu_aio_wait(void);

#endif
