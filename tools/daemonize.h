/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running in the background, and the file that says where. */
#ifndef TOOLS_DAEMONIZE_H
#define TOOLS_DAEMONIZE_H

#include <stdbool.h>
#include "miniblk/error.h"

/*
 * Continue in a child in a session of its own; the parent stays until the child calls
 * daemonize_ready() (exit status 0) or ends (1). Before any thread is started.
 */
void daemonize_begin(void);
/* Let go of the parent, the terminal and the working directory. */
void daemonize_ready(void);

/*
 * Write our process ID to PATH, which stays locked while we run. False with ERRP set,
 * also when another process holds the lock.
 */
bool pidfile_create(const char *path, Error **errp);
/* Remove what pidfile_create() made, if anything. */
void pidfile_remove(void);

#endif
