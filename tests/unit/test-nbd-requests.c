/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The transmission phase of the NBD server: answers, limits, and clients that vanish. */
#include "miniblk/osdep.h"
#include "miniblk/iothread.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"
#include <sys/socket.h>

#define KIB             UINT64_C(1024)
#define MIB             (KIB * KIB)
#define EXPORT_SIZE     (4 * MIB + 123)     /* its end is not aligned to anything */

static IOThread *iothread;
static BlockDriverState *node;
static BlockExport *export;

static void setup(const char *extra)
{
    fx_server_start(0, 0);
    iothread = iothread_create("io0", &error_abort);
    node = fx_node("disk", EXPORT_SIZE);
    export = fx_export("e0", "disk", extra);
}

static void teardown(void)
{
    nbd_server_stop(&error_abort);
    /* Back to the main loop before its thread goes. */
    AioContext *ctx = bdrv_get_aio_context(node);
    aio_context_acquire(ctx);
    bdrv_set_aio_context(node, qemu_get_aio_context());
    aio_context_release(ctx);
    bdrv_unref(node);
    iothread_destroy(iothread);
}

#define WRITABLE_IO0 "'writable': true, 'iothread': 'io0'"

/* ---- errors ----------------------------------------------------------------------- */

typedef struct ErrorCase {
    const char *name;
    bool read_only;
    uint16_t flags, type;
    uint64_t offset;
    uint32_t len;
    int error;
} ErrorCase;

static const ErrorCase error_cases[] = {
    { "read-last-byte", false, 0, NBD_CMD_READ, EXPORT_SIZE - 1, 1, 0 },
    { "read-nothing", false, 0, NBD_CMD_READ, 0, 0, 0 },
    { "read-nothing-at-end", false, 0, NBD_CMD_READ, EXPORT_SIZE, 0, 0 },
    { "read-beyond-end", false, 0, NBD_CMD_READ, EXPORT_SIZE - 1, 2, NBD_EINVAL },
    { "read-far-beyond-end", false, 0, NBD_CMD_READ, UINT64_MAX, UINT32_MAX, NBD_EINVAL },
    { "read-wraps", false, 0, NBD_CMD_READ, UINT64_MAX - 1, 4, NBD_EINVAL },
    { "read-too-long", false, 0, NBD_CMD_READ, 0, 32 * MIB + 1, NBD_EINVAL },
    { "read-df-not-negotiated", false, NBD_CMD_FLAG_DF, NBD_CMD_READ, 0, 1, NBD_EINVAL },
    { "read-fua", false, NBD_CMD_FLAG_FUA, NBD_CMD_READ, 0, 16, 0 },
    { "write-beyond-end", false, 0, NBD_CMD_WRITE, EXPORT_SIZE - 1, 2, NBD_ENOSPC },
    { "write-too-long", false, 0, NBD_CMD_WRITE, 0, 32 * MIB + 1, NBD_EINVAL },
    { "write-nothing", false, 0, NBD_CMD_WRITE, 0, 0, 0 },
    { "write-unknown-flag", false, 0x8000, NBD_CMD_WRITE, 0, 100 * KIB, NBD_EINVAL },
    { "write-read-only", true, 0, NBD_CMD_WRITE, 0, 100 * KIB, NBD_EPERM },
    { "trim", false, 0, NBD_CMD_TRIM, 0, 1 * MIB, 0 },
    { "trim-beyond-end", false, 0, NBD_CMD_TRIM, 1, EXPORT_SIZE, NBD_EINVAL },
    { "trim-read-only", true, 0, NBD_CMD_TRIM, 0, 1, NBD_EPERM },
    { "zeroes", false, 0, NBD_CMD_WRITE_ZEROES, 1, 1 * MIB, 0 },
    { "zeroes-no-hole", false, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES, 1, 3, 0 },
    { "zeroes-beyond-end", false, 0, NBD_CMD_WRITE_ZEROES, 1, EXPORT_SIZE, NBD_ENOSPC },
    { "zeroes-read-only", true, 0, NBD_CMD_WRITE_ZEROES, 0, 1, NBD_EPERM },
    { "flush", false, 0, NBD_CMD_FLUSH, 0, 0, 0 },
    { "flush-read-only", true, 0, NBD_CMD_FLUSH, 0, 0, 0 },
    { "cache", false, 0, NBD_CMD_CACHE, 0, 4096, NBD_EINVAL },
    { "block-status-without-context", false, 0, NBD_CMD_BLOCK_STATUS, 0, 1, NBD_EINVAL },
    { "unknown-command", false, 0, 99, 0, 4096, NBD_EINVAL },
};

