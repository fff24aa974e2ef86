/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What could happen next: the agents that can take a step, the default policy's choice first.
 *
 * A blocked thread is an agent when its condition holds or its deadline has come. Conditions
 * are functions of the engine's state, so they are evaluated again only after that may have
 * changed.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/world.h"

enum {
    IDLE_JUMP = 1000,           /* turns after which the time of a lonely spinner jumps */
    LONELY_JUMP = 10,           /* the same for one that gives no hint, in LAB_STREAK_MAX
                                   steps */
};

LabAgent lab__agents[LAB_AGENTS_MAX] LAB_KEEP;
LabOp lab__agent_ops[LAB_AGENTS_MAX] LAB_KEEP;

#define E lab__engine

/* They have become ready by what the last event is about. */
static void note_wakers(uint64_t fresh)
{
    for (uint64_t left = fresh; left; left &= left - 1) {
        LabThread *t = &lab__threads[__builtin_ctzll(left)];
        t->woken_by = t->block.ready(t->block.opaque) ? E.actor : LAB_BY_CLOCK;
        t->woken_at = lab__trace_last();
    }
}

static void evaluate_blocked(void)
{
    uint64_t ready = 0;
    int64_t next = INT64_MAX;

    for (uint64_t left = E.blocked; left; left &= left - 1) {
        int i = __builtin_ctzll(left);
        const LabBlock *b = &lab__threads[i].block;
        if (b->ready(b->opaque) || (b->deadline_ns >= 0 && b->deadline_ns <= E.now_ns)) {
            ready |= lab__bit(i);
        } else if (b->deadline_ns >= 0) {
            next = MIN(next, b->deadline_ns);
        }
    }
    if (lab__limits.record) {
        note_wakers(ready & ~E.ready);
    }
    E.changed = false;
    E.ready = ready;
    E.next_deadline_ns = next;
}

uint64_t lab__enabled_threads(void)
{
    if (E.changed || E.now_ns >= E.next_deadline_ns) {
        evaluate_blocked();
    }
    return (E.live & ~E.blocked) | E.ready;
}

/* Those of ENABLED that must let others go first, because they only spin. */
static uint64_t polite_threads(uint64_t enabled)
{
    uint64_t polite = 0;

    for (uint64_t left = E.yielding & enabled; left; left &= left - 1) {
        int i = __builtin_ctzll(left);
        if (lab__threads[i].yield_to & enabled) {
            polite |= lab__bit(i);
        }
    }
    return polite;
}

static unsigned add(unsigned n, LabAgentKind kind, uint32_t number, LabOp op)
{
    lab__agents[n] = (LabAgent) { kind, number };
    lab__agent_ops[n] = op;
    return n + 1;
}

static unsigned add_thread(unsigned n, int i)
{
    return add(n, LAB_AGENT_THREAD, i, lab__threads[i].op);
}

static unsigned add_threads(unsigned n, uint64_t threads)
{
    int self = E.self;

    if (!lab__impatient() && (threads & lab__bit(self))) {
        n = add_thread(n, self);
        threads &= ~lab__bit(self);
    }
    /* then the next in turn: the numbers above SELF, and from 0 again */
    uint64_t above = self < 63 ? threads >> (self + 1) << (self + 1) : 0;
    for (uint64_t left = above; left; left &= left - 1) {
        n = add_thread(n, __builtin_ctzll(left));
    }
    for (uint64_t left = threads & ~above; left; left &= left - 1) {
        n = add_thread(n, __builtin_ctzll(left));
    }
    return n;
}

static unsigned add_flushes(unsigned n, uint64_t enabled)
{
    for (uint64_t left = E.buffered; left; left &= left - 1) {
        int i = __builtin_ctzll(left);
        /* nobody could notice otherwise */
        if (enabled & ~lab__bit(i)) {
            const LabStore *s = &lab__threads[i].stores[0];
            n = add(n, LAB_AGENT_FLUSH, i, (LabOp) { .kind = LAB_OP_FLUSH, .is_write = true,
                    .object = s->address, .where = s->where });
        }
    }
    return n;
}

/* Whether a disk request could complete now. */
bool lab__disk_is_ready(void)
{
    if (E.disk_seen != lab_disk_generation) {
        E.disk_seen = lab_disk_generation;
        E.disk_ready = lab_disk_agents(lab__agents, lab__agent_ops, 1) > 0;
    }
    return E.disk_ready;
}

static unsigned add_disk(unsigned n)
{
    if (lab__disk_is_ready()) {
        n += lab_disk_agents(lab__agents + n, lab__agent_ops + n, LAB_AGENTS_MAX - 1 - n);
    }
    return n;
}

static unsigned add_clock(unsigned n)
{
    return add(n, LAB_AGENT_CLOCK, 0, (LabOp) { .kind = LAB_OP_CLOCK, .is_write = true });
}

/* Fill AGENTS and OPS, the default policy's choice first. 0: nothing can ever happen again. */
unsigned lab__list_agents(uint64_t enabled)
{
    bool clock = E.next_deadline_ns != INT64_MAX;
    uint64_t polite = E.yielding ? polite_threads(enabled) : 0;
    uint64_t eager = enabled & ~polite;
    unsigned n = 0;

    if (eager) {
        /* a lonely spinner waits for a store, a device or the time, if for anything */
        uint64_t spins = E.yielding & eager;
        bool lonely = eager == spins && !(eager & (eager - 1));
        if (lonely && lab__threads[__builtin_ctzll(eager)].idle_turns > LAB_IDLE_PATIENCE) {
            n = add_flushes(n, enabled);
            n = add_disk(n);
            if (n == 0 && clock &&
                lab__threads[__builtin_ctzll(eager)].idle_turns > IDLE_JUMP) {
                n = add_clock(n);
            }
            return add_threads(n, eager);
        }
        if (lab__impatient()) {
            n = add_flushes(n, enabled);
            n = add_disk(n);
            bool jump = clock && !(eager & (eager - 1)) && (E.fair || E.lonely >= LONELY_JUMP);
            n = jump ? add_clock(n) : n;
            return add_threads(n, eager);
        }
        n = add_threads(n, eager);
        n = add_flushes(n, enabled);
        n = add_disk(n);
        return clock && lab__limits.clock ? add_clock(n) : n;
    }
    n = add_flushes(n, ~(uint64_t)0);
    n = add_disk(n);
    if (enabled) {              /* all of them spin, waiting for each other to go on */
        E.yielding = 0;
        return add_threads(n, enabled);
    }
    return clock && (n == 0 || lab__limits.clock) ? add_clock(n) : n;
}
