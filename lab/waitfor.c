/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who waits for whom, in words: each thread with the call it is in and what it sleeps for,
 * then each request in flight with what its coroutine waits for, and who holds that.
 */
#include "miniblk/osdep.h"
#include "lab/note.h"

typedef struct Text {
    char *buffer;
    size_t size, length;
} Text;

static void G_GNUC_PRINTF(2, 3) say(Text *t, const char *format, ...)
{
    va_list ap;

    if (t->length < t->size) {
        va_start(ap, format);
        int n = vsnprintf(t->buffer + t->length, t->size - t->length, format, ap);
        va_end(ap);
        t->length = MIN(t->length + n, t->size - 1);
    }
}

static const char *name_of(uintptr_t object, char name[80])
{
    return lab_object_name(object, name, 80);
}

/* ---- coroutines ------------------------------------------------------------------------ */

/* The request that CO carries out; NULL: none. */
static const LabFact *request_of(const void *co)
{
    unsigned n;
    const LabFact *facts = lab__facts(&n);

    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_REQUEST && facts[i].active && facts[i].coroutine == co) {
            return &facts[i];
        }
    }
    return NULL;
}

/* What CO is doing, as far as it is known: its request, or its place among the coroutines. */
static void say_coroutine(Text *t, const void *co)
{
    unsigned n, number = 0;
    const LabFact *facts = lab__facts(&n), *request = request_of(co);

    if (request) {
        say(t, "request R%u (%s)", request->serial, request->text);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        number += facts[i].kind == LAB_FACT_COROUTINE;
        if (facts[i].object == co) {
            break;
        }
    }
    say(t, "coroutine C%u", number);
}

static void say_what_coroutine_waits_for(Text *t, const void *co)
{
    const LabFact *f = lab__fact(co);
    char name[80];

    if (!f || f->kind != LAB_FACT_COROUTINE) {
        return;
    }
    say(t, " last ran in %s", lab_thread_name(f->thread));
    if (!f->waits_for) {
        return;
    }
    say(t, " and waits for %s", f->text);
    const LabFact *lock = lab__fact(f->waits_for);
    if (lock && lock->kind == LAB_FACT_LOCK) {
        say(t, " %s", name_of((uintptr_t)lock->object, name));
        if (lock->active) {
            say(t, ", held by ");
            say_coroutine(t, lock->coroutine);
        } else {
            say(t, ", which nobody holds");
        }
    } else if (lab__note_name(f->waits_for)) {
        say(t, " of %s", lab__note_name(f->waits_for));
    }
}

static void say_requests(Text *t)
{
    unsigned n, said = 0;
    const LabFact *facts = lab__facts(&n);

    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_REQUEST && facts[i].active) {
            say(t, "%s\n  R%u: %s, begun in %s", said++ ? "" : "requests in flight:",
                facts[i].serial, facts[i].text, lab_thread_name(facts[i].thread));
            if (facts[i].coroutine) {
                say(t, ", whose coroutine");
                say_what_coroutine_waits_for(t, facts[i].coroutine);
            }
        }
    }
    if (said) {
        say(t, "\n");
    }
    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_COROUTINE && facts[i].waits_for &&
            !request_of(facts[i].object)) {
            say(t, "  ");
            say_coroutine(t, facts[i].object);
            say_what_coroutine_waits_for(t, facts[i].object);
            say(t, "\n");
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_JOB && facts[i].text[0]) {
            say(t, "  job %s\n", facts[i].text);
        }
    }
}

/* ---- threads --------------------------------------------------------------------------- */

static void say_sleep(Text *t, const LabThread *thread)
{
    const LabBlock *b = &thread->block;
    char name[80];

    name_of(b->op.object, name);
    switch (b->op.kind) {
    case LAB_OP_LOCK:
        say(t, "waits for lock %s", name);
        break;
    case LAB_OP_JOIN:
        say(t, "joins %s", name);
        break;
    case LAB_OP_WAIT:
        say(t, "waits for condition variable %s", name);
        break;
    case LAB_OP_FUTEX_WAIT:
        say(t, "waits for futex %s", name);
        break;
    case LAB_OP_POLL_RETURN:
        if (b->op.object) {
            say(t, "sleeps in %s, nothing is ready", name);
        } else {
            say(t, "sleeps in poll(), nothing is ready");
        }
        break;
    case LAB_OP_EVENT_READ:
    case LAB_OP_EVENT_WRITE:
        say(t, "blocks in %s of %s", lab_op_name(b->op.kind), name);
        break;
    default:
        say(t, "blocks in %s of %s", b->op.where ? b->op.where : lab_op_name(b->op.kind),
            name);
        break;
    }
    if (b->op.kind != LAB_OP_JOIN && lab__holder(b) >= 0) {
        say(t, ", held by %s", lab_thread_name(lab__holder(b)));
    }
    if (b->deadline_ns >= 0) {
        say(t, ", for %" PRId64 " us at most",
            (b->deadline_ns - lab__engine.now_ns) / 1000);
    }
}

static void say_thread(Text *t, int i)
{
    const LabThread *thread = &lab__threads[i];
    char name[80];

    say(t, "  %s: ", thread->name);
    for (unsigned w = 0; w < MIN(thread->n_waits, LAB_WAITS_MAX); w++) {
        const LabWaitNote *note = &thread->waits[w];
        if (note->kind == PORT_NOTE_WAIT_BEGIN) {
            say(t, "AIO_WAIT_WHILE(%s), ", note->text);
        } else if (note->object) {
            say(t, "drained section of %s, ", name_of((uintptr_t)note->object, name));
        } else {
            say(t, "drained section of all nodes, ");
        }
    }
    if (lab__engine.blocked & lab__bit(i)) {
        say_sleep(t, thread);
    } else {
        say(t, "runs; next: %s %s", lab_op_name(thread->op.kind),
            thread->op.object ? name_of(thread->op.object, name) : "");
    }
    say(t, "\n");
}

size_t lab__waitfor_text(char *buffer, size_t size)
{
    Text t = { buffer, size, 0 };

    buffer[0] = '\0';
    say(&t, "who waits for whom:\n");
    for (int i = 0; i < lab__engine.n_threads; i++) {
        if (lab__engine.live & lab__bit(i)) {
            say_thread(&t, i);
        }
    }
    say_requests(&t);
    return t.length;
}

/* ---- circles --------------------------------------------------------------------------- */

/* The thread that I waits for, without a time limit; or -1. */
static int waits_for_thread(int i)
{
    const LabBlock *b = &lab__threads[i].block;
    bool waits = (lab__engine.blocked & lab__bit(i)) && b->deadline_ns < 0 &&
                 !b->ready(b->opaque);
    return waits ? lab__holder(b) : -1;
}

void lab__check_cycle(void)
{
    int self = lab__engine.self, i = waits_for_thread(self);

    /* at most as many steps as there are threads: others may go round without us */
    for (int n = 0; i >= 0 && n < LAB_THREADS_MAX; i = waits_for_thread(i), n++) {
        if (i == self) {
            lab_fail(LAB_CYCLE, "%s would wait for itself", lab_thread_name(self));
        }
    }
}
