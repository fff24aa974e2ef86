/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands: the tables, and from a message to its reply. Main thread, big lock held. */
#ifndef QMP_DISPATCH_H
#define QMP_DISPATCH_H

#include "qmp/json.h"

/* What a client has negotiated. */
typedef struct QmpCaps {
    bool negotiated;
    bool oob;
} QmpCaps;

/*
 * Do it. ARGS is checked and converted as the table's text says, and the callee's to change.
 * The value of "return" (NULL stands for {}), or NULL with ERRP set. May poll.
 */
typedef json_t *QmpCommandFunc(json_t *args, Error **errp);

typedef struct QmpCommand {
    const char *name;
    const char *args;           /* see schema.h */
    QmpCommandFunc *func;
} QmpCommand;

/* One table per family of commands, ended by an empty entry. */
extern const QmpCommand qmp_commands_session[];
extern const QmpCommand qmp_commands_object[];
extern const QmpCommand qmp_commands_blockdev[];
extern const QmpCommand qmp_commands_query_nodes[];
extern const QmpCommand qmp_commands_export[];
extern const QmpCommand qmp_commands_job[];
extern const QmpCommand qmp_commands_block_job[];
extern const QmpCommand qmp_commands_bitmap[];

/* Check the tables' texts; once. */
void qmp_dispatch_init(void);
/* Carry out MSG for a client in state CAPS and append the reply line to OUT. */
void qmp_dispatch(const JsonMessage *msg, QmpCaps *caps, bool pretty, GString *out);
/* The greeting line. */
void qmp_write_greeting(GString *out, bool pretty);
void qmp_write_event(GString *out, const char *name, const json_t *data, bool pretty);
/* [{"name": ...}, ...] in alphabetical order. */
json_t *qmp_list_commands(void);
/* {"qemu": {...}, "package": ...} */
json_t *qmp_version(void);

#endif
