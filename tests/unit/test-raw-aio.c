/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The engines for asynchronous file I/O, each of them through the same tests: data, ends of
 * files, refusals, full rings, batches, nested loops, many contexts.
 */
#include "miniblk/osdep.h"
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include "miniblk/atomic.h"
#include "miniblk/coroutine.h"
#include "miniblk/defer-call.h"
#include "miniblk/error.h"
#include "miniblk/raw-aio.h"
#include "miniblk/thread.h"
#include "trap.h"

enum { BLOCK = 4096, NOT_YET = 12345 };

static AioContext *ctx;
static char *path;

typedef struct Engine {
    const char *name;
    void *(*setup)(AioContext *ctx, Error **errp);
    void *(*get)(AioContext *ctx);
    void (*detach)(AioContext *ctx);
    int coroutine_fn (*co_submit)(int fd, uint64_t offset, QEMUIOVector *qiov, int type,
                                  uint64_t max_batch);
    bool uring;                 /* can flush, and waits in the kernel for what can be waited for */
    const char *no_fd_text;
} Engine;

static void *setup_native(AioContext *c, Error **errp) { return aio_setup_linux_aio(c, errp); }
static void *setup_uring(AioContext *c, Error **errp)
{
    return aio_setup_linux_io_uring(c, errp);
}
static void *get_native(AioContext *c) { return aio_get_linux_aio(c); }
static void *get_uring(AioContext *c) { return aio_get_linux_io_uring(c); }
static void detach_native(AioContext *c) { laio_detach_aio_context(aio_get_linux_aio(c), c); }
static void detach_uring(AioContext *c)
{
    luring_detach_aio_context(aio_get_linux_io_uring(c), c);
}

static const Engine engines[] = {
    { "native", setup_native, get_native, detach_native, laio_co_submit, false,
      "failed to initialize event notifier: Too many open files" },
    { "io_uring", setup_uring, get_uring, detach_uring, luring_co_submit, true,
      "failed to init linux io_uring ring: Too many open files" },
};

/* ---- requests -------------------------------------------------------------------------- */

typedef struct Req {
    const Engine *e;
    int fd;
    uint64_t offset;
    QEMUIOVector *qiov;
    int type;
    uint64_t max_batch;
    int ret;
    int polls;                  /* poll so often before ending */
    int progress;               /* how many of these polls made some */
    int woken;
    void (*last)(void);         /* called by the last of those that have it */
} Req;

static int lasts;               /* requests with LAST in flight */

static int req_wait(Req *r)
{
    while (r->ret == NOT_YET) {
        aio_poll(qemu_get_current_aio_context(), true);
    }
    return r->ret;
}

static void coroutine_fn req_entry(void *opaque)
{
    Req *r = opaque;

    r->ret = r->e->co_submit(r->fd, r->offset, r->qiov, r->type, r->max_batch);
    r->woken++;
    for (int i = 0; i < r->polls; i++) {
        r->progress += aio_poll(qemu_get_current_aio_context(), false);
    }
    if (r->last && --lasts == 0) {
        r->last();
    }
}

static void req_start(Req *r)
{
    r->ret = NOT_YET;
    qemu_coroutine_enter(qemu_coroutine_create(req_entry, r));
}

static int run(const Engine *e, int fd, uint64_t offset, QEMUIOVector *qiov, int type)
{
    Req r = { .e = e, .fd = fd, .offset = offset, .qiov = qiov, .type = type };

    req_start(&r);
    return req_wait(&r);
}

static int run_buf(const Engine *e, int fd, uint64_t offset, void *buf, size_t len, int type)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, len);
    return run(e, fd, offset, &qiov, type);
}

static void assert_pattern(const uint8_t *buf, size_t len, uint8_t pattern)
{
    for (size_t i = 0; i < len; i++) {
        if (buf[i] != pattern) {
            g_error("byte %zu is 0x%02x, not 0x%02x", i, buf[i], pattern);
        }
    }
}

