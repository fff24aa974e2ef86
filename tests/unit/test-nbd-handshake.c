/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The handshake phase of the NBD server, byte by byte, from the outside. */
#include "miniblk/osdep.h"
#include "miniblk/main-loop.h"
#include "tests/unit/nbd-fixture.h"
#include <netinet/in.h>
#include <sys/socket.h>

#define EXPORT_SIZE (1024 * 1024)

static BlockDriverState *node;
static BlockExport *export;

static void setup(uint32_t max_connections, uint32_t handshake_max_secs)
{
    fx_server_start(max_connections, handshake_max_secs);
    node = fx_node("disk", EXPORT_SIZE);
    export = fx_export("e0", "disk", "'writable': true, 'description': 'a disk'");
}

static void teardown(void)
{
    nbd_server_stop(&error_abort);
    bdrv_unref(node);
}

/* ---- options ---------------------------------------------------------------------- */

typedef struct OptionCase {
    const char *name;
    uint32_t option;
    const char *data;
    uint32_t len;
    uint32_t type;          /* of the first reply */
    const char *text;       /* its payload must begin so */
    uint32_t text_len;
    bool closes;            /* the server hangs up after it */
} OptionCase;

#define BYTES(s) (s), sizeof(s) - 1

static const OptionCase option_cases[] = {
    { "unknown", 77, BYTES(""), NBD_REP_ERR_UNSUP, BYTES("") },
    { "unknown-with-payload", 77, BYTES("junk"), NBD_REP_ERR_UNSUP, BYTES("") },
    { "peek-export", NBD_OPT_PEEK_EXPORT, BYTES(""), NBD_REP_ERR_UNSUP, BYTES("") },
    { "extended-headers", NBD_OPT_EXTENDED_HEADERS, BYTES(""), NBD_REP_ERR_UNSUP, BYTES("") },
    { "starttls", NBD_OPT_STARTTLS, BYTES(""),
      NBD_REP_ERR_POLICY, BYTES("TLS not configured") },
    { "starttls-payload", NBD_OPT_STARTTLS, BYTES("x"), NBD_REP_ERR_INVALID, BYTES("") },
    { "abort", NBD_OPT_ABORT, BYTES(""), NBD_REP_ACK, BYTES(""), true },
    { "list", NBD_OPT_LIST, BYTES(""), NBD_REP_SERVER, BYTES("\0\0\0\4diska disk") },
    { "list-payload", NBD_OPT_LIST, BYTES("x"), NBD_REP_ERR_INVALID, BYTES("") },
    { "go-unknown", NBD_OPT_GO, BYTES("\0\0\0\4nope\0\0"), NBD_REP_ERR_UNKNOWN,
      BYTES("export 'nope' not present") },
    { "info-unknown", NBD_OPT_INFO, BYTES("\0\0\0\4nope\0\0"), NBD_REP_ERR_UNKNOWN,
      BYTES("export 'nope' not present") },
    { "go-empty-name", NBD_OPT_GO, BYTES("\0\0\0\0\0\0"), NBD_REP_ERR_UNKNOWN,
      BYTES("export '' not present") },
    { "go-nothing", NBD_OPT_GO, BYTES(""), NBD_REP_ERR_INVALID, BYTES("") },
    { "go-name-cut", NBD_OPT_GO, BYTES("\0\0\0\5disk"), NBD_REP_ERR_INVALID, BYTES("") },
    { "go-name-huge", NBD_OPT_GO, BYTES("\xff\xff\xff\xff" "disk\0\0"),
      NBD_REP_ERR_INVALID, BYTES("") },
    { "go-name-with-nul", NBD_OPT_GO, BYTES("\0\0\0\4d\0sk\0\0"),
      NBD_REP_ERR_INVALID, BYTES("") },
    { "go-count-lies", NBD_OPT_GO, BYTES("\0\0\0\4disk\0\2\0\0"),
      NBD_REP_ERR_INVALID, BYTES("") },
    { "go-trailing", NBD_OPT_GO, BYTES("\0\0\0\4disk\0\0\0"), NBD_REP_ERR_INVALID, BYTES("") },
    { "info-name", NBD_OPT_INFO, BYTES("\0\0\0\4disk\0\1\0\1"),
      NBD_REP_INFO, BYTES("\0\1disk") },
    { "info-description", NBD_OPT_INFO, BYTES("\0\0\0\4disk\0\1\0\2"), NBD_REP_INFO,
      BYTES("\0\2a disk") },
    { "info-block-size", NBD_OPT_INFO, BYTES("\0\0\0\4disk\0\1\0\3"), NBD_REP_INFO,
      BYTES("\0\3\0\0\0\1\0\0\x10\0\2\0\0\0") },
    { "info-unknown-type", NBD_OPT_INFO, BYTES("\0\0\0\4disk\0\1\x7f\xff"), NBD_REP_INFO,
      BYTES("\0\0\0\0\0\0\0\x10\0\0") },
    { "meta-without-structured", NBD_OPT_SET_META_CONTEXT, BYTES("\0\0\0\4disk\0\0\0\0"),
      NBD_REP_ERR_INVALID, BYTES("") },
    { "structured-payload", NBD_OPT_STRUCTURED_REPLY, BYTES("x"),
      NBD_REP_ERR_INVALID, BYTES("") },
};

