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
 * lock from now on except while main_loop_wait() sleeps. SIGPIPE and SIGXFSZ are ignored. 0 or -errno.
 */
int qemu_init_main_loop(Error **errp);
/* One iteration of the default GMainContext, to which both contexts are attached. */
void main_loop_wait(int nonblocking);
AioContext *qemu_get_aio_context(void);
AioContext *iohandler_get_aio_context(void);

/* Whether the caller is the main thread holding the big lock. */
bool qemu_in_main_thread(void);
bool bql_locked(void);
void bql_lock(void);
void bql_unlock(void);
#define qemu_mutex_lock_iothread()   bql_lock()
#define qemu_mutex_unlock_iothread() bql_unlock()
#define qemu_mutex_iothread_locked() bql_locked()

/* Legacy calls: the main context is implied. Main thread. */
void qemu_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque);
void qemu_aio_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque);
void qemu_aio_set_event_notifier(EventNotifier *notifier, EventNotifierHandler *io_read);
bool qemu_aio_wait(void);
#define qemu_bh_new(cb, opaque) qemu_bh_new_full((cb), (opaque), #cb)
QEMUBH *qemu_bh_new_full(QEMUBHFunc *cb, void *opaque, const char *name);

#endif
