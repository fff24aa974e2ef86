/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pictures of schedules: drawn from events made up here (the functions of the engine that
 * they ask are at the end), looked at as XML and JSON, and by a browser if there is one.
 */
#include <glib.h>
#include <glib/gstdio.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "aio/port-note.h"
#include "lab/draw.h"

static LabEvent events[6000];
static size_t event_count;

static LabEvent *add(LabEventKind kind, unsigned thread)
{
    LabEvent *e = &events[event_count++];

    *e = (LabEvent) { .kind = kind, .agent = { LAB_AGENT_THREAD, thread }, .other = -1,
                      .time_ns = (int64_t)event_count * 500,
                      .op = { .kind = LAB_OP_LOAD, .object = 0x1000 } };
    return e;
}

static void add_note(PortNote note, unsigned thread, uintptr_t object, const char *text)
{
    LabEvent *e = add(LAB_EVENT_NOTE, thread);

    e->note = note;
    e->object = (void *)object;
    g_strlcpy(e->text, text, sizeof(e->text));
}

/* A section that waits for a request of thread 1, which wakes thread 0 at its end. */
static void small_schedule(void)
{
    event_count = 0;
    add(LAB_EVENT_STEP, 0);
    add_note(PORT_NOTE_REQUEST_BEGIN, 1, 0x2000, "read <0+4096>");
    add_note(PORT_NOTE_DRAIN_BEGIN, 0, 0x3000, "");
    add_note(PORT_NOTE_WAIT_BEGIN, 0, 0, "a & b");
    add(LAB_EVENT_BLOCK, 0);
    add(LAB_EVENT_STEP, 1)->chosen = true;
    add(LAB_EVENT_STEP, 1)->agent = (LabAgent) { LAB_AGENT_FLUSH, 1 };
    add(LAB_EVENT_STEP, 1)->agent = (LabAgent) { LAB_AGENT_DISK, 1 << 16 };
    add_note(PORT_NOTE_REQUEST_END, 1, 0x2000, "");
    LabEvent *wake = add(LAB_EVENT_WAKE, 0);
    wake->other = 1;
    wake->cause = 8;
    add(LAB_EVENT_STEP, 0);
    add_note(PORT_NOTE_WAIT_END, 0, 0, "");
    add_note(PORT_NOTE_REQUEST_BEGIN, 1, 0x2001, "write");      /* has no end */
    LabEvent *e = add(LAB_EVENT_FAIL, 0);
    g_strlcpy(e->text, "assertion \x01 failed", sizeof(e->text));
}

static const LabPicture picture = {
    .path = "/drain/<iothread>", .verdict = "deadlock",
    .message = "main waits for \"R1\" & nobody\nelse \x01\x7f\xff\xef\xbf\xbf",
    .seed_line = "LAB1:/drain:random:0",
};

static char *drawn(int (*draw)(const char *, const LabPicture *), const char *suffix,
                   char **name)
{
    g_autofree char *template = g_strdup_printf("lab-draw-XXXXXX%s", suffix);
    char *text;

    *name = g_build_filename(g_get_tmp_dir(), template, NULL);
    int fd = g_mkstemp(*name);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    g_assert_cmpint(draw(*name, &picture), ==, 0);
    g_assert_true(g_file_get_contents(*name, &text, NULL, NULL));
    return text;
}

static unsigned occurrences(const char *text, const char *what)
{
    unsigned n = 0;

    for (const char *p = text; (p = strstr(p, what)); p += strlen(what)) {
        n++;
    }
    return n;
}

/* ---- the scene ------------------------------------------------------------------------------ */

static const LabSpan *find_span(const LabScene *s, LabSpanKind kind, unsigned nth)
{
    for (unsigned i = 0; i < s->spans->len; i++) {
        const LabSpan *span = &g_array_index(s->spans, LabSpan, i);
        if (span->kind == kind && nth-- == 0) {
            return span;
        }
    }
    return NULL;
}

