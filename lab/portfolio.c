/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which strategy runs schedule number N. A function of the base seed and N alone, so that the
 * result of a run does not depend on how many processes share the numbers.
 */
#include "miniblk/osdep.h"
#include "lab/explore.h"

/* What each strategy is good at differs from bug to bug; none is left out for long. */
static const struct {
    LabStrategyKind kind;
    unsigned depth;
} mixture[] = {
    { LAB_STRATEGY_POS, 0 },
    { LAB_STRATEGY_RANDOM, 0 },
    { LAB_STRATEGY_PCT, 3 },
    { LAB_STRATEGY_FEW, 2 },
    { LAB_STRATEGY_POS, 0 },
    { LAB_STRATEGY_RANDOM, 2 },
    { LAB_STRATEGY_PCT, 2 },
    { LAB_STRATEGY_FEW, 3 },
    { LAB_STRATEGY_POS, 0 },
    { LAB_STRATEGY_RANDOM, 4 },
    { LAB_STRATEGY_PCT, 5 },
    { LAB_STRATEGY_FEW, 4 },
};

static uint64_t horizon_of(LabStrategyKind kind, LabHorizon horizon)
{
    switch (kind) {
    case LAB_STRATEGY_PCT:
        return horizon.choices;
    case LAB_STRATEGY_FEW:
        return horizon.alternatives;
    default:
        return 0;
    }
}

/* The depth of schedule NUMBER of a strategy that runs alone. */
static unsigned depth_of(LabStrategyKind kind, uint64_t number)
{
    switch (kind) {
    case LAB_STRATEGY_RANDOM:
        return 2 * (number % 3);
    case LAB_STRATEGY_PCT:
    case LAB_STRATEGY_FEW:
        return 1 + number % 5;
    default:
        return 0;
    }
}

void lab_portfolio_plan(const LabConfig *config, LabHorizon horizon, uint64_t number,
                        LabPlan *plan)
{
    memset(plan, 0, sizeof(*plan));
    if (config->strategy == LAB_STRATEGY_PORTFOLIO) {
        plan->kind = mixture[number % G_N_ELEMENTS(mixture)].kind;
        plan->depth = mixture[number % G_N_ELEMENTS(mixture)].depth;
    } else {
        plan->kind = config->strategy;
        plan->depth = config->depth ? config->depth : depth_of(config->strategy, number);
    }
    plan->seed = lab_mix(config->seed, number);
    plan->horizon = MIN(horizon_of(plan->kind, horizon), UINT32_MAX);
}
