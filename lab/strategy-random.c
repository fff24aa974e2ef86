/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random walk. At depth 0 every enabled agent is equally likely at every choice; at depth d
 * the default policy is left once in 2^d choices only, so that threads get further before
 * they are interrupted and stores stay longer in their buffers.
 */
#include "miniblk/osdep.h"
#include "lab/strategy.h"

/* Stores that land early and deadlines that come early hide more than they show. */
enum { HASTE_ONCE_IN = 8 };

static bool is_hasty(LabAgent agent)
{
    return agent.kind == LAB_AGENT_FLUSH || agent.kind == LAB_AGENT_CLOCK;
}

static unsigned random_choose(LabChooser *c, const LabChoice *choice)
{
    bool patient = c->plan.seed & 1;
    unsigned option;

    if (choice->kind != LAB_CHOICE_AGENT) {
        return lab_choose_at_random(&c->rng, choice);
    }
    if (c->plan.depth > 0 && !lab_rng_once_in(&c->rng, 1u << c->plan.depth)) {
        return 0;
    }
    option = lab_rng_below(&c->rng, choice->n);
    if (patient && is_hasty(choice->agents[option])
        && !lab_rng_once_in(&c->rng, HASTE_ONCE_IN)) {
        return 0;
    }
    return option;
}

const LabStrategyClass lab_strategy_random = {
    .name = "random",
    .choose = random_choose,
};
