/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every fd monitor against a model: who is called, how often, and from what. */
#include <fcntl.h>
#include <sys/socket.h>
#include "miniblk/osdep.h"
#include "miniblk/aio.h"
#include "miniblk/atomic.h"
#include "miniblk/error.h"
#include "miniblk/thread.h"

enum { FDS = 48, STEPS = 4000 };

static AioContext *ctx;
/*
 * epoll looks when it is asked. A poll request of io_uring tells what was ready at any time
 * since the last look, so a handler may be called once for what has gone meanwhile.
 */
static bool may_be_stale;

static bool set_up(const char *monitor)
{
    Error *err = NULL;
    ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);
    may_be_stale = !strcmp(monitor, "io_uring");
    if (aio_context_set_fd_monitor(ctx, monitor, &err)) {
        return true;
    }
    g_test_skip(error_get_pretty(err));
    error_free(err);
    qemu_set_current_aio_context(NULL);
    aio_context_unref(ctx);
    return false;
}

static void tear_down(void)
{
    qemu_set_current_aio_context(NULL);
    aio_context_unref(ctx);
}

/* ---- one thread: exactly the registered and ready ones, as long as they are ready ------------- */

typedef struct Slot {
    EventNotifier e;
    bool registered, ready;
    bool was_ready;             /* some time since the last look */
    bool clear;                 /* the callback clears it, or leaves it ready */
    bool unregister;            /* the callback unregisters it */
    int generation;             /* of the handler; an old one must not be called */
    int called;
} Slot;

typedef struct Handler {
    Slot *slot;
    int generation;
} Handler;

static void slot_called(void *opaque)
{
    Handler *h = opaque;
    Slot *s = h->slot;

    g_assert_true(s->registered);
    g_assert_true(s->ready || (may_be_stale && s->was_ready));
    g_assert_cmpint(s->generation, ==, h->generation);
    s->called++;
    if (s->clear) {
        g_assert_cmpint(event_notifier_test_and_clear(&s->e), ==, s->ready);
        s->ready = false;
    }
    if (s->unregister) {
        aio_set_fd_handler(ctx, event_notifier_get_fd(&s->e), NULL, NULL, NULL, NULL, NULL);
        s->registered = false;
    }
}

static void random_change(Slot *s, GPtrArray *handlers)
{
    int fd = event_notifier_get_fd(&s->e);

    switch (g_test_rand_int_range(0, 5)) {
    case 0:
    case 1:
        event_notifier_set(&s->e);
        s->ready = s->was_ready = true;
        break;
    case 2:
        event_notifier_test_and_clear(&s->e);
        s->ready = false;
        break;
    case 3: {
        Handler *h = g_new(Handler, 1);
        *h = (Handler) { s, ++s->generation };
        g_ptr_array_add(handlers, h);
        s->registered = true;
        s->clear = g_test_rand_int_range(0, 2);
        s->unregister = g_test_rand_int_range(0, 8) == 0;
        aio_set_fd_handler(ctx, fd, slot_called, NULL, NULL, NULL, h);
        break;
    }
    default:
        aio_set_fd_handler(ctx, fd, NULL, NULL, NULL, NULL, NULL);
        s->registered = false;
        break;
    }
}

static void check_one_iteration(Slot *slots)
{
    bool expected[FDS], any = false;

    for (int i = 0; i < FDS; i++) {
        expected[i] = slots[i].registered && slots[i].ready;
        slots[i].called = 0;
        any |= expected[i];
    }
    bool progress = aio_poll(ctx, any && g_test_rand_int_range(0, 2));
    g_assert_true(progress == any || (progress && may_be_stale));
    for (int i = 0; i < FDS; i++) {
        bool stale = may_be_stale && slots[i].was_ready && slots[i].called == 1;
        if (slots[i].called != expected[i] && !stale) {
            g_error("slot %d: called %d times, expected %d", i, slots[i].called, expected[i]);
        }
        slots[i].was_ready = slots[i].ready;
    }
}

