/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of miniblk-io share. A command is a function and one line in a table of the
 * file it stands in; io-command.c finds it by name. Everything runs in the main thread.
 */
#ifndef TOOLS_IO_H
#define TOOLS_IO_H

#include "miniblk/block-backend.h"
#include "miniblk/error.h"
#include "miniblk/main-loop.h"
#include "miniblk/qdict.h"

/* The image that commands work on, and what was asked for on the command line. */
typedef struct IoSession {
    BlockBackend *blk;          /* NULL: none is open */
    bool image_opts;            /* names of images are option strings */
    bool misalign;              /* buffers are not aligned, to exercise bouncing */
    bool writethrough;          /* of BLK: each write is to be stable */
    bool copy_on_read;          /* of BLK */
    int aio_pending;            /* requests of aio_* in flight */
    bool quit;
} IoSession;
extern IoSession io;

/* ---- commands --------------------------------------------------------------------- */

typedef struct IoCommand {
    const char *name;
    const char *alias;          /* a short name, may be NULL */
    /* False when it failed, which it has said. ARGV[0] is the name that was typed. */
    bool (*run)(int argc, char **argv);
    int args_min, args_max;     /* words after the name; args_max -1: any number */
    bool without_image;         /* may be given while none is open */
    uint64_t perm;              /* BLK_PERM_* it needs beyond what the image was opened for */
    const char *syntax;         /* arguments */
    const char *summary;
    const char *help;           /* lines of text; NULL: the summary says it all */
} IoCommand;

/* Each ends with an entry without name. */
extern const IoCommand io_open_commands[];
extern const IoCommand io_request_commands[];
extern const IoCommand io_aio_commands[];
extern const IoCommand io_image_commands[];
extern const IoCommand io_stat_commands[];
extern const IoCommand io_debug_commands[];

/* Run one line; false when it failed. An empty one succeeds. */
bool io_run_line(const char *line);
/* Print how command ARGV[0] is used; false, so that a command can return it. */
bool io_usage(char **argv);

/* Print which breakpoints have stopped a request since the last call (io-debug.c). */
void io_tell_suspended(void);

/* ---- words of a line (io-parse.c) ------------------------------------------------- */

/* The options of a command, by letter. */
typedef struct IoOptions {
    bool on[128];
    const char *arg[128];       /* the last one given */
    int pattern;                /* -P, 0 to 255; -1 without */
} IoOptions;

/* Read options as getopt(LETTERS) would; false with a message. OPTIND is at the first word. */
bool io_parse_options(int argc, char **argv, const char *letters, IoOptions *opts);
/* A size with an optional suffix, 0 to INT64_MAX; false with a message. */
bool io_parse_size(const char *word, int64_t *bytes);

/* ---- opening (io-open.c) ---------------------------------------------------------- */

/* How to open an image. */
typedef struct IoOpen {
    int flags;                  /* BDRV_O_* */
    bool writethrough, force_share;
} IoOpen;

/* What holds unless something else is asked for. */
#define IO_OPEN_DEFAULT ((IoOpen){ .flags = BDRV_O_RDWR | BDRV_O_UNMAP })

/*
 * Take option LETTER (r s C n k i t d U, with ARG where it has one) into account; false with
 * a message when ARG is not understood.
 */
bool io_open_option(IoOpen *how, int letter, const char *arg);
/* Open NAME (may be NULL) with OPTIONS (consumed, may be NULL); false with a message. */
bool io_open_image(const char *name, QDict *options, const IoOpen *how);
/* Nothing happens when none is open. Waits for requests in flight. */
void io_close_image(void);

/* ---- buffers, reports and counters (io-report.c) ----------------------------------- */

/* Filled with PATTERN; NULL with a message. */
uint8_t *io_buffer_new(int64_t bytes, int pattern);
/* NULL is fine. */
void io_buffer_free(uint8_t *buf);
/* Print BYTES bytes of BUF, which were read from OFFSET. */
void io_dump(const uint8_t *buf, int64_t offset, int64_t bytes);
/* "1.500 KiB", newly allocated. */
char *io_size_text(double bytes);

typedef enum IoKind { IO_READ, IO_WRITE, IO_FLUSH, IO_DISCARD, IO_KIND__MAX } IoKind;

/* A request that is counted and, when it has ended, reported. */
typedef struct IoRequest {
    IoKind kind;
    int64_t offset, bytes;
    bool quiet;                 /* -q: no report */
    bool machine;               /* -C: the report is one line of numbers */
    int64_t begin_ns, end_ns;
} IoRequest;

/* KIND with the -q and -C of OPTS (may be NULL: no report). */
IoRequest io_request(IoKind kind, const IoOptions *opts);
/* Begin the clock. */
void io_request_begin(IoRequest *req);
/* Stop it and count. RET: 0 or -errno; true if it is 0. */
bool io_request_end(IoRequest *req, int ret);
/* What was not even tried. */
void io_count_invalid(IoKind kind);
/* Print what was transferred, and how fast, unless it is to be quiet. */
void io_report(const IoRequest *req);

/* ---- requests (io-request.c) ------------------------------------------------------ */

/*
 * Check LEN bytes of BUF against the pattern of OPTS, of which a message tells; true without
 * a pattern. OFFSET is what the message says.
 */
bool io_verify(const IoOptions *opts, const uint8_t *buf, int64_t offset, int64_t bytes);
/* BDRV_REQ_* that hold for all reads / all writes of the open image. */
BdrvRequestFlags io_read_flags(void);
BdrvRequestFlags io_write_flags(const IoOptions *opts);

/* Several buffers that lie one behind the other. */
typedef struct IoVector {
    uint8_t *buf;
    QEMUIOVector qiov;
} IoVector;
/* A buffer of each size in WORDS, filled with PATTERN; false with a message. */
bool io_vector_init(IoVector *vector, char **words, int n, int pattern);
void io_vector_clear(IoVector *vector);

#endif
