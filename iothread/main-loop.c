/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The main loop and the big lock. */
#include <signal.h>
#include "miniblk/osdep.h"
#include "miniblk/main-loop.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/thread.h"
#include "aio/aio-internal.h"

static AioContext *main_context;
static AioContext *control_context;
static QemuThread main_thread;
static QemuMutex big_lock;              /* all zero bytes: a valid mutex */
static PORT_THREAD_LOCAL bool have_big_lock;

QEMU_NOINLINE bool bql_locked(void)
{
    return have_big_lock;
}

static QEMU_NOINLINE void set_bql_locked(bool held)
{
    have_big_lock = held;
    aio__thread_set_bql(held);
}

void bql_lock(void)
{
    g_assert(!bql_locked());
    qemu_mutex_lock(&big_lock);
    set_bql_locked(true);
}

void bql_unlock(void)
{
    g_assert(bql_locked());
    set_bql_locked(false);
    qemu_mutex_unlock(&big_lock);
}

bool qemu_in_main_thread(void)
{
    return bql_locked() && qemu_thread_is_self(&main_thread);
}

AioContext *qemu_get_aio_context(void)
{
    return main_context;
}

AioContext *iohandler_get_aio_context(void)
{
    return control_context;
}

/* GLib sleeps here; others may have the big lock meanwhile. */
static int poll_unlocked(GPollFD *fds, guint nfds, int timeout_ms)
{
    if (timeout_ms == 0 || !bql_locked()) {
        return port_poll_ms((struct pollfd *)fds, nfds, timeout_ms);
    }
    bql_unlock();
    int ret = port_poll_ms((struct pollfd *)fds, nfds, timeout_ms);
    int saved_errno = errno;
    bql_lock();
    errno = saved_errno;
    return ret;
}

static void attach(AioContext *ctx)
{
    GSource *source = aio_get_g_source(ctx);
    g_source_attach(source, NULL);
    g_source_unref(source);
}

int qemu_init_main_loop(Error **errp)
{
    G_STATIC_ASSERT(sizeof(GPollFD) == sizeof(struct pollfd));
    g_assert(!main_context);

    main_context = aio_context_new(errp);
    if (!main_context) {
        return -EMFILE;
    }
    control_context = aio_context_new(errp);
    if (!control_context) {
        aio_context_unref(main_context);
        main_context = NULL;
        return -EMFILE;
    }
    signal(SIGPIPE, SIG_IGN);   /* a peer that has gone, and a file that may not grow, */
    signal(SIGXFSZ, SIG_IGN);   /* are errors of the call that meets them */
    qemu_thread_get_self(&main_thread);
    qemu_set_current_aio_context(main_context);
    bql_lock();
    attach(main_context);
    attach(control_context);
    g_main_context_set_poll_func(g_main_context_default(), poll_unlocked);
    return 0;
}

void main_loop_wait(int nonblocking)
{
    g_main_context_iteration(NULL, !nonblocking);
}

/* ---- legacy calls -------------------------------------------------------------------------- */

static AioContext *legacy_context(void)
{
    g_assert(qemu_in_main_thread());
    return main_context;
}

void qemu_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque)
{
    g_assert(qemu_in_main_thread());
    aio_set_fd_handler(control_context, fd, io_read, io_write, NULL, NULL, opaque);
}

void qemu_aio_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque)
{
    aio_set_fd_handler(legacy_context(), fd, io_read, io_write, NULL, NULL, opaque);
}

void qemu_aio_set_event_notifier(EventNotifier *notifier, EventNotifierHandler *io_read)
{
    aio_set_event_notifier(legacy_context(), notifier, io_read, NULL, NULL);
}

bool qemu_aio_wait(void)
{
    return aio_poll(legacy_context(), true);
}

QEMUBH *qemu_bh_new_full(QEMUBHFunc *cb, void *opaque, const char *name)
{
    return aio_bh_new_full(main_context, cb, opaque, name);
}

QEMUTimer *timer_new_ns(QEMUClockType type, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(legacy_context(), type, SCALE_NS, cb, opaque);
}

QEMUTimer *timer_new_us(QEMUClockType type, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(legacy_context(), type, SCALE_US, cb, opaque);
}

QEMUTimer *timer_new_ms(QEMUClockType type, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(legacy_context(), type, SCALE_MS, cb, opaque);
}
