/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers, dumps, reports of what was transferred, and the counters that "stat" prints. */
#include "miniblk/osdep.h"
#include "miniblk/timer.h"
#include "tools/io.h"

/* How far a buffer is off its alignment when that is wanted. */
#define MISALIGN_BYTES 16

/* ---- buffers ---------------------------------------------------------------------- */

uint8_t *io_buffer_new(int64_t bytes, int pattern)
{
    size_t off = io.misalign ? MISALIGN_BYTES : 0;
    uint8_t *buf = qemu_try_blockalign(blk_bs(io.blk), bytes + off);

    if (!buf) {
        printf("cannot allocate a buffer of %" PRId64 " bytes\n", bytes);
        return NULL;
    }
    memset(buf, pattern, bytes + off);
    return buf + off;
}

void io_buffer_free(uint8_t *buf)
{
    if (buf) {
        qemu_vfree(buf - (io.misalign ? MISALIGN_BYTES : 0));
    }
}

void io_dump(const uint8_t *buf, int64_t offset, int64_t bytes)
{
    enum { PER_LINE = 16 };

    for (int64_t pos = 0; pos < bytes; pos += PER_LINE) {
        int n = (int)MIN(bytes - pos, (int64_t)PER_LINE);
        printf("%08" PRIx64 ":  ", offset + pos);
        for (int i = 0; i < n; i++) {
            printf("%02x ", buf[pos + i]);
        }
        putchar(' ');
        for (int i = 0; i < n; i++) {
            putchar(g_ascii_isalnum(buf[pos + i]) ? buf[pos + i] : '.');
        }
        putchar('\n');
    }
}

/* ---- sizes and times -------------------------------------------------------------- */

char *io_size_text(double bytes)
{
    static const char units[] = "KMGTPE";
    double value = bytes;
    int unit = -1;
    char *text;

    while (value >= 1024 && unit + 1 < (int)strlen(units)) {
        value /= 1024;
        unit++;
    }
    text = unit < 0 ? g_strdup_printf("%.6f", value) : g_strdup_printf("%.3f", value);
    /* A whole number has no decimals. */
    char *point = strchr(text, '.');
    if (strspn(point + 1, "0") == strlen(point + 1)) {
        *point = '\0';
    }
    char *whole = unit < 0 ? g_strdup_printf("%s bytes", text)
                           : g_strdup_printf("%s %ciB", text, units[unit]);
    g_free(text);
    return whole;
}

/* "00.12 sec", or with hours and minutes when LONG_FORM or when there are any. */
static char *time_text(int64_t ns, bool long_form)
{
    int64_t centis = ns / (NANOSECONDS_PER_SECOND / 100);
    int64_t seconds = centis / 100, minutes = seconds / 60;

    if (long_form || minutes > 0) {
        return g_strdup_printf("%" PRId64 ":%02d:%02d.%02d", minutes / 60, (int)(minutes % 60),
                               (int)(seconds % 60), (int)(centis % 100));
    }
    return g_strdup_printf("%02d.%02d sec", (int)seconds, (int)(centis % 100));
}

/* ---- requests --------------------------------------------------------------------- */

typedef struct Counters {
    uint64_t done, failed, invalid, bytes;
    int64_t total_ns;
} Counters;

static Counters counters[IO_KIND__MAX];

IoRequest io_request(IoKind kind, const IoOptions *opts)
{
    return (IoRequest){ .kind = kind, .quiet = !opts || opts->on['q'],
                        .machine = opts && opts->on['C'] };
}

void io_request_begin(IoRequest *req)
{
    req->begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

bool io_request_end(IoRequest *req, int ret)
{
    Counters *c = &counters[req->kind];

    req->end_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    if (ret < 0) {
        c->failed++;
        return false;
    }
    c->done++;
    c->bytes += req->bytes;
    c->total_ns += req->end_ns - req->begin_ns;
    return true;
}

void io_count_invalid(IoKind kind)
{
    counters[kind].invalid++;
}

void io_report(const IoRequest *req)
{
    static const char *const verbs[IO_KIND__MAX] = {
        [IO_READ] = "read", [IO_WRITE] = "wrote", [IO_DISCARD] = "discard",
    };
    int64_t ns = MAX(req->end_ns - req->begin_ns, 1);
    double seconds = (double)ns / NANOSECONDS_PER_SECOND;
    g_autofree char *time = time_text(ns, req->machine);

    if (req->quiet) {
        return;
    }
    if (req->machine) {
        printf("%" PRId64 ",1,%s,%.3f,%.3f\n", req->bytes, time, req->bytes / seconds,
               1 / seconds);
        return;
    }
    g_autofree char *size = io_size_text(req->bytes);
    g_autofree char *rate = io_size_text(req->bytes / seconds);
    printf("%s %" PRId64 "/%" PRId64 " bytes at offset %" PRId64 "\n", verbs[req->kind],
           req->bytes, req->bytes, req->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", size, time, rate, 1 / seconds);
}

/* ---- stat ------------------------------------------------------------------------- */

static bool run_stat(int argc, char **argv)
{
    static const char *const names[IO_KIND__MAX] = {
        [IO_READ] = "read", [IO_WRITE] = "write", [IO_FLUSH] = "flush",
        [IO_DISCARD] = "discard",
    };

    for (int i = 0; i < IO_KIND__MAX; i++) {
        const Counters *c = &counters[i];
        g_autofree char *size = io_size_text(c->bytes);
        g_autofree char *time = time_text(c->total_ns, false);
        printf("%s: %" PRIu64 " ops, %s, %s; %" PRIu64 " failed, %" PRIu64 " invalid\n",
               names[i], c->done, size, time, c->failed, c->invalid);
    }
    return true;
}

const IoCommand io_stat_commands[] = {
    { "stat", .run = run_stat, .without_image = true, .syntax = "",
      .summary = "prints how many requests were made, and how they ended" },
    { NULL },
};
