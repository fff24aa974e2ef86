/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happened in a schedule: its hash always, the last steps for the livelock report, the
 * events when a picture is wanted. No address gets into any of them: an object is known by its
 * rank, that is how many others the schedule had met before it.
 */
#include "miniblk/osdep.h"
#include <sys/mman.h>
#include "lab/event-internal.h"
#include "lab/engine.h"
#include "lab/world.h"

enum {
    RANKS = 1 << 14,            /* objects of a schedule; the rest share the last rank */
    RECENT = 256,
    EVENTS_MAX = 1 << 18,
};

typedef struct Rank {
    uintptr_t object;
    uint32_t generation;        /* of the schedule that it belongs to */
    uint32_t rank;
    const char *where;          /* what the code called it first */
} Rank;

static Rank ranks[RANKS] LAB_SHARED;
static uint32_t generation LAB_SHARED;
static uint32_t n_ranks LAB_SHARED;

typedef struct Step {
    LabAgent agent;
    LabOp op;
} Step;
static Step recent[RECENT] LAB_SHARED;
static uint64_t n_recent LAB_SHARED;

static LabEvent *events LAB_KEEP;
static size_t n_events LAB_SHARED;

void lab__trace_begin(void)
{
    generation++;
    n_ranks = 0;
    n_recent = 0;
    n_events = 0;
    if (lab__limits.record && !events) {
        events = mmap(NULL, EVENTS_MAX * sizeof(events[0]), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        g_assert(events != MAP_FAILED);
    }
}

static Rank *find_rank(uintptr_t object)
{
    unsigned i = (object * 0x9e3779b97f4a7c15) >> 50;
    G_STATIC_ASSERT(RANKS == 1 << (64 - 50));

    while (ranks[i].generation == generation && ranks[i].object != object) {
        i = (i + 1) % RANKS;
    }
    return &ranks[i];
}

unsigned lab__object_rank(uintptr_t object, const char *where)
{
    if (!object) {
        return 0;
    }
    Rank *r = find_rank(object);
    if (r->generation != generation) {
        if (n_ranks >= RANKS * 3 / 4) {
            return RANKS;
        }
        *r = (Rank) { object, generation, ++n_ranks, where };
    }
    return r->rank;
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15;
    return hash ^ hash >> 29;
}

void lab__trace_step(LabAgent agent, const LabOp *op, bool chosen)
{
    uint64_t rank = lab__object_rank(op->object, op->where);

    lab__engine.hash = mix(lab__engine.hash, rank << 40 | (uint64_t)op->kind << 32 |
                                             (uint64_t)agent.kind << 28 | agent.number);
    if (lab__engine.fair) {
        recent[n_recent++ % RECENT] = (Step) { agent, *op };
    }
    if (lab__limits.record && n_events < EVENTS_MAX) {
        events[n_events++] = (LabEvent) {
            .kind = LAB_EVENT_STEP, .chosen = chosen, .agent = agent, .other = -1,
            .op_number = agent.kind == LAB_AGENT_THREAD ? lab__threads[agent.number].points
                                                        : 0,
            .time_ns = lab__engine.now_ns - lab__engine.start_ns, .op = *op,
        };
    }
}

void lab__trace_event(LabEventKind kind, int other, int note, const void *object,
                      const char *text)
{
    if (n_events == EVENTS_MAX) {
        return;
    }
    LabEvent *e = &events[n_events++];
    *e = (LabEvent) {
        .kind = kind, .note = note, .other = other, .object = object,
        .agent = { LAB_AGENT_THREAD, lab__engine.self },
        .op_number = lab__self()->points, .time_ns = lab__engine.now_ns - lab__engine.start_ns,
        .op = lab__self()->op,
    };
    if (text) {
        snprintf(e->text, sizeof(e->text), "%s", text);
    }
}

size_t lab__trace_last(void)
{
    return n_events ? n_events - 1 : 0;
}

void lab__trace_wake(void)
{
    const LabThread *t = lab__self();

    if (n_events < EVENTS_MAX) {
        lab__trace_event(LAB_EVENT_WAKE, t->woken_by, 0, NULL, NULL);
        events[n_events - 1].cause = t->woken_at;
    }
}

const LabEvent *lab_events(size_t *count)
{
    *count = n_events;
    return events;
}

bool lab__trace_recent(unsigned back, LabAgent *agent, LabOp *op)
{
    if (back >= n_recent || back >= RECENT) {
        return false;
    }
    const Step *s = &recent[(n_recent - 1 - back) % RECENT];
    *agent = s->agent;
    *op = s->op;
    return true;
}

/* ---- names ----------------------------------------------------------------------------- */

const char *lab_op_name(LabOpKind kind)
{
    static const char *const names[LAB_OP_KINDS] = {
        [LAB_OP_START] = "start", [LAB_OP_LOAD] = "load", [LAB_OP_STORE] = "store",
        [LAB_OP_RMW] = "rmw", [LAB_OP_FENCE] = "fence", [LAB_OP_FLUSH] = "lands",
        [LAB_OP_LOCK] = "lock", [LAB_OP_TRYLOCK] = "trylock", [LAB_OP_UNLOCK] = "unlock",
        [LAB_OP_SIGNAL] = "signal", [LAB_OP_WAIT] = "wait", [LAB_OP_FUTEX_WAKE] = "futex-wake",
        [LAB_OP_FUTEX_WAIT] = "futex-wait", [LAB_OP_EVENT_WRITE] = "write",
        [LAB_OP_EVENT_READ] = "read", [LAB_OP_POLL] = "poll",
        [LAB_OP_POLL_RETURN] = "poll-return", [LAB_OP_CREATE] = "create",
        [LAB_OP_JOIN] = "join", [LAB_OP_EXIT] = "exit", [LAB_OP_CLOCK] = "clock",
        [LAB_OP_RELAX] = "relax", [LAB_OP_SUBMIT] = "submit", [LAB_OP_COMPLETE] = "complete",
        [LAB_OP_SYSCALL] = "syscall",
    };
    return kind < LAB_OP_KINDS ? names[kind] : "?";
}

const char *lab_verdict_name(LabVerdict verdict)
{
    static const char *const names[] = {
        [LAB_OK] = "ok", [LAB_SKIP] = "skip", [LAB_ASSERT] = "assertion",
        [LAB_SIGNAL] = "signal", [LAB_MEMORY] = "memory", [LAB_DEADLOCK] = "deadlock",
        [LAB_CYCLE] = "cycle", [LAB_LIVELOCK] = "livelock", [LAB_ORACLE] = "oracle",
        [LAB_DIVERGED] = "diverged",
    };
    return verdict < G_N_ELEMENTS(names) ? names[verdict] : "?";
}

const char *lab_object_name(uintptr_t object, char *buffer, size_t size)
{
    const char *given = lab__note_name((void *)object);
    const Rank *r = find_rank(object);
    char symbol[128];

    if (given) {
        snprintf(buffer, size, "%s", given);
    } else if (object > 0 && object <= LAB_THREADS_MAX) {
        snprintf(buffer, size, "%s", lab_thread_name(object - 1));
    } else if (object <= INT_MAX && lab_fd_is_virtual(object)) {
        snprintf(buffer, size, "%s %d", lab__fd_name(object), (int)object);
    } else if (lab_symbol_name(object, symbol, sizeof(symbol))) {
        snprintf(buffer, size, "%s", symbol);
    } else if (r->generation == generation && r->where) {
        /* "&ctx->wake_state" of different objects must not look the same */
        snprintf(buffer, size, "%s#%u", r->where + (r->where[0] == '&'), r->rank);
    } else if (r->generation == generation) {
        snprintf(buffer, size, "#%u", r->rank);
    } else {
        snprintf(buffer, size, "#new");
    }
    return buffer;
}
