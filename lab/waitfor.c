/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who waits for whom, in words: each thread with the call it is in and what it sleeps for,
 * then each request in flight with what its coroutine waits for, and who holds that.
 */
#include "miniblk/osdep.h"
#include "lab/note.h"

/* ---- coroutines ------------------------------------------------------------------------ */

/* Whoever calls qemu_co_queue_next() may end it: who has done so, and was it too early? */
static void say_queue(LabText *t, const LabFact *queue, uint64_t waits_since)
{
    if (!queue->at) {
        lab__say(t, ", in which nobody has woken anybody");
        return;
    }
    lab__say(t, ", in which %s was the last to wake, %s this wait began",
             lab_thread_name(queue->thread), queue->at < waits_since ? "before" : "after");
}

/* A direction of a throttle group. */
static void say_turn(LabText *t, const LabFact *direction)
{
    if (!direction->waits_for) {
        lab__say(t, ", which no timer serves");
    } else {
        lab__say(t, ", which a timer of the loop of ");
        lab__say_loop(t, direction->waits_for);
        lab__say(t, " serves next");
    }
}

static void say_what_coroutine_waits_for(LabText *t, const void *co)
{
    const LabFact *f = lab__fact(co);

    if (!f || f->kind != LAB_FACT_COROUTINE) {
        return;
    }
    lab__say(t, " last ran in %s", lab_thread_name(f->thread));
    if (!f->waits_for) {
        return;
    }
    lab__say(t, " and waits for %s", f->text);
    const LabFact *object = lab__fact(f->waits_for);
    if (object && object->kind == LAB_FACT_QUEUE) {
        lab__say(t, " ");
        lab__say_object(t, object->object);
        say_queue(t, object, f->at);
    } else if (object && object->kind == LAB_FACT_TURN) {
        lab__say(t, " ");
        lab__say_object(t, object->object);
        say_turn(t, object);
    } else if (object && object->kind == LAB_FACT_LOCK) {
        lab__say(t, " ");
        lab__say_object(t, object->object);
        lab__say_holders(t, object->object);
    } else if (object && object->kind == LAB_FACT_COROUTINE) {
        lab__say(t, " ");
        lab__say_coroutine(t, object->object);
    } else if (lab__note_name(f->waits_for)) {
        lab__say(t, " of %s", lab__note_name(f->waits_for));
    }
}

static void say_requests(LabText *t)
{
    unsigned n, said = 0;
    const LabFact *facts = lab__facts(&n);

    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_REQUEST && facts[i].active) {
            lab__say(t, "%s\n  R%u: %s, begun in %s", said++ ? "" : "requests in flight:",
                     facts[i].serial, facts[i].text, lab_thread_name(facts[i].thread));
            if (facts[i].coroutine) {
                lab__say(t, ", whose coroutine");
                say_what_coroutine_waits_for(t, facts[i].coroutine);
            }
        }
    }
    if (said) {
        lab__say(t, "\n");
    }
    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_COROUTINE && facts[i].waits_for &&
            !lab__request_of(facts[i].object)) {
            lab__say(t, "  ");
            lab__say_coroutine(t, facts[i].object);
            say_what_coroutine_waits_for(t, facts[i].object);
            lab__say(t, "\n");
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_JOB && facts[i].text[0]) {
            lab__say(t, "  job %s\n", facts[i].text);
        }
    }
}

/* ---- threads --------------------------------------------------------------------------- */

