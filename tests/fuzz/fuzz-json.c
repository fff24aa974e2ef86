/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzzing of what reads text from outside: the JSON stream, the check of arguments against
 * the schema, replies, and key=value options. Beyond not crashing:
 *
 *  - what comes out does not depend on how the input was cut into pieces;
 *  - a value that was printed and parsed again is the same value;
 *  - arguments that were accepted are accepted again, unchanged;
 *  - every reply is one line of valid JSON;
 *  - after a 0xFF the next command is understood.
 *
 * Built with -DMINIBLK_LIBFUZZER and -fsanitize=fuzzer it is a libFuzzer target. Built
 * plainly it runs the files that are given, or a number of generated inputs as a test.
 */
#include "miniblk/osdep.h"
#include "miniblk/block.h"
#include "miniblk/main-loop.h"
#include "qmp/dispatch.h"
#include "qmp/json.h"
#include "qmp/qmp.h"
#include "qmp/schema.h"
#include "replay.h"

static void set_up(void)
{
    static bool done;

    if (!done) {
        done = true;
        qemu_init_main_loop(&error_abort);
        bdrv_init();
        qmp_init();
    }
}

/* ---- properties ------------------------------------------------------------------- */

/* VALUE printed, parsed, and printed again. */
static GString *print_again(const json_t *value, json_t **again)
{
    g_autoptr(GString) text = g_string_new(NULL);
    GString *out = g_string_new(NULL);

    json_write(text, value, false, 0);
    *again = json_parse_text(text->str, &error_abort);
    json_write(out, *again, false, 0);
    return out;
}

static void check_printed_again(const json_t *value)
{
    json_t *once, *twice;
    /* The first time 1.0 becomes 1, and -0.0 first "-0" and then 0. */
    g_autoptr(GString) first = print_again(value, &once);
    g_autoptr(GString) second = print_again(once, &twice);

    g_assert_cmpstr(first->str, ==, second->str);
    g_assert_true(json_equal(once, twice));
    json_decref(once);
    json_decref(twice);
}

static void check_arguments(const json_t *value, SchemaInput input)
{
    static const char *const types[] = {
        "BlockdevOptions", "BlockExportOptions", "ObjectOptions", "NbdServerOptions",
        "{node-name:str, iothread:StrOrNull, force?:bool}", "{l?:[{a:int, b?:size}]}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        const SchemaType *type = schema_type(types[i]);
        Error *err = NULL;
        json_t *once = schema_convert(type, value, "", input, &err);
        json_t *twice;

        g_assert_true(!once == !!err);
        if (!once) {
            error_free(err);
            continue;
        }
        /* A driver's members that the schema does not know stay what they were. */
        twice = schema_convert(type, once, "", SCHEMA_TYPED, &error_abort);
        g_assert_true(json_equal(once, twice));
        json_decref(once);
        json_decref(twice);
    }
}

/* A client that has not negotiated: the reply is formed, no command is run. */
static void check_reply(const JsonMessage *msg)
{
    g_autoptr(GString) out = g_string_new(NULL);
    QmpCaps caps = { false, true };
    json_error_t err;
    json_t *reply;

    qmp_dispatch(msg, &caps, false, out);
    g_assert_true(g_str_has_suffix(out->str, "\r\n"));
    g_assert_null(memchr(out->str, '\n', out->len - 1));
    /* An id beyond 2^63 is echoed, but jansson cannot hold it. */
    reply = json_loads(out->str, JSON_DECODE_INT_AS_REAL, &err);
    if (!reply) {
        g_error("reply '%s': %s", out->str, err.text);
    }
    json_decref(reply);
}

/* ---- feeding ---------------------------------------------------------------------- */

static void take(JsonMessage *msg, GString *log, bool deep)
{
    g_assert_true(!msg->value == !!msg->error);
    if (msg->value) {
        json_write(log, msg->value, false, 0);
        if (deep) {
            check_printed_again(msg->value);
            check_arguments(msg->value, SCHEMA_TYPED);
        }
    } else {
        g_string_append(log, error_get_pretty(msg->error));
    }
    g_string_append(log, msg->id_text ?: "");
    g_string_append_c(log, '\n');
    if (deep) {
        check_reply(msg);
    }
    json_message_clear(msg);
}

