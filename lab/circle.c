/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A circle of those who wait for each other, while others go on.
 *
 * Who waits may wait for several at a time, and goes on when all of them have; so a way from
 * somebody back to himself is enough to know that he never will. Only what is certain is a
 * step of such a way:
 *
 *      thread      blocked for a lock          -> what its holder is doing
 *                    (mutex, rwlock for writing, the lock of a context)
 *                  blocked in a join           -> all that the other thread is doing
 *      a wait      AIO_WAIT_WHILE that polls, and whose condition holds because of
 *                    a node, a backend         -> each request that is counted there
 *                    a coroutine               -> the coroutine
 *                    a task                    -> the loop that has to run it, or who runs it
 *                    the graph's readers       -> each of them
 *      coroutine   running                     -> its thread
 *                  yielded for a lock          -> each holder
 *                  parked                      -> the thread, as long as the section begins
 *                  for a loop to turn          -> the thread of that loop
 *
 * "What a thread is doing" since it took something are all waits that it has begun later, and
 * what it is blocked for now: its frames end in the order of their nesting. That a loop turns
 * depends on the latter only, since waits turn it.
 *
 * Whatever is not in this table may be ended by anybody: a condition of unknown cause, a
 * CoQueue, a drained section after its begin, a semaphore, a deadline.
 */
#include "miniblk/osdep.h"
#include "lab/note.h"

#define E lab__engine

/* Those who wait: the thread as it is blocked; its nth wait; the nth fact, a coroutine. */
enum {
    FIRST_WAIT = LAB_THREADS_MAX,
    FIRST_COROUTINE = FIRST_WAIT + LAB_THREADS_MAX * LAB_WAITS_MAX,
    NODES = FIRST_COROUTINE + LAB_FACTS_MAX,
    WAY_MAX = 48,               /* longer ones are not looked at */
};

typedef struct Step {
    unsigned node;
    const void *object;         /* what it waits for; NULL: a coroutine that runs */
} Step;

typedef struct Search {
    Step way[WAY_MAX];
    unsigned length;
    unsigned circle;            /* found: the way's last step leads back to this one */
    uint64_t seen[(NODES + 63) / 64];
} Search;

static unsigned wait_node(int thread, unsigned i)
{
    return FIRST_WAIT + thread * LAB_WAITS_MAX + i;
}

static const LabWaitNote *wait_of(unsigned node, int *thread)
{
    *thread = (node - FIRST_WAIT) / LAB_WAITS_MAX;
    return &lab__threads[*thread].waits[(node - FIRST_WAIT) % LAB_WAITS_MAX];
}

static const LabFact *coroutine_of(unsigned node)
{
    unsigned n;
    return &lab__facts(&n)[node - FIRST_COROUTINE];
}

/* ---- the search; each function: whether there is a circle ------------------------------- */

static bool leads_round(Search *s, unsigned node);

static bool coroutine_leads_round(Search *s, const void *co)
{
    unsigned n;
    const LabFact *f = lab__fact(co);

    return f && f->kind == LAB_FACT_COROUTINE &&
           leads_round(s, FIRST_COROUTINE + (f - lab__facts(&n)));
}

static unsigned kept_waits(int thread)
{
    return MIN(lab__threads[thread].n_waits, LAB_WAITS_MAX);
}

/* What THREAD has been doing since. */
static bool doing_leads_round(Search *s, int thread, uint32_t since)
{
    for (unsigned i = 0; i < kept_waits(thread); i++) {
        if (lab__threads[thread].waits[i].serial > since &&
            leads_round(s, wait_node(thread, i))) {
            return true;
        }
    }
    return leads_round(s, thread);
}

static bool loop_leads_round(Search *s, const void *ctx)
{
    for (int i = 0; i < E.n_threads; i++) {
        if ((E.live & lab__bit(i)) && lab__threads[i].home == ctx) {
            return leads_round(s, i);
        }
    }
    return false;
}

static bool holders_lead_round(Search *s, const void *object)
{
    unsigned n;
    const LabHold *holds = lab__holds(&n);

    for (unsigned i = 0; i < n; i++) {
        if (holds[i].object == object &&
            (holds[i].coroutine ? coroutine_leads_round(s, holds[i].coroutine)
                                : doing_leads_round(s, holds[i].thread, holds[i].since))) {
            return true;
        }
    }
    return false;
}

