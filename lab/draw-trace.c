/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The picture in Chrome's trace event format (JSON; "Trace Event Format", the document of the
 * catapult project), which chrome://tracing and Perfetto open. One step is one microsecond.
 */
#include <errno.h>
#include <jansson.h>
#include "lab/draw.h"

enum { PID = 1 };

/* TEXT may be any bytes; jansson takes UTF-8 only. */
static json_t *text_new(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    return json_string(valid);
}

static json_t *event_new(json_t *list, const char *phase, const char *name, size_t at,
                         unsigned lane)
{
    json_t *e = json_pack("{s:s, s:o, s:I, s:i, s:i}", "ph", phase, "name", text_new(name),
                          "ts", (json_int_t)at, "pid", PID, "tid", (int)lane);
    json_array_append_new(list, e);
    return e;
}

static const char *category_of(LabSpanKind kind)
{
    switch (kind) {
    case LAB_SPAN_RUN:      return "run";
    case LAB_SPAN_BLOCKED:  return "blocked";
    case LAB_SPAN_WAIT:     return "wait";
    case LAB_SPAN_SECTION:  return "section";
    case LAB_SPAN_REQUEST:  return "request";
    }
    return "";
}

static void add_span(json_t *list, const LabSpan *span)
{
    json_t *e = event_new(list, "X", *span->label ? span->label : category_of(span->kind),
                          span->begin, span->lane);

    json_object_set_new(e, "cat", json_string(category_of(span->kind)));
    json_object_set_new(e, "dur", json_integer(span->end - span->begin + 1));
}

static void add_step(json_t *list, const LabScene *s, size_t at)
{
    const LabEvent *event = &s->events[at];
    char words[200];
    json_t *e = event_new(list, "i", lab_scene_words(event, words, sizeof(words)), at,
                          lab_scene_lane(s, event));

    json_object_set_new(e, "s", json_string("t"));
    json_object_set_new(e, "cat", json_string(event->chosen ? "deviation" : "step"));
    json_object_set_new(e, "args", json_pack("{s:I}", "virtual_ns",
                                             (json_int_t)event->time_ns));
}

static void add_arrow(json_t *list, const LabArrow *a, unsigned id)
{
    json_t *from = event_new(list, "s", "wake", a->since, a->from);
    json_t *to = event_new(list, "f", "wake", a->at, a->to);

    json_object_set_new(from, "id", json_integer(id));
    json_object_set_new(to, "id", json_integer(id));
    json_object_set_new(from, "cat", json_string("wake"));
    json_object_set_new(to, "cat", json_string("wake"));
    json_object_set_new(to, "bp", json_string("e"));
}

static void add_lane(json_t *list, const char *name, unsigned lane)
{
    json_t *e = event_new(list, "M", "thread_name", 0, lane);

    json_object_set_new(e, "args", json_pack("{s:o}", "name", text_new(name)));
}

int lab_draw_trace(const char *filename, const LabPicture *picture)
{
    size_t count;
    const LabEvent *events = lab_events(&count);
    LabScene *s = lab_scene_new(events, count);
    json_t *list = json_array();

    for (unsigned i = 0; i < s->lanes->len; i++) {
        add_lane(list, g_array_index(s->lanes, LabLane, i).name, i);
    }
    for (unsigned i = 0; i < s->spans->len; i++) {
        add_span(list, &g_array_index(s->spans, LabSpan, i));
    }
    for (size_t i = s->first; i < s->count; i++) {
        add_step(list, s, i);
    }
    for (unsigned i = 0; i < s->arrows->len; i++) {
        add_arrow(list, &g_array_index(s->arrows, LabArrow, i), i + 1);
    }
    json_t *root = json_pack("{s:o, s:s, s:{s:o, s:s, s:o}}", "traceEvents", list,
                             "displayTimeUnit", "ns", "otherData", "case",
                             text_new(picture->path), "verdict", picture->verdict, "seed",
                             text_new(picture->seed_line));
    errno = 0;
    int ret = json_dump_file(root, filename, JSON_COMPACT) == 0 ? 0 : errno ? -errno : -EIO;
    json_decref(root);
    lab_scene_free(s);
    return ret;
}
