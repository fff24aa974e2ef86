/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host file driver: data through every engine, sizes, holes, failures. */
#include "image-test.h"
#include <signal.h>
#include <sys/resource.h>
#include "miniblk/atomic.h"
#include "miniblk/iothread.h"
#include "miniblk/thread-pool.h"

enum { FILE_BYTES = 1024 * 1024 };

/* The ways requests are made. */
typedef struct Engine {
    const char *name, *options;
    bool direct;
} Engine;
static const Engine engines[] = {
    { "threads", "", false },
    { "threads-direct", ",cache.direct=on", true },
    { "native", ",cache.direct=on,aio=native", true },
    { "native-batch-1", ",cache.direct=on,aio=native,aio-max-batch=1", true },
    { "io_uring", ",aio=io_uring", false },
    { "io_uring-direct", ",cache.direct=on,aio=io_uring", true },
    { "io_uring-batch-1", ",cache.direct=on,aio=io_uring,aio-max-batch=1", true },
};

static bool has_direct(void)
{
    g_autofree char *path = scratch_file("direct", 4096);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* Why the system has no engine for OPTIONS; NULL when it has. Newly allocated. */
static char *why_no_engine(const char *options)
{
    Error *err = NULL;

    if (strstr(options, "aio=io_uring")) {
        aio_setup_linux_io_uring(qemu_get_aio_context(), &err);
    } else if (strstr(options, "aio=native")) {
        aio_setup_linux_aio(qemu_get_aio_context(), &err);
    }
    char *why = err ? g_strdup(error_get_pretty(err)) : NULL;
    error_free(err);
    return why;
}

static bool skip(const Engine *e)
{
    g_autofree char *why = why_no_engine(e->options);
    if (why) {
        g_test_skip(why);
        return true;
    }
    if (e->direct && !has_direct()) {
        g_test_skip("the file system has no O_DIRECT");
        return true;
    }
    return false;
}

/* ---- data ------------------------------------------------------------------------------- */

/* A vector over BUF whose pieces have odd lengths and addresses. */
static void odd_vector(QEMUIOVector *qiov, uint8_t *buf, size_t len)
{
    qemu_iovec_init(qiov, 4);
    while (len > 0) {
        size_t piece = MIN(len, (size_t)g_test_rand_int_range(1, 3000));
        qemu_iovec_add(qiov, buf, piece);
        buf += piece;
        len -= piece;
    }
}

static void compare_with_model(BlockBackend *blk, const uint8_t *model, size_t len)
{
    g_autofree uint8_t *buf = g_malloc(len);

    g_assert_cmpint(blk_pread(blk, 0, len, buf, 0), ==, 0);
    g_assert_cmpmem(buf, len, model, len);
}

/* Random requests of all sizes and alignments; a plain buffer says what must come out. */
static void test_like_memory(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("model", FILE_BYTES);
    g_autofree uint8_t *model = g_malloc0(FILE_BYTES);
    g_autofree uint8_t *buf = g_malloc(FILE_BYTES + 1);
    BlockBackend *blk = open_file(path, e->options);

    for (int i = 0; i < 400; i++) {
        bool small = g_test_rand_int_range(0, 4);
        int64_t len = g_test_rand_int_range(1, small ? 9000 : FILE_BYTES);
        int64_t offset = g_test_rand_int_range(0, FILE_BYTES - len + 1);
        if (g_test_rand_bit()) {
            len = QEMU_ALIGN_UP(len, 512);
            offset = QEMU_ALIGN_DOWN(MIN(offset, FILE_BYTES - len), 512);
        }
        uint8_t *at = buf + g_test_rand_int_range(0, 2);
        BdrvRequestFlags flags = g_test_rand_int_range(0, 8) ? 0 : BDRV_REQ_FUA;
        QEMUIOVector qiov;

        switch (g_test_rand_int_range(0, 6)) {
        case 0:
        case 1:
            memset(at, i, len);
            odd_vector(&qiov, at, len);
            g_assert_cmpint(blk_pwritev(blk, offset, len, &qiov, flags), ==, 0);
            memset(model + offset, i, len);
            qemu_iovec_destroy(&qiov);
            break;
        case 2:
            memset(at, ~i, len);
            g_assert_cmpint(blk_pwrite(blk, offset, len, at, flags), ==, 0);
            memset(model + offset, ~i, len);
            break;
        case 3:
            flags |= g_test_rand_bit() ? BDRV_REQ_MAY_UNMAP : 0;
            g_assert_cmpint(blk_pwrite_zeroes(blk, offset, len, flags), ==, 0);
            memset(model + offset, 0, len);
            break;
        case 4:
            memset(at, 0xcc, len);
            odd_vector(&qiov, at, len);
            g_assert_cmpint(blk_preadv(blk, offset, len, &qiov, 0), ==, 0);
            g_assert_cmpmem(at, len, model + offset, len);
            qemu_iovec_destroy(&qiov);
            break;
        case 5:
            g_assert_cmpint(blk_flush(blk), ==, 0);
            break;
        }
    }
    compare_with_model(blk, model, FILE_BYTES);
    blk_unref(blk);

    /* and so it is in the file itself */
    g_autofree char *contents = NULL;
    gsize length;
    g_assert_true(g_file_get_contents(path, &contents, &length, NULL));
    g_assert_cmpmem(contents, length, model, FILE_BYTES);
}

static void count_ok(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    qatomic_inc((int *)opaque);
}

/* Many at once, in the main loop and in an IOThread, with moves in between. */
static void test_in_flight_across_moves(gconstpointer data)
{
    enum { N = 64, ROUNDS = 20, BYTES = 4096 };
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("moves", N * BYTES);
    BlockBackend *blk = open_file(path, e->options);
    IOThread *iothread = iothread_create("moves", &error_abort);
    AioContext *contexts[] = { iothread_get_aio_context(iothread), qemu_get_aio_context() };
    uint8_t *buf = qemu_memalign(4096, N * BYTES);
    g_autofree QEMUIOVector *qiovs = g_new(QEMUIOVector, N);
    int done = 0;

    for (int i = 0; i < N; i++) {
        qemu_iovec_init_buf(&qiovs[i], buf + i * BYTES, BYTES);
    }
    for (int round = 0; round < ROUNDS; round++) {
        AioContext *ctx = blk_get_aio_context(blk);
        memset(buf, round + 1, N * BYTES);
        qatomic_set(&done, 0);
        aio_context_acquire(ctx);
        for (int i = 0; i < N; i++) {
            blk_aio_pwritev(blk, i * BYTES, &qiovs[i], 0, count_ok, &done);
        }
        g_assert_cmpint(blk_set_aio_context(blk, contexts[round % 2], &error_abort), ==, 0);
        aio_context_release(ctx);
        /* what the move found in flight is complete; the rest was parked and goes on there */
        AIO_WAIT_WHILE_UNLOCKED(NULL, qatomic_read(&done) < N);
        assert_content(blk, 0, N * BYTES, round + 1);
    }
    g_assert_true(blk_get_aio_context(blk) == qemu_get_aio_context());
    blk_unref(blk);
    iothread_destroy(iothread);
    qemu_vfree(buf);
}

/* The file's last sector is only partly there. */
static void test_odd_length(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("odd", 700);
    BlockBackend *blk = open_file(path, e->options);

    g_assert_cmpint(blk_getlength(blk), ==, 1024);
    assert_content(blk, 0, 1024, 0);
    assert_content(blk, 512, 512, 0);
    assert_content(blk, 1000, 24, 0);
    g_assert_cmpint(file_bytes(path), ==, 700);
    write_pattern(blk, 512, 512, 0x11);
    assert_content(blk, 512, 512, 0x11);
    g_assert_cmpint(file_bytes(path), >=, 1024);
    blk_unref(blk);
}

/* ---- zeroes, holes and sizes ------------------------------------------------------------ */

static void test_zeroes_and_holes(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("holes", FILE_BYTES);
    BlockBackend *blk = open_file(path, e->options);

    write_pattern(blk, 0, FILE_BYTES, 0x11);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    int64_t full = disk_bytes(path);
    g_assert_cmpint(full, >=, FILE_BYTES);
    g_assert_cmpint(bdrv_get_allocated_file_size(blk_bs(blk)), ==, full);

    /* zeroed in place: stays allocated */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 262144, 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(disk_bytes(path), >=, FILE_BYTES);
    assert_content(blk, 0, 262144, 0);
    assert_content(blk, 262144, 262144, 0x11);

    /* given back */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 262144, 262144, BDRV_REQ_MAY_UNMAP), ==, 0);
    assert_content(blk, 262144, 262144, 0);
    g_assert_cmpint(disk_bytes(path), <=, full - 262144);
    g_assert_cmpint(blk_pdiscard(blk, 524288, 262144), ==, 0);
    g_assert_cmpint(disk_bytes(path), <=, full - 524288);
    g_assert_cmpint(file_bytes(path), ==, FILE_BYTES);
    assert_content(blk, 786432, 262144, 0x11);

    /* not aligned to anything: exactly these bytes */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 786432 + 100, 1000, BDRV_REQ_MAY_UNMAP), ==, 0);
    assert_content(blk, 786432, 100, 0x11);
    assert_content(blk, 786432 + 100, 1000, 0);
    assert_content(blk, 786432 + 1100, 1000, 0x11);
    blk_unref(blk);
}