static bool requests_lead_round(Search *s, const void *object)
{
    unsigned n;
    const LabFact *facts = lab__facts(&n);

    for (unsigned i = 0; i < n; i++) {
        const LabFact *f = &facts[i];
        if (f->kind == LAB_FACT_REQUEST && f->active &&
            (f->counted[0] == object || f->counted[1] == object) &&
            coroutine_leads_round(s, f->coroutine)) {
            return true;
        }
    }
    return false;
}

static bool is_kind(const LabFact *f, LabFactKind kind)
{
    return f && f->kind == kind;
}

static bool task_leads_round(Search *s, const LabFact *task)
{
    return task->waits_for ? loop_leads_round(s, task->waits_for)
                           : holders_lead_round(s, task->object);
}

/* OBJECT is why a wait goes on. */
static bool cause_leads_round(Search *s, const void *object)
{
    const LabFact *f = lab__fact(object);

    if (is_kind(f, LAB_FACT_TASK)) {
        return task_leads_round(s, f);
    }
    if (is_kind(f, LAB_FACT_LOCK)) {
        return holders_lead_round(s, object);
    }
    return requests_lead_round(s, object) || coroutine_leads_round(s, object);
}

/* OBJECT is what a coroutine has yielded for. */
static bool reason_leads_round(Search *s, const void *object)
{
    const LabFact *f = lab__fact(object);

    if (is_kind(f, LAB_FACT_TASK)) {
        return task_leads_round(s, f);
    }
    return holders_lead_round(s, object) || coroutine_leads_round(s, object) ||
           loop_leads_round(s, object);
}

static bool thread_leads_round(Search *s, int i)
{
    const LabBlock *b = &lab__threads[i].block;
    const void *object = (const void *)b->op.object;

    if (!(E.blocked & lab__bit(i)) || b->deadline_ns >= 0 || b->ready(b->opaque)) {
        return false;
    }
    s->way[s->length - 1].object = object;
    if (lab__holder(b) >= 0) {
        return doing_leads_round(s, lab__holder(b), b->since ? *b->since : UINT32_MAX);
    }
    return b->op.kind == LAB_OP_FUTEX_WAIT && holders_lead_round(s, object);
}

static bool is_entered(const LabFact *co)
{
    const LabThread *t = &lab__threads[co->thread];

    for (unsigned i = 0; i < MIN(t->n_coroutines, LAB_COROUTINES_MAX); i++) {
        if (t->coroutines[i] == co->object) {
            return true;
        }
    }
    return false;
}

static bool visit(Search *s, unsigned node)
{
    if (node < FIRST_WAIT) {
        return thread_leads_round(s, node);
    }
    if (node < FIRST_COROUTINE) {
        int thread;
        const LabWaitNote *w = wait_of(node, &thread);
        s->way[s->length - 1].object = w->cause;
        return w->polls && w->cause && cause_leads_round(s, w->cause);
    }
    const LabFact *co = coroutine_of(node);
    if (is_entered(co)) {
        return leads_round(s, co->thread);
    }
    s->way[s->length - 1].object = co->waits_for;
    return co->waits_for && reason_leads_round(s, co->waits_for);
}

static bool leads_round(Search *s, unsigned node)
{
    uint64_t bit = (uint64_t)1 << node % 64;

    for (unsigned i = 0; i < s->length; i++) {
        if (s->way[i].node == node) {
            s->circle = i;
            return true;
        }
    }
    if ((s->seen[node / 64] & bit) || s->length == WAY_MAX) {
        return false;
    }
    s->seen[node / 64] |= bit;
    s->way[s->length++] = (Step) { node };
    if (visit(s, node)) {
        return true;
    }
    s->length--;
    return false;
}

/* ---- the circle in words ---------------------------------------------------------------- */

static void say_node(LabText *t, unsigned node)
{
    int thread = node;

    if (node >= FIRST_COROUTINE) {
        lab__say_coroutine(t, coroutine_of(node)->object);
        return;
    }
    if (node >= FIRST_WAIT) {
        const LabWaitNote *w = wait_of(node, &thread);
        const LabWaitNote *section = w - 1;
        lab__say(t, "%s", lab_thread_name(thread));
        if (w > lab__threads[thread].waits && section->kind == PORT_NOTE_DRAIN_BEGIN &&
            !section->settled) {
            lab__say(t, ", in drained_begin of ");
            if (section->object) {
                lab__say_object(t, section->object);
            } else {
                lab__say(t, "all nodes");
            }
        } else {
            lab__say(t, ", in AIO_WAIT_WHILE(%s)", w->text);
        }
        lab__say(t, ",");
        return;
    }
    lab__say(t, "%s", lab_thread_name(thread));
}