/* An empty file, without the page cache if the file system can do that. */
static int open_empty(int flags)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
    if (fd < 0 && errno == EINVAL && (flags & O_DIRECT)) {
        g_test_message("no O_DIRECT in %s", path);
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

/* ---- data ------------------------------------------------------------------------------ */

static void test_write_then_read(gconstpointer data)
{
    static const int order[] = { 2, 0, 3, 1 };
    const Engine *e = data;

    for (int direct = 0; direct < 2; direct++) {
        int fd = open_empty(direct ? O_DIRECT : 0);
        uint8_t *buf = qemu_memalign(BLOCK, 4 * BLOCK);
        QEMUIOVector qiov;

        for (int i = 0; i < 4; i++) {
            int type = QEMU_AIO_WRITE | (i == 2 ? QEMU_AIO_FUA : 0);
            memset(buf, 0x11 * (i + 1), BLOCK);
            g_assert_cmpint(run_buf(e, fd, i * BLOCK, buf, BLOCK, type), ==, 0);
        }
        if (e->uring) {
            g_assert_cmpint(run(e, fd, 0, NULL, QEMU_AIO_FLUSH), ==, 0);
        }
        qemu_iovec_init(&qiov, 4);
        for (int i = 0; i < 4; i++) {
            qemu_iovec_add(&qiov, buf + order[i] * BLOCK, BLOCK);
        }
        g_assert_cmpint(run(e, fd, 0, &qiov, QEMU_AIO_READ), ==, 0);
        for (int i = 0; i < 4; i++) {
            assert_pattern(buf + order[i] * BLOCK, BLOCK, 0x11 * (i + 1));
        }
        g_assert_cmpint(run(e, fd, 8 * BLOCK, &qiov, QEMU_AIO_WRITE), ==, 0);
        g_assert_cmpint(run(e, fd, 12 * BLOCK, &qiov, QEMU_AIO_WRITE | QEMU_AIO_FUA), ==, 0);
        qemu_iovec_destroy(&qiov);
        for (int copy = 8; copy <= 12; copy += 4) {
            memset(buf, 0, 4 * BLOCK);
            g_assert_cmpint(run_buf(e, fd, copy * BLOCK, buf, 4 * BLOCK, QEMU_AIO_READ), ==,
                            0);
            for (int i = 0; i < 4; i++) {
                assert_pattern(buf + i * BLOCK, BLOCK, 0x11 * (i + 1));
            }
        }
        qemu_vfree(buf);
        close(fd);
    }
}

static void test_end_of_file_reads_zeroes(gconstpointer data)
{
    static const struct { int64_t length, offset; size_t data; } cases[] = {
        { 700,             0,         700 },
        { BLOCK + 512,     0,         BLOCK + 512 },
        { 2 * BLOCK,       BLOCK,     BLOCK },
        { BLOCK,           BLOCK,     0 },
        { BLOCK,           8 * BLOCK, 0 },
        { 0,               0,         0 },
    };
    const Engine *e = data;
    uint8_t *buf = qemu_memalign(BLOCK, 2 * BLOCK);

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        int fd = open_empty(i % 2 ? 0 : O_DIRECT);
        memset(buf, 0xaa, 2 * BLOCK);
        g_assert_cmpint(run_buf(e, fd, 0, buf, 2 * BLOCK, QEMU_AIO_WRITE), ==, 0);
        g_assert_cmpint(ftruncate(fd, cases[i].length), ==, 0);

        memset(buf, 0x55, 2 * BLOCK);
        g_assert_cmpint(run_buf(e, fd, cases[i].offset, buf, 2 * BLOCK, QEMU_AIO_READ), ==,
                        0);
        assert_pattern(buf, cases[i].data, 0xaa);
        assert_pattern(buf + cases[i].data, 2 * BLOCK - cases[i].data, 0);
        close(fd);
    }
    qemu_vfree(buf);
}

