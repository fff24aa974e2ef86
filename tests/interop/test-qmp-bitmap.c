/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps over QMP: the peer's words, and what a client sees of them. */
#include "miniblk/osdep.h"
#include "tests/lib/harness.h"

#define TIMEOUT_MS 60000
#define BITMAP(verb, node, name) \
    "{'execute': 'block-dirty-bitmap-" verb "', 'arguments': {'node': '" node "', " \
    "'name': '" name "'}}"
#define ADD(node, name, more) \
    "{'execute': 'block-dirty-bitmap-add', 'arguments': {'node': '" node "', " \
    "'name': '" name "'" more "}}"
#define MERGE(target, bitmaps) \
    "{'execute': 'block-dirty-bitmap-merge', 'arguments': {'node': 'n0', " \
    "'target': '" target "', 'bitmaps': [" bitmaps "]}}"
#define NODES "--blockdev null-co,node-name=n0,size=1048576 " \
              "--blockdev null-co,node-name=n1,size=2097152"

typedef struct Case {
    const char *command;
    const char *message;        /* NULL: it works */
} Case;

static void run_case(TQmp *q, const Case *c)
{
    g_autofree char *text = g_strdelimit(g_strdup(c->command), "'", '"');
    json_t *reply = t_qmp(q, "%s", text);
    const char *desc = json_string_value(json_object_get(json_object_get(reply, "error"),
                                                         "desc"));

    g_test_message("%s", text);
    g_assert_cmpstr(desc, ==, c->message);
    json_decref(reply);
}

static void test_commands(void)
{
    static const Case cases[] = {
        { ADD("n0", "b0", ""), NULL },
        { ADD("n0", "b0", ""), "Bitmap already exists: b0" },
        { ADD("n1", "b0", ""), NULL },
        { ADD("n0", "", ""), "Bitmap name cannot be empty" },
        { ADD("nope", "x", ""), "Cannot find device='nope' nor node-name='nope'" },
        { ADD("", "x", ""), "Cannot find device='' nor node-name=''" },
        { ADD("n0", "g", ", 'granularity': 1000"),
          "Granularity must be power of 2 and at least 512" },
        { ADD("n0", "g", ", 'granularity': 256"),
          "Granularity must be power of 2 and at least 512" },
        { ADD("n0", "g", ", 'granularity': 0"),
          "Granularity must be power of 2 and at least 512" },
        { ADD("n0", "g", ", 'granularity': 4294967296"),
          "Parameter 'granularity' expects uint32_t" },
        { ADD("n0", "p", ", 'persistent': true"),
          "Can't store persistent bitmaps to n0: Operation not supported" },
        { ADD("n0", "d", ", 'disabled': true, 'granularity': 4096"), NULL },
        { BITMAP("enable", "n0", "d"), NULL },
        { BITMAP("disable", "n0", "d"), NULL },
        { BITMAP("clear", "n0", "d"), NULL },
        { BITMAP("clear", "n0", "zz"), "Dirty bitmap 'zz' not found" },
        { BITMAP("enable", "n0", "zz"), "Dirty bitmap 'zz' not found" },
        { BITMAP("disable", "zz", "d"), "Cannot find device='zz' nor node-name='zz'" },
        { BITMAP("remove", "n0", "zz"), "Dirty bitmap 'zz' not found" },
        { MERGE("b0", ""), NULL },
        { MERGE("b0", "'d'"), NULL },
        { MERGE("b0", "'d', {'node': 'n0', 'name': 'd'}"), NULL },
        { MERGE("b0", "'d', {'node': 'n1', 'name': 'b0'}"),
          "Bitmaps are of different sizes (destination size is 1048576, source size is "
          "2097152) and can't be merged" },
        { MERGE("b0", "'zz'"), "Dirty bitmap 'zz' not found" },
        { MERGE("zz", "'d'"), "Dirty bitmap 'zz' not found" },
        { MERGE("b0", "{'node': 'q', 'name': 'd'}"), "Node 'q' not found" },
        { BITMAP("remove", "n0", "b0"), NULL },
        { BITMAP("remove", "n0", "b0"), "Dirty bitmap 'b0' not found" },
        /* a node takes its bitmaps along */
        { "{'execute': 'blockdev-del', 'arguments': {'node-name': 'n0'}}", NULL },
    };
    TDaemon *d = t_daemon_start(NODES);
    TQmp *q = t_daemon_qmp(d);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        run_case(q, &cases[i]);
    }
    t_daemon_stop_ok(d);
}

