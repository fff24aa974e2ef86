/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Throttle groups and filters over QMP and on the daemon's command line. */
#include "miniblk/osdep.h"
#include "miniblk/qdict.h"
#include "tests/lib/harness.h"

#define CMD(name, args) "{'execute': '" name "', 'arguments': {" args "}}"
#define GROUP(id, args) CMD("object-add", "'qom-type': 'throttle-group', 'id': '" id "'" args)
#define GET(id, property) CMD("qom-get", "'path': '/objects/" id "', " \
                              "'property': '" property "'")
#define SET(id, property, value) CMD("qom-set", "'path': '/objects/" id "', 'property': '" \
                                     property "', 'value': " value)

static int64_t limit(TQmp *q, const char *name)
{
    g_autoptr(json_t) limits = t_qmp_ok(q, GET("g", "limits"));
    g_assert_cmpint(json_object_size(limits), ==, 19);
    return json_integer_value(json_object_get(limits, name));
}

static void test_group_is_made_changed_and_deleted(void)
{
    TDaemon *d = t_daemon_start("%s", "");
    TQmp *q = t_daemon_qmp(d);

    t_qmp_run(q, GROUP("g", ", 'limits': {'iops-total': 100, 'iops-total-max': 200,"
                       " 'iops-size': 4096}, 'x-bps-read': 7"));
    g_assert_cmpint(limit(q, "iops-total"), ==, 100);
    g_assert_cmpint(limit(q, "iops-total-max"), ==, 200);
    g_assert_cmpint(limit(q, "iops-total-max-length"), ==, 1);
    g_assert_cmpint(limit(q, "iops-size"), ==, 4096);
    g_assert_cmpint(limit(q, "bps-read"), ==, 7);
    g_autoptr(json_t) single = t_qmp_ok(q, GET("g", "x-iops-total"));
    g_assert_cmpint(json_integer_value(single), ==, 100);
    g_autoptr(json_t) type = t_qmp_ok(q, GET("g", "type"));
    g_assert_cmpstr(json_string_value(type), ==, "throttle-group");

    /* what is not named stays */
    t_qmp_run(q, SET("g", "limits", "{'bps-read': 0, 'bps-total': 1000}"));
    g_assert_cmpint(limit(q, "bps-total"), ==, 1000);
    g_assert_cmpint(limit(q, "iops-total"), ==, 100);

    g_autoptr(json_t) list = t_qmp_ok(q, CMD("qom-list", "'path': '/objects'"));
    g_assert_cmpint(json_array_size(list), ==, 2);
    t_qmp_run(q, CMD("object-del", "'id': 'g'"));
    t_qmp_fails(q, "object 'g' not found", CMD("object-del", "'id': 'g'"));
    t_daemon_stop_ok(d);
}

static void test_bad_commands_change_nothing(void)
{
    static const struct {
        const char *command, *error;
    } table[] = {
        { GROUP("g", ""), "attempt to add duplicate property 'g' to object (type "
                          "'container')" },
        { GROUP("h", ", 'x-iops-total': -1"), "Property values cannot be negative" },
        { GROUP("h", ", 'limits': {'iops-total': 1, 'iops-read': 1}"),
          "bps/iops/max total values and read/write values cannot be used at the same time" },
        { GROUP("h", ", 'limits': {'iops-foo': 1}"), "Parameter 'limits.iops-foo' is "
                                                     "unexpected" },
        { GROUP("h", ", 'limits': 5"), "Invalid parameter type for 'limits', expected: "
                                       "object" },
        { GROUP("h", ", 'x-iops-total': 'many'"),
          "Invalid parameter type for 'x-iops-total', expected: integer" },
        { SET("g", "limits", "{'iops-total': 2000000000000000}"),
          "bps/iops/max values must be within [0, 1000000000000000]" },
        { SET("g", "limits", "{'iops-total-max': 5}"),
          "bps_max/iops_max cannot be lower than bps/iops" },
        { SET("g", "limits", "7"), "Invalid parameter type for 'limits', expected: object" },
        { SET("g", "x-iops-total", "7"), "Property cannot be set after initialization" },
        { SET("g", "nope", "7"), "Property 'throttle-group.nope' not found" },
        { CMD("blockdev-add", "'driver': 'throttle', 'node-name': 't', 'throttle-group': "
              "'nope', 'file': {'driver': 'null-co'}"),
          "Throttle group 'nope' does not exist" },
        { CMD("blockdev-add", "'driver': 'throttle', 'node-name': 't', "
              "'file': {'driver': 'null-co'}"), "Parameter 'throttle-group' is missing" },
        { CMD("blockdev-add", "'driver': 'blkdebug', 'node-name': 't', 'inject-error': "
              "[{'event': 'nope'}], 'image': {'driver': 'null-co'}"),
          "Parameter 'event' does not accept value 'nope'" },
    };
    TDaemon *d = t_daemon_start("%s", "--object throttle-group,id=g,limits.iops-total=100");
    TQmp *q = t_daemon_qmp(d);

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        t_qmp_fails(q, table[i].error, "%s", table[i].command);
    }
    g_assert_cmpint(limit(q, "iops-total"), ==, 100);
    t_daemon_stop_ok(d);
}

