/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The picture as SVG: time goes from left to right, one step a column; one lane for each
 * thread, then for the disk and the clock, then for nodes (their drained sections) and
 * requests. Whatever the default policy would have done otherwise is marked. And the HTML page
 * around it, which needs nothing from elsewhere.
 */
#include <errno.h>
#include <string.h>
#include "lab/draw.h"

enum { COLUMN = 9, LANE = 30, BAR = 16, LEFT = 170, TOP = 24 };

static const char style[] =
    "text{font:12px sans-serif;fill:#222}.small{font-size:10px}"
    ".run{fill:#4477aa}.blocked{fill:#dddddd;stroke:#aaaaaa}.wait{fill:none;stroke:#ee7733;"
    "stroke-width:2}.section{fill:#ccbb44;opacity:.55}.request{fill:#66aa88}"
    ".name{font-weight:bold;paint-order:stroke;stroke:#ffffff;stroke-width:4px}"
    ".lane{stroke:#eeeeee}.step{fill:#ffffff;opacity:.55}"
    ".flush{fill:#aa3377}.other{fill:#777777}.deviation{fill:#cc3311}"
    ".wake{stroke:#228833;stroke-width:1.2;fill:none}.fail{stroke:#cc3311;stroke-width:2}"
    ".open{stroke:#cc3311;stroke-width:1.5;stroke-dasharray:4 2}";

static int column_of(const LabScene *s, size_t event)
{
    return LEFT + (int)(event - s->first) * COLUMN;
}

static int middle_of(unsigned lane)
{
    return TOP + (int)lane * LANE + LANE / 2;
}

/* TEXT may be any bytes; XML has no control characters, not even as references. */
static void escaped(GString *out, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1), *markup = NULL;
    g_autoptr(GString) safe = g_string_new(NULL);

    for (const char *c = valid; *c; c = g_utf8_next_char(c)) {
        gunichar u = g_utf8_get_char(c);
        bool is_char = (u >= 0x20 || u == '\n' || u == '\t') && u != 0xfffe && u != 0xffff;

        g_string_append_unichar(safe, is_char ? u : 0xfffd);
    }
    markup = g_markup_escape_text(safe->str, safe->len);
    g_string_append(out, markup);
}

static const char *class_of(LabSpanKind kind)
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

static void draw_span(GString *out, const LabScene *s, const LabSpan *span)
{
    int x = column_of(s, span->begin), width = column_of(s, span->end + 1) - x;
    int height = span->kind == LAB_SPAN_BLOCKED ? BAR / 2 :
                 span->kind == LAB_SPAN_WAIT ? BAR + 6 : BAR;

    g_string_append_printf(out, "<rect class=\"%s%s\" x=\"%d\" y=\"%d\" width=\"%d\" "
                           "height=\"%d\" rx=\"2\"><title>", class_of(span->kind),
                           span->open && span->kind != LAB_SPAN_RUN ? " open" : "", x,
                           middle_of(span->lane) - height / 2, MAX(width, COLUMN), height);
    escaped(out, span->label);
    g_string_append(out, "</title></rect>\n");
    if (*span->label && (span->kind == LAB_SPAN_REQUEST || span->kind == LAB_SPAN_SECTION)) {
        g_string_append_printf(out, "<text class=\"small\" x=\"%d\" y=\"%d\">", x + 3,
                               middle_of(span->lane) + 4);
        escaped(out, span->label);
        g_string_append(out, "</text>\n");
    }
}

