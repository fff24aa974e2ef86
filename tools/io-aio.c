/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that start a request and do not wait: it is reported when it ends. */
#include "miniblk/osdep.h"
#include <getopt.h>
#include "miniblk/aio-wait.h"
#include "tools/io.h"

#define PATTERN_READ 0xab
#define PATTERN_WRITE 0xcd

typedef struct AioRequest {
    IoRequest req;
    IoOptions opts;
    IoVector vector;            /* none with -z */
} AioRequest;

static void aio_request_free(AioRequest *aio)
{
    if (!aio->opts.on['z']) {
        io_vector_clear(&aio->vector);
    }
    g_free(aio);
}

/* ---- completion ------------------------------------------------------------------- */

static void end_request(AioRequest *aio)
{
    aio_request_free(aio);
    io.aio_pending--;
}

static void read_done(void *opaque, int ret)
{
    AioRequest *aio = opaque;

    if (io_request_end(&aio->req, ret)) {
        io_verify(&aio->opts, aio->vector.buf, aio->req.offset, aio->req.bytes);
        if (aio->opts.on['v'] && !aio->opts.on['q']) {
            io_dump(aio->vector.buf, aio->req.offset, aio->req.bytes);
        }
        io_report(&aio->req);
    } else {
        printf("readv failed: %s\n", strerror(-ret));
    }
    end_request(aio);
}

static void write_done(void *opaque, int ret)
{
    AioRequest *aio = opaque;

    if (io_request_end(&aio->req, ret)) {
        io_report(&aio->req);
    } else {
        printf("aio_write failed: %s\n", strerror(-ret));
    }
    end_request(aio);
}

/* ---- commands --------------------------------------------------------------------- */

/* -i: count a request as one that could not be made; false if there is none. */
static bool inject_invalid(const IoOptions *opts, IoKind kind, const char *name)
{
    if (!opts->on['i']) {
        return false;
    }
    printf("injecting invalid %s request\n", name);
    io_count_invalid(kind);
    return true;
}

/* Parse the words after the options into a request that will be filled with PATTERN. */
static AioRequest *new_request(int argc, char **argv, IoKind kind, const IoOptions *opts,
                               int pattern)
{
    AioRequest *aio = g_new0(AioRequest, 1);

    aio->req = io_request(kind, opts);
    aio->opts = *opts;
    bool ok = io_parse_size(argv[optind], &aio->req.offset);
    if (ok && opts->on['z']) {
        ok = io_parse_size(argv[optind + 1], &aio->req.bytes);
    } else if (ok) {
        ok = io_vector_init(&aio->vector, argv + optind + 1, argc - optind - 1, pattern);
        aio->req.bytes = ok ? aio->vector.qiov.size : 0;
    }
    if (!ok) {
        g_free(aio);
        return NULL;
    }
    return aio;
}

static void begin_request(AioRequest *aio)
{
    io.aio_pending++;
    io_request_begin(&aio->req);
}

static bool run_aio_read(int argc, char **argv)
{
    IoOptions opts;

    if (!io_parse_options(argc, argv, "CiP:qv", &opts)) {
        return false;
    }
    if (inject_invalid(&opts, IO_READ, "read")) {
        return true;
    }
    if (optind > argc - 2) {
        return io_usage(argv);
    }
    AioRequest *aio = new_request(argc, argv, IO_READ, &opts, PATTERN_READ);
    if (!aio) {
        return false;
    }
    begin_request(aio);
    blk_aio_preadv(io.blk, aio->req.offset, &aio->vector.qiov, io_read_flags(), read_done,
                   aio);
    return true;
}

static bool run_aio_write(int argc, char **argv)
{
    IoOptions opts;

    if (!io_parse_options(argc, argv, "CfiP:quz", &opts)) {
        return false;
    }
    if (inject_invalid(&opts, IO_WRITE, "write")) {
        return true;
    }
    if (optind > argc - 2) {
        return io_usage(argv);
    }
    if (opts.on['z'] && optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        return false;
    }
    if (opts.on['u'] && !opts.on['z']) {
        printf("-u requires -z to be specified\n");
        return false;
    }
    AioRequest *aio = new_request(argc, argv, IO_WRITE, &opts,
                                  opts.pattern < 0 ? PATTERN_WRITE : opts.pattern);
    if (!aio) {
        return false;
    }
    begin_request(aio);
    if (opts.on['z']) {
        blk_aio_pwrite_zeroes(io.blk, aio->req.offset, aio->req.bytes,
                              io_write_flags(&opts), write_done, aio);
    } else {
        blk_aio_pwritev(io.blk, aio->req.offset, &aio->vector.qiov, io_write_flags(&opts),
                        write_done, aio);
    }
    return true;
}

static bool run_aio_flush(int argc, char **argv)
{
    AIO_WAIT_WHILE(NULL, io.aio_pending > 0);
    return true;
}

#define HELP_COMMON                                                                     \
    "The command succeeds when the request has been started, whatever becomes of it;\n"   \
    "aio_flush waits for its end.\n"                                                    \
    " -C    report in one line of numbers: bytes,requests,time,bytes/sec,requests/sec\n"  \
    " -i    make no request, count one that is invalid\n"                               \
    " -q    no report\n"

const IoCommand io_aio_commands[] = {
    { "aio_flush", NULL, run_aio_flush, .syntax = "",
      .summary = "completes all outstanding aio requests" },
    { "aio_read", NULL, run_aio_read, 2, -1,
      .syntax = "[-Ciqv] [-P pattern] off len [len..]",
      .summary = "asynchronously reads a number of bytes",
      .help = "'aio_read -v 512 1k 1k' shows 2 KiB from byte 512 on when they have been\n"
              "read.\n"
              HELP_COMMON
              " -P    every byte must have this value\n"
              " -v    print the data\n" },
    { "aio_write", NULL, run_aio_write, 2, -1, .perm = BLK_PERM_WRITE,
      .syntax = "[-Cfiquz] [-P pattern] off len [len..]",
      .summary = "asynchronously writes a number of bytes",
      .help = "'aio_write 512 1k 1k' fills 2 KiB from byte 512 on with bytes 0xcd.\n"
              HELP_COMMON
              " -f    the data is on stable storage when the request ends (FUA)\n"
              " -P    fill with this byte\n"
              " -u    with -z: storage may be given back\n"
              " -z    write zeroes without data; one length only\n" },
    { NULL },
};
