/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A schedule as text: time goes down, one column for each thread.
 *
 *      main                        iothread0
 *      lock ctx->lock
 *                                * read notify_me
 *      ... 12 steps ...
 *
 * A star marks where the schedule leaves the default policy.
 */
#include "miniblk/osdep.h"
#include "aio/port-note.h"
#include "lab/draw.h"
#include "lab/report.h"

enum {
    LINE_COLUMNS = 80,
    COLUMN_MIN = 20,            /* more threads than fit make longer lines */
    AROUND = 4,                 /* steps shown before and after a deviation */
    AT_END = 8,                 /* events shown at the end */
    WHOLE_MAX = 60,             /* a schedule as short as this is shown whole */
};

typedef struct Timeline {
    const LabTrace *trace;
    GHashTable *objects;        /* whose steps are shown; NULL: everything is */
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

/* Who gives names to things, and who is the running thread, says nothing of the order. */
static bool is_silent(const LabEvent *event)
{
    return event->kind == LAB_EVENT_SWITCH
           || (event->kind == LAB_EVENT_NOTE && event->note == PORT_NOTE_NAME);
}

/* Steps of no consequence, as far as is known. */
static bool is_common(const Timeline *t, const LabEvent *event)
{
    return (event->kind == LAB_EVENT_STEP
            && !g_hash_table_contains(t->objects, (void *)event->op.object))
           || event->kind == LAB_EVENT_BLOCK || event->kind == LAB_EVENT_WAKE
           || (event->kind == LAB_EVENT_NOTE
               && (event->note == PORT_NOTE_ENTER || event->note == PORT_NOTE_YIELD));
}

static bool is_shown(const Timeline *t, size_t i)
{
    size_t count = t->trace->count;
    size_t from = i > AROUND ? i - AROUND : 0, to = MIN(count, i + AROUND + 1);

    if (!t->objects || !is_common(t, &t->trace->events[i]) || count <= WHOLE_MAX
        || count - i <= AT_END) {
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

    if (event->kind != LAB_EVENT_STEP) {
        lab_scene_words(event, text, size);
        return;
    }
    lab_object_name(event->op.object, object, sizeof(object));
    if (event->agent.kind == LAB_AGENT_FLUSH) {
        snprintf(text, size, "~ %s lands", object);
    } else if (event->agent.kind == LAB_AGENT_DISK) {
        snprintf(text, size, "request %u completes", event->agent.number & 0xffff);
    } else {
        snprintf(text, size, "%s%s%s", lab_op_name(event->op.kind),
                 event->op.object ? " " : "", event->op.object ? object : "");
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

void lab_timeline(const LabTrace *trace, GHashTable *objects, GString *out)
{
    Timeline t = { .trace = trace, .objects = objects, .out = out };
    size_t hidden = 0;

    find_columns(&t);
    append_heading(&t);
    for (size_t i = 0; i < trace->count; i++) {
        if (is_silent(&trace->events[i])) {
            continue;
        }
        if (!is_shown(&t, i)) {
            hidden += trace->events[i].kind == LAB_EVENT_STEP;
            continue;
        }
        if (hidden) {
            g_string_append_printf(out, "  ... %zu step%s ...\n", hidden,
                                   hidden == 1 ? "" : "s");
            hidden = 0;
        }
        append_event(&t, &trace->events[i]);
    }
}