static void option_case(void *opaque)
{
    const OptionCase *oc = opaque;
    int fd = raw_connect(fx_socket());
    char text[128];
    uint32_t type;

    g_assert_true(raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
    g_assert_true(raw_option(fd, oc->option, oc->data, oc->len));
    type = raw_option_reply(fd, oc->option, text, sizeof(text));
    g_assert_cmphex(type, ==, oc->type);
    g_assert_cmpmem(text, oc->text_len, oc->text, oc->text_len);
    if (oc->closes) {
        g_assert_true(raw_at_eof(fd));
    } else {
        /* refused or not, the connection is good for more */
        while (type == NBD_REP_INFO || type == NBD_REP_SERVER) {
            type = raw_option_reply(fd, oc->option, NULL, 0);
        }
        g_assert_true(raw_option(fd, NBD_OPT_ABORT, NULL, 0));
        g_assert_cmphex(raw_option_reply(fd, NBD_OPT_ABORT, NULL, 0), ==, NBD_REP_ACK);
        g_assert_true(raw_at_eof(fd));
    }
    close(fd);
}

static void test_option(const void *opaque)
{
    setup(0, 0);
    fx_client(option_case, (void *)opaque);
    teardown();
}

/* ---- export name ------------------------------------------------------------------ */

static void export_name(void *opaque)
{
    bool no_zeroes = GPOINTER_TO_INT(opaque);
    int fd = raw_connect(fx_socket());
    uint8_t answer[10 + NBD_EXPORT_NAME_ZEROES];
    size_t len = no_zeroes ? 10 : sizeof(answer);
    char buf[16];

    g_assert_true(raw_greet(fd, no_zeroes ? NBD_FLAG_NO_ZEROES : 0));
    g_assert_true(raw_option(fd, NBD_OPT_EXPORT_NAME, "disk", 4));
    g_assert_true(raw_recv(fd, answer, len));
    g_assert_cmpuint(nbd_get64(answer), ==, EXPORT_SIZE);
    g_assert_cmphex(nbd_get16(answer + 8), ==,
                    NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                    NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
                    NBD_FLAG_CAN_MULTI_CONN);
    g_assert_cmpint(raw_pread(fd, buf, 0, sizeof(buf)), ==, 0);
    close(fd);
}

static void export_name_unknown(void *opaque)
{
    int fd = raw_connect(fx_socket());

    g_assert_true(raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE));
    g_assert_true(raw_option(fd, NBD_OPT_EXPORT_NAME, "nope", 4));
    g_assert_true(raw_at_eof(fd));
    close(fd);
}

static void test_export_name(void)
{
    setup(0, 0);
    fx_client(export_name, GINT_TO_POINTER(true));
    fx_client(export_name, GINT_TO_POINTER(false));
    fx_client(export_name_unknown, NULL);
    teardown();
}

/* ---- violations ------------------------------------------------------------------- */

typedef struct ViolationCase {
    const char *name;
    uint32_t client_flags;
    const char *data;       /* sent after the flags */
    uint32_t len;
} ViolationCase;

