/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What QMP commands do and refuse, against a running daemon. */
#include "miniblk/osdep.h"
#include <sched.h>
#include "tests/lib/harness.h"

#define TIMEOUT_MS 60000
#define CMD(name, args) "{'execute': '" name "', 'arguments': {" args "}}"
#define IN_USE_HINT " is associated with a BlockBackend and could be in use " \
                    "(use force=true to override this check)"

typedef struct Case {
    const char *command;
    const char *error;          /* NULL: it must succeed */
} Case;

static void run_cases(TQmp *q, const Case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (cases[i].error) {
            t_qmp_fails(q, cases[i].error, "%s", cases[i].command);
        } else {
            t_qmp_run(q, "%s", cases[i].command);
        }
    }
}

/* ---- errors ----------------------------------------------------------------------- */


static void test_blockdev_errors(void)
{
    static const Case cases[] = {
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': 'n0'"), NULL },
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': 'n0'"),
          "Duplicate nodes with node-name='n0'" },
        { CMD("blockdev-add", "'driver': 'null-co'"),
          "'node-name' must be specified for the root node" },
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': '9bad!'"),
          "Invalid node-name: '9bad!'" },
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': ''"),
          "Invalid node-name: ''" },
        { CMD("blockdev-add", "'driver': 'null-co', "
              "'node-name': 'a123456789012345678901234567890123456789'"),
          "Node name too long" },
        { CMD("blockdev-add", "'driver': 'foo', 'node-name': 'a'"),
          "Parameter 'driver' does not accept value 'foo'" },
        { CMD("blockdev-add", "'node-name': 'a'"), "Parameter 'driver' is missing" },
        { CMD("blockdev-add", "'driver': 'raw', 'node-name': 'a', 'file': 'nope'"),
          "Cannot find device='nope' nor node-name='nope'" },
        { CMD("blockdev-add", "'driver': 'raw', 'node-name': 'a'"),
          "Parameter 'file' is missing" },
        { CMD("blockdev-add", "'driver': 'file', 'node-name': 'a', "
              "'filename': '/nonexistent'"),
          "Could not open '/nonexistent': No such file or directory" },
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': 'a', "
              "'cache': {'direct': 'yes'}"),
          "Invalid parameter type for 'cache.direct', expected: boolean" },
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': 'a', 'size': '12'"),
          "Invalid parameter type for 'size', expected: integer" },
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': 'a', 'foo': 1"),
          "Parameter 'foo' is unexpected" },
        { CMD("blockdev-del", "'node-name': 'zz'"),
          "Failed to find node with node-name='zz'" },
        { CMD("blockdev-add", "'driver': 'raw', 'node-name': 'top', 'file': 'n0'"), NULL },
        { CMD("blockdev-del", "'node-name': 'n0'"), "Block device n0 is in use" },
        { CMD("blockdev-del", "'node-name': 'top'"), NULL },
        { CMD("blockdev-del", "'node-name': 'n0'"), NULL },
        { CMD("blockdev-del", "'node-name': 'n0'"),
          "Failed to find node with node-name='n0'" },
        { CMD("x-blockdev-drain", "'node-name': 'n0'"),
          "Failed to find node with node-name='n0'" },
    };
    TDaemon *d = t_daemon_start("%s", "");

    run_cases(t_daemon_qmp(d), cases, G_N_ELEMENTS(cases));
    t_daemon_stop_ok(d);
}

#define REOPEN(list) CMD("blockdev-reopen", "'options': [" list "]")
#define NULL_NODE(name) "'driver': 'null-co', 'node-name': '" name "'"
#define QCOW2_NODE(more) "'driver': 'qcow2', 'node-name': 'q', 'file': 'f'" more

