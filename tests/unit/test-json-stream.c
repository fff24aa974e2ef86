/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The JSON stream: what each input yields, however it is cut into pieces.
 *
 * Expected results, one a line: a value as text, followed by " #ID" when it has an "id", or
 * "!" and an error's message.
 */
#include "miniblk/osdep.h"
#include "miniblk/error.h"
#include "qmp/json.h"

typedef struct Case {
    const char *input;
    size_t len;
    const char *expected;
} Case;

#define CASE(in, out) { in, sizeof(in) - 1, out }
#define PE "!JSON parse error, "
#define FFFD "\xff"     /* as it is in the message; printed as U+FFFD */

static const Case cases[] = {
    /* ---- values ---- */
    CASE("{}", "{}\n"),
    CASE("[]\n", "[]\n"),
    CASE("\"s\"", "\"s\"\n"),
    CASE("12\n", "12\n"),
    CASE("null\n", "null\n"),
    CASE(" true false\n", "true\nfalse\n"),
    CASE("{\"a\":[1,{\"b\":null}],\"c\":\"d\"}",
         "{\"a\": [1, {\"b\": null}], \"c\": \"d\"}\n"),
    CASE("{'a':'b\"c\\'d'}", "{\"a\": \"b\\\"c'd\"}\n"),
    CASE("{}{} [] 1 2\n", "{}\n{}\n[]\n1\n2\n"),
    CASE("\n\r\t \n", ""),
    CASE("1-1\n", "1\n-1\n"),
    CASE("\"x\"\"y\"", "\"x\"\n\"y\"\n"),
    /* ---- numbers ---- */
    CASE("[0,-0,-1,9223372036854775807,-9223372036854775808]",
         "[0, 0, -1, 9223372036854775807, -9223372036854775808]\n"),
    CASE("[1.50,1e2,-2.5E-1,1.0]", "[1.5, 100, -0.25, 1]\n"),
    CASE("1e999\n", PE "number '1e999' is out of range\n"),
    CASE("01", PE "stray '01'\n"),
    CASE("-}", PE "stray '-}'\n"),
    CASE("--", PE "stray '--'\n"),
    CASE("1.}", PE "stray '1.}'\n"),
    CASE("1ex", PE "stray '1ex'\n"),
    CASE("+", PE "stray '+'\n"),
    CASE(".5", PE "stray '.'\n"),
    /* ---- ids ---- */
    CASE("{\"id\":1}", "{\"id\": 1} #1\n"),
    CASE("{\"id\":null}", "{\"id\": null} #null\n"),
    CASE("{\"id\":1.50}", "{\"id\": 1.5} #1.5\n"),
    CASE("{\"id\":-0}", "{\"id\": 0} #0\n"),
    CASE("{\"id\":18446744073709551615}",
         "{\"id\": 1.8446744073709552e+19} #18446744073709551615\n"),
    CASE("{\"id\":{\"a\":[18446744073709551615,'\\u00e9']}}",
         "{\"id\": {\"a\": [1.8446744073709552e+19, \"\\u00E9\"]}} "
         "#{\"a\": [18446744073709551615, \"\\u00E9\"]}\n"),
    CASE("{\"id\":123456789012345678901234567890}",
         "{\"id\": 1.2345678901234568e+29} #1.2345678901234568e+29\n"),
    CASE("{\"id\":\"caf\xc3\xa9\"}", "{\"id\": \"caf\\u00E9\"} #\"caf\\u00E9\"\n"),
    CASE("{\"x\":{\"id\":5}}", "{\"x\": {\"id\": 5}}\n"),
    CASE("{\"id\":[],\"x\":1}", "{\"id\": [], \"x\": 1} #[]\n"),
    /* ---- strings ---- */
    CASE("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\'\"", "\"\\\"\\\\/\\b\\f\\n\\r\\t'\"\n"),
    CASE("\"\\ud83d\\ude00\"", "\"\\uD83D\\uDE00\"\n"),
    CASE("\"\xf0\x9f\x98\x80\"", "\"\\uD83D\\uDE00\"\n"),
    CASE("\"\x7f\"", "\"\\u007F\"\n"),
    CASE("\"\\u0041\\u00e9\\u20ac\"", "\"A\\u00E9\\u20AC\"\n"),
    CASE("\"\\ud800\"", PE "\\ud800 is not a valid Unicode character\n"),
    CASE("\"\\ude00\"", PE "\\ude00 is not a valid Unicode character\n"),
    CASE("\"\\ud83dx\"", PE "\\ud83d is not a valid Unicode character\n"),
    CASE("\"\\ud83d\\u0041\"", PE "\\ud83d is not a valid Unicode character\n"),
    CASE("\"\\uffff\"", PE "\\uffff is not a valid Unicode character\n"),
    CASE("\"\\u0000\"", PE "\\u0000 is not a valid Unicode character\n"),
    CASE("\"\\u12\"", PE "\\u12\" is not a valid Unicode character\n"),
    CASE("\"\\q\"", PE "invalid escape sequence in string\n"),
    CASE("\"\xc3(\"", PE "invalid UTF-8 sequence in string\n"),
    CASE("\"\xed\xa0\x80\"", PE "invalid UTF-8 sequence in string\n"),
    CASE("\"\xc0\x80\"", PE "invalid UTF-8 sequence in string\n"),
    CASE("\"a\nb\"", PE "stray '\"a\n'\n"),
    CASE("\"a\tb\"", PE "stray '\"a\t'\n"),
    /* ---- syntax ---- */
    CASE("{\"a\":1,}", PE "expecting value\n"),
    CASE("}", PE "expecting value\n"),
    CASE("]", PE "expecting value\n"),
    CASE(",", PE "expecting value\n"),
    CASE("{\"a\":1]", PE "expected separator in dict\n"),
    CASE("{\"a\":1 2}", PE "expected separator in dict\n"),
    CASE("{\"a\":12y}", PE "expected separator in dict\n"),
    CASE("[1 2]", PE "expected separator in list\n"),
    CASE("[1,]", PE "expecting value\n"),
    CASE("[1}", PE "expected separator in list\n"),
    CASE("{\"a\" 1}", PE "missing : in object pair\n"),
    CASE("{1:2}", PE "key is not a string in object\n"),
    CASE("{a:1}", PE "invalid keyword 'a'\n"),
    CASE("{\"a\":tru3}", PE "invalid keyword 'tru'\n"),
    CASE("{\"a\":1,\"b\":2,\"a\":3}", PE "duplicate key\n"),
    CASE("{\"a\":1,'\\u0061':3}", PE "duplicate key\n"),
    CASE("{\"a\":TRUE}", PE "stray 'T'\n" PE "expecting value\n"),
    CASE("{\"a\":%d}", PE "stray '%'\n" PE "expecting value\n"),
    /* ---- recovery ---- */
    CASE("{\"execute\": query-version}\n", PE "stray '-v'\n" PE "expecting value\n"),
    CASE("{\"a\":1\x01}\n", PE "stray '\x01'\n" PE "expecting value\n"),
    CASE("{\"a\":\"b\xff", PE "stray '\"b" FFFD "'\n"),
    CASE("{\"a\":\"b\xff{\"c\":1}", PE "stray '\"b" FFFD "'\n{\"c\": 1}\n"),
    CASE("{\"a\"\xff\xff{\"c\":1}\n", PE "stray '" FFFD "'\n" PE "stray '" FFFD "'\n"
         "{\"c\": 1}\n"),
    CASE("\xff", PE "stray '" FFFD "'\n"),
    CASE("{\"id\":\"\xff\"}\n{}", PE "stray '\"" FFFD "'\n" PE "expecting value\n{}\n"),
    CASE("\0{}", PE "stray ''\n{}\n"),
    CASE("foo \"bar\n{}", PE "invalid keyword 'foo'\n" PE "stray '\"bar\n'\n{}\n"),
    CASE("\xc3\xa9\n[]", PE "stray '\xc3'\n[]\n"),
};

