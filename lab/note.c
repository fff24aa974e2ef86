/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the library says about itself (aio/port-note.h): names, sections, requests, what
 * coroutines wait for. Kept as facts about objects, for waitfor.c.
 */
#include "miniblk/osdep.h"
#include "lab/note.h"

enum { INDEX = 4 * LAB_FACTS_MAX };

/* In the order in which they were noted; found by a hash of the address. */
static LabFact facts[LAB_FACTS_MAX] LAB_LAST;
static unsigned n_facts LAB_LAST;
static uint16_t by_address[INDEX] LAB_LAST;      /* number + 1 */

static uint16_t *slot_of(const void *object)
{
    unsigned i = ((uintptr_t)object * 0x9e3779b97f4a7c15) >> 32;
    while (by_address[i % INDEX] && facts[by_address[i % INDEX] - 1].object != object) {
        i++;
    }
    return &by_address[i % INDEX];
}

const LabFact *lab__fact(const void *object)
{
    uint16_t *slot = slot_of(object);
    return *slot ? &facts[*slot - 1] : NULL;
}

static LabFact *fact_for(const void *object)
{
    uint16_t *slot = slot_of(object);
    if (!*slot) {
        if (n_facts == LAB_FACTS_MAX) {
            return NULL;
        }
        facts[n_facts] = (LabFact) { .object = object };
        *slot = ++n_facts;
    }
    return &facts[*slot - 1];
}

const LabFact *lab__facts(unsigned *count)
{
    *count = n_facts;
    return facts;
}

const char *lab__note_name(const void *object)
{
    const LabFact *f = lab__fact(object);
    return f && f->kind == LAB_FACT_NAME && f->text[0] ? f->text : NULL;
}

static void push_wait(PortNote note, const void *object, const char *text)
{
    LabThread *t = lab__self();
    if (t->n_waits < LAB_WAITS_MAX) {
        t->waits[t->n_waits] = (LabWaitNote) { note, object, text };
    }
    t->n_waits++;
}

static void pop_wait(PortNote note)
{
    LabThread *t = lab__self();
    /* sections end in any order, and perhaps in another thread: the last of its kind */
    for (unsigned i = MIN(t->n_waits, LAB_WAITS_MAX); i-- > 0;) {
        if (t->waits[i].kind == note) {
            unsigned kept = MIN(t->n_waits, LAB_WAITS_MAX);
            memmove(&t->waits[i], &t->waits[i + 1], (kept - i - 1) * sizeof(t->waits[0]));
            t->n_waits--;
            return;
        }
    }
}

static void enter(const void *co)
{
    LabThread *t = lab__self();
    LabFact *f = fact_for(co);

    if (f) {
        f->kind = LAB_FACT_COROUTINE;
        f->waits_for = NULL;
        f->thread = lab__engine.self;
    }
    if (t->n_coroutines < LAB_COROUTINES_MAX) {
        t->coroutines[t->n_coroutines] = co;
        t->mutexes_before[t->n_coroutines] = t->mutexes;
    }
    t->n_coroutines++;
}

static const void *coroutine_here(void)
{
    const LabThread *t = lab__self();
    return t->n_coroutines > 0 && t->n_coroutines <= LAB_COROUTINES_MAX
           ? t->coroutines[t->n_coroutines - 1] : NULL;
}

static void yield(void)
{
    LabThread *t = lab__self();
    unsigned top = t->n_coroutines - 1;

    if (t->n_coroutines == 0) {
        return;
    }
    if (top < LAB_COROUTINES_MAX && t->mutexes > t->mutexes_before[top]) {
        lab_fail(LAB_ORACLE, "a coroutine yields in %s while it holds a mutex (%u of them)",
                 t->name, t->mutexes - t->mutexes_before[top]);
    }
    t->n_coroutines--;
}

static void co_wait(const void *object, const char *text)
{
    LabFact *f = fact_for(coroutine_here());
    /* the outermost reason: a parked request waits in a queue, which says less */
    if (f && !f->waits_for) {
        f->waits_for = object;
        snprintf(f->text, sizeof(f->text), "%s", text);
    }
}