static void say_sleep(LabText *t, const LabThread *thread)
{
    const LabBlock *b = &thread->block;
    char name[80];

    lab_object_name(b->op.object, name, sizeof(name));
    switch (b->op.kind) {
    case LAB_OP_LOCK:
        lab__say(t, "waits for lock %s", name);
        break;
    case LAB_OP_JOIN:
        lab__say(t, "joins %s", name);
        break;
    case LAB_OP_WAIT:
        lab__say(t, "waits for condition variable %s", name);
        break;
    case LAB_OP_FUTEX_WAIT:
        lab__say(t, "waits for futex %s", name);
        break;
    case LAB_OP_POLL_RETURN:
        if (b->op.object) {
            lab__say(t, "sleeps in %s, nothing is ready", name);
        } else {
            lab__say(t, "sleeps in poll(), nothing is ready");
        }
        break;
    case LAB_OP_EVENT_READ:
    case LAB_OP_EVENT_WRITE:
        lab__say(t, "blocks in %s of %s", lab_op_name(b->op.kind), name);
        break;
    default:
        lab__say(t, "blocks in %s of %s",
                 b->op.where ? b->op.where : lab_op_name(b->op.kind), name);
        break;
    }
    if (b->op.kind != LAB_OP_JOIN && lab__holder(b) >= 0) {
        lab__say(t, ", held by %s", lab_thread_name(lab__holder(b)));
    }
    if (b->deadline_ns >= 0) {
        lab__say(t, ", for %" PRId64 " us at most",
                 (b->deadline_ns - lab__engine.now_ns) / 1000);
    }
    /* of a livelock: some go on for ever, and some do not */
    if (lab__engine.fair && thread->blocked_at < lab__limits.steps) {
        lab__say(t, ", since step %" PRIu64, thread->blocked_at);
    }
}

static bool has_requests(const void *object)
{
    unsigned n;
    const LabFact *facts = lab__facts(&n);

    for (unsigned i = 0; i < n; i++) {
        if (facts[i].kind == LAB_FACT_REQUEST && facts[i].active &&
            (facts[i].counted[0] == object || facts[i].counted[1] == object)) {
            return true;
        }
    }
    return false;
}

/* Why the condition of a wait holds, as far as somebody has said. */
static void say_cause(LabText *t, const void *cause)
{
    const LabFact *f = lab__fact(cause);

    if (f && f->kind == LAB_FACT_COROUTINE) {
        lab__say(t, " because of ");
        lab__say_coroutine(t, cause);
    } else if (f && f->kind == LAB_FACT_NAME) {
        lab__say(t, " because of %s%s", f->text, has_requests(cause) ? ""
                 : " (something counts itself in flight there, but no request is known)");
    }
}

static void say_thread(LabText *t, int i)
{
    const LabThread *thread = &lab__threads[i];

    lab__say(t, "  %s: ", thread->name);
    for (unsigned w = 0; w < thread->n_waits; w++) {
        const LabWaitNote *note = &thread->waits[w];
        if (note->kind == PORT_NOTE_WAIT_BEGIN) {
            lab__say(t, "AIO_WAIT_WHILE(%s)", note->text);
            say_cause(t, note->cause);
            lab__say(t, ", ");
        } else if (note->object) {
            lab__say(t, "drained section of ");
            lab__say_object(t, note->object);
            lab__say(t, ", ");
        } else {
            lab__say(t, "drained section of all nodes, ");
        }
    }
    if (lab__engine.blocked & lab__bit(i)) {
        say_sleep(t, thread);
    } else {
        lab__say(t, "runs; next: %s ", lab_op_name(thread->op.kind));
        if (thread->op.object) {
            lab__say_object(t, (const void *)thread->op.object);
        }
    }
    lab__say(t, "\n");
}

size_t lab__waitfor_text(char *buffer, size_t size)
{
    LabText t = { buffer, size, 0 };

    buffer[0] = '\0';
    lab__say(&t, "who waits for whom:\n");
    for (int i = 0; i < lab__engine.n_threads; i++) {
        if (lab__engine.live & lab__bit(i)) {
            say_thread(&t, i);
        }
    }
    say_requests(&t);
    if (lab__facts_are_missing()) {
        lab__say(&t, "  (there were more than %d objects: some are not told about)\n",
                 LAB_FACTS_MAX);
    }
    return t.length;
}
