/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The NBD exports of the daemon against clients that nobody here wrote. */
#include "miniblk/osdep.h"
#include "miniblk/qdict.h"
#include "tests/lib/harness.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define MIB (1024 * 1024)
#define IMAGE_SIZE (32 * MIB)

static TDaemon *d;

static char *uri(const char *export)
{
    return g_strdup_printf("'nbd+unix:///%s?socket=%s/nbd'", export, t_dir());
}

/*
 * raw0 over raw.img in io0 as export "raw0", q0 over q.qcow2 in io1 as "q0", null0 as "null0";
 * "ro" is raw0 again, read-only.
 */
static void daemon_start(void)
{
    t_make_file("raw.img", IMAGE_SIZE, 1);
    g_free(t_run_ok("miniblk-img create -f qcow2 q.qcow2 32M"));
    d = t_daemon_start(
        "--object iothread,id=io0 --object iothread,id=io1 "
        "--blockdev driver=file,node-name=f0,filename=raw.img "
        "--blockdev driver=raw,node-name=raw0,file=f0 "
        "--blockdev driver=file,node-name=f1,filename=q.qcow2 "
        "--blockdev driver=qcow2,node-name=q0,file=f1 "
        "--blockdev driver=null-co,node-name=null0,size=%d,read-zeroes=on "
        "--nbd-server addr.type=unix,addr.path=%s/nbd "
        "--export type=nbd,id=e0,node-name=raw0,iothread=io0,writable=on,description=first "
        "--export type=nbd,id=e1,node-name=q0,iothread=io1,writable=on "
        "--export type=nbd,id=e2,node-name=null0,writable=on "
        "--export type=nbd,id=e3,node-name=raw0,name=ro", IMAGE_SIZE, t_dir());
}

static void daemon_stop(void)
{
    t_daemon_stop_ok(d);
    g_assert_cmpint(access("nbd", F_OK), ==, -1);
}

static json_t *export_info(const char *id)
{
    g_autoptr(json_t) list = t_qmp_ok(t_daemon_qmp(d), "{'execute': 'query-block-exports'}");
    size_t i;
    json_t *item;

    json_array_foreach(list, i, item) {
        if (!g_strcmp0(json_string_value(json_object_get(item, "id")), id)) {
            return json_incref(item);
        }
    }
    return NULL;
}

static int64_t export_number(const char *id, const char *key)
{
    g_autoptr(json_t) info = export_info(id);

    g_assert_nonnull(info);
    return json_integer_value(json_object_get(info, key));
}

/* ---- nbdinfo ---------------------------------------------------------------------- */

static json_t *nbdinfo_export(const char *name)
{
    g_autofree char *u = uri(name);
    g_autofree char *out = t_run_ok("nbdinfo --no-content --json %s", u);
    g_autoptr(json_t) info = json_loads(out, 0, NULL);

    g_assert_nonnull(info);
    return json_incref(json_array_get(json_object_get(info, "exports"), 0));
}

static void test_nbdinfo(void)
{
    g_autoptr(json_t) rw = NULL, ro = NULL;
    static const char *const on[] = { "can_flush", "can_fua", "can_multi_conn", "can_trim",
                                      "can_zero", "can_df" };

    if (!t_need("nbdinfo")) {
        return;
    }
    daemon_start();
    rw = nbdinfo_export("raw0");
    g_assert_cmpint(json_integer_value(json_object_get(rw, "export-size")), ==, IMAGE_SIZE);
    g_assert_cmpstr(json_string_value(json_object_get(rw, "description")), ==, "first");
    g_assert_cmpint(json_integer_value(json_object_get(rw, "block_size_minimum")), ==, 1);
    g_assert_cmpint(json_integer_value(json_object_get(rw, "block_size_preferred")), ==,
                    4096);
    g_assert_cmpint(json_integer_value(json_object_get(rw, "block_size_maximum")), ==,
                    32 * MIB);
    g_assert_true(json_is_false(json_object_get(rw, "is_read_only")));
    for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
        g_assert_true(json_is_true(json_object_get(rw, on[i])));
    }
    ro = nbdinfo_export("ro");
    g_assert_true(json_is_true(json_object_get(ro, "is_read_only")));
    g_assert_true(json_is_false(json_object_get(ro, "can_trim")));
    g_assert_true(json_is_false(json_object_get(ro, "can_zero")));
    daemon_stop();
}

static void test_nbdinfo_list(void)
{
    g_autofree char *u = uri(""), *out = NULL, *nope = uri("nope"), *error = NULL;
    g_autoptr(json_t) info = NULL;

    if (!t_need("nbdinfo")) {
        return;
    }
    daemon_start();
    out = t_run_ok("nbdinfo --json --list %s", u);
    info = json_loads(out, 0, NULL);
    g_assert_cmpuint(json_array_size(json_object_get(info, "exports")), ==, 4);
    g_assert_cmpint(t_run(&error, "nbdinfo %s", nope), !=, 0);
    daemon_stop();
}

/* ---- whole images ----------------------------------------------------------------- */