/* A pipe hands out what it has: the request goes on until it has all, or the end. */
static void test_short_transfers_go_on(gconstpointer data)
{
    const Engine *e = data;
    char buf[] = "..........";
    QEMUIOVector qiov;
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    qemu_iovec_init(&qiov, 2);
    qemu_iovec_add(&qiov, buf, 5);
    qemu_iovec_add(&qiov, buf + 5, 5);
    Req r = { .e = e, .fd = fds[0], .qiov = &qiov, .type = QEMU_AIO_READ };
    /* Linux AIO would wait for a pipe in the submission: have something there at once. */
    g_assert_cmpint(write(fds[1], "abc", 3), ==, 3);
    req_start(&r);
    if (e->uring) {
        for (const char *p = "defghij"; *p; p++) {
            aio_poll(ctx, false);
            g_assert_cmpint(r.ret, ==, NOT_YET);
            g_assert_cmpint(write(fds[1], p, 1), ==, 1);
        }
    } else {
        g_assert_cmpint(write(fds[1], "defghij", 7), ==, 7);
    }
    g_assert_cmpint(req_wait(&r), ==, 0);
    g_assert_cmpstr(buf, ==, "abcdefghij");
    qemu_iovec_destroy(&qiov);
    close(fds[0]);
    close(fds[1]);
}

/* ---- failures -------------------------------------------------------------------------- */

/* The kernel refuses one request of a batch: the others are not concerned. */
static void test_refused_request_fails_alone(gconstpointer data)
{
    const Engine *e = data;
    int fd = open_empty(O_DIRECT);
    int ro_fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *buf = qemu_memalign(BLOCK, BLOCK);
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, BLOCK);
    const struct { int fd, ret; } cases[] = {
        { fd, 0 }, { ro_fd, -EBADF }, { fd, 0 }, { -1, -EBADF }, { -1, -EBADF }, { fd, 0 },
    };
    Req reqs[ARRAY_SIZE(cases)];

    memset(buf, 0x42, BLOCK);
    for (int first = 0; first < 2; first++) {   /* also with a refused one in front */
        for (unsigned i = first; i < ARRAY_SIZE(cases); i++) {
            reqs[i] = (Req) { .e = e, .fd = cases[i].fd, .offset = i * BLOCK, .qiov = &qiov,
                              .type = QEMU_AIO_WRITE };
            req_start(&reqs[i]);
        }
        for (unsigned i = first; i < ARRAY_SIZE(cases); i++) {
            g_assert_cmpint(req_wait(&reqs[i]), ==, cases[i].ret);
        }
    }
    qemu_vfree(buf);
    close(ro_fd);
    close(fd);
}

static void test_write_that_stops_half_way_fails(gconstpointer data)
{
    const Engine *e = data;
    int fd = open_empty(O_DIRECT);
    uint8_t *buf = qemu_memalign(BLOCK, 4 * BLOCK);
    struct rlimit old, limit;

    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 2 * BLOCK;
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    memset(buf, 1, 4 * BLOCK);
    int ret = run_buf(e, fd, 0, buf, 4 * BLOCK, QEMU_AIO_WRITE);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_cmpint(ret, ==, -EFBIG);
    qemu_vfree(buf);
    close(fd);
}

/* -EAGAIN is no answer: it is asked again, until there is one or it seems to be for ever. */
static void test_eagain_is_tried_again(gconstpointer data)
{
    const Engine *e = data;
    uint8_t buf[8] = { 0 };
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC | O_NONBLOCK), ==, 0);
    Req r = { .e = e, .fd = fds[0], .qiov = &qiov, .type = QEMU_AIO_READ };
    req_start(&r);
    for (int i = 0; i < 10; i++) {
        aio_poll(ctx, false);
        g_assert_cmpint(r.ret, ==, NOT_YET);
    }
    g_assert_cmpint(write(fds[1], "01234567", 8), ==, 8);
    g_assert_cmpint(req_wait(&r), ==, 0);
    g_assert_cmpmem(buf, sizeof(buf), "01234567", 8);

    /* with every batch size, so also where a new try is handed over at once */
    for (r.max_batch = 0; !e->uring && r.max_batch < 3; r.max_batch++) {
        req_start(&r);
        g_assert_cmpint(req_wait(&r), ==, -EAGAIN);
    }
    close(fds[0]);
    close(fds[1]);
}

/* The system refuses an engine: an error to fall back on, and nothing is leaked. */
static void test_no_engine(gconstpointer data)
{
    const Engine *e = data;
    AioContext *other = aio_context_new(&error_abort);
    struct rlimit old, limit;
    Error *err = NULL;

    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 3;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    void *s = e->setup(other, &err);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);
    g_assert_null(s);
    g_assert_cmpstr(error_get_pretty(err), ==, e->no_fd_text);
    error_free(err);

    /* it may be asked for again */
    g_assert_nonnull(e->setup(other, &error_abort));
    g_assert_true(e->get(other) == e->setup(other, &error_abort));
    aio_context_unref(other);
}