static void error_case(void *opaque)
{
    const ErrorCase *ec = opaque;
    int fd = raw_open(fx_socket(), "disk", NULL);
    g_autofree uint8_t *buf = g_malloc0(MAX(ec->len, 1u));
    uint8_t probe[16];

    if (ec->type == NBD_CMD_READ) {
        g_autofree uint8_t *in = ec->error ? NULL : g_malloc(MAX(ec->len, 1u));
        g_assert_cmpint(raw_command(fd, ec->flags, ec->type, ec->offset, ec->len), ==,
                        ec->error);
        g_assert_true(ec->error || raw_recv(fd, in, ec->len));
    } else if (ec->type == NBD_CMD_WRITE) {
        g_assert_cmpint(raw_pwrite(fd, buf, ec->offset, ec->len, ec->flags), ==, ec->error);
    } else {
        g_assert_cmpint(raw_command(fd, ec->flags, ec->type, ec->offset, ec->len), ==,
                        ec->error);
    }
    /* The connection has not lost its step. */
    g_assert_cmpint(raw_pread(fd, probe, 0, sizeof(probe)), ==, 0);
    close(fd);
}

static void test_error(const void *opaque)
{
    const ErrorCase *ec = opaque;

    setup(ec->read_only ? "'iothread': 'io0'" : WRITABLE_IO0);
    fx_client(error_case, (void *)opaque);
    teardown();
}

static void bad_magic(void *opaque)
{
    int fd = raw_open(fx_socket(), "disk", NULL);
    uint8_t header[NBD_REQUEST_SIZE];

    raw_request_header(header, 0, NBD_CMD_READ, 1, 0, 16);
    header[0] ^= 1;
    g_assert_true(raw_send(fd, header, sizeof(header)));
    g_assert_true(raw_at_eof(fd));
    close(fd);
}

static void test_bad_magic(void)
{
    setup(WRITABLE_IO0);
    fx_client(bad_magic, NULL);
    fx_wait_no_clients(export);
    teardown();
}

/* ---- data ------------------------------------------------------------------------- */

static void fill(uint8_t *buf, size_t len, GRand *rand)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = g_rand_int(rand);
    }
}

static void random_io(void *opaque)
{
    g_autofree uint8_t *model = g_malloc0(EXPORT_SIZE);
    g_autofree uint8_t *buf = g_malloc(EXPORT_SIZE);
    int fd = raw_open(fx_socket(), "disk", NULL);
    GRand *rand = g_rand_new_with_seed(1);

    for (int i = 0; i < 300; i++) {
        size_t offset = g_rand_int_range(rand, 0, EXPORT_SIZE);
        size_t max = MIN(EXPORT_SIZE - offset, i % 10 ? 9000 : 3 * MIB);
        size_t len = g_rand_int_range(rand, 1, max + 1);
        switch (g_rand_int_range(rand, 0, 4)) {
        case 0:
            g_assert_cmpint(raw_pread(fd, buf, offset, len), ==, 0);
            g_assert_true(!memcmp(buf, model + offset, len));
            break;
        case 1:
            g_assert_cmpint(raw_command(fd, 0, NBD_CMD_WRITE_ZEROES, offset, len), ==, 0);
            memset(model + offset, 0, len);
            break;
        default:
            fill(buf, len, rand);
            memcpy(model + offset, buf, len);
            g_assert_cmpint(raw_pwrite(fd, buf, offset, len, 0), ==, 0);
            break;
        }
    }
    g_assert_cmpint(raw_pread(fd, buf, 0, EXPORT_SIZE), ==, 0);
    g_assert_true(!memcmp(buf, model, EXPORT_SIZE));
    g_rand_free(rand);
    close(fd);
}

