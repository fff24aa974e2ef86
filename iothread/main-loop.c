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
static QEMUBH *notify_bh;               /* does nothing; makes main_loop_wait() return */
/*
 * All zero bytes: a valid mutex. Locked through the port, because what goes through
 * qemu_mutex_lock() counts as coming after context locks.
 */
static QemuMutex big_lock;
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

static void check_bql(const char *call, bool held)
{
    if (unlikely(bql_locked() != held)) {
        fprintf(stderr, "miniblk: %s: thread %d %s the big lock\n", call, qemu_get_thread_id(),
                held ? "does not hold" : "holds");
        abort();
    }
}

void bql_lock(void)
{
    check_bql("bql_lock", false);
    aio__check_bql_order();
    port_mutex_lock(&big_lock.lock);
    set_bql_locked(true);
}

void bql_unlock(void)
{
    check_bql("bql_unlock", true);
    set_bql_locked(false);
    port_mutex_unlock(&big_lock.lock);
}

bool qemu_in_main_thread(void)
{
    return bql_locked() && qemu_thread_is_self(&main_thread);
}

void main_loop_assert_here(const char *call)
{
    if (unlikely(!qemu_in_main_thread())) {
        fprintf(stderr, "miniblk: %s: called in thread %d%s, is for the main thread with the "
                "big lock\n", call, qemu_get_thread_id(),
                bql_locked() ? " with the big lock" : "");
        abort();
    }
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

static void nothing(void *opaque)
{
}

static void attach(AioContext *ctx, const char *name)
{
    aio__context_set_name(ctx, name);
    GSource *source = aio_get_g_source(ctx);
    g_source_attach(source, NULL);
    g_source_unref(source);
}

int qemu_init_main_loop(Error **errp)
{
    G_STATIC_ASSERT(sizeof(GPollFD) == sizeof(struct pollfd));
    if (unlikely(main_context)) {
        fprintf(stderr, "miniblk: qemu_init_main_loop: there is a main loop already\n");
        abort();
    }

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
    AIO_CONTEXT_NOTE_NAME(main_context, "main");
    AIO_CONTEXT_NOTE_NAME(control_context, "control");
    signal(SIGPIPE, SIG_IGN);   /* a peer that has gone, and a file that may not grow, */
    signal(SIGXFSZ, SIG_IGN);   /* are errors of the call that meets them */
    qemu_thread_get_self(&main_thread);
    qemu_set_current_aio_context(main_context);
    bql_lock();
    attach(main_context, "main loop");
    attach(control_context, "main loop (control)");
    notify_bh = aio_bh_new(control_context, nothing, NULL);
    g_main_context_set_poll_func(g_main_context_default(), poll_unlocked);
    return 0;
}

void main_loop_wait(int nonblocking)
{
    ASSERT_MAIN_THREAD();
    g_main_context_iteration(NULL, !nonblocking);
}

void qemu_notify_event(void)
{
    qemu_bh_schedule(notify_bh);
}

/* ---- legacy calls ---------------------------------------------------------------------- */

static AioContext *legacy_context(const char *call)
{
    main_loop_assert_here(call);
    return main_context;
}

void qemu_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque)
{
    ASSERT_MAIN_THREAD();
    aio_set_fd_handler(control_context, fd, io_read, io_write, NULL, NULL, opaque);
}

void qemu_aio_set_fd_handler(int fd, IOHandler *io_read, IOHandler *io_write, void *opaque)
{
    aio_set_fd_handler(legacy_context(__func__), fd, io_read, io_write, NULL, NULL, opaque);
}

void qemu_aio_set_event_notifier(EventNotifier *notifier, EventNotifierHandler *io_read)
{
    aio_set_event_notifier(legacy_context(__func__), notifier, io_read, NULL, NULL);
}

bool qemu_aio_wait(void)
{
    return aio_poll(legacy_context(__func__), true);
}

QEMUBH *qemu_bh_new_full(QEMUBHFunc *cb, void *opaque, const char *name)
{
    return aio_bh_new_full(legacy_context("qemu_bh_new"), cb, opaque, name);
}

QEMUTimer *timer_new(QEMUClockType type, int scale, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(legacy_context(__func__), type, scale, cb, opaque);
}

QEMUTimer *timer_new_ns(QEMUClockType type, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(legacy_context(__func__), type, SCALE_NS, cb, opaque);
}

QEMUTimer *timer_new_us(QEMUClockType type, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(legacy_context(__func__), type, SCALE_US, cb, opaque);
}

QEMUTimer *timer_new_ms(QEMUClockType type, QEMUTimerCB *cb, void *opaque)
{
    return aio_timer_new(legacy_context(__func__), type, SCALE_MS, cb, opaque);
}
