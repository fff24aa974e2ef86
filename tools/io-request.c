/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that make one request and wait for its end: read, write, discard and kin. */
#include "miniblk/osdep.h"
#include <getopt.h>
#include "tools/io.h"

#define PATTERN_READ 0xab       /* in buffers before they are read into */
#define PATTERN_WRITE 0xcd      /* written unless told otherwise */

/* ---- common parts ----------------------------------------------------------------- */

BdrvRequestFlags io_read_flags(void)
{
    return io.copy_on_read ? BDRV_REQ_COPY_ON_READ : 0;
}

BdrvRequestFlags io_write_flags(const IoOptions *opts)
{
    return (io.writethrough || opts->on['f'] ? BDRV_REQ_FUA : 0) |
           (opts->on['u'] ? BDRV_REQ_MAY_UNMAP : 0) |
           (opts->on['n'] ? BDRV_REQ_NO_FALLBACK : 0);
}

bool io_verify(const IoOptions *opts, const uint8_t *buf, int64_t offset, int64_t bytes)
{
    if (opts->pattern < 0) {
        return true;
    }
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != opts->pattern) {
            printf("Pattern verification failed at offset %" PRId64 ", %" PRId64 " bytes\n",
                   offset, bytes);
            return false;
        }
    }
    return true;
}

bool io_vector_init(IoVector *vector, char **words, int n, int pattern)
{
    g_autofree int64_t *sizes = g_new(int64_t, n);
    int64_t total = 0;

    for (int i = 0; i < n; i++) {
        if (!io_parse_size(words[i], &sizes[i])) {
            return false;
        }
        if (sizes[i] > BDRV_REQUEST_MAX_BYTES) {
            printf("Argument '%s' exceeds maximum size %" PRId64 "\n", words[i],
                   BDRV_REQUEST_MAX_BYTES);
            return false;
        }
        if (total > BDRV_REQUEST_MAX_BYTES - sizes[i]) {
            printf("The total number of bytes exceed the maximum size %" PRId64 "\n",
                   BDRV_REQUEST_MAX_BYTES);
            return false;
        }
        total += sizes[i];
    }
    vector->buf = io_buffer_new(total, pattern);
    if (!vector->buf) {
        return false;
    }
    qemu_iovec_init(&vector->qiov, n);
    for (int64_t i = 0, pos = 0; i < n; pos += sizes[i++]) {
        qemu_iovec_add(&vector->qiov, vector->buf + pos, sizes[i]);
    }
    return true;
}

void io_vector_clear(IoVector *vector)
{
    qemu_iovec_destroy(&vector->qiov);
    io_buffer_free(vector->buf);
}

static bool check_aligned(int64_t value, const char *name)
{
    if (!QEMU_IS_ALIGNED(value, BDRV_SECTOR_SIZE)) {
        printf("%" PRId64 " is not a sector-aligned value for '%s'\n", value, name);
        return false;
    }
    return true;
}

/* The two words that all commands here but the vectored ones end with. */
static bool parse_range(int argc, char **argv, IoRequest *req)
{
    if (optind != argc - 2) {
        return io_usage(argv);
    }
    return io_parse_size(argv[optind], &req->offset) &&
           io_parse_size(argv[optind + 1], &req->bytes);
}

/* The words of a vectored command: an offset, and the sizes of buffers, which are made. */
static bool parse_vector(int argc, char **argv, int pattern, IoRequest *req, IoVector *vector)
{
    if (optind > argc - 2) {
        return io_usage(argv);
    }
    if (!io_parse_size(argv[optind], &req->offset) ||
        !io_vector_init(vector, argv + optind + 1, argc - optind - 1, pattern)) {
        return false;
    }
    req->bytes = vector->qiov.size;
    return true;
}

/* Stop the clock of command NAME, which ended with RET: 0 or -errno; true if it is 0. */
static bool end(IoRequest *req, const char *name, int ret)
{
    if (io_request_end(req, ret)) {
        return true;
    }
    printf("%s failed: %s\n", name, strerror(-ret));
    return false;
}

