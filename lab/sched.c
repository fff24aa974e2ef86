/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scheduler: at each point, which of the agents (agents.c) takes the next step.
 *
 * There is no scheduler thread. Whoever comes to a point computes the agents itself, performs
 * the steps of those that are not threads, and then returns (it was chosen itself) or switches
 * to the chosen thread, which returns from the point at which it had stopped.
 *
 * Before g_test_run() (lab_running is false) points return at once. When the main thread
 * has to wait there, the other threads run by the default policy, unobserved.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/world.h"

bool lab_running;
LabEngine lab__engine = { .live = 1, .n_threads = 1, .now_ns = 1000000000,
                          .next_deadline_ns = INT64_MAX };
LabThread lab__threads[LAB_THREADS_MAX] LAB_LAST = { { .name = "main", .id = 1 } };

#define E lab__engine

/* ---- choices --------------------------------------------------------------------------- */

static unsigned decide(LabChoiceKind kind, unsigned n)
{
    LabThread *t = lab__self();

    if (n < 2 || !lab_running || E.fair) {
        return 0;
    }
    bool is_agent = kind == LAB_CHOICE_AGENT;
    LabChoice choice = {
        .kind = kind, .thread = E.self, .op = t->points, .turn = t->turn++, .n = n,
        .agents = is_agent ? lab__agents : NULL,
        .ops = is_agent ? lab__agent_ops : NULL,
    };
    E.choices++;
    unsigned option = lab__strategy.choose(lab__strategy.opaque, &choice);
    if (option >= n) {
        lab_fail(LAB_DIVERGED, "the strategy chose option %u of %u", option, n);
    }
    return option;
}

unsigned lab_choose(LabChoiceKind kind, unsigned n)
{
    unsigned option = decide(kind, n);

    if (n > 1 && lab_running) {
        /* part of the schedule's identity */
        E.hash = (E.hash ^ (0x100 + kind * 0x1000 + option)) * 0x9e3779b97f4a7c15;
    }
    return option;
}

/* ---- steps ----------------------------------------------------------------------------- */

/* AGENT takes its step: everybody is told. */
static void account(LabAgent agent, const LabOp *op, bool chosen)
{
    if (!lab_running) {
        return;
    }
    uint64_t bound = lab__limits.steps;
    if (++E.steps >= bound && !E.fair) {
        E.fair = true;
        lab__check_circle();
    } else if (E.steps >= 2 * bound) {
        lab__fail_livelock();
    }
    lab__trace_step(agent, op, chosen);
    if (lab__strategy.step) {
        lab__strategy.step(lab__strategy.opaque, agent, op);
    }
}

static void note_thread_step(int next)
{
    if (lab__impatient()) {
        lab__clock_advance();   /* who spins without looking at a clock spends time, too */
    }
    if (next != E.self) {
        E.streak = E.lonely = 0;
    } else if (E.streak++ >= LAB_STREAK_MAX) {
        E.streak = 0;
        E.lonely++;
    }
    for (uint64_t left = E.yielding & ~lab__bit(next); left; left &= left - 1) {
        LabThread *t = &lab__threads[__builtin_ctzll(left)];
        /* who has not spun for long may go on as soon as anybody has done anything */
        t->yield_to &= t->idle_turns <= LAB_IDLE_PATIENCE ? 0 : ~lab__bit(next);
    }
    E.yielding &= ~lab__bit(next);
}

static void fail_deadlock(void)
{
    lab_fail(LAB_DEADLOCK, "no thread can ever go on");
}