static const Engine *trapped;

static void detach_busy(void)
{
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    uint8_t buf[8];
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    Req reqs[3];

    for (unsigned i = 0; i < ARRAY_SIZE(reqs); i++) {
        reqs[i] = (Req) { .e = trapped, .fd = i == 1 ? -1 : fd, .qiov = &qiov,
                          .type = QEMU_AIO_READ };
        req_start(&reqs[i]);
    }
    trapped->detach(ctx);
}

static void test_detach_with_requests_in_flight_aborts(gconstpointer data)
{
    trapped = data;
    trap(detach_busy, "*_detach_aio_context: 3 request(s) are in flight*");
}

/* ---- queues and batches ---------------------------------------------------------------- */

typedef struct BatchCase {
    const Engine *e;
    unsigned batch;
} BatchCase;

/* More than the kernel takes at a time, in batches of all sizes. */
static void test_more_than_the_ring(gconstpointer data)
{
    enum { N = 3000 };
    const BatchCase *c = data;
    int fd = open_empty(O_DIRECT);
    uint8_t *buf = qemu_memalign(BLOCK, 16 * BLOCK);
    Req *reqs = g_new(Req, N);
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, BLOCK);

    memset(buf, 0x77, BLOCK);
    for (int i = 0; i < N; i++) {
        reqs[i] = (Req) { .e = c->e, .fd = fd, .offset = (uint64_t)(i % 512) * BLOCK,
                          .qiov = &qiov, .type = QEMU_AIO_WRITE, .max_batch = c->batch };
        req_start(&reqs[i]);
    }
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(req_wait(&reqs[i]), ==, 0);
    }
    for (int i = 0; i < 512; i += 16) {
        memset(buf, 0, 16 * BLOCK);
        g_assert_cmpint(run_buf(c->e, fd, i * BLOCK, buf, 16 * BLOCK, QEMU_AIO_READ), ==, 0);
        assert_pattern(buf, 16 * BLOCK, 0x77);
    }
    g_free(reqs);
    qemu_vfree(buf);
    close(fd);
}

/* How many bytes the pipe has, which are taken out. */
static int drain_pipe(int fd)
{
    char buf[64];
    ssize_t n = read(fd, buf, sizeof(buf));
    return n < 0 ? 0 : n;
}

/*
 * Each request writes a byte into a pipe, which is done when the kernel takes it over: so
 * the pipe shows what was handed over when.
 */
static void test_batches(gconstpointer data)
{
    /* '+' a request, '(' and ')' a section, 'p' a turn of the loop; expected bytes after each */
    static const struct {
        int64_t of_context;
        uint64_t of_request;
        const char *steps, *bytes;
    } cases[] = {
        { 0, 0, "++++++++p", "102000401" },
        { 0, 1, "+++p",      "1110" },
        { 1, 0, "+++p",      "1110" },
        { 0, 2, "+++++p",    "102020" },
        { 3, 0, "+++++p",    "102002" },
        { 3, 2, "+++p",      "1020" },
        { 2, 3, "+++p",      "1020" },
        { 0, 0, "(++)",      "0002" },
        { 0, 0, "(+(+)+)p",  "00000030" },
        { 0, 0, "+(+)+p",    "100101" },
        { 0, 2, "(+++)",     "00201" },
        { 0, 0, "(+p+)",     "00101" },
        { 0, 0, "()(+)p",    "000010" },
    };
    const Engine *e = data;
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, (char[]){ 'x' }, 1);
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC | O_NONBLOCK), ==, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Req reqs[8];
        unsigned n = 0;

        aio_context_set_aio_params(ctx, cases[i].of_context);
        aio_poll(ctx, false);
        for (unsigned step = 0; cases[i].steps[step]; step++) {
            switch (cases[i].steps[step]) {
            case '+':
                reqs[n] = (Req) { .e = e, .fd = fds[1], .qiov = &qiov,
                                  .type = QEMU_AIO_WRITE, .max_batch = cases[i].of_request };
                req_start(&reqs[n++]);
                break;
            case '(':
                defer_call_begin();
                break;
            case ')':
                defer_call_end();
                break;
            case 'p':
                aio_poll(ctx, false);
                break;
            }
            int bytes = drain_pipe(fds[0]);
            if (bytes != cases[i].bytes[step] - '0') {
                g_error("case %u, step %u: %d bytes", i, step, bytes);
            }
            /* QB-12: nothing is ever completed on the way down */
            for (unsigned k = 0; cases[i].steps[step] != 'p' && k < n; k++) {
                g_assert_true(reqs[k].ret == NOT_YET || strchr(cases[i].steps, 'p'));
            }
        }
        for (unsigned k = 0; k < n; k++) {
            g_assert_cmpint(req_wait(&reqs[k]), ==, 0);
        }
    }
    aio_context_set_aio_params(ctx, 0);
    close(fds[0]);
    close(fds[1]);
}

