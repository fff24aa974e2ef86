/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The Linux AIO engine: data, ends of files, refusals, full rings, nested loops. */
#include "miniblk/osdep.h"
#include <signal.h>
#include <sys/resource.h>
#include "miniblk/coroutine.h"
#include "miniblk/error.h"
#include "miniblk/linux-aio.h"

enum { BLOCK = 4096, NOT_YET = 12345 };

static AioContext *ctx;
static char *path;

typedef struct Req {
    int fd;
    uint64_t offset;
    QEMUIOVector *qiov;
    enum LinuxAioType type;
    uint64_t max_batch;
    int ret;
    int polls;                  /* poll so often before ending */
    int woken;
} Req;

static void coroutine_fn req_entry(void *opaque)
{
    Req *r = opaque;

    r->ret = laio_co_submit(r->fd, r->offset, r->qiov, r->type, r->max_batch);
    r->woken++;
    for (int i = 0; i < r->polls; i++) {
        aio_poll(ctx, false);
    }
}

static void req_start(Req *r)
{
    r->ret = NOT_YET;
    qemu_coroutine_enter(qemu_coroutine_create(req_entry, r));
}

static int req_wait(Req *r)
{
    while (r->ret == NOT_YET) {
        aio_poll(ctx, true);
    }
    return r->ret;
}

static int run(int fd, uint64_t offset, QEMUIOVector *qiov, enum LinuxAioType type)
{
    Req r = { .fd = fd, .offset = offset, .qiov = qiov, .type = type };

    req_start(&r);
    return req_wait(&r);
}

static int run_buf(int fd, uint64_t offset, void *buf, size_t len, enum LinuxAioType type)
{
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, len);
    return run(fd, offset, &qiov, type);
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

static void test_write_then_read(void)
{
    int fd = open_empty(O_DIRECT);
    uint8_t *buf = qemu_memalign(BLOCK, 4 * BLOCK);
    QEMUIOVector qiov;

    for (int i = 0; i < 4; i++) {
        memset(buf, 0x11 * (i + 1), BLOCK);
        g_assert_cmpint(run_buf(fd, i * BLOCK, buf, BLOCK, LAIO_WRITE), ==, 0);
    }
    /* scattered: the vector's order is 2, 0, 3, 1 */
    qemu_iovec_init(&qiov, 4);
    static const int order[] = { 2, 0, 3, 1 };
    for (int i = 0; i < 4; i++) {
        qemu_iovec_add(&qiov, buf + order[i] * BLOCK, BLOCK);
    }
    g_assert_cmpint(run(fd, 0, &qiov, LAIO_READ), ==, 0);
    for (int i = 0; i < 4; i++) {
        assert_pattern(buf + order[i] * BLOCK, BLOCK, 0x11 * (i + 1));
    }
    g_assert_cmpint(run(fd, 8 * BLOCK, &qiov, LAIO_WRITE), ==, 0);
    qemu_iovec_destroy(&qiov);
    memset(buf, 0, 4 * BLOCK);
    g_assert_cmpint(run_buf(fd, 8 * BLOCK, buf, 4 * BLOCK, LAIO_READ), ==, 0);
    for (int i = 0; i < 4; i++) {
        assert_pattern(buf + i * BLOCK, BLOCK, 0x11 * (i + 1));
    }
    qemu_vfree(buf);
    close(fd);
}

static void test_end_of_file_reads_zeroes(void)
{
    static const struct { int64_t length, offset; size_t data; } cases[] = {
        { 700,             0,         700 },
        { BLOCK + 512,     0,         BLOCK + 512 },
        { 2 * BLOCK,       BLOCK,     BLOCK },
        { BLOCK,           BLOCK,     0 },
        { BLOCK,           8 * BLOCK, 0 },
        { 0,               0,         0 },
    };
    uint8_t *buf = qemu_memalign(BLOCK, 2 * BLOCK);

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        int fd = open_empty(O_DIRECT);
        memset(buf, 0xaa, 2 * BLOCK);
        g_assert_cmpint(run_buf(fd, 0, buf, 2 * BLOCK, LAIO_WRITE), ==, 0);
        g_assert_cmpint(ftruncate(fd, cases[i].length), ==, 0);

        memset(buf, 0x55, 2 * BLOCK);
        g_assert_cmpint(run_buf(fd, cases[i].offset, buf, 2 * BLOCK, LAIO_READ), ==, 0);
        assert_pattern(buf, cases[i].data, 0xaa);
        assert_pattern(buf + cases[i].data, 2 * BLOCK - cases[i].data, 0);
        close(fd);
    }
    qemu_vfree(buf);
}

