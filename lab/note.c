/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's notes (aio/port-note.h) as they come in: names, sections, requests, what
 * coroutines and threads wait for. Checks the rules that can be seen here.
 */
#include "miniblk/osdep.h"
#include "lab/note.h"

#define E lab__engine

/* ---- what a thread waits for, in calls that nest ---------------------------------------- */

static void push_wait(PortNote note, const void *object, const char *text)
{
    LabThread *t = lab__self();

    t->waits = lab__grown(t->waits, t->n_waits, &t->waits_room, sizeof(*t->waits));
    t->waits[t->n_waits++] = (LabWaitNote) { .kind = note, .serial = ++E.waits,
                                             .object = object, .text = text };
}

/* The innermost one of this kind; NULL: none. */
static LabWaitNote *innermost(PortNote kind)
{
    LabThread *t = lab__self();

    for (unsigned i = t->n_waits; i-- > 0;) {
        if (t->waits[i].kind == kind) {
            return &t->waits[i];
        }
    }
    return NULL;
}

static void remove_wait(LabWaitNote *w)
{
    LabThread *t = lab__self();
    unsigned i = w - t->waits;

    t->n_waits--;
    memmove(w, w + 1, (t->n_waits - i) * sizeof(*w));
}

static void wait_end(const void *object, const char *text)
{
    LabWaitNote *w = innermost(PORT_NOTE_WAIT_BEGIN);

    if (w) {
        remove_wait(w);
    }
}

static void wait_poll(const void *object, const char *text)
{
    LabWaitNote *w = innermost(PORT_NOTE_WAIT_BEGIN);

    if (w) {
        w->polls = true;
    }
}

static void wait_look(const void *object, const char *text)
{
    LabWaitNote *w = innermost(PORT_NOTE_WAIT_BEGIN);

    if (w) {
        w->polls = false;
        w->cause = NULL;
    }
}

/* Callbacks look at conditions that are not theirs: only the answer to a wait's own counts. */
static void wait_for(const void *object, const char *text)
{
    LabWaitNote *w = innermost(PORT_NOTE_WAIT_BEGIN);

    if (w && !w->polls) {
        w->cause = object;
    }
}

void lab_wait_note(const char *condition)
{
    if (lab_running && lab__limits.record) {
        lab__trace_event(LAB_EVENT_NOTE, -1, PORT_NOTE_WAIT_BEGIN, NULL, condition);
    }
    push_wait(PORT_NOTE_WAIT_BEGIN, NULL, condition);
}

/* ---- drained sections ------------------------------------------------------------------ */

static void drain_begin(const void *object, const char *text)
{
    push_wait(PORT_NOTE_DRAIN_BEGIN, object, NULL);
}

/* From here on anybody in the main loop may end the section. */
static void drain_settled(const void *object, const char *text)
{
    LabThread *t = lab__self();

    for (unsigned i = t->n_waits; i-- > 0;) {
        LabWaitNote *w = &t->waits[i];
        if (w->kind == PORT_NOTE_DRAIN_BEGIN && w->object == object && !w->settled) {
            w->settled = true;
            lab__hold_end_section(w->serial);
            return;
        }
    }
}

/* Sections end in any order, and perhaps in another thread. */
static void drain_end(const void *object, const char *text)
{
    LabThread *t = lab__self();
    LabWaitNote *found = innermost(PORT_NOTE_DRAIN_BEGIN);

    for (unsigned i = t->n_waits; found && i-- > 0;) {
        if (t->waits[i].kind == PORT_NOTE_DRAIN_BEGIN && t->waits[i].object == object) {
            found = &t->waits[i];
            break;
        }
    }
    if (found) {
        remove_wait(found);
    }
}

static void quiesce(const void *object, const char *text)
{
    const LabThread *t = lab__self();
    unsigned n = t->n_waits;

    /* or else it is another section, which came to the graph while this one waits */
    if (n > 0 && t->waits[n - 1].kind == PORT_NOTE_DRAIN_BEGIN) {
        uint32_t serial = t->waits[n - 1].serial;
        lab__hold_add(&(LabHold) { .object = object, .thread = E.self, .since = serial,
                                   .section = serial });
    }
}

static void resume(const void *object, const char *text)
{
    lab__hold_clear(object);
}

/* ---- coroutines ------------------------------------------------------------------------ */

static const void *coroutine_here(void)
{
    const LabThread *t = lab__self();
    return t->n_coroutines > 0 ? t->coroutines[t->n_coroutines - 1].coroutine : NULL;
}

static void enter(const void *co, const char *text)
{
    LabThread *t = lab__self();
    LabFact *f = lab__fact_for(co);

    if (f) {
        f->kind = LAB_FACT_COROUTINE;
        f->waits_for = NULL;
        f->thread = E.self;
    }
    t->coroutines = lab__grown(t->coroutines, t->n_coroutines, &t->coroutines_room,
                               sizeof(*t->coroutines));
    t->coroutines[t->n_coroutines++] = (LabEntered) { co, t->mutexes };
}

