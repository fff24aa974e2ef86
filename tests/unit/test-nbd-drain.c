/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server under drained sections, moves between threads, and its own end, while
 * clients are busy. The node of the fixture checks each request: it must come in the node's
 * context, and never inside a section.
 */
#include "miniblk/osdep.h"
#include "miniblk/atomic.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"
#include <sched.h>
#include <sys/socket.h>

#define MIB             (1024u * 1024)
#define EXPORT_SIZE     (160 * MIB)
#define BLOCK           4096u

static IOThread *iothreads[2];
static BlockDriverState *node;
static BlockExport *export;
static bool stop_clients;       /* atomic */

static void setup(const char *extra)
{
    fx_server_start(0, 0);
    iothreads[0] = iothread_create("io0", &error_abort);
    iothreads[1] = iothread_create("io1", &error_abort);
    node = fx_node("disk", EXPORT_SIZE);
    export = fx_export("e0", "disk", extra);
    qatomic_set(&stop_clients, false);
}

static void teardown(void)
{
    nbd_server_stop(&error_abort);
    g_assert_cmpint(fx_move(node, qemu_get_aio_context(), &error_abort), ==, 0);
    bdrv_unref(node);
    iothread_destroy(iothreads[0]);
    iothread_destroy(iothreads[1]);
}

#define WRITABLE_IO0 "'writable': true, 'iothread': 'io0'"

static void open_disk(void *opaque)
{
    *(int *)opaque = raw_open(fx_socket(), "disk", NULL);
}

/* ---- clients ---------------------------------------------------------------------- */

/*
 * Write and read back, several requests at a time, until told to stop. Each client has an
 * area of its own; each block carries its number and the round, so that a lost, stale or
 * misplaced write shows.
 */
enum { DEPTH = 16, AREA_BLOCKS = 256 };

typedef struct Load {
    unsigned index;
    unsigned rounds;    /* done */
} Load;

static void stamp(uint64_t *block, uint64_t number, uint64_t round)
{
    for (size_t i = 0; i < BLOCK / sizeof(*block); i += 2) {
        block[i] = number;
        block[i + 1] = round;
    }
}

static void load_round(int fd, const Load *load, GRand *rand)
{
    uint64_t first = load->index * AREA_BLOCKS +
                     g_rand_int_range(rand, 0, AREA_BLOCKS - DEPTH);
    uint64_t block[BLOCK / sizeof(uint64_t)], expected[BLOCK / sizeof(uint64_t)];
    uint64_t cookie;
    uint32_t error;

    for (uint64_t i = 0; i < DEPTH; i++) {
        stamp(block, first + i, load->rounds);
        g_assert_true(raw_request(fd, i == 0 ? NBD_CMD_FLAG_FUA : 0, NBD_CMD_WRITE, i,
                                  (first + i) * BLOCK, BLOCK));
        g_assert_true(raw_send(fd, block, BLOCK));
    }
    for (uint64_t i = 0; i < DEPTH; i++) {
        g_assert_true(raw_reply(fd, &error, &cookie));
        g_assert_cmpuint(error, ==, 0);
    }
    for (uint64_t i = 0; i < DEPTH; i++) {
        g_assert_true(raw_request(fd, 0, NBD_CMD_READ, first + i, (first + i) * BLOCK,
                                  BLOCK));
    }
    for (uint64_t i = 0; i < DEPTH; i++) {
        g_assert_true(raw_reply(fd, &error, &cookie));
        g_assert_cmpuint(error, ==, 0);
        g_assert_true(raw_recv(fd, block, BLOCK));
        stamp(expected, cookie, load->rounds);
        g_assert_cmpmem(block, BLOCK, expected, BLOCK);
    }
}

static void load_main(void *opaque)
{
    Load *load = opaque;
    GRand *rand = g_rand_new_with_seed(load->index);
    int fd = raw_open(fx_socket(), "disk", NULL);

    while (!qatomic_read(&stop_clients)) {
        load_round(fd, load, rand);
        load->rounds++;
    }
    g_rand_free(rand);
    close(fd);
}