/* Let others take steps until it is a thread's turn; which one's is returned. */
static int next_thread(void)
{
    E.actor = E.self;
    for (;;) {
        uint64_t enabled = lab__enabled_threads();
        unsigned option = 0;

        if (enabled == lab__bit(E.self) && ++E.streak < LAB_STREAK_MAX &&
            !lab__disk_is_ready() && !(E.yielding | (lab__limits.clock && E.next_deadline_ns != INT64_MAX))) {
            /* nobody else: the buffer of the only one that runs can wait */
            LabThread *t = lab__self();
            account((LabAgent) { LAB_AGENT_THREAD, E.self }, &t->op, false);
            return E.self;
        }
        unsigned n = lab__list_agents(enabled);
        if (n == 0) {
            fail_deadlock();
        }
        option = decide(LAB_CHOICE_AGENT, n);
        LabAgent agent = lab__agents[option];
        LabOp op = lab__agent_ops[option];
        account(agent, &op, option != 0);
        switch (agent.kind) {
        case LAB_AGENT_THREAD:
            note_thread_step(agent.number);
            return agent.number;
        case LAB_AGENT_FLUSH:
            lab__flush_oldest(agent.number);
            break;
        case LAB_AGENT_DISK:
            lab_disk_complete(agent.number);
            E.actor = LAB_BY_DISK;
            E.changed = true;
            break;
        case LAB_AGENT_CLOCK:
            E.now_ns = MAX(E.now_ns, E.next_deadline_ns);
            E.actor = LAB_BY_CLOCK;
            E.changed = true;
            break;
        }
        E.streak = E.lonely = 0;
        if (agent.kind != LAB_AGENT_FLUSH) {
            /* whoever waits for such a thing by spinning may look again */
            for (uint64_t left = E.yielding; left; left &= left - 1) {
                lab__threads[__builtin_ctzll(left)].yield_to = 0;
            }
            E.yielding = 0;
        }
    }
}

/* Returns when it is the calling thread's turn. */
static void reschedule(void)
{
    int self = E.self, next = next_thread();

    if (next != self) {
        if (lab__limits.record) {
            lab__trace_event(LAB_EVENT_SWITCH, next, 0, NULL, NULL);
        }
        E.self = next;
        lab__fiber_switch(&lab__threads[self]);
    }
}

/* ---- points ---------------------------------------------------------------------------- */

/* Whether an operation of this kind can make another thread ready, or not ready any more. */
static inline bool changes_engine(LabOpKind kind)
{
    return kind > LAB_OP_FLUSH && kind != LAB_OP_CLOCK && kind != LAB_OP_RELAX;
}

void lab_point_at(LabOpKind kind, uintptr_t object, bool is_write, const char *where)
{
    if (!lab_running) {
        E.changed = true;
        return;
    }
    LabThread *t = lab__self();
    t->op = (LabOp) { .kind = kind, .is_write = is_write, .object = object, .where = where };
    t->turn = 0;
    reschedule();
    t->points++;
    E.changed |= changes_engine(kind);
}

void lab_point(LabOpKind kind, uintptr_t object, bool is_write)
{
    lab_point_at(kind, object, is_write, NULL);
}

bool lab_block(const LabBlock *block)
{
    LabThread *t = lab__self();
    bool ready = block->ready(block->opaque);

    if (!lab_running && ready) {
        E.changed = true;
        return true;
    }
    t->op = block->op;
    t->turn = 0;
    t->block = *block;
    E.blocked |= lab__bit(E.self);
    E.changed = true;
    if (!ready && lab_running) {
        lab_busy();
        t->blocked_at = E.steps;
        lab__check_circle();
        if (lab__limits.record) {
            lab__trace_event(LAB_EVENT_BLOCK, lab__holder(block), 0, NULL, NULL);
        }
    }
    reschedule();
    if (!ready && lab_running && lab__limits.record) {
        lab__trace_wake();
    }
    E.blocked &= ~lab__bit(E.self);
    E.ready &= ~lab__bit(E.self);
    E.changed = true;
    t->points++;
    return block->ready(block->opaque);
}

void lab_idle(void)
{
    LabThread *t = lab__self();

    if (t->idle_turns++ > 0) {
        lab__clock_advance();
        t->yield_to = ~lab__bit(E.self);
        E.yielding |= lab__bit(E.self);
    }
}

void lab_busy(void)
{
    lab__self()->idle_turns = 0;
}

void lab__thread_gone(void)
{
    E.live &= ~lab__bit(E.self);
    E.changed = true;
    int next = next_thread();
    E.self = next;
    lab__fiber_switch(NULL);
    __builtin_trap();
}
