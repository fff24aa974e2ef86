/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The NBD exports of the daemon through libnbd, with its checks on our behalf switched off. */
#include "miniblk/osdep.h"
#include "tests/lib/harness.h"
#include <libnbd.h>

#define MIB (1024 * 1024)
#define IMAGE_SIZE (16 * MIB)

static TDaemon *d;

static void daemon_start(void)
{
    t_make_file("raw.img", IMAGE_SIZE, 1);
    d = t_daemon_start(
        "--object iothread,id=io0 --object iothread,id=io1 "
        "--blockdev driver=file,node-name=f0,filename=raw.img "
        "--blockdev driver=raw,node-name=raw0,file=f0 "
        "--nbd-server addr.type=unix,addr.path=%s/nbd "
        "--export type=nbd,id=e0,node-name=raw0,iothread=io0,writable=on "
        "--export type=nbd,id=e1,node-name=raw0,name=ro", t_dir());
}

/* A handle that sends what it is told to, however wrong. */
static struct nbd_handle *handle_new(void)
{
    struct nbd_handle *nbd = nbd_create();

    g_assert_nonnull(nbd);
    g_assert_cmpint(nbd_set_strict_mode(nbd, 0), ==, 0);
    return nbd;
}

static void must_connect(struct nbd_handle *nbd, const char *export)
{
    g_autofree char *path = t_path("nbd");

    nbd_set_export_name(nbd, export);
    if (nbd_connect_unix(nbd, path) < 0) {
        g_error("%s", nbd_get_error());
    }
}

static void must_fail(int ret, int err)
{
    g_assert_cmpint(ret, ==, -1);
    g_assert_cmpint(nbd_get_errno(), ==, err);
}

static void nbd_end(struct nbd_handle *nbd)
{
    g_assert_cmpint(nbd_shutdown(nbd, 0), ==, 0);
    nbd_close(nbd);
}

/* ---- negotiation ------------------------------------------------------------------ */

static int context_name(void *opaque, const char *name)
{
    g_string_append_printf(opaque, "%s,", name);
    return 0;
}

static void test_options(void)
{
    g_autofree char *path = t_path("nbd"), *name = NULL;
    g_autoptr(GString) contexts = g_string_new("");
    struct nbd_handle *nbd;

    daemon_start();
    nbd = handle_new();
    nbd_set_opt_mode(nbd, true);
    nbd_set_full_info(nbd, true);
    g_assert_cmpint(nbd_connect_unix(nbd, path), ==, 0);

    nbd_set_export_name(nbd, "nope");
    must_fail(nbd_opt_info(nbd), ENOENT);
    nbd_set_export_name(nbd, "raw0");
    g_assert_cmpint(nbd_opt_info(nbd), ==, 0);
    g_assert_cmpint(nbd_get_size(nbd), ==, IMAGE_SIZE);
    name = nbd_get_canonical_export_name(nbd);
    g_assert_cmpstr(name, ==, "raw0");
    g_assert_cmpint(nbd_opt_list_meta_context(nbd, (nbd_context_callback) {
                        .callback = context_name, .user_data = contexts }), ==, 1);
    g_assert_cmpstr(contexts->str, ==, "base:allocation,");

    /* a failed GO leaves the negotiation open */
    nbd_set_export_name(nbd, "nope");
    must_fail(nbd_opt_go(nbd), ENOENT);
    nbd_set_export_name(nbd, "raw0");
    g_assert_cmpint(nbd_opt_go(nbd), ==, 0);
    nbd_end(nbd);

    nbd = handle_new();
    nbd_set_opt_mode(nbd, true);
    g_assert_cmpint(nbd_connect_unix(nbd, path), ==, 0);
    g_assert_cmpint(nbd_opt_abort(nbd), ==, 0);
    nbd_close(nbd);
    t_daemon_stop_ok(d);
}

