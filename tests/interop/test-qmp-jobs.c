/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs over QMP, on real images: commands, events, errors, and contents afterwards. */
#include "miniblk/osdep.h"
#include <sys/wait.h>
#include "tests/lib/harness.h"

#define TIMEOUT_MS 60000
#define CMD(name, args) "{'execute': '" name "', 'arguments': {" args "}}"
#define NODE(name, driver, file) \
    CMD("blockdev-add", "'driver': '" driver "', 'node-name': '" name "', 'file': {" \
        "'driver': 'file', 'filename': '" file "'}")

/* ---- what happens, in order ------------------------------------------------------------- */

/* The event or reply in LINE as one word or two. */
static char *summary(const char *line)
{
    json_t *msg = json_loads(line, 0, NULL);
    json_t *data = json_object_get(msg, "data");
    const char *event = json_string_value(json_object_get(msg, "event"));
    char *text;

    if (!event) {
        text = g_strdup(json_object_get(msg, "return") ? "{}" : "error");
    } else if (!strcmp(event, "JOB_STATUS_CHANGE")) {
        text = g_strdup(json_string_value(json_object_get(data, "status")));
    } else {
        text = g_strdup(event);
    }
    json_decref(msg);
    return text;
}

/* Send COMMAND (may be NULL) and read lines until one is summed up as LAST. */
static void expect_lines(TQmp *q, const char *command, const char *expected)
{
    g_autoptr(GString) seen = g_string_new(NULL);
    const char *last = strrchr(expected, ' ') ? strrchr(expected, ' ') + 1 : expected;
    char *word = NULL;

    if (command) {
        g_autofree char *text = g_strdelimit(g_strdup(command), "'", '"');
        t_qmp_send_raw(q, text, strlen(text));
    }
    do {
        g_autofree char *line = t_qmp_read_line(q, TIMEOUT_MS);
        g_free(word);
        word = summary(line);
        g_string_append_printf(seen, "%s%s", seen->len ? " " : "", word);
    } while (strcmp(word, last));
    g_free(word);
    g_assert_cmpstr(seen->str, ==, expected);
}

/* (Requests to null-co complete at once, and so a job on it is ready when it has started.) */
static void test_events_in_order(void)
{
    TDaemon *d = t_daemon_start("--blockdev null-co,node-name=src,size=1048576,read-zeroes=on "
                                "--blockdev null-co,node-name=dst,size=1048576");
    TQmp *q = t_daemon_qmp(d);

    expect_lines(q, CMD("blockdev-mirror", "'job-id': 'm', 'device': 'src', 'target': 'dst', "
                        "'sync': 'full'"), "created running ready BLOCK_JOB_READY {}");
    expect_lines(q, CMD("block-job-pause", "'device': 'm'"), "standby {}");
    expect_lines(q, CMD("block-job-resume", "'device': 'm'"), "ready {}");
    expect_lines(q, CMD("block-job-complete", "'device': 'm'"), "{}");
    expect_lines(q, NULL, "waiting pending BLOCK_JOB_COMPLETED concluded null");

    expect_lines(q, CMD("blockdev-mirror", "'job-id': 'm', 'device': 'dst', 'target': 'src', "
                        "'sync': 'full', 'auto-finalize': false, 'auto-dismiss': false"),
                 "created running ready BLOCK_JOB_READY {}");
    expect_lines(q, CMD("job-complete", "'id': 'm'"), "{}");
    expect_lines(q, NULL, "waiting pending BLOCK_JOB_PENDING");
    expect_lines(q, CMD("job-finalize", "'id': 'm'"), "BLOCK_JOB_COMPLETED concluded {}");
    expect_lines(q, CMD("job-dismiss", "'id': 'm'"), "null {}");

    expect_lines(q, CMD("blockdev-mirror", "'job-id': 'm', 'device': 'src', 'target': 'dst', "
                        "'sync': 'none'"), "created running ready BLOCK_JOB_READY {}");
    expect_lines(q, CMD("block-job-cancel", "'device': 'm', 'force': true"), "{}");
    expect_lines(q, NULL, "aborting BLOCK_JOB_CANCELLED concluded null");
    t_daemon_stop_ok(d);
}

