/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* miniblk-img bench: how fast an image is read or written, request after request. */
#include "miniblk/osdep.h"
#include "miniblk/timer.h"
#include "tools/img.h"

#define COUNT_DEFAULT 75000
#define DEPTH_DEFAULT 64
#define BUFFER_BYTES_DEFAULT 4096

enum { OPT_FLUSH_INTERVAL = IMG_OPT_LAST, OPT_NO_DRAIN, OPT_PATTERN };

typedef struct Bench {
    ImgSource src;
    const char *cache;
    int flags;                  /* BDRV_O_* */
    bool write, write_through, drain_flush;
    int pattern;                /* byte written */
    int count;                  /* requests left to start */
    int depth;                  /* in flight at a time */
    int flush_interval;         /* requests; 0: no flushes */
    int64_t buffer_bytes, step_bytes, offset, image_bytes;

    BlockBackend *blk;
    uint8_t *buffer;            /* DEPTH parts of BUFFER_BYTES */
    int in_flight;              /* flushes included */
    bool flush_due;             /* before the next request, once none is in flight */
    bool failed;
} Bench;

typedef struct BenchRequest {
    Bench *bench;
    uint8_t *part;              /* of the buffer */
} BenchRequest;

/* ---- requests --------------------------------------------------------------------- */

static void coroutine_fn run_requests(void *opaque);

static void fail(Bench *b, int ret)
{
    if (!b->failed) {
        error_report("Failed request: %s", strerror(-ret));
    }
    b->failed = true;
}

static void coroutine_fn do_flush(Bench *b)
{
    int ret = blk_co_flush(b->blk);

    if (ret < 0) {
        fail(b, ret);
    }
}

/* Take one request out of those to be done; its offset. The next one begins a step further. */
static int64_t take_request(Bench *b)
{
    int64_t offset = b->offset;

    b->count--;
    b->offset = b->image_bytes > 0 ? (b->offset + b->step_bytes) % b->image_bytes : 0;
    b->flush_due = b->flush_interval && b->count % b->flush_interval == 0;
    return offset;
}

static void coroutine_fn flush_while_others_run(void *opaque)
{
    Bench *b = opaque;

    do_flush(b);
    b->in_flight--;
}

/*
 * One of DEPTH coroutines. With a flush due and draining asked for, all of them end as they
 * come here but the last, which flushes; then start_requests() begins anew.
 */
static void coroutine_fn run_requests(void *opaque)
{
    g_autofree BenchRequest *req = opaque;
    Bench *b = req->bench;
    BdrvRequestFlags flags = b->write_through ? BDRV_REQ_FUA : 0;

    while (b->count > 0 && !b->failed && !b->flush_due) {
        int64_t offset = take_request(b);
        bool flush_now = b->flush_due && !b->drain_flush;
        if (flush_now) {
            b->flush_due = false;
        }
        int ret = b->write ? blk_co_pwrite(b->blk, offset, b->buffer_bytes, req->part, flags)
                           : blk_co_pread(b->blk, offset, b->buffer_bytes, req->part, 0);
        if (ret < 0) {
            fail(b, ret);
        } else if (flush_now) {
            b->in_flight++;
            aio_co_enter(blk_get_aio_context(b->blk),
                         qemu_coroutine_create(flush_while_others_run, b));
        }
    }
    if (b->in_flight == 1 && b->flush_due && !b->failed) {
        do_flush(b);
        b->flush_due = false;
    }
    b->in_flight--;
}

static void start_requests(Bench *b)
{
    int started = MIN(b->depth, b->count);

    for (int i = 0; i < started; i++) {
        BenchRequest *req = g_new(BenchRequest, 1);
        *req = (BenchRequest){ b, b->buffer + i * b->buffer_bytes };
        b->in_flight++;
        aio_co_enter(blk_get_aio_context(b->blk), qemu_coroutine_create(run_requests, req));
    }
}

static void print_intent(const Bench *b)
{
    printf("Sending %d %s requests, %" PRId64 " bytes each, %d in parallel (starting at "
           "offset %" PRId64 ", step size %" PRId64 ")\n", b->count,
           b->write ? "write" : "read", b->buffer_bytes, b->depth, b->offset, b->step_bytes);
    if (b->flush_interval) {
        printf("Sending flush every %d requests\n", b->flush_interval);
    }
}

static bool run(Bench *b)
{
    size_t parts = MAX(MIN(b->depth, b->count), 1);

    b->buffer = b->buffer_bytes > 0 && parts > SIZE_MAX / b->buffer_bytes ? NULL :
                qemu_try_blockalign(blk_bs(b->blk), MAX(parts * b->buffer_bytes, 1));
    if (!b->buffer) {
        error_report("Could not allocate %zu buffers of %" PRId64 " bytes", parts,
                     b->buffer_bytes);
        return false;
    }
    memset(b->buffer, b->pattern, parts * b->buffer_bytes);
    print_intent(b);

    int64_t start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    while (b->count > 0 && !b->failed) {
        start_requests(b);
        img_wait(&b->in_flight);
    }
    int64_t end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    if (!b->failed) {
        printf("Run completed in %3.3f seconds.\n", (double)(end_ns - start_ns) / 1e9);
    }
    qemu_vfree(b->buffer);
    return !b->failed;
}