/* OBJECT is a request (or a lock) of the running coroutine from now on, or not any more. */
static void set_owner(const void *object, LabFactKind kind, const char *text, bool active)
{
    LabFact *f = fact_for(object);
    if (f) {
        f->kind = kind;
        f->active = active;
        f->coroutine = active ? coroutine_here() : NULL;
        f->thread = lab__engine.self;
        f->serial = active && kind == LAB_FACT_REQUEST ? ++lab__engine.requests : f->serial;
        if (text[0]) {
            snprintf(f->text, sizeof(f->text), "%s", text);
        }
    }
}

static bool has_text(PortNote note)
{
    return note == PORT_NOTE_NAME || note == PORT_NOTE_REQUEST_BEGIN ||
           note == PORT_NOTE_JOB || note == PORT_NOTE_COMMAND_BEGIN;
}

void lab_note(PortNote note, const void *object, const char *format, ...)
{
    char text[LAB_FACT_TEXT] = "";

    if (format && has_text(note)) {
        va_list ap;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
    }
    if (lab_running && lab__limits.record) {
        lab__trace_event(LAB_EVENT_NOTE, -1, note, object, has_text(note) ? text : format);
    }
    switch (note) {
    case PORT_NOTE_NAME:
        set_owner(object, LAB_FACT_NAME, text, false);
        break;
    case PORT_NOTE_DRAIN_BEGIN:
        push_wait(note, object, NULL);
        break;
    case PORT_NOTE_DRAIN_END:
        pop_wait(PORT_NOTE_DRAIN_BEGIN);
        break;
    case PORT_NOTE_WAIT_BEGIN:
        break;                  /* lab_wait_note() */
    case PORT_NOTE_WAIT_END:
        pop_wait(PORT_NOTE_WAIT_BEGIN);
        break;
    case PORT_NOTE_REQUEST_BEGIN:
        set_owner(object, LAB_FACT_REQUEST, text, true);
        break;
    case PORT_NOTE_REQUEST_END:
        set_owner(object, LAB_FACT_REQUEST, "", false);
        break;
    case PORT_NOTE_REQUEST_PARK:
        co_wait(object, "the end of a drained section");
        break;
    case PORT_NOTE_ENTER:
        enter(object);
        break;
    case PORT_NOTE_YIELD:
        yield();
        break;
    case PORT_NOTE_CO_WAIT:
        co_wait(object, format);
        break;
    case PORT_NOTE_CO_HOLD:
        set_owner(object, LAB_FACT_LOCK, format, true);
        break;
    case PORT_NOTE_CO_RELEASE:
        set_owner(object, LAB_FACT_LOCK, "", false);
        break;
    case PORT_NOTE_JOB:
        set_owner(object, LAB_FACT_JOB, text, true);
        break;
    case PORT_NOTE_COMMAND_BEGIN:
        for (unsigned i = 0; i < MIN(lab__self()->n_waits, LAB_WAITS_MAX); i++) {
            if (lab__self()->waits[i].kind == PORT_NOTE_WAIT_BEGIN) {
                lab_fail(LAB_ORACLE, "command '%s' starts inside AIO_WAIT_WHILE(%s)", text,
                         lab__self()->waits[i].text);
            }
        }
        break;
    case PORT_NOTE_DRAIN_SETTLED:
    case PORT_NOTE_MOVE:
    case PORT_NOTE_COMMAND_END:
        break;
    }
}

void lab_wait_note(const char *condition)
{
    if (lab_running && lab__limits.record) {
        lab__trace_event(LAB_EVENT_NOTE, -1, PORT_NOTE_WAIT_BEGIN, NULL, condition);
    }
    push_wait(PORT_NOTE_WAIT_BEGIN, NULL, condition);
}

void lab__check_left_over(void)
{
    const LabThread *t = lab__self();
    char name[80];

    for (unsigned i = 0; i < MIN(t->n_waits, LAB_WAITS_MAX); i++) {
        const void *node = t->waits[i].object;
        if (t->waits[i].kind == PORT_NOTE_DRAIN_BEGIN) {
            lab_fail(LAB_ORACLE, "the case ends in a drained section of %s",
                     node ? lab_object_name((uintptr_t)node, name, sizeof(name))
                          : "all nodes");
        }
    }
    for (unsigned i = 0; i < n_facts; i++) {
        if (facts[i].kind == LAB_FACT_REQUEST && facts[i].active) {
            lab_fail(LAB_ORACLE, "the case ends with a request in flight: %s", facts[i].text);
        }
    }
}