static void test_group_in_use_stays(void)
{
    TDaemon *d = t_daemon_start("%s", "--object throttle-group,id=g,x-iops-total=100 "
                                "--blockdev throttle,node-name=t,throttle-group=g,"
                                "file.driver=null-co");
    TQmp *q = t_daemon_qmp(d);

    t_qmp_fails(q, "object 'g' is in use, can not be deleted",
                CMD("object-del", "'id': 'g'"));
    t_qmp_run(q, CMD("blockdev-del", "'node-name': 't'"));
    t_qmp_run(q, CMD("object-del", "'id': 'g'"));
    t_daemon_stop_ok(d);
}

/*
 * An export over the filter, in an IOThread, moved while its client is being held back. The
 * limit holds on the whole, and lifting it lets the client go at once.
 */
static void test_export_is_throttled(void)
{
    if (!t_need("qemu-img")) {
        return;
    }
    g_autofree char *path = t_path("nbd.sock");
    TDaemon *d = t_daemon_start(
        "--object iothread,id=io0 --object throttle-group,id=g,limits.bps-total=4000000 "
        "--blockdev throttle,node-name=t,throttle-group=g,file.driver=null-co,"
        "file.size=4194304 "
        "--nbd-server addr.type=unix,addr.path=%s "
        "--export nbd,id=e,node-name=t,iothread=io0", path);
    TQmp *q = t_daemon_qmp(d);

    gint64 start_us = g_get_monotonic_time();
    g_autofree char *out = t_run_ok("qemu-img convert -f raw -O raw -n "
                                    "'nbd+unix:///t?socket=%s' null-co://", path);
    gint64 us = g_get_monotonic_time() - start_us;
    /* 4 MiB at 4 MB/s, of which 100 ms pass at once, and the last request (2 MiB) too */
    g_assert_cmpint(us, >=, 300000);
    t_qmp_run(q, CMD("x-blockdev-set-iothread",
                     "'node-name': 't', 'iothread': null, 'force': true"));
    t_qmp_run(q, SET("g", "limits", "{'bps-total': 0}"));
    g_autofree char *again = t_run_ok("qemu-img convert -f raw -O raw -n "
                                      "'nbd+unix:///t?socket=%s' null-co://", path);
    t_daemon_stop_ok(d);
}

/* Each filter of the documentation can be made by the command line, and by its JSON. */
static void test_filters_are_made_on_the_command_line(void)
{
    t_make_file("disk", 65536, 1);
    t_make_file("copy", 65536, 1);
    g_autofree char *out = t_run_ok("%s", "truncate -s 0 log");
    TDaemon *d = t_daemon_start("%s",
        "--blockdev blkdebug,node-name=d,inject-error.0.event=read_aio,"
        "inject-error.0.errno=28,inject-error.0.once=on,align=512,image.driver=null-co "
        "--blockdev blkverify,node-name=v,raw.driver=file,raw.filename=disk,test.driver=file,"
        "test.filename=copy "
        "--blockdev copy-on-read,node-name=c,file.driver=null-co "
        "--blockdev blklogwrites,node-name=l,log-super-update-interval=16,"
        "file.driver=null-co,log.driver=file,log.filename=log");
    g_autoptr(json_t) nodes = t_qmp_ok(t_daemon_qmp(d), "{'execute': "
                                       "'query-named-block-nodes'}");
    g_assert_cmpint(json_array_size(nodes), ==, 10);
    t_daemon_stop_ok(d);
}

/* The next block of shell commands in TEXT, newly allocated; TEXT is moved behind it. */
static char *next_example(const char **text)
{
    const char *begin = strstr(*text, "```sh\n"), *end;

    if (!begin) {
        return NULL;
    }
    begin += strlen("```sh\n");
    end = strstr(begin, "```");
    g_assert_nonnull(end);
    *text = end + 3;
    return g_strndup(begin, end - begin);
}

static void test_examples_of_the_documentation(void)
{
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "..", "..", "docs",
                                                  "filters.md", NULL);
    g_autofree char *text = NULL;
    int n = 0;

    if (!t_need("qemu-io")) {
        return;
    }
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (const char *p = text; ; n++) {
        g_autofree char *example = next_example(&p);
        if (!example) {
            break;
        }
        g_autofree char *script = g_strdup_printf("example%d.sh", n);
        g_assert_true(g_file_set_contents(script, example, -1, NULL));
        g_autofree char *out = t_run_ok("mkdir dir%d && cd dir%d && sh -e ../%s && cd .. && "
                                        "rm -r dir%d", n, n, script, n);
    }
    g_assert_cmpint(n, ==, 5);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
#define ADD(name) g_test_add_func("/qmp-throttle/" #name, test_##name)
    ADD(group_is_made_changed_and_deleted);
    ADD(bad_commands_change_nothing);
    ADD(group_in_use_stays);
    ADD(export_is_throttled);
    ADD(filters_are_made_on_the_command_line);
    ADD(examples_of_the_documentation);
    return t_main();
}
