/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What there is to see in a schedule: lanes, spans and arrows out of a list of events. */
#include <stdio.h>
#include <string.h>
#include "aio/port-note.h"
#include "lab/draw.h"

enum { NO_LANE = UINT32_MAX };

/* A span that has begun; kept in a list until its end comes. */
typedef struct OpenSpan {
    LabSpan span;
    const void *object;         /* node or request; NULL of a thread */
    unsigned thread;
} OpenSpan;

typedef struct Builder {
    LabScene *scene;
    GArray *open;               /* of OpenSpan */
    unsigned lane_disk, lane_clock;
    size_t at;                  /* the event that is looked at */
} Builder;

static unsigned add_lane(LabScene *s, bool is_thread, const char *name)
{
    LabLane lane = { .is_thread = is_thread };

    g_strlcpy(lane.name, name, sizeof(lane.name));
    g_array_append_val(s->lanes, lane);
    return s->lanes->len - 1;
}

static void collect_actors(Builder *b)
{
    LabScene *s = b->scene;
    bool seen[LAB_THREADS_MAX] = { false }, disk = false, clock = false;

    for (size_t i = s->first; i < s->count; i++) {
        const LabEvent *e = &s->events[i];
        disk |= e->agent.kind == LAB_AGENT_DISK;
        clock |= e->agent.kind == LAB_AGENT_CLOCK;
        if ((e->agent.kind == LAB_AGENT_THREAD || e->agent.kind == LAB_AGENT_FLUSH) &&
            e->agent.number < LAB_THREADS_MAX) {
            seen[e->agent.number] = true;
        }
    }
    for (unsigned t = 0; t < LAB_THREADS_MAX; t++) {
        s->lane_of_thread[t] = seen[t] ? add_lane(s, true, lab_thread_name(t)) : NO_LANE;
    }
    b->lane_disk = disk ? add_lane(s, false, "disk") : NO_LANE;
    b->lane_clock = clock ? add_lane(s, false, "clock") : NO_LANE;
}

unsigned lab_scene_lane(const LabScene *scene, const LabEvent *event)
{
    switch (event->agent.kind) {
    case LAB_AGENT_DISK:
    case LAB_AGENT_CLOCK:
        for (unsigned i = 0; i < scene->lanes->len; i++) {
            const LabLane *lane = &g_array_index(scene->lanes, LabLane, i);
            if (!lane->is_thread &&
                !strcmp(lane->name, event->agent.kind == LAB_AGENT_DISK ? "disk" : "clock")) {
                return i;
            }
        }
        return 0;
    default: {
        unsigned t = event->agent.number;
        unsigned lane = t < LAB_THREADS_MAX ? scene->lane_of_thread[t] : 0;
        return lane == NO_LANE ? 0 : lane;
    }
    }
}

/* ---- spans --------------------------------------------------------------------------------- */

static void begin_span(Builder *b, LabSpanKind kind, unsigned lane, unsigned thread,
                       const void *object, const char *label)
{
    OpenSpan o = { .span = { .kind = kind, .lane = lane, .begin = b->at, .open = true },
                   .object = object, .thread = thread };

    g_strlcpy(o.span.label, label ? label : "", sizeof(o.span.label));
    g_array_append_val(b->open, o);
}

static void end_span_at(Builder *b, unsigned index, size_t end, bool open)
{
    LabSpan span = g_array_index(b->open, OpenSpan, index).span;

    span.end = end;
    span.open = open;
    g_array_append_val(b->scene->spans, span);
    g_array_remove_index(b->open, index);
}

/* The newest span of KIND of THREAD (if OBJECT is NULL) or of OBJECT. False: there is none. */
static bool end_span(Builder *b, LabSpanKind kind, unsigned thread, const void *object)
{
    for (unsigned i = b->open->len; i-- > 0; ) {
        const OpenSpan *o = &g_array_index(b->open, OpenSpan, i);
        if (o->span.kind == kind && o->object == object &&
            (object || o->thread == thread)) {
            end_span_at(b, i, b->at, false);
            return true;
        }
    }
    return false;
}

static bool lane_is_taken(Builder *b, unsigned lane)
{
    for (unsigned i = 0; i < b->open->len; i++) {
        if (g_array_index(b->open, OpenSpan, i).span.lane == lane) {
            return true;
        }
    }
    return false;
}

/* The first lane called NAME with nothing in it now; a new one if all have. */
static unsigned free_lane(Builder *b, const char *name)
{
    LabScene *s = b->scene;

    for (unsigned i = 0; i < s->lanes->len; i++) {
        const LabLane *lane = &g_array_index(s->lanes, LabLane, i);
        if (!lane->is_thread && !strcmp(lane->name, name) && !lane_is_taken(b, i)) {
            return i;
        }
    }
    return add_lane(s, false, name);
}