static int compare_texts(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The bitmaps of the node "q" as "NAME recording|- COUNT/GRANULARITY ...", by name. */
static char *bitmaps_of_q(TQmp *q)
{
    json_t *nodes = t_qmp_ok(q, "{'execute': 'query-named-block-nodes'}"), *node, *bitmap;
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    size_t i, k;

    json_array_foreach(nodes, i, node) {
        if (strcmp(json_string_value(json_object_get(node, "node-name")), "q")) {
            continue;
        }
        json_array_foreach(json_object_get(node, "dirty-bitmaps"), k, bitmap) {
            g_assert_true(json_is_false(json_object_get(bitmap, "busy")));
            g_assert_true(json_is_false(json_object_get(bitmap, "persistent")));
            g_ptr_array_add(texts, g_strdup_printf("%s %s %d/%d",
                json_string_value(json_object_get(bitmap, "name")),
                json_is_true(json_object_get(bitmap, "recording")) ? "recording" : "-",
                (int)json_integer_value(json_object_get(bitmap, "count")),
                (int)json_integer_value(json_object_get(bitmap, "granularity"))));
        }
    }
    json_decref(nodes);
    g_ptr_array_sort(texts, compare_texts);
    g_ptr_array_add(texts, NULL);
    return g_strjoinv(", ", (char **)texts->pdata);
}

static void expect_bitmaps(TQmp *q, const char *expected)
{
    g_autofree char *seen = bitmaps_of_q(q);
    g_assert_cmpstr(seen, ==, expected);
}

static void test_what_is_recorded(void)
{
    static const Case before[] = {
        { ADD("q", "all", ", 'granularity': 65536"), NULL },
        { ADD("q", "off", ", 'granularity': 4096, 'disabled': true"), NULL },
    };
    static const Case after[] = {
        { "{'execute': 'block-dirty-bitmap-merge', 'arguments': {'node': 'q', "
          "'target': 'off', 'bitmaps': ['all']}}", NULL },
        { BITMAP("clear", "q", "all"), NULL },
        { BITMAP("disable", "q", "all"), NULL },
    };
    TDaemon *d;
    TQmp *q;

    g_free(t_run_ok("miniblk-img create -q -f raw bitmap.raw 1M"));
    d = t_daemon_start("--blockdev file,node-name=q,filename=bitmap.raw "
                       "--blockdev null-co,node-name=src,size=1048576,read-zeroes=on");
    q = t_daemon_qmp(d);
    expect_bitmaps(q, "");
    for (size_t i = 0; i < G_N_ELEMENTS(before); i++) {
        run_case(q, &before[i]);
    }
    expect_bitmaps(q, "all recording 0/65536, off - 0/4096");
    /* a mirror writes all of it */
    t_qmp_run(q, "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'j', "
                 "'device': 'src', 'target': 'q', 'sync': 'full'}}");
    json_decref(t_qmp_event(q, "BLOCK_JOB_READY", TIMEOUT_MS));
    t_qmp_run(q, "{'execute': 'block-job-cancel', 'arguments': {'device': 'j'}}");
    json_decref(t_qmp_event(q, "BLOCK_JOB_COMPLETED", TIMEOUT_MS));
    expect_bitmaps(q, "all recording 1048576/65536, off - 0/4096");
    for (size_t i = 0; i < G_N_ELEMENTS(after); i++) {
        run_case(q, &after[i]);
    }
    expect_bitmaps(q, "all - 0/65536, off - 1048576/4096");
    t_daemon_stop_ok(d);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/qmp/bitmap/commands", test_commands);
    g_test_add_func("/qmp/bitmap/recorded", test_what_is_recorded);
    return t_main();
}
