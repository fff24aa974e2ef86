/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* QMP on the wire: a recorded conversation is repeated against a running daemon. */
#include "miniblk/osdep.h"
#include "tests/lib/harness.h"

#define TIMEOUT_MS 60000

/* ---- replay ----------------------------------------------------------------------- */

/*
 * Recorded from the original implementation. Differences are on purpose: query-jobs became
 * query-block-exports (both have nothing to list), a rejected capability is named by its
 * place, and too deep nesting is reported once instead of once a bracket.
 */
#define ERR(desc) "{\"error\": {\"class\": \"GenericError\", \"desc\": \"" desc "\"}}\r\n"
#define ERR_ID(id, desc) "{\"id\": " id ", \"error\": {\"class\": \"GenericError\", " \
                         "\"desc\": \"" desc "\"}}\r\n"
#define NOT_FOUND(desc) "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"" desc \
                        "\"}}\r\n"
#define PE(desc) ERR("JSON parse error, " desc)
#define EMPTY "{\"return\": []}\r\n"
#define EMPTY_ID(id) "{\"return\": [], \"id\": " id "}\r\n"
#define QUERY "\"execute\":\"query-block-exports\""

typedef enum Caps { CAPS_NONE, CAPS_PLAIN, CAPS_OOB } Caps;

typedef struct Step {
    Caps caps;                  /* other than in the step before: a new connection */
    const char *send;
    size_t len;
    const char *expected;       /* all lines */
} Step;

#define STEP(caps, text, expected) { caps, text, sizeof(text) - 1, expected }