static void test_block_status(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    /* "." is 64 KiB of hole, "D" of data */
    static const char picture[] = "..DD.D....DDDD..";
    const int64_t unit = 65536, len = strlen(picture) * unit;
    g_autofree char *path = scratch_file("status", len);
    BlockBackend *blk = open_file(path, e->options);

    for (int i = 0; picture[i]; i++) {
        if (picture[i] == 'D') {
            write_pattern(blk, i * unit, unit, 0x11);
        }
    }
    g_assert_cmpint(blk_flush(blk), ==, 0);

    /* ask from every half unit on: the answers must be those of the picture */
    for (int64_t offset = 0; offset < len; offset += unit / 2) {
        int64_t pnum, map;
        BlockDriverState *file;
        int ret = bdrv_block_status(blk_bs(blk), offset, len - offset, &pnum, &map, &file);
        bool is_data = picture[offset / unit] == 'D';
        int64_t run = 0;
        while (offset + run < len && (picture[(offset + run) / unit] == 'D') == is_data) {
            run += unit / 2;
        }
        g_assert_cmpint(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO), ==,
                        is_data ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO);
        g_assert_cmpint(pnum, ==, run);
        g_assert_cmpint(ret & BDRV_BLOCK_OFFSET_VALID, ==, BDRV_BLOCK_OFFSET_VALID);
        g_assert_cmpint(map, ==, offset);
        g_assert_cmpint(!!(ret & BDRV_BLOCK_EOF), ==, offset + run == len);
    }
    blk_unref(blk);
}

