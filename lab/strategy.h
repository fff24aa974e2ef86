/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Strategies: who takes the next step.
 *
 * A plan says everything about one schedule, so that it can be run again; a chooser carries it
 * out and writes down where it left the default policy. All of it is independent of addresses
 * and of what ran before.
 */
#ifndef LAB_STRATEGY_H
#define LAB_STRATEGY_H

#include "lab.h"
#include "map.h"
#include "rng.h"

typedef enum LabStrategyKind {
    LAB_STRATEGY_PORTFOLIO,     /* a mixture of the others; never in a plan */
    LAB_STRATEGY_RANDOM,        /* leaves the default policy once in 2^DEPTH choices */
    LAB_STRATEGY_PCT,           /* random priorities that change at DEPTH - 1 places */
    LAB_STRATEGY_POS,           /* a random priority for every operation */
    LAB_STRATEGY_FEW,           /* DEPTH deviations at random places */
    LAB_STRATEGY_BOUND,         /* DEPTH deviations, at the places of SKIP */
    LAB_STRATEGY_REPLAY,        /* the deviations of a list */
    LAB_STRATEGIES
} LabStrategyKind;

enum {
    LAB_DEPTH_MAX = 16,
    LAB_DEVIATIONS_MAX = 1 << 16,
};

typedef struct LabPlan {
    LabStrategyKind kind;
    unsigned depth;             /* <= LAB_DEPTH_MAX */
    uint64_t horizon;           /* PCT: choices of a usual schedule; FEW: its alternatives */
    uint64_t seed;
    /* BOUND: how many alternatives are passed by before each deviation. Every choice of n
     * options offers n - 1 alternatives; they are counted from the last deviation. */
    uint64_t skip[LAB_DEPTH_MAX];
} LabPlan;

/* A decision other than the default one, by the stable name of its choice. */
typedef struct LabDeviation {
    uint32_t thread, op, turn;
    LabChoiceKind kind;
    uint32_t option, n;
    uint32_t set;               /* a hash of the names of all agents of the choice, or 0 */
    LabAgent agent;             /* of the option, for LAB_CHOICE_AGENT */
} LabDeviation;

typedef struct LabDeviations {
    uint32_t count;
    bool overflow;              /* there were more */
    LabDeviation items[LAB_DEVIATIONS_MAX];
} LabDeviations;

typedef struct LabChooser LabChooser;

typedef struct LabStrategyClass {
    const char *name;
    void (*begin)(LabChooser *chooser);         /* may be NULL */
    unsigned (*choose)(LabChooser *chooser, const LabChoice *choice);
    void (*step)(LabChooser *chooser, LabAgent agent, const LabOp *op); /* may be NULL */
} LabStrategyClass;

extern const LabStrategyClass lab_strategy_random, lab_strategy_pct, lab_strategy_pos,
                              lab_strategy_few, lab_strategy_bound, lab_strategy_replay;

/* An agent whose priority PCT has changed. */
typedef struct LabPctChange {
    LabAgent agent;
    uint64_t priority;
} LabPctChange;

enum { LAB_PCT_CHANGES_MAX = 64 };

/* At choice AT the agent about to step falls to PRIORITY. */
typedef struct LabPctPlace {
    uint64_t at, priority;
} LabPctPlace;

typedef struct LabPct {
    LabPctPlace places[LAB_DEPTH_MAX];  /* [depth - 1], by time */
    unsigned next_place;
    LabPctChange changes[LAB_PCT_CHANGES_MAX];
    unsigned n_changes;
    uint64_t floor;             /* the lowest priority given so far */
} LabPct;

typedef struct LabPosAgent {
    uint64_t priority, rolled_at;
    bool stale;                 /* it has stepped: its next operation is a new one */
} LabPosAgent;

typedef struct LabPosObject {
    uint64_t written_at, touched_at;
} LabPosObject;

typedef struct LabPos {
    uint64_t now;
    uint64_t patience;          /* steps that who waits by trying again lets the others go on */
    LabMap agents, objects;
    LabPosAgent *agent;
    LabPosObject *object;
} LabPos;

typedef struct LabReplay {
    const LabDeviations *list;
    LabMap names;               /* (thread, op, turn) -> index into the list */
    bool strict;                /* the sets of options must be equal, too */
    uint64_t extra;             /* one more deviation, at this alternative; UINT64_MAX none */
    bool *used;
    uint32_t used_count;
    char divergence[512];       /* the first one in words; "" none */
} LabReplay;

typedef struct LabCoverage LabCoverage;

struct LabChooser {
    const LabStrategyClass *class;
    LabPlan plan;
    LabRng rng;
    uint64_t choices;
    uint64_t alternatives;      /* offered so far */
    uint64_t alternatives_after;        /* of those, since the last deviation */
    unsigned deviated;          /* BOUND, FEW: how many of the plan's are done */
    uint64_t target;            /* BOUND, FEW: where the next one is */
    LabPct pct;
    LabPos pos;
    LabReplay replay;
    LabDeviations *record;      /* where deviations are written down; may be NULL */
    LabCoverage *coverage;      /* of this schedule; may be NULL */
    LabStrategy strategy;       /* what the engine calls */
};

/* Not while a schedule runs. */
LabChooser *lab_chooser_new(void);
void lab_chooser_free(LabChooser *chooser);

/*
 * Make ready for one schedule of PLAN; deviations go to RECORD, which is lab_keep_alloc() or
 * shared memory. Afterwards lab_execute(..., &chooser->strategy, ...).
 */
void lab_chooser_begin(LabChooser *chooser, const LabPlan *plan, LabDeviations *record);

/* The same for a list of deviations. LIST must stay as it is until the schedule has ended. */
void lab_chooser_begin_replay(LabChooser *chooser, const LabDeviations *list, bool strict,
                              LabDeviations *record);

/* After lab_chooser_begin_replay(): deviate at alternative NUMBER of the schedule, too. */
void lab_chooser_add_deviation(LabChooser *chooser, uint64_t number);

/* True when all deviations of a BOUND plan or of a replayed list were met. */
bool lab_chooser_complete(const LabChooser *chooser);

const char *lab_strategy_name(LabStrategyKind kind);
/* False: there is no such strategy. */
bool lab_strategy_parse(const char *name, LabStrategyKind *kind);

/* ---- for strategies -------------------------------------------------------------------- */

/* A choice that is not between agents, at random. Trouble is rare. */
unsigned lab_choose_at_random(LabRng *rng, const LabChoice *choice);

static inline uint64_t lab_agent_key(LabAgent agent)
{
    return (uint64_t)agent.kind << 32 | agent.number;
}

static inline bool lab_agent_equal(LabAgent a, LabAgent b)
{
    return a.kind == b.kind && a.number == b.number;
}

/* A hash of the names of the agents of CHOICE, in their order; 0 when it has none. */
uint32_t lab_choice_set(const LabChoice *choice);

/* For a breakpoint: replay takes deviation NUMBER (from 1) of the list now. */
void lab_deviation(unsigned number);

#endif
