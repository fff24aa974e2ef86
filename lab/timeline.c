/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A schedule as text: time goes down, one column for each thread.
 *
 *      main                        iothread0
 *      lock ctx->lock
 *                                * read notify_me
 *      ... 12 steps ...
 *
 * A star marks where the schedule leaves the default policy. Of long schedules only what is
 * near a deviation, near the end, or says something else than a step is shown.
 */
#include "miniblk/osdep.h"
#include "lab/report.h"

enum {
    LINE_COLUMNS = 80,
    COLUMN_MIN = 20,            /* more threads than fit make longer lines */
    AROUND = 4,                 /* steps shown before and after a deviation */
    AT_END = 24,                /* steps shown at the end */
    WHOLE_MAX = 60,             /* a schedule as short as this is shown whole */
};

typedef struct Timeline {
    const LabTrace *trace;
    GString *out;
    unsigned width;             /* of a column */
    int column[LAB_THREADS_MAX];        /* of a thread; -1: it did nothing */
    unsigned columns;
} Timeline;

void lab_trace_take(LabTrace *trace)
{
    const LabEvent *events = lab_events(&trace->count);

    trace->events = g_memdup2(events, trace->count * sizeof(LabEvent));
}

void lab_trace_clear(LabTrace *trace)
{
    g_clear_pointer(&trace->events, g_free);
    trace->count = 0;
}

/* The thread whose column an event stands in; -1: all. */
static int thread_of(const LabEvent *event)
{
    switch (event->agent.kind) {
    case LAB_AGENT_THREAD:
    case LAB_AGENT_FLUSH:
        return event->agent.number < LAB_THREADS_MAX ? (int)event->agent.number : -1;
    case LAB_AGENT_DISK:
        return event->agent.number >> 16 < LAB_THREADS_MAX ? (int)(event->agent.number >> 16)
               : -1;
    default:
        return -1;
    }
}

static void find_columns(Timeline *t)
{
    for (unsigned i = 0; i < LAB_THREADS_MAX; i++) {
        t->column[i] = -1;
    }
    for (size_t i = 0; i < t->trace->count; i++) {
        int thread = thread_of(&t->trace->events[i]);

        if (thread >= 0) {
            t->column[thread] = 0;
        }
    }
    for (unsigned i = 0; i < LAB_THREADS_MAX; i++) {
        if (t->column[i] == 0) {
            t->column[i] = t->columns++;
        }
    }
    t->columns = MAX(t->columns, 1);
    t->width = MAX(COLUMN_MIN, LINE_COLUMNS / t->columns);
}

static bool is_step(const LabEvent *event)
{
    return event->kind == LAB_EVENT_STEP || event->kind == LAB_EVENT_SWITCH;
}

static bool is_shown(const Timeline *t, size_t i)
{
    size_t count = t->trace->count;
    size_t from = i > AROUND ? i - AROUND : 0, to = MIN(count, i + AROUND + 1);

    if (!is_step(&t->trace->events[i]) || count <= WHOLE_MAX || count - i <= AT_END) {
        return true;
    }
    for (size_t j = from; j < to; j++) {
        if (t->trace->events[j].chosen) {
            return true;
        }
    }
    return false;
}

static void cell_text(const LabEvent *event, char *text, size_t size)
{
    char object[96];

    switch (event->kind) {
    case LAB_EVENT_STEP:
        lab_object_name(event->op.object, object, sizeof(object));
        if (event->agent.kind == LAB_AGENT_FLUSH) {
            snprintf(text, size, "~ %s lands", object);
        } else if (event->agent.kind == LAB_AGENT_DISK) {
            snprintf(text, size, "request %u completes", event->agent.number & 0xffff);
        } else {
            snprintf(text, size, "%s%s%s", lab_op_name(event->op.kind),
                     event->op.object ? " " : "", event->op.object ? object : "");
        }
        break;
    case LAB_EVENT_BLOCK:
        snprintf(text, size, "(waits: %s)", event->text[0] ? event->text
                 : lab_op_name(event->op.kind));
        break;
    case LAB_EVENT_WAKE:
        snprintf(text, size, "(woken by %s)",
                 event->other >= 0 ? lab_thread_name(event->other) : "time");
        break;
    default:
        snprintf(text, size, "%s", event->text);
        break;
    }
}

/* A cell's text in one or more lines, broken at blanks where possible. */
static void append_cell(Timeline *t, unsigned column, bool chosen, const char *text)
{
    unsigned room = t->width - 3;
    const char *mark = chosen ? "* " : "  ";

    while (*text) {
        size_t length = strlen(text);

        if (length > room) {
            length = room;
            while (length > room / 2 && text[length] != ' ') {
                length--;
            }
            if (text[length] != ' ') {
                length = room;
            }
        }
        g_string_append_printf(t->out, "%*s%s%.*s\n", column * t->width, "", mark,
                               (int)length, text);
        text += length;
        text += strspn(text, " ");
        mark = "    ";
        room = t->width - 5;
    }
}

static void append_event(Timeline *t, const LabEvent *event)
{
    int thread = thread_of(event);
    char text[256];

    if (event->kind == LAB_EVENT_SWITCH) {
        return;
    }
    if (event->agent.kind == LAB_AGENT_CLOCK) {
        g_string_append_printf(t->out, "%s---- time: %.6f s ----\n",
                               event->chosen ? "* " : "  ", event->time_ns / 1e9);
        return;
    }
    cell_text(event, text, sizeof(text));
    if (event->kind == LAB_EVENT_FAIL || thread < 0) {
        g_string_append_printf(t->out, "  ==== %s\n", text);
    } else {
        append_cell(t, t->column[thread], event->chosen, text);
    }
}

static void append_heading(Timeline *t)
{
    for (unsigned i = 0; i < LAB_THREADS_MAX; i++) {
        if (t->column[i] >= 0) {
            g_string_append_printf(t->out, "  %-*.*s", t->width - 2, t->width - 3,
                                   lab_thread_name(i));
        }
    }
    while (t->out->len > 0 && t->out->str[t->out->len - 1] == ' ') {
        g_string_truncate(t->out, t->out->len - 1);
    }
    g_string_append_c(t->out, '\n');
}

void lab_timeline(const LabTrace *trace, bool whole, GString *out)
{
    Timeline t = { .trace = trace, .out = out };
    size_t hidden = 0;

    find_columns(&t);
    append_heading(&t);
    for (size_t i = 0; i < trace->count; i++) {
        if (!whole && !is_shown(&t, i)) {
            hidden += trace->events[i].kind == LAB_EVENT_STEP;
            continue;
        }
        if (hidden) {
            g_string_append_printf(out, "  ... %zu steps ...\n", hidden);
            hidden = 0;
        }
        append_event(&t, &trace->events[i]);
    }
}
