/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The monitor, for programs: character devices, monitors on them, and the commands, which
 * command-line options share. Main thread, big lock held, unless said otherwise.
 */
#ifndef QMP_QMP_H
#define QMP_QMP_H

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include "miniblk/error.h"
#include "miniblk/qdict.h"

/* Before anything else here, and before threads are started; after qemu_init_main_loop(). */
void qmp_init(void);
/*
 * Close all monitors (what was answered is still sent to clients that read it within a
 * second) and character devices. Nothing of this header may be used afterwards.
 */
void qmp_cleanup(void);

/* Set by the quit command or qmp_request_quit(); the program's main loop looks at it. */
bool qmp_quit_requested(void);
void qmp_request_quit(void);

/*
 * Carry out the command-line option --NAME ARG, where ARG is key=value,... or a JSON object,
 * NAME one of blockdev, chardev, export, monitor, nbd-server, object.
 */
bool qmp_command_line_option(const char *name, const char *arg, Error **errp);
/* The text that --NAME ARG asks for; newly allocated; NULL when it does not ask for help. */
char *qmp_command_line_help(const char *name, const char *arg);

/* ---- commands; ARGS as their schema has it, not consumed ---------------------------- */

/* {backend, id, ...}, all strings */
bool chardev_add(QDict *args, Error **errp);
/* {chardev, mode, pretty} */
bool monitor_add(QDict *args, Error **errp);
bool qmp_blockdev_add(QDict *args, Error **errp);
bool qmp_object_add(QDict *args, Error **errp);
/* Append the types of object-add and their properties, for people. */
void qmp_object_help(GString *out);
bool qmp_block_export_add(QDict *args, Error **errp);
bool qmp_nbd_server_start(QDict *args, Error **errp);

/* Make events of what happens to jobs / at write thresholds, or stop doing so. */
void qmp_listen_to_jobs(bool listen);
void qmp_listen_to_write_thresholds(bool listen);
/* Tell every negotiated monitor; DATA is consumed. An event may be lost, see monitor.c. */
void qmp_send_event(const char *name, json_t *data);

#endif
