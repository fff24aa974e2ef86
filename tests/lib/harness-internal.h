/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shared by the harness's own files. */
#ifndef TESTS_LIB_HARNESS_INTERNAL_H
#define TESTS_LIB_HARNESS_INTERNAL_H

#include <glib.h>
#include <stdint.h>
#include <sys/types.h>

/* Fail the running test; the program ends. */
void t__fail(const char *fmt, ...) G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN;

/* A point in time (monotonic, us) TIMEOUT_MS from now, and the time left until it. */
int64_t t__deadline(int timeout_ms);
int t__ms_left(int64_t deadline);

/* Start ARGV in a process group of its own; it dies with the calling thread. */
pid_t t__spawn(char **argv, int out_fd, int err_fd);
/* Exit status as t_run() returns it. */
int t__status(int wait_status);
/* Wait for a child's end: its status, or -1 when it still runs after TIMEOUT_MS. */
int t__wait_pid(pid_t pid, int timeout_ms);

#endif