static void test_scene(void)
{
    small_schedule();
    LabScene *s = lab_scene_new(events, event_count);

    const LabSpan *section = find_span(s, LAB_SPAN_SECTION, 0);
    g_assert_nonnull(section);
    g_assert_cmpuint(section->begin, ==, 2);
    g_assert_true(section->open);
    g_assert_cmpstr(g_array_index(s->lanes, LabLane, section->lane).name, ==, "node 'd'");
    const LabSpan *read = find_span(s, LAB_SPAN_REQUEST, 0);
    g_assert_cmpuint(read->begin, ==, 1);
    g_assert_cmpuint(read->end, ==, 8);
    g_assert_false(read->open);
    g_assert_true(find_span(s, LAB_SPAN_REQUEST, 1)->open);
    const LabSpan *blocked = find_span(s, LAB_SPAN_BLOCKED, 0);
    g_assert_cmpuint(blocked->begin, ==, 4);
    g_assert_cmpuint(blocked->end, ==, 9);
    g_assert_cmpuint(s->arrows->len, ==, 1);
    const LabArrow *arrow = &g_array_index(s->arrows, LabArrow, 0);
    g_assert_cmpuint(arrow->from, ==, s->lane_of_thread[1]);
    g_assert_cmpuint(arrow->to, ==, s->lane_of_thread[0]);
    g_assert_cmpuint(arrow->since, ==, 8);
    g_assert_cmpuint(arrow->at, ==, 9);
    lab_scene_free(s);
}

/* Of a long schedule the end is what matters; its memory is bounded. */
static void test_long(void)
{
    event_count = 0;
    while (event_count < G_N_ELEMENTS(events)) {
        add(LAB_EVENT_STEP, event_count / 7 % 3);
    }
    LabScene *s = lab_scene_new(events, event_count);
    g_assert_cmpuint(s->first, ==, event_count - LAB_SCENE_EVENTS_MAX);
    for (unsigned i = 0; i < s->spans->len; i++) {
        g_assert_cmpuint(g_array_index(s->spans, LabSpan, i).begin, >=, s->first);
    }
    lab_scene_free(s);
}

