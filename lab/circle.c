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
 * depends on the latter only, since waits turn it. What a coroutine has taken it gives back
 * itself, perhaps after it has yielded; also the lock of a context, which belongs to its thread.
 *
 * Whatever is not in this table may be ended by anybody: a condition of unknown cause, a
 * CoQueue, a turn in a throttle group, a drained section after its begin, a semaphore, a
 * deadline.
 *
 * Two things are supposed, not checked.
 *
 *   - A lock is given back by the code that took it. If a callback does it, that runs while its
 *     thread polls in a wait begun later, a wait that would have ended is called a circle.
 *   - A loop that has to turn is turned by the thread that it is bound to. With a loop that is
 *     bound to two threads at a time, the first is believed.
 *
 * A circle is looked for when a thread blocks, when a coroutine yields, and when the step bound
 * is passed. Who closes one and never blocks is found out at the last.
 */
#include "miniblk/osdep.h"
#include "lab/note.h"

#define E lab__engine

/* One who waits: a coroutine, or a wait of a thread, or the thread as it is blocked. */
typedef struct Who {
    int thread;
    LabWaitNote *wait;          /* NULL: what it is blocked in */
    LabFact *coroutine;         /* NULL: the thread or its wait */
} Who;

typedef struct Step {
    Who who;
    const void *object;         /* what it waits for; NULL: a coroutine that runs */
    unsigned first, next;       /* whom it waits for: all of TARGETS from FIRST up to those of
                                   the next step; up to NEXT they have been followed */
} Step;

/* Depth first, from one who waits to another. */
static struct Search {
    Step *way;
    unsigned length, way_room;
    Who *targets;
    unsigned n_targets, targets_room;
    unsigned circle;            /* found: the way's last step leads back to this one */
} s;

/* ---- from one who waits to those he waits for ------------------------------------------- */

static void add(Who who)
{
    s.targets = lab__grown(s.targets, s.n_targets, &s.targets_room, sizeof(*s.targets));
    s.targets[s.n_targets++] = who;
}

static void add_coroutine(const void *co)
{
    LabFact *f = lab__fact(co);

    if (f && f->kind == LAB_FACT_COROUTINE) {
        add((Who) { .coroutine = f });
    }
}

/* What THREAD has been doing since. */
static void add_doings(int thread, uint32_t since)
{
    LabThread *t = &lab__threads[thread];

    for (unsigned i = 0; i < t->n_waits; i++) {
        if (t->waits[i].serial > since) {
            add((Who) { .thread = thread, .wait = &t->waits[i] });
        }
    }
    add((Who) { .thread = thread });
}

static void add_loop(const void *ctx)
{
    for (int i = 0; i < E.n_threads; i++) {
        if ((E.live & lab__bit(i)) && lab__threads[i].home == ctx) {
            add((Who) { .thread = i });
            return;
        }
    }
}

static void add_holders(const void *object)
{
    unsigned n;
    const LabHold *holds = lab__holds(&n);

    for (unsigned i = 0; i < n; i++) {
        if (holds[i].object == object) {
            if (holds[i].coroutine) {
                add_coroutine(holds[i].coroutine);
            } else {
                add_doings(holds[i].thread, holds[i].since);
            }
        }
    }
}

static void add_requests(const void *object)
{
    unsigned n;
    const LabFact *facts = lab__facts(&n);

    for (unsigned i = 0; i < n; i++) {
        const LabFact *f = &facts[i];
        if (f->kind == LAB_FACT_REQUEST && f->active &&
            (f->counted[0] == object || f->counted[1] == object)) {
            add_coroutine(f->coroutine);
        }
    }
}

static bool is_kind(const LabFact *f, LabFactKind kind)
{
    return f && f->kind == kind;
}

static void add_task(const LabFact *task)
{
    if (task->waits_for) {
        add_loop(task->waits_for);
    } else {
        add_holders(task->object);
    }
}