static void name_of(const LabEvent *e, char *buffer, size_t size)
{
    char name[64];
    const char *text = lab_object_name((uintptr_t)e->object, name, sizeof(name));

    g_strlcpy(buffer, text, size);
}

static void note(Builder *b, const LabEvent *e)
{
    unsigned thread = e->agent.number, lane = lab_scene_lane(b->scene, e);
    char name[64];

    name_of(e, name, sizeof(name));
    switch ((PortNote)e->note) {
    case PORT_NOTE_DRAIN_BEGIN:
        begin_span(b, LAB_SPAN_SECTION, free_lane(b, name), thread, e->object, "drained");
        break;
    case PORT_NOTE_DRAIN_END:
        end_span(b, LAB_SPAN_SECTION, thread, e->object);
        break;
    case PORT_NOTE_REQUEST_BEGIN:
        begin_span(b, LAB_SPAN_REQUEST, free_lane(b, "requests"), thread, e->object, e->text);
        break;
    case PORT_NOTE_REQUEST_END:
        end_span(b, LAB_SPAN_REQUEST, thread, e->object);
        break;
    case PORT_NOTE_WAIT_BEGIN:
        begin_span(b, LAB_SPAN_WAIT, lane, thread, NULL, e->text);
        break;
    case PORT_NOTE_WAIT_END:
        end_span(b, LAB_SPAN_WAIT, thread, NULL);
        break;
    default:
        break;                  /* a point in time: lab_scene_words() says it */
    }
}

static unsigned lane_of_waker(const Builder *b, int other)
{
    return other == LAB_BY_DISK ? b->lane_disk : other == LAB_BY_CLOCK ? b->lane_clock :
           other >= 0 && other < LAB_THREADS_MAX ? b->scene->lane_of_thread[other] : NO_LANE;
}

static void add_arrow(Builder *b, const LabEvent *e, unsigned lane)
{
    LabArrow arrow = { lane_of_waker(b, e->other), lane, MAX(e->cause, b->scene->first),
                       b->at };

    if (arrow.from != NO_LANE && arrow.from != lane) {
        g_array_append_val(b->scene->arrows, arrow);
    }
}

static void look_at(Builder *b, const LabEvent *e)
{
    unsigned thread = e->agent.number, lane = lab_scene_lane(b->scene, e);

    switch (e->kind) {
    case LAB_EVENT_BLOCK:
        end_span(b, LAB_SPAN_RUN, thread, NULL);
        begin_span(b, LAB_SPAN_BLOCKED, lane, thread, NULL, lab_op_name(e->op.kind));
        break;
    case LAB_EVENT_WAKE:
        end_span(b, LAB_SPAN_BLOCKED, thread, NULL);
        add_arrow(b, e, lane);
        break;
    case LAB_EVENT_NOTE:
        note(b, e);
        break;
    default:
        break;
    }
}

/* Who takes the steps from here to there, without anybody else in between. */
static void add_runs(Builder *b)
{
    LabScene *s = b->scene;
    LabSpan run = { .kind = LAB_SPAN_RUN, .lane = NO_LANE };

    for (size_t i = s->first; i <= s->count; i++) {
        const LabEvent *e = i < s->count ? &s->events[i] : NULL;
        bool step = e && e->kind == LAB_EVENT_STEP && e->agent.kind == LAB_AGENT_THREAD;
        unsigned lane = step ? lab_scene_lane(s, e) : NO_LANE;

        if (e && !step) {
            continue;
        }
        if (run.lane != NO_LANE && run.lane != lane) {
            g_array_append_val(s->spans, run);
            run.lane = NO_LANE;
        }
        if (run.lane == NO_LANE && lane != NO_LANE) {
            run.lane = lane;
            run.begin = i;
        }
        run.end = i;
    }
}

LabScene *lab_scene_new(const LabEvent *events, size_t count)
{
    LabScene *s = g_new0(LabScene, 1);
    Builder b = { .scene = s, .open = g_array_new(false, false, sizeof(OpenSpan)) };

    s->events = events;
    s->count = count;
    s->first = count > LAB_SCENE_EVENTS_MAX ? count - LAB_SCENE_EVENTS_MAX : 0;
    s->lanes = g_array_new(false, true, sizeof(LabLane));
    s->spans = g_array_new(false, true, sizeof(LabSpan));
    s->arrows = g_array_new(false, true, sizeof(LabArrow));
    collect_actors(&b);
    add_runs(&b);
    for (b.at = s->first; b.at < count; b.at++) {
        look_at(&b, &events[b.at]);
    }
    while (b.open->len) {
        end_span_at(&b, b.open->len - 1, count ? count - 1 : 0, true);
    }
    g_array_free(b.open, true);
    return s;
}