/* ---- errors ----------------------------------------------------------------------------- */

typedef struct Case {
    const char *command, *error;        /* NULL: it must succeed */
} Case;

static void test_errors(void)
{
    static const Case cases[] = {
        { CMD("job-cancel", "'id': 'no'"), "Job not found" },
        { CMD("job-pause", "'id': 'no'"), "Job not found" },
        { CMD("job-dismiss", "'id': 'no'"), "Job not found" },
        { CMD("block-job-cancel", "'device': 'no'"), "Block job 'no' not found" },
        { CMD("block-job-finalize", "'id': 'no'"), "Block job 'no' not found" },
        { CMD("block-job-set-speed", "'device': 'no', 'speed': 1"),
          "Block job 'no' not found" },
        { CMD("blockdev-mirror", "'device': 'no', 'target': 'dst', 'sync': 'full'"),
          "Cannot find device='no' nor node-name='no'" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'no', 'sync': 'full'"),
          "Cannot find device='no' nor node-name='no'" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full'"),
          "An explicit job ID is required for this node" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full', "
              "'job-id': '1'"), "Invalid job ID '1'" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'foo'"),
          "Parameter 'sync' does not accept value 'foo'" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'bitmap', "
              "'job-id': 'm'"), "Sync mode 'bitmap' not supported" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'src', 'sync': 'full', "
              "'job-id': 'm'"), "Can't mirror node into itself" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'small', 'sync': 'full', "
              "'job-id': 'm'"), "Source and target image have different sizes" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full', "
              "'job-id': 'm', 'granularity': 100"),
          "Parameter 'granularity' expects a value in range [512B, 64MB]" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full', "
              "'job-id': 'm', 'granularity': 1000"),
          "Parameter 'granularity' expects a power of 2" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full', "
              "'job-id': 'm', 'speed': -1"),
          "Parameter 'speed' expects a non-negative value" },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full', "
              "'job-id': 'm', 'replaces': 'no'"),
          "Failed to find node with node-name='no'" },
        { CMD("block-commit", "'device': 'no'"), "Device 'no' not found" },
        { CMD("block-commit", "'device': 'src', 'job-id': 'c'"),
          "cannot commit an image into itself" },
        { CMD("block-commit", "'device': 'src', 'job-id': 'c', 'base-node': 'dst'"),
          "Node 'dst' is not in the backing chain of 'src'" },
        { CMD("block-commit", "'device': 'src', 'job-id': 'c', 'base': 'x', "
              "'base-node': 'src'"), "'base-node' and 'base' are mutually exclusive" },
        /* one that runs, and what cannot be done to it */
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full', "
              "'job-id': 'm', 'speed': 1"), NULL },
        { CMD("blockdev-mirror", "'device': 'src', 'target': 'dst', 'sync': 'full', "
              "'job-id': 'n'"), "Need a root block node" },
        { CMD("blockdev-mirror", "'device': 'other', 'target': 'dst', 'sync': 'full', "
              "'job-id': 'n'"),
          "Node 'dst' is busy: block device is in use by block job: mirror" },
        { CMD("blockdev-mirror", "'device': 'other', 'target': 'small', 'sync': 'full', "
              "'job-id': 'm'"), "Source and target image have different sizes" },
        { CMD("blockdev-mirror", "'device': 'other', 'target': 'other2', 'sync': 'full', "
              "'job-id': 'm'"), "Job ID 'm' already in use" },
        { CMD("block-job-resume", "'device': 'm'"),
          "Can't resume a job that was not paused" },
        { CMD("job-complete", "'id': 'm'"),
          "Job 'm' in state 'running' cannot accept command verb 'complete'" },
        { CMD("job-dismiss", "'id': 'm'"),
          "Job 'm' in state 'running' cannot accept command verb 'dismiss'" },
        { CMD("block-job-pause", "'device': 'm'"), NULL },
        { CMD("block-job-pause", "'device': 'm'"), "Job is already paused" },
        { CMD("block-job-cancel", "'device': 'm'"),
          "The block job for device 'm' is currently paused" },
        { CMD("blockdev-del", "'node-name': 'dst'"), "Node dst is in use" },
        { CMD("block-job-set-speed", "'device': 'm', 'speed': -1"),
          "Parameter 'speed' expects a non-negative value" },
        { CMD("block-job-cancel", "'device': 'm', 'force': true"), NULL },
        { CMD("block-set-write-threshold", "'node-name': 'no', 'write-threshold': 1"),
          "Device 'no' not found" },
    };
    TDaemon *d = t_daemon_start("--blockdev null-co,node-name=src,size=1048576,read-zeroes=on "
                                "--blockdev null-co,node-name=dst,size=1048576 "
                                "--blockdev null-co,node-name=other,size=1048576 "
                                "--blockdev null-co,node-name=other2,size=1048576 "
                                "--blockdev null-co,node-name=small,size=65536");
    TQmp *q = t_daemon_qmp(d);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        if (cases[i].error) {
            t_qmp_fails(q, cases[i].error, "%s", cases[i].command);
        } else {
            t_qmp_run(q, "%s", cases[i].command);
        }
    }
    json_decref(t_qmp_event(q, "BLOCK_JOB_CANCELLED", TIMEOUT_MS));
    t_daemon_stop_ok(d);
}

