/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk that becomes full below a qcow2 image with clients. Writes fail with ENOSPC and
 * nothing else; what was acknowledged can be read, what was flushed is there after a kill, the
 * image is sound, and once there is room again, writes go on. The disk is a small tmpfs in a
 * mount namespace of the test's own; where none is to be had, the test is skipped.
 */
#include "miniblk/osdep.h"
#include "tests/lib/harness.h"
#include <libnbd.h>
#include <sched.h>
#include <sys/mount.h>

enum {
    MIB = 1024 * 1024, BLOCK = 4096, BLOCKS = 16 * MIB / BLOCK, SECTOR = 512,
    PARALLEL = 8, REGION = BLOCKS / PARALLEL, RUN_MAX = 32, VALUES = 256,
    FAILURES = 60,              /* writes that fail in each phase of a round */
};

static bool own_mounts;

typedef struct Round {
    GRand *rand;
    TDaemon *daemon;
    struct nbd_handle *nbd;
    int next_value;
    int failures;
    uint8_t now[BLOCKS];        /* the value that was last acknowledged... */
    bool certain[BLOCKS];       /* ...and no write has failed there since */
    bool may[BLOCKS][VALUES];   /* what may be there after a kill */
} Round;

typedef struct Write {
    int first, blocks;
    uint8_t value;
    uint8_t *buf;
    int64_t cookie;
} Write;

/* ---- the disk ---------------------------------------------------------------------- */

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