/* Connect and leave, at a different point each time. */
static void churn_main(void *opaque)
{
    unsigned *connections = opaque;
    uint8_t block[BLOCK] = { 0 };

    while (!qatomic_read(&stop_clients)) {
        int fd = raw_connect(fx_socket());
        switch ((*connections)++ % 5) {
        case 0:
            break;
        case 1:
            raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE);
            break;
        case 2:
            g_assert_cmpint(raw_go(fd, "disk", false), ==, EXPORT_SIZE);
            break;
        case 3:
            g_assert_cmpint(raw_go(fd, "disk", false), ==, EXPORT_SIZE);
            raw_request(fd, 0, NBD_CMD_READ, 1, 100 * MIB, 8 * MIB);
            raw_request(fd, 0, NBD_CMD_WRITE, 1, 100 * MIB, BLOCK);
            raw_send(fd, block, 100);
            break;
        default:
            g_assert_cmpint(raw_go(fd, "disk", false), ==, EXPORT_SIZE);
            g_assert_cmpint(raw_pread(fd, block, 0, BLOCK), ==, 0);
            raw_request(fd, 0, NBD_CMD_DISC, 1, 0, 0);
            break;
        }
        close(fd);
    }
}

typedef struct Crowd {
    Load loads[2];
    unsigned connections[2];
    FxThread *threads[4];
} Crowd;

static void crowd_start(Crowd *crowd)
{
    *crowd = (Crowd) { .loads = { { .index = 1 }, { .index = 2 } } };
    crowd->threads[0] = fx_thread_start(load_main, &crowd->loads[0]);
    crowd->threads[1] = fx_thread_start(load_main, &crowd->loads[1]);
    crowd->threads[2] = fx_thread_start(churn_main, &crowd->connections[0]);
    crowd->threads[3] = fx_thread_start(churn_main, &crowd->connections[1]);
}

/* Let the clients get some work done: at least COUNT requests. */
static void crowd_progress(unsigned count)
{
    uint64_t from = export->drv->requests(export);

    while (export->drv->requests(export) - from < count) {
        main_loop_wait(true);
        sched_yield();
    }
}

static void crowd_stop(Crowd *crowd)
{
    qatomic_set(&stop_clients, true);
    for (size_t i = 0; i < ARRAY_SIZE(crowd->threads); i++) {
        fx_thread_join(crowd->threads[i]);
    }
    g_assert_cmpuint(crowd->loads[0].rounds, >, 0);
    g_assert_cmpuint(crowd->connections[0], >, 0);
    fx_wait_no_clients(export);
}

/* ---- drained sections ------------------------------------------------------------- */

static void test_drain_under_load(void)
{
    Crowd crowd;

    setup(WRITABLE_IO0);
    crowd_start(&crowd);
    for (int i = 0; i < 300; i++) {
        crowd_progress(10);
        fx_drained_begin(node);
        if (i % 3 == 0) {
            /* the main loop may go on inside a section, and clients may come */
            main_loop_wait(true);
        }
        if (i % 5 == 0) {
            fx_drained_begin(node);
            fx_drained_end(node);
            fx_forbid(node, true);
        }
        fx_drained_end(node);
        if (i % 2) {
            /* at once the next one: the restart of the clients is still under way */
            fx_drained_begin(node);
            fx_drained_end(node);
        }
    }
    crowd_stop(&crowd);
    teardown();
}

static void test_drain_all_under_load(void)
{
    Crowd crowd;

    setup(WRITABLE_IO0);
    crowd_start(&crowd);
    for (int i = 0; i < 100; i++) {
        crowd_progress(10);
        bdrv_drain_all_begin();
        fx_forbid(node, true);
        main_loop_wait(true);
        fx_forbid(node, false);
        bdrv_drain_all_end();
    }
    crowd_stop(&crowd);
    teardown();
}