static void test_random_io(void)
{
    setup(WRITABLE_IO0);
    fx_client(random_io, NULL);
    teardown();
}

/* More requests than the server takes at once, all sent before the first answer is read. */
enum { PIPELINE = 1000, PIPELINE_LEN = 4096 };

static void pipeline_send(void *opaque)
{
    int fd = *(int *)opaque;
    uint8_t block[PIPELINE_LEN];

    for (uint32_t i = 0; i < PIPELINE; i++) {
        memset(block, i, sizeof(block));
        g_assert_true(raw_request(fd, 0, NBD_CMD_WRITE, i, i * PIPELINE_LEN, PIPELINE_LEN));
        g_assert_true(raw_send(fd, block, sizeof(block)));
    }
    for (uint32_t i = 0; i < PIPELINE; i++) {
        g_assert_true(raw_request(fd, 0, NBD_CMD_READ, PIPELINE + i, i * PIPELINE_LEN,
                                  PIPELINE_LEN));
    }
}

static void pipeline_receive(void *opaque)
{
    int fd = *(int *)opaque;
    uint8_t block[PIPELINE_LEN], expected[PIPELINE_LEN];
    bool seen[2 * PIPELINE] = { false };

    for (uint32_t i = 0; i < 2 * PIPELINE; i++) {
        uint32_t error;
        uint64_t cookie;
        g_assert_true(raw_reply(fd, &error, &cookie));
        g_assert_cmpuint(error, ==, 0);
        g_assert_cmpuint(cookie, <, 2 * PIPELINE);
        g_assert_false(seen[cookie]);
        seen[cookie] = true;
        if (cookie >= PIPELINE) {
            memset(expected, cookie - PIPELINE, sizeof(expected));
            g_assert_true(raw_recv(fd, block, sizeof(block)));
            g_assert_cmpmem(block, sizeof(block), expected, sizeof(expected));
        }
    }
}

static void open_disk(void *opaque)
{
    *(int *)opaque = raw_open(fx_socket(), "disk", NULL);
}

static void test_pipeline(void)
{
    FxThread *sender, *receiver;
    int fd;

    setup(WRITABLE_IO0);
    fx_client(open_disk, &fd);
    sender = fx_thread_start(pipeline_send, &fd);
    receiver = fx_thread_start(pipeline_receive, &fd);
    fx_thread_join(sender);
    fx_thread_join(receiver);
    close(fd);
    teardown();
}

/* Requests in flight are bounded; the rest waits in the socket and comes later. */
static void test_in_flight_limit(void)
{
    FxThread *sender, *receiver;
    int fd;

    setup(WRITABLE_IO0);
    fx_client(open_disk, &fd);
    fx_hold(node);
    sender = fx_thread_start(pipeline_send, &fd);
    FX_WAIT_WHILE(fx_held(node) < 128);
    g_assert_cmpuint(fx_held(node), ==, 128);
    fx_release(node);
    receiver = fx_thread_start(pipeline_receive, &fd);
    fx_thread_join(sender);
    fx_thread_join(receiver);
    g_assert_cmpuint(export->drv->requests(export), ==, 2 * PIPELINE);
    close(fd);
    teardown();
}

/* ---- durability ------------------------------------------------------------------- */

static void write_once(void *opaque)
{
    uint16_t flags = GPOINTER_TO_INT(opaque);
    int fd = raw_open(fx_socket(), "disk", NULL);

    g_assert_cmpint(raw_pwrite(fd, "data", 0, 4, flags), ==, 0);
    close(fd);
}

static void flush_once(void *opaque)
{
    int fd = raw_open(fx_socket(), "disk", NULL);

    g_assert_cmpint(raw_pwrite(fd, "data", 0, 4, 0), ==, 0);
    g_assert_cmpint(raw_command(fd, 0, NBD_CMD_FLUSH, 0, 0), ==, 0);
    close(fd);
}

