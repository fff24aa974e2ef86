/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which order matters, in words. A failing schedule and one that differs from it by a single
 * deviation and passes have many steps in common. Of two steps that conflict, are next to each
 * other on their object, and happen in one order here and in the other one there, the order is
 * what the deviation is about.
 *
 * A store happens when it lands: at its own turn, or when its thread's next fence, or a
 * membarrier, lands all of that thread. What missed a store that had been done but had not
 * landed is told, too, unless it missed it in the passing schedule as well.
 */
#include "miniblk/osdep.h"
#include "lab/report.h"

/* An access to an object. Its stable name is the agent, and how many steps it took before. */
typedef struct Step {
    const LabEvent *event;
    uint64_t key;
    size_t taken, at;           /* positions: in the thread, and in memory */
    struct Step *before;        /* on the same object */
} Step;

typedef struct Steps {
    size_t count;
    Step *items;                /* by the time of happening */
    GHashTable *index;          /* key -> Step */
} Steps;

static bool is_store(const Step *step)
{
    return step->event->op.kind == LAB_OP_STORE && step->event->agent.kind == LAB_AGENT_THREAD;
}

/* The N oldest pending stores of THREAD land at AT. */
static void land(GQueue *pending, size_t n, size_t at)
{
    for (Step *step; n > 0 && (step = g_queue_pop_head(pending)); n--) {
        step->at = at;
    }
}

/* When the stores land, from TRACE in its own order; those that never do, after all else. */
static void find_landings(Steps *steps, const LabTrace *trace)
{
    GQueue pending[LAB_THREADS_MAX] = { 0 };
    Step *step = steps->items;

    for (size_t i = 0; i < trace->count; i++) {
        const LabEvent *e = &trace->events[i];
        bool taken = step < steps->items + steps->count && step->event == e;
        unsigned thread = e->agent.number % LAB_THREADS_MAX;

        if (taken && is_store(step)) {
            g_queue_push_tail(&pending[thread], step);
        } else if (e->kind == LAB_EVENT_STEP && e->agent.kind == LAB_AGENT_FLUSH) {
            land(&pending[thread], 1, i);
        } else if (e->kind == LAB_EVENT_STEP && e->op.kind == LAB_OP_FENCE) {
            land(&pending[thread], SIZE_MAX, i);
        } else if (e->kind == LAB_EVENT_STEP && e->op.kind == LAB_OP_SYSCALL
                   && !e->op.object) {
            for (unsigned t = 0; t < LAB_THREADS_MAX; t++) {
                land(&pending[t], SIZE_MAX, i);
            }
        }
        step += taken;
    }
    for (unsigned t = 0; t < LAB_THREADS_MAX; t++) {
        land(&pending[t], SIZE_MAX, trace->count);
    }
}

static int compare_steps(const void *a, const void *b)
{
    const Step *x = a, *y = b;

    if (x->at != y->at) {
        return x->at < y->at ? -1 : 1;
    }
    return x->taken < y->taken ? -1 : x->taken > y->taken;
}

static void link_by_object(Steps *steps)
{
    g_autoptr(GHashTable) last = g_hash_table_new(NULL, NULL);

    for (size_t i = 0; i < steps->count; i++) {
        Step *step = &steps->items[i];
        void *object = (void *)step->event->op.object;

        step->before = g_hash_table_lookup(last, object);
        g_hash_table_insert(last, object, step);
        g_hash_table_insert(steps->index, &step->key, step);
    }
}

static void steps_init(Steps *steps, const LabTrace *trace, bool tso)
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

        if (event->kind != LAB_EVENT_STEP || event->agent.kind == LAB_AGENT_FLUSH) {
            continue;
        }
        nth = GPOINTER_TO_SIZE(g_hash_table_lookup(counts, &agent));
        g_hash_table_insert(counts, g_memdup2(&agent, sizeof(agent)),
                            GSIZE_TO_POINTER(nth + 1));
        if (event->op.object) {
            steps->items[steps->count++] = (Step) { event, lab_mix(agent, nth), i, i };
        }
    }
    if (tso) {
        find_landings(steps, trace);
    }
    qsort(steps->items, steps->count, sizeof(Step), compare_steps);
    link_by_object(steps);
}

static void steps_clear(Steps *steps)
{
    g_hash_table_destroy(steps->index);
    g_free(steps->items);
}