static const Step steps[] = {
    /* ---- before and during negotiation ---- */
    STEP(CAPS_NONE, "{\"execute\":\"query-version\"}\n",
         NOT_FOUND("Expecting capabilities negotiation with 'qmp_capabilities'")),
    STEP(CAPS_NONE, "{\"execute\":\"nosuch\"}\n",
         NOT_FOUND("Expecting capabilities negotiation with 'qmp_capabilities'")),
    STEP(CAPS_NONE, "{\"execute\":\"qmp_capabilities\","
         "\"arguments\":{\"enable\":[\"foo\"]}}\n",
         ERR("Parameter 'enable[0]' does not accept value 'foo'")),
    STEP(CAPS_NONE, "{\"execute\":\"qmp_capabilities\",\"id\":1}",
         "{\"return\": {}, \"id\": 1}\r\n"),
    STEP(CAPS_NONE, "{\"execute\":\"qmp_capabilities\"}\n",
         NOT_FOUND("Capabilities negotiation is already complete, command ignored")),
    STEP(CAPS_NONE, "{" QUERY ",\"id\":\"after\"}\n", EMPTY_ID("\"after\"")),
    /* ---- out of band ---- */
    STEP(CAPS_OOB, "{\"exec-oob\":\"query-version\",\"id\":7}\n",
         ERR_ID("7", "The command query-version does not support OOB")),
    STEP(CAPS_OOB, "{\"exec-oob\":\"query-version\"}\n",
         ERR("The command query-version does not support OOB")),
    STEP(CAPS_OOB, "{\"execute\":\"query-version\",\"exec-oob\":\"x\"}\n",
         ERR("QMP input member 'execute' clashes with 'exec-oob'")),
    STEP(CAPS_OOB, "{\"exec-oob\":\"x-nosuch\",\"id\":2}",
         "{\"id\": 2, \"error\": {\"class\": \"CommandNotFound\", \"desc\": "
         "\"The command x-nosuch has not been found\"}}\r\n"),
    STEP(CAPS_PLAIN, "{\"exec-oob\":\"query-version\",\"id\":7}\n",
         ERR_ID("7", "QMP input member 'exec-oob' is unexpected")),
    /* ---- commands and arguments ---- */
    STEP(CAPS_PLAIN, "{\"execute\":\"nosuch\"}\n",
         NOT_FOUND("The command nosuch has not been found")),
    STEP(CAPS_PLAIN, "{\"execute\":\"nosuch\",\"id\":{\"a\":[1,null,2.5]}}\n",
         "{\"id\": {\"a\": [1, null, 2.5]}, \"error\": {\"class\": \"CommandNotFound\", "
         "\"desc\": \"The command nosuch has not been found\"}}\r\n"),
    STEP(CAPS_PLAIN, "{\"execute\":\"blockdev-del\"}\n",
         ERR("Parameter 'node-name' is missing")),
    STEP(CAPS_PLAIN, "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"x\","
         "\"foo\":1},\"id\":3}\n", ERR_ID("3", "Parameter 'foo' is unexpected")),
    STEP(CAPS_PLAIN, "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":5}}\n",
         ERR("Invalid parameter type for 'node-name', expected: string")),
    STEP(CAPS_PLAIN, "{\"execute\":\"blockdev-del\",\"arguments\":[]}\n",
         ERR("QMP input member 'arguments' must be an object")),
    STEP(CAPS_PLAIN, "{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"nope\"}}\n",
         ERR("Failed to find node with node-name='nope'")),
    STEP(CAPS_PLAIN, "{\"execute\":5}\n", ERR("QMP input member 'execute' must be a string")),
    STEP(CAPS_PLAIN, "{\"arguments\":{}}\n", ERR("QMP input lacks member 'execute'")),
    STEP(CAPS_PLAIN, "{}\n", ERR("QMP input lacks member 'execute'")),
    STEP(CAPS_PLAIN, "{\"execute\":\"query-version\",\"foo\":1}\n",
         ERR("QMP input member 'foo' is unexpected")),
    STEP(CAPS_PLAIN, "{\"execute\":\"query-version\",\"control\":{}}\n",
         ERR("QMP input member 'control' is unexpected")),
    STEP(CAPS_PLAIN, "[]\n", ERR("QMP input must be a JSON object")),
    STEP(CAPS_PLAIN, "\"str\"\n", ERR("QMP input must be a JSON object")),
    STEP(CAPS_PLAIN, "12\n", ERR("QMP input must be a JSON object")),
    STEP(CAPS_PLAIN, "null\n", ERR("QMP input must be a JSON object")),
    STEP(CAPS_PLAIN, "{\"id\":5}", ERR_ID("5", "QMP input lacks member 'execute'")),
    /* ---- syntax ---- */
    STEP(CAPS_PLAIN, "{\"execute\":\"query-version\",}\n", PE("expecting value")),
    STEP(CAPS_PLAIN, "{\"execute\": query-version}\n",
         PE("stray '-v'") PE("expecting value")),
    STEP(CAPS_PLAIN, "}\n", PE("expecting value")),
    STEP(CAPS_PLAIN, "{\"execute\":\"query-version\"]\n", PE("expected separator in dict")),
    STEP(CAPS_PLAIN, "\n\n", ""),
    STEP(CAPS_PLAIN, "{\"a\":1\x01}\n", PE("stray '\\u0001'") PE("expecting value")),
    STEP(CAPS_PLAIN, "{\"execute\":\"query-version\",\"id\":\"\\ud800\"}\n",
         PE("\\\\ud800 is not a valid Unicode character")),
    STEP(CAPS_PLAIN, "{\"execute\":\"query-version\",\"id\":\"\xc3(\"}\n",
         PE("invalid UTF-8 sequence in string")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":\"caf\xc3\xa9\"}\n", EMPTY_ID("\"caf\\u00E9\"")),
    STEP(CAPS_PLAIN, "{'execute':'query-block-exports','id':'single'}\n",
         EMPTY_ID("\"single\"")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":1.50}\n", EMPTY_ID("1.5")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":123456789012345678901234567890}\n",
         EMPTY_ID("1.2345678901234568e+29")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":18446744073709551615}\n",
         EMPTY_ID("18446744073709551615")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":-0}\n", EMPTY_ID("0")),
    STEP(CAPS_PLAIN, "{" QUERY "," QUERY "}\n", PE("duplicate key")),
    /* ---- framing ---- */
    STEP(CAPS_PLAIN, "{\"execute\":", ""),
    STEP(CAPS_PLAIN, "\"query-block-exports\"", ""),
    STEP(CAPS_PLAIN, "}", EMPTY),
    STEP(CAPS_PLAIN, "{" QUERY "}{" QUERY ",\"id\":2} {" QUERY ",\"id\":3}",
         EMPTY EMPTY_ID("2") EMPTY_ID("3")),
    /* ---- resynchronisation ---- */
    STEP(CAPS_PLAIN, "{\"execute\":\"query-ver\xff", PE("stray '\\\"query-ver\\uFFFD'")),
    STEP(CAPS_PLAIN, "{" QUERY "}\n", EMPTY),
    STEP(CAPS_PLAIN, "{" QUERY "\xff\xff{" QUERY ",\"id\":9}\n",
         PE("stray '\\uFFFD'") PE("stray '\\uFFFD'") EMPTY_ID("9")),
    STEP(CAPS_PLAIN, "\xff", PE("stray '\\uFFFD'")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":\"\xff\"}\n",
         PE("stray '\\\"\\uFFFD'") PE("expecting value")),
    STEP(CAPS_PLAIN, "\0", PE("stray ''")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":10}\n", EMPTY_ID("10")),
    /* ---- ids ---- */
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":null}\n", EMPTY_ID("null")),
    STEP(CAPS_PLAIN, "{" QUERY ",\"id\":{\"x\":[1,2]}}\n", EMPTY_ID("{\"x\": [1, 2]}")),
    STEP(CAPS_PLAIN, "{\"id\":[]," QUERY "}\n", EMPTY_ID("[]")),
};

