/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A blocking QMP client: one command, one answer, with a deadline. */
#ifndef TESTS_LOAD_DEMO_QMP_H
#define TESTS_LOAD_DEMO_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

typedef struct DemoQmp {
    int fd;
    GByteArray *input;
    unsigned next_id;
    bool dead;                  /* the daemon closed the connection or does not answer */
} DemoQmp;

/* Connect to the unix socket PATH, retrying for up to 10 s, and negotiate. */
bool demo_qmp_open(DemoQmp *qmp, const char *path);
void demo_qmp_close(DemoQmp *qmp);
/*
 * Send COMMAND with ARGUMENTS (a reference is stolen; may be NULL) and wait for its answer;
 * events are skipped. LATENCY_US (may be NULL): from sending to the answer. The "return"
 * value (a new reference), or NULL after printing why.
 */
json_t *demo_qmp_command(DemoQmp *qmp, const char *command, json_t *arguments,
                         uint64_t *latency_us);

#endif
