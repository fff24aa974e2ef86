/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzing of the NBD server: the input is what a client sends. Whatever it is, the server
 * must hang up after the client has, crash nowhere, and serve the next one.
 *
 * Built with -DMINIBLK_LIBFUZZER and -fsanitize=fuzzer it is a libFuzzer target. Built
 * plainly it runs the files that are given, or a number of generated sessions as a test.
 */
#include "miniblk/osdep.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"
#include <sys/socket.h>
#include "replay.h"

#define EXPORT_SIZE (256 * 1024)
/* Far more turns of the loop than any session takes. */
#define TURNS_MAX   1000000
/* A long input is not sent in tiny pieces. */
#define PIECES_MAX  500

static BlockDriverState *node;
static BlockExport *export;

static void server_up(void)
{
    fx_init();
    fx_server_start(0, 0);
    node = fx_node("disk", EXPORT_SIZE);
    export = fx_export("e0", "disk", "'writable': true, 'description': 'd'");
}

/* Take what the server has sent; false when it has hung up. */
static bool swallow(int fd)
{
    char buf[65536];
    ssize_t n;

    do {
        n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    } while (n > 0);
    return n < 0 && errno == EAGAIN;
}

/* One connection that sends DATA in pieces of PIECE bytes. */
static void session(const uint8_t *data, size_t len, size_t piece)
{
    int fd = raw_connect(fx_socket());
    size_t sent = 0;
    bool done = false;

    for (unsigned turn = 0; swallow(fd); turn++) {
        if (turn == TURNS_MAX) {
            g_error("the server does not hang up");
        }
        if (sent < len) {
            ssize_t n = send(fd, data + sent, MIN(piece, len - sent),
                             MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += MAX(n, 0);
        } else if (!done) {
            shutdown(fd, SHUT_WR);
            done = true;
        }
        main_loop_wait(true);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const size_t pieces[] = { 1, 7, 28, 500, 4096, 1024 * 1024 };

    if (!node) {
        server_up();
    }
    if (len) {
        size_t piece = pieces[data[0] % ARRAY_SIZE(pieces)];
        session(data + 1, len - 1, MAX(piece, len / PIECES_MAX));
    }
    return 0;
}

#ifndef MINIBLK_LIBFUZZER

/* ---- generated sessions ----------------------------------------------------------- */

static void put(GByteArray *s, const void *data, size_t len)
{
    g_byte_array_append(s, data, len);
}

static void put_option(GByteArray *s, uint32_t option, const void *data, uint32_t len)
{
    uint8_t header[NBD_OPTION_HEADER_SIZE];

    nbd_put32(nbd_put32(nbd_put64(header, NBD_OPTS_MAGIC), option), len);
    put(s, header, sizeof(header));
    put(s, data, len);
}

/* Mostly what is allowed, sometimes a little off, rarely anything. */
static uint64_t some_number(GRand *rand, uint64_t usual_max)
{
    switch (g_rand_int_range(rand, 0, 12)) {
    case 0:
        return usual_max + g_rand_int_range(rand, -1, 2);
    case 1:
        return UINT64_C(1) << g_rand_int_range(rand, 0, 64);
    case 2:
        return ((uint64_t)g_rand_int(rand) << 32) | g_rand_int(rand);
    default:
        return g_rand_double_range(rand, 0, usual_max);
    }
}

static void put_random_option(GByteArray *s, GRand *rand)
{
    static const char name[] = "\0\0\0\4disk\0\2\0\1\0\3";
    static const char query[] = "\0\0\0\4disk\0\0\0\1\0\0\0\x0f" "base:allocation";

    switch (g_rand_int_range(rand, 0, 7)) {
    case 0:
        put_option(s, NBD_OPT_STRUCTURED_REPLY, "", 0);
        break;
    case 1:
        put_option(s, NBD_OPT_SET_META_CONTEXT, query, sizeof(query) - 1);
        break;
    case 2:
        put_option(s, NBD_OPT_LIST_META_CONTEXT, query, sizeof(query) - 1);
        break;
    case 3:
        put_option(s, NBD_OPT_INFO, name, sizeof(name) - 1);
        break;
    default:
        put_option(s, g_rand_int_range(rand, 2, 14), query, g_rand_int_range(rand, 0, 20));
        break;
    }
}

static void put_random_request(GByteArray *s, GRand *rand)
{
    uint8_t header[NBD_REQUEST_SIZE];
    uint16_t type = g_rand_int_range(rand, 0, 10) ? g_rand_int_range(rand, 0, 8)
                                                  : g_rand_int(rand);
    uint16_t flags = 0;
    uint32_t len = some_number(rand, 20000);

    if (type == NBD_CMD_DISC && g_rand_int_range(rand, 0, 8)) {
        type = NBD_CMD_WRITE;
    }
    if (g_rand_int_range(rand, 0, 4) == 0) {
        flags = g_rand_int_range(rand, 0, 32);
    }
    raw_request_header(header, flags, type, g_rand_int(rand), some_number(rand, EXPORT_SIZE),
                       len);
    put(s, header, sizeof(header));
    if (type == NBD_CMD_WRITE) {
        guint at = s->len;
        g_byte_array_set_size(s, at + MIN(len, 40000u));
        memset(s->data + at, len, s->len - at);
    }
}

static GByteArray *random_session(GRand *rand)
{
    static const char go[] = "\0\0\0\4disk\0\0";
    GByteArray *s = g_byte_array_new();
    uint8_t byte = g_rand_int(rand);

    put(s, &byte, 1);
    put(s, "\0\0\0\3", 4);
    for (int n = g_rand_int_range(rand, 0, 5); n > 0; n--) {
        put_random_option(s, rand);
    }
    put_option(s, NBD_OPT_GO, go, sizeof(go) - 1);
    for (int n = g_rand_int_range(rand, 0, 60); n > 0; n--) {
        put_random_request(s, rand);
    }
    /* Damage some of the sessions, and cut some off. */
    for (int n = g_rand_int_range(rand, 0, 3) ? 0 : g_rand_int_range(rand, 1, 6); n > 0; n--) {
        s->data[g_rand_int_range(rand, 0, s->len)] = g_rand_int(rand);
    }
    if (g_rand_int_range(rand, 0, 4) == 0) {
        g_byte_array_set_size(s, g_rand_int_range(rand, 1, s->len + 1));
    }
    return s;
}

static void still_works(void *opaque)
{
    int fd = raw_open(fx_socket(), "disk", NULL);
    char buf[16];

    g_assert_cmpint(raw_pread(fd, buf, 0, sizeof(buf)), ==, 0);
    close(fd);
}

static void test_generated(void)
{
    GRand *rand = g_rand_new_with_seed(2026);
    int count = g_test_slow() ? 100000 : 2000;

    server_up();
    for (int i = 0; i < count; i++) {
        g_autoptr(GByteArray) s = random_session(rand);
        LLVMFuzzerTestOneInput(s->data, s->len);
    }
    g_assert_cmpuint(export->drv->requests(export), >, count);
    fx_client(still_works, NULL);
    fx_wait_no_clients(export);
    nbd_server_stop(&error_abort);
    bdrv_unref(node);
    fx_cleanup();
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc > 1) {
        return fuzz_replay(argv + 1);
    }
    g_test_add_func("/fuzz/nbd/generated", test_generated);
    return g_test_run();
}

#endif