static bool end_and_report(IoRequest *req, const char *name, int ret)
{
    bool ok = end(req, name, ret);

    if (ok) {
        io_report(req);
    }
    return ok;
}

/* The end of a read into BUF, of which COUNT bytes from FIRST on are to be verified. */
static bool end_read(IoRequest *req, const IoOptions *opts, const char *name, int ret,
                     const uint8_t *buf, int64_t first, int64_t count)
{
    if (!end(req, name, ret)) {
        return false;
    }
    bool ok = io_verify(opts, buf + first, req->offset + first, count);
    if (opts->on['v'] && !opts->on['q']) {
        io_dump(buf, req->offset, req->bytes);
    }
    io_report(req);
    return ok;
}

/* ---- read ------------------------------------------------------------------------- */

/* The part of what was read that is to be verified; false with a message. */
static bool parse_verified_part(const IoOptions *opts, int64_t bytes, int64_t *first,
                                int64_t *count)
{
    *first = 0;
    if (opts->on['s'] && !io_parse_size(opts->arg['s'], first)) {
        return false;
    }
    *count = bytes - *first;
    if (opts->on['l'] && !io_parse_size(opts->arg['l'], count)) {
        return false;
    }
    if (*first > bytes || *count > bytes - *first) {
        printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

static bool run_read(int argc, char **argv)
{
    int64_t first, count;
    IoOptions opts;

    if (!io_parse_options(argc, argv, "bCl:pP:qs:v", &opts)) {
        return false;
    }
    IoRequest req = io_request(IO_READ, &opts);
    if (opts.pattern < 0 && (opts.on['l'] || opts.on['s'])) {
        return io_usage(argv);
    }
    if (!parse_range(argc, argv, &req)) {
        return false;
    }
    if (req.bytes > BDRV_REQUEST_MAX_BYTES) {
        printf("length cannot exceed %" PRId64 ", given %s\n", BDRV_REQUEST_MAX_BYTES,
               argv[optind + 1]);
        return false;
    }
    if (!parse_verified_part(&opts, req.bytes, &first, &count) ||
        (opts.on['b'] && (!check_aligned(req.offset, "offset") ||
                          !check_aligned(req.bytes, "count")))) {
        return false;
    }

    uint8_t *buf = io_buffer_new(req.bytes, PATTERN_READ);
    if (!buf) {
        return false;
    }
    io_request_begin(&req);
    int ret = opts.on['b']
              ? bdrv_load_vmstate(blk_bs(io.blk), buf, req.offset, (int)req.bytes)
              : blk_pread(io.blk, req.offset, req.bytes, buf, io_read_flags());
    bool ok = end_read(&req, &opts, "read", ret, buf, first, count);
    io_buffer_free(buf);
    return ok;
}

static bool run_readv(int argc, char **argv)
{
    IoVector vector;
    IoOptions opts;

    if (!io_parse_options(argc, argv, "CP:qv", &opts)) {
        return false;
    }
    IoRequest req = io_request(IO_READ, &opts);
    if (!parse_vector(argc, argv, PATTERN_READ, &req, &vector)) {
        return false;
    }
    io_request_begin(&req);
    int ret = blk_preadv(io.blk, req.offset, req.bytes, &vector.qiov, io_read_flags());
    bool ok = end_read(&req, &opts, "readv", ret, vector.buf, 0, req.bytes);
    io_vector_clear(&vector);
    return ok;
}

/* ---- write ------------------------------------------------------------------------ */

static bool write_options_fit(const IoOptions *opts)
{
    static const struct {
        char option, other;
        bool wants;             /* OPTION needs OTHER; else they exclude each other */
        const char *message;
    } rules[] = {
        { 'b', 'z', false, "-b and -z cannot be specified at the same time" },
        { 'f', 'b', false, "-f and -b or -c cannot be specified at the same time" },
        { 'f', 'c', false, "-f and -b or -c cannot be specified at the same time" },
        { 'n', 'z', true, "-n requires -z to be specified" },
        { 'u', 'z', true, "-u requires -z to be specified" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (opts->on[(int)rules[i].option] &&
            opts->on[(int)rules[i].other] != rules[i].wants) {
            printf("%s\n", rules[i].message);
            return false;
        }
    }
    if (opts->on['z'] + opts->on['P'] + opts->on['s'] > 1) {
        printf("Only one of -z, -P, and -s can be specified at the same time\n");
        return false;
    }
    return true;
}

/* Fill BUF with the content of file NAME, over and over; false with a message. */
static bool fill_from_file(uint8_t *buf, int64_t bytes, const char *name)
{
    FILE *f = fopen(name, "rb");

    if (!f) {
        error_printf("%s: %s\n", name, strerror(errno));
        return false;
    }
    int64_t n = fread(buf, 1, bytes, f);
    bool broken = ferror(f);
    fclose(f);
    if (broken || (n == 0 && bytes > 0)) {
        error_printf("%s: %s\n", name, broken ? "cannot be read" : "file is empty");
        return false;
    }
    for (int64_t pos = n; pos < bytes; pos++) {
        buf[pos] = buf[pos - n];
    }
    return true;
}

/* Make request REQ; 0 or -errno. BUF is not needed for zeroes. */
static int write_range(const IoRequest *req, const IoOptions *opts, const uint8_t *buf)
{
    if (opts->on['b']) {
        return bdrv_save_vmstate(blk_bs(io.blk), buf, req->offset, (int)req->bytes);
    }
    if (opts->on['z']) {
        return blk_pwrite_zeroes(io.blk, req->offset, req->bytes, io_write_flags(opts));
    }
    if (opts->on['c']) {
        return blk_pwrite_compressed(io.blk, req->offset, req->bytes, buf);
    }
    return blk_pwrite(io.blk, req->offset, req->bytes, buf, io_write_flags(opts));
}

static bool run_write(int argc, char **argv)
{
    IoOptions opts;
    uint8_t *buf = NULL;

    if (!io_parse_options(argc, argv, "bcCfnpP:qs:uz", &opts)) {
        return false;
    }
    IoRequest req = io_request(IO_WRITE, &opts);
    if (optind != argc - 2) {
        return io_usage(argv);
    }
    if (!write_options_fit(&opts) || !parse_range(argc, argv, &req)) {
        return false;
    }
    if (req.bytes > BDRV_REQUEST_MAX_BYTES && !opts.on['n']) {
        printf("length cannot exceed %" PRId64 " without -n, given %s\n",
               BDRV_REQUEST_MAX_BYTES, argv[optind + 1]);
        return false;
    }
    if ((opts.on['b'] || opts.on['c']) && (!check_aligned(req.offset, "offset") ||
                                           !check_aligned(req.bytes, "count"))) {
        return false;
    }
    if (!opts.on['z']) {
        buf = io_buffer_new(req.bytes, opts.pattern < 0 ? PATTERN_WRITE : opts.pattern);
        if (!buf || (opts.on['s'] && !fill_from_file(buf, req.bytes, opts.arg['s']))) {
            io_buffer_free(buf);
            return false;
        }
    }
    io_request_begin(&req);
    int ret = write_range(&req, &opts, buf);
    bool ok = end_and_report(&req, "write", ret);
    io_buffer_free(buf);
    return ok;
}

static bool run_writev(int argc, char **argv)
{
    IoVector vector;
    IoOptions opts;

    if (!io_parse_options(argc, argv, "CfqP:", &opts)) {
        return false;
    }
    IoRequest req = io_request(IO_WRITE, &opts);
    if (!parse_vector(argc, argv, opts.pattern < 0 ? PATTERN_WRITE : opts.pattern, &req,
                      &vector)) {
        return false;
    }
    io_request_begin(&req);
    int ret = blk_pwritev(io.blk, req.offset, req.bytes, &vector.qiov,
                          io_write_flags(&opts));
    bool ok = end_and_report(&req, "writev", ret);
    io_vector_clear(&vector);
    return ok;
}

/* ---- discard, flush --------------------------------------------------------------- */

static bool run_discard(int argc, char **argv)
{
    IoOptions opts;

    if (!io_parse_options(argc, argv, "Cq", &opts)) {
        return false;
    }
    IoRequest req = io_request(IO_DISCARD, &opts);
    if (!parse_range(argc, argv, &req)) {
        return false;
    }
    if (req.bytes > BDRV_REQUEST_MAX_BYTES) {
        printf("length cannot exceed %" PRId64 ", given %s\n", BDRV_REQUEST_MAX_BYTES,
               argv[optind + 1]);
        return false;
    }
    io_request_begin(&req);
    int ret = blk_pdiscard(io.blk, req.offset, req.bytes);
    return end_and_report(&req, "discard", ret);
}

static bool run_flush(int argc, char **argv)
{
    IoRequest req = io_request(IO_FLUSH, NULL);

    io_request_begin(&req);
    int ret = blk_flush(io.blk);
    return end(&req, "flush", ret);
}

/* ---- table ------------------------------------------------------------------------ */

#define HELP_COMMON                                                                     \
    " -C    report in one line of numbers: bytes,requests,time,bytes/sec,requests/sec\n"  \
    " -q    no report\n"
#define HELP_FUA " -f    the data is on stable storage when the command ends (FUA)\n"

const IoCommand io_request_commands[] = {
    { "discard", "d", run_discard, 2, -1, .perm = BLK_PERM_WRITE,
      .syntax = "[-Cq] off len",
      .summary = "discards a number of bytes at a specified offset",
      .help = "'discard 512 1k' says that 1 KiB from byte 512 on is no longer needed.\n"
              HELP_COMMON },
    { "flush", "f", run_flush, .syntax = "",
      .summary = "flush all in-core file state to disk" },
    { "read", "r", run_read, 2, -1,
      .syntax = "[-abCqv] [-P pattern [-s off] [-l len]] off len",
      .summary = "reads a number of bytes at a specified offset",
      .help = "'read -v 512 1k' shows 1 KiB from byte 512 on.\n"
              " -b    read from the area for the state of the virtual machine\n"
              HELP_COMMON
              " -P    every byte must have this value\n"
              " -s    with -P: look at what is so many bytes after the beginning\n"
              " -l    with -P: look at so many bytes\n"
              " -p    does nothing\n"
              " -v    print the data\n" },
    { "readv", NULL, run_readv, 2, -1, .syntax = "[-Cqv] [-P pattern] off len [len..]",
      .summary = "reads a number of bytes at a specified offset",
      .help = "'readv -v 512 1k 1k' shows 2 KiB from byte 512 on, read by one request into\n"
              "two buffers.\n"
              HELP_COMMON
              " -P    every byte must have this value\n"
              " -v    print the data\n" },
    { "write", "w", run_write, 2, -1, .perm = BLK_PERM_WRITE,
      .syntax = "[-bcCfnquz] [-P pattern | -s source_file] off len",
      .summary = "writes a number of bytes at a specified offset",
      .help = "'write 512 1k' fills 1 KiB from byte 512 on with bytes 0xcd.\n"
              " -b    write to the area for the state of the virtual machine\n"
              " -c    write compressed data\n"
              HELP_COMMON HELP_FUA
              " -n    with -z: fail rather than write zeroes slowly\n"
              " -p    does nothing\n"
              " -P    fill with this byte\n"
              " -s    fill with what is in this file, over and over\n"
              " -u    with -z: storage may be given back\n"
              " -z    write zeroes without data\n" },
    { "writev", NULL, run_writev, 2, -1, .perm = BLK_PERM_WRITE,
      .syntax = "[-Cfq] [-P pattern] off len [len..]",
      .summary = "writes a number of bytes at a specified offset",
      .help = "'writev 512 1k 1k' fills 2 KiB from byte 512 on by one request from two\n"
              "buffers.\n"
              HELP_COMMON HELP_FUA
              " -P    fill with this byte instead of 0xcd\n" },
    { NULL },
};