/* OBJECT is why a wait goes on. */
static void add_cause(const void *object)
{
    const LabFact *f = lab__fact(object);

    if (is_kind(f, LAB_FACT_TASK)) {
        add_task(f);
    } else if (is_kind(f, LAB_FACT_LOCK)) {
        add_holders(object);
    } else {
        add_requests(object);
        add_coroutine(object);
    }
}

/* OBJECT is what a coroutine has yielded for. */
static void add_reason(const void *object)
{
    const LabFact *f = lab__fact(object);

    if (is_kind(f, LAB_FACT_TASK)) {
        add_task(f);
    } else {
        add_holders(object);
        add_coroutine(object);
        add_loop(object);
    }
}

/* Each of the following returns what it waits for. */
static const void *follow_thread(int i)
{
    const LabBlock *b = &lab__threads[i].block;
    const void *object = (const void *)b->op.object;

    if (!(E.blocked & lab__bit(i)) || b->deadline_ns >= 0 || b->ready(b->opaque)) {
        return NULL;
    }
    if (lab__holder(b) >= 0) {
        add_doings(lab__holder(b), b->since ? *b->since : UINT32_MAX);
    } else if (b->op.kind == LAB_OP_FUTEX_WAIT) {
        add_holders(object);
    }
    return object;
}

static const void *follow_wait(const LabWaitNote *w)
{
    if (w->polls && w->cause) {
        add_cause(w->cause);
    }
    return w->cause;
}

static bool is_entered(const LabFact *co)
{
    const LabThread *t = &lab__threads[co->thread];

    for (unsigned i = 0; i < t->n_coroutines; i++) {
        if (t->coroutines[i].coroutine == co->object) {
            return true;
        }
    }
    return false;
}

static const void *follow_coroutine(const LabFact *co)
{
    if (is_entered(co)) {
        add((Who) { .thread = co->thread });
        return NULL;
    }
    if (co->waits_for) {
        add_reason(co->waits_for);
    }
    return co->waits_for;
}

/* ---- the search ------------------------------------------------------------------------ */

/* Since this search began: on the way, or known to lead nowhere. */
#define ON_THE_WAY (E.searches)
#define DONE       (E.searches + 1)

static uint32_t *mark_of(Who who)
{
    return who.coroutine ? &who.coroutine->mark
           : who.wait ? &who.wait->mark : &lab__threads[who.thread].mark;
}

static bool is_same(Who a, Who b)
{
    return mark_of(a) == mark_of(b);
}

static void begin(void)
{
    E.searches += 2;
    s.length = s.n_targets = 0;
}

static void visit(Who who)
{
    unsigned first = s.n_targets;
    const void *object = who.coroutine ? follow_coroutine(who.coroutine)
                         : who.wait ? follow_wait(who.wait) : follow_thread(who.thread);

    *mark_of(who) = ON_THE_WAY;
    s.way = lab__grown(s.way, s.length, &s.way_room, sizeof(*s.way));
    s.way[s.length++] = (Step) { who, object, first, first };
}

/* Nobody whom the last step waits for leads round. */
static void go_back(void)
{
    const Step *last = &s.way[--s.length];

    *mark_of(last->who) = DONE;
    s.n_targets = last->first;
}

/* Whether there is a circle that START can get to. */
static bool leads_round(Who start)
{
    if (*mark_of(start) == DONE) {
        return false;
    }
    visit(start);
    while (s.length > 0) {
        Step *last = &s.way[s.length - 1];

        if (last->next == s.n_targets) {
            go_back();
            continue;
        }
        Who next = s.targets[last->next++];
        if (*mark_of(next) == ON_THE_WAY) {
            for (s.circle = 0; !is_same(s.way[s.circle].who, next); s.circle++) {
            }
            return true;
        }
        if (*mark_of(next) != DONE) {
            visit(next);
        }
    }
    return false;
}

/* ---- the circle in words ---------------------------------------------------------------- */

