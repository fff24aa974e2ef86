/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver of scripts/demo: loads two exported nodes from client processes and moves the
 * nodes between the IOThreads and the main loop meanwhile.
 *
 *   demo-driver.c   command line, the schedule of moves and drained sections
 *   demo-clients.c  the client processes and their output
 *   demo-report.c   the live table and the summary
 *   demo-qmp.c      the monitor
 */
#ifndef TESTS_LOAD_DEMO_H
#define TESTS_LOAD_DEMO_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <glib.h>
#include "latency.h"

#define DEMO_NODES 2
#define DEMO_THREADS 3                  /* io0, io1, the main loop */

typedef struct Demo Demo;

/* An exported node and how it fared. */
typedef struct DemoNode {
    const char *name;
    unsigned first_thread;              /* index of the thread it began in */
    unsigned thread;                    /* the one it is in now */
    int64_t residence_us[DEMO_THREADS]; /* time spent in each since the last table */
    int64_t since_us;                   /* in its thread since */
    unsigned moves;
    uint64_t table_requests;            /* answered since the last table */
} DemoNode;

typedef struct DemoClient {
    DemoNode *node;
    unsigned id;
    pid_t pid;                          /* 0: has ended */
    int output;                         /* its standard output; -1 when closed */
    GByteArray *input;
    char *state_file, *log_file, *name, *slice;
    bool failed;
    bool killed;                        /* by us, on purpose */
    bool ready;                         /* has sent something, so it listens to signals */
    bool finished;                      /* has sent its totals */
} DemoClient;

typedef struct DemoMove {
    unsigned node, thread;              /* moved to THREAD */
    int64_t begin_us, end_us;           /* of the command, CLOCK_MONOTONIC */
    int64_t control_us;                 /* a moment near it, when nothing happened */
} DemoMove;

typedef struct DemoTotals {
    uint64_t requests, bytes, checked_blocks, flushes;
    uint64_t client_errors, command_errors;
    uint64_t io_errors, verify_errors, connect_errors;  /* of clients that were not killed */
    uint64_t connects, abrupt, kills, drains;
} DemoTotals;

struct Demo {
    /* from the command line */
    char *qmp_path, *nbd_path, *load_program, *blocks, *reference, *dir, *summary_file;
    gint clients_per_node, moves_wanted, depth;
    gdouble seconds;
    gint64 seed;
    gboolean quit;

    DemoNode nodes[DEMO_NODES];
    DemoClient *clients;
    unsigned client_count;
    GArray *moves;                      /* of DemoMove */
    Histogram command_us, drain_us, stall_us, control_us;
    DemoTotals totals;
    unsigned moves_into[DEMO_THREADS];
    uint64_t thread_latency_us_max[DEMO_THREADS];
    int64_t begin_us, last_table_us;
    bool terminal;
    unsigned table_lines;
};

extern const char *const demo_thread_name[DEMO_THREADS];

/* ---- demo-clients.c --------------------------------------------------------------- */

void demo_clients_init(Demo *demo);
bool demo_client_start(Demo *demo, DemoClient *client);
/* Read what the clients say until UNTIL_US; returns early when all have ended. */
void demo_clients_listen(Demo *demo, int64_t until_us);
/* End one without warning and start it again with the same state. */
bool demo_client_kill_and_restart(Demo *demo, DemoClient *client);
/* Whether all that run would understand demo_clients_stop(). */
bool demo_clients_ready(const Demo *demo);
/* Ask all to come to an end: they read their blocks back, print totals and exit. */
void demo_clients_stop(Demo *demo);
unsigned demo_clients_running(const Demo *demo);
void demo_clients_end(Demo *demo);

/* ---- demo-report.c ---------------------------------------------------------------- */

/* Account the time since the node's last move to the thread it is in. */
void demo_note_residence(DemoNode *node, int64_t now_us);
/* A request to NODE that ended at END_US took LATENCY_US. */
void demo_note_latency(Demo *demo, const DemoNode *node, int64_t end_us,
                       uint64_t latency_us);
void demo_table(Demo *demo, int64_t now_us);
/* Find the stalls in the clients' logs, print the summary, write the file. True: all good. */
bool demo_summary(Demo *demo);

#endif