static void append_message(GString *out, JsonMessage *msg)
{
    g_assert_true(!msg->value == !!msg->error);
    if (msg->error) {
        g_string_append_printf(out, "!%s\n", error_get_pretty(msg->error));
    } else {
        json_write(out, msg->value, false, 0);
        if (msg->id_text) {
            g_string_append_printf(out, " #%s", msg->id_text);
        }
        g_string_append_c(out, '\n');
    }
    json_message_clear(msg);
}

static void feed(JsonStream *s, const char *buf, size_t len, GString *out)
{
    JsonMessage msg;
    size_t used;

    while (len) {
        /* Exactly as long as the piece, so that a sanitizer sees what reads beyond. */
        g_autofree char *piece = g_malloc(len);

        memcpy(piece, buf, len);
        if (json_stream_feed(s, piece, len, &used, &msg)) {
            append_message(out, &msg);
        } else {
            g_assert_cmpuint(used, ==, len);
        }
        g_assert_cmpuint(used, <=, len);
        buf += used;
        len -= used;
    }
}

static void check(const Case *c, GString *out, const char *how, size_t at)
{
    if (strcmp(out->str, c->expected)) {
        g_error("input '%s' %s %zu:\nexpected: %s\ngot:      %s", c->input, how, at,
                c->expected, out->str);
    }
    g_string_truncate(out, 0);
}