/* ---- queries ---------------------------------------------------------------------------- */

static void expect_text(json_t *value, const char *expected)
{
    g_autofree char *text = json_dumps(value, JSON_COMPACT);

    g_assert_cmpstr(text, ==, expected);
    json_decref(value);
}

static void test_queries(void)
{
    TDaemon *d = t_daemon_start("--blockdev null-co,node-name=src,size=1048576,read-zeroes=on "
                                "--blockdev null-co,node-name=dst,size=1048576");
    TQmp *q = t_daemon_qmp(d);

    expect_text(t_qmp_ok(q, "{'execute': 'query-jobs'}"), "[]");
    expect_text(t_qmp_ok(q, "{'execute': 'query-block-jobs'}"), "[]");
    t_qmp_run(q, CMD("blockdev-mirror", "'job-id': 'm', 'device': 'src', 'target': 'dst', "
                     "'sync': 'none', 'speed': 100, 'copy-mode': 'write-blocking', "
                     "'auto-dismiss': false"));
    json_decref(t_qmp_event(q, "BLOCK_JOB_READY", TIMEOUT_MS));
    t_qmp_run(q, CMD("job-pause", "'id': 'm'"));
    expect_text(t_qmp_ok(q, "{'execute': 'query-jobs'}"),
                "[{\"id\":\"m\",\"type\":\"mirror\",\"status\":\"standby\","
                "\"current-progress\":0,\"total-progress\":0}]");
    expect_text(t_qmp_ok(q, "{'execute': 'query-block-jobs'}"),
                "[{\"type\":\"mirror\",\"device\":\"m\",\"len\":0,\"offset\":0,"
                "\"busy\":false,\"paused\":true,\"speed\":100,\"io-status\":\"ok\","
                "\"ready\":true,\"status\":\"standby\",\"auto-finalize\":true,"
                "\"auto-dismiss\":false,\"actively-synced\":true}]");
    t_qmp_run(q, CMD("job-cancel", "'id': 'm'"));
    json_decref(t_qmp_event(q, "BLOCK_JOB_CANCELLED", TIMEOUT_MS));
    expect_text(t_qmp_ok(q, "{'execute': 'query-jobs'}"),
                "[{\"id\":\"m\",\"type\":\"mirror\",\"status\":\"concluded\","
                "\"current-progress\":0,\"total-progress\":0,"
                "\"error\":\"Operation canceled\"}]");
    t_qmp_run(q, CMD("block-job-dismiss", "'id': 'm'"));
    t_daemon_stop_ok(d);
}

/* ---- real images ------------------------------------------------------------------------ */