void lab_scene_free(LabScene *scene)
{
    g_array_free(scene->lanes, true);
    g_array_free(scene->spans, true);
    g_array_free(scene->arrows, true);
    g_free(scene);
}

/* ---- words --------------------------------------------------------------------------------- */

static const char *note_words(PortNote note)
{
    switch (note) {
    case PORT_NOTE_NAME:            return "is called";
    case PORT_NOTE_DRAIN_BEGIN:     return "drained section begins";
    case PORT_NOTE_DRAIN_SETTLED:   return "nothing is in flight";
    case PORT_NOTE_DRAIN_END:       return "drained section ends";
    case PORT_NOTE_REQUEST_BEGIN:   return "request begins";
    case PORT_NOTE_REQUEST_END:     return "request ends";
    case PORT_NOTE_REQUEST_PARK:    return "request is parked";
    case PORT_NOTE_MOVE:            return "moves to";
    case PORT_NOTE_ENTER:           return "coroutine is entered";
    case PORT_NOTE_YIELD:           return "coroutine yields";
    case PORT_NOTE_WAIT_BEGIN:      return "waits while";
    case PORT_NOTE_WAIT_END:        return "waits no more";
    case PORT_NOTE_JOB:             return "job is";
    case PORT_NOTE_CO_WAIT:         return "coroutine waits for";
    case PORT_NOTE_CO_QUEUE:        return "coroutine waits in CoQueue";
    case PORT_NOTE_CO_HOLD:         return "coroutine takes";
    case PORT_NOTE_CO_SHARE:        return "coroutine shares";
    case PORT_NOTE_CO_RELEASE:      return "coroutine gives back";
    case PORT_NOTE_COMMAND_BEGIN:   return "command begins";
    case PORT_NOTE_COMMAND_END:     return "command ends";
    default:                        return "";
    }
}

/* "node 'disk': drained section begins", "coroutine takes CoMutex (lock)". */
static void note_in_words(const LabEvent *event, char *buffer, size_t size)
{
    const char *words = note_words(event->note);
    const char *blank = *event->text ? " " : "";
    char name[64] = "";

    if (event->object) {
        lab_object_name((uintptr_t)event->object, name, sizeof(name));
    }
    bool known = *name && strcmp(name, "#new") != 0;
    switch (event->note) {
    case PORT_NOTE_REQUEST_BEGIN:       /* known by its number, which is in the text */
    case PORT_NOTE_REQUEST_END:
        snprintf(buffer, size, "%s%s%s", words, blank, event->text);
        break;
    case PORT_NOTE_CO_WAIT:
    case PORT_NOTE_CO_QUEUE:
    case PORT_NOTE_CO_HOLD:
    case PORT_NOTE_CO_SHARE:
    case PORT_NOTE_CO_RELEASE:
        snprintf(buffer, size, "%s%s%s%s%s%s", words, blank, event->text,
                 known ? " (" : "", known ? name : "", known ? ")" : "");
        break;
    default:
        snprintf(buffer, size, "%s%s%s%s%s", name, *name ? ": " : "", words, blank,
                 event->text);
        break;
    }
}

const char *lab_scene_words(const LabEvent *event, char *buffer, size_t size)
{
    char name[64] = "";

    switch (event->kind) {
    case LAB_EVENT_STEP:
    case LAB_EVENT_BLOCK:
        if (event->op.object) {
            lab_object_name(event->op.object, name, sizeof(name));
        }
        snprintf(buffer, size, "%s%s%s%s%s%s",
                 event->kind == LAB_EVENT_BLOCK ? "waits: " : "",
                 event->agent.kind == LAB_AGENT_FLUSH ? "store lands: " :
                 lab_op_name(event->op.kind), *name ? " " : "", name,
                 event->op.where ? " in " : "", event->op.where ? event->op.where : "");
        break;
    case LAB_EVENT_NOTE:
        note_in_words(event, buffer, size);
        break;
    case LAB_EVENT_WAKE:
        snprintf(buffer, size, "woken%s%s", event->other == LAB_BY_NOBODY ? "" : " by ",
                 event->other >= 0 ? lab_thread_name(event->other) :
                 event->other == LAB_BY_DISK ? "the disk" :
                 event->other == LAB_BY_CLOCK ? "the clock" : "");
        break;
    case LAB_EVENT_SWITCH:
        snprintf(buffer, size, "goes on");
        break;
    default:
        snprintf(buffer, size, "%s", event->text);
        if (event->kind == LAB_EVENT_FAIL) {
            buffer[strcspn(buffer, "\n")] = '\0';        /* the rest is told apart */
        }
        g_strdelimit(buffer, "\n", ' ');
        break;
    }
    return buffer;
}