/* The same step in STEPS; NULL: it is not there. */
static const Step *find(const Steps *steps, const Step *step)
{
    const Step *other = g_hash_table_lookup(steps->index, &step->key);

    return other && other->event->op.kind == step->event->op.kind ? other : NULL;
}

static bool conflict(const LabEvent *a, const LabEvent *b)
{
    return (a->op.is_write || b->op.is_write) && !lab_agent_equal(a->agent, b->agent);
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

/* LATE: what matters of a store is when it landed. */
static void append_party(GString *out, const Step *step, bool late, const char *object)
{
    const LabEvent *event = step->event;
    unsigned number = event->agent.number;

    switch (event->agent.kind) {
    case LAB_AGENT_DISK:
        g_string_append_printf(out, "request %u of %s completed", number & 0xffff,
                               lab_thread_name(number >> 16));
        break;
    case LAB_AGENT_CLOCK:
        g_string_append(out, "the clock jumped");
        break;
    default:
        if (late) {
            g_string_append_printf(out, "%s's store of %s landed", lab_thread_name(number),
                                   object);
        } else {
            g_string_append_printf(out, "%s %s %s", lab_thread_name(number),
                                   verb(event->op.kind), object);
        }
        break;
    }
}

static void append_sentence(GString *out, const Step *first, const Step *second)
{
    char name[128];
    const char *object = lab_object_name(first->event->op.object, name, sizeof(name));

    append_party(out, first, first->at != first->taken, object);
    g_string_append(out, " before ");
    append_party(out, second, second->taken < first->at, object);
    g_string_append_c(out, '\n');
}

/* Whether what happened as A, B in the failing schedule was B, A in the passing one. */
static bool was_reversed(const Steps *passing, const Step *a, const Step *b)
{
    const Step *other_a = find(passing, a), *other_b = find(passing, b);

    return other_a && other_b && other_a->at > other_b->at;
}

/* AMONG: the last one that these have, too; NULL: any. */
static const Step *last_conflict(const Step *step, const Steps *among)
{
    const Step *before = step->before;

    while (before && !(conflict(before->event, step->event)
                       && (!among || find(among, before)))) {
        before = before->before;
    }
    return before;
}

/* That READ came while STORE had been done, but had not landed. */
static bool misses(const Step *read, const Step *store)
{
    return store->taken < read->taken && read->at < store->at
           && conflict(read->event, store->event);
}

/* The first that missed STORE; NULL: nobody, it landed in time. */
static const Step *first_miss(const Step *store)
{
    const Step *found = NULL;

    for (const Step *s = store->before; s && s->at > store->taken; s = s->before) {
        if (misses(s, store)) {
            found = s;
        }
    }
    return found;
}

static bool missed_too(const Steps *passing, const Step *read, const Step *store)
{
    const Step *other_read = find(passing, read), *other_store = find(passing, store);

    return other_read && other_store && misses(other_read, other_store);
}

/* How many sentences. AMONG: as for last_conflict(). */
static unsigned append_reversed(GString *out, const Steps *failing, const Steps *passing,
                                const Steps *among, unsigned max, GHashTable *objects)
{
    unsigned found = 0;

    for (size_t i = 0; i < failing->count && found < max; i++) {
        const Step *step = &failing->items[i], *before = last_conflict(step, among);

        if (before && was_reversed(passing, before, step)) {
            append_sentence(out, before, step);
            g_hash_table_add(objects, (void *)step->event->op.object);
            found++;
        }
    }
    return found;
}

void lab_order_in_words(const LabTrace *failing, const LabTrace *passing, bool tso,
                        unsigned max, GString *out, GHashTable *objects)
{
    Steps f, p;
    unsigned found, missed = 0;

    steps_init(&f, failing, tso);
    steps_init(&p, passing, tso);
    found = append_reversed(out, &f, &p, NULL, max, objects);
    for (size_t i = 0; i < f.count && missed < max; i++) {
        const Step *store = &f.items[i], *read = first_miss(&f.items[i]);

        if (read && !missed_too(&p, read, store)) {
            append_sentence(out, read, store);
            g_hash_table_add(objects, (void *)store->event->op.object);
            missed++;
        }
    }
    if (found + missed == 0) {
        /* who looks again and again does it between the two that changed places */
        append_reversed(out, &f, &p, &p, max, objects);
    }
    steps_clear(&f);
    steps_clear(&p);
}