/* PIECE bytes at a time; what came out goes to LOG. */
static void feed(const char *data, size_t size, size_t piece, GString *log, bool deep)
{
    JsonStream s;
    JsonMessage msg;
    size_t pos = 0;

    json_stream_init(&s);
    while (pos < size) {
        size_t used;

        if (json_stream_feed(&s, data + pos, MIN(piece, size - pos), &used, &msg)) {
            take(&msg, log, deep);
        }
        pos += used;
    }
    json_stream_destroy(&s);
}

static void check_keyval(const char *text)
{
    Error *err = NULL;
    json_t *value = keyval_parse(text, "driver", &err);

    g_assert_true(!value == !!err);
    if (!value) {
        error_free(err);
        return;
    }
    check_arguments(value, SCHEMA_KEYVAL);
    if (bdrv_options_nest(value, &err)) {
        check_printed_again(value);
    } else {
        error_free(err);
    }
    json_decref(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GString) whole = g_string_new(NULL), bytes = g_string_new(NULL);
    g_autoptr(GString) pieces = g_string_new(NULL);
    g_autofree char *text = g_strndup((const char *)data, size);
    /* Whatever came before, this is understood. */
    g_autoptr(GString) input = g_string_new_len((const char *)data, size);

    g_string_append(input, "\xff{\"id\":5}");
    set_up();
    feed(input->str, input->len, input->len, whole, true);
    feed(input->str, input->len, 1, bytes, false);
    feed(input->str, input->len, 7, pieces, false);
    g_assert_true(g_str_has_suffix(whole->str, "\n{\"id\": 5}5\n"));
    g_assert_cmpstr(whole->str, ==, bytes->str);
    g_assert_cmpstr(whole->str, ==, pieces->str);
    check_keyval(text);
    return 0;
}

#ifndef MINIBLK_LIBFUZZER

/* ---- generated inputs ------------------------------------------------------------- */

#define INPUTS 30000

static const char *const words[] = {
    "{", "}", "[", "]", ":", ",", "=", ".", "\"", "'", "\\", "\\u", "\\ud83d\\ude00", "\n",
    " ", "0", "-1", "1.5", "1e9", "18446744073709551615", "true", "false", "null", "\xff",
    "\xc3\xa9", "\xf0\x9f", "\x01", "id", "execute", "exec-oob", "arguments", "driver",
    "raw", "null-co", "qcow2", "file", "filename", "node-name", "size", "backing", "type",
    "nbd", "addr", "unix", "iothread", "qom-type", "\"driver\":\"raw\",",
    "\"node-name\":\"n\",", "\"file\":{", "{\"driver\":\"null-co\",\"size\":",
    "{\"execute\":\"qmp_capabilities\"}", "{\"execute\":\"query-version\",\"id\":",
    "driver=raw,file.driver=", "a.0=", ",a.1=", "qmp_capabilities", "enable", "oob",
};

static GString *generate(GRand *rand)
{
    GString *input = g_string_new(NULL);
    int n = g_rand_int_range(rand, 1, 40);

    for (int i = 0; i < n; i++) {
        if (g_rand_int_range(rand, 0, 12) == 0) {
            g_string_append_c(input, g_rand_int_range(rand, 0, 256));
        } else {
            g_string_append(input, words[g_rand_int_range(rand, 0, G_N_ELEMENTS(words))]);
        }
    }
    return input;
}

static void test_generated(void)
{
    GRand *rand = g_rand_new_with_seed(7);

    for (int i = 0; i < INPUTS; i++) {
        g_autoptr(GString) input = generate(rand);

        LLVMFuzzerTestOneInput((const uint8_t *)input->str, input->len);
    }
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc > 1) {
        return fuzz_replay(argv + 1);
    }
    g_test_add_func("/fuzz/json/generated", test_generated);
    return g_test_run();
}

#endif