/*
 * QB-12. A request that the kernel refuses while it is submitted from inside another
 * coroutine must wait for the loop, as every other one.
 */
static void test_refusal_is_not_delivered_by_the_submission(gconstpointer data)
{
    const Engine *e = data;
    uint8_t buf[8];
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    Req reqs[4];

    for (unsigned i = 0; i < ARRAY_SIZE(reqs); i++) {
        reqs[i] = (Req) { .e = e, .fd = -1, .qiov = &qiov, .type = QEMU_AIO_READ,
                          .max_batch = 2 };
        req_start(&reqs[i]);
        g_assert_cmpint(reqs[i].ret, ==, NOT_YET);
    }
    g_assert_cmpint(reqs[0].ret, ==, NOT_YET);
    for (unsigned i = 0; i < ARRAY_SIZE(reqs); i++) {
        g_assert_cmpint(req_wait(&reqs[i]), ==, -EBADF);
        g_assert_cmpint(reqs[i].woken, ==, 1);
    }
}

/* ---- nested loops ---------------------------------------------------------------------- */

/*
 * QB-11. Through the page cache requests complete inside the submission, so all are complete
 * when the first is woken. Those that poll then take over the delivery in the middle; what
 * they take runs when they end. Each is to be woken once, whoever polls how often, the
 * refused too.
 */
static void test_woken_requests_may_poll(gconstpointer data)
{
    enum { N = 400 };
    const Engine *e = data;
    int fd = open_empty(0);
    uint8_t buf[512] = { 1 };
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    g_autofree Req *reqs = g_new0(Req, N);

    for (int i = 0; i < N; i++) {
        reqs[i] = (Req) { .e = e, .fd = i % 7 == 3 ? -1 : fd, .offset = i * 512,
                          .qiov = &qiov, .type = QEMU_AIO_WRITE, .max_batch = 16,
                          .polls = i % 3 };
        req_start(&reqs[i]);
    }
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(req_wait(&reqs[i]), ==, i % 7 == 3 ? -EBADF : 0);
    }
    while (aio_poll(ctx, false)) {
    }
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(reqs[i].woken, ==, 1);
    }
    close(fd);
}

/*
 * QB-11. What is complete is delivered by the nested loop, too, although its signal has been
 * consumed by the outer one. (The coroutines that it wakes run when the polling one ends.)
 */
static void test_nested_loop_goes_on_with_the_delivery(gconstpointer data)
{
    enum { N = 8 };
    const Engine *e = data;
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    uint8_t buf[8];
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));

    for (int refused = 0; refused < 2; refused++) {
        Req reqs[N];
        for (int i = 0; i < N; i++) {
            reqs[i] = (Req) { .e = e, .fd = refused ? -1 : fd, .qiov = &qiov,
                              .type = QEMU_AIO_READ, .polls = i == 0 };
            req_start(&reqs[i]);
        }
        for (int i = 0; i < N; i++) {
            g_assert_cmpint(req_wait(&reqs[i]), ==, refused ? -EBADF : 0);
            g_assert_cmpint(reqs[i].woken, ==, 1);
        }
        g_assert_cmpint(reqs[0].progress, ==, 1);
    }
    close(fd);
}