static void test_reopen(void)
{
    static const Case cases[] = {
        { CMD("blockdev-add", NULL_NODE("n0")), NULL },
        { CMD("blockdev-add", NULL_NODE("n1")), NULL },
        { CMD("blockdev-add", "'driver': 'file', 'node-name': 'f', "
              "'filename': 'reopen.qcow2'"), NULL },
        { CMD("blockdev-add", QCOW2_NODE("")), NULL },
        { REOPEN(""), NULL },
        { REOPEN("{" NULL_NODE("zz") "}"), "Failed to find node with node-name='zz'" },
        { REOPEN("{'driver': 'null-co'}"), "node-name not specified" },
        { REOPEN("{'driver': 'null-aio', 'node-name': 'n0'}"),
          "Cannot change the option 'driver'" },
        { REOPEN("{" NULL_NODE("n0") ", 'read-zeroes': true}"), NULL },
        { REOPEN("{" NULL_NODE("n0") ", 'size': 4096}"), "Cannot change the option 'size'" },
        { CMD("x-blockdev-reopen", NULL_NODE("n0") ", 'latency-ns': 1"), NULL },
        /* another backing node, and back; all or none */
        { REOPEN("{" QCOW2_NODE(", 'backing': 'n0'") "}"), NULL },
        { CMD("blockdev-del", "'node-name': 'n0'"), "Block device n0 is in use" },
        { REOPEN("{" QCOW2_NODE("") "}"), "backing is missing for 'q'" },
        { REOPEN("{" QCOW2_NODE(", 'backing': 'n1'") "}, {" NULL_NODE("n0") ", 'size': 1}"),
          "Cannot change the option 'size'" },
        { CMD("blockdev-del", "'node-name': 'n0'"), "Block device n0 is in use" },
        { REOPEN("{" QCOW2_NODE(", 'backing': 'q'") "}"),
          "Making 'q' a backing child of 'q' would create a cycle" },
        { REOPEN("{" QCOW2_NODE(", 'backing': null") "}"), NULL },
        { CMD("blockdev-del", "'node-name': 'n0'"), NULL },
        /* the file below a writer cannot become read-only, unless both do */
        { REOPEN("{'driver': 'file', 'node-name': 'f', 'filename': 'reopen.qcow2', "
                 "'read-only': true}"),
          "Read-only block node 'f' cannot support read-write users" },
        { REOPEN("{'driver': 'file', 'node-name': 'f', 'filename': 'reopen.qcow2', "
                 "'read-only': true}, {" QCOW2_NODE(", 'read-only': true") "}"), NULL },
    };
    TDaemon *d;

    g_free(t_run_ok("miniblk-img create -q -f qcow2 reopen.qcow2 1M"));
    d = t_daemon_start("%s", "");
    run_cases(t_daemon_qmp(d), cases, G_N_ELEMENTS(cases));
    t_daemon_stop_ok(d);
}

/* What does not open leaves no node behind, whatever was opened below it. */
static void test_images_that_do_not_open(void)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_daemon_qmp(d);
    static const char *const files[] = { "empty", "random", "short" };
    json_t *nodes;

    t_make_file("empty", 0, 1);
    t_make_file("random", 1 << 20, 2);
    g_assert_true(g_file_set_contents("short", "QFI\xfb\0\0\0\3", 8, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        json_t *reply = t_qmp(q, "{'execute': 'blockdev-add', 'arguments': {"
                              "'driver': 'qcow2', 'node-name': 'a', 'file': {"
                              "'driver': 'file', 'filename': '%s'}}}", files[i]);
        const char *desc = json_string_value(json_object_get(
                                json_object_get(reply, "error"), "desc"));

        g_assert_nonnull(desc);
        g_test_message("%s: %s", files[i], desc);
        if (strcmp(files[i], "short")) {
            g_assert_cmpstr(desc, ==, "Image is not in qcow2 format");
        }
        json_decref(reply);
    }
    nodes = t_qmp_ok(q, "{'execute': 'query-named-block-nodes'}");
    g_assert_cmpuint(json_array_size(nodes), ==, 0);
    json_decref(nodes);
    t_daemon_stop_ok(d);
}

#define ADD_HELD(more) CMD("blockdev-add", "'driver': 'qcow2', 'node-name': 'h', " \
                           "'file': {'driver': 'file', 'filename': 'held.qcow2'}" more)