/* Whole, cut in two everywhere, and byte by byte. */
static void test_cases(void)
{
    g_autoptr(GString) out = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Case *c = &cases[i];
        JsonStream s;

        for (size_t cut = 0; cut <= c->len; cut++) {
            json_stream_init(&s);
            feed(&s, c->input, cut, out);
            feed(&s, c->input + cut, c->len - cut, out);
            check(c, out, "cut at", cut);
            json_stream_destroy(&s);
        }
        json_stream_init(&s);
        for (size_t pos = 0; pos < c->len; pos++) {
            feed(&s, c->input + pos, 1, out);
        }
        check(c, out, "byte by byte", c->len);
        json_stream_destroy(&s);
    }
}

/* After any case and a 0xFF, the stream is as good as new. */
static void test_reset_byte(void)
{
    g_autoptr(GString) out = g_string_new(NULL);
    JsonStream s;

    json_stream_init(&s);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        feed(&s, cases[i].input, cases[i].len, out);
        feed(&s, "\xff", 1, out);
        g_string_truncate(out, 0);
        feed(&s, "{\"id\":7}", 8, out);
        g_assert_cmpstr(out->str, ==, "{\"id\": 7} #7\n");
    }
    json_stream_destroy(&s);
}

static GString *repeat(const char *text, int n)
{
    GString *out = g_string_new(NULL);

    for (int i = 0; i < n; i++) {
        g_string_append(out, text);
    }
    return out;
}

/* One level more than allowed is answered once, and the next value is understood. */
static void test_nesting(void)
{
    static const char before[] = "{\"execute\":\"x\",\"arguments\":{\"a\":";
    g_autoptr(GString) open = repeat("[", JSON_NESTING_MAX);
    g_autoptr(GString) close = repeat("]", JSON_NESTING_MAX);
    g_autoptr(GString) out = g_string_new(NULL);
    JsonStream s;

    json_stream_init(&s);
    feed(&s, open->str, open->len, out);
    feed(&s, close->str, close->len, out);
    g_assert_cmpuint(out->len, ==, 2 * JSON_NESTING_MAX + 1);
    g_string_truncate(out, 0);

    feed(&s, "[", 1, out);
    feed(&s, open->str, open->len, out);
    g_assert_cmpstr(out->str, ==, "!JSON nesting depth limit exceeded\n");
    feed(&s, "\xff", 1, out);
    feed(&s, "{}", 2, out);
    g_assert_cmpstr(out->str, ==, "!JSON nesting depth limit exceeded\n"
                    PE "stray '" FFFD "'\n{}\n");
    g_string_truncate(out, 0);

    feed(&s, before, strlen(before), out);
    feed(&s, open->str, open->len, out);
    feed(&s, close->str, close->len, out);
    feed(&s, "}}{}", 4, out);
    g_assert_cmpstr(out->str, ==, "!JSON nesting depth limit exceeded\n{}\n");
    json_stream_destroy(&s);
}

/* Feed UNIT again and again until something comes out; how many bytes that took. */
static size_t feed_until(JsonStream *s, const char *unit, JsonMessage *msg)
{
    size_t len = strlen(unit), total = 0, used;

    while (!json_stream_feed(s, unit, len, &used, msg)) {
        total += len;
        g_assert_cmpuint(total, <, 2 * (size_t)JSON_TEXT_BYTES_MAX);
    }
    return total;
}