/* The kernel refuses one request of a batch: the others are not concerned. */
static void test_refused_request_fails_alone(void)
{
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
            reqs[i] = (Req) { .fd = cases[i].fd, .offset = i * BLOCK, .qiov = &qiov,
                              .type = LAIO_WRITE };
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

/* More than the kernel takes at a time, in batches of all sizes. */
static void test_more_than_the_ring(gconstpointer data)
{
    enum { N = 3000 };
    int fd = open_empty(O_DIRECT);
    uint8_t *buf = qemu_memalign(BLOCK, 16 * BLOCK);
    Req *reqs = g_new(Req, N);
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, BLOCK);

    memset(buf, 0x77, BLOCK);
    for (int i = 0; i < N; i++) {
        reqs[i] = (Req) { .fd = fd, .offset = (uint64_t)(i % 512) * BLOCK, .qiov = &qiov,
                          .type = LAIO_WRITE, .max_batch = GPOINTER_TO_UINT(data) };
        req_start(&reqs[i]);
    }
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(req_wait(&reqs[i]), ==, 0);
    }
    for (int i = 0; i < 512; i += 16) {
        memset(buf, 0, 16 * BLOCK);
        g_assert_cmpint(run_buf(fd, i * BLOCK, buf, 16 * BLOCK, LAIO_READ), ==, 0);
        assert_pattern(buf, 16 * BLOCK, 0x77);
    }
    g_free(reqs);
    qemu_vfree(buf);
    close(fd);
}

/*
 * Through the page cache requests complete inside io_submit(), so all are complete when the
 * first is woken. Those that poll then take over the delivery in the middle; what they take
 * runs when they end. Each is to be woken once, whoever polls how often, the refused too.
 */
static void test_woken_requests_may_poll(void)
{
    enum { N = 400 };
    int fd = open_empty(0);
    uint8_t buf[512] = { 1 };
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    g_autofree Req *reqs = g_new0(Req, N);

    for (int i = 0; i < N; i++) {
        reqs[i] = (Req) { .fd = i % 7 == 3 ? -1 : fd, .offset = i * 512, .qiov = &qiov,
                          .type = LAIO_WRITE, .max_batch = 16, .polls = i % 3 };
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

static void test_write_that_stops_half_way_fails(void)
{
    int fd = open_empty(O_DIRECT);
    uint8_t *buf = qemu_memalign(BLOCK, 4 * BLOCK);
    struct rlimit old, limit;

    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 2 * BLOCK;
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    memset(buf, 1, 4 * BLOCK);
    int ret = run_buf(fd, 0, buf, 4 * BLOCK, LAIO_WRITE);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_cmpint(ret, <, 0);
    g_assert_cmpint(ret, >, -4096);
    qemu_vfree(buf);
    close(fd);
}

/* The system refuses an engine: an error to fall back on, and nothing is leaked. */
static void test_no_engine(void)
{
    AioContext *other = aio_context_new(&error_abort);
    struct rlimit old, limit;
    Error *err = NULL;

    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 3;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    LinuxAioState *s = aio_setup_linux_aio(other, &err);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);
    g_assert_null(s);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "failed to initialize event notifier: Too many open files");
    error_free(err);

    /* it may be asked for again */
    g_assert_nonnull(aio_setup_linux_aio(other, &error_abort));
    g_assert_true(aio_get_linux_aio(other) == aio_setup_linux_aio(other, &error_abort));
    aio_context_unref(other);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autofree char *dir = g_dir_make_tmp("test-linux-aio-XXXXXX", NULL);
    g_assert_nonnull(dir);
    path = g_build_filename(dir, "file", NULL);

    ctx = aio_context_new(&error_abort);
    qemu_set_current_aio_context(ctx);
    Error *err = NULL;
    if (!aio_setup_linux_aio(ctx, &err)) {
        printf("1..0 # SKIP %s\n", error_get_pretty(err));
        return 0;
    }

    g_test_add_func("/linux-aio/write-then-read", test_write_then_read);
    g_test_add_func("/linux-aio/end-of-file-reads-zeroes", test_end_of_file_reads_zeroes);
    g_test_add_func("/linux-aio/refused-request-fails-alone",
                    test_refused_request_fails_alone);
    static const unsigned batches[] = { 0, 1, 7, 128, 100000 };
    for (unsigned i = 0; i < ARRAY_SIZE(batches); i++) {
        g_autofree char *name = g_strdup_printf("/linux-aio/more-than-the-ring/batch-%u",
                                                batches[i]);
        g_test_add_data_func(name, GUINT_TO_POINTER(batches[i]), test_more_than_the_ring);
    }
    g_test_add_func("/linux-aio/woken-requests-may-poll", test_woken_requests_may_poll);
    g_test_add_func("/linux-aio/write-that-stops-half-way-fails",
                    test_write_that_stops_half_way_fails);
    g_test_add_func("/linux-aio/no-engine", test_no_engine);
    int ret = g_test_run();

    aio_context_unref(ctx);
    unlink(path);
    rmdir(dir);
    g_free(path);
    return ret;
}