/*
 *  client: READ 1 MiB x 100 ------------------------------ reads nothing ---- reads all
 *  server:                    fills the socket, is stuck
 *  main:                                     drained section: must not wait for the client
 */
enum { SLOW_READS = 100 };

static void slow_send(void *opaque)
{
    int fd = *(int *)opaque;

    for (int i = 0; i < SLOW_READS; i++) {
        g_assert_true(raw_request(fd, 0, NBD_CMD_READ, i, i * MIB, MIB));
    }
}

static void slow_receive(void *opaque)
{
    int fd = *(int *)opaque;
    g_autofree uint8_t *buf = g_malloc(MIB);
    uint64_t cookie;
    uint32_t error;

    for (int i = 0; i < SLOW_READS; i++) {
        g_assert_true(raw_reply(fd, &error, &cookie));
        g_assert_cmpuint(error, ==, 0);
        g_assert_true(raw_recv(fd, buf, MIB));
        g_assert_cmpuint(buf[0], ==, (uint8_t)(cookie + 1));
        g_assert_cmpuint(buf[MIB - 1], ==, (uint8_t)(cookie + 1));
    }
}

static void test_drain_with_slow_reader(void)
{
    int fd;

    setup(WRITABLE_IO0);
    for (int i = 0; i < SLOW_READS; i++) {
        memset(fx_data(node) + (size_t)i * MIB, i + 1, MIB);
    }
    fx_client(open_disk, &fd);
    fx_client(slow_send, &fd);
    for (int i = 0; i < 10; i++) {
        fx_drained_begin(node);
        fx_drained_end(node);
        AioContext *to = iothread_get_aio_context(iothreads[i % 2]);
        g_assert_cmpint(fx_move(node, to, &error_abort), ==, 0);
    }
    fx_client(slow_receive, &fd);
    g_assert_cmpint(raw_pread(fd, &(char){ 0 }, 0, 1), ==, 0);
    close(fd);
    fx_wait_no_clients(export);
    teardown();
}

/* Who connects inside a section is served when it ends, not before. */
static void connect_and_read(void *opaque)
{
    int fd = raw_open(fx_socket(), "disk", NULL);
    uint8_t byte;

    g_assert_true(raw_request(fd, 0, NBD_CMD_READ, 1, 0, 1));
    qatomic_set_mb((bool *)opaque, true);
    fx_wake();
    g_assert_true(raw_reply(fd, &(uint32_t){ 0 }, &(uint64_t){ 0 }));
    g_assert_true(raw_recv(fd, &byte, 1));
    g_assert_cmpuint(byte, ==, 99);
    close(fd);
}

static void test_connect_while_drained(void)
{
    bool sent = false;
    FxThread *client;

    setup(WRITABLE_IO0);
    fx_drained_begin(node);
    client = fx_thread_start(connect_and_read, &sent);
    FX_WAIT_WHILE(!qatomic_read_sc(&sent) || export->drv->clients(export) == 0);
    g_assert_cmpuint(export->drv->requests(export), ==, 0);
    fx_data(node)[0] = 99;
    fx_drained_end(node);
    fx_thread_join(client);
    g_assert_cmpuint(export->drv->requests(export), ==, 1);
    teardown();
}

/* A drain waits for requests that the driver holds, and those go through meanwhile. */
static void release_bh(void *opaque)
{
    fx_release(node);
}

static void test_drain_waits_for_requests(void)
{
    int fd;

    setup(WRITABLE_IO0);
    fx_client(open_disk, &fd);
    fx_hold(node);
    g_assert_true(raw_request(fd, 0, NBD_CMD_READ, 1, 0, 1));
    FX_WAIT_WHILE(fx_held(node) == 0);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), release_bh, NULL);
    fx_drained_begin(node);
    g_assert_cmpuint(export->drv->requests(export), ==, 1);
    fx_drained_end(node);
    g_assert_true(raw_reply(fd, &(uint32_t){ 0 }, &(uint64_t){ 0 }));
    close(fd);
    fx_wait_no_clients(export);
    teardown();
}

/* ---- moves ------------------------------------------------------------------------ */

