/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regression tests of known bug classes (QB-nn): what is ready is found, whoever polls, and
 * what must not run inside a wait does not.
 */
#include "drain-driver.h"
#include "loop-parts.h"
#include "miniblk/thread-pool.h"
#include <unistd.h>

static IOThread *io;
static AioContext *io_ctx;

/* Run the main loop until *DONE, which a callback sets. */
static void poll_until(bool *done)
{
    while (!*done) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

/* ---- QB-11: what is ready may not be stuck behind the callback that polls for it -------- */

/*
 *      loop: A and B are ready
 *          A's callback polls until B's callback has run
 *              B's
 */
typedef struct Pair {
    bool done[2];
    int ran;
} Pair;

static Pair pair;

static void pair_run(int self)
{
    g_assert_false(pair.done[self]);
    pair.done[self] = true;
    if (pair.ran++ == 0) {
        poll_until(&pair.done[!self]);
    }
}

static void pair_cb(void *opaque)
{
    pair_run(GPOINTER_TO_INT(opaque));
}

static void pair_done(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    pair_run(GPOINTER_TO_INT(opaque));
}

static void pair_wait(void)
{
    poll_until(&pair.done[0]);
    poll_until(&pair.done[1]);
}

static void two_bhs(void)
{
    for (int i = 0; i < 2; i++) {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), pair_cb, GINT_TO_POINTER(i));
    }
    pair_wait();
}

static void two_timers(void)
{
    QEMUTimer *t[2];

    for (int i = 0; i < 2; i++) {
        t[i] = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, SCALE_NS, pair_cb,
                             GINT_TO_POINTER(i));
        timer_mod(t[i], 1);
    }
    pair_wait();
    timer_free(t[0]);
    timer_free(t[1]);
}

typedef struct PairFd {
    int fd[2];
    int index;
} PairFd;

static void pair_fd_readable(void *opaque)
{
    PairFd *p = opaque;
    char byte;

    g_assert_cmpint(read(p->fd[0], &byte, 1), ==, 1);
    pair_run(p->index);
}

static void two_fds(void)
{
    PairFd p[2];

    for (int i = 0; i < 2; i++) {
        p[i].index = i;
        g_assert_cmpint(pipe(p[i].fd), ==, 0);
        aio_set_fd_handler(qemu_get_aio_context(), p[i].fd[0], pair_fd_readable, NULL, NULL,
                           NULL, &p[i]);
        g_assert_cmpint(write(p[i].fd[1], "x", 1), ==, 1);
    }
    pair_wait();
    for (int i = 0; i < 2; i++) {
        aio_set_fd_handler(qemu_get_aio_context(), p[i].fd[0], NULL, NULL, NULL, NULL, NULL);
        close(p[i].fd[0]);
        close(p[i].fd[1]);
    }
}

/* Two workers meet, so that they end as nearly at the same time as can be. */
static int meeting;             /* atomic */

static int meet(void *opaque)
{
    qatomic_inc(&meeting);
    while (qatomic_read(&meeting) < 2) {
        sched_yield();
    }
    qatomic_inc(&meeting);
    return 0;
}

static void two_pool_requests(void)
{
    qatomic_set(&meeting, 0);
    for (int i = 0; i < 2; i++) {
        thread_pool_submit_aio(meet, NULL, pair_done, GINT_TO_POINTER(i));
    }
    while (qatomic_read(&meeting) < 4) {
        sched_yield();          /* do not look before both have ended */
    }
    pair_wait();
}

static void two_block_requests(void)
{
    static char buffer[512];
    BlockDriverState *bs = test_node("bs");
    BlockBackend *blk = test_backend(bs);
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buffer, sizeof(buffer));

    test_state(bs)->sleep_hops = 1;
    for (int i = 0; i < 2; i++) {
        blk_aio_preadv(blk, 0, &qiov, 0, pair_done, GINT_TO_POINTER(i));
    }
    pair_wait();
    blk_unref(blk);
    bdrv_unref(bs);
}

static void test_qb11(gconstpointer opaque)
{
    void (*const *two)(void) = opaque;

    for (int i = 0; i < test_rounds(50); i++) {
        pair = (Pair) { .ran = 0 };
        (*two)();
        g_assert_cmpint(pair.ran, ==, 2);
    }
}

/* ---- QB-57: an event source is taken away while it is busy-polled ----------------------- */

/*
 *      guest                   IOThread (busy-polls the ring)          main
 *                                                                      take the handler away
 *      request; ring                                                   ...
 *                                                                      put it back
 *                              must find the request
 *
 * and, with no further event from the guest, each time.
 */
static void test_qb57(gconstpointer poll_max_ns)
{
    TestRing ring;

    test_ring_init(&ring, io_ctx, GPOINTER_TO_INT(poll_max_ns));
    for (int i = 0; i < test_rounds(500); i++) {
        aio_wait_bh_oneshot(io_ctx, test_ring_detach_bh, &ring);
        if (i & 1) {
            test_ring_request(&ring);   /* inside the section */
        }
        aio_bh_schedule_oneshot(io_ctx, test_ring_attach_bh, &ring);
        if (i & 2) {
            test_ring_request(&ring);   /* at its end */
        }
        test_ring_wait(&ring);
        test_ring_request(&ring);
        test_ring_wait(&ring);
    }
    test_ring_free(&ring);
}

/* ---- QB-59: a command does not start inside a wait -------------------------------------- */

/*
 *      main: waits for an IOThread
 *                  a command arrives: a bottom half of the I/O handlers' context
 *            the wait is over; the command has not begun
 *      main loop: it has
 */
static bool command_ran, may_run;

static void command_bh(void *opaque)
{
    g_assert_true(may_run);
    command_ran = true;
}

static void arrive_bh(void *opaque)
{
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), command_bh, NULL);
}

static void test_qb59(void)
{
    BlockDriverState *bs = test_node("bs");

    for (int i = 0; i < test_rounds(100); i++) {
        command_ran = may_run = false;
        aio_wait_bh_oneshot(io_ctx, arrive_bh, NULL);
        aio_wait_bh_oneshot(io_ctx, test_nothing_bh, NULL);
        bdrv_drain(bs);
        bdrv_drain_all();
        aio_poll(qemu_get_aio_context(), false);
        g_assert_false(command_ran);
        may_run = true;
        while (!command_ran) {
            main_loop_wait(false);
        }
    }
    bdrv_unref(bs);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*two)(void);
    } pairs[] = {
        { "/classes/QB-11-second-completion-behind-the-first/bh", two_bhs },
        { "/classes/QB-11-second-completion-behind-the-first/timer", two_timers },
        { "/classes/QB-11-second-completion-behind-the-first/fd", two_fds },
        { "/classes/QB-11-second-completion-behind-the-first/pool", two_pool_requests },
        { "/classes/QB-11-second-completion-behind-the-first/block", two_block_requests },
    };

    test_init(&argc, &argv);
    test_threads_start(&io, &io_ctx, 1);

    for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++) {
        g_test_add_data_func(pairs[i].path, &pairs[i].two, test_qb11);
    }
    g_test_add_data_func("/classes/QB-57-source-removed-while-polled/sleeping",
                         GINT_TO_POINTER(0), test_qb57);
    g_test_add_data_func("/classes/QB-57-source-removed-while-polled/polling",
                         GINT_TO_POINTER(100000), test_qb57);
    g_test_add_func("/classes/QB-59-command-inside-a-wait", test_qb59);
    int ret = g_test_run();
    iothread_destroy(io);
    return ret;
}