static int full_ring_pipe[2];

static void poll_for_the_byte(void)
{
    aio_poll(ctx, false);       /* has it handed over */
    g_assert_cmpint(drain_pipe(full_ring_pipe[0]), ==, 1);
}

/*
 * QB-11 with a full ring.
 *
 *      1024 in flight; #1025, which writes a byte into a pipe, pending and blocked
 *      loop: completes #1 ... #1024, whose coroutine polls
 *      nested loop: nothing is in flight any more, so it must hand over #1025 by itself
 */
static void test_nested_loop_unblocks_a_full_ring(gconstpointer data)
{
    enum { RING = 1024 };
    const Engine *e = data;
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    uint8_t buf[8] = { 0 };
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    QEMUIOVector byte = QEMU_IOVEC_INIT_BUF(byte, buf, 1);
    g_autofree Req *reqs = g_new0(Req, RING + 1);

    g_assert_cmpint(pipe2(full_ring_pipe, O_CLOEXEC | O_NONBLOCK), ==, 0);
    lasts = RING;
    for (int i = 0; i < RING; i++) {
        reqs[i] = (Req) { .e = e, .fd = fd, .qiov = &qiov, .type = QEMU_AIO_READ,
                          .max_batch = 128, .last = poll_for_the_byte };
        req_start(&reqs[i]);
    }
    reqs[RING] = (Req) { .e = e, .fd = full_ring_pipe[1], .qiov = &byte,
                         .type = QEMU_AIO_WRITE, .max_batch = 128 };
    req_start(&reqs[RING]);
    for (int i = 0; i <= RING; i++) {
        g_assert_cmpint(req_wait(&reqs[i]), ==, 0);
        g_assert_cmpint(reqs[i].woken, ==, 1);
    }
    g_assert_cmpint(lasts, ==, 0);
    close(full_ring_pipe[0]);
    close(full_ring_pipe[1]);
    close(fd);
}

/* ---- who has their turn ---------------------------------------------------------------- */

/*
 *      loop: wakes A, which submits again; that is complete, or refused, at once
 *            wakes B, which submits again; so is that
 *            wakes A, ...
 *
 * The bottom half that the first of them has scheduled must have its turn.
 */
enum { TURNS_MAX = 8 };

typedef struct Turns {
    Req req;
    int woken, left;
    bool other_ran;
} Turns;

static void let_other_run(void *opaque)
{
    ((Turns *)opaque)->other_ran = true;
}

static void coroutine_fn turns_entry(void *opaque)
{
    Turns *t = opaque;
    Req *r = &t->req;

    while (!t->other_ran) {
        int ret = r->e->co_submit(r->fd, 0, r->qiov, QEMU_AIO_READ, 1);
        g_assert_cmpint(ret, ==, r->ret);
        if (t->woken++ == 0) {
            aio_bh_schedule_oneshot(ctx, let_other_run, t);
        }
        g_assert_cmpint(t->woken, <=, TURNS_MAX);
    }
    t->left--;
}

static void test_others_have_their_turn(gconstpointer data)
{
    const Engine *e = data;
    uint8_t buf[512] = { 1 };
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    int fd = open_empty(0);

    g_assert_cmpint(run(e, fd, 0, &qiov, QEMU_AIO_WRITE), ==, 0);
    for (int refused = 0; refused < 2; refused++) {
        Turns t = { .req = { .e = e, .fd = refused ? -1 : fd, .qiov = &qiov,
                             .ret = refused ? -EBADF : 0 }, .left = 2 };
        for (int i = 0; i < 2; i++) {
            qemu_coroutine_enter(qemu_coroutine_create(turns_entry, &t));
        }
        while (t.left > 0) {
            aio_poll(ctx, true);
        }
    }
    close(fd);
}

/* ---- contexts -------------------------------------------------------------------------- */

typedef struct Worker {
    const Engine *e;
    AioContext *ctx;
    int fd;
    unsigned number;
} Worker;

enum { WORKERS = 6, WORKER_BLOCKS = 64 };