static void make_chain(void)
{
    /* base <- mid <- top <- active, each with data of its own */
    t_make_file("base.raw", 4 << 20, 1);
    g_free(t_run_ok("rm -f mid.qcow2 top.qcow2 active.qcow2;"
                    "qemu-img create -q -f qcow2 -b base.raw -F raw mid.qcow2 &&"
                    "qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 2 3M 192k' "
                    "mid.qcow2 &&"
                    "qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 &&"
                    "qemu-io -f qcow2 -c 'write -P 3 512k 1M' -c 'write -z 2M 128k' "
                    "top.qcow2 &&"
                    "qemu-img create -q -f qcow2 -b top.qcow2 -F qcow2 active.qcow2 &&"
                    "qemu-io -f qcow2 -c 'write -P 4 768k 64k' active.qcow2 &&"
                    "qemu-img convert -O raw active.qcow2 expected.raw"));
}

static TDaemon *start_with_chain(void)
{
    return t_daemon_start("--object iothread,id=io "
        "--blockdev raw,node-name=base,read-only=on,file.driver=file,file.filename=base.raw "
        "--blockdev qcow2,node-name=mid,read-only=on,backing=base,file.driver=file,"
        "file.filename=mid.qcow2 "
        "--blockdev qcow2,node-name=top,read-only=on,backing=mid,file.driver=file,"
        "file.filename=top.qcow2 "
        "--blockdev qcow2,node-name=active,backing=top,file.driver=file,"
        "file.filename=active.qcow2");
}

static void wait_completed(TQmp *q)
{
    json_t *data = t_qmp_event(q, "BLOCK_JOB_COMPLETED", TIMEOUT_MS);

    g_assert_nonnull(data);
    g_assert_null(json_object_get(data, "error"));
    json_decref(data);
}

static void test_commit_of_an_intermediate(gconstpointer opaque)
{
    TDaemon *d;
    TQmp *q;

    if (!t_need("qemu-img") || !t_need("qemu-io")) {
        return;
    }
    make_chain();
    d = start_with_chain();
    q = t_daemon_qmp(d);
    if (opaque) {
        t_qmp_run(q, CMD("x-blockdev-set-iothread", "'node-name': 'active', "
                         "'iothread': 'io'"));
    }
    t_qmp_run(q, CMD("block-commit", "'job-id': 'c', 'device': 'active', 'top-node': 'top', "
                     "'base-node': 'base'"));
    wait_completed(q);
    t_qmp_run(q, CMD("blockdev-del", "'node-name': 'active'"));
    t_daemon_stop_ok(d);
    g_free(t_run_ok("qemu-img compare -q active.qcow2 expected.raw && "
                    "qemu-img info active.qcow2 | grep -q 'backing file: base.raw' && "
                    "qemu-img check -q active.qcow2 && rm mid.qcow2 top.qcow2 && "
                    "qemu-img compare -q active.qcow2 expected.raw"));
}

static void test_active_commit(gconstpointer opaque)
{
    TDaemon *d;
    TQmp *q;

    if (!t_need("qemu-img") || !t_need("qemu-io")) {
        return;
    }
    make_chain();
    d = start_with_chain();
    q = t_daemon_qmp(d);
    if (opaque) {
        t_qmp_run(q, CMD("x-blockdev-set-iothread", "'node-name': 'active', "
                         "'iothread': 'io'"));
    }
    t_qmp_run(q, CMD("block-commit", "'job-id': 'c', 'device': 'active', "
                     "'base-node': 'mid'"));
    json_decref(t_qmp_event(q, "BLOCK_JOB_READY", TIMEOUT_MS));
    t_qmp_run(q, CMD("block-job-complete", "'device': 'c'"));
    wait_completed(q);
    t_daemon_stop_ok(d);
    g_free(t_run_ok("qemu-img compare -q mid.qcow2 expected.raw && "
                    "qemu-img check -q mid.qcow2"));
}