static void yield(const void *co, const char *text)
{
    LabThread *t = lab__self();

    if (t->n_coroutines == 0) {
        return;
    }
    unsigned before = t->coroutines[--t->n_coroutines].mutexes_before;
    if (t->mutexes > before) {
        lab_fail(LAB_ORACLE, "a coroutine yields in %s while it holds a mutex (%u of them)",
                 t->name, t->mutexes - before);
    }
    const LabFact *f = lab__fact(co);
    if (f && f->waits_for) {
        lab__check_circle_of(co);
    }
}

/* It will be another one when it is entered again. */
static void co_end(const void *co, const char *text)
{
    for (int i = 0; i < E.n_threads; i++) {
        LabThread *t = &lab__threads[i];
        for (unsigned w = 0; w < t->n_waits; w++) {
            t->waits[w].cause = t->waits[w].cause == co ? NULL : t->waits[w].cause;
        }
    }
    lab__hold_forget(co);
}

static void co_wait(const void *object, const char *text)
{
    const void *co = coroutine_here();
    LabFact *f = co ? lab__fact_for(co) : NULL;
    /* the outermost reason: a parked request waits in a queue, which says less */
    if (f && !f->waits_for) {
        f->waits_for = object;
        f->at = E.steps;
        snprintf(f->text, sizeof(f->text), "%s", text);
    }
}

/* The fact of OBJECT, which is of that kind and may have a name; NULL: there are too many. */
static LabFact *fact_of_kind(const void *object, LabFactKind kind)
{
    LabFact *f = lab__fact_for(object);

    if (f && f->kind != kind) {
        if (f->kind != LAB_FACT_NAME) {
            f->text[0] = '\0';
        }
        f->kind = kind;
        f->at = 0;
        f->waits_for = NULL;
    }
    return f;
}

static void co_queue(const void *queue, const char *text)
{
    fact_of_kind(queue, LAB_FACT_QUEUE);
    co_wait(queue, "CoQueue");
}

/* Somebody wakes a waiter of a queue, if there is one. */
static void wake(const void *queue, const char *text)
{
    LabFact *f = fact_of_kind(queue, LAB_FACT_QUEUE);

    if (f) {
        f->at = E.steps;
        f->thread = E.self;
    }
}

static void park(const void *object, const char *text)
{
    co_wait(object, "the end of a drained section");
}

static void share(const void *object, const char *text)
{
    LabFact *f = lab__fact_for(object);

    if (f) {
        /* a task that runs now remains one */
        f->kind = f->kind == LAB_FACT_TASK ? f->kind : LAB_FACT_LOCK;
        f->waits_for = NULL;
        snprintf(f->text, sizeof(f->text), "%s", text);
    }
    lab__hold_add(&(LabHold) { .object = object, .coroutine = coroutine_here(),
                               .thread = E.self, .since = E.waits });
}

static void hold(const void *object, const char *text)
{
    lab__hold_clear(object);
    share(object, text);
}

static void release(const void *object, const char *text)
{
    lab__hold_remove(object, coroutine_here());
}

static void thread_hold(const void *object, const char *text)
{
    /* given back by the coroutine that took it, which may yield before */
    lab__hold_add(&(LabHold) { .object = object, .coroutine = coroutine_here(),
                               .thread = E.self, .since = E.waits });
}

/* Who waits for DIRECTION is served next by a timer of CTX; NULL: by nobody. */
static void served(const void *direction, const void *ctx)
{
    LabFact *f = fact_of_kind(direction, LAB_FACT_TURN);

    if (f) {
        f->waits_for = ctx;
    }
}

/* What was said to be waited for is over: it is on its way. */
static void schedule(const void *object, const void *ctx)
{
    LabFact *f = lab__fact_for(object);

    if (f) {
        f->kind = f->kind == LAB_FACT_COROUTINE ? f->kind : LAB_FACT_TASK;
        f->waits_for = ctx;
        snprintf(f->text, sizeof(f->text), "its turn in the loop");
    }
}

static void home(const void *ctx, const char *text)
{
    lab__self()->home = ctx;
}

/* ---- objects --------------------------------------------------------------------------- */

static void name(const void *object, const char *text)
{
    LabFact *f = lab__fact_for(object);

    if (f) {
        f->kind = LAB_FACT_NAME;
        snprintf(f->text, sizeof(f->text), "%s", text);
    }
}

static void job(const void *object, const char *text)
{
    LabFact *f = lab__fact_for(object);

    if (f) {
        f->kind = LAB_FACT_JOB;
        snprintf(f->text, sizeof(f->text), "%s", text);
    }
}

static void request_begin(const void *object, const char *text)
{
    LabFact *f = lab__fact_for(object);

    if (f) {
        f->kind = LAB_FACT_REQUEST;
        f->active = true;
        f->coroutine = coroutine_here();
        f->thread = E.self;
        f->serial = ++E.requests;
        f->counted[0] = f->counted[1] = f->waits_for = NULL;
        snprintf(f->text, sizeof(f->text), "%s", text);
    }
}

static void request_end(const void *object, const char *text)
{
    LabFact *f = lab__fact_for(object);

    if (f) {
        f->active = false;
    }
}