static void test_fua(void)
{
    setup(WRITABLE_IO0);
    fx_client(write_once, GINT_TO_POINTER(0));
    g_assert_cmpuint(fx_fua_writes(node), ==, 0);
    fx_client(write_once, GINT_TO_POINTER(NBD_CMD_FLAG_FUA));
    g_assert_cmpuint(fx_fua_writes(node), ==, 1);
    g_assert_cmpuint(fx_flushes(node), ==, 0);
    fx_client(flush_once, NULL);
    g_assert_cmpuint(fx_flushes(node), ==, 1);
    teardown();
}

static void test_writethrough(void)
{
    setup(WRITABLE_IO0 ", 'writethrough': true");
    fx_client(write_once, GINT_TO_POINTER(0));
    g_assert_cmpuint(fx_fua_writes(node), ==, 1);
    teardown();
}

/* ---- structured replies ----------------------------------------------------------- */

static size_t chunk(int fd, uint16_t type, uint64_t cookie, void *buf, size_t size)
{
    uint8_t header[NBD_STRUCTURED_REPLY_SIZE];
    uint32_t len;

    g_assert_true(raw_recv(fd, header, sizeof(header)));
    g_assert_cmphex(nbd_get32(header), ==, NBD_STRUCTURED_REPLY_MAGIC);
    g_assert_cmphex(nbd_get16(header + 4), ==, NBD_REPLY_FLAG_DONE);
    g_assert_cmphex(nbd_get16(header + 6), ==, type);
    g_assert_cmphex(nbd_get64(header + 8), ==, cookie);
    len = nbd_get32(header + 16);
    g_assert_cmpuint(len, <=, size);
    g_assert_true(raw_recv(fd, buf, len));
    return len;
}

static int open_structured(bool context)
{
    static const char query[] = "\0\0\0\4disk\0\0\0\1\0\0\0\x0f" "base:allocation";
    static const char go[] = "\0\0\0\4disk\0\0";
    int fd = raw_connect(fx_socket());

    g_assert_true(raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
    g_assert_true(raw_option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0));
    g_assert_cmphex(raw_option_reply(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0), ==, NBD_REP_ACK);
    if (context) {
        g_assert_true(raw_option(fd, NBD_OPT_SET_META_CONTEXT, query, sizeof(query) - 1));
        g_assert_cmphex(raw_option_reply(fd, NBD_OPT_SET_META_CONTEXT, NULL, 0), ==,
                        NBD_REP_META_CONTEXT);
        g_assert_cmphex(raw_option_reply(fd, NBD_OPT_SET_META_CONTEXT, NULL, 0), ==,
                        NBD_REP_ACK);
    }
    g_assert_true(raw_option(fd, NBD_OPT_GO, go, sizeof(go) - 1));
    g_assert_cmphex(raw_option_reply(fd, NBD_OPT_GO, NULL, 0), ==, NBD_REP_INFO);
    g_assert_cmphex(raw_option_reply(fd, NBD_OPT_GO, NULL, 0), ==, NBD_REP_ACK);
    return fd;
}

static void structured_read(void *opaque)
{
    int fd = open_structured(false);
    uint8_t buf[64];

    g_assert_true(raw_request(fd, 0, NBD_CMD_WRITE, 1, 1000, 4));
    g_assert_true(raw_send(fd, "data", 4));
    g_assert_true(raw_recv(fd, buf, NBD_SIMPLE_REPLY_SIZE));
    g_assert_cmphex(nbd_get32(buf), ==, NBD_SIMPLE_REPLY_MAGIC);

    g_assert_true(raw_request(fd, NBD_CMD_FLAG_DF, NBD_CMD_READ, 2, 1000, 4));
    g_assert_cmpuint(chunk(fd, NBD_REPLY_TYPE_OFFSET_DATA, 2, buf, sizeof(buf)), ==, 12);
    g_assert_cmpuint(nbd_get64(buf), ==, 1000);
    g_assert_cmpmem(buf + 8, 4, "data", 4);

    g_assert_true(raw_request(fd, 0, NBD_CMD_READ, 3, 0, 0));
    g_assert_cmpuint(chunk(fd, NBD_REPLY_TYPE_NONE, 3, buf, sizeof(buf)), ==, 0);

    g_assert_true(raw_request(fd, 0, NBD_CMD_READ, 4, EXPORT_SIZE, 1));
    g_assert_cmpuint(chunk(fd, NBD_REPLY_TYPE_ERROR, 4, buf, sizeof(buf)), ==, 6);
    g_assert_cmpuint(nbd_get32(buf), ==, NBD_EINVAL);
    g_assert_cmpuint(nbd_get16(buf + 4), ==, 0);

    /* no context was selected */
    g_assert_true(raw_request(fd, 0, NBD_CMD_BLOCK_STATUS, 5, 0, 1));
    g_assert_cmpuint(chunk(fd, NBD_REPLY_TYPE_ERROR, 5, buf, sizeof(buf)), ==, 6);
    close(fd);
}