/* ---- command line ----------------------------------------------------------------- */

/* A whole number from MIN to MAX; false after "Invalid NAME specified". */
static bool parse_number(const char *name, const char *value, int min, int max, int *result)
{
    char *end;

    errno = 0;
    long number = strtol(value, &end, 0);
    if (end == value || *end || errno || number < min || number > max) {
        error_report("Invalid %s specified", name);
        return false;
    }
    *result = (int)number;
    return true;
}

static bool parse_engine(const char *name, int *flags)
{
    *flags &= ~(BDRV_O_NATIVE_AIO | BDRV_O_IO_URING);
    if (!strcmp(name, "native")) {
        *flags |= BDRV_O_NATIVE_AIO;
    } else if (!strcmp(name, "io_uring")) {
        *flags |= BDRV_O_IO_URING;
    } else if (strcmp(name, "threads") != 0) {
        error_report("Invalid aio option: %s", name);
        return false;
    }
    return true;
}

/* False when an option's value is bad and a message was printed. */
static bool parse_option(Bench *b, int c)
{
    switch (c) {
    case 'c': return parse_number("request count", optarg, 0, INT_MAX, &b->count);
    case 'd': return parse_number("queue depth", optarg, 1, INT_MAX, &b->depth);
    case 'f': b->src.format = optarg; break;
    case 'i': return parse_engine(optarg, &b->flags);
    case 'n': b->flags |= BDRV_O_NATIVE_AIO; break;
    case 'o':
        b->offset = img_parse_size("offset", optarg, 0, INT64_MAX);
        return b->offset >= 0;
    case 'q': break;            /* there is no output but the results */
    case 's':
        b->buffer_bytes = img_parse_size("buffer size", optarg, 0, INT_MAX);
        return b->buffer_bytes >= 0;
    case 'S':
        b->step_bytes = img_parse_size("step_size", optarg, 0, INT_MAX);
        return b->step_bytes >= 0;
    case 't':
        b->cache = optarg;
        if (!img_parse_cache(b->cache, &b->flags, &b->write_through)) {
            error_report("Invalid cache mode");
            return false;
        }
        break;
    case 'w': b->write = true; break;
    case 'U': b->src.force_share = true; break;
    case IMG_OPT_IMAGE_OPTS: b->src.image_opts = true; break;
    case OPT_FLUSH_INTERVAL:
        return parse_number("flush interval", optarg, 0, INT_MAX, &b->flush_interval);
    case OPT_NO_DRAIN: b->drain_flush = false; break;
    case OPT_PATTERN:
        return parse_number("pattern byte", optarg, 0, 0xff, &b->pattern);
    }
    return true;
}

static bool check_options(Bench *b)
{
    if (img_source_conflict(&b->src)) {
        return false;
    }
    if (!b->write && b->flush_interval) {
        error_report("--flush-interval is only available in write tests");
        return false;
    }
    if (b->flush_interval && b->flush_interval < b->depth) {
        error_report("Flush interval can't be smaller than depth");
        return false;
    }
    if (b->write) {
        b->flags |= BDRV_O_RDWR;
    }
    if (b->step_bytes == 0) {
        b->step_bytes = b->buffer_bytes;
    }
    return true;
}

int img_bench(int argc, char **argv)
{
    static const struct option longopts[] = {
        { "help", no_argument, NULL, 'h' },
        { "flush-interval", required_argument, NULL, OPT_FLUSH_INTERVAL },
        { "pattern", required_argument, NULL, OPT_PATTERN },
        { "no-drain", no_argument, NULL, OPT_NO_DRAIN },
        { "image-opts", no_argument, NULL, IMG_OPT_IMAGE_OPTS },
        { "force-share", no_argument, NULL, 'U' },
        { NULL },
    };
    Bench bench = {
        .count = COUNT_DEFAULT, .depth = DEPTH_DEFAULT, .drain_flush = true,
        .buffer_bytes = BUFFER_BYTES_DEFAULT,
    };
    int c;

    while ((c = img_getopt(argc, argv, "c:d:f:ni:o:qs:S:t:wU", longopts)) != -1) {
        if (!parse_option(&bench, c)) {
            return EXIT_FAILURE;
        }
    }
    if (optind != argc - 1) {
        img_usage_error("Expecting one image file name");
    }
    bench.src.name = argv[optind];
    if (!check_options(&bench)) {
        return EXIT_FAILURE;
    }
    bench.blk = img_open(&bench.src, bench.flags);
    if (!bench.blk) {
        return EXIT_FAILURE;
    }
    bench.image_bytes = img_length(bench.blk, bench.src.name);
    bool ok = bench.image_bytes >= 0 && run(&bench);
    blk_unref(bench.blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