static void say_other(LabText *t, unsigned node)
{
    int thread = node;

    if (node >= FIRST_COROUTINE) {
        lab__say_coroutine(t, coroutine_of(node)->object);
        return;
    }
    if (node >= FIRST_WAIT) {
        wait_of(node, &thread);
    }
    lab__say(t, "%s", lab_thread_name(thread));
}

static void say_what_thread_waits_for(LabText *t, const Step *step)
{
    LabOpKind kind = lab__threads[step->node].block.op.kind;

    if (kind == LAB_OP_JOIN) {
        lab__say(t, "joins ");
    } else {
        lab__say(t, kind == LAB_OP_LOCK ? "waits for lock " : "waits for ");
        lab__say_object(t, step->object);
        lab__say(t, ", held by ");
    }
}

static void say_what_wait_waits_for(LabText *t, const Step *step)
{
    const LabFact *f = lab__fact(step->object);

    if (is_kind(f, LAB_FACT_TASK) && f->waits_for) {
        lab__say(t, "waits for a bottom half in the loop of ");
    } else if (is_kind(f, LAB_FACT_TASK) || is_kind(f, LAB_FACT_LOCK)) {
        lab__say(t, "waits for the %s of ", f->text);
    } else {
        lab__say(t, "waits for ");
    }
}

static void say_what_coroutine_waits_for(LabText *t, const Step *step, const void *next)
{
    const LabFact *co = coroutine_of(step->node), *f = lab__fact(step->object);

    if (!step->object) {
        lab__say(t, "runs in ");
    } else if (is_kind(f, LAB_FACT_LOCK)) {
        lab__say(t, "waits for %s ", co->text);
        lab__say_object(t, step->object);
        lab__say(t, ", held by ");
    } else if (next == step->object) {
        lab__say(t, "waits for %s ", co->text);
    } else {
        lab__say(t, "waits for %s of ", co->text);
    }
}

static void say_step(LabText *t, const Step *step, unsigned next)
{
    lab__say(t, "  ");
    say_node(t, step->node);
    lab__say(t, " ");
    if (step->node < FIRST_WAIT) {
        say_what_thread_waits_for(t, step);
    } else if (step->node < FIRST_COROUTINE) {
        say_what_wait_waits_for(t, step);
    } else {
        say_what_coroutine_waits_for(t, step, next < FIRST_COROUTINE ? NULL
                                              : coroutine_of(next)->object);
    }
    say_other(t, next);
    lab__say(t, "\n");
}

/* Whose name the failure has: the first thread on the circle, wherever that was found; or else
 * a coroutine. */
static unsigned most_prominent(const Search *s)
{
    unsigned best = NODES;

    for (unsigned i = s->circle; i < s->length; i++) {
        int node = s->way[i].node;
        if (node >= FIRST_WAIT && node < FIRST_COROUTINE) {
            wait_of(node, &node);
        }
        best = MIN(best, (unsigned)node);
    }
    return best;
}

static void fail(const Search *s)
{
    char buffer[1600];
    LabText t = { buffer, sizeof(buffer), 0 };

    say_other(&t, most_prominent(s));
    lab__say(&t, " would wait for itself\n");
    for (unsigned i = 0; i < s->length; i++) {
        say_step(&t, &s->way[i], s->way[i + 1 < s->length ? i + 1 : s->circle].node);
    }
    buffer[t.length - 1] = '\0';        /* the last newline */
    lab_fail(LAB_CYCLE, "%s", buffer);
}

/* ---- when to look ----------------------------------------------------------------------- */

void lab__check_circle(void)
{
    Search s = { .length = 0 };

    for (uint64_t left = E.live; left; left &= left - 1) {
        if (doing_leads_round(&s, __builtin_ctzll(left), 0)) {
            fail(&s);
        }
    }
}

void lab__check_circle_of(const void *co)
{
    Search s = { .length = 0 };

    if (coroutine_leads_round(&s, co)) {
        fail(&s);
    }
}