static void test_model(gconstpointer monitor)
{
    g_autoptr(GPtrArray) handlers = g_ptr_array_new_with_free_func(g_free);
    static Slot slots[FDS];

    if (!set_up(monitor)) {
        return;
    }
    for (int i = 0; i < FDS; i++) {
        slots[i] = (Slot) { .registered = false };
        g_assert_cmpint(event_notifier_init(&slots[i].e, 0), ==, 0);
    }
    for (int step = 0; step < STEPS; step++) {
        int changes = g_test_rand_int_range(0, 6);
        while (changes--) {
            random_change(&slots[g_test_rand_int_range(0, FDS)], handlers);
        }
        check_one_iteration(slots);
        if (step % 500 == 250) {
            /* a change of the monitor loses no handler and no readiness */
            aio_context_set_fd_monitor(ctx, "epoll", &error_abort);
            check_one_iteration(slots);
            aio_context_set_fd_monitor(ctx, monitor, &error_abort);
        }
    }
    for (int i = 0; i < FDS; i++) {
        aio_set_fd_handler(ctx, event_notifier_get_fd(&slots[i].e), NULL, NULL, NULL, NULL,
                           NULL);
        event_notifier_cleanup(&slots[i].e);
    }
    tear_down();
}

/* ---- many more at once than one wait returns or one ring holds --------------------------------- */

enum { MANY = 700 };

static void count_called(void *opaque)
{
    Slot *s = opaque;
    s->called++;
    event_notifier_test_and_clear(&s->e);
}

static void test_many_at_once(gconstpointer monitor)
{
    static Slot slots[MANY];
    int called = 0;

    if (!set_up(monitor)) {
        return;
    }
    for (int i = 0; i < MANY; i++) {
        slots[i] = (Slot) { .registered = true };
        g_assert_cmpint(event_notifier_init(&slots[i].e, 1), ==, 0);
        aio_set_fd_handler(ctx, event_notifier_get_fd(&slots[i].e), count_called, NULL, NULL,
                           NULL, &slots[i]);
    }
    while (aio_poll(ctx, false)) {
        /* each iteration may find a part of them only */
    }
    for (int i = 0; i < MANY; i++) {
        g_assert_cmpint(slots[i].called, ==, 1);
        called += slots[i].called;
        aio_set_fd_handler(ctx, event_notifier_get_fd(&slots[i].e), NULL, NULL, NULL, NULL,
                           NULL);
        event_notifier_cleanup(&slots[i].e);
    }
    g_assert_cmpint(called, ==, MANY);
    tear_down();
}

/* ---- what is not plain reading ------------------------------------------------------------------ */

static void bump(void *opaque)
{
    ++*(int *)opaque;
}

static void test_write_hangup_and_files(gconstpointer monitor)
{
    int fds[2], runs = 0;
    char page[4096] = { 0 };

    if (!set_up(monitor)) {
        return;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
    aio_set_fd_handler(ctx, fds[0], NULL, bump, NULL, NULL, &runs);
    g_assert_true(aio_poll(ctx, true));
    while (write(fds[0], page, sizeof(page)) > 0) {
        /* until the socket is full */
    }
    runs = 0;
    g_assert_false(aio_poll(ctx, false));
    g_assert_cmpint(read(fds[1], page, 1), ==, 1);      /* not room enough yet, perhaps */
    aio_set_fd_handler(ctx, fds[0], bump, NULL, NULL, NULL, &runs);
    g_assert_cmpint(runs, <=, 1);
    runs = 0;
    g_assert_false(aio_poll(ctx, false));
    close(fds[1]);                                      /* a hang-up counts as readable */
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(runs, ==, 1);
    aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL, NULL, NULL);
    close(fds[0]);

    int file = open("/proc/self/exe", O_RDONLY);        /* epoll refuses regular files */
    g_assert_cmpint(file, >=, 0);
    aio_set_fd_handler(ctx, file, bump, NULL, NULL, NULL, &runs);
    g_assert_true(aio_poll(ctx, true));
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(runs, ==, 3);
    aio_set_fd_handler(ctx, file, NULL, NULL, NULL, NULL, NULL);
    g_assert_false(aio_poll(ctx, false));
    close(file);
    tear_down();
}

/*
 * Unregistered and closed, the peer sees the end of the stream before the loop sleeps again,
 * whatever the monitor still has to tidy up.
 */
static void test_close_reaches_the_peer(gconstpointer monitor)
{
    int fds[2], runs = 0;
    char c;

    if (!set_up(monitor)) {
        return;
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), ==, 0);
    aio_set_fd_handler(ctx, fds[0], bump, NULL, NULL, NULL, &runs);
    g_assert_false(aio_poll(ctx, false));
    aio_set_fd_handler(ctx, fds[0], NULL, NULL, NULL, NULL, NULL);
    close(fds[0]);
    aio_set_fd_handler(ctx, fds[1], bump, NULL, NULL, NULL, &runs);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(read(fds[1], &c, 1), ==, 0);
    aio_set_fd_handler(ctx, fds[1], NULL, NULL, NULL, NULL, NULL);
    close(fds[1]);
    tear_down();
}

