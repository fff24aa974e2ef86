/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Schedules as sets of deviations from the default policy.
 *
 * A choice of n options offers n - 1 alternatives to the default. Counting them along the
 * schedule numbers all places where it could have gone another way:
 *
 *      choices         A (2)    B (3)        C (2)   ...
 *      alternatives    0        1   2        3       ...
 *
 * BOUND takes alternative skip[0], then, counting anew from the next choice, skip[1], and so
 * on. What comes before a deviation does not depend on it, so a list of skips names exactly
 * one schedule, every schedule with d deviations has exactly one such list, and a schedule
 * that has run says how many lists extend its own by one (alternatives_after). That is the
 * whole enumeration; see levels.c.
 *
 * FEW draws DEPTH places at random among the alternatives that a usual schedule has.
 */
#include "miniblk/osdep.h"
#include "lab/strategy.h"

/* Targets are absolute here: alternatives from the beginning of the schedule. */
static void aim(LabChooser *c, uint64_t from)
{
    c->target = c->deviated < c->plan.depth ? from + c->plan.skip[c->deviated] : UINT64_MAX;
}

static void bound_begin(LabChooser *c)
{
    aim(c, 0);
}

static unsigned bound_choose(LabChooser *c, const LabChoice *choice)
{
    unsigned option;

    if (c->target - c->alternatives >= choice->n - 1) {
        return 0;
    }
    option = 1 + (c->target - c->alternatives);
    c->deviated++;
    aim(c, c->alternatives + choice->n - 1);
    return option;
}

/*
 * Two places drawn within one choice would be one deviation; the second then moves to the
 * next choice. Distances between sorted places are what BOUND calls skips.
 */
static void few_begin(LabChooser *c)
{
    uint64_t at[LAB_DEPTH_MAX];

    for (unsigned i = 0; i < c->plan.depth; i++) {
        uint64_t place = lab_rng_below(&c->rng, MAX(c->plan.horizon, 1));
        unsigned j = i;

        for (; j > 0 && at[j - 1] > place; j--) {
            at[j] = at[j - 1];
        }
        at[j] = place;
    }
    for (unsigned i = 0; i < c->plan.depth; i++) {
        c->plan.skip[i] = i == 0 ? at[0] : at[i] - at[i - 1];
    }
    aim(c, 0);
}

const LabStrategyClass lab_strategy_bound = {
    .name = "bound",
    .begin = bound_begin,
    .choose = bound_choose,
};

const LabStrategyClass lab_strategy_few = {
    .name = "few",
    .begin = few_begin,
    .choose = bound_choose,
};