/* An image that another process has open for writing can only be had with force-share. */
static void test_locked_image(void)
{
    static const Case cases[] = {
        { ADD_HELD(""), "Failed to get \"write\" lock" },
        { ADD_HELD(", 'read-only': true"), "Failed to get shared \"write\" lock" },
        { ADD_HELD(", 'force-share': true"),
          "force-share=on can only be used with read-only images" },
    };
    TDaemon *holder, *d;
    TQmp *q;

    g_free(t_run_ok("miniblk-img create -q -f qcow2 held.qcow2 1M"));
    holder = t_daemon_start("--blockdev qcow2,node-name=h,file.driver=file,"
                            "file.filename=held.qcow2");
    d = t_daemon_start("--nbd-server addr.type=unix,addr.path=ro.sock");
    q = t_daemon_qmp(d);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        json_t *reply = t_qmp(q, "%s", cases[i].command);
        const char *desc = json_string_value(json_object_get(json_object_get(reply, "error"),
                                                             "desc"));

        g_assert_nonnull(desc);
        /* Who holds it may follow. */
        if (!g_str_has_prefix(desc, cases[i].error)) {
            g_error("%s:\nexpected: %s\ngot:      %s", cases[i].command, cases[i].error,
                    desc);
        }
        json_decref(reply);
    }
    t_qmp_run(q, ADD_HELD(", 'read-only': true, 'force-share': true"));
    t_qmp_fails(q, "Block node is read-only", CMD("block-export-add", "'type': 'nbd', "
                "'id': 'e', 'node-name': 'h', 'writable': true"));
    t_daemon_stop_ok(holder);
    t_qmp_run(q, CMD("blockdev-del", "'node-name': 'h'"));
    t_qmp_run(q, ADD_HELD(""));
    t_daemon_stop_ok(d);
}

static void test_export_errors(void)
{
    static const Case cases[] = {
        { CMD("blockdev-add", "'driver': 'null-co', 'node-name': 'n0'"), NULL },
        { CMD("block-export-add", "'type': 'nbd', 'id': 'e', 'node-name': 'n0'"),
          "NBD server not running" },
        { CMD("block-export-add", "'type': 'nbd', 'id': 'e', 'node-name': 'zz'"),
          "Cannot find device='' nor node-name='zz'" },
        { CMD("block-export-add", "'type': 'bogus', 'id': 'e', 'node-name': 'n0'"),
          "Parameter 'type' does not accept value 'bogus'" },
        { CMD("block-export-add", "'type': 'nbd', 'id': 'e', 'node-name': 'n0', "
              "'iothread': 'nope'"), "iothread \"nope\" not found" },
        { CMD("nbd-server-start", "'addr': 5"),
          "Invalid parameter type for 'addr', expected: object" },
        { CMD("nbd-server-start", "'addr': {}"), "Parameter 'addr.type' is missing" },
        { CMD("nbd-server-start", "'addr': {'type': 'foo'}"),
          "Parameter 'type' does not accept value 'foo'" },
        { CMD("nbd-server-start", "'addr': {'type': 'unix'}"),
          "Parameter 'addr.path' is missing" },
        { CMD("nbd-server-start", "'addr': {'type': 'unix', 'data': {}}"),
          "Parameter 'addr.data.path' is missing" },
        { CMD("nbd-server-start", "'addr': {'type': 'unix', 'data': 5}"),
          "Invalid parameter type for 'addr.data', expected: object" },
        { CMD("nbd-server-start", "'addr': {'type': 'unix', 'data': {'path': 'x', 'y': 1}}"),
          "Parameter 'addr.data.y' is unexpected" },
        { CMD("nbd-server-start", "'addr': {'type': 'unix', 'path': 'x', 'data': {}}"),
          "Parameter 'addr.path' is unexpected" },
        { CMD("nbd-server-start", "'addr': {'type': 'inet', 'data': {'host': '', "
              "'port': 10809}}"),
          "Invalid parameter type for 'addr.data.port', expected: string" },
        { CMD("nbd-server-start", "'addr': {'type': 'unix', 'data': {'path': 'n.sock'}}, "
              "'max-connections': -1"), "Parameter 'max-connections' expects uint32_t" },
        { CMD("nbd-server-stop", ""), "NBD server not running" },
        { CMD("nbd-server-start", "'addr': {'type': 'unix', 'data': {'path': 'n.sock'}}"),
          NULL },
        { CMD("nbd-server-start", "'addr': {'type': 'unix', 'path': 'n.sock'}"),
          "NBD server already running" },
        { CMD("block-export-add", "'type': 'nbd', 'id': 'e', 'node-name': 'n0'"), NULL },
        { CMD("block-export-add", "'type': 'nbd', 'id': 'e', 'node-name': 'n0'"),
          "Block export id 'e' is already in use" },
        { CMD("block-export-add", "'type': 'nbd', 'id': 'e2', 'node-name': 'n0'"),
          "NBD server already has export named 'n0'" },
        { CMD("block-export-add", "'type': 'nbd', 'id': 'e2', 'node-name': 'n0', "
              "'name': 'x', 'fuse': true"), "Parameter 'fuse' is unexpected" },
        { CMD("blockdev-del", "'node-name': 'n0'"), "Node n0 is in use" },
        { CMD("block-export-del", "'id': 'e', 'mode': 'soft'"),
          "Parameter 'mode' does not accept value 'soft'" },
        { CMD("block-export-del", "'id': 'e'"), NULL },
        { CMD("block-export-del", "'id': 'e'"), "Export 'e' is not found" },
        { CMD("blockdev-del", "'node-name': 'n0'"), NULL },
        { CMD("nbd-server-stop", ""), NULL },
        { CMD("nbd-server-stop", ""), "NBD server not running" },
    };
    TDaemon *d = t_daemon_start("%s", "");

    run_cases(t_daemon_qmp(d), cases, G_N_ELEMENTS(cases));
    t_daemon_stop_ok(d);
}