static void say_who(LabText *t, Who who)
{
    if (who.coroutine) {
        lab__say_coroutine(t, who.coroutine->object);
    } else {
        lab__say(t, "%s", lab_thread_name(who.thread));
    }
}

/* With the call that it is in. */
static void say_waiter(LabText *t, Who who)
{
    const LabWaitNote *w = who.wait, *section;

    say_who(t, who);
    if (!w) {
        return;
    }
    section = w > lab__threads[who.thread].waits ? w - 1 : NULL;
    if (section && section->kind == PORT_NOTE_DRAIN_BEGIN && !section->settled) {
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
}

static void say_what_thread_waits_for(LabText *t, const Step *step)
{
    LabOpKind kind = lab__threads[step->who.thread].block.op.kind;

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

static void say_what_coroutine_waits_for(LabText *t, const Step *step, Who next)
{
    const LabFact *co = step->who.coroutine, *f = lab__fact(step->object);

    if (!step->object) {
        lab__say(t, "runs in ");
    } else if (is_kind(f, LAB_FACT_LOCK)) {
        lab__say(t, "waits for %s ", co->text);
        lab__say_object(t, step->object);
        lab__say(t, ", held by ");
    } else if (next.coroutine && next.coroutine->object == step->object) {
        lab__say(t, "waits for %s ", co->text);
    } else {
        lab__say(t, "waits for %s of ", co->text);
    }
}

static void say_step(LabText *t, const Step *step, Who next)
{
    lab__say(t, "  ");
    say_waiter(t, step->who);
    lab__say(t, " ");
    if (step->who.coroutine) {
        say_what_coroutine_waits_for(t, step, next);
    } else if (step->who.wait) {
        say_what_wait_waits_for(t, step);
    } else {
        say_what_thread_waits_for(t, step);
    }
    say_who(t, next);
    lab__say(t, "\n");
}

/* Whose name the failure has: the first thread on the circle, wherever that was found; or else
 * a coroutine. */
static Who most_prominent(void)
{
    Who best = s.way[s.circle].who;

    for (unsigned i = s.circle; i < s.length; i++) {
        Who who = s.way[i].who;
        bool better = who.coroutine ? best.coroutine && who.coroutine < best.coroutine
                      : best.coroutine || who.thread < best.thread;
        best = better ? who : best;
    }
    return best;
}

static G_GNUC_NORETURN void fail(void)
{
    enum { ENDS = 8 };          /* steps told of a long way, at either end */
    char buffer[1800];
    LabText t = { buffer, sizeof(buffer), 0 };

    say_who(&t, most_prominent());
    lab__say(&t, " would wait for itself\n");
    for (unsigned i = 0; i < s.length; i++) {
        if (i == ENDS && s.length > 2 * ENDS + 1) {
            lab__say(&t, "  ... %u more ...\n", s.length - 2 * ENDS);
            i = s.length - ENDS;
        }
        say_step(&t, &s.way[i], s.way[i + 1 < s.length ? i + 1 : s.circle].who);
    }
    buffer[t.length - 1] = '\0';        /* the last newline */
    lab_fail(LAB_CYCLE, "%s", buffer);
}

/* ---- when to look ----------------------------------------------------------------------- */

void lab__check_circle(void)
{
    begin();
    for (uint64_t left = E.live; left; left &= left - 1) {
        int thread = __builtin_ctzll(left);
        LabThread *t = &lab__threads[thread];

        for (unsigned i = 0; i < t->n_waits; i++) {
            if (leads_round((Who) { .thread = thread, .wait = &t->waits[i] })) {
                fail();
            }
        }
        if (leads_round((Who) { .thread = thread })) {
            fail();
        }
    }
}

void lab__check_circle_of(const void *co)
{
    LabFact *f = lab__fact(co);

    begin();
    if (f->kind == LAB_FACT_COROUTINE && leads_round((Who) { .coroutine = f })) {
        fail();
    }
}