static void expect_lines(TQmp *q, const Step *s)
{
    const char *p = s->expected;

    while (*p) {
        const char *end = strchr(p, '\n') + 1;
        g_autofree char *want = g_strndup(p, end - p);
        g_autofree char *got = t_qmp_read_line(q, TIMEOUT_MS);

        if (g_strcmp0(got, want)) {
            g_error("sent:     %s\nexpected: %s\ngot:      %s", s->send, want, got);
        }
        p = end;
    }
}

static TQmp *connect_with(TDaemon *d, Caps caps)
{
    TQmp *q = t_qmp_connect(t_daemon_socket(d), caps == CAPS_PLAIN);

    if (caps == CAPS_OOB) {
        t_qmp_run(q, "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}");
    }
    return q;
}

/* PIECE: how many bytes go out at a time. */
static void replay(size_t piece)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        const Step *s = &steps[i];

        if (!q || s->caps != s[-1].caps) {
            g_clear_pointer(&q, t_qmp_close);
            q = connect_with(d, s->caps);
        }
        for (size_t pos = 0; pos < s->len; pos += piece) {
            t_qmp_send_raw(q, s->send + pos, MIN(piece, s->len - pos));
        }
        expect_lines(q, s);
    }
    /* Nothing is left over: the next line is the answer to the next command. */
    t_qmp_send_raw(q, "{" QUERY ",\"id\":\"last\"}", strlen("{" QUERY ",\"id\":\"last\"}"));
    g_autofree char *last = t_qmp_read_line(q, TIMEOUT_MS);
    g_assert_cmpstr(last, ==, EMPTY_ID("\"last\""));
    t_qmp_close(q);
    t_daemon_stop_ok(d);
}

static void test_replay(void)
{
    replay(SIZE_MAX / 2);
}

static void test_replay_in_pieces(void)
{
    replay(1);
    replay(7);
}

static void test_greeting(void)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_qmp_connect_raw(t_daemon_socket(d));
    g_autofree char *line = t_qmp_read_line(q, TIMEOUT_MS);

    g_assert_true(g_str_has_prefix(line, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, "
                                   "\"minor\": 2, \"major\": 8}, \"package\": \"miniblk-"));
    g_assert_true(g_str_has_suffix(line, "\"}, \"capabilities\": [\"oob\"]}}\r\n"));
    t_qmp_close(q);
    t_daemon_stop_ok(d);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/qmp-wire/greeting", test_greeting);
    g_test_add_func("/qmp-wire/replay", test_replay);
    g_test_add_func("/qmp-wire/replay-in-pieces", test_replay_in_pieces);
    return t_main();
}