/* While there is one thread only. */
static bool enter_namespace(void)
{
    g_autofree char *users = g_strdup_printf("0 %u 1", (unsigned)getuid());
    g_autofree char *groups = g_strdup_printf("0 %u 1", (unsigned)getgid());

    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && put("/proc/self/uid_map", users) &&
           put("/proc/self/setgroups", "deny") && put("/proc/self/gid_map", groups) &&
           mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void set_room(unsigned long flags, int kib)
{
    g_autofree char *size = g_strdup_printf("size=%dk", kib);
    g_assert_cmpint(mount("none", "full", "tmpfs", flags, size), ==, 0);
}

/* ---- the client -------------------------------------------------------------------- */

static void start(Round *r)
{
    g_autofree char *path = t_path("nbd");

    r->daemon = t_daemon_start(
        "--object iothread,id=io0 --blockdev driver=file,node-name=f,filename=full/d.qcow2 "
        "--blockdev driver=qcow2,node-name=q,file=f,discard=unmap "
        "--nbd-server addr.type=unix,addr.path=%s "
        "--export type=nbd,id=e,node-name=q,iothread=io0,writable=on", path);
    r->nbd = nbd_create();
    nbd_set_export_name(r->nbd, "q");
    if (nbd_connect_unix(r->nbd, path) < 0) {
        g_error("%s", nbd_get_error());
    }
}

static void submit(Round *r, int region, Write *w)
{
    w->blocks = g_rand_int_range(r->rand, 1, RUN_MAX);
    w->first = region * REGION + g_rand_int_range(r->rand, 0, REGION - w->blocks);
    w->value = r->next_value = r->next_value % (VALUES - 1) + 1;
    w->buf = g_malloc(w->blocks * BLOCK);
    memset(w->buf, w->value, w->blocks * BLOCK);
    w->cookie = nbd_aio_pwrite(r->nbd, w->buf, w->blocks * BLOCK, (uint64_t)w->first * BLOCK,
                               NBD_NULL_COMPLETION, 0);
    g_assert_cmpint(w->cookie, >, 0);
}

/* A request that was to leave VALUE there has ended, in an error or not. */
static void note(Round *r, int first, int blocks, uint8_t value, bool failed)
{
    if (failed) {
        g_assert_cmpint(nbd_get_errno(), ==, ENOSPC);
        r->failures++;
    }
    for (int i = first; i < first + blocks; i++) {
        r->may[i][value] = true;
        r->certain[i] = !failed;
        r->now[i] = failed ? r->now[i] : value;
    }
}

static void finish(Round *r, Write *w)
{
    int done;

    while ((done = nbd_aio_command_completed(r->nbd, w->cookie)) == 0) {
        g_assert_cmpint(nbd_poll(r->nbd, -1), >=, 0);
    }
    note(r, w->first, w->blocks, w->value, done < 0);
    g_free(w->buf);
}

/* Must succeed, however full the disk is. */
static void flush(Round *r)
{
    if (nbd_flush(r->nbd, 0) < 0) {
        g_error("flush: %s", nbd_get_error());
    }
    for (int i = 0; i < BLOCKS; i++) {
        if (r->certain[i]) {
            memset(r->may[i], 0, VALUES);
            r->may[i][r->now[i]] = true;
        }
    }
}

static void discard(Round *r)
{
    int first = g_rand_int_range(r->rand, 0, BLOCKS - RUN_MAX);

    int ret = nbd_zero(r->nbd, RUN_MAX * BLOCK, (uint64_t)first * BLOCK, 0);
    note(r, first, RUN_MAX, 0, ret < 0);
}

static void write_until_full(Round *r)
{
    Write w[PARALLEL];

    for (r->failures = 0; r->failures < FAILURES; ) {
        for (int i = 0; i < PARALLEL; i++) {
            submit(r, i, &w[i]);
        }
        for (int i = 0; i < PARALLEL; i++) {
            finish(r, &w[i]);
        }
        if (g_rand_int_range(r->rand, 0, 4) == 0) {
            flush(r);
        }
        if (g_rand_int_range(r->rand, 0, 8) == 0) {
            discard(r);
        }
    }
}

/* ---- what must be there ------------------------------------------------------------- */

static void verify_sector(const Round *r, int block, const uint8_t *buf, bool killed)
{
    for (int i = 1; i < SECTOR; i++) {
        g_assert_cmpint(buf[i], ==, buf[0]);
    }
    if (killed || !r->certain[block]) {
        if (!r->may[block][buf[0]]) {
            g_error("block %d holds %d, which it cannot", block, buf[0]);
        }
    } else if (buf[0] != r->now[block]) {
        g_error("block %d holds %d, not %d", block, buf[0], r->now[block]);
    }
}

static void verify(Round *r, bool killed)
{
    g_autofree uint8_t *buf = g_malloc(BLOCKS * BLOCK);

    for (int i = 0; i < BLOCKS; i += BLOCKS / 16) {
        g_assert_cmpint(nbd_pread(r->nbd, buf + i * BLOCK, BLOCKS / 16 * BLOCK,
                                  (uint64_t)i * BLOCK, 0), ==, 0);
    }
    for (int i = 0; i < BLOCKS * BLOCK; i += SECTOR) {
        verify_sector(r, i / BLOCK, buf + i, killed);
    }
    /* From now on this is what there is. */
    for (int i = 0; i < BLOCKS && killed; i++) {
        r->now[i] = buf[i * BLOCK];
    }
}

/* No corruption; no leaks either, unless the program was killed. */
static void check_image(bool killed)
{
    static const char *const tools[] = { "miniblk-img", "qemu-img" };

    for (int i = 0; i < (t_have("qemu-img") ? 2 : 1); i++) {
        g_autofree char *out = NULL;
        int status = t_run(&out, "%s check -f qcow2 full/d.qcow2", tools[i]);
        if (status != 0 && !(killed && status == 3)) {
            g_error("%s: %d\n%s", tools[i], status, out);
        }
    }
}

static void stop(Round *r)
{
    nbd_close(r->nbd);
    t_daemon_stop_ok(r->daemon);
    check_image(false);
}

static void kill_daemon(Round *r, bool lazy)
{
    t_daemon_kill(r->daemon);
    nbd_close(r->nbd);
    if (!lazy) {                /* else it wants repair, which opening it will do */
        check_image(true);
        g_free(t_run_ok("miniblk-img check -q -r leaks full/d.qcow2"));
    }
}

/* ---- the rounds -------------------------------------------------------------------- */

static void test_full(gconstpointer opts)
{
    if (!own_mounts) {
        g_test_skip("no mount namespace to be had");
        return;
    }
    Round *r = g_new0(Round, 1);
    r->rand = g_rand_new_with_seed(g_test_rand_int());
    for (int i = 0; i < BLOCKS; i++) {
        r->certain[i] = r->may[i][0] = true;
    }
    g_assert_cmpint(mkdir("full", 0755), ==, 0);
    set_room(0, 4096);
    g_free(t_run_ok("miniblk-img create -f qcow2 -o %s full/d.qcow2 16M", (const char *)opts));
    start(r);
    write_until_full(r);
    verify(r, false);
    kill_daemon(r, strstr(opts, "lazy"));
    /* Repairing what a kill has left (lazy refcounts) may need room, too. */
    set_room(MS_REMOUNT, 4096 + 256);
    start(r);
    verify(r, true);
    write_until_full(r);
    verify(r, false);
    stop(r);
    /* room again, while it is in use */
    start(r);
    r->failures = 0;
    write_until_full(r);
    set_room(MS_REMOUNT, 64 * 1024);
    for (int i = 0; i < BLOCKS; i += RUN_MAX) {
        g_autofree uint8_t *buf = g_malloc(RUN_MAX * BLOCK);
        memset(buf, 7, RUN_MAX * BLOCK);
        g_assert_cmpint(nbd_pwrite(r->nbd, buf, RUN_MAX * BLOCK, (uint64_t)i * BLOCK, 0), ==,
                        0);
    }
    memset(r->now, 7, BLOCKS);
    memset(r->certain, true, BLOCKS);
    verify(r, false);
    stop(r);
    g_assert_cmpint(umount("full"), ==, 0);
    g_assert_cmpint(rmdir("full"), ==, 0);
    g_rand_free(r->rand);
    g_free(r);
}

int main(int argc, char **argv)
{
    static const char *const images[] = {
        "cluster_size=64k", "cluster_size=4k", "cluster_size=512,refcount_bits=64",
        "cluster_size=64k,lazy_refcounts=on", "cluster_size=64k,extended_l2=on",
        "cluster_size=4k,compat=0.10", "cluster_size=1M",
    };

    own_mounts = enter_namespace();
    t_init(&argc, &argv);
    for (unsigned i = 0; i < G_N_ELEMENTS(images); i++) {
        g_autofree char *name = g_strdup_printf("/full-disk/%s", images[i]);
        g_test_add_data_func(name, images[i], test_full);
    }
    return t_main();
}
