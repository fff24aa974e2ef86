/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The explorer: many schedules of one case, in several processes, until one fails.
 *
 *      config          what to do: the environment                     config.c
 *      number -> plan  schedules are numbered, and a number alone      portfolio.c, levels.c
 *                      says what its schedule is
 *      workers         processes that run ranges of numbers            worker.c
 *      explore         the phases of a run                             explore.c
 *      shrink          the failing schedule made small                 shrink.c
 *      report          in words                                        report.h
 */
#ifndef LAB_EXPLORE_H
#define LAB_EXPLORE_H

#include "coverage.h"
#include "names.h"
#include "strategy.h"

/* ---- config.c -------------------------------------------------------------------------- */

enum { LAB_JOBS_MAX = 256, LAB_BOUND_MAX = 4 };

typedef enum LabMode { LAB_MODE_RUN, LAB_MODE_PROVE, LAB_MODE_REPLAY, LAB_MODE_SHRINK,
                       LAB_MODE_LIST } LabMode;

typedef enum LabTimelineKind { LAB_TIMELINE_SHORT, LAB_TIMELINE_WHOLE, LAB_TIMELINE_NONE }
    LabTimelineKind;

typedef enum LabPictureKind { LAB_PICTURE_SVG, LAB_PICTURE_HTML, LAB_PICTURE_TRACE,
                              LAB_PICTURES } LabPictureKind;

typedef struct LabConfig {
    LabMode mode;
    uint64_t schedules;         /* of each case */
    unsigned jobs;              /* processes, >= 1 */
    uint64_t seed;
    LabStrategyKind strategy;
    unsigned depth;             /* of the strategy; 0: several depths */
    LabLimits limits;
    int64_t time_ns;            /* of each case; 0: no limit */
    unsigned bound;             /* LAB_MODE_PROVE: deviations, <= LAB_BOUND_MAX */
    unsigned check_every;       /* one schedule in this many runs twice; 0: none */
    int64_t hang_ns;            /* a process without a finished schedule is given up after */
    bool progress;              /* a line on stderr */
    bool shrink;                /* make a failing schedule small before it is reported */
    unsigned times;             /* LAB_MODE_REPLAY: how often */
    char **paths;               /* -p: which cases, and all below them; none: all */
    char **skipped;             /* -s: but not these */
    LabTimelineKind timeline;   /* of a failing schedule */
    const char *pictures[LAB_PICTURES];         /* LAB_MODE_REPLAY: file names */
    const char *directory;      /* where replay files go */
    const char *file;           /* LAB_MODE_REPLAY, LAB_MODE_SHRINK */
    const char *line;           /* LAB_MODE_RUN: only the schedule of this seed line */
    const char *program;        /* for replay files */
} LabConfig;

/*
 * From the environment, and GTest's options -p, -s and -l from the command line ARGV (NULL
 * after the last). False: *PROBLEM says what is wrong (the caller frees it).
 */
bool lab_config_read(LabConfig *config, char **argv, char **problem);
void lab_config_clear(LabConfig *config);
/* Whether CONFIG wants the case PATH. */
bool lab_config_wants(const LabConfig *config, const char *path);

/* ---- portfolio.c ----------------------------------------------------------------------- */

/* How large a usual schedule of the case is. */
typedef struct LabHorizon {
    uint64_t choices, alternatives;
} LabHorizon;

/* Schedule NUMBER of a run of random schedules. */
void lab_portfolio_plan(const LabConfig *config, LabHorizon horizon, uint64_t number,
                        LabPlan *plan);

/* ---- levels.c -------------------------------------------------------------------------- */

/*
 * All schedules with d deviations from the default policy, numbered, for d = 0, 1, 2... The
 * numbering of level d + 1 needs what all schedules of level d have said about themselves.
 */
typedef struct LabLevels LabLevels;

/* Level 0: one schedule without deviations. */
LabLevels *lab_levels_new(void);
void lab_levels_free(LabLevels *levels);
/* The present level, and its schedules. */
unsigned lab_levels_depth(const LabLevels *levels);
uint64_t lab_levels_count(const LabLevels *levels);
void lab_levels_plan(const LabLevels *levels, uint64_t number, LabPlan *plan);
/* Shared by processes: where schedule NUMBER says how many alternatives it offered after its
 * last deviation. */
