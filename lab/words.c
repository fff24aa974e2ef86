/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the things of the block layer are called when the lab talks about them. */
#include "miniblk/osdep.h"
#include "lab/note.h"

void lab__say(LabText *t, const char *format, ...)
{
    va_list ap;

    if (t->length < t->size) {
        va_start(ap, format);
        int n = vsnprintf(t->buffer + t->length, t->size - t->length, format, ap);
        va_end(ap);
        t->length = MIN(t->length + n, t->size - 1);
    }
}

/* How many of that kind were met before, and F itself. */
static unsigned number_of(const LabFact *f)
{
    unsigned n, number = 0;
    const LabFact *facts = lab__facts(&n);

    for (const LabFact *i = facts; i <= f; i++) {
        number += i->kind == f->kind;
    }
    return number;
}

void lab__say_object(LabText *t, const void *object)
{
    char name[128];
    const LabFact *f = lab__fact(object);

    lab_object_name((uintptr_t)object, name, sizeof(name));
    if (f && f->kind == LAB_FACT_QUEUE && name[0] == '#') {
        lab__say(t, "Q%u", number_of(f));       /* nobody else has seen it */
    } else {
        lab__say(t, "%s", name);
    }
}

void lab__say_loop(LabText *t, const void *ctx)
{
    for (int i = 0; i < lab__engine.n_threads; i++) {
        if ((lab__engine.live & lab__bit(i)) && lab__threads[i].home == ctx) {
            lab__say(t, "%s", lab_thread_name(i));
            return;
        }
    }
    lab__say_object(t, ctx);
}

const LabFact *lab__request_of(const void *co)
{
    unsigned n;
    const LabFact *facts = lab__facts(&n), *found = NULL;

    for (unsigned i = 0; i < n; i++) {
        const LabFact *f = &facts[i];
        /* the outermost one: others it has made itself */
        if (f->kind == LAB_FACT_REQUEST && f->active && f->coroutine == co &&
            (!found || f->serial < found->serial)) {
            found = f;
        }
    }
    return found;
}

void lab__say_coroutine(LabText *t, const void *co)
{
    const LabFact *f = lab__fact(co), *request = lab__request_of(co);

    if (request) {
        lab__say(t, "request R%u (%s)", request->serial, request->text);
    } else if (f) {
        lab__say(t, "coroutine C%u", number_of(f));
    } else {
        lab__say(t, "a coroutine");
    }
}

void lab__say_holders(LabText *t, const void *object)
{
    unsigned n, said = 0;
    const LabHold *holds = lab__holds(&n);

    for (unsigned i = 0; i < n; i++) {
        if (holds[i].object == object) {
            lab__say(t, said++ ? " and " : ", held by ");
            if (holds[i].coroutine) {
                lab__say_coroutine(t, holds[i].coroutine);
            } else {
                lab__say(t, "%s", lab_thread_name(holds[i].thread));
            }
        }
    }
    if (!said) {
        lab__say(t, ", which nobody holds");
    }
}
