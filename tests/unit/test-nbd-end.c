/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How connections to the NBD server end: by word, by a half, or without one. */
#include "miniblk/osdep.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"
#include <sys/socket.h>

#define MIB (1024u * 1024)
enum { READS = 3 };

static IOThread *iothread;
static BlockDriverState *node;
static BlockExport *export;

static void setup(void)
{
    fx_server_start(0, 0);
    iothread = iothread_create("io0", &error_abort);
    node = fx_node("disk", READS * MIB);
    export = fx_export("e0", "disk", "'writable': true, 'iothread': 'io0'");
}

static void teardown(void)
{
    nbd_server_stop(&error_abort);
    fx_move(node, qemu_get_aio_context(), &error_abort);
    bdrv_unref(node);
    iothread_destroy(iothread);
}

static void release_bh(void *opaque)
{
    fx_release(node);
}

static int fd;                  /* of the client */

/* DISC is not answered; what was asked before is. */
static void disconnect(void *opaque)
{
    uint8_t session[2 * NBD_REQUEST_SIZE], buf[16];
    uint32_t error;
    uint64_t cookie;

    fd = raw_open(fx_socket(), "disk", NULL);
    raw_request_header(session, 0, NBD_CMD_READ, 7, 0, sizeof(buf));
    raw_request_header(session + NBD_REQUEST_SIZE, 0, NBD_CMD_DISC, 8, 0, 0);
    g_assert_true(raw_send(fd, session, sizeof(session)));
    g_assert_true(raw_reply(fd, &error, &cookie));
    g_assert_cmpuint(error, ==, 0);
    g_assert_cmpuint(cookie, ==, 7);
    g_assert_true(raw_recv(fd, buf, sizeof(buf)));
    g_assert_true(raw_at_eof(fd));
    close(fd);
}

static void test_disconnect(void)
{
    setup();
    fx_client(disconnect, NULL);
    fx_wait_no_clients(export);
    teardown();
}

static void connect_disk(void *opaque)
{
    fd = raw_open(fx_socket(), "disk", NULL);
}

/* A client goes while its requests are in the driver, and their answers find nobody. */
static void test_vanish_in_flight(void)
{
    setup();
    fx_client(connect_disk, NULL);
    fx_hold(node);
    g_assert_true(raw_request(fd, 0, NBD_CMD_READ, 1, 0, MIB));
    g_assert_true(raw_request(fd, 0, NBD_CMD_READ, 2, MIB, MIB));
    FX_WAIT_WHILE(fx_held(node) < 2);
    close(fd);
    g_assert_cmpint(export->drv->clients(export), ==, 1);
    fx_release(node);
    fx_wait_no_clients(export);
    teardown();
}

/*
 *  client: READ 3 x 1 MiB, its end ----------- reads nothing -------------- reads all
 *  server:                           fills the socket, is stuck
 *  main:                                               section, move
 */
typedef struct End {
    const char *path;
    bool half_close;        /* instead of DISC */
    bool hung_up;           /* by the server, before the client reads */
} End;

static void ask_and_end(void *opaque)
{
    uint8_t session[(READS + 1) * NBD_REQUEST_SIZE];
    const End *end = opaque;
    unsigned i;

    fd = raw_open(fx_socket(), "disk", NULL);
    for (i = 0; i < READS; i++) {
        raw_request_header(session + i * NBD_REQUEST_SIZE, 0, NBD_CMD_READ, i, i * MIB, MIB);
    }
    raw_request_header(session + i * NBD_REQUEST_SIZE, 0, NBD_CMD_DISC, i, 0, 0);
    g_assert_true(raw_send(fd, session, (end->half_close ? i : i + 1) * NBD_REQUEST_SIZE));
    if (end->half_close) {
        g_assert_cmpint(shutdown(fd, SHUT_WR), ==, 0);
    }
}

static void read_answers(void *opaque)
{
    g_autofree uint8_t *buf = g_malloc(MIB);
    uint64_t cookie;
    uint32_t error;

    for (unsigned i = 0; i < READS; i++) {
        g_assert_true(raw_reply(fd, &error, &cookie));
        g_assert_cmpuint(error, ==, 0);
        g_assert_true(raw_recv(fd, buf, MIB));
        g_assert_cmpuint(buf[MIB - 1], ==, cookie + 1);
    }
    g_assert_true(raw_at_eof(fd));
}

static void test_end(const void *opaque)
{
    const End *end = opaque;

    setup();
    for (unsigned i = 0; i < READS; i++) {
        fx_data(node)[(i + 1) * MIB - 1] = i + 1;
    }
    fx_hold(node);
    fx_client(ask_and_end, (void *)opaque);
    FX_WAIT_WHILE(fx_held(node) < READS);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), release_bh, NULL);
    fx_drained_begin(node);
    g_assert_cmpuint(export->drv->requests(export), ==, READS);
    g_assert_cmpint(export->drv->clients(export), ==, 1);
    if (end->hung_up) {
        fx_export_delete("e0");
    }
    fx_drained_end(node);
    if (!end->hung_up) {
        /* what is not sent yet goes along */
        g_assert_cmpint(fx_move(node, qemu_get_aio_context(), &error_abort), ==, 0);
        fx_client(read_answers, NULL);
        fx_wait_no_clients(export);
    }
    close(fd);
    teardown();
}

static const End ends[] = {
    { "disconnect/answers", false, false },
    { "disconnect/hung-up", false, true },
    { "half-close/answers", true, false },
    { "half-close/hung-up", true, true },
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    fx_init();
    g_test_add_func("/nbd/end/disconnect", test_disconnect);
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        g_autofree char *path = g_strdup_printf("/nbd/end/%s", ends[i].path);
        g_test_add_data_func(path, &ends[i], test_end);
    }
    g_test_add_func("/nbd/end/vanish-in-flight", test_vanish_in_flight);
    int ret = g_test_run();
    fx_cleanup();
    return ret;
}