/* ---- another thread registers, signals and unregisters ------------------------------------------- */

enum { SIGNALS = 3000, SHARED = 8 };

typedef struct Shared {
    EventNotifier e[SHARED];
    unsigned seen;              /* sum of what the callbacks have read; home thread */
    bool done;                  /* home thread */
} Shared;

static Shared shared;

static void shared_called(void *opaque)
{
    EventNotifier *e = opaque;
    uint64_t n = 0;
    /* a racing unregistration may let the same readiness be seen twice: n is then 0 */
    if (read(event_notifier_get_fd(e), &n, sizeof(n)) == sizeof(n)) {
        shared.seen += n;
    }
}

static void done_bh(void *opaque)
{
    shared.done = true;
}

static void *other_thread(void *opaque)
{
    uint32_t x = g_test_rand_int();
    for (int i = 0; i < SIGNALS; i++) {
        x = x * 1664525 + 1013904223;
        EventNotifier *e = &shared.e[(x >> 16) % SHARED];
        int fd = event_notifier_get_fd(e);
        switch (x >> 30) {
        case 0:
            aio_set_fd_handler(ctx, fd, NULL, NULL, NULL, NULL, NULL);
            event_notifier_set(e);
            aio_set_fd_handler(ctx, fd, shared_called, NULL, NULL, NULL, e);
            break;
        case 1:
            event_notifier_set(e);
            aio_set_fd_handler(ctx, fd, shared_called, NULL, NULL, NULL, e);
            break;
        default:
            event_notifier_set(e);
            break;
        }
    }
    aio_bh_schedule_oneshot(ctx, done_bh, NULL);
    return NULL;
}

static void test_other_thread(gconstpointer monitor)
{
    QemuThread thread;

    if (!set_up(monitor)) {
        return;
    }
    shared = (Shared) { .seen = 0 };
    for (int i = 0; i < SHARED; i++) {
        g_assert_cmpint(event_notifier_init(&shared.e[i], 0), ==, 0);
        aio_set_fd_handler(ctx, event_notifier_get_fd(&shared.e[i]), shared_called, NULL,
                           NULL, NULL, &shared.e[i]);
    }
    qemu_thread_create(&thread, "other", other_thread, NULL, QEMU_THREAD_JOINABLE);
    while (!shared.done || shared.seen < SIGNALS) {
        aio_poll(ctx, true);        /* a lost event makes this hang */
    }
    qemu_thread_join(&thread);
    g_assert_cmpuint(shared.seen, ==, SIGNALS);
    for (int i = 0; i < SHARED; i++) {
        aio_set_fd_handler(ctx, event_notifier_get_fd(&shared.e[i]), NULL, NULL, NULL, NULL,
                           NULL);
        event_notifier_cleanup(&shared.e[i]);
    }
    tear_down();
}

static void test_unknown_monitor(void)
{
    Error *err = NULL;
    set_up("epoll");
    g_assert_false(aio_context_set_fd_monitor(ctx, "kqueue", &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "There is no fd monitor 'kqueue' in this build");
    error_free(err);
    tear_down();
}

/* GLib polls the descriptor of the monitor that was there when it was given the loop. */
static void test_gsource_keeps_its_monitor(void)
{
    Error *err = NULL;
    set_up("epoll");
    GSource *source = aio_get_g_source(ctx);
    g_assert_false(aio_context_set_fd_monitor(ctx, "io_uring", &err));
    error_free(err);
    g_assert_true(aio_context_set_fd_monitor(ctx, "epoll", &error_abort));
    g_source_unref(source);
    tear_down();
}

int main(int argc, char **argv)
{
    static const char *const monitors[] = { "epoll", "io_uring" };
    static const struct {
        const char *name;
        void (*fn)(gconstpointer monitor);
    } tests[] = {
        { "model", test_model }, { "many", test_many_at_once },
        { "write-hangup-file", test_write_hangup_and_files },
        { "close", test_close_reaches_the_peer }, { "other-thread", test_other_thread },
    };
    g_test_init(&argc, &argv, NULL);
    for (unsigned m = 0; m < G_N_ELEMENTS(monitors); m++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
            g_autofree char *path = g_strdup_printf("/fd-monitor/%s/%s", monitors[m],
                                                    tests[i].name);
            g_test_add_data_func(path, monitors[m], tests[i].fn);
        }
    }
    g_test_add_func("/fd-monitor/unknown", test_unknown_monitor);
    g_test_add_func("/fd-monitor/gsource", test_gsource_keeps_its_monitor);
    return g_test_run();
}
