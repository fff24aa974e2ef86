/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all strategies share: the way from the engine's calls to the class, the record of
 * deviations, the counts by which schedules are enumerated.
 */
#include "miniblk/osdep.h"
#include "lab/coverage.h"
#include "lab/strategy.h"
#include "lab/world.h"

static const struct {
    const char *name;
    const LabStrategyClass *class;
} strategies[LAB_STRATEGIES] = {
    [LAB_STRATEGY_PORTFOLIO] = { "portfolio", NULL },
    [LAB_STRATEGY_RANDOM] = { "random", &lab_strategy_random },
    [LAB_STRATEGY_PCT] = { "pct", &lab_strategy_pct },
    [LAB_STRATEGY_POS] = { "pos", &lab_strategy_pos },
    [LAB_STRATEGY_FEW] = { "few", &lab_strategy_few },
    [LAB_STRATEGY_BOUND] = { "bound", &lab_strategy_bound },
    [LAB_STRATEGY_REPLAY] = { "replay", &lab_strategy_replay },
};

const char *lab_strategy_name(LabStrategyKind kind)
{
    return strategies[kind].name;
}

bool lab_strategy_parse(const char *name, LabStrategyKind *kind)
{
    for (unsigned i = 0; i < LAB_STRATEGIES; i++) {
        if (strcmp(strategies[i].name, name) == 0) {
            *kind = i;
            return true;
        }
    }
    return false;
}

uint32_t lab_choice_set(const LabChoice *choice)
{
    uint64_t hash = choice->n;

    if (!choice->agents) {
        return 0;
    }
    for (unsigned i = 0; i < choice->n; i++) {
        hash = lab_mix(hash, lab_agent_key(choice->agents[i]));
    }
    return hash >> 32;
}

unsigned lab_choose_at_random(LabRng *rng, const LabChoice *choice)
{
    enum { TROUBLE_ONCE_IN = 16 };

    if ((choice->kind == LAB_CHOICE_SPURIOUS || choice->kind == LAB_CHOICE_FAULT)
        && !lab_rng_once_in(rng, TROUBLE_ONCE_IN)) {
        return 0;
    }
    return lab_rng_below(rng, choice->n);
}

static void record_deviation(LabDeviations *record, const LabChoice *choice, unsigned option)
{
    if (record->count == LAB_DEVIATIONS_MAX) {
        record->overflow = true;
        return;
    }
    record->items[record->count++] = (LabDeviation) {
        .thread = choice->thread, .op = choice->op, .turn = choice->turn,
        .kind = choice->kind, .option = option, .n = choice->n,
        .set = lab_choice_set(choice),
        .agent = choice->agents ? choice->agents[option] : (LabAgent) { 0 },
    };
}

static unsigned choose(void *opaque, const LabChoice *choice)
{
    LabChooser *c = opaque;
    unsigned option = c->class->choose(c, choice);

    assert(option < choice->n);
    c->choices++;
    c->alternatives += choice->n - 1;
    c->alternatives_after += choice->n - 1;
    if (option != 0) {
        c->alternatives_after = 0;
        if (c->record) {
            record_deviation(c->record, choice, option);
        }
    }
    return option;
}

static void step(void *opaque, LabAgent agent, const LabOp *op)
{
    LabChooser *c = opaque;

    if (c->class->step) {
        c->class->step(c, agent, op);
    }
    if (c->coverage) {
        lab_coverage_step(c->coverage, agent, op);
    }
}

enum { AGENTS_MAX = 4096, OBJECTS_MAX = 16384 };

LabChooser *lab_chooser_new(void)
{
    LabChooser *c = lab_keep_alloc(sizeof(*c));

    lab_map_init(&c->pos.agents, AGENTS_MAX);
    lab_map_init(&c->pos.objects, OBJECTS_MAX);
    c->pos.agent = g_new0(LabPosAgent, AGENTS_MAX);
    c->pos.object = g_new0(LabPosObject, OBJECTS_MAX);
    lab_map_init(&c->replay.names, LAB_DEVIATIONS_MAX);
    c->replay.used = g_new0(bool, LAB_DEVIATIONS_MAX);
    return c;
}

void lab_chooser_free(LabChooser *c)
{
    lab_map_destroy(&c->pos.agents);
    lab_map_destroy(&c->pos.objects);
    g_free(c->pos.agent);
    g_free(c->pos.object);
    lab_map_destroy(&c->replay.names);
    g_free(c->replay.used);
    lab_keep_free(c);
}

void lab_chooser_begin(LabChooser *c, const LabPlan *plan, LabDeviations *record)
{
    assert(plan->kind < LAB_STRATEGIES && strategies[plan->kind].class);
    assert(plan->depth <= LAB_DEPTH_MAX);
    c->class = strategies[plan->kind].class;
    c->plan = *plan;
    c->rng = (LabRng) { plan->seed };
    c->choices = c->alternatives = c->alternatives_after = 0;
    c->deviated = 0;
    c->record = record;
    if (record) {
        record->count = 0;
        record->overflow = false;
    }
    if (c->class->begin) {
        c->class->begin(c);
    }
    c->strategy = (LabStrategy) {
        .choose = choose,
        .step = c->class->step || c->coverage ? step : NULL,
        .opaque = c,
    };
}

bool lab_chooser_complete(const LabChooser *c)
{
    switch (c->plan.kind) {
    case LAB_STRATEGY_BOUND:
        return c->deviated == c->plan.depth;
    case LAB_STRATEGY_REPLAY:
        return c->replay.used_count == c->replay.list->count;
    default:
        return true;
    }
}
