/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regression tests of known bug classes (QB-nn): an export under drained sections and moves.
 * The node of the fixture checks that requests come in its context and never in a section.
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/iothread.h"
#include "miniblk/lab-test.h"
#include "miniblk/main-loop.h"
#include "miniblk/thread.h"
#include "tests/unit/nbd-fixture.h"

enum { BLOCK = 512, CLIENTS = 2 };

static IOThread *io[2];
static BlockDriverState *node;
static bool stop;               /* atomic */
static unsigned served, left;   /* atomic: requests, clients that have had enough */

/* One request after the other, each checked. In the lab a schedule must come to its end. */
static void client(void *opaque)
{
    uint64_t offset = *(unsigned *)opaque * BLOCK;
    int fd = raw_open(fx_socket(), "disk", NULL);
    uint8_t out[BLOCK], in[BLOCK];

    for (unsigned i = 0; !qatomic_read(&stop) && !(lab_in_lab() && i == 6); i++) {
        memset(out, i, BLOCK);
        g_assert_cmpint(raw_pwrite(fd, out, offset, BLOCK, 0), ==, 0);
        g_assert_cmpint(raw_pread(fd, in, offset, BLOCK), ==, 0);
        g_assert_cmpmem(in, BLOCK, out, BLOCK);
        qatomic_inc(&served);
        fx_wake();
    }
    close(fd);
    qatomic_inc(&left);
    fx_wake();
}

static void wait_for_service(void)
{
    unsigned before = qatomic_read(&served);
    FX_WAIT_WHILE(qatomic_read(&served) == before && qatomic_read(&left) < CLIENTS);
}

static void move(AioContext *to)
{
    g_assert_cmpint(fx_move(node, to, &error_abort), ==, 0);
}

static void under_load(void (*act)(int round))
{
    unsigned index[CLIENTS];
    FxThread *threads[CLIENTS];

    fx_server_start(0, 0);
    for (int i = 0; i < 2; i++) {
        io[i] = iothread_create(i ? "io1" : "io0", &error_abort);
    }
    node = fx_node("disk", 1 << 20);
    fx_export("e0", "disk", "'writable': true, 'iothread': 'io0'");
    qatomic_set(&stop, false);
    qatomic_set(&left, 0);
    for (unsigned i = 0; i < CLIENTS; i++) {
        index[i] = i;
        threads[i] = fx_thread_start(client, &index[i]);
    }
    wait_for_service();
    int rounds = lab_in_lab() ? 5 : g_test_quick() ? 200 : 4000;
    for (int round = 0; round < rounds; round++) {
        act(round);
        if (round % 4 == 0) {
            wait_for_service();
        }
    }
    wait_for_service();
    qatomic_set(&stop, true);
    for (int i = 0; i < CLIENTS; i++) {
        fx_thread_join(threads[i]);
    }
    nbd_server_stop(&error_abort);
    move(qemu_get_aio_context());
    bdrv_unref(node);
    iothread_destroy(io[0]);
    iothread_destroy(io[1]);
}

/*
 *      main                                IOThread (old)          IOThread (new)
 *                                          a client's read is due
 *      move: park, wait, switch, unpark
 *                                                                  takes the client over
 *      move again, at once
 */
static void act_moves(int round)
{
    AioContext *stops[] = { iothread_get_aio_context(io[0]), iothread_get_aio_context(io[1]),
                            qemu_get_aio_context() };

    move(stops[round % 3]);
    move(stops[(round + 1) % 3]);
}

static void test_qb40(void)
{
    under_load(act_moves);
}

/*
 *      IOThread                            main
 *      request arrives: coroutine made
 *                                          section: must see it
 *      coroutine runs
 */
static void act_section(int round)
{
    fx_drained_begin(node);
    fx_drained_end(node);
}

static void test_qb41(void)
{
    under_load(act_section);
}

/*
 *      main                                IOThread
 *      end of a section: have clients served again
 *      begin of the next                   (has not come to it yet)
 *      end
 *                                          serves, once
 */
static void act_sections_in_a_row(int round)
{
    for (int i = 0; i < 3; i++) {
        fx_drained_begin(node);
        fx_drained_end(node);
    }
    bdrv_drain_all();
}

static void test_qb42(void)
{
    under_load(act_sections_in_a_row);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fx_init();
    g_test_add_func("/classes/QB-40-moved-while-it-serves", test_qb40);
    g_test_add_func("/classes/QB-41-request-made-but-not-counted", test_qb41);
    g_test_add_func("/classes/QB-42-two-sections-in-a-row", test_qb42);
    int ret = g_test_run();
    fx_cleanup();
    return ret;
}