static void test_tls_refused(void)
{
    g_autofree char *path = t_path("nbd");
    struct nbd_handle *nbd = handle_new();

    if (!nbd_supports_tls(nbd)) {
        g_test_skip("libnbd is built without TLS");
        nbd_close(nbd);
        return;
    }
    daemon_start();
    nbd_set_tls(nbd, LIBNBD_TLS_REQUIRE);
    g_assert_cmpint(nbd_connect_unix(nbd, path), ==, -1);
    nbd_close(nbd);
    /* where it is not insisted on, the connection goes on without */
    nbd = handle_new();
    nbd_set_tls(nbd, LIBNBD_TLS_ALLOW);
    must_connect(nbd, "raw0");
    g_assert_cmpint(nbd_get_tls_negotiated(nbd), ==, 0);
    nbd_end(nbd);
    t_daemon_stop_ok(d);
}

/* ---- requests --------------------------------------------------------------------- */

static void check_requests(bool structured)
{
    struct nbd_handle *nbd = handle_new();
    g_autofree char *buf = g_malloc0(MIB), *back = g_malloc(MIB);

    nbd_set_request_structured_replies(nbd, structured);
    must_connect(nbd, "raw0");
    g_assert_cmpint(nbd_get_structured_replies_negotiated(nbd), ==, structured);
    g_assert_cmpint(nbd_can_df(nbd), ==, structured);

    memset(buf, 7, MIB);
    g_assert_cmpint(nbd_pwrite(nbd, buf, MIB, 12345, LIBNBD_CMD_FLAG_FUA), ==, 0);
    g_assert_cmpint(nbd_pread(nbd, back, MIB, 12345, 0), ==, 0);
    g_assert_cmpmem(buf, MIB, back, MIB);
    g_assert_cmpint(nbd_zero(nbd, 4096, 20000, LIBNBD_CMD_FLAG_NO_HOLE), ==, 0);
    g_assert_cmpint(nbd_zero(nbd, 4096, 40000, LIBNBD_CMD_FLAG_FUA), ==, 0);
    memset(buf, 0, 4096);
    g_assert_cmpint(nbd_pread(nbd, back, 4096, 20000, 0), ==, 0);
    g_assert_cmpmem(buf, 4096, back, 4096);
    g_assert_cmpint(nbd_trim(nbd, MIB, 8 * MIB, LIBNBD_CMD_FLAG_FUA), ==, 0);
    g_assert_cmpint(nbd_flush(nbd, 0), ==, 0);

    must_fail(nbd_pread(nbd, back, 2, IMAGE_SIZE - 1, 0), EINVAL);
    must_fail(nbd_pwrite(nbd, back, 2, IMAGE_SIZE - 1, 0), ENOSPC);
    must_fail(nbd_trim(nbd, 2, IMAGE_SIZE - 1, 0), EINVAL);
    must_fail(nbd_zero(nbd, 2, IMAGE_SIZE - 1, 0), ENOSPC);
    must_fail(nbd_cache(nbd, 4096, 0, 0), EINVAL);
    must_fail(nbd_pwrite(nbd, back, 2, 0, 0x40), EINVAL);
    /* and after all that the connection is in order */
    g_assert_cmpint(nbd_pread(nbd, back, 512, 0, 0), ==, 0);
    nbd_end(nbd);
}

static void test_requests(const void *opaque)
{
    daemon_start();
    check_requests(GPOINTER_TO_INT(opaque));
    t_daemon_stop_ok(d);
}

static void test_read_only(void)
{
    struct nbd_handle *nbd;
    char buf[512] = { 0 };

    daemon_start();
    nbd = handle_new();
    must_connect(nbd, "ro");
    g_assert_cmpint(nbd_is_read_only(nbd), ==, 1);
    must_fail(nbd_pwrite(nbd, buf, sizeof(buf), 0, 0), EPERM);
    must_fail(nbd_zero(nbd, 512, 0, 0), EPERM);
    must_fail(nbd_trim(nbd, 512, 0, 0), EPERM);
    g_assert_cmpint(nbd_pread(nbd, buf, sizeof(buf), 0, 0), ==, 0);
    nbd_end(nbd);
    t_daemon_stop_ok(d);
}