static void test_commit_cancelled(void)
{
    TDaemon *d;
    TQmp *q;

    if (!t_need("qemu-img") || !t_need("qemu-io")) {
        return;
    }
    make_chain();
    d = start_with_chain();
    q = t_daemon_qmp(d);
    t_qmp_run(q, CMD("block-commit", "'job-id': 'c', 'device': 'active', 'top-node': 'top', "
                     "'base-node': 'mid', 'speed': 65536, 'filter-node-name': 'f'"));
    t_qmp_run(q, CMD("job-cancel", "'id': 'c'"));
    json_decref(t_qmp_event(q, "BLOCK_JOB_CANCELLED", TIMEOUT_MS));
    t_qmp_fails(q, "Failed to find node with node-name='f'",
                CMD("x-blockdev-drain", "'node-name': 'f'"));
    /* the base is read-only again, and another job may begin */
    t_qmp_run(q, CMD("block-commit", "'job-id': 'c', 'device': 'active', 'top-node': 'top', "
                     "'base-node': 'mid', 'backing-file': 'mid.qcow2'"));
    wait_completed(q);
    t_daemon_stop_ok(d);
    g_free(t_run_ok("qemu-img compare -q active.qcow2 expected.raw"));
}

static GPid spawn(const char *command)
{
    const char *argv[] = { "/bin/sh", "-c", command, NULL };
    GPid pid;
    g_autoptr(GError) err = NULL;

    g_spawn_async(NULL, (char **)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid,
                  &err);
    g_assert_no_error(err);
    return pid;
}

static void reap_ok(GPid pid)
{
    int status;

    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
}

typedef struct Mirror {
    const char *path, *copy_mode;
    bool iothread, pivot;
} Mirror;

static const Mirror mirrors[] = {
    { "/qmp-jobs/mirror/background/pivot", "background", false, true },
    { "/qmp-jobs/mirror/background/copy", "background", false, false },
    { "/qmp-jobs/mirror/write-blocking/pivot", "write-blocking", true, true },
    { "/qmp-jobs/mirror/write-blocking/copy", "write-blocking", true, false },
    { "/qmp-jobs/mirror/background/iothread", "background", true, true },
};

/* Raw to qcow2 while a client writes; everything it wrote is in the target. */
static void test_mirror_under_load(gconstpointer opaque)
{
    const Mirror *m = opaque;
    TDaemon *d;
    TQmp *q;
    GPid load;

    if (!t_need("qemu-img") || !t_need("qemu-io")) {
        return;
    }
    t_make_file("src.raw", 32 << 20, 7);
    g_free(t_run_ok("rm -f dst.qcow2 nbd.sock; qemu-img create -q -f qcow2 dst.qcow2 32M"));
    d = t_daemon_start("--object iothread,id=io "
                       "--nbd-server addr.type=unix,addr.path=nbd.sock");
    q = t_daemon_qmp(d);
    t_qmp_run(q, NODE("src", "raw", "src.raw"));
    t_qmp_run(q, NODE("dst", "qcow2", "dst.qcow2"));
    t_qmp_run(q, CMD("block-export-add", "'type': 'nbd', 'id': 'e', 'node-name': 'src', "
                     "'writable': true %s"), m->iothread ? ", 'iothread': 'io'" : "");
    load = spawn("for i in 1 2 3 4 5 6 7 8; do "
                 "qemu-io -f raw -c \"aio_write -P $i ${i}M 1M\" "
                 "-c \"aio_write -P 3$i $((i * 3))M 65k\" "
                 "-c \"write -P 4$i $((i * 2 + 10))M 3k\" "
                 "-c \"aio_write -z $((i + 20))M 100k\" -c aio_flush -c flush "
                 "'nbd+unix:///src?socket=nbd.sock' >/dev/null || exit 1; done");
    t_qmp_run(q, CMD("blockdev-mirror", "'job-id': 'm', 'device': 'src', 'target': 'dst', "
                     "'sync': 'full', 'copy-mode': '%s'"), m->copy_mode);
    json_decref(t_qmp_event(q, "BLOCK_JOB_READY", TIMEOUT_MS));
    if (m->pivot) {
        t_qmp_run(q, CMD("block-job-complete", "'device': 'm'"));
        wait_completed(q);
        reap_ok(load);
        /* the same again on the old image, to which nothing has gone since */
        t_daemon_stop_ok(d);
        g_free(t_run_ok("for i in 1 2 3 4 5 6 7 8; do "
                        "qemu-io -f raw -c \"write -P $i ${i}M 1M\" "
                        "-c \"write -P 3$i $((i * 3))M 65k\" "
                        "-c \"write -P 4$i $((i * 2 + 10))M 3k\" "
                        "-c \"write -z $((i + 20))M 100k\" src.raw >/dev/null || exit 1; "
                        "done"));
    } else {
        reap_ok(load);
        t_qmp_run(q, CMD("block-job-cancel", "'device': 'm'"));
        wait_completed(q);
        t_daemon_stop_ok(d);
    }
    g_free(t_run_ok("qemu-img check -q dst.qcow2 && qemu-img compare src.raw dst.qcow2"));
}

