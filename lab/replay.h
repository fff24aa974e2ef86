/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replay files: one failing schedule as text, to keep, to send, to run again.
 *
 *      miniblk-lab replay file 1
 *      seed LAB1:/drain/iothread:pct:3,1200:tso:last:7f3a:0123...
 *      program ./test-drain-lab
 *      verdict deadlock
 *      message main waits for ...
 *      deviation T0 12 0 agent 1/3 flush:T1 8d33f0a1
 *      deviation T1 40 0 waiter 2/3
 *      end
 *
 * The strategy of the seed line says how the schedule was found; what is replayed is the list.
 * A deviation is thread, operation, turn (see LabChoice), kind of choice, option/options, and
 * for a choice between agents the agent and a hash of all agents' names.
 */
#ifndef LAB_REPLAY_H
#define LAB_REPLAY_H

#include "names.h"

typedef struct LabReplayFile {
    LabSeed seed;
    char *program;
    LabVerdict verdict;
    char *message;              /* first line of the failure */
    LabDeviations *list;
} LabReplayFile;

/* 0, or -errno with the reason in *PROBLEM (the caller frees it). */
int lab_replay_save(const char *filename, const LabReplayFile *file, char **problem);
/* The text of FILENAME, a regular file of at most 16 MiB; or NULL and *PROBLEM. The caller frees
 * either. */
char *lab_replay_read(const char *filename, char **problem);
/* True and the contents of *FILE (lab_replay_clear), or false and *PROBLEM. */
bool lab_replay_load(const char *filename, LabReplayFile *file, char **problem);
void lab_replay_clear(LabReplayFile *file);

#endif
