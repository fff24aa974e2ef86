/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes without storage: "null-co" and "null-aio". */
#include "image-test.h"
#include "miniblk/timer.h"

static const char *const drivers[] = { "null-co", "null-aio" };

static void test_size(gconstpointer driver)
{
    static const struct { const char *option; int64_t length; } cases[] = {
        { "", 1 << 30 },
        { ",size=0", 0 },
        { ",size=1", 512 },
        { ",size=700", 1024 },
        { ",size=1048576", 1048576 },
        { ",size=7E", 7LL << 60 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        BlockBackend *blk = open_rw(options_of("driver=%s%s", (const char *)driver,
                                               cases[i].option));
        g_assert_cmpint(blk_getlength(blk), ==, cases[i].length);
        g_assert_cmpint(bdrv_get_allocated_file_size(blk_bs(blk)), ==, 0);
        blk_unref(blk);
    }
}

static void test_refused_options(gconstpointer driver)
{
    static const char *const options[] = {
        "size=9E", "latency-ns=18446744073709551615", "latency-ns=-1", "read-zeroes=maybe",
        "size=many", "colour=red",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
        Error *err = NULL;
        QDict *opts = options_of("driver=%s,%s", (const char *)driver, options[i]);
        g_assert_null(bdrv_open(NULL, NULL, opts, 0, &err));
        g_test_message("%s: %s", options[i], error_get_pretty(err));
        error_free(err);
    }
}

static void test_filename(gconstpointer driver)
{
    const char *name = driver;
    g_autofree char *good = g_strdup_printf("%s://", name);
    g_autofree char *bad = g_strdup_printf("%s://x", name);
    g_autofree char *expected = g_strdup_printf("The only allowed filename for this driver "
                                                "is '%s://'", name);
    Error *err = NULL;

    BlockDriverState *bs = bdrv_open(good, NULL, NULL, BDRV_O_PROTOCOL, &error_abort);
    g_assert_cmpint(bdrv_getlength(bs), ==, 1 << 30);
    bdrv_unref(bs);
    g_assert_null(bdrv_open(bad, NULL, NULL, BDRV_O_PROTOCOL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
    error_free(err);
}

static void test_read_zeroes(gconstpointer driver)
{
    uint8_t buf[1024];

    for (int zeroes = 0; zeroes < 2; zeroes++) {
        BlockBackend *blk = open_rw(options_of("driver=%s,read-zeroes=%s",
                                               (const char *)driver, zeroes ? "on" : "off"));
        int64_t pnum, map;
        BlockDriverState *file;

        memset(buf, 0x5a, sizeof(buf));
        g_assert_cmpint(blk_pwrite(blk, 0, sizeof(buf), buf, BDRV_REQ_FUA), ==, 0);
        g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
        assert_bytes(buf, sizeof(buf), zeroes ? 0 : 0x5a);

        int status = bdrv_block_status(blk_bs(blk), 4096, 8192, &pnum, &map, &file);
        g_assert_cmpint(status & BDRV_BLOCK_ZERO, ==, zeroes ? BDRV_BLOCK_ZERO : 0);
        g_assert_cmpint(status & BDRV_BLOCK_DATA, ==, 0);
        g_assert_cmpint(pnum, ==, 8192);
        blk_unref(blk);
    }
}

static void test_every_request_succeeds(gconstpointer driver)
{
    BlockBackend *blk = open_rw(options_of("driver=%s,size=1M", (const char *)driver));
    uint8_t buf[512] = { 0 };
    Error *err = NULL;

    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, 65536, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 0, 65536), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_pread(blk, 1048576 - 512, 512, buf, 0), ==, 0);
    g_assert_cmpint(blk_pread(blk, 1048576, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_truncate(blk, 4096, true, PREALLOC_MODE_OFF, 0, &err), ==, -ENOTSUP);
    g_assert_cmpstr(error_get_pretty(err), ==, "Image format driver does not support resize");
    error_free(err);
    blk_unref(blk);
}

/* ---- when a request completes ----------------------------------------------------------- */

typedef struct OneRead {
    BdrvChild *child;
    bool done;
} OneRead;

static void coroutine_fn read_once(void *opaque)
{
    OneRead *r = opaque;
    uint8_t buf[512];

    g_assert_cmpint(bdrv_co_pread(r->child, 0, sizeof(buf), buf, 0), ==, 0);
    r->done = true;
}

static void test_completion_point(void)
{
    static const struct { const char *options; bool at_once; } cases[] = {
        { "driver=null-co", true },
        { "driver=null-aio", false },
        { "driver=null-co,latency-ns=1", false },
        { "driver=null-aio,latency-ns=1", false },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        BlockBackend *blk = open_rw(options_of("%s", cases[i].options));
        OneRead r = { .child = blk_root(blk) };
        qemu_coroutine_enter(qemu_coroutine_create(read_once, &r));
        g_assert_cmpint(r.done, ==, cases[i].at_once);
        while (!r.done) {
            aio_poll(qemu_get_aio_context(), true);
        }
        blk_unref(blk);
    }
}

static void test_latency(gconstpointer driver)
{
    const int64_t latency_ns = 5 * SCALE_MS;
    BlockBackend *blk = open_rw(options_of("driver=%s,latency-ns=%" PRId64,
                                           (const char *)driver, latency_ns));
    uint8_t buf[512] = { 0 };
    int64_t start = qemu_clock_get_ns(QEMU_CLOCK_REALTIME), end;

    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    end = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    g_assert_cmpint(end - start, >=, latency_ns);
    g_assert_cmpint(blk_pwrite(blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - end, >=, latency_ns);
    blk_unref(blk);
}

static void count_completion(void *opaque, int ret)
{
    g_assert_cmpint(ret, ==, 0);
    ++*(int *)opaque;
}

/* Slow requests are waited for: none completes after the drain. */
static void test_drain_waits(gconstpointer driver)
{
    BlockBackend *blk = open_rw(options_of("driver=%s,latency-ns=2000000",
                                           (const char *)driver));
    uint8_t buf[512];
    QEMUIOVector qiov = QEMU_IOVEC_INIT_BUF(qiov, buf, sizeof(buf));
    int completions = 0;

    for (int i = 0; i < 32; i++) {
        blk_aio_preadv(blk, i * 512, &qiov, 0, count_completion, &completions);
    }
    g_assert_cmpint(completions, ==, 0);
    blk_drain(blk);
    g_assert_cmpint(completions, ==, 32);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*fn)(gconstpointer driver); } tests[] = {
        { "size", test_size },
        { "refused-options", test_refused_options },
        { "filename", test_filename },
        { "read-zeroes", test_read_zeroes },
        { "every-request-succeeds", test_every_request_succeeds },
        { "latency", test_latency },
        { "drain-waits", test_drain_waits },
    };

    image_test_init(&argc, &argv);
    for (unsigned d = 0; d < ARRAY_SIZE(drivers); d++) {
        for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
            g_autofree char *path = g_strdup_printf("/%s/%s", drivers[d], tests[i].name);
            g_test_add_data_func(path, drivers[d], tests[i].fn);
        }
    }
    g_test_add_func("/null/completion-point", test_completion_point);
    return image_test_run();
}
