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

void lab__say_object(LabText *t, const void *object)
{
    char name[80];

    lab__say(t, "%s", lab_object_name((uintptr_t)object, name, sizeof(name)));
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
    unsigned n, number = 0;
    const LabFact *facts = lab__facts(&n), *request = lab__request_of(co);

    if (request) {
        lab__say(t, "request R%u (%s)", request->serial, request->text);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        number += facts[i].kind == LAB_FACT_COROUTINE;
        if (facts[i].object == co) {
            break;
        }
    }
    lab__say(t, "coroutine C%u", number);
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