static void draw_event(GString *out, const LabScene *s, size_t index)
{
    const LabEvent *e = &s->events[index];
    int x = column_of(s, index), y = middle_of(lab_scene_lane(s, e));
    const char *class = e->agent.kind == LAB_AGENT_FLUSH ? "flush" :
                        e->agent.kind != LAB_AGENT_THREAD ? "other" : "step";
    char words[200];

    if (e->kind != LAB_EVENT_STEP) {
        return;
    }
    g_string_append_printf(out, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%d\" "
                           "height=\"%d\"><title>#%zu ", class, x + 1, y - 5, COLUMN - 2, 10,
                           index);
    escaped(out, lab_scene_words(e, words, sizeof(words)));
    g_string_append(out, "</title></rect>\n");
    if (e->chosen) {
        g_string_append_printf(out, "<path class=\"deviation\" d=\"M%d %dl4 8h-8z\"><title>"
                               "here the schedule deviates</title></path>\n",
                               x + COLUMN / 2, y - BAR / 2 - 9);
    }
}

static void draw_arrow(GString *out, const LabScene *s, const LabArrow *a)
{
    int from = middle_of(a->from), to = middle_of(a->to);

    g_string_append_printf(out, "<path class=\"wake\" marker-end=\"url(#tip)\" "
                           "d=\"M%d %dL%d %d\"><title>wakes</title></path>\n",
                           column_of(s, a->since) + COLUMN / 2, from,
                           column_of(s, a->at) + COLUMN / 2, to);
}

static void draw_lane(GString *out, unsigned i, int width)
{
    int y = TOP + (int)(i + 1) * LANE;

    g_string_append_printf(out, "<line class=\"lane\" x1=\"0\" x2=\"%d\" y1=\"%d\" "
                           "y2=\"%d\"/>\n", width, y, y);
}

/* On top of the rest; in a page the script keeps it in sight. */
static void draw_lane_name(GString *out, const LabScene *s, unsigned i)
{
    g_string_append_printf(out, "<text class=\"name\" x=\"8\" y=\"%d\">",
                           middle_of(i) + 4);
    escaped(out, g_array_index(s->lanes, LabLane, i).name);
    g_string_append(out, "</text>\n");
}

static void append_svg(GString *out, const LabScene *s, const LabPicture *p)
{
    int width = column_of(s, s->count) + 40;
    int height = TOP + (int)s->lanes->len * LANE + 30;

    g_string_append_printf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
                           "height=\"%d\" viewBox=\"0 0 %d %d\">\n<style>%s</style>\n"
                           "<defs><marker id=\"tip\" viewBox=\"0 0 6 6\" refX=\"6\" refY=\"3\" "
                           "markerWidth=\"6\" markerHeight=\"6\" orient=\"auto\">"
                           "<path d=\"M0 0L6 3L0 6z\" fill=\"#228833\"/></marker></defs>\n"
                           "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n",
                           width, height, width, height, style, width, height);
    g_string_append(out, "<text x=\"8\" y=\"16\">");
    escaped(out, p->path);
    g_string_append(out, ": ");
    escaped(out, p->verdict);
    g_string_append(out, "</text>\n");
    for (unsigned i = 0; i < s->lanes->len; i++) {
        draw_lane(out, i, width);
    }
    for (unsigned i = 0; i < s->spans->len; i++) {
        draw_span(out, s, &g_array_index(s->spans, LabSpan, i));
    }
    for (size_t i = s->first; i < s->count; i++) {
        draw_event(out, s, i);
    }
    for (unsigned i = 0; i < s->arrows->len; i++) {
        draw_arrow(out, s, &g_array_index(s->arrows, LabArrow, i));
    }
    for (unsigned i = 0; i < s->lanes->len; i++) {
        draw_lane_name(out, s, i);
    }
    if (s->count && s->events[s->count - 1].kind == LAB_EVENT_FAIL) {
        int x = column_of(s, s->count) + 2;
        g_string_append_printf(out, "<line class=\"fail\" x1=\"%d\" x2=\"%d\" y1=\"%d\" "
                               "y2=\"%d\"/>\n", x, x, TOP, height - 26);
    }
    g_string_append_printf(out, "<text class=\"small\" x=\"8\" y=\"%d\">", height - 8);
    if (s->first) {
        g_string_append_printf(out, "the last %zu of %zu events; ", s->count - s->first,
                               s->count);
    }
    escaped(out, p->seed_line);
    g_string_append(out, "</text>\n</svg>\n");
}