static void test_object_errors(void)
{
    static const Case cases[] = {
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io0', 'bogus': 1"),
          "Parameter 'bogus' is unexpected" },
        { CMD("object-add", "'qom-type': 'nosuch', 'id': 'io0'"),
          "Parameter 'qom-type' does not accept value 'nosuch'" },
        { CMD("object-add", "'qom-type': 'iothread'"), "Parameter 'id' is missing" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': '9'"),
          "Parameter 'id' expects an identifier" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io1'"), NULL },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io1'"),
          "attempt to add duplicate property 'io1' to object (type 'container')" },
        { CMD("qom-get", "'path': '/objects/io1', 'property': 'thread-id'"),
          "Property 'iothread.thread-id' not found" },
        { CMD("qom-get", "'path': '/objects/io2', 'property': 'poll-grow'"),
          "Device '/objects/io2' not found" },
        { CMD("qom-set", "'path': '/objects/io1', 'property': 'poll-grow', 'value': 'x'"),
          "Invalid parameter type for 'poll-grow', expected: integer" },
        { CMD("qom-set", "'path': '/objects/io1', 'property': 'poll-grow', 'value': 4"),
          NULL },
        { CMD("qom-set", "'path': '/objects/io1', 'property': 'thread-pool-max', 'value': 0"),
          "bad thread-pool-min/thread-pool-max values" },
        { CMD("qom-set", "'path': '/objects/io1', 'property': 'aio-max-batch', 'value': -1"),
          "aio-max-batch value must be in range [0, 9223372036854775807]" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': [0, 1022]"),
          "CPU 1022 in 'cpu-affinity' is not available to this process" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': '0-1024'"),
          "CPU 1024 in 'cpu-affinity' is not in range [0, 1023]" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': [-1]"),
          "CPU -1 in 'cpu-affinity' is not in range [0, 1023]" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': '3-1'"),
          "CPU range '3-1' in 'cpu-affinity' is empty" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': '0,x'"),
          "'x' in 'cpu-affinity' is not a CPU number or range" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': '0-'"),
          "'0-' in 'cpu-affinity' is not a CPU number or range" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': '1-99999999999"
              "999999999'"), "CPU 9223372036854775807 in 'cpu-affinity' is not in range [0, 1023]" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': ['0']"),
          "Invalid parameter type for 'cpu-affinity[0]', expected: integer" },
        { CMD("object-add", "'qom-type': 'iothread', 'id': 'io2', 'cpu-affinity': 0"),
          "Invalid parameter type for 'cpu-affinity', expected: CpuList" },
        { CMD("object-del", "'id': 'io0'"), "object 'io0' not found" },
        { CMD("object-del", "'id': 'io1'"), NULL },
        { CMD("object-del", "'id': 'io1'"), "object 'io1' not found" },
    };
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_daemon_qmp(d);
    json_t *list;

    run_cases(q, cases, G_N_ELEMENTS(cases));
    t_qmp_run(q, CMD("object-add", "'qom-type': 'iothread', 'id': 'io', 'poll-max-ns': 5"));
    list = t_qmp_ok(q, "{'execute': 'query-iothreads'}");
    g_assert_cmpuint(json_array_size(list), ==, 1);
    g_assert_cmpint(json_integer_value(json_object_get(json_array_get(list, 0),
                                                       "poll-max-ns")), ==, 5);
    /* The peer's members, and no others. */
    g_assert_cmpuint(json_object_size(json_array_get(list, 0)), ==, 6);
    json_decref(list);
    /* A value that is refused leaves no thread behind. */
    json_decref(t_qmp(q, CMD("object-add", "'qom-type': 'iothread', 'id': 'bad', "
                             "'poll-max-ns': -1")));
    list = t_qmp_ok(q, CMD("qom-list", "'path': '/objects'"));
    g_assert_cmpuint(json_array_size(list), ==, 2);
    json_decref(list);
    t_daemon_stop_ok(d);
}

