/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Partial order sampling (Yuan, Yang, Gu: Partial order aware concurrency sampling, CAV 2018).
 *
 * Every pending operation has a random priority; the highest goes first, and then all pending
 * operations that conflict with it get new ones. So operations that commute do not dilute the
 * choice among those that do not.
 *
 * The engine shows pending operations only at choices. What was done since is remembered per
 * object; a pending operation is given a new priority at the next choice when its agent has
 * stepped, or when something that conflicts with it came after its last one.
 */
#include "miniblk/osdep.h"
#include "lab/strategy.h"

enum { PATIENCE_MAX = 2048, PATIENCE_MIN = 64 };

static void pos_begin(LabChooser *c)
{
    c->pos.now = 0;
    c->pos.patience = PATIENCE_MAX;
    lab_map_clear(&c->pos.agents);
    lab_map_clear(&c->pos.objects);
}

/* NULL: more agents than we can remember; such an agent counts as new each time. */
static LabPosAgent *pos_agent(LabPos *pos, LabAgent agent)
{
    bool added;
    uint32_t i = lab_map_add(&pos->agents, lab_agent_key(agent), &added);

    if (i == LAB_MAP_NONE) {
        return NULL;
    }
    if (added) {
        pos->agent[i] = (LabPosAgent) { .stale = true };
    }
    return &pos->agent[i];
}

static bool raced(const LabPos *pos, const LabPosAgent *agent, const LabOp *op)
{
    uint32_t i = op->object ? lab_map_find(&pos->objects, op->object) : LAB_MAP_NONE;

    if (i == LAB_MAP_NONE) {
        return false;
    }
    return pos->object[i].written_at > agent->rolled_at
           || (op->is_write && pos->object[i].touched_at > agent->rolled_at);
}

/* Waiting by trying again comes after everything that could end the wait ... */
static uint64_t roll(LabRng *rng, const LabOp *op)
{
    return op->kind == LAB_OP_RELAX ? lab_rng_next(rng) >> 32 : lab_rng_next(rng);
}

/* ... unless the others never rest. Once that is known, they are not waited for as long. */
static bool has_waited_enough(LabPos *pos, const LabPosAgent *agent, const LabOp *op)
{
    if (op->kind != LAB_OP_RELAX || pos->now - agent->rolled_at <= pos->patience) {
        return false;
    }
    pos->patience = MAX(pos->patience / 2, PATIENCE_MIN);
    return true;
}

static unsigned pos_choose(LabChooser *c, const LabChoice *choice)
{
    LabPos *pos = &c->pos;
    unsigned best = 0;
    uint64_t best_priority = 0;

    if (choice->kind != LAB_CHOICE_AGENT) {
        return lab_choose_at_random(&c->rng, choice);
    }
    for (unsigned i = 0; i < choice->n; i++) {
        LabPosAgent *agent = pos_agent(pos, choice->agents[i]);
        const LabOp *op = &choice->ops[i];
        uint64_t priority;

        if (!agent) {
            priority = roll(&c->rng, op);
        } else {
            if (agent->stale || raced(pos, agent, op)) {
                agent->priority = roll(&c->rng, op);
                agent->rolled_at = pos->now;
                agent->stale = false;
            } else if (has_waited_enough(pos, agent, op)) {
                agent->priority = lab_rng_next(&c->rng);
                agent->rolled_at = pos->now;
            }
            priority = agent->priority;
        }
        if (i == 0 || priority > best_priority) {
            best = i;
            best_priority = priority;
        }
    }
    return best;
}

static void pos_step(LabChooser *c, LabAgent who, const LabOp *op)
{
    LabPos *pos = &c->pos;
    LabPosAgent *agent = pos_agent(pos, who);
    uint32_t i;
    bool added;

    pos->now++;
    if (agent) {
        agent->stale = true;
    }
    if (!op->object) {
        return;
    }
    i = lab_map_add(&pos->objects, op->object, &added);
    if (i == LAB_MAP_NONE) {
        return;
    }
    if (added) {
        pos->object[i] = (LabPosObject) { 0 };
    }
    pos->object[i].touched_at = pos->now;
    if (op->is_write) {
        pos->object[i].written_at = pos->now;
    }
}

const LabStrategyClass lab_strategy_pos = {
    .name = "pos",
    .begin = pos_begin,
    .choose = pos_choose,
    .step = pos_step,
};