static int add_extents(void *opaque, const char *context, uint64_t offset,
                       uint32_t *entries, size_t count, int *error)
{
    uint64_t *total = opaque;

    g_assert_cmpstr(context, ==, "base:allocation");
    for (size_t i = 0; i < count; i += 2) {
        total[0] += entries[i];
        total[1] += entries[i + 1] & 2 ? entries[i] : 0;
    }
    return 0;
}

static void test_block_status(void)
{
    struct nbd_handle *nbd;
    uint64_t total[2] = { 0 };

    daemon_start();
    nbd = handle_new();
    nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
    must_connect(nbd, "raw0");
    g_assert_cmpint(nbd_can_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION), ==, 1);
    g_assert_cmpint(nbd_zero(nbd, 4 * MIB, 4 * MIB, 0), ==, 0);
    g_assert_cmpint(nbd_block_status(nbd, IMAGE_SIZE, 0, (nbd_extent_callback) {
                        .callback = add_extents, .user_data = total }, 0), ==, 0);
    g_assert_cmpuint(total[0], <=, IMAGE_SIZE);
    g_assert_cmpuint(total[0], >=, 4 * MIB);
    g_assert_cmpuint(total[1], <=, 4 * MIB);
    nbd_end(nbd);
    t_daemon_stop_ok(d);
}

/* ---- many at once ----------------------------------------------------------------- */

enum { DEPTH = 200, LEN = 8192 };

/* More in flight than the server takes, across moves: all arrive, each with its data. */
static void test_deep_queue(void)
{
    static const char *const homes[] = { "'io1'", "null", "'io0'" };
    g_autofree uint8_t *out = g_malloc(DEPTH * LEN), *in = g_malloc(DEPTH * LEN);
    struct nbd_handle *nbd;

    daemon_start();
    nbd = handle_new();
    must_connect(nbd, "raw0");
    for (unsigned round = 0; round < 6; round++) {
        for (int i = 0; i < DEPTH; i++) {
            memset(out + i * LEN, i + round, LEN);
            g_assert_cmpint(nbd_aio_pwrite(nbd, out + i * LEN, LEN, i * LEN,
                                           NBD_NULL_COMPLETION, 0), >=, 0);
        }
        t_qmp_run(t_daemon_qmp(d), "{'execute': 'blockdev-set-iothread', 'arguments': "
                  "{'node-name': 'raw0', 'iothread': %s}}", homes[round % 3]);
        while (nbd_aio_in_flight(nbd) > 0) {
            g_assert_cmpint(nbd_poll(nbd, -1), >=, 0);
            while (nbd_aio_peek_command_completed(nbd) > 0) {
                int64_t cookie = nbd_aio_peek_command_completed(nbd);
                g_assert_cmpint(nbd_aio_command_completed(nbd, cookie), ==, 1);
            }
        }
        g_assert_cmpint(nbd_pread(nbd, in, DEPTH * LEN, 0, 0), ==, 0);
        g_assert_cmpmem(in, DEPTH * LEN, out, DEPTH * LEN);
    }
    nbd_end(nbd);
    t_daemon_stop_ok(d);
}

int main(int argc, char **argv)
{
    t_init(&argc, &argv);
    g_test_add_func("/libnbd/options", test_options);
    g_test_add_func("/libnbd/tls-refused", test_tls_refused);
    g_test_add_data_func("/libnbd/requests/simple", GINT_TO_POINTER(false), test_requests);
    g_test_add_data_func("/libnbd/requests/structured", GINT_TO_POINTER(true),
                         test_requests);
    g_test_add_func("/libnbd/read-only", test_read_only);
    g_test_add_func("/libnbd/block-status", test_block_status);
    g_test_add_func("/libnbd/deep-queue", test_deep_queue);
    return t_main();
}