static void test_truncate(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    static const struct {
        int64_t length;
        PreallocMode prealloc;
        int ret;
        const char *text;
    } cases[] = {
        { 2 * FILE_BYTES, PREALLOC_MODE_OFF, 0, NULL },
        { FILE_BYTES / 2, PREALLOC_MODE_OFF, 0, NULL },
        { FILE_BYTES, PREALLOC_MODE_FALLOC, 0, NULL },
        { FILE_BYTES, PREALLOC_MODE_FALLOC, 0, NULL },
        { 2 * FILE_BYTES, PREALLOC_MODE_FULL, 0, NULL },
        { 2 * FILE_BYTES + 512, PREALLOC_MODE_FULL, 0, NULL },
        { 3 * FILE_BYTES + 512, PREALLOC_MODE_FULL, 0, NULL },
        { FILE_BYTES, PREALLOC_MODE_FALLOC, -ENOTSUP,
          "Preallocation can't be used for shrinking files" },
        { FILE_BYTES, PREALLOC_MODE_FULL, -ENOTSUP,
          "Preallocation can't be used for shrinking files" },
        { 4 * FILE_BYTES, PREALLOC_MODE_METADATA, -ENOTSUP,
          "Unsupported preallocation mode: metadata" },
        { 7LL << 60, PREALLOC_MODE_OFF, -EFBIG, "Could not resize file: File too large" },
        { 0, PREALLOC_MODE_OFF, 0, NULL },
    };
    g_autofree char *path = scratch_file("truncate", FILE_BYTES);
    BlockBackend *blk = open_file(path, e->options);
    int64_t length = FILE_BYTES;

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Error *err = NULL;
        int64_t before = disk_bytes(path);
        int ret = blk_truncate(blk, cases[i].length, true, cases[i].prealloc, 0, &err);

        g_assert_cmpint(ret, ==, cases[i].ret);
        g_assert_cmpstr(err ? error_get_pretty(err) : NULL, ==, cases[i].text);
        error_free(err);
        if (ret == 0) {
            if (cases[i].length > length) {
                assert_content(blk, length, cases[i].length - length, 0);
            }
            if (cases[i].prealloc != PREALLOC_MODE_OFF) {
                g_assert_cmpint(disk_bytes(path), >=, before + cases[i].length - length);
            }
            length = cases[i].length;
        }
        g_assert_cmpint(blk_getlength(blk), ==, length);
        g_assert_cmpint(file_bytes(path), ==, length);
    }
    blk_unref(blk);
}

