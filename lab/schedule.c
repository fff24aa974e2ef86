/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One schedule: its beginning, its end, and the ways in which it fails. */
#include "miniblk/osdep.h"
#include "lab/engine.h"
#include "lab/world.h"

enum {
    CYCLE_MAX = 64,             /* steps of a livelock's cycle that are recognised */
    CYCLE_TOLD_MAX = 16,
};

LabStrategy lab__strategy LAB_KEEP;
LabLimits lab__limits LAB_KEEP;
static LabOutcome *result LAB_KEEP;
static unsigned case_number LAB_KEEP;

#define E lab__engine

const LabLimits *lab_limits(void)
{
    return &lab__limits;
}

unsigned lab_self(void)
{
    return E.self;
}

/* ---- the end --------------------------------------------------------------------------- */

/* End the schedule; called on a fiber. */
static void leave(void)
{
    lab_running = false;
    lab__fiber_leave();
}

void lab_fail(LabVerdict verdict, const char *format, ...)
{
    char text[2048];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (!lab_running) {
        fprintf(stderr, "lab: outside of a case: %s\n", text);
        char waits[2048];
        lab__waitfor_text(waits, sizeof(waits));
        fputs(waits, stderr);
        _exit(134);             /* abort() is ours and leads back here */
    }
    /* What the program sees is of no interest any more; no point may follow. */
    lab_running = false;
    size_t length = snprintf(result->message, sizeof(result->message), "%s", text);
    if (verdict == LAB_DEADLOCK || verdict == LAB_CYCLE || verdict == LAB_LIVELOCK) {
        result->message[length++] = '\n';
        lab__waitfor_text(result->message + length, sizeof(result->message) - length);
    }
    result->verdict = verdict;
    if (lab__limits.record) {
        lab__trace_event(LAB_EVENT_FAIL, -1, 0, NULL, text);
    }
    leave();
    __builtin_unreachable();
}

void lab__fail_livelock(void)
{
    char text[2048];
    size_t length = 0;
    LabAgent a, b;
    LabOp op_a, op_b;
    unsigned period, i;

    lab__check_circle();

    /* the shortest cycle that the last steps repeat */
    for (period = 1; period <= CYCLE_MAX; period++) {
        for (i = 0; i < 2 * period; i++) {
            if (!lab__trace_recent(i, &a, &op_a) ||
                !lab__trace_recent(i + period, &b, &op_b) ||
                a.kind != b.kind || a.number != b.number || op_a.kind != op_b.kind ||
                op_a.object != op_b.object) {
                break;
            }
        }
        if (i == 2 * period) {
            break;
        }
    }
    bool found = period <= CYCLE_MAX;
    unsigned rest = found && period > CYCLE_TOLD_MAX ? period - CYCLE_TOLD_MAX : 0;
    text[0] = '\0';
    for (i = found ? period : CYCLE_TOLD_MAX; i-- > rest && length < sizeof(text) - 160;) {
        if (lab__trace_recent(i, &a, &op_a)) {
            char object[80];
            length += snprintf(text + length, sizeof(text) - length, "\n    %s: %s %s",
                               a.kind == LAB_AGENT_THREAD ? lab_thread_name(a.number) :
                               a.kind == LAB_AGENT_FLUSH ? "store lands" :
                               a.kind == LAB_AGENT_DISK ? "disk" : "clock",
                               lab_op_name(op_a.kind),
                               op_a.object
                               ? lab_object_name(op_a.object, object, sizeof(object))
                               : op_a.where ? op_a.where : "");
        }
    }
    if (rest) {
        snprintf(text + length, sizeof(text) - length, "\n    ... %u more ...", rest);
    }
    lab_fail(LAB_LIVELOCK, "%" PRIu64 " steps, the last half of them with every "
             "thread in turn. %s%s", E.steps,
             found ? "This repeats:" : "No short cycle (is the case just long? LAB_STEPS); "
             "the last steps:", text);
}

/* ---- the way there --------------------------------------------------------------------- */

static void run_case(void)
{
    if (lab__limits.record) {
        E.actor = LAB_BY_NOBODY;        /* has woken those that can go on from the beginning */
        lab__enabled_threads();
    }
    lab_running = true;
    const char *message = NULL;
    result->verdict = lab_case_run(case_number, &message);
    lab__drain();
    if (message) {
        snprintf(result->message, sizeof(result->message), "%s", message);
    }
    if (result->verdict == LAB_OK) {
        lab__check_left_over();
        lab_arena_check();
    }
    leave();
}

static void run_schedule(LabOutcome *outcome)
{
    result = outcome;
    result->message[0] = '\0';
    lab__fiber_run(run_case);
    outcome->steps = E.steps;
    outcome->choices = E.choices;
    outcome->trace_hash = E.hash;
    outcome->virtual_ns = E.now_ns - E.start_ns;
    outcome->cut_short = E.fair;
}

void lab_execute(unsigned number, const LabStrategy *s, const LabLimits *limits,
                 LabOutcome *outcome)
{
    g_assert(!lab_running);
    lab_world_reset();
    lab__strategy = *s;
    lab__limits = *limits;
    if (lab__limits.steps == 0) {
        lab__limits.steps = LAB_STEPS_DEFAULT;
    }
    case_number = number;
    E.hash = number + 1;
    E.changed = true;
    E.start_ns = E.now_ns;
    lab__trace_begin();
    lab_isolate(run_schedule, outcome);
}
