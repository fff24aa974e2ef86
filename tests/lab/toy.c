/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "lab/world.h"
#include "lab/rng.h"
#include "tests/lab/toy.h"

#include <signal.h>

static const Toy *toys;
static unsigned n_toys;
unsigned long toy_executions;

enum { EVENTS_MAX = TOY_THREADS_MAX * TOY_STEPS_MAX + 1 };
static LabEvent events[EVENTS_MAX];
static size_t n_events;

void toy_set(const Toy *new_toys, unsigned count)
{
    toys = new_toys;
    n_toys = count;
}

unsigned lab_case_count(void)
{
    return n_toys;
}

const char *lab_case_path(unsigned number)
{
    return toys[number].path;
}

const LabEvent *lab_events(size_t *count)
{
    *count = n_events;
    return events;
}

const char *lab_op_name(LabOpKind kind)
{
    return kind == LAB_OP_STORE ? "store" : "load";
}

const char *lab_verdict_name(LabVerdict verdict)
{
    static const char *const names[] = {
        "ok", "skip", "assert", "signal", "memory", "deadlock", "cycle", "livelock", "oracle",
        "diverged",
    };

    return names[verdict];
}

const char *lab_thread_name(unsigned thread)
{
    static const char *const names[] = { "main", "T1", "T2", "T3" };

    return names[thread];
}

const char *lab_object_name(uintptr_t object, char *buffer, size_t size)
{
    snprintf(buffer, size, "x%u", (unsigned)object - 1);
    return buffer;
}

/* ---- one schedule ---------------------------------------------------------------------- */

typedef struct Play {
    const Toy *toy;
    unsigned done[TOY_THREADS_MAX];
    unsigned steps[TOY_THREADS_MAX];
    unsigned at[TOY_THREADS_MAX][TOY_STEPS_MAX];        /* when a step was taken; 0: not yet */
    unsigned now;
    unsigned current;
} Play;

static LabOp next_op(const Play *play, unsigned thread)
{
    unsigned step = play->done[thread];

    return (LabOp) {
        .kind = thread == 0 ? LAB_OP_STORE : LAB_OP_LOAD,
        .is_write = thread == 0,
        .object = play->toy->shared ? 1 : 1 + step,
        .where = "toy",
    };
}

/* The default policy's order: the same thread, then the others in turn. */
static unsigned enabled(const Play *play, LabAgent *agents, LabOp *ops)
{
    unsigned n = 0;

    for (unsigned i = 0; i < play->toy->threads; i++) {
        unsigned thread = (play->current + i) % play->toy->threads;

        if (play->done[thread] < play->steps[thread]) {
            agents[n] = (LabAgent) { LAB_AGENT_THREAD, thread };
            ops[n++] = next_op(play, thread);
        }
    }
    return n;
}

static bool has_bug(const Play *play)
{
    const Toy *toy = play->toy;

    for (unsigned i = 0; i < toy->n_orders; i++) {
        const ToyOrder *order = &toy->orders[i];

        if (play->at[order->thread_a][order->a] > play->at[order->thread_b][order->b]) {
            return false;
        }
    }
    return toy->n_orders > 0;
}

static void take_step(Play *play, LabAgent agent, const LabOp *op, bool chosen,
                      LabOutcome *outcome)
{
    unsigned thread = agent.number;

    events[n_events++] = (LabEvent) {
        .kind = LAB_EVENT_STEP, .agent = agent, .op_number = play->done[thread], .op = *op,
        .chosen = chosen,
    };
    play->at[thread][play->done[thread]++] = ++play->now;
    play->current = thread;
    outcome->steps++;
    outcome->trace_hash = lab_mix(outcome->trace_hash, thread << 8 | play->done[thread]);
}

static void finish(const Play *play, LabOutcome *outcome)
{
    if (!has_bug(play)) {
        return;
    }
    switch (play->toy->trick) {
    case TOY_KILLS:
        raise(SIGKILL);
        break;
    case TOY_HANGS:
        for (;;) {
            pause();
        }
    case TOY_CUT_SHORT:
        outcome->cut_short = true;
        break;
    case TOY_GIVES_UP:
        outcome->verdict = LAB_SKIP;
        strcpy(outcome->message, "out of reach");
        break;
    default:
        outcome->verdict = LAB_ASSERT;
        snprintf(outcome->message, sizeof(outcome->message), "planted after %u steps",
                 play->now);
        events[n_events++] = (LabEvent) { .kind = LAB_EVENT_FAIL, .text = "planted" };
        break;
    }
}

bool lab_world_restores(void)
{
    return true;
}

void lab_execute(unsigned number, const LabStrategy *strategy, const LabLimits *limits,
                 LabOutcome *outcome)
{
    Play play = { .toy = &toys[number] };

    toy_executions++;
    n_events = 0;
    memset(outcome, 0, offsetof(LabOutcome, message) + 1);
    memcpy(play.steps, play.toy->steps, sizeof(play.steps));
    if (play.toy->trick == TOY_SKIPS) {
        outcome->verdict = LAB_SKIP;
        strcpy(outcome->message, "nothing to do");
        return;
    }
    if (play.toy->trick == TOY_DICE && toy_executions % 2) {
        play.steps[0]++;
    }
    for (;;) {
        LabAgent agents[TOY_THREADS_MAX];
        LabOp ops[TOY_THREADS_MAX];
        unsigned n = enabled(&play, agents, ops);
        unsigned option = 0;

        if (n == 0) {
            break;
        }
        if (n > 1) {
            LabChoice choice = {
                .kind = LAB_CHOICE_AGENT, .thread = play.current,
                .op = play.done[play.current], .n = n, .agents = agents, .ops = ops,
            };

            outcome->choices++;
            option = strategy->choose(strategy->opaque, &choice);
        }
        if (strategy->step) {
            strategy->step(strategy->opaque, agents[option], &ops[option]);
        }
        take_step(&play, agents[option], &ops[option], option != 0, outcome);
    }
    finish(&play, outcome);
}

void *lab_keep_alloc(size_t size)
{
    return g_malloc0(size);
}

void lab_keep_free(void *p)
{
    g_free(p);
}