static const ViolationCase violation_cases[] = {
    { "unknown-client-flag", 4, BYTES("") },
    { "all-client-flags", 0xffffffff, BYTES("") },
    { "bad-magic", 3, BYTES("IHAVEOPS\0\0\0\3\0\0\0\0") },
    { "http", 3, BYTES("GET / HTTP/1.1\r\nHost: x\r\n\r\n") },
    { "options-without-fixed-newstyle", 0, BYTES("IHAVEOPT\0\0\0\3\0\0\0\0") },
    { "option-too-long-to-skip", 3, BYTES("IHAVEOPT\0\0\0\3\xff\xff\xff\xff") },
    { "export-name-too-long", 3, BYTES("IHAVEOPT\0\0\0\1\0\1\0\0") },
};

static void violation(void *opaque)
{
    const ViolationCase *vc = opaque;
    int fd = raw_connect(fx_socket());

    g_assert_true(raw_greet(fd, vc->client_flags));
    raw_send(fd, vc->data, vc->len);
    g_assert_true(raw_at_eof(fd));
    close(fd);
}

static void test_violation(const void *opaque)
{
    setup(0, 0);
    fx_client(violation, (void *)opaque);
    teardown();
}

/* An option of 1 MiB is skipped and refused, and the next one is understood. */
static void option_too_big(void *opaque)
{
    g_autofree char *data = g_malloc0(1024 * 1024);
    int fd = raw_connect(fx_socket());

    g_assert_true(raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE));
    g_assert_true(raw_option(fd, NBD_OPT_INFO, data, 1024 * 1024));
    g_assert_cmphex(raw_option_reply(fd, NBD_OPT_INFO, NULL, 0), ==, NBD_REP_ERR_TOO_BIG);
    g_assert_true(raw_option(fd, NBD_OPT_STARTTLS, NULL, 0));
    g_assert_cmphex(raw_option_reply(fd, NBD_OPT_STARTTLS, NULL, 0), ==,
                    NBD_REP_ERR_POLICY);
    close(fd);
}

static void test_option_too_big(void)
{
    setup(0, 0);
    fx_client(option_too_big, NULL);
    teardown();
}

/* Many options in one packet, whose answers are read only afterwards. */
static void option_flood(void *opaque)
{
    enum { COUNT = 20000 };
    g_autofree uint8_t *flood = g_malloc(COUNT * NBD_OPTION_HEADER_SIZE);
    int fd = raw_connect(fx_socket());
    size_t sent = 0, len = COUNT * NBD_OPTION_HEADER_SIZE;
    unsigned answers = 0;

    for (int i = 0; i < COUNT; i++) {
        nbd_put32(nbd_put32(nbd_put64(flood + i * NBD_OPTION_HEADER_SIZE, NBD_OPTS_MAGIC),
                            NBD_OPT_LIST), 0);
    }
    g_assert_true(raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE));
    /* Until the server stops reading, because we do not take its answers. */
    while (sent < len) {
        ssize_t n = send(fd, flood + sent, len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            g_assert_cmphex(raw_option_reply(fd, NBD_OPT_LIST, NULL, 0), ==, NBD_REP_SERVER);
            g_assert_cmphex(raw_option_reply(fd, NBD_OPT_LIST, NULL, 0), ==, NBD_REP_ACK);
            answers++;
        } else {
            sent += n;
        }
    }
    for (; answers < COUNT; answers++) {
        g_assert_cmphex(raw_option_reply(fd, NBD_OPT_LIST, NULL, 0), ==, NBD_REP_SERVER);
        g_assert_cmphex(raw_option_reply(fd, NBD_OPT_LIST, NULL, 0), ==, NBD_REP_ACK);
    }
    close(fd);
}

static void test_option_flood(void)
{
    setup(0, 0);
    fx_client(option_flood, NULL);
    teardown();
}

/* ---- metadata contexts ------------------------------------------------------------ */

#define CTX_HEAD    "\0\0\0\4disk\0\0\0\1"
#define CTX_ALLOC   CTX_HEAD "\0\0\0\x0f" "base:allocation"
#define CTX_BASE    CTX_HEAD "\0\0\0\5base:"
#define CTX_OTHER   CTX_HEAD "\0\0\0\5qemu:"

typedef struct ContextCase {
    const char *name;
    uint32_t option;
    const char *data;
    uint32_t len;
    bool found;
} ContextCase;

