/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi, Nagarakatte: A randomized
 * scheduler with probabilistic guarantees of finding bugs, ASPLOS 2010).
 *
 * Each agent has a random priority, the enabled agent with the highest one always takes the
 * step. At d - 1 random places the agent about to step falls to a priority below all initial
 * ones; which of these falls is the deeper does not depend on which comes first. A bug that
 * needs d ordering constraints among n agents and k places is found with probability
 * >= 1 / (n * k^(d-1)).
 *
 * Places are choices, not all steps: where only one agent is enabled it goes on whatever its
 * priority is, and falling there is the same as falling at the next choice that it would win.
 *
 * Two things are not in the paper. A loop that waits for another thread by trying again would
 * never end while it has the highest priority; so an agent that says that it only waits
 * (LAB_OP_RELAX) falls to the bottom. And a schedule that has become far longer than usual has
 * somebody in it who never rests while others wait; what it was to try is behind it, and it goes
 * on at random.
 */
#include "miniblk/osdep.h"
#include "lab/strategy.h"

static const uint64_t initial = UINT64_C(1) << 63;

/* Priorities below INITIAL are handed out downwards by falls; never 0. */
static void fall_to(LabPct *pct, LabAgent agent, uint64_t priority)
{
    for (unsigned i = 0; i < pct->n_changes; i++) {
        if (lab_agent_equal(pct->changes[i].agent, agent)) {
            pct->changes[i].priority = priority;
            return;
        }
    }
    if (pct->n_changes < LAB_PCT_CHANGES_MAX) {
        pct->changes[pct->n_changes++] = (LabPctChange) { agent, priority };
    }
}

static uint64_t priority_of(const LabChooser *c, LabAgent agent)
{
    for (unsigned i = 0; i < c->pct.n_changes; i++) {
        if (lab_agent_equal(c->pct.changes[i].agent, agent)) {
            return c->pct.changes[i].priority;
        }
    }
    return lab_mix(c->plan.seed, lab_agent_key(agent)) | initial;
}

/* Earlier ones first; of two at the same choice any order will do that is fixed. */
static int compare_places(const void *a, const void *b)
{
    const LabPctPlace *x = a, *y = b;

    if (x->at != y->at) {
        return x->at < y->at ? -1 : 1;
    }
    return x->priority < y->priority ? -1 : x->priority > y->priority;
}

static void pct_begin(LabChooser *c)
{
    unsigned changes = c->plan.depth > 0 ? c->plan.depth - 1 : 0;

    memset(&c->pct, 0, sizeof(c->pct));
    c->pct.floor = initial;
    for (unsigned i = 0; i < changes; i++) {
        c->pct.places[i] = (LabPctPlace) {
            .at = lab_rng_below(&c->rng, MAX(c->plan.horizon, 1)),
            .priority = --c->pct.floor,
        };
    }
    qsort(c->pct.places, changes, sizeof(c->pct.places[0]), compare_places);
}

static unsigned highest(const LabChooser *c, const LabChoice *choice)
{
    unsigned best = 0;
    uint64_t best_priority = priority_of(c, choice->agents[0]);

    for (unsigned i = 1; i < choice->n; i++) {
        uint64_t priority = priority_of(c, choice->agents[i]);

        if (priority > best_priority) {
            best = i;
            best_priority = priority;
        }
    }
    return best;
}

static unsigned pct_choose(LabChooser *c, const LabChoice *choice)
{
    LabPct *pct = &c->pct;
    unsigned best;

    if (choice->kind != LAB_CHOICE_AGENT || c->choices > 2 * c->plan.horizon + 1000) {
        /* Not a place; but the number of the choice counts as one, and a change that would
         * fall on it waits for the next choice between agents. */
        return lab_choose_at_random(&c->rng, choice);
    }
    best = highest(c, choice);
    while (c->plan.depth > pct->next_place + 1
           && c->choices >= pct->places[pct->next_place].at) {
        fall_to(pct, choice->agents[best], pct->places[pct->next_place].priority);
        pct->next_place++;
        best = highest(c, choice);
    }
    if (choice->ops && choice->ops[best].kind == LAB_OP_RELAX) {
        fall_to(pct, choice->agents[best], --pct->floor);
        best = highest(c, choice);
    }
    return best;
}

const LabStrategyClass lab_strategy_pct = {
    .name = "pct",
    .begin = pct_begin,
    .choose = pct_choose,
};
