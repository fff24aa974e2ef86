/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What tests of the built tools share: a scratch directory, running programs, a daemon and
 * a QMP client. A step that cannot be done fails the running test with a message that says
 * what was done and what came back, so callers only check what they are about.
 *
 *     int main(int argc, char **argv)
 *     {
 *         t_init(&argc, &argv);
 *         g_test_add_func("/img/create", test_create);
 *         return t_main();
 *     }
 */
#ifndef TESTS_LIB_HARNESS_H
#define TESTS_LIB_HARNESS_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/* ---- program ---------------------------------------------------------------------- */

/*
 * g_test_init(), a scratch directory that becomes the working directory, and the built
 * tools ($MINIBLK_BUILD/tools) first in PATH, so that t_run("miniblk-img ...") finds them.
 */
void t_init(int *argc, char ***argv);
/* g_test_run(), then remove the scratch directory. */
int t_main(void);
/* The scratch directory (absolute). */
const char *t_dir(void);
/* DIR/NAME, newly allocated; NAME is printf-style. */
char *t_path(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* Whether PROGRAM is in PATH (or, with a slash, is an executable file). */
bool t_have(const char *program);
/* The same; when it is missing the running test is skipped and says so. Then return. */
bool t_need(const char *program);
/* $MINIBLK_BUILD/tools/NAME, newly allocated. */
char *t_tool(const char *name);

/* ---- running programs ------------------------------------------------------------- */

/*
 * Run a shell command (printf-style) with stdin from /dev/null. Exit status, 128 + signal
 * when one ended it; more than 300 s fail the test. *OUT (may be NULL) is a newly allocated
 * string of stdout and stderr together, in the order of writing.
 */
int t_run(char **out, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* The same with the streams apart (each may be NULL). */
int t_run2(char **out, char **err, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
/* Must exit with 0; the output, newly allocated. */
char *t_run_ok(const char *fmt, ...) G_GNUC_PRINTF(1, 2) G_GNUC_WARN_UNUSED_RESULT;

/* A file of BYTES bytes from a generator seeded with SEED (the same each time). */
void t_make_file(const char *path, gsize bytes, guint32 seed);

/* ---- a daemon --------------------------------------------------------------------- */

typedef struct TDaemon TDaemon;
typedef struct TQmp TQmp;

/*
 * Start miniblkd with ARGS (printf-style, split as a shell would; "" for none) followed by a
 * monitor on a UNIX socket, and wait until it accepts: then all of ARGS has been done
 * (--pidfile comes after that, but before the first command is answered). Call it from the
 * main thread; the daemon is killed when that thread ends.
 */
TDaemon *t_daemon_start(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
pid_t t_daemon_pid(TDaemon *d);
const char *t_daemon_socket(TDaemon *d);
/* A client connected and past negotiation, made at the first call; owned by D. */
TQmp *t_daemon_qmp(TDaemon *d);
/* Whether the process is still there. */
bool t_daemon_alive(TDaemon *d);
/* Peak resident memory so far in KiB (VmHWM). */
long t_daemon_peak_rss_kib(TDaemon *d);
/*
 * End it by QMP quit (QUIT) or SIGTERM and free D. Exit status (128 + signal); the test
 * fails when it takes more than 120 s or a sanitizer reported something. *LOG (may be NULL)
 * is what it printed.
 */
int t_daemon_stop(TDaemon *d, bool quit, char **log);
/* Stop with quit; must exit with 0. */
void t_daemon_stop_ok(TDaemon *d);
/* SIGKILL and free: for tests of crashes. */
void t_daemon_kill(TDaemon *d);

/* ---- QMP client ------------------------------------------------------------------- */

/* Connect and read the greeting; NEGOTIATE sends qmp_capabilities. */
TQmp *t_qmp_connect(const char *socket_path, bool negotiate);
/* Connect only: nothing is read or sent. */
TQmp *t_qmp_connect_raw(const char *socket_path);
void t_qmp_close(TQmp *q);
int t_qmp_fd(TQmp *q);

/*
 * Send a command given as JSON text (printf-style; single quotes for strings are fine) and
 * return its whole reply; events on the way are kept. Newly allocated.
 */
json_t *t_qmp(TQmp *q, const char *fmt, ...) G_GNUC_PRINTF(2, 3) G_GNUC_WARN_UNUSED_RESULT;
/* Must succeed: the value of "return". */
json_t *t_qmp_ok(TQmp *q, const char *fmt, ...) G_GNUC_PRINTF(2, 3)
    G_GNUC_WARN_UNUSED_RESULT;
/* Must succeed with {}. */
void t_qmp_run(TQmp *q, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Must fail with exactly DESC. */
void t_qmp_fails(TQmp *q, const char *desc, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
/*
 * The "data" of the first recorded or, within TIMEOUT_MS, arriving event NAME, which is
 * forgotten then; NULL when there is none. Newly allocated.
 */
json_t *t_qmp_event(TQmp *q, const char *name, int timeout_ms);

void t_qmp_send_raw(TQmp *q, const void *buf, gsize len);
/*
 * The next line with its CR LF, newly allocated; NULL at end of file. Nothing within
 * TIMEOUT_MS fails the test, except with 0: then NULL says "nothing there".
 */
char *t_qmp_read_line(TQmp *q, int timeout_ms);
/* Whether the peer closes within TIMEOUT_MS; what comes before is thrown away. */
bool t_qmp_wait_eof(TQmp *q, int timeout_ms);

#endif
