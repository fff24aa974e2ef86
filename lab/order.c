/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which order matters, in words. A failing schedule and one that differs from it by a single
 * deviation and passes have many steps in common. Of two steps that conflict, are next to each
 * other on their object, and happen in one order here and in the other one there, the order is
 * what the deviation is about.
 */
#include "miniblk/osdep.h"
#include "lab/report.h"

/* A step's stable name: the agent, and how many steps it took before. */
typedef struct Step {
    const LabEvent *event;
    uint64_t key;
} Step;

typedef struct Steps {
    size_t count;
    Step *items;
    GHashTable *index;          /* key -> position + 1 */
} Steps;

static void steps_init(Steps *steps, const LabTrace *trace)
{
    g_autoptr(GHashTable) counts = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                                         NULL);

    steps->count = 0;
    steps->items = g_new(Step, trace->count);
    steps->index = g_hash_table_new(g_int64_hash, g_int64_equal);
    for (size_t i = 0; i < trace->count; i++) {
        const LabEvent *event = &trace->events[i];
        uint64_t agent = lab_agent_key(event->agent);
        size_t nth;
        Step *step;

        if (event->kind != LAB_EVENT_STEP) {
            continue;
        }
        nth = GPOINTER_TO_SIZE(g_hash_table_lookup(counts, &agent));
        g_hash_table_insert(counts, g_memdup2(&agent, sizeof(agent)),
                            GSIZE_TO_POINTER(nth + 1));
        step = &steps->items[steps->count++];
        *step = (Step) { event, lab_mix(agent, nth) };
        g_hash_table_insert(steps->index, &step->key, GSIZE_TO_POINTER(steps->count));
    }
}

static void steps_clear(Steps *steps)
{
    g_hash_table_destroy(steps->index);
    g_free(steps->items);
}

/* Where the same step is in STEPS, counted from 1; 0: it is not there. */
static size_t find(const Steps *steps, const Step *step)
{
    size_t at = GPOINTER_TO_SIZE(g_hash_table_lookup(steps->index, &step->key));

    return at && steps->items[at - 1].event->op.kind == step->event->op.kind ? at : 0;
}

static bool conflict(const LabEvent *a, const LabEvent *b)
{
    return a->op.object && a->op.object == b->op.object
           && (a->op.is_write || b->op.is_write) && !lab_agent_equal(a->agent, b->agent)
           /* A store and its own landing are not two parties. */
           && !(a->agent.number == b->agent.number
                && a->agent.kind <= LAB_AGENT_FLUSH && b->agent.kind <= LAB_AGENT_FLUSH);
}

/* "took", with the object after it. */
static const char *verb(LabOpKind kind)
{
    static const char *const verbs[LAB_OP_KINDS] = {
        [LAB_OP_START] = "started with",
        [LAB_OP_LOAD] = "read",
        [LAB_OP_STORE] = "stored",
        [LAB_OP_RMW] = "updated",
        [LAB_OP_FENCE] = "passed the fence at",
        [LAB_OP_LOCK] = "took",
        [LAB_OP_TRYLOCK] = "tried to take",
        [LAB_OP_UNLOCK] = "released",
        [LAB_OP_SIGNAL] = "signalled",
        [LAB_OP_WAIT] = "waited on",
        [LAB_OP_FUTEX_WAKE] = "woke the waiters of",
        [LAB_OP_FUTEX_WAIT] = "went to wait on",
        [LAB_OP_EVENT_WRITE] = "rang",
        [LAB_OP_EVENT_READ] = "cleared",
        [LAB_OP_POLL] = "went to poll",
        [LAB_OP_POLL_RETURN] = "saw in poll",
        [LAB_OP_CREATE] = "created",
        [LAB_OP_JOIN] = "joined",
        [LAB_OP_EXIT] = "ended",
        [LAB_OP_SUBMIT] = "submitted to",
        [LAB_OP_COMPLETE] = "completed",
        [LAB_OP_SYSCALL] = "called the system for",
    };

    return verbs[kind] ? verbs[kind] : lab_op_name(kind);
}

static void append_party(GString *out, const LabEvent *event, const char *object)
{
    switch (event->agent.kind) {
    case LAB_AGENT_FLUSH:
        g_string_append_printf(out, "%s's store of %s landed",
                               lab_thread_name(event->agent.number), object);
        break;
    case LAB_AGENT_DISK:
        g_string_append_printf(out, "request %u of %s completed", event->agent.number & 0xffff,
                               lab_thread_name(event->agent.number >> 16));
        break;
    case LAB_AGENT_CLOCK:
        g_string_append(out, "the clock jumped");
        break;
    case LAB_AGENT_THREAD:
        g_string_append_printf(out, "%s %s %s", lab_thread_name(event->agent.number),
                               verb(event->op.kind), object);
        if (event->op.where) {
            g_string_append_printf(out, " (%s)", event->op.where);
        }
        break;
    }
}

static void append_sentence(GString *out, const LabEvent *first, const LabEvent *second)
{
    char name[128];
    const char *object = lab_object_name(first->op.object, name, sizeof(name));

    append_party(out, first, object);
    g_string_append(out, " before ");
    append_party(out, second, object);
    g_string_append_c(out, '\n');
}

/* Whether what happened as A, B in the failing schedule was B, A in the passing one. */
static bool was_reversed(const Steps *passing, const Step *a, const Step *b)
{
    size_t a_at = find(passing, a), b_at = find(passing, b);

    return b_at && a_at > b_at;
}

/* The last step before position I of FAILING that conflicts with it. */
static const Step *last_conflict(const Steps *failing, size_t i)
{
    for (size_t j = i; j-- > 0; ) {
        if (conflict(failing->items[j].event, failing->items[i].event)) {
            return &failing->items[j];
        }
    }
    return NULL;
}

void lab_order_in_words(const LabTrace *failing, const LabTrace *passing, unsigned max,
                        GString *out)
{
    /* Looking back costs the square of the length; what matters is not that far away. */
    enum { STEPS_MAX = 20000 };
    Steps f, p;
    unsigned found = 0;

    if (failing->count > STEPS_MAX) {
        return;
    }
    steps_init(&f, failing);
    steps_init(&p, passing);
    for (size_t i = 0; i < f.count && found < max; i++) {
        const Step *before;

        if (!f.items[i].event->op.object) {
            continue;
        }
        before = last_conflict(&f, i);
        if (before && was_reversed(&p, before, &f.items[i])) {
            append_sentence(out, before->event, f.items[i].event);
            found++;
        }
    }
    steps_clear(&f);
    steps_clear(&p);
}