typedef struct Shallow {
    const char *path, *sync, *behind, *compat, *copy_mode;
} Shallow;

static const Shallow shallow_mirrors[] = {
    { "/qmp-jobs/mirror/shallow/top", "top", "top.qcow2", "1.1", "background" },
    { "/qmp-jobs/mirror/shallow/top/v2", "top", "top.qcow2", "0.10", "background" },
    { "/qmp-jobs/mirror/shallow/top/write-blocking", "top", "top.qcow2", "1.1",
      "write-blocking" },
    { "/qmp-jobs/mirror/shallow/none", "none", "active.qcow2", "1.1", "background" },
    { "/qmp-jobs/mirror/shallow/none/v2/write-blocking", "none", "active.qcow2", "0.10",
      "write-blocking" },
};

/*
 * The target's backing file is recorded but not open, and its clusters are larger than what
 * the job copies: what is not written of a cluster would hide the backing file afterwards.
 */
static void test_shallow_mirror(gconstpointer opaque)
{
    const Shallow *m = opaque;

    if (!t_need("qemu-img") || !t_need("qemu-io")) {
        return;
    }
    make_chain();
    g_free(t_run_ok("rm -f dst.qcow2 nbd.sock; qemu-img create -q -f qcow2 "
                    "-o cluster_size=512k,compat=%s -b %s -F qcow2 dst.qcow2", m->compat,
                    m->behind));
    TDaemon *d = start_with_chain();
    TQmp *q = t_daemon_qmp(d);
    t_qmp_run(q, CMD("blockdev-add", "'driver': 'qcow2', 'node-name': 'dst', 'backing': null, "
                     "'file': {'driver': 'file', 'filename': 'dst.qcow2'}"));
    t_qmp_run(q, CMD("nbd-server-start", "'addr': {'type': 'unix', 'data': "
                     "{'path': 'nbd.sock'}}"));
    t_qmp_run(q, CMD("block-export-add", "'type': 'nbd', 'id': 'e', 'node-name': 'active', "
                     "'writable': true"));
    t_qmp_run(q, CMD("blockdev-mirror", "'job-id': 'm', 'device': 'active', 'target': 'dst', "
                     "'sync': '%s', 'copy-mode': '%s'"), m->sync, m->copy_mode);
    g_free(t_run_ok("qemu-io -f raw -c 'aio_write -P 5 100k 3k' -c 'aio_write -P 6 120k 3k' "
                    "-c 'aio_write -P 7 1020k 9k' -c 'aio_write -z 2560k 512k' "
                    "-c 'aio_write -z 3600k 40k' -c aio_flush -c 'write -P 8 3328k 512' "
                    "-c 'aio_write -P 9 1500k 40k' -c 'aio_write -P 10 1540k 10k' -c aio_flush "
                    "-c 'discard 3072k 64k' -c flush 'nbd+unix:///active?socket=nbd.sock'"));
    json_decref(t_qmp_event(q, "BLOCK_JOB_READY", TIMEOUT_MS));
    t_qmp_run(q, CMD("block-job-cancel", "'device': 'm'"));
    wait_completed(q);
    t_daemon_stop_ok(d);
    g_free(t_run_ok("qemu-img check -q dst.qcow2 && qemu-img compare active.qcow2 dst.qcow2"));
}

