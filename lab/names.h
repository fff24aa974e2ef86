/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names of plans, agents and deviations as they stand in seed lines and replay files.
 */
#ifndef LAB_NAMES_H
#define LAB_NAMES_H

#include "strategy.h"

enum { LAB_AGENT_NAME_MAX = 32 };

/* "T1", "flush:T1", "disk:T1.5", "clock" into BUFFER; returns it. */
const char *lab_agent_format(LabAgent agent, char buffer[static LAB_AGENT_NAME_MAX]);
/* False: TEXT is no such name. */
bool lab_agent_parse(const char *text, LabAgent *agent);

/*
 * TEXT on one line, control characters and backslashes as in C; and back, NULL if TEXT ends in the
 * midst of one. For what is anything and stands in a line: names of cases and programs. The
 * caller frees the result.
 */
char *lab_quote(const char *text);
char *lab_unquote(const char *text);

/* What a seed line says. */
typedef struct LabSeed {
    char *path;                 /* of the test case */
    LabPlan plan;
    LabLimits limits;           /* tso, clock, spurious, and of the disk */
    char *build_id;
} LabSeed;

/*
 * LAB1:test:strategy:d:tso:clock:seed:build-id
 *
 *      d       depth; with the horizon of strategies that need one: 3,1200
 *      tso     tso | sc
 *      clock   last | agent, then +spurious, +faults, +torn, +sector=... as they apply
 *      seed    hexadecimal; for "bound" the skips, decimal: 12.40; "-" when there are none
 *
 * The caller frees the result.
 */
char *lab_seed_format(const LabSeed *seed);
/* NULL and the contents of *SEED (lab_seed_clear), or what is wrong with LINE. */
const char *lab_seed_parse(const char *line, LabSeed *seed);
void lab_seed_clear(LabSeed *seed);

/* "512", or "512/4096": logical and physical sectors. False: not powers of two in order. */
bool lab_sectors_parse(const char *text, LabLimits *limits);

/* Of the running program, in hexadecimal, at most 40 characters; "unknown". Static. */
const char *lab_build_id(void);

#endif