/* A write or zeroes beyond the end make the file longer, for users who may resize. */
static void test_writes_beyond_the_end(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("beyond", 4096);
    BlockBackend *blk = open_file(path, e->options);
    BdrvChild *edge = blk_root(blk);
    uint8_t buf[4096];

    memset(buf, 0x11, sizeof(buf));
    g_assert_cmpint(bdrv_pwrite(edge, 8192, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(file_bytes(path), ==, 12288);
    g_assert_cmpint(blk_getlength(blk), ==, 12288);
    assert_content(blk, 4096, 4096, 0);
    g_assert_cmpint(bdrv_pwrite_zeroes(edge, 8192, 65536, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(file_bytes(path), ==, 8192 + 65536);
    assert_content(blk, 8192, 65536, 0);
    blk_unref(blk);
}

/* ---- failures --------------------------------------------------------------------------- */

/* The descriptor that the driver has PATH open with. */
static int driver_fd(const char *path)
{
    for (int fd = 3; fd < 1024; fd++) {
        g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
        g_autofree char *target = g_file_read_link(link, NULL);
        if (target && !strcmp(target, path)) {
            return fd;
        }
    }
    g_assert_not_reached();
}

/*
 * A flush fails: here because the descriptor is, for a moment, that of a pipe. What the
 * page cache holds is unknown from then on, so later flushes must not succeed either.
 */
static void test_failed_flush_is_remembered(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("flush", FILE_BYTES);
    BlockBackend *blk = open_file(path, e->options);
    int pipe_fds[2], fd = driver_fd(path), saved = dup(fd);

    g_assert_cmpint(pipe(pipe_fds), ==, 0);
    write_pattern(blk, 0, 4096, 0x11);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    write_pattern(blk, 0, 4096, 0x22);
    g_assert_cmpint(dup2(pipe_fds[0], fd), ==, fd);
    bool in_memory = blk_flush(blk) == 0;
    g_assert_cmpint(dup2(saved, fd), ==, fd);
    g_assert_false(in_memory);
    g_assert_cmpint(blk_flush(blk), <, 0);
    write_pattern(blk, 0, 4096, 0x33);
    g_assert_cmpint(blk_flush(blk), <, 0);
    blk_unref(blk);

    /* opening again starts afresh */
    blk = open_file(path, e->options);
    write_pattern(blk, 0, 4096, 0x33);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    blk_unref(blk);
    close(saved);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

/* No descriptors left for an AIO engine in the new context: worker threads do it. */
static void test_falls_back_to_threads(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("fallback", FILE_BYTES);
    BlockBackend *blk = open_file(path, e->options);
    IOThread *iothread = iothread_create("fallback", &error_abort);
    AioContext *main_ctx = qemu_get_aio_context();
    struct rlimit old, limit;

    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 3;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    aio_context_acquire(main_ctx);
    int ret = blk_set_aio_context(blk, iothread_get_aio_context(iothread), &error_abort);
    aio_context_release(main_ctx);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &old), ==, 0);
    g_assert_cmpint(ret, ==, 0);

    write_pattern(blk, 100, 10000, 0x11);
    assert_content(blk, 100, 10000, 0x11);
    aio_context_acquire(iothread_get_aio_context(iothread));
    g_assert_cmpint(blk_set_aio_context(blk, main_ctx, &error_abort), ==, 0);
    aio_context_release(iothread_get_aio_context(iothread));
    assert_content(blk, 100, 10000, 0x11);
    blk_unref(blk);
    iothread_destroy(iothread);
}

typedef struct Cancelled {
    int ret, calls;
} Cancelled;

static void note_end(void *opaque, int ret)
{
    Cancelled *c = opaque;
    c->ret = ret;
    c->calls++;
}

/*
 * A cancelled request may still be done; it ends once, either way, and a drained section
 * has waited for its end.
 */
static void test_cancelled_and_drained(gconstpointer data)
{
    enum { N = 64, BYTES = 4096 };
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("cancel", N * BYTES);
    BlockBackend *blk = open_file(path, e->options);
    uint8_t *buf = qemu_memalign(4096, N * BYTES);
    QEMUIOVector qiovs[N];
    BlockAIOCB *acbs[N];
    Cancelled ends[N] = { { 0 } };

    for (int i = 0; i < N; i++) {
        qemu_iovec_init_buf(&qiovs[i], buf + i * BYTES, BYTES);
        acbs[i] = blk_aio_preadv(blk, i * BYTES, &qiovs[i], 0, note_end, &ends[i]);
    }
    for (int i = 0; i < N; i += 3) {
        bdrv_aio_cancel_async(acbs[i]);
    }
    bdrv_aio_cancel(acbs[1]);
    g_assert_cmpint(ends[1].calls, ==, 1);
    bdrv_drained_begin(blk_bs(blk));
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(ends[i].calls, ==, 1);
        g_assert_true(ends[i].ret == 0 || (ends[i].ret == -ECANCELED && i % 3 != 2));
    }
    bdrv_drained_end(blk_bs(blk));
    blk_unref(blk);
    qemu_vfree(buf);
}

static void test_io_errors_are_reported(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *path = scratch_file("errors", FILE_BYTES);
    BlockBackend *blk = open_file(path, e->options);
    uint8_t *buf = qemu_memalign(4096, 4096);
    struct rlimit old, limit;

    /* writes beyond what the process may do fail */
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 8192;
    memset(buf, 0x11, 4096);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    int ret = blk_pwrite(blk, 8192, 4096, buf, 0);
    int fua_ret = blk_pwrite(blk, 8192, 4096, buf, BDRV_REQ_FUA);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_cmpint(ret, ==, -EFBIG);
    g_assert_cmpint(fua_ret, ==, -EFBIG);
    assert_content(blk, 8192, 4096, 0);
    g_assert_cmpint(blk_pwrite(blk, 8192, 4096, buf, BDRV_REQ_FUA), ==, 0);
    assert_content(blk, 8192, 4096, 0x11);
    blk_unref(blk);
    qemu_vfree(buf);
}

/*
 * A descriptor's number is used again for another file, after a node was closed and after
 * one was reopened: nobody may still mean the old file by it.
 */
static void test_descriptor_numbers_are_used_again(gconstpointer data)
{
    const Engine *e = data;
    if (skip(e)) {
        return;
    }
    g_autofree char *first = scratch_file("first", 4096);
    g_autofree char *second = scratch_file("second", 4096);
    BlockBackend *a = open_file(first, e->options);
    write_pattern(a, 0, 4096, 0x11);
    int fd = driver_fd(first);
    blk_unref(a);

    BlockBackend *b = open_file(second, e->options);
    g_assert_cmpint(driver_fd(second), ==, fd);
    assert_content(b, 0, 4096, 0);
    write_pattern(b, 0, 4096, 0x22);

    QDict *change = qdict_new();
    qdict_put_bool(change, "cache.no-flush", true);
    g_assert_cmpint(bdrv_reopen(blk_bs(b), change, true, &error_abort), ==, 0);
    assert_content(b, 0, 4096, 0x22);
    a = open_file(first, e->options);
    g_assert_cmpint(driver_fd(first), ==, fd);
    assert_content(a, 0, 4096, 0x11);
    write_pattern(a, 0, 4096, 0x33);
    assert_content(a, 0, 4096, 0x33);
    assert_content(b, 0, 4096, 0x22);
    blk_unref(a);
    change = qdict_new();
    qdict_put_bool(change, "cache.no-flush", false);
    g_assert_cmpint(bdrv_reopen(blk_bs(b), change, true, &error_abort), ==, 0);
    blk_unref(b);

    /* nor may anything keep the files open; a lease is granted to the only one who has */
    for (int i = 0; i < 2; i++) {
        int only_fd = open(i ? first : second, O_RDWR | O_CLOEXEC), ret;
        for (int tries = 0; (ret = fcntl(only_fd, F_SETLEASE, F_WRLCK)) < 0 &&
                            errno == EAGAIN && tries < 5000; tries++) {
            g_usleep(1000);     /* old kernels let go of a registered file a little later */
        }
        g_assert_true(ret == 0 || errno == EINVAL);     /* EINVAL: no leases here */
        close(only_fd);
    }
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*fn)(gconstpointer engine); } tests[] = {
        { "like-memory", test_like_memory },
        { "in-flight-across-moves", test_in_flight_across_moves },
        { "odd-length", test_odd_length },
        { "zeroes-and-holes", test_zeroes_and_holes },
        { "block-status", test_block_status },
        { "truncate", test_truncate },
        { "writes-beyond-the-end", test_writes_beyond_the_end },
        { "io-errors-are-reported", test_io_errors_are_reported },
        { "descriptor-numbers-are-used-again", test_descriptor_numbers_are_used_again },
    };

    image_test_init(&argc, &argv);
    limit_file_size();
    for (unsigned e = 0; e < ARRAY_SIZE(engines); e++) {
        for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
            g_autofree char *path = g_strdup_printf("/file/%s/%s", engines[e].name,
                                                    tests[i].name);
            g_test_add_data_func(path, &engines[e], tests[i].fn);
        }
    }
    for (unsigned e = 0; e < ARRAY_SIZE(engines); e++) {
        g_autofree char *flush = g_strdup_printf("/file/%s/failed-flush-is-remembered",
                                                 engines[e].name);
        g_autofree char *threads = g_strdup_printf("/file/%s/falls-back-to-threads",
                                                   engines[e].name);
        g_autofree char *cancel = g_strdup_printf("/file/%s/cancelled-and-drained",
                                                  engines[e].name);
        if (!engines[e].direct) {
            g_test_add_data_func(flush, &engines[e], test_failed_flush_is_remembered);
        }
        if (strstr(engines[e].options, "aio=")) {
            g_test_add_data_func(threads, &engines[e], test_falls_back_to_threads);
        }
        g_test_add_data_func(cancel, &engines[e], test_cancelled_and_drained);
    }
    return image_test_run();
}