/* ---- more ------------------------------------------------------------------------------- */

static void test_write_threshold(void)
{
    TDaemon *d;
    TQmp *q;

    if (!t_need("qemu-io")) {
        return;
    }
    d = t_daemon_start("--nbd-server addr.type=unix,addr.path=wt.sock "
                       "--blockdev null-co,node-name=n,size=1048576 "
                       "--export nbd,id=e,node-name=n,writable=on");
    q = t_daemon_qmp(d);
    t_qmp_run(q, CMD("block-set-write-threshold", "'node-name': 'n', "
                     "'write-threshold': 65536"));
    json_t *nodes = t_qmp_ok(q, "{'execute': 'query-named-block-nodes'}");
    g_assert_cmpint(json_integer_value(json_object_get(json_array_get(nodes, 0),
                                                       "write_threshold")), ==, 65536);
    json_decref(nodes);
    g_free(t_run_ok("qemu-io -f raw -c 'write 0 64k' -c 'write 60k 8k' -c 'write 128k 64k' "
                    "'nbd+unix:///n?socket=wt.sock'"));
    expect_text(t_qmp_event(q, "BLOCK_WRITE_THRESHOLD", TIMEOUT_MS),
                "{\"node-name\":\"n\",\"amount-exceeded\":4096,\"write-threshold\":65536}");
    g_assert_null(t_qmp_event(q, "BLOCK_WRITE_THRESHOLD", 0));
    t_daemon_stop_ok(d);
}

/* A daemon that is told to quit, or is sent a signal, ends its jobs first. */
static void test_quit_with_jobs(gconstpointer opaque)
{
    TDaemon *d = t_daemon_start("--object iothread,id=io "
                                "--blockdev null-co,node-name=src,size=1048576,read-zeroes=on "
                                "--blockdev null-co,node-name=dst,size=1048576");
    TQmp *q = t_daemon_qmp(d);

    t_qmp_run(q, CMD("x-blockdev-set-iothread", "'node-name': 'src', 'iothread': 'io'"));
    t_qmp_run(q, CMD("blockdev-mirror", "'job-id': 'm', 'device': 'src', 'target': 'dst', "
                     "'sync': 'full', 'speed': 1, 'auto-dismiss': false"));
    t_qmp_run(q, CMD("job-pause", "'id': 'm'"));
    g_assert_cmpint(t_daemon_stop(d, opaque, NULL), ==, 0);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/qmp-jobs/events-in-order", test_events_in_order);
    g_test_add_func("/qmp-jobs/errors", test_errors);
    g_test_add_func("/qmp-jobs/queries", test_queries);
    g_test_add_data_func("/qmp-jobs/commit/intermediate/main-loop", NULL,
                         test_commit_of_an_intermediate);
    g_test_add_data_func("/qmp-jobs/commit/intermediate/iothread", "io",
                         test_commit_of_an_intermediate);
    g_test_add_data_func("/qmp-jobs/commit/active/main-loop", NULL, test_active_commit);
    g_test_add_data_func("/qmp-jobs/commit/active/iothread", "io", test_active_commit);
    g_test_add_func("/qmp-jobs/commit/cancelled", test_commit_cancelled);
    for (size_t i = 0; i < G_N_ELEMENTS(mirrors); i++) {
        g_test_add_data_func(mirrors[i].path, &mirrors[i], test_mirror_under_load);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(shallow_mirrors); i++) {
        g_test_add_data_func(shallow_mirrors[i].path, &shallow_mirrors[i],
                             test_shallow_mirror);
    }
    g_test_add_func("/qmp-jobs/write-threshold", test_write_threshold);
    g_test_add_data_func("/qmp-jobs/quit/command", "quit", test_quit_with_jobs);
    g_test_add_data_func("/qmp-jobs/quit/signal", NULL, test_quit_with_jobs);
    return t_main();
}