static const ContextCase context_cases[] = {
    { "list-all", NBD_OPT_LIST_META_CONTEXT, BYTES("\0\0\0\4disk\0\0\0\0"), true },
    { "list-namespace", NBD_OPT_LIST_META_CONTEXT, BYTES(CTX_BASE), true },
    { "list-other", NBD_OPT_LIST_META_CONTEXT, BYTES(CTX_OTHER), false },
    { "set-none", NBD_OPT_SET_META_CONTEXT, BYTES("\0\0\0\4disk\0\0\0\0"), false },
    { "set-exact", NBD_OPT_SET_META_CONTEXT, BYTES(CTX_ALLOC), true },
    { "set-namespace", NBD_OPT_SET_META_CONTEXT, BYTES(CTX_BASE), false },
    { "set-other", NBD_OPT_SET_META_CONTEXT, BYTES(CTX_OTHER), false },
};

static void context_case(void *opaque)
{
    const ContextCase *cc = opaque;
    int fd = raw_connect(fx_socket());
    char text[32];

    g_assert_true(raw_greet(fd, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
    g_assert_true(raw_option(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0));
    g_assert_cmphex(raw_option_reply(fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0), ==, NBD_REP_ACK);
    g_assert_true(raw_option(fd, cc->option, cc->data, cc->len));
    if (cc->found) {
        g_assert_cmphex(raw_option_reply(fd, cc->option, text, sizeof(text)), ==,
                        NBD_REP_META_CONTEXT);
        g_assert_cmpstr(text + 4, ==, "base:allocation");
    }
    g_assert_cmphex(raw_option_reply(fd, cc->option, NULL, 0), ==, NBD_REP_ACK);
    close(fd);
}

static void test_context(const void *opaque)
{
    setup(0, 0);
    fx_client(context_case, (void *)opaque);
    teardown();
}

/* ---- limits ----------------------------------------------------------------------- */

/* One client says nothing, one stops in the middle of an option: both are sent away. */
static void silent_clients(void *opaque)
{
    int mute = raw_connect(fx_socket()), slow = raw_connect(fx_socket());
    char greeting[NBD_GREETING_SIZE];

    g_assert_true(raw_recv(mute, greeting, sizeof(greeting)));
    g_assert_true(raw_greet(slow, NBD_FLAG_FIXED_NEWSTYLE));
    g_assert_true(raw_send(slow, "IHAVE", 5));
    g_assert_true(raw_at_eof(mute));
    g_assert_true(raw_at_eof(slow));
    close(mute);
    close(slow);
}

static void test_deadline(void)
{
    setup(0, 1);
    fx_client(silent_clients, NULL);
    teardown();
}

static void go_and_wait(void *opaque)
{
    int64_t size;
    int fd = raw_open(fx_socket(), "disk", &size);
    char buf[16];

    /* The second waits in the kernel's queue until the first has gone. */
    int second = raw_connect(fx_socket());
    g_assert_cmpint(recv(second, buf, 1, MSG_DONTWAIT), ==, -1);
    g_assert_cmpint(raw_pread(fd, buf, 0, sizeof(buf)), ==, 0);
    g_assert_cmpint(recv(second, buf, 1, MSG_DONTWAIT), ==, -1);
    close(fd);
    g_assert_cmpint(raw_go(second, "disk", false), ==, EXPORT_SIZE);
    close(second);
}

static void test_connection_limit(void)
{
    setup(1, 0);
    fx_client(go_and_wait, NULL);
    fx_wait_no_clients(export);
    teardown();
}

/* ---- life of the server ----------------------------------------------------------- */

static void connect_and_wait_for_eof(void *opaque)
{
    int *fd = opaque;
    char greeting[NBD_GREETING_SIZE];

    g_assert_true(raw_recv(*fd, greeting, sizeof(greeting)));
    g_assert_true(raw_at_eof(*fd));
    close(*fd);
}

static void test_stop_during_handshake(void)
{
    int fd;
    FxThread *thread;

    setup(0, 0);
    fd = raw_connect(fx_socket());
    /* The greeting says that it has been accepted. */
    while (recv(fd, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT) < 0) {
        main_loop_wait(false);
    }
    teardown();
    thread = fx_thread_start(connect_and_wait_for_eof, &fd);
    fx_thread_join(thread);
}

static void expect_start_error(const char *addr, const char *message)
{
    g_autoptr(json_t) json = fx_json("%s", addr);
    Error *err = NULL;

    g_assert_false(nbd_server_start(json, 0, 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void test_server_errors(void)
{
    g_autofree char *dir = g_path_get_dirname(fx_socket());
    g_autofree char *file = g_build_filename(dir, "file", NULL);
    g_autofree char *on_file = g_strdup_printf("{'type': 'unix', 'path': '%s'}", file);
    g_autofree char *on_file_error =
        g_strdup_printf("Failed to bind socket to %s: Address already in use", file);
    Error *err = NULL;

    g_assert_false(nbd_server_stop(&err));
    g_assert_cmpstr(error_get_pretty(err), ==, "NBD server not running");
    error_free_or_abort(&err);

    expect_start_error("{'type': 'unix', 'path': '/nonexistent/s'}",
                       "Failed to bind socket to /nonexistent/s: No such file or directory");
    expect_start_error("{'type': 'unix'}", "Parameter 'addr.path' is missing");
    expect_start_error("{'type': 'inet', 'host': '127.0.0.1'}",
                       "Parameter 'addr.port' is missing");
    expect_start_error("{'type': 'carrier-pigeon'}",
                       "Parameter 'addr.type' does not accept value 'carrier-pigeon'");
    expect_start_error("{'type': 'inet', 'host': '192.0.2.1', 'port': '10809'}",
                       "Failed to bind socket: Cannot assign requested address");

    /* A file that is not a socket is left alone. */
    g_assert_true(g_file_set_contents(file, "precious", -1, NULL));
    expect_start_error(on_file, on_file_error);
    g_assert_cmpint(unlink(file), ==, 0);

    fx_server_start(0, 0);
    expect_start_error("{'type': 'unix', 'path': '/nonexistent/s'}",
                       "NBD server already running");
    nbd_server_stop(&error_abort);
    /* and again: the socket file of the first is gone or replaced */
    fx_server_start(0, 0);
    nbd_server_stop(&error_abort);
}

static void tcp_client(void *opaque)
{
    struct sockaddr_in *sin = opaque;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    g_assert_cmpint(connect(fd, (struct sockaddr *)sin, sizeof(*sin)), ==, 0);
    g_assert_cmpint(raw_go(fd, "disk", false), ==, EXPORT_SIZE);
    close(fd);
}

static void test_tcp(void)
{
    struct sockaddr_in sin = { .sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sin);
    int probe = socket(AF_INET, SOCK_STREAM, 0);
    g_autoptr(json_t) addr = NULL;

    /* A port that is free now; reuse lets the server take it over at once. */
    g_assert_cmpint(bind(probe, (struct sockaddr *)&sin, len), ==, 0);
    g_assert_cmpint(getsockname(probe, (struct sockaddr *)&sin, &len), ==, 0);
    close(probe);
    addr = fx_json("{'type': 'inet', 'host': '127.0.0.1', 'port': '%d'}",
                   ntohs(sin.sin_port));
    nbd_server_start(addr, 0, 0, &error_abort);
    node = fx_node("disk", EXPORT_SIZE);
    export = fx_export("e0", "disk", "");
    fx_client(tcp_client, &sin);
    teardown();
}

static void add_table(const char *prefix, const void *cases, size_t size, size_t count,
                      void (*test)(const void *))
{
    for (size_t i = 0; i < count; i++) {
        const char *const *name = (const void *)((const char *)cases + i * size);
        g_autofree char *path = g_strdup_printf("/nbd/handshake/%s/%s", prefix, *name);
        g_test_add_data_func(path, name, test);
    }
}
#define ADD_TABLE(prefix, cases, test)                                          \
    add_table(prefix, cases, sizeof((cases)[0]), ARRAY_SIZE(cases), test)

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    fx_init();
    ADD_TABLE("option", option_cases, test_option);
    ADD_TABLE("violation", violation_cases, test_violation);
    ADD_TABLE("context", context_cases, test_context);
    g_test_add_func("/nbd/handshake/export-name", test_export_name);
    g_test_add_func("/nbd/handshake/option-too-big", test_option_too_big);
    g_test_add_func("/nbd/handshake/option-flood", test_option_flood);
    g_test_add_func("/nbd/handshake/deadline", test_deadline);
    g_test_add_func("/nbd/handshake/connection-limit", test_connection_limit);
    g_test_add_func("/nbd/handshake/stop-during-handshake", test_stop_during_handshake);
    g_test_add_func("/nbd/handshake/server-errors", test_server_errors);
    g_test_add_func("/nbd/handshake/tcp", test_tcp);
    ret = g_test_run();
    fx_cleanup();
    return ret;
}