/* Write and read back blocks of its own through its own context. */
static void *worker_run(void *opaque)
{
    Worker *w = opaque;
    uint8_t *buf = qemu_memalign(BLOCK, WORKER_BLOCKS * BLOCK);
    QEMUIOVector qiovs[WORKER_BLOCKS];
    Req reqs[WORKER_BLOCKS];

    qemu_set_current_aio_context(w->ctx);
    for (unsigned round = 0; round < 20; round++) {
        uint8_t pattern = w->number * 20 + round + 1;
        for (int phase = 0; phase < 2; phase++) {
            memset(buf, phase ? 0 : pattern, WORKER_BLOCKS * BLOCK);
            for (unsigned i = 0; i < WORKER_BLOCKS; i++) {
                qemu_iovec_init_buf(&qiovs[i], buf + i * BLOCK, BLOCK);
                reqs[i] = (Req) { .e = w->e, .fd = w->fd, .qiov = &qiovs[i],
                                  .offset = (i * WORKERS + w->number) * BLOCK,
                                  .type = phase ? QEMU_AIO_READ : QEMU_AIO_WRITE };
                req_start(&reqs[i]);
            }
            for (unsigned i = 0; i < WORKER_BLOCKS; i++) {
                g_assert_cmpint(req_wait(&reqs[i]), ==, 0);
            }
        }
        assert_pattern(buf, WORKER_BLOCKS * BLOCK, pattern);
    }
    qemu_set_current_aio_context(NULL);
    qemu_vfree(buf);
    return NULL;
}

static void test_many_contexts(gconstpointer data)
{
    const Engine *e = data;
    Worker workers[WORKERS];
    QemuThread threads[WORKERS];
    int fd = open_empty(O_DIRECT);

    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (Worker) { .e = e, .ctx = aio_context_new(&error_abort), .fd = fd,
                                .number = i };
        g_assert_nonnull(e->setup(workers[i].ctx, &error_abort));
        qemu_thread_create(&threads[i], "worker", worker_run, &workers[i],
                           QEMU_THREAD_JOINABLE);
        /* the parameter may change at any time */
        aio_context_set_aio_params(workers[i].ctx, i);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        aio_context_set_aio_params(workers[i].ctx, WORKERS - i);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        qemu_thread_join(&threads[i]);
        aio_context_unref(workers[i].ctx);
    }
    close(fd);
}

/* A registered descriptor stands for the file it was registered with, until forgotten. */
static void test_registered_files(gconstpointer data)
{
    enum { NUMBER = 1000, TOO_BIG = 1024 };
    const Engine *e = data;
    if (!e->uring) {
        g_test_skip("there is no such thing");
        return;
    }
    LuringState *s = aio_get_linux_io_uring(ctx);
    uint8_t *buf = qemu_memalign(BLOCK, BLOCK);
    int fd = open_empty(0), null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    memset(buf, 0x55, BLOCK);
    g_assert_cmpint(pwrite(fd, buf, BLOCK, 0), ==, BLOCK);
    luring_forget_fd(s, NUMBER);
    for (int round = 0; round < 2; round++) {
        g_assert_cmpint(dup2(fd, NUMBER), ==, NUMBER);
        luring_register_fd(s, NUMBER);
        g_assert_cmpint(run_buf(e, NUMBER, 0, buf, BLOCK, QEMU_AIO_READ), ==, 0);
        assert_pattern(buf, BLOCK, 0x55);
        g_assert_cmpint(run_buf(e, null_fd, 0, buf, BLOCK, QEMU_AIO_READ), ==, 0);
        assert_pattern(buf, BLOCK, 0);

        luring_forget_fd(s, NUMBER);
        g_assert_cmpint(dup2(null_fd, NUMBER), ==, NUMBER);
        memset(buf, 0xaa, BLOCK);
        g_assert_cmpint(run_buf(e, NUMBER, 0, buf, BLOCK, QEMU_AIO_READ), ==, 0);
        assert_pattern(buf, BLOCK, 0);
        close(NUMBER);
        g_assert_cmpint(run_buf(e, NUMBER, 0, buf, BLOCK, QEMU_AIO_READ), ==, -EBADF);
    }
    /* beyond the table and before it: not registered, and no harm done */
    luring_register_fd(s, TOO_BIG);
    luring_forget_fd(s, TOO_BIG);
    luring_register_fd(s, -1);
    luring_forget_fd(s, -1);
    qemu_vfree(buf);
    close(null_fd);
    close(fd);
}