static void append_rows(GString *out, const LabScene *s)
{
    char words[200];

    for (size_t i = s->first; i < s->count; i++) {
        const LabEvent *e = &s->events[i];
        g_string_append_printf(out, "<tr%s><td>%zu</td><td>%.3f</td><td>",
                               e->chosen ? " class=\"chosen\"" :
                               e->kind == LAB_EVENT_FAIL ? " class=\"failed\"" : "", i,
                               e->time_ns / 1000.0);
        escaped(out, g_array_index(s->lanes, LabLane, lab_scene_lane(s, e)).name);
        g_string_append(out, "</td><td>");
        escaped(out, lab_scene_words(e, words, sizeof(words)));
        g_string_append(out, "</td></tr>\n");
    }
}

static void append_html(GString *out, const LabScene *s, const LabPicture *p)
{
    g_string_append(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                    "<title>");
    escaped(out, p->path);
    g_string_append(out, "</title>\n<style>body{font:14px sans-serif;margin:1em}"
                    "pre{background:#f6f6f6;padding:.6em;white-space:pre-wrap}"
                    "#lanes{overflow-x:auto;border:1px solid #ccc}"
                    "td{padding:0 .8em 0 0;font:12px monospace}"
                    ".chosen td{color:#cc3311;font-weight:bold}"
                    ".failed td{background:#fbd9d3}"
                    "b.key{padding:0 .5em;margin-right:.3em}</style></head><body>\n<h1>");
    escaped(out, p->path);
    g_string_append(out, ": ");
    escaped(out, p->verdict);
    g_string_append(out, "</h1>\n<pre id=\"message\">");
    escaped(out, p->message);
    g_string_append(out, "</pre>\n<p><code>");
    escaped(out, p->seed_line);
    g_string_append(out, "</code></p>\n<p>"
                    "<b class=\"key\" style=\"background:#4477aa\"></b>runs "
                    "<b class=\"key\" style=\"background:#dddddd\"></b>waits "
                    "<b class=\"key\" style=\"background:#ccbb44\"></b>drained "
                    "<b class=\"key\" style=\"background:#66aa88\"></b>request "
                    "<b class=\"key\" style=\"background:#aa3377\"></b>store lands "
                    "<b class=\"key\" style=\"background:#cc3311\"></b>deviation "
                    "<b class=\"key\" style=\"background:#228833\"></b>wakes</p>\n"
                    "<div id=\"lanes\">\n");
    append_svg(out, s, p);
    g_string_append(out, "</div>\n<details open><summary>Step by step</summary>\n<table>"
                    "<tr><th>#</th><th>&#181;s</th><th>who</th><th>what</th></tr>\n");
    append_rows(out, s);
    g_string_append(out, "</table></details>\n<script>"
                    "var l=document.getElementById('lanes');"
                    "l.onscroll=function(){document.querySelectorAll('.name').forEach("
                    "function(t){t.setAttribute('x',l.scrollLeft+8)})};"
                    "l.scrollLeft=l.scrollWidth;l.onscroll();"
                    "</script></body></html>\n");
}

static int draw(const char *filename, const LabPicture *picture,
                void (*append)(GString *out, const LabScene *s, const LabPicture *p))
{
    size_t count;
    const LabEvent *events = lab_events(&count);
    LabScene *scene = lab_scene_new(events, count);
    GString *out = g_string_new(NULL);

    append(out, scene, picture);
    int ret = g_file_set_contents(filename, out->str, out->len, NULL) ? 0
              : errno ? -errno : -EIO;
    g_string_free(out, true);
    lab_scene_free(scene);
    return ret;
}

int lab_draw_svg(const char *filename, const LabPicture *picture)
{
    return draw(filename, picture, append_svg);
}

int lab_draw_html(const char *filename, const LabPicture *picture)
{
    return draw(filename, picture, append_html);
}