static void assert_property(TQmp *q, const char *name, const char *expected)
{
    json_t *value = t_qmp_ok(q, "{'execute': 'qom-get', 'arguments': {'path': '/objects/io', "
                             "'property': '%s'}}", name);
    g_autofree char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    g_assert_cmpstr(text, ==, expected);
    json_decref(value);
}

static int first_cpu(void)
{
    cpu_set_t cpus;

    g_assert_cmpint(sched_getaffinity(0, sizeof(cpus), &cpus), ==, 0);
    for (int i = 0; ; i++) {
        if (CPU_ISSET(i, &cpus)) {
            return i;
        }
    }
}

/* Each property given on the command line, read back, changed and read back. */
static void test_iothread_properties(void)
{
    int cpu = first_cpu();
    g_autofree char *cpu_list = g_strdup_printf("[%d]", cpu);
    g_autofree char *cpu_range = g_strdup_printf("'%d-%d,%d'", cpu, cpu, cpu);
    const struct { const char *name, *before, *value, *after; } cases[] = {
        { "poll-max-ns", "1", "11", "11" },
        { "poll-grow", "2", "12", "12" },
        { "poll-shrink", "3", "13", "13" },
        { "aio-max-batch", "4", "14", "14" },
        { "thread-pool-min", "5", "0", "0" },
        { "thread-pool-max", "6", "16", "16" },
        { "cpu-affinity", cpu_list, "[]", "[]" },
        { "cpu-affinity", "[]", cpu_range, cpu_list },
    };
    TDaemon *d = t_daemon_start("--object iothread,id=io,poll-max-ns=1,poll-grow=2,"
                                "poll-shrink=3,aio-max-batch=4,thread-pool-min=5,"
                                "thread-pool-max=6,cpu-affinity=%d", cpu);
    TQmp *q = t_daemon_qmp(d);
    json_t *list;

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_property(q, cases[i].name, cases[i].before);
        t_qmp_run(q, "{'execute': 'qom-set', 'arguments': {'path': '/objects/io', "
                  "'property': '%s', 'value': %s}}", cases[i].name, cases[i].value);
        assert_property(q, cases[i].name, cases[i].after);
    }
    list = t_qmp_ok(q, CMD("qom-list", "'path': '/objects/io'"));
    g_assert_cmpuint(json_array_size(list), ==, 1 + 7);
    json_decref(list);
    t_daemon_stop_ok(d);
    /* a list by its elements */
    d = t_daemon_start("--object iothread,id=io,cpu-affinity.0=%d", cpu);
    assert_property(t_daemon_qmp(d), "cpu-affinity", cpu_list);
    t_daemon_stop_ok(d);
}

/* ---- threads ---------------------------------------------------------------------- */

/* "iothread" of the node NAME; NULL: the main loop. Newly allocated. */
static char *node_iothread(TQmp *q, const char *name)
{
    json_t *list = t_qmp_ok(q, "{'execute': 'query-named-block-nodes', "
                            "'arguments': {'flat': true}}");
    char *result = NULL;
    bool found = false;
    json_t *node;
    size_t i;

    json_array_foreach(list, i, node) {
        if (!strcmp(json_string_value(json_object_get(node, "node-name")), name)) {
            found = true;
            result = g_strdup(json_string_value(json_object_get(node, "iothread")));
        }
    }
    json_decref(list);
    g_assert_true(found);
    return result;
}