static void counted(const void *object, const void *in)
{
    LabFact *f = lab__fact_for(object);

    if (f) {
        f->counted[f->counted[0] ? 1 : 0] = in;
    }
}

static void command_begin(const void *object, const char *text)
{
    const LabThread *t = lab__self();

    for (unsigned i = 0; i < t->n_waits; i++) {
        if (t->waits[i].kind == PORT_NOTE_WAIT_BEGIN) {
            lab_fail(LAB_ORACLE, "command '%s' starts inside AIO_WAIT_WHILE(%s)", text,
                     t->waits[i].text);
        }
    }
}

/* ---- all of them ----------------------------------------------------------------------- */

static const struct {
    void (*take)(const void *object, const char *text);         /* NULL: only drawn */
    bool drawn;
    bool formatted;             /* its text is a format */
} notes[] = {
    [PORT_NOTE_NAME] = { name, true, true },
    [PORT_NOTE_DRAIN_BEGIN] = { drain_begin, true },
    [PORT_NOTE_DRAIN_SETTLED] = { drain_settled, true },
    [PORT_NOTE_DRAIN_END] = { drain_end, true },
    [PORT_NOTE_REQUEST_BEGIN] = { request_begin, true, true },
    [PORT_NOTE_REQUEST_END] = { request_end, true },
    [PORT_NOTE_REQUEST_PARK] = { park, true },
    [PORT_NOTE_MOVE] = { NULL, true },
    [PORT_NOTE_ENTER] = { enter, true },
    [PORT_NOTE_YIELD] = { yield, true },
    [PORT_NOTE_CO_WAIT] = { co_wait, true },
    [PORT_NOTE_CO_QUEUE] = { co_queue, true },
    [PORT_NOTE_CO_HOLD] = { hold, true },
    [PORT_NOTE_CO_SHARE] = { share, true },
    [PORT_NOTE_CO_RELEASE] = { release, true },
    [PORT_NOTE_CO_WAKE] = { wake },
    [PORT_NOTE_WAIT_BEGIN] = { NULL, true },    /* lab_wait_note() */
    [PORT_NOTE_WAIT_END] = { wait_end, true },
    [PORT_NOTE_JOB] = { job, true, true },
    [PORT_NOTE_COMMAND_BEGIN] = { command_begin, true, true },
    [PORT_NOTE_COMMAND_END] = { NULL, true },
    [PORT_NOTE_HOME] = { home },
    [PORT_NOTE_THREAD_HOLD] = { thread_hold },
    [PORT_NOTE_THREAD_RELEASE] = { release },
    [PORT_NOTE_CO_END] = { co_end },
    [PORT_NOTE_WAIT_POLL] = { wait_poll },
    [PORT_NOTE_WAIT_LOOK] = { wait_look },
    [PORT_NOTE_WAIT_FOR] = { wait_for },
    [PORT_NOTE_QUIESCE] = { quiesce },
    [PORT_NOTE_RESUME] = { resume },
};

/* Requests are called as in who waits for whom: R1, R2... */
static void trace_note(PortNote note, const void *object, const char *text)
{
    char request[LAB_FACT_TEXT + 16];
    const LabFact *f;

    if (note == PORT_NOTE_REQUEST_BEGIN) {
        snprintf(request, sizeof(request), "R%u: %s", E.requests + 1, text);
        text = request;
    } else if (note == PORT_NOTE_REQUEST_END && (f = lab__fact(object))) {
        snprintf(request, sizeof(request), "R%u", f->serial);
        text = request;
    }
    lab__trace_event(LAB_EVENT_NOTE, -1, note, object, text);
}

void lab_note(PortNote note, const void *object, const char *format, ...)
{
    char formatted[LAB_FACT_TEXT];
    const char *text = format;

    if (format && notes[note].formatted) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(formatted, sizeof(formatted), format, ap);
        va_end(ap);
        text = formatted;
    }
    if (lab_running && lab__limits.record && notes[note].drawn) {
        trace_note(note, object, text);
    }
    if (notes[note].take) {
        notes[note].take(object, text);
    }
}

void lab_note_pair(PortNote note, const void *object, const void *other)
{
    switch (note) {
    case PORT_NOTE_SCHEDULE:
        schedule(object, other);
        break;
    case PORT_NOTE_SERVED:
        served(object, other);
        break;
    default:
        counted(object, other);
        break;
    }
}

void lab__check_left_over(void)
{
    const LabThread *t = lab__self();
    unsigned n;
    const LabFact *facts = lab__facts(&n);
    char node_name[80];

    for (unsigned i = 0; i < t->n_waits; i++) {
        const void *node = t->waits[i].object;
        if (t->waits[i].kind == PORT_NOTE_DRAIN_BEGIN) {
            lab_fail(LAB_ORACLE, "the case ends in a drained section of %s",
                     node ? lab_object_name((uintptr_t)node, node_name, sizeof(node_name))
                          : "all nodes");
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_REQUEST && facts[i].active) {
            lab_fail(LAB_ORACLE, "the case ends with a request in flight: %s", facts[i].text);
        }
    }
}
