/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sections of deferred calls. */
#include "miniblk/osdep.h"
#include "miniblk/coroutine.h"
#include "miniblk/defer-call.h"
#include "miniblk/thread.h"
#include "trap.h"

static GString *trace;

static void note(void *opaque)
{
    g_string_append_c(trace, GPOINTER_TO_INT(opaque));
}

static void note_too(void *opaque)
{
    g_string_append_c(trace, g_ascii_toupper(GPOINTER_TO_INT(opaque)));
}

/* Opens a section of its own and defers into it. */
static void nest(void *opaque)
{
    defer_call_begin();
    defer_call(note, opaque);
    g_string_append_c(trace, '<');
    defer_call_end();
    g_string_append_c(trace, '>');
}

/* '(' ')' a section; a letter is deferred, a capital to another function; '<' to nest(). */
static void perform(const char *steps)
{
    g_string_truncate(trace, 0);
    for (const char *p = steps; *p; p++) {
        if (*p == '(') {
            defer_call_begin();
        } else if (*p == ')') {
            defer_call_end();
        } else if (*p == '<') {
            defer_call(nest, GINT_TO_POINTER('n'));
        } else if (*p == '|') {
            g_string_append_c(trace, '|');
        } else if (g_ascii_isupper(*p)) {
            defer_call(note_too, GINT_TO_POINTER(g_ascii_tolower(*p)));
        } else {
            defer_call(note, GINT_TO_POINTER(*p));
        }
    }
    g_assert_false(defer_call_in_section());
}

static void test_order(void)
{
    static const struct { const char *steps, *calls; } cases[] = {
        { "a|b",                "a|b" },            /* without a section: at once */
        { "(a|b|)|",            "||ab|" },
        { "(a(b|)|c)|",         "||abc|" },         /* the outermost end counts */
        { "(abab|a)|",          "|ab|" },           /* once each, in order of the first */
        { "(aAbB)",             "aAbB" },           /* another function is another call */
        { "(a)|(a)|",           "a|a|" },           /* the next section starts afresh */
        { "()|((()))",          "|" },
        { "(a<b)|",             "a<n>b|" },         /* calls may have sections themselves */
        { "<",                  "<n>" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        perform(cases[i].steps);
        g_assert_cmpstr(trace->str, ==, cases[i].calls);
    }
}

static void coroutine_fn section_across_yield(void *opaque)
{
    defer_call_begin();
    defer_call(note, GINT_TO_POINTER('a'));
    qemu_coroutine_yield();
    defer_call(note, GINT_TO_POINTER('c'));
    defer_call_end();
}

/* A section belongs to the thread: what runs there meanwhile is in it, too. */
static void test_coroutine_yields_inside(void)
{
    Coroutine *co = qemu_coroutine_create(section_across_yield, NULL);

    g_string_truncate(trace, 0);
    qemu_coroutine_enter(co);
    g_assert_true(defer_call_in_section());
    defer_call(note, GINT_TO_POINTER('b'));
    g_assert_cmpstr(trace->str, ==, "");
    qemu_coroutine_enter(co);
    g_assert_cmpstr(trace->str, ==, "abc");
    g_assert_false(defer_call_in_section());
}

static void *other_thread(void *opaque)
{
    g_assert_false(defer_call_in_section());
    defer_call(note, GINT_TO_POINTER('t'));
    return NULL;
}

static void test_threads_have_their_own(void)
{
    QemuThread thread;

    g_string_truncate(trace, 0);
    defer_call_begin();
    defer_call(note, GINT_TO_POINTER('m'));
    qemu_thread_create(&thread, "other", other_thread, NULL, QEMU_THREAD_JOINABLE);
    qemu_thread_join(&thread);
    g_assert_cmpstr(trace->str, ==, "t");
    defer_call_end();
    g_assert_cmpstr(trace->str, ==, "tm");
}

static void end_without_begin(void)
{
    defer_call_begin();
    defer_call_end();
    defer_call_end();
}

static void test_end_without_begin_aborts(void)
{
    trap(end_without_begin, "*defer_call_end: the thread has no section open*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    trace = g_string_new(NULL);
    g_test_add_func("/defer-call/order", test_order);
    g_test_add_func("/defer-call/coroutine-yields-inside", test_coroutine_yields_inside);
    g_test_add_func("/defer-call/threads-have-their-own", test_threads_have_their_own);
    g_test_add_func("/defer-call/end-without-begin-aborts", test_end_without_begin_aborts);
    int ret = g_test_run();
    g_string_free(trace, TRUE);
    return ret;
}