static void test_structured_read(void)
{
    setup(WRITABLE_IO0);
    fx_client(structured_read, NULL);
    teardown();
}

static void block_status(void *opaque)
{
    const uint64_t half = EXPORT_SIZE / 2;
    int fd = open_structured(true);
    uint8_t buf[64];

    g_assert_true(raw_request(fd, 0, NBD_CMD_BLOCK_STATUS, 1, 10, EXPORT_SIZE - 10));
    g_assert_cmpuint(chunk(fd, NBD_REPLY_TYPE_BLOCK_STATUS, 1, buf, sizeof(buf)), ==, 20);
    g_assert_cmpuint(nbd_get32(buf), ==, 0);
    /* What a driver says may be cut to its alignment; here it is 1. */
    g_assert_cmpuint(nbd_get32(buf + 4), ==, half - 10);
    g_assert_cmpuint(nbd_get32(buf + 8), ==, 0);
    g_assert_cmpuint(nbd_get32(buf + 12), ==, EXPORT_SIZE - half);
    g_assert_cmpuint(nbd_get32(buf + 16), ==, NBD_STATE_HOLE | NBD_STATE_ZERO);

    g_assert_true(raw_request(fd, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS, 2, 0,
                              EXPORT_SIZE));
    g_assert_cmpuint(chunk(fd, NBD_REPLY_TYPE_BLOCK_STATUS, 2, buf, sizeof(buf)), ==, 12);
    g_assert_cmpuint(nbd_get32(buf + 4), ==, half);

    g_assert_true(raw_request(fd, 0, NBD_CMD_BLOCK_STATUS, 3, 0, 0));
    g_assert_cmpuint(chunk(fd, NBD_REPLY_TYPE_ERROR, 3, buf, sizeof(buf)), ==, 6);
    close(fd);
}

static void test_block_status(void)
{
    setup(WRITABLE_IO0);
    fx_client(block_status, NULL);
    teardown();
}

/* ---- clients that vanish ---------------------------------------------------------- */

/* A whole session as the client sends it, without waiting for answers. */
static GByteArray *session_bytes(void)
{
    static const char options[] =
        "\0\0\0\3" "IHAVEOPT\0\0\0\x8\0\0\0\0" "IHAVEOPT\0\0\0\3\0\0\0\0"
        "IHAVEOPT\0\0\0\7\0\0\0\xa\0\0\0\4disk\0\0";
    GByteArray *s = g_byte_array_new();
    uint8_t header[NBD_REQUEST_SIZE];
    static const struct { uint16_t type; uint32_t len; } requests[] = {
        { NBD_CMD_READ, 5000 }, { NBD_CMD_WRITE, 700 }, { NBD_CMD_FLUSH, 0 },
        { NBD_CMD_TRIM, 512 }, { NBD_CMD_WRITE_ZEROES, 300 }, { NBD_CMD_READ, 100000 },
        { NBD_CMD_DISC, 0 },
    };

    g_byte_array_append(s, (const uint8_t *)options, sizeof(options) - 1);
    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        raw_request_header(header, 0, requests[i].type, i, 512 * i, requests[i].len);
        g_byte_array_append(s, header, sizeof(header));
        if (requests[i].type == NBD_CMD_WRITE) {
            guint at = s->len;
            g_byte_array_set_size(s, at + requests[i].len);
            memset(s->data + at, 0x55, requests[i].len);
        }
    }
    return s;
}