static void test_move_under_load(void)
{
    AioContext *homes[3];
    Crowd crowd;

    setup(WRITABLE_IO0);
    homes[0] = qemu_get_aio_context();
    homes[1] = iothread_get_aio_context(iothreads[0]);
    homes[2] = iothread_get_aio_context(iothreads[1]);
    crowd_start(&crowd);
    for (unsigned i = 0; i < 400; i++) {
        AioContext *to = homes[(i * 7 + i / 5) % 3];
        /* every other move comes right behind the one before */
        crowd_progress(i % 2 ? 0 : 20);
        g_assert_cmpint(fx_move(node, to, &error_abort), ==, 0);
        g_assert_true(export->ctx == to);
    }
    crowd_stop(&crowd);
    teardown();
}

/* Moves inside a section, as the monitor does them. */
static void test_move_inside_section(void)
{
    Crowd crowd;

    setup(WRITABLE_IO0);
    crowd_start(&crowd);
    for (unsigned i = 0; i < 200; i++) {
        AioContext *from = bdrv_get_aio_context(node);
        AioContext *to = iothread_get_aio_context(iothreads[i % 2]);
        crowd_progress(20);
        aio_context_acquire(from);
        bdrv_drained_begin(node);
        g_assert_cmpint(bdrv_try_change_aio_context(node, to, NULL, &error_abort), ==, 0);
        aio_context_release(from);
        aio_context_acquire(to);
        bdrv_drained_end(node);
        aio_context_release(to);
    }
    crowd_stop(&crowd);
    teardown();
}

static void test_fixed_iothread_refuses(void)
{
    Error *err = NULL;
    int fd;

    setup(WRITABLE_IO0 ", 'fixed-iothread': true");
    fx_client(open_disk, &fd);
    g_assert_cmpint(fx_move(node, iothread_get_aio_context(iothreads[1]), &err), ==, -EPERM);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Cannot change iothread of active block backend");
    error_free(err);
    g_assert_true(export->ctx == iothread_get_aio_context(iothreads[0]));
    g_assert_cmpint(raw_pread(fd, &(char){ 0 }, 0, 1), ==, 0);
    close(fd);
    fx_export_delete("e0");
    teardown();
}

/* ---- the end ---------------------------------------------------------------------- */

static unsigned deleted_count;
static void count_deleted(const char *id)
{
    g_assert_cmpstr(id, ==, "e0");
    deleted_count++;
}

static void until_eof(void *opaque)
{
    int fd = raw_connect(fx_socket());
    bool *attached = opaque;
    char buf[BLOCK];

    g_assert_cmpint(raw_go(fd, "disk", false), ==, EXPORT_SIZE);
    qatomic_set_mb(attached, true);
    fx_wake();
    while (raw_pread(fd, buf, 0, sizeof(buf)) == 0) {
        /* until the server hangs up */
    }
    close(fd);
}

/* The export goes away under busy clients; its name is free at once. */
static void test_delete_under_load(void)
{
    FxThread *clients[4];
    bool attached[4];

    setup(WRITABLE_IO0);
    blk_exp_set_deleted_callback(count_deleted);
    deleted_count = 0;
    for (unsigned round = 0; round < 20; round++) {
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            attached[i] = false;
            clients[i] = fx_thread_start(until_eof, &attached[i]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            FX_WAIT_WHILE(!qatomic_read_sc(&attached[i]));
        }
        g_assert_cmpint(export->drv->clients(export), ==, ARRAY_SIZE(clients));
        fx_export_delete("e0");
        g_assert_cmpuint(deleted_count, ==, round + 1);
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            fx_thread_join(clients[i]);
        }
        export = fx_export("e0", "disk", round % 2 ? WRITABLE_IO0 : "'iothread': 'io1'");
    }
    blk_exp_set_deleted_callback(NULL);
    teardown();
}