static void test_empty(void)
{
    g_autofree char *name = NULL;

    event_count = 0;
    g_autofree char *svg = drawn(lab_draw_svg, ".svg", &name);
    g_assert_nonnull(strstr(svg, "</svg>"));
    g_unlink(name);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* What XML 1.0 has no place for, GLib's parser takes: bytes that are no UTF-8, most control
 * characters, references to them. */
static void assert_xml(const char *text)
{
    g_assert_true(g_utf8_validate(text, -1, NULL));
    g_assert_false(g_regex_match_simple("[\\x01-\\x08\\x0b-\\x1f\\x{fffe}\\x{ffff}]"
                                        "|&#x?(0*[0-9a-b]|1[0-9a-f]?);", text, 0, 0));
}

static void test_svg(void)
{
    g_autofree char *name = NULL;
    GMarkupParser ignore = { NULL };
    GError *err = NULL;

    small_schedule();
    g_autofree char *svg = drawn(lab_draw_svg, ".svg", &name);
    GMarkupParseContext *xml = g_markup_parse_context_new(&ignore, 0, NULL, NULL);
    g_markup_parse_context_parse(xml, svg, -1, &err);
    g_assert_no_error(err);
    g_assert_true(g_markup_parse_context_end_parse(xml, &err));
    g_markup_parse_context_free(xml);
    g_assert_cmpuint(occurrences(svg, "class=\"deviation\""), ==, 1);
    g_assert_cmpuint(occurrences(svg, "class=\"wake\""), ==, 1);
    g_assert_cmpuint(occurrences(svg, "class=\"flush\""), ==, 1);
    g_assert_cmpuint(occurrences(svg, "class=\"request"), ==, 2);
    g_assert_nonnull(strstr(svg, "read &lt;0+4096&gt;"));
    assert_xml(svg);
    g_unlink(name);
}

static void test_trace(void)
{
    g_autofree char *name = NULL;
    json_error_t error;
    size_t i;
    json_t *e;
    unsigned spans = 0, lanes = 0, flows = 0;

    small_schedule();
    g_autofree char *text = drawn(lab_draw_trace, ".json", &name);
    json_t *root = json_loads(text, 0, &error);
    g_assert_nonnull(root);
    json_array_foreach(json_object_get(root, "traceEvents"), i, e) {
        const char *phase = json_string_value(json_object_get(e, "ph"));
        g_assert_true(json_is_integer(json_object_get(e, "ts")));
        g_assert_true(json_is_integer(json_object_get(e, "tid")));
        spans += !strcmp(phase, "X");
        lanes += !strcmp(phase, "M");
        flows += !strcmp(phase, "s") || !strcmp(phase, "f");
    }
    g_assert_cmpuint(spans, >=, 6);
    g_assert_cmpuint(lanes, >=, 5);
    g_assert_cmpuint(flows, ==, 2);
    json_decref(root);
    g_unlink(name);
}

/* A browser runs the page: its script has moved the view, and its parser found all lanes. */
static void test_browser(void)
{
    g_autofree char *name = NULL, *browser = g_find_program_in_path("chromium");
    g_autofree char *out = NULL, *log = NULL;
    int status;

    if (!browser) {
        g_test_skip("no browser: chromium is not installed");
        return;
    }
    small_schedule();
    g_autofree char *html = drawn(lab_draw_html, ".html", &name);
    g_assert_null(strstr(html, "src="));
    g_assert_null(strstr(html, "href="));
    assert_xml(html);
    g_autofree char *profile = g_dir_make_tmp("lab-browser-XXXXXX", NULL);
    g_autofree char *profile_arg = g_strconcat("--user-data-dir=", profile, NULL);
    g_autofree char *url = g_strconcat("file://", name, NULL);
    char *argv[] = { "timeout", "60", browser, "--headless", "--no-sandbox", "--disable-gpu",
                     "--enable-logging=stderr", profile_arg, "--dump-dom", url, NULL };
    g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &log,
                               &status, NULL));
    if (status != 0) {
        g_test_skip("the browser does not run here");
    } else {
        g_assert_null(strstr(log, "Uncaught"));
        g_assert_nonnull(strstr(out, "<h1>/drain/&lt;iothread&gt;: deadlock</h1>"));
        g_assert_cmpuint(occurrences(out, "class=\"lane\""), >=, 5);
        g_assert_cmpuint(occurrences(out, "<tr class=\"failed\">"), ==, 1);
    }
    g_unlink(name);
    char *clean[] = { "rm", "-rf", profile, NULL };
    g_spawn_sync(NULL, clean, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
}

static void test_unwritable(void)
{
    small_schedule();
    g_assert_cmpint(lab_draw_svg("/nonexistent/a.svg", &picture), <, 0);
    g_assert_cmpint(lab_draw_html("/nonexistent/a.html", &picture), <, 0);
    g_assert_cmpint(lab_draw_trace("/nonexistent/a.json", &picture), <, 0);
}

/* ---- in place of the engine ----------------------------------------------------------------- */

const LabEvent *lab_events(size_t *count)
{
    *count = event_count;
    return events;
}

const char *lab_op_name(LabOpKind kind)
{
    return kind == LAB_OP_LOAD ? "load" : "op";
}

const char *lab_thread_name(unsigned thread)
{
    static const char *const names[] = { "main", "io0", "io1" };
    return thread < G_N_ELEMENTS(names) ? names[thread] : "other";
}

const char *lab_object_name(uintptr_t object, char *buffer, size_t size)
{
    snprintf(buffer, size, object == 0x3000 ? "node 'd'" : "#%u", (unsigned)(object & 0xff));
    return buffer;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/lab/draw/scene", test_scene);
    g_test_add_func("/lab/draw/long", test_long);
    g_test_add_func("/lab/draw/empty", test_empty);
    g_test_add_func("/lab/draw/svg", test_svg);
    g_test_add_func("/lab/draw/trace", test_trace);
    g_test_add_func("/lab/draw/browser", test_browser);
    g_test_add_func("/lab/draw/unwritable", test_unwritable);
    return g_test_run();
}
