/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scheduler: at each point, which agents could take the next step, and which does.
 *
 * There is no scheduler thread. Whoever comes to a point computes the agents itself, performs
 * the steps of those that are not threads, and then returns (it was chosen itself) or switches
 * to the chosen thread, which returns from the point at which it had stopped.
 *
 * A blocked thread is an agent when its condition holds or its deadline has come. Conditions
 * are functions of the engine's state, so they are evaluated again only after that may have
 * changed.
 *
 * Before g_test_run() (lab_running is false) points return at once. When the main thread
 * has to wait there, the other threads run by the default policy, unobserved.
 */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/world.h"

enum {
    STEPS_DEFAULT = 1000000,    /* livelock bound */
    STREAK_MAX = 2000,          /* steps after which the default policy lets others go on */
    IDLE_PATIENCE = 4,          /* turns of a busy-waiting loop after which others go first */
    IDLE_JUMP = 1000,           /* turns after which the time of a lonely spinner jumps */
    LONELY_JUMP = 10,           /* the same for one that gives no hint, in STREAK_MAX steps */
    CYCLE_MAX = 64,             /* steps of a livelock's cycle that are recognised */
};

bool lab_running;
LabEngine lab__engine = { .live = 1, .n_threads = 1, .now_ns = 1000000000,
                          .next_deadline_ns = INT64_MAX };
LabThread lab__threads[LAB_THREADS_MAX] LAB_LAST = { { .name = "main", .id = 1 } };

LabLimits lab__limits LAB_KEEP;
static LabStrategy strategy LAB_KEEP;
static LabOutcome *result LAB_KEEP;
static unsigned case_number LAB_KEEP;

/* The options of the choice being made. */
static LabAgent agents[LAB_AGENTS_MAX] LAB_KEEP;
static LabOp ops[LAB_AGENTS_MAX] LAB_KEEP;

#define E lab__engine

const LabLimits *lab_limits(void)
{
    return &lab__limits;
}

unsigned lab_self(void)
{
    return E.self;
}

/* ---- what could happen next ------------------------------------------------------------ */

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
    E.changed = false;
    E.ready = ready;
    E.next_deadline_ns = next;
}

static uint64_t enabled_threads(void)
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
    agents[n] = (LabAgent) { kind, number };
    ops[n] = op;
    return n + 1;
}

static unsigned add_thread(unsigned n, int i)
{
    return add(n, LAB_AGENT_THREAD, i, lab__threads[i].op);
}

/* A thread that has gone on for so long may wait, without our seeing it, for somebody else. */
static bool impatient(void)
{
    return E.streak >= STREAK_MAX || E.fair;
}