/* Busy polling finds completions in memory. */
static void test_busy_polling(gconstpointer data)
{
    const Engine *e = data;
    int fd = open_empty(O_DIRECT);
    uint8_t *buf = qemu_memalign(BLOCK, BLOCK);

    aio_context_set_poll_params(ctx, 1000 * 1000 * 1000, 0, 0, &error_abort);
    for (int i = 0; i < 100; i++) {
        memset(buf, i, BLOCK);
        g_assert_cmpint(run_buf(e, fd, 0, buf, BLOCK, QEMU_AIO_WRITE), ==, 0);
        memset(buf, ~i, BLOCK);
        g_assert_cmpint(run_buf(e, fd, 0, buf, BLOCK, QEMU_AIO_READ), ==, 0);
        assert_pattern(buf, BLOCK, i);
    }
    aio_context_set_poll_params(ctx, 0, 0, 0, &error_abort);
    qemu_vfree(buf);
    close(fd);
}

static void test_skip(gconstpointer reason)
{
    g_test_skip(reason);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; GTestDataFunc fn; } tests[] = {
        { "write-then-read", test_write_then_read },
        { "end-of-file-reads-zeroes", test_end_of_file_reads_zeroes },
        { "short-transfers-go-on", test_short_transfers_go_on },
        { "refused-request-fails-alone", test_refused_request_fails_alone },
        { "write-that-stops-half-way-fails", test_write_that_stops_half_way_fails },
        { "eagain-is-tried-again", test_eagain_is_tried_again },
        { "no-engine", test_no_engine },
        { "detach-with-requests-in-flight-aborts",
          test_detach_with_requests_in_flight_aborts },
        { "batches", test_batches },
        { "QB-12/refusal-is-not-delivered-by-the-submission",
          test_refusal_is_not_delivered_by_the_submission },
        { "QB-11/woken-requests-may-poll", test_woken_requests_may_poll },
        { "QB-11/nested-loop-goes-on-with-the-delivery",
          test_nested_loop_goes_on_with_the_delivery },
        { "QB-11/nested-loop-unblocks-a-full-ring", test_nested_loop_unblocks_a_full_ring },
        { "others-have-their-turn", test_others_have_their_turn },
        { "many-contexts", test_many_contexts },
        { "registered-files", test_registered_files },
        { "busy-polling", test_busy_polling },
    };
    static const unsigned batches[] = { 0, 1, 7, 128, 100000 };
    static BatchCase batch_cases[ARRAY_SIZE(engines)][ARRAY_SIZE(batches)];
    Error *errors[ARRAY_SIZE(engines)] = { NULL };

    g_test_init(&argc, &argv, NULL);
    path = g_strdup_printf("%s/test-raw-aio-%d", g_get_tmp_dir(), getpid());
    ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);

    for (unsigned n = 0; n < ARRAY_SIZE(engines); n++) {
        const Engine *e = &engines[n];
        if (!e->setup(ctx, &errors[n])) {
            g_autofree char *name = g_strdup_printf("/raw-aio/%s", e->name);
            g_test_add_data_func(name, error_get_pretty(errors[n]), test_skip);
            continue;
        }
        for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
            g_autofree char *name = g_strdup_printf("/raw-aio/%s/%s", e->name, tests[i].name);
            g_test_add_data_func(name, e, tests[i].fn);
        }
        for (unsigned i = 0; i < ARRAY_SIZE(batches); i++) {
            g_autofree char *name = g_strdup_printf("/raw-aio/%s/more-than-the-ring/batch-%u",
                                                    e->name, batches[i]);
            batch_cases[n][i] = (BatchCase) { e, batches[i] };
            g_test_add_data_func(name, &batch_cases[n][i], test_more_than_the_ring);
        }
    }
    int ret = g_test_run();

    aio_context_unref(ctx);
    for (unsigned n = 0; n < ARRAY_SIZE(engines); n++) {
        error_free(errors[n]);
    }
    unlink(path);
    g_free(path);
    return ret;
}