static void vanish(void *opaque)
{
    GByteArray *s = opaque;

    for (guint cut = 0; cut <= s->len; cut++) {
        int fd = raw_connect(fx_socket());
        raw_send(fd, s->data, cut);
        close(fd);
    }
    /* The same, but having waited for the server to look at it. */
    for (guint cut = 0; cut <= s->len; cut += 7) {
        int fd = raw_connect(fx_socket());
        char greeting[NBD_GREETING_SIZE];
        g_assert_true(raw_recv(fd, greeting, sizeof(greeting)));
        raw_send(fd, s->data, cut);
        shutdown(fd, SHUT_WR);
        while (recv(fd, greeting, sizeof(greeting), 0) > 0) {
            /* until the server has hung up */
        }
        close(fd);
    }
}

static void still_works(void *opaque)
{
    int fd = raw_open(fx_socket(), "disk", NULL);
    char buf[16];

    g_assert_cmpint(raw_pread(fd, buf, 0, sizeof(buf)), ==, 0);
    close(fd);
}

static void test_vanish(void)
{
    GByteArray *s = session_bytes();

    setup(WRITABLE_IO0);
    fx_client(vanish, s);
    fx_client(still_works, NULL);
    fx_wait_no_clients(export);
    teardown();
    g_byte_array_unref(s);
}

static GByteArray *read_to_end(int fd)
{
    GByteArray *all = g_byte_array_new();
    uint8_t buf[4096];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
        g_byte_array_append(all, buf, n);
    }
    return all;
}

/* A session sent at once and one sent byte by byte get the same answers. */
static void dribble(void *opaque)
{
    GByteArray *s = opaque;
    g_autoptr(GByteArray) whole = NULL;
    g_autoptr(GByteArray) bytes = NULL;
    int fd;

    /* Twice: what the first session writes, the others read. */
    for (int i = 0; i < 2; i++) {
        g_clear_pointer(&whole, g_byte_array_unref);
        fd = raw_connect(fx_socket());
        g_assert_true(raw_send(fd, s->data, s->len));
        whole = read_to_end(fd);
        close(fd);
        g_assert_cmpuint(whole->len, >, 105000);
    }

    fd = raw_connect(fx_socket());
    for (guint i = 0; i < s->len; i++) {
        g_assert_true(raw_send(fd, s->data + i, 1));
    }
    bytes = read_to_end(fd);
    close(fd);
    g_assert_cmpmem(whole->data, whole->len, bytes->data, bytes->len);
}

static void test_dribble(void)
{
    GByteArray *s = session_bytes();

    setup(WRITABLE_IO0);
    fx_client(dribble, s);
    teardown();
    g_byte_array_unref(s);
}

static void add_error_cases(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(error_cases); i++) {
        g_autofree char *path = g_strdup_printf("/nbd/requests/answer/%s",
                                                error_cases[i].name);
        g_test_add_data_func(path, &error_cases[i], test_error);
    }
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    fx_init();
    add_error_cases();
    g_test_add_func("/nbd/requests/bad-magic", test_bad_magic);
    g_test_add_func("/nbd/requests/random-io", test_random_io);
    g_test_add_func("/nbd/requests/pipeline", test_pipeline);
    g_test_add_func("/nbd/requests/in-flight-limit", test_in_flight_limit);
    g_test_add_func("/nbd/requests/fua", test_fua);
    g_test_add_func("/nbd/requests/writethrough", test_writethrough);
    g_test_add_func("/nbd/requests/structured-read", test_structured_read);
    g_test_add_func("/nbd/requests/block-status", test_block_status);
    g_test_add_func("/nbd/requests/vanish-at-every-byte", test_vanish);
    g_test_add_func("/nbd/requests/byte-by-byte", test_dribble);
    ret = g_test_run();
    fx_cleanup();
    return ret;
}