static void test_size_limits(void)
{
    static const struct {
        const char *begin, *unit, *end, *error;
    } limits[] = {
        { "\"", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "\"",
          "JSON token size limit exceeded" },
        { "{\"a\":\"", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "\"}",
          "JSON token size limit exceeded" },
        { "", "1111111111111111111111111111111111111111111111111111111111111111", "\n",
          "JSON token size limit exceeded" },
        { "[", "1,", "1]", "JSON token count limit exceeded" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(limits); i++) {
        g_autoptr(GString) out = g_string_new(NULL);
        JsonMessage msg;
        JsonStream s;

        json_stream_init(&s);
        feed(&s, limits[i].begin, strlen(limits[i].begin), out);
        feed_until(&s, limits[i].unit, &msg);
        g_assert_nonnull(msg.error);
        g_assert_cmpstr(error_get_pretty(msg.error), ==, limits[i].error);
        json_message_clear(&msg);
        /* Its rest is ignored without being kept, and then life goes on. */
        for (int n = 0; n < 100000; n++) {
            feed(&s, limits[i].unit, strlen(limits[i].unit), out);
        }
        g_assert_cmpuint(s.lexer.text->allocated_len, <, 65536);
        feed(&s, limits[i].end, strlen(limits[i].end), out);
        feed(&s, "{}", 2, out);
        g_assert_cmpstr(out->str, ==, "{}\n");
        json_stream_destroy(&s);
    }
}

static void test_parse_text(void)
{
    static const char *const texts[][2] = {
        { "{\"a\": 1}", "{\"a\": 1}" },
        { " 5 ", "5" },
        { "5", "5" },
        { "true", "true" },
        { "1.5", "1.5" },
        { "{", "!JSON parse error, premature EOI" },
        { "{\"a\":", "!JSON parse error, premature EOI" },
        { "", "!Expecting a JSON value" },
        { "  ", "!Expecting a JSON value" },
        { "{}{}", "!Expecting at most one JSON value" },
        { "{} x", "!Expecting at most one JSON value" },
        { "{\"a\":\"unterminated", "!JSON parse error, stray '\"unterminated'" },
        { "{\"a\":01}", "!JSON parse error, stray '01'" },
        { "-", "!JSON parse error, stray '-'" },
        { "}", "!JSON parse error, expecting value" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        Error *err = NULL;
        json_t *value = json_parse_text(texts[i][0], &err);
        g_autoptr(GString) out = g_string_new(NULL);

        if (value) {
            g_assert_null(err);
            json_write(out, value, false, 0);
            json_decref(value);
        } else {
            g_string_append_printf(out, "!%s", error_get_pretty(err));
            error_free(err);
        }
        g_assert_cmpstr(out->str, ==, texts[i][1]);
    }
}

static void test_write(void)
{
    g_autoptr(GString) out = g_string_new(NULL);
    json_t *value = json_parse_text("{'a':[1,{}],'b':{'c':[]},'d':\"x\"}", &error_abort);

    json_write(out, value, true, 0);
    g_assert_cmpstr(out->str, ==,
                    "{\n"
                    "    \"a\": [\n"
                    "        1,\n"
                    "        {\n"
                    "        }\n"
                    "    ],\n"
                    "    \"b\": {\n"
                    "        \"c\": [\n"
                    "        ]\n"
                    "    },\n"
                    "    \"d\": \"x\"\n"
                    "}");
    json_decref(value);

    /* File names need not be UTF-8, and what is cut off must not be read beyond. */
    g_string_truncate(out, 0);
    json_write_string(out, "a\xe9z\0b\xe2\x82", 7);
    g_assert_cmpstr(out->str, ==, "\"a\\uFFFDz\\u0000b\\uFFFD\\uFFFD\"");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json/cases", test_cases);
    g_test_add_func("/json/reset-byte", test_reset_byte);
    g_test_add_func("/json/nesting", test_nesting);
    g_test_add_func("/json/size-limits", test_size_limits);
    g_test_add_func("/json/parse-text", test_parse_text);
    g_test_add_func("/json/write", test_write);
    return g_test_run();
}