static void round_trip(const char *export, const char *image, const char *format)
{
    g_autofree char *u = uri(export);

    t_make_file("src.img", IMAGE_SIZE, 2);
    /* A hole in the middle, so that zeroes and block status are used. */
    g_assert_cmpint(t_run(NULL, "fallocate -p -o 8M -l 4M src.img"), ==, 0);
    daemon_start();
    g_free(t_run_ok("nbdcopy src.img %s", u));
    g_free(t_run_ok("nbdcopy %s back.img", u));
    g_free(t_run_ok("cmp src.img back.img"));
    if (t_have("qemu-img")) {
        g_free(t_run_ok("qemu-img compare -f raw -F raw src.img %s", u));
    }
    daemon_stop();
    g_free(t_run_ok("miniblk-img compare -f raw -F %s src.img %s", format, image));
}

static void test_nbdcopy_raw(void)
{
    if (t_need("nbdcopy")) {
        round_trip("raw0", "raw.img", "raw");
    }
}

static void test_nbdcopy_qcow2(void)
{
    if (t_need("nbdcopy")) {
        round_trip("q0", "q.qcow2", "qcow2");
        if (t_have("qemu-img")) {
            g_free(t_run_ok("qemu-img check q.qcow2"));
        }
    }
}

static void test_qemu_img(void)
{
    g_autofree char *u = uri("q0");

    if (!t_need("qemu-img")) {
        return;
    }
    t_make_file("src.img", IMAGE_SIZE, 3);
    daemon_start();
    g_free(t_run_ok("qemu-img convert -n -f raw -O raw -m 16 -W src.img %s", u));
    g_free(t_run_ok("qemu-img compare -f raw -F raw src.img %s", u));
    g_free(t_run_ok("qemu-img convert -f raw -O qcow2 %s out.qcow2", u));
    g_free(t_run_ok("qemu-img compare -f raw -F qcow2 src.img out.qcow2"));
    daemon_stop();
    g_free(t_run_ok("qemu-img compare -f raw -F qcow2 src.img q.qcow2"));
    g_free(t_run_ok("qemu-img check q.qcow2"));
}

static void test_qemu_io(void)
{
    g_autofree char *u = uri("raw0"), *ro = uri("ro"), *out = NULL;

    if (!t_need("qemu-io")) {
        return;
    }
    daemon_start();
    g_free(t_run_ok("qemu-io -f raw %s -c 'write -P 5 1 1M' -c 'read -P 5 1 1M' "
                    "-c 'write -f -P 6 512k 64k' -c 'write -z 768k 4k' -c 'read -P 0 768k 4k' "
                    "-c 'write -z -u 2M 1M' -c 'read -P 0 2M 1M' "
                    "-c 'discard 4M 1M' -c flush -c 'read -P 6 512k 64k'", u));
    g_assert_cmpint(t_run(&out, "qemu-io -f raw %s -c 'write 0 512'", ro), !=, 0);
    daemon_stop();
}

/* ---- under load ------------------------------------------------------------------- */

typedef struct Fio {
    GPid pid;
    char *log;          /* what it prints */
    bool running;
    int wait_status;
} Fio;