static void assert_node_in(TQmp *q, const char *name, const char *iothread)
{
    g_autofree char *actual = node_iothread(q, name);

    g_assert_cmpstr(actual, ==, iothread);
}

static void test_set_iothread(void)
{
    static const Case cases[] = {
        { CMD("x-blockdev-set-iothread", "'node-name': 'zz', 'iothread': 'zz'"),
          "Failed to find node with node-name='zz'" },
        { CMD("x-blockdev-set-iothread", "'node-name': 'n0', 'iothread': 'zz'"),
          "Cannot find iothread zz" },
        { CMD("x-blockdev-set-iothread", "'node-name': 'n0'"),
          "Parameter 'iothread' is missing" },
        { CMD("x-blockdev-set-iothread", "'node-name': 'n0', 'iothread': 5"),
          "Invalid parameter type for 'iothread', expected: StrOrNull" },
        { CMD("x-blockdev-set-iothread", "'node-name': 'n0', 'iothread': 'io0'"), NULL },
    };
    TDaemon *d = t_daemon_start("--object iothread,id=io0 --object iothread,id=io1 "
                                "--blockdev null-co,node-name=n0 "
                                "--blockdev raw,node-name=top,file=n0");
    TQmp *q = t_daemon_qmp(d);

    run_cases(q, cases, G_N_ELEMENTS(cases));
    /* The whole graph has moved, not only the node that was named. */
    assert_node_in(q, "n0", "io0");
    assert_node_in(q, "top", "io0");
    t_qmp_fails(q, "object 'io0' is in use, can not be deleted",
                CMD("object-del", "'id': 'io0'"));
    t_qmp_run(q, CMD("blockdev-set-iothread", "'node-name': 'top', 'iothread': 'io1'"));
    assert_node_in(q, "n0", "io1");
    t_qmp_run(q, CMD("blockdev-set-iothread", "'node-name': 'top', 'iothread': 'io1'"));
    t_qmp_run(q, CMD("x-blockdev-drain", "'node-name': 'n0'"));
    t_qmp_run(q, CMD("object-del", "'id': 'io0'"));
    t_qmp_run(q, CMD("blockdev-set-iothread", "'node-name': 'n0', 'iothread': null"));
    assert_node_in(q, "top", NULL);
    t_qmp_run(q, CMD("object-del", "'id': 'io1'"));
    t_daemon_stop_ok(d);
}

/* x-blockdev-set-iothread wants force for an exported node, our own command does not. */
static void test_set_iothread_of_export(void)
{
    TDaemon *d = t_daemon_start("--object iothread,id=io0 --object iothread,id=io1 "
                                "--blockdev null-co,node-name=n0 "
                                "--blockdev raw,node-name=top,file=n0 "
                                "--nbd-server addr.type=unix,addr.path=t.sock "
                                "--export nbd,id=e,node-name=top");
    TQmp *q = t_daemon_qmp(d);
    json_t *list;

    t_qmp_fails(q, "Node top" IN_USE_HINT,
                CMD("x-blockdev-set-iothread", "'node-name': 'top', 'iothread': 'io0'"));
    assert_node_in(q, "top", NULL);
    t_qmp_run(q, CMD("x-blockdev-set-iothread", "'node-name': 'n0', 'iothread': 'io0'"));
    assert_node_in(q, "top", "io0");
    t_qmp_run(q, CMD("x-blockdev-set-iothread", "'node-name': 'top', 'iothread': null, "
                     "'force': true"));
    t_qmp_run(q, CMD("blockdev-set-iothread", "'node-name': 'top', 'iothread': 'io1'"));
    list = t_qmp_ok(q, "{'execute': 'query-block-exports'}");
    g_assert_cmpstr(json_string_value(json_object_get(json_array_get(list, 0), "iothread")),
                    ==, "io1");
    g_assert_cmpint(json_integer_value(json_object_get(json_array_get(list, 0), "clients")),
                    ==, 0);
    json_decref(list);
    t_daemon_stop_ok(d);
}

