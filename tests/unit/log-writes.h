/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A reader of logs in the format of dm-log-writes, by its documentation: it shares nothing
 * with the filter that writes them.
 */
#ifndef LOG_WRITES_H
#define LOG_WRITES_H

#include "miniblk/osdep.h"

enum { LOG_FLUSH = 1, LOG_FUA = 2, LOG_DISCARD = 4, LOG_MARK = 8 };

typedef struct LogEntry {
    uint64_t offset, bytes, flags;
    const uint8_t *data;        /* NULL: there is none */
    uint64_t end;               /* of the entry in the log */
} LogEntry;

typedef struct Log {
    char *text;
    gsize len;
    uint64_t nr_entries, sector;
    GArray *entries;            /* LogEntry */
} Log;

static inline uint64_t log_number(const char *p, int bytes)
{
    uint64_t n = 0;
    while (bytes--) {
        n = n << 8 | (uint8_t)p[bytes];
    }
    return n;
}

static inline Log log_read(const char *path)
{
    Log log = { .entries = g_array_new(false, false, sizeof(LogEntry)) };

    g_assert_true(g_file_get_contents(path, &log.text, &log.len, NULL));
    g_assert_cmphex(log_number(log.text, 8), ==, 0x6a736677736872);
    g_assert_cmpuint(log_number(log.text + 8, 8), ==, 1);
    log.nr_entries = log_number(log.text + 16, 8);
    log.sector = log_number(log.text + 24, 4);
    for (uint64_t i = 0, at = log.sector; i < log.nr_entries; i++) {
        g_assert_cmpuint(at + log.sector, <=, log.len);
        const char *p = log.text + at;
        LogEntry e = { .offset = log_number(p, 8) * log.sector,
                       .bytes = log_number(p + 8, 8) * log.sector,
                       .flags = log_number(p + 16, 8) };
        at += log.sector;
        g_assert_cmpuint(log_number(p + 24, 8), ==, 0);
        for (uint64_t j = 32; j < log.sector; j++) {
            g_assert_cmpint(p[j], ==, 0);
        }
        if (!(e.flags & (LOG_FLUSH | LOG_DISCARD))) {
            e.data = (const uint8_t *)log.text + at;
            at += e.bytes;
            g_assert_cmpuint(at, <=, log.len);
        }
        e.end = at;
        g_array_append_val(log.entries, e);
    }
    return log;
}

static inline void log_free(Log *log)
{
    g_array_unref(log->entries);
    g_free(log->text);
}

#endif