uint32_t *lab_levels_children(LabLevels *levels);
/* How many schedules the next level has, once this one has run. */
uint64_t lab_levels_next_count(const LabLevels *levels);
/* Go to the next level. False: there is no memory to number it. */
bool lab_levels_next(LabLevels *levels);

/* ---- worker.c -------------------------------------------------------------------------- */

/* A schedule that failed. */
typedef struct LabFailure {
    uint64_t number;
    LabPlan plan;
    LabOutcome outcome;
    LabDeviations deviations;
} LabFailure;

/* What a run of one case has come to so far. */
typedef struct LabTally {
    LabSet *traces, *pairs;
    uint64_t done, steps;
    uint64_t choices_max, alternatives_max;
    uint64_t planned;           /* for the progress line */
    int64_t started_ns, deadline_ns;    /* INT64_MAX: none */
    bool skipped;               /* FAILURE holds the reason */
    uint64_t given_up;          /* schedules that the case skipped (not the first one), or that
                                   were cut short: nothing is complete then */
    uint64_t cut_short;         /* of these, how many passed the step bound */
    bool out_of_time;
} LabTally;

/* Some schedules of one case. */
typedef struct LabPhase {
    const LabConfig *config;
    unsigned case_number;
    uint64_t first, end;        /* schedule numbers */
    void (*plan)(const void *opaque, uint64_t number, LabPlan *plan);
    const void *opaque;
    uint32_t *children;         /* [end - first] of the levels; NULL: not wanted */
    const LabOutcome *wanted;   /* only such failures count; NULL: all */
} LabPhase;

/*
 * Run all schedules of PHASE, or those up to the failing one of the lowest number, which goes
 * to *FAILURE: the result does not depend on the number of processes. True: one failed, or
 * the case skips itself.
 */
bool lab_phase_run(const LabPhase *phase, LabTally *tally, LabFailure *failure);

/* The outcome of a schedule whose process has ended with STATUS of waitpid(). */
void lab_process_ended(int status, LabOutcome *outcome);

/* Whether B is the same kind of failure as A: verdict, and message but for its numbers. */
bool lab_same_failure(const LabOutcome *a, const LabOutcome *b);

/* ---- explore.c ------------------------------------------------------------------------- */

typedef struct LabResult {
    bool failed, skipped;
    bool out_of_time;
    bool unfinished;            /* a proof that did not come to its bound */
    bool exhausted;             /* there are no other schedules than these */
    uint64_t schedules, steps, distinct, pairs;
    uint64_t given_up;          /* of SCHEDULES: the case called g_test_skip(), or what is out
                                   of the lab's reach, or it was cut short. Nothing is complete
                                   then; if it was all of them, nothing has been tried */
    uint64_t cut_short;         /* of GIVEN_UP: they passed the step bound */
    double seconds;
    bool distinct_at_least;     /* more than could be remembered */
    int complete;               /* all schedules with up to so many deviations; -1: none */
    uint64_t level_done, level_count;   /* of the level after it, when it was begun */
    LabFailure *failure;        /* of the caller */
} LabResult;

/* Explore case NUMBER as CONFIG says (run or prove). RESULT->failure must be set. */
void lab_explore(const LabConfig *config, unsigned number, LabResult *result);

/* lab_execute(); a schedule that takes more real time than it may ends this process (SIGALRM). */
void lab_execute_in_time(const LabConfig *config, unsigned number,
                         const LabStrategy *strategy, const LabLimits *limits,
                         LabOutcome *outcome);

/* ---- shrink.c -------------------------------------------------------------------------- */

typedef struct LabShrunk {
    bool reproduced;            /* the list alone gives the failure again */
    unsigned complete;          /* no schedule with fewer deviations than this fails so */
    uint64_t schedules;         /* that it took */
} LabShrunk;

/*
 * Make *LIST, deviations of case NUMBER that end in WANTED, as short as it can be with about
 * BUDGET schedules, in TIME_NS of real time (0: no limit). In this process.
 */
void lab_shrink(const LabConfig *config, unsigned number, const LabOutcome *wanted,
                uint64_t budget, int64_t time_ns, LabDeviations *list, LabShrunk *shrunk);

#endif