static void test_fixed_iothread(void)
{
    TDaemon *d = t_daemon_start("--object iothread,id=io0 --blockdev null-co,node-name=n0 "
                                "--nbd-server addr.type=unix,addr.path=f.sock "
                                "--export nbd,id=e,node-name=n0,iothread=io0,"
                                "fixed-iothread=on");
    TQmp *q = t_daemon_qmp(d);

    assert_node_in(q, "n0", "io0");
    t_qmp_fails(q, "Cannot change iothread of active block backend",
                CMD("blockdev-set-iothread", "'node-name': 'n0', 'iothread': null"));
    t_qmp_fails(q, "Cannot change iothread of active block backend",
                CMD("x-blockdev-set-iothread", "'node-name': 'n0', 'iothread': null, "
                    "'force': true"));
    assert_node_in(q, "n0", "io0");
    t_daemon_stop_ok(d);
}

/* Moves, drains and exports come and go for a while; then everything is still in order. */
static void test_many_moves(void)
{
    TDaemon *d = t_daemon_start("--object iothread,id=io0 --object iothread,id=io1 "
                                "--blockdev null-co,node-name=n0 "
                                "--nbd-server addr.type=unix,addr.path=mm.sock");
    TQmp *q = t_daemon_qmp(d);

    for (int i = 0; i < 300; i++) {
        t_qmp_run(q, CMD("blockdev-set-iothread", "'node-name': 'n0', 'iothread': %s"),
                  i % 3 == 0 ? "'io0'" : i % 3 == 1 ? "'io1'" : "null");
        t_qmp_run(q, CMD("x-blockdev-drain", "'node-name': 'n0'"));
        if (i % 10 == 0) {
            t_qmp_run(q, CMD("block-export-add", "'type': 'nbd', 'id': 'e', "
                             "'node-name': 'n0'"));
        } else if (i % 10 == 5) {
            t_qmp_run(q, CMD("block-export-del", "'id': 'e', 'mode': 'hard'"));
        }
    }
    assert_node_in(q, "n0", NULL);
    t_daemon_stop_ok(d);
}

/* ---- what is told about nodes ----------------------------------------------------- */

static void test_query_nodes(void)
{
    TDaemon *d = t_daemon_start("--blockdev file,node-name=f,filename=disk.raw,read-only=on "
                                "--blockdev raw,node-name=r,file=f,read-only=on");
    TQmp *q = t_daemon_qmp(d);
    json_t *list, *node, *image;

    list = t_qmp_ok(q, "{'execute': 'query-named-block-nodes'}");
    g_assert_cmpuint(json_array_size(list), ==, 2);
    node = json_array_get(list, 1);
    image = json_object_get(node, "image");
    g_assert_cmpstr(json_string_value(json_object_get(node, "node-name")), ==, "r");
    g_assert_cmpstr(json_string_value(json_object_get(node, "drv")), ==, "raw");
    g_assert_true(json_is_true(json_object_get(node, "ro")));
    g_assert_cmpint(json_integer_value(json_object_get(image, "virtual-size")), ==,
                    192 * 1024);
    g_assert_cmpstr(json_string_value(json_object_get(image, "filename")), ==, "disk.raw");
    g_assert_true(json_is_false(json_object_get(json_object_get(node, "cache"), "direct")));
    json_decref(list);
    t_daemon_stop_ok(d);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    t_make_file("disk.raw", 192 * 1024, 9);
    g_test_add_func("/qmp-commands/blockdev-errors", test_blockdev_errors);
    g_test_add_func("/qmp-commands/reopen", test_reopen);
    g_test_add_func("/qmp-commands/images-that-do-not-open", test_images_that_do_not_open);
    g_test_add_func("/qmp-commands/locked-image", test_locked_image);
    g_test_add_func("/qmp-commands/export-errors", test_export_errors);
    g_test_add_func("/qmp-commands/object-errors", test_object_errors);
    g_test_add_func("/qmp-commands/iothread-properties", test_iothread_properties);
    g_test_add_func("/qmp-commands/set-iothread", test_set_iothread);
    g_test_add_func("/qmp-commands/set-iothread-of-export", test_set_iothread_of_export);
    g_test_add_func("/qmp-commands/fixed-iothread", test_fixed_iothread);
    g_test_add_func("/qmp-commands/many-moves", test_many_moves);
    g_test_add_func("/qmp-commands/query-nodes", test_query_nodes);
    return t_main();
}