/* A request that hangs delays the export's end, not the main loop's. */
static void test_delete_with_request_in_flight(void)
{
    int fd;

    setup(WRITABLE_IO0);
    fx_client(open_disk, &fd);
    fx_hold(node);
    g_assert_true(raw_request(fd, 0, NBD_CMD_READ, 1, 0, 1));
    FX_WAIT_WHILE(fx_held(node) == 0);
    blk_exp_request_shutdown(export);
    g_assert_true(raw_at_eof(fd));
    main_loop_wait(true);
    g_assert_true(blk_exp_find("e0") == export);
    g_assert_false(export->user_owned);
    fx_release(node);
    FX_WAIT_WHILE(blk_exp_find("e0"));
    close(fd);
    teardown();
}

/* Close everything at once: clients that load, that hang, that are parked or half way in. */
static void test_close_all_with_hanging_clients(void)
{
    int slow, half, fresh;
    char greeting[NBD_GREETING_SIZE];

    setup(WRITABLE_IO0);
    fx_client(open_disk, &slow);
    fx_client(slow_send, &slow);
    half = raw_connect(fx_socket());
    FX_WAIT_WHILE(recv(half, greeting, sizeof(greeting), MSG_PEEK | MSG_DONTWAIT) < 0);
    fx_drained_begin(node);
    fx_client(open_disk, &fresh);
    g_assert_true(raw_request(fresh, 0, NBD_CMD_READ, 1, 0, 1));
    fx_drained_end(node);
    teardown();
    g_assert_true(raw_recv(half, greeting, sizeof(greeting)));
    g_assert_true(raw_at_eof(half));
    close(half);
    close(slow);
    close(fresh);
}

/* The same from inside a section, where a client cannot notice that it is over by itself. */
static void test_close_while_drained(void)
{
    int busy, fresh;

    setup(WRITABLE_IO0);
    fx_client(open_disk, &busy);
    bdrv_ref(node);
    fx_drained_begin(node);
    fx_client(open_disk, &fresh);
    blk_exp_close_all();
    g_assert_null(blk_exp_next(NULL));
    fx_drained_end(node);
    bdrv_unref(node);
    g_assert_true(raw_at_eof(busy));
    g_assert_true(raw_at_eof(fresh));
    close(busy);
    close(fresh);
    teardown();
}

/* Nothing of a client outlives a stop under full load. */
static void test_stop_under_load(void)
{
    FxThread *clients[4];
    bool attached[4];

    for (unsigned round = 0; round < 10; round++) {
        setup(round % 2 ? "" : WRITABLE_IO0);
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            attached[i] = false;
            clients[i] = fx_thread_start(until_eof, &attached[i]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            FX_WAIT_WHILE(!qatomic_read_sc(&attached[i]));
        }
        teardown();
        for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
            fx_thread_join(clients[i]);
        }
    }
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    fx_init();
    g_test_add_func("/nbd/drain/under-load", test_drain_under_load);
    g_test_add_func("/nbd/drain/all-under-load", test_drain_all_under_load);
    g_test_add_func("/nbd/drain/slow-reader", test_drain_with_slow_reader);
    g_test_add_func("/nbd/drain/connect-while-drained", test_connect_while_drained);
    g_test_add_func("/nbd/drain/waits-for-requests", test_drain_waits_for_requests);
    g_test_add_func("/nbd/move/under-load", test_move_under_load);
    g_test_add_func("/nbd/move/inside-section", test_move_inside_section);
    g_test_add_func("/nbd/move/fixed-iothread-refuses", test_fixed_iothread_refuses);
    g_test_add_func("/nbd/end/delete-under-load", test_delete_under_load);
    g_test_add_func("/nbd/end/delete-with-request-in-flight",
                    test_delete_with_request_in_flight);
    g_test_add_func("/nbd/end/close-all-with-hanging-clients",
                    test_close_all_with_hanging_clients);
    g_test_add_func("/nbd/end/close-while-drained", test_close_while_drained);
    g_test_add_func("/nbd/end/stop-under-load", test_stop_under_load);
    ret = g_test_run();
    fx_cleanup();
    return ret;
}