static void fio_setup(gpointer opaque)
{
    /* Nothing may outlive a test program that was aborted. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static Fio *fio_start(const char *export, const char *args)
{
    Fio *fio = g_new0(Fio, 1);
    g_autofree char *u = uri(export), *command = NULL;
    g_autoptr(GError) err = NULL;

    fio->log = t_path("fio-%s.log", export);
    command = g_strdup_printf("exec fio --ioengine=nbd --output-format=terse --name=load "
                              "--uri=%s %s > %s 2>&1", u, args, fio->log);
    char *argv[] = { "sh", "-c", command, NULL };
    g_spawn_async(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                  fio_setup, NULL, &fio->pid, &err);
    g_assert_no_error(err);
    fio->running = true;
    return fio;
}

static bool fio_running(Fio *fio)
{
    if (fio->running && waitpid(fio->pid, &fio->wait_status, WNOHANG) == fio->pid) {
        fio->running = false;
    }
    return fio->running;
}

/* The exit status of fio; *OUTPUT (may be NULL) is what it printed. */
static int fio_join(Fio *fio, char **output)
{
    int status;

    if (fio->running) {
        g_assert_cmpint(waitpid(fio->pid, &fio->wait_status, 0), ==, fio->pid);
    }
    g_assert_true(WIFEXITED(fio->wait_status));
    status = WEXITSTATUS(fio->wait_status);
    if (output) {
        g_assert_true(g_file_get_contents(fio->log, output, NULL, NULL));
    }
    unlink(fio->log);
    g_free(fio->log);
    g_free(fio);
    return status;
}

#define FIO_VERIFY "--rw=randwrite --bs=4k --iodepth=32 --size=32m --verify=crc32c "     \
                   "--verify_fatal=1 --do_verify=1 --randseed=7"
#define FIO_ENDLESS "--rw=randrw --bs=4k --iodepth=16 --size=32m --time_based --runtime=100"

/* Until the export has a client that has been served. */
static void wait_for_requests(const char *id)
{
    while (export_number(id, "requests") == 0) {
        g_assert_true(t_daemon_alive(d));
    }
}

static void move_while(Fio *a, Fio *b)
{
    static const char *const homes[] = { "'io0'", "'io1'", "null" };
    unsigned moves = 0;

    while (fio_running(a) || fio_running(b)) {
        t_qmp_run(t_daemon_qmp(d), "{'execute': 'blockdev-set-iothread', 'arguments': "
                  "{'node-name': 'raw0', 'iothread': %s}}", homes[moves % 3]);
        t_qmp_run(t_daemon_qmp(d), "{'execute': 'blockdev-set-iothread', 'arguments': "
                  "{'node-name': 'q0', 'iothread': %s}}", homes[(moves + 1) % 3]);
        moves++;
    }
    g_test_message("%u moves of each node", moves);
    g_assert_cmpuint(moves, >, 0);
}

static void test_moves_under_fio(void)
{
    Fio *a, *b;
    g_autofree char *out_a = NULL, *out_b = NULL;

    if (!t_need("fio")) {
        return;
    }
    daemon_start();
    a = fio_start("raw0", FIO_VERIFY);
    b = fio_start("q0", FIO_VERIFY);
    move_while(a, b);
    int status_a = fio_join(a, &out_a), status_b = fio_join(b, &out_b);
    if (status_a || status_b) {
        g_error("fio: %s%s", out_a, out_b);
    }
    daemon_stop();
    if (t_have("qemu-img")) {
        g_free(t_run_ok("qemu-img check q.qcow2"));
    }
}

static void test_export_del(void)
{
    Fio *fio;
    g_autoptr(json_t) event = NULL;

    if (!t_need("fio")) {
        return;
    }
    daemon_start();
    fio = fio_start("raw0", FIO_ENDLESS);
    wait_for_requests("e0");
    t_qmp_fails(t_daemon_qmp(d), "export 'e0' still in use",
                "{'execute': 'block-export-del', 'arguments': {'id': 'e0'}}");
    g_assert_true(fio_running(fio));
    t_qmp_run(t_daemon_qmp(d), "{'execute': 'block-export-del', 'arguments': "
              "{'id': 'e0', 'mode': 'hard'}}");
    event = t_qmp_event(t_daemon_qmp(d), "BLOCK_EXPORT_DELETED", 60000);
    g_assert_nonnull(event);
    g_assert_cmpstr(json_string_value(json_object_get(event, "id")), ==, "e0");
    g_assert_cmpint(fio_join(fio, NULL), !=, 0);
    g_assert_null(export_info("e0"));
    /* idle ones go without force */
    t_qmp_run(t_daemon_qmp(d), "{'execute': 'block-export-del', 'arguments': {'id': 'e1'}}");
    daemon_stop();
}

static void test_server_stop(void)
{
    Fio *a, *b;

    if (!t_need("fio")) {
        return;
    }
    daemon_start();
    a = fio_start("raw0", FIO_ENDLESS);
    b = fio_start("null0", FIO_ENDLESS);
    wait_for_requests("e0");
    wait_for_requests("e2");
    t_qmp_run(t_daemon_qmp(d), "{'execute': 'nbd-server-stop'}");
    g_assert_cmpint(fio_join(a, NULL), !=, 0);
    g_assert_cmpint(fio_join(b, NULL), !=, 0);
    t_qmp_fails(t_daemon_qmp(d), "NBD server not running",
                "{'execute': 'nbd-server-stop'}");
    g_assert_null(export_info("e0"));
    daemon_stop();
}

static void test_quit(gconstpointer opaque)
{
    bool by_qmp = GPOINTER_TO_INT(opaque);
    Fio *fio;

    if (!t_need("fio")) {
        return;
    }
    daemon_start();
    fio = fio_start("raw0", FIO_ENDLESS);
    wait_for_requests("e0");
    g_assert_cmpint(t_daemon_stop(d, by_qmp, NULL), ==, 0);
    g_assert_cmpint(fio_join(fio, NULL), !=, 0);
    g_assert_cmpint(access("nbd", F_OK), ==, -1);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/nbd/nbdinfo/export", test_nbdinfo);
    g_test_add_func("/nbd/nbdinfo/list", test_nbdinfo_list);
    g_test_add_func("/nbd/nbdcopy/raw", test_nbdcopy_raw);
    g_test_add_func("/nbd/nbdcopy/qcow2", test_nbdcopy_qcow2);
    g_test_add_func("/nbd/qemu-img", test_qemu_img);
    g_test_add_func("/nbd/qemu-io", test_qemu_io);
    g_test_add_func("/nbd/load/moves", test_moves_under_fio);
    g_test_add_func("/nbd/load/export-del", test_export_del);
    g_test_add_func("/nbd/load/server-stop", test_server_stop);
    g_test_add_data_func("/nbd/load/quit", GINT_TO_POINTER(true), test_quit);
    g_test_add_data_func("/nbd/load/sigterm", GINT_TO_POINTER(false), test_quit);
    return t_main();
}
