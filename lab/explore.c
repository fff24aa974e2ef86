/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The phases of a run. Schedules are numbered through them:
 *
 *      0               the default policy
 *      1 ... 7         random: how large is a schedule of this case? (portfolio, pct, few)
 *      then            every level of deviations that the budget allows (portfolio, bound)
 *      then            the portfolio, or the one strategy asked for
 *
 * A proof has levels only.
 */
#include "miniblk/osdep.h"
#include "lab/explore.h"

enum { PROBES = 7, TIMED_LEVEL_MAX = 5000 };

typedef struct Exploration {
    const LabConfig *config;
    LabPhase phase;
    LabTally tally;
    LabLevels *levels;
    LabResult *result;
    LabHorizon horizon;
    uint64_t next;              /* schedule number */
} Exploration;

/* True: go on. */
static bool run_phase(Exploration *e, uint64_t count,
                      void (*plan)(const void *opaque, uint64_t number, LabPlan *plan))
{
    e->phase.first = e->next;
    e->phase.end = e->next + count;
    e->phase.plan = plan;
    if (lab_phase_run(&e->phase, &e->tally, e->result->failure)) {
        e->result->skipped = e->tally.skipped;
        e->result->failed = !e->tally.skipped;
        return false;
    }
    e->next += count;
    return !e->tally.out_of_time;
}

static void plan_level(const void *opaque, uint64_t number, LabPlan *plan)
{
    const Exploration *e = opaque;

    lab_levels_plan(e->levels, number - e->phase.first, plan);
}

static void plan_probe(const void *opaque, uint64_t number, LabPlan *plan)
{
    const Exploration *e = opaque;
    const LabConfig config = { .strategy = LAB_STRATEGY_RANDOM, .seed = e->config->seed };

    lab_portfolio_plan(&config, (LabHorizon) { 0 }, number, plan);
}

static void plan_portfolio(const void *opaque, uint64_t number, LabPlan *plan)
{
    const Exploration *e = opaque;

    lab_portfolio_plan(e->config, e->horizon, number, plan);
}

/* The present level, or its first COUNT schedules. */
static bool run_level(Exploration *e, uint64_t count)
{
    uint64_t all = lab_levels_count(e->levels);
    uint64_t done = e->tally.done;
    bool go_on;

    e->phase.children = lab_levels_children(e->levels);
    go_on = run_phase(e, MIN(count, all), plan_level);
    e->phase.children = NULL;
    if (go_on && count >= all) {
        if (!e->tally.given_up) {
            e->result->complete = lab_levels_depth(e->levels);
        }
        return true;
    }
    e->result->level_done = e->tally.done - done;
    e->result->level_count = all;
    return false;
}

/* True: there is a level to run, and it is the present one. */
static bool next_level(Exploration *e)
{
    uint64_t count = lab_levels_next_count(e->levels);

    if (count == 0) {
        e->result->exhausted = !e->tally.given_up;
        return false;
    }
    if (!lab_levels_next(e->levels)) {
        e->result->level_count = count;
        return false;
    }
    /* The portfolio goes on when its levels are done. */
    if (e->config->mode == LAB_MODE_PROVE || e->config->strategy == LAB_STRATEGY_BOUND) {
        e->tally.planned = MIN(e->config->schedules, e->next + count);
    }
    return true;
}

static void prove(Exploration *e)
{
    while (lab_levels_depth(e->levels) < e->config->bound && next_level(e)) {
        if (!run_level(e, e->config->schedules - e->next)) {
            return;
        }
    }
}

/* Half of the schedules that are left; of a time, nobody knows how many these are. */
static uint64_t level_budget(const Exploration *e)
{
    uint64_t budget = (e->config->schedules - e->next) / 2;

    return e->config->time_ns ? MIN(budget, TIMED_LEVEL_MAX) : budget;
}

/* Levels as far as they leave half of the budget to chance. */
static bool run_affordable_levels(Exploration *e)
{
    const LabConfig *config = e->config;
    bool alone = config->strategy == LAB_STRATEGY_BOUND;

    for (;;) {
        uint64_t left = config->schedules - e->next;

        if (!alone && lab_levels_next_count(e->levels) > level_budget(e)) {
            return true;
        }
        if (left == 0 || !next_level(e)) {
            return false;
        }
        if (!run_level(e, left)) {
            return false;
        }
    }
}

/* True: go on, the horizon is known if it is needed. */
static bool run_probes(Exploration *e)
{
    const LabConfig *config = e->config;

    switch (config->strategy) {
    case LAB_STRATEGY_PORTFOLIO:
    case LAB_STRATEGY_PCT:
    case LAB_STRATEGY_FEW:
        if (!run_phase(e, MIN(PROBES, config->schedules - e->next), plan_probe)) {
            return false;
        }
        e->horizon = (LabHorizon) { e->tally.choices_max, e->tally.alternatives_max };
        return true;
    default:
        return true;
    }
}

static void search(Exploration *e)
{
    const LabConfig *config = e->config;
    bool levels = config->strategy == LAB_STRATEGY_PORTFOLIO
                  || config->strategy == LAB_STRATEGY_BOUND;

    e->tally.planned = config->schedules;
    if (!run_probes(e)) {
        return;
    }
    if (levels && !run_affordable_levels(e)) {
        return;
    }
    e->tally.planned = config->schedules;
    run_phase(e, config->schedules - e->next, plan_portfolio);
}

void lab_explore(const LabConfig *config, unsigned number, LabResult *result)
{
    LabFailure *failure = result->failure;
    int64_t now_ns = g_get_monotonic_time() * 1000;
    Exploration e = {
        .config = config,
        .phase = { .config = config, .case_number = number },
        .levels = lab_levels_new(),
        .result = result,
        .tally = {
            .traces = lab_set_new(config->schedules),
            .pairs = lab_set_new(1 << 16),
            .started_ns = now_ns,
            .deadline_ns = config->time_ns ? now_ns + config->time_ns : INT64_MAX,
        },
    };

    e.phase.opaque = &e;
    *result = (LabResult) { .complete = -1, .failure = failure };
    if (run_level(&e, 1)) {
        if (config->mode == LAB_MODE_PROVE) {
            prove(&e);
        } else {
            search(&e);
        }
    }
    if (config->progress) {
        dprintf(STDERR_FILENO, "\r\033[K");
    }
    result->unfinished = config->mode == LAB_MODE_PROVE && !result->failed
                         && !result->skipped && !result->exhausted
                         && result->complete < (int)config->bound;
    result->out_of_time = e.tally.out_of_time;
    result->schedules = e.tally.done;
    result->given_up = e.tally.given_up;
    result->cut_short = e.tally.cut_short;
    result->steps = e.tally.steps;
    result->distinct = e.tally.traces->count;
    result->distinct_at_least = e.tally.traces->full;
    result->pairs = e.tally.pairs->count;
    result->seconds = (g_get_monotonic_time() * 1000 - now_ns) / 1e9;
    lab_set_free(e.tally.traces);
    lab_set_free(e.tally.pairs);
    lab_levels_free(e.levels);
}

void lab_execute_in_time(const LabConfig *config, unsigned number,
                         const LabStrategy *strategy, const LabLimits *limits,
                         LabOutcome *outcome)
{
    alarm(config->hang_ns / 1000000000 + 1);
    lab_execute(number, strategy, limits, outcome);
    alarm(0);
}