static unsigned add_threads(unsigned n, uint64_t threads)
{
    int self = E.self;

    if (!impatient() && (threads & lab__bit(self))) {
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
static bool disk_is_ready(void)
{
    if (E.disk_seen != lab_disk_generation) {
        E.disk_seen = lab_disk_generation;
        E.disk_ready = lab_disk_agents(agents, ops, 1) > 0;
    }
    return E.disk_ready;
}

static unsigned add_disk(unsigned n)
{
    if (disk_is_ready()) {
        n += lab_disk_agents(agents + n, ops + n, LAB_AGENTS_MAX - 1 - n);
    }
    return n;
}

static unsigned add_clock(unsigned n)
{
    return add(n, LAB_AGENT_CLOCK, 0, (LabOp) { .kind = LAB_OP_CLOCK, .is_write = true });
}

/* Fill AGENTS and OPS, the default policy's choice first. 0: nothing can ever happen again. */
static unsigned list_agents(uint64_t enabled)
{
    bool clock = E.next_deadline_ns != INT64_MAX;
    uint64_t polite = E.yielding ? polite_threads(enabled) : 0;
    uint64_t eager = enabled & ~polite;
    unsigned n = 0;

    if (eager) {
        /* a lonely spinner waits for a store, a device or the time, if for anything */
        uint64_t spins = E.yielding & eager;
        bool lonely = eager == spins && !(eager & (eager - 1));
        if (lonely && lab__threads[__builtin_ctzll(eager)].idle_turns > IDLE_PATIENCE) {
            n = add_flushes(n, enabled);
            n = add_disk(n);
            if (n == 0 && clock &&
                lab__threads[__builtin_ctzll(eager)].idle_turns > IDLE_JUMP) {
                n = add_clock(n);
            }
            return add_threads(n, eager);
        }
        if (impatient()) {
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
        .agents = is_agent ? agents : NULL, .ops = is_agent ? ops : NULL,
    };
    E.choices++;
    unsigned option = strategy.choose(strategy.opaque, &choice);
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

static void fail_livelock(void)
{
    char text[2048];
    size_t length = 0;
    LabAgent a, b;
    LabOp op_a, op_b;
    unsigned period, i;

    /* the shortest cycle that the last steps repeat */
    for (period = 1; period <= CYCLE_MAX; period++) {
        for (i = 0; i < 2 * period; i++) {
            if (!lab__trace_recent(i, &a, &op_a) ||
                !lab__trace_recent(i + period, &b, &op_b) ||
                a.kind != b.kind || a.number != b.number || op_a.kind != op_b.kind ||
                op_a.object != op_b.object) {
                break;
            }
        }
        if (i == 2 * period) {
            break;
        }
    }
    bool found = period <= CYCLE_MAX;
    text[0] = '\0';
    for (i = found ? period : 16; i-- > 0 && length < sizeof(text) - 160;) {
        if (lab__trace_recent(i, &a, &op_a)) {
            char object[80];
            length += snprintf(text + length, sizeof(text) - length, "\n    %s: %s %s",
                               a.kind == LAB_AGENT_THREAD ? lab_thread_name(a.number) :
                               a.kind == LAB_AGENT_FLUSH ? "store lands" :
                               a.kind == LAB_AGENT_DISK ? "disk" : "clock",
                               lab_op_name(op_a.kind),
                               op_a.object
                               ? lab_object_name(op_a.object, object, sizeof(object))
                               : op_a.where ? op_a.where : "");
        }
    }
    lab_fail(LAB_LIVELOCK, "%" PRIu64 " steps, the last half of them with every "
             "thread in turn. %s%s", E.steps,
             found ? "This repeats:" : "No short cycle (is the case just long? LAB_STEPS); "
             "the last steps:", text);
}

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
        fail_livelock();
    }
    lab__trace_step(agent, op, chosen);
    if (strategy.step) {
        strategy.step(strategy.opaque, agent, op);
    }
}

static void note_thread_step(int next)
{
    if (impatient()) {
        lab__clock_advance();   /* who spins without looking at a clock spends time, too */
    }
    if (next != E.self) {
        E.streak = E.lonely = 0;
    } else if (E.streak++ >= STREAK_MAX) {
        E.streak = 0;
        E.lonely++;
    }
    for (uint64_t left = E.yielding & ~lab__bit(next); left; left &= left - 1) {
        LabThread *t = &lab__threads[__builtin_ctzll(left)];
        /* who has not spun for long may go on as soon as anybody has done anything */
        t->yield_to &= t->idle_turns <= IDLE_PATIENCE ? 0 : ~lab__bit(next);
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
    for (;;) {
        uint64_t enabled = enabled_threads();
        unsigned option = 0;

        if (enabled == lab__bit(E.self) && ++E.streak < STREAK_MAX && !disk_is_ready() &&
            !(E.yielding | (lab__limits.clock && E.next_deadline_ns != INT64_MAX))) {
            /* nobody else: the buffer of the only one that runs can wait */
            LabThread *t = lab__self();
            account((LabAgent) { LAB_AGENT_THREAD, E.self }, &t->op, false);
            return E.self;
        }
        unsigned n = list_agents(enabled);
        if (n == 0) {
            fail_deadlock();
        }
        option = decide(LAB_CHOICE_AGENT, n);
        LabAgent agent = agents[option];
        LabOp op = ops[option];
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
            E.changed = true;
            break;
        case LAB_AGENT_CLOCK:
            E.now_ns = MAX(E.now_ns, E.next_deadline_ns);
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
        lab__trace_event(LAB_EVENT_WAKE, -1, 0, NULL, NULL);
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

/* ---- one schedule ---------------------------------------------------------------------- */

/* End the schedule; called on a fiber. */
static void leave(void)
{
    lab_running = false;
    lab__fiber_leave();
}

static void run_case(void)
{
    lab_running = true;
    const char *message = NULL;
    result->verdict = lab_case_run(case_number, &message);
    lab__drain();
    if (message) {
        snprintf(result->message, sizeof(result->message), "%s", message);
    }
    if (result->verdict == LAB_OK) {
        lab__check_left_over();
        lab_arena_check();
    }
    leave();
}

void lab_fail(LabVerdict verdict, const char *format, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (!lab_running) {
        fprintf(stderr, "lab: outside of a case: %s\n", text);
        char waits[2048];
        lab__waitfor_text(waits, sizeof(waits));
        fputs(waits, stderr);
        _exit(134);             /* abort() is ours and leads back here */
    }
    /* What the program sees is of no interest any more; no point may follow. */
    lab_running = false;
    size_t length = snprintf(result->message, sizeof(result->message), "%s", text);
    if (verdict == LAB_DEADLOCK || verdict == LAB_CYCLE || verdict == LAB_LIVELOCK) {
        result->message[length++] = '\n';
        lab__waitfor_text(result->message + length, sizeof(result->message) - length);
    }
    result->verdict = verdict;
    if (lab__limits.record) {
        lab__trace_event(LAB_EVENT_FAIL, -1, 0, NULL, text);
    }
    leave();
    __builtin_unreachable();
}

static void run_schedule(LabOutcome *outcome)
{
    result = outcome;
    result->message[0] = '\0';
    lab__fiber_run(run_case);
    outcome->steps = E.steps;
    outcome->choices = E.choices;
    outcome->trace_hash = E.hash;
    outcome->virtual_ns = E.now_ns;
    outcome->cut_short = E.fair;
}

void lab_execute(unsigned number, const LabStrategy *s, const LabLimits *limits,
                 LabOutcome *outcome)
{
    g_assert(!lab_running);
    lab_world_reset();
    strategy = *s;
    lab__limits = *limits;
    if (lab__limits.steps == 0) {
        lab__limits.steps = STEPS_DEFAULT;
    }
    case_number = number;
    E.hash = number + 1;
    E.changed = true;
    lab__trace_begin();
    lab_isolate(run_schedule, outcome);
}
